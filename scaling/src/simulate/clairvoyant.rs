//! Whoever knows the future: what replicas cost at least if (almost) no request is to miss its target.
//!
//! It is a schedule made in steps, each of which needs the whole trace:
//! 1. For each slot of time the fewest pods that would do all work within the slack, which is the target less what a request
//!    takes at a pod that is busy: the most, over windows of several lengths around the slot, of work / (window + slack),
//!    in pods that work at a given efficiency.
//! 2. A pod whose next use is nearer than the start-up time stays, for to start it again would cost more.
//! 3. The schedule is played. Where a request misses its target one more pod is there, until no more than a thousandth does.
//! 4. Of several efficiencies, and of counts that never change, the one counts that costs the least.
//!
//! Pods are asked for the start-up time before they are needed, and paid for from then on; those of the first slot are there
//! already, as for everybody. It is no proof of a minimum, for the exact one is out of reach, but no policy was ever seen to
//! beat it in both replica-seconds and misses, and a test keeps it so.

use crate::simulate::{
    contender::{Contender, Sight},
    fleet::Nodes,
    score::Score,
    trace::Trace,
    world::{Watch, World},
};

/// The share of requests that may miss.
const MISSES: f64 = 0.001;

/// Shares of its best rate at which a pod is taken to work.
const EFFICIENCIES: [f64; 4] = [0.75, 0.85, 0.95, 1.05];

/// Slots of the windows in which work is looked at.
const WINDOWS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Rounds of mending.
const ROUNDS: usize = 12;

/// The score of the schedule, the start-up of its pods included.
///
/// # Panics
/// Never: there is at least one efficiency.
pub fn play(world: &World, trace: &Trace) -> Score {
    let scores = EFFICIENCIES.iter().map(|efficiency| mended(world, trace, *efficiency));
    scores
        .chain([constant(world, trace)])
        .min_by(|a, b| {
            let key = |score: &Score| ((score.miss_share() - MISSES).max(0.), score.replica_seconds);
            let ((missed_a, cost_a), (missed_b, cost_b)) = (key(a), key(b));
            missed_a.total_cmp(&missed_b).then(cost_a.total_cmp(&cost_b))
        })
        .expect("there are efficiencies")
}

/// The score of the fewest pods that are always there and miss little enough, or of the most.
fn constant(world: &World, trace: &Trace) -> Score {
    let tokens: f64 = trace.arrivals().iter().map(|arrival| f64::from(arrival.tokens)).sum();
    let least = (tokens / world.pod.rate() / trace.seconds().max(1.)).ceil() as u32;
    let mut pods = least.clamp(world.min.max(1), world.max);
    loop {
        let score = played(world, trace, vec![pods], trace.seconds().max(1.)).0;
        if score.miss_share() <= MISSES || pods >= world.max {
            return score;
        }
        pods += 1;
    }
}

/// The length of a slot in seconds: short enough to react within the target.
fn slot(world: &World) -> f64 {
    (world.target / 2.).clamp(0.1, 1.)
}

/// A schedule, mended until it misses little enough, and its score.
fn mended(world: &World, trace: &Trace, efficiency: f64) -> Score {
    let slot = slot(world);
    let mut needs = needs(world, trace, efficiency, slot);
    let mut best: Option<Score> = None;
    for _ in 0..ROUNDS {
        let held = held(&needs, (world.start / slot).ceil() as usize, world.max);
        let (score, late) = played(world, trace, held, slot);
        let is_good = score.miss_share() <= MISSES;
        if best.as_ref().is_none_or(|best| score.missed < best.missed) {
            best = Some(score);
        }
        if is_good {
            break;
        }
        for (need, is_late) in needs.iter_mut().zip(late) {
            *need = (*need + u32::from(is_late)).min(world.max);
        }
    }
    best.expect("there was a round")
}

