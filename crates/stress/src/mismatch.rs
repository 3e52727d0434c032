//! The same weights under every precision plan.

use halfstep_evidence::measures::agreement::AgreementValues;
use halfstep_evidence::measures::{Agreement, LayerSums, Quality, QualityValues, measure_pair};
use halfstep_evidence::robustness::{Layer, Layers, Mismatch, Served};
use halfstep_graph::precision::Policy;

use crate::inputs::{BATCH, Inputs};
use crate::{StressError, Subject, Trained};

pub(crate) fn measure(
    subject: &Subject<'_>,
    test: &Inputs,
    own: &[Vec<f32>],
    samples: usize,
) -> Result<Mismatch, StressError> {
    let part = Inputs::of(&subject.data.test, Some(samples.min(BATCH)))?;
    let (mut served, mut layers) = (Vec::new(), Vec::new());
    for trained in subject.precisions() {
        for policy in policies(subject, trained) {
            served.push(one(subject, test, own, trained, &policy)?);
        }
        if let Some((_, first)) = subject.of(trained).next() {
            for policy in policies(subject, trained).iter().filter(|p| p.name != "fp32") {
                layers.push(compared(subject, first, policy, &part)?);
            }
        }
    }
    Ok(Mismatch { served, layer_samples: part.len(), layers })
}

/// What to compute the weights of a precision in: that precision first.
fn policies(subject: &Subject<'_>, trained: &str) -> Vec<Policy> {
    let mut all: Vec<Policy> = subject.of(trained).take(1).map(|(_, t)| t.policy.clone()).collect();
    all.extend(subject.served.iter().filter(|p| p.name != trained).cloned());
    all
}

fn one(
    subject: &Subject<'_>,
    test: &Inputs,
    own: &[Vec<f32>],
    trained: &str,
    policy: &Policy,
) -> Result<Served, StressError> {
    let (mut quality, mut agreement, mut seeds) = (Quality::default(), Agreement::default(), 0);
    for (i, model) in subject.of(trained) {
        let here = match model.policy == *policy {
            true => own[i].clone(),
            false => test.logits(&mut subject.probe(policy, &model.weights)?)?,
        };
        seeds += 1;
        let classes = here.len() / test.labels.len();
        let mut exps = vec![0.0; classes];
        let rows = own[i].chunks_exact(classes).zip(here.chunks_exact(classes)).zip(&test.labels);
        for ((before, after), &label) in rows {
            let (a, b, kl) = measure_pair(before, after, label, &mut exps);
            quality.push(&b);
            agreement.push(&a, &b, kl);
        }
    }
    // Every seed has as many samples: the mean over all is that over seeds.
    let (quality, agreement) = (quality.values(), agreement.values());
    let of = |f: fn(&QualityValues) -> f64| quality.as_ref().map_or(f64::NAN, f);
    let changed = |f: fn(&AgreementValues) -> f64| agreement.as_ref().map_or(f64::NAN, f);
    Ok(Served {
        trained: trained.into(),
        served: policy.name.clone(),
        seeds,
        accuracy: of(|q| q.accuracy),
        nll: of(|q| q.nll),
        flips: changed(|a| a.flips),
        negative_flips: changed(|a| a.negative_flips),
        kl: changed(|a| a.kl),
    })
}

fn compared(
    subject: &Subject<'_>,
    model: &Trained,
    policy: &Policy,
    part: &Inputs,
) -> Result<Layers, StressError> {
    let mut wide = subject.probe(&Policy::named("fp32")?, &model.weights)?;
    let mut low = subject.probe(policy, &model.weights)?;
    let mut layers = Vec::new();
    for batch in part.batches() {
        for (a, b) in wide.layers(batch)?.iter().zip(low.layers(batch)?) {
            let mut sums = LayerSums::default();
            let each = a.values.len() / part.len().max(1);
            a.values
                .chunks_exact(each.max(1))
                .zip(b.values.chunks_exact(each.max(1)))
                .for_each(|(a, b)| sums.push(a, b));
            if let Some(divergence) = sums.values() {
                layers.push(Layer { name: a.name.clone(), divergence });
            }
        }
    }
    Ok(Layers { trained: model.policy.name.clone(), seed: model.seed, served: policy.name.clone(), layers })
}
