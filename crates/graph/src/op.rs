//! The closed set of primitive operations.
//!
//! Adding one means one arm here and one in each table: shape rule (`infer`), derivative (`diff`),
//! precision class (`precision::class`), f64 meaning (`interp`). None of those matches has a
//! wildcard, so the compiler names what is missing. All arithmetic is defined on real numbers; how
//! it is rounded is the precision plan's business.

use std::fmt;

use halfstep_float::blocks::ScaleRule;
use halfstep_float::{Format, Overflow};
use serde::{Deserialize, Serialize};

use crate::dtype::{DType, Shape};
use crate::state_formats::Kept;

/// A slot of persistent state, by position in [`crate::Graph::slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotId(pub u32);

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the functions")]
pub enum Unary {
    Neg,
    Abs,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Recip,
    Tanh,
    Sigmoid,
    Relu,
    /// 1 where the operand is above zero, else 0: the derivative of ReLU.
    Step,
    /// x·Φ(x) with the exact normal distribution function (erf, not the tanh approximation).
    Gelu,
    /// Φ(x) + x·φ(x), the derivative of [`Unary::Gelu`].
    GeluGrad,
    /// 1 where the operand is finite, else 0.
    IsFinite,
    Square,
    Sign,
}

/// Functions of two numbers; operands broadcast by numpy's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the functions")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    /// 1 where a > b, else 0.
    Greater,
    /// 1 where a ≥ b, else 0.
    GreaterEqual,
    /// 1 where a = b, else 0.
    Equal,
}

/// How a reduction combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the functions")]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    /// The largest magnitude; NaN if an element is.
    AbsMax,
}

/// How a pooling window combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PoolKind {
    /// The largest element; the gradient goes to the first largest in scan order.
    Max,
    /// The mean of the window.
    Mean,
}

/// The steps of a batch normalisation (Ioffe and Szegedy 2015), forward and backward. Where a batch
/// is spread over ranks, sums over ranks stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum BatchNormPart {
    /// `(x[…, C]) -> (mean[C])`: of the rows here.
    Mean,
    /// `(x[…, C], mean[C]) -> (var[C])`: mean of (x − mean)² over the rows here; the mean may be
    /// over more of them.
    Variance,
    /// `(x[…, C], γ[C], β[C], mean[C], var[C]) -> (y, rstd[C])`: y = (x − mean)·rstd·γ + β with
    /// rstd = 1/√(var + eps). The derivative takes mean and biased variance to be those of x.
    Apply {
        /// Added to the variance.
        eps: f64,
    },
    /// `(x[…, C], mean[C], rstd[C], dy) -> (dγ[C], dβ[C])`: sums over the rows here of dy·x̂, with
    /// x̂ = (x − mean)·rstd, and of dy.
    Sums,
    /// `(x[…, C], γ[C], mean[C], rstd[C], dy, dγ[C], dβ[C]) -> (dx)`: dx = γ·rstd·(dy − (dβ +
    /// x̂·dγ)/rows), with sums over `rows` rows.
    Dx {
        /// Rows of the whole batch.
        rows: usize,
    },
}

/// Stride and zero padding of a convolution, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvGeometry {
    /// Distance between windows.
    pub stride: usize,
    /// Zeros added on each side.
    pub pad: usize,
}

impl ConvGeometry {
    /// Output size for an input size and window, if the window fits.
    pub fn output(self, input: usize, window: usize) -> Option<usize> {
        (input + 2 * self.pad).checked_sub(window).map(|room| room / self.stride + 1)
    }
}

/// Heads and masking of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionSpec {
    /// Number of heads; the width is divided among them.
    pub heads: usize,
    /// Whether position t sees only positions ≤ t.
    pub causal: bool,
}

