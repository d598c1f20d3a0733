//! From look to look: what is remembered of a service, and the decision.

use std::time::Duration;

use super::{
    capacity::{Capacity, Shape},
    correction::{Correction, Counted},
    count::{Situation, Step},
    forecast::{self, Forecast, Futures, SHARES},
    guard::Guard,
    history::{History, LEVEL},
    knobs::{Expect, Knobs},
    look::{Known, Measured, Supply},
    need::{self, Demand, Frame},
    peak::Peak,
    recent::{Rate, Recent},
    replay::Service,
    rhythm::{Beat, Rhythm},
    sizes::Sizes,
    trend,
    why::Why,
};
use crate::{
    decision::{Decision, Reason, Terms},
    observation::Observation,
    policy::{Objective, Settings},
};

/// Seconds that a pod takes to start, where that was never measured.
pub const USUAL_START: f64 = 30.;

/// Seconds in which a pod that was asked for must answer, or three times what it takes to start. As long as a wake holds
/// without one.
const DEADLINE: f64 = 600.;

/// Seconds that a look lets pass at most for what is remembered: who was stopped has not watched meanwhile.
const LATEST: f64 = 5.;

/// Standard errors of a level by which the highest of some is above their mean.
const CHANCE: f64 = 1.5;

/// Seconds without any work after which more than the last pod need not stand by.
const AWAKE: f64 = 60.;

/// Seconds of work after which it is no single request that woke the service.
const SURE: f64 = 2.;

/// Seconds that a pod takes to start at most for it to matter that a burst is seen to its full height a look sooner: pods that
/// turn out to be too many are there for as long as they take to start.
const SHORT: f64 = 5.;

/// Seconds over which what waits is averaged.
const WAITS: f64 = 5.;

/// Seconds over which it is averaged what pods have in hand.
const STAYS: f64 = 60.;

/// What is remembered of a service, but for its history.
#[derive(Clone, Debug, Default)]
pub struct Mind {
    last: Option<Duration>,
    /// Seconds that were watched.
    watched: f64,
    /// Seconds that were watched with a pod that answers.
    served: f64,
    /// Seconds since anything came or was there, with a pod that answered.
    quiet: f64,
    /// Seconds since work has been coming without a pause.
    busy: f64,
    recent: Recent,
    sizes: Sizes,
    /// Requests that wait, on average.
    waiting: f64,
    /// Requests in hand times seconds, and requests that came, both of about the last minute.
    stays: (f64, f64),
    capacity: Capacity,
    correction: Correction,
    guard: Guard,
    peak: Peak,
    why: Why,
    terms: Terms,
    unattainable: bool,
}

/// What is expected, in tokens a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ahead {
    /// By what came after moments like this.
    pub futures: Option<Futures>,
    /// If it goes on growing.
    pub trend: f64,
    /// If it comes and goes by the clock.
    pub beat: Option<Beat>,
}

/// What foresees, look by look.
#[derive(Clone, Debug, Default)]
pub struct Foresight {
    forecast: Forecast,
    rhythm: Rhythm,
}

impl Foresight {
    /// What is expected after that history, if a pod takes `lead` seconds to start.
    pub fn look(&mut self, history: &History, lead: f64, lump: f64) -> Ahead {
        let beat = self.rhythm.beat(history, lump);
        let came_twice = |level, apart| self.rhythm.came_twice(level, apart);
        let futures = self.forecast.futures(history, lead, came_twice);
        Ahead { futures, trend: trend::ahead(history, lead, lump), beat }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.forecast.bytes() + self.rhythm.bytes()
    }
}

/// What is weighed at one look.
struct Moment<'a> {
    known: &'a Known,
    ahead: &'a Ahead,
    supply: Supply,
    measured: Measured,
    goal: Goal,
    rate: Rate,
    knobs: &'a Knobs,
    settings: &'a Settings,
}

