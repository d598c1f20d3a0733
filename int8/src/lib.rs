//! Products in 8-bit integers. Weights are rounded when they are loaded, rows when they come. Each block of numbers has
//! a scale of its own on both sides, so that a large number spoils its own block alone, and no row's result depends on
//! another row.
//!
//! Sums within a block are of integers and so exact, and what is done to them afterwards is written once: every
//! processor gives the same bits. This file says what is computed, its neighbours how.

mod gelu;
mod plain;
mod rows;
#[cfg_attr(not(target_arch = "x86_64"), path = "other.rs")]
mod x86;

use std::cell::RefCell;

use self::rows::{Rows, Scale};

/// Numbers that are multiplied at once.
const STEP: usize = 4;
/// Steps of a block: 128 numbers. A sum of so many products of a byte and a weight is exact as a float too, being less
/// than 128 * 255 * 127 = 2^22.
const STEPS: usize = 32;
/// Numbers that share a scale.
const BLOCK: usize = STEP * STEPS;
/// Outputs that one register holds.
const LANES: usize = 16;
/// Registers that are filled side by side.
const CELLS: usize = 4;
/// Outputs that are computed together.
const WIDTH: usize = LANES * CELLS;
/// Of a weight, to either side of zero.
const LARGEST: f32 = 127.;

/// Weights of one step: so many of each output.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Cell([[i8; STEP]; LANES]);

/// What belongs to a block of the weights of each output.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The sums of the weights.
    sums: [f32; WIDTH],
    /// What a weight of one stands for.
    scales: [f32; WIDTH],
}

/// Rounded weights of a product.
#[derive(Debug)]
pub struct Factor {
    from: usize,
    to: usize,
    /// `[outputs / WIDTH, steps]`, both rounded up; what is beyond the weights is zero.
    cells: Vec<[Cell; CELLS]>,
    /// `[outputs / WIDTH, blocks]`
    blocks: Vec<Block>,
    /// Of each `WIDTH` outputs, what is added before their gelu is taken. Empty where products are the end.
    biases: Vec<[f32; WIDTH]>,
}

/// The part of a factor for `WIDTH` outputs.
#[derive(Clone, Copy)]
struct Panel<'a> {
    cells: &'a [[Cell; CELLS]],
    blocks: &'a [Block],
    bias: Option<&'a [f32; WIDTH]>,
}

/// Why weights cannot be rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// Their biases are not theirs.
    #[error("it has {outputs} outputs, and biases for {biases}")]
    Biases {
        /// Biases there are.
        biases: usize,
        /// Outputs there are.
        outputs: usize,
    },
    /// They have no scale.
    #[error("it has numbers that are not finite")]
    NotFinite,
}

impl Factor {
    /// Rounds weights, `[to, from]`.
    ///
    /// # Errors
    /// If one is not finite, or there are none.
    pub fn new(weights: &[f32], from: usize) -> Result<Self, RoundError> {
        if weights.is_empty() || from == 0 {
            return Err(RoundError::Empty);
        }
        let (to, panels) = (weights.len() / from, (weights.len() / from).div_ceil(WIDTH));
        let cells = vec![[Cell([[0; STEP]; LANES]); CELLS]; panels * from.div_ceil(STEP)];
        let blocks = vec![Block { sums: [0.; WIDTH], scales: [0.; WIDTH] }; panels * from.div_ceil(BLOCK)];
        let mut factor = Self { from, to, cells, blocks, biases: Vec::new() };
        for (output, weights) in weights.chunks(from).enumerate() {
            factor.place(output, weights)?;
        }
        Ok(factor)
    }

    /// A bias for each output, which is added to products before their gelu is taken.
    ///
    /// # Errors
    /// If there are not as many as outputs.
    pub fn with_gelu(mut self, bias: &[f32]) -> Result<Self, RoundError> {
        if bias.len() != self.to {
            return Err(RoundError::Biases { biases: bias.len(), outputs: self.to });
        }
        self.biases = vec![[0.; WIDTH]; self.to.div_ceil(WIDTH)];
        self.biases.as_flattened_mut()[..bias.len()].copy_from_slice(bias);
        Ok(self)
    }

