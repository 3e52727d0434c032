//! Policies below 16 bits: formats, and how numbers are brought into their range.

use halfstep_float::blocks::ScaleRule;
use halfstep_float::{Format, Overflow};
use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::op::Blocks;

/// How the operands of contractions become codes of 8 or 4 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Narrow {
    /// Format of activations and weights.
    pub forward: Format,
    /// Format of gradients.
    pub backward: Format,
    /// Where scales come from.
    pub scaling: Scaling,
    /// How gradients are rounded. Activations and weights are rounded to nearest even.
    pub rounding: GradientRounding,
    /// Which activations share a scale that is not of a block. It belongs to a program that is
    /// made, not to what was trained, and is not recorded.
    #[serde(skip)]
    pub shared: SharedScale,
}

/// Which activations share a scale that is not of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedScale {
    /// Those of a tensor: of all samples of a batch.
    #[default]
    Tensor,
    /// Those of one sample, which then has the codes that it has in a batch of one. For programs
    /// that only read state: others scale by the tensor.
    Sample,
}

/// Where the scales of codes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Scaling {
    /// One for a tensor: largest code / (2^margin · the largest magnitude of the last `history`
    /// steps), as Transformer Engine's `DelayedScaling` has it. A magnitude that is not finite is
    /// not recorded; where all are zero the scale stays as it was, at first 1.
    Delayed {
        /// Steps that are remembered.
        history: usize,
        /// Powers of two left free above the largest.
        margin: u32,
        /// What becomes of numbers that outgrow the scale.
        #[serde(rename = "beyond")]
        overflow: Overflow,
    },
    /// One for a tensor: largest code / (2^margin · its own largest magnitude); 1 where that is
    /// zero or not finite.
    Current {
        /// Powers of two left free above the largest.
        margin: u32,
    },
    /// A power of two for each 1 × 128 elements of activations and gradients and each 128 × 128 of
    /// weights: DeepSeek-V3's blocks (arXiv 2412.19437, section 3.3) with Transformer Engine's
    /// scales.
    Block128,
    /// A power of two for each 32 elements: OCP MX v1.0.
    Mx {
        /// How it comes from the largest magnitude.
        scale: ScaleRule,
    },
    /// An e4m3 scale for each 16 elements, and an f32 one for the tensor, largest magnitude / 2688
    /// (arXiv 2509.25149).
    Nvfp4,
}

/// How gradients are rounded to codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientRounding {
    /// To the nearest, ties to even.
    Nearest,
    /// Up or down with probabilities that make the mean exact.
    Stochastic,
}

impl Narrow {
    /// The most steps a history may hold.
    pub const LONGEST_HISTORY: usize = 65_536;
    /// The most powers of two a margin may leave free.
    pub const LARGEST_MARGIN: u32 = 16;

    /// The recipe of a policy of this name, if it is one below 16 bits.
    ///
    /// The four-bit ones round gradients stochastically: to nearest, most small elements of a block
    /// become zero in every step (arXiv 2509.25149).
    pub fn named(name: &str) -> Option<Narrow> {
        use Format::{E2m1, E4m3, E5m2};
        let (forward, backward, scaling) = match name {
            "fp8" => {
                let scaling = Scaling::Delayed { history: 1024, margin: 0, overflow: Overflow::Saturate };
                (E4m3, E5m2, scaling)
            }
            "fp8-current" => (E4m3, E5m2, Scaling::Current { margin: 0 }),
            "fp8-block" => (E4m3, E4m3, Scaling::Block128),
            "mxfp8" => (E4m3, E4m3, Scaling::Mx { scale: ScaleRule::Floor }),
            "mxfp4" => (E2m1, E2m1, Scaling::Mx { scale: ScaleRule::Floor }),
            "nvfp4" => (E2m1, E2m1, Scaling::Nvfp4),
            _ => return None,
        };
        let rounding = match forward {
            E2m1 => GradientRounding::Stochastic,
            _ => GradientRounding::Nearest,
        };
        Some(Narrow { forward, backward, scaling, rounding, shared: SharedScale::Tensor })
    }

    /// Whether scales belong to blocks along the sum of a contraction, not to whole tensors.
    pub fn in_blocks(&self) -> bool {
        matches!(self.scaling, Scaling::Block128 | Scaling::Mx { .. } | Scaling::Nvfp4)
    }

    /// Whether a scale is derived from the largest magnitude of a whole tensor, of which a rank
    /// sees only its part.
    pub fn sees_whole_tensors(&self) -> bool {
        matches!(self.scaling, Scaling::Delayed { .. } | Scaling::Current { .. } | Scaling::Nvfp4)
    }

    /// The types that codes are stored in. Those of blocks are stored with their scales multiplied
    /// in.
    pub(super) fn stored(&self) -> [DType; 2] {
        [self.forward, self.backward].map(|format| match (self.in_blocks(), format) {
            (false, Format::E4m3) => DType::E4m3,
            (false, Format::E5m2) => DType::E5m2,
            _ => DType::Bf16,
        })
    }

    /// The blocks of an operand whose contraction sums along `axis`.
    pub(super) fn blocks(&self, axis: usize, is_weight: bool) -> Blocks {
        match self.scaling {
            Scaling::Delayed { overflow, .. } => Blocks::Tensor { overflow },
            Scaling::Current { .. } => Blocks::Tensor { overflow: Overflow::Saturate },
            Scaling::Block128 if is_weight => Blocks::Square128,
            Scaling::Block128 => Blocks::Row128 { axis },
            Scaling::Mx { scale } => Blocks::Mx { axis, scale },
            Scaling::Nvfp4 => Blocks::Nvfp4 { axis },
        }
    }
}
