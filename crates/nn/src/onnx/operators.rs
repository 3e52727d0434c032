//! One operation at a time: which ONNX operators mean the same.

use halfstep_graph::{AttentionSpec, Binary, ConvGeometry, Node, Op, PoolKind, ReduceKind, Unary, ValueId};

use super::OnnxError;
use super::convert::{Attribute, Converter, data_type};
use super::proto::DataType;

/// Channels-last to channels-first, which ONNX's image operators take, and back.
const TO_CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];
const TO_CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];

/// Adds the operators of `node`.
///
/// # Errors
/// The operation belongs to training; a slot without values.
pub fn convert(c: &mut Converter<'_>, node: &Node) -> Result<(), OnnxError> {
    let at = node.name.as_str();
    let (y, graph) = (node.outputs[0], c.graph);
    let shape = graph.shape(y);
    if c.is_defined(y) {
        return Ok(());
    }
    let x = match node.op {
        Op::Input { .. } | Op::Read { .. } | Op::Const { .. } | Op::Cast { .. } => String::new(),
        _ => c.operand(node.inputs[0]),
    };
    let result = match &node.op {
        Op::Input { name } => {
            c.alias(y, name.clone());
            return Ok(());
        }
        Op::Read { slot } => return c.weight(node, *slot),
        Op::Const { value, shape } => {
            let number = c.number(*value);
            if shape.is_empty() { number } else { expand(c, at, number, shape) }
        }
        Op::Unary(f) => unary(c, node, *f, x)?,
        Op::Binary(f) => {
            let operands = c.operands(node);
            binary(c, at, *f, &operands)
        }
        Op::Select => {
            let operands = c.operands(node);
            let condition = c.cast(at, &operands[0], DataType::Bool);
            c.emit(at, "Where", &[condition, operands[1].clone(), operands[2].clone()], vec![])
        }
        Op::Cast { to } => {
            let x = c.stored(node.inputs[0]);
            let tensor = if graph.dtype(node.inputs[0]) == *to { x } else { c.cast(at, &x, data_type(*to)) };
            c.alias(y, tensor);
            return Ok(());
        }
        Op::Broadcast { shape } => expand(c, at, x, shape),
        Op::Reshape { .. } => c.reshape(at, &x, shape),
        Op::Permute { perm } => c.transpose(at, &x, perm),
        Op::Slice { axis, start, end } => {
            let [start, end, axis] = [*start, *end, *axis].map(|i| c.sizes(&[i as i64]));
            c.emit(at, "Slice", &[x, start, end, axis], vec![])
        }
        Op::Concat { axis } => {
            let operands = c.operands(node);
            c.emit(at, "Concat", &operands, vec![Attribute::Int("axis", *axis as i64)])
        }
        Op::Gather => {
            let operands = c.operands(node);
            c.emit(at, "Gather", &operands, vec![Attribute::Int("axis", 0)])
        }
        Op::Reduce { kind, axes } => {
            let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
            let keep = Attribute::Int("keepdims", 0);
            match kind {
                ReduceKind::Sum => {
                    let axes = c.sizes(&axes);
                    c.emit(at, "ReduceSum", &[x, axes], vec![keep])
                }
                ReduceKind::Mean => c.emit(at, "ReduceMean", &[x], vec![Attribute::Ints("axes", axes), keep]),
                ReduceKind::AbsMax => return Err(refused(node)),
                ReduceKind::Max => c.emit(at, "ReduceMax", &[x], vec![Attribute::Ints("axes", axes), keep]),
            }
        }
        Op::ArgMax => {
            let last = vec![Attribute::Int("axis", -1), Attribute::Int("keepdims", 0)];
            let wide = c.emit(at, "ArgMax", &[x], last);
            c.cast(at, &wide, DataType::Int32)
        }
        Op::Softmax => c.emit(at, "Softmax", &[x], vec![Attribute::Int("axis", -1)]),
        Op::LayerNorm { eps } => {
            only_first(c, node)?;
            let operands = c.operands(node);
            let attributes = vec![Attribute::Int("axis", -1), Attribute::Float("epsilon", *eps as f32)];
            c.emit(at, "LayerNormalization", &operands, attributes)
        }
        Op::MatMul { ta, tb } => matmul(c, node, *ta, *tb),
        Op::Conv2d(geometry) => conv2d(c, node, *geometry),
        Op::Pool { kind, window, stride } => {
            let x = c.transpose(at, &x, &TO_CHANNELS_FIRST);
            let op = match kind {
                PoolKind::Max => "MaxPool",
                PoolKind::Mean => "AveragePool",
            };
            let square = |n: usize| vec![n as i64; 2];
            let attributes = vec![
                Attribute::Ints("kernel_shape", square(*window)),
                Attribute::Ints("strides", square(*stride)),
            ];
            let y = c.emit(at, op, &[x], attributes);
            c.transpose(at, &y, &TO_CHANNELS_LAST)
        }
        Op::Attention(spec) => {
            only_first(c, node)?;
            attention(c, node, *spec)
        }
        _ => return Err(refused(node)),
    };
    c.define(y, result);
    Ok(())
}

