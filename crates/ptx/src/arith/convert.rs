//! `cvt`.

use super::exact::single;
use super::shape::{Shape, Words, each1, each2};
use crate::formats::{Conversion, Format, Rounding, decode_ue8m0, encode_ue8m0, packed};
use crate::types::Type;

/// A conversion, decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Convert {
    pub to: Type,
    pub from: Type,
    /// Two operands make two halves of one result.
    pub pair: bool,
    /// Bytes of the register that the result goes to, which a narrower integer fills by its sign.
    pub register: usize,
    rounding: Rounding,
    /// Rounding to an integer: `rni`, `rzi`, `rmi`, `rpi`.
    integral: Option<Rounding>,
    ftz: bool,
    sat: bool,
    relu: bool,
    satfinite: bool,
}

/// The conversion that modifiers describe, into a register of so many bytes.
pub(crate) fn conversion(modifiers: &[String], register: usize) -> Option<Convert> {
    let mut words = Words::new(modifiers);
    let (from, to) = (words.ty()?, words.ty()?);
    let integral = [
        ("rni", Rounding::NearestEven),
        ("rzi", Rounding::Zero),
        ("rmi", Rounding::Down),
        ("rpi", Rounding::Up),
    ]
    .into_iter()
    .find_map(|(word, rounding)| words.take(word).then_some(rounding));
    let rounding = words.rounding();
    let convert = Convert {
        to,
        from,
        pair: packs(to) && from == Type::F32,
        register,
        rounding,
        integral,
        ftz: words.take("ftz"),
        sat: words.take("sat"),
        relu: words.take("relu"),
        satfinite: words.take("satfinite"),
    };
    (words.done() && convert.defined()).then_some(convert)
}

/// The format of a floating-point type, or of each half of a packed one.
fn format(ty: Type) -> Option<Format> {
    Some(match ty {
        Type::F32 => Format::F32,
        Type::Tf32 => Format::Tf32,
        Type::F16 | Type::F16x2 => Format::F16,
        Type::Bf16 | Type::Bf16x2 => Format::Bf16,
        Type::E4m3x2 => Format::E4m3,
        Type::E5m2x2 => Format::E5m2,
        Type::E3m2x2 => Format::E3m2,
        Type::E2m3x2 => Format::E2m3,
        Type::E2m1x2 => Format::E2m1,
        _ => return None,
    })
}

fn packs(ty: Type) -> bool {
    use Type::*;
    matches!(ty, F16x2 | Bf16x2 | E4m3x2 | E5m2x2 | E3m2x2 | E2m3x2 | E2m1x2 | Ue8m0x2)
}

fn integer(ty: Type) -> bool {
    use Type::*;
    matches!(ty, U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64)
}

impl Convert {
    /// Whether PTX has it and it is simulated.
    fn defined(&self) -> bool {
        if self.to == Type::Ue8m0x2 || self.from == Type::Ue8m0x2 {
            let directed = matches!(self.rounding, Rounding::Zero | Rounding::Up);
            return match self.to {
                Type::Ue8m0x2 => directed && (self.pair || self.from == Type::Bf16x2),
                to => to == Type::Bf16x2,
            };
        }
        let known = |ty| integer(ty) || format(ty).is_some() || ty == Type::F64;
        if !known(self.to) || !known(self.from) {
            return false;
        }
        if packs(self.to) || packs(self.from) {
            return self.pair || packs(self.to) && packs(self.from);
        }
        // f64 results are rounded to the nearest.
        self.to != Type::F64 || self.rounding == Rounding::NearestEven || self.from.bytes() <= 4
    }

    /// A function of whole registers, for the conversions that kernels use most.
    pub fn shape(&self) -> Option<Shape> {
        use Type::*;
        let nearest = self.rounding == Rounding::NearestEven && self.integral.is_none();
        if self.sat || self.ftz || self.relu || self.satfinite {
            return None;
        }
        Some(match (self.to, self.from) {
            (U64 | S64, U32) => Shape::Widen(each1!(|a| u64::from(a))),
            (U64 | S64, S32) => Shape::Widen(each1!(|a| a as i32 as i64 as u64)),
            (U32 | S32, U64 | S64) => Shape::Narrow(each1!(|a| a as u32)),
            (U32 | S32, U16) => Shape::Unary32(each1!(|a| a & 0xffff)),
            (U32 | S32, S16) => Shape::Unary32(each1!(|a| a as i16 as i32 as u32)),
            (U16, U32 | S32) if self.register == 2 => Shape::Unary32(each1!(|a| a & 0xffff)),
            (F32, S32) if nearest => Shape::Unary32(each1!(|a| (a as i32 as f32).to_bits())),
            (F32, U32) if nearest => Shape::Unary32(each1!(|a| (a as f32).to_bits())),
            (S32, F32) if self.integral == Some(Rounding::Zero) => {
                Shape::Unary32(each1!(|a| f32::from_bits(a) as i32 as u32))
            }
            (Bf16x2, F32) if nearest => Shape::Binary32(each2!(|a, b| bf16(a) << 16 | bf16(b))),
            (Bf16, F32) if nearest => Shape::Unary32(each1!(|a| bf16(a))),
            (F32, Bf16) => Shape::Unary32(each1!(|a| Format::Bf16.decode(a & 0xffff).to_bits())),
            (F32, F16) => Shape::Unary32(each1!(|a| Format::F16.decode(a & 0xffff).to_bits())),
            _ => return None,
        })
    }

