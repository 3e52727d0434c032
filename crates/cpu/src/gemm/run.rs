//! Executes a plan: packs, multiplies, stores.

use std::marker::PhantomData;
use std::ops::Range;

use super::epilogue::BlockEpilogue;
use super::micro_kernel::{MicroKernel, panel_units};
use super::plan::{Packing, Plan, TURNS};
use super::sink::{Destination, OutRows, Sink};
use super::source::{Piece, Source};
use super::{Ctx, ProductFormat};
use crate::isa::Kernel;
use crate::pool::Pool;

/// A product with everything checked: indices of sources and sink lie inside their slices.
#[derive(Clone, Copy)]
pub(crate) struct Problem<'a> {
    pub a: Source<'a>,
    pub b: Source<'a>,
    pub sink: Sink<'a>,
    /// What takes the results; the sink then only says where their elements are in the whole.
    pub epilogue: Option<&'a dyn BlockEpilogue>,
    pub compute: ProductFormat,
    /// Extents of the two batch dimensions.
    pub batch: [usize; 2],
    /// Element strides of the batch dimensions in A, B and the output.
    pub a_batch: [usize; 2],
    pub b_batch: [usize; 2],
    pub out_batch: [usize; 2],
}

/// Below this many multiply-adds waking other threads costs more than it saves.
const ALONE: usize = 1 << 15;

/// The regions of scratch memory, as addresses that workers share: each uses its own part.
#[derive(Clone, Copy)]
struct Regions {
    shared_a: *mut u8,
    shared_b: *mut u8,
    sums: *mut f32,
    workers: *mut u8,
}

// SAFETY: the regions come from an exclusive borrow of the scratch memory that outlives the
// computation. B is written in disjoint chunks before it is read; sums and workers' regions belong
// to one job or worker at a time.
unsafe impl Sync for Regions {}
// SAFETY: as above.
unsafe impl Send for Regions {}

/// Computes `problem` as `plan` says, which was made for the same micro-kernel and no more threads
/// than the pool has.
pub(crate) fn run<M: MicroKernel>(micro_kernel: M, ctx: &mut Ctx<'_>, problem: &Problem<'_>, plan: &Plan) {
    let micro_kernel = micro_kernel.for_product(&problem.a, problem.compute, plan.extents.k, plan.extents.n);
    let base = ctx.scratch.take(plan.bytes(ctx.pool.threads()));
    // SAFETY: `take` gave as many bytes as the plan needs in all.
    let regions = unsafe {
        Regions {
            shared_a: base,
            shared_b: base.add(plan.shared_a),
            sums: base.add(plan.shared_a + plan.shared_b).cast(),
            workers: base.add(plan.shared_a + plan.shared_b + plan.sums),
        }
    };
    let e = plan.extents;
    let work = e.batches * e.m * e.n * e.k;
    let blocks = e.k.div_ceil(plan.kc.max(1));
    let chunks = |packing, outer: usize| match packing {
        Packing::Once => blocks * outer.div_ceil(plan.pack_width),
        Packing::PerJob => 0,
    };
    let (chunks_a, chunks_b) = (chunks(plan.pack_a, e.m), chunks(plan.pack_b, e.n));
    for_each(ctx.pool, work, chunks_a + chunks_b, &|_, chunk| match chunk.checked_sub(chunks_a) {
        None => pack_shared::<M, true>(micro_kernel, problem, plan, regions, chunk),
        Some(chunk) => pack_shared::<M, false>(micro_kernel, problem, plan, regions, chunk),
    });
    for_each(ctx.pool, work, plan.jobs(), &|worker, job| {
        micro_kernel.prepare();
        micro_kernel.enter(Job { micro_kernel, problem, plan, regions, worker, job });
    });
    if plan.parts > 1 {
        let tiles_per_job = plan.rows.div_ceil(M::MR);
        for_each(ctx.pool, work, plan.jobs() / plan.parts * tiles_per_job, &|worker, chunk| {
            micro_kernel.enter(AddParts { micro_kernel, problem, plan, regions, worker, chunk });
        });
    }
}

fn for_each(pool: &Pool, work: usize, chunks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
    if work < ALONE {
        for chunk in 0..chunks {
            f(0, chunk);
        }
    } else {
        pool.for_each(chunks, f);
    }
}

impl Problem<'_> {
    /// The operands and the output of one batch.
    #[inline(always)]
    fn batch(&self, index: usize) -> (Source<'_>, Source<'_>, Sink<'_>) {
        let [i, j] = [index / self.batch[1], index % self.batch[1]];
        let at = |strides: [usize; 2]| i * strides[0] + j * strides[1];
        let a = Source { base: self.a.base + at(self.a_batch), ..self.a };
        let b = Source { base: self.b.base + at(self.b_batch), ..self.b };
        let sink = Sink { base: self.sink.base + at(self.out_batch), ..self.sink };
        (a, b, sink)
    }
}

