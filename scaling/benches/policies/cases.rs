//! What is played.

use std::{fs, sync::Arc, time::Duration};

use kembed_scaling::simulate::{Contender, Kind, Score, Trace, World, clairvoyant, peers::Peer};

use crate::Args;

/// Start-up times of pods in seconds, and the latency that suits each.
const STARTS: [(f64, f64); 3] = [(2., 0.2), (20., 1.), (90., 2.)];

/// One trace with one start-up time.
pub struct Case {
    /// `trace/seed/start s`.
    pub name: String,
    trace: Arc<Trace>,
    world: World,
}

/// What somebody reached.
pub struct Entry {
    /// Who.
    pub policy: &'static str,
    /// Which settings.
    pub settings: String,
    /// These are its defaults.
    pub is_default: bool,
    pub score: Score,
}

/// What came out of a case.
pub struct Outcome {
    pub case: String,
    pub clairvoyant: Score,
    pub entries: Vec<Entry>,
}

/// All that the arguments ask for.
pub fn all(args: &Args) -> Result<Vec<Case>, String> {
    let seeds = if args.quick { 1 } else { args.seeds };
    let mut traces = Vec::new();
    if let Some(path) = &args.trace {
        let text = fs::read_to_string(path).map_err(|error| format!("failed to read {path:?}: {error}"))?;
        let trace = Trace::parse(&text).and_then(|trace| trace.with_rate(40., 1)?.with_length(0.5));
        traces
            .push(("conv".to_owned(), trace.map_err(|error| format!("failed to parse {path:?}: {error}"))?));
    }
    for kind in Kind::ALL {
        traces.extend((1..=seeds).map(|seed| (format!("{}/{seed}", kind.name()), kind.generate(seed))));
    }
    let mut cases = Vec::new();
    for (name, trace) in traces {
        let trace = Arc::new(trace);
        cases.extend(STARTS.map(|(start, target)| Case {
            name: format!("{name}/{start} s"),
            trace: trace.clone(),
            world: world(start, target),
        }));
    }
    cases.retain(|case| case.name.contains(&args.only));
    Ok(cases)
}

fn world(start: f64, target: f64) -> World {
    World {
        pod: Default::default(),
        start: Duration::from_secs_f64(start).as_secs_f64(),
        nodes: None,
        target,
        min: 0,
        max: 20,
        first: None,
    }
}

impl Case {
    pub fn play(&self, is_quick: bool) -> Outcome {
        let (defaults, mut entries) = (Peer::defaults(), Vec::new());
        let peers = if is_quick { defaults.to_vec() } else { Peer::grid() };
        for peer in peers {
            let score = self.score(&mut *peer.contender());
            let (settings, is_default) = (peer.to_string(), defaults.contains(&peer));
            entries.push(Entry { policy: peer.name(), settings, is_default, score });
        }
        Outcome { case: self.name.clone(), clairvoyant: clairvoyant::play(&self.world, &self.trace), entries }
    }

    fn score(&self, contender: &mut dyn Contender) -> Score {
        self.world.play(&self.trace, contender, &mut ())
    }
}
