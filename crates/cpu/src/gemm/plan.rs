//! Blocking: how one product is cut into jobs, and what memory they need.
//!
//! What decides the order of summation of an output element (the k blocks and the split of K)
//! depends on the shape and the instruction set alone. The grid of jobs may also depend on the
//! number of threads: that changes who computes an element, not how. Only sums over the samples of
//! a batch, as weight gradients are, are split: in any other product each row has its own sums, in
//! an order that is the same beside any other rows.

use super::micro_kernel::{MicroKernel, panel_units};
use super::scratch::whole_lines;

/// Places for sums that are used in turn where a block needs no memory between k blocks.
pub(crate) const TURNS: usize = 2;

/// Batches, M, N and K of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extents {
    pub batches: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// Whether an operand may be packed whole before the jobs start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// All batches use the same matrix, and it exists in memory: pack it once.
    Once,
    /// Each job packs the part that it needs.
    PerJob,
}

/// What the operands of a product allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operands {
    pub a: Packing,
    /// Whether rows of A lie along memory, which makes packing a strip of it cheap. Those of a
    /// product that sums over samples do not.
    pub a_rows_run: bool,
    pub b: Packing,
}

/// How a product is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub extents: Extents,
    /// K of a part; K is cut into parts whose sums are added at the end where the output is small
    /// and K long.
    pub part: usize,
    pub parts: usize,
    /// k of a block inside a part.
    pub kc: usize,
    /// Rows and columns of a job.
    pub rows: usize,
    pub columns: usize,
    pub row_jobs: usize,
    pub column_jobs: usize,
    pub pack_a: Packing,
    pub pack_b: Packing,
    /// Outer indices that one chunk packs of an operand packed once.
    pub pack_width: usize,
    /// Bytes of the regions, each in whole cache lines: A and B packed once; sums of the parts; and
    /// for each worker its block of A, its block of B, and its sums.
    pub shared_a: usize,
    pub shared_b: usize,
    pub sums: usize,
    pub worker_a: usize,
    pub worker_b: usize,
    pub worker_sums: usize,
    /// Rows and columns of a block that an epilogue takes, whole blocks of rows and whole panels,
    /// and bytes of each worker's room for it; without an epilogue there are no columns and no
    /// room.
    pub strip_rows: usize,
    pub strip_columns: usize,
    pub worker_strip: usize,
}

/// The largest operand that is packed whole, in bytes.
const SHARED_LIMIT: usize = 48 << 20;
/// The largest room for the sums of parts, in f32.
const SUMS_LIMIT: usize = 8 << 20;
/// Elements of a block that an epilogue takes: few enough for the second-level cache beside packed
/// operands, enough to make little of the cost of starting.
const STRIP: usize = 24 << 10;
/// Results of a job where B is packed before: few enough for the first-level cache while an
/// epilogue takes them, enough to make little of the cost of a job and of an epilogue's start.
const JOB: usize = 8 << 10;
/// Parts wanted in all, and the shortest.
const PARTS_WANTED: usize = 32;
const PART_MIN: usize = 2048;

