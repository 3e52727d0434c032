//! Attention, forward and backward, without the matrix of scores in memory.
//!
//! The method is FlashAttention-2 (Dao, Fu, Ermon, Rudra and Ré 2022; Dao 2023): blocks of queries
//! meet blocks of keys, the softmax is kept as a running maximum and sum, the forward pass saves
//! the log-sum-exp of each row, and the backward pass computes the probabilities again from it.
//! Blocks above the diagonal of a causal mask are skipped.
//!
//! Operands may be stored in any format. Products are those of a tensor core: operands in the
//! compute format, accumulation in f32. So probabilities and their gradients are rounded to the
//! compute format before they enter a product; row sums, maxima and exponentials are f32. On a
//! processor with tiles products are those of [`crate::gemm`] on packed operands, exact or split as
//! there; elsewhere they are f32 products of the rounded operands.

mod backward;
mod forward;
mod product;
#[cfg(test)]
mod tests;
mod tiles;
mod unit;

pub use backward::{AttentionBackward, Grads, attention_backward_scratch_len};
pub use forward::{AttentionForward, attention_forward_scratch_len};

use crate::gemm::ProductFormat;
use crate::rows::storage::{Src, Storage, round_in_place};
use crate::rows::{Caps, RowError};

/// Queries of a block, and keys of a block.
const BLOCK: usize = 64;
/// Chunks wanted at least, if the sequences are long enough: work for many cores.
const CHUNKS: usize = 32;
/// Widths are padded to a multiple of this in scratch memory: the widest panel of a block product.
const PANEL: usize = 32;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadShape {
    /// B: sequences.
    pub batch: usize,
    /// H: heads.
    pub heads: usize,
    /// T: positions of a sequence; queries and keys have the same.
    pub time: usize,
    /// D: elements of a head.
    pub dim: usize,
}

impl HeadShape {
    /// Blocks of positions.
    fn blocks(&self) -> usize {
        self.time.div_ceil(BLOCK)
    }

    /// First position and number of positions of a block.
    fn block(&self, block: usize) -> (usize, usize) {
        (block * BLOCK, BLOCK.min(self.time - block * BLOCK))
    }
}

/// Which positions a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionMask {
    /// Those up to its own.
    Causal,
    /// All.
    Full,
}

/// Where element (b, t, h, d) of a tensor lies: `offset + b·batch + t·time + h·head + d`, in
/// elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadLayout {
    /// First element.
    pub offset: usize,
    /// Stride between sequences.
    pub batch: usize,
    /// Stride between positions.
    pub time: usize,
    /// Stride between heads.
    pub head: usize,
}

impl HeadLayout {
    /// `[B, T, H, D]`.
    pub fn dense(shape: &HeadShape) -> HeadLayout {
        let width = shape.heads * shape.dim;
        HeadLayout { offset: 0, batch: shape.time * width, time: width, head: shape.dim }
    }

    /// Part 0 (q), 1 (k) or 2 (v) of `[B, T, 3, H, D]`.
    pub fn packed(part: usize, shape: &HeadShape) -> HeadLayout {
        let width = shape.heads * shape.dim;
        HeadLayout { offset: part * width, batch: 3 * shape.time * width, time: 3 * width, head: shape.dim }
    }

    /// Start of row (b, t, h).
    #[inline(always)]
    fn row(&self, batch: usize, time: usize, head: usize) -> usize {
        self.offset + batch * self.batch + time * self.time + head * self.head
    }

    /// One past the last element.
    fn end(&self, shape: &HeadShape) -> usize {
        self.row(shape.batch - 1, shape.time - 1, shape.heads - 1) + shape.dim
    }

    /// Checks that everything lies inside a tensor of `len` elements.
    fn check(&self, what: &'static str, shape: &HeadShape, len: usize) -> Result<(), RowError> {
        let expected = self.end(shape);
        if expected <= len { Ok(()) } else { Err(RowError::Length { what, expected, actual: len }) }
    }

    /// Whether no two rows share an element, and, if there is a second tensor with the same strides
    /// `distance` elements further, whether none of its rows shares one with these.
    ///
    /// Sufficient, not necessary: from the smallest stride to the largest, each must be at least
    /// the extent of everything below it.
    fn is_disjoint(&self, shape: &HeadShape, distance: Option<usize>) -> bool {
        let mut dims = [
            (self.batch, shape.batch),
            (self.time, shape.time),
            (self.head, shape.heads),
            (distance.unwrap_or(0), if distance.is_some() { 2 } else { 1 }),
        ];
        dims.sort_unstable();
        let mut extent = shape.dim;
        dims.into_iter().filter(|&(_, count)| count > 1).all(|(stride, count)| {
            let fits = stride >= extent;
            extent += stride * (count - 1);
            fits
        })
    }
}