fn refused(node: &Node) -> OnnxError {
    OnnxError::Operation { op: node.op.name(), at: node.name.clone() }
}

/// Results besides the first serve the derivative.
fn only_first(c: &Converter<'_>, node: &Node) -> Result<(), OnnxError> {
    if node.outputs[1..].iter().any(|&v| c.is_read(v)) { Err(refused(node)) } else { Ok(()) }
}

fn expand(c: &mut Converter<'_>, at: &str, x: String, shape: &[usize]) -> String {
    let sizes: Vec<i64> = shape.iter().map(|&s| s as i64).collect();
    let sizes = c.sizes(&sizes);
    c.emit(at, "Expand", &[x, sizes], vec![])
}

fn unary(c: &mut Converter<'_>, node: &Node, f: Unary, x: String) -> Result<String, OnnxError> {
    let at = node.name.as_str();
    let op = match f {
        Unary::Neg => "Neg",
        Unary::Abs => "Abs",
        Unary::Exp => "Exp",
        Unary::Log => "Log",
        Unary::Sqrt => "Sqrt",
        Unary::Recip => "Reciprocal",
        Unary::Tanh => "Tanh",
        Unary::Sigmoid => "Sigmoid",
        Unary::Relu => "Relu",
        Unary::Sign => "Sign",
        Unary::Square => return Ok(c.emit(at, "Mul", &[x.clone(), x], vec![])),
        Unary::Rsqrt => {
            let root = c.emit(at, "Sqrt", &[x], vec![]);
            return Ok(c.emit(at, "Reciprocal", &[root], vec![]));
        }
        Unary::Step => {
            let zero = c.number(0.0);
            return Ok(binary(c, at, Binary::Greater, &[x, zero]));
        }
        Unary::Gelu => {
            let [root_half, one, half] = [std::f64::consts::FRAC_1_SQRT_2, 1.0, 0.5].map(|n| c.number(n));
            let scaled = c.emit(at, "Mul", &[x.clone(), root_half], vec![]);
            let erf = c.emit(at, "Erf", &[scaled], vec![]);
            let twice = c.emit(at, "Add", &[erf, one], vec![]);
            let phi = c.emit(at, "Mul", &[twice, half], vec![]);
            return Ok(c.emit(at, "Mul", &[x, phi], vec![]));
        }
        Unary::GeluGrad | Unary::IsFinite => return Err(refused(node)),
    };
    Ok(c.emit(at, op, &[x], vec![]))
}