impl Plan {
    /// Cuts a product for `threads` threads, `in_strips` where an epilogue takes the results block
    /// by block.
    pub(crate) fn new<M: MicroKernel>(
        _: M,
        extents: Extents,
        operands: Operands,
        threads: usize,
        in_strips: bool,
    ) -> Plan {
        let Extents { batches, m, n, k } = extents;
        let (parts, part) = if operands.a_rows_run { (1, k.next_multiple_of(32)) } else { split_k(extents) };
        let kc = part.div_ceil(part.div_ceil(M::KC).max(1)).next_multiple_of(32);

        let unit = size_of::<M::Unit>();
        let whole = |outer: usize, panel| {
            panel_units::<M>(outer.next_multiple_of(panel), k.next_multiple_of(32)) * unit
        };
        let (whole_a, whole_b) = (whole(m, M::MR), whole(n, M::NR));
        let resident_columns = match M::RESIDENT_B {
            0 => 1024,
            units => (units / (k.max(1) * M::PARTS)).max(512),
        };
        let mut columns = even(n, resident_columns, M::NR);
        let once = operands.b == Packing::Once && parts == 1 && m > M::MC && whole_b <= SHARED_LIMIT;
        // With B packed before, a job is a strip of A, longer where there are few columns.
        // Otherwise a job packs B, so it takes as many rows as it can.
        let whole_blocks = |results: usize, columns: usize| (results / columns / M::MC * M::MC).max(M::MC);
        let (mut rows, rows_min) = match once {
            true => {
                (even(m, whole_blocks(JOB, columns), M::MR), (M::MC / 2).next_multiple_of(M::MR).max(M::MR))
            }
            false => (even(m, if parts > 1 { 512 } else { 1024 }, M::MR), M::MC),
        };
        let jobs = |rows: usize, columns: usize| batches * parts * m.div_ceil(rows) * n.div_ceil(columns);
        while jobs(rows, columns) < 3 * threads && threads > 1 {
            if rows > rows_min {
                rows = (rows / 2).next_multiple_of(M::MR).max(rows_min);
            } else if columns > 4 * M::NR {
                columns = (columns / 2).next_multiple_of(M::NR);
            } else {
                break;
            }
        }
        let (row_jobs, column_jobs) = (m.div_ceil(rows), n.div_ceil(columns));
        // Tiles outrun the packing of A: do it once, in wide chunks, where each strip would be
        // packed several times or is read across its lines. (Vector micro-kernels take longer for
        // the products than packing can matter.)
        let a_once = M::RESIDENT_B > 0
            && operands.a == Packing::Once
            && once
            && (column_jobs > 1 || !operands.a_rows_run)
            && whole_a <= SHARED_LIMIT;
        let blocks = k.div_ceil(kc.max(1)).max(1);
        let pack_width = (n * blocks / (3 * threads)).next_multiple_of(128).clamp(128, 512);
        let packing = |once| if once { Packing::Once } else { Packing::PerJob };
        let tile = M::MR * M::NR;
        let job_sums = if kc < part || parts > 1 { rows * columns } else { TURNS * tile };
        let f32s = |count: usize| whole_lines(count * size_of::<f32>());
        let strip_columns = if in_strips { even(columns, (STRIP / M::MC).max(M::NR), M::NR) } else { 0 };
        // Where an epilogue's strip does not have all columns, it has the rows of one packed A.
        let strip_rows = match in_strips && strip_columns >= columns {
            true => whole_blocks(STRIP, columns).min(rows.next_multiple_of(M::MC)),
            false => M::MC,
        };
        Plan {
            extents,
            part,
            parts,
            kc,
            rows,
            columns,
            row_jobs,
            column_jobs,
            pack_a: packing(a_once),
            pack_b: packing(once),
            pack_width,
            shared_a: if a_once { whole_lines(whole_a) } else { 0 },
            shared_b: if once { whole_lines(whole_b) } else { 0 },
            sums: if parts > 1 { batches * parts * row_jobs * column_jobs * f32s(job_sums) } else { 0 },
            worker_a: match a_once {
                true => 0,
                false => whole_lines(panel_units::<M>(M::MC.min(rows.next_multiple_of(M::MR)), kc) * unit),
            },
            worker_b: if once { 0 } else { whole_lines(panel_units::<M>(columns, kc) * unit) },
            worker_sums: if parts > 1 { 0 } else { f32s(job_sums) },
            strip_rows,
            strip_columns,
            worker_strip: f32s(strip_rows * strip_columns),
        }
    }

    /// Bytes of scratch for `threads` workers.
    pub(crate) fn bytes(&self, threads: usize) -> usize {
        self.shared_a + self.shared_b + self.sums + threads * self.worker_bytes()
    }

    pub(crate) fn worker_bytes(&self) -> usize {
        self.worker_a + self.worker_b + self.worker_sums + self.worker_strip
    }

    /// Jobs in all.
    pub(crate) fn jobs(&self) -> usize {
        self.extents.batches * self.parts * self.row_jobs * self.column_jobs
    }
}

/// `whole` cut into equal pieces of at most `limit`, rounded up to a multiple of `step`.
fn even(whole: usize, limit: usize, step: usize) -> usize {
    let pieces = whole.div_ceil(limit).max(1);
    whole.div_ceil(pieces).next_multiple_of(step).max(step)
}

/// The number of parts of K and their length, for products with too few outputs to keep all threads
/// busy, such as the weight gradient of a convolution.
fn split_k(extents: Extents) -> (usize, usize) {
    let Extents { batches, m, n, k } = extents;
    let tiles = batches * m.div_ceil(96).max(1) * n.div_ceil(512).max(1);
    let room = SUMS_LIMIT / (batches * m.next_multiple_of(96) * n.next_multiple_of(64)).max(1);
    let parts = (PARTS_WANTED / tiles.max(1)).min(k / PART_MIN).min(room).max(1);
    let part = k.div_ceil(parts).next_multiple_of(32);
    (k.div_ceil(part.max(1)).max(1), part)
}
