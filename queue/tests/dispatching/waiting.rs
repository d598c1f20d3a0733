//! Who waits, for what and how long.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kembed_queue::credit::PodLoad;
use kembed_queue::dispatcher::{Refusal, retry_after};
use kembed_queue::line::OVERTAKING;
use kembed_queue::wire::Lane;
use kembed_queue::{Ask, Dispatcher, Failure, News, PodId, Ticket};

use super::arrive::Arrive;
use super::{CONFIG, QUEUE_TIMEOUT, ROOM, ask};

const LOAD: PodLoad = PodLoad { credit: 100, work: 0, rate: 1000, sessions: 1 };

/// Grants until `until` to one pod that ends each of them at once in this way.
fn grants_until(until: Duration, end: impl Fn(&mut Dispatcher<()>, Ticket, Instant) -> News<()>) -> usize {
    let start = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, start);
    let mut news = dispatcher.set_pods([PodId(1)], start);
    let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
    news.extend(dispatcher.arrive(ask, (), start).1);
    let (mut now, mut grants) = (start, 0);
    while now - start < until {
        match news.pop() {
            Some(told) => {
                grants += 1;
                assert!(grants < 10_000, "it is asked all the time");
                let ticket = told.word.expect("it is not refused").ticket;
                news.extend(end(&mut dispatcher, ticket, now));
            }
            None => {
                now = dispatcher.next_tick(now).expect("it waits");
                news.extend(dispatcher.tick(now));
            }
        }
    }
    grants
}

#[test]
fn a_pod_without_credit_is_not_asked_all_the_time() {
    let grants =
        grants_until(Duration::from_secs(1), |d, ticket, now| d.no_credit(ticket, Some(LOAD), (), now));
    assert_eq!(grants, 50, "each 20 ms");
}

#[test]
fn the_only_pod_is_tried_on_while_it_cannot_be_reached_but_not_all_the_time() {
    let unreached = |d: &mut Dispatcher<()>, ticket, now| d.failed(ticket, Failure::Unreached, (), now);
    assert_eq!(grants_until(Duration::from_secs(30), unreached), 120, "each 250 ms");
}

/// A dispatcher with a pod that told its load, and has nothing in hand.
fn with_pod(load: PodLoad, now: Instant) -> Dispatcher<&'static str> {
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    assert!(dispatcher.set_pods([PodId(1)], now).is_empty());
    let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
    let (ticket, news) = dispatcher.arrive(ask, "first", now);
    assert_eq!(news.len(), 1);
    assert!(dispatcher.answered(ticket, Some(load), now).is_empty());
    dispatcher
}

#[test]
fn one_request_at_a_time_until_a_pod_tells_more() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    assert!(dispatcher.set_pods([PodId(1)], now).is_empty());
    let (first, news) = dispatcher.arrive(ask(Lane::Interactive), 1, now);
    assert_eq!(news.len(), 1);
    for waiter in 2..5 {
        assert!(dispatcher.arrive(ask(Lane::Interactive), waiter, now).1.is_empty());
    }
    let news = dispatcher.answered(first, Some(PodLoad { credit: 10_000, ..LOAD }), now);
    assert_eq!(news.iter().map(|told| told.waiter).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn bulk_in_hand_does_not_keep_interactive_out() {
    let now = Instant::now();
    let mut dispatcher = with_pod(LOAD, now);
    assert_eq!(dispatcher.arrive(ask(Lane::Bulk), "bulk", now).1.len(), 1);
    assert!(dispatcher.arrive(ask(Lane::Bulk), "more bulk", now).1.is_empty(), "the lane's credit is used");
    assert_eq!(dispatcher.arrive(ask(Lane::Interactive), "interactive", now).1.len(), 1);
}

#[test]
fn what_would_be_too_late_is_refused_at_once_and_told_how_long_it_takes() {
    let now = Instant::now();
    let mut dispatcher = with_pod(LOAD, now);
    for _ in 0..6 {
        let _ = dispatcher.arrive(ask(Lane::Interactive), "waits", now);
    }
    let waits = dispatcher.figures(now).interactive.waiting.work;
    let soon = Ask { deadline: Some(now + OVERTAKING), ..ask(Lane::Interactive) };
    assert!(dispatcher.arrive(soon, "in time", now).1.is_empty());
    let soon = Ask { deadline: Some(now + Duration::from_millis(100)), ..ask(Lane::Interactive) };
    let (_, news) = dispatcher.arrive(soon, "late", now);
    assert!(matches!(news[0].word, Err(Refusal::TooLate { .. })), "{news:?}");
    let wait = dispatcher.predicted_wait(Lane::Interactive, now).expect("the speed is known");
    assert!((wait.as_secs_f64() - (waits as f64 * 6. / 5.) / 1000.).abs() < 0.01, "{wait:?}");
}

#[test]
fn bulk_leaves_room_for_who_waits_for_an_answer() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    for _ in 0..2 * ROOM {
        let _ = dispatcher.arrive(Ask { bytes: 100, ..ask(Lane::Bulk) }, (), now);
    }
    let figures = dispatcher.figures(now);
    assert_eq!((figures.bulk.waiting.requests, figures.bulk.refused.requests), (9, 15));
    for _ in 0..2 * ROOM {
        let _ = dispatcher.arrive(Ask { bytes: 100, ..ask(Lane::Interactive) }, (), now);
    }
    assert_eq!(dispatcher.figures(now).interactive.waiting.requests, 3);
}

#[test]
fn time_at_a_pod_that_died_is_not_time_that_it_waited() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    assert!(dispatcher.set_pods([PodId(1)], now).is_empty());
    let (ticket, news) = dispatcher.arrive(ask(Lane::Interactive), 1, now);
    assert_eq!(news.len(), 1);
    let died = now + 2 * QUEUE_TIMEOUT;
    assert!(dispatcher.set_pods([], died).is_empty());
    assert!(dispatcher.failed(ticket, Failure::Broke, 2, died).is_empty(), "it waits");
    assert_eq!(dispatcher.next_tick(died), Some(died + QUEUE_TIMEOUT));
    let news = dispatcher.set_pods([PodId(2)], died);
    assert!(matches!(news[..], [ref told] if told.waiter == 2 && told.word.is_ok()));
}

#[test]
fn who_is_refused_together_does_not_come_back_together() {
    let seconds = |wait, seed| retry_after(Duration::from_millis(wait), seed);
    let told: BTreeSet<_> = (0..100).map(|seed| seconds(20_000, seed * 17)).collect();
    assert!(told.len() > 3 && told.iter().all(|told| (18..=22).contains(told)), "{told:?}");
    assert_eq!((seconds(0, 5), seconds(10_000_000, 5)), (1, 60));
}
