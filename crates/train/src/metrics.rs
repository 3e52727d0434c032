//! What is measured while a model trains.

use halfstep_graph::StateBytes;
use serde::{Deserialize, Deserializer, Serialize};

fn number_or_null<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + From<f32>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or(f32::NAN.into()))
}

/// Where the first number that is not finite was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// In the batch itself.
    Data,
    /// In the weights, before the step.
    Weights,
    /// Between inputs and loss.
    Forward,
    /// Between loss and gradients.
    Backward,
    /// In running statistics, which batch norm keeps.
    Statistics,
    /// In the moments that the optimiser would have kept of the gradients, which are finite.
    Moments,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cause::Data => "the batch holds NaN or infinity: clean the data",
            Cause::Weights => "the weights hold NaN or infinity: start from others",
            Cause::Forward => {
                "inputs and weights are finite, but the loss is not: lower the learning rate, or \
                keep the layers that overflow in f32"
            }
            Cause::Backward => {
                "the loss is finite, but a gradient is not: use dynamic loss scaling with a lower \
                floor, or keep the layers that overflow in f32"
            }
            Cause::Statistics => {
                "loss and gradients are finite, but the mean or variance of an activation is not: \
                normalise the inputs"
            }
            Cause::Moments => {
                "loss and gradients are finite, but the gradients are so large that the optimiser's \
                moments of them would not be: clip the gradients, or lower the learning rate"
            }
        })
    }
}

/// One step, as a line of `metrics.jsonl` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps tried before this one.
    pub attempt: u64,
    /// Mean loss of the batch before the update, without the loss scale. JSON has no word for what
    /// is not finite: it is `null`, and read as NaN.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f32,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradients, without the loss scale and before clipping.
    #[serde(deserialize_with = "number_or_null")]
    pub grad_norm: f32,
    /// Loss scale.
    pub scale: f32,
    /// Whether the model changed.
    pub committed: bool,
    /// Milliseconds that the program ran.
    pub ms: f64,
    /// Of a step that was skipped: where the first number that is not finite was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// Loss and accuracy on one part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean cross-entropy per target, in nats.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Fraction of the targets that were predicted.
    pub accuracy: f64,
}

/// One evaluation: on the test data, and on validation data where there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationMetrics {
    /// Steps tried before it.
    pub attempt: u64,
    /// Mean cross-entropy per target, in nats.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Fraction of the targets that were predicted.
    pub accuracy: f64,
    /// The same of the validation data, by which models are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Measured>,
}

impl EvaluationMetrics {
    /// What models are chosen by.
    pub fn choosing(&self) -> Measured {
        self.validation.unwrap_or(Measured { loss: self.loss, accuracy: self.accuracy })
    }
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine<'a> {
    /// When it was written, in seconds since 1970: for showing. 0 in logs of versions that did not
    /// say.
    #[serde(default)]
    pub time: f64,
    /// Precision policy of the run.
    pub policy: &'a str,
    /// Seed of the run.
    pub seed: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line of `metrics.jsonl` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A step.
    Step(StepMetrics),
    /// An evaluation.
    Evaluation(EvaluationMetrics),
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome {
    /// All its steps were done.
    #[default]
    Finished,
    /// It was asked to stop before its last step.
    Interrupted,
    /// Its gradients were not finite and nothing could be done about it.
    Diverged {
        /// What is known.
        reason: String,
    },
}

/// How the loss moved over the last steps of a run: the line of least squares through the means of
/// equal stretches of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LossTrend {
    /// Steps it is of: the last tenth, at least 40 where there are as many.
    pub steps: usize,
    /// Change of the line over these steps: below zero, the loss falls.
    pub change: f64,
    /// Its standard error, from the scatter of the stretches around the line.
    pub error: f64,
}

/// Stretches whose means a [`LossTrend`] is of, at most: neighbouring steps have more in common
/// than the scatter of distant ones shows.
const STRETCHES: usize = 20;
/// Fewest steps that a [`LossTrend`] is of, and fewest of a run that has as many.
const LEAST_STEPS: (usize, usize) = (8, 2 * STRETCHES);
/// A fall over the last steps below which a loss has settled: half of the harm in NLL that counts
/// as none unless another margin is stated.
const SETTLED: f64 = 0.01;

