//! What a request took.

use std::time::Duration;

/// The work of a request, and its time in each stage. Zero where it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Tokens that it was computed for, special ones included.
    pub tokens: usize,
    /// From its text to tokens, with the wait for a thread that does it.
    pub tokenise: Duration,
    /// From queued until the first of its inputs ran.
    pub queue: Duration,
    /// From then until the last had run.
    pub run: Duration,
}

impl Effort {
    /// For people with a browser's developer tools, and for gateways: the value of a `Server-Timing` header, in
    /// milliseconds.
    pub fn server_timing(&self) -> String {
        let [tokenise, queue, run] =
            [self.tokenise, self.queue, self.run].map(|time| time.as_secs_f64() * 1e3);
        format!("tokenize;dur={tokenise:.3}, queue;dur={queue:.3}, run;dur={run:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds() {
        let effort = Effort {
            tokens: 3,
            tokenise: Duration::from_micros(113),
            queue: Duration::ZERO,
            run: Duration::from_millis(1006),
        };
        assert_eq!(effort.server_timing(), "tokenize;dur=0.113, queue;dur=0.000, run;dur=1006.000");
    }
}
