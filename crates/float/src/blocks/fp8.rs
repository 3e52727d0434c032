//! FP8 in rectangular blocks with f32 scales, as DeepSeek-V3 trains (arXiv 2412.19437, section
//! 3.3): 1×128 for activations, 128×128 for weights.

use super::{BlockError, ScaleRule, amax_bits, check, round_scaled, rows, scale_exponent};
use crate::convert::{SliceRounding, value};
use crate::format::Format;
use crate::scale::E8m0;

/// Rows and columns of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockShape {
    /// Rows that share a scale.
    pub rows: usize,
    /// Columns that share a scale.
    pub columns: usize,
}

/// Which f32 numbers scales may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum F32Scale {
    /// amax / largest value, rounded to f32: amax becomes the largest code.
    #[default]
    Any,
    /// The smallest power of two by which amax does not overflow, so that scaling is exact.
    PowerOfTwo,
}

/// FP8 codes with an f32 scale for each block. x ≈ code · scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fp8Blocks {
    element: Format,
    shape: BlockShape,
    scale: F32Scale,
}

impl Fp8Blocks {
    /// The form with these elements: e4m3, e5m2, e4m3fnuz or e5m2fnuz.
    ///
    /// # Errors
    /// If the element format has not 8 bits, or a block has no elements.
    pub fn new(element: Format, shape: BlockShape, scale: F32Scale) -> Result<Fp8Blocks, BlockError> {
        if shape.rows == 0 || shape.columns == 0 {
            return Err(BlockError::Empty { rows: shape.rows, columns: shape.columns });
        }
        match element.bits() {
            8 => Ok(Fp8Blocks { element, shape, scale }),
            _ => Err(BlockError::Element { form: "FP8", element, choices: "e4m3, e5m2, e4m3fnuz, e5m2fnuz" }),
        }
    }

    /// Format of the elements.
    pub fn element(self) -> Format {
        self.element
    }

    /// Rows and columns that share a scale.
    pub fn shape(self) -> BlockShape {
        self.shape
    }

    /// Number of scales of a matrix of `values` elements in rows of `row_length`: ⌈rows / block
    /// rows⌉ times ⌈row length / block columns⌉, row by row.
    ///
    /// # Errors
    /// If the values do not fill whole rows.
    pub fn scales(self, values: usize, row_length: usize) -> Result<usize, BlockError> {
        let rows = rows(values, row_length)?;
        Ok(rows.div_ceil(self.shape.rows) * row_length.div_ceil(self.shape.columns))
    }

    /// The scale of a block whose largest magnitude is `amax`: at least 2^−126; 1 for 0; NaN where
    /// amax is not finite.
    #[inline(always)]
    pub fn scale(self, amax: f32) -> f32 {
        if !amax.is_finite() {
            return f32::NAN;
        }
        if amax == 0.0 {
            return 1.0;
        }
        let scale = match self.scale {
            F32Scale::Any => amax / self.element.info().max_finite as f32,
            F32Scale::PowerOfTwo => {
                E8m0::from_exponent(scale_exponent(ScaleRule::NoOverflow, self.element, amax)).value()
            }
        };
        scale.max(f32::MIN_POSITIVE)
    }

    /// Codes and scales of a matrix. An element is x/scale, divided in f32, rounded. `rounding`
    /// counts elements from the first value.
    ///
    /// # Errors
    /// If `values` are not whole rows, or `codes` or `scales` have not the right length.
    #[inline(always)]
    pub fn quantise(
        self,
        rounding: SliceRounding,
        values: &[f32],
        row_length: usize,
        codes: &mut [u8],
        scales: &mut [f32],
    ) -> Result<(), BlockError> {
        check("scales", self.scales(values.len(), row_length)?, scales.len())?;
        check("codes", values.len(), codes.len())?;
        let BlockShape { rows, columns } = self.shape;
        let (row_length, per_row) = (row_length.max(1), row_length.div_ceil(columns));
        let bands = values.chunks(rows.saturating_mul(row_length));
        with_narrow!(self.element, F => {
            for (band, values) in bands.enumerate() {
                let scales = &mut scales[band * per_row..][..per_row];
                // Largest magnitudes first, as bits, where NaN is the largest.
                scales.fill(0.0);
                for row in values.chunks(row_length) {
                    for (amax, block) in scales.iter_mut().zip(row.chunks(columns)) {
                        *amax = f32::from_bits(amax.to_bits().max(amax_bits(block)));
                    }
                }
                for scale in scales.iter_mut() {
                    *scale = self.scale(*scale);
                }
                for (r, row) in values.chunks(row_length).enumerate() {
                    let at = (band * rows + r) * row_length;
                    let codes = &mut codes[at..at + row_length];
                    for (i, (x, codes)) in row.chunks(columns).zip(codes.chunks_mut(columns)).enumerate() {
                        let scale = scales[i];
                        if scale.is_nan() {
                            codes.fill(0);
                        } else {
                            round_scaled::<F>(rounding.from(at + i * columns), x, |x| x / scale, codes);
                        }
                    }
                }
            }
        }, f32 => unreachable!("`new` refuses f32"));
        Ok(())
    }

    /// Values of codes and scales: code · scale, rounded to f32.
    ///
    /// # Errors
    /// If `codes` are not whole rows, or `scales` or `values` have not the right length.
    #[inline(always)]
    pub fn dequantise(
        self,
        codes: &[u8],
        row_length: usize,
        scales: &[f32],
        values: &mut [f32],
    ) -> Result<(), BlockError> {
        check("scales", self.scales(codes.len(), row_length)?, scales.len())?;
        check("values", codes.len(), values.len())?;
        let BlockShape { rows, columns } = self.shape;
        let (row_length, per_row) = (row_length.max(1), row_length.div_ceil(columns));
        with_narrow!(self.element, F => {
            let matrix = codes.chunks(row_length).zip(values.chunks_mut(row_length)).enumerate();
            for (r, (codes, values)) in matrix {
                let scales = &scales[r / rows * per_row..][..per_row];
                for ((codes, values), &scale) in codes.chunks(columns).zip(values.chunks_mut(columns)).zip(scales) {
                    for (x, &code) in values.iter_mut().zip(codes) {
                        *x = value::<F>(code.into()) * scale;
                    }
                }
            }
        }, f32 => unreachable!("`new` refuses f32"));
        Ok(())
    }
}
