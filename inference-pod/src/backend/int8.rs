//! The operator of graphs that [`crate::export`] makes in 8-bit integers.

use std::{ops::Range, sync::Arc};

use kembed_int8::{Factor, multiply};
use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput},
    value::TensorElementType,
};

use crate::export::int8::PRODUCTS;

/// Sessions of a graph with these factors share the one copy of them.
pub(super) struct Products {
    factors: Arc<[Factor]>,
}

impl Products {
    pub(super) fn new(factors: Arc<[Factor]>) -> Self {
        if !factors.is_empty() && !kembed_int8::is_fast() {
            tracing::warn!("int8 is slower than float32 on this processor, which has no AVX-512 VNNI");
        }
        Self { factors }
    }
}

/// One node. Several threads may run it at once, so that nothing in it ever changes.
pub(super) struct Node {
    factors: Arc<[Factor]>,
    range: Range<usize>,
}

impl Operator for Products {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        PRODUCTS
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Node> {
        let number = |name| usize::try_from(context.get::<i64>(name)?).ok();
        let range = number("first").zip(number("count")).map(|(first, count)| first..first + count);
        let range = range.filter(|range| range.end <= self.factors.len());
        let range = range.ok_or_else(|| ort::Error::new("a node names factors that are not there"))?;
        Ok(Node { factors: self.factors.clone(), range })
    }
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new("an input or output is missing");
        let factors = &self.factors[self.range.clone()];
        let input = context.input(0)?.ok_or_else(missing)?;
        let (shape, rows) = input.try_extract_tensor::<f32>()?;
        let (Some((&from, before)), Some(first)) = (shape.split_last(), factors.first()) else {
            return Err(missing());
        };
        if from != first.from() as i64 {
            return Err(ort::Error::new(format!("rows of {from} numbers for factors of {}", first.from())));
        }
        let output = |(i, factor): (usize, &Factor)| {
            context.output(i, [before, &[factor.to() as i64]].concat())?.ok_or_else(missing)
        };
        let mut outputs = factors.iter().enumerate().map(output).collect::<ort::Result<Vec<_>>>()?;
        let outputs = outputs.iter_mut().map(|output| Ok(output.try_extract_tensor_mut::<f32>()?.1));
        multiply(rows, factors, &mut outputs.collect::<ort::Result<Vec<_>>>()?);
        Ok(())
    }
}
