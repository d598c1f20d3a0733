//! What a gateway and an inference pod tell each other about credit: how much work the pod takes at once.
//!
//! A pod takes work for its next few batches, and no more: the rest waits at the gateway, where it can still go to
//! whichever pod is free first. Each lane has credit of its own, so that bulk work in hand never keeps interactive work
//! out; which runs next is then for the pod's queue to decide. A gateway that keeps count marks its requests with [`GRANTED_HEADER`]; the pod
//! answers such a request, or, when it has all the work it gives credit for, refuses it untouched with
//! [`NO_CREDIT_HEADER`], and the request goes back to its old place. Both tell a [`PodLoad`].

use std::fmt;

/// Request header, with the value `true`: its sender keeps count of this pod's credit, and has the request wait if the
/// pod has none. Without it a pod queues what comes up to its own bounds.
pub const GRANTED_HEADER: &str = "x-kembed-granted";

/// Response header, with the value `true`, of a 503 to a granted request: nothing was done with it, for lack of credit.
pub const NO_CREDIT_HEADER: &str = "x-kembed-no-credit";

/// Response header: a [`PodLoad`]. Only granted requests get it.
pub const POD_LOAD_HEADER: &str = "x-kembed-pod-load";

/// What a pod tells with each answer to a granted request, as a dictionary of RFC 9651: `credit=2048, work=17, rate=4210, sessions=2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLoad {
    /// Tokens of one lane that it takes at once. It takes one more request of a lane while it has less than this of that
    /// lane in hand, however large.
    pub credit: u64,
    /// Tokens of the request that this answers, as the pod counted them; 0 if it did not count.
    pub work: u64,
    /// Tokens a second that the whole pod computes while it has enough to do; 0 before it was measured.
    pub rate: u64,
    /// Batches that it runs at the same time; 0 if it does not say. A long request holds up short ones only where it is in
    /// all sessions.
    pub sessions: u64,
}

impl PodLoad {
    /// Reads what [`PodLoad`] writes. Members that are not known are passed over, for a later pod may tell more.
    pub fn parse(value: &str) -> Option<Self> {
        let mut load = Self::default();
        let mut has_credit = false;
        let mut rest = value.as_bytes();
        // By hand, and each byte is looked at once: each answer of a pod has one of these.
        while !rest.is_empty() {
            let member = rest.trim_ascii_start();
            let equals = member.iter().position(|byte| *byte == b'=')?;
            let (key, after) = (&member[..equals], &member[equals + 1..]);
            let field = match key {
                b"credit" => {
                    has_credit = true;
                    &mut load.credit
                }
                b"work" => &mut load.work,
                b"rate" => &mut load.rate,
                b"sessions" => &mut load.sessions,
                _ => {
                    let comma = after.iter().position(|byte| *byte == b',');
                    rest = comma.map_or(&[], |comma| &after[comma + 1..]);
                    continue;
                }
            };
            (*field, rest) = number(after)?;
        }
        has_credit.then_some(load)
    }
}

/// A number, of which nothing but digits is one, and what stands behind the comma after it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let begin = text.trim_ascii_start();
    let (mut number, mut rest) = (0u64, begin);
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        rest = after;
    }
    let has_digits = rest.len() < begin.len();
    match rest.trim_ascii_start() {
        [] if has_digits => Some((number, &[])),
        [b',', rest @ ..] if has_digits => Some((number, rest)),
        _ => None,
    }
}

impl fmt::Display for PodLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { credit, work, rate, sessions } = self;
        write!(f, "credit={credit}, work={work}, rate={rate}, sessions={sessions}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers in any::<[u64; 4]>()) {
            let [credit, work, rate, sessions] = numbers;
            let load = PodLoad { credit, work, rate, sessions };
            prop_assert_eq!(PodLoad::parse(&load.to_string()), Some(load));
        }

        #[test]
        fn nothing_that_is_sent_makes_it_panic(value in any::<String>()) {
            let _ = PodLoad::parse(&value);
        }
    }

    #[test]
    fn a_later_pod_may_tell_more() {
        let load = PodLoad { credit: 8, ..PodLoad::default() };
        assert_eq!(PodLoad::parse("credit=8, temperature=70"), Some(load));
        assert_eq!(PodLoad::parse("temperature=70"), None, "without a credit it says nothing");
        for nonsense in
            ["", ",", "credit", "credit=", "credit=-1", "credit=1x", "credit=99999999999999999999"]
        {
            assert_eq!(PodLoad::parse(nonsense), None, "{nonsense}");
        }
    }
}