/// How numbers are brought into the range of a format of 8 or 4 bits before they are rounded to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "blocks", rename_all = "kebab-case")]
pub enum Blocks {
    /// One factor for the whole tensor, or for each place of its first dimension: the second
    /// operand, which the reader of the codes divides out again.
    Tensor {
        /// What becomes of finite numbers beyond the largest. NaN and infinities always become NaN:
        /// a fault is not hidden.
        #[serde(rename = "beyond")]
        overflow: Overflow,
    },
    /// A power of two for each 32 elements along an axis (OCP MX v1.0).
    Mx {
        /// The axis, that of the contraction's sum.
        axis: usize,
        /// How the power of two comes from the largest magnitude.
        scale: ScaleRule,
    },
    /// An e4m3 scale for each 16 elements along an axis, relative to one scale for the tensor, or
    /// for each place of its first dimension: the second operand, which the reader multiplies with.
    Nvfp4 {
        /// The axis; not the first where its places have scales.
        axis: usize,
    },
    /// A power of two for each 128 elements along an axis: the largest that loses none to overflow.
    Row128 {
        /// The axis.
        axis: usize,
    },
    /// The same for each square of 128 × 128 elements of a matrix.
    Square128,
}

/// How numbers become codes of 8 or 4 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quantise {
    /// Format of the codes: e4m3, e5m2 or, in blocks of MX and NVFP4, e2m1.
    pub format: Format,
    /// What they are scaled by.
    pub blocks: Blocks,
    /// Rounded stochastically with draws of this number, where there is one: see
    /// [`halfstep_float::Draws`]. Else to nearest even.
    pub draws: Option<u32>,
}

impl Quantise {
    /// The number of the first element's draw, for the sample that the words of a step's key end
    /// in: parts of a batch draw different numbers.
    pub fn first_draw(first_sample: u32) -> u64 {
        // Elements in the low 34 bits: four share a block of the generator, whose counter has two
        // words for them.
        u64::from(first_sample) << 34
    }
}

/// AdamW's constants (Loshchilov and Hutter 2019, as torch writes it). The learning rate is an
/// operand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the field's")]
pub struct AdamWSpec {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// How its state is kept.
    #[serde(default)]
    pub kept: Kept,
}

/// SGD's constants, as torch writes them. The learning rate is an operand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the field's")]
pub struct SgdSpec {
    pub momentum: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
    /// How its state is kept.
    #[serde(default)]
    pub kept: Kept,
}

