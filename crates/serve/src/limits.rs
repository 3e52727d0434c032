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

/// The memory that requests share: [`Budget::PER_BYTE`] times the largest body for each worker, and
/// as much again for what models make of bodies.
///
/// A request reserves its share before its body is read. What the model makes of it may be many
/// times as long, and is reserved when the body has been read, from a part of its own: so no
/// request that waits for the one holds what another needs of the other. Both are held until the
/// client has taken the answer. So thousands of small requests are held at a time and few large
/// ones, and the memory of all is bounded whatever their number.
#[derive(Clone, Debug)]
pub struct Budget {
    bodies: Arc<Semaphore>,
    made: Arc<Semaphore>,
    /// Units of the largest request.
    largest: u32,
}

/// A request's share. It is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    body: OwnedSemaphorePermit,
    made: Option<OwnedSemaphorePermit>,
    budget: Budget,
}

/// Why there is no memory for what a model makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMemory {
    /// It would be more than one request may have, which is so many bytes.
    TooMuch(usize),
    /// Other requests hold it.
    Held,
}

impl Budget {
    /// Bytes of memory for a byte of a body, at most: the body as it came and its tensors. What the
    /// model makes of a request may be as many bytes for each of the largest body.
    pub const PER_BYTE: usize = 2;

    /// The budget of a server with these limits.
    pub fn new(limits: &Limits) -> Budget {
        let largest = units(limits.body);
        let all = (largest as usize).saturating_mul(limits.workers.max(1)).min(Semaphore::MAX_PERMITS);
        Budget { bodies: Arc::new(Semaphore::new(all)), made: Arc::new(Semaphore::new(all)), largest }
    }

    /// Reserves memory for a body of `bytes`; more than the largest body counts as that one. Waits,
    /// in the order of the requests, while there is not enough.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let wanted = units(bytes).min(self.largest);
        loop {
            // It is never closed; were it closed, waiting would be all that is right.
            if let Ok(body) = self.bodies.clone().acquire_many_owned(wanted).await {
                return Reservation { body, made: None, budget: self.clone() };
            }
            std::future::pending::<()>().await;
        }
    }
}

impl Reservation {
    /// Gives back what a body of `bytes` does not need.
    pub fn shrink(&mut self, bytes: usize) {
        let needed = units(bytes).min(self.budget.largest) as usize;
        let spare = self.body.num_permits().saturating_sub(needed);
        drop(self.body.split(spare));
    }

    /// Reserves memory for what a model makes of the body, once, without waiting: whoever has to
    /// wait for a model holds memory, and there is a limit to how many do.
    ///
    /// # Errors
    /// It is not there, or will never be.
    pub fn make(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        if wanted > self.budget.largest {
            return Err(NoMemory::TooMuch(self.budget.largest as usize * UNIT));
        }
        let made = self.budget.made.clone().try_acquire_many_owned(wanted);
        self.made = Some(made.map_err(|_| NoMemory::Held)?);
        Ok(())
    }

    /// Gives back all but what an answer of `bytes` needs, as long as it is on its way.
    pub fn answered(&mut self, bytes: usize) {
        let half = bytes.div_ceil(Budget::PER_BYTE);
        match &mut self.made {
            Some(made) => {
                let spare = made.num_permits().saturating_sub(bytes.div_ceil(UNIT));
                drop(made.split(spare));
                self.shrink(0);
            }
            None => self.shrink(half),
        }
    }
}

/// The share of a body of `bytes`.
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

    #[tokio::test]
    async fn what_models_make_of_many_small_bodies_is_bounded() {
        let budget = Budget::new(&Limits { body: 100 * UNIT, workers: 2, ..Limits::default() });
        let mut held = Vec::new();
        for place in 0..50 {
            let mut small = budget.reserve(1).await;
            let made = small.make(20 * UNIT);
            // Twice the largest body for each of two workers is 400 units.
            assert_eq!(made, if place < 20 { Ok(()) } else { Err(NoMemory::Held) });
            held.push(small);
        }
        let mut large = budget.reserve(1).await;
        assert_eq!(large.make(201 * UNIT), Err(NoMemory::TooMuch(200 * UNIT)));
        // An answer that is short holds little while its client takes it.
        held[0].answered(UNIT);
        assert_eq!(large.make(20 * UNIT), Err(NoMemory::Held));
        assert_eq!(large.make(19 * UNIT), Ok(()));
        drop(held);
        assert_eq!(budget.reserve(1).await.make(200 * UNIT), Ok(()));
    }
}
