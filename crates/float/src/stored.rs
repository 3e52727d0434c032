//! How one number is kept in a format, for people to look at.

use crate::code::{Overflow, Rounding, decode, encode, ulp};
use crate::format::Format;

/// What kind of number a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Zero of either sign.
    Zero,
    /// Below the smallest normal number: no implicit one, fewer significant bits.
    Subnormal,
    /// With an implicit one before the mantissa.
    Normal,
    /// An infinity.
    Infinite,
    /// Not a number.
    Nan,
}

/// The three fields of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    /// 1 for negative numbers.
    pub sign: u32,
    /// The biased exponent.
    pub exponent: u32,
    /// The stored mantissa, without the implicit one.
    pub mantissa: u32,
}

/// A number and what a format makes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stored {
    /// The format.
    pub format: Format,
    /// The number given.
    pub given: f64,
    /// Its code.
    pub code: u32,
    /// The value of the code; exact.
    pub value: f64,
}

impl Stored {
    /// `given` rounded to `format`.
    pub fn new(format: Format, given: f64, rounding: Rounding, overflow: Overflow) -> Stored {
        Stored::of_code(format, given, encode(format, given, rounding, overflow))
    }

    fn of_code(format: Format, given: f64, code: u32) -> Stored {
        Stored { format, given, code, value: decode(format, code) }
    }

    /// Sign, exponent and mantissa.
    pub fn fields(&self) -> Fields {
        let info = self.format.info();
        Fields {
            sign: self.code >> (info.bits - 1),
            exponent: (self.code >> info.mantissa_bits) & ((1 << info.exponent_bits) - 1),
            mantissa: self.code & ((1 << info.mantissa_bits) - 1),
        }
    }

    /// What kind of number the code stands for.
    pub fn class(&self) -> Class {
        match self.value {
            x if x.is_nan() => Class::Nan,
            x if x.is_infinite() => Class::Infinite,
            0.0 => Class::Zero,
            _ if self.fields().exponent == 0 => Class::Subnormal,
            _ => Class::Normal,
        }
    }

    /// The power of two that the significand is multiplied by; that of subnormals for zero.
    pub fn exponent(&self) -> i32 {
        self.fields().exponent.max(1) as i32 - self.format.info().bias
    }

    /// The next smaller and the next larger value of the format, infinities included; `None` where
    /// there is none, and beside a NaN. From either zero, the smallest numbers of both signs.
    pub fn neighbours(&self) -> (Option<f64>, Option<f64>) {
        if self.value.is_nan() {
            return (None, None);
        }
        let magnitude = i64::from(self.code & (self.format.sign_bit() - 1));
        let position = if self.value.is_sign_negative() { -magnitude } else { magnitude };
        let last = i64::from(self.format.inf_code().unwrap_or(self.format.max_finite_code()));
        let at = |position: i64| {
            let sign = if position < 0 { self.format.sign_bit() } else { 0 };
            (position.abs() <= last).then(|| decode(self.format, sign | position.unsigned_abs() as u32))
        };
        (at(position - 1), at(position + 1))
    }

    /// The value less the number given: the rounding error.
    pub fn error(&self) -> f64 {
        self.value - self.given
    }

    /// |error| / |given|; `None` for a zero or where something is not finite.
    pub fn relative_error(&self) -> Option<f64> {
        let relative = (self.error() / self.given).abs();
        relative.is_finite().then_some(relative)
    }

    /// The distance between neighbours at the number given ([`ulp`]); at the largest number for
    /// those beyond it.
    pub fn ulp(&self) -> f64 {
        let max = self.format.info().max_finite;
        ulp(self.format, self.given.clamp(-max, max))
    }

    /// The share of stochastic roundings that go to the larger neighbour in magnitude, and the two
    /// neighbours of the number given; `None` where it is stored exactly, is out of range or is not
    /// finite.
    pub fn odds(&self) -> Option<Odds> {
        let towards =
            |r| Stored::new(self.format, self.given, Rounding::Stochastic(r), Overflow::NonFinite).value;
        let (near, far) = (towards(u32::MAX), towards(0));
        let share = (self.given - near) / (far - near);
        (near.is_finite() && far.is_finite() && near != far).then_some(Odds { near, far, share })
    }
}

