//! Short trainings side by side: what a plan really costs and saves.

use std::time::Instant;

use halfstep_data::{Batch, Sampler};
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::Policy;
use serde::Serialize;

use super::{Doing, OnProgress, TuneError};
use crate::checkpoint::host_slice;
use crate::recipe::Experiment;
use crate::session::{Session, SessionSpec, TrainError};
use crate::train_loop::{Proceed, evaluate};

/// First steps of a run that are not timed: programs and memory are cold.
const COLD: u64 = 2;

/// A plan to try.
#[derive(Clone, Debug)]
pub struct TrialCandidate {
    /// Which formats.
    pub policy: Policy,
    /// What a session needs besides.
    pub spec: SessionSpec,
}

/// What came of it, against the first candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialOutcome {
    /// Validation loss after the last step, of each seed; none for a run that diverged.
    pub losses: Vec<Option<f64>>,
    /// Mean over seeds of loss ÷ the first's loss − 1; infinite if a run diverged.
    pub loss_increase: f64,
    /// The largest of any seed.
    pub worst_increase: f64,
    /// Median over steps of time ÷ the first's time of the same step.
    pub time: f64,
    /// 95 % upper bound of that median.
    pub time_at_most: f64,
    /// Median time of a step, in milliseconds.
    pub step_ms: f64,
    /// Bytes that the engine holds for a step, as planned.
    pub bytes: usize,
}

/// What was seen of one candidate.
#[derive(Default)]
struct Seen {
    losses: Vec<Option<f64>>,
    /// Seconds of each step of all seeds; none of one that was cold or not made.
    times: Vec<Option<f64>>,
    bytes: usize,
}

/// Trains all candidates for `steps` steps with each of `seeds` seeds, step by step in turns: they
/// see the same batches, and what else the machine does falls on all alike.
///
/// # Errors
/// A step failed; it was asked to stop.
pub fn trials(
    experiment: &Experiment,
    engine: &dyn Engine,
    candidates: &[TrialCandidate],
    (steps, seeds): (u64, u64),
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<TrialOutcome>, TuneError> {
    let recipe = &experiment.recipe;
    let mut seen: Vec<Seen> = candidates.iter().map(|_| Seen::default()).collect();
    for round in 0..seeds {
        let seed = recipe.seed.wrapping_add(round);
        let mut sessions = Vec::new();
        for (candidate, seen) in candidates.iter().zip(&mut seen) {
            let spec = SessionSpec { seed, ..candidate.spec.clone() };
            let (model, input) = (experiment.model.as_ref(), &experiment.input);
            let session = Session::new(engine, model, input, &candidate.policy, &spec)?;
            seen.bytes = session.plan().footprint.total();
            sessions.push(Some(session));
        }
        let mut sampler = Sampler::new(experiment.data.train.len(), recipe.train.batch, seed)?;
        let mut batch = Batch::new(experiment.info.input, recipe.train.batch);
        for step in 0..steps {
            let (done, of) = (round * steps + step, seeds * steps);
            if on_progress(Doing::Trying { step: done, steps: of, plans: candidates.len() }) == Proceed::Stop
            {
                return Err(TuneError::Stopped);
            }
            let (draw, indices) = sampler.batch(step);
            experiment.data.train.fill_batch(indices, draw, &mut batch)?;
            for turn in 0..sessions.len() {
                let i = (turn + step as usize) % sessions.len();
                let mut time = None;
                if let Some(session) = &mut sessions[i] {
                    let factor = recipe.schedule.factor(session.progress().committed, steps);
                    let start = Instant::now();
                    let result =
                        session.step(host_slice(&batch.x), &batch.labels, recipe.optimiser.lr() * factor);
                    time = (step >= COLD).then(|| start.elapsed().as_secs_f64());
                    match result {
                        Ok(_) => (),
                        Err(TrainError::Diverged { .. }) => sessions[i] = None,
                        Err(e) => return Err(e.into()),
                    }
                }
                seen[i].times.push(time);
            }
        }
        for (session, seen) in sessions.iter_mut().zip(&mut seen) {
            let loss = match session {
                Some(session) => {
                    let (part, batch) = (experiment.data.choosing(), experiment.evaluation_batch());
                    Some(evaluate(session, part, batch)?.loss).filter(|loss| loss.is_finite())
                }
                None => None,
            };
            seen.losses.push(loss);
        }
    }
    Ok(seen.iter().map(|s| s.against(&seen[0])).collect())
}

impl Seen {
    fn against(&self, first: &Seen) -> TrialOutcome {
        let increase = |(loss, first): (&Option<f64>, &Option<f64>)| match (loss, first) {
            (Some(loss), Some(first)) => loss / first - 1.0,
            _ => f64::INFINITY,
        };
        let increases: Vec<f64> = self.losses.iter().zip(&first.losses).map(increase).collect();
        let ratio = |(time, first): (&Option<f64>, &Option<f64>)| Some((*time)? / (*first)?);
        let ratios = sorted(self.times.iter().zip(&first.times).filter_map(ratio));
        let times = sorted(self.times.iter().flatten().map(|s| s * 1e3));
        TrialOutcome {
            losses: self.losses.clone(),
            loss_increase: increases.iter().sum::<f64>() / increases.len() as f64,
            worst_increase: increases.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            time: at(&ratios, ratios.len() / 2),
            time_at_most: at(&ratios, above_median(ratios.len())),
            step_ms: at(&times, times.len() / 2),
            bytes: self.bytes,
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value at a position, or the last; infinite of none.
fn at(sorted: &[f64], position: usize) -> f64 {
    sorted.get(position).or(sorted.last()).copied().unwrap_or(f64::INFINITY)
}

/// Position in `n` sorted values that the median of what they are drawn from lies below with 95 %
/// confidence: the number of values below the median is binomial with p = ½, here by its normal
/// limit (Conover 1999, section 3.2).
fn above_median(n: usize) -> usize {
    (n as f64 / 2.0 + 1.645 * (n as f64 / 4.0).sqrt()).ceil() as usize
}

#[cfg(test)]
mod tests {
    use halfstep_float::{Philox, unit_f64};

    use super::*;

    #[test]
    fn the_bound_covers_the_median_95_times_in_100() {
        let (random, n, trials) = (Philox::new(1), 60, 4000);
        let draw = |trial: u32, i: u32| {
            let [a, b, _, _] = random.block([trial, i, 0, 0]);
            unit_f64(a, b)
        };
        let covers =
            |trial: &u32| at(&sorted((0..n).map(|i| draw(*trial, i))), above_median(n as usize)) >= 0.5;
        let share = (0..trials).filter(covers).count() as f64 / f64::from(trials);
        // Whole positions make it a little wider than asked; six standard deviations of the count
        // below.
        let error = (0.95f64 * 0.05 / f64::from(trials)).sqrt();
        assert!(share > 0.95 - 6.0 * error && share < 0.985, "{share}");
    }
}
