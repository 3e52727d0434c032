//! The micro-kernel for AVX512-BF16: operands packed as for tiles, multiplied by `vdpbf16ps`, which
//! adds two products of bf16 values to an f32 in one instruction and so does twice the work of a
//! multiply-add.
//!
//! `vdpbf16ps` treats subnormals as `tdpbf16ps` does, so the bound of [`super::amx`] for bf16
//! operands holds here.

use std::arch::x86_64::*;

use super::micro_kernel::{Columns, MicroKernel, TileUnit};
use super::pack::{self, TILE_STEP};
use super::run::pack;
use super::scheme::Bf16;
use super::source::{Along, Piece, Source};
use super::{ProductFormat, in_place};
use crate::elements::Src;
use crate::isa::{Isa, Kernel, Level};

/// Products of bf16 operands, 32 × 32 results at a time.
#[derive(Clone, Copy)]
pub(crate) struct Dots(Form, Columns);

/// How the LHS comes to the kernel, which reads one pair of k at a time and copies it to a whole
/// vector: it can take pairs from anywhere. Each form of an operand gives the same sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Packed as an LHS of tiles, row by row.
    Rows,
    /// Packed as an RHS of tiles, pair by pair: for rows that do not run along memory, where this
    /// takes no transposition.
    Pairs,
    /// Not packed: addresses of 32 k of each row.
    InPlace,
    /// Not packed: addresses of 16 k of each row, for images of as many channels.
    InPlace16,
}

impl Dots {
    pub(crate) fn new(isa: Isa) -> Option<Dots> {
        (isa.level() >= Level::Avx512Bf16).then_some(Dots(Form::Rows, Columns::All))
    }
}

/// What rows beyond an operand and windows beyond an image read.
static ZEROS: [u16; TILE_STEP] = [0; TILE_STEP];

/// The addresses of an operand that is read in place, `RUN` k each.
#[inline(always)]
fn addresses<const RUN: usize>(piece: Piece<'_>, to: &mut [u16]) {
    let Src::Bf16(data) = piece.source.data else { unreachable!("only bf16 is read in place") };
    let zeros = ZEROS.first_chunk().expect("no longer than a step");
    in_place::addresses::<_, 32, RUN, TILE_STEP>(piece, data, zeros, to);
}

/// Rows whose sums are kept in registers, two vectors each: enough chains to hide the latency of
/// the instruction, and few enough for a panel's 32 rows to be a whole number of times as many.
const ROWS: usize = 8;

/// C = A·B, or C += A·B where `add`, for 32 rows and 16 · `TILES` columns of C.
///
/// # Safety
/// The processor runs AVX512-BF16; `a` points to `steps` steps of the LHS in `form`, `b` to as many
/// of packed tiles, and `c` to 32 rows of 32 f32 that are `c_row` f32 apart.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn block<const TILES: usize>(
    form: Form,
    steps: usize,
    a: *const u16,
    b: *const u16,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    for first in (0..32).step_by(ROWS) {
        // SAFETY: the caller vouches for all of it. A tile has 16 rows or columns and 512 codes.
        unsafe {
            let c = c.add(first * c_row);
            match form {
                Form::Rows => {
                    let row = |step, r| a.add(step * 1024 + (first + r) * TILE_STEP);
                    rows::<2, 16, TILES>(row, steps, b, c, c_row, add);
                }
                Form::Pairs => {
                    let row = |step, r| a.add(step * 1024 + first / 16 * 512 + (first % 16 + r) * 2);
                    rows::<32, 16, TILES>(row, steps, b, c, c_row, add);
                }
                Form::InPlace => {
                    let table = a.cast::<*const u16>();
                    let row = |run, r| table.add(run * 32 + first + r).read();
                    rows::<2, 16, TILES>(row, steps, b, c, c_row, add);
                }
                Form::InPlace16 => {
                    let table = a.cast::<*const u16>();
                    let row = |run, r| table.add(run * 32 + first + r).read();
                    rows::<2, 8, TILES>(row, steps, b, c, c_row, add);
                }
            }
        }
    }
}

