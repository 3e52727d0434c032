//! Sums over samples that can be taken apart again.

/// Sums over samples, of which some can be taken away again.
pub trait Sums: Clone + Default {
    /// Adds the samples of another.
    fn add(&mut self, other: &Self);
    /// Takes the samples of another away, which are among these.
    fn subtract(&mut self, other: &Self);
    /// Samples.
    fn samples(&self) -> u64;
}
