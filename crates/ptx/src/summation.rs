//! How a Tensor Core adds: Σ aᵢ·bᵢ + c under two models.
//!
//! NVIDIA does not specify it. `Summation::Exact` is the best that hardware could do.
//! `Summation::Truncated` is what was measured on hardware: the products, unrounded, and the
//! accumulator are aligned to the greatest exponent among them, each is truncated to a number of
//! fraction bits, and the integer sum is rounded once. Where an instruction is made of several, the
//! accumulator may be added to the sum of the products instead. A kernel whose results hold under
//! both does not lean on either.

use crate::formats::{Conversion, Format, Parts, Rounding, power_of_two};

/// A model of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summation {
    /// The exact sum, rounded once to the nearest, ties to even.
    Exact,
    /// Aligned and truncated, as measured on the architecture that runs.
    Truncated,
}

/// The parameters of `Summation::Truncated` for one instruction on one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Bits kept below the greatest exponent among products and accumulator.
    pub fraction_bits: u32,
    /// Products that are added at once; longer sums take several steps, each with its own rounding.
    pub products: usize,
    /// Mantissa bits of the result that are not zero: 13 where fp8 is added in short registers,
    /// else those of the accumulator's format.
    pub result_bits: u32,
    /// When the accumulator is added.
    pub accumulator: AccumulatorAdded,
}

/// When the accumulator of a product is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccumulatorAdded {
    /// With the first products.
    WithProducts,
    /// To the sum of all products, by an addition that rounds to nearest even.
    AfterProducts,
}

/// An operand of a product, taken apart: significand · 2^(exponent − mantissa bits of its format).
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    significand: i32,
    exponent: i32,
}

/// The exponent of a zero: far below every other, so that its products are as well.
const NOUGHT: i32 = -(1 << 14);
/// The exponents of an infinity, whose significand has its sign, and of a NaN.
const INFINITE: i32 = 1 << 20;
const NOT_A_NUMBER: i32 = 1 << 21;

impl Factor {
    /// The factors with these codes.
    pub fn all(format: Format, codes: &[u32]) -> Vec<Self> {
        // A format that is known when this is compiled is taken apart much faster.
        macro_rules! of {
            ($($format:ident)*) => {
                match format {
                    $(Format::$format => codes.iter().map(|&code| Self::new(Format::$format, code)).collect(),)*
                }
            };
        }
        of!(F32 Tf32 F16 Bf16 E4m3 E5m2 E3m2 E2m3 E2m1)
    }

    /// The factor with this code.
    #[inline(always)]
    pub fn new(format: Format, code: u32) -> Self {
        match format.parts(code) {
            Parts::Finite { significand: 0, .. } => Self { significand: 0, exponent: NOUGHT },
            Parts::Finite { significand, exponent } => Self { significand, exponent },
            Parts::Infinite { negative } => {
                Self { significand: if negative { -1 } else { 1 }, exponent: INFINITE }
            }
            Parts::Nan => Self { significand: 0, exponent: NOT_A_NUMBER },
        }
    }

    /// The value of a finite factor of a format, and the exponents of its lowest bit and of 1 bit
    /// above its highest; none for zero.
    pub fn value(self, format: Format) -> (f64, Option<(i32, i32)>) {
        let unit = self.exponent - format.mantissa_bits() as i32;
        match self.significand {
            0 => (0.0, None),
            significand => (f64::from(significand) * power_of_two(unit), Some((unit, self.exponent + 1))),
        }
    }

    /// Whether it is finite.
    pub fn is_finite(self) -> bool {
        self.exponent < INFINITE
    }

    fn parts(self) -> Parts {
        match self.exponent {
            NOT_A_NUMBER => Parts::Nan,
            INFINITE => Parts::Infinite { negative: self.significand < 0 },
            exponent => Parts::Finite { significand: self.significand, exponent },
        }
    }
}

/// The exponent that zero takes part with: it never raises the greatest one above that of the
/// smallest `f32`.
const ZERO_EXPONENT: i32 = -126;
const F32_MANTISSA: i32 = 23;
/// Bits of an `i128` that exponents may span, with room for a significand and for the carries of
/// 2^6 terms.
const SPAN: i32 = 127 - 24 - 6;

/// A finite term: significand · 2^(exponent − fraction).
#[derive(Clone, Copy)]
struct Term {
    significand: i64,
    exponent: i32,
    fraction: i32,
}

/// What the operands amount to before anything is added.
enum Terms {
    Finite,
    Infinite { negative: bool },
    Nan,
}

