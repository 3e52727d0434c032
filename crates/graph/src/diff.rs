//! Reverse-mode differentiation as a pass: adds the nodes that compute gradients.
//!
//! Each operation's vector-Jacobian product is built from the same closed set of operations, so
//! most derivatives can be differentiated again. A derivative carries the name of what it
//! differentiates: name patterns hold for both.

use crate::dtype::{Shape, ValueType};
use crate::graph::{Graph, GraphError, Node, NodeId, Phase, ValueId};
use crate::op::{BatchNormPart, Binary, Op, PoolKind, ReduceKind, SlotId, Unary};

type Result<T> = std::result::Result<T, GraphError>;

/// Adds nodes computing d(seed·loss)/d(slot) for each slot of `wrt`, and returns those values in
/// order.
///
/// `loss` and `seed` are scalars; `seed` is the loss scale, so loss scaling is part of the program.
/// A slot the loss does not depend on has a zero gradient.
///
/// # Errors
/// `loss` is not a scalar, or it passes through an operation without a derivative.
pub fn differentiate(g: &mut Graph, loss: ValueId, seed: ValueId, wrt: &[SlotId]) -> Result<Vec<ValueId>> {
    let reads: Vec<(ValueId, Option<SlotId>)> = wrt.iter().map(|&slot| (g.read(slot), Some(slot))).collect();
    gradients(g, loss, seed, &reads)
}

/// The same with respect to values, such as inputs, in place of slots. They are no weight
/// gradients: a policy with a low format may store them low.
///
/// # Errors
/// As [`differentiate`].
pub fn differentiate_values(
    g: &mut Graph,
    loss: ValueId,
    seed: ValueId,
    wrt: &[ValueId],
) -> Result<Vec<ValueId>> {
    gradients(g, loss, seed, &wrt.iter().map(|&v| (v, None)).collect::<Vec<_>>())
}

fn gradients(
    g: &mut Graph,
    loss: ValueId,
    seed: ValueId,
    wrt: &[(ValueId, Option<SlotId>)],
) -> Result<Vec<ValueId>> {
    for (what, value) in [("the loss", loss), ("the seed", seed)] {
        if g.shape(value) != &Shape::scalar() {
            let found = g.shape(value);
            return Err(GraphError::Derivative(format!("{what} must be a scalar, found {found}")));
        }
    }
    let last = g.value(loss).node;
    g.in_phase(Phase::Backward, |g| {
        let mut tape = Tape::new(g, wrt);
        tape.add(g, loss, seed)?;
        for i in (0..=last.0).rev() {
            tape.step_back(g, NodeId(i))?;
        }
        wrt.iter().map(|&(value, slot)| tape.finish(g, slot, value)).collect()
    })
}

struct Tape {
    /// Whether a value depends on something differentiated.
    needed: Vec<bool>,
    /// The gradient gathered so far.
    gradient: Vec<Option<ValueId>>,
    /// The slot a value is the read of, if it is one of those differentiated.
    slot: Vec<Option<SlotId>>,
}

impl Tape {
    fn new(g: &Graph, wrt: &[(ValueId, Option<SlotId>)]) -> Tape {
        let mut needed = vec![false; g.values.len()];
        let mut slot = vec![None; g.values.len()];
        for (value, id) in wrt {
            needed[value.0 as usize] = true;
            slot[value.0 as usize] = *id;
        }
        for node in &g.nodes {
            if node.inputs.iter().any(|v| needed[v.0 as usize]) {
                node.outputs.iter().for_each(|v| needed[v.0 as usize] = true);
            }
        }
        Tape { needed, gradient: vec![None; g.values.len()], slot }
    }

