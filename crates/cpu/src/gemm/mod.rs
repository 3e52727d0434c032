//! Matrix products: C = A·B in f32, bf16 or f16 with f32 accumulation, on every instruction set.
//!
//! Blocking follows Goto and van de Geijn, "Anatomy of high-performance matrix multiplication"
//! (2008), and BLIS: operands are packed into panels, which also brings every layout and storage
//! format to one form. Products of 16-bit operands are exact and sums are f32, as on a tensor core:
//! by tiles where the processor has them, otherwise by converting to f32 (exactly) while packing.
//!
//! For C = A·B with K terms the error of an element before the output's own rounding is at most
//! γ_K · Σ|a||b| with γ_K = K·u / (1 − K·u), u = 2^-24 (Higham, "Accuracy and Stability", §3.1),
//! whatever the order of summation; with tiles see [`ProductFormat::Bf16`]. The order depends on
//! shape, formats and instruction set, never on the number of threads.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dot;
mod element;
mod epilogue;
#[cfg(target_arch = "x86_64")]
mod in_place;
mod micro_kernel;
mod pack;
mod plan;
mod run;
mod scattered;
pub(crate) mod scheme;
mod scratch;
#[cfg(test)]
pub(crate) mod simulated;
mod sink;
mod source;
#[cfg(test)]
pub(crate) mod tests;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod vector;

pub use scratch::Scratch;

pub(crate) use epilogue::BlockEpilogue;
pub(crate) use micro_kernel::TileUnit;
pub(crate) use plan::{Extents, Operands, Packing};
pub(crate) use run::Problem;
pub(crate) use sink::{Destination, OutRows, Sink};
pub(crate) use source::{Along, Gather, Piece, Source, Window};

use halfstep_graph::Split;

use crate::elements::{Dst, Src};
use crate::isa::{Isa, Level};
use crate::pool::Pool;
use plan::Plan;

/// What kernels run on.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// The threads.
    pub pool: &'a Pool,
    /// Working memory, which grows where it is too small.
    pub scratch: &'a mut Scratch,
}

/// The format that products are computed in; sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProductFormat {
    /// f32 multiply-add.
    F32,
    /// Exact products of bf16 operands. AMX treats operands below 2^-126 as zero and flushes
    /// subnormal sums to zero, so on it the error bound of an element carries K · 2^-126 · (1 +
    /// max|a| + max|b|) more.
    Bf16,
    /// Exact products of f16 operands; on AMX without f16 tiles by four products of bf16 parts, 4·K
    /// terms in the sum instead of K.
    F16,
    /// Of [`Split::Tf32`]: f32 multiply-add of f32 operands rounded to tf32, whose products are
    /// exact in f32. Of the others: products of f32 operands within [`Split::bound`] · Σ|a||b| of
    /// the exact ones. On AMX by products of bf16 terms: 3·K or 6·K terms in the sum, and as many
    /// times the underflow of [`ProductFormat::Bf16`]; a partial sum within 2^-7 of f32's maximum
    /// may overflow. Elsewhere as [`ProductFormat::F32`].
    Split(Split),
}

impl ProductFormat {
    /// Whether a processor with tiles multiplies by them.
    pub(crate) fn has_tiles(self) -> bool {
        !matches!(self, ProductFormat::F32 | ProductFormat::Split(Split::Tf32))
    }
}

/// Shape and strides of a stored matrix, in elements. Element (i, j) of batch (p, q) is at
/// `p·batch_strides[0] + q·batch_strides[1] + i·row_stride + j·column_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
    /// Distances between batches; zero repeats the same matrix.
    pub batch_strides: [usize; 2],
}

impl Layout {
    /// A dense matrix, rows one after the other.
    pub fn row_major(rows: usize, columns: usize) -> Layout {
        Layout { rows, columns, row_stride: columns, column_stride: 1, batch_strides: [0, 0] }
    }

    /// The transposed view of the same elements.
    #[must_use]
    pub fn transposed(self) -> Layout {
        Layout {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            batch_strides: self.batch_strides,
        }
    }

