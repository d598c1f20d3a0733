//! Texts of a given number of words, the same in every run.

use std::fmt::Write;

/// Each is a token to BERT.
pub const WORDS: [&str; 48] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "embedding",
    "kubernetes",
    "accelerator",
];

/// Numbers that look random.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to below `sides`.
    pub fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    /// A number above 0, and 1 at most.
    pub fn part(&mut self) -> f64 {
        const PARTS: usize = 1 << 24;
        (self.below(PARTS) + 1) as f64 / PARTS as f64
    }
}

/// A text of so many words.
pub fn text(dice: &mut Dice, words: usize) -> String {
    (0..words).map(|_| WORDS[dice.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
}

/// A request for embeddings of so many texts, of `shortest` to `longest` words each.
pub struct Body {
    pub json: String,
    pub texts: Vec<String>,
}

impl Body {
    pub fn new(dice: &mut Dice, inputs: usize, shortest: usize, longest: usize) -> Self {
        let texts: Vec<_> = (0..inputs)
            .map(|_| {
                let words = shortest + dice.below(longest - shortest + 1);
                text(dice, words)
            })
            .collect();
        // The words need no escaping.
        let mut json = String::from("{\"input\":[");
        for (i, text) in texts.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(json, "{comma}\"{text}\"").expect("a string takes everything");
        }
        json.push_str("]}");
        Self { json, texts }
    }
}