/// Adds the products of operands of two formats to an accumulator.
pub struct Adder {
    model: Summation,
    alignment: Alignment,
    fraction: i32,
    accumulator: Format,
    terms: Vec<Term>,
}

impl Adder {
    /// An adder for operands of formats `a` and `b` and an accumulator of format `accumulator`.
    pub fn new(model: Summation, alignment: Alignment, [a, b, accumulator]: [Format; 3]) -> Self {
        let fraction = (a.mantissa_bits() + b.mantissa_bits()) as i32;
        Self { model, alignment, fraction, accumulator, terms: Vec::new() }
    }

    /// As [`Adder::sum`] for finite factors, faster.
    pub fn sum_finite(&mut self, a: &[Factor], b: &[Factor], c: u32) -> u32 {
        match self.model {
            Summation::Exact => self.quick_exact(a, b, c).unwrap_or_else(|| self.step(a, b, c)),
            Summation::Truncated => {
                let step = |adder: &mut Self, a: &[Factor], b: &[Factor], c| {
                    adder.quick_truncated(a, b, c).unwrap_or_else(|| adder.step(a, b, c))
                };
                self.steps(a, b, c, step)
            }
        }
    }

    /// The truncated model, with what adds a part of the products to what was added before.
    fn steps(
        &mut self,
        a: &[Factor],
        b: &[Factor],
        c: u32,
        step: impl Fn(&mut Self, &[Factor], &[Factor], u32) -> u32,
    ) -> u32 {
        let n = self.alignment.products;
        let after = self.alignment.accumulator == AccumulatorAdded::AfterProducts;
        let first = if after { 0 } else { c };
        let sum = a.chunks(n).zip(b.chunks(n)).fold(first, |sum, (a, b)| step(self, a, b, sum));
        if after { self.added(sum, c) } else { sum }
    }

    /// The sum of two codes of the accumulator's format. It is rounded to f64 first, whose 53 bits
    /// are enough for that to change nothing.
    fn added(&self, a: u32, b: u32) -> u32 {
        let value = |code| f64::from(self.accumulator.decode(code));
        self.accumulator.encode(value(a) + value(b), Conversion::rounded(Rounding::NearestEven))
    }

    fn accumulator_parts(&self, c: u32) -> Parts {
        // As of `Factor::all`.
        if self.accumulator == Format::F32 { Format::F32.parts(c) } else { Format::F16.parts(c) }
    }

    /// A step of the truncated model in words of 32 and 64 bits, unless it needs more.
    fn quick_truncated(&self, a: &[Factor], b: &[Factor], c: u32) -> Option<u32> {
        let Parts::Finite { significand, exponent } = self.accumulator_parts(c) else { return None };
        let kept = self.alignment.fraction_bits as i32;
        let pairs = || a.iter().zip(b);
        let top = pairs().map(|(a, b)| a.exponent + b.exponent).fold(ZERO_EXPONENT, i32::max);
        let top = if significand == 0 { top } else { top.max(exponent) };
        // A product has at most 22 bits, and 27 after this shift.
        let raise = kept - self.fraction;
        let mut sum = 0i64;
        for (a, b) in pairs() {
            let product = a.significand * b.significand;
            let lower = (top - a.exponent - b.exponent).min(31);
            let magnitude = ((product.unsigned_abs() << raise) >> lower) as i32;
            sum += i64::from(if product < 0 { -magnitude } else { magnitude });
        }
        let fraction = self.accumulator.mantissa_bits() as i32;
        let term = Term { significand: i64::from(significand), exponent, fraction };
        sum += term.truncated(kept + exponent - top - fraction);
        if self.accumulator != Format::F32 {
            let nearest = Conversion::rounded(Rounding::NearestEven);
            return Some(self.accumulator.round(
                sum < 0,
                u128::from(sum.unsigned_abs()),
                top - kept,
                nearest,
            ));
        }
        // Exact: the sum has fewer than 53 bits.
        let bits = (sum as f64 * power_of_two(top - kept)).to_bits();
        let normal = (1023 - 126..=1023 + 127).contains(&(bits >> 52 & 0x7ff));
        let truncated = f64::from_bits(bits & !((1 << (52 - self.alignment.result_bits)) - 1));
        if sum == 0 { Some(0) } else { normal.then_some((truncated as f32).to_bits()) }
    }