impl Moment<'_> {
    /// Seconds that a pod takes to start.
    fn lead(&self) -> f64 {
        self.measured.start.unwrap_or(USUAL_START)
    }

    /// Tokens a second that come by the clock before those pods would have to be asked for that are there in so many seconds,
    /// with as much time to spare as a forecast has.
    fn comes(&self, lead: f64) -> f64 {
        let within = lead + forecast::width(self.lead());
        let beat = self.ahead.beat.filter(|beat| beat.within <= within);
        beat.map_or(0., |beat| beat.level)
    }

    fn frame(&self) -> Frame {
        Frame {
            most: self.settings.max.max(self.settings.min).saturating_add(1),
            depth: f64::from(self.settings.queue_depth.max(1)),
            lead: self.lead(),
        }
    }
}

/// What the objective comes to.
struct Goal {
    objective: Option<Objective>,
    slack: f64,
    late: f64,
    busy: f64,
}

impl Mind {
    /// Decides. `known` is the load that was looked at, if it is known, and `ahead` what is expected.
    pub fn decide(
        &mut self,
        seen: &Observation,
        known: Option<&Known>,
        ahead: &Ahead,
        knobs: &Knobs,
        settings: &Settings,
    ) -> Decision {
        let measured = Measured::from(&seen.speed);
        let start = measured.start.unwrap_or(USUAL_START);
        let deadline = DEADLINE.max(3. * start);
        let supply = Supply::of(&seen.pods, start, deadline);
        let passed = self.pass(seen.now, &supply);
        if passed.is_none() {
            // What was needed before the first look is not known: what there is may not go until it is.
            self.peak.push(self.watched, supply.wanted, knobs.hold);
        }
        let situation = match known {
            Some(known) => {
                self.remember(known);
                let (goal, rate) = (self.goal(settings, &measured), self.recent.rate(self.sizes.lump()));
                self.weigh(&Moment { known, ahead, supply, measured, goal, rate, knobs, settings })
            }
            None => {
                self.waiting = 0.;
                self.peak.push(self.watched, supply.wanted, knobs.hold);
                let wanted = seen.load.as_ref().is_some_and(|load| load.wanted);
                Situation { wanted, ..unknown(supply, settings) }
            }
        };
        self.conclude(&situation.with(&seen.pods), seen, &measured)
    }

    /// Lets time pass; `None` at the first look.
    fn pass(&mut self, now: Duration, supply: &Supply) -> Option<f64> {
        let passed = self.last.replace(now).map(|last| now.saturating_sub(last).as_secs_f64());
        let watched = passed.unwrap_or(0.).min(LATEST);
        self.watched += watched;
        if supply.ready > 0 {
            self.served += watched;
        } else if supply.overdue == 0 {
            // A pod that was asked for is waited for, even if nobody else does.
            self.quiet = 0.;
        }
        self.guard.pass(self.watched);
        passed
    }

    fn remember(&mut self, known: &Known) {
        let Known { over, .. } = *known;
        self.recent.add(over, known.arrived, known.tokens);
        self.sizes.add(over, known.arrived, known.tokens, known.squares);
        self.waiting += (known.waiting - self.waiting) * (1. - (-over / WAITS).exp());
        let kept = (-over / STAYS).exp();
        self.stays = (self.stays.0 * kept + known.in_hand * over, self.stays.1 * kept + known.arrived);
        self.quiet = if known.is_quiet() { self.quiet + over } else { 0. };
        self.busy = if known.tokens > 0. || known.waits() { self.busy + over } else { 0. };
    }

    /// Seconds that a request stays with its pod.
    fn stay(&self, floor: f64) -> f64 {
        if self.stays.1 > 0. { (self.stays.0 / self.stays.1).max(floor) } else { floor }
    }

    /// A target that one request alone takes longer for is none; without a target, one second, and pods that have time left.
    fn goal(&mut self, settings: &Settings, measured: &Measured) -> Goal {
        let floor = measured.floor.unwrap_or(0.);
        let target = settings.objective.map(|objective| objective.target.as_secs_f64());
        // A floor that is as long as the target, give or take, would change what is told again and again.
        self.unattainable =
            target.is_some_and(|target| floor > target * if self.unattainable { 0.9 } else { 1. });
        let objective = settings.objective.filter(|_| !self.unattainable);
        let target = if objective.is_some() { target.unwrap_or(1.) } else { (5. * floor).max(1.) };
        let share = objective.map_or(0.95, |objective| objective.share.clamp(0., 1.));
        Goal {
            objective,
            slack: (target - self.stay(floor)).max(target / 4.),
            late: 0.2 * (1. - share),
            busy: if objective.is_some() { 0.98 } else { 0.8 },
        }
    }