/// A primitive operation. Operands and results are listed as `(operands) -> (results)`.
///
/// Images are channels-last: `[N, H, W, C]`; convolution weights are `[O, KH, KW, C]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// `() -> (x)`: a tensor the caller gives each step.
    Input {
        /// The caller's name for it.
        name: String,
    },
    /// `() -> (x)`: a slot's value at the start of the step.
    Read {
        /// Which slot.
        slot: SlotId,
    },
    /// `() -> (x)`: one value in every place.
    Const {
        /// The value.
        value: f64,
        /// The shape it fills.
        shape: Shape,
    },
    /// `(x) -> (y)` element by element.
    Unary(Unary),
    /// `(a, b) -> (y)` element by element with broadcasting.
    Binary(Binary),
    /// `(c, a, b) -> (y)`: a where c ≠ 0, else b. All broadcast.
    Select,
    /// `(x) -> (y)`: rounds to the nearest value of `to`, ties to even.
    Cast {
        /// The new element type.
        to: DType,
    },
    /// `(x) -> (y)`, `(x, scale) -> (y)`, and `key[4]` as last operand where rounding draws:
    /// elements as codes of 8 or 4 bits stand for them.
    ///
    /// The scale is one number, or `[n, 1, …]` where the first of as many dimensions of x is n.
    /// With [`Blocks::Tensor`] the codes of x·scale, the product rounded to f32, stored in a byte
    /// each. In blocks, x as code and block scale say (for NVFP4 without the scale of the tensor):
    /// those numbers are exact in bf16, down to 2^-133. A block with a NaN or an infinity is NaN.
    ///
    /// Draws are keyed by (seed, attempt, number, first sample, element). In blocks, elements are
    /// numbered along the axis, or square by square with room for 128 × 128 each.
    Quantise(Quantise),
    /// `(x) -> (y)`: stretches `x` to a shape it broadcasts to.
    Broadcast {
        /// The new shape.
        shape: Shape,
    },
    /// `(x, key[4]) -> (y)`: zeroes elements with probability `rate` and divides the others by 1 −
    /// rate.
    ///
    /// The draw is keyed by (seed, attempt, `id`, sample, element in the sample), where a sample is
    /// one row along the first dimension. `key` holds the seed (low word first), the attempt and
    /// the number of the first sample. The derivative is the same operation on the gradient.
    Dropout {
        /// Probability of zero, below 1.
        rate: f64,
        /// Stable number of this dropout in the model.
        id: u32,
    },
    /// `(x) -> (y)`: the same elements under another shape.
    Reshape {
        /// The new shape.
        shape: Shape,
    },
    /// `(x) -> (y)`: dimension `i` of y is dimension `perm[i]` of x.
    Permute {
        /// The order of dimensions.
        perm: Vec<usize>,
    },
    /// `(x) -> (y)`: elements `start..end` along one axis.
    Slice {
        /// Which axis.
        axis: usize,
        /// First element kept.
        start: usize,
        /// One past the last element kept.
        end: usize,
    },
    /// `(x) -> (y)`: zeros before and after along one axis: the derivative of a slice.
    Pad {
        /// Which axis.
        axis: usize,
        /// Zeros before.
        before: usize,
        /// Zeros after.
        after: usize,
    },
    /// `(x…) -> (y)`: operands one after another along an axis.
    Concat {
        /// Which axis.
        axis: usize,
    },
    /// `(table[V, D], index[…]) -> (y[…, D])`.
    Gather,
    /// `(dy[…, D], index[…]) -> (dtable[V, D])`: adds rows at their index.
    ScatterAdd {
        /// V.
        rows: usize,
    },
    /// `(x) -> (y)`: reduces the listed axes, which disappear.
    Reduce {
        /// How elements combine.
        kind: ReduceKind,
        /// Sorted axes.
        axes: Vec<usize>,
    },
    /// `(x[…, D]) -> (i[…])`: position of the first largest element of each row.
    ArgMax,
    /// `(x[…, D]) -> (y[…, D])`: exp(x) / Σ exp(x) by rows.
    Softmax,
    /// `(x[…, D], γ[D], β[D]) -> (y, mean[rows], rstd[rows])` (Ba et al. 2016).
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// `(x, γ, mean, rstd, dy) -> (dx, dγ, dβ)`.
    LayerNormGrad,
    /// One step of a batch normalisation.
    BatchNormPart(BatchNormPart),
    /// `(logits[R, V], target[R]) -> (loss[R], lse[R])`: `log Σ exp(logits) − logits[target]`.
    CrossEntropy,
    /// `(logits, target, lse, dloss[R]) -> (dlogits)`.
    CrossEntropyGrad,
    /// `(x…) -> (norm)`: √Σx² over all operands; not finite if any element is not.
    GlobalNorm,
    /// `(a, b) -> (c)` or `(a, b, bias[n]) -> (c)`: matrix product of the last two dimensions;
    /// leading ones agree.
    MatMul {
        /// Whether a is stored transposed, `[…, k, m]`.
        ta: bool,
        /// Whether b is stored transposed, `[…, n, k]`.
        tb: bool,
    },
    /// `(x[N,H,W,C], w[O,KH,KW,C]) -> (y[N,OH,OW,O])`, optionally with `bias[O]`.
    Conv2d(ConvGeometry),
    /// `(dy, w) -> (dx[N,H,W,C])`.
    Conv2dGradInput {
        /// Stride and padding of the forward operation.
        geometry: ConvGeometry,
        /// H and W of the input.
        size: (usize, usize),
    },
    /// `(x, dy) -> (dw[O,KH,KW,C])`.
    Conv2dGradWeight {
        /// Stride and padding of the forward operation.
        geometry: ConvGeometry,
        /// KH and KW.
        window: (usize, usize),
    },
    /// `(qkv[B,T,3·W]) -> (out[B,T,W], lse[B,H,T])`, or `(q, k, v)` of `[B,T,W]` each.
    ///
    /// softmax(q·kᵀ/√D)·v by heads of D = W / heads; the log-sum-exp is saved for the derivative
    /// (Dao et al. 2022).
    Attention(AttentionSpec),
    /// `(qkv, out, lse, dout) -> (dqkv)`, or `(q, k, v, out, lse, dout) -> (dq, dk, dv)`.
    AttentionGrad(AttentionSpec),
    /// `(x[N,H,W,C]) -> (y)`: square windows without padding.
    Pool {
        /// How a window combines.
        kind: PoolKind,
        /// Window size.
        window: usize,
        /// Distance between windows.
        stride: usize,
    },
    /// `(x, dy) -> (dx)`.
    PoolGrad {
        /// How a window combines.
        kind: PoolKind,
        /// Window size.
        window: usize,
        /// Distance between windows.
        stride: usize,
    },
    /// `(p, m, v, grad, lr, grad_scale, step, commit) -> (p, m, v)`; the last four are scalars.
    ///
    /// `grad · grad_scale` is the gradient used; `step` counts from 1; where `commit` is zero
    /// nothing changes.
    ///
    /// Where state is [`Kept`] in fewer bytes, p, m and v are each the tensors that
    /// [`crate::StateFormats::types`] lists, and where their rounding draws, `key[4]` stands before
    /// `commit`.
    AdamW(AdamWSpec),
    /// `(p, momentum, grad, lr, grad_scale, commit) -> (p, momentum)`; the last three are scalars.
    /// Kept as with [`Op::AdamW`].
    Sgd(SgdSpec),
    /// `(x…) -> (flight[n])`: begins the sum over all ranks of these tensors, one after another,
    /// and does not wait for it.
    ///
    /// The result lies with the ranks' exchange, not with the program; only [`Op::AllReduceWait`]
    /// reads it.
    AllReduceStart {
        /// The format that contributions travel in, and their sum on its way back: each is rounded
        /// to it.
        over: DType,
    },
    /// `(flight) -> (y…)`: the sum over ranks, once it is there, times `factor`, in f32.
    ///
    /// Contributions are added in f32 in the order of ranks: the same bits on every rank and in
    /// every run.
    AllReduceWait {
        /// The shapes of the tensors.
        shapes: Vec<Shape>,
        /// What the sum is multiplied with.
        factor: f64,
    },
}

