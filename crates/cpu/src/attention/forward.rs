//! The forward pass.

use super::product::{Band, Into, Left, Product};
use super::{
    BLOCK, Layout, Mask, Shape, View, check_shape, load_rows, padded, score_row, transpose, visible,
};
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::storage::{Dst, Storage, round_in_place};
use crate::rows::{Body, Caps, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch};
use crate::rows::{exp_normal, max, sum_by};

/// Chunks wanted at least, if the sequences are long enough: work for many cores.
const CHUNKS: usize = 32;

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
                    let row = score_row(scores, i);
                    row[visible(mask, first + i, key, present)..].fill(f32::NEG_INFINITY);
                    for s in row.iter_mut() {
                        *s *= scale;
                    }
                    let before = largest[i];
                    let now = crate::rows::larger(before, max(row));
                    let keep = exp_normal::<C>(before - now);
                    for s in row.iter_mut() {
                        *s = exp_normal::<C>(*s - now);
                    }
                    largest[i] = now;
                    total[i] = total[i] * keep + sum_by(row, |p| p);
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