    /// Numbers of a row that it takes.
    pub fn from(&self) -> usize {
        self.from
    }

    /// Numbers of a row that it gives.
    pub fn to(&self) -> usize {
        self.to
    }

    fn place(&mut self, output: usize, weights: &[f32]) -> Result<(), RoundError> {
        let (panel, lane) = (output / WIDTH, output % WIDTH);
        let (steps, blocks) = (self.from.div_ceil(STEP), self.from.div_ceil(BLOCK));
        let cells = self.cells[panel * steps..][..steps].chunks_mut(STEPS);
        let blocks = &mut self.blocks[panel * blocks..][..blocks];
        for ((weights, cells), block) in weights.chunks(BLOCK).zip(cells).zip(blocks) {
            let scale = largest(weights) / LARGEST;
            if !scale.is_finite() {
                return Err(RoundError::NotFinite);
            }
            // Numbers so small that the scale has no inverse become zeros.
            let inverse = if scale > f32::MIN_POSITIVE { scale.recip() } else { 0. };
            let mut sum = 0;
            for (cells, weights) in cells.iter_mut().zip(weights.chunks(STEP)) {
                for (byte, weight) in cells[lane / LANES].0[lane % LANES].iter_mut().zip(weights) {
                    let scaled = weight * inverse;
                    // Halves go away from zero.
                    *byte = (scaled + 0.5_f32.copysign(scaled)) as i8;
                    sum += i32::from(*byte);
                }
            }
            (block.sums[lane], block.scales[lane]) = (sum as f32, scale);
        }
        Ok(())
    }

    fn panels(&self) -> impl Iterator<Item = Panel<'_>> {
        let cells = self.cells.chunks_exact(self.from.div_ceil(STEP));
        let blocks = self.blocks.chunks_exact(self.from.div_ceil(BLOCK));
        let panels = cells.zip(blocks).enumerate();
        panels.map(|(i, (cells, blocks))| Panel { cells, blocks, bias: self.biases.get(i) })
    }
}

impl Block {
    /// Adds what the sums of a row's bytes times weights stand for.
    // Into its caller, so that it is compiled for the same processor.
    #[inline(always)]
    fn add(&self, products: &[i32; WIDTH], row: Scale, outputs: &mut [f32; WIDTH]) {
        for i in 0..WIDTH {
            let product = products[i] as f32 - row.zero * self.sums[i];
            outputs[i] += product * (row.one * self.scales[i]);
        }
    }
}

impl Panel<'_> {
    /// Does what is left to do to sums of products.
    // As above.
    #[inline(always)]
    fn finish(&self, sums: &mut [f32; WIDTH]) {
        if let Some(bias) = self.bias {
            gelu::add_and_gelu(sums, bias);
        }
    }
}

/// Whether this processor makes products in integers faster than in floats.
pub fn is_fast() -> bool {
    x86::has_vnni()
}

/// Rows times the transposes of several factors, which take equally long rows. There is one output for each.
///
/// # Panics
/// If lengths do not agree.
pub fn multiply(rows: &[f32], factors: &[Factor], outputs: &mut [&mut [f32]]) {
    thread_local! {
        /// Kept, for memory is dear to ask for.
        static ROUNDED: RefCell<Rows> = RefCell::default();
    }
    ROUNDED.with_borrow_mut(|rounded| {
        if !x86::multiply(rows, factors, rounded, outputs) {
            plain::multiply(rows, factors, rounded, outputs);
        }
    });
}

