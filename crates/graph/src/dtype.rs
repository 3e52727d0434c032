//! Element types and shapes of values.

use std::fmt;
use std::ops::Deref;

use halfstep_float::{Format, round_to};
use serde::{Deserialize, Serialize};

/// The element type a value is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16: eight bits of exponent, seven of mantissa.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// OCP FP8 E4M3 (`float8_e4m3fn`): largest value 448, no infinities. Operands of contractions
    /// only.
    E4m3,
    /// OCP FP8 E5M2: largest value 57344. Operands of contractions only.
    E5m2,
    /// Indices, labels and random keys.
    I32,
    /// Codes of a table of 256 values, as block-wise optimiser state has them.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::E4m3 | DType::E5m2 | DType::U8 => 1,
        }
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        !matches!(self, DType::I32 | DType::U8)
    }

    /// The number format, for floating-point types.
    pub fn format(self) -> Option<Format> {
        match self {
            DType::F32 => Some(Format::F32),
            DType::Bf16 => Some(Format::Bf16),
            DType::F16 => Some(Format::F16),
            DType::E4m3 => Some(Format::E4m3),
            DType::E5m2 => Some(Format::E5m2),
            DType::I32 | DType::U8 => None,
        }
    }

    /// `x` as a value of this type would hold it, ties to even; whole numbers are not looked at.
    pub fn round(self, x: f64) -> f64 {
        self.format().map_or(x, |format| round_to(format, x))
    }

    /// The narrowest type that holds every value of both: two different 16-bit formats need f32.
    pub fn widest(self, other: DType) -> DType {
        if self == other { self } else { DType::F32 }
    }

    /// The name used in text forms.
    pub fn name(self) -> &'static str {
        match self.format() {
            Some(format) => format.name(),
            None if self == DType::I32 => "i32",
            None => "u8",
        }
    }
}

/// How a contraction multiplies f32 operands on a matrix unit that takes fewer bits: as terms that
/// the unit takes, of which the products that matter are added in f32.
///
/// bf16 terms are each the rest of those before it rounded to nearest even. With a = a₀ + a₁ + …,
/// |a₁| ≤ 2^-8·|a| and |a₂| ≤ 2^-17·|a|. Besides the rounding of the f32 sum, a product differs
/// from Σab by at most [`Split::bound`] times Σ|a||b|. That is the contract: hardware without such
/// a unit may multiply in f32, which keeps it with room to spare. Names are XLA's dot algorithms
/// `BF16_BF16_F32_X3` and `_X6`.
///
/// tf32 is one term, and what is multiplied is the contract: every engine rounds operands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// One term, the operand rounded to 11 significant bits, ties away from zero
    /// ([`halfstep_float::round_to_tf32`]), and one product: a₀b₀.
    Tf32,
    /// Two terms, three products: a₀b₀ + a₀b₁ + a₁b₀.
    Bf16x3,
    /// Three terms, which hold every f32 exactly, and six products: those aᵢbⱼ with i + j ≤ 2.
    Bf16x6,
}

impl Split {
    /// The largest error of a product as a fraction of Σ|a||b|, without that of the f32 sum and of
    /// underflow: (1 + 2^-11)² − 1 for tf32's rounding of both operands; 2^-15 for a₁b₁ and the
    /// rests of both; 2^-23 for a₁b₂, a₂b₁ and a₂b₂.
    pub fn bound(self) -> f64 {
        match self {
            Split::Tf32 => 1.0 / f64::from(1 << 10) + 1.0 / f64::from(1 << 22),
            Split::Bf16x3 => 1.0 / f64::from(1 << 15),
            Split::Bf16x6 => 1.0 / f64::from(1 << 23),
        }
    }

    /// Products of terms.
    pub fn products(self) -> usize {
        match self {
            Split::Tf32 => 1,
            Split::Bf16x3 => 3,
            Split::Bf16x6 => 6,
        }
    }

    /// Whether an engine may multiply the f32 operands themselves instead.
    pub fn allows_f32(self) -> bool {
        self != Split::Tf32
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Tf32 => "tf32",
            Split::Bf16x3 => "bf16x3",
            Split::Bf16x6 => "bf16x6",
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The static sizes of a value, slowest dimension first. A scalar has none. No size is zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A shape from its sizes.
    pub fn new(sizes: &[usize]) -> Shape {
        Shape(sizes.to_vec())
    }

    /// The shape of a single number.
    pub fn scalar() -> Shape {
        Shape(Vec::new())
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.0.iter().product()
    }

    /// Size of the last dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Number of rows when all but the last dimension are flattened.
    pub fn rows(&self) -> usize {
        self.count() / self.last()
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.0.len()];
        for i in (1..self.0.len()).rev() {
            strides[i - 1] = strides[i] * self.0[i];
        }
        strides
    }

    /// The shape both broadcast to by numpy's rule (align at the last dimension; 1 stretches), if
    /// there is one.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.len().max(other.len());
        let size = |s: &Shape, i: usize| {
            let pad = rank - s.len();
            if i < pad { 1 } else { s[i - pad] }
        };
        (0..rank)
            .map(|i| match (size(self, i), size(other, i)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Shape {
        Shape(sizes.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Shape {
        Shape(sizes)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "[{}]", sizes.join(","))
    }
}

/// What is known of a value before any step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueType {
    /// Sizes.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl ValueType {
    /// An f32 value of this shape.
    pub fn f32(shape: Shape) -> ValueType {
        ValueType { shape, dtype: DType::F32 }
    }

    /// An i32 value of this shape.
    pub fn i32(shape: Shape) -> ValueType {
        ValueType { shape, dtype: DType::I32 }
    }

    /// Bytes it takes to store.
    pub fn bytes(&self) -> usize {
        self.shape.count() * self.dtype.bytes()
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