/// A tensor to read and where its elements lie.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    /// The memory.
    pub data: Src<'a>,
    /// Where elements lie in it.
    pub layout: HeadLayout,
}

/// What both directions work on.
#[derive(Clone, Copy, Debug)]
pub struct HeadOperands<'a> {
    /// Sizes.
    pub shape: HeadShape,
    /// Which positions a query sees.
    pub mask: AttentionMask,
    /// Factor of the scores, usually 1/√D.
    pub scale: f32,
    /// Format of the operands of products.
    pub compute: ProductFormat,
    /// Queries.
    pub q: HeadView<'a>,
    /// Keys.
    pub k: HeadView<'a>,
    /// Values.
    pub v: HeadView<'a>,
}

fn check_shape(shape: &HeadShape) -> Result<(), RowError> {
    if shape.batch == 0 || shape.heads == 0 || shape.time == 0 || shape.dim == 0 {
        return Err(RowError::Shape { what: "attention", why: "a size is zero" });
    }
    Ok(())
}

/// The format that operands are rounded to before a product.
fn operand_format(compute: ProductFormat) -> Storage {
    match compute {
        ProductFormat::F32 | ProductFormat::Split(_) => Storage::F32,
        ProductFormat::Bf16 => Storage::Bf16,
        ProductFormat::F16 => Storage::F16,
    }
}

/// Operands of a product are stored in f32 or in its own format.
fn check_format(what: &'static str, view: &HeadView<'_>, compute: ProductFormat) -> Result<(), RowError> {
    let stored = view.data.storage();
    if stored == Storage::F32 || stored == operand_format(compute) {
        return Ok(());
    }
    Err(RowError::Shape { what, why: "stored in another 16-bit format than the products are computed in" })
}

/// Loads positions `start .. start + rows` of one head into rows of `width` elements, rounded to
/// `compute`; the rest of `out` is set to zero.
#[inline(always)]
fn load_rows<C: Caps>(
    view: &HeadView<'_>,
    shape: &HeadShape,
    compute: Storage,
    (batch, head): (usize, usize),
    (start, rows): (usize, usize),
    width: usize,
    out: &mut [f32],
) {
    let round = compute != Storage::F32 && compute != view.data.storage();
    for (i, row) in out.chunks_exact_mut(width).enumerate() {
        if i >= rows {
            row.fill(0.0);
            continue;
        }
        let (values, rest) = row.split_at_mut(shape.dim);
        view.data.load::<C>(view.layout.row(batch, start + i, head), values);
        rest.fill(0.0);
        if round {
            round_in_place::<C>(compute, values);
        }
    }
}

/// Transposes rows of `width` elements: `to` gets `width` rows of [`BLOCK`] elements.
#[inline(always)]
fn transpose(from: &[f32], width: usize, to: &mut [f32]) {
    const SIDE: usize = 8;
    for j in (0..width).step_by(SIDE) {
        for i in (0..BLOCK).step_by(SIDE) {
            for dj in 0..SIDE {
                let to = &mut to[(j + dj) * BLOCK + i..][..SIDE];
                for (di, to) in to.iter_mut().enumerate() {
                    *to = from[(i + di) * width + j + dj];
                }
            }
        }
    }
}

/// Row `i` of a square block of scores.
#[inline(always)]
fn score_row(block: &mut [f32], i: usize) -> &mut [f32; BLOCK] {
    match block[i * BLOCK..].first_chunk_mut() {
        Some(row) => row,
        None => unreachable!("scratch holds whole blocks"),
    }
}

/// How many keys of the block at `keys` the query at position `query` sees; `count` keys exist
/// there.
#[inline(always)]
fn visible(mask: AttentionMask, query: usize, keys: usize, count: usize) -> usize {
    match mask {
        AttentionMask::Full => count,
        AttentionMask::Causal => count.min((query + 1).saturating_sub(keys)),
    }
}

fn padded(dim: usize) -> usize {
    dim.next_multiple_of(PANEL)
}

/// Scratch memory in parts of these lengths.
fn split<const N: usize>(mut scratch: &mut [f32], lens: [usize; N]) -> [&mut [f32]; N] {
    lens.map(|len| {
        let (part, rest) = std::mem::take(&mut scratch).split_at_mut(len);
        scratch = rest;
        part
    })
}
