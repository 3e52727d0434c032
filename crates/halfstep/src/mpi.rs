//! Ranks of an MPI job.
//!
//! All calls to MPI are made by the one thread that [`Communicator`] runs an exchange in, which is
//! also the one that initialises it: `MPI_THREAD_FUNNELED` is all that is asked of the library.
//!
//! A sum is exchanged in two steps, so that the order of its additions is ours and not the
//! library's. Each rank gets every rank's numbers for its own share of the places (`MPI_Alltoall`),
//! adds them in the order of ranks, and gives the result to all (`MPI_Allgather`). That moves as
//! many bytes as a ring: 2 (N − 1)/N of the message from each rank. A short message is sent whole
//! to everyone, who adds it up for himself: it costs one step in place of two.

use halfstep_graph::communicator::{Communicator, CommunicatorError, Exchange, Payload, sum_bf16, sum_f32};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives, Equivalence, Root};

/// Elements, of all ranks together, up to which a message is sent whole to everyone.
const SHORT: usize = 1 << 14;
/// Bytes of a broadcast at a time: MPI counts in 32 bits.
const PIECE: usize = 1 << 30;

/// Joins the MPI job that this process was started in.
///
/// # Errors
/// MPI cannot be initialised, or was before.
pub fn join() -> Result<Communicator, CommunicatorError> {
    Communicator::new(|| {
        let joined = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, _) =
            joined.ok_or_else(|| CommunicatorError::Failed("MPI was initialised before".into()))?;
        let world = universe.world();
        Ok(Job { world, universe: Some(universe), single: Buffers::default(), half: Buffers::default() })
    })
}

/// Memory of exchanges, kept between them.
#[derive(Default)]
struct Buffers<T> {
    send: Vec<T>,
    receive: Vec<T>,
    sums: Vec<T>,
}

struct Job {
    world: SimpleCommunicator,
    /// MPI ends when this is dropped.
    universe: Option<Universe>,
    single: Buffers<f32>,
    half: Buffers<u16>,
}

/// Adds up what ranks sent.
type Add<T> = fn(std::slice::Chunks<'_, T>, &mut [T]);

impl<T: Equivalence + Copy + Default> Buffers<T> {
    fn sum(&mut self, world: &SimpleCommunicator, values: &mut [T], add: Add<T>) {
        let ranks = world.size() as usize;
        if values.is_empty() {
            return;
        }
        if values.len() * ranks <= SHORT {
            self.receive.resize(values.len() * ranks, T::default());
            world.all_gather_into(values, &mut self.receive[..]);
            return add(self.receive.chunks(values.len()), values);
        }
        let share = values.len().div_ceil(ranks);
        self.send.clear();
        self.send.extend_from_slice(values);
        self.send.resize(share * ranks, T::default());
        self.receive.resize(share * ranks, T::default());
        self.sums.resize(share, T::default());
        world.all_to_all_into(&self.send[..], &mut self.receive[..]);
        add(self.receive.chunks(share), &mut self.sums);
        world.all_gather_into(&self.sums[..], &mut self.send[..]);
        values.copy_from_slice(&self.send[..values.len()]);
    }
}

impl Exchange for Job {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&mut self, payload: &mut Payload) -> Result<(), CommunicatorError> {
        match payload {
            Payload::F32(values) => self.single.sum(&self.world, values, |parts, to| sum_f32(parts, to)),
            Payload::Bf16(values) => self.half.sum(&self.world, values, |parts, to| sum_bf16(parts, to)),
        }
        Ok(())
    }

    fn gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, CommunicatorError> {
        let mut lengths = vec![0u64; self.size()];
        self.world.all_gather_into(&(own.len() as u64), &mut lengths[..]);
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        if longest == 0 {
            // The address of an empty `Vec<u8>` is 1, which Open MPI takes for MPI_IN_PLACE.
            return Ok(vec![Vec::new(); self.size()]);
        }
        let mut padded = own;
        padded.resize(longest, 0);
        let mut all = vec![0u8; longest * self.size()];
        self.world.all_gather_into(&padded[..], &mut all[..]);
        let part = |(rank, &length): (usize, &u64)| all[rank * longest..][..length as usize].to_vec();
        Ok(lengths.iter().enumerate().map(part).collect())
    }

    fn broadcast(&mut self, bytes: &mut Vec<u8>) -> Result<(), CommunicatorError> {
        let first = self.world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        bytes.chunks_mut(PIECE).for_each(|piece| first.broadcast_into(piece));
        Ok(())
    }

    fn leave(&mut self) {
        self.universe = None;
    }

    fn abort(&mut self, code: i32) {
        self.world.abort(code);
    }
}
