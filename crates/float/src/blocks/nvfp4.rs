//! NVFP4: e2m1 codes, an e4m3 scale for 16 of them and an f32 scale for the tensor (arXiv
//! 2509.25149).

use super::mx::dequantise_block;
use super::{BlockError, amax, check, round_scaled, row_scales};
use crate::code::Overflow;
use crate::convert::{E2m1, E4m3, SliceRounding, nearest, value};

/// The NVFP4 form: 16 elements of a row share an e4m3 scale, all of them an f32 scale.
///
/// x ≈ code · (block scale · tensor scale), the product of the scales rounded to f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Nvfp4;

impl Nvfp4 {
    /// Elements that share a scale.
    pub const BLOCK: usize = 16;

    /// Largest e2m1 value times largest e4m3 value: the range the tensor scale maps its values to.
    const RANGE: f32 = 6.0 * 448.0;

    /// Number of block scales of a matrix of `values` elements in rows of `row_length`.
    ///
    /// # Errors
    /// If the values do not fill whole rows.
    pub fn scales(self, values: usize, row_length: usize) -> Result<usize, BlockError> {
        row_scales(values, row_length, Nvfp4::BLOCK)
    }

    /// The tensor scale for these values: largest finite magnitude / 2688, at least 2^−126; 1 where
    /// all are zero. NaN and infinities do not count: they spoil their own block, not the tensor.
    pub fn tensor_scale(self, values: &[f32]) -> f32 {
        let finite = |x: &f32| if x.is_finite() { x.abs() } else { 0.0 };
        match values.iter().map(finite).fold(0.0, f32::max) {
            0.0 => 1.0,
            amax => (amax / Nvfp4::RANGE).max(f32::MIN_POSITIVE),
        }
    }

    /// Codes and e4m3 block scales of a matrix.
    ///
    /// A block's scale is amax/6/tensor scale, rounded to e4m3 to nearest even and saturated; 0
    /// where that rounds to zero, and the block with it. An element is x/(block scale · tensor
    /// scale), divided in f32, rounded to e2m1. `tensor_scale` is that of [`Nvfp4::tensor_scale`],
    /// or one from earlier steps; `rounding` counts elements from the first value.
    ///
    /// # Errors
    /// If `values` are not whole rows, or `codes` or `scales` have not the right length.
    #[inline(always)]
    pub fn quantise(
        self,
        rounding: SliceRounding,
        values: &[f32],
        row_length: usize,
        tensor_scale: f32,
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> Result<(), BlockError> {
        check("scales", self.scales(values.len(), row_length)?, scales.len())?;
        check("codes", values.len(), codes.len())?;
        let blocks = values.chunks(row_length.max(1)).flat_map(|row| row.chunks(Nvfp4::BLOCK));
        let mut at = 0;
        for (x, scale) in blocks.zip(scales) {
            let codes = &mut codes[at..at + x.len()];
            let wanted = amax(x).map_or(f32::NAN, |amax| amax / 6.0 / tensor_scale);
            *scale = nearest::<E4m3>(wanted, Overflow::Saturate) as u8;
            let divisor = value::<E4m3>((*scale).into()) * tensor_scale;
            if divisor > 0.0 {
                round_scaled::<E2m1>(rounding.from(at), x, |x| x / divisor, codes);
            } else {
                codes.fill(0);
            }
            at += x.len();
        }
        Ok(())
    }

    /// Values of codes and scales: code · (block scale · tensor scale), each product rounded to
    /// f32.
    ///
    /// # Errors
    /// If `codes` are not whole rows, or `scales` or `values` have not the right length.
    #[inline(always)]
    pub fn dequantise(
        self,
        codes: &[u8],
        row_length: usize,
        tensor_scale: f32,
        scales: &[u8],
        values: &mut [f32],
    ) -> Result<(), BlockError> {
        check("scales", self.scales(codes.len(), row_length)?, scales.len())?;
        check("values", codes.len(), values.len())?;
        let rows = codes.chunks(row_length.max(1)).zip(values.chunks_mut(row_length.max(1)));
        let blocks = rows.flat_map(|(c, v)| c.chunks(Nvfp4::BLOCK).zip(v.chunks_mut(Nvfp4::BLOCK)));
        for ((codes, values), &scale) in blocks.zip(scales) {
            dequantise_block::<E2m1>(codes, value::<E4m3>(scale.into()) * tensor_scale, values);
        }
        Ok(())
    }
}
