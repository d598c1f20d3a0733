//! Clients, gateways and pods in simulated time. The same scenario always ends the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use kembed_queue::dispatcher::Arrival;
use kembed_queue::wire::Lane;
use kembed_queue::{Ask, Config, Dispatcher, LineBounds, News, Past, PodId, Ticket, Told};

use crate::pod::Pod;
use crate::policy::{Chooser, Policy};
use crate::random::Random;
use crate::traffic::{Sent, texts};

/// From one program to another, one way.
const HOP: Duration = Duration::from_micros(100);

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub policy: Policy,
    pub seed: u64,
    /// Of each pod its speed and when it joins.
    pub pods: Vec<(f64, Duration)>,
    pub gateways: usize,
    /// Tokens that a pod takes at once of a lane.
    pub credit: u64,
    /// Interactive requests a second.
    pub rate: f64,
    /// Requests that come at once in the beginning.
    pub backlog: usize,
    /// Bulk requests of eight texts that are always there: for each that is answered the next one comes.
    pub bulk: usize,
    /// What clients say they wait.
    pub deadline: Option<Duration>,
    pub queue_timeout: Duration,
    /// Requests that may wait.
    pub room: usize,
    /// When another gateway becomes the owner.
    pub moves: Option<Duration>,
    /// Until when requests come.
    pub lasts: Duration,
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Request {
    pub sent: Sent,
    pub came: Duration,
    /// When its pod got it, in the end.
    pub granted: Option<Duration>,
    pub answered: Option<Duration>,
    /// When it was refused, and what wait it was told.
    pub refused: Option<(Duration, Option<Duration>)>,
    pub pod: usize,
    gateway: usize,
    owner: usize,
    ticket: Option<Ticket>,
    texts_left: usize,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    pub requests: Vec<Request>,
    /// Times that a pod had no credit.
    pub returned: usize,
    /// Of each pod, when it first had 90 % as much in hand as the mean of the others, after it joined.
    pub shared: Vec<Option<Duration>>,
    /// Tokens that each pod computed.
    pub done: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { bulk: bool, last: bool },
    Joins(usize),
    Moves,
    AtOwner(usize),
    AtPod(usize),
    BatchDone { pod: usize, texts: Vec<usize> },
    Answered(usize),
    NoCredit(usize),
    Tick(usize),
}

pub struct World {
    scenario: Scenario,
    epoch: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    number: u64,
    /// Of the clients: the same traffic for each policy.
    random: Random,
    /// Of the gateways.
    dice: Random,
    pods: Vec<Pod>,
    joined: Vec<usize>,
    choosers: Vec<Chooser>,
    owners: Vec<Dispatcher<usize>>,
    /// Of each owner when it is next told that time has passed.
    ticks: Vec<Option<Duration>>,
    outcome: Outcome,
}

impl World {
    /// Runs a scenario until nothing is left to do.
    pub fn run(scenario: Scenario) -> Outcome {
        let mut world = Self::new(scenario);
        while let Some(Reverse((at, _, event))) = world.events.pop() {
            world.now = at;
            world.happens(event);
        }
        let World { mut outcome, pods, .. } = world;
        outcome.done = pods.iter().map(|pod| pod.done).collect();
        outcome
    }

