//! The f64 reference interpreter: what every operation means, and the oracle for every kernel.
//!
//! Slow and simple on purpose. With [`Rounding::None`] it computes on real numbers as well as f64
//! can, to measure total error. With [`Rounding::Stored`] each result is rounded to the type the
//! plan stores it in, so that only the order of sums tells a kernel from the oracle.

mod contract;
mod engine;
mod images;
mod norm;
mod pointwise;
mod quantise;
mod update;

use halfstep_float::round_to_tf32;

use crate::dtype::{DType, Shape, Split, ValueType};
use crate::engine::EngineError;
use crate::graph::{Graph, Node, ValueId, When};
use crate::op::{Op, ReduceKind};
pub use engine::InterpreterEngine;
pub use pointwise::{erf, gelu};

/// Whether results are rounded to the type they are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// f64 throughout.
    None,
    /// Each result is rounded to its storage type, and operands to tf32 where a contraction
    /// multiplies that.
    Stored,
}

/// A dense f64 tensor; whole numbers are held exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes.
    pub shape: Shape,
    /// Elements, row-major.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of these elements.
    ///
    /// # Panics
    /// If their number is not that of the shape.
    pub fn new(shape: Shape, data: Vec<f64>) -> Tensor {
        assert_eq!(shape.count(), data.len(), "elements of {shape}");
        Tensor { shape, data }
    }

    /// One value everywhere.
    pub fn filled(shape: Shape, value: f64) -> Tensor {
        let count = shape.count();
        Tensor { shape, data: vec![value; count] }
    }

    /// A tensor of `shape` whose element at each multi-index is `f` of it.
    fn build(shape: &Shape, mut f: impl FnMut(&[usize]) -> f64) -> Tensor {
        let mut index = vec![0; shape.len()];
        let mut data = Vec::with_capacity(shape.count());
        for _ in 0..shape.count() {
            data.push(f(&index));
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        Tensor { shape: shape.clone(), data }
    }

    /// The element at a multi-index, or at the one it broadcasts to.
    fn at(&self, index: &[usize]) -> f64 {
        let pad = index.len() - self.shape.len();
        let mut offset = 0;
        for (d, &size) in self.shape.iter().enumerate() {
            offset = offset * size + if size == 1 { 0 } else { index[pad + d] };
        }
        self.data[offset]
    }

    fn scalar(&self) -> f64 {
        self.data[0]
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Tensor {
        Tensor { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }
}

/// All values of `graph` for these slots and inputs, by value id.
///
/// `slots[i]` is slot `i` of the graph; `inputs` are found by name. A sum over ranks is one over
/// this one.
///
/// # Errors
/// An input that is missing or of another shape; an index out of range.
pub fn evaluate(
    graph: &Graph,
    slots: &[Tensor],
    inputs: &[(&str, Tensor)],
    rounding: Rounding,
) -> Result<Vec<Tensor>, EngineError> {
    Ok(evaluate_on_ranks(graph, &[(slots, inputs)], rounding)?.remove(0))
}

/// Slots, and inputs by name.
pub type RankState<'a> = (&'a [Tensor], &'a [(&'a str, Tensor)]);

/// [`evaluate`] on several ranks at once, each with its own slots and inputs: the values of each.
///
/// # Errors
/// As there.
pub fn evaluate_on_ranks(
    graph: &Graph,
    ranks: &[RankState<'_>],
    rounding: Rounding,
) -> Result<Vec<Vec<Tensor>>, EngineError> {
    let mut values: Vec<Vec<Tensor>> = vec![Vec::with_capacity(graph.values.len()); ranks.len()];
    for node in &graph.nodes {
        for (rank, (slots, inputs)) in ranks.iter().enumerate() {
            let operand = |v: &ValueId| &values[rank][v.0 as usize];
            let results = match &node.op {
                Op::Input { name } => {
                    let ty = &graph.value(node.outputs[0]).ty;
                    let given = inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t);
                    let t = given
                        .ok_or_else(|| EngineError::unknown("input", name, inputs.iter().map(|(n, _)| *n)))?;
                    if t.shape.count() != ty.shape.count() {
                        return Err(EngineError::Size {
                            name: name.clone(),
                            expected: ty.clone(),
                            found: t.data.len(),
                        });
                    }
                    vec![Tensor { shape: ty.shape.clone(), data: t.data.clone() }]
                }
                Op::Read { slot } => vec![slots[slot.0 as usize].clone()],
                Op::Const { value, shape } => vec![Tensor::filled(shape.clone(), *value)],
                Op::AllReduceWait { .. } => {
                    let flight = node.inputs[0];
                    let flights: Vec<&Tensor> = values.iter().map(|v| &v[flight.0 as usize]).collect();
                    let mut sums = evaluate_node(node, &flights)?;
                    if rounding == Rounding::Stored {
                        // The sum travels back in the same format.
                        let over = graph.dtype(flight);
                        sums.iter_mut().for_each(|t| *t = t.map(|x| over.round(x)));
                    }
                    sums
                }
                _ if rounding == Rounding::Stored && node.split == Some(Split::Tf32) => {
                    evaluate_node(node, &in_tf32(node.inputs.iter().map(operand)).iter().collect::<Vec<_>>())?
                }
                _ => evaluate_node(node, &node.inputs.iter().map(operand).collect::<Vec<_>>())?,
            };
            for (&output, result) in node.outputs.iter().zip(results) {
                let ty: &ValueType = &graph.value(output).ty;
                debug_assert_eq!(ty.shape, result.shape, "{} in {}", node.op.name(), node.name);
                let keep = rounding == Rounding::None && !matches!(node.op, Op::Cast { to: DType::I32 });
                values[rank].push(if keep { result } else { result.map(|x| ty.dtype.round(x)) });
            }
        }
    }
    Ok(values)
}