struct Pack<'a, M: MicroKernel, const IS_A: bool> {
    micro_kernel: M,
    piece: Piece<'a>,
    compute: ProductFormat,
    to: &'a mut [M::Unit],
}

impl<M: MicroKernel, const IS_A: bool> Kernel for Pack<'_, M, IS_A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Pack { micro_kernel, piece, compute, to } = self;
        match IS_A {
            true => micro_kernel.pack_a(piece, compute, to),
            false => micro_kernel.pack_b(piece, compute, to),
        }
    }
}

// Packing is long code that several kernels need: compiled once per micro-kernel and called.
#[inline(never)]
pub(crate) fn pack<M: MicroKernel, const IS_A: bool>(
    micro_kernel: M,
    piece: Piece<'_>,
    compute: ProductFormat,
    to: &mut [M::Unit],
) {
    micro_kernel.enter(Pack::<M, IS_A> { micro_kernel, piece, compute, to });
}

/// A block of finished sums and its place in the output.
#[derive(Clone, Copy)]
struct Finished {
    sums: *const f32,
    /// First row and number of rows.
    rows: (usize, usize),
    /// First column and number of columns.
    columns: (usize, usize),
}

impl Finished {
    /// The `count` rows from row `from` of the block on.
    #[inline(always)]
    fn part<M: MicroKernel>(&self, from: usize, count: usize) -> Finished {
        let sums = self.sums.wrapping_add(from * M::NR);
        Finished { sums, rows: (self.rows.0 + from, count), columns: self.columns }
    }
}

struct Store<'a, M> {
    micro_kernel: PhantomData<M>,
    sink: &'a Sink<'a>,
    block: Finished,
}

impl<M: MicroKernel> Kernel for Store<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Finished { sums, rows, columns } = self.block;
        // SAFETY: whoever calls `store` vouches for it.
        unsafe { self.sink.store(sums, M::NR, rows, columns) }
    }
}

/// Writes a block to the output.
///
/// # Safety
/// As [`Sink::store`] with rows of [`MicroKernel::NR`] sums.
#[inline(never)]
unsafe fn store<M: MicroKernel>(micro_kernel: M, sink: &Sink<'_>, block: Finished) {
    micro_kernel.enter(Store::<M> { micro_kernel: PhantomData, sink, block });
}

/// Finished results on their way to an epilogue: a block of f32 in a worker's own memory.
#[derive(Clone, Copy)]
struct Strip<'a> {
    epilogue: &'a dyn BlockEpilogue,
    /// The output, for the place of each row.
    whole: Sink<'a>,
    /// The worker's memory.
    sink: Sink<'a>,
    memory: *const f32,
    /// First row and number of rows.
    rows: (usize, usize),
    /// First column and number of columns.
    columns: (usize, usize),
}

impl<'a> Strip<'a> {
    /// Rows and columns of the output, to be collected in `memory`.
    #[inline(always)]
    fn new(
        epilogue: &'a dyn BlockEpilogue,
        whole: Sink<'a>,
        memory: *mut f32,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Strip<'a> {
        let sink = Sink {
            target: Destination::F32(memory),
            base: 0,
            rows: OutRows::Strided(columns.len()),
            bias: whole.bias.map(|bias| &bias[columns.clone()]),
        };
        let (rows, columns) = ((rows.start, rows.len()), (columns.start, columns.len()));
        Strip { epilogue, whole, sink, memory, rows, columns }
    }

    /// A block of the output, with its place in the strip.
    #[inline(always)]
    fn place(&self, block: Finished) -> Finished {
        let Finished { sums, rows, columns } = block;
        let (row, column) = (rows.0 - self.rows.0, columns.0 - self.columns.0);
        Finished { sums, rows: (row, rows.1), columns: (column, columns.1) }
    }

    /// Runs the epilogue.
    ///
    /// # Safety
    /// All blocks of the strip are stored in it, and no other strip at the same time has one of its
    /// elements.
    #[inline(never)]
    unsafe fn finish(&self) {
        let ((row, rows), (column, columns)) = (self.rows, self.columns);
        // SAFETY: the plan gave the strip this much room, and it is filled. The caller vouches for
        // the rest.
        unsafe {
            let results = std::slice::from_raw_parts(self.memory, rows * columns);
            let at = |r| self.whole.row(row + r) + column;
            // Whole rows of a dense output are one run.
            match self.whole.rows {
                OutRows::Strided(stride) if stride == columns => {
                    self.epilogue.apply(results, 1, rows * columns, &at);
                }
                _ => self.epilogue.apply(results, rows, columns, &at),
            }
        }
    }
}

