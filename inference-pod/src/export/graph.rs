//! A graph while it is built: names are given out, weights are referred to or copied.

use std::ops::Range;

use kembed_int8::Factor;
use prost::Message;

use super::{
    Exported, OWN,
    half::half,
    packed::Packing,
    proto::{
        AttributeProto, BFLOAT16, Dimension, FLOAT, FLOAT16, GraphProto, INT64, ModelProto, NodeProto,
        OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorType, TypeProto,
        ValueInfoProto,
    },
};
use crate::model::{
    ModelError, Precision,
    weights::{Float, Place, Weights},
};

/// The operators that every ONNX runtime has.
pub(super) const ONNX: &str = "";
/// The fused operators of ONNX Runtime.
pub(super) const CONTRIB: &str = "com.microsoft";

/// A value of the graph, by name.
pub(super) type Value = String;

/// Weights of a product: some rows of a tensor in the files, which may hold those of several.
pub(super) struct Part<'a> {
    pub(super) tensor: &'a str,
    /// `[to, from]`, as weights are saved.
    pub(super) shape: [usize; 2],
    pub(super) rows: Range<usize>,
    /// What the product is multiplied with.
    pub(super) factor: f32,
}

impl<'a> Part<'a> {
    /// All of a tensor, `[to, from]`.
    pub(super) fn whole(tensor: &'a str, shape: [usize; 2]) -> Self {
        Self { tensor, shape, rows: 0..shape[0], factor: 1. }
    }

    /// One of `N` parts of equal size, `[to, from]` each, that lie in a tensor one after the other.
    pub(super) fn each<const N: usize>(tensor: &'a str, [to, from]: [usize; 2]) -> [Self; N] {
        let shape = [N * to, from];
        std::array::from_fn(|i| Self { rows: i * to..(i + 1) * to, ..Self::whole(tensor, shape) })
    }

    /// The same, times a number.
    pub(super) fn times(self, factor: f32) -> Self {
        Self { factor: self.factor * factor, ..self }
    }
}

pub(super) struct Graph<'a> {
    weights: &'a Weights,
    precision: Precision,
    pub(super) factors: Vec<Factor>,
    /// Of a graph for GPUs.
    packing: Option<Packing>,
    proto: GraphProto,
}

impl<'a> Graph<'a> {
    /// An empty one, whose products are computed in these numbers.
    pub(super) fn new(weights: &'a Weights, precision: Precision) -> Self {
        Self {
            weights,
            precision,
            factors: Vec::new(),
            packing: None,
            proto: GraphProto { name: "encoder".into(), ..GraphProto::default() },
        }
    }

    /// Names an input of the given element type.
    pub(super) fn input(&mut self, name: &str, elem_type: i32, dims: &[&str]) -> Value {
        self.proto.input.push(value_info(name, elem_type, dims));
        name.into()
    }

