//! Micro-kernels: the product of one packed panel of A with one of B, for each instruction set.

use super::scratch::{Scratch, whole_lines};
use super::source::{Piece, Source};
use super::{ProductFormat, pack};
use crate::isa::Kernel;

/// How one instruction set packs blocks and multiplies packed panels.
///
/// # Safety
/// Whoever makes a value of an implementing type has checked that the processor runs its
/// instructions.
pub(crate) unsafe trait MicroKernel: Copy + Sync {
    /// What packed panels are made of.
    type Unit: Copy + Send + Sync;
    /// Rows of a panel of A.
    const MR: usize;
    /// Columns of a panel of B.
    const NR: usize;
    /// Packed k come in whole steps of this many.
    const STEP: usize;
    /// Packed units per element.
    const PARTS: usize;
    /// The longest k block: accumulators go to memory between blocks. It decides the order of
    /// summation.
    const KC: usize;
    /// Rows of A packed at a time; whole panels.
    const MC: usize;
    /// Units of packed B that should stay in the second-level cache while a thread walks down the
    /// rows; 0 where only the panel in use matters, because it lies in the first-level cache.
    const RESIDENT_B: usize = 0;
    /// Whether [`MicroKernel::tile_between`] can do other work between its steps.
    const BETWEEN: bool = false;

