//! The backward pass.

use std::ops::Range;

use super::product::{Band, Into, Left, Product};
use super::unit::{Unit, with_unit};
use super::{
    AttentionMask, BLOCK, CHUNKS, HeadLayout, HeadOperands, HeadShape, HeadView, check_format, check_shape,
    load_rows, operand_format, padded, score_row, split, transpose, visible,
};
use crate::gemm::ProductFormat;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::storage::{Dst, Storage, round_in_place};
use crate::rows::{Body, Caps, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch};
use crate::rows::{dot, exp_normal, fma};

/// Scores handled at a time; a row's length is rounded up to it.
const LANES: usize = 16;

/// Where the gradients of queries, keys and values go.
#[derive(Debug)]
pub enum Grads<'a> {
    /// Parts of one tensor, such as `[B, T, 3, H, D]`.
    Packed {
        /// The memory.
        data: Dst<'a>,
        /// Where elements lie. The three have the same strides.
        q: HeadLayout,
        /// As `q`.
        k: HeadLayout,
        /// As `q`.
        v: HeadLayout,
    },
    /// Three tensors.
    Separate {
        /// Gradient of the queries.
        q: (Dst<'a>, HeadLayout),
        /// Gradient of the keys.
        k: (Dst<'a>, HeadLayout),
        /// Gradient of the values.
        v: (Dst<'a>, HeadLayout),
    },
}

/// The derivative of [`super::AttentionForward`].
///
/// With p = exp(scale·q·kᵀ − lse) and δ = Σ dout·out by rows: dv = pᵀ·dout, ds = p·(dout·vᵀ − δ),
/// dq = scale·ds·k, dk = scale·dsᵀ·q.
#[derive(Debug)]
pub struct AttentionBackward<'a> {
    /// Operands of the scores and of the results.
    pub heads: HeadOperands<'a>,
    /// The forward results.
    pub out: HeadView<'a>,
    /// Their gradients.
    pub dout: HeadView<'a>,
    /// `[B, H, T]`, from the forward pass.
    pub lse: &'a [f32],
    /// Where the results go.
    pub grads: Grads<'a>,
    /// [`attention_backward_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// f32 elements of scratch of [`AttentionBackward`] on a pool of `threads` threads.
pub fn attention_backward_scratch_len(
    isa: Isa,
    threads: usize,
    shape: &HeadShape,
    compute: ProductFormat,
) -> usize {
    with_unit(isa, compute, |unit| scratch_len(unit, threads, shape))
}

pub(super) fn scratch_len(unit: Unit<'_>, threads: usize, shape: &HeadShape) -> usize {
    Grid::new(unit, shape).scratch_len(threads)
}

/// f32 elements that one worker needs without tiles: for all queries and gradients of results; for
/// δ; for one block of keys, keys and values transposed, and gradients of both; for two of scores.
fn lens(shape: &HeadShape) -> [usize; 10] {
    let one = BLOCK * padded(shape.dim);
    let (all, time) = (shape.blocks() * one, shape.blocks() * BLOCK);
    [all, all, time, one, one, one, one, one, BLOCK * BLOCK, BLOCK * BLOCK]
}

pub(super) fn vector_len(shape: &HeadShape) -> usize {
    lens(shape).iter().sum()
}

/// How the work is shared out: by shape alone.
#[derive(Clone, Copy)]
struct Grid {
    heads: usize,
    /// Parts that the blocks of keys of a head are cut into, for work for many cores where heads
    /// are few. Each part has gradients of all queries of its own, which are added at the end, in
    /// order.
    parts: usize,
    blocks: usize,
    /// Elements of the gradients of a head's queries.
    d_queries: usize,
    per_worker: usize,
}

impl Grid {
    fn new(unit: Unit<'_>, shape: &HeadShape) -> Grid {
        let (heads, blocks) = (shape.batch * shape.heads, shape.blocks());
        let parts = CHUNKS.div_ceil(heads).min(blocks);
        let d_queries = blocks * BLOCK * padded(shape.dim);
        let own = if parts == 1 { d_queries } else { 0 };
        Grid { heads, parts, blocks, d_queries, per_worker: unit.backward_len(shape) + own }
    }

    /// Elements for the gradients of queries that are added later.
    fn partial(&self) -> usize {
        if self.parts == 1 { 0 } else { self.heads * self.parts * self.d_queries }
    }

    fn scratch_len(&self, threads: usize) -> usize {
        self.partial() + threads * self.per_worker
    }

    /// The blocks of keys of a part.
    fn keys(&self, part: usize) -> Range<usize> {
        self.blocks * part / self.parts..self.blocks * (part + 1) / self.parts
    }
}

#[derive(Clone, Copy)]
pub(super) struct GradView<'a> {
    data: SharedDst<'a>,
    layout: HeadLayout,
}

impl<'a> Grads<'a> {
    /// The three views, checked to lie inside their tensors and not to overlap.
    fn views(self, shape: &HeadShape) -> Result<[GradView<'a>; 3], RowError> {
        let overlap = |what| Err(RowError::Shape { what, why: "rows overlap" });
        let views = match self {
            Grads::Packed { data, q, k, v } => {
                for (a, b) in [(q, k), (q, v), (k, v)] {
                    let same = (a.batch, a.time, a.head) == (b.batch, b.time, b.head);
                    if !same || !a.is_disjoint(shape, Some(a.offset.abs_diff(b.offset))) {
                        return overlap("packed gradients");
                    }
                }
                let data = SharedDst::new(data);
                [q, k, v].map(|layout| GradView { data, layout })
            }
            Grads::Separate { q, k, v } => {
                [q, k, v].map(|(data, layout)| GradView { data: SharedDst::new(data), layout })
            }
        };
        for (target, what) in views.iter().zip(["dq", "dk", "dv"]) {
            target.layout.check(what, shape, target.data.len())?;
            if !target.layout.is_disjoint(shape, None) {
                return overlap(what);
            }
        }
        Ok(views)
    }
}

impl AttentionBackward<'_> {
    /// Computes the gradients.
    ///
    /// # Errors
    /// If a size is zero, a tensor or the scratch is too short, rows of a gradient overlap, or an
    /// operand is stored in another 16-bit format than the products are computed in.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        with_unit(isa, self.heads.compute, |unit| self.run_on(unit, isa, pool))
    }

    pub(super) fn run_on(self, unit: Unit<'_>, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let AttentionBackward { heads, out, dout, lse, grads, scratch } = self;
        let HeadOperands { shape, mask, scale, compute, q, k, v } = heads;
        check_shape(&shape)?;
        for (what, view) in [("q", &q), ("k", &k), ("v", &v), ("out", &out), ("dout", &dout)] {
            view.layout.check(what, &shape, view.data.len())?;
        }
        check_len("lse", shape.batch * shape.heads * shape.time, lse.len())?;
        for (what, view) in [("q", &q), ("k", &k), ("v", &v), ("dout", &dout)] {
            check_format(what, view, compute)?;
        }
        let grid = Grid::new(unit, &shape);
        check_scratch(grid.scratch_len(pool.threads()), scratch.len())?;
        let [dq, dk, dv] = grads.views(&shape)?;
        let (partial, workers) = scratch.split_at_mut(grid.partial());
        let (partial, workers) = (SharedSlice::new(partial), SharedSlice::new(workers));
        pool.for_each(grid.heads * grid.parts, &|worker, chunk| {
            let (index, part) = (chunk / grid.parts, chunk % grid.parts);
            // SAFETY: a worker runs one chunk at a time.
            let own = unsafe { workers.part(worker * grid.per_worker..(worker + 1) * grid.per_worker) };
            let (scratch, d_queries) = match grid.parts {
                1 => own.split_at_mut(grid.per_worker - grid.d_queries),
                // SAFETY: each chunk has its own.
                _ => (own, unsafe { partial.part(chunk * grid.d_queries..(chunk + 1) * grid.d_queries) }),
            };
            let head = Head {
                heads,
                out,
                dout,
                at: (index / shape.heads, index % shape.heads),
                blocks: grid.keys(part),
                lse: &lse[index * shape.time..(index + 1) * shape.time],
                dq: (grid.parts == 1).then_some(dq),
                dk,
                dv,
                d_queries,
                scratch,
            };
            unit.backward(isa, head);
        });
        if grid.parts > 1 {
            pool.for_each(grid.heads * grid.blocks, &|_, chunk| {
                let (index, block) = (chunk / grid.blocks, chunk % grid.blocks);
                dispatch(isa, AddParts { grid, shape, mask, scale, index, block, partial, dq });
            });
        }
        Ok(())
    }
}