    /// Whether there is an input of this name.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.proto.input.iter().any(|input| input.name == name)
    }

    /// Names an output: 32-bit floats.
    pub(super) fn output(&mut self, name: &str, value: Value, dims: &[&str]) {
        self.proto.output.push(value_info(name, FLOAT, dims));
        self.push(ONNX, "Identity", vec![value], name, 1, Vec::new());
    }

    /// From now on tokens are packed, and operators are those that ONNX Runtime has on GPUs.
    pub(super) fn pack(&mut self, packing: Packing) {
        self.packing = Some(packing);
    }

    /// How tokens are packed, if they are.
    pub(super) fn packing(&self) -> Option<&Packing> {
        self.packing.as_ref()
    }

    /// The numbers that products are computed in.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// The weights that the graph refers to.
    pub(super) fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// A tensor of the files in the floats that all is computed in, as [`Graph::rows`].
    pub(super) fn weight(&mut self, tensor: &str, shape: &[usize]) -> Result<Value, ModelError> {
        self.rows(tensor, shape, 0..shape[0])
    }

    /// Some rows of a tensor of the files: outputs of a product that was saved as one of several. They are 32-bit floats, or 16-bit ones if
    /// all is computed in those. Others are widened or rounded by ONNX Runtime when it loads the graph, which could hold 2 GB of them.
    pub(super) fn rows(
        &mut self,
        tensor: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Value, ModelError> {
        let (value, kind) = self.rows_as_saved(tensor, shape, rows)?;
        Ok(self.as_computed(value, kind))
    }

    /// Floats of some element type as those that all is computed in.
    fn as_computed(&mut self, value: Value, kind: i32) -> Value {
        if kind == self.computed_in() { value } else { self.cast(&value, self.computed_in()) }
    }

    /// The element type of those that all is computed in.
    pub(super) fn computed_in(&self) -> i32 {
        if self.precision == Precision::Float16 { FLOAT16 } else { FLOAT }
    }

    /// The rows that `ids` name of a table in the files, as [`Graph::weight`] has them. The table stays as small as it was
    /// saved, or becomes it.
    pub(super) fn lookup(&mut self, table: &str, shape: &[usize], ids: &str) -> Result<Value, ModelError> {
        if self.precision == Precision::Float16 {
            let table = self.weight(table, shape)?;
            return Ok(self.node(ONNX, "Gather", &[&table, ids], Vec::new()));
        }
        let (table, kind) = self.rows_as_saved(table, shape, 0..shape[0])?;
        let found = self.node(ONNX, "Gather", &[&table, ids], Vec::new());
        Ok(self.as_computed(found, kind))
    }

    /// Rows of a tensor as they lie in the file if that is possible, else a copy; and their element type.
    fn rows_as_saved(
        &mut self,
        tensor: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<(Value, i32), ModelError> {
        let dims = [&[rows.len()], &shape[1..]].concat();
        let name = part_name(tensor, shape, &rows);
        let Some(place) = self.weights.place(tensor, shape)? else {
            let numbers = self.weights.floats_of_rows(tensor, shape, rows)?;
            return Ok((self.constant(&name, &dims, &numbers), self.computed_in()));
        };
        let data_type = match place.float {
            Float::F32 => FLOAT,
            Float::F16 => FLOAT16,
            Float::Bf16 => BFLOAT16,
        };
        let length = place.length / shape[0].max(1) as u64;
        let place = Place {
            offset: place.offset + length * rows.start as u64,
            length: length * rows.len() as u64,
            ..place
        };
        self.proto.initializer.push(TensorProto {
            data_type,
            external_data: reference(place),
            data_location: 1,
            ..floats(&name, &dims, Vec::new())
        });
        Ok((name, data_type))
    }

    /// A tensor of numbers that are in no file, of 16 bits if all is computed in those.
    pub(super) fn constant(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> Value {
        let bytes = match self.precision {
            Precision::Float16 => numbers.iter().flat_map(|&x| half(x).to_le_bytes()).collect(),
            Precision::Float32 | Precision::Int8 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        self.initializer(name, self.computed_in(), shape, bytes)
    }

    /// As [`Graph::constant`], of whole numbers.
    pub(super) fn integers(&mut self, name: &str, shape: &[usize], numbers: &[i64]) -> Value {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.initializer(name, INT64, shape, bytes)
    }

    /// A shape for `Reshape` or `Expand`. All that are alike are one tensor.
    pub(super) fn shape(&mut self, dims: &[i64]) -> Value {
        let name = format!("shape_{dims:?}");
        if self.proto.initializer.iter().any(|tensor| tensor.name == name) {
            return name;
        }
        self.integers(&name, &[dims.len()], dims)
    }

    /// A tensor of the given element type, by its bytes, lower ones first.
    pub(super) fn initializer(
        &mut self,
        name: &str,
        data_type: i32,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Value {
        self.proto.initializer.push(TensorProto { data_type, ..floats(name, shape, bytes) });
        name.into()
    }

    /// Changes the type of numbers.
    pub(super) fn cast(&mut self, value: &str, to: i32) -> Value {
        self.node(ONNX, "Cast", &[value], vec![int("to", to.into())])
    }

    /// `x` times the transpose of a tensor in the files, which is `[to, from]`, as weights are saved.
    pub(super) fn linear(
        &mut self,
        x: &str,
        tensor: &str,
        from: usize,
        to: usize,
    ) -> Result<Value, ModelError> {
        let [product] = self.linears(x, [Part::whole(tensor, [to, from])])?;
        Ok(product)
    }

    /// As [`Graph::linear`], for several products of the same.
    pub(super) fn linears<const N: usize>(
        &mut self,
        x: &str,
        parts: [Part<'_>; N],
    ) -> Result<[Value; N], ModelError> {
        if self.precision == Precision::Int8 {
            return self.products(x, parts);
        }
        let mut products = [const { String::new() }; N];
        for (product, Part { tensor, shape, rows, factor }) in products.iter_mut().zip(parts) {
            let weight = self.rows(tensor, &shape, rows)?;
            let attributes = vec![int("transB", 1), float("alpha", factor)];
            *product = self.node(CONTRIB, "FusedMatMul", &[x, &weight], attributes);
        }
        Ok(products)
    }

    /// Applies an operator to values; an empty name leaves an optional input out.
    pub(super) fn node(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        self.node_of(domain, operator, inputs, 1, attributes)
    }

    /// As [`Graph::node`], for an operator that must be given names for several outputs. The first is returned; to
    /// the others a number is added, as in [`output`].
    pub(super) fn node_of(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        outputs: usize,
        attributes: Vec<AttributeProto>,
    ) -> Value {
        let name = format!("{operator}_{}", self.proto.node.len());
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.push(domain, operator, inputs, &name, outputs, attributes);
        name
    }

    /// As [`Graph::node`], of whose other outputs one is wanted too, by its number. Those between are left out.
    pub(super) fn node_and(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        which: usize,
        attributes: Vec<AttributeProto>,
    ) -> (Value, Value) {
        let first = self.node_of(domain, operator, inputs, which + 1, attributes);
        if let Some(node) = self.proto.node.last_mut() {
            node.output[1..which].iter_mut().for_each(String::clear);
        }
        let other = output(&first, which);
        (first, other)
    }

    pub(super) fn finish(self) -> Exported {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let model = ModelProto {
            ir_version: 10,
            producer_name: "kembed".into(),
            graph: Some(self.proto),
            opset_import: vec![opset(ONNX, 20), opset(CONTRIB, 1), opset(OWN, 1)],
        };
        Exported {
            onnx: model.encode_to_vec(),
            folder: self.weights.folder().to_owned(),
            factors: self.factors,
        }
    }

    fn push(
        &mut self,
        domain: &str,
        operator: &str,
        input: Vec<String>,
        name: &str,
        outputs: usize,
        attribute: Vec<AttributeProto>,
    ) {
        let more = (1..outputs).map(|i| output(name, i));
        self.proto.node.push(NodeProto {
            input,
            output: std::iter::once(name.to_owned()).chain(more).collect(),
            name: name.to_owned(),
            op_type: operator.into(),
            attribute,
            domain: domain.into(),
        });
    }
}

/// What some rows of a tensor are called.
fn part_name(tensor: &str, shape: &[usize], rows: &Range<usize>) -> String {
    if rows.len() == shape[0] { tensor.to_owned() } else { format!("{tensor}.{}", rows.start) }
}

fn reference(place: Place) -> Vec<StringStringEntryProto> {
    let Place { file, offset, length, .. } = place;
    [("location", file), ("offset", offset.to_string()), ("length", length.to_string())]
        .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
        .into()
}

/// The name of another output of the node whose first has this name.
pub(super) fn output(first: &str, which: usize) -> Value {
    format!("{first}_{which}")
}

/// An attribute that is a number.
pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, kind: 1, ..AttributeProto::default() }
}

/// An attribute that is a whole number.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, kind: 2, ..AttributeProto::default() }
}

/// An attribute that is several whole numbers.
pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: ints.to_vec(), kind: 7, ..AttributeProto::default() }
}

