//! Heads of attention on tiles: operands are packed straight from the tensors as they are stored,
//! products land where the next step reads them.
//!
//! Tiles are 32 × 32, half a block on each side, so of a causal block on the diagonal one quarter
//! is not computed.

use std::ops::Range;

use super::forward::Running;
use super::{
    AttentionMask, BLOCK, HeadShape, HeadView, backward, forward, load_rows, operand_format, padded,
    score_row, split, visible,
};
use crate::gemm::{Along, Gather, Piece, Source, TileUnit};
use crate::rows::storage::{Src, Storage};
use crate::rows::{Body, Caps, dot};

/// Rows and columns of a panel, and k of a step.
const SIDE: usize = 32;

/// f32 elements that hold `outer` × `k` packed elements, both in whole panels or steps.
fn packed_len(unit: &dyn TileUnit, outer: usize, k: usize) -> usize {
    outer.next_multiple_of(SIDE) * k.next_multiple_of(SIDE) * unit.planes() / 2
}

/// Codes in the place of f32 values.
fn codes(values: &mut [f32]) -> &mut [u16] {
    // SAFETY: the same bytes, aligned for a smaller type; any bits are valid in either.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 2 * values.len()) }
}
/// The positions of one head: a line each, along which its elements run.
fn positions<'a>(view: &HeadView<'a>, (batch, head): (usize, usize), along: Along) -> Source<'a> {
    let gather = Gather::Strided { line: view.layout.time, position: 1 };
    Source { data: view.data, base: view.layout.row(batch, 0, head), gather, along }
}

/// A block of scores in rows of [`BLOCK`].
fn scores_of(block: &[f32], along: Along) -> Source<'_> {
    let gather = Gather::Strided { line: BLOCK, position: 1 };
    Source { data: Src::F32(block), base: 0, gather, along }
}

/// Packed panels.
#[derive(Clone, Copy)]
struct Panels<'a> {
    codes: &'a [u16],
    /// Steps of a panel.
    steps: usize,
}

/// What was packed into `values` before, with so many steps a panel.
fn packed(values: &mut [f32], steps: usize) -> Panels<'_> {
    Panels { codes: codes(values), steps }
}

/// Packs an LHS: `outer` rows by `k`.
fn left<'a>(
    unit: &dyn TileUnit,
    from: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &'a mut [f32],
) -> Panels<'a> {
    let steps = k.len().div_ceil(SIDE);
    unit.pack_left(Piece { source: from, outer, k }, codes(to));
    packed(to, steps)
}

/// Packs an RHS: `k` by `outer` columns.
fn right<'a>(
    unit: &dyn TileUnit,
    from: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &'a mut [f32],
) -> Panels<'a> {
    let steps = k.len().div_ceil(SIDE);
    unit.pack_right(Piece { source: from, outer, k }, codes(to));
    packed(to, steps)
}

/// A matrix of f32 of which a product fills 32 × 32.
struct Block<'a> {
    values: &'a mut [f32],
    /// Distance between rows.
    row: usize,
    /// Panel of rows and panel of columns.
    panel: (usize, usize),
    /// Whether the product is added to what is there.
    add: bool,
}