    /// The same with these distances between batches.
    #[must_use]
    pub fn with_batch_strides(self, strides: [usize; 2]) -> Layout {
        Layout { batch_strides: strides, ..self }
    }

    /// The number of elements that the slice must have, or `None` where that overflows; 0 for an
    /// empty matrix.
    fn span(&self, batch: [usize; 2]) -> Option<usize> {
        let dims = [
            (batch[0], self.batch_strides[0]),
            (batch[1], self.batch_strides[1]),
            (self.rows, self.row_stride),
            (self.columns, self.column_stride),
        ];
        if dims.iter().any(|d| d.0 == 0) {
            return Some(0);
        }
        dims.iter().try_fold(1usize, |last, (n, stride)| last.checked_add((n - 1).checked_mul(*stride)?))
    }

    /// Whether no two index tuples name the same element (sufficient: each stride spans the
    /// dimensions below it).
    fn is_injective(&self, batch: [usize; 2]) -> bool {
        let mut dims = [
            (self.batch_strides[0], batch[0]),
            (self.batch_strides[1], batch[1]),
            (self.row_stride, self.rows),
            (self.column_stride, self.columns),
        ];
        dims.sort_unstable();
        let mut span = 1usize;
        dims.into_iter().filter(|d| d.1 > 1).all(|(stride, n)| {
            let fits = stride >= span;
            let whole = (n - 1).checked_mul(stride).and_then(|d| d.checked_add(span));
            span = whole.unwrap_or(usize::MAX);
            fits && whole.is_some()
        })
    }
}

/// An operand.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements: of the compute format; or f32, which is rounded to the compute format on the
    /// way; or for bf16 8-bit codes, whose values bf16 holds exactly.
    pub data: Src<'a>,
    /// Where they lie.
    pub layout: Layout,
}

/// An output: adjacent columns, and no element twice.
#[derive(Debug)]
pub struct Output<'a> {
    /// The elements.
    pub data: Dst<'a>,
    /// Where they lie.
    pub layout: Layout,
}

/// C = A·B + bias for each batch.
#[derive(Debug)]
pub struct GemmArgs<'a> {
    /// Extents of the two batch dimensions; `[1, 1]` for a single product.
    pub batch: [usize; 2],
    /// A, M × K.
    pub a: Operand<'a>,
    /// B, K × N.
    pub b: Operand<'a>,
    /// C, M × N.
    pub c: Output<'a>,
    /// The format of the products.
    pub compute: ProductFormat,
    /// One value per column of C.
    pub bias: Option<&'a [f32]>,
}

/// Why a product cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Dimensions that must agree do not.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// Which dimension.
        what: &'static str,
        /// What the other arguments call for.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A slice does not reach as far as its layout says.
    #[error("{operand} holds {found} elements, but its layout needs {needed}")]
    TooShort {
        /// Which operand.
        operand: &'static str,
        /// Elements that the layout spans; `usize::MAX` where that number overflows.
        needed: usize,
        /// Elements that there are.
        found: usize,
    },
    /// An operand is stored in a format that the product cannot take.
    #[error(
        "{operand} is stored as {stored}, but the product computes in {compute:?}; store it so or as f32"
    )]
    Storage {
        /// Which operand.
        operand: &'static str,
        /// Its storage.
        stored: &'static str,
        /// The format of the product.
        compute: ProductFormat,
    },
    /// The output's columns are not adjacent, or its layout names an element twice.
    #[error("the layout of {operand} must have adjacent columns and name no element twice")]
    Overlap {
        /// Which operand.
        operand: &'static str,
    },
    /// A size that the kernel cannot handle.
    #[error("{what} is {found}; it must be {requirement}")]
    Size {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: usize,
        /// What is allowed.
        requirement: &'static str,
    },
}

