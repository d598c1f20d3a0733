//! What is played.

use std::{fs, sync::Arc, time::Duration};

use kembed_scaling::{
    Objective, Scaler, Settings,
    simulate::{Gateways, Kind, Ours, Score, Trace, World, clairvoyant, peers::Peer},
};

use crate::{Args, notes::Notes, ours, record::Record};

/// Start-up times of pods in seconds, and the latency that suits each, in milliseconds.
pub const STARTS: [(u64, u64); 3] = [(2, 200), (20, 1000), (90, 2000)];

/// The share of requests that the objective asks for, unless another is tried.
pub const SHARE: f64 = 0.95;

/// One trace with one start-up time.
pub struct Case {
    name: Name,
    trace: Arc<Trace>,
    settings: Settings,
    world: World,
}

/// `trace/seed/start s`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The start-up time in seconds.
    pub start: u64,
    /// The kind of traffic.
    pub trace: String,
    /// Its seed.
    pub seed: u64,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}/{}/{} s", self.trace, self.seed, self.start))
    }
}

/// What somebody reached.
#[derive(Clone)]
pub struct Entry {
    /// Who.
    pub policy: &'static str,
    /// With which settings; empty for ours, which has one default for everything.
    pub settings: String,
    /// These are the defaults.
    pub is_default: bool,
    /// How it went.
    pub score: Score,
    /// What the score does not tell, of ours.
    pub notes: Option<Notes>,
}

/// What came out of a case.
pub struct Outcome {
    /// The case.
    pub name: Name,
    /// The score of whoever knows the future.
    pub clairvoyant: Score,
    /// Those of all others.
    pub entries: Vec<Entry>,
}

/// All that the arguments ask for.
pub fn all(args: &Args) -> Result<Vec<Case>, String> {
    let seeds = if args.quick { 1 } else { args.seeds };
    let mut traces = Vec::new();
    if let Some(path) = &args.trace {
        let text = fs::read_to_string(path).map_err(|error| format!("failed to read {path:?}: {error}"))?;
        let trace =
            Trace::parse(&text).and_then(|trace| trace.with_rate(40., args.from_seed)?.with_length(0.5));
        let trace = trace.map_err(|error| format!("failed to parse {path:?}: {error}"))?;
        traces.push(("conv", args.from_seed, Arc::new(trace)));
    }
    for kind in Kind::ALL {
        let seeds = args.from_seed..args.from_seed + seeds;
        traces.extend(seeds.map(|seed| (kind.name(), seed, Arc::new(kind.generate(seed)))));
    }
    let mut cases: Vec<Case> = traces
        .iter()
        .flat_map(|(kind, seed, trace)| {
            STARTS.map(|(start, target)| {
                let name = Name { start, trace: kind.to_string(), seed: *seed };
                Case::new(name, trace.clone(), Duration::from_millis(target), !args.untuned)
            })
        })
        .collect();
    cases.retain(|case| case.name.to_string().contains(&args.only));
    Ok(cases)
}

impl Case {
    fn new(name: Name, trace: Arc<Trace>, target: Duration, tunes: bool) -> Self {
        let settings = Settings {
            min: 0,
            max: 20,
            queue_depth: 16,
            objective: Some(Objective { share: SHARE, target }),
            zero_after: Duration::from_secs(300),
            tunes,
        };
        let gateways = Some(Gateways { seed: name.seed, ..Gateways::default() });
        let world = World { gateways, ..World::of(&settings, Duration::from_secs(name.start)) };
        Self { name, trace, settings, world }
    }

    /// Plays it to everybody who is not on record.
    pub fn play(&self, args: &Args, record: &Record) -> Outcome {
        let mut entries = if args.others { Vec::new() } else { self.play_ours(args.quick || args.ours) };
        if let Some((clairvoyant, others)) = record.get(&self.name) {
            entries.extend(others.iter().cloned());
            return Outcome { name: self.name.clone(), clairvoyant: clairvoyant.clone(), entries };
        }
        let defaults = Peer::defaults();
        let peers = match (args.ours, args.quick) {
            (true, _) => Vec::new(),
            (false, true) => defaults.to_vec(),
            (false, false) => Peer::grid(),
        };
        entries.extend(peers.into_iter().map(|peer| Entry {
            policy: peer.name(),
            settings: peer.to_string(),
            is_default: defaults.contains(&peer),
            score: self.world.play(&self.trace, &mut *peer.contender(), &mut ()),
            notes: None,
        }));
        let clairvoyant = clairvoyant::play(&self.world, &self.trace);
        Outcome { name: self.name.clone(), clairvoyant, entries }
    }

    /// Ours at its default, whose name is empty, and unless it is to be quick with what else a user may write.
    fn play_ours(&self, is_quick: bool) -> Vec<Entry> {
        let default = self.ours(String::new(), &self.settings);
        let sleeps = default.notes.as_ref().is_some_and(|notes| notes.slept);
        let mut variants = if is_quick { Vec::new() } else { ours::percentiles(&self.settings) };
        if sleeps && !is_quick {
            variants.extend(ours::sleeps(&self.settings));
        }
        let others = variants.into_iter().map(|(name, settings)| self.ours(name, &settings));
        [default].into_iter().chain(others).collect()
    }

    fn ours(&self, name: String, settings: &Settings) -> Entry {
        let mut notes = Notes::new(self.world.target);
        let score = self.world.play(&self.trace, &mut Ours(Scaler::new(*settings)), &mut notes);
        Entry { policy: "kembed", is_default: name.is_empty(), settings: name, score, notes: Some(notes) }
    }
}
