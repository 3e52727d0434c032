//! The forward pass.

use super::product::{Band, Into, Left, Product};
use super::{
    BLOCK, Layout, Mask, Shape, View, check_shape, load_rows, padded, score_row, transpose, visible,
};
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::storage::{Dst, Storage, round_in_place};
use crate::rows::{Body, Caps, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch};
use crate::rows::{exp_normal, fma};

/// Chunks wanted at least, if the sequences are long enough: work for many cores.
const CHUNKS: usize = 32;

/// Scores handled at a time; a row's length is rounded up to it.
const LANES: usize = 16;

/// out = softmax(scale·q·kᵀ)·v for each sequence and head, and the log-sum-exp of each row of scaled scores.
#[derive(Debug)]
pub struct AttentionForward<'a> {
    /// Sizes.
    pub shape: Shape,
    /// Which positions a query sees.
    pub mask: Mask,
    /// Factor of the scores, usually 1/√D.
    pub scale: f32,
    /// Format of the operands of products.
    pub compute: Storage,
    /// Queries.
    pub q: View<'a>,
    /// Keys.
    pub k: View<'a>,
    /// Values.
    pub v: View<'a>,
    /// Results.
    pub out: Dst<'a>,
    /// Where elements lie in `out`.
    pub out_layout: Layout,
    /// `[B, H, T]`.
    pub lse: &'a mut [f32],
    /// [`attention_forward_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// f32 elements of scratch of [`AttentionForward`] on a pool of `threads` threads.
pub fn attention_forward_scratch_len(threads: usize, shape: &Shape) -> usize {
    threads * worker_len(shape)
}

fn worker_len(shape: &Shape) -> usize {
    let (time, width) = (shape.time.next_multiple_of(BLOCK), padded(shape.dim));
    // Keys transposed, values, one block of queries, keys (before transposing) and results, one of scores.
    2 * time * width + 3 * BLOCK * width + BLOCK * BLOCK
}

impl AttentionForward<'_> {
    /// Computes the results.
    ///
    /// # Errors
    /// If a size is zero, a tensor or the scratch is too short, or rows of `out` overlap.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let AttentionForward { shape, mask, scale, compute, q, k, v, out, out_layout, lse, scratch } = self;
        check_shape(&shape)?;
        q.layout.check("q", &shape, q.data.len())?;
        k.layout.check("k", &shape, k.data.len())?;
        v.layout.check("v", &shape, v.data.len())?;
        out_layout.check("out", &shape, out.len())?;
        check_len("lse", shape.batch * shape.heads * shape.time, lse.len())?;
        check_scratch(attention_forward_scratch_len(pool.threads(), &shape), scratch.len())?;
        if !out_layout.is_disjoint(&shape, None) {
            return Err(RowError::Shape { what: "out", why: "rows overlap" });
        }
        let heads = shape.batch * shape.heads;
        let blocks = shape.time.div_ceil(BLOCK);
        // With few heads, the queries of one are shared out too; each part converts the keys it needs again.
        let parts = CHUNKS.div_ceil(heads).min(blocks);
        let out = SharedDst::new(out);
        let (lse, scratch) = (SharedSlice::new(lse), SharedSlice::new(scratch));
        let per_worker = worker_len(&shape);
        pool.for_each(heads * parts, &|worker, chunk| {
            let (index, part) = (chunk / parts, chunk % parts);
            // SAFETY: a worker runs one chunk at a time.
            let scratch = unsafe { scratch.part(worker * per_worker..(worker + 1) * per_worker) };
            let head = Head {
                shape,
                mask,
                scale,
                compute,
                q,
                k,
                v,
                at: (index / shape.heads, index % shape.heads),
                blocks: blocks * part / parts..blocks * (part + 1) / parts,
                out,
                out_layout,
                lse,
                scratch,
            };
            dispatch(isa, head);
        });
        Ok(())
    }
}