/// What stochastic rounding chooses from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odds {
    /// The neighbour nearer to zero.
    pub near: f64,
    /// The neighbour farther from zero.
    pub far: f64,
    /// Probability of the latter.
    pub share: f64,
}

/// All decimal digits of `x`: every f64 has finitely many. Positional between 10^−5 and 10^17, else
/// with a power of ten.
///
/// ```
/// let tenth = "0.1000000000000000055511151231257827021181583404541015625";
/// assert_eq!(halfstep_float::exact_decimal(0.1), tenth);
/// assert_eq!(halfstep_float::exact_decimal(2f64.powi(-24)), "5.9604644775390625e-8");
/// ```
pub fn exact_decimal(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() { "NaN".into() } else { x.to_string() };
    }
    let trim = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => digits.to_string(),
    };
    // No f64 has more than 1074 digits behind the point, nor more than 767 significant ones.
    if x == 0.0 || (1e-5..1e17).contains(&x.abs()) {
        return trim(&format!("{x:.1074}"));
    }
    let text = format!("{x:.770e}");
    match text.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", trim(digits)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(format: Format, x: f64) -> Stored {
        Stored::new(format, x, Rounding::NearestEven, Overflow::NonFinite)
    }

    #[test]
    fn a_tenth_in_f16() {
        let s = near(Format::F16, 0.1);
        assert_eq!(s.fields(), Fields { sign: 0, exponent: 0b01011, mantissa: 0b1001100110 });
        assert_eq!((s.class(), s.exponent()), (Class::Normal, -4));
        assert_eq!(s.value, 1638.0 / 16384.0);
        assert_eq!(s.neighbours(), (Some(1637.0 / 16384.0), Some(1639.0 / 16384.0)));
        assert!(s.relative_error().unwrap() <= Format::F16.info().unit_roundoff);
        let odds = s.odds().unwrap();
        assert_eq!((odds.near, odds.far), (1638.0 / 16384.0, 1639.0 / 16384.0));
        assert!((odds.share - 0.4).abs() < 1e-9, "{odds:?}");
    }

    #[test]
    fn neighbours_at_the_ends() {
        let f16 = near(Format::F16, 65504.0);
        assert_eq!(f16.neighbours(), (Some(65472.0), Some(f64::INFINITY)));
        assert_eq!(near(Format::F16, f64::INFINITY).neighbours(), (Some(65504.0), None));
        assert_eq!(near(Format::E4m3, -448.0).neighbours(), (None, Some(-416.0)));
        assert_eq!(near(Format::E2m1, -0.0).neighbours(), (Some(-0.5), Some(0.5)));
        assert_eq!(near(Format::E4m3, 1e9).neighbours(), (None, None));
        assert_eq!(near(Format::E4m3, 1e9).class(), Class::Nan);
        assert_eq!(near(Format::F16, 1e-7).class(), Class::Subnormal);
        assert_eq!(near(Format::E2m1, 1e30).ulp(), 2.0);
        assert_eq!(near(Format::F16, 1.0).odds(), None);
        assert_eq!(near(Format::F16, 1e6).odds(), None);
    }

    #[test]
    fn decimals_have_all_digits() {
        assert_eq!(exact_decimal(-0.0), "-0");
        assert_eq!(exact_decimal(100.0), "100");
        assert_eq!(exact_decimal(f64::NEG_INFINITY), "-inf");
        assert_eq!(exact_decimal(1e300).parse(), Ok(1e300));
        let smallest = exact_decimal(f64::from_bits(1));
        assert!(smallest.starts_with("4.940656458412465441765687928682") && smallest.ends_with("625e-324"));
        assert_eq!(smallest.len(), "4.".len() + 750 + "e-324".len());
    }
}
