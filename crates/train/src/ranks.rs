//! What the ranks of a run tell each other besides gradients: the state to begin with, when to
//! stop, and evaluations.

use halfstep_graph::communicator::{Communicator, CommunicatorError};
use halfstep_graph::engine::{Engine, HostTensor};

use crate::metrics::EvaluationMetrics;
use crate::session::Session;
use crate::train_loop::{Proceed, RunError};

/// The engine's ranks, if there are several.
pub(crate) fn several(engine: &dyn Engine) -> Option<&Communicator> {
    engine.communicator().filter(|ranks| ranks.size() > 1)
}

/// Stops if any rank says so.
pub(crate) fn together(ranks: Option<&Communicator>, proceed: Proceed) -> Result<Proceed, CommunicatorError> {
    match ranks {
        None => Ok(proceed),
        Some(ranks) if ranks.any(proceed == Proceed::Stop)? => Ok(Proceed::Stop),
        Some(_) => Ok(Proceed::Continue),
    }
}

/// What every rank must know to go on as rank 0 does: evaluations so far, and whether rank 0 keeps
/// checkpoints.
pub(crate) type Beginning = (Vec<EvaluationMetrics>, bool);

/// Makes the beginning, counts and all state that lasts those of rank 0.
///
/// # Errors
/// Ranks that cannot reach each other, or have other state.
pub(crate) fn share(
    begin: Beginning,
    ranks: &Communicator,
    session: &mut Session<'_>,
) -> Result<Beginning, RunError> {
    let unreadable = |e: serde_json::Error| CommunicatorError::Failed(e.to_string());
    let told = serde_json::to_vec(&(session.progress(), begin)).map_err(unreadable)?;
    let (progress, begin) = serde_json::from_slice(&ranks.broadcast(told)?).map_err(unreadable)?;
    session.restore_progress(progress);
    let slots: Vec<String> = session.lasting_slots().map(|s| s.name.clone()).collect();
    for slot in slots {
        let shared = match session.download(&slot)? {
            HostTensor::F32(x) => HostTensor::F32(words(ranks, x, f32::to_le_bytes, f32::from_le_bytes)?),
            HostTensor::I32(x) => HostTensor::I32(words(ranks, x, i32::to_le_bytes, i32::from_le_bytes)?),
        };
        session.upload(&slot, shared.as_slice())?;
    }
    Ok(begin)
}

/// What rank 0 has of these.
fn words<T>(
    ranks: &Communicator,
    own: Vec<T>,
    to: fn(T) -> [u8; 4],
    from: fn([u8; 4]) -> T,
) -> Result<Vec<T>, CommunicatorError> {
    let own: Vec<[u8; 4]> = own.into_iter().map(to).collect();
    let bytes = ranks.broadcast(own.concat())?;
    Ok(bytes.chunks_exact(4).map(|b| from([b[0], b[1], b[2], b[3]])).collect())
}

/// What an evaluation has found in one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchSums {
    pub loss: f64,
    pub correct: u64,
    pub rows: u64,
}

/// All batches in order, of ranks that took turns at them.
///
/// # Errors
/// Ranks that cannot reach each other, or had other batches.
pub(crate) fn gather_in_turns(
    ranks: &Communicator,
    own: &[BatchSums],
) -> Result<Vec<BatchSums>, CommunicatorError> {
    let words = |s: &BatchSums| [s.loss.to_bits(), s.correct, s.rows].map(u64::to_le_bytes).concat();
    let all = ranks.gather(own.iter().flat_map(words).collect())?;
    let read = |bytes: &[u8]| -> Option<BatchSums> {
        let word = |i: usize| Some(u64::from_le_bytes(bytes.get(8 * i..8 * i + 8)?.try_into().ok()?));
        Some(BatchSums { loss: f64::from_bits(word(0)?), correct: word(1)?, rows: word(2)? })
    };
    let count = all.iter().map(|bytes| bytes.len() / 24).sum();
    let batch = |i: usize| {
        let (rank, at) = (i % ranks.size(), 24 * (i / ranks.size()));
        all[rank].get(at..).and_then(read).ok_or(CommunicatorError::OutOfStep(rank))
    };
    (0..count).map(batch).collect()
}
