//! Conversions between f32 and every narrower format, in 32-bit arithmetic without branches, so
//! that loops over them vectorise. Same results as the reference [`crate::encode`] and
//! [`crate::decode`], bit for bit.

use crate::code::Overflow;
use crate::draws::Draws;
use crate::format::{Format, FormatInfo};

/// A format as a type, so that its constants are known where loops are compiled.
pub(crate) trait Narrow {
    const FORMAT: Format;
    const INFO: FormatInfo = Self::FORMAT.info();
    /// Bits of an f32 mantissa that the format has no room for.
    const DROPPED: u32 = 23 - Self::INFO.mantissa_bits;
    /// f32 exponent field of the smallest normal value.
    const MIN_FIELD: u32 = (128 - Self::INFO.bias) as u32;
    const MAX: u32 = Self::FORMAT.max_finite_code();
    const SIGN: u32 = Self::FORMAT.sign_bit();
    /// Codes of a positive value out of range and of a positive NaN, and which bits a negative one
    /// flips in them.
    const OVER: u32 = Self::FORMAT.overflow_code(0);
    const OVER_FLIP: u32 = Self::OVER ^ Self::FORMAT.overflow_code(Self::SIGN);
    const NAN: u32 = Self::FORMAT.nan_code(0);
    const NAN_FLIP: u32 = Self::NAN ^ Self::FORMAT.nan_code(Self::SIGN);
}

macro_rules! narrow {
    ($($name:ident),*) => {
        $(pub(crate) struct $name;
        impl Narrow for $name {
            const FORMAT: Format = Format::$name;
        })*

        /// The body with `$f` as the type of `format`. f32 itself is not narrower and is handled by
        /// callers.
        macro_rules! with_narrow {
            ($format:expr, $f:ident => $body:expr, f32 => $wide:expr) => {
                match $format {
                    Format::F32 => $wide,
                    $(Format::$name => { type $f = $crate::convert::$name; $body })*
                }
            };
        }
    };
}
narrow!(F16, Bf16, E4m3, E5m2, E4m3fnuz, E5m2fnuz, E3m2, E2m3, E2m1);

const INFINITY: u32 = 0x7f80_0000;

/// The code of `x`, rounded to nearest even.
#[inline(always)]
pub(crate) fn nearest<F: Narrow>(x: f32, overflow: Overflow) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: rebias the exponent and round at the last bit kept; a carry runs into the
    // exponent.
    let odd = (magnitude >> F::DROPPED) & 1;
    let half = (1 << (F::DROPPED - 1)) - 1;
    let rebias = (F::MIN_FIELD - 1) << 23;
    let normal = magnitude.wrapping_sub(rebias).wrapping_add(half + odd) >> F::DROPPED;
    // Subnormal results: a sum with a number whose ulp is the format's smallest step rounds for us,
    // to even as well. bf16 has the subnormals of f32, cut; there `normal` is right throughout.
    let code = if F::MIN_FIELD == 1 {
        normal
    } else {
        let anchor = (F::MIN_FIELD + F::DROPPED) << 23;
        let subnormal = (f32::from_bits(magnitude) + f32::from_bits(anchor)).to_bits().wrapping_sub(anchor);
        if magnitude < F::MIN_FIELD << 23 { subnormal } else { normal }
    };
    finish::<F>(bits, code, overflow)
}

/// The code of `x`, rounded away from zero with a probability equal to the dropped fraction: where
/// `random`, uniform in 0 ..= 2^32 − 1, is below the fraction's first 32 bits.
#[inline(always)]
pub(crate) fn stochastic<F: Narrow>(x: f32, random: u32, overflow: Overflow) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let field = magnitude >> 23;
    let implicit = u32::from(field > 0) << 23;
    let field = field.max(1);
    let significand = (magnitude & 0x7f_ffff) | implicit;
    let base = field.max(F::MIN_FIELD);
    let shift = base - field + F::DROPPED;
    // The significand in units of the result's last place: the whole part, and 32 bits behind the
    // point.
    let whole = significand.unbounded_shr(shift);
    let fraction = significand.unbounded_shl(32u32.wrapping_sub(shift))
        | significand.unbounded_shr(shift.wrapping_sub(32));
    let kept = whole + u32::from(random < fraction);
    let code = ((base - F::MIN_FIELD) << F::INFO.mantissa_bits) + kept;
    finish::<F>(bits, code, overflow)
}

