//! The engines for AMX: bf16 products of tiles, and f16 as four bf16 products.
//!
//! `tdpbf16ps` treats bf16 subnormals (below 2^-126) as zero and flushes f32 subnormals of its sums to zero, so for
//! bf16 operands the error bound of a product of length k carries, besides the rounding of the sum,
//! k · 2^-126 · (max|a| + max|b| + 1). For f16 nothing is ever flushed: see [`super::element`].

use std::arch::asm;
use std::ops::Range;

use super::engine::Engine;
use super::pack::TILE_STEP;
use super::scratch::Scratch;
use super::source::Source;
use super::{Compute, pack};
use crate::isa::{Isa, Kernel, Level};

/// Proof that this processor has tiles.
#[derive(Clone, Copy)]
pub(crate) struct Tiles(());

impl Tiles {
    pub(crate) fn new(isa: Isa) -> Option<Tiles> {
        (isa.level() >= Level::Amx).then_some(Tiles(()))
    }
}

/// bf16 by bf16 to f32, 32 × 32 in four tiles.
#[derive(Clone, Copy)]
pub(crate) struct AmxBf16(pub(crate) Tiles);

/// f16 by f16 to f32 with exact products: both operands split into two bf16, four products.
#[derive(Clone, Copy)]
pub(crate) struct AmxF16(pub(crate) Tiles);

/// The configuration of all eight tiles as 16 rows of 64 bytes (Intel's manual, LDTILECFG: palette 1).
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
        // SAFETY: `Tiles` proves that the processor and the operating system allow tiles; the operand is 64 bytes.
        unsafe { asm!("ldtilecfg [{config}]", config = in(reg) &CONFIG, options(nostack, readonly)) };
    }
}

