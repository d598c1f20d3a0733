//! A service that goes from one gateway to the next.

use std::time::{Duration, Instant};

use kembed_queue::credit::PodLoad;
use kembed_queue::dispatcher::Refusal;
use kembed_queue::wire::Lane;
use kembed_queue::{Ask, Dispatcher, Failure, Grant, History, News, Past, PodId, Ticket, Told};
use proptest::prelude::*;

use super::arrive::Arrive;
use super::{CONFIG, QUEUE_TIMEOUT, ROOM, ask};

/// Two gateways that each believe to own the service, and pods that refuse what is beyond their credit.
struct Overlap {
    owners: [Dispatcher<()>; 2],
    now: Instant,
    /// What each pod has in hand: whose, which, how much.
    pods: [Vec<(usize, Ticket, u64)>; 2],
    answered: usize,
}

impl Overlap {
    const CREDIT: u64 = 120;

    fn load() -> Option<PodLoad> {
        Some(PodLoad { credit: Self::CREDIT, work: 0, rate: 1000, sessions: 1 })
    }

    fn new() -> Self {
        let now = Instant::now();
        let mut owners = [(); 2].map(|()| Dispatcher::new(CONFIG, now));
        for owner in &mut owners {
            assert!(owner.set_pods([PodId(0), PodId(1)], now).is_empty());
        }
        Self { owners, now, pods: [Vec::new(), Vec::new()], answered: 0 }
    }

    fn hear(&mut self, owner: usize, mut news: News<()>) {
        while let Some(told) = news.pop() {
            let Grant { ticket, pod: PodId(pod), work, .. } = told.word.expect("there is room and time");
            let pod = &mut self.pods[pod as usize];
            if pod.iter().map(|(_, _, work)| work).sum::<u64>() < Self::CREDIT {
                pod.push((owner, ticket, work));
            } else {
                news.extend(self.owners[owner].no_credit(ticket, Self::load(), (), self.now));
            }
        }
    }

    fn answer(&mut self, pod: usize) {
        if self.pods[pod].is_empty() {
            return;
        }
        let (owner, ticket, _) = self.pods[pod].remove(0);
        self.answered += 1;
        let news = self.owners[owner].answered(ticket, Self::load(), self.now);
        self.hear(owner, news);
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        for owner in 0..2 {
            let news = self.owners[owner].tick(self.now);
            self.hear(owner, news);
        }
    }
}

proptest! {
    #[test]
    fn while_ownership_moves_nothing_is_lost_and_no_pod_has_too_much(
        steps in proptest::collection::vec((0usize..2, 50usize..600, 0usize..4, 0u64..30), 0..100),
    ) {
        let mut overlap = Overlap::new();
        let mut came = 0;
        for (which, bytes, event, ms) in steps {
            if event < 2 && overlap.owners[which].len() < ROOM {
                let ask = Ask { bytes, lane: Lane::Interactive, deadline: None };
                let (_, news) = overlap.owners[which].arrive(ask, (), overlap.now);
                overlap.hear(which, news);
                came += 1;
            } else if event == 2 {
                overlap.answer(which);
            } else {
                overlap.pass(ms);
            }
        }
        for _ in 0..2 * came {
            overlap.answer(0);
            overlap.answer(1);
            overlap.pass(20);
        }
        prop_assert_eq!(overlap.answered, came, "each is answered once");
        prop_assert!(overlap.owners.iter().all(Dispatcher::is_empty));
        prop_assert!(overlap.owners.iter().all(|owner| owner.pods().all(|(_, pod)| pod.requests() == 0)));
    }
}

#[test]
fn what_comes_from_elsewhere_stands_where_it_would_have() {
    let start = Instant::now();
    let now = start + Duration::from_secs(10);
    let mut dispatcher = Dispatcher::new(CONFIG, start);
    let waited = |seconds| Duration::from_secs(seconds);
    for (waiter, seconds) in [("here", 0), ("second", 2), ("first", 3), ("third", 1)] {
        let (_, news) =
            dispatcher.arrive_from_elsewhere(ask(Lane::Interactive), past(waited(seconds)), waiter, now);
        assert!(news.is_empty(), "there is no pod");
    }
    assert_eq!(dispatcher.next_tick(now), Some(now - waited(3) + QUEUE_TIMEOUT), "what it waited counts");
    let mut came = Vec::new();
    let mut news = dispatcher.set_pods([PodId(1)], now);
    while let Some(told) = news.pop() {
        came.push(told.waiter);
        let grant = told.word.expect("a pod");
        news.extend(dispatcher.answered(grant.ticket, None, now));
    }
    assert_eq!(came, ["first", "second", "third", "here"]);
}

#[test]
fn who_was_let_in_elsewhere_is_let_in() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    for _ in 0..ROOM {
        assert!(dispatcher.arrive(Ask { bytes: 100, ..ask(Lane::Interactive) }, (), now).1.is_empty());
    }
    assert_eq!(dispatcher.arrive(ask(Lane::Interactive), (), now).1.len(), 1, "it is full");
    let micro = past(Duration::from_micros(1));
    let moved = dispatcher.arrive_from_elsewhere(ask(Lane::Interactive), micro, (), now);
    assert!(moved.1.is_empty());
}

/// Of a request that has waited so long elsewhere, where nothing happened to it.
fn past(waited: Duration) -> Past {
    Past { waited, ..Past::default() }
}

/// One request kills each pod that runs it, while the service's owner changes again and again: `moves` says before which
/// attempts. It is given back by one and comes to the other with what it went through.
fn deaths_of_a_poisonous_request(moves: &[bool]) -> (usize, Refusal) {
    let (mut now, mut lives, mut deaths) = (Instant::now(), 0, 0);
    let mut owner = Dispatcher::new(CONFIG, now);
    let (mut ticket, mut news) = owner.arrive(ask(Lane::Interactive), (), now);
    let came = now;
    for moves in moves.iter().chain([false, false, false].iter()) {
        now += Duration::from_millis(5);
        if *moves {
            news.extend(owner.set_pods([], now));
            let given_back = owner.give_up_waiting(now);
            let [((), history)] = given_back[..] else { panic!("it waits") };
            owner = Dispatcher::new(CONFIG, now);
            let written = History::parse(&history.to_string());
            let past = Past { waited: now - came, history: written };
            (ticket, news) = owner.arrive_from_elsewhere(ask(Lane::Interactive), past, (), now);
        }
        lives += 1;
        news.extend(owner.set_pods([PodId(lives)], now));
        let Some(Told { word: Ok(_), .. }) = news.pop() else { panic!("a pod is there") };
        deaths += 1;
        news = owner.failed(ticket, Failure::Broke, (), now);
        // Until the pod is known to be gone.
        news.extend(owner.set_pods([], now));
        if let Some(Told { word: Err(refusal), .. }) = news.pop() {
            return (deaths, refusal);
        }
    }
    panic!("it went on for ever");
}

proptest! {
    #[test]
    fn a_poisonous_request_kills_two_pods_however_often_its_owner_changes(
        moves in proptest::collection::vec(any::<bool>(), 0..6),
    ) {
        prop_assert_eq!(deaths_of_a_poisonous_request(&moves), (2, Refusal::DiedTwice));
    }
}