/// The code from its magnitude, as if the exponent field had no upper end.
#[inline(always)]
fn finish<F: Narrow>(bits: u32, code: u32, overflow: Overflow) -> u32 {
    let sign = (bits >> (32 - F::INFO.bits)) & F::SIGN;
    let is_nan = bits & 0x7fff_ffff > INFINITY;
    let finite = sign | if code < F::MAX { code } else { F::MAX };
    let finite = if !F::INFO.has_negative_zero && code == 0 { 0 } else { finite };
    let over = F::OVER ^ (sign & F::OVER_FLIP);
    let ranged = if matches!(overflow, Overflow::NonFinite) && code > F::MAX { over } else { finite };
    if is_nan { F::NAN ^ (sign & F::NAN_FLIP) } else { ranged }
}

/// The value of a code; exact.
#[inline(always)]
pub(crate) const fn value<F: Narrow>(code: u32) -> f32 {
    let sign = (code & F::SIGN) << (32 - F::INFO.bits);
    let magnitude = code & (F::SIGN - 1);
    let shifted = magnitude << F::DROPPED;
    let normal = shifted + ((F::MIN_FIELD - 1) << 23);
    // Subnormals: put the mantissa below an implicit one and take that one away; no f32 subnormal
    // appears, save in bf16, where the shift is all there is to do.
    let finite = if F::MIN_FIELD == 1 {
        shifted
    } else {
        let one = F::MIN_FIELD << 23;
        let subnormal = (f32::from_bits(shifted + one) - f32::from_bits(one)).to_bits();
        if magnitude >> F::INFO.mantissa_bits == 0 { subnormal } else { normal }
    };
    let beyond = if F::INFO.has_inf && magnitude == F::MAX + 1 { INFINITY } else { 0x7fc0_0000 };
    let no_zero = !F::INFO.has_negative_zero && code & (2 * F::SIGN - 1) == F::SIGN;
    f32::from_bits(sign | if magnitude > F::MAX || no_zero { beyond } else { finite })
}

/// The bf16 code of each code's value.
const fn as_bf16<F: Narrow>() -> [u16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = (value::<F>(code as u32).to_bits() >> 16) as u16;
        code += 1;
    }
    table
}

/// The bf16 code of the value of each e4m3 code; exact.
static E4M3_AS_BF16: [u16; 256] = as_bf16::<E4m3>();
/// The bf16 code of the value of each e5m2 code; exact.
static E5M2_AS_BF16: [u16; 256] = as_bf16::<E5m2>();

/// The value of an e4m3 code; exact.
#[inline(always)]
pub fn f32_from_e4m3(code: u8) -> f32 {
    f32::from_bits(u32::from(E4M3_AS_BF16[usize::from(code)]) << 16)
}

/// The value of an e5m2 code; exact.
#[inline(always)]
pub fn f32_from_e5m2(code: u8) -> f32 {
    f32::from_bits(u32::from(E5M2_AS_BF16[usize::from(code)]) << 16)
}

/// The e4m3 code of `x`, to nearest even; NaN for what is beyond ±448.
#[inline(always)]
pub fn e4m3_from_f32(x: f32) -> u8 {
    nearest::<E4m3>(x, Overflow::NonFinite) as u8
}

/// The e5m2 code of `x`, to nearest even; an infinity for what is beyond ±57344.
#[inline(always)]
pub fn e5m2_from_f32(x: f32) -> u8 {
    nearest::<E5m2>(x, Overflow::NonFinite) as u8
}

