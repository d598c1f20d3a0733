//! The most that was needed lately.

use std::collections::VecDeque;

/// What was needed, by when. Only what nothing later exceeds is kept.
#[derive(Clone, Debug, Default)]
pub struct Peak(VecDeque<(f64, u32)>);

impl Peak {
    /// So many are needed at `now`, in seconds. What was needed more than `hold` seconds ago counts no more. Gives the most.
    pub fn push(&mut self, now: f64, need: u32, hold: f64) -> u32 {
        while self.0.back().is_some_and(|&(_, last)| last <= need) {
            self.0.pop_back();
        }
        self.0.push_back((now, need));
        while self.0.front().is_some_and(|&(when, _)| when + hold < now) {
            self.0.pop_front();
        }
        self.0.front().map_or(need, |&(_, most)| most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_most_of_the_last_seconds(needs in proptest::collection::vec(0u32..9, 1..60), hold in 0usize..20) {
            let mut peak = Peak::default();
            for (now, &need) in needs.iter().enumerate() {
                let most = needs[now.saturating_sub(hold)..=now].iter().max().copied();
                prop_assert_eq!(Some(peak.push(now as f64, need, hold as f64)), most);
            }
        }
    }
}