/// The largest size of a number. That of one which is not finite is larger than all others.
fn largest(numbers: &[f32]) -> f32 {
    const SIZE: u32 = u32::MAX >> 1;
    // Sizes are in the order of their bits; compared as integers they need no thought about what is no number.
    f32::from_bits(numbers.iter().map(|x| x.to_bits() & SIZE).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn product(rows: &[f32], factor: &Factor) -> Vec<f32> {
        let mut out = vec![f32::NAN; rows.len() / factor.from * factor.to];
        multiply(rows, std::slice::from_ref(factor), &mut [&mut out]);
        out
    }

    fn exact(rows: &[f32], weights: &[f32], from: usize) -> Vec<f32> {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>() as f32;
        rows.chunks(from).flat_map(|row| weights.chunks(from).map(move |w| dot(row, w))).collect()
    }

    #[test]
    fn whole_numbers_are_multiplied_exactly() {
        // Scales of one: the largest weight is 127, and a row reaches from 0 to 255.
        let weights = [127., -3., 0., 5., 1., -127., 2., 2., 127., 127.];
        let factor = Factor::new(&weights, 5).expect("good weights");
        let rows = [255., 0., 7., 1., 2., 0., 255., 1., 1., 1.];
        assert_eq!(product(&rows, &factor), exact(&rows, &weights, 5));
    }

    #[test]
    fn a_large_number_spoils_its_own_block_alone() {
        let mut row = [0.01; BLOCK + 1];
        row[0] = 1000.;
        let mut weights = [0.; BLOCK + 1];
        weights[BLOCK] = 3.;
        let factor = Factor::new(&weights, BLOCK + 1).expect("good weights");
        assert!((product(&row, &factor)[0] - 0.03).abs() < 1e-6);
    }

    #[test]
    fn what_has_no_scale_is_refused_or_nothing() {
        assert_eq!(Factor::new(&[], 2).err(), Some(RoundError::Empty));
        assert_eq!(Factor::new(&[], 0).err(), Some(RoundError::Empty));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(Factor::new(&[1., wrong], 2).err(), Some(RoundError::NotFinite));
        }
        let tiny = f32::MIN_POSITIVE / 4.;
        let factor = Factor::new(&[1., 2., tiny, 0.], 2).expect("finite numbers");
        assert_eq!(product(&[0., 0.], &factor), [0., 0.]);
        assert_eq!(product(&[1., 0.], &factor)[1], 0.);
    }

    #[test]
    fn a_gelu_is_taken_of_products_and_their_biases() {
        let factor = Factor::new(&[127., 0., 0., 127.], 2).expect("good weights");
        assert_eq!(factor.with_gelu(&[1.]).err(), Some(RoundError::Biases { biases: 1, outputs: 2 }),);
        let factor =
            Factor::new(&[127., 0., 0., 127.], 2).and_then(|factor| factor.with_gelu(&[-127., 100.]));
        let [near_zero, hundred] = product(&[1., 0.], &factor.expect("two"))[..] else {
            panic!("two outputs")
        };
        assert!(near_zero.abs() < 1e-5 && hundred == 100., "{near_zero} {hundred}");
    }

    #[test]
    fn what_is_not_finite_gives_nothing_that_is() {
        let factor = Factor::new(&[1., 2.], 2).expect("good weights");
        for wrong in [f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!product(&[wrong, 1.], &factor)[0].is_finite());
        }
    }

    fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-3f32..3., count)
    }

    /// How long rows are, rows, and weights.
    fn case() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        (1..300usize, 1..15usize, 1..140usize)
            .prop_flat_map(|(from, rows, to)| (Just(from), numbers(from * rows), numbers(from * to)))
    }

    proptest! {
        #[test]
        fn products_are_near_and_the_same_by_every_way((from, rows, weights) in case()) {
            let factor = Factor::new(&weights, from).expect("good weights");
            let fast = product(&rows, &factor);
            let bias: Vec<f32> = weights.iter().step_by(from).copied().collect();
            let with_gelu = Factor::new(&weights, from).and_then(|factor| factor.with_gelu(&bias));
            for factor in [&factor, &with_gelu.expect("as many as outputs")] {
                let mut plain = vec![f32::NAN; fast.len()];
                let factors = std::slice::from_ref(factor);
                plain::multiply(&rows, factors, &mut Rows::default(), &mut [&mut plain]);
                prop_assert_eq!(&product(&rows, factor), &plain);
            }
            for (near, exact) in fast.iter().zip(exact(&rows, &weights, from)) {
                // Each number is off by at most half a step of 6/255 or 3/127.
                let bound = from as f32 * 3. * (3. / 255. + 1.5 / 127.);
                prop_assert!((near - exact).abs() <= bound * 1.1, "{} is not {}", near, exact);
            }
            for (row, together) in rows.chunks(from).zip(fast.chunks(factor.to)) {
                prop_assert_eq!(&product(row, &factor), together);
            }
        }
    }
}
