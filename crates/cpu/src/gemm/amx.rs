//! The micro-kernel for AMX: products of tiles by `tdpbf16ps`, and by `tdpfp16ps` where the
//! processor has it.
//!
//! `tdpbf16ps` treats bf16 subnormals (below 2^-126) as zero and flushes f32 subnormals of its sums
//! to zero, so for bf16 operands the error bound of a product of length k carries, besides the
//! rounding of the sum, k · 2^-126 · (max|a| + max|b| + 1). For f16 nothing is ever flushed: by
//! bf16 parts see [`super::element`]; `tdpfp16ps` takes f16 subnormals as they are, and its
//! products are multiples of 2^-48.

use std::arch::asm;
use std::marker::PhantomData;

use super::ProductFormat;
use super::micro_kernel::{MicroKernel, TileUnit};
use super::pack::{self, TILE_STEP};
use super::run::pack;
use super::scheme::{Scheme, TileFormat};
use super::source::Piece;
use crate::isa::{Isa, Kernel, Level};

/// Proof that this processor has tiles, and whether they take f16.
#[derive(Clone, Copy)]
pub(crate) struct Tiles(Level);

impl Tiles {
    pub(crate) fn new(isa: Isa) -> Option<Tiles> {
        (isa.level() >= Level::Amx).then_some(Tiles(isa.level()))
    }

    /// Whether there is `tdpfp16ps`.
    pub(crate) fn takes_f16(self) -> bool {
        self.0 >= Level::AmxFp16
    }
}

/// Products by tiles, 32 × 32 in four of them.
#[derive(Clone, Copy)]
pub(crate) struct Amx<S>(Tiles, PhantomData<S>);

impl<S: Scheme> Amx<S> {
    /// # Panics
    /// If the scheme takes f16 tiles and the processor does not.
    pub(crate) fn new(tiles: Tiles) -> Amx<S> {
        assert!(S::FORMAT == TileFormat::Bf16 || tiles.takes_f16(), "no f16 tiles here");
        Amx(tiles, PhantomData)
    }
}

/// The configuration of all eight tiles as 16 rows of 64 bytes (Intel's manual, LDTILECFG: palette
/// 1).
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Configures the tiles of this thread, once.
fn configure(_: Tiles) {
    thread_local!(static DONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if !DONE.replace(true) {
        // SAFETY: `Tiles` proves that the processor and the operating system allow tiles; the
        // operand is 64 bytes.
        unsafe { asm!("ldtilecfg [{config}]", config = in(reg) &CONFIG, options(nostack, readonly)) };
    }
}

/// Loads the four accumulators from 32 rows of 32 f32 that are `stride` bytes apart, or zeroes
/// them.
///
/// # Safety
/// The tiles are configured, and `acc` points to such rows.
#[inline(always)]
unsafe fn begin(acc: *mut f32, stride: usize, add: bool) {
    // The right tile of a pair lies 64 bytes on.
    if add {
        // SAFETY: reads those rows only.
        unsafe {
            asm!(
                "tileloadd tmm0, [{p} + {s}*1]",
                "tileloadd tmm1, [{p} + {s}*1 + 64]",
                "tileloadd tmm2, [{q} + {s}*1]",
                "tileloadd tmm3, [{q} + {s}*1 + 64]",
                p = in(reg) acc, q = in(reg) acc.byte_add(16 * stride), s = in(reg) stride,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly)
            );
        }
    } else {
        // SAFETY: touches no memory.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem)
            );
        }
    }
}

/// Stores the four accumulators to 32 rows of 32 f32 that are `stride` bytes apart.
///
/// # Safety
/// The tiles are configured, and `acc` points to such rows.
#[inline(always)]
unsafe fn end(acc: *mut f32, stride: usize) {
    // SAFETY: writes those rows only.
    unsafe {
        asm!(
            "tilestored [{p} + {s}*1], tmm0",
            "tilestored [{p} + {s}*1 + 64], tmm1",
            "tilestored [{q} + {s}*1], tmm2",
            "tilestored [{q} + {s}*1 + 64], tmm3",
            p = in(reg) acc, q = in(reg) acc.byte_add(16 * stride), s = in(reg) stride,
            options(nostack)
        );
    }
}

/// One instruction on tiles that reads 1 KiB behind `$p`, or none.
macro_rules! tiles {
    ($instruction:literal, $p:expr) => {
        // SAFETY: reads what the caller vouches for. The compiler does not know tile registers, so
        // nothing else uses them and they keep their values from one `asm!` to the next.
        unsafe {
            asm!(
                $instruction, p = in(reg) $p, s = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags)
            )
        }
    };
    ($($instruction:literal),+) => {
        // SAFETY: touches no memory; registers as above.
        unsafe {
            asm!(
                $($instruction,)+
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags)
            )
        }
    };
}

