//! The ranks of a job: processes that work on the same thing and exchange numbers.
//!
//! A [`Communicator`] runs an [`Exchange`] in a thread of its own, so that a sum over ranks goes on
//! beside the computation that began it. What all ranks ask for is done in the order in which each
//! asks for it: all must ask for the same.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use halfstep_float::{bf16_from_f32, f32_from_bf16};

use crate::dtype::DType;

/// Why ranks could not exchange something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunicatorError {
    /// A rank has ended.
    #[error("rank {0} has ended")]
    Gone(usize),
    /// A rank asked for something else.
    #[error(
        "rank {0} does something else than this one: are all of the same version, with the same arguments?"
    )]
    OutOfStep(usize),
    /// The exchange failed.
    #[error("the exchange between ranks failed: {0}")]
    Failed(String),
}

/// Numbers that travel between ranks.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Single precision.
    F32(Vec<f32>),
    /// Codes of bf16.
    Bf16(Vec<u16>),
}

impl Payload {
    /// Zeros.
    ///
    /// None for formats that do not travel.
    pub fn zeros(over: DType, count: usize) -> Option<Payload> {
        match over {
            DType::F32 => Some(Payload::F32(vec![0.0; count])),
            DType::Bf16 => Some(Payload::Bf16(vec![0; count])),
            DType::F16 | DType::E4m3 | DType::E5m2 | DType::I32 | DType::U8 => None,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Payload::F32(x) => x.len(),
            Payload::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes travel.
    pub fn bytes(&self) -> usize {
        match self {
            Payload::F32(x) => 4 * x.len(),
            Payload::Bf16(x) => 2 * x.len(),
        }
    }
}

/// Adds up what each rank sent, in f32 and in the order of `parts`: what makes a sum over ranks the
/// same everywhere.
pub fn sum_f32<'a>(parts: impl IntoIterator<Item = &'a [f32]>, to: &mut [f32]) {
    let mut parts = parts.into_iter();
    if let Some(first) = parts.next() {
        to.copy_from_slice(first);
    }
    parts.for_each(|part| to.iter_mut().zip(part).for_each(|(sum, &x)| *sum += x));
}

/// [`sum_f32`] of bf16 codes, rounded once at the end.
pub fn sum_bf16<'a>(parts: impl IntoIterator<Item = &'a [u16]>, to: &mut [u16]) {
    let mut sums = vec![0.0; to.len()];
    for (i, part) in parts.into_iter().enumerate() {
        // Not 0 + x for the first: that would lose the sign of −0.
        let add = |sum: f32, x: f32| if i == 0 { x } else { sum + x };
        sums.iter_mut().zip(part).for_each(|(sum, &x)| *sum = add(*sum, f32_from_bf16(x)));
    }
    to.iter_mut().zip(sums).for_each(|(to, sum)| *to = bf16_from_f32(sum));
}

/// How ranks reach each other. Every call blocks until all ranks have made it.
pub trait Exchange {
    /// Which rank this is, from 0.
    fn rank(&self) -> usize;
    /// How many there are.
    fn size(&self) -> usize;
    /// Replaces the payload by the sum over all ranks, as [`sum_f32`] and [`sum_bf16`] make it of
    /// all payloads by rank.
    ///
    /// # Errors
    /// The others cannot be reached.
    fn sum(&mut self, payload: &mut Payload) -> Result<(), CommunicatorError>;
    /// What every rank gives, by rank. For a few kilobytes.
    ///
    /// # Errors
    /// The others cannot be reached.
    fn gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, CommunicatorError>;
    /// Replaces the bytes by those of rank 0.
    ///
    /// # Errors
    /// The others cannot be reached.
    fn broadcast(&mut self, bytes: &mut Vec<u8>) -> Result<(), CommunicatorError>;
    /// Ends the exchange: nothing is exchanged afterwards.
    fn leave(&mut self) {}
    /// Ends the whole job at once, with this exit code.
    fn abort(&mut self, _code: i32) {}
}

type Job = Box<dyn FnOnce(&mut dyn Exchange) + Send>;

/// This rank's way to the others.
#[derive(Debug)]
pub struct Communicator {
    rank: usize,
    size: usize,
    jobs: Sender<Job>,
}

/// An answer on its way.
#[derive(Debug)]
pub struct Answer<T>(Receiver<T>);

impl<T> Answer<Result<T, CommunicatorError>> {
    /// The answer, once it is there.
    ///
    /// # Errors
    /// The exchange failed.
    pub fn wait(self) -> Result<T, CommunicatorError> {
        self.0.recv().unwrap_or_else(|_| Err(CommunicatorError::Failed("its thread has ended".into())))
    }
}

