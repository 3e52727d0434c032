//! The forward pass.

use super::product::{Band, Into, Left, Product};
use super::unit::{Unit, with_unit};
use super::{
    AttentionMask, BLOCK, CHUNKS, HeadLayout, HeadOperands, HeadShape, check_format, check_shape, load_rows,
    operand_format, padded, score_row, split, transpose, visible,
};
use crate::gemm::ProductFormat;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::storage::{Dst, round_in_place};
use crate::rows::{Body, Caps, RowError, SharedDst, SharedSlice, check_len, check_scratch};
use crate::rows::{exp_normal, fma};

/// Scores handled at a time; a row's length is rounded up to it.
const LANES: usize = 16;

/// out = softmax(scale·q·kᵀ)·v for each sequence and head, and the log-sum-exp of each row of
/// scaled scores.
#[derive(Debug)]
pub struct AttentionForward<'a> {
    /// Operands of the scores and of the results.
    pub heads: HeadOperands<'a>,
    /// Results.
    pub out: Dst<'a>,
    /// Where elements lie in `out`.
    pub out_layout: HeadLayout,
    /// `[B, H, T]`.
    pub lse: &'a mut [f32],
    /// [`attention_forward_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// f32 elements of scratch of [`AttentionForward`] on a pool of `threads` threads.
pub fn attention_forward_scratch_len(
    isa: Isa,
    threads: usize,
    shape: &HeadShape,
    compute: ProductFormat,
) -> usize {
    with_unit(isa, compute, |unit| scratch_len(unit, threads, shape))
}

pub(super) fn scratch_len(unit: Unit<'_>, threads: usize, shape: &HeadShape) -> usize {
    threads * unit.forward_len(shape)
}

/// f32 elements that one worker needs without tiles: for keys transposed and values; for one block
/// of queries, keys (before transposing) and results; for one of scores.
fn lens(shape: &HeadShape) -> [usize; 6] {
    let one = BLOCK * padded(shape.dim);
    let all = shape.blocks() * one;
    [all, all, one, one, one, BLOCK * BLOCK]
}

pub(super) fn vector_len(shape: &HeadShape) -> usize {
    lens(shape).iter().sum()
}

impl AttentionForward<'_> {
    /// Computes the results.
    ///
    /// # Errors
    /// If a size is zero, a tensor or the scratch is too short, rows of `out` overlap, or an
    /// operand is stored in another 16-bit format than the products are computed in.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        with_unit(isa, self.heads.compute, |unit| self.run_on(unit, isa, pool))
    }

    pub(super) fn run_on(self, unit: Unit<'_>, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let AttentionForward { heads, out, out_layout, lse, scratch } = self;
        let HeadOperands { shape, compute, q, k, v, .. } = heads;
        check_shape(&shape)?;
        for (what, view) in [("q", &q), ("k", &k), ("v", &v)] {
            view.layout.check(what, &shape, view.data.len())?;
        }
        out_layout.check("out", &shape, out.len())?;
        check_len("lse", shape.batch * shape.heads * shape.time, lse.len())?;
        for (what, view) in [("q", &q), ("k", &k), ("v", &v)] {
            check_format(what, view, compute)?;
        }
        let per_worker = unit.forward_len(&shape);
        check_scratch(pool.threads() * per_worker, scratch.len())?;
        if !out_layout.is_disjoint(&shape, None) {
            return Err(RowError::Shape { what: "out", why: "rows overlap" });
        }
        let count = shape.batch * shape.heads;
        let blocks = shape.blocks();
        // With few heads, the queries of one are shared out too; each part converts the keys it
        // needs again.
        let parts = CHUNKS.div_ceil(count).min(blocks);
        let out = SharedDst::new(out);
        let (lse, scratch) = (SharedSlice::new(lse), SharedSlice::new(scratch));
        pool.for_each(count * parts, &|worker, chunk| {
            let (index, part) = (chunk / parts, chunk % parts);
            // SAFETY: a worker runs one chunk at a time.
            let scratch = unsafe { scratch.part(worker * per_worker..(worker + 1) * per_worker) };
            let head = Head {
                heads,
                at: (index / shape.heads, index % shape.heads),
                blocks: blocks * part / parts..blocks * (part + 1) / parts,
                out,
                out_layout,
                lse,
                scratch,
            };
            unit.forward(isa, head);
        });
        Ok(())
    }
}

/// Some blocks of queries of one head of one sequence.
pub(super) struct Head<'a> {
    pub heads: HeadOperands<'a>,
    pub at: (usize, usize),
    pub blocks: std::ops::Range<usize>,
    pub out: SharedDst<'a>,
    pub out_layout: HeadLayout,
    pub lse: SharedSlice<'a, f32>,
    pub scratch: &'a mut [f32],
}

/// The running softmax of a block of queries.
pub(super) struct Running {
    largest: [f32; BLOCK],
    total: [f32; BLOCK],
}

impl Running {
    pub fn new() -> Running {
        Running { largest: [f32::NEG_INFINITY; BLOCK], total: [0.0; BLOCK] }
    }

    /// Turns the scores of one block of keys into probabilities relative to the largest score so
    /// far, and rescales the sums of earlier blocks. `end(row, limit)` finishes a row of which the
    /// first `limit` count.
    #[inline(always)]
    pub fn block<C: Caps>(
        &mut self,
        head: &Head<'_>,
        (first, count): (usize, usize),
        (key, present): (usize, usize),
        scores: &mut [f32],
        sums: &mut [f32],
        end: impl Fn(&mut [f32; BLOCK], usize),
    ) {
        let width = padded(head.heads.shape.dim);
        for i in 0..count {
            let limit = visible(head.heads.mask, first + i, key, present);
            let all = score_row(scores, i);
            let row = &mut all[..limit.next_multiple_of(LANES)];
            row[limit..].fill(f32::NEG_INFINITY);
            let (now, keep, sum) = softmax_row::<C>(row.as_chunks_mut().0, head.heads.scale, self.largest[i]);
            self.largest[i] = now;
            self.total[i] = fma::<C>(self.total[i], keep, sum);
            end(all, limit);
            if key > 0 {
                for sum in &mut sums[i * width..(i + 1) * width] {
                    *sum *= keep;
                }
            }
        }
    }

