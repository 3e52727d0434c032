//! One method per operation, so that models read like formulas.
//!
//! Each adds a node under the current scope.

use crate::dtype::{DType, Shape, ValueType};
use crate::graph::{Graph, GraphError, ValueId};
use crate::op::{
    AttentionSpec, BatchNormPart, Binary, ConvGeometry, Op, PoolKind, ReduceKind, SlotId, Unary,
};

type Result<T> = std::result::Result<T, GraphError>;

impl Graph {
    fn one(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.push(op, inputs)?[0])
    }

    /// A tensor the caller gives each step under `name`; the same value if asked for again.
    pub fn input(&mut self, name: &str, ty: ValueType) -> ValueId {
        let op = Op::Input { name: name.to_string() };
        if let Some(node) = self.nodes.iter().find(|n| n.op == op) {
            return node.outputs[0];
        }
        self.push_typed(op, &[], name.to_string(), vec![ty])[0]
    }

    /// A number.
    pub fn scalar(&mut self, value: f64) -> ValueId {
        let ty = ValueType::f32(Shape::scalar());
        let name = self.path("");
        self.push_typed(Op::Const { value, shape: Shape::scalar() }, &[], name, vec![ty])[0]
    }

    /// `f(x)` element by element.
    ///
    /// # Errors
    /// If `x` is not of floating-point numbers.
    pub fn unary(&mut self, f: Unary, x: ValueId) -> Result<ValueId> {
        self.one(Op::Unary(f), &[x])
    }

    /// `f(a, b)` element by element, with broadcasting.
    ///
    /// # Errors
    /// If the operands are not of floating-point numbers, or do not broadcast to one shape.
    pub fn binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(Op::Binary(f), &[a, b])
    }

    /// a + b.
    ///
    /// # Errors
    /// Those of [`Graph::binary`].
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Add, a, b)
    }

    /// a − b.
    ///
    /// # Errors
    /// Those of [`Graph::binary`].
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Sub, a, b)
    }

    /// a · b element by element.
    ///
    /// # Errors
    /// Those of [`Graph::binary`].
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Mul, a, b)
    }

    /// a / b element by element.
    ///
    /// # Errors
    /// Those of [`Graph::binary`].
    pub fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Div, a, b)
    }

    /// x · factor.
    ///
    /// # Errors
    /// Those of [`Graph::binary`].
    pub fn scale(&mut self, x: ValueId, factor: f64) -> Result<ValueId> {
        let factor = self.scalar(factor);
        self.mul(x, factor)
    }

    /// a where c ≠ 0, else b.
    ///
    /// # Errors
    /// If `a` and `b` are not of floating-point numbers, or the operands do not broadcast to one
    /// shape.
    pub fn select(&mut self, c: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(Op::Select, &[c, a, b])
    }

    /// x rounded to `to`.
    ///
    /// # Errors
    /// None: every type can be cast.
    pub fn cast(&mut self, x: ValueId, to: DType) -> Result<ValueId> {
        self.one(Op::Cast { to }, &[x])
    }

    /// x stretched to `shape`.
    ///
    /// # Errors
    /// If `x` does not broadcast to `shape`.
    pub fn broadcast(&mut self, x: ValueId, shape: &Shape) -> Result<ValueId> {
        self.one(Op::Broadcast { shape: shape.clone() }, &[x])
    }

    /// max(x, 0).
    ///
    /// # Errors
    /// Those of [`Graph::unary`].
    pub fn relu(&mut self, x: ValueId) -> Result<ValueId> {
        self.unary(Unary::Relu, x)
    }

    /// x·Φ(x), exact.
    ///
    /// # Errors
    /// Those of [`Graph::unary`].
    pub fn gelu(&mut self, x: ValueId) -> Result<ValueId> {
        self.unary(Unary::Gelu, x)
    }

    /// Zeroes elements with probability `rate`; `key` is `i32[4]` (seed and attempt), `id` stable
    /// in the model.
    ///
    /// # Errors
    /// If `x` is not of floating-point numbers, the rate is not in [0, 1), or `key` is not
    /// `i32[4]`.
    pub fn dropout(&mut self, x: ValueId, key: ValueId, rate: f64, id: u32) -> Result<ValueId> {
        self.one(Op::Dropout { rate, id }, &[x, key])
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// If `shape` has another number of elements, or a dimension of 0.
    pub fn reshape(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        let shape = shape.into();
        if self.shape(x) == &shape {
            return Ok(x);
        }
        self.one(Op::Reshape { shape }, &[x])
    }

    /// Dimension `i` of the result is dimension `perm[i]` of x.
    ///
    /// # Errors
    /// If `perm` is not a permutation of the dimensions of `x`.
    pub fn permute(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId> {
        self.one(Op::Permute { perm: perm.to_vec() }, &[x])
    }

    /// Elements `start..end` along `axis`.
    ///
    /// # Errors
    /// If `axis` does not exist, or `start..end` is empty or not within it.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: usize, end: usize) -> Result<ValueId> {
        if self.shape(x).get(axis) == Some(&end) && start == 0 {
            return Ok(x);
        }
        self.one(Op::Slice { axis, start, end }, &[x])
    }

    /// Operands one after another along `axis`.
    ///
    /// # Errors
    /// If there are no parts, `axis` does not exist, or the parts differ in another dimension.
    pub fn concat(&mut self, parts: &[ValueId], axis: usize) -> Result<ValueId> {
        self.one(Op::Concat { axis }, parts)
    }

    /// Rows of `table[V, D]` at `index[…]`.
    ///
    /// # Errors
    /// If `table` does not have two dimensions, or `index` is not of i32.
    pub fn gather(&mut self, table: ValueId, index: ValueId) -> Result<ValueId> {
        self.one(Op::Gather, &[table, index])
    }

    /// Sum over `axes`, which disappear.
    ///
    /// # Errors
    /// If `x` is not of floating-point numbers, or `axes` are not ascending dimensions of it.
    pub fn sum(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        self.one(Op::Reduce { kind: ReduceKind::Sum, axes: axes.to_vec() }, &[x])
    }

    /// Mean over `axes`, which disappear.
    ///
    /// # Errors
    /// If `x` is not of floating-point numbers, or `axes` are not ascending dimensions of it.
    pub fn mean(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        self.one(Op::Reduce { kind: ReduceKind::Mean, axes: axes.to_vec() }, &[x])
    }

    /// Largest over `axes`, which disappear.
    ///
    /// # Errors
    /// If `x` is not of floating-point numbers, or `axes` are not ascending dimensions of it.
    pub fn max(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        self.one(Op::Reduce { kind: ReduceKind::Max, axes: axes.to_vec() }, &[x])
    }

    /// Position of the first largest element of each row, as i32.
    ///
    /// # Errors
    /// If `x` has no dimensions.
    pub fn argmax(&mut self, x: ValueId) -> Result<ValueId> {
        self.one(Op::ArgMax, &[x])
    }

    /// exp(x) / Σ exp(x) along the last dimension.
    ///
    /// # Errors
    /// If `x` has no dimensions.
    pub fn softmax(&mut self, x: ValueId) -> Result<ValueId> {
        self.one(Op::Softmax, &[x])
    }

    /// (x − mean) / √(var + eps) · γ + β along the last dimension.
    ///
    /// # Errors
    /// If `gamma` and `beta` are not as long as the last dimension of `x`.
    pub fn layer_norm(&mut self, x: ValueId, gamma: ValueId, beta: ValueId, eps: f64) -> Result<ValueId> {
        self.one(Op::LayerNorm { eps }, &[x, gamma, beta])
    }

    /// Batch norm by the batch's statistics over all but the last dimension: (y, mean, biased
    /// variance).
    ///
    /// # Errors
    /// If `x` has fewer than two dimensions, or `gamma` and `beta` are not as long as the last
    /// dimension of `x`.
    pub fn batch_norm(
        &mut self,
        x: ValueId,
        gamma: ValueId,
        beta: ValueId,
        eps: f64,
    ) -> Result<(ValueId, ValueId, ValueId)> {
        let mean = self.one(Op::BatchNormPart(BatchNormPart::Mean), &[x])?;
        let var = self.one(Op::BatchNormPart(BatchNormPart::Variance), &[x, mean])?;
        let apply = Op::BatchNormPart(BatchNormPart::Apply { eps });
        let y = self.push(apply, &[x, gamma, beta, mean, var])?[0];
        Ok((y, mean, var))
    }

    /// `log Σ exp(logits) − logits[target]`, one number per row of `logits[R, V]`; `target` is
    /// `i32[R]`.
    ///
    /// # Errors
    /// If `logits` does not have two dimensions, or `target` is not `i32[R]`.
    pub fn cross_entropy(&mut self, logits: ValueId, target: ValueId) -> Result<ValueId> {
        self.one(Op::CrossEntropy, &[logits, target])
    }

    /// √Σx² over all elements of all operands.
    ///
    /// # Errors
    /// If an operand is not of floating-point numbers.
    pub fn global_norm(&mut self, tensors: &[ValueId]) -> Result<ValueId> {
        self.one(Op::GlobalNorm, tensors)
    }

    /// Matrix product of the last two dimensions, with either operand stored transposed.
    ///
    /// # Errors
    /// If the operands are not of floating-point numbers, have fewer than two or different numbers
    /// of dimensions, or do not agree in the inner and the leading ones.
    pub fn matmul(&mut self, a: ValueId, b: ValueId, ta: bool, tb: bool) -> Result<ValueId> {
        self.one(Op::MatMul { ta, tb }, &[a, b])
    }

    /// Convolution of `x[N,H,W,C]` with `w[O,KH,KW,C]`.
    ///
    /// # Errors
    /// If `x` or `w` does not have four dimensions, their channels differ, or the window does not
    /// fit.
    pub fn conv2d(&mut self, x: ValueId, w: ValueId, geometry: ConvGeometry) -> Result<ValueId> {
        self.one(Op::Conv2d(geometry), &[x, w])
    }

    /// Attention of packed `qkv[B,T,3·W]`: `[B,T,W]`.
    ///
    /// # Errors
    /// If `qkv` is not of floating-point numbers or does not have three dimensions, or its width is
    /// not three times a multiple of the heads.
    pub fn attention(&mut self, qkv: ValueId, spec: AttentionSpec) -> Result<ValueId> {
        self.one(Op::Attention(spec), &[qkv])
    }

    /// Pooling of `x[N,H,W,C]` by square windows.
    ///
    /// # Errors
    /// If `x` does not have four dimensions, or the window does not fit.
    pub fn pool(&mut self, x: ValueId, kind: PoolKind, window: usize, stride: usize) -> Result<ValueId> {
        self.one(Op::Pool { kind, window, stride }, &[x])
    }

    /// Marks `value` as the gradient of `slot`, or a part of it.
    pub(crate) fn mark_gradient(&mut self, value: ValueId, slot: SlotId) {
        self.values[value.0 as usize].gradient_of = Some(slot);
    }
}
