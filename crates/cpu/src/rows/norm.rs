//! Layer normalisation (Ba, Kiros and Hinton 2016) and batch normalisation (Ioffe and Szegedy 2015)
//! over the last dimension of `[rows, cols]`, forward and backward.
//!
//! Variances are computed in two passes: the mean first, then the squared distances from it.

mod batch;
mod layer;

use std::ops::Range;

pub use batch::{BatchNormApply, BatchNormDx, BatchNormMoment, BatchNormSums};
pub use layer::{LayerNorm, LayerNormBackward, layer_norm_backward_scratch_len};

use super::elementwise::{BLOCK, Chain};
use super::storage::{Src, TILE};
use super::{Caps, RowError, check_len};

fn check_columns(cols: usize, vectors: &[(&'static str, Option<usize>)]) -> Result<(), RowError> {
    vectors.iter().try_for_each(|&(what, len)| len.map_or(Ok(()), |len| check_len(what, cols, len)))
}

/// Rows that go to a chain must fit its blocks.
fn check_block(chain: Option<&Chain<'_>>, cols: usize) -> Result<(), RowError> {
    if chain.is_none() || cols <= BLOCK {
        return Ok(());
    }
    Err(RowError::Shape { what: "row", why: "it is too long for a chain to continue" })
}

/// Repeats the first `len` values until there are `times` as many.
#[inline(always)]
fn repeat(values: &mut [f32; TILE], len: usize, times: usize) -> &[f32] {
    let mut done = len;
    while done < len * times {
        let more = done.min(len * times - done);
        values.copy_within(..more, done);
        done += more;
    }
    &values[..len * times]
}

/// Some of a vector, or ones where there is none.
#[inline(always)]
fn view_or_ones<'b, C: Caps>(
    vector: &'b Option<Src<'_>>,
    range: Range<usize>,
    buffer: &'b mut [f32],
) -> &'b [f32] {
    match vector {
        Some(v) => v.view::<C>(range, buffer),
        None => {
            let out = &mut buffer[..range.len()];
            out.fill(1.0);
            out
        }
    }
}