/// How the elements of a slice are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SliceRounding {
    /// To the nearest, ties to even.
    NearestEven,
    /// Stochastically. `first` is the number of the slice's first element in its tensor.
    Stochastic {
        /// What the random numbers are drawn from.
        draws: Draws,
        /// Number of the first element.
        first: u64,
    },
}

impl SliceRounding {
    /// The same for the elements from `offset` on.
    #[inline(always)]
    #[must_use]
    pub fn from(self, offset: usize) -> SliceRounding {
        match self {
            SliceRounding::NearestEven => self,
            SliceRounding::Stochastic { draws, first } => {
                SliceRounding::Stochastic { draws, first: first + offset as u64 }
            }
        }
    }
}

/// Elements whose random words are drawn at once.
const DRAWN: usize = 256;

/// Calls `put(i, random word)` for each of `length` elements.
#[inline(always)]
fn for_each_draw(draws: Draws, first: u64, length: usize, mut put: impl FnMut(usize, &[u32])) {
    let mut words = [0; DRAWN];
    let mut at = 0;
    while at < length {
        let part = &mut words[..DRAWN.min(length - at)];
        draws.fill(first + at as u64, part);
        put(at, part);
        at += DRAWN;
    }
}

macro_rules! to_codes {
    ($(#[$doc:meta])* $name:ident, $code:ty, $widths:literal, $formats:pat) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// If the slices differ in length or the format in width.
        #[inline(always)]
        pub fn $name(format: Format, rounding: SliceRounding, overflow: Overflow, from: &[f32], to: &mut [$code]) {
            assert_eq!(from.len(), to.len(), "source and destination differ in length");
            assert!(matches!(format, $formats), concat!("{} has not ", $widths, " bits"), format);
            with_narrow!(format, F => {
                match (rounding, overflow) {
                    (SliceRounding::NearestEven, Overflow::NonFinite) => {
                        for (to, &x) in to.iter_mut().zip(from) {
                            *to = nearest::<F>(x, Overflow::NonFinite) as $code;
                        }
                    }
                    (SliceRounding::NearestEven, Overflow::Saturate) => {
                        for (to, &x) in to.iter_mut().zip(from) {
                            *to = nearest::<F>(x, Overflow::Saturate) as $code;
                        }
                    }
                    (SliceRounding::Stochastic { draws, first }, overflow) => {
                        for_each_draw(draws, first, from.len(), |at, words| {
                            let (from, to) = (&from[at..][..words.len()], &mut to[at..][..words.len()]);
                            for ((to, &x), &word) in to.iter_mut().zip(from).zip(words) {
                                *to = stochastic::<F>(x, word, overflow) as $code;
                            }
                        });
                    }
                }
            }, f32 => ());
        }
    };
}

to_codes!(
    /// Converts each element to a format of 8, 6 or 4 bits, one code to a byte.
    f32_to_codes8, u8, "8 or fewer",
    Format::E4m3 | Format::E5m2 | Format::E4m3fnuz | Format::E5m2fnuz | Format::E3m2 | Format::E2m3 | Format::E2m1
);
to_codes!(
    /// Converts each element to f16 or bf16. NaN becomes the canonical one, where
    /// [`crate::f32_to_bf16`] and [`crate::f32_to_f16`] keep its payload, as processors do.
    f32_to_codes16, u16, "16", Format::F16 | Format::Bf16
);

/// The value of each code of a format of 8, 6 or 4 bits, one code to a byte; exact.
///
/// # Panics
/// If the slices differ in length or the format has more than 8 bits.
#[inline(always)]
pub fn codes8_to_f32(format: Format, from: &[u8], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "source and destination differ in length");
    assert!(format.bits() <= 8, "{format} has more than 8 bits");
    with_narrow!(format, F => {
        for (to, &code) in to.iter_mut().zip(from) {
            *to = value::<F>(code.into());
        }
    }, f32 => ());
}