impl Communicator {
    /// Makes an exchange in a thread of its own.
    ///
    /// # Errors
    /// Those of `make`; the thread cannot be created.
    pub fn new<E: Exchange + 'static>(
        make: impl FnOnce() -> Result<E, CommunicatorError> + Send + 'static,
    ) -> Result<Communicator, CommunicatorError> {
        let (jobs, queue) = channel::<Job>();
        let (tell, told) = channel();
        let work = move || {
            let mut exchange = match make() {
                Ok(exchange) => exchange,
                // Nobody hears it who has not waited for it.
                Err(e) => return tell.send(Err(e)).unwrap_or(()),
            };
            let _ = tell.send(Ok((exchange.rank(), exchange.size())));
            queue.into_iter().for_each(|job: Job| job(&mut exchange));
        };
        let failed = |e: std::io::Error| CommunicatorError::Failed(e.to_string());
        std::thread::Builder::new().name("ranks".into()).spawn(work).map_err(failed)?;
        let (rank, size) = Answer(told).wait()?;
        Ok(Communicator { rank, size, jobs })
    }

    /// So many ranks in this process, one for each thread that takes one.
    pub fn in_process(size: usize) -> Vec<Communicator> {
        let mut exchanges: Vec<Threads> =
            (0..size).map(|rank| Threads { rank, to: Vec::new(), from: Vec::new() }).collect();
        for to in 0..size {
            for from in 0..size {
                let (send, receive) = channel();
                exchanges[from].to.push(send);
                exchanges[to].from.push(receive);
            }
        }
        exchanges.into_iter().filter_map(|e| Communicator::new(move || Ok(e)).ok()).collect()
    }

    /// Which rank this is, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Has the thread of the exchange do something, after all it was asked before.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Exchange) -> Result<T, CommunicatorError> + Send + 'static,
    ) -> Answer<Result<T, CommunicatorError>> {
        let (tell, told) = channel();
        // An answer that nobody waits for, or a thread that has ended: the one who waits gets an
        // error.
        let _ = self.jobs.send(Box::new(move |exchange| {
            let _ = tell.send(job(exchange));
        }));
        Answer(told)
    }

    /// Begins a sum over all ranks and returns at once.
    pub fn start_sum(&self, mut payload: Payload) -> Answer<Result<Payload, CommunicatorError>> {
        self.ask(move |exchange| exchange.sum(&mut payload).map(|()| payload))
    }

    /// What every rank gives, by rank.
    ///
    /// # Errors
    /// The exchange failed.
    pub fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, CommunicatorError> {
        self.ask(|exchange| exchange.gather(own)).wait()
    }

    /// The bytes that rank 0 gives; those of the others are ignored.
    ///
    /// # Errors
    /// The exchange failed.
    pub fn broadcast(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, CommunicatorError> {
        self.ask(|exchange| exchange.broadcast(&mut bytes).map(|()| bytes)).wait()
    }

    /// Whether any rank says so.
    ///
    /// # Errors
    /// The exchange failed.
    pub fn any(&self, here: bool) -> Result<bool, CommunicatorError> {
        let payload = Payload::F32(vec![f32::from(u8::from(here))]);
        match self.start_sum(payload).wait()? {
            Payload::F32(sum) => Ok(sum[0] != 0.0),
            Payload::Bf16(_) => Err(CommunicatorError::OutOfStep(self.rank)),
        }
    }

    /// Disconnects from the other ranks: nothing is exchanged afterwards.
    pub fn leave(&self) {
        let left = self.ask(|exchange| {
            exchange.leave();
            Ok(())
        });
        // Whether or not the exchange's thread is still there, this rank is done.
        let _ = left.wait();
    }

    /// Ends the whole job with this exit code; returns where the exchange cannot do that, or does
    /// something else.
    pub fn abort(&self, code: i32) {
        let done = self.ask(move |exchange| {
            exchange.abort(code);
            Ok(())
        });
        // A thread that waits for another rank does not come to it.
        let _ = done.0.recv_timeout(std::time::Duration::from_secs(2));
    }
}

/// What threads that are ranks send each other.
enum Packet {
    Numbers(Arc<Payload>),
    Bytes(Arc<Vec<u8>>),
}

/// Ranks in one process: everyone sends to everyone.
struct Threads {
    rank: usize,
    to: Vec<Sender<Packet>>,
    from: Vec<Receiver<Packet>>,
}

