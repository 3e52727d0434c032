//! Functions of whole registers, by the files of their operands.

use crate::machine::{Lanes32, Lanes64};
use crate::types::Type;

/// A function of registers; the result comes last.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// 32 → 32
    Unary32(fn(&Lanes32, &mut Lanes32)),
    /// 64 → 64
    Unary64(fn(&Lanes64, &mut Lanes64)),
    /// 32 → 64
    Widen(fn(&Lanes32, &mut Lanes64)),
    /// 64 → 32
    Narrow(fn(&Lanes64, &mut Lanes32)),
    /// 32, 32 → 32
    Binary32(fn(&Lanes32, &Lanes32, &mut Lanes32)),
    /// 64, 64 → 64
    Binary64(fn(&Lanes64, &Lanes64, &mut Lanes64)),
    /// 32, 32 → 64
    Wide(fn(&Lanes32, &Lanes32, &mut Lanes64)),
    /// 64, 32 → 64
    Shift64(fn(&Lanes64, &Lanes32, &mut Lanes64)),
    /// 32, 32, 32 → 32
    Ternary32(fn(&Lanes32, &Lanes32, &Lanes32, &mut Lanes32)),
    /// 64, 64, 64 → 64
    Ternary64(fn(&Lanes64, &Lanes64, &Lanes64, &mut Lanes64)),
    /// 32, 32, 64 → 64
    WideAdd(fn(&Lanes32, &Lanes32, &Lanes64, &mut Lanes64)),
    /// 64, 32, 32 → 64
    Field64(fn(&Lanes64, &Lanes32, &Lanes32, &mut Lanes64)),
    /// 32, 32, 32, 32 → 32
    Quaternary32(fn(&Lanes32, &Lanes32, &Lanes32, &Lanes32, &mut Lanes32)),
    /// 64, 64, 32, 32 → 64
    Insert64(fn(&Lanes64, &Lanes64, &Lanes32, &Lanes32, &mut Lanes64)),
}

/// A function of one operand, applied to each lane.
macro_rules! each1 {
    (|$a:ident| $value:expr) => {
        |a, to| {
            for (to, &$a) in to.iter_mut().zip(a) {
                *to = $value;
            }
        }
    };
}

/// As [`each1`], of two operands.
macro_rules! each2 {
    (|$a:ident, $b:ident| $value:expr) => {
        |a, b, to| {
            for lane in 0..32 {
                let ($a, $b) = (a[lane], b[lane]);
                to[lane] = $value;
            }
        }
    };
}

/// As [`each1`], of three operands.
macro_rules! each3 {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {
        |a, b, c, to| {
            for lane in 0..32 {
                let ($a, $b, $c) = (a[lane], b[lane], c[lane]);
                to[lane] = $value;
            }
        }
    };
}

/// As [`each1`], of four operands.
macro_rules! each4 {
    (|$a:ident, $b:ident, $c:ident, $d:ident| $value:expr) => {
        |a, b, c, d, to| {
            for lane in 0..32 {
                let ($a, $b, $c, $d) = (a[lane], b[lane], c[lane], d[lane]);
                to[lane] = $value;
            }
        }
    };
}

/// One function for each rounding and for subnormals kept or flushed: inside the body, `$r` and
/// `$z` are constants, so that each function has one case only.
macro_rules! by_rounding {
    ($rounding:expr, $ftz:expr, |$r:ident, $z:ident| $body:expr) => {{
        use crate::formats::Rounding;
        macro_rules! case {
            ($name:ident, $flush:literal) => {{
                const $r: Rounding = Rounding::$name;
                const $z: bool = $flush;
                $body
            }};
        }
        match ($rounding, $ftz) {
            (Rounding::Zero, false) => case!(Zero, false),
            (Rounding::Zero, true) => case!(Zero, true),
            (Rounding::Down, false) => case!(Down, false),
            (Rounding::Down, true) => case!(Down, true),
            (Rounding::Up, false) => case!(Up, false),
            (Rounding::Up, true) => case!(Up, true),
            (_, false) => case!(NearestEven, false),
            (_, true) => case!(NearestEven, true),
        }
    }};
}

/// One function for each of two cases, of which `$z` is a constant in the body.
macro_rules! by_flag {
    ($flag:expr, |$z:ident| $body:expr) => {
        if $flag {
            const $z: bool = true;
            $body
        } else {
            const $z: bool = false;
            $body
        }
    };
}

pub(super) use {by_flag, by_rounding, each1, each2, each3, each4};

/// The modifiers of an opcode, which a lookup takes one by one.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    left: Vec<&'a str>,
}

impl<'a> Words<'a> {
    /// All modifiers.
    pub fn new(modifiers: &'a [String]) -> Words<'a> {
        Words { left: modifiers.iter().map(String::as_str).collect() }
    }

    /// Takes a modifier if it is there.
    pub fn take(&mut self, word: &str) -> bool {
        let at = self.left.iter().position(|left| *left == word);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// Takes the last modifier, which is a type.
    pub fn ty(&mut self) -> Option<Type> {
        Type::parse(self.left.pop()?)
    }

    /// Takes the modifier that comes first.
    pub fn first(&mut self) -> Option<&'a str> {
        if self.left.is_empty() { None } else { Some(self.left.remove(0)) }
    }

    /// Whether every modifier was taken.
    pub fn done(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes a rounding of floating-point values; to the nearest if there is none.
    pub fn rounding(&mut self) -> crate::formats::Rounding {
        use crate::formats::Rounding::*;
        for (word, rounding) in
            [("rn", NearestEven), ("rz", Zero), ("rm", Down), ("rp", Up), ("rna", NearestAway)]
        {
            if self.take(word) {
                return rounding;
            }
        }
        NearestEven
    }
}