/// One 32 × 32 block of a product over `steps`: panel `a.1` of A by panel `b.1` of B.
#[inline(always)]
fn multiply(
    unit: &dyn TileUnit,
    a: (Panels<'_>, usize),
    b: (Panels<'_>, usize),
    steps: Range<usize>,
    to: Block<'_>,
) {
    let step = unit.planes() * SIDE * SIDE;
    let start = |(panels, panel): (Panels<'_>, usize)| {
        assert!(steps.end <= panels.steps, "steps of a packed operand");
        let first = (panel * panels.steps + steps.start) * step;
        panels.codes[first..first + steps.len() * step].as_ptr()
    };
    let (a, b) = (start(a), start(b));
    let at = to.panel.0 * SIDE * to.row + to.panel.1 * SIDE;
    let place = &mut to.values[at..at + (SIDE - 1) * to.row + SIDE];
    // SAFETY: whole panels of that many steps and 32 rows of 32 results, as just checked; bodies
    // begin by preparing the unit.
    unsafe { unit.block(steps.len(), a, b, place.as_mut_ptr(), to.row, to.add) }
}

/// f32 elements that one worker needs: for packed keys and values; for one block of packed queries
/// and one of probabilities; for scores and results.
fn forward_lens(unit: &dyn TileUnit, shape: &HeadShape) -> [usize; 6] {
    let (time, width) = (shape.blocks() * BLOCK, padded(shape.dim));
    let (all, one) = (packed_len(unit, time, width), packed_len(unit, BLOCK, width));
    [all, all, one, packed_len(unit, BLOCK, BLOCK), BLOCK * BLOCK, BLOCK * width]
}

pub(super) fn forward_len(unit: &dyn TileUnit, shape: &HeadShape) -> usize {
    forward_lens(unit, shape).iter().sum()
}

/// Some blocks of queries of one head.
pub(super) struct Forward<'a> {
    pub unit: &'a dyn TileUnit,
    pub head: forward::Head<'a>,
}

impl Body for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Forward { unit, mut head } = self;
        unit.prepare();
        let scratch = std::mem::take(&mut head.scratch);
        let (dim, width, at) = (head.heads.shape.dim, padded(head.heads.shape.dim), head.at);
        let block_len = packed_len(unit, BLOCK, width);
        let [keys, values, queries, probabilities, scores, sums] =
            split(scratch, forward_lens(unit, &head.heads.shape));
        for block in 0..head.key_blocks() {
            let (key, present) = head.heads.shape.block(block);
            let place = block * block_len..(block + 1) * block_len;
            let (range, to) = (key..key + present, &mut keys[place.clone()]);
            right(unit, &positions(&head.heads.k, at, Along::K), range.clone(), 0..dim, to);
            right(unit, &positions(&head.heads.v, at, Along::Outer), 0..dim, range, &mut values[place]);
        }

        let (d_panels, d_steps) = (dim.div_ceil(SIDE), dim.div_ceil(SIDE));
        for block in head.blocks.clone() {
            let (first, count) = head.heads.shape.block(block);
            let queries =
                left(unit, &positions(&head.heads.q, at, Along::K), first..first + count, 0..dim, queries);
            let mut running = Running::new();
            for key_block in 0..head.seen_by(block) {
                let (key, present) = head.heads.shape.block(key_block);
                let place = key_block * block_len..(key_block + 1) * block_len;
                let diagonal = head.heads.mask == AttentionMask::Causal && key_block == block;
                let k_steps = present.div_ceil(SIDE);
                let panels = packed(&mut keys[place.clone()], d_steps);
                for (i, j) in quarters(count, present, diagonal) {
                    let to = Block { values: scores, row: BLOCK, panel: (i, j), add: false };
                    multiply(unit, (queries, i), (panels, j), 0..d_steps, to);
                }
                running.block::<C>(&head, (first, count), (key, present), scores, sums, |row, limit| {
                    row[limit..].fill(0.0);
                });
                let left = left(unit, &scores_of(scores, Along::K), 0..count, 0..present, probabilities);
                let right = packed(&mut values[place], k_steps);
                for i in 0..count.div_ceil(SIDE) {
                    let steps = 0..if diagonal { k_steps.min(i + 1) } else { k_steps };
                    for j in 0..d_panels {
                        let to = Block { values: sums, row: width, panel: (i, j), add: key_block > 0 };
                        multiply(unit, (left, i), (right, j), steps.clone(), to);
                    }
                }
            }
            running.finish::<C>(&head, (first, count), sums);
        }
    }
}

/// The quarters of a block of scores that are wanted: rows and columns in panels.
fn quarters(rows: usize, columns: usize, diagonal: bool) -> impl Iterator<Item = (usize, usize)> {
    let columns = columns.div_ceil(SIDE);
    (0..rows.div_ceil(SIDE))
        .flat_map(move |i| (0..if diagonal { columns.min(i + 1) } else { columns }).map(move |j| (i, j)))
}

/// f32 elements that one worker needs: for queries and gradients of results, packed by rows and by
/// columns; for δ; for one block of packed keys (twice) and values; for packed probabilities and
/// gradients of scores (twice); for both as they are; for gradients of keys and values.
fn backward_lens(unit: &dyn TileUnit, shape: &HeadShape) -> [usize; 15] {
    let (time, width) = (shape.blocks() * BLOCK, padded(shape.dim));
    let (all, one, square) =
        (packed_len(unit, time, width), packed_len(unit, BLOCK, width), packed_len(unit, BLOCK, BLOCK));
    let (scores, rows) = (BLOCK * BLOCK, BLOCK * width);
    [all, all, all, all, time, one, one, one, square, square, square, scores, scores, rows, rows]
}

pub(super) fn backward_len(unit: &dyn TileUnit, shape: &HeadShape) -> usize {
    backward_lens(unit, shape).iter().sum()
}

/// Some blocks of keys of one head.
pub(super) struct Backward<'a> {
    pub unit: &'a dyn TileUnit,
    pub head: backward::Head<'a>,
}