/// Multiplies one pair of planes after loading those that are new: two tiles of A by two of B.
///
/// # Safety
/// The tiles are configured, `a` and `b` have 2 KiB behind them.
#[inline(always)]
unsafe fn pass<S: Scheme>(a: *const u16, new_a: bool, b: *const u16, new_b: bool) {
    if new_a {
        tiles!("tileloadd tmm4, [{p} + {s}*1]", a);
    }
    // B streams from the second-level cache: `tileloaddt1` keeps it from evicting A from the first.
    if new_b {
        tiles!("tileloaddt1 tmm6, [{p} + {s}*1]", b);
        tiles!("tileloaddt1 tmm7, [{p} + {s}*1 + 1024]", b);
    }
    match S::FORMAT {
        TileFormat::Bf16 => tiles!("tdpbf16ps tmm0, tmm4, tmm6"),
        TileFormat::F16 => tiles!("tdpfp16ps tmm0, tmm4, tmm6"),
    }
    if new_a {
        tiles!("tileloadd tmm5, [{p} + {s}*1 + 1024]", a);
    }
    match S::FORMAT {
        TileFormat::Bf16 => {
            tiles!("tdpbf16ps tmm1, tmm4, tmm7", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7");
        }
        TileFormat::F16 => {
            tiles!("tdpfp16ps tmm1, tmm4, tmm7", "tdpfp16ps tmm2, tmm5, tmm6", "tdpfp16ps tmm3, tmm5, tmm7");
        }
    }
}

/// Adds the products of one step of 32 k.
///
/// # Safety
/// The tiles are configured, and each pointer has the planes of one step behind it.
#[inline(always)]
unsafe fn step<S: Scheme>(a: *const u16, b: *const u16) {
    // Written out, so that the choices below are made when this is compiled.
    macro_rules! passes {
        ($($i:literal)+) => {
            $(if let Some(&(plane_a, plane_b)) = S::PASSES.get($i) {
                let before = if $i == 0 { None } else { S::PASSES.get($i - 1usize) };
                let new_a = before.is_none_or(|p| p.0 != plane_a);
                let new_b = before.is_none_or(|p| p.1 != plane_b);
                // SAFETY: the caller vouches for all planes.
                unsafe { pass::<S>(a.add(plane_a * 1024), new_a, b.add(plane_b * 1024), new_b) };
            })+
        };
    }
    const { assert!(S::PASSES.len() <= 6) };
    passes!(0 1 2 3 4 5);
}

// SAFETY: `Tiles::new` wants an `Isa` of that level.
unsafe impl<S: Scheme> MicroKernel for Amx<S> {
    type Unit = u16;
    const MR: usize = 32;
    const NR: usize = 32;
    const STEP: usize = TILE_STEP;
    const PARTS: usize = S::PLANES;
    const KC: usize = S::KC;
    const MC: usize = 32;
    const RESIDENT_B: usize = 640 << 10;
    const BETWEEN: bool = true;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: AMX is a level above AVX-512, and `Tiles` proves it.
        unsafe { crate::isa::run_avx512(kernel) }
    }

    #[inline(always)]
    fn pack_a(self, piece: Piece<'_>, _: ProductFormat, to: &mut [u16]) {
        pack::tiles_a::<S>(piece, to);
    }

    #[inline(always)]
    fn pack_b(self, piece: Piece<'_>, _: ProductFormat, to: &mut [u16]) {
        pack::tiles_b::<S>(piece, to);
    }

    fn prepare(self) {
        configure(self.0);
    }

    #[inline(always)]
    unsafe fn tile(self, k: usize, a: *const u16, b: *const u16, acc: *mut f32, add: bool) {
        // SAFETY: passed on to the caller.
        unsafe { self.tile_between(k, a, b, acc, add, || {}) }
    }

    #[inline(always)]
    unsafe fn tile_between(
        self,
        k: usize,
        a: *const u16,
        b: *const u16,
        acc: *mut f32,
        add: bool,
        mut between: impl FnMut(),
    ) {
        // SAFETY: passed on to the caller: rows of 32 f32, one after the other.
        unsafe {
            begin(acc, 128, add);
            for i in 0..k / TILE_STEP {
                step::<S>(a.add(i * S::PLANES * 1024), b.add(i * S::PLANES * 1024));
                between();
            }
            end(acc, 128);
        }
    }
}

impl<S: Scheme> TileUnit for Amx<S> {
    fn planes(&self) -> usize {
        S::PLANES
    }
    fn prepare(&self) {
        configure(self.0);
    }
    fn pack_left(&self, piece: Piece<'_>, to: &mut [u16]) {
        pack::<_, true>(*self, piece, S::COMPUTE, to);
    }
    fn pack_right(&self, piece: Piece<'_>, to: &mut [u16]) {
        pack::<_, false>(*self, piece, S::COMPUTE, to);
    }
    unsafe fn block(&self, steps: usize, a: *const u16, b: *const u16, c: *mut f32, c_row: usize, add: bool) {
        // SAFETY: passed on to the caller.
        unsafe {
            begin(c, 4 * c_row, add);
            for i in 0..steps {
                step::<S>(a.add(i * S::PLANES * 1024), b.add(i * S::PLANES * 1024));
            }
            end(c, 4 * c_row);
        }
    }
}
