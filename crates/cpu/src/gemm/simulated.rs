//! For tests: the packing, blocking and storing of AMX with the tile instructions in plain Rust, so
//! that all but the instructions themselves is tested on processors without them.

use std::marker::PhantomData;

use halfstep_float::{f32_from_bf16, f32_from_f16};

use super::micro_kernel::{MicroKernel, TileUnit};
use super::run::pack;
use super::scheme::{Scheme, TileFormat};
use super::source::Piece;
use super::{ProductFormat, pack};
use crate::isa::{Isa, Kernel};

/// A micro-kernel in the place of `Amx` with the same scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimulatedTiles<S>(PhantomData<S>);

impl<S> SimulatedTiles<S> {
    pub(crate) fn new() -> Self {
        SimulatedTiles(PhantomData)
    }
}

#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// The operands of an instruction: bf16 subnormals are zero, f16's are not.
#[inline(always)]
fn decode(format: TileFormat, codes: &[u16]) -> [f32; 1024] {
    let mut values = [0.0; 1024];
    for (value, &code) in values.iter_mut().zip(codes) {
        *value = match format {
            TileFormat::Bf16 => flush(f32_from_bf16(code)),
            TileFormat::F16 => f32_from_f16(code),
        };
    }
    values
}

/// C += A·B for one step of 32 k, by `tdpbf16ps` or `tdpfp16ps` (Intel's manual): even and odd k in
/// two chains of multiply-adds, added at the end; subnormal results are zero. Rows of C are `c_row`
/// apart.
#[inline(always)]
fn step<S: Scheme>(a: &[u16], b: &[u16], c: *mut f32, c_row: usize) {
    for &(plane_a, plane_b) in S::PASSES {
        let a = decode(S::FORMAT, &a[plane_a * 1024..][..1024]);
        let b = decode(S::FORMAT, &b[plane_b * 1024..][..1024]);
        for (tile, b) in b.as_chunks::<512>().0.iter().enumerate() {
            for (row, a) in a.as_chunks::<32>().0.iter().enumerate() {
                // SAFETY: the callers have 32 rows of 32.
                let c = unsafe { &mut *c.add(row * c_row + tile * 16).cast::<[f32; 16]>() };
                let mut sums = [[0f32; 2]; 16];
                for (a, b) in a.as_chunks::<2>().0.iter().zip(b.as_chunks::<32>().0) {
                    for (sums, b) in sums.iter_mut().zip(b.as_chunks::<2>().0) {
                        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                            *sum = flush(a.mul_add(b, *sum));
                        }
                    }
                }
                for (c, sums) in c.iter_mut().zip(sums) {
                    *c = flush(flush(*c) + flush(sums[0] + sums[1]));
                }
            }
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
unsafe impl<S: Scheme> MicroKernel for SimulatedTiles<S> {
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
    fn pack_a(self, piece: Piece<'_>, _: ProductFormat, to: &mut [u16]) {
        pack::tiles_a::<S>(piece, to);
    }

    #[inline(always)]
    fn pack_b(self, piece: Piece<'_>, _: ProductFormat, to: &mut [u16]) {
        pack::tiles_b::<S>(piece, to);
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

/// One call of [`TileUnit::block`], to be compiled for vectors.
struct Block<S> {
    steps: usize,
    a: *const u16,
    b: *const u16,
    c: *mut f32,
    c_row: usize,
    add: bool,
    scheme: PhantomData<S>,
}

impl<S: Scheme> Kernel for Block<S> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        // SAFETY: as the caller of `block` promised.
        unsafe {
            SimulatedTiles::<S>::product(self.steps, self.a, self.b, self.c, self.c_row, self.add, || {});
        }
    }
}

impl<S: Scheme> TileUnit for SimulatedTiles<S> {
    fn planes(&self) -> usize {
        S::PLANES
    }
    fn prepare(&self) {}
    fn pack_left(&self, piece: Piece<'_>, to: &mut [u16]) {
        pack::<_, true>(*self, piece, S::COMPUTE, to);
    }
    fn pack_right(&self, piece: Piece<'_>, to: &mut [u16]) {
        pack::<_, false>(*self, piece, S::COMPUTE, to);
    }
    unsafe fn block(&self, steps: usize, a: *const u16, b: *const u16, c: *mut f32, c_row: usize, add: bool) {
        self.enter(Block::<S> { steps, a, b, c, c_row, add, scheme: PhantomData });
    }
}