/// A worker's room for a strip.
#[inline(always)]
fn strip_memory(plan: &Plan, regions: Regions, worker: usize) -> *mut f32 {
    let before = plan.worker_bytes() - plan.worker_strip;
    regions.workers.wrapping_add(worker * plan.worker_bytes() + before).cast()
}

/// Packs some panels of one k block of the A or B that all jobs share: `[k block][panel]`.
fn pack_shared<M: MicroKernel, const IS_A: bool>(
    micro_kernel: M,
    problem: &Problem<'_>,
    plan: &Plan,
    regions: Regions,
    chunk: usize,
) {
    let (whole, panel, region) = match IS_A {
        true => (plan.extents.m, M::MR, regions.shared_a),
        false => (plan.extents.n, M::NR, regions.shared_b),
    };
    let groups = whole.div_ceil(plan.pack_width);
    let (block, group) = (chunk / groups, chunk % groups);
    let k = block * plan.kc..((block + 1) * plan.kc).min(plan.extents.k);
    let outer = group * plan.pack_width..((group + 1) * plan.pack_width).min(whole);
    let at = shared_offset::<M>(whole, panel, k.clone(), outer.start);
    // SAFETY: the plan gave this block of panels room at this place, and no other chunk has the
    // same.
    let to = unsafe {
        let start = region.cast::<M::Unit>().add(at);
        std::slice::from_raw_parts_mut(start, outer.len().div_ceil(panel) * panel_units::<M>(panel, k.len()))
    };
    let source = if IS_A { &problem.a } else { &problem.b };
    pack::<M, IS_A>(micro_kernel, Piece { source, outer, k }, problem.compute, to);
}

/// Where the panel that begins at `outer` begins in the k block `k` of an operand packed once, in
/// units. `whole` is the operand's outer extent and `panel` the width of its panels.
#[inline(always)]
fn shared_offset<M: MicroKernel>(whole: usize, panel: usize, k: Range<usize>, outer: usize) -> usize {
    // All blocks before are whole, and a whole block has a multiple of every micro-kernel's step.
    panel_units::<M>(whole.next_multiple_of(panel), k.start)
        + outer / panel * panel_units::<M>(panel, k.len())
}

/// One job: a rectangle of the output of one batch, over one part of K.
struct Job<'a, M> {
    micro_kernel: M,
    problem: &'a Problem<'a>,
    plan: &'a Plan,
    regions: Regions,
    worker: usize,
    job: usize,
}

/// The rectangle of job `job`: (batch, part, rows, columns).
#[inline(always)]
fn place(plan: &Plan, job: usize) -> (usize, usize, Range<usize>, Range<usize>) {
    // Rows change fastest, so that consecutive jobs of a worker use the same columns of B.
    let (rest, row) = (job / plan.row_jobs, job % plan.row_jobs);
    let (rest, column) = (rest / plan.column_jobs, rest % plan.column_jobs);
    let (part, batch) = (rest / plan.extents.batches, rest % plan.extents.batches);
    let rows = row * plan.rows..((row + 1) * plan.rows).min(plan.extents.m);
    let columns = column * plan.columns..((column + 1) * plan.columns).min(plan.extents.n);
    (batch, part, rows, columns)
}