/// [`block`] for [`ROWS`] rows: `row` says where one begins in a run of `PAIRS` pairs of k, which
/// are `PAIR` codes apart.
///
/// # Safety
/// As [`block`].
#[inline]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn rows<const PAIR: usize, const PAIRS: usize, const TILES: usize>(
    row: impl Fn(usize, usize) -> *const u16,
    steps: usize,
    mut b: *const u16,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller vouches for 1024 codes of B per step and for the rows of A and C. 16
    // columns of B are a tile, a pair of k to the line.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); TILES]; ROWS];
        if add {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (tile, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(c.add(r * c_row + 16 * tile));
                }
            }
        }
        let runs = TILE_STEP / 2 / PAIRS;
        // The compiler would unroll a loop of few turns and put all its loads before the first
        // product: more than there are registers for.
        let pairs = if PAIRS < 16 { std::hint::black_box(PAIRS) } else { PAIRS };
        for step in 0..steps {
            for run in 0..runs {
                let a: [*const u16; ROWS] = std::array::from_fn(|r| row(step * runs + run, r));
                for pair in 0..pairs {
                    let b = b.add((run * PAIRS + pair) * 32);
                    let columns: [__m512bh; TILES] = std::array::from_fn(|tile| {
                        std::mem::transmute(_mm512_loadu_si512(b.add(tile * 512).cast()))
                    });
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let both = a[r].add(pair * PAIR).cast::<i32>().read_unaligned();
                        let both: __m512bh = std::mem::transmute(_mm512_set1_epi32(both));
                        for (sum, columns) in sums.iter_mut().zip(columns) {
                            *sum = _mm512_dpbf16_ps(*sum, both, columns);
                        }
                    }
                }
            }
            b = b.add(1024);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (tile, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(c.add(r * c_row + 16 * tile), sum);
            }
        }
    }
}

// SAFETY: `Dots::new` wants an `Isa` of that level.
unsafe impl MicroKernel for Dots {
    type Unit = u16;
    const MR: usize = 32;
    const NR: usize = 32;
    const STEP: usize = TILE_STEP;
    const PARTS: usize = 1;
    /// A panel of B is 24 KB, half of the first-level cache of the processors that have these
    /// products and no tiles.
    const KC: usize = 384;
    const MC: usize = 32;
    const RESIDENT_B: usize = 256 << 10;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: AVX512-BF16 is a level above AVX-512, and this value exists only where the
        // processor runs it.
        unsafe { crate::isa::run_avx512(kernel) }
    }

    fn for_product(self, a: &Source<'_>, _: ProductFormat, k: usize, n: usize) -> Dots {
        let form = match (a.along, a.data) {
            (Along::Outer, _) => Form::Pairs,
            (_, Src::Bf16(_)) if in_place::is_possible(a, TILE_STEP, k) => Form::InPlace,
            (_, Src::Bf16(_)) if in_place::is_possible(a, 16, k) => Form::InPlace16,
            _ => Form::Rows,
        };
        Dots(form, Columns::of(n, Self::NR))
    }

    #[inline(always)]
    fn pack_a(self, piece: Piece<'_>, _: ProductFormat, to: &mut [u16]) {
        match self.0 {
            Form::Rows => pack::tiles_a::<Bf16>(piece, to),
            Form::Pairs => pack::tiles_b::<Bf16>(piece, to),
            Form::InPlace => addresses::<TILE_STEP>(piece, to),
            Form::InPlace16 => addresses::<16>(piece, to),
        }
    }

    #[inline(always)]
    fn pack_b(self, piece: Piece<'_>, _: ProductFormat, to: &mut [u16]) {
        pack::tiles_b::<Bf16>(piece, to);
    }

    #[inline(always)]
    unsafe fn tile(self, k: usize, a: *const u16, b: *const u16, acc: *mut f32, add: bool) {
        // SAFETY: passed on to the caller: rows of 32 f32, one after the other.
        unsafe {
            match self.1 {
                Columns::Half => block::<1>(self.0, k / TILE_STEP, a, b, acc, 32, add),
                Columns::All => block::<2>(self.0, k / TILE_STEP, a, b, acc, 32, add),
            }
        }
    }
}

impl TileUnit for Dots {
    fn planes(&self) -> usize {
        1
    }
    fn prepare(&self) {}
    fn pack_left(&self, piece: Piece<'_>, to: &mut [u16]) {
        pack::<_, true>(*self, piece, ProductFormat::Bf16, to);
    }
    fn pack_right(&self, piece: Piece<'_>, to: &mut [u16]) {
        pack::<_, false>(*self, piece, ProductFormat::Bf16, to);
    }
    unsafe fn block(&self, steps: usize, a: *const u16, b: *const u16, c: *mut f32, c_row: usize, add: bool) {
        // SAFETY: passed on to the caller.
        unsafe { block::<2>(self.0, steps, a, b, c, c_row, add) }
    }
}
