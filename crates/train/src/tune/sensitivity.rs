//! What rounding one contraction does to loss, gradients and update: measured, at weights that have
//! been trained a little.

use halfstep_data::{Batch, Sampler};
use halfstep_graph::engine::HostTensor;
use serde::Serialize;

use super::TuneError;
use crate::checkpoint::host_slice;
use crate::recipe::Experiment;
use crate::session::{Progress, Session, TrainError};

/// Most times a step is tried again while its loss scale falls.
const TRIES: u32 = 40;

/// What a change of precision does to a step, against fp32: means over batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Distance of the losses.
    pub loss: f64,
    /// Cosine of the angle between the two gradients.
    pub cosine: f64,
    /// ‖Δw − Δw₃₂‖ / ‖Δw₃₂‖, of all weights.
    pub update: f64,
    /// ‖Δw‖ / ‖w‖ of the unit's own weights; none if it has none.
    pub update_to_weight: Option<f64>,
}

/// Where sensitivity is measured: state, counts, batches and rate.
pub struct Point {
    slots: Vec<(String, HostTensor)>,
    progress: Progress,
    /// The batches it is measured on, for timing too.
    pub batches: Vec<Batch>,
    /// The learning rate it is measured at.
    pub lr: f64,
    weights: Vec<String>,
    /// How far the loss had come down: first less last.
    pub progress_made: f64,
    /// fp32's response to each batch.
    reference: Vec<Response>,
}

/// What a step makes of a batch.
struct Response {
    loss: f64,
    /// Unscaled, of all weights in turn.
    gradient: Vec<f32>,
    /// Weights after less weights before.
    update: Vec<f32>,
}

impl Point {
    /// Where `session`, an fp32 one with readable gradients that has been trained, stands now;
    /// `progress_made` is what its loss has come down by. It is measured on the `count` batches
    /// that follow.
    ///
    /// # Errors
    /// The step failed.
    pub fn at(
        experiment: &Experiment,
        session: &mut Session<'_>,
        progress_made: f64,
        count: usize,
    ) -> Result<Point, TuneError> {
        let recipe = &experiment.recipe;
        let mut sampler = Sampler::new(experiment.data.train.len(), recipe.train.batch, session.spec().seed)?;
        let progress = session.progress();
        let mut batches = Vec::new();
        for i in 0..count as u64 {
            let mut batch = Batch::new(experiment.info.input, recipe.train.batch);
            let (draw, indices) = sampler.batch(progress.attempts + i);
            experiment.data.train.fill_batch(indices, draw, &mut batch)?;
            batches.push(batch);
        }
        let download = |slot: &halfstep_graph::Slot| Ok((slot.name.clone(), session.download(&slot.name)?));
        let slots = session.lasting_slots().map(download).collect::<Result<Vec<_>, TrainError>>()?;
        let graph = &session.plan().graph;
        let names = graph.weights().map(|slot| graph.slot(slot).name.clone());
        let weights = names.filter(|name| !session.spec().options.is_frozen(name)).collect();
        // The rate of the whole recipe's peak: the one at which updates are largest.
        let lr = recipe.optimiser.lr();
        let mut point = Point { slots, progress, batches, lr, weights, progress_made, reference: Vec::new() };
        for i in 0..count {
            let response = point.response(session, i)?.ok_or(TuneError::NotFinite)?;
            point.reference.push(response);
        }
        Ok(point)
    }

    /// fp32's mean loss over the batches.
    pub fn loss(&self) -> f64 {
        self.reference.iter().map(|r| r.loss).sum::<f64>() / self.reference.len() as f64
    }

    /// Puts weights, moments and counts of the point into a session of any precision.
    ///
    /// # Errors
    /// None for a session of the same model.
    pub fn restore(&self, session: &mut Session<'_>) -> Result<(), TrainError> {
        for (name, values) in &self.slots {
            session.upload(name, values.as_slice())?;
        }
        session.restore_progress(self.progress);
        Ok(())
    }

    /// What `session`, with readable gradients, makes of the same batches; none if its steps do not
    /// commit. `unit`'s own weights are those in its scope.
    ///
    /// # Errors
    /// The step failed.
    pub fn sensitivity(
        &self,
        session: &mut Session<'_>,
        unit: &str,
    ) -> Result<Option<Sensitivity>, TrainError> {
        let mut sum = Sensitivity { loss: 0.0, cosine: 0.0, update: 0.0, update_to_weight: None };
        for (i, reference) in self.reference.iter().enumerate() {
            let Some(response) = self.response(session, i)? else { return Ok(None) };
            sum.loss += (response.loss - reference.loss).abs();
            sum.cosine += cosine(&response.gradient, &reference.gradient);
            sum.update += distance(&response.update, &reference.update) / norm(&reference.update);
            if let Some(ratio) = self.update_to_weight(unit, &response.update) {
                *sum.update_to_weight.get_or_insert(0.0) += ratio;
            }
        }
        let n = self.reference.len() as f64;
        Ok(Some(Sensitivity {
            loss: sum.loss / n,
            cosine: sum.cosine / n,
            update: sum.update / n,
            update_to_weight: sum.update_to_weight.map(|r| r / n),
        }))
    }

    /// A step from the point on batch `i`; none if none commits, however low the loss scale.
    fn response(&self, session: &mut Session<'_>, i: usize) -> Result<Option<Response>, TrainError> {
        let batch = &self.batches[i];
        for _ in 0..TRIES {
            self.restore(session)?;
            let report = match session.step(host_slice(&batch.x), &batch.labels, self.lr) {
                Ok(report) => report,
                Err(TrainError::Diverged { .. }) => return Ok(None),
                Err(e) => return Err(e),
            };
            if report.committed {
                let (mut gradient, mut update) = (Vec::new(), Vec::new());
                for name in &self.weights {
                    gradient.extend(session.gradient(name)?);
                    let after = session.download(name)?;
                    update.extend(after.f32().iter().zip(self.before(name)).map(|(a, b)| a - b));
                }
                return Ok(Some(Response { loss: f64::from(report.loss), gradient, update }));
            }
        }
        Ok(None)
    }

    fn before(&self, name: &str) -> &[f32] {
        self.slots.iter().find(|(slot, _)| slot == name).map_or(&[], |(_, values)| values.f32())
    }

    fn update_to_weight(&self, unit: &str, update: &[f32]) -> Option<f64> {
        let (mut at, mut own_update, mut own_weight) = (0, 0.0, 0.0);
        for name in &self.weights {
            let weight = self.before(name);
            let range = at..at + weight.len();
            at = range.end;
            if name.strip_prefix(unit).is_some_and(|rest| rest.starts_with('.')) {
                own_update += norm(&update[range]).powi(2);
                own_weight += norm(weight).powi(2);
            }
        }
        (own_weight > 0.0).then(|| (own_update / own_weight).sqrt())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = norm(a) * norm(b);
    // A zero gradient has no direction: it makes no progress.
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}
