//! What may follow a product while its results are in cache.

use std::fmt;

/// Takes the results of a product block by block, in f32, in the place of the output.
///
/// It is called once for a block of some ten thousand elements, so the call through a pointer costs
/// nothing.
pub(crate) trait BlockEpilogue: fmt::Debug + Sync {
    /// Elements of the whole result.
    fn len(&self) -> usize;

    /// Takes `rows` runs of `width` elements, which lie one after another in `results`; run `r`
    /// begins at element `at(r)` of the whole.
    ///
    /// # Safety
    /// No other call at the same time names one of these elements.
    ///
    /// # Panics
    /// If a run ends outside of the whole, or `results` is shorter than all runs.
    unsafe fn apply(&self, results: &[f32], rows: usize, width: usize, at: &dyn Fn(usize) -> usize);
}