pub(crate) fn check_storage(
    operand: &'static str,
    data: Src<'_>,
    compute: ProductFormat,
) -> Result<(), KernelError> {
    let stored = match (data, compute) {
        (Src::F32(_), _)
        | (Src::Bf16(_) | Src::E4m3(_) | Src::E5m2(_), ProductFormat::Bf16)
        | (Src::F16(_), ProductFormat::F16) => return Ok(()),
        (Src::E4m3(_), _) => "e4m3",
        (Src::E5m2(_), _) => "e5m2",
        (Src::Bf16(_), _) => "bf16",
        (Src::F16(_), _) => "f16",
    };
    Err(KernelError::Storage { operand, stored, compute })
}

pub(crate) fn check_length(
    operand: &'static str,
    needed: Option<usize>,
    found: usize,
) -> Result<(), KernelError> {
    match needed {
        Some(needed) if needed <= found => Ok(()),
        needed => Err(KernelError::TooShort { operand, needed: needed.unwrap_or(usize::MAX), found }),
    }
}

pub(crate) fn check_equal(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Shape { what, expected, found }) }
}

/// The dimension that lies along memory makes the runs; where neither does, one is as good as the
/// other.
fn along(outer_stride: usize, k_stride: usize) -> Along {
    if k_stride <= outer_stride { Along::K } else { Along::Outer }
}

/// An operand as outer × K, given the strides of the two.
fn source(data: Src<'_>, outer_stride: usize, k_stride: usize) -> Source<'_> {
    let along = along(outer_stride, k_stride);
    let (line, position) = match along {
        Along::K => (outer_stride, k_stride),
        Along::Outer => (k_stride, outer_stride),
    };
    Source { data, base: 0, gather: Gather::Strided { line, position }, along }
}

/// Computes the product. An `epilogue` is given it block by block, in f32: C is not written then,
/// its layout says which elements of the whole a block has.
///
/// Nothing is allocated once `ctx.scratch` has [`bytes`]. Results do not depend on the number of
/// threads.
///
/// # Errors
/// If shapes disagree, a slice is too short for its layout, storage and compute format do not go
/// together, or the output's layout overlaps itself; nothing is written then.
pub(crate) fn gemm(
    ctx: &mut Ctx<'_>,
    args: GemmArgs<'_>,
    epilogue: Option<&dyn BlockEpilogue>,
) -> Result<(), KernelError> {
    let (problem, extents, operands) = check(args, epilogue)?;
    execute(ctx, &problem, extents, operands);
    Ok(())
}

/// Checks the arguments of [`gemm`].
fn check<'a>(
    args: GemmArgs<'a>,
    epilogue: Option<&'a dyn BlockEpilogue>,
) -> Result<(Problem<'a>, Extents, Operands), KernelError> {
    let GemmArgs { batch, a, b, mut c, compute, bias } = args;
    let (m, k, n) = (a.layout.rows, a.layout.columns, b.layout.columns);
    check_equal("rows of B (K)", k, b.layout.rows)?;
    check_equal("rows of C (M)", m, c.layout.rows)?;
    check_equal("columns of C (N)", n, c.layout.columns)?;
    if let Some(bias) = bias {
        check_equal("length of the bias (N)", n, bias.len())?;
    }
    check_storage("A", a.data, compute)?;
    check_storage("B", b.data, compute)?;
    check_length("A", a.layout.span(batch), a.data.len())?;
    check_length("B", b.layout.span(batch), b.data.len())?;
    check_length("C", c.layout.span(batch), epilogue.map_or(c.data.len(), BlockEpilogue::len))?;
    if (c.layout.column_stride != 1 && n > 1) || !c.layout.is_injective(batch) {
        return Err(KernelError::Overlap { operand: "C" });
    }
    let problem = Problem {
        a: source(a.data, a.layout.row_stride, a.layout.column_stride),
        b: source(b.data, b.layout.column_stride, b.layout.row_stride),
        sink: Sink {
            target: Destination::of(&mut c.data),
            base: 0,
            rows: OutRows::Strided(c.layout.row_stride),
            bias,
        },
        epilogue,
        compute,
        batch,
        a_batch: a.layout.batch_strides,
        b_batch: b.layout.batch_strides,
        out_batch: c.layout.batch_strides,
    };
    let extents = Extents { batches: batch[0] * batch[1], m, n, k };
    Ok((problem, extents, operands(batch, &a.layout, &b.layout)))
}