    fn add(&mut self, g: &mut Graph, value: ValueId, part: ValueId) -> Result<()> {
        let at = value.0 as usize;
        if !self.needed[at] {
            return Ok(());
        }
        let total = match self.gradient[at] {
            None => part,
            Some(sum) => {
                let name = g.node(g.value(value).node).name.clone();
                g.push_named(Op::Binary(Binary::Add), &[sum, part], name)?[0]
            }
        };
        if let Some(slot) = self.slot[at] {
            g.mark_gradient(part, slot);
            g.mark_gradient(total, slot);
        }
        self.gradient[at] = Some(total);
        Ok(())
    }

    fn step_back(&mut self, g: &mut Graph, id: NodeId) -> Result<()> {
        let node = g.node(id).clone();
        if !node.inputs.iter().any(|v| self.needed[v.0 as usize]) {
            return Ok(());
        }
        let gradients: Vec<Option<ValueId>> =
            node.outputs.iter().map(|v| self.gradient[v.0 as usize]).collect();
        if gradients.iter().all(Option::is_none) {
            return Ok(());
        }
        if gradients[1..].iter().any(Option::is_some) && !matches!(node.op, Op::AttentionGrad(_)) {
            return Err(GraphError::Derivative(format!(
                "`{}` in `{}` has a derivative by its first result only",
                node.op.name(),
                node.name
            )));
        }
        let Some(dy) = gradients[0] else { return Ok(()) };
        let wanted: Vec<bool> = node.inputs.iter().map(|v| self.needed[v.0 as usize]).collect();
        let parts = Vjp { g, node: &node, wanted: &wanted, dy }.parts()?;
        for (&input, part) in node.inputs.iter().zip(parts) {
            if let Some(part) = part {
                self.add(g, input, part)?;
            }
        }
        Ok(())
    }

    fn finish(&self, g: &mut Graph, slot: Option<SlotId>, of: ValueId) -> Result<ValueId> {
        if let Some(total) = self.gradient[of.0 as usize] {
            return Ok(total);
        }
        let (name, shape) = (g.node(g.value(of).node).name.clone(), g.shape(of).clone());
        let ty = ValueType::f32(shape.clone());
        let zero = g.push_typed(Op::Const { value: 0.0, shape }, &[], name, vec![ty])[0];
        if let Some(slot) = slot {
            g.mark_gradient(zero, slot);
        }
        Ok(zero)
    }
}

/// The vector-Jacobian product of one node.
struct Vjp<'a> {
    g: &'a mut Graph,
    node: &'a Node,
    wanted: &'a [bool],
    dy: ValueId,
}