/// Pods that are needed in each slot.
fn needs(world: &World, trace: &Trace, efficiency: f64, slot: f64) -> Vec<u32> {
    let slots = (trace.seconds() / slot).ceil() as usize + 1;
    let mut work = vec![0.; slots + 1];
    for arrival in trace.arrivals() {
        // The sum before each slot.
        work[(arrival.at / slot) as usize + 1] += f64::from(arrival.tokens);
    }
    (0..slots).for_each(|index| work[index + 1] += work[index]);
    let rate = world.pod.rate() * efficiency;
    let batch = world.pod.seconds(u64::from(world.pod.batch_tokens));
    let slack = (world.target - 1.5 * batch).max(world.target / 4.);
    let mut needs = vec![0_f64; slots];
    for window in WINDOWS {
        let seconds = window as f64 * slot + slack;
        let loads: Vec<f64> = (0..slots.saturating_sub(window - 1))
            .map(|from| (work[from + window] - work[from]) / (rate * seconds))
            .collect();
        for (slot, need) in needs.iter_mut().enumerate() {
            let around = slot.saturating_sub(window - 1)..(slot + 1).min(loads.len());
            // What one pod can do needs it in the slots alone in which there is work.
            let loads = loads.get(around).unwrap_or_default().iter().copied();
            *need = loads.filter(|load| window == 1 || *load > 1.).fold(*need, f64::max);
        }
    }
    needs.iter().map(|need| (need.ceil() as u32).clamp(world.min, world.max)).collect()
}

/// The same with each pod kept whose next use comes within `gap` slots.
fn held(needs: &[u32], gap: usize, max: u32) -> Vec<u32> {
    let mut held = needs.to_vec();
    for level in 1..=max {
        let mut last: Option<usize> = None;
        for (slot, need) in needs.iter().enumerate().filter(|(_, need)| **need >= level) {
            if let Some(last) = last.filter(|last| slot - last <= gap) {
                held[last..slot].iter_mut().for_each(|held| *held = (*held).max(level));
            }
            last = Some(slot);
            debug_assert!(*need >= level);
        }
    }
    held
}

/// Plays a schedule where pods start at once, and adds what their start costs. Also tells in which slots requests waited that
/// were late.
fn played(world: &World, trace: &Trace, pods: Vec<u32>, slot: f64) -> (Score, Vec<bool>) {
    let at_once = World {
        start: 0.,
        nodes: None::<Nodes>,
        min: 0,
        gateways: None,
        first: Some(pods.first().copied().unwrap_or(0)),
        ..world.clone()
    };
    let starts: u32 = pods.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).sum();
    let mut late = Late { target: world.target, slot, slots: vec![false; pods.len()] };
    let mut score = at_once.play(trace, &mut Schedule { slot, pods }, &mut late);
    score.replica_seconds += f64::from(starts) * world.start;
    (score, late.slots)
}

/// Does what was planned.
struct Schedule {
    slot: f64,
    pods: Vec<u32>,
}

impl Contender for Schedule {
    fn period(&self) -> f64 {
        self.slot
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        let slot = (sight.seen.now.as_secs_f64() / self.slot + 1e-6) as usize;
        // What still waits after the end is answered by as many as there were last, and one at least.
        self.pods.get(slot).copied().unwrap_or_else(|| self.pods.last().map_or(1, |&pods| pods.max(1)))
    }

    fn learns(&self) -> bool {
        false
    }
}

/// Notes when requests waited that were late.
struct Late {
    target: f64,
    slot: f64,
    slots: Vec<bool>,
}

impl Watch for Late {
    fn answer(&mut self, at: f64, seconds: f64) {
        if seconds <= self.target {
            return;
        }
        let slot = |at: f64| (at / self.slot) as usize;
        let end = self.slots.len();
        if let Some(slots) = self.slots.get_mut(slot(at - seconds).min(end)..(slot(at) + 1).min(end)) {
            slots.fill(true);
        }
    }
}
