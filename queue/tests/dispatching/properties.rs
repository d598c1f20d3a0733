//! What holds of a dispatcher after whatever steps.

use std::collections::BTreeSet;
use std::time::Duration;

use kembed_queue::credit::PodLoad;
use kembed_queue::wire::Lane;
use kembed_queue::{Failure, PodId};
use proptest::prelude::*;

use super::ROOM;
use super::model::{HEDGED, Model, State, Step, steps};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_request_ends_in_one_way(steps in steps()) {
        let mut model = Model::new();
        model.step(Step::Pods(BTreeSet::from([0, 1])));
        for step in steps {
            model.step(step);
        }
        model.end();
    }

    /// The same, where it is known what is late.
    #[test]
    fn whatever_happens_few_are_given_to_a_second_pod(steps in steps()) {
        let mut model = Model::new();
        model.dispatcher.set_hedging(Some(HEDGED));
        model.step(Step::Pods(BTreeSet::from([0, 1])));
        for _ in 0..200 {
            let ticket = model.arrive(100, Lane::Interactive, None);
            model.answer(ticket, Some(PodLoad { credit: 100, work: 20, rate: 0, sessions: 1 }));
        }
        for step in steps {
            model.step(step);
        }
        model.end();
    }

    /// One request kills each pod that runs it. `choices` says what happens next.
    #[test]
    fn a_poisonous_request_kills_two_pods_and_nobody_else_sees_it(
        pods in 1u64..5,
        poison in 0usize..40,
        choices in proptest::collection::vec((any::<usize>(), 0u64..80), 400),
    ) {
        let load = Some(PodLoad { credit: 200, work: 20, rate: 5000, sessions: 2 });
        let mut model = Model::new();
        let mut lives = pods;
        let mut deaths = 0;
        model.step(Step::Pods((0..pods).collect()));
        let mut tickets = Vec::new();
        let mut choices = choices.into_iter().cycle();
        for number in 0.. {
            let (choice, ms) = choices.next().expect("they go on for ever");
            if tickets.len() < 40 && model.untold.len() < ROOM / 2 {
                tickets.push(model.arrive(100, Lane::Interactive, None));
            }
            model.pass(Duration::from_millis(ms));
            let Some(ticket) = model.in_hand(choice) else {
                if tickets.len() == 40 && model.dispatcher.is_empty() {
                    break;
                }
                assert!(number < 5000, "nothing is stuck");
                continue;
            };
            if tickets.get(poison) != Some(&ticket) {
                model.answer(ticket, load);
                continue;
            }
            // The pod is gone with all that it had, and another life of it comes.
            let State::InHand(PodId(pod)) = model.requests[&ticket].state else { unreachable!("in hand") };
            deaths += 1;
            lives += 1;
            let there: Vec<_> =
                model.living().filter(|(_, r)| r.state == State::InHand(PodId(pod))).map(|(t, _)| t).collect();
            there.into_iter().for_each(|ticket| model.fail(ticket, Failure::Broke));
            let mut joined = model.joined.clone();
            joined.remove(&pod);
            joined.insert(lives);
            model.step(Step::Pods(joined));
        }
        let figures = model.dispatcher.figures(model.now).interactive;
        prop_assert_eq!((deaths, figures.refused.requests, figures.answered.requests), (2, 1, 39));
    }
}
