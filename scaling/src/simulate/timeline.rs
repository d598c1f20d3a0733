//! What happened when, for plots.

use crate::simulate::{
    trace::{Arrival, Trace},
    world::Watch,
};

/// A play cut into moments of equal length.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Seconds of a moment.
    pub step: f64,
    /// The moments in order.
    pub moments: Vec<Moment>,
}

/// What happened in one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Requests that came.
    pub requests: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Pods at its end, those that start among them.
    pub pods: u32,
    /// Pods that answer, at its end.
    pub ready: u32,
    /// Seconds that the requests took that came in it.
    latencies: Vec<f32>,
}

impl Moment {
    /// The latency, in seconds, that this share of the requests that came in it were answered within; `None` if none was.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f32::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map(|&seconds| f64::from(seconds))
    }
}

impl Timeline {
    /// As many moments as told, which the trace is cut into.
    pub fn new(trace: &Trace, moments: usize) -> Self {
        let step = (trace.seconds() / moments as f64).max(1e-9);
        Self { step, moments: vec![Moment::default(); moments] }
    }

    fn at(&self, at: f64) -> usize {
        ((at / self.step) as usize).min(self.moments.len() - 1)
    }
}

impl Watch for Timeline {
    fn arrive(&mut self, arrival: &Arrival) {
        let at = self.at(arrival.at);
        let moment = &mut self.moments[at];
        moment.requests += 1;
        moment.tokens += u64::from(arrival.tokens);
    }

    fn answer(&mut self, at: f64, seconds: f64) {
        let came = self.at(at - seconds);
        self.moments[came].latencies.push(seconds as f32);
    }

    fn count(&mut self, at: f64, pods: u32, ready: u32) {
        // Counts hold until the next; what comes after the end of the trace is not shown.
        if at > self.step * self.moments.len() as f64 {
            return;
        }
        let now = self.at(at);
        for moment in &mut self.moments[now..] {
            (moment.pods, moment.ready) = (pods, ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_told_where_it_belongs() {
        let trace = Trace::new(vec![Arrival { at: 10., tokens: 5 }], 100.);
        let mut timeline = Timeline::new(&trace, 10);
        timeline.count(0., 1, 1);
        timeline.arrive(&trace.arrivals()[0]);
        timeline.count(35., 3, 1);
        timeline.answer(42., 32.);
        timeline.count(1000., 9, 9);
        let pods: Vec<u32> = timeline.moments.iter().map(|moment| moment.pods).collect();
        assert_eq!(pods, [1, 1, 1, 3, 3, 3, 3, 3, 3, 3]);
        let moment = &timeline.moments[1];
        assert_eq!((moment.requests, moment.tokens, moment.quantile(0.95)), (1, 5, Some(32.)));
        assert_eq!(timeline.moments[4].quantile(0.95), None);
    }
}
