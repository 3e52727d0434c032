//! Models as ONNX files (opset 17), which ONNX Runtime and others run.
//!
//! The file computes what the graph says, rounding included: every operation is computed in f32
//! from operands widened exactly, and a value that the precision plan stores in f16 or bf16 is cast
//! to it where it is made. Weights that are only used rounded are stored rounded. So the logits
//! differ from ours by the order of f32 sums alone, in every precision, also where the runtime has
//! no low-precision kernels.
//!
//! The first dimension is open: `batch` samples, whatever the graph was built for.

mod convert;
mod operators;
pub mod proto;

use halfstep_graph::engine::HostTensor;
use halfstep_graph::{DType, Graph, ValueType};
use prost::Message;

use convert::Converter;
use proto::{
    DataType, Dimension, GraphProto, ModelProto, OperatorSetIdProto, Size, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};

/// Version of the file format.
const IR_VERSION: i64 = 8;
/// Version of the set of operators.
const OPSET: i64 = 17;
/// The name of the open dimension.
const BATCH: &str = "batch";

/// Why a graph cannot be written as ONNX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// The operation has no counterpart here: it belongs to training.
    #[error("`{at}`: {op} cannot be written as ONNX; only what predicts can, not what trains")]
    Operation {
        /// The operation.
        op: String,
        /// The node's name.
        at: String,
    },
    /// The graph computes in fewer than 16 bits.
    #[error(
        "`{at}` is computed in fewer than 16 bits, which is not written as ONNX; export it with --precision bf16"
    )]
    Narrow {
        /// The node's name.
        at: String,
    },
    /// A slot without values, or with too few or too many.
    #[error("weight `{slot}`: {expected} values were expected, {found} are there")]
    Weight {
        /// The slot.
        slot: String,
        /// How many it has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
}

/// A graph that predicts, with the values of its slots, as an ONNX file. `notes` become the model's
/// metadata.
///
/// # Errors
/// An operation that only training uses; fewer than 16 bits; a slot without values.
pub fn model(
    graph: &Graph,
    weights: &dyn Fn(&str) -> Option<HostTensor>,
    notes: &[(&str, String)],
) -> Result<Vec<u8>, OnnxError> {
    if let Some(node) = graph.nodes.iter().find(|n| matches!(n.op, halfstep_graph::Op::Quantise(_))) {
        return Err(OnnxError::Narrow { at: node.name.clone() });
    }
    let mut converter = Converter::new(graph, weights);
    for node in &graph.nodes {
        operators::convert(&mut converter, node)?;
    }
    let input = graph.inputs().map(|(name, value)| value_info(name, &graph.value(value).ty)).collect();
    let output =
        graph.outputs.iter().map(|(name, value)| value_info(name, &graph.value(*value).ty)).collect();
    let (node, initializer) = converter.finish();
    let note =
        |(key, value): &(&str, String)| StringStringEntryProto { key: (*key).into(), value: value.clone() };
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "halfstep".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(GraphProto { node, name: "model".into(), initializer, input, output }),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: notes.iter().map(note).collect(),
    };
    Ok(model.encode_to_vec())
}

/// A tensor as ONNX stores it by itself, such as the inputs and outputs of a test.
pub fn tensor(name: &str, shape: &[usize], values: &HostTensor) -> Vec<u8> {
    let (data_type, raw_data) = match values {
        HostTensor::F32(x) => (DataType::Float, x.iter().flat_map(|v| v.to_le_bytes()).collect()),
        HostTensor::I32(x) => (DataType::Int32, x.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    TensorProto::new(name, shape, data_type, raw_data).encode_to_vec()
}

/// The type of an input or output as callers see it: numbers in f32, the first dimension open.
fn value_info(name: &str, ty: &ValueType) -> ValueInfoProto {
    let size = |(i, &size): (usize, &usize)| Dimension {
        value: Some(if i == 0 { Size::DimParam(BATCH.into()) } else { Size::DimValue(size as i64) }),
    };
    let shape = TensorShapeProto { dim: ty.shape.iter().enumerate().map(size).collect() };
    let seen = if is_low(ty.dtype) { DType::F32 } else { ty.dtype };
    let elem_type = convert::data_type(seen) as i32;
    let tensor_type = TensorType { elem_type, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// Whether values of this type are computed with after being widened.
fn is_low(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}
