//! Block-scaled forms: small codes, and a scale for each block of them.
//!
//! | form | codes | block | scale |
//! |---|---|---|---|
//! | [`Mx`]: MXFP8, MXFP6, MXFP4 | e4m3, e5m2; e3m2, e2m3; e2m1 | 32 of a row | [`E8m0`](crate::E8m0) |
//! | [`Nvfp4`] | e2m1 | 16 of a row | e4m3, and one f32 for the tensor |
//! | [`Fp8Blocks`] | e4m3, e5m2 and their fnuz variants | any rectangle, as 1×128 or 128×128 | f32 |
//! | [`DynamicMap`] | 256 values of its own | 256 | f32: the largest magnitude |
//!
//! In all of them but the last, which is for optimiser state:
//!
//! * A matrix is given by its values and the length of its rows. The last block of a row is shorter
//!   where the row's length is not a multiple of the block's; blocks never reach into the next row.
//!   Scales lie row by row, ⌈row length / block⌉ to a row.
//! * Codes lie one to a byte; [`pack4`](crate::pack4) halves them.
//! * Codes saturate: a scaled value beyond the largest code becomes the largest code.
//! * A block that holds a NaN or an infinity gets the scale NaN and codes 0, so all of it reads as
//!   NaN: a fault is not hidden, and stays within its block.
//! * A block of zeros reads as zeros, whatever its scale.
//! * Where values are so small that the exact scale is below the format's least, the least scale is
//!   used: such values lose precision or become zero, and never NaN.
//! * At the other end, magnitudes within rounding of 2^128 may round up to it and read as infinity,
//!   as they do in bf16.

mod dynamic;
mod fp8;
mod mx;
mod nvfp4;
#[cfg(test)]
mod tests;

pub use dynamic::{DYNAMIC_BLOCK, DynamicMap};
pub use fp8::{BlockShape, F32Scale, Fp8Blocks};
pub use mx::{Mx, ScaleRule};
pub use nvfp4::Nvfp4;

use crate::code::Overflow;
use crate::convert::{Narrow, SliceRounding, nearest, stochastic};
use crate::format::Format;

/// Lengths or formats that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The values do not fill whole rows.
    #[error(
        "{values} values are not whole rows of {row_length}; give a row length that divides the number of values"
    )]
    Rows {
        /// Number of values.
        values: usize,
        /// Length of a row.
        row_length: usize,
    },
    /// A buffer has the wrong length.
    #[error("the buffer of {what} has {got} elements; this matrix needs {expected}")]
    Buffer {
        /// What the buffer is for.
        what: &'static str,
        /// Elements it should have.
        expected: usize,
        /// Elements it has.
        got: usize,
    },
    /// The form has no such element format.
    #[error("{form} has no {element} elements; choose one of {choices}")]
    Element {
        /// The form.
        form: &'static str,
        /// What was asked for.
        element: Format,
        /// What there is.
        choices: &'static str,
    },
    /// A block without elements.
    #[error("a block of {rows} × {columns} has no elements; give at least 1 × 1")]
    Empty {
        /// Rows of the block.
        rows: usize,
        /// Columns of the block.
        columns: usize,
    },
}

fn check(what: &'static str, expected: usize, got: usize) -> Result<(), BlockError> {
    if expected == got { Ok(()) } else { Err(BlockError::Buffer { what, expected, got }) }
}

/// Number of rows of `values` elements.
fn rows(values: usize, row_length: usize) -> Result<usize, BlockError> {
    match (values, row_length) {
        (0, _) => Ok(0),
        (_, 0) => Err(BlockError::Rows { values, row_length }),
        _ if !values.is_multiple_of(row_length) => Err(BlockError::Rows { values, row_length }),
        _ => Ok(values / row_length),
    }
}

/// Number of scales of a matrix whose blocks are `block` elements of a row.
fn row_scales(values: usize, row_length: usize, block: usize) -> Result<usize, BlockError> {
    Ok(rows(values, row_length)? * row_length.div_ceil(block))
}

/// Bits of the largest magnitude; those of NaN, being larger than all others, win.
#[inline(always)]
fn amax_bits(values: &[f32]) -> u32 {
    values.iter().map(|x| x.to_bits() & 0x7fff_ffff).fold(0, |a, b| if a > b { a } else { b })
}

/// The largest magnitude, or `None` if there is a NaN or an infinity.
#[inline(always)]
fn amax(values: &[f32]) -> Option<f32> {
    let bits = amax_bits(values);
    (bits < f32::INFINITY.to_bits()).then(|| f32::from_bits(bits))
}

/// The exponent of the power-of-two scale of a block by a rule; `amax` is finite and not 0.
#[inline(always)]
fn scale_exponent(rule: ScaleRule, element: Format, amax: f32) -> i32 {
    const FRACTION: u64 = (1 << 52) - 1;
    let info = element.info();
    // Through f64, where f32's subnormals are normal and rounding up the mantissa cannot overflow.
    let bits = f64::from(amax.abs()).to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32 - 1023, bits & FRACTION);
    let up = match rule {
        ScaleRule::Floor => false,
        ScaleRule::Even => fraction + (1 << (51 - info.mantissa_bits)) > FRACTION,
        ScaleRule::NoOverflow => fraction > info.max_finite.to_bits() & FRACTION,
    };
    exponent + i32::from(up) - element.max_exponent()
}

/// Elements that are scaled and rounded at once.
const PART: usize = 128;

/// Codes of the scaled values, saturated. `rounding` counts from the first of `values`.
#[inline(always)]
fn round_scaled<F: Narrow>(
    rounding: SliceRounding,
    values: &[f32],
    scale: impl Fn(f32) -> f32,
    codes: &mut [u8],
) {
    match rounding {
        SliceRounding::NearestEven => {
            for (code, &x) in codes.iter_mut().zip(values) {
                *code = nearest::<F>(scale(x), Overflow::Saturate) as u8;
            }
        }
        SliceRounding::Stochastic { draws, first } => {
            let mut words = [0; PART];
            let parts = codes.chunks_mut(PART).zip(values.chunks(PART));
            for (i, (codes, values)) in parts.enumerate() {
                let words = &mut words[..values.len()];
                draws.fill(first + (i * PART) as u64, words);
                for ((code, &x), &word) in codes.iter_mut().zip(values).zip(&*words) {
                    *code = stochastic::<F>(scale(x), word, Overflow::Saturate) as u8;
                }
            }
        }
    }
}