    /// The exact model in words of 64 bits, unless it needs more.
    fn quick_exact(&self, a: &[Factor], b: &[Factor], c: u32) -> Option<u32> {
        let Parts::Finite { significand, exponent } = self.accumulator_parts(c) else { return None };
        let unit = exponent - self.accumulator.mantissa_bits() as i32;
        let (mut low, mut high) = if significand == 0 { (i32::MAX, i32::MIN) } else { (unit, unit) };
        let units = || a.iter().zip(b).map(|(a, b)| a.exponent + b.exponent - self.fraction);
        for unit in units() {
            high = high.max(unit);
            low = low.min(if unit < NOUGHT / 2 { i32::MAX } else { unit });
        }
        // With 24 bits of a term, and 6 for carries, 62 bits.
        if low == i32::MAX || high - low > 32 || self.accumulator != Format::F32 {
            return None;
        }
        let mut sum = if significand == 0 { 0 } else { i64::from(significand) << (unit - low) };
        for ((a, b), unit) in a.iter().zip(b).zip(units()) {
            // The shift of a zero has no meaning, and no effect.
            sum += i64::from(a.significand * b.significand).wrapping_shl((unit - low) as u32);
        }
        let exact = sum.unsigned_abs() < 1 << 53;
        exact.then(|| ((sum as f64 * power_of_two(low)) as f32).to_bits())
    }

    /// The code of Σ `a`ᵢ·`b`ᵢ + c, where c has the code `c`.
    pub fn sum(&mut self, a: &[Factor], b: &[Factor], c: u32) -> u32 {
        match self.model {
            Summation::Exact => self.step(a, b, c),
            Summation::Truncated => self.steps(a, b, c, Self::step),
        }
    }

    fn step(&mut self, a: &[Factor], b: &[Factor], c: u32) -> u32 {
        match self.collect(a, b, c) {
            Terms::Nan => self.accumulator.canonical_nan(),
            Terms::Infinite { negative } => {
                let infinity = if negative { f64::NEG_INFINITY } else { f64::INFINITY };
                self.accumulator.encode(infinity, Conversion::rounded(Rounding::NearestEven))
            }
            Terms::Finite => match self.model {
                Summation::Exact => self.exact(),
                Summation::Truncated => self.truncated(),
            },
        }
    }

    /// Fills `terms` with the finite products and the accumulator.
    fn collect(&mut self, a: &[Factor], b: &[Factor], c: u32) -> Terms {
        self.terms.clear();
        let mut special = Special::default();
        for (a, b) in a.iter().zip(b) {
            match (a.parts(), b.parts()) {
                (
                    Parts::Finite { significand: x, exponent: p },
                    Parts::Finite { significand: y, exponent: q },
                ) => self.terms.push(Term {
                    significand: i64::from(x) * i64::from(y),
                    exponent: p + q,
                    fraction: self.fraction,
                }),
                (x, y) => special.product(x, y),
            }
        }
        match self.accumulator_parts(c) {
            Parts::Finite { significand, exponent } => {
                let fraction = self.accumulator.mantissa_bits() as i32;
                self.terms.push(Term { significand: i64::from(significand), exponent, fraction });
            }
            other => special.add(other),
        }
        special.decide()
    }

    fn truncated(&self) -> u32 {
        let nonzero = self.terms.iter().filter(|t| t.significand != 0);
        let top = nonzero.map(|t| t.exponent).max().unwrap_or(ZERO_EXPONENT).max(ZERO_EXPONENT);
        let kept = self.alignment.fraction_bits as i32;
        let sum: i64 = self.terms.iter().map(|t| t.truncated(kept + t.exponent - top - t.fraction)).sum();
        let (negative, magnitude) = (sum < 0, u128::from(sum.unsigned_abs()));
        if self.accumulator != Format::F32 {
            let nearest = Conversion::rounded(Rounding::NearestEven);
            return self.accumulator.round(negative, magnitude, top - kept, nearest);
        }
        let code = Format::F32.round(negative, magnitude, top - kept, Conversion::rounded(Rounding::Zero));
        // What exceeds the range is infinite although the rest is truncated.
        let overflows = magnitude != 0 && top - kept + 127 - magnitude.leading_zeros() as i32 > 127;
        if overflows {
            return (code & 1 << 31) | f32::INFINITY.to_bits();
        }
        let code = if magnitude == 0 { 0 } else { code };
        code & !((1 << (F32_MANTISSA - self.alignment.result_bits as i32)) - 1)
    }

