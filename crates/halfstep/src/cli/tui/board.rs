//! What the dashboard shows, in memory that does not grow with the run.

use std::time::{Duration, Instant};

use halfstep::train::metrics::{EvaluationMetrics, RunningLoss, StepMetrics};

/// Points kept of a curve; a terminal has fewer columns.
const POINTS: usize = 512;
/// Checkpoints shown.
const CHECKPOINTS: usize = 3;

/// A curve of at most [`POINTS`] points. When it is full, each two neighbours become their mean.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    points: Vec<(f64, f64)>,
    /// Logarithm to base 2 of the measurements in a point.
    halvings: u32,
    /// Sums of step and value of the next point, and how many are in it.
    next: (f64, f64, u64),
}

impl Curve {
    /// Adds a value; one that is not finite is left out.
    fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let (x, y, n) = (self.next.0 + step as f64, self.next.1 + value, self.next.2 + 1);
        self.next = (x, y, n);
        if n < 1 << self.halvings {
            return;
        }
        self.points.push((x / n as f64, y / n as f64));
        self.next = (0.0, 0.0, 0);
        if self.points.len() >= POINTS {
            let mean = |two: &[(f64, f64)]| ((two[0].0 + two[1].0) / 2.0, (two[0].1 + two[1].1) / 2.0);
            self.points = self.points.chunks_exact(2).map(mean).collect();
            self.halvings += 1;
        }
    }

    /// Steps and values, in order.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Recipe, model and precision.
    pub title: String,
    /// Steps of the run.
    pub steps: u64,
    /// Steps done.
    pub done: u64,
    first: u64,
    batch: usize,
    began: Instant,
    /// Loss of train batches.
    pub train: Curve,
    /// Loss on the test data.
    pub test: Curve,
    /// Logarithm of the loss scale to base 2.
    pub scales: Curve,
    /// The loss as shown, and steps that changed nothing.
    pub running: RunningLoss,
    /// The last step.
    pub last: Option<StepMetrics>,
    /// The last evaluation.
    pub evaluation: Option<EvaluationMetrics>,
    /// The last checkpoints, with their bytes.
    pub checkpoints: Vec<(String, u64)>,
    /// Resident memory of the process in bytes.
    pub memory: Option<usize>,
    /// Whether the run was asked to stop.
    pub stopping: bool,
    /// Something to be read.
    pub note: Option<String>,
}

impl Figures {
    /// Of a run of so many steps of `batch` samples, which begins or goes on at step `first`.
    pub fn new(title: String, steps: u64, first: u64, batch: usize) -> Figures {
        Figures {
            title,
            steps,
            done: first,
            first,
            batch,
            began: Instant::now(),
            train: Curve::default(),
            test: Curve::default(),
            scales: Curve::default(),
            running: RunningLoss::default(),
            last: None,
            evaluation: None,
            checkpoints: Vec::new(),
            memory: None,
            stopping: false,
            note: None,
        }
    }

    /// After a step.
    pub fn step(&mut self, step: &StepMetrics) {
        self.done = step.attempt + 1;
        self.train.push(step.attempt, f64::from(step.loss));
        self.scales.push(step.attempt, f64::from(step.scale).log2());
        self.running.push_step(step);
        self.last = Some(step.clone());
    }

    /// After an evaluation.
    pub fn evaluation(&mut self, evaluation: &EvaluationMetrics) {
        self.test.push(evaluation.attempt, evaluation.loss);
        self.evaluation = Some(evaluation.clone());
    }

    /// After a checkpoint.
    pub fn checkpoint(&mut self, name: &str, bytes: u64) {
        self.checkpoints.push((name.to_string(), bytes));
        if self.checkpoints.len() > CHECKPOINTS {
            self.checkpoints.remove(0);
        }
    }

    /// Samples in a second, evaluations and checkpoints included.
    pub fn throughput(&self) -> f64 {
        (self.done - self.first) as f64 * self.batch as f64 / self.began.elapsed().as_secs_f64().max(1e-3)
    }

    /// Time left at this throughput; none before the first step.
    pub fn left(&self) -> Option<Duration> {
        let done = self.done - self.first;
        let each = self.began.elapsed().as_secs_f64() / done as f64;
        (done > 0).then(|| Duration::from_secs_f64(each * self.steps.saturating_sub(self.done) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_keeps_its_shape_in_bounded_memory() {
        let mut curve = Curve::default();
        (0..1_000_000).for_each(|step| curve.push(step, 2.0 * step as f64));
        curve.push(0, f64::NAN);
        assert!(curve.points().len() < POINTS && curve.points().len() >= POINTS / 2);
        assert!(
            curve.points().iter().all(|(x, y)| (y - 2.0 * x).abs() < 1e-6 * y),
            "means of a line lie on it"
        );
    }
}