/// Loads the four accumulators from `acc[32][32]`, or zeroes them.
///
/// # Safety
/// The tiles are configured, and `acc` points to 1024 f32.
#[inline(always)]
unsafe fn begin(acc: *mut f32, add: bool) {
    // The second pair lies 16 rows of 128 bytes on; the right tile of a pair 64 bytes on.
    if add {
        // SAFETY: reads the 4 KiB at `acc` only.
        unsafe {
            asm!(
                "tileloadd tmm0, [{p} + {s}*1]",
                "tileloadd tmm1, [{p} + {s}*1 + 64]",
                "tileloadd tmm2, [{p} + {s}*1 + 2048]",
                "tileloadd tmm3, [{p} + {s}*1 + 2112]",
                p = in(reg) acc, s = in(reg) 128usize,
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

/// Stores the four accumulators to `acc[32][32]`.
///
/// # Safety
/// The tiles are configured, and `acc` points to 1024 f32.
#[inline(always)]
unsafe fn end(acc: *mut f32) {
    // SAFETY: writes the 4 KiB at `acc` only.
    unsafe {
        asm!(
            "tilestored [{p} + {s}*1], tmm0",
            "tilestored [{p} + {s}*1 + 64], tmm1",
            "tilestored [{p} + {s}*1 + 2048], tmm2",
            "tilestored [{p} + {s}*1 + 2112], tmm3",
            p = in(reg) acc, s = in(reg) 128usize,
            options(nostack)
        );
    }
}

macro_rules! packing {
    ($parts:expr) => {
        #[inline(always)]
        fn enter<K: Kernel>(self, kernel: K) -> K::Output {
            // SAFETY: AMX is a level above AVX-512, and `Tiles` proves it.
            unsafe { crate::isa::run_avx512(kernel) }
        }
        #[inline(always)]
        fn pack_a(self, a: &Source<'_>, _: Compute, outer: Range<usize>, k: Range<usize>, to: &mut [u16]) {
            pack::tiles_a::<$parts>(a, outer, k, to);
        }
        #[inline(always)]
        fn pack_b(self, b: &Source<'_>, _: Compute, outer: Range<usize>, k: Range<usize>, to: &mut [u16]) {
            pack::tiles_b::<$parts>(b, outer, k, to);
        }
        fn prepare(self) {
            configure(self.0);
        }
        #[inline(always)]
        unsafe fn tile(self, k: usize, a: *const u16, b: *const u16, acc: *mut f32, add: bool) {
            // SAFETY: passed on to the caller.
            unsafe { self.tile_between(k, a, b, acc, add, || {}) }
        }
    };
}

// SAFETY: `Tiles::new` wants an `Isa` of that level.
unsafe impl Engine for AmxBf16 {
    type Unit = u16;
    const MR: usize = 32;
    const NR: usize = 32;
    const STEP: usize = TILE_STEP;
    const KC: usize = 640;
    const MC: usize = 32;
    const RESIDENT_B: usize = 640 << 10;
    const BETWEEN: bool = true;
    const PARTS: usize = 1;

    packing!(1);

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
        // SAFETY: passed on to the caller. Tile registers keep their values from one `asm!` to the next: the compiler
        // does not know them, so nothing else uses them.
        unsafe {
            begin(acc, add);
            for step in 0..k / TILE_STEP {
                bf16_step(a.add(step * 1024), b.add(step * 1024));
                between();
            }
            end(acc);
        }
    }
}

// SAFETY: `Tiles::new` wants an `Isa` of that level.
unsafe impl Engine for AmxF16 {
    type Unit = u16;
    const MR: usize = 32;
    const NR: usize = 32;
    const STEP: usize = TILE_STEP;
    const KC: usize = 640;
    const MC: usize = 32;
    const RESIDENT_B: usize = 640 << 10;
    const BETWEEN: bool = true;
    const PARTS: usize = 2;

    packing!(2);

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
        // SAFETY: as for bf16.
        unsafe {
            begin(acc, add);
            for step in 0..k / TILE_STEP {
                f16_step(a.add(step * 2048), b.add(step * 2048));
                between();
            }
            end(acc);
        }
    }
}

/// Adds the products of one step of 32 k: two tiles of A by two of B.
///
/// # Safety
/// The tiles are configured, and each pointer has 2 KiB behind it.
#[inline(always)]
unsafe fn bf16_step(a: *const u16, b: *const u16) {
    // SAFETY: reads what the caller vouches for. B streams from the second-level cache: `tileloaddt1` keeps it from
    // evicting A from the first.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a} + {s}*1]",
            "tileloaddt1 tmm6, [{b} + {s}*1]",
            "tileloaddt1 tmm7, [{b} + {s}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            a = in(reg) a, b = in(reg) b, s = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// Adds the products of one step of 32 k: the high and low parts of two tiles of A by those of two tiles of B.
///
/// # Safety
/// The tiles are configured, and each pointer has 4 KiB behind it: high parts, then low parts.
#[inline(always)]
unsafe fn f16_step(a: *const u16, b: *const u16) {
    // SAFETY: reads what the caller vouches for. Low by low comes first, so that the smallest products meet the sum
    // together; the order of loads reuses each tile for two passes.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a} + {s}*1 + 2048]",
            "tileloaddt1 tmm6, [{b} + {s}*1 + 2048]",
            "tileloaddt1 tmm7, [{b} + {s}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s}*1 + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {s}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloaddt1 tmm6, [{b} + {s}*1]",
            "tileloaddt1 tmm7, [{b} + {s}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {s}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s}*1 + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            a = in(reg) a, b = in(reg) b, s = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// Multiplies panels that stay in the first-level cache: the most that the micro-kernel can do. Returns the number of
/// operations, 0 without tiles.
pub(crate) fn tile_peak(isa: Isa) -> f64 {
    const K: usize = 256;
    const TIMES: usize = 4000;
    let Some(tiles) = Tiles::new(isa) else { return 0.0 };
    let engine = AmxBf16(tiles);
    let mut scratch = Scratch::new();
    let panel = 2 * 32 * K;
    let base = scratch.take(2 * panel + 4 * 32 * 32);
    engine.prepare();
    for _ in 0..TIMES {
        // SAFETY: three regions of the scratch memory just taken, each a multiple of 64 bytes long; the values in them,
        // whatever they are, change neither the work nor its time.
        unsafe { engine.tile(K, base.cast(), base.add(panel).cast(), base.add(2 * panel).cast(), true) };
    }
    (2 * 32 * 32 * K * TIMES) as f64
}
