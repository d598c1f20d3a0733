//! A second pod for who is late.

use std::time::{Duration, Instant};

use kembed_queue::credit::PodLoad;
use kembed_queue::dispatcher::{HedgeEnd, Refusal};
use kembed_queue::wire::Lane;
use kembed_queue::{Ask, Dispatcher, Failure, Grant, PodId};

use super::CONFIG;
use super::arrive::Arrive;

/// Three pods, of which it is known how long they take: 10 ms. The first request that comes next is at one of them.
fn late() -> (Dispatcher<u64>, Instant, Grant) {
    let mut now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    dispatcher.set_hedging(Some(5));
    assert!(dispatcher.set_pods([0, 1, 2].map(PodId), now).is_empty());
    let load = Some(PodLoad { credit: 200, work: 20, rate: 1000, sessions: 1 });
    let arrive = |dispatcher: &mut Dispatcher<u64>, now| {
        let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
        let (_, mut news) = dispatcher.arrive(ask, 0, now);
        news.pop().expect("there is credit").word.expect("there is time")
    };
    for _ in 0..200 {
        let Grant { ticket, .. } = arrive(&mut dispatcher, now);
        assert_eq!(dispatcher.hedge_after(ticket), None, "not enough is known");
        now += Duration::from_millis(10);
        assert!(dispatcher.hedge(ticket, now).is_none());
        assert!(dispatcher.answered(ticket, load, now).is_empty());
    }
    let grant = arrive(&mut dispatcher, now);
    (dispatcher, now, grant)
}

/// What each pod has in hand.
fn in_hand(dispatcher: &Dispatcher<u64>) -> Vec<usize> {
    dispatcher.pods().map(|(_, pod)| pod.requests()).collect()
}

#[test]
fn what_is_late_goes_to_a_second_pod_and_the_first_answer_wins() {
    for second_wins in [true, false] {
        let (mut dispatcher, began, Grant { ticket, pod, .. }) = late();
        let after = dispatcher.hedge_after(ticket).expect("it is known what is late");
        assert!((10..12).contains(&after.as_millis()), "{after:?}");
        assert!(dispatcher.hedge(ticket, began + after / 2).is_none(), "it is not late");
        let second = dispatcher.hedge(ticket, began + after).expect("two pods have nothing to do");
        assert!(second.pod != pod && in_hand(&dispatcher).iter().sum::<usize>() == 2);
        assert_eq!(dispatcher.hedge_after(ticket), None);
        assert!(dispatcher.hedge(ticket, began + after * 9).is_none(), "once is enough");
        let now = began + after * 2;
        let news = if second_wins {
            dispatcher.hedge_answered(ticket, None, None, now)
        } else {
            dispatcher.answered(ticket, None, now)
        };
        assert!(news.is_empty() && dispatcher.is_empty());
        assert_eq!(in_hand(&dispatcher), [0, 0, 0], "nobody works for it any more");
        let figures = dispatcher.figures(now).interactive;
        assert_eq!((figures.came.requests, figures.answered.requests), (201, 201), "counted once");
        // Whoever lost says nothing more; if it did, it would be ignored.
        assert!(dispatcher.hedge_answered(ticket, None, None, now).is_empty());
        assert!(dispatcher.hedge_failed(ticket, HedgeEnd::TimedOut, now).is_empty());
    }
}

#[test]
fn a_second_pod_that_fails_leaves_the_request_with_the_first() {
    let no_credit = HedgeEnd::NoCredit(Some(PodLoad { credit: 9, ..PodLoad::default() }));
    let failed = [Failure::Erred, Failure::Broke].map(HedgeEnd::Failed);
    for end in [no_credit, HedgeEnd::TimedOut, HedgeEnd::TooLate].into_iter().chain(failed) {
        let (mut dispatcher, began, Grant { ticket, .. }) = late();
        let now = began + Duration::from_millis(20);
        assert!(dispatcher.hedge(ticket, now).is_some());
        assert!(dispatcher.hedge_failed(ticket, end, now).is_empty());
        assert_eq!(in_hand(&dispatcher).iter().sum::<usize>(), 1);
        assert!(dispatcher.hedge(ticket, now).is_none() || end != HedgeEnd::Failed(Failure::Broke));
        assert!(dispatcher.answered(ticket, None, now).is_empty());
        assert!(dispatcher.is_empty());
    }
}

/// However it was hedged, a request kills two pods at most.
#[test]
fn who_died_at_both_pods_is_refused() {
    let (mut dispatcher, began, Grant { ticket, .. }) = late();
    let now = began + Duration::from_millis(20);
    assert!(dispatcher.hedge(ticket, now).is_some());
    assert!(dispatcher.hedge_failed(ticket, HedgeEnd::Failed(Failure::Broke), now).is_empty());
    let told = dispatcher.failed(ticket, Failure::Broke, 7, now).pop().expect("it is told");
    assert_eq!((told.waiter, told.word.expect_err("twice is enough")), (7, Refusal::DiedTwice));
}

/// And if the first pod did not die of it, it runs alone next.
#[test]
fn who_died_at_the_second_pod_alone_is_suspect() {
    let (mut dispatcher, began, Grant { ticket, pod, .. }) = late();
    let now = began + Duration::from_millis(20);
    let second = dispatcher.hedge(ticket, now).expect("two pods have nothing to do").pod;
    assert!(dispatcher.hedge_failed(ticket, HedgeEnd::Failed(Failure::Broke), now).is_empty());
    let told = dispatcher.failed(ticket, Failure::Erred, 7, now).pop().expect("a pod is free");
    let again = told.word.expect("it is tried again").pod;
    assert!(again != second, "that one is ejected");
    let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
    let (_, mut news) = dispatcher.arrive(ask, 8, now);
    let other = news.pop().expect("a pod is free").word.expect("there is time").pod;
    assert!(other != again, "a suspect has its pod for itself, here pod {pod:?} and {again:?}");
}

#[test]
fn bulk_and_what_has_no_other_pod_is_not_hedged() {
    let (mut dispatcher, began, Grant { ticket, pod, .. }) = late();
    let now = began + Duration::from_secs(1);
    assert!(dispatcher.set_pods([pod], began).is_empty());
    assert!(dispatcher.hedge(ticket, now).is_none(), "there is no other pod");
    assert!(dispatcher.set_pods([0, 1, 2].map(PodId), began).is_empty());
    let bulk = Ask { bytes: 100, lane: Lane::Bulk, deadline: None };
    let (bulk, news) = dispatcher.arrive(bulk, 0, began);
    assert_eq!(news.len(), 1);
    assert_eq!(dispatcher.hedge_after(bulk), None);
    assert!(dispatcher.hedge(bulk, now).is_none());
    dispatcher.set_hedging(None);
    assert!(dispatcher.hedge(ticket, now).is_none(), "it was switched off");
}