/// Some blocks of queries of one head of one sequence.
struct Head<'a> {
    shape: Shape,
    mask: Mask,
    scale: f32,
    compute: Storage,
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    at: (usize, usize),
    blocks: std::ops::Range<usize>,
    out: SharedDst<'a>,
    out_layout: Layout,
    lse: SharedSlice<'a, f32>,
    scratch: &'a mut [f32],
}

impl Body for Head<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Head { shape, mask, scale, compute, q, k, v, at, blocks, out, out_layout, lse, scratch } = self;
        let (time, width) = (shape.time.next_multiple_of(BLOCK), padded(shape.dim));
        let (keys, scratch) = scratch.split_at_mut(time * width);
        let (values, scratch) = scratch.split_at_mut(time * width);
        let (queries, scratch) = scratch.split_at_mut(BLOCK * width);
        let (rows, scratch) = scratch.split_at_mut(BLOCK * width);
        let (sums, scores) = scratch.split_at_mut(BLOCK * width);

        // Keys transposed block by block, and values, as far as any of these queries sees.
        let key_blocks = match mask {
            Mask::Causal => blocks.end,
            Mask::Full => time / BLOCK,
        };
        for block in 0..key_blocks {
            let range = (block * BLOCK, BLOCK.min(shape.time - block * BLOCK));
            let place = block * BLOCK * width..(block + 1) * BLOCK * width;
            load_rows::<C>(&k, &shape, compute, at, range, width, rows);
            transpose(rows, width, &mut keys[place.clone()]);
            load_rows::<C>(&v, &shape, compute, at, range, width, &mut values[place]);
        }

        for block in blocks {
            let first = block * BLOCK;
            let count = BLOCK.min(shape.time - first);
            load_rows::<C>(&q, &shape, compute, at, (first, count), width, queries);
            sums.fill(0.0);
            let (mut largest, mut total) = ([f32::NEG_INFINITY; BLOCK], [0.0f32; BLOCK]);
            let seen = match mask {
                Mask::Causal => block + 1,
                Mask::Full => key_blocks,
            };
            for key_block in 0..seen {
                let key = key_block * BLOCK;
                let place = key * width..(key + BLOCK) * width;
                let present = BLOCK.min(shape.time - key);
                let diagonal = mask == Mask::Causal && key_block == block;
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
                for i in 0..count {
                    let limit = visible(mask, first + i, key, present);
                    let row = &mut score_row(scores, i)[..limit.next_multiple_of(LANES)];
                    row[limit..].fill(f32::NEG_INFINITY);
                    let (now, keep, sum) = softmax_row::<C>(row.as_chunks_mut().0, scale, largest[i]);
                    largest[i] = now;
                    total[i] = fma::<C>(total[i], keep, sum);
                    round_in_place::<C>(compute, row);
                    if key_block > 0 {
                        for sum in &mut sums[i * width..(i + 1) * width] {
                            *sum *= keep;
                        }
                    }
                }
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
            let lse_start = (at.0 * shape.heads + at.1) * shape.time + first;
            // SAFETY: these queries belong to this chunk alone.
            let lse = unsafe { lse.part(lse_start..lse_start + count) };
            for i in 0..count {
                lse[i] = (f64::from(largest[i]) + f64::from(total[i]).ln()) as f32;
                let factor = 1.0 / total[i];
                let row = &mut sums[i * width..i * width + shape.dim];
                for x in row.iter_mut() {
                    *x *= factor;
                }
                let start = out_layout.row(at.0, first + i, at.1);
                // SAFETY: rows of `out` do not overlap, and these queries belong to this chunk alone.
                let mut to = unsafe { out.part(start..start + shape.dim) };
                to.store::<C>(0, row);
            }
        }
    }
}

/// Replaces scores by exp(scale·score − maximum), where the maximum includes those of earlier blocks.
///
/// Returns the maximum, the factor that earlier results of this row need now, and the sum of the new values.
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