impl Op {
    /// The name used in text forms.
    pub fn name(&self) -> String {
        match self {
            Op::Unary(u) => format!("{u:?}").to_lowercase(),
            Op::Binary(b) => format!("{b:?}").to_lowercase(),
            Op::Reduce { kind, .. } => format!("reduce_{kind:?}").to_lowercase(),
            Op::Pool { kind, .. } => format!("pool_{kind:?}").to_lowercase(),
            Op::PoolGrad { kind, .. } => format!("pool_{kind:?}_grad").to_lowercase(),
            Op::BatchNormPart(part) => match part {
                BatchNormPart::Mean => "batch_norm_mean",
                BatchNormPart::Variance => "batch_norm_variance",
                BatchNormPart::Apply { .. } => "batch_norm",
                BatchNormPart::Sums => "batch_norm_sums",
                BatchNormPart::Dx { .. } => "batch_norm_grad",
            }
            .into(),
            Op::ArgMax => "argmax".into(),
            Op::MatMul { .. } => "matmul".into(),
            Op::AdamW(_) => "adamw".into(),
            other => snake_case(&format!("{other:?}")),
        }
    }

    /// Whether the operation moves elements without computing: operands and result are stored
    /// alike.
    pub fn is_movement(&self) -> bool {
        matches!(
            self,
            Op::Reshape { .. }
                | Op::Permute { .. }
                | Op::Slice { .. }
                | Op::Pad { .. }
                | Op::Concat { .. }
                | Op::Gather
        )
    }

