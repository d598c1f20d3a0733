//! Products in 8-bit integers, by an operator of our own.

use kembed_int8::Factor;

use super::graph::{Graph, Part, Value, int, output};
use crate::model::ModelError;

/// The domain of our own operators.
pub const OWN: &str = "kembed";
/// Multiplies one input with each of `count` factors, from the `first` on.
pub const PRODUCTS: &str = "Products";

impl Graph<'_> {
    /// `x` times each of the parts. It is rounded once for all of them.
    pub(super) fn products<const N: usize>(
        &mut self,
        x: &str,
        parts: [Part<'_>; N],
    ) -> Result<[Value; N], ModelError> {
        let first = self.factors.len();
        for Part { tensor, shape, rows } in parts {
            let weights = self.weights().floats_of_rows(tensor, &shape, rows)?;
            let factor = Factor::new(&weights, shape[1])
                .map_err(|e| ModelError::invalid("model.safetensors", format!("tensor {tensor}: {e}")))?;
            self.factors.push(factor);
        }
        let attributes = vec![int("first", first as i64), int("count", N as i64)];
        let name = self.node_of(OWN, PRODUCTS, &[x], N, attributes);
        Ok(std::array::from_fn(|i| if i == 0 { name.clone() } else { output(&name, i) }))
    }
}
