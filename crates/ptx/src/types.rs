//! The types of PTX that instructions and declarations name.

use crate::machine::File;

/// A fundamental type, or a packed one that registers of 32 bits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F32x2,
    F64,
    E4m3x2,
    E5m2x2,
    E3m2x2,
    E2m3x2,
    E2m1x2,
    Ue8m0x2,
    U16x2,
    S16x2,
}

impl Type {
    /// The type of a name without its dot.
    pub fn parse(name: &str) -> Option<Type> {
        use Type::*;
        Some(match name {
            "pred" => Pred,
            "b8" => B8,
            "b16" => B16,
            "b32" => B32,
            "b64" => B64,
            "b128" => B128,
            "u8" => U8,
            "u16" => U16,
            "u32" => U32,
            "u64" => U64,
            "s8" => S8,
            "s16" => S16,
            "s32" => S32,
            "s64" => S64,
            "f16" => F16,
            "f16x2" => F16x2,
            "bf16" => Bf16,
            "bf16x2" => Bf16x2,
            "tf32" => Tf32,
            "f32" => F32,
            "f32x2" => F32x2,
            "f64" => F64,
            "e4m3x2" => E4m3x2,
            "e5m2x2" => E5m2x2,
            "e3m2x2" => E3m2x2,
            "e2m3x2" => E2m3x2,
            "e2m1x2" => E2m1x2,
            "ue8m0x2" => Ue8m0x2,
            "u16x2" => U16x2,
            "s16x2" => S16x2,
            _ => return None,
        })
    }

    /// Size in memory; 0 for predicates, which lie in none.
    pub fn bytes(self) -> usize {
        use Type::*;
        match self {
            Pred => 0,
            B8 | U8 | S8 | E2m1x2 => 1,
            B16 | U16 | S16 | F16 | Bf16 => 2,
            E4m3x2 | E5m2x2 | E3m2x2 | E2m3x2 | Ue8m0x2 => 2,
            B32 | U32 | S32 | F32 | Tf32 | F16x2 | Bf16x2 | U16x2 | S16x2 => 4,
            B64 | U64 | S64 | F64 | F32x2 => 8,
            B128 => 16,
        }
    }

    /// The file of registers that hold it; nothing for 128 bits.
    pub fn file(self) -> Option<File> {
        match self.bytes() {
            0 => Some(File::Predicate),
            1 | 2 | 4 => Some(File::Bits32),
            8 => Some(File::Bits64),
            _ => None,
        }
    }

    /// Whether it is an integer with a sign.
    pub fn signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64 | Type::S16x2)
    }

    /// Whether values are floating-point numbers.
    pub fn float(self) -> bool {
        use Type::*;
        let narrow = matches!(self, E4m3x2 | E5m2x2 | E3m2x2 | E2m3x2 | E2m1x2 | Ue8m0x2);
        narrow || matches!(self, F16 | F16x2 | Bf16 | Bf16x2 | Tf32 | F32 | F32x2 | F64)
    }
}
