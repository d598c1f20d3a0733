//! The operator of graphs that [`crate::export`] makes for normalised sums.

use std::ops::Range;

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput},
    value::{TensorElementType, ValueRef},
};

use crate::{
    export::norm::{EPSILON, NORMALISED_SUM},
    norm::{Norm, add},
};

const FLOAT: TensorElementType = TensorElementType::Float32;

/// Takes `x`, what it is added to, gamma, and perhaps beta and a bias of the sum. Gives the normalised sum, and the sum
/// itself where it is wanted.
pub(super) struct NormalisedSum;

/// One node. Several threads may run it at once, so that nothing in it ever changes.
pub(super) struct Node {
    epsilon: f32,
}

impl Operator for NormalisedSum {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        NORMALISED_SUM
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let (required, optional) = (OperatorInput::required, OperatorInput::optional);
        [required(FLOAT), required(FLOAT), required(FLOAT), optional(FLOAT), optional(FLOAT)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(FLOAT), OperatorOutput::optional(FLOAT)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Node> {
        let epsilon = context.get(EPSILON).ok_or_else(|| ort::Error::new("a norm has no epsilon"))?;
        Ok(Node { epsilon })
    }
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let count = context.num_inputs()?;
        let input = |i| if i < count { context.input(i) } else { Ok(None) };
        let [x, skip, gamma, beta, bias] = [input(0)?, input(1)?, input(2)?, input(3)?, input(4)?];
        let [beta, bias] = [optional(&beta)?, optional(&bias)?];
        let [(shape, x), (_, skip), (_, gamma)] = [required(&x)?, required(&skip)?, required(&gamma)?];
        let fits = [beta, bias].into_iter().flatten().all(|numbers| numbers.len() == gamma.len());
        if gamma.is_empty() || skip.len() != x.len() || shape.last() != Some(&(gamma.len() as i64)) || !fits {
            return Err(ort::Error::new("inputs of a norm are of different sizes"));
        }
        let sum = Sum { x, skip, bias };
        let norm = Norm { gamma, beta, epsilon: self.epsilon };
        let mut normalised = context.output(0, shape)?.ok_or_else(missing)?;
        let normalised = normalised.try_extract_tensor_mut::<f32>()?.1;
        if context.num_outputs()? == 1 {
            sum.rows(normalised, gamma.len(), |_, row| norm.apply(row));
            return Ok(());
        }
        let mut sums = context.output(1, shape)?.ok_or_else(missing)?;
        let sums = sums.try_extract_tensor_mut::<f32>()?.1;
        sum.rows(normalised, gamma.len(), |place, row| {
            sums[place].copy_from_slice(row);
            norm.apply(row);
        });
        Ok(())
    }
}

struct Sum<'a> {
    x: &'a [f32],
    skip: &'a [f32],
    /// As long as a row.
    bias: Option<&'a [f32]>,
}

impl Sum<'_> {
    /// Writes rows of `size` numbers, and does something with each, told its place.
    fn rows(&self, out: &mut [f32], size: usize, mut each: impl FnMut(Range<usize>, &mut [f32])) {
        for (i, row) in out.chunks_exact_mut(size).enumerate() {
            let place = i * size..(i + 1) * size;
            row.copy_from_slice(&self.x[place.clone()]);
            add(row, &self.skip[place.clone()]);
            if let Some(bias) = self.bias {
                add(row, bias);
            }
            each(place, row);
        }
    }
}

fn missing() -> ort::Error {
    ort::Error::new("an input or output of a norm is missing")
}

fn required<'v>(input: &'v Option<ValueRef<'_>>) -> ort::Result<(&'v [i64], &'v [f32])> {
    let (shape, numbers) = input.as_ref().ok_or_else(missing)?.try_extract_tensor()?;
    Ok((shape, numbers))
}

fn optional<'v>(input: &'v Option<ValueRef<'_>>) -> ort::Result<Option<&'v [f32]>> {
    Ok(match input {
        Some(input) => Some(input.try_extract_tensor()?.1),
        None => None,
    })
}
