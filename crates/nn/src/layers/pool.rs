//! Pooling of images `[N, H, W, C]`.

use halfstep_graph::{Graph, GraphError, PoolKind, ValueId};

/// The largest of each `window`×`window` square, at a distance of `stride`.
///
/// # Errors
/// `x` is not `[N, H, W, C]`; the window does not fit.
pub fn max_pool(
    g: &mut Graph,
    name: &str,
    x: ValueId,
    window: usize,
    stride: usize,
) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.pool(x, PoolKind::Max, window, stride))
}

/// The mean over all pixels: `[N, H, W, C]` to `[N, C]`.
///
/// # Errors
/// `x` has fewer than three dimensions.
pub fn global_mean_pool(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.mean(x, &[1, 2]))
}