impl LossTrend {
    fn of(losses: &[f32]) -> Option<LossTrend> {
        let steps = (losses.len() / 10).max(LEAST_STEPS.1).min(losses.len());
        let last = &losses[losses.len() - steps..];
        if steps < LEAST_STEPS.0 || last.iter().any(|l| !l.is_finite()) {
            return None;
        }
        let count = steps.min(STRETCHES);
        // Stretches of equal length from the end: fewer steps than there are stretches are left
        // out.
        let length = steps / count;
        let means: Vec<f64> = last[steps - length * count..]
            .chunks(length)
            .map(|part| part.iter().map(|&l| f64::from(l)).sum::<f64>() / length as f64)
            .collect();
        let n = count as f64;
        let (x_mean, y_mean) = ((n - 1.0) / 2.0, means.iter().sum::<f64>() / n);
        let (mut xx, mut xy) = (0.0, 0.0);
        for (i, y) in means.iter().enumerate() {
            let x = i as f64 - x_mean;
            xx += x * x;
            xy += x * (y - y_mean);
        }
        let slope = xy / xx;
        let residual = |(i, y): (usize, &f64)| (y - y_mean - slope * (i as f64 - x_mean)).powi(2);
        let variance = means.iter().enumerate().map(residual).sum::<f64>() / (n - 2.0);
        Some(LossTrend { steps, change: slope * n, error: n * (variance / xx).sqrt() })
    }

    /// The mean over runs; none without runs.
    pub fn mean(of: &[LossTrend]) -> Option<LossTrend> {
        let n = of.len() as f64;
        Some(LossTrend {
            steps: of.first()?.steps,
            change: of.iter().map(|t| t.change).sum::<f64>() / n,
            error: of.iter().map(|t| t.error * t.error).sum::<f64>().sqrt() / n,
        })
    }

    /// Whether the loss falls still: by more than 0.01, and by more than three standard errors.
    pub fn is_falling(&self) -> bool {
        -self.change > SETTLED && -self.change > 3.0 * self.error
    }
}

/// Everything measured in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Precision policy.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Loss of every step.
    pub losses: Vec<f32>,
    /// Milliseconds of every step.
    pub step_ms: Vec<f32>,
    /// Evaluations, in order.
    pub evaluations: Vec<EvaluationMetrics>,
    /// Steps that changed nothing.
    pub skipped: u64,
    /// Loss scale of the last step.
    pub last_scale: f32,
    /// Samples in a step.
    pub batch: usize,
    /// Bytes of the training program's arena.
    pub arena_bytes: usize,
    /// Bytes of weights, moments and the rest.
    pub state_bytes: StateBytes,
    /// Seconds from the first step to the end, evaluations included; of a run that was resumed, of
    /// its parts.
    pub wall_seconds: f64,
    /// Evaluations in a row without a better one that ended the run early.
    #[serde(default)]
    pub out_of_patience: Option<u64>,
    /// Seconds that steps waited for their data.
    #[serde(default)]
    pub data_seconds: f64,
}

impl RunRecord {
    /// Mean loss of the last steps: an epoch's last tenth at most, at least one step.
    ///
    /// None before the first step.
    pub fn final_train_loss(&self) -> Option<f64> {
        let n = self.losses.len();
        let last = &self.losses[n - n.min((n / 10).max(1))..];
        (n > 0).then(|| last.iter().map(|&l| f64::from(l)).sum::<f64>() / last.len() as f64)
    }

    /// How the loss moved over the last steps; none of fewer than 8 steps, or if one of these
    /// losses is not finite.
    pub fn loss_trend(&self) -> Option<LossTrend> {
        LossTrend::of(&self.losses)
    }

    /// Median time of a step in milliseconds, the first step left out where there are more: it
    /// touches memory for the first time.
    pub fn median_ms(&self) -> Option<f64> {
        let warm = if self.step_ms.len() > 1 { &self.step_ms[1..] } else { &self.step_ms };
        let mut sorted: Vec<f64> = warm.iter().map(|&t| f64::from(t)).collect();
        sorted.sort_by(f64::total_cmp);
        let (middle, even) = (sorted.len() / 2, sorted.len().is_multiple_of(2));
        match sorted.len() {
            0 => None,
            _ if even => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
            _ => Some(sorted[middle]),
        }
    }

