//! A change of a count, from its decision to its end. Pure.

use kembed_scaling::Reason;

/// A count that is to be written, if the service is still of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `<namespace>/<name>`.
    pub service: String,
    /// The version that this was decided from.
    pub version: String,
    /// The count that it has.
    pub from: u32,
    /// The count that it gets.
    pub to: u32,
    /// Why.
    pub reason: Reason,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The count is as asked for since the service has this version.
    Yes(String),
    /// The service has changed since, or could not be written.
    No,
}

/// Versions of one object grow as numbers do; where they should be none, another one is taken for later.
pub fn is_later(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}
