//! Micro-kernels of f32 multiply-adds on vectors: AVX2 and AVX-512.
//!
//! A column of the LHS is copied to whole vectors one element at a time, from a packed panel or,
//! where the operand is stored in f32 and its rows run along memory, from where it lies
//! ([`super::in_place`]).

use std::arch::x86_64::*;

use halfstep_graph::Split;

use super::micro_kernel::{Columns, MicroKernel};
use super::source::{Piece, Source};
use super::{ProductFormat, in_place, pack};
use crate::elements::Src;
use crate::isa::{Isa, Kernel, Level};

/// Columns of an LHS that one address stands for.
const RUN: usize = 16;

/// What rows beyond an operand and windows beyond an image read.
static ZEROS: [f32; RUN] = [0.0; RUN];

/// How the LHS comes to the kernel. The sums are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In panels, column by column.
    Packed,
    /// As addresses of [`RUN`] columns of each row.
    InPlace,
}

impl Form {
    fn of(a: &Source<'_>, compute: ProductFormat, k: usize) -> Form {
        match (a.data, compute) {
            (_, ProductFormat::Split(Split::Tf32)) => Form::Packed,
            // A product of bf16 terms is an f32 product here, see `pack::load`.
            (Src::F32(_), ProductFormat::F32 | ProductFormat::Split(_))
                if in_place::is_possible(a, RUN, k) =>
            {
                Form::InPlace
            }
            _ => Form::Packed,
        }
    }
}

/// The addresses of an operand that is read in place.
#[inline(always)]
fn addresses<const ROWS: usize>(piece: Piece<'_>, to: &mut [f32]) {
    let Src::F32(data) = piece.source.data else { unreachable!("only f32 is read in place") };
    in_place::addresses::<_, ROWS, RUN, RUN>(piece, data, &ZEROS, to);
}

/// Calls `column(b, values)` for each of `k` columns, with where that row of B is and where the
/// column's elements are; `to` has the form of an LHS of `ROWS` rows and B rows of `COLUMNS`.
///
/// # Safety
/// `a` points to the LHS in `form` and `b` to packed B, both of `k` columns, whole runs in place.
#[inline(always)]
unsafe fn columns<const ROWS: usize, const COLUMNS: usize>(
    form: Form,
    k: usize,
    a: *const f32,
    b: *const f32,
    mut column: impl FnMut(*const f32, [*const f32; ROWS]),
) {
    // SAFETY: the caller vouches for it.
    unsafe {
        match form {
            Form::Packed => {
                for i in 0..k {
                    column(b.add(COLUMNS * i), std::array::from_fn(|row| a.add(ROWS * i + row)));
                }
            }
            Form::InPlace => {
                let table = a.cast::<[*const f32; ROWS]>();
                for run in 0..k / RUN {
                    let rows = table.add(run).read();
                    let b = b.add(COLUMNS * RUN * run);
                    for i in 0..RUN {
                        column(b.add(COLUMNS * i), rows.map(|row| row.add(i)));
                    }
                }
            }
        }
    }
}

macro_rules! packing {
    () => {
        fn for_product(self, a: &Source<'_>, compute: ProductFormat, k: usize, n: usize) -> Self {
            Self(Form::of(a, compute, k), Columns::of(n, Self::NR))
        }

        #[inline(always)]
        fn pack_a(self, piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
            match self.0 {
                Form::Packed => pack::panels_f32::<{ Self::MR }>(piece, compute, to),
                Form::InPlace => addresses::<{ Self::MR }>(piece, to),
            }
        }

        #[inline(always)]
        fn pack_b(self, piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
            pack::panels_f32::<{ Self::NR }>(piece, compute, to);
        }
    };
}

/// AVX2 and FMA: 6 × 16, twelve accumulators.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(Form, Columns);

impl Avx2 {
    pub(crate) fn new(isa: Isa) -> Option<Avx2> {
        (isa.level() >= Level::Avx2).then_some(Avx2(Form::Packed, Columns::All))
    }
}

