//! Kernel bodies that know which instruction set they are compiled for.

use std::marker::PhantomData;

use crate::isa::{Isa, Kernel, Level};

/// What a body may assume of the instruction set it is compiled for.
///
/// Only [`dispatch`] chooses an implementor, and it has an [`Isa`] that proves the level: that is
/// what makes it safe for a body to use the instructions a constant here promises.
pub(crate) trait Caps: Copy + 'static {
    /// `f32::mul_add` is one instruction. Without it the function is a slow call, and a·b + c is
    /// rounded twice instead.
    const FMA: bool;
    /// AVX2 and F16C are there.
    const AVX2: bool;
    /// What [`Level::Avx512`] has is there.
    const AVX512: bool;
    /// f32 elements of one vector register.
    const WIDTH: usize;
}

#[derive(Clone, Copy)]
pub(crate) struct Base;
#[derive(Clone, Copy)]
pub(crate) struct Avx2;
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Caps for Base {
    const FMA: bool = false;
    const AVX2: bool = false;
    const AVX512: bool = false;
    const WIDTH: usize = 4;
}

impl Caps for Avx2 {
    const FMA: bool = true;
    const AVX2: bool = true;
    const AVX512: bool = false;
    const WIDTH: usize = 8;
}

impl Caps for Avx512 {
    const FMA: bool = true;
    const AVX2: bool = true;
    const AVX512: bool = true;
    const WIDTH: usize = 16;
}

/// A [`Kernel`] that is given its [`Caps`]. `run` and everything hot below it must be
/// `#[inline(always)]`.
pub(crate) trait Body {
    /// What the computation returns.
    type Output;
    /// The computation.
    fn run<C: Caps>(self) -> Self::Output;
}

struct With<B, C>(B, PhantomData<C>);

impl<B: Body, C: Caps> Kernel for With<B, C> {
    type Output = B::Output;
    #[inline(always)]
    fn run(self) -> B::Output {
        self.0.run::<C>()
    }
}

/// Runs `body` compiled for `isa`.
#[inline]
pub(crate) fn dispatch<B: Body>(isa: Isa, body: B) -> B::Output {
    match isa.level() {
        Level::Portable => isa.run(With(body, PhantomData::<Base>)),
        Level::Avx2 => isa.run(With(body, PhantomData::<Avx2>)),
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx | Level::AmxFp16 => {
            isa.run(With(body, PhantomData::<Avx512>))
        }
    }
}

/// a·b + c, in one rounding where the instruction set has that.
#[inline(always)]
pub(crate) fn fma<C: Caps>(a: f32, b: f32, c: f32) -> f32 {
    if C::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// A function that is compiled once for each instruction set and called, from bodies that would all
/// carry its loops otherwise. What follows `=` does the work and is `#[inline(always)]`.
macro_rules! out_of_line {
    ($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),+ $(,)?) = $body:path) => {
        $(#[$attribute])*
        #[inline(always)]
        fn $name<C: $crate::rows::Caps>($($argument: $type),+) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2")]
                fn avx512($($argument: $type),+) {
                    $body($($argument),+);
                }
                #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
                fn avx2($($argument: $type),+) {
                    $body($($argument),+);
                }
                if C::AVX512 {
                    // SAFETY: C::AVX512 says that this is compiled for a processor with these
                    // features.
                    return unsafe { avx512($($argument),+) };
                }
                if C::AVX2 {
                    // SAFETY: as above for C::AVX2.
                    return unsafe { avx2($($argument),+) };
                }
            }
            #[inline(never)]
            fn portable($($argument: $type),+) {
                $body($($argument),+);
            }
            portable($($argument),+);
        }
    };
}
pub(crate) use out_of_line;
