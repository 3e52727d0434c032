//! Tensors as they are stored, and their conversion to and from f32 a tile at a time.

use std::ops::Range;

use super::Caps;
use super::body::out_of_line;
pub use crate::elements::{Dst, Src, Storage};
use halfstep_float::{
    Format, bf16_from_f32, codes8_to_f32, e4m3_from_f32, e5m2_from_f32, f16_from_f32, f32_from_bf16,
    f32_from_e4m3, f32_from_e5m2, f32_from_f16,
};

/// How many rows of `cols` elements lie side by side as one piece of at most [`TILE`], given that a
/// piece takes `columns` of them of each: short rows are faster together.
#[inline(always)]
pub(crate) fn rows_together(cols: usize, columns: usize) -> usize {
    if columns == cols { (TILE / cols).max(1) } else { 1 }
}

/// Elements of a tile: 4 KiB as f32, so that several fit in the first-level cache.
pub const TILE: usize = 1024;

impl<'a> Src<'a> {
    /// One element as f32.
    ///
    /// # Panics
    /// If `index` is not inside.
    #[inline(always)]
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Src::F32(s) => s[index],
            Src::Bf16(s) => f32_from_bf16(s[index]),
            Src::F16(s) => f32_from_f16(s[index]),
            Src::E4m3(s) => f32_from_e4m3(s[index]),
            Src::E5m2(s) => f32_from_e5m2(s[index]),
        }
    }

    /// Converts elements `start ..` to fill `out`; exact.
    #[inline(always)]
    pub(crate) fn load<C: Caps>(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Src::F32(s) => out.copy_from_slice(&s[range]),
            Src::Bf16(s) => each(&s[range], out, f32_from_bf16),
            Src::F16(s) => load_f16::<C>(&s[range], out),
            Src::E4m3(s) => load8::<C>(Storage::E4m3, &s[range], out),
            Src::E5m2(s) => load8::<C>(Storage::E5m2, &s[range], out),
        }
    }

    /// Elements of `range` as f32: themselves, or converted into `buffer`.
    #[inline(always)]
    pub(crate) fn view<'b, C: Caps>(&self, range: Range<usize>, buffer: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Src::F32(s) => &s[range],
            _ => {
                let out = &mut buffer[..range.len()];
                self.load::<C>(range.start, out);
                out
            }
        }
    }
}

impl Dst<'_> {
    /// Rounds `values` to the storage format, ties to even, into elements `start ..`.
    #[inline(always)]
    pub(crate) fn store<C: Caps>(&mut self, start: usize, values: &[f32]) {
        let range = start..start + values.len();
        match self {
            Dst::F32(s) => s[range].copy_from_slice(values),
            Dst::Bf16(s) => each(values, &mut s[range], bf16_from_f32),
            Dst::F16(s) => store_f16::<C>(values, &mut s[range]),
            Dst::E4m3(s) => store8::<C>(Storage::E4m3, values, &mut s[range]),
            Dst::E5m2(s) => store8::<C>(Storage::E5m2, values, &mut s[range]),
        }
    }

    /// Has `fill` write the f32 values of elements `range`: in place, or in `buffer` and then
    /// rounded.
    #[inline(always)]
    pub(crate) fn write<C: Caps>(
        &mut self,
        range: Range<usize>,
        buffer: &mut [f32],
        fill: impl FnOnce(&mut [f32]),
    ) {
        match self {
            Dst::F32(s) => fill(&mut s[range]),
            _ => {
                let out = &mut buffer[..range.len()];
                fill(out);
                self.store::<C>(range.start, out);
            }
        }
    }

    /// Sets elements `range` to zero.
    #[inline(always)]
    pub(crate) fn zero(&mut self, range: Range<usize>) {
        match self {
            Dst::F32(s) => s[range].fill(0.0),
            Dst::Bf16(s) | Dst::F16(s) => s[range].fill(0),
            Dst::E4m3(s) | Dst::E5m2(s) => s[range].fill(0),
        }
    }
}

#[inline(always)]
fn each<A: Copy, B>(from: &[A], to: &mut [B], f: impl Fn(A) -> B) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f(from);
    }
}

out_of_line! {
    fn load8(storage: Storage, from: &[u8], to: &mut [f32]) = load8_body
}

#[inline(always)]
fn load8_body(storage: Storage, from: &[u8], to: &mut [f32]) {
    match storage {
        Storage::E4m3 => codes8_to_f32(Format::E4m3, from, to),
        _ => codes8_to_f32(Format::E5m2, from, to),
    }
}

out_of_line! {
    fn store8(storage: Storage, from: &[f32], to: &mut [u8]) = store8_body
}

#[inline(always)]
fn store8_body(storage: Storage, from: &[f32], to: &mut [u8]) {
    match storage {
        Storage::E4m3 => each(from, to, e4m3_from_f32),
        _ => each(from, to, e5m2_from_f32),
    }
}

#[inline(always)]
fn load_f16<C: Caps>(from: &[u16], to: &mut [f32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if C::AVX2 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
        let (from, _) = from.as_chunks::<8>();
        let (to, _) = to.as_chunks_mut::<8>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: C::AVX2 says that this is compiled for a processor with F16C; both arrays
            // have 8 elements.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())));
            }
        }
        done = from.len() * 8;
    }
    for (to, &from) in to[done..].iter_mut().zip(&from[done..]) {
        *to = f32_from_f16(from);
    }
}

#[inline(always)]
fn store_f16<C: Caps>(from: &[f32], to: &mut [u16]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if C::AVX2 {
        use std::arch::x86_64::{
            _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps,
        };
        let (from, _) = from.as_chunks::<8>();
        let (to, _) = to.as_chunks_mut::<8>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: C::AVX2 says that this is compiled for a processor with F16C; both arrays
            // have 8 elements.
            unsafe {
                let codes = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
                _mm_storeu_si128(to.as_mut_ptr().cast(), codes);
            }
        }
        done = from.len() * 8;
    }
    for (to, &from) in to[done..].iter_mut().zip(&from[done..]) {
        *to = f16_from_f32(from);
    }
}

/// Rounds every value to `storage`, ties to even, and keeps it as f32.
#[inline(always)]
pub(crate) fn round_in_place<C: Caps>(storage: Storage, values: &mut [f32]) {
    match storage {
        Storage::F32 => {}
        Storage::Bf16 => {
            for x in values {
                *x = f32_from_bf16(bf16_from_f32(*x));
            }
        }
        Storage::E4m3 | Storage::E5m2 => {
            let mut codes = [0u8; 64];
            for part in values.chunks_mut(64) {
                let codes = &mut codes[..part.len()];
                store8::<C>(storage, part, codes);
                load8::<C>(storage, codes, part);
            }
        }
        Storage::F16 => {
            let mut codes = [0u16; 64];
            for part in values.chunks_mut(64) {
                let codes = &mut codes[..part.len()];
                store_f16::<C>(part, codes);
                load_f16::<C>(codes, part);
            }
        }
    }
}