// SAFETY: `Avx2::new` wants an `Isa` of that level.
unsafe impl MicroKernel for Avx2 {
    type Unit = f32;
    const MR: usize = 6;
    const NR: usize = 16;
    const STEP: usize = 1;
    const PARTS: usize = 1;
    const KC: usize = 384;
    const MC: usize = 96;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: this value exists only where the processor runs AVX2.
        unsafe { crate::isa::run_avx2(kernel) }
    }

    packing!();

    #[inline(always)]
    unsafe fn tile(self, k: usize, a: *const f32, b: *const f32, acc: *mut f32, add: bool) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self.1 {
                Columns::Half => tile_avx2::<1>(self.0, k, a, b, acc, add),
                Columns::All => tile_avx2::<2>(self.0, k, a, b, acc, add),
            }
        }
    }
}

/// # Safety
/// As [`MicroKernel::tile`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
unsafe fn tile_avx2<const VECTORS: usize>(
    form: Form,
    k: usize,
    a: *const f32,
    b: *const f32,
    acc: *mut f32,
    add: bool,
) {
    let mut sum = [[_mm256_setzero_ps(); VECTORS]; 6];
    // SAFETY: the caller vouches for `k` columns of 6 and of 16 values, and for 96 accumulators.
    unsafe {
        // The accumulators may lie in the second-level cache: fetch them while the products run.
        if add {
            for line in 0..6 {
                _mm_prefetch::<_MM_HINT_T0>(acc.add(16 * line).cast());
            }
        }
        columns::<6, 16>(form, k, a, b, |b, rows| {
            let columns: [__m256; VECTORS] = std::array::from_fn(|vector| _mm256_load_ps(b.add(8 * vector)));
            for (sum, row) in sum.iter_mut().zip(rows) {
                let x = _mm256_broadcast_ss(&*row);
                for (sum, columns) in sum.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(x, columns, *sum);
                }
            }
        });
        for (i, sum) in sum.iter().enumerate() {
            for (j, &sum) in sum.iter().enumerate() {
                let to = acc.add(16 * i + 8 * j);
                _mm256_store_ps(to, if add { _mm256_add_ps(_mm256_load_ps(to), sum) } else { sum });
            }
        }
    }
}

/// AVX-512: 8 × 32, sixteen accumulators: enough to hide the latency, and the addresses of eight
/// rows fit in registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(Form, Columns);

impl Avx512 {
    pub(crate) fn new(isa: Isa) -> Option<Avx512> {
        (isa.level() >= Level::Avx512).then_some(Avx512(Form::Packed, Columns::All))
    }
}

// SAFETY: `Avx512::new` wants an `Isa` of that level.
unsafe impl MicroKernel for Avx512 {
    type Unit = f32;
    const MR: usize = 8;
    const NR: usize = 32;
    const STEP: usize = 1;
    const PARTS: usize = 1;
    const KC: usize = 256;
    const MC: usize = 96;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: this value exists only where the processor runs AVX-512.
        unsafe { crate::isa::run_avx512(kernel) }
    }

    packing!();

    #[inline(always)]
    unsafe fn tile(self, k: usize, a: *const f32, b: *const f32, acc: *mut f32, add: bool) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self.1 {
                Columns::Half => tile_avx512::<1>(self.0, k, a, b, acc, add),
                Columns::All => tile_avx512::<2>(self.0, k, a, b, acc, add),
            }
        }
    }
}

/// # Safety
/// As [`MicroKernel::tile`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn tile_avx512<const VECTORS: usize>(
    form: Form,
    k: usize,
    a: *const f32,
    b: *const f32,
    acc: *mut f32,
    add: bool,
) {
    let mut sum = [[_mm512_setzero_ps(); VECTORS]; 8];
    // SAFETY: the caller vouches for `k` columns of 8 and of 32 values, and for 256 accumulators.
    unsafe {
        if add {
            for line in 0..16 {
                _mm_prefetch::<_MM_HINT_T0>(acc.add(16 * line).cast());
            }
        }
        columns::<8, 32>(form, k, a, b, |b, rows| {
            let columns: [__m512; VECTORS] = std::array::from_fn(|vector| _mm512_load_ps(b.add(16 * vector)));
            for (sum, row) in sum.iter_mut().zip(rows) {
                let x = _mm512_set1_ps(*row);
                for (sum, columns) in sum.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(x, columns, *sum);
                }
            }
        });
        for (i, sum) in sum.iter().enumerate() {
            for (j, &sum) in sum.iter().enumerate() {
                let to = acc.add(32 * i + 16 * j);
                _mm512_store_ps(to, if add { _mm512_add_ps(_mm512_load_ps(to), sum) } else { sum });
            }
        }
    }
}
