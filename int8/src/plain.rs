//! For any processor.

use super::{BLOCK, CELLS, Cell, Factor, LANES, STEP, STEPS, WIDTH, rows::Rows};

/// See [`super::multiply`].
// Into its caller, so that it is compiled for the same processor, as all it calls.
#[inline(always)]
pub(super) fn multiply(rows: &[f32], factors: &[Factor], rounded: &mut Rows, outputs: &mut [&mut [f32]]) {
    let Some(from) = factors.first().map(|factor| factor.from) else { return };
    rounded.round(rows, from);
    let (steps, blocks) = (from.div_ceil(STEP), from.div_ceil(BLOCK));
    for (factor, out) in factors.iter().zip(outputs) {
        assert_eq!((factor.from, out.len()), (from, rows.len() / from * factor.to));
        let rows = rounded.bytes.chunks_exact(steps).zip(rounded.scales.chunks_exact(blocks));
        for ((bytes, scales), out) in rows.zip(out.chunks_exact_mut(factor.to)) {
            for (panel, out) in factor.panels().zip(out.chunks_mut(WIDTH)) {
                let mut sums = [0.; WIDTH];
                let cells = bytes.chunks(STEPS).zip(panel.cells.chunks(STEPS));
                for ((bytes, cells), (block, &scale)) in cells.zip(panel.blocks.iter().zip(scales)) {
                    block.add(&products(bytes, cells), scale, &mut sums);
                }
                panel.finish(&mut sums);
                out.copy_from_slice(&sums[..out.len()]);
            }
        }
    }
}

#[inline(always)]
fn products(bytes: &[[u8; STEP]], cells: &[[Cell; CELLS]]) -> [i32; WIDTH] {
    let mut sums = [0; WIDTH];
    for (bytes, cells) in bytes.iter().zip(cells) {
        for (cell, sums) in cells.iter().zip(sums.as_chunks_mut::<LANES>().0) {
            for (weights, sum) in cell.0.iter().zip(sums) {
                for i in 0..STEP {
                    *sum += i32::from(bytes[i]) * i32::from(weights[i]);
                }
            }
        }
    }
    sums
}