    /// Divides the sums by the totals, and writes them and the log-sum-exp.
    #[inline(always)]
    pub fn finish<C: Caps>(&self, head: &Head<'_>, (first, count): (usize, usize), sums: &mut [f32]) {
        let (shape, at, width) = (&head.heads.shape, head.at, padded(head.heads.shape.dim));
        let lse_start = (at.0 * shape.heads + at.1) * shape.time + first;
        // SAFETY: these queries belong to this chunk alone.
        let lse = unsafe { head.lse.part(lse_start..lse_start + count) };
        for i in 0..count {
            lse[i] = (f64::from(self.largest[i]) + f64::from(self.total[i]).ln()) as f32;
            let factor = 1.0 / self.total[i];
            let row = &mut sums[i * width..i * width + shape.dim];
            for x in row.iter_mut() {
                *x *= factor;
            }
            let start = head.out_layout.row(at.0, first + i, at.1);
            // SAFETY: rows of `out` do not overlap, and these queries belong to this chunk alone.
            let mut to = unsafe { head.out.part(start..start + shape.dim) };
            to.store::<C>(0, row);
        }
    }
}

impl Head<'_> {
    /// Blocks of keys that any of these queries sees.
    pub fn key_blocks(&self) -> usize {
        match self.heads.mask {
            AttentionMask::Causal => self.blocks.end,
            AttentionMask::Full => self.heads.shape.blocks(),
        }
    }

    /// Blocks of keys that a block of queries sees.
    pub fn seen_by(&self, block: usize) -> usize {
        match self.heads.mask {
            AttentionMask::Causal => block + 1,
            AttentionMask::Full => self.key_blocks(),
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
        let scratch = std::mem::take(&mut head.scratch);
        let (shape, mask, compute, at) =
            (head.heads.shape, head.heads.mask, operand_format(head.heads.compute), head.at);
        let width = padded(shape.dim);
        let [keys, values, queries, rows, sums, scores] = split(scratch, lens(&shape));

        // Keys transposed block by block, and values, as far as any of these queries sees.
        for block in 0..head.key_blocks() {
            let range = head.heads.shape.block(block);
            let place = block * BLOCK * width..(block + 1) * BLOCK * width;
            load_rows::<C>(&head.heads.k, &shape, compute, at, range, width, rows);
            transpose(rows, width, &mut keys[place.clone()]);
            load_rows::<C>(&head.heads.v, &shape, compute, at, range, width, &mut values[place]);
        }

        for block in head.blocks.clone() {
            let (first, count) = head.heads.shape.block(block);
            load_rows::<C>(&head.heads.q, &shape, compute, at, (first, count), width, queries);
            sums.fill(0.0);
            let mut running = Running::new();
            for key_block in 0..head.seen_by(block) {
                let (key, present) = head.heads.shape.block(key_block);
                let place = key * width..(key + BLOCK) * width;
                let diagonal = mask == AttentionMask::Causal && key_block == block;
                Product {
                    m: count,
                    n: BLOCK,
                    k: shape.dim,
                    a: Left { data: queries, row: width, col: 1 },
                    b: &keys[place.clone()],
                    b_row: BLOCK,
                    c: scores,
                    c_row: BLOCK,
                    into: Into::Set,
                    band: if diagonal { Band::LowerResult } else { Band::Full },
                }
                .run::<C>();
                // Beyond whole lanes the next product does not look.
                running.block::<C>(&head, (first, count), (key, present), scores, sums, |row, limit| {
                    round_in_place::<C>(compute, &mut row[..limit.next_multiple_of(LANES)]);
                });
                Product {
                    m: count,
                    n: width,
                    k: present,
                    a: Left { data: scores, row: BLOCK, col: 1 },
                    b: &values[place],
                    b_row: width,
                    c: sums,
                    c_row: width,
                    into: Into::Add,
                    band: if diagonal { Band::LowerLeft } else { Band::Full },
                }
                .run::<C>();
            }
            running.finish::<C>(&head, (first, count), sums);
        }
    }
}

/// Replaces scores by exp(scale·score − maximum), where the maximum includes those of earlier
/// blocks.
///
/// Returns the maximum, the factor that earlier results of this row need now, and the sum of the
/// new values.
#[inline(always)]
fn softmax_row<C: Caps>(row: &mut [[f32; LANES]], scale: f32, before: f32) -> (f32, f32, f32) {
    // A NaN may be lost here, but not from the exponentials, and so not from the result.
    let max = |a: f32, b: f32| if a > b { a } else { b };
    let mut largest = [before; LANES];
    for part in row.iter_mut() {
        for (s, largest) in part.iter_mut().zip(&mut largest) {
            *s *= scale;
            *largest = max(*largest, *s);
        }
    }
    let now = fold(largest, max);
    let mut sums = [0.0; LANES];
    for part in row.iter_mut() {
        for (s, sum) in part.iter_mut().zip(&mut sums) {
            *s = exp_normal::<C>(*s - now);
            *sum += *s;
        }
    }
    (now, exp_normal::<C>(before - now), fold(sums, |a, b| a + b))
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