/// The bf16 code of the value of each code of a format of 8, 6 or 4 bits, one code to a byte.
/// Exact: bf16 holds every value of them.
///
/// # Panics
/// If the slices differ in length or the format has more than 8 bits.
#[inline(always)]
pub fn codes8_to_bf16(format: Format, from: &[u8], to: &mut [u16]) {
    assert_eq!(from.len(), to.len(), "source and destination differ in length");
    assert!(format.bits() <= 8, "{format} has more than 8 bits");
    with_narrow!(format, F => {
        for (to, &code) in to.iter_mut().zip(from) {
            *to = (value::<F>(code.into()).to_bits() >> 16) as u16;
        }
    }, f32 => ());
}

/// The value of each element rounded to `format`, in place of it. f32 itself changes nothing.
///
/// # Panics
/// If the slices differ in length.
#[inline(always)]
pub fn round_f32(format: Format, rounding: SliceRounding, overflow: Overflow, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "source and destination differ in length");
    with_narrow!(format, F => match rounding {
        SliceRounding::NearestEven => {
            for (to, &x) in to.iter_mut().zip(from) {
                *to = value::<F>(nearest::<F>(x, overflow));
            }
        }
        SliceRounding::Stochastic { draws, first } => {
            for_each_draw(draws, first, from.len(), |at, words| {
                let (from, to) = (&from[at..][..words.len()], &mut to[at..][..words.len()]);
                for ((to, &x), &word) in to.iter_mut().zip(from).zip(words) {
                    *to = value::<F>(stochastic::<F>(x, word, overflow));
                }
            });
        }
    }, f32 => to.copy_from_slice(from));
}

/// Packs 4-bit codes two to a byte, the first in the low half, as OCP MX, PyTorch's
/// `float4_e2m1fn_x2` and safetensors have them. A last code without a neighbour gets 0 beside it.
///
/// # Panics
/// If `to` has not ⌈codes / 2⌉ bytes.
#[inline(always)]
pub fn pack4(codes: &[u8], to: &mut [u8]) {
    assert_eq!(codes.len().div_ceil(2), to.len(), "two codes to a byte");
    for (to, pair) in to.iter_mut().zip(codes.chunks(2)) {
        *to = (pair[0] & 15) | pair.get(1).map_or(0, |high| high << 4);
    }
}

