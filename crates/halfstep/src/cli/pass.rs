//! One pass of a trained model over samples.

use std::time::{Duration, Instant};

use halfstep::data::{Batch, Draw, Part};
use halfstep::graph::engine::HostSlice;
use halfstep::train::checkpoint::host_slice;
use halfstep::train::session::{Evaluation, TrainError};

use super::failure::Failure;

/// What a model makes of samples and their labels.
pub type Evaluate<'e> = dyn FnMut(HostSlice<'_>, &[i32]) -> Result<Evaluation, TrainError> + 'e;

/// Evaluates `samples` of `part`, `batch` at a time and in order. `each` gets what the model makes
/// of them, and their labels. Gives the time that the model took.
///
/// # Errors
/// A sample cannot be read, or the model cannot be run.
pub fn over(
    evaluate: &mut Evaluate<'_>,
    part: &Part,
    samples: &[u32],
    batch: usize,
    each: &mut dyn FnMut(&Evaluation, &[i32]),
) -> Result<Duration, Failure> {
    let mut buffers = Batch::new(part.input(), batch);
    let mut indices = vec![0; batch];
    let mut time = Duration::ZERO;
    for chunk in samples.chunks(batch) {
        // The last batch is filled up with its first sample, which is not counted again.
        indices.fill(chunk[0]);
        indices[..chunk.len()].copy_from_slice(chunk);
        part.fill_batch(&indices, Draw::AsIs, &mut buffers)?;
        let begun = Instant::now();
        let mut evaluation = evaluate(host_slice(&buffers.x), &buffers.labels)?;
        time += begun.elapsed();
        let all = evaluation.losses.len();
        let (rows, classes) = (all * chunk.len() / batch, evaluation.logits.len() / all);
        evaluation.losses.truncate(rows);
        evaluation.predictions.truncate(rows);
        evaluation.logits.truncate(rows * classes);
        each(&evaluation, &buffers.labels[..rows]);
    }
    Ok(time)
}