impl Vjp<'_> {
    fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        self.g.push_named(op, inputs, self.node.name.clone())
    }

    fn one(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.push(op, inputs)?[0])
    }

    fn unary(&mut self, f: Unary, x: ValueId) -> Result<ValueId> {
        self.one(Op::Unary(f), &[x])
    }

    fn binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(Op::Binary(f), &[a, b])
    }

    fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Mul, a, b)
    }

    fn number(&mut self, value: f64) -> ValueId {
        let ty = ValueType::f32(Shape::scalar());
        let name = self.node.name.clone();
        self.g.push_typed(Op::Const { value, shape: Shape::scalar() }, &[], name, vec![ty])[0]
    }

    fn scaled(&mut self, x: ValueId, factor: f64) -> Result<ValueId> {
        let factor = self.number(factor);
        self.mul(x, factor)
    }

    fn sum(&mut self, x: ValueId, axes: Vec<usize>) -> Result<ValueId> {
        if axes.is_empty() {
            return Ok(x);
        }
        self.one(Op::Reduce { kind: ReduceKind::Sum, axes }, &[x])
    }

    fn reshape(&mut self, x: ValueId, shape: Shape) -> Result<ValueId> {
        if self.g.shape(x) == &shape {
            return Ok(x);
        }
        self.one(Op::Reshape { shape }, &[x])
    }

    /// Sums `x` over the dimensions along which `like` was stretched.
    fn unbroadcast(&mut self, x: ValueId, like: ValueId) -> Result<ValueId> {
        let (from, to) = (self.g.shape(x).clone(), self.g.shape(like).clone());
        let pad = from.len() - to.len();
        let axes = (0..from.len()).filter(|&i| i < pad || (to[i - pad] == 1 && from[i] != 1)).collect();
        let summed = self.sum(x, axes)?;
        self.reshape(summed, to)
    }

    /// `x` with the reduced `axes` put back as size 1 and stretched to the operand's shape.
    fn unreduce(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        let full = self.g.shape(self.node.inputs[0]).clone();
        let kept = (0..full.len()).map(|i| if axes.contains(&i) { 1 } else { full[i] });
        let x = self.reshape(x, Shape::from(kept.collect::<Vec<_>>()))?;
        self.one(Op::Broadcast { shape: full }, &[x])
    }

    fn matmul(&mut self, a: ValueId, b: ValueId, ta: bool, tb: bool) -> Result<ValueId> {
        self.one(Op::MatMul { ta, tb }, &[a, b])
    }

    /// The first two operands of a product in the order in which their gradients are best made:
    /// each gradient reads the other operand, which may be free afterwards, so the larger one is
    /// freed before the second gradient needs room.
    fn larger_last(&self) -> impl Iterator<Item = usize> + use<> {
        let [a, b] = [0, 1].map(|i| self.g.shape(self.node.inputs[i]).count());
        if a >= b { [1, 0].into_iter() } else { [0, 1].into_iter() }
    }

    fn no_derivative<T>(&self) -> Result<T> {
        let (op, name) = (self.node.op.name(), &self.node.name);
        Err(GraphError::Derivative(format!("`{op}` in `{name}` has no derivative")))
    }

    /// One gradient per operand, where it is wanted and exists.
    fn parts(&mut self) -> Result<Vec<Option<ValueId>>> {
        let dy = self.dy;
        let node = self.node;
        let x = node.inputs.as_slice();
        let y = node.outputs.as_slice();
        let one = |v: ValueId| Ok(vec![Some(v)]);
        match &node.op {
            Op::Input { .. } | Op::Read { .. } | Op::Const { .. } => Ok(Vec::new()),
            Op::Unary(f) => Ok(vec![self.unary_part(*f)?]),
            Op::Binary(f) => self.binary_parts(*f),
            Op::Select => {
                let zero = self.number(0.0);
                let mut parts = vec![None; 3];
                for (i, chosen) in [(1, [x[0], dy, zero]), (2, [x[0], zero, dy])] {
                    if self.wanted[i] {
                        let part = self.one(Op::Select, &chosen)?;
                        parts[i] = Some(self.unbroadcast(part, x[i])?);
                    }
                }
                Ok(parts)
            }
            // Rounding is treated as the identity.
            Op::Cast { .. } => one(dy),
            Op::Broadcast { .. } => one(self.unbroadcast(dy, x[0])?),
            Op::Dropout { .. } => Ok(vec![Some(self.one(node.op.clone(), &[dy, x[1]])?), None]),
            Op::Reshape { .. } => {
                let shape = self.g.shape(x[0]).clone();
                one(self.reshape(dy, shape)?)
            }
            Op::Permute { perm } => {
                let mut inverse = vec![0; perm.len()];
                perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
                one(self.one(Op::Permute { perm: inverse }, &[dy])?)
            }
            Op::Slice { axis, start, end } => {
                let size = self.g.shape(x[0])[*axis];
                one(self.one(Op::Pad { axis: *axis, before: *start, after: size - end }, &[dy])?)
            }
            Op::Pad { axis, before, .. } => {
                let size = self.g.shape(x[0])[*axis];
                one(self.one(Op::Slice { axis: *axis, start: *before, end: before + size }, &[dy])?)
            }
            Op::Concat { axis } => {
                let mut start = 0;
                let mut parts = Vec::new();
                for &operand in x {
                    let end = start + self.g.shape(operand)[*axis];
                    parts.push(Some(self.one(Op::Slice { axis: *axis, start, end }, &[dy])?));
                    start = end;
                }
                Ok(parts)
            }
            Op::Gather => {
                let rows = self.g.shape(x[0])[0];
                Ok(vec![Some(self.one(Op::ScatterAdd { rows }, &[dy, x[1]])?), None])
            }
            Op::ScatterAdd { .. } => Ok(vec![Some(self.one(Op::Gather, &[dy, x[1]])?), None]),
            Op::Reduce { kind, axes } => {
                let spread = self.unreduce(dy, axes)?;
                match kind {
                    ReduceKind::Sum => one(spread),
                    ReduceKind::Mean => {
                        let count = self.g.shape(x[0]).count() / self.g.shape(y[0]).count();
                        one(self.scaled(spread, 1.0 / count as f64)?)
                    }
                    ReduceKind::Max => {
                        // Equal largest elements share the gradient.
                        let largest = self.unreduce(y[0], axes)?;
                        let mask = self.binary(Binary::Equal, x[0], largest)?;
                        let ties = self.sum(mask, axes.clone())?;
                        let ties = self.unreduce(ties, axes)?;
                        let share = self.binary(Binary::Div, mask, ties)?;
                        one(self.mul(spread, share)?)
                    }
                    ReduceKind::AbsMax => self.no_derivative(),
                }
            }
            Op::ArgMax => Ok(vec![None]),
            Op::Softmax => {
                let axis = self.g.shape(x[0]).len() - 1;
                let weighted = self.mul(dy, y[0])?;
                let inner = self.sum(weighted, vec![axis])?;
                let inner = self.unreduce(inner, &[axis])?;
                let centred = self.binary(Binary::Sub, dy, inner)?;
                one(self.mul(y[0], centred)?)
            }
            Op::LayerNorm { .. } => self.all(Op::LayerNormGrad, &[x[0], x[1], y[1], y[2], dy]),
            Op::BatchNormPart(BatchNormPart::Apply { .. }) => self.batch_norm_parts(),
            Op::CrossEntropy => {
                let part = self.one(Op::CrossEntropyGrad, &[x[0], x[1], y[1], dy])?;
                Ok(vec![Some(part), None])
            }
            Op::GlobalNorm => {
                let unit = self.binary(Binary::Div, dy, y[0])?;
                x.iter().map(|&operand| Ok(Some(self.mul(operand, unit)?))).collect()
            }
            Op::MatMul { ta, tb } => {
                let (a, b) = (x[0], x[1]);
                let mut parts = vec![None; x.len()];
                for operand in self.larger_last().filter(|&i| self.wanted[i]) {
                    parts[operand] = Some(match (operand, ta, tb) {
                        (0, false, false) => self.matmul(dy, b, false, true)?,
                        (0, false, true) => self.matmul(dy, b, false, false)?,
                        (0, true, false) => self.matmul(b, dy, false, true)?,
                        (0, true, true) => self.matmul(b, dy, true, true)?,
                        (_, false, false) => self.matmul(a, dy, true, false)?,
                        (_, false, true) => self.matmul(dy, a, true, false)?,
                        (_, true, false) => self.matmul(a, dy, false, false)?,
                        (_, true, true) => self.matmul(dy, a, true, true)?,
                    });
                }
                self.bias_part(&mut parts)?;
                Ok(parts)
            }
            Op::Conv2d(geometry) => {
                let size = (self.g.shape(x[0])[1], self.g.shape(x[0])[2]);
                let window = (self.g.shape(x[1])[1], self.g.shape(x[1])[2]);
                let mut parts = vec![None; x.len()];
                for operand in self.larger_last().filter(|&i| self.wanted[i]) {
                    parts[operand] = Some(match operand {
                        0 => self.one(Op::Conv2dGradInput { geometry: *geometry, size }, &[dy, x[1]])?,
                        _ => self.one(Op::Conv2dGradWeight { geometry: *geometry, window }, &[x[0], dy])?,
                    });
                }
                self.bias_part(&mut parts)?;
                Ok(parts)
            }
            Op::Conv2dGradInput { geometry, .. } => {
                let window = (self.g.shape(x[1])[1], self.g.shape(x[1])[2]);
                let ddy = self.one(Op::Conv2d(*geometry), &[dy, x[1]])?;
                let dw = self.one(Op::Conv2dGradWeight { geometry: *geometry, window }, &[dy, x[0]])?;
                Ok(vec![Some(ddy), Some(dw)])
            }
            Op::Conv2dGradWeight { geometry, .. } => {
                let size = (self.g.shape(x[0])[1], self.g.shape(x[0])[2]);
                let dx = self.one(Op::Conv2dGradInput { geometry: *geometry, size }, &[x[1], dy])?;
                let ddy = self.one(Op::Conv2d(*geometry), &[x[0], dy])?;
                Ok(vec![Some(dx), Some(ddy)])
            }
            Op::Attention(spec) => {
                let mut operands = x.to_vec();
                operands.extend([y[0], y[1], dy]);
                self.all(Op::AttentionGrad(*spec), &operands)
            }
            Op::Pool { kind, window, stride } => {
                let op = Op::PoolGrad { kind: *kind, window: *window, stride: *stride };
                one(self.one(op, &[x[0], dy])?)
            }
            Op::PoolGrad { kind: PoolKind::Mean, window, stride } => {
                let op = Op::Pool { kind: PoolKind::Mean, window: *window, stride: *stride };
                Ok(vec![None, Some(self.one(op, &[dy])?)])
            }
            Op::PoolGrad { kind: PoolKind::Max, .. }
            | Op::LayerNormGrad
            | Op::BatchNormPart(_)
            | Op::CrossEntropyGrad
            | Op::Quantise(_)
            | Op::AttentionGrad(_)
            | Op::AdamW(_)
            | Op::Sgd(_)
            | Op::AllReduceStart { .. }
            | Op::AllReduceWait { .. } => self.no_derivative(),
        }
    }

    fn all(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<Option<ValueId>>> {
        Ok(self.push(op, inputs)?.into_iter().map(Some).collect())
    }

    /// The derivative through the statistics too, which must be those of the operand.
    fn batch_norm_parts(&mut self) -> Result<Vec<Option<ValueId>>> {
        let &[x, gamma, _, mean, var] = &self.node.inputs[..] else { return self.no_derivative() };
        let is = |v: ValueId, part, inputs: &[ValueId]| {
            let node = self.g.node(self.g.value(v).node);
            node.op == Op::BatchNormPart(part) && node.inputs == inputs
        };
        if !is(mean, BatchNormPart::Mean, &[x]) || !is(var, BatchNormPart::Variance, &[x, mean]) {
            return Err(GraphError::Derivative(format!(
                "`{}` in `{}` has a derivative only where mean and variance are those of its operand",
                self.node.op.name(),
                self.node.name
            )));
        }
        let (rstd, dy, rows) = (self.node.outputs[1], self.dy, self.g.shape(x).rows());
        let sums = self.push(Op::BatchNormPart(BatchNormPart::Sums), &[x, mean, rstd, dy])?;
        let dx = Op::BatchNormPart(BatchNormPart::Dx { rows });
        let dx = self.one(dx, &[x, gamma, mean, rstd, dy, sums[0], sums[1]])?;
        Ok(vec![Some(dx), Some(sums[0]), Some(sums[1]), None, None])
    }

    /// A bias was added to every row: its gradient is the sum over all dimensions but the last.
    fn bias_part(&mut self, parts: &mut [Option<ValueId>]) -> Result<()> {
        if parts.len() == 3 && self.wanted[2] {
            let axes = (0..self.g.shape(self.dy).len() - 1).collect();
            parts[2] = Some(self.sum(self.dy, axes)?);
        }
        Ok(())
    }

    fn unary_part(&mut self, f: Unary) -> Result<Option<ValueId>> {
        let (dy, x, y) = (self.dy, self.node.inputs[0], self.node.outputs[0]);
        let slope = match f {
            Unary::Neg => return Ok(Some(self.unary(Unary::Neg, dy)?)),
            Unary::Step | Unary::IsFinite | Unary::Sign => return Ok(None),
            Unary::Abs => self.unary(Unary::Sign, x)?,
            Unary::Exp => y,
            Unary::Log => self.unary(Unary::Recip, x)?,
            Unary::Sqrt => {
                let inverse = self.unary(Unary::Recip, y)?;
                self.scaled(inverse, 0.5)?
            }
            Unary::Rsqrt => {
                let square = self.unary(Unary::Square, y)?;
                let cube = self.mul(square, y)?;
                self.scaled(cube, -0.5)?
            }
            Unary::Recip => {
                let square = self.unary(Unary::Square, y)?;
                self.unary(Unary::Neg, square)?
            }
            Unary::Tanh => {
                let (one, square) = (self.number(1.0), self.unary(Unary::Square, y)?);
                self.binary(Binary::Sub, one, square)?
            }
            Unary::Sigmoid => {
                let (one, square) = (self.number(1.0), y);
                let rest = self.binary(Binary::Sub, one, square)?;
                self.mul(y, rest)?
            }
            // By the result, not the operand: then the operand need not be kept.
            Unary::Relu => self.unary(Unary::Step, y)?,
            Unary::Gelu => self.unary(Unary::GeluGrad, x)?,
            Unary::GeluGrad => {
                // φ(x)·(2 − x²)
                let square = self.unary(Unary::Square, x)?;
                let exponent = self.scaled(square, -0.5)?;
                let bell = self.unary(Unary::Exp, exponent)?;
                let density = self.scaled(bell, 1.0 / (2.0 * std::f64::consts::PI).sqrt())?;
                let two = self.number(2.0);
                let rest = self.binary(Binary::Sub, two, square)?;
                self.mul(density, rest)?
            }
            Unary::Square => self.scaled(x, 2.0)?,
        };
        Ok(Some(self.mul(dy, slope)?))
    }

    fn binary_parts(&mut self, f: Binary) -> Result<Vec<Option<ValueId>>> {
        let (dy, a, b, y) = (self.dy, self.node.inputs[0], self.node.inputs[1], self.node.outputs[0]);
        let mut parts = vec![None; 2];
        if self.wanted[0] {
            let part = match f {
                Binary::Add | Binary::Sub => dy,
                Binary::Mul => self.mul(dy, b)?,
                Binary::Div => self.binary(Binary::Div, dy, b)?,
                Binary::Max | Binary::Min => self.chosen_part(f, a, b)?,
                Binary::Greater | Binary::GreaterEqual | Binary::Equal => return Ok(parts),
            };
            parts[0] = Some(self.unbroadcast(part, a)?);
        }
        if self.wanted[1] {
            let part = match f {
                Binary::Add => dy,
                Binary::Sub => self.unary(Unary::Neg, dy)?,
                Binary::Mul => self.mul(dy, a)?,
                Binary::Div => {
                    let quotient = self.binary(Binary::Div, y, b)?;
                    let part = self.mul(dy, quotient)?;
                    self.unary(Unary::Neg, part)?
                }
                Binary::Max | Binary::Min => {
                    let first = self.chosen_part(f, a, b)?;
                    self.binary(Binary::Sub, dy, first)?
                }
                Binary::Greater | Binary::GreaterEqual | Binary::Equal => return Ok(parts),
            };
            parts[1] = Some(self.unbroadcast(part, b)?);
        }
        Ok(parts)
    }

    /// The gradient of max or min by its first operand: all of it where that one was chosen. On a
    /// tie, the first is.
    fn chosen_part(&mut self, f: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        let (first, second) = if f == Binary::Max { (a, b) } else { (b, a) };
        let mask = self.binary(Binary::GreaterEqual, first, second)?;
        self.mul(self.dy, mask)
    }
}