fn binary(c: &mut Converter<'_>, at: &str, f: Binary, operands: &[String]) -> String {
    let (op, is_truth) = match f {
        Binary::Add => ("Add", false),
        Binary::Sub => ("Sub", false),
        Binary::Mul => ("Mul", false),
        Binary::Div => ("Div", false),
        Binary::Max => ("Max", false),
        Binary::Min => ("Min", false),
        Binary::Greater => ("Greater", true),
        Binary::GreaterEqual => ("GreaterOrEqual", true),
        Binary::Equal => ("Equal", true),
    };
    let y = c.emit(at, op, operands, vec![]);
    if is_truth { c.cast(at, &y, DataType::Float) } else { y }
}

fn matmul(c: &mut Converter<'_>, node: &Node, ta: bool, tb: bool) -> String {
    let at = node.name.as_str();
    let mut operand = |i: usize, transposed: bool| {
        let value: ValueId = node.inputs[i];
        let x = c.operand(value);
        let rank = c.graph.shape(value).len();
        if !transposed {
            return x;
        }
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 2, rank - 1);
        c.transpose(at, &x, &perm)
    };
    let operands = [operand(0, ta), operand(1, tb)];
    let y = c.emit(at, "MatMul", &operands, vec![]);
    match node.inputs.get(2) {
        None => y,
        Some(&bias) => {
            let bias = c.operand(bias);
            c.emit(at, "Add", &[y, bias], vec![])
        }
    }
}

fn conv2d(c: &mut Converter<'_>, node: &Node, geometry: ConvGeometry) -> String {
    let at = node.name.as_str();
    let [x, w] = [c.operand(node.inputs[0]), c.operand(node.inputs[1])];
    let mut operands = vec![c.transpose(at, &x, &TO_CHANNELS_FIRST), c.transpose(at, &w, &TO_CHANNELS_FIRST)];
    if let Some(&bias) = node.inputs.get(2) {
        operands.push(c.operand(bias));
    }
    let attributes = vec![
        Attribute::Ints("strides", vec![geometry.stride as i64; 2]),
        Attribute::Ints("pads", vec![geometry.pad as i64; 4]),
    ];
    let y = c.emit(at, "Conv", &operands, attributes);
    c.transpose(at, &y, &TO_CHANNELS_LAST)
}

/// softmax(q·kᵀ/√D)·v by heads.
fn attention(c: &mut Converter<'_>, node: &Node, spec: AttentionSpec) -> String {
    let at = node.name.as_str();
    let shape = c.graph.shape(node.outputs[0]).clone();
    let (batch, length, width) = (shape[0], shape[1], shape[2]);
    let packed = node.inputs.len() == 1;
    // Rows, heads, then the head's numbers; the scores want heads before rows.
    let mut heads = |part: usize| {
        let x = c.operand(node.inputs[if packed { 0 } else { part }]);
        let x = if packed {
            let [start, end] = [part * width, (part + 1) * width].map(|i| c.sizes(&[i as i64]));
            let axis = c.sizes(&[2]);
            c.emit(at, "Slice", &[x, start, end, axis], vec![])
        } else {
            x
        };
        let x = c.reshape(at, &x, &[batch, length, spec.heads, width / spec.heads]);
        c.transpose(at, &x, if part == 1 { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] })
    };
    let [q, k, v] = [heads(0), heads(1), heads(2)];
    let factor = c.number(1.0 / ((width / spec.heads) as f64).sqrt());
    let q = c.emit(at, "Mul", &[q, factor], vec![]);
    let mut scores = c.emit(at, "MatMul", &[q, k], vec![]);
    if spec.causal {
        let sees = |i: usize| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..length * length).map(sees).collect();
        let mask = c.numbers(&[length, length], &mask);
        scores = c.emit(at, "Add", &[scores, mask], vec![]);
    }
    let weights = c.emit(at, "Softmax", &[scores], vec![Attribute::Int("axis", -1)]);
    let y = c.emit(at, "MatMul", &[weights, v], vec![]);
    let y = c.transpose(at, &y, &[0, 2, 1, 3]);
    c.reshape(at, &y, &[batch, length, width])
}
