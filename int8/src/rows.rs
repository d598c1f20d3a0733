//! Rows as bytes.

use super::{BLOCK, STEP};

/// Numbers that are compared side by side.
const LANES: usize = 16;

/// From here on up to twice as much, floats are whole numbers, and the last bits of one are those of the number: adding it
/// rounds.
const WHOLE: f32 = 8_388_608.;

/// Rounded rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// `[rows, steps]`
    pub(super) bytes: Vec<[u8; STEP]>,
    /// `[rows, blocks]`
    pub(super) scales: Vec<Scale>,
}

/// What the bytes of a block mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The byte that means zero.
    pub(super) zero: f32,
    /// What a byte one larger means.
    pub(super) one: f32,
}

impl Rows {
    /// Rounds rows of so many numbers in place of those before.
    // Into its caller, so that it is compiled for the same processor.
    #[inline(always)]
    pub(super) fn round(&mut self, rows: &[f32], from: usize) {
        let steps = from.div_ceil(STEP);
        self.scales.clear();
        self.bytes.resize(rows.len() / from * steps, [0; STEP]);
        for (row, bytes) in rows.chunks_exact(from).zip(self.bytes.chunks_exact_mut(steps)) {
            let bytes = bytes.as_flattened_mut();
            bytes[from..].fill(0);
            for (numbers, bytes) in row.chunks(BLOCK).zip(bytes.chunks_mut(BLOCK)) {
                self.scales.push(round(numbers, bytes));
            }
        }
    }
}

/// Rounds numbers that share a scale.
#[inline(always)]
fn round(numbers: &[f32], bytes: &mut [u8]) -> Scale {
    let (least, most) = range(numbers);
    let inverse = 255. / (most - least);
    // Zeros have no scale. What is not finite has none either, and gives nothing that is.
    let inverse = if inverse.is_finite() { inverse } else { 0. };
    let zero = f32::from((-least * inverse + 0.5) as u8);
    for (byte, x) in bytes.iter_mut().zip(numbers) {
        let scaled = x * inverse + (zero + WHOLE);
        let scaled = if scaled > WHOLE { scaled } else { WHOLE };
        let scaled = if scaled < WHOLE + 255. { scaled } else { WHOLE + 255. };
        *byte = scaled.to_bits() as u8;
    }
    Scale { zero, one: (most - least) / 255. }
}

/// From the least number to the most; both ends reach zero.
#[inline(always)]
fn range(numbers: &[f32]) -> (f32, f32) {
    let (mut least, mut most) = ([0f32; LANES], [0f32; LANES]);
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            least[i] = if chunk[i] < least[i] { chunk[i] } else { least[i] };
            most[i] = if chunk[i] > most[i] { chunk[i] } else { most[i] };
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        (least[i], most[i]) = (least[i].min(x), most[i].max(x));
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            least[i] = if least[i + half] < least[i] { least[i + half] } else { least[i] };
            most[i] = if most[i + half] > most[i] { most[i + half] } else { most[i] };
        }
    }
    (least[0], most[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_reach_from_the_least_number_to_the_most() {
        let mut rows = Rows::default();
        rows.round(&[-1., 0., 4.1, 0.5, 1., 2., 3., 0., 0., 0., 0., 0.], 4);
        assert_eq!(rows.bytes, [[0, 50, 255, 75], [85, 170, 255, 0], [0; 4]]);
        assert_eq!(rows.scales[1], Scale { zero: 0., one: 3. / 255. });
    }

    #[test]
    fn a_short_last_step_is_filled() {
        let mut rows = Rows::default();
        rows.round(&[9.; 12], 6);
        rows.round(&[1.; 5], 5);
        assert_eq!(rows.bytes, [[255; 4], [255, 0, 0, 0]]);
    }

    #[test]
    fn a_range_whose_ends_both_round_up_fits() {
        let mut rows = Rows::default();
        rows.round(&[-100.5, 154.5, 0., 1.], 4);
        assert_eq!((rows.bytes[0], rows.scales[0].zero), ([0, 255, 101, 102], 101.));
    }
}