    fn exact(&self) -> u32 {
        let nearest = Conversion::rounded(Rounding::NearestEven);
        let scales = || self.terms.iter().filter(|t| t.significand != 0).map(|t| t.exponent - t.fraction);
        let (Some(low), Some(high)) = (scales().min(), scales().max()) else { return 0 };
        if high - low > SPAN {
            return self.exact_wide(low);
        }
        let sum: i128 = self
            .terms
            .iter()
            .filter(|t| t.significand != 0)
            .map(|t| i128::from(t.significand) << (t.exponent - t.fraction - low))
            .sum();
        if sum == 0 { 0 } else { self.accumulator.round(sum < 0, sum.unsigned_abs(), low, nearest) }
    }

    /// The same for exponents that an `i128` does not span.
    fn exact_wide(&self, low: i32) -> u32 {
        let mut wide = Wide::default();
        for term in &self.terms {
            wide.add(term.significand, (term.exponent - term.fraction - low).max(0) as u32);
        }
        let (negative, magnitude, dropped) = wide.leading();
        if magnitude == 0 {
            return 0;
        }
        let nearest = Conversion::rounded(Rounding::NearestEven);
        self.accumulator.round(negative, magnitude, low + dropped as i32, nearest)
    }
}

impl Term {
    /// The significand times 2^`shift`, its magnitude truncated to an integer.
    fn truncated(self, shift: i32) -> i64 {
        match shift {
            // Zeros may have any exponent.
            _ if self.significand == 0 => 0,
            0.. => self.significand << shift,
            -63..0 => {
                let magnitude = self.significand.abs() >> -shift;
                if self.significand < 0 { -magnitude } else { magnitude }
            }
            _ => 0,
        }
    }
}

/// Infinities and NaN among the terms.
#[derive(Default)]
struct Special {
    positive: bool,
    negative: bool,
    nan: bool,
}

impl Special {
    fn add(&mut self, parts: Parts) {
        match parts {
            Parts::Infinite { negative } => self.infinite(negative),
            Parts::Nan => self.nan = true,
            Parts::Finite { .. } => {}
        }
    }

    fn product(&mut self, a: Parts, b: Parts) {
        match (a, b) {
            (Parts::Infinite { negative: a }, Parts::Infinite { negative: b }) => self.infinite(a != b),
            (Parts::Infinite { negative }, Parts::Finite { significand, .. })
            | (Parts::Finite { significand, .. }, Parts::Infinite { negative })
                if significand != 0 =>
            {
                self.infinite(negative != (significand < 0));
            }
            // A NaN, or infinity times zero.
            _ => self.nan = true,
        }
    }

    fn infinite(&mut self, negative: bool) {
        if negative { self.negative = true } else { self.positive = true }
    }

    fn decide(&self) -> Terms {
        match (self.nan, self.positive, self.negative) {
            (true, ..) | (_, true, true) => Terms::Nan,
            (_, true, _) => Terms::Infinite { negative: false },
            (_, _, true) => Terms::Infinite { negative: true },
            _ => Terms::Finite,
        }
    }
}

const LIMBS: usize = 10;

/// A signed integer of 640 bits in two's complement: tf32 and bf16 products span 2^-272 to 2^256,
/// which leaves more than 100 bits for carries.
#[derive(Default)]
struct Wide {
    limbs: [u64; LIMBS],
}

impl Wide {
    /// Adds `significand` · 2^`shift`.
    fn add(&mut self, significand: i64, shift: u32) {
        let (limb, bit) = ((shift / 64) as usize, shift % 64);
        let low = i128::from(significand) << bit;
        let fill = if significand < 0 { u64::MAX } else { 0 };
        let mut carry = false;
        for i in limb..LIMBS {
            let part = match i - limb {
                0 => low as u64,
                1 => (low >> 64) as u64,
                _ => fill,
            };
            let (sum, first) = self.limbs[i].overflowing_add(part);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            self.limbs[i] = sum;
            carry = first || second;
        }
    }

    /// Sign, the magnitude's leading bits, at least 65 of them where there are as many, the last
    /// one set if any bit below is, and how many bits are below.
    fn leading(mut self) -> (bool, u128, u32) {
        let negative = self.limbs[LIMBS - 1] >> 63 == 1;
        if negative {
            let mut carry = true;
            for limb in &mut self.limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        let top = self.limbs.iter().rposition(|&limb| limb != 0).unwrap_or(0).max(1);
        let magnitude = u128::from(self.limbs[top]) << 64 | u128::from(self.limbs[top - 1]);
        let sticky = self.limbs[..top - 1].iter().any(|&limb| limb != 0);
        (negative, magnitude | u128::from(sticky), (top as u32 - 1) * 64)
    }
}