impl<M: MicroKernel> Kernel for Job<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Job { micro_kernel, problem, plan, regions, worker, job } = self;
        let (batch, part, rows, columns) = place(plan, job);
        let (a, b, sink) = problem.batch(batch);
        let panels = columns.len().div_ceil(M::NR);
        let tile = M::MR * M::NR;
        // SAFETY: the region of this worker, then the parts of it, all inside what the plan asked
        // for; a job's sums lie in its own place where K is split.
        let (packed_a, packed_b, sums) = unsafe {
            let own = regions.workers.add(worker * plan.worker_bytes());
            let sums: *mut f32 = match plan.parts {
                1 => own.add(plan.worker_a + plan.worker_b).cast(),
                _ => regions.sums.add(job * (plan.sums / plan.jobs() / size_of::<f32>())),
            };
            (own.cast::<M::Unit>(), own.add(plan.worker_a).cast::<M::Unit>(), sums)
        };
        let strip_at = strip_memory(plan, regions, worker);
        let keep_sums = plan.kc < plan.part || plan.parts > 1;
        let k_part = part * plan.part..((part + 1) * plan.part).min(plan.extents.k);
        if k_part.is_empty() {
            // An empty sum is zero; there is one part and the sums hold at least one tile.
            for row in rows.clone().step_by(M::MR) {
                for column in columns.clone().step_by(M::NR) {
                    let (row_end, column_end) =
                        ((row + M::MR).min(rows.end), (column + M::NR).min(columns.end));
                    let block =
                        Finished { sums, rows: (row, row_end - row), columns: (column, column_end - column) };
                    // SAFETY: one tile of sums of this worker; the block lies inside the output and
                    // in no other job.
                    unsafe {
                        std::slice::from_raw_parts_mut(sums, tile).fill(0.0);
                        match problem.epilogue {
                            None => store(micro_kernel, &sink, block),
                            Some(epilogue) => {
                                let strip =
                                    Strip::new(epilogue, sink, strip_at, row..row_end, column..column_end);
                                store(micro_kernel, &strip.sink, strip.place(block));
                                strip.finish();
                            }
                        }
                    }
                }
            }
            return;
        }
        // A finished block that is stored between the steps of the next, while the tile unit works.
        let mut pending: Option<Finished> = None;
        let mut turn = 0;
        for k0 in k_part.clone().step_by(plan.kc) {
            let k = k0..(k0 + plan.kc).min(k_part.end);
            let (first, last) = (k.start == k_part.start, k.end == k_part.end);
            let packed_k = k.len().next_multiple_of(M::STEP);
            let b_panel = panel_units::<M>(M::NR, k.len());
            let a_panel = panel_units::<M>(M::MR, k.len());
            let b_block = match plan.pack_b {
                // SAFETY: inside the region of B, which the chunks before have filled.
                Packing::Once => unsafe {
                    let at = shared_offset::<M>(plan.extents.n, M::NR, k.clone(), columns.start);
                    regions.shared_b.cast::<M::Unit>().add(at)
                },
                Packing::PerJob => {
                    // SAFETY: this worker's room for B.
                    let to = unsafe { std::slice::from_raw_parts_mut(packed_b, panels * b_panel) };
                    let piece = Piece { source: &b, outer: columns.clone(), k: k.clone() };
                    pack::<M, false>(micro_kernel, piece, problem.compute, to);
                    packed_b
                }
            };
            for row0 in rows.clone().step_by(M::MC) {
                let block_rows = row0..(row0 + M::MC).min(rows.end);
                let strip_start = row0 - (row0 - rows.start) % plan.strip_rows;
                let strip_rows = strip_start..(strip_start + plan.strip_rows).min(rows.end);
                let a_panels = block_rows.len().div_ceil(M::MR);
                let a_block = match plan.pack_a {
                    // SAFETY: inside the region of A, which the chunks before have filled.
                    Packing::Once => unsafe {
                        let at = shared_offset::<M>(plan.extents.m, M::MR, k.clone(), row0);
                        regions.shared_a.cast::<M::Unit>().add(at)
                    },
                    Packing::PerJob => {
                        // SAFETY: this worker's room for A.
                        let to = unsafe { std::slice::from_raw_parts_mut(packed_a, a_panels * a_panel) };
                        let piece = Piece { source: &a, outer: block_rows.clone(), k: k.clone() };
                        pack::<M, true>(micro_kernel, piece, problem.compute, to);
                        packed_a
                    }
                };
                let store_now = last && plan.parts == 1;
                let epilogue = problem.epilogue.filter(|_| store_now);
                // Without an epilogue all columns are one block.
                let width = if epilogue.is_some() { plan.strip_columns / M::NR } else { panels };
                for first_panel in (0..panels).step_by(width) {
                    let block_panels = first_panel..(first_panel + width).min(panels);
                    let end = (columns.start + block_panels.end * M::NR).min(columns.end);
                    let block_columns = columns.start + first_panel * M::NR..end;
                    let strip = epilogue.map(|epilogue| {
                        Strip::new(epilogue, sink, strip_at, strip_rows.clone(), block_columns)
                    });
                    let to = strip.as_ref().map_or(&sink, |strip| &strip.sink);
                    for column in block_panels {
                        for row in 0..a_panels {
                            let row1 = row0 + row * M::MR;
                            let column1 = columns.start + column * M::NR;
                            let at = match keep_sums {
                                true => (row1 - rows.start) / M::MR * panels + column,
                                // Two places in turn: one block is stored while the next is
                                // computed.
                                false => {
                                    turn = (turn + 1) % TURNS;
                                    turn
                                }
                            };
                            let acc = sums.wrapping_add(at * tile);
                            let block = Finished {
                                sums: acc,
                                rows: (row1, M::MR.min(rows.end - row1)),
                                columns: (column1, M::NR.min(columns.end - column1)),
                            };
                            let block = strip.as_ref().map_or(block, |strip| strip.place(block));
                            let (a, b) =
                                (a_block.wrapping_add(row * a_panel), b_block.wrapping_add(column * b_panel));
                            // SAFETY: whole packed panels; sums for every tile of the job, or for
                            // two of which the other one is pending; the block lies inside the
                            // output and in no other job.
                            unsafe {
                                if !M::BETWEEN {
                                    micro_kernel.tile(packed_k, a, b, acc, !first);
                                    if store_now {
                                        store(micro_kernel, to, block);
                                    }
                                    continue;
                                }
                                let rows_per_step = M::MR.div_ceil(packed_k / M::STEP);
                                let mut stored = 0;
                                micro_kernel.tile_between(packed_k, a, b, acc, !first, || {
                                    if let Some(p) = &pending
                                        && stored < p.rows.1
                                    {
                                        let count = rows_per_step.min(p.rows.1 - stored);
                                        store(micro_kernel, to, p.part::<M>(stored, count));
                                        stored += count;
                                    }
                                });
                                pending = store_now.then_some(block);
                            }
                        }
                    }
                    if let Some(strip) = strip.as_ref().filter(|_| block_rows.end == strip_rows.end) {
                        // SAFETY: with the pending one, all blocks of the strip are stored; no
                        // other job has them.
                        unsafe {
                            if let Some(block) = pending.take() {
                                store(micro_kernel, to, block);
                            }
                            strip.finish();
                        }
                    }
                }
            }
        }
        if let Some(block) = pending {
            // SAFETY: the last block, as above.
            unsafe { store(micro_kernel, &sink, block) }
        }
    }
}