/// The operands of a contraction as it multiplies them; a bias is only added.
fn in_tf32<'a>(operands: impl Iterator<Item = &'a Tensor>) -> Vec<Tensor> {
    let rounded = |x: f64| f64::from(round_to_tf32(x as f32));
    operands.enumerate().map(|(i, t)| if i < 2 { t.map(rounded) } else { t.clone() }).collect()
}

/// The slots after a step that computed `values`.
pub fn committed(graph: &Graph, slots: &[Tensor], values: &[Tensor]) -> Vec<Tensor> {
    let commit = graph.commit.is_none_or(|v| values[v.0 as usize].scalar() != 0.0);
    let mut after = slots.to_vec();
    for write in graph.writes.iter().filter(|w| commit || w.when == When::Always) {
        after[write.slot.0 as usize] = values[write.value.0 as usize].clone();
    }
    after
}

/// The results of one node for these operands, in f64: nothing is rounded.
///
/// # Errors
/// An index out of range.
pub fn evaluate_node(node: &Node, x: &[&Tensor]) -> Result<Vec<Tensor>, EngineError> {
    let one = |t: Tensor| Ok(vec![t]);
    match &node.op {
        Op::Input { .. } | Op::Read { .. } | Op::Const { .. } => Ok(Vec::new()),
        Op::Unary(f) => one(x[0].map(|v| pointwise::unary(*f, v))),
        Op::Binary(f) => one(pointwise::zip(x, |v| pointwise::binary(*f, v[0], v[1]))),
        Op::Select => one(pointwise::zip(x, |v| if v[0] != 0.0 { v[1] } else { v[2] })),
        Op::Cast { to } => one(x[0].map(|v| to.round(v))),
        Op::Quantise(q) => one(quantise::quantise(q, x)),
        Op::Broadcast { shape } => one(Tensor::build(shape, |i| x[0].at(i))),
        Op::Dropout { rate, id } => one(pointwise::dropout(*rate, *id, x[0], x[1])),
        Op::Reshape { shape } => one(Tensor { shape: shape.clone(), data: x[0].data.clone() }),
        Op::Permute { perm } => {
            let shape = Shape::from(perm.iter().map(|&p| x[0].shape[p]).collect::<Vec<_>>());
            let mut from = vec![0; perm.len()];
            one(Tensor::build(&shape, |i| {
                perm.iter().zip(i).for_each(|(&p, &at)| from[p] = at);
                x[0].at(&from)
            }))
        }
        Op::Slice { axis, start, end } => one(moved(x[0], *axis, end - start, |i| Some(i + start))),
        Op::Pad { axis, before, after } => {
            let size = x[0].shape[*axis];
            let inside = |i: usize| i.checked_sub(*before).filter(|&i| i < size);
            one(moved(x[0], *axis, before + size + after, inside))
        }
        Op::Concat { axis } => one(concat(x, *axis)),
        Op::Gather => {
            let width = x[0].shape[1];
            let mut shape = x[1].shape.to_vec();
            shape.push(width);
            let mut data = Vec::new();
            for &i in &x[1].data {
                let row = index(i, x[0].shape[0], node)?;
                data.extend_from_slice(&x[0].data[row * width..(row + 1) * width]);
            }
            one(Tensor::new(Shape::from(shape), data))
        }
        Op::ScatterAdd { rows } => {
            let width = x[0].shape.last();
            let mut table = Tensor::filled(Shape::from([*rows, width]), 0.0);
            for (i, &at) in x[1].data.iter().enumerate() {
                let row = index(at, *rows, node)?;
                for c in 0..width {
                    table.data[row * width + c] += x[0].data[i * width + c];
                }
            }
            one(table)
        }
        Op::Reduce { kind, axes } => one(reduce(*kind, axes, x[0])),
        Op::ArgMax => one(argmax(x[0])),
        Op::Softmax => one(norm::softmax(x[0])),
        Op::LayerNorm { eps } => Ok(norm::layer_norm(*eps, x)),
        Op::LayerNormGrad => Ok(norm::layer_norm_grad(x)),
        Op::BatchNormPart(part) => Ok(norm::batch_norm_part(*part, x)),
        Op::CrossEntropy => norm::cross_entropy(x, node),
        Op::CrossEntropyGrad => norm::cross_entropy_grad(x, node),
        Op::GlobalNorm => {
            let squares: f64 = x.iter().flat_map(|t| &t.data).map(|v| v * v).sum();
            one(Tensor::filled(Shape::scalar(), squares.sqrt()))
        }
        Op::MatMul { ta, tb } => one(contract::matmul(*ta, *tb, x)),
        Op::Conv2d(geometry) => one(images::conv2d(*geometry, x)),
        Op::Conv2dGradInput { geometry, size } => one(images::conv2d_grad_input(*geometry, *size, x)),
        Op::Conv2dGradWeight { geometry, window } => one(images::conv2d_grad_weight(*geometry, *window, x)),
        Op::Attention(spec) => Ok(contract::attention(*spec, x)),
        Op::AttentionGrad(spec) => Ok(contract::attention_grad(*spec, x)),
        Op::Pool { kind, window, stride } => one(images::pool(*kind, *window, *stride, x[0])),
        Op::PoolGrad { kind, window, stride } => one(images::pool_grad(*kind, *window, *stride, x[0], x[1])),
        Op::AdamW(spec) => Ok(update::adamw(spec, x)),
        Op::Sgd(spec) => Ok(update::sgd(spec, x)),
        Op::AllReduceStart { .. } => {
            let data: Vec<f64> = x.iter().flat_map(|t| &t.data).copied().collect();
            one(Tensor { shape: Shape::from([data.len()]), data })
        }
        Op::AllReduceWait { shapes, factor } => Ok(all_reduced(x, shapes, *factor)),
    }
}