impl Body for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Backward { unit, mut head } = self;
        unit.prepare();
        let scratch = std::mem::take(&mut head.scratch);
        let d_queries = std::mem::take(&mut head.d_queries);
        let (dim, width, at) = (head.heads.shape.dim, padded(head.heads.shape.dim), head.at);
        let one = packed_len(unit, BLOCK, width);
        let [query_rows, query_columns, d_out_rows, d_out_columns, delta, rest @ ..] =
            split(scratch, backward_lens(unit, &head.heads.shape));
        let [key_rows, key_columns, value_rows, p_packed, ds_packed, ds_rows, p, ds, d_keys, d_values] = rest;

        let (by_rows, by_columns) = (Along::K, Along::Outer);
        for block in head.query_blocks(head.blocks.start) {
            let (first, count) = head.heads.shape.block(block);
            let (range, place) = (first..first + count, block * one..(block + 1) * one);
            for (view, rows, columns) in [
                (&head.heads.q, &mut *query_rows, &mut *query_columns),
                (&head.dout, d_out_rows, d_out_columns),
            ] {
                let (rows, columns) = (&mut rows[place.clone()], &mut columns[place.clone()]);
                left(unit, &positions(view, at, by_rows), range.clone(), 0..dim, rows);
                right(unit, &positions(view, at, by_columns), 0..dim, range.clone(), columns);
            }
            // `d_keys` and `d_values` are free until they are zeroed below.
            let compute = operand_format(head.heads.compute);
            load_rows::<C>(&head.out, &head.heads.shape, Storage::F32, at, (first, count), width, d_keys);
            load_rows::<C>(&head.dout, &head.heads.shape, compute, at, (first, count), width, d_values);
            let rows = d_keys.chunks_exact(width).zip(d_values.chunks_exact(width));
            for (delta, (out, d_out)) in delta[first..first + count].iter_mut().zip(rows) {
                *delta = dot::<C>(out, d_out);
            }
        }
        d_queries.fill(0.0);

        let d_panels = dim.div_ceil(SIDE);
        for key_block in head.blocks.clone() {
            let (key, present) = head.heads.shape.block(key_block);
            let range = key..key + present;
            let keys = right(unit, &positions(&head.heads.k, at, by_rows), range.clone(), 0..dim, key_rows);
            let keys_t =
                right(unit, &positions(&head.heads.k, at, by_columns), 0..dim, range.clone(), key_columns);
            let values = right(unit, &positions(&head.heads.v, at, by_rows), range, 0..dim, value_rows);
            d_keys.fill(0.0);
            d_values.fill(0.0);
            for block in head.query_blocks(key_block) {
                let (first, count) = head.heads.shape.block(block);
                let place = block * one..(block + 1) * one;
                let diagonal = head.heads.mask == AttentionMask::Causal && block == key_block;
                let (q_steps, k_steps) = (count.div_ceil(SIDE), present.div_ceil(SIDE));
                let queries = packed(&mut query_rows[place.clone()], d_panels);
                let d_out = packed(&mut d_out_rows[place.clone()], d_panels);
                // Scores, and the gradients of probabilities.
                for (i, j) in quarters(count, present, diagonal) {
                    let to = Block { values: p, row: BLOCK, panel: (i, j), add: false };
                    multiply(unit, (queries, i), (keys, j), 0..d_panels, to);
                    let to = Block { values: ds, row: BLOCK, panel: (i, j), add: false };
                    multiply(unit, (d_out, i), (values, j), 0..d_panels, to);
                }
                for i in 0..count {
                    let limit = visible(head.heads.mask, first + i, key, present);
                    let (p, ds) = (score_row(p, i), score_row(ds, i));
                    head.probabilities::<C>(first + i, limit, delta[first + i], p, ds);
                    p[limit..].fill(0.0);
                    ds[limit..].fill(0.0);
                }
                // dv += pᵀ·dout and dk += dsᵀ·q; on the diagonal later keys are seen by later
                // queries only.
                let p_t = left(unit, &scores_of(p, by_columns), 0..present, 0..count, p_packed);
                let ds_t = left(unit, &scores_of(ds, by_columns), 0..present, 0..count, ds_packed);
                let ds_packed = left(unit, &scores_of(ds, by_rows), 0..count, 0..present, ds_rows);
                let q = packed(&mut query_columns[place.clone()], q_steps);
                let d_out = packed(&mut d_out_columns[place], q_steps);
                for (i, j) in (0..k_steps).flat_map(|i| (0..d_panels).map(move |j| (i, j))) {
                    let steps = if diagonal { i } else { 0 }..q_steps;
                    let to = Block { values: d_values, row: width, panel: (i, j), add: true };
                    multiply(unit, (p_t, i), (d_out, j), steps.clone(), to);
                    let to = Block { values: d_keys, row: width, panel: (i, j), add: true };
                    multiply(unit, (ds_t, i), (q, j), steps, to);
                }
                // dq += ds·k.
                for (i, j) in (0..q_steps).flat_map(|i| (0..d_panels).map(move |j| (i, j))) {
                    let steps = 0..if diagonal { k_steps.min(i + 1) } else { k_steps };
                    let values = &mut d_queries[first * width..(first + BLOCK) * width];
                    let to = Block { values, row: width, panel: (i, j), add: true };
                    multiply(unit, (ds_packed, i), (keys_t, j), steps, to);
                }
            }
            head.store_keys::<C>((key, present), d_keys, d_values);
        }
        head.finish::<C>(d_queries);
    }
}
