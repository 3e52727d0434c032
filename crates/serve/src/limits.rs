//! What a request may be and how long it may take, and the memory that all of them share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits of a server. [`Limits::default`] states what holds if nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body, decoded. A longer one is refused with 413.
    pub body: usize,
    /// Requests that wait for the model. One more is refused with 429.
    pub queue: usize,
    /// The time from a whole request to its answer. After it the answer is 504.
    pub request: Duration,
    /// The time for a body, from the end of its header to its last byte. After it the answer is
    /// 408.
    pub body_read: Duration,
    /// Bytes of a header, all lines together.
    pub header: usize,
    /// The time for a header, from the opening of a connection or the answer before. After it the
    /// connection is closed.
    pub header_read: Duration,
    /// The time for a client to take an answer. After it the connection is closed.
    pub answer_write: Duration,
    /// Connections that are open. Further ones wait until one is closed.
    pub connections: usize,
    /// Requests at a time on one connection of HTTP/2.
    pub streams: u32,
    /// Bodies of the largest size that are held at a time, each with what is made of it.
    pub workers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 32 << 20,
            queue: 4096,
            request: Duration::from_secs(10),
            body_read: Duration::from_secs(10),
            header: 16 << 10,
            header_read: Duration::from_secs(30),
            answer_write: Duration::from_secs(30),
            connections: 1024,
            streams: 128,
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}

/// Bytes that are reserved together. A semaphore counts no more than 2^32.
const UNIT: usize = 1 << 10;

/// The memory that requests share: [`Budget::PER_BYTE`] times the largest body for each worker.
///
/// A request reserves its share before its body is read and holds it until it is answered. So
/// thousands of small requests are held at a time and few large ones, and the memory of all is
/// bounded whatever their number.
#[derive(Clone, Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    /// Units of the largest request.
    largest: u32,
}

/// A request's share. It is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    largest: u32,
}

impl Budget {
    /// Bytes of memory for a byte of a body, at most: the body as it came, decoded, its tensors,
    /// and what the model makes of them.
    pub const PER_BYTE: usize = 4;

    /// The budget of a server with these limits.
    pub fn new(limits: &Limits) -> Budget {
        let largest = units(limits.body);
        let all = (largest as usize).saturating_mul(limits.workers.max(1)).min(Semaphore::MAX_PERMITS);
        Budget { units: Arc::new(Semaphore::new(all)), largest }
    }

    /// Reserves memory for a body of `bytes`; more than the largest body counts as that one. Waits,
    /// in the order of the requests, while there is not enough.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let wanted = units(bytes).min(self.largest);
        loop {
            // It is never closed; were it closed, waiting would be all that is right.
            if let Ok(permit) = self.units.clone().acquire_many_owned(wanted).await {
                return Reservation { permit, largest: self.largest };
            }
            std::future::pending::<()>().await;
        }
    }
}

impl Reservation {
    /// Gives back what a body of `bytes` does not need.
    pub fn shrink(&mut self, bytes: usize) {
        let needed = units(bytes).min(self.largest) as usize;
        let spare = self.permit.num_permits().saturating_sub(needed);
        drop(self.permit.split(spare));
    }
}

fn units(bytes: usize) -> u32 {
    let units = bytes.saturating_mul(Budget::PER_BYTE).div_ceil(UNIT);
    u32::try_from(units).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_bounded() {
        let limits = Limits { body: 100 * UNIT, workers: 2, ..Limits::default() };
        let budget = Budget::new(&limits);
        let waits = |bytes| {
            let budget = budget.clone();
            async move { tokio::time::timeout(Duration::from_millis(20), budget.reserve(bytes)).await.is_err() }
        };
        // Two of the largest, however large they claim to be, and not a third one.
        let first = budget.reserve(100 * UNIT).await;
        let mut second = budget.reserve(usize::MAX).await;
        assert!(waits(0).await);
        // What is not needed is for others, and no more than that.
        second.shrink(60 * UNIT);
        assert!(waits(41 * UNIT).await);
        assert!(!waits(40 * UNIT).await);
        drop(first);
        assert!(!waits(100 * UNIT).await);
    }
}
