//! Products in 8-bit integers, by an operator of our own.

use kembed_int8::{Factor, RoundError};

use super::{
    OWN,
    graph::{Graph, Part, Value, int, output},
};
use crate::model::{ModelError, files::SAFETENSORS};

/// Multiplies one input with each of `count` factors, from the `first` on.
pub const PRODUCTS: &str = "Products";

impl Graph<'_> {
    /// `x` times each of the parts. It is rounded once for all of them.
    pub(super) fn products<const N: usize>(
        &mut self,
        x: &str,
        parts: [Part<'_>; N],
    ) -> Result<[Value; N], ModelError> {
        let factors = parts.map(|part| self.factor(&part));
        let name = self.multiplied(x, factors.into_iter().collect::<Result<_, _>>()?);
        Ok(std::array::from_fn(|i| if i == 0 { name.clone() } else { output(&name, i) }))
    }

    /// The gelu of `x` times a part and a bias.
    pub(super) fn gelu_of_product(
        &mut self,
        x: &str,
        part: Part<'_>,
        bias: &str,
    ) -> Result<Value, ModelError> {
        let biases = self.weights().floats(bias, &[part.rows.len()])?;
        let factor = self.factor(&part)?.with_gelu(&biases).map_err(|e| invalid(bias, e))?;
        Ok(self.multiplied(x, vec![factor]))
    }

    fn factor(&self, part: &Part<'_>) -> Result<Factor, ModelError> {
        let mut weights = self.weights().floats_of_rows(part.tensor, &part.shape, part.rows.clone())?;
        weights.iter_mut().for_each(|weight| *weight *= part.factor);
        Factor::new(&weights, part.shape[1]).map_err(|e| invalid(part.tensor, e))
    }

    /// The first of the outputs, one for each factor.
    fn multiplied(&mut self, x: &str, factors: Vec<Factor>) -> Value {
        let (first, count) = (self.factors.len(), factors.len());
        self.factors.extend(factors);
        let attributes = vec![int("first", first as i64), int("count", count as i64)];
        self.node_of(OWN, PRODUCTS, &[x], count, attributes)
    }
}

fn invalid(tensor: &str, error: RoundError) -> ModelError {
    ModelError::invalid(SAFETENSORS, format!("tensor {tensor}: {error}"))
}