    fn new(scenario: Scenario) -> Self {
        let pods: Vec<Pod> =
            scenario.pods.iter().map(|&(speed, _)| Pod::new(speed, scenario.credit)).collect();
        let shared = vec![None; pods.len()];
        let mut world = Self {
            // Only differences count.
            epoch: Instant::now(),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            number: 0,
            random: Random::new(scenario.seed),
            dice: Random::new(!scenario.seed),
            pods,
            joined: Vec::new(),
            choosers: (0..scenario.gateways).map(Chooser::new).collect(),
            owners: Vec::new(),
            ticks: Vec::new(),
            outcome: Outcome { requests: Vec::new(), returned: 0, shared, done: Vec::new() },
            scenario,
        };
        world.add_owner();
        for (pod, &(_, at)) in world.scenario.pods.clone().iter().enumerate() {
            world.after(at, Event::Joins(pod));
        }
        for _ in 0..world.scenario.backlog {
            world.after(Duration::ZERO, Event::Arrive { bulk: false, last: true });
        }
        for _ in 0..world.scenario.bulk {
            world.after(Duration::ZERO, Event::Arrive { bulk: true, last: false });
        }
        if world.scenario.rate > 0. {
            world.after(Duration::ZERO, Event::Arrive { bulk: false, last: false });
        }
        if let Some(at) = world.scenario.moves {
            world.after(at, Event::Moves);
        }
        world
    }

