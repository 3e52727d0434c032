//! How much of a GPU's memory one process may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What may be taken, and what is.
#[derive(Debug)]
pub(crate) struct Allowance {
    most: usize,
    taken: AtomicUsize,
}

/// Memory that was taken, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    of: Arc<Allowance>,
    bytes: usize,
}

impl Allowance {
    /// At most so many bytes at a time.
    pub fn new(most: usize) -> Arc<Allowance> {
        Arc::new(Allowance { most, taken: AtomicUsize::new(0) })
    }

    /// Bytes that may still be taken.
    pub fn left(&self) -> usize {
        self.most - self.taken.load(Ordering::Relaxed)
    }

    /// Takes so many; none if fewer are left.
    pub fn take(self: &Arc<Allowance>, bytes: usize) -> Option<Taken> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|&taken| taken <= self.most);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Taken { of: self.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Allowance;

    #[test]
    fn no_more_is_taken_than_allowed_and_what_is_given_back_may_be_taken_again() {
        let allowance = Allowance::new(10);
        let first = allowance.take(6).unwrap();
        assert!(allowance.take(5).is_none() && allowance.take(usize::MAX).is_none());
        let second = allowance.take(4).unwrap();
        assert_eq!(allowance.left(), 0);
        drop(first);
        assert_eq!(allowance.left(), 6);
        drop(second);
        assert!(allowance.take(10).is_some());
    }
}
