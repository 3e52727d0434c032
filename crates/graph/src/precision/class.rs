//! The precision class of every operation.

use crate::op::{Op, ReduceKind, Unary};

/// How an operation bears low precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Products with long sums: operands in low precision, accumulated in f32.
    Contraction,
    /// Statistics, exponentials, long sums: computed in f32, read from whatever their operands are
    /// stored in.
    Full,
    /// Norms and their derivatives: statistics and arithmetic in f32, rows stored like the widest
    /// operand.
    Normalise,
    /// Element by element, or moving elements: stored like the widest operand.
    Follow,
    /// Has no operands to take a type from, or has its own rule.
    Source,
}

/// The class of `op`.
pub fn class(op: &Op) -> Class {
    match op {
        Op::MatMul { .. }
        | Op::Conv2d(_)
        | Op::Conv2dGradInput { .. }
        | Op::Conv2dGradWeight { .. }
        | Op::Attention(_)
        | Op::AttentionGrad(_) => Class::Contraction,
        Op::Unary(f) => match f {
            Unary::Exp | Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Recip | Unary::Square => {
                Class::Full
            }
            Unary::Neg
            | Unary::Abs
            | Unary::Tanh
            | Unary::Sigmoid
            | Unary::Relu
            | Unary::Step
            | Unary::Gelu
            | Unary::GeluGrad
            | Unary::IsFinite
            | Unary::Sign => Class::Follow,
        },
        Op::Reduce { kind: ReduceKind::Sum | ReduceKind::Mean, .. } => Class::Full,
        Op::Reduce { kind: ReduceKind::Max | ReduceKind::AbsMax, .. } => Class::Follow,
        Op::ScatterAdd { .. }
        | Op::Softmax
        | Op::CrossEntropy
        | Op::CrossEntropyGrad
        | Op::GlobalNorm
        | Op::AdamW(_)
        | Op::Sgd(_) => Class::Full,
        Op::LayerNorm { .. } | Op::LayerNormGrad | Op::BatchNormPart(_) => Class::Normalise,
        Op::Binary(_)
        | Op::Select
        | Op::Broadcast { .. }
        | Op::Dropout { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Gather
        | Op::Pool { .. }
        | Op::PoolGrad { .. } => Class::Follow,
        Op::Input { .. }
        | Op::Read { .. }
        | Op::Const { .. }
        | Op::Cast { .. }
        | Op::Quantise(_)
        | Op::ArgMax
        | Op::AllReduceStart { .. }
        | Op::AllReduceWait { .. } => Class::Source,
    }
}