    fn add_owner(&mut self) {
        let bounds = LineBounds { requests: self.scenario.room, bytes: usize::MAX };
        let config = Config { bounds, queue_timeout: self.scenario.queue_timeout };
        let mut owner = Dispatcher::new(config, self.instant());
        let news = owner.set_pods(self.joined.iter().map(|&pod| PodId(pod as u64)), self.instant());
        assert!(news.is_empty(), "nobody waits");
        self.owners.push(owner);
        self.ticks.push(None);
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + time, self.number, event)));
    }

    fn happens(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::Arrive { bulk, last } => self.arrive(bulk, last),
            Event::Joins(pod) => {
                self.joined.push(pod);
                for owner in 0..self.owners.len() {
                    let pods: Vec<_> = self.joined.iter().map(|&pod| PodId(pod as u64)).collect();
                    let news = self.owners[owner].set_pods(pods, now);
                    self.tell(owner, news);
                }
            }
            Event::Moves => self.add_owner(),
            Event::AtOwner(id) => self.at_owner(id),
            Event::AtPod(id) => self.at_pod(id),
            Event::BatchDone { pod, texts } => self.batch_done(pod, texts),
            Event::Answered(id) => self.answered(id),
            Event::NoCredit(id) => {
                self.outcome.returned += 1;
                let Request { owner, ticket, pod, .. } = self.outcome.requests[id];
                let ticket = ticket.expect("it was granted");
                let news = self.owners[owner].no_credit(ticket, Some(self.pods[pod].load(0)), id, now);
                self.tell(owner, news);
            }
            Event::Tick(owner) => {
                if self.ticks[owner] == Some(self.now) {
                    self.ticks[owner] = None;
                }
                let news = self.owners[owner].tick(now);
                self.tell(owner, news);
            }
        }
    }

    fn arrive(&mut self, bulk: bool, last: bool) {
        if !bulk && !last {
            let pause = self.random.exponential() / self.scenario.rate;
            if self.now + Duration::from_secs_f64(pause) < self.scenario.lasts {
                self.after(Duration::from_secs_f64(pause), Event::Arrive { bulk, last });
            }
        }
        let (count, lane) = if bulk { (8, Lane::Bulk) } else { (1, Lane::Interactive) };
        let sent = texts(count, lane, &mut self.random);
        let gateway = self.random.below(self.scenario.gateways);
        let owner = self.owners.len() - 1;
        let id = self.outcome.requests.len();
        self.outcome.requests.push(Request {
            texts_left: sent.texts.len(),
            sent,
            came: self.now,
            granted: None,
            answered: None,
            refused: None,
            pod: usize::MAX,
            gateway,
            owner,
            ticket: None,
        });
        if self.scenario.policy == Policy::Credit {
            let here = gateway == owner % self.scenario.gateways;
            return self.after(if here { Duration::ZERO } else { HOP }, Event::AtOwner(id));
        }
        let chosen = self.choosers[gateway].choose(self.scenario.policy, self.joined.len(), &mut self.dice);
        let request = &mut self.outcome.requests[id];
        request.pod = self.joined[chosen];
        request.granted = Some(self.now);
        self.after(HOP, Event::AtPod(id));
    }

    fn at_owner(&mut self, id: usize) {
        let now = self.instant();
        let Request { ref sent, owner, .. } = self.outcome.requests[id];
        let deadline = self.scenario.deadline.map(|time| now + time);
        let ask = Ask { bytes: sent.bytes, lane: sent.lane, deadline };
        let Arrival { ticket, word, mut news } = self.owners[owner].enter(ask, Past::default(), || id, now);
        news.extend(word.map(|word| Told { waiter: id, word }));
        self.outcome.requests[id].ticket = Some(ticket);
        self.tell(owner, news);
    }

    /// Does what the dispatcher says.
    fn tell(&mut self, owner: usize, news: News<usize>) {
        for told in news {
            let (id, now) = (told.waiter, self.now);
            match told.word {
                Ok(grant) => {
                    let request = &mut self.outcome.requests[id];
                    request.pod = grant.pod.0 as usize;
                    request.granted = Some(now);
                    self.after(HOP, Event::AtPod(id));
                }
                Err(refusal) => self.outcome.requests[id].refused = Some((now, refusal.wait())),
            }
        }
        let Some(next) = self.owners[owner].next_tick(self.instant()) else { return };
        let pause = next - self.instant();
        if self.ticks[owner].is_none_or(|at| self.now + pause < at) {
            self.ticks[owner] = Some(self.now + pause);
            self.after(pause, Event::Tick(owner));
        }
    }

    fn at_pod(&mut self, id: usize) {
        let now = self.instant();
        let Request { ref sent, pod, .. } = self.outcome.requests[id];
        if self.scenario.policy == Policy::Credit && !self.pods[pod].has_credit(sent.lane) {
            return self.after(HOP, Event::NoCredit(id));
        }
        self.pods[pod].take(id, &sent.texts, sent.lane, now);
        self.begin_batches(pod);
        self.look_for_share(pod);
    }

    fn begin_batches(&mut self, pod: usize) {
        let now = self.instant();
        while let Some((time, texts)) = self.pods[pod].begin(now) {
            self.after(time, Event::BatchDone { pod, texts });
        }
    }

    fn look_for_share(&mut self, pod: usize) {
        let others: Vec<_> = self.joined.iter().filter(|&&other| other != pod).collect();
        let theirs: u64 = others.iter().map(|&&other| self.pods[other].in_hand()).sum();
        let mean = theirs as f64 / others.len().max(1) as f64;
        if self.outcome.shared[pod].is_none() && self.pods[pod].in_hand() as f64 >= 0.9 * mean {
            self.outcome.shared[pod] = Some(self.now - self.scenario.pods[pod].1);
        }
    }

    fn batch_done(&mut self, pod: usize, texts: Vec<usize>) {
        self.pods[pod].end();
        for id in texts {
            let request = &mut self.outcome.requests[id];
            request.texts_left -= 1;
            if request.texts_left == 0 {
                let Sent { ref texts, lane, .. } = request.sent;
                self.pods[pod].give(texts, lane);
                self.after(HOP, Event::Answered(id));
            }
        }
        self.begin_batches(pod);
    }

    fn answered(&mut self, id: usize) {
        let (now, at) = (self.instant(), self.now);
        let owners = self.scenario.gateways;
        let request = &mut self.outcome.requests[id];
        let Request { gateway, owner, ticket, pod, .. } = *request;
        let back = if ticket.is_none() || gateway == owner % owners { Duration::ZERO } else { HOP };
        request.answered = Some(at + back);
        let (work, is_bulk) = (request.sent.tokens(), request.sent.lane == Lane::Bulk);
        if is_bulk && at < self.scenario.lasts {
            self.after(Duration::ZERO, Event::Arrive { bulk: true, last: false });
        }
        let Some(ticket) = ticket else { return self.choosers[gateway].answered(pod) };
        let news = self.owners[owner].answered(ticket, Some(self.pods[pod].load(work)), now);
        self.tell(owner, news);
    }
}
