//! tf32: f32 with ten bits of mantissa in place of 23, which Tensor Cores multiply. It is stored as
//! f32, so it is a rounding and no [`Format`](crate::Format) with codes of its own.

/// Bits of an f32 mantissa that tf32 has no room for.
const DROPPED: u32 = 13;

/// `x` as the nearest tf32 number, ties away from zero, as PTX's `cvt.rna.tf32.f32` rounds: from
/// half a unit above the largest on it is infinite. A NaN stays one.
#[inline(always)]
pub fn round_to_tf32(x: f32) -> f32 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Adding could turn it into zero.
        return x;
    }
    // A carry runs into the exponent; subnormals have the same lowest bit.
    f32::from_bits((bits + (1 << (DROPPED - 1))) & (u32::MAX << DROPPED))
}
