//! Why a value is stored as it is: what the precision pass writes beside each value.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a value is stored as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The policy has no low format.
    PolicyIsF32,
    /// A contraction under a policy with a low format.
    Contraction,
    /// A contraction under a policy that rounds f32 operands to tf32.
    Tf32,
    /// A contraction under a policy that splits f32 operands into two bf16 terms.
    SplitInTwo,
    /// A contraction under a policy that splits f32 operands into three bf16 terms.
    SplitInThree,
    /// A weight gradient: the f32 accumulator is stored as it is.
    WeightGradient,
    /// The codes that a contraction reads in place of a value.
    Quantised,
    /// The sum of products of codes, before their scales are divided out.
    SumOfCodes,
    /// A sum of products of codes with the scales divided out.
    Rescaled,
    /// A scale, or what it is derived from.
    Scale,
    /// The last contraction of the model under a policy below 16 bits: it stays in 16 bits.
    HeadStays,
    /// Attention under a policy below 16 bits: it stays in 16 bits.
    AttentionStays,
    /// Attention under a policy that rounds f32 operands to tf32: it stays in f32.
    AttentionStaysF32,
    /// A convolution under a policy whose blocks belong to matrix products: it stays in 16 bits.
    ConvolutionStays,
    /// An operation that stays in f32.
    StaysF32,
    /// Part of the update, which works on master weights.
    Update,
    /// Stored like its widest operand.
    Follows,
    /// Every reader takes the low format, so it is rounded once, where it is made.
    ReadersTakeLow,
    /// A copy rounded for the contractions that read it.
    CastForContraction,
    /// A copy widened for an operation that an override keeps in f32.
    CastForF32,
    /// Master weights and other state.
    State,
    /// A bf16 weight without a master copy, rounded to nearest.
    LowWeight,
    /// A bf16 weight without a master copy, rounded stochastically.
    StochasticWeight,
    /// A bf16 weight with a compensation beside it.
    CompensatedWeight,
    /// What rounding has left over of a weight.
    Compensation,
    /// A moment in bf16.
    LowMoment,
    /// A moment in codes of eight bits.
    MomentCodes,
    /// The largest magnitudes of the blocks of a moment.
    MomentScale,
    /// State that is f32 under a policy that keeps larger tensors in fewer bytes.
    SmallState,
    /// Given by the caller, or a constant.
    Given,
    /// Whole numbers.
    Integer,
    /// The model asked for this format.
    Explicit,
    /// An override named it.
    Override,
    /// A sum over ranks, in the format it travels in.
    Collective,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::PolicyIsF32 => "the policy has no low format",
            Reason::Contraction => "contraction: exact products, f32 accumulation, stored low",
            Reason::Tf32 => "contraction: f32 operands rounded to tf32, exact products, f32 accumulation",
            Reason::SplitInTwo => {
                "contraction: f32 operands as two bf16 terms, three products (f32 products where there is no bf16 unit)"
            }
            Reason::SplitInThree => {
                "contraction: f32 operands as three bf16 terms, six products (f32 products where there is no bf16 unit)"
            }
            Reason::WeightGradient => "weight gradient: the f32 accumulator is kept as it is",
            Reason::Quantised => "codes of the narrow format, along the sum of the contraction that reads them",
            Reason::SumOfCodes => "contraction: exact products of codes, f32 accumulation, not stored if fused",
            Reason::Rescaled => "the scales of the codes are divided out in f32, then stored as in bf16",
            Reason::Scale => "f32 scale of a quantised value, from magnitudes seen",
            Reason::HeadStays => {
                "contraction in bf16: the last one, whose errors reach the loss undamped, as DeepSeek-V3 and NVFP4 training keep it"
            }
            Reason::AttentionStays => {
                "contraction in bf16: scores and probabilities, which softmax makes sensitive, as Transformer Engine keeps them"
            }
            Reason::AttentionStaysF32 => {
                "contraction in f32: scores and probabilities, which softmax makes sensitive; tf32 is for the other products"
            }
            Reason::ConvolutionStays => "contraction in bf16: blocks run along the sum of a matrix product",
            Reason::StaysF32 => "statistics, exponentials and long sums stay in f32",
            Reason::Update => "the update works on f32 master weights",
            Reason::Follows => "stored like its widest operand",
            Reason::ReadersTakeLow => {
                "computed in f32; every reader takes the low format, so it is rounded here once"
            }
            Reason::CastForContraction => "copy rounded for the contractions that read it",
            Reason::CastForF32 => "copy widened for an operation kept in f32",
            Reason::State => "state: master copy",
            Reason::LowWeight => {
                "state: bf16 weight without a master copy, rounded to nearest: updates below half an ulp are lost"
            }
            Reason::StochasticWeight => {
                "state: bf16 weight without a master copy, rounded stochastically, so that small updates count on average"
            }
            Reason::CompensatedWeight => {
                "state: bf16 weight without a master copy; what rounding leaves over is kept beside it"
            }
            Reason::Compensation => "state: what rounding the weight left over, added to its next update",
            Reason::LowMoment => {
                "state: moment in bf16, rounded stochastically: to nearest it would not decay, for 1 - β₂ is below half an ulp"
            }
            Reason::MomentCodes => "state: moment in codes of 8 bits, 256 to a block",
            Reason::MomentScale => "state: largest magnitude of each block of a moment",
            Reason::SmallState => {
                "state: f32, for it is a vector or has fewer than 4096 elements: nothing to gain"
            }
            Reason::Given => "given by the caller or constant",
            Reason::Integer => "whole numbers",
            Reason::Explicit => "the model asked for this format",
            Reason::Override => "an override in the recipe",
            Reason::Collective => "sum over ranks, in the format that travels",
        })
    }
}
