//! The results, for people and for programs.

use serde_json::{Value, json};

/// One line of the table.
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Before what.
    pub with: String,
    /// What came out, in words.
    pub figure: String,
    /// What is wanted.
    pub goal: &'static str,
    /// Whether it is so; `None` where nothing is wanted.
    pub is_met: Option<bool>,
    /// Each round's numbers.
    pub rounds: Value,
}

impl Row {
    /// As a line of Markdown.
    pub fn markdown(&self) -> String {
        let Self { what, with, figure, goal, is_met, .. } = self;
        let is_met = is_met.map_or("", |is_met| if is_met { "yes" } else { "**no**" });
        format!("| {what} | {with} | {figure} | {goal} | {is_met} |")
    }

    fn json(&self) -> Value {
        let Self { what, with, figure, goal, is_met, rounds } = self;
        json!({"what": what, "with": with, "figure": figure, "goal": goal, "isMet": is_met, "rounds": rounds})
    }
}

/// What stands above the lines.
pub const HEAD: &str = "| what | gateways | measured | goal | met |\n|---|---|---|---|---|";

/// All as JSON.
pub fn json(rows: &[Row]) -> String {
    format!("{:#}\n", Value::Array(rows.iter().map(Row::json).collect()))
}

/// The value in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