/// The inverse of [`pack4`].
///
/// # Panics
/// If `from` has not ⌈codes / 2⌉ bytes.
#[inline(always)]
pub fn unpack4(from: &[u8], codes: &mut [u8]) {
    assert_eq!(codes.len().div_ceil(2), from.len(), "two codes to a byte");
    for (pair, &byte) in codes.chunks_mut(2).zip(from) {
        pair[0] = byte & 15;
        if let Some(high) = pair.get_mut(1) {
            *high = byte >> 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Rounding, decode, encode};
    use proptest::prelude::*;

    fn narrow_formats() -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(|&f| f != Format::F32)
    }

    fn fast(format: Format, x: f32, random: Option<u32>, overflow: Overflow) -> u32 {
        with_narrow!(format, F => match random {
            None => nearest::<F>(x, overflow),
            Some(r) => stochastic::<F>(x, r, overflow),
        }, f32 => unreachable!())
    }

    fn check(x: f32, random: u32) {
        for format in narrow_formats() {
            for overflow in [Overflow::NonFinite, Overflow::Saturate] {
                let expected = encode(format, x.into(), Rounding::NearestEven, overflow);
                assert_eq!(fast(format, x, None, overflow), expected, "{x:e} {:#x} in {format}", x.to_bits());
                let expected = encode(format, x.into(), Rounding::Stochastic(random), overflow);
                assert_eq!(
                    fast(format, x, Some(random), overflow),
                    expected,
                    "{x:e} {random:#x} in {format}"
                );
            }
        }
    }

    #[test]
    fn every_code_decodes_as_the_reference_does() {
        for format in narrow_formats() {
            for code in 0..1u32 << format.bits() {
                let expected = decode(format, code) as f32;
                let got = with_narrow!(format, F => value::<F>(code), f32 => unreachable!());
                assert_eq!(got.to_bits(), expected.to_bits(), "{format} {code:#x}: {got:e} {expected:e}");
            }
        }
    }

    /// All exponents, mantissas with few bits, their f32 neighbours, and random words around each
    /// dropped fraction.
    #[test]
    fn ties_and_edges_agree_with_the_reference() {
        for field in 0..=255u32 {
            for top in 0..32u32 {
                let bits = field << 23 | top << 18;
                for x in [bits, bits.wrapping_sub(1), bits + 1] {
                    for random in [0, 1, u32::MAX, x << 12, (x << 12).wrapping_sub(1)] {
                        check(f32::from_bits(x), random);
                        check(-f32::from_bits(x), random);
                    }
                }
            }
        }
    }

    #[test]
    fn four_bit_codes_pack_and_unpack() {
        for n in 0..9u8 {
            let codes: Vec<u8> = (0..n).map(|i| (i * 7 + 3) % 16).collect();
            let mut packed = vec![0; codes.len().div_ceil(2)];
            pack4(&codes, &mut packed);
            let mut back = vec![0; codes.len()];
            unpack4(&packed, &mut back);
            assert_eq!(back, codes);
        }
        let mut packed = [0; 2];
        pack4(&[1, 2, 3], &mut packed);
        assert_eq!(packed, [0x21, 0x03]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50_000))]
        #[test]
        fn any_f32_agrees_with_the_reference(bits: u32, random: u32) {
            check(f32::from_bits(bits), random);
            // The same significand where 8-bit formats have their values.
            check(f32::from_bits((bits & 0x807f_ffff) | ((100 + (random >> 8) % 48) << 23)), random);
        }
    }

    proptest! {
        #[test]
        fn slices_are_their_elements(bits in proptest::collection::vec(any::<u32>(), 0..700), first in 0u64..9) {
            let x: Vec<f32> = bits.into_iter().map(|b| f32::from_bits(b & 0xc7ff_ffff)).collect();
            let draws = Draws { seed: 5, attempt: 1, op: 2 };
            for format in narrow_formats() {
                let overflow = Overflow::Saturate;
                for rounding in [SliceRounding::NearestEven, SliceRounding::Stochastic { draws, first }] {
                    let expected: Vec<u32> = x.iter().enumerate().map(|(i, &x)| {
                        let of_element = match rounding {
                            SliceRounding::NearestEven => Rounding::NearestEven,
                            SliceRounding::Stochastic { draws, first } => {
                                Rounding::Stochastic(draws.word(first + i as u64))
                            }
                        };
                        encode(format, x.into(), of_element, overflow)
                    }).collect();
                    let got: Vec<u32> = if format.bits() == 16 {
                        let mut codes = vec![0; x.len()];
                        f32_to_codes16(format, rounding, overflow, &x, &mut codes);
                        codes.into_iter().map(u32::from).collect()
                    } else {
                        let mut codes = vec![0; x.len()];
                        f32_to_codes8(format, rounding, overflow, &x, &mut codes);
                        let (mut wide, mut half) = (vec![0.0; x.len()], vec![0; x.len()]);
                        codes8_to_f32(format, &codes, &mut wide);
                        codes8_to_bf16(format, &codes, &mut half);
                        for (&wide, &half) in wide.iter().zip(&half) {
                            prop_assert_eq!(wide.to_bits(), u32::from(half) << 16);
                        }
                        codes.into_iter().map(u32::from).collect()
                    };
                    prop_assert_eq!(&got, &expected);
                    let mut rounded = vec![0.0; x.len()];
                    round_f32(format, rounding, overflow, &x, &mut rounded);
                    for (&r, &code) in rounded.iter().zip(&expected) {
                        prop_assert_eq!(r.to_bits(), (decode(format, code) as f32).to_bits());
                    }
                }
            }
        }
    }
}