/// Adds the parts of the gradients of one block of queries and stores them.
struct AddParts<'a> {
    grid: Grid,
    shape: HeadShape,
    mask: AttentionMask,
    scale: f32,
    index: usize,
    block: usize,
    partial: SharedSlice<'a, f32>,
    dq: GradView<'a>,
}

impl Body for AddParts<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let AddParts { grid, shape, mask, scale, index, block, partial, dq } = self;
        let width = padded(shape.dim);
        let place = |part: usize| {
            let start = (index * grid.parts + part) * grid.d_queries + block * BLOCK * width;
            start..start + BLOCK * width
        };
        // SAFETY: all parts are computed, and no other chunk has this block.
        let sums = unsafe { partial.part(place(0)) };
        for part in 1..grid.parts {
            // Queries do not see the keys of later blocks, nor their parts.
            if mask == AttentionMask::Causal && grid.keys(part).start > block {
                break;
            }
            // SAFETY: as above; nobody writes.
            let other = unsafe { partial.part_ref(place(part)) };
            for (sum, other) in sums.iter_mut().zip(other) {
                *sum += other;
            }
        }
        let range = shape.block(block);
        let at = (index / shape.heads, index % shape.heads);
        store_rows::<C>(&dq, &shape, at, range, width, sums, scale);
    }
}

