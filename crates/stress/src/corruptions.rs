//! Errors on spoilt test images.

use halfstep_evidence::measures::corruption::{
    Corruption, SEVERITIES, mean_corruption_error, relative_mean_corruption_error,
};
use halfstep_evidence::robustness::{CorruptionErrors, Corruptions, Series};

use crate::inputs::{Images, Normaliser, accuracy};
use crate::{OnProgress, StressError, Subject, tell};

pub(crate) fn measure(
    subject: &Subject<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Corruptions, StressError> {
    let images = Images::of_test(subject.data, usize::MAX);
    let normaliser = Normaliser::of(subject.data);
    let names = subject.names();
    let mut models: Vec<CorruptionErrors> = names
        .iter()
        .map(|model| CorruptionErrors { model: model.clone(), clean: 0.0, errors: Vec::new() })
        .collect();
    let mut probes = Vec::new();
    for trained in subject.trained {
        probes.push(subject.probe(&trained.policy, &trained.weights)?);
    }
    for (model, probe) in models.iter_mut().zip(&mut probes) {
        model.clean = 1.0 - accuracy(&images.logits(probe, &normaliser)?, &images.labels);
    }
    for kind in Corruption::ALL {
        models.iter_mut().for_each(|m| m.errors.push([0.0; SEVERITIES]));
        for severity in 1..=SEVERITIES {
            tell(on_progress, &format!("{} {severity}", kind.kind().name))?;
            let spoilt = images.changed(|i, image| kind.apply(severity, images.size, i as u64, image));
            for (model, probe) in models.iter_mut().zip(&mut probes) {
                let error = 1.0 - accuracy(&spoilt.logits(probe, &normaliser)?, &spoilt.labels);
                if let Some(errors) = model.errors.last_mut() {
                    errors[severity - 1] = error;
                }
            }
        }
    }
    let baseline = |seed: u64| {
        let with = |m: &&CorruptionErrors| m.model.precision == subject.baseline && m.model.seed == seed;
        models.iter().find(with)
    };
    let mean =
        |m: &CorruptionErrors| m.errors.iter().flatten().sum::<f64>() / (m.errors.len() * SEVERITIES) as f64;
    let series = |name: &str, share: bool, value: &dyn Fn(&CorruptionErrors) -> Option<f64>| {
        let (names, values): (Vec<_>, Vec<f64>) =
            models.iter().filter_map(|m| Some((m.model.clone(), value(m)?))).unzip();
        Series::new(name, share, &names, &values, subject.baseline)
    };
    let mce = series("mCE", false, &|m| mean_corruption_error(&m.errors, &baseline(m.model.seed)?.errors));
    let relative = series("relative mCE", false, &|m| {
        let b = baseline(m.model.seed)?;
        relative_mean_corruption_error((&m.errors, m.clean), (&b.errors, b.clean))
    });
    let mean_error = series("mean error", true, &|m| Some(mean(m)));
    Ok(Corruptions {
        samples: images.labels.len(),
        kinds: Corruption::ALL.map(Corruption::kind).to_vec(),
        relative_mce: Some(relative).filter(|r| !r.precisions.is_empty()),
        models,
        mean_error,
        mce,
    })
}
