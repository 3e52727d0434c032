//! For tests: the packing, blocking and storing of AMX with the tile instruction in plain Rust, so that all but the
//! instructions themselves is tested on processors without them.

use std::ops::Range;

use halfstep_float::f32_from_bf16;

use super::engine::Engine;
use super::source::Source;
use super::{Compute, pack};
use crate::isa::{Isa, Kernel};

/// An engine in the place of `AmxBf16` (one part) or `AmxF16` (two parts).
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimulatedTiles<const PARTS: usize>;

/// One element of `tdpbf16ps` (Intel's manual): even and odd k in two chains of multiply-adds, added at the end;
/// subnormal operands and results are zero.
#[inline(always)]
fn tdpbf16ps(acc: f32, a: &[u16], b: impl Fn(usize) -> u16) -> f32 {
    let flush = |x: f32| if x.is_subnormal() { 0.0 } else { x };
    let mut sums = [0f32; 2];
    for (k, &a) in a.iter().enumerate() {
        let (a, b) = (flush(f32_from_bf16(a)), flush(f32_from_bf16(b(k))));
        sums[k % 2] = flush(a.mul_add(b, sums[k % 2]));
    }
    flush(flush(acc) + flush(sums[0] + sums[1]))
}

// SAFETY: needs nothing of the processor.
unsafe impl<const PARTS: usize> Engine for SimulatedTiles<PARTS> {
    type Unit = u16;
    const MR: usize = 32;
    const NR: usize = 32;
    const STEP: usize = 32;
    const PARTS: usize = PARTS;
    const KC: usize = 640;
    const MC: usize = 32;
    const RESIDENT_B: usize = 640 << 10;
    const BETWEEN: bool = true;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        // For speed alone: a multiply-add is a function call on the portable level.
        Isa::best().run(kernel)
    }

    #[inline(always)]
    fn pack_a(self, a: &Source<'_>, _: Compute, outer: Range<usize>, k: Range<usize>, to: &mut [u16]) {
        pack::tiles_a::<PARTS>(a, outer, k, to);
    }

    #[inline(always)]
    fn pack_b(self, b: &Source<'_>, _: Compute, outer: Range<usize>, k: Range<usize>, to: &mut [u16]) {
        pack::tiles_b::<PARTS>(b, outer, k, to);
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
        let len = k / 32 * PARTS * 1024;
        // SAFETY: the caller vouches for the panels and the sums.
        let (a, b, acc) = unsafe {
            let acc = std::slice::from_raw_parts_mut(acc, 1024);
            (std::slice::from_raw_parts(a, len), std::slice::from_raw_parts(b, len), acc)
        };
        if !add {
            acc.fill(0.0);
        }
        for (a, b) in a.chunks(PARTS * 1024).zip(b.chunks(PARTS * 1024)) {
            for pass in (0..PARTS * PARTS).rev() {
                let (a, b) = (&a[pass % PARTS * 1024..][..1024], &b[pass / PARTS * 1024..][..1024]);
                for (i, acc) in acc.iter_mut().enumerate() {
                    let (row, column) = (i / 32, i % 32);
                    let tile = &b[column / 16 * 512..][..512];
                    let at = |k: usize| tile[k / 2 * 32 + column % 16 * 2 + k % 2];
                    *acc = tdpbf16ps(*acc, &a[row * 32..][..32], at);
                }
            }
            between();
        }
    }
}
