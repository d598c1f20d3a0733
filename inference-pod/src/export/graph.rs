//! A graph while it is built: names are given out, weights are referred to or copied.

use prost::Message;

use super::{
    Exported,
    proto::{
        AttributeProto, Dimension, FLOAT, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
        StringStringEntryProto, TensorProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
    },
};
use crate::model::{
    ModelError,
    weights::{Place, Weights},
};

/// The operators that every ONNX runtime has.
pub(super) const ONNX: &str = "";
/// The fused operators of ONNX Runtime.
pub(super) const CONTRIB: &str = "com.microsoft";

/// A value of the graph, by name.
pub(super) type Value = String;

pub(super) struct Graph<'a> {
    weights: &'a Weights,
    proto: GraphProto,
}

impl<'a> Graph<'a> {
    pub(super) fn new(weights: &'a Weights) -> Self {
        Self { weights, proto: GraphProto { name: "encoder".into(), ..GraphProto::default() } }
    }

    /// Names an input of the given element type.
    pub(super) fn input(&mut self, name: &str, elem_type: i32, dims: &[&str]) -> Value {
        self.proto.input.push(value_info(name, elem_type, dims));
        name.into()
    }

    /// Names an output: 32-bit floats.
    pub(super) fn output(&mut self, name: &str, value: Value, dims: &[&str]) {
        self.proto.output.push(value_info(name, FLOAT, dims));
        self.push(ONNX, "Identity", vec![value], name, 1, Vec::new());
    }

    /// A tensor of the file, as it lies there if that is possible, else a copy.
    pub(super) fn weight(&mut self, tensor: &str, shape: &[usize]) -> Result<Value, ModelError> {
        match self.weights.place(tensor, shape)? {
            Some(place) => {
                let external_data = self.reference(place);
                self.initializer(TensorProto {
                    external_data,
                    data_location: 1,
                    ..floats(tensor, shape, Vec::new())
                })
            }
            None => Ok(self.constant(tensor, shape, &self.weights.floats(tensor, shape)?)),
        }
    }

    /// A tensor of numbers that are in no file.
    pub(super) fn constant(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> Value {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.proto.initializer.push(floats(name, shape, bytes));
        name.into()
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

    /// As [`Graph::node`], for an operator that must be given names for several outputs. The first is returned.
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

    pub(super) fn finish(self) -> Exported {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let model = ModelProto {
            ir_version: 10,
            producer_name: "kembed".into(),
            graph: Some(self.proto),
            opset_import: vec![opset(ONNX, 20), opset(CONTRIB, 1)],
        };
        let folder = self.weights.path().parent().unwrap_or_else(|| "".as_ref());
        Exported { onnx: model.encode_to_vec(), folder: folder.to_owned() }
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
        let more = (1..outputs).map(|i| format!("{name}_{i}"));
        self.proto.node.push(NodeProto {
            input,
            output: std::iter::once(name.to_owned()).chain(more).collect(),
            name: name.to_owned(),
            op_type: operator.into(),
            attribute,
            domain: domain.into(),
        });
    }

    fn initializer(&mut self, tensor: TensorProto) -> Result<Value, ModelError> {
        let name = tensor.name.clone();
        self.proto.initializer.push(tensor);
        Ok(name)
    }

    fn reference(&self, place: Place) -> Vec<StringStringEntryProto> {
        let file = self.weights.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        [("location", file), ("offset", place.offset.to_string()), ("length", place.length.to_string())]
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
            .into()
    }
}

/// An attribute that is a number.
pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, kind: 1, ..AttributeProto::default() }
}

/// An attribute that is a whole number.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, kind: 2, ..AttributeProto::default() }
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
