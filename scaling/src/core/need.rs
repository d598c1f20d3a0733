//! How many replicas it takes.

use super::{capacity::Capacity, knobs::Knobs, look::Supply, recent::LONGEST};
use crate::decision::Terms;

/// What waits is to be drained within this part of the time that a pod takes to start, but not sooner than [`SOONEST`].
const DRAINED_WITHIN: f64 = 1. / 6.;

/// Seconds.
const SOONEST: f64 = 0.5;

/// What there is to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// Tokens a second that are there to be served, as far as the count is made for them.
    pub rate: f64,
    /// Tokens a second that are expected.
    pub expected: f64,
    /// Tokens a second that arrive now.
    pub present: f64,
    /// Requests that are there, waiting or with a pod.
    pub requests: f64,
    /// Requests that came in the last half minute.
    pub came: f64,
    /// Requests that wait, as a mean of the last seconds.
    pub waiting: f64,
    /// Tokens that wait.
    pub queued: f64,
    /// Tokens of a request.
    pub size: f64,
    /// Tokens a second that the measured latency asks to make room for.
    pub corrected: f64,
}

/// Where the bounds of the service are, and how long a pod takes to start.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// More than this many need not be told apart.
    pub most: u32,
    /// Requests that may wait for each replica.
    pub depth: f64,
    /// Seconds from when a pod is asked for until it serves.
    pub lead: f64,
}

/// What each term asks for.
pub fn terms(
    demand: &Demand,
    supply: &Supply,
    frame: &Frame,
    knobs: &Knobs,
    capacity: &mut Capacity,
) -> Terms {
    let left = left(demand, supply, frame, capacity.one());
    let drain = (frame.lead * DRAINED_WITHIN).max(SOONEST);
    let most = f64::from(frame.most);
    let backlog =
        if left > 0. && knobs.drains { (demand.present + left / drain) / capacity.one() } else { 0. };
    // A request is on one pod: more of them than there are requests have nothing to drain.
    let drained = (demand.requests + demand.comes_within(frame.lead)).floor().max(1.);
    // Of those that wait now some are gone before a new pod could help them; and a count of those that wait says how
    // many are late, not how much there is to do, so that it doubles the pods at most.
    let waits = demand.waiting.min(left / demand.size);
    let twice = f64::from(2 * supply.ready.clamp(1, frame.most));
    let present = demand.replicas(demand.rate * knobs.factor, frame, capacity);
    Terms {
        rate: present.max(capacity.replicas(demand.expected * knobs.factor, frame.most)),
        backlog: backlog.min(drained).min(most),
        queue: (waits / frame.depth).min(twice).min(most),
        slo: demand.replicas(demand.corrected, frame, capacity),
    }
}

impl Demand {
    /// The replicas that so many of the tokens a second take that were measured: no more than there are requests, or came in the
    /// last half minute, for each is on one pod.
    pub fn replicas(&self, tokens: f64, frame: &Frame, capacity: &mut Capacity) -> f64 {
        capacity.replicas(tokens, frame.most).min(self.requests.max(self.came).max(1.))
    }

    /// Requests that will have come in so many seconds, if they go on as in the last half minute: it takes two to know how far
    /// they are from each other.
    fn comes_within(&self, seconds: f64) -> f64 {
        (self.came - 1.).max(0.) / LONGEST * seconds
    }
}

/// Tokens that will wait when a pod that is asked for now begins to serve, if as many arrive as now: without those that are
/// drained by the pods that are ready and, from when they are, by those that come.
fn left(demand: &Demand, supply: &Supply, frame: &Frame, one: f64) -> f64 {
    let served = one * (f64::from(supply.ready) * frame.lead + supply.head_start);
    (demand.queued + demand.present * frame.lead - served).max(0.)
}

#[cfg(test)]
mod tests {
    use super::{super::capacity::Shape, *};

    const FRAME: Frame = Frame { most: 50, depth: 16., lead: 20. };

    fn capacity() -> Capacity {
        let mut capacity = Capacity::default();
        let shape = Shape { rate: 1000., service: 0.01, variation: 1., slack: 0.1, late: 0.01, busy: 0.98 };
        capacity.fit(shape);
        capacity
    }

    fn ask(demand: Demand, supply: Supply) -> Terms {
        terms(&demand, &supply, &FRAME, &Knobs::default(), &mut capacity())
    }

    /// Small requests, of which there always are some.
    const SMALL: Demand = Demand {
        rate: 0.,
        expected: 0.,
        present: 0.,
        requests: 1000.,
        came: 1000.,
        waiting: 0.,
        queued: 0.,
        size: 10.,
        corrected: 0.,
    };

    fn ready(ready: u32) -> Supply {
        Supply { wanted: ready, ready, ..Supply::default() }
    }

    #[test]
    fn nothing_to_do_takes_nobody() {
        assert_eq!(ask(SMALL, ready(3)), Terms::default());
    }

    #[test]
    fn the_rate_takes_a_little_more_than_its_work() {
        let terms = ask(Demand { rate: 2500., present: 2500., ..SMALL }, ready(4));
        assert_eq!((terms.rate.ceil(), terms.backlog, terms.queue), (3., 0., 0.));
    }

    #[test]
    fn what_will_be_drained_when_a_new_pod_could_serve_asks_for_none() {
        let demand = Demand { present: 1000., queued: 19_000., waiting: 1900., ..SMALL };
        assert_eq!(ask(demand, ready(2)).most(), 0.);
        // 1000 more stay, to be drained in 20 / 6 s.
        let terms = ask(Demand { queued: 21_000., ..demand }, ready(2));
        assert!((terms.backlog - 1.3).abs() < 1e-9, "{terms:?}");
        assert!(terms.queue == 4., "{terms:?}");
    }

    #[test]
    fn those_that_come_drain_from_when_they_are_there() {
        let demand = Demand { present: 1000., queued: 19_000., ..SMALL };
        assert!(ask(demand, ready(1)).backlog > 1.);
        let coming = Supply { wanted: 2, coming: 1, head_start: 19., ..ready(1) };
        assert_eq!(ask(demand, coming).backlog, 0.);
    }

    #[test]
    fn no_more_drain_than_there_are_requests() {
        let demand = Demand { rate: 5000., present: 5000., queued: 900_000., corrected: 6000., ..SMALL };
        let asked = |requests, came| {
            let terms = ask(Demand { requests, came, size: 450_000., ..demand }, ready(1));
            (terms.rate, terms.backlog, terms.slo)
        };
        assert_eq!(asked(1., 1.), (1., 1., 1.));
        assert_eq!(asked(2., 0.), (2., 2., 2.));
        // Of one that came every 10 s, one and a third more comes in 20 s.
        assert_eq!(asked(2., 3.), (3., 3., 3.));
        assert_eq!(asked(0., 0.), (1., 1., 1.), "somebody asked");
        let expected = ask(Demand { expected: 9000., requests: 1., came: 1., ..demand }, ready(1));
        assert!(expected.rate > 9., "what is expected has other requests: {expected:?}");
    }
}
