//! For tests: the packing, blocking and storing of AMX with the tile instructions in plain Rust, so that all but the
//! instructions themselves is tested on processors without them.

use std::marker::PhantomData;
use std::ops::Range;

use halfstep_float::{f32_from_bf16, f32_from_f16};

use super::engine::{Engine, Tiled};
use super::scheme::{Scheme, TileFormat};
use super::source::Source;
use super::{Compute, pack};
use crate::isa::{Isa, Kernel};

/// An engine in the place of `Amx` with the same scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimulatedTiles<S>(PhantomData<S>);

impl<S> SimulatedTiles<S> {
    pub(crate) fn new() -> Self {
        SimulatedTiles(PhantomData)
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0 } else { x }
}

/// An operand as the instruction takes it: bf16 subnormals are zero, f16's are not.
#[inline(always)]
fn operand(format: TileFormat, code: u16) -> f32 {
    match format {
        TileFormat::Bf16 => flush(f32_from_bf16(code)),
        TileFormat::F16 => f32_from_f16(code),
    }
}

/// One element of `tdpbf16ps` or `tdpfp16ps` (Intel's manual): even and odd k in two chains of multiply-adds, added at the
/// end; subnormal results are zero.
#[inline(always)]
fn dot(format: TileFormat, acc: f32, a: &[u16], b: impl Fn(usize) -> u16) -> f32 {
    let mut sums = [0f32; 2];
    for (k, &a) in a.iter().enumerate() {
        sums[k % 2] = flush(operand(format, a).mul_add(operand(format, b(k)), sums[k % 2]));
    }
    flush(flush(acc) + flush(sums[0] + sums[1]))
}

/// C += A·B for one step of 32 k: rows of C are `c_row` apart.
#[inline(always)]
fn step<S: Scheme>(a: &[u16], b: &[u16], c: *mut f32, c_row: usize) {
    for &(plane_a, plane_b) in S::PASSES {
        let (a, b) = (&a[plane_a * 1024..][..1024], &b[plane_b * 1024..][..1024]);
        for (row, column) in (0..32).flat_map(|row| (0..32).map(move |column| (row, column))) {
            let tile = &b[column / 16 * 512..][..512];
            let at = |k: usize| tile[k / 2 * 32 + column % 16 * 2 + k % 2];
            // SAFETY: the callers have 32 rows of 32.
            let c = unsafe { &mut *c.add(row * c_row + column) };
            *c = dot(S::FORMAT, *c, &a[row * 32..][..32], at);
        }
    }
}

impl<S: Scheme> SimulatedTiles<S> {
    /// # Safety
    /// `a` and `b` point to panels of that many steps, `c` to 32 rows of 32 f32, `c_row` apart.
    #[inline(always)]
    unsafe fn product(
        steps: usize,
        a: *const u16,
        b: *const u16,
        c: *mut f32,
        c_row: usize,
        add: bool,
        mut between: impl FnMut(),
    ) {
        let planes = S::PLANES * 1024;
        // SAFETY: the caller vouches for the panels and the sums.
        let (a, b) = unsafe {
            for row in 0..if add { 0 } else { 32 } {
                c.add(row * c_row).write_bytes(0, 32);
            }
            (std::slice::from_raw_parts(a, steps * planes), std::slice::from_raw_parts(b, steps * planes))
        };
        for (a, b) in a.chunks(planes).zip(b.chunks(planes)) {
            step::<S>(a, b, c, c_row);
            between();
        }
    }
}

// SAFETY: needs nothing of the processor.
unsafe impl<S: Scheme> Engine for SimulatedTiles<S> {
    type Unit = u16;
    const MR: usize = 32;
    const NR: usize = 32;
    const STEP: usize = 32;
    const PARTS: usize = S::PLANES;
    const KC: usize = S::KC;
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
        pack::tiles_a::<S>(a, outer, k, to);
    }

    #[inline(always)]
    fn pack_b(self, b: &Source<'_>, _: Compute, outer: Range<usize>, k: Range<usize>, to: &mut [u16]) {
        pack::tiles_b::<S>(b, outer, k, to);
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
        between: impl FnMut(),
    ) {
        // SAFETY: passed on to the caller.
        unsafe { Self::product(k / 32, a, b, acc, 32, add, between) }
    }
}

// SAFETY: as above.
unsafe impl<S: Scheme> Tiled for SimulatedTiles<S> {
    #[inline(always)]
    unsafe fn block(self, steps: usize, a: *const u16, b: *const u16, c: *mut f32, c_row: usize, add: bool) {
        // SAFETY: passed on to the caller.
        unsafe { Self::product(steps, a, b, c, c_row, add, || {}) }
    }
}
