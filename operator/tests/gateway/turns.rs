//! Whatever requests do at their service's queue, in whatever order, none leaves anything behind.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt;
use kembed_queue::{Ask, Failure, Past, credit::PodLoad, wire::Lane};
use operator::gateway::{
    directory::Update,
    knowledge::Knowledge,
    metrics::Metrics,
    service_queue::{ServiceQueue, WaitLimits},
    turn::Turn,
};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::time::advance;

use crate::support::*;

/// What happens next. Numbers say to which of the requests that are there.
#[derive(Clone, Debug)]
enum Step {
    Arrive { bulk: bool, patience: Option<u64> },
    Look(usize),
    Leave(usize),
    Answered(usize, Option<u64>),
    NoCredit(usize, Option<u64>),
    Failed(usize, Failure),
    TimedOut(usize),
    Pods([bool; 3]),
    SendAway,
    Wait(u64),
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![Just(Failure::Unreached), Just(Failure::Unready), Just(Failure::Broke), Just(Failure::Erred)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>;
    let credit = || proptest::option::of(1u64..100);
    let step = prop_oneof![
        8 => (any::<bool>(), proptest::option::of(0u64..2000))
            .prop_map(|(bulk, patience)| Step::Arrive { bulk, patience }),
        8 => which().prop_map(Step::Look),
        2 => which().prop_map(Step::Leave),
        3 => (which(), credit()).prop_map(|(i, credit)| Step::Answered(i, credit)),
        2 => (which(), credit()).prop_map(|(i, credit)| Step::NoCredit(i, credit)),
        3 => (which(), failure()).prop_map(|(i, failure)| Step::Failed(i, failure)),
        1 => which().prop_map(Step::TimedOut),
        2 => any::<[bool; 3]>().prop_map(Step::Pods),
        1 => Just(Step::SendAway),
        3 => (0u64..1000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..150)
}

/// A request and whether a pod has it, as far as it has looked.
struct Request {
    turn: Turn,
    has_pod: bool,
}

struct World {
    knowledge: Knowledge,
    queue: Arc<ServiceQueue>,
    requests: Vec<Request>,
}

impl World {
    fn new() -> Self {
        let metrics = Metrics::new(&mut Registry::default());
        let limits = WaitLimits { requests: 20, bytes: 1 << 20, time: Duration::from_secs(5) };
        let knowledge = Knowledge::new(metrics.clone());
        knowledge.update(|directory| directory.update_services(Update::Put(service("team/minilm"))));
        let queue = Arc::new(ServiceQueue::new(name("team/minilm"), limits, metrics));
        let mut world = Self { knowledge, queue, requests: Vec::new() };
        world.pods([true, true, false]);
        world
    }

    /// These pods are there.
    fn pods(&mut self, there: [bool; 3]) {
        let address = |i: usize| SocketAddr::from(([127, 0, 0, 1], 1000 + i as u16));
        let pod = |i: usize| pod(&name("team/minilm"), &i.to_string(), address(i));
        self.knowledge.update(|directory| {
            directory.update_pods(Update::All((0..3).filter(|i| there[*i]).map(pod).collect()));
            let asked: Vec<_> = directory.unproven().collect();
            asked.iter().for_each(|probe| directory.proven(probe, SPACE.to_owned()));
        });
        self.queue.refresh(&self.knowledge);
    }

    /// A request that is there, out of the line.
    fn take(&mut self, which: usize, has_pod: bool) -> Option<Request> {
        let fit: Vec<_> = (0..self.requests.len()).filter(|i| self.requests[*i].has_pod == has_pod).collect();
        let which = fit.get(which.checked_rem(fit.len())?)?;
        Some(self.requests.swap_remove(*which))
    }

    async fn step(&mut self, step: Step) {
        let load =
            |credit: Option<u64>| credit.map(|credit| PodLoad { credit, rate: 1000, ..PodLoad::default() });
        match step {
            Step::Arrive { bulk, patience } => {
                let now = tokio::time::Instant::now().into_std();
                let lane = if bulk { Lane::Bulk } else { Lane::Interactive };
                let deadline = patience.map(|ms| now + Duration::from_millis(ms));
                let turn = self.queue.arrive(Ask { bytes: 100, lane, deadline }, Past::default());
                self.requests.push(Request { turn, has_pod: false });
            }
            Step::Look(which) => {
                let Some(mut request) = self.take(which, false) else { return };
                match request.turn.wait().now_or_never() {
                    Some(Ok(_)) => self.requests.push(Request { has_pod: true, ..request }),
                    Some(Err(_)) => (),
                    None => self.requests.push(request),
                }
            }
            Step::Leave(which) => drop(self.take(which, which % 2 == 0)),
            Step::Answered(which, credit) => {
                self.take(which, true).into_iter().for_each(|request| request.turn.answered(load(credit)));
            }
            Step::NoCredit(which, credit) => self.back(which, |turn| turn.no_credit(load(credit))),
            Step::Failed(which, failure) => self.back(which, |turn| turn.failed(failure)),
            Step::TimedOut(which) => {
                self.take(which, true).into_iter().for_each(|request| request.turn.timed_out());
            }
            Step::Pods(there) => self.pods(there),
            Step::SendAway => self.queue.send_away("another"),
            Step::Wait(ms) => advance(Duration::from_millis(ms)).await,
        }
    }

    /// A pod gives a request back.
    fn back(&mut self, which: usize, back: impl FnOnce(&mut Turn)) {
        let Some(mut request) = self.take(which, true) else { return };
        back(&mut request.turn);
        self.requests.push(Request { has_pod: false, ..request });
    }

    /// What is counted fits what is there.
    fn check(&self) {
        let [mut waiting, mut in_hand] = [0, 0];
        let figures = self.queue.figures();
        for lane in [figures.interactive, figures.bulk] {
            waiting += lane.waiting.requests;
            in_hand += lane.in_hand.requests;
            let over = lane.answered.requests + lane.refused.requests + lane.left.requests;
            assert_eq!(lane.came.requests, lane.waiting.requests + lane.in_hand.requests + over);
        }
        let looked = self.requests.iter().filter(|request| request.has_pod).count();
        assert_eq!(self.queue.has_waiting(), looked < self.requests.len());
        // Who has not looked may have a pod already, or have been refused.
        assert!(in_hand >= looked as u64 && waiting + in_hand <= self.requests.len() as u64);
        let credit = self.queue.credit();
        assert_eq!(credit.interactive + credit.bulk > 0, in_hand > 0);
    }
}

proptest! {
    #[test]
    fn nothing_is_left_of_requests_that_are_over(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
                world.check();
            }
            world.requests.clear();
            world.check();
            assert_eq!(world.queue.waiting_bytes(), 0);
        });
    }
}