/// An operand in memory can be packed once where all batches use the same.
fn packing(batch: [usize; 2], strides: [usize; 2]) -> Packing {
    let same = (0..2).all(|i| batch[i] == 1 || strides[i] == 0);
    if same { Packing::Once } else { Packing::PerJob }
}

/// Runs `$body` with `$micro_kernel` bound to what multiplies packed tiles for an instruction set
/// and a compute format, or `$other` where there is none.
macro_rules! with_tiles {
    ($isa:expr, $compute:expr, $micro_kernel:ident => $body:expr, else $other:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use $crate::gemm::{ProductFormat, amx, dot, scheme};
            let compute: ProductFormat = $compute;
            let tiles = amx::Tiles::new($isa).filter(|_| compute.has_tiles());
            if let Some(tiles) = tiles {
                scheme::with_scheme!(compute, tiles.takes_f16(), S => {
                    let $micro_kernel = amx::Amx::<S>::new(tiles);
                    $body
                }, else unreachable!("{compute:?} has no tiles"))
            } else if let Some($micro_kernel) = dot::Dots::new($isa).filter(|_| compute == ProductFormat::Bf16) {
                $body
            } else {
                $other
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = ($isa, $compute);
            $other
        }
    }};
}
pub(crate) use with_tiles;

/// Runs `$body` with `$micro_kernel` bound to the micro-kernel for an instruction set and a compute
/// format.
macro_rules! with_micro_kernel {
    ($isa:expr, $compute:expr, $micro_kernel:ident => $body:expr) => {
        with_tiles!($isa, $compute, $micro_kernel => $body, else {
            #[cfg(target_arch = "x86_64")]
            if let Some($micro_kernel) = vector::Avx512::new($isa) {
                $body
            } else if let Some($micro_kernel) = vector::Avx2::new($isa) {
                $body
            } else {
                debug_assert_eq!($isa.level(), Level::Portable);
                let $micro_kernel = micro_kernel::Portable;
                $body
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let $micro_kernel = micro_kernel::Portable;
                $body
            }
        })
    };
}

/// Computes a checked problem by the micro-kernel for instruction set and compute format.
pub(crate) fn execute(ctx: &mut Ctx<'_>, problem: &Problem<'_>, extents: Extents, operands: Operands) {
    if extents.batches == 0 || extents.m == 0 || extents.n == 0 {
        return;
    }
    let threads = ctx.pool.threads();
    with_micro_kernel!(ctx.isa, problem.compute, micro_kernel => {
        let plan = Plan::new(micro_kernel, extents, operands, threads, problem.epilogue.is_some());
        run::run(micro_kernel, ctx, problem, &plan);
    });
}

/// Operations that the micro-kernel for bf16 operands did from the first-level cache; 0 where it is
/// that for f32.
pub(crate) fn bf16_peak(isa: Isa) -> f64 {
    with_tiles!(isa, ProductFormat::Bf16, micro_kernel => micro_kernel::peak(micro_kernel), else 0.0)
}

/// Bytes of scratch for a problem of these extents, `in_strips` if an epilogue takes its results.
pub(crate) fn bytes(
    isa: Isa,
    threads: usize,
    compute: ProductFormat,
    extents: Extents,
    operands: Operands,
    in_strips: bool,
) -> usize {
    if extents.batches == 0 || extents.m == 0 || extents.n == 0 {
        return 0;
    }
    with_micro_kernel!(isa, compute, micro_kernel => {
        Plan::new(micro_kernel, extents, operands, threads, in_strips).bytes(threads)
    })
}

/// What the operands of a product in memory allow.
fn operands(batch: [usize; 2], a: &Layout, b: &Layout) -> Operands {
    Operands {
        a: packing(batch, a.batch_strides),
        a_rows_run: along(a.row_stride, a.column_stride) == Along::K,
        b: packing(batch, b.batch_strides),
    }
}
