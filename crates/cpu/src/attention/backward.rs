//! The backward pass.

use super::product::{Band, Into, Left, Product};
use super::{
    BLOCK, Layout, Mask, Shape, View, check_shape, load_rows, padded, score_row, transpose, visible,
};
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
        q: Layout,
        /// As `q`.
        k: Layout,
        /// As `q`.
        v: Layout,
    },
    /// Three tensors.
    Separate {
        /// Gradient of the queries.
        q: (Dst<'a>, Layout),
        /// Gradient of the keys.
        k: (Dst<'a>, Layout),
        /// Gradient of the values.
        v: (Dst<'a>, Layout),
    },
}

/// The derivative of [`super::AttentionForward`].
///
/// With p = exp(scale·q·kᵀ − lse) and δ = Σ dout·out by rows: dv = pᵀ·dout, ds = p·(dout·vᵀ − δ),
/// dq = scale·ds·k, dk = scale·dsᵀ·q.
#[derive(Debug)]
pub struct AttentionBackward<'a> {
    /// Sizes.
    pub shape: Shape,
    /// Which positions a query sees.
    pub mask: Mask,
    /// Factor of the scores.
    pub scale: f32,
    /// Format of the operands of products.
    pub compute: Storage,
    /// Queries.
    pub q: View<'a>,
    /// Keys.
    pub k: View<'a>,
    /// Values.
    pub v: View<'a>,
    /// The forward results.
    pub out: View<'a>,
    /// Their gradients.
    pub dout: View<'a>,
    /// `[B, H, T]`, from the forward pass.
    pub lse: &'a [f32],
    /// Where the results go.
    pub grads: Grads<'a>,
    /// [`attention_backward_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// f32 elements of scratch of [`AttentionBackward`] on a pool of `threads` threads.
pub fn attention_backward_scratch_len(threads: usize, shape: &Shape) -> usize {
    threads * worker_len(shape)
}

fn worker_len(shape: &Shape) -> usize {
    let (time, width) = (shape.time.next_multiple_of(BLOCK), padded(shape.dim));
    // Queries, their gradients and those of the results, each for all positions; δ; one block of keys, of keys and of
    // values transposed, and of the gradients of both; two of scores.
    3 * time * width + time + 5 * BLOCK * width + 2 * BLOCK * BLOCK
}

#[derive(Clone, Copy)]
struct Target<'a> {
    data: SharedDst<'a>,
    layout: Layout,
}

impl<'a> Grads<'a> {
    /// The three targets, checked to lie inside their tensors and not to overlap.
    fn targets(self, shape: &Shape) -> Result<[Target<'a>; 3], RowError> {
        let overlap = |what| Err(RowError::Shape { what, why: "rows overlap" });
        let targets = match self {
            Grads::Packed { data, q, k, v } => {
                for (a, b) in [(q, k), (q, v), (k, v)] {
                    let same = (a.batch, a.time, a.head) == (b.batch, b.time, b.head);
                    if !same || !a.is_disjoint(shape, Some(a.offset.abs_diff(b.offset))) {
                        return overlap("packed gradients");
                    }
                }
                let data = SharedDst::new(data);
                [q, k, v].map(|layout| Target { data, layout })
            }
            Grads::Separate { q, k, v } => {
                [q, k, v].map(|(data, layout)| Target { data: SharedDst::new(data), layout })
            }
        };
        for (target, what) in targets.iter().zip(["dq", "dk", "dv"]) {
            target.layout.check(what, shape, target.data.len())?;
            if !target.layout.is_disjoint(shape, None) {
                return overlap(what);
            }
        }
        Ok(targets)
    }
}

impl AttentionBackward<'_> {
    /// Computes the gradients.
    ///
    /// # Errors
    /// If a size is zero, a tensor or the scratch is too short, or rows of a gradient overlap.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let AttentionBackward { shape, mask, scale, compute, q, k, v, out, dout, lse, grads, scratch } = self;
        check_shape(&shape)?;
        for (what, view) in [("q", &q), ("k", &k), ("v", &v), ("out", &out), ("dout", &dout)] {
            view.layout.check(what, &shape, view.data.len())?;
        }
        check_len("lse", shape.batch * shape.heads * shape.time, lse.len())?;
        check_scratch(attention_backward_scratch_len(pool.threads(), &shape), scratch.len())?;
        let [dq, dk, dv] = grads.targets(&shape)?;
        let per_worker = worker_len(&shape);
        let scratch = SharedSlice::new(scratch);
        pool.for_each(shape.batch * shape.heads, &|worker, index| {
            // SAFETY: a worker runs one chunk at a time.
            let scratch = unsafe { scratch.part(worker * per_worker..(worker + 1) * per_worker) };
            let lse = &lse[index * shape.time..(index + 1) * shape.time];
            let at = (index / shape.heads, index % shape.heads);
            dispatch(
                isa,
                Head { shape, mask, scale, compute, q, k, v, out, dout, at, lse, dq, dk, dv, scratch },
            );
        });
        Ok(())
    }
}

