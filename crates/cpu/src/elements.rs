//! Elements of a tensor in the format in which they are stored.

use std::ops::Range;

use halfstep_graph::DType;

/// A floating-point format in which tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16 codes.
    Bf16,
    /// IEEE 754 binary16 codes.
    F16,
    /// OCP FP8 E4M3 codes.
    E4m3,
    /// OCP FP8 E5M2 codes.
    E5m2,
}

impl Storage {
    /// The storage of a graph's element type; `None` for integers.
    pub fn of(dtype: DType) -> Option<Storage> {
        match dtype {
            DType::F32 => Some(Storage::F32),
            DType::Bf16 => Some(Storage::Bf16),
            DType::F16 => Some(Storage::F16),
            DType::E4m3 => Some(Storage::E4m3),
            DType::E5m2 => Some(Storage::E5m2),
            DType::I32 | DType::U8 => None,
        }
    }
}

/// Something of elements in one of the formats: `F` of f32 values, `H` of 16-bit codes, `B` of
/// 8-bit codes.
#[derive(Clone, Copy, Debug)]
pub enum Elements<F, H, B> {
    /// f32 elements.
    F32(F),
    /// bf16 codes.
    Bf16(H),
    /// f16 codes.
    F16(H),
    /// e4m3 codes.
    E4m3(B),
    /// e5m2 codes.
    E5m2(B),
}

/// A tensor to read.
pub type Src<'a> = Elements<&'a [f32], &'a [u16], &'a [u8]>;

/// A tensor to write.
pub type Dst<'a> = Elements<&'a mut [f32], &'a mut [u16], &'a mut [u8]>;

/// Calls `$body` with what holds the elements, whatever their format.
macro_rules! with_elements {
    ($elements:expr, $x:ident => $body:expr) => {
        match $elements {
            $crate::elements::Elements::F32($x) => $body,
            $crate::elements::Elements::Bf16($x) | $crate::elements::Elements::F16($x) => $body,
            $crate::elements::Elements::E4m3($x) | $crate::elements::Elements::E5m2($x) => $body,
        }
    };
}
pub(crate) use with_elements;

/// The same of what `$body` makes of what holds the elements.
macro_rules! map_elements {
    ($elements:expr, $x:ident => $body:expr) => {
        match $elements {
            $crate::elements::Elements::F32($x) => $crate::elements::Elements::F32($body),
            $crate::elements::Elements::Bf16($x) => $crate::elements::Elements::Bf16($body),
            $crate::elements::Elements::F16($x) => $crate::elements::Elements::F16($body),
            $crate::elements::Elements::E4m3($x) => $crate::elements::Elements::E4m3($body),
            $crate::elements::Elements::E5m2($x) => $crate::elements::Elements::E5m2($body),
        }
    };
}
pub(crate) use map_elements;

impl<F, H, B> Elements<F, H, B> {
    /// The format of the elements.
    pub fn storage(&self) -> Storage {
        match self {
            Elements::F32(_) => Storage::F32,
            Elements::Bf16(_) => Storage::Bf16,
            Elements::F16(_) => Storage::F16,
            Elements::E4m3(_) => Storage::E4m3,
            Elements::E5m2(_) => Storage::E5m2,
        }
    }
}

impl<'a> Src<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        with_elements!(self, s => s.len())
    }

    /// Some of the elements.
    ///
    /// # Panics
    /// If `range` is not inside.
    #[inline(always)]
    pub fn slice(&self, range: Range<usize>) -> Src<'a> {
        map_elements!(self, s => &s[range])
    }
}

impl Dst<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        with_elements!(self, s => s.len())
    }

    /// The same tensor for a shorter time.
    pub fn reborrow(&mut self) -> Dst<'_> {
        map_elements!(self, s => s)
    }

    /// The tensor to read.
    #[inline(always)]
    pub fn as_src(&self) -> Src<'_> {
        map_elements!(self, s => s)
    }
}