    /// Runs `kernel` compiled for the micro-kernel's instruction set.
    fn enter<K: Kernel>(self, kernel: K) -> K::Output;
    /// The micro-kernel for an LHS of `k` columns and `n` columns of the result, where it can
    /// choose.
    fn for_product(self, _a: &Source<'_>, _compute: ProductFormat, _k: usize, _n: usize) -> Self {
        self
    }
    /// Packs rows `outer` and columns `k` of A into panels of [`MicroKernel::MR`]; or writes there
    /// what [`MicroKernel::tile`] takes instead, such as where the rows lie.
    fn pack_a(self, piece: Piece<'_>, compute: ProductFormat, to: &mut [Self::Unit]);
    /// Packs rows `k` and columns `outer` of B into panels of [`MicroKernel::NR`].
    fn pack_b(self, piece: Piece<'_>, compute: ProductFormat, to: &mut [Self::Unit]);
    /// What a thread does before its first block of a computation.
    fn prepare(self) {}

    /// `acc[MR][NR]` = A·B, or `acc += A·B` where `add`, over `k` (in packed k, whole steps);
    /// columns that [`MicroKernel::for_product`] said are not there may keep what they held.
    ///
    /// # Safety
    /// `a` and `b` point to panels of `k` packed k as this micro-kernel packs them, `acc` to MR·NR
    /// f32, each aligned to 64 bytes; [`MicroKernel::prepare`] has run on this thread; the call is
    /// made from code compiled for the micro-kernel's instruction set ([`MicroKernel::enter`]).
    unsafe fn tile(self, k: usize, a: *const Self::Unit, b: *const Self::Unit, acc: *mut f32, add: bool);

    /// [`MicroKernel::tile`], calling `between` after each step where [`MicroKernel::BETWEEN`].
    ///
    /// # Safety
    /// As [`MicroKernel::tile`]; `between` leaves `acc` and the panels alone.
    #[inline(always)]
    unsafe fn tile_between(
        self,
        k: usize,
        a: *const Self::Unit,
        b: *const Self::Unit,
        acc: *mut f32,
        add: bool,
        _between: impl FnMut(),
    ) {
        // SAFETY: passed on to the caller.
        unsafe { self.tile(k, a, b, acc, add) }
    }
}

/// Which columns of a panel of B are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// The first half: the product has no more.
    Half,
    /// All.
    All,
}

impl Columns {
    /// Of a product of `n` columns, with panels of `panel`.
    pub(super) fn of(n: usize, panel: usize) -> Columns {
        if n <= panel / 2 { Columns::Half } else { Columns::All }
    }
}

/// A micro-kernel of tiles as an object, for code that packs and multiplies blocks of its own and
/// is compiled once for all schemes. Panels have 32 outer indices and steps 32 k; see [`pack`] for
/// their layout.
pub(crate) trait TileUnit: Sync {
    /// Planes of an operand.
    fn planes(&self) -> usize;
    /// What a thread does before its first block.
    fn prepare(&self);
    /// Packs an LHS: rows `outer` and columns `k`.
    fn pack_left(&self, piece: Piece<'_>, to: &mut [u16]);
    /// Packs an RHS: rows `k` and columns `outer`.
    fn pack_right(&self, piece: Piece<'_>, to: &mut [u16]);
    /// C = A·B, or C += A·B where `add`, for 32 rows and 32 columns of C, whose rows are `c_row`
    /// elements apart, over `steps` steps.
    ///
    /// # Safety
    /// `a` and `b` point to that many steps of packed panels and `c` to such rows;
    /// [`TileUnit::prepare`] has run on this thread.
    unsafe fn block(&self, steps: usize, a: *const u16, b: *const u16, c: *mut f32, c_row: usize, add: bool);
}

/// The length of a packed panel of `width` outer indices and `k` columns, in units.
pub(crate) fn panel_units<M: MicroKernel>(width: usize, k: usize) -> usize {
    width * k.next_multiple_of(M::STEP) * M::PARTS
}

/// Multiplies panels that stay in the first-level cache: the most that the micro-kernel can do.
/// Returns the number of operations.
pub(crate) fn peak<M: MicroKernel>(micro_kernel: M) -> f64 {
    const K: usize = 256;
    const TIMES: usize = 4000;
    let mut scratch = Scratch::new();
    let bytes = |width: usize| whole_lines(panel_units::<M>(width, K) * size_of::<M::Unit>());
    let (a, b) = (bytes(M::MR), bytes(M::NR));
    let base = scratch.take(a + b + whole_lines(M::MR * M::NR * size_of::<f32>()));
    micro_kernel.prepare();
    for _ in 0..TIMES {
        micro_kernel.enter(Peak {
            micro_kernel,
            k: K,
            at: [base, base.wrapping_add(a), base.wrapping_add(a + b)],
        });
    }
    (2 * M::MR * M::NR * K * TIMES) as f64
}

struct Peak<M> {
    micro_kernel: M,
    k: usize,
    at: [*mut u8; 3],
}

impl<M: MicroKernel> Kernel for Peak<M> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [a, b, acc] = self.at;
        // SAFETY: three regions of the scratch memory that `peak` took, each a multiple of 64 bytes
        // long; the values in them, whatever they are, change neither the work nor its time.
        unsafe { self.micro_kernel.tile(self.k, a.cast(), b.cast(), acc.cast(), true) }
    }
}

/// Plain Rust, left to the compiler to vectorise; multiplication and addition round separately.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

// SAFETY: needs nothing of the processor.
unsafe impl MicroKernel for Portable {
    type Unit = f32;
    const MR: usize = 4;
    const NR: usize = 8;
    const STEP: usize = 1;
    const PARTS: usize = 1;
    const KC: usize = 384;
    const MC: usize = 96;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run()
    }

    #[inline(always)]
    fn pack_a(self, piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
        pack::panels_f32::<{ Self::MR }>(piece, compute, to);
    }
    #[inline(always)]
    fn pack_b(self, piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
        pack::panels_f32::<{ Self::NR }>(piece, compute, to);
    }

    #[inline(always)]
    unsafe fn tile(self, k: usize, a: *const f32, b: *const f32, acc: *mut f32, add: bool) {
        // SAFETY: the caller vouches for `k` packed columns behind each pointer.
        let (a, b) = unsafe { (std::slice::from_raw_parts(a, 4 * k), std::slice::from_raw_parts(b, 8 * k)) };
        // SAFETY: the caller vouches for 32 values.
        let acc = unsafe { &mut *acc.cast::<[[f32; 8]; 4]>() };
        let mut sum = [[0.0; 8]; 4];
        for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(8)) {
            for i in 0..4 {
                for j in 0..8 {
                    sum[i][j] += a[i] * b[j];
                }
            }
        }
        for (acc, sum) in acc.iter_mut().zip(&sum) {
            for (acc, &sum) in acc.iter_mut().zip(sum) {
                *acc = if add { *acc + sum } else { sum };
            }
        }
    }
}
