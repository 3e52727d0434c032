//! Telling foreign images from own ones: by maximum softmax, by energy, and by the Mahalanobis
//! distance of features.

use std::array;

use halfstep_data::{BundledSpec, Channels, DataSpec, ImageOptions, SpecError, load};
use halfstep_evidence::measures::detection::{Detection, detection};
use halfstep_evidence::measures::{self, Mahalanobis, Sample};
use halfstep_evidence::robustness::{Foreign, Series};
use halfstep_graph::engine::HostSlice;
use halfstep_train::probe::Probe;
use halfstep_train::recipe::EvidenceSettings;

use crate::inputs::{BATCH, Images, Inputs, Normaliser};
use crate::{StressError, Subject};

/// Train samples that the feature space is fitted on, at most.
const FITTED_ON: usize = 5000;

pub(crate) fn measure(
    subject: &Subject<'_>,
    settings: &EvidenceSettings,
    test: &Inputs,
) -> Result<Foreign, StressError> {
    let own = Images::of_test(subject.data, usize::MAX);
    let mut spec = match &settings.foreign {
        Some(spec) => spec.clone(),
        // The bundled digits are recognised by their size.
        None => {
            DataSpec::bundled(if own.size.height == 8 { "fashion-mnist" } else { "digits" }).map_err(data)?
        }
    };
    let partner = describe(&spec);
    let not_images = || data(SpecError::new("`foreign` must be images"));
    let options = image_options(&mut spec).ok_or_else(not_images)?;
    options.resize = Some((own.size.height, own.size.width));
    options.channels = Some(if own.size.channels == 1 { Channels::Gray } else { Channels::Rgb });
    let foreign = Images::of_test(&load(&spec, subject.base)?, usize::MAX);
    if foreign.labels.is_empty() {
        return Err(not_images());
    }
    let normaliser = Normaliser::of(subject.data);
    let train = Inputs::of(&subject.data.train, Some(FITTED_ON))?;

    let names = subject.names();
    let mut found: Vec<[Option<Detection>; 3]> = Vec::new();
    for trained in subject.trained {
        let mut probe = subject.probe(&trained.policy, &trained.weights)?;
        let features = train.features(&mut probe)?;
        let width = features.len() / train.labels.len();
        let fitted = Mahalanobis::fit(&features, width, &train.labels);
        drop(features);
        let mut own_scores = Scores::default();
        for batch in test.batches() {
            score(&mut probe, batch, fitted.as_ref(), &mut own_scores)?;
        }
        let mut foreign_scores = Scores::default();
        for pixels in foreign.pixels.chunks(BATCH * foreign.size.count()) {
            let x = normaliser.apply(pixels);
            score(&mut probe, HostSlice::F32(&x), fitted.as_ref(), &mut foreign_scores)?;
        }
        found.push(array::from_fn(|i| detection(&own_scores[i], &foreign_scores[i])));
    }
    let mut series = Vec::new();
    for (i, score) in SCORES.iter().enumerate() {
        let parts: [(&str, Part); 3] =
            [("AUROC", |d| d.auroc), ("AUPR", |d| d.aupr), ("FPR at 95 %", |d| d.fpr_at_95)];
        for (part, value) in parts {
            let values: Option<Vec<f64>> = found.iter().map(|f| f[i].as_ref().map(value)).collect();
            if let Some(values) = values {
                series.push(Series::new(format!("{score}, {part}"), true, &names, &values, subject.baseline));
            }
        }
    }
    let fitted_on = train.labels.len();
    Ok(Foreign { partner, own: test.len(), foreign: foreign.labels.len(), fitted_on, series })
}

fn data(e: SpecError) -> StressError {
    StressError::Data(e.into())
}

fn image_options(spec: &mut DataSpec) -> Option<&mut ImageOptions> {
    match spec {
        DataSpec::Bundled(
            BundledSpec::FashionMnist { options, .. } | BundledSpec::Digits { options, .. },
        ) => Some(options),
        DataSpec::Idx(idx) => Some(&mut idx.options),
        DataSpec::Images(images) => Some(&mut images.options),
        DataSpec::Bundled(_) | DataSpec::Csv(_) | DataSpec::Text(_) => None,
    }
}

fn describe(spec: &DataSpec) -> String {
    match spec {
        DataSpec::Bundled(BundledSpec::Digits { .. }) => "the bundled digits, enlarged".into(),
        DataSpec::Bundled(b) => format!("the bundled {}", b.name()),
        other => {
            let from = other.clone().paths_mut().next().map_or_else(String::new, |p| p.display().to_string());
            format!("{from} ({})", if matches!(other, DataSpec::Idx(_)) { "IDX" } else { other.kind() })
        }
    }
}

/// One number of a detection.
type Part = fn(&Detection) -> f64;

/// Scores that are high for foreign samples, by [`SCORES`].
type Scores = [Vec<f64>; 3];

const SCORES: [&str; 3] = ["maximum softmax", "energy", "Mahalanobis"];

fn score(
    probe: &mut Probe<'_>,
    x: HostSlice<'_>,
    fitted: Option<&Mahalanobis>,
    scores: &mut Scores,
) -> Result<(), StressError> {
    let out = probe.features(x)?;
    let rows = x.len() / probe.input().elements();
    let (classes, width) = (out.logits.len() / rows, out.features.len() / rows);
    let mut exps = vec![0.0; classes];
    for (logits, features) in out.logits.chunks_exact(classes).zip(out.features.chunks_exact(width)) {
        // The label does not matter to these scores.
        let s: Sample = measures::measure(logits, 0, &mut exps);
        // A feature space in which nothing varies tells nothing: equal scores.
        let distance = fitted.map_or(0.0, |f| f.score(features));
        scores.iter_mut().zip([-s.confidence, s.energy, distance]).for_each(|(all, one)| all.push(one));
    }
    Ok(())
}
