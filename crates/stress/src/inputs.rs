//! Samples as a probe takes them, in batches of one size, and images as pixels in 0 to 1.

use halfstep_data::{Batch, BatchX, Dataset, Draw, ImageSet, Part, Samples};
use halfstep_evidence::measures::corruption::ImageSize;
use halfstep_graph::engine::HostSlice;
use halfstep_train::checkpoint::host_slice;
use halfstep_train::probe::Probe;
use halfstep_train::session::TrainError;

use crate::StressError;

/// Samples computed at a time.
pub(crate) const BATCH: usize = 200;

/// Encoded samples.
pub(crate) struct Inputs {
    x: BatchX,
    /// Numbers or tokens of a sample.
    elements: usize,
    /// The class of each row; a text has a row per token.
    pub labels: Vec<u32>,
}

impl Inputs {
    /// The first samples of a part, all if no limit is given.
    pub fn of(part: &Part, limit: Option<usize>) -> Result<Inputs, StressError> {
        let count = limit.unwrap_or(usize::MAX).min(part.len());
        let mut batch = Batch::new(part.input(), count);
        let indices: Vec<u32> = (0..count as u32).collect();
        part.fill_batch(&indices, Draw::AsIs, &mut batch)?;
        let labels = batch.labels.iter().map(|&l| l as u32).collect();
        Ok(Inputs { x: batch.x, elements: part.input().len(), labels })
    }

    /// Samples in batches.
    pub fn batches(&self) -> impl Iterator<Item = HostSlice<'_>> {
        let all = host_slice(&self.x);
        let size = BATCH * self.elements;
        (0..all.len()).step_by(size).map(move |at| match all {
            HostSlice::F32(x) => HostSlice::F32(&x[at..x.len().min(at + size)]),
            HostSlice::I32(x) => HostSlice::I32(&x[at..x.len().min(at + size)]),
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        host_slice(&self.x).len() / self.elements
    }

    /// Features `[rows, width]` of all.
    pub fn features(&self, probe: &mut Probe<'_>) -> Result<Vec<f32>, TrainError> {
        let mut features = Vec::new();
        for batch in self.batches() {
            features.extend(probe.features(batch)?.features);
        }
        Ok(features)
    }

    /// Logits `[rows, classes]` of all.
    pub fn logits(&self, probe: &mut Probe<'_>) -> Result<Vec<f32>, TrainError> {
        let mut logits = Vec::new();
        for batch in self.batches() {
            logits.extend(probe.logits(batch)?);
        }
        Ok(logits)
    }
}

/// Images before they are normalised.
#[derive(Clone)]
pub(crate) struct Images {
    /// Of each image.
    pub size: ImageSize,
    /// `[labels.len(), height, width, channels]`, 0 to 1.
    pub pixels: Vec<f32>,
    /// The class of each.
    pub labels: Vec<u32>,
}

impl Images {
    /// The first images of a set.
    pub fn of(set: &ImageSet, limit: usize) -> Images {
        let size = ImageSize { height: set.height, width: set.width, channels: set.channels };
        let count = limit.min(set.labels.len());
        let pixels = set.pixels.shares(count * size.count());
        Images { size, pixels, labels: set.labels[..count].to_vec() }
    }

    /// The first test images of data; none if they are no images.
    pub fn of_test(data: &Dataset, limit: usize) -> Images {
        match data.test.samples() {
            Samples::Images(images) => Images::of(&images.set, limit),
            _ => Images {
                size: ImageSize { height: 1, width: 1, channels: 1 },
                pixels: Vec::new(),
                labels: Vec::new(),
            },
        }
    }

    /// Those for which `keep` holds of their class.
    pub fn of_classes(&self, keep: impl Fn(u32) -> bool) -> Images {
        let mut kept = Images { pixels: Vec::new(), labels: Vec::new(), ..*self };
        for (pixels, &label) in self.pixels.chunks_exact(self.size.count()).zip(&self.labels) {
            if keep(label) {
                kept.pixels.extend_from_slice(pixels);
                kept.labels.push(label);
            }
        }
        kept
    }

    /// Each image changed by `change`, which gets its place.
    pub fn changed(&self, mut change: impl FnMut(usize, &mut [f32])) -> Images {
        let mut all = self.clone();
        all.pixels.chunks_exact_mut(self.size.count()).enumerate().for_each(|(i, image)| change(i, image));
        all
    }

    /// Logits of all, normalised as the model has it.
    pub fn logits(&self, probe: &mut Probe<'_>, normaliser: &Normaliser) -> Result<Vec<f32>, TrainError> {
        logits_of(&self.pixels, self.size, probe, normaliser)
    }
}

/// Logits of pixels in 0 to 1.
pub(crate) fn logits_of(
    pixels: &[f32],
    size: ImageSize,
    probe: &mut Probe<'_>,
    normaliser: &Normaliser,
) -> Result<Vec<f32>, TrainError> {
    let mut logits = Vec::new();
    for pixels in pixels.chunks(BATCH * size.count()) {
        logits.extend(probe.logits(HostSlice::F32(&normaliser.apply(pixels)))?);
    }
    Ok(logits)
}

/// (pixel − mean) / std by channel.
pub(crate) struct Normaliser {
    channels: Vec<(f64, f64)>,
}

impl Normaliser {
    /// That of the model; of data that are no images, none that changes anything.
    pub fn of(data: &Dataset) -> Normaliser {
        let channels = match data.preprocessing.image() {
            Ok(image) => image.mean.iter().copied().zip(image.std.iter().copied()).collect(),
            Err(_) => vec![(0.0, 1.0)],
        };
        Normaliser { channels }
    }

    /// One mean and deviation for all channels.
    #[cfg(test)]
    pub fn new(mean: f64, std: f64) -> Normaliser {
        Normaliser { channels: vec![(mean, std)] }
    }

    /// Pixels `[…, channels]`, normalised.
    pub fn apply(&self, pixels: &[f32]) -> Vec<f32> {
        let of = self.channels.iter().cycle();
        pixels.iter().zip(of).map(|(&p, (mean, std))| ((f64::from(p) - mean) / std) as f32).collect()
    }
}

/// The first greatest logit of each row.
pub(crate) fn predictions(logits: &[f32], classes: usize) -> Vec<u32> {
    let best =
        |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
    logits.chunks_exact(classes).map(best).collect()
}

/// Share of rows whose greatest logit is the label's.
pub(crate) fn accuracy(logits: &[f32], labels: &[u32]) -> f64 {
    let right = predictions(logits, logits.len() / labels.len().max(1))
        .iter()
        .zip(labels)
        .filter(|(p, l)| p == l)
        .count();
    right as f64 / labels.len().max(1) as f64
}