    /// Adds what a line of the run's log tells.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                self.losses.push(step.loss);
                self.step_ms.push(step.ms as f32);
                self.skipped += u64::from(!step.committed);
                self.last_scale = step.scale;
            }
            Event::Evaluation(evaluation) => self.evaluations.push(evaluation.clone()),
        }
    }
}

/// Exponential moving average of losses, and a count of skipped steps, for showing.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningLoss {
    sum: f64,
    weight: f64,
    /// Steps that changed nothing.
    pub skipped: u64,
}

impl RunningLoss {
    /// Adds a loss; one that is not finite is left out.
    pub fn push(&mut self, loss: f32) {
        if loss.is_finite() {
            self.sum = self.sum * 0.98 + f64::from(loss);
            self.weight = self.weight * 0.98 + 1.0;
        }
    }

    /// Adds what a step tells.
    pub fn push_step(&mut self, step: &StepMetrics) {
        self.push(step.loss);
        self.skipped += u64::from(!step.committed);
    }

    /// The average, which begins at the first loss.
    pub fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(losses: Vec<f32>, step_ms: Vec<f32>) -> RunRecord {
        RunRecord { losses, step_ms, ..RunRecord::default() }
    }

    #[test]
    fn the_median_leaves_the_first_step_out() {
        assert_eq!(record(vec![], vec![100.0, 1.0, 3.0, 2.0]).median_ms(), Some(2.0));
        assert_eq!(record(vec![], vec![100.0, 1.0, 2.0]).median_ms(), Some(1.5));
        assert_eq!(record(vec![], vec![100.0]).median_ms(), Some(100.0));
        assert_eq!(record(vec![], vec![]).median_ms(), None);
    }

    #[test]
    fn the_final_loss_is_the_mean_of_the_last_tenth() {
        let mut losses = vec![9.0; 20];
        losses[18] = 1.0;
        losses[19] = 2.0;
        assert_eq!(record(losses, vec![]).final_train_loss(), Some(1.5));
        assert_eq!(record(vec![4.0], vec![]).final_train_loss(), Some(4.0));
        assert_eq!(record(vec![], vec![]).final_train_loss(), None);
    }

    #[test]
    fn a_loss_that_still_falls_is_distinguished_from_one_that_has_settled() {
        // Noise of ±0.05 in turns of three, around a line that falls by 0.001 a step, and around
        // none.
        let of = |slope: f32, steps: usize| {
            let noise = |i: usize| [0.05, -0.05, 0.0][i % 3];
            let losses = (0..steps).map(|i| 2.0 - slope * i as f32 + noise(i)).collect();
            record(losses, vec![]).loss_trend().unwrap()
        };
        let falling = of(0.001, 1000);
        assert_eq!(falling.steps, 100);
        // The stretches are five steps long: the noise of their means is below 0.02, and so that of
        // the line's change.
        assert!((falling.change + 0.1).abs() < 0.02 && falling.is_falling(), "{falling:?}");
        assert!(!of(0.0, 1000).is_falling());
        // By a hundredth of a nat in a thousand steps: settled.
        assert!(!of(0.00001, 1000).is_falling());
        // A short run is judged by its last 40 steps.
        assert_eq!(of(0.05, 60).steps, 40);
        assert!(of(0.05, 60).is_falling() && of(0.05, 10).is_falling());
        // What one run cannot show, several can.
        let one = LossTrend { steps: 40, change: -0.1, error: 0.05 };
        assert!(!one.is_falling() && LossTrend::mean(&[one; 4]).unwrap().is_falling());
        assert_eq!(LossTrend::mean(&[]), None);
        assert_eq!(record(vec![1.0; 7], vec![]).loss_trend(), None);
        let mut losses = vec![1.0; 50];
        losses[45] = f32::NAN;
        assert_eq!(record(losses, vec![]).loss_trend(), None);
    }

    #[test]
    fn a_running_loss_starts_at_the_first_and_survives_nan() {
        let mut running = RunningLoss::default();
        assert_eq!(running.value(), None);
        running.push(3.0);
        running.push(f32::NAN);
        assert_eq!(running.value(), Some(3.0));
    }
}
