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
