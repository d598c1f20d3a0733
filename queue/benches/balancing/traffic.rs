//! What clients send.

use kembed_queue::wire::Lane;

use crate::random::Random;

/// A request, as its client makes it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its lane.
    pub lane: Lane,
    /// Tokens of each of its texts.
    pub texts: Vec<u32>,
    /// Bytes of its body.
    pub bytes: usize,
}

/// Texts of 8 to 200 words, most of them short (log-normal, median 25 words, mean 36). What a word has of tokens and
/// bytes varies by a tenth, so that no estimate is exact.
pub fn texts(count: usize, lane: Lane, random: &mut Random) -> Sent {
    let mut sent = Sent { lane, texts: Vec::with_capacity(count), bytes: 48 };
    for _ in 0..count {
        let words = (25. * (0.9 * random.normal()).exp()).clamp(8., 200.).round();
        let tokens = 2. + words * 1.3 * (0.9 + 0.2 * random.unit());
        sent.texts.push((tokens as u32).min(256));
        sent.bytes += (words * 6. * (0.9 + 0.2 * random.unit())) as usize;
    }
    sent
}

impl Sent {
    /// Its work.
    pub fn tokens(&self) -> u64 {
        self.texts.iter().copied().map(u64::from).sum()
    }
}