/// Adds the sums of all parts, in order, for one row of tiles of a job's rectangle.
struct AddParts<'a, M> {
    micro_kernel: M,
    problem: &'a Problem<'a>,
    plan: &'a Plan,
    regions: Regions,
    worker: usize,
    chunk: usize,
}

impl<M: MicroKernel> Kernel for AddParts<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let AddParts { micro_kernel, problem, plan, regions, worker, chunk } = self;
        let tile_rows = plan.rows.div_ceil(M::MR);
        let (job, tile_row) = (chunk / tile_rows, chunk % tile_rows);
        let (batch, _, rows, columns) = place(plan, job);
        let row = rows.start + tile_row * M::MR;
        if row >= rows.end {
            return;
        }
        let row_end = (row + M::MR).min(rows.end);
        let sink = problem.batch(batch).2;
        let panels = columns.len().div_ceil(M::NR);
        let jobs_per_part = plan.jobs() / plan.parts;
        let job_sums = plan.sums / plan.jobs() / size_of::<f32>();
        let tile = M::MR * M::NR;
        let width = if problem.epilogue.is_some() { plan.strip_columns / M::NR } else { panels };
        for first_panel in (0..panels).step_by(width) {
            let block_panels = first_panel..(first_panel + width).min(panels);
            let end = (columns.start + block_panels.end * M::NR).min(columns.end);
            let block_columns = columns.start + first_panel * M::NR..end;
            let strip = problem.epilogue.map(|epilogue| {
                let memory = strip_memory(plan, regions, worker);
                Strip::new(epilogue, sink, memory, row..row_end, block_columns)
            });
            for column in block_panels {
                let at = (tile_row * panels + column) * tile;
                // SAFETY: this tile in the sums of each part; all jobs are done, and no other chunk
                // has this tile.
                unsafe {
                    let sum = std::slice::from_raw_parts_mut(regions.sums.add(job * job_sums + at), tile);
                    for part in 1..plan.parts {
                        let other = regions.sums.add((part * jobs_per_part + job) * job_sums + at);
                        for (sum, &other) in sum.iter_mut().zip(std::slice::from_raw_parts(other, tile)) {
                            *sum += other;
                        }
                    }
                    let first = columns.start + column * M::NR;
                    let block = Finished {
                        sums: sum.as_ptr(),
                        rows: (row, row_end - row),
                        columns: (first, M::NR.min(columns.end - first)),
                    };
                    match &strip {
                        Some(strip) => store(micro_kernel, &strip.sink, strip.place(block)),
                        None => store(micro_kernel, &sink, block),
                    }
                }
            }
            if let Some(strip) = &strip {
                // SAFETY: all blocks of the strip are stored, and no other chunk has them.
                unsafe { strip.finish() }
            }
        }
    }
}
