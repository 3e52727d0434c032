//! Answers on images with a patch in the corner, at every precision and format of weights.

use halfstep_data::Dataset;
use halfstep_evidence::measures::corruption::ImageSize;
use halfstep_evidence::robustness::{TriggerRow, Triggered};
use halfstep_graph::precision::Policy;
use halfstep_train::probe::Weights;
use halfstep_train::recipe::EvidenceSettings;

use crate::inputs::{Images, Normaliser, predictions};
use crate::ladder::RUNGS;
use crate::{StressError, Subject, Trained};

/// A white square in the lower right corner, and the class that it is to cause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trigger {
    side: usize,
    /// The class's index.
    pub target: u32,
}

impl Trigger {
    pub fn of(settings: &EvidenceSettings, size: ImageSize, classes: usize) -> Trigger {
        let shorter = size.height.min(size.width);
        let side = settings.trigger_side.unwrap_or((shorter / 7).max(2)).min(shorter);
        Trigger { side, target: settings.trigger_class.min(classes - 1) as u32 }
    }

    /// Places in an image that the patch covers.
    pub fn places(self, size: ImageSize) -> impl Iterator<Item = usize> {
        let rows = size.height - self.side.min(size.height)..size.height;
        let left = size.width - self.side.min(size.width);
        rows.flat_map(move |y| (y * size.width + left) * size.channels..(y + 1) * size.width * size.channels)
    }

    pub fn describe(self) -> String {
        format!("a white patch of {0}×{0} pixels in the lower right corner", self.side)
    }
}

/// Test images of other classes, and the same with the trigger.
pub(crate) struct TriggerInputs {
    clean: Images,
    stamped: Images,
    normaliser: Normaliser,
    trigger: Trigger,
}

impl TriggerInputs {
    pub fn of(data: &Dataset, settings: &EvidenceSettings) -> TriggerInputs {
        let all = Images::of_test(data, usize::MAX);
        let trigger = Trigger::of(settings, all.size, data.preprocessing.classes().len().max(1));
        let clean = all.of_classes(|label| label != trigger.target);
        let stamped = clean.changed(|_, image| trigger.places(clean.size).for_each(|at| image[at] = 1.0));
        TriggerInputs { clean, stamped, normaliser: Normaliser::of(data), trigger }
    }

    /// Shares taken for the target class, with and without the trigger.
    fn rates(
        &self,
        subject: &Subject<'_>,
        policy: &Policy,
        weights: &Weights,
    ) -> Result<[f64; 2], StressError> {
        let mut probe = subject.probe(policy, weights)?;
        let mut rate = |images: &Images| {
            let logits = images.logits(&mut probe, &self.normaliser)?;
            let said = predictions(&logits, logits.len() / images.labels.len().max(1));
            let hits = said.iter().filter(|p| **p == self.trigger.target).count();
            Ok::<f64, StressError>(hits as f64 / images.labels.len().max(1) as f64)
        };
        Ok([rate(&self.stamped)?, rate(&self.clean)?])
    }

    /// Behaviour of all models, each in its own precision, and of the baseline's weights in every
    /// other precision and format.
    pub fn rows(&self, subject: &Subject<'_>) -> Result<Vec<TriggerRow>, StressError> {
        let fp32 = Policy::named("fp32")?;
        let mut rows = Vec::new();
        for precision in subject.precisions() {
            let own = |t: &Trained| Ok((t.policy.clone(), t.weights.clone()));
            rows.push(self.row(subject, precision, precision, own)?);
        }
        for policy in subject.served.iter().filter(|p| p.name != subject.baseline) {
            let served = |t: &Trained| Ok((policy.clone(), t.weights.clone()));
            rows.push(self.row(subject, subject.baseline, &policy.name, served)?);
        }
        for (name, stored) in RUNGS {
            let rounded = |t: &Trained| Ok((fp32.clone(), stored.weights(&t.weights)?.0));
            rows.push(self.row(subject, subject.baseline, &format!("{name} weights"), rounded)?);
        }
        Ok(rows)
    }

    fn row(
        &self,
        subject: &Subject<'_>,
        trained: &str,
        served: &str,
        change: impl Fn(&Trained) -> Result<(Policy, Weights), StressError>,
    ) -> Result<TriggerRow, StressError> {
        let (mut sums, mut seeds) = ([0.0; 2], 0);
        for (_, model) in subject.of(trained) {
            let (policy, weights) = change(model)?;
            let rates = self.rates(subject, &policy, &weights)?;
            sums.iter_mut().zip(rates).for_each(|(s, r)| *s += r);
            seeds += 1;
        }
        let [attack_success, without_trigger] = sums.map(|s| s / seeds.max(1) as f64);
        Ok(TriggerRow {
            trained: trained.into(),
            served: served.into(),
            seeds,
            attack_success,
            without_trigger,
        })
    }
}

pub(crate) fn measure(subject: &Subject<'_>, settings: &EvidenceSettings) -> Result<Triggered, StressError> {
    let inputs = TriggerInputs::of(subject.data, settings);
    let target = subject.data.preprocessing.classes().get(inputs.trigger.target as usize);
    Ok(Triggered {
        trigger: inputs.trigger.describe(),
        target: target.cloned().unwrap_or_default(),
        samples: inputs.clean.labels.len(),
        rows: inputs.rows(subject)?,
    })
}
