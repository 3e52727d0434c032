//! Comparisons of `setp` and `set`.

use super::exact::single;
use crate::formats::Format;
use crate::machine::{Lanes32, Lanes64};
use crate::types::Type;

/// A comparison of registers: the lanes where it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    Of32(fn(&Lanes32, &Lanes32) -> u32),
    Of64(fn(&Lanes64, &Lanes64) -> u32),
}

macro_rules! test {
    (|$a:ident, $b:ident| $holds:expr) => {
        |a, b| {
            let mut mask = 0;
            for lane in 0..32 {
                let ($a, $b) = (a[lane], b[lane]);
                mask |= u32::from($holds) << lane;
            }
            mask
        }
    };
}

macro_rules! integers {
    ($word:expr, $of:ident, $bits:ty, $as:ty) => {
        Comparison::$of(match $word {
            "eq" => test!(|a, b| a as $as == b as $as),
            "ne" => test!(|a, b| a as $as != b as $as),
            "lt" | "lo" => test!(|a, b| (a as $as) < b as $as),
            "le" | "ls" => test!(|a, b| a as $as <= b as $as),
            "gt" | "hi" => test!(|a, b| a as $as > b as $as),
            "ge" | "hs" => test!(|a, b| a as $as >= b as $as),
            _ => return None,
        })
    };
}

macro_rules! floats {
    ($word:expr, $of:ident, $bits:ty, $as:ty, |$x:ident| $view:expr) => {{
        #[inline(always)]
        fn view($x: $bits) -> $as {
            $view
        }
        #[inline(always)]
        fn nan(a: $bits, b: $bits) -> bool {
            view(a).is_nan() || view(b).is_nan()
        }
        Comparison::$of(match $word {
            "ne" => test!(|a, b| view(a) != view(b) && !nan(a, b)),
            "equ" => test!(|a, b| view(a) == view(b) || nan(a, b)),
            "neu" => test!(|a, b| view(a) != view(b)),
            "ltu" => test!(|a, b| view(a) < view(b) || nan(a, b)),
            "leu" => test!(|a, b| view(a) <= view(b) || nan(a, b)),
            "gtu" => test!(|a, b| view(a) > view(b) || nan(a, b)),
            "geu" => test!(|a, b| view(a) >= view(b) || nan(a, b)),
            "num" => test!(|a, b| !nan(a, b)),
            "nan" => test!(|a, b| nan(a, b)),
            "eq" => test!(|a, b| view(a) == view(b)),
            "lt" => test!(|a, b| view(a) < view(b)),
            "le" => test!(|a, b| view(a) <= view(b)),
            "gt" => test!(|a, b| view(a) > view(b)),
            "ge" => test!(|a, b| view(a) >= view(b)),
            _ => return None,
        })
    }};
}

/// The comparison of a word such as `lt` for operands of a type.
pub(crate) fn comparison(word: &str, ty: Type, ftz: bool) -> Option<Comparison> {
    use Type::*;
    if ftz && ty != F32 {
        return None;
    }
    Some(match ty {
        B16 | B32 | B64 if !matches!(word, "eq" | "ne") => return None,
        B16 | U16 | B32 | U32 => integers!(word, Of32, u32, u32),
        S16 => integers!(word, Of32, u32, i16),
        S32 => integers!(word, Of32, u32, i32),
        B64 | U64 => integers!(word, Of64, u64, u64),
        S64 => integers!(word, Of64, u64, i64),
        F32 if ftz => floats!(word, Of32, u32, f32, |x| single(x, true)),
        F32 => floats!(word, Of32, u32, f32, |x| f32::from_bits(x)),
        F64 => floats!(word, Of64, u64, f64, |x| f64::from_bits(x)),
        F16 => floats!(word, Of32, u32, f32, |x| Format::F16.decode(x & 0xffff)),
        Bf16 => floats!(word, Of32, u32, f32, |x| Format::Bf16.decode(x & 0xffff)),
        _ => return None,
    })
}