    fn rule(&self) -> Conversion {
        Conversion { rounding: self.rounding, satfinite: self.satfinite, relu: self.relu }
    }
}

#[inline(always)]
fn bf16(bits: u32) -> u32 {
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// The result of a conversion; `b` is the second operand of those that take two.
pub(crate) fn convert(by: &Convert, a: u64, b: u64) -> u64 {
    if by.to == Type::Ue8m0x2 || by.from == Type::Ue8m0x2 {
        return scales(by, a as u32, b as u32).into();
    }
    if by.pair {
        let format = format(by.to).expect("defined");
        let [high, low] = [a, b].map(|bits| single(bits as u32, by.ftz).into());
        return packed(format, high, low, by.rule()).into();
    }
    if packs(by.to) {
        let (from, to) = (format(by.from).expect("defined"), format(by.to).expect("defined"));
        let bits = from.packed_bits();
        let half = |at: u32| from.decode(a as u32 >> (at * bits) & ((1 << bits) - 1)).into();
        return packed(to, half(1), half(0), by.rule()).into();
    }
    match (integer(by.from), integer(by.to)) {
        (true, true) => fit(by, value_of(by.from, a), by.sat),
        (true, false) => from_integer(by, value_of(by.from, a)),
        (false, true) => to_integer(by, number(by, a)),
        (false, false) => to_float(by, a),
    }
}

/// Two scales of eight bits of exponent, or the bf16 values of two.
fn scales(by: &Convert, a: u32, b: u32) -> u32 {
    if by.from == Type::Ue8m0x2 {
        // bf16 has every power of two that there is, and is the upper half of an f32.
        let value = |code: u32| decode_ue8m0(code as u8).to_bits() >> 16;
        return value(a >> 8) << 16 | value(a);
    }
    let [high, low] = if by.pair { [a, b] } else { [a & 0xffff_0000, a << 16] };
    let code = |bits: u32| u32::from(encode_ue8m0(f32::from_bits(bits), by.rounding));
    code(high) << 8 | code(low)
}

/// The integer that a register holds as a type.
fn value_of(ty: Type, bits: u64) -> i128 {
    use Type::*;
    match ty {
        U8 => i128::from(bits as u8),
        U16 => i128::from(bits as u16),
        U32 => i128::from(bits as u32),
        S8 => i128::from(bits as i8),
        S16 => i128::from(bits as i16),
        S32 => i128::from(bits as i32),
        S64 => i128::from(bits as i64),
        _ => i128::from(bits),
    }
}

/// An integer as a register holds it: clamped or cut to its type, extended to the register.
fn fit(by: &Convert, value: i128, clamp: bool) -> u64 {
    let bits = 8 * by.to.bytes();
    let signed = by.to.signed();
    let (low, high) = match signed {
        true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        false => (0, (1i128 << bits) - 1),
    };
    let value = if clamp { value.clamp(low, high) } else { value };
    let cut = value_of(by.to, value as u64) as u64;
    match by.register.max(by.to.bytes()) {
        8 => cut,
        bytes => cut & ((1 << (8 * bytes)) - 1),
    }
}

fn from_integer(by: &Convert, value: i128) -> u64 {
    let value = if by.sat { value.clamp(0, 1) } else { value };
    match format(by.to) {
        Some(format) => format.round(value < 0, value.unsigned_abs(), 0, by.rule()).into(),
        None => (value as f64).to_bits(),
    }
}

/// The number that a register holds, exactly.
fn number(by: &Convert, bits: u64) -> f64 {
    match by.from {
        Type::F64 => f64::from_bits(bits),
        Type::F32 => single(bits as u32, by.ftz).into(),
        from => format(from).expect("defined").decode(bits as u32 & 0xffff).into(),
    }
}

fn integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

fn to_integer(by: &Convert, value: f64) -> u64 {
    if value.is_nan() {
        let wide = by.from == Type::F64 || by.to.bytes() == 8;
        return if wide { 1 << (8 * by.to.bytes() - 1) } else { 0 };
    }
    fit(by, integral(value, by.integral.unwrap_or(Rounding::Zero)) as i128, true)
}

fn to_float(by: &Convert, bits: u64) -> u64 {
    let mut value = number(by, bits);
    if let Some(rounding) = by.integral {
        value = integral(value, rounding);
    }
    if by.sat {
        value = if value > 0.0 { value.min(1.0) } else { 0.0 };
    }
    match format(by.to) {
        Some(format) => {
            let code = format.encode(value, by.rule());
            match by.to == Type::F32 && by.ftz && code & 0x7f80_0000 == 0 {
                true => u64::from(code & 0x8000_0000),
                false => u64::from(code),
            }
        }
        None => value.to_bits(),
    }
}