    /// How many it takes, and what stands against fewer.
    fn weigh(&mut self, at: &Moment) -> Situation {
        self.fit(at);
        let (supply, settings, measured) = (at.supply, at.settings, at.measured);
        let stands = self.stands(at);
        self.learn(at, stands);
        let demand = self.demand(at);
        let (asked, lasting) = self.needs(at, demand);
        let standing = if at.knobs.standing > 1 && supply.wanted > 0 && self.quiet < AWAKE {
            at.knobs.standing
        } else {
            0
        };
        let reason = self.why(at, &demand, &asked);
        let start = measured.start.unwrap_or(USUAL_START);
        let idle = self.quiet >= settings.zero_after.as_secs_f64().max(at.knobs.idle * start);
        // A service that sleeps is woken by who asks, and not by what may be; nor is one kept awake by that.
        let is_asleep = supply.wanted == 0 && at.rate.present == 0.;
        let sleeps = is_asleep || (idle && settings.min == 0);
        let (need, lasts) =
            if sleeps { (0, 0) } else { (whole(&asked).max(standing), whole(&lasting).max(standing)) };
        let peak = self.peak.push(self.watched, lasts, at.knobs.hold);
        self.terms = asked;
        Situation {
            need: (need, reason),
            peak,
            wanted: at.known.waits(),
            stands,
            known: true,
            measured: measured.rate.is_some() || self.served >= DEADLINE,
            sure: measured.rate.is_some() && measured.start.is_some() && !supply.late && self.busy >= SURE,
            idle,
            ..unknown(supply, settings)
        }
    }

    /// What the service is like now.
    fn fit(&mut self, at: &Moment) {
        let Some(rate) = at.measured.rate else { return };
        let (service, variation) = (self.sizes.mean() / rate, self.sizes.variation());
        let Goal { slack, late, busy, .. } = at.goal;
        self.capacity.fit(Shape { rate, service, variation, slack, late, busy });
    }

    /// What is needed now, and what of it is needed longer than a backlog stands.
    fn needs(&mut self, at: &Moment, mut demand: Demand) -> (Terms, Terms) {
        let frame = at.frame();
        let mut terms = |demand: &Demand| match at.measured.rate {
            Some(_) => need::terms(demand, &at.supply, &frame, at.knobs, &mut self.capacity),
            None => Terms { queue: self.waiting / frame.depth, ..Terms::default() },
        };
        let asked = terms(&demand);
        // Who goes is missed at once, whatever may come later.
        if at.knobs.expect != Expect::Present {
            // To start a pod again costs as much as to keep it for as long as that takes.
            demand.expected = demand.expected.max(at.comes(2. * at.lead()));
        }
        let error = self.guard.errors() * at.rate.error;
        demand.rate = (at.rate.present + error).max(at.rate.likely);
        if demand.expected > at.rate.present {
            demand.expected += error;
        }
        (asked, Terms { backlog: 0., queue: 0., ..terms(&demand) })
    }

    fn demand(&self, at: &Moment) -> Demand {
        let present = if at.lead() <= SHORT { at.rate.soon } else { at.rate.present };
        let trend = at.ahead.trend;
        // What is there to be served, and what is expected besides.
        let (rate, expected) = match (at.knobs.expect, at.ahead.beat, at.ahead.futures) {
            // Who knows when need not guess.
            (Expect::Quantile(_), Some(_), _) => (present, at.comes(at.lead())),
            (_, Some(_), _) => (present, 0.),
            (Expect::Quantile(share), None, Some(futures)) => {
                let place = SHARES.iter().position(|&known| known >= share).unwrap_or(SHARES.len() - 1);
                let most = futures[place];
                // The most of some seconds is more than what steady work is, by chance alone.
                let chance = CHANCE * (self.sizes.lump() * most / LEVEL as f64).sqrt();
                (present.min(most).max(present / 2.), (most - chance).max(trend))
            }
            _ => (present, trend),
        };
        let factor = self.correction.factor();
        Demand {
            rate,
            expected,
            present,
            requests: at.known.requests,
            came: self.recent.came(),
            waiting: self.waiting,
            queued: at.known.waiting_tokens,
            size: self.sizes.mean(),
            corrected: if factor > 1. { at.rate.mean * factor } else { 0. },
        }
    }

