//! What every operator's conversion uses: names of values, casts between storage and f32, constants
//! and weights.

use std::collections::HashMap;

use halfstep_float::{bf16_from_f32, e4m3_from_f32, e5m2_from_f32, f16_from_f32};
use halfstep_graph::engine::HostTensor;
use halfstep_graph::{DType, Graph, Node, Op, SlotId, ValueId};

use super::proto::{AttributeProto, DataType, NodeProto, TensorProto};
use super::{OnnxError, is_low};

/// A graph on its way to ONNX.
pub struct Converter<'a> {
    /// The graph.
    pub graph: &'a Graph,
    weights: &'a dyn Fn(&str) -> Option<HostTensor>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// The tensor that holds each value as it is stored.
    stored: Vec<Option<String>>,
    /// The tensor that holds a low-precision value widened.
    widened: HashMap<ValueId, String>,
    users: Vec<Vec<halfstep_graph::NodeId>>,
    made: usize,
}

/// A constant of an operator.
pub enum Attribute<'a> {
    /// A whole number.
    Int(&'a str, i64),
    /// Several.
    Ints(&'a str, Vec<i64>),
    /// A number.
    Float(&'a str, f32),
}

impl Attribute<'_> {
    fn proto(self) -> AttributeProto {
        let name = |name: &str| AttributeProto { name: name.into(), ..AttributeProto::default() };
        match self {
            Attribute::Float(n, f) => AttributeProto { f, r#type: 1, ..name(n) },
            Attribute::Int(n, i) => AttributeProto { i, r#type: 2, ..name(n) },
            Attribute::Ints(n, ints) => AttributeProto { ints, r#type: 7, ..name(n) },
        }
    }
}

/// ONNX's name of an element type.
pub fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F16 => DataType::Float16,
        DType::Bf16 => DataType::Bfloat16,
        DType::E4m3 => DataType::Float8e4m3fn,
        DType::E5m2 => DataType::Float8e5m2,
        DType::I32 => DataType::Int32,
        DType::U8 => DataType::Uint8,
    }
}

impl<'a> Converter<'a> {
    /// Nothing converted yet.
    pub fn new(graph: &'a Graph, weights: &'a dyn Fn(&str) -> Option<HostTensor>) -> Converter<'a> {
        Converter {
            graph,
            weights,
            nodes: Vec::new(),
            initializers: Vec::new(),
            stored: vec![None; graph.values.len()],
            widened: HashMap::new(),
            users: graph.users(),
            made: 0,
        }
    }

    /// Nodes and initializers, with a node for each output that carries its name. Outputs are
    /// widened: many readers know no bf16.
    pub fn finish(mut self) -> (Vec<NodeProto>, Vec<TensorProto>) {
        for (name, value) in self.graph.outputs.clone() {
            let from = self.operand(value);
            self.nodes.push(NodeProto {
                input: vec![from],
                output: vec![name.clone()],
                name,
                op_type: "Identity".into(),
                attribute: Vec::new(),
            });
        }
        (self.nodes, self.initializers)
    }

    /// Adds an operator and returns the name of its first result.
    pub fn emit(&mut self, at: &str, op: &str, inputs: &[String], attributes: Vec<Attribute<'_>>) -> String {
        let name = self.fresh(at, op);
        self.nodes.push(NodeProto {
            input: inputs.to_vec(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.into(),
            attribute: attributes.into_iter().map(Attribute::proto).collect(),
        });
        name
    }

    /// The tensor of a value as it is stored.
    pub fn stored(&self, value: ValueId) -> String {
        self.stored[value.0 as usize].clone().expect("nodes are converted in topological order")
    }

    /// The tensor of a value to compute with: f32, or integers as they are.
    pub fn operand(&mut self, value: ValueId) -> String {
        if !is_low(self.graph.dtype(value)) {
            return self.stored(value);
        }
        if let Some(name) = self.widened.get(&value) {
            return name.clone();
        }
        let stored = self.stored(value);
        let name = self.cast("widen", &stored, DataType::Float);
        self.widened.insert(value, name.clone());
        name
    }

    /// [`Converter::operand`] of each operand of `node`.
    pub fn operands(&mut self, node: &Node) -> Vec<String> {
        node.inputs.iter().map(|&v| self.operand(v)).collect()
    }

    /// Says that `tensor`, which is f32 or an integer, holds `value`: rounds it to the value's
    /// storage.
    pub fn define(&mut self, value: ValueId, tensor: String) {
        let dtype = self.graph.dtype(value);
        let name = if is_low(dtype) { self.cast("round", &tensor, data_type(dtype)) } else { tensor };
        self.stored[value.0 as usize] = Some(name);
    }

    /// Says that `tensor` holds `value` as it is stored.
    pub fn alias(&mut self, value: ValueId, tensor: String) {
        self.stored[value.0 as usize] = Some(tensor);
    }

    /// Casts to another element type, rounding to nearest even.
    pub fn cast(&mut self, at: &str, from: &str, to: DataType) -> String {
        self.emit(at, "Cast", &[from.to_string()], vec![Attribute::Int("to", to as i64)])
    }

    /// An f32 constant.
    pub fn number(&mut self, x: f64) -> String {
        self.initializer(&[], DataType::Float, (x as f32).to_le_bytes().to_vec())
    }

    /// An f32 tensor.
    pub fn numbers(&mut self, shape: &[usize], values: &[f32]) -> String {
        self.initializer(shape, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A list of whole numbers, as shapes and axes are given.
    pub fn sizes(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(&[values.len()], DataType::Int64, bytes)
    }

    /// The tensor under the shape `sizes`, whose first may be another batch's.
    pub fn reshape(&mut self, at: &str, tensor: &str, sizes: &[usize]) -> String {
        let mut sizes: Vec<i64> = sizes.iter().map(|&s| s as i64).collect();
        if let Some(first) = sizes.first_mut() {
            *first = -1;
        }
        let sizes = self.sizes(&sizes);
        self.emit(at, "Reshape", &[tensor.to_string(), sizes], Vec::new())
    }

    /// The tensor with its dimensions in another order.
    pub fn transpose(&mut self, at: &str, tensor: &str, perm: &[usize]) -> String {
        let perm = perm.iter().map(|&p| p as i64).collect();
        self.emit(at, "Transpose", &[tensor.to_string()], vec![Attribute::Ints("perm", perm)])
    }

    /// Stores a slot's values: rounded, if all its readers round it alike. Their casts then are
    /// nothing.
    pub fn weight(&mut self, node: &Node, slot: SlotId) -> Result<(), OnnxError> {
        let (value, slot) = (node.outputs[0], self.graph.slot(slot));
        let expected = slot.ty.shape.count();
        let given = (self.weights)(&slot.name);
        let misfit = |found| OnnxError::Weight { slot: slot.name.clone(), expected, found };
        let x = match given {
            Some(HostTensor::F32(x)) if x.len() == expected => x,
            Some(HostTensor::F32(x)) => return Err(misfit(x.len())),
            Some(HostTensor::I32(_)) | None => return Err(misfit(0)),
        };
        let casts: Vec<(ValueId, DType)> = self.users[value.0 as usize]
            .iter()
            .filter_map(|&user| match self.graph.node(user) {
                Node { op: Op::Cast { to }, outputs, .. } => Some((outputs[0], *to)),
                _ => None,
            })
            .collect();
        let alike =
            casts.len() == self.users[value.0 as usize].len() && casts.windows(2).all(|w| w[0].1 == w[1].1);
        let dtype = if alike { casts.first().map_or(slot.ty.dtype, |c| c.1) } else { slot.ty.dtype };
        let bytes = match dtype {
            DType::F16 => x.iter().flat_map(|&v| f16_from_f32(v).to_le_bytes()).collect(),
            DType::Bf16 => x.iter().flat_map(|&v| bf16_from_f32(v).to_le_bytes()).collect(),
            DType::E4m3 => x.iter().map(|&v| e4m3_from_f32(v)).collect(),
            DType::E5m2 => x.iter().map(|&v| e5m2_from_f32(v)).collect(),
            DType::U8 => x.iter().map(|&v| v as u8).collect(),
            DType::F32 | DType::I32 => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        self.initializers.push(TensorProto::new(&slot.name, &slot.ty.shape, data_type(dtype), bytes));
        self.alias(value, slot.name.clone());
        if alike {
            casts.into_iter().for_each(|(cast, _)| self.alias(cast, slot.name.clone()));
        }
        Ok(())
    }

    /// Whether a value has its tensor already.
    pub fn is_defined(&self, value: ValueId) -> bool {
        self.stored[value.0 as usize].is_some()
    }

    /// Whether anything reads a value.
    pub fn is_read(&self, value: ValueId) -> bool {
        !self.users[value.0 as usize].is_empty() || self.graph.outputs.iter().any(|o| o.1 == value)
    }

    fn initializer(&mut self, shape: &[usize], data_type: DataType, raw_data: Vec<u8>) -> String {
        let name = self.fresh("", "constant");
        self.initializers.push(TensorProto::new(&name, shape, data_type, raw_data));
        name
    }

    fn fresh(&mut self, at: &str, op: &str) -> String {
        self.made += 1;
        format!("{at}/{op}_{}", self.made)
    }
}