impl Threads {
    fn swap(&self, packet: impl Fn() -> Packet) -> Result<Vec<Packet>, CommunicatorError> {
        for (rank, to) in self.to.iter().enumerate() {
            to.send(packet()).map_err(|_| CommunicatorError::Gone(rank))?;
        }
        let receive =
            |(rank, from): (usize, &Receiver<Packet>)| from.recv().map_err(|_| CommunicatorError::Gone(rank));
        self.from.iter().enumerate().map(receive).collect()
    }
}

impl Exchange for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn sum(&mut self, payload: &mut Payload) -> Result<(), CommunicatorError> {
        let own = Arc::new(payload.clone());
        let packets = self.swap(|| Packet::Numbers(own.clone()))?;
        let mut parts = Vec::new();
        for (rank, packet) in packets.into_iter().enumerate() {
            match packet {
                Packet::Numbers(p) if p.len() == own.len() && p.bytes() == own.bytes() => parts.push(p),
                _ => return Err(CommunicatorError::OutOfStep(rank)),
            }
        }
        match payload {
            Payload::F32(to) => sum_f32(
                parts.iter().filter_map(|p| if let Payload::F32(x) = &**p { Some(&x[..]) } else { None }),
                to,
            ),
            Payload::Bf16(to) => sum_bf16(
                parts.iter().filter_map(|p| if let Payload::Bf16(x) = &**p { Some(&x[..]) } else { None }),
                to,
            ),
        }
        Ok(())
    }

    fn gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, CommunicatorError> {
        let own = Arc::new(own);
        let packets = self.swap(|| Packet::Bytes(own.clone()))?;
        let bytes = |(rank, packet)| match packet {
            Packet::Bytes(bytes) => Ok(bytes.to_vec()),
            Packet::Numbers(_) => Err(CommunicatorError::OutOfStep(rank)),
        };
        packets.into_iter().enumerate().map(bytes).collect()
    }

    fn broadcast(&mut self, bytes: &mut Vec<u8>) -> Result<(), CommunicatorError> {
        *bytes = self.gather(std::mem::take(bytes))?.swap_remove(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_each<T: Send + 'static>(
        size: usize,
        work: impl Fn(Communicator) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let work = Arc::new(work);
        let threads: Vec<_> = Communicator::in_process(size)
            .into_iter()
            .map(|ranks| {
                let work = work.clone();
                std::thread::spawn(move || work(ranks))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    }

    #[test]
    fn sums_are_taken_in_the_order_of_ranks_on_every_rank() {
        // 1e8 + 1 − 1e8 is 0 in f32 in this order, and 1 in another.
        let parts = [1e8f32, 1.0, -1e8];
        let sums = on_each(3, move |ranks| {
            let x = parts[ranks.rank()];
            let both =
                [Payload::F32(vec![x, -0.0]), Payload::Bf16(vec![bf16_from_f32(1.0 + x / 1e8), 0x8000])];
            // Both under way at once.
            both.map(|p| ranks.start_sum(p)).map(|sum| sum.wait().unwrap())
        });
        for [single, half] in sums {
            let Payload::F32(x) = single else { panic!() };
            assert_eq!(x.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0, 0x8000_0000]);
            assert_eq!(half, Payload::Bf16(vec![bf16_from_f32(3.0), 0x8000]));
        }
    }

    #[test]
    fn bytes_come_from_every_rank_or_from_the_first() {
        let all = on_each(3, |ranks| {
            let own = vec![ranks.rank() as u8; ranks.rank()];
            let flags = [ranks.any(ranks.rank() == 2).unwrap(), ranks.any(false).unwrap()];
            (ranks.gather(own).unwrap(), ranks.broadcast(vec![7 + ranks.rank() as u8]).unwrap(), flags)
        });
        for (gathered, broadcast, flags) in all {
            assert_eq!(gathered, [vec![], vec![1], vec![2, 2]]);
            assert_eq!((broadcast, flags), (vec![7], [true, false]));
        }
    }

    #[test]
    fn a_rank_that_has_ended_or_does_something_else_is_named() {
        let results = on_each(2, |ranks| match ranks.rank() {
            0 => Some(ranks.any(true)),
            _ => None,
        });
        assert_eq!(results[0], Some(Err(CommunicatorError::Gone(1))));
        let results = on_each(2, |ranks| match ranks.rank() {
            0 => ranks.any(true).err(),
            _ => ranks.gather(vec![]).err(),
        });
        assert_eq!(results, [Some(CommunicatorError::OutOfStep(1)), Some(CommunicatorError::OutOfStep(0))]);
    }
}
