//! PyTorch at the same work, where this machine has it.

use std::{collections::HashMap, path::Path, process::Command};

use serde_json::Value;

/// What it did.
#[derive(Default)]
pub struct Torch {
    /// By length.
    pub tokens_per_second: HashMap<usize, f64>,
    /// Its versions, or why there are no figures.
    pub about: String,
}

impl Torch {
    /// Runs the model in that folder at these lengths, in batches of so many tokens.
    pub fn run(python: &str, model: &Path, batch: usize, seconds: f64, lengths: &[usize]) -> Self {
        let mut command = Command::new(python);
        command.args(["-c", include_str!("torch.py")]).arg(model);
        command.args([batch.to_string(), seconds.to_string()]).args(lengths.iter().map(usize::to_string));
        match command.output() {
            Err(error) => {
                Self { about: format!("absent: {python} does not start: {error}"), ..Self::default() }
            }
            Ok(output) => {
                Self::read(&String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr))
            }
        }
    }

    /// What the program printed.
    pub fn read(lines: &str, errors: &str) -> Self {
        let mut torch = Self::default();
        for line in lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let (Some(length), Some(rate)) = (line["length"].as_u64(), line["tokensPerSecond"].as_f64()) {
                torch.tokens_per_second.insert(length as usize, rate);
            }
            if let Some(versions) = line["versions"].as_str() {
                torch.about = versions.to_owned();
            }
            if let Some(why) = line["absent"].as_str() {
                torch.about = format!("absent: {why}");
            }
        }
        if torch.tokens_per_second.is_empty() && !torch.about.starts_with("absent") {
            torch.about = format!("failed: {}", errors.lines().last().unwrap_or("it said nothing"));
        }
        torch
    }
}