/// Some blocks of keys of one head of one sequence.
pub(super) struct Head<'a> {
    pub heads: HeadOperands<'a>,
    pub out: HeadView<'a>,
    pub dout: HeadView<'a>,
    pub at: (usize, usize),
    /// Blocks of keys.
    pub blocks: Range<usize>,
    pub lse: &'a [f32],
    /// Where the gradients of queries go, unless other parts are added to them.
    pub dq: Option<GradView<'a>>,
    pub dk: GradView<'a>,
    pub dv: GradView<'a>,
    /// Gradients of all queries from these keys, without the factor of the scores; zeroed and
    /// filled.
    pub d_queries: &'a mut [f32],
    pub scratch: &'a mut [f32],
}

impl Head<'_> {
    /// Blocks of queries that see a block of keys.
    pub fn query_blocks(&self, key_block: usize) -> Range<usize> {
        let first = if self.heads.mask == AttentionMask::Causal { key_block } else { 0 };
        first..self.heads.shape.blocks()
    }

    /// Turns a row of products q·kᵀ into probabilities and one of dout·vᵀ into gradients of scores,
    /// as far as whole lanes cover the first `limit`.
    #[inline(always)]
    pub fn probabilities<C: Caps>(
        &self,
        query: usize,
        limit: usize,
        delta: f32,
        p: &mut [f32; BLOCK],
        ds: &mut [f32; BLOCK],
    ) {
        let end = limit.next_multiple_of(LANES);
        let (lse, scale) = (self.lse[query], self.heads.scale);
        for (p, ds) in
            p[..end].as_chunks_mut::<LANES>().0.iter_mut().zip(ds[..end].as_chunks_mut::<LANES>().0)
        {
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = exp_normal::<C>(fma::<C>(*p, scale, -lse));
                *ds = *p * (*ds - delta);
            }
        }
    }

    /// Stores the gradients of a block of keys and values.
    #[inline(always)]
    pub fn store_keys<C: Caps>(&self, range: (usize, usize), d_keys: &mut [f32], d_values: &mut [f32]) {
        let width = padded(self.heads.shape.dim);
        store_rows::<C>(&self.dk, &self.heads.shape, self.at, range, width, d_keys, self.heads.scale);
        store_rows::<C>(&self.dv, &self.heads.shape, self.at, range, width, d_values, 1.0);
    }

    /// Stores the gradients of the queries, if they are complete.
    #[inline(always)]
    pub fn finish<C: Caps>(&self, d_queries: &mut [f32]) {
        if let Some(dq) = &self.dq {
            let width = padded(self.heads.shape.dim);
            store_rows::<C>(
                dq,
                &self.heads.shape,
                self.at,
                (0, self.heads.shape.time),
                width,
                d_queries,
                self.heads.scale,
            );
        }
    }
}

/// A head by f32 products of vectors.
pub(super) struct OnVectors<'a>(pub Head<'a>);

