//! For processors of the x86 family: those that multiply four bytes and add them up at once, 64 in a register (AVX-512
//! VNNI), and those with large registers.
#![allow(unsafe_code, reason = "what a processor can do is only known when it runs")]

use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32, _mm512_set1_epi32, _mm512_setzero_si512};

use super::{CELLS, Cell, Factor, Panel, STEP, STEPS, WIDTH, rows::Rows};

/// Rows that are computed together: with four registers each, four for weights and one for a row's bytes, all 32 are used
/// but three.
const ROWS: usize = 6;

/// See [`super::multiply`]. Tells whether this processor can do it.
pub(super) fn multiply(
    rows: &[f32],
    factors: &[Factor],
    rounded: &mut Rows,
    outputs: &mut [&mut [f32]],
) -> bool {
    if has_vnni() {
        // SAFETY: the processor has just been asked for what the function is compiled for.
        unsafe { multiply_by_vnni(rows, factors, rounded, outputs) };
        return true;
    }
    let has_avx2 = is_x86_feature_detected!("avx2");
    if has_avx2 {
        // SAFETY: as above.
        unsafe { multiply_by_avx2(rows, factors, rounded, outputs) };
    }
    has_avx2
}

/// Whether this processor has AVX-512 VNNI.
pub(super) fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// The plain way, compiled for larger registers.
#[target_feature(enable = "avx2")]
fn multiply_by_avx2(rows: &[f32], factors: &[Factor], rounded: &mut Rows, outputs: &mut [&mut [f32]]) {
    super::plain::multiply(rows, factors, rounded, outputs);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_by_vnni(rows: &[f32], factors: &[Factor], rounded: &mut Rows, outputs: &mut [&mut [f32]]) {
    let Some(from) = factors.first().map(|factor| factor.from) else { return };
    rounded.round(rows, from);
    let rows = rows.len() / from;
    for (factor, out) in factors.iter().zip(outputs) {
        assert_eq!((factor.from, out.len()), (from, rows * factor.to));
        for (i, panel) in factor.panels().enumerate() {
            let columns = i * WIDTH..factor.to.min((i + 1) * WIDTH);
            let mut first = 0;
            while first < rows {
                let put = |i: usize, sums: &[f32; WIDTH]| {
                    let row = &mut out[(first + i) * factor.to..][..factor.to];
                    row[columns.clone()].copy_from_slice(&sums[..columns.len()]);
                };
                first += match rows - first {
                    1 => some::<1>(panel, rounded, [first, rows], put),
                    2 => some::<2>(panel, rounded, [first, rows], put),
                    3..=4 => some::<4>(panel, rounded, [first, rows], put),
                    _ => some::<ROWS>(panel, rounded, [first, rows], put),
                };
            }
        }
    }
}

/// `WIDTH` outputs of up to `N` of `rows` rows from `first` on. Tells of how many: at the end there may be fewer.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn some<const N: usize>(
    panel: Panel<'_>,
    rounded: &Rows,
    [first, rows]: [usize; 2],
    mut put: impl FnMut(usize, &[f32; WIDTH]),
) -> usize {
    // Where there are too few, the last is computed again.
    let row: [usize; N] = std::array::from_fn(|i| (first + i).min(rows - 1));
    let (steps, blocks) = (panel.cells.len(), panel.blocks.len());
    let mut sums = [[0.; WIDTH]; N];
    for (i, (cells, block)) in panel.cells.chunks(STEPS).zip(panel.blocks).enumerate() {
        let bytes = row.map(|row| &rounded.bytes[row * steps + i * STEPS..][..cells.len()]);
        let products = products::<N>(bytes, cells);
        for n in 0..N {
            let products = zerocopy::transmute!(products[n]);
            block.add(&products, rounded.scales[row[n] * blocks + i], &mut sums[n]);
        }
    }
    let left = N.min(rows - first);
    for (i, sums) in sums[..left].iter_mut().enumerate() {
        panel.finish(sums);
        put(i, sums);
    }
    left
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn products<const N: usize>(rows: [&[[u8; STEP]]; N], cells: &[[Cell; CELLS]]) -> [[__m512i; CELLS]; N] {
    let mut sums = [[_mm512_setzero_si512(); CELLS]; N];
    for (step, cells) in cells.iter().enumerate() {
        let mut weights = [_mm512_setzero_si512(); CELLS];
        for i in 0..CELLS {
            weights[i] = zerocopy::transmute!(cells[i].0);
        }
        for n in 0..N {
            let bytes = _mm512_set1_epi32(i32::from_le_bytes(rows[n][step]));
            for i in 0..CELLS {
                sums[n][i] = _mm512_dpbusd_epi32(sums[n][i], bytes, weights[i]);
            }
        }
    }
    sums
}
