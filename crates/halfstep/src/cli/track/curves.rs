//! What trackers show of a run, under which names.

use halfstep::train::metrics::Event;
use halfstep_track::Scalar;

/// Turns events into numbers by name. Events come in order and from the first one on.
#[derive(Clone, Copy, Debug)]
pub struct Curves {
    batch: usize,
    skipped: u64,
}

impl Curves {
    /// Of a run with so many samples in a step, of which `skipped` steps changed nothing so far.
    pub fn new(batch: usize, skipped: u64) -> Curves {
        Curves { batch, skipped }
    }

    /// The numbers of an event, all of one step.
    pub fn of(&mut self, event: &Event, time: f64) -> Vec<Scalar> {
        let (step, values) = match event {
            Event::Step(s) => {
                self.skipped += u64::from(!s.committed);
                let values = vec![
                    ("loss/train", f64::from(s.loss)),
                    ("grad_norm", f64::from(s.grad_norm)),
                    ("lr", s.lr),
                    ("loss_scale", f64::from(s.scale)),
                    ("skipped_steps", self.skipped as f64),
                    ("samples_per_second", self.batch as f64 / s.ms * 1e3),
                ];
                (s.attempt, values)
            }
            Event::Evaluation(e) => (e.attempt, vec![("loss/test", e.loss), ("accuracy/test", e.accuracy)]),
        };
        values.into_iter().map(|(name, value)| Scalar { name, step, time, value }).collect()
    }

    /// The numbers of a line of the log.
    #[cfg(feature = "mlflow")]
    pub fn of_line(&mut self, line: &str) -> Vec<Scalar> {
        serde_json::from_str(line)
            .map_or(Vec::new(), |line: halfstep::train::metrics::LogLine<'_>| self.of(&line.event, line.time))
    }
}