impl Body for OnVectors<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let mut head = self.0;
        let (scratch, d_queries) = (std::mem::take(&mut head.scratch), std::mem::take(&mut head.d_queries));
        let (shape, mask, compute, at) =
            (head.heads.shape, head.heads.mask, operand_format(head.heads.compute), head.at);
        let width = padded(shape.dim);
        let [queries, d_out, delta, keys, keys_t, values_t, d_keys, d_values, probabilities, d_scores] =
            split(scratch, lens(&shape));

        // Queries that see none of these keys are left out.
        let start = head.query_blocks(head.blocks.start).start * BLOCK;
        let seeing = (start, shape.time - start);
        load_rows::<C>(&head.heads.q, &shape, compute, at, seeing, width, &mut queries[start * width..]);
        // The forward results are needed only for δ: they pass through the place of the queries'
        // gradients.
        load_rows::<C>(&head.out, &shape, Storage::F32, at, seeing, width, &mut d_queries[start * width..]);
        load_rows::<C>(&head.dout, &shape, compute, at, seeing, width, &mut d_out[start * width..]);
        let rows = d_queries.chunks_exact(width).zip(d_out.chunks_exact(width));
        for (delta, (out, d_out)) in delta.iter_mut().zip(rows).skip(start) {
            *delta = dot::<C>(out, d_out);
        }
        d_queries.fill(0.0);

        for key_block in head.blocks.clone() {
            let (key, present) = head.heads.shape.block(key_block);
            // `d_keys` is free until it is zeroed below.
            load_rows::<C>(&head.heads.v, &shape, compute, at, (key, present), width, d_keys);
            transpose(d_keys, width, values_t);
            load_rows::<C>(&head.heads.k, &shape, compute, at, (key, present), width, keys);
            transpose(keys, width, keys_t);
            d_keys.fill(0.0);
            d_values.fill(0.0);
            for block in head.query_blocks(key_block) {
                let (first, count) = head.heads.shape.block(block);
                let place = first * width..(first + BLOCK) * width;
                let diagonal = mask == AttentionMask::Causal && block == key_block;
                let band = |band| if diagonal { band } else { Band::Full };
                // Scores, and the gradients of probabilities.
                let operands =
                    [(&*queries, &*keys_t, &mut *probabilities), (&*d_out, &*values_t, &mut *d_scores)];
                for (left, right, c) in operands {
                    Product {
                        m: count,
                        n: BLOCK,
                        k: shape.dim,
                        a: Left { data: &left[place.clone()], row: width, col: 1 },
                        b: right,
                        b_row: BLOCK,
                        c,
                        c_row: BLOCK,
                        into: Into::Set,
                        band: band(Band::LowerResult),
                    }
                    .run::<C>();
                }
                for i in 0..count {
                    let limit = visible(mask, first + i, key, present);
                    let (p, ds) = (score_row(probabilities, i), score_row(d_scores, i));
                    head.probabilities::<C>(first + i, limit, delta[first + i], p, ds);
                    // Beyond this the products below do not look.
                    let end = limit.next_multiple_of(LANES);
                    p[limit..end].fill(0.0);
                    ds[limit..end].fill(0.0);
                    round_in_place::<C>(compute, &mut p[..end]);
                    round_in_place::<C>(compute, &mut ds[..end]);
                }
                // dv += pᵀ·dout and dk += dsᵀ·q.
                let operands =
                    [(&*probabilities, &*d_out, &mut *d_values), (&*d_scores, &*queries, &mut *d_keys)];
                for (left, right, c) in operands {
                    Product {
                        m: present,
                        n: width,
                        k: count,
                        a: Left { data: left, row: 1, col: BLOCK },
                        b: &right[place.clone()],
                        b_row: width,
                        c,
                        c_row: width,
                        into: Into::Add,
                        band: band(Band::UpperLeft),
                    }
                    .run::<C>();
                }
                Product {
                    m: count,
                    n: width,
                    k: present,
                    a: Left { data: d_scores, row: BLOCK, col: 1 },
                    b: keys,
                    b_row: width,
                    c: &mut d_queries[place],
                    c_row: width,
                    into: Into::Add,
                    band: band(Band::LowerLeft),
                }
                .run::<C>();
            }
            head.store_keys::<C>((key, present), d_keys, d_values);
        }
        head.finish::<C>(d_queries);
    }
}

/// Stores positions `start .. start + rows` of one head, times `scale`. Leaves `values` scaled.
#[inline(always)]
fn store_rows<C: Caps>(
    target: &GradView<'_>,
    shape: &HeadShape,
    (batch, head): (usize, usize),
    (start, rows): (usize, usize),
    width: usize,
    values: &mut [f32],
    scale: f32,
) {
    for (i, row) in values.chunks_exact_mut(width).take(rows).enumerate() {
        let row = &mut row[..shape.dim];
        if scale != 1.0 {
            for x in row.iter_mut() {
                *x *= scale;
            }
        }
        let at = target.layout.row(batch, start + i, head);
        // SAFETY: rows do not overlap (checked in `views`), and this head belongs to one chunk.
        let mut to = unsafe { target.data.part(at..at + shape.dim) };
        to.store::<C>(0, row);
    }
}
