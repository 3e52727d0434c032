//! The state of an mbarrier, which the simulation keeps beside shared memory.

use crate::memory::{Vector, join};

/// An mbarrier. A phase ends when no arrival and no byte of it is lacking.
#[derive(Clone, Debug)]
pub(crate) struct Mbarrier {
    /// Arrivals that a phase takes.
    pub expected: u32,
    /// Arrivals that the phase still lacks.
    pub pending: u32,
    /// Bytes that the phase still lacks; negative while copies arrive before they are announced.
    pub transactions: i64,
    /// Phases that have ended.
    pub phase: u32,
    /// What the threads that arrived in this phase knew.
    pub arriving: Vector,
    /// What those of the phases that have ended knew.
    pub arrived: Vector,
}

/// Largest number of arrivals and of bytes of a phase, by the PTX ISA.
pub(crate) const MBARRIER_LIMIT: u32 = (1 << 20) - 1;

impl Mbarrier {
    /// An mbarrier whose phases take `expected` arrivals.
    pub fn new(expected: u32) -> Mbarrier {
        let nothing = Vector::default();
        Mbarrier {
            expected,
            pending: expected,
            transactions: 0,
            phase: 0,
            arriving: nothing,
            arrived: nothing,
        }
    }

    /// `count` arrivals of a thread that knows what `knows` says.
    pub fn arrive(&mut self, count: u32, knows: &Vector) -> Result<(), String> {
        if count == 0 {
            return Err("an arrival counts as 0; 1 is the least".to_string());
        }
        if count > self.pending {
            let Mbarrier { expected, pending, .. } = self;
            return Err(format!("{count} arrivals, where its phase lacks {pending} of {expected}"));
        }
        self.pending -= count;
        join(&mut self.arriving, knows);
        self.turn()
    }

    /// As [`Mbarrier::arrive`]; later phases take as many arrivals less.
    pub fn arrive_and_drop(&mut self, count: u32, knows: &Vector) -> Result<(), String> {
        self.expected = self.expected.saturating_sub(count);
        self.arrive(count, knows)
    }

    /// `bytes` more will be copied in this phase.
    pub fn expect(&mut self, bytes: u32) -> Result<(), String> {
        self.transactions += i64::from(bytes);
        if self.transactions > i64::from(MBARRIER_LIMIT) {
            return Err(format!("{} bytes in one phase; {MBARRIER_LIMIT} is the most", self.transactions));
        }
        self.turn()
    }

    /// `bytes` were copied, by a thread that knew what `knows` says.
    pub fn complete(&mut self, bytes: u32, knows: &Vector) -> Result<(), String> {
        self.transactions -= i64::from(bytes);
        join(&mut self.arriving, knows);
        self.turn()
    }

    /// Whether the phase of this parity, the current one or the one before, has ended.
    pub fn ended(&self, parity: u32) -> bool {
        self.phase & 1 != parity & 1
    }

    /// What the phase waits for, in words.
    pub fn lacks(&self) -> String {
        let Mbarrier { pending, transactions, phase, .. } = self;
        format!("its phase {phase} lacks {pending} arrivals and {transactions} bytes")
    }

    fn turn(&mut self) -> Result<(), String> {
        if self.pending > 0 || self.transactions > 0 {
            return Ok(());
        }
        if self.transactions < 0 {
            let more = -self.transactions;
            return Err(format!("{more} bytes more were copied than its phase expects"));
        }
        self.phase += 1;
        self.pending = self.expected;
        join(&mut self.arrived, &self.arriving);
        self.arriving = Vector::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(warp: usize, count: u32) -> Vector {
        let mut vector = Vector::default();
        vector[warp] = count;
        vector
    }

    #[test]
    fn a_phase_ends_with_its_last_arrival_and_its_last_byte() {
        let mut mbarrier = Mbarrier::new(2);
        mbarrier.arrive(1, &knows(0, 3)).unwrap();
        mbarrier.expect(64).unwrap();
        mbarrier.arrive(1, &knows(1, 4)).unwrap();
        assert!(!mbarrier.ended(0) && mbarrier.ended(1));
        assert_eq!(mbarrier.lacks(), "its phase 0 lacks 0 arrivals and 64 bytes");
        mbarrier.complete(48, &knows(2, 5)).unwrap();
        assert!(!mbarrier.ended(0));
        mbarrier.complete(16, &knows(2, 5)).unwrap();
        assert!(mbarrier.ended(0) && !mbarrier.ended(1));
        // Who waits learns what all who arrived knew, and the copy.
        assert_eq!(mbarrier.arrived[..4], [3, 4, 5, 0]);
        assert_eq!((mbarrier.pending, mbarrier.phase), (2, 1));
    }

    #[test]
    fn bytes_may_come_before_they_are_expected_but_not_instead() {
        let mut mbarrier = Mbarrier::new(1);
        mbarrier.complete(32, &knows(0, 1)).unwrap();
        mbarrier.expect(32).unwrap();
        mbarrier.arrive(1, &knows(0, 1)).unwrap();
        assert!(mbarrier.ended(0));
        mbarrier.expect(16).unwrap();
        mbarrier.arrive(1, &knows(0, 1)).unwrap();
        let more = mbarrier.complete(32, &knows(0, 1)).unwrap_err();
        assert_eq!(more, "16 bytes more were copied than its phase expects");
    }

    #[test]
    fn arrivals_beyond_a_phase_are_refused_and_dropped_ones_stay_away() {
        let mut mbarrier = Mbarrier::new(3);
        assert!(mbarrier.arrive(4, &knows(0, 1)).is_err());
        assert!(mbarrier.arrive(0, &knows(0, 1)).is_err());
        mbarrier.arrive_and_drop(1, &knows(0, 1)).unwrap();
        mbarrier.arrive(2, &knows(1, 1)).unwrap();
        assert!(mbarrier.ended(0));
        mbarrier.arrive(2, &knows(1, 1)).unwrap();
        assert!(mbarrier.ended(1));
        assert!(mbarrier.expect(MBARRIER_LIMIT + 1).is_err());
    }
}