/// The sum of what all ranks sent, times `factor`, as tensors of these shapes.
fn all_reduced(flights: &[&Tensor], shapes: &[Shape], factor: f64) -> Vec<Tensor> {
    let mut at = 0;
    let mut next = |_| {
        let sum: f64 = flights.iter().map(|t| t.data[at]).sum();
        at += 1;
        sum * factor
    };
    let tensor =
        |shape: &Shape| Tensor { shape: shape.clone(), data: (0..shape.count()).map(&mut next).collect() };
    shapes.iter().map(tensor).collect()
}

/// A row number, if it is one.
fn index(i: f64, rows: usize, node: &Node) -> Result<usize, EngineError> {
    if i >= 0.0 && i < rows as f64 {
        return Ok(i as usize);
    }
    Err(EngineError::Index { at: node.name.clone(), index: i as i64, count: rows })
}

/// `x` with another size along one axis; `from` says which element comes to a place, or none for
/// zero.
fn moved(x: &Tensor, axis: usize, size: usize, from: impl Fn(usize) -> Option<usize>) -> Tensor {
    let mut shape = x.shape.to_vec();
    shape[axis] = size;
    let mut source = vec![0; shape.len()];
    Tensor::build(&Shape::from(shape), |i| {
        let Some(at) = from(i[axis]) else { return 0.0 };
        source.copy_from_slice(i);
        source[axis] = at;
        x.at(&source)
    })
}

fn concat(x: &[&Tensor], axis: usize) -> Tensor {
    let mut shape = x[0].shape.to_vec();
    shape[axis] = x.iter().map(|t| t.shape[axis]).sum();
    let mut source = vec![0; shape.len()];
    Tensor::build(&Shape::from(shape), |i| {
        source.copy_from_slice(i);
        let mut part = 0;
        while source[axis] >= x[part].shape[axis] {
            source[axis] -= x[part].shape[axis];
            part += 1;
        }
        x[part].at(&source)
    })
}

fn reduce(kind: ReduceKind, axes: &[usize], x: &Tensor) -> Tensor {
    let kept: Vec<usize> = (0..x.shape.len()).filter(|i| !axes.contains(i)).collect();
    let inner = Shape::from(axes.iter().map(|&a| x.shape[a]).collect::<Vec<_>>());
    let shape = Shape::from(kept.iter().map(|&k| x.shape[k]).collect::<Vec<_>>());
    let mut at = vec![0; x.shape.len()];
    Tensor::build(&shape, |i| {
        kept.iter().zip(i).for_each(|(&k, &v)| at[k] = v);
        let items = Tensor::build(&inner, |j| {
            axes.iter().zip(j).for_each(|(&a, &v)| at[a] = v);
            x.at(&at)
        });
        match kind {
            ReduceKind::Sum => items.data.iter().sum(),
            ReduceKind::Mean => items.data.iter().sum::<f64>() / items.data.len() as f64,
            ReduceKind::AbsMax => {
                let magnitudes = items.data.iter().map(|v| v.abs());
                magnitudes.reduce(pointwise::max).unwrap_or(f64::NAN)
            }
            ReduceKind::Max => items.data.iter().copied().reduce(pointwise::max).unwrap_or(f64::NAN),
        }
    })
}

fn argmax(x: &Tensor) -> Tensor {
    let width = x.shape.last();
    let best = |row: &[f64]| {
        let larger = |best: usize, i: usize| {
            if row[i] > row[best] || (row[i].is_nan() && !row[best].is_nan()) { i } else { best }
        };
        (0..width).reduce(larger).unwrap_or(0) as f64
    };
    let shape = Shape::new(&x.shape[..x.shape.len() - 1]);
    Tensor { shape, data: x.data.chunks(width).map(best).collect() }
}
