//! How an update keeps weights and moments: in f32, or in fewer bytes with a remedy for what
//! rounding would lose.
//!
//! An update always computes in f32: state is widened, updated and rounded in one pass, as the
//! format says.

use std::fmt;

use halfstep_float::blocks::{DYNAMIC_BLOCK, DynamicMap};
use serde::{Deserialize, Serialize};

use crate::dtype::{DType, Shape, ValueType};

/// How weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightFormat {
    /// f32 masters, of which contractions read rounded copies.
    #[default]
    F32,
    /// bf16, rounded to nearest even: an update below half an ulp is lost. To show just that.
    Bf16,
    /// bf16, rounded up or down with probabilities that make the mean exact (Zamirai et al. 2020,
    /// arXiv 2010.06192).
    Bf16Stochastic,
    /// bf16, and in a second bf16 tensor what rounding left over, which the next update adds: Kahan
    /// summation (Zamirai et al. 2020). Both together hold at least 16 significant bits.
    Bf16Kahan,
}

/// How moments are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentFormat {
    /// f32.
    #[default]
    F32,
    /// bf16, rounded stochastically: a second moment that decays by 1 − β₂ = 0.001 of itself in a
    /// step would, rounded to nearest, never fall, for half an ulp of bf16 is at least 0.0019 of a
    /// number.
    Bf16,
    /// Codes of 8 bits, relative to the largest magnitude of each 256 elements (Dettmers et al.
    /// 2022, arXiv 2110.02861): [`DynamicMap`].
    Int8,
}

/// Formats of the state of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateFormats {
    /// Of the weight.
    #[serde(default)]
    pub weights: WeightFormat,
    /// Of its moments.
    #[serde(default)]
    pub moments: MomentFormat,
}

impl StateFormats {
    /// Tensors of fewer elements keep all state in f32, as those of bitsandbytes do
    /// (`min_8bit_size`): there is nothing to gain.
    pub const SMALL: usize = 4096;

    /// Whether all of it is f32.
    pub fn is_f32(&self) -> bool {
        *self == StateFormats::default()
    }

    /// Whether rounding draws random numbers.
    pub fn draws(self) -> bool {
        self.weights == WeightFormat::Bf16Stochastic || self.moments == MomentFormat::Bf16
    }

    /// The tensors of a weight of this shape.
    pub fn weight_types(self, shape: &Shape) -> Vec<ValueType> {
        let typed = |dtype| ValueType { shape: shape.clone(), dtype };
        match self.weights {
            WeightFormat::F32 => vec![typed(DType::F32)],
            WeightFormat::Bf16 | WeightFormat::Bf16Stochastic => vec![typed(DType::Bf16)],
            WeightFormat::Bf16Kahan => vec![typed(DType::Bf16); 2],
        }
    }

    /// The tensors of one of its moments.
    pub fn moment_types(self, shape: &Shape) -> Vec<ValueType> {
        let typed = |dtype| ValueType { shape: shape.clone(), dtype };
        match self.moments {
            MomentFormat::F32 => vec![typed(DType::F32)],
            MomentFormat::Bf16 => vec![typed(DType::Bf16)],
            MomentFormat::Int8 => {
                let blocks = shape.count().div_ceil(DYNAMIC_BLOCK);
                vec![typed(DType::U8), ValueType::f32(Shape::from([blocks]))]
            }
        }
    }

    /// All of them, in the order of an update's operands and results.
    pub fn types(self, shape: &Shape, moments: usize) -> Vec<ValueType> {
        let of_moments = (0..moments).flat_map(|_| self.moment_types(shape));
        self.weight_types(shape).into_iter().chain(of_moments).collect()
    }

    /// The codebook of moment `i`: sums of squares are never negative.
    pub fn map_of(i: usize) -> DynamicMap {
        if i == 0 { DynamicMap::Signed } else { DynamicMap::Unsigned }
    }
}

impl fmt::Display for StateFormats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = match self.weights {
            WeightFormat::F32 => "f32",
            WeightFormat::Bf16 => "bf16",
            WeightFormat::Bf16Stochastic => "bf16-stochastic",
            WeightFormat::Bf16Kahan => "bf16-kahan",
        };
        let moments = format!("{:?}", self.moments).to_lowercase();
        write!(f, "weights {weights}, moments {moments}")
    }
}

/// How one update keeps its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// In which formats.
    pub formats: StateFormats,
    /// Number of the draws of the weight; its moments have the next two. See
    /// [`halfstep_float::Draws`]. They are keyed by seed and attempt, not by the sample: every rank
    /// rounds alike.
    pub draws: u32,
}

impl Kept {
    /// Number of the draws of tensor `i`: 0 for the weight, then its moments.
    pub fn draws_of(self, i: usize) -> u32 {
        self.draws.wrapping_add(i as u32)
    }

    /// What text forms add to an update's constants; nothing where all state is f32.
    pub(crate) fn attribute(self) -> String {
        if self.formats.is_f32() { String::new() } else { format!(", {}", self.formats) }
    }
}
