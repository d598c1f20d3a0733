//! Products in 8-bit integers: weights are rounded here, what they are multiplied with by the operator.
//!
//! Each block of numbers has a scale of its own, on both sides, so that a large number spoils only its own block, and no
//! row's result depends on another row.

use std::ops::Range;

use super::{
    graph::{CONTRIB, Graph, Value, int},
    proto::{FLOAT, UINT8},
};
use crate::model::ModelError;

/// Numbers that share a scale.
const BLOCK: usize = 64;
/// The byte that means zero.
const ZERO: f32 = 128.;
/// How far bytes go to either side of it.
const LARGEST: f32 = 127.;
/// Has the operator round the other factor to 8 bits too.
const IN_INTEGERS: i64 = 4;

/// Weights of a product in bytes.
#[derive(Debug, PartialEq)]
struct Rounded {
    /// `[to, blocks, BLOCK]`; the last block of each row is filled up with zeros.
    bytes: Vec<u8>,
    /// `[to, blocks]`
    scales: Vec<f32>,
}

impl Graph<'_> {
    /// `x` times the transpose of some rows of a tensor in the files, which is `[to, from]`.
    pub(super) fn product_in_integers(
        &mut self,
        x: &str,
        tensor: &str,
        shape: [usize; 2],
        rows: Range<usize>,
    ) -> Result<Value, ModelError> {
        let (from, to) = (shape[1], rows.len());
        let name = format!("{tensor}.{}", rows.start);
        let weights = self.weights().floats_of_rows(tensor, &shape, rows)?;
        let rounded = round(&weights, from).ok_or_else(|| {
            ModelError::invalid(
                "model.safetensors",
                format!("tensor {tensor} has numbers that are not finite"),
            )
        })?;
        drop(weights);
        let blocks = from.div_ceil(BLOCK);
        let bytes = self.initializer(&format!("{name}.bytes"), UINT8, &[to, blocks, BLOCK], rounded.bytes);
        let scales = rounded.scales.iter().flat_map(|x| x.to_le_bytes()).collect();
        let scales = self.initializer(&format!("{name}.scales"), FLOAT, &[to, blocks], scales);
        let attributes = [
            ("K", from as i64),
            ("N", to as i64),
            ("bits", 8),
            ("block_size", BLOCK as i64),
            ("accuracy_level", IN_INTEGERS),
        ];
        let attributes = attributes.map(|(name, n)| int(name, n)).into();
        Ok(self.node(CONTRIB, "MatMulNBits", &[x, &bytes, &scales], attributes))
    }
}

/// Rounds rows of so many columns; `None` if a number is not finite.
fn round(weights: &[f32], columns: usize) -> Option<Rounded> {
    let blocks = weights.len() / columns.max(1) * columns.div_ceil(BLOCK);
    let mut rounded =
        Rounded { bytes: Vec::with_capacity(blocks * BLOCK), scales: Vec::with_capacity(blocks) };
    for row in weights.chunks(columns.max(1)) {
        for block in row.chunks(BLOCK) {
            let scale = largest(block) / LARGEST;
            if !scale.is_finite() {
                return None;
            }
            // A block of zeros, or of numbers so small that the scale has no inverse, becomes zeros.
            let inverse = if scale > f32::MIN_POSITIVE { scale.recip() } else { 0. };
            // What is cast is positive, so that cutting rounds to the nearest.
            rounded.bytes.extend(block.iter().map(|x| (x * inverse + ZERO + 0.5) as u8));
            rounded.bytes.resize(rounded.bytes.len().next_multiple_of(BLOCK), ZERO as u8);
            rounded.scales.push(scale);
        }
    }
    Some(rounded)
}

/// The largest size of a number. That of one which is not finite is larger than all others.
fn largest(block: &[f32]) -> f32 {
    const SIZE: u32 = u32::MAX >> 1;
    // Sizes are in the order of their bits; compared as integers they need no thought about what is no number.
    f32::from_bits(block.iter().map(|x| x.to_bits() & SIZE).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(rounded: &Rounded, columns: usize) -> Vec<f32> {
        let blocks = columns.div_ceil(BLOCK);
        let rows = rounded.bytes.chunks(blocks * BLOCK).zip(rounded.scales.chunks(blocks));
        rows.flat_map(|(bytes, scales)| {
            (0..columns).map(|i| (f32::from(bytes[i]) - ZERO) * scales[i / BLOCK])
        })
        .collect()
    }

    #[test]
    fn each_block_is_as_fine_as_its_largest_number_allows() {
        let weights: Vec<f32> = (0..BLOCK + 2).map(|i| if i < BLOCK { 127. } else { -0.127 }).collect();
        let rounded = round(&weights, BLOCK + 2).expect("finite numbers");
        assert_eq!(rounded.scales.len(), 2);
        assert_eq!((rounded.bytes[0], rounded.bytes[BLOCK], rounded.bytes[BLOCK + 2]), (255, 1, 128));
        assert!((back(&rounded, BLOCK + 2)[BLOCK + 1] + 0.127).abs() < 1e-6);
    }

    #[test]
    fn a_row_begins_with_a_block_of_its_own() {
        let rounded = round(&[1., 2., 3., 4.], 2).expect("finite numbers");
        assert_eq!((rounded.bytes.len(), rounded.scales.len()), (2 * BLOCK, 2));
        assert_eq!(rounded.bytes[BLOCK..BLOCK + 3], [223, 255, 128]);
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_is_refused() {
        for nothing in [0., -0., f32::MIN_POSITIVE / 4.] {
            let rounded = round(&[nothing; 3], 3).expect("finite numbers");
            assert_eq!(rounded.bytes[..4], [128; 4]);
        }
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(round(&[1., wrong], 2), None);
        }
    }

    proptest! {
        #[test]
        fn no_number_moves_by_more_than_half_a_step(
            rows in proptest::collection::vec(proptest::collection::vec(-1e3f32..1e3, 70), 0..4),
        ) {
            let weights = rows.concat();
            let rounded = round(&weights, 70).expect("finite numbers");
            let steps = rounded.scales.chunks(2).flat_map(|scales| (0..70).map(|i| scales[i / BLOCK]));
            for ((before, after), step) in weights.iter().zip(back(&rounded, 70)).zip(steps) {
                prop_assert!((before - after).abs() <= 0.5001 * step, "{} became {}", before, after);
            }
        }
    }
}