    /// The term that asks for most, and of those that ask for as much the first.
    fn why(&mut self, at: &Moment, demand: &Demand, asked: &Terms) -> Reason {
        let reasons = [Reason::MoreWork, Reason::Backlog, Reason::QueueDepth, Reason::Latency];
        let most = whole(asked);
        let terms = [asked.rate, asked.backlog, asked.queue, asked.slo];
        let first = terms.iter().position(|term| term.ceil() as u32 >= most).unwrap_or(0);
        // What arrives would not take as many.
        let present = demand.replicas(at.rate.present * at.knobs.factor, &at.frame(), &mut self.capacity);
        if first == 0 && present <= f64::from(at.supply.wanted) { Reason::Expected } else { reasons[first] }
    }

    /// Whether so much waits that nobody may go: more than each pod may have waiting, or than they drain in a quarter of the time
    /// that a request may wait.
    fn stands(&self, at: &Moment) -> bool {
        let ready = f64::from(at.supply.ready);
        let drained = at.measured.rate.map_or(0., |rate| rate * ready * at.goal.slack / 4.);
        // A mean of what once waited is never quite nothing.
        let tolerated = (ready * f64::from(at.settings.queue_depth.max(1))).max(0.5);
        at.known.waiting_tokens > drained || self.waiting > tolerated
    }

    fn learn(&mut self, at: &Moment, stands: bool) {
        let Some(objective) = at.goal.objective else {
            self.correction = Correction::default();
            return;
        };
        let (known, supply) = (at.known, at.supply);
        let floor = at.measured.floor.unwrap_or(0.);
        let waits =
            if self.stays.1 > 0. { self.waiting * STAYS.min(self.watched) / self.stays.1 } else { 0. };
        let shortened = waits + self.stay(floor) - floor;
        let counted = Counted {
            over: known.over,
            counted: known.counted,
            late: known.late,
            settled: supply.ready == supply.wanted && supply.ready > 0 && !stands,
            can_help: shortened > objective.target.as_secs_f64() / 5.,
        };
        self.correction.learn(counted, 1. - objective.share);
    }

    /// The count, with its reason.
    fn conclude(&mut self, situation: &Situation, seen: &Observation, measured: &Measured) -> Decision {
        let step = situation.step();
        let wanted = situation.supply.wanted;
        let replicas = if let Step::To(replicas, _) = step { replicas } else { wanted };
        if replicas != wanted {
            let rate = self.recent.rate(self.sizes.lump());
            if replicas < wanted {
                self.guard.lowered(self.watched, rate.mean);
            } else {
                self.guard.raised(self.watched, rate.mean, rate.error);
            }
        }
        let told = self.why.tell(step, seen.now.as_secs_f64());
        let floor = measured.floor.filter(|_| self.unattainable).map(Duration::from_secs_f64);
        Decision { replicas, reason: told, terms: self.terms, unattainable: floor }
    }

    /// How lumpy work comes.
    pub fn lump(&self) -> f64 {
        self.sizes.lump()
    }

    /// What requests and pods are like, to live through the past with.
    pub fn service(&mut self, rate: f64, start: f64, settings: &Settings, measured: &Measured) -> Service {
        let slack = self.goal(settings, measured).slack;
        Service { rate, start, size: self.sizes.mean(), lump: self.sizes.lump(), slack }
    }
}

/// What is so if nothing is known of the load.
fn unknown(supply: Supply, settings: &Settings) -> Situation {
    Situation {
        bounds: (settings.min, settings.max.max(settings.min)),
        supply,
        crash_looping: false,
        no_capacity: false,
        need: (supply.wanted, Reason::Steady),
        peak: supply.wanted,
        wanted: false,
        stands: false,
        known: false,
        measured: false,
        sure: false,
        idle: false,
    }
}

fn whole(terms: &Terms) -> u32 {
    (terms.most() - 1e-9).ceil().max(0.) as u32
}
