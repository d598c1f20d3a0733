//! What others reached in an earlier run, so that ours can be tried alone.

use std::{collections::BTreeMap, fs, path::Path};

use kembed_scaling::simulate::{Score, peers::Peer};
use serde_json::Value;

use crate::{
    cases::{Entry, Name},
    table::CLAIRVOYANT,
};

/// By case, what who knows the future reached and what all peers did.
pub type Record = BTreeMap<Name, (Score, Vec<Entry>)>;

/// Reads what [`print_lines`](crate::table::print_lines) wrote. What ours reached then is left out.
pub fn read(path: &Path) -> Result<Record, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("failed to read {path:?}: {error}"))?;
    let mut record = Record::new();
    for (index, line) in text.lines().enumerate() {
        let broken = || format!("failed to read line {} of {path:?}", index + 1);
        let line: Value = serde_json::from_str(line).map_err(|_| broken())?;
        let (name, policy, settings) = named(&line).ok_or_else(broken)?;
        let score = score(&line).ok_or_else(broken)?;
        let (clairvoyant, entries) = record.entry(name).or_default();
        if policy == CLAIRVOYANT {
            *clairvoyant = score;
        } else if let Some(policy) = Peer::NAMES.into_iter().find(|name| *name == policy) {
            let is_default = line["default"] == true;
            entries.push(Entry { policy, settings, is_default, score, notes: None });
        }
    }
    Ok(record)
}

fn named(line: &Value) -> Option<(Name, String, String)> {
    let text = |key: &str| Some(line[key].as_str()?.to_owned());
    let name = Name { trace: text("trace")?, seed: line["seed"].as_u64()?, start: line["start"].as_u64()? };
    Some((name, text("policy")?, text("settings")?))
}

fn score(line: &Value) -> Option<Score> {
    let mut score = Score::default();
    (score.requests, score.missed) = (line["requests"].as_u64()?, line["missed"].as_u64()?);
    score.replica_seconds = line["replica_seconds"].as_f64()?;
    Some(score)
}