fn floats(name: &str, shape: &[usize], raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|&n| n as i64).collect(),
        data_type: FLOAT,
        name: name.into(),
        raw_data,
        ..TensorProto::default()
    }
}

fn value_info(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| match dim.parse() {
            Ok(n) => Dimension { dim_value: Some(n), dim_param: None },
            Err(_) => Dimension { dim_value: None, dim_param: Some((*dim).to_owned()) },
        })
        .collect();
    let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    /// However they were saved: a graph that held them could not hold more than 2 GB.
    #[test]
    fn the_graph_holds_no_weights_whatever_they_are_computed_in() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.safetensors");
        let zeros = [0; 32];
        let kinds = [("f32", Dtype::F32, 4), ("f16", Dtype::F16, 2), ("bf16", Dtype::BF16, 2)];
        let views: BTreeMap<_, _> = kinds
            .iter()
            .map(|&(name, kind, bytes)| {
                (name, TensorView::new(kind, vec![4, 2], &zeros[..8 * bytes]).expect("as many as it says"))
            })
            .collect();
        safetensors::serialize_to_file(views, None, &path).expect("it can be written");
        let weights = Weights::open(&[path]).expect("good weights");
        for (precision, as_it_lies) in [(Precision::Float32, "f32"), (Precision::Float16, "f16")] {
            let mut graph = Graph::new(&weights, precision);
            for (name, ..) in kinds {
                let value = graph.rows(name, &[4, 2], 1..3).expect("it is there");
                assert_eq!(value == format!("{name}.1"), name == as_it_lies, "{name} in {precision:?}");
            }
            for tensor in graph.proto.initializer {
                assert!(tensor.raw_data.is_empty() && tensor.dims == [2, 2], "{}", tensor.name);
            }
        }
    }
}