/// One head of one sequence.
struct Head<'a> {
    shape: Shape,
    mask: Mask,
    scale: f32,
    compute: Storage,
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    out: View<'a>,
    dout: View<'a>,
    at: (usize, usize),
    lse: &'a [f32],
    dq: Target<'a>,
    dk: Target<'a>,
    dv: Target<'a>,
    scratch: &'a mut [f32],
}

impl Body for Head<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Head { shape, mask, scale, compute, at, lse, scratch, .. } = self;
        let (time, width) = (shape.time.next_multiple_of(BLOCK), padded(shape.dim));
        let (queries, scratch) = scratch.split_at_mut(time * width);
        let (d_out, scratch) = scratch.split_at_mut(time * width);
        let (d_queries, scratch) = scratch.split_at_mut(time * width);
        let (delta, scratch) = scratch.split_at_mut(time);
        let (keys, scratch) = scratch.split_at_mut(BLOCK * width);
        let (keys_t, scratch) = scratch.split_at_mut(BLOCK * width);
        let (values_t, scratch) = scratch.split_at_mut(BLOCK * width);
        let (d_keys, scratch) = scratch.split_at_mut(BLOCK * width);
        let (d_values, scratch) = scratch.split_at_mut(BLOCK * width);
        let (probabilities, d_scores) = scratch.split_at_mut(BLOCK * BLOCK);

        load_rows::<C>(&self.q, &shape, compute, at, (0, shape.time), width, queries);
        // The forward results are needed only for δ: they pass through the place of the queries' gradients.
        load_rows::<C>(&self.out, &shape, Storage::F32, at, (0, shape.time), width, d_queries);
        load_rows::<C>(&self.dout, &shape, compute, at, (0, shape.time), width, d_out);
        let rows = d_queries.chunks_exact(width).zip(d_out.chunks_exact(width));
        for (delta, (out, d_out)) in delta.iter_mut().zip(rows) {
            *delta = dot::<C>(out, d_out);
        }
        d_queries.fill(0.0);

        for key_block in 0..time / BLOCK {
            let key = key_block * BLOCK;
            let present = BLOCK.min(shape.time - key);
            // `d_keys` is free until it is zeroed below.
            load_rows::<C>(&self.v, &shape, compute, at, (key, present), width, d_keys);
            transpose(d_keys, width, values_t);
            load_rows::<C>(&self.k, &shape, compute, at, (key, present), width, keys);
            transpose(keys, width, keys_t);
            d_keys.fill(0.0);
            d_values.fill(0.0);
            let first_block = if mask == Mask::Causal { key_block } else { 0 };
            for block in first_block..time / BLOCK {
                let first = block * BLOCK;
                let count = BLOCK.min(shape.time - first);
                let place = first * width..(first + BLOCK) * width;
                let diagonal = mask == Mask::Causal && block == key_block;
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
                    // Beyond this the products below do not look.
                    let end = limit.next_multiple_of(LANES);
                    let p = &mut score_row(probabilities, i)[..end];
                    let ds = &mut score_row(d_scores, i)[..end];
                    let (lse, delta) = (lse[first + i], delta[first + i]);
                    for (p, ds) in p.as_chunks_mut::<LANES>().0.iter_mut().zip(ds.as_chunks_mut::<LANES>().0)
                    {
                        for (p, ds) in p.iter_mut().zip(ds) {
                            *p = exp_normal::<C>(fma::<C>(*p, scale, -lse));
                            *ds = *p * (*ds - delta);
                        }
                    }
                    p[limit..].fill(0.0);
                    ds[limit..].fill(0.0);
                    round_in_place::<C>(compute, p);
                    round_in_place::<C>(compute, ds);
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
            store_rows::<C>(&self.dk, &shape, at, (key, present), width, d_keys, scale);
            store_rows::<C>(&self.dv, &shape, at, (key, present), width, d_values, 1.0);
        }
        store_rows::<C>(&self.dq, &shape, at, (0, shape.time), width, d_queries, scale);
    }
}

/// Stores positions `start .. start + rows` of one head, times `scale`. Leaves `values` scaled.
#[inline(always)]
fn store_rows<C: Caps>(
    target: &Target<'_>,
    shape: &Shape,
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
        // SAFETY: rows do not overlap (checked in `targets`), and this head belongs to one chunk.
        let mut to = unsafe { target.data.part(at..at + shape.dim) };
        to.store::<C>(0, row);
    }
}
