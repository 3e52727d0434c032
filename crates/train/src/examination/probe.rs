//! Whether a model learns: its loss of training samples beside that of the constant predictor.

use halfstep_data::{Batch, Draw};
use serde::{Deserialize, Serialize};

use crate::callbacks::RunError;
use crate::checkpoint::host_slice;
use crate::doctor::rms;
use crate::recipe::Experiment;
use crate::session::Session;

/// Rows that the loss is measured on, at most.
const ROWS: usize = 2048;

/// A run of so many times the steps that were seen besides may bring what they did not.
const LONGER: f64 = 4.0;

/// Standard errors that a mean must differ by.
const ERRORS: f64 = 3.0;

/// Training samples from all over the data.
pub(super) struct Probe {
    /// With how many rows of each count: the last is filled up.
    batches: Vec<(Batch, usize)>,
    /// Loss of each row by the shares of the classes alone.
    constant: Vec<f64>,
}

/// Whether a model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learns {
    /// Its loss is below that of the constant predictor.
    Yes,
    /// Its loss falls, and would be below by the end of the run, or of one five times as long as
    /// the steps that were seen.
    Begins,
    /// Neither.
    No,
}

/// What some steps of training made of the loss of training samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learning {
    /// Steps.
    pub steps: u64,
    /// Mean loss before them.
    pub before: f64,
    /// Mean loss after them.
    pub loss: f64,
    /// That of the constant predictor, which knows the shares of the classes alone.
    pub constant: f64,
    /// Whether the model learns.
    pub learns: Learns,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Whether the mean of `a` lies below that of `b`, row by row, by more than chance.
pub(super) fn is_below(a: &[f64], b: &[f64]) -> bool {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let by = mean(&differences);
    let spread = rms(differences.iter().map(|d| d - by).collect::<Vec<_>>().into_iter());
    by > ERRORS * spread / (differences.len().max(2) as f64 - 1.0).sqrt() && by > 0.0
}

impl Probe {
    /// Of the training data of an experiment.
    ///
    /// # Errors
    /// The data cannot be read.
    pub fn of(experiment: &Experiment) -> Result<Probe, RunError> {
        let part = &experiment.data.train;
        let size = experiment.evaluation_batch();
        let rows = experiment.input.rows(1);
        let samples = (ROWS / rows).clamp(1, part.len());
        let at = |i: usize| (i.min(samples - 1) as u64 * part.len() as u64 / samples as u64) as u32;
        let mut batches = Vec::new();
        let mut labels: Vec<i32> = Vec::new();
        for first in (0..samples).step_by(size) {
            let indices: Vec<u32> = (first..first + size).map(at).collect();
            let mut batch = Batch::new(experiment.info.input, size);
            part.fill_batch(&indices, Draw::AsIs, &mut batch)?;
            let counted = size.min(samples - first) * rows;
            labels.extend(&batch.labels[..counted]);
            batches.push((batch, counted));
        }
        let mut counts = vec![0u64; experiment.info.outputs];
        let all = part.labels().iter().map(|&l| l as usize);
        // Text has no list of labels: those of the samples stand for them.
        let own = labels.iter().filter(|_| part.labels().is_empty()).map(|&l| l as usize);
        all.chain(own).for_each(|label| counts[label] += 1);
        let whole = counts.iter().sum::<u64>() as f64;
        let constant = labels.iter().map(|&l| -(counts[l as usize] as f64 / whole).ln()).collect();
        Ok(Probe { batches, constant })
    }

    /// Loss of each row.
    ///
    /// # Errors
    /// The engine failed.
    pub fn losses(&self, session: &mut Session<'_>) -> Result<Vec<f64>, RunError> {
        let mut all = Vec::with_capacity(self.constant.len());
        for (batch, counted) in &self.batches {
            let losses = session.evaluate(host_slice(&batch.x), &batch.labels)?.losses;
            all.extend(losses[..*counted].iter().map(|&l| f64::from(l)));
        }
        Ok(all)
    }

    /// What became of the losses in `steps` steps. `half` are those after half of them, with the
    /// share of the run's learning rates up to there; `end` those after all.
    pub fn judge(&self, steps: u64, before: &[f64], half: (f64, &[f64]), end: (f64, &[f64])) -> Learning {
        let constant = mean(&self.constant);
        let ((earlier, middle), (share, after)) = (half, end);
        let (first, loss) = (mean(before), mean(after));
        // On as in the second half, to the end of the run, or of one that is longer.
        let speed = (mean(middle) - loss) / (share - earlier).max(1e-9);
        let at_end = loss - speed * (1.0 - share).max(LONGER * share);
        let learns = match () {
            () if !loss.is_finite() => Learns::No,
            () if is_below(after, &self.constant) => Learns::Yes,
            () if is_below(after, before) && is_below(after, middle) && at_end < constant => Learns::Begins,
            () => Learns::No,
        };
        Learning { steps, before: first, loss, constant, learns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_below_another_by_more_than_chance_only() {
        let noise: Vec<f64> = (0..100).map(|i| f64::from((i * 37) % 101) / 50.0).collect();
        let shifted = |by: f64| noise.iter().rev().map(|x| x + by).collect::<Vec<_>>();
        // The standard error of a difference of two such numbers is about 0.08.
        assert!(is_below(&noise, &shifted(0.5)) && !is_below(&noise, &shifted(0.05)));
        assert!(!is_below(&noise, &noise) && !is_below(&shifted(0.5), &noise));
    }
}
