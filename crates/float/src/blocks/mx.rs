//! OCP Microscaling formats (MX) v1.0.

use serde::{Deserialize, Serialize};

use super::{BlockError, amax, check, round_scaled, row_scales, scale_exponent};
use crate::convert::{Narrow, SliceRounding, value};
use crate::format::Format;
use crate::scale::E8m0;

/// How the scale of a block comes from its largest magnitude, amax. emax is ⌊log2⌋ of the element
/// format's largest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleRule {
    /// 2^(⌊log2 amax⌋ − emax): OCP MX v1.0, section 6.3. amax/scale is at least 2^emax and below
    /// 2^(emax + 1), which is beyond the largest code: amax may lose up to 1/8 of itself in e4m3,
    /// e5m2 and e3m2 and 1/4 in e2m1 to saturation.
    #[default]
    Floor,
    /// The same after rounding amax to the element's mantissa, half up: what would round up to the
    /// next power of two gets the next scale. (torchao and AMD Quark call it "even".)
    Even,
    /// The smallest power of two by which amax does not overflow: 2^⌈log2(amax / largest value)⌉.
    /// Nothing saturates. (NVIDIA's recipe, arXiv 2506.08027; torchao calls it "rceil".)
    NoOverflow,
}

/// An MX form: 32 elements of a row share an e8m0 scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mx {
    element: Format,
    rule: ScaleRule,
}

impl Mx {
    /// Elements that share a scale.
    pub const BLOCK: usize = 32;

    /// The form with these elements: e4m3 or e5m2 (MXFP8), e3m2 or e2m3 (MXFP6), e2m1 (MXFP4).
    ///
    /// # Errors
    /// If MX has no such elements.
    pub fn new(element: Format, rule: ScaleRule) -> Result<Mx, BlockError> {
        match element {
            Format::E4m3 | Format::E5m2 | Format::E3m2 | Format::E2m3 | Format::E2m1 => {
                Ok(Mx { element, rule })
            }
            Format::F32 | Format::F16 | Format::Bf16 | Format::E4m3fnuz | Format::E5m2fnuz => {
                Err(BlockError::Element { form: "MX", element, choices: "e4m3, e5m2, e3m2, e2m3, e2m1" })
            }
        }
    }

    /// Format of the elements.
    pub fn element(self) -> Format {
        self.element
    }

    /// Number of scales of a matrix of `values` elements in rows of `row_length`.
    ///
    /// # Errors
    /// If the values do not fill whole rows.
    pub fn scales(self, values: usize, row_length: usize) -> Result<usize, BlockError> {
        row_scales(values, row_length, Mx::BLOCK)
    }

    /// The scale of a block whose largest magnitude is `amax`. 2^−127 for 0; NaN where amax is not
    /// finite.
    #[inline(always)]
    pub fn scale(self, amax: f32) -> E8m0 {
        if !amax.is_finite() {
            return E8m0::NAN;
        }
        if amax == 0.0 {
            return E8m0(0);
        }
        E8m0::from_exponent(scale_exponent(self.rule, self.element, amax))
    }

    /// Codes and scales of a matrix: each element is x/scale (exact, the scale being a power of
    /// two) rounded once. `rounding` counts elements from the first value.
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
        scales: &mut [E8m0],
    ) -> Result<(), BlockError> {
        check("scales", self.scales(values.len(), row_length)?, scales.len())?;
        check("codes", values.len(), codes.len())?;
        with_narrow!(self.element, F => {
            let blocks = values.chunks(row_length.max(1)).flat_map(|row| row.chunks(Mx::BLOCK));
            let mut at = 0;
            for (x, scale) in blocks.zip(scales) {
                let codes = &mut codes[at..at + x.len()];
                *scale = amax(x).map_or(E8m0::NAN, |amax| self.scale(amax));
                if *scale == E8m0::NAN {
                    codes.fill(0);
                } else {
                    let factor = scale.reciprocal();
                    round_scaled::<F>(rounding.from(at), x, |x| x * factor, codes);
                }
                at += x.len();
            }
        }, f32 => unreachable!("`new` refuses f32"));
        Ok(())
    }

    /// Values of codes and scales; exact for what [`Mx::quantise`] made.
    ///
    /// # Errors
    /// If `codes` are not whole rows, or `scales` or `values` have not the right length.
    #[inline(always)]
    pub fn dequantise(
        self,
        codes: &[u8],
        row_length: usize,
        scales: &[E8m0],
        values: &mut [f32],
    ) -> Result<(), BlockError> {
        check("scales", self.scales(codes.len(), row_length)?, scales.len())?;
        check("values", codes.len(), values.len())?;
        with_narrow!(self.element, F => {
            let rows = codes.chunks(row_length.max(1)).zip(values.chunks_mut(row_length.max(1)));
            let blocks = rows.flat_map(|(c, v)| c.chunks(Mx::BLOCK).zip(v.chunks_mut(Mx::BLOCK)));
            for ((codes, values), scale) in blocks.zip(scales) {
                dequantise_block::<F>(codes, scale.value(), values);
            }
        }, f32 => unreachable!("`new` refuses f32"));
        Ok(())
    }
}

#[inline(always)]
pub(super) fn dequantise_block<F: Narrow>(codes: &[u8], scale: f32, values: &mut [f32]) {
    for (x, &code) in values.iter_mut().zip(codes) {
        *x = value::<F>(code.into()) * scale;
    }
}
