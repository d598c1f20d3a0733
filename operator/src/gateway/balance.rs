//! Which pod is asked first, and which next.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Gives the pods of one service their turn.
#[derive(Debug, Default)]
pub struct Rotation(AtomicUsize);

impl Rotation {
    /// Each of `pods` once, in their order, beginning one further at each call.
    pub fn order<'a, T>(&self, pods: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        // `max`: without pods there is nothing to begin with, and nothing to divide by.
        let (later, first) = pods.split_at(turn % pods.len().max(1));
        first.iter().chain(later)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_go_round() {
        let rotation = Rotation::default();
        let first = || *rotation.order(&["a", "b", "c"]).next().expect("three pods");
        assert_eq!([first(), first(), first(), first()], ["a", "b", "c", "a"]);
    }

    #[test]
    fn the_next_one_is_asked_when_the_first_refuses() {
        let rotation = Rotation::default();
        rotation.order(&[(); 3]).for_each(drop);
        assert_eq!(rotation.order(&["a", "b", "c"]).collect::<Vec<_>>(), [&"b", &"c", &"a"]);
    }

    proptest! {
        #[test]
        fn each_pod_once_whatever_the_turn(count in 0usize..20, turn in any::<usize>()) {
            let pods: Vec<usize> = (0..count).collect();
            let mut asked: Vec<usize> = Rotation(AtomicUsize::new(turn)).order(&pods).copied().collect();
            asked.sort_unstable();
            prop_assert_eq!(asked, pods);
        }

        #[test]
        fn over_whole_rounds_all_pods_begin_equally_often(count in 1usize..20, rounds in 1usize..5) {
            let pods: Vec<usize> = (0..count).collect();
            let rotation = Rotation::default();
            let mut begun = vec![0; count];
            for _ in 0..count * rounds {
                begun[*rotation.order(&pods).next().expect("at least one pod")] += 1;
            }
            prop_assert_eq!(begun, vec![rounds; count]);
        }
    }
}