    /// The constants of the operation as they are printed between braces; empty if there are none.
    pub fn attributes(&self) -> String {
        match self {
            Op::Input { name } => format!("{name:?}"),
            Op::Read { slot } => format!("slot {}", slot.0),
            Op::Const { value, .. } => format!("{value}"),
            Op::Cast { to } => format!("{to}"),
            Op::Quantise(q) => q.to_string(),
            Op::Dropout { rate, id } => format!("rate {rate}, id {id}"),
            Op::Permute { perm } => format!("{perm:?}"),
            Op::Slice { axis, start, end } => format!("axis {axis}, {start}..{end}"),
            Op::Pad { axis, before, after } => format!("axis {axis}, {before}+{after}"),
            Op::Concat { axis } => format!("axis {axis}"),
            Op::Reduce { axes, .. } => format!("axes {axes:?}"),
            Op::LayerNorm { eps } | Op::BatchNormPart(BatchNormPart::Apply { eps }) => format!("eps {eps}"),
            Op::BatchNormPart(BatchNormPart::Dx { rows }) => format!("rows {rows}"),
            Op::AllReduceStart { over } => format!("over {over}"),
            Op::AllReduceWait { factor, .. } if *factor != 1.0 => format!("factor {factor}"),
            Op::MatMul { ta, tb } => match (ta, tb) {
                (false, false) => "",
                (true, false) => "aᵀ",
                (false, true) => "bᵀ",
                (true, true) => "aᵀ, bᵀ",
            }
            .into(),
            Op::Conv2d(g)
            | Op::Conv2dGradInput { geometry: g, .. }
            | Op::Conv2dGradWeight { geometry: g, .. } => {
                format!("stride {}, pad {}", g.stride, g.pad)
            }
            Op::Attention(a) | Op::AttentionGrad(a) => {
                format!("heads {}{}", a.heads, if a.causal { ", causal" } else { "" })
            }
            Op::Pool { window, stride, .. } | Op::PoolGrad { window, stride, .. } => {
                format!("window {window}, stride {stride}")
            }
            Op::AdamW(s) => {
                let kept = s.kept.attribute();
                format!("β₁ {}, β₂ {}, eps {}, decay {}{kept}", s.beta1, s.beta2, s.eps, s.weight_decay)
            }
            Op::Sgd(s) => format!("momentum {}, decay {}{}", s.momentum, s.weight_decay, s.kept.attribute()),
            _ => String::new(),
        }
    }
}

/// The name at the start of a value's debug text, as `layer_norm` of `LayerNorm { … }`.
fn snake_case(debug: &str) -> String {
    let mut name = String::new();
    for c in debug.chars().take_while(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

impl fmt::Display for Quantise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = match self.blocks {
            Blocks::Tensor { overflow: Overflow::Saturate } => "tensor".to_string(),
            Blocks::Tensor { overflow: Overflow::NonFinite } => "tensor, not saturated".to_string(),
            Blocks::Mx { axis, .. } => format!("32 along axis {axis}"),
            Blocks::Nvfp4 { axis } => format!("16 along axis {axis}"),
            Blocks::Row128 { axis } => format!("128 along axis {axis}"),
            Blocks::Square128 => "128 by 128".to_string(),
        };
        write!(f, "{}, {blocks}", self.format)?;
        if let Some(draws) = self.draws { write!(f, ", draws {draws}") } else { Ok(()) }
    }
}
