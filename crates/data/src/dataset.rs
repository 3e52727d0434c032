//! Train and test samples, and laying them out for a program.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::batch::{Batch, BatchX, Draw};
use crate::bundled;
use crate::error::{DataError, Role};
use crate::images::augment::View;
use crate::images::{ImageSamples, ImageSet};
use crate::preprocessing::Preprocessing;
use crate::sampler::check_batch;
use crate::split;
use crate::table::TableSamples;
use crate::text::TextSamples;

/// Data ready for training: read, checked, split and encoded.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What the model is fitted on.
    pub train: Part,
    /// What one model is chosen from several by, such as the best step of a run; none where nothing
    /// is chosen.
    pub validation: Option<Part>,
    /// What it is judged by.
    pub test: Part,
    /// What new inputs need to be prepared alike.
    pub preprocessing: Preprocessing,
    /// What was left out or assumed in reading the files, or looks odd in them, one sentence each.
    pub notes: Vec<String>,
}

/// The samples of one part.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    role: Role,
    samples: Samples,
}

/// Samples of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Images with classes.
    Images(ImageSamples),
    /// Rows of features with classes.
    Table(TableSamples),
    /// Windows of text.
    Text(TextSamples),
}

/// The shape of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum InputShape {
    /// Floats, `[height, width, channels]`.
    Image {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// 1 or 3.
        channels: usize,
    },
    /// Floats, `[count]`.
    Features {
        /// Features of a row.
        count: usize,
    },
    /// Tokens, `[sequence]`.
    Tokens {
        /// Tokens of a window.
        sequence: usize,
    },
}

impl InputShape {
    /// `[batch, ..]`.
    pub fn batch_shape(self, batch: usize) -> Vec<usize> {
        match self {
            InputShape::Image { height, width, channels } => vec![batch, height, width, channels],
            InputShape::Features { count } => vec![batch, count],
            InputShape::Tokens { sequence } => vec![batch, sequence],
        }
    }

    /// Elements of one sample.
    #[allow(clippy::len_without_is_empty)] // a sample is never empty
    pub fn len(self) -> usize {
        self.batch_shape(1).iter().product()
    }

    /// 1 class, or a next token for each token.
    pub fn labels_per_sample(self) -> usize {
        match self {
            InputShape::Tokens { sequence } => sequence,
            InputShape::Image { .. } | InputShape::Features { .. } => 1,
        }
    }
}

/// What a model must fit, and how much data there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// The shape of one sample.
    pub input: InputShape,
    /// Number of classes, or of different tokens; every label is less.
    pub outputs: usize,
    /// Samples (for text: windows side by side) to train on.
    pub train_samples: usize,
    /// Samples to test on.
    pub test_samples: usize,
    /// SHA-256, in hexadecimal, of all samples as stored before normalisation and augmentation:
    /// runs with one fingerprint had the same data.
    pub fingerprint: String,
}

impl DatasetInfo {
    /// Whole train batches in an epoch.
    ///
    /// # Errors
    /// A batch of 0, or larger than the train samples.
    pub fn steps_per_epoch(&self, batch: usize) -> Result<usize, DataError> {
        check_batch(self.train_samples, batch, Role::Train)?;
        Ok(self.train_samples / batch)
    }
}

impl Dataset {
    /// Shapes and counts. Hashes all samples: call it once.
    pub fn info(&self) -> DatasetInfo {
        let outputs = match &self.preprocessing {
            Preprocessing::Text(text) => text.vocabulary(),
            other => other.classes().len(),
        };
        let mut hash = Sha256::new();
        self.train.hash(&mut hash);
        self.validation.iter().for_each(|part| part.hash(&mut hash));
        self.test.hash(&mut hash);
        DatasetInfo {
            input: self.train.input(),
            outputs,
            train_samples: self.train.len(),
            test_samples: self.test.len(),
            fingerprint: bundled::hex(&hash.finalize()),
        }
    }
}

impl Dataset {
    /// The same data with a fraction of the train samples, of every class alike (of a text, its
    /// end), set aside to choose by. Where there are validation samples already, nothing changes.
    ///
    /// # Errors
    /// There are too few samples for that.
    pub fn with_validation(self, fraction: f64) -> Result<Dataset, DataError> {
        if self.validation.is_some() {
            return Ok(self);
        }
        let classes = self.preprocessing.classes().len();
        let of_labels = || {
            let parts = split::validation(self.train.labels(), classes, fraction);
            let none = parts.test.is_empty() || parts.train.is_empty();
            let count = self.train.len();
            if none { Err(DataError::NoValidation { count, fraction }) } else { Ok(parts) }
        };
        let (train, validation) = match &self.train.samples {
            Samples::Images(images) => {
                let parts = of_labels()?;
                let of = |indices: &[u32]| ImageSamples {
                    set: images.set.select(indices),
                    values: images.values.clone(),
                    augment: images.augment,
                };
                (Samples::Images(of(&parts.train)), Samples::Images(of(&parts.test)))
            }
            Samples::Table(table) => {
                let parts = of_labels()?;
                (Samples::Table(table.select(&parts.train)), Samples::Table(table.select(&parts.test)))
            }
            Samples::Text(text) => {
                let (train, validation) = text.split_end(fraction, Role::Train)?;
                (Samples::Text(train), Samples::Text(validation))
            }
        };
        let validation = Some(Part::new(Role::Validation, validation));
        Ok(Dataset { train: Part::new(Role::Train, train), validation, ..self })
    }

    /// The samples that models are chosen by: where none were set aside, those they are judged by.
    pub fn choosing(&self) -> &Part {
        self.validation.as_ref().unwrap_or(&self.test)
    }
}

impl Part {
    pub(crate) fn new(role: Role, samples: Samples) -> Self {
        Part { role, samples }
    }

    /// Number of samples; of text, of windows side by side.
    #[allow(clippy::len_without_is_empty)] // a part is never empty
    pub fn len(&self) -> usize {
        match &self.samples {
            Samples::Images(images) => images.set.labels.len(),
            Samples::Table(table) => table.labels.len(),
            Samples::Text(text) => text.len(),
        }
    }

    /// Train or test.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The samples themselves.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The shape of one sample.
    pub fn input(&self) -> InputShape {
        match &self.samples {
            Samples::Images(images) => {
                let ImageSet { height, width, channels, .. } = images.set;
                InputShape::Image { height, width, channels }
            }
            Samples::Table(table) => InputShape::Features { count: table.width },
            Samples::Text(text) => InputShape::Tokens { sequence: text.sequence() },
        }
    }

    /// The same part with other images in place of its own, drawn and normalised alike.
    ///
    /// # Errors
    /// If it does not hold images, or the images have another size or number of channels.
    pub fn with_images(&self, set: ImageSet) -> Result<Part, DataError> {
        match &self.samples {
            Samples::Images(images) if images.set.shape() == set.shape() => {
                let samples = Samples::Images(ImageSamples { set, ..images.clone() });
                Ok(Part { role: self.role, samples })
            }
            _ => {
                let expected = format!("{:?}", self.input().batch_shape(1));
                Err(DataError::Buffer { buffer: "image", expected, found: format!("{:?}", set.shape()) })
            }
        }
    }

    /// The class of every sample, in order; none for text.
    pub fn labels(&self) -> &[u32] {
        match &self.samples {
            Samples::Images(images) => &images.set.labels,
            Samples::Table(table) => &table.labels,
            Samples::Text(_) => &[],
        }
    }

    /// Writes the samples of `indices`, in their order, to buffers made by [`Batch::new`] for as
    /// many: B inputs and B labels (of text B·T next tokens). Allocates nothing.
    ///
    /// # Errors
    /// An index of no sample, or a buffer of another length or kind; then nothing is written.
    pub fn fill_batch(&self, indices: &[u32], draw: Draw, batch: &mut Batch) -> Result<(), DataError> {
        let Batch { x, labels } = batch;
        if let Some(&index) = indices.iter().find(|&&index| index as usize >= self.len()) {
            return Err(DataError::NoSuchSample { index, samples: self.len(), role: self.role });
        }
        let labels_needed = indices.len() * self.labels_per_sample();
        if labels.len() != labels_needed {
            let (expected, found) = (labels_needed.to_string(), labels.len().to_string());
            return Err(DataError::Buffer { buffer: "label", expected, found });
        }
        let needed = indices.len() * self.sample_len();
        match (&self.samples, x) {
            (Samples::Images(images), BatchX::F32 { data: x, .. }) if x.len() == needed => {
                let rows = x.chunks_exact_mut(self.sample_len());
                for ((&index, row), label) in indices.iter().zip(rows).zip(labels) {
                    let view = match draw {
                        Draw::AsIs => View::AS_IT_IS,
                        Draw::Random { seed, epoch } => View::draw(images.augment, seed, epoch, index),
                    };
                    images.write(index, view, row);
                    *label = images.set.labels[index as usize] as i32;
                }
            }
            (Samples::Table(table), BatchX::F32 { data: x, .. }) if x.len() == needed => {
                let rows = x.chunks_exact_mut(self.sample_len());
                for ((&index, row), label) in indices.iter().zip(rows).zip(labels) {
                    row.copy_from_slice(table.row(index));
                    *label = table.labels[index as usize] as i32;
                }
            }
            (Samples::Text(text), BatchX::Tokens { data: x, .. }) if x.len() == needed => {
                let sequence = text.sequence();
                let rows = x.chunks_exact_mut(sequence).zip(labels.chunks_exact_mut(sequence));
                for (&index, (row, target)) in indices.iter().zip(rows) {
                    text.write(index, draw, row, target);
                }
            }
            (samples, x) => {
                let unit = if matches!(samples, Samples::Text(_)) { "i32 tokens" } else { "f32" };
                let (expected, found) = (format!("{needed} {unit}"), x.describe());
                return Err(DataError::Buffer { buffer: "input", expected, found });
            }
        }
        Ok(())
    }

    /// As [`InputShape::len`], without allocating.
    fn sample_len(&self) -> usize {
        match &self.samples {
            Samples::Images(images) => images.set.image_len(),
            Samples::Table(table) => table.width,
            Samples::Text(text) => text.sequence(),
        }
    }

    fn labels_per_sample(&self) -> usize {
        self.input().labels_per_sample()
    }

    /// SHA-256, in hexadecimal, of its samples as [`DatasetInfo::fingerprint`] takes them.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        self.hash(&mut hash);
        bundled::hex(&hash.finalize())
    }

    /// [`sample_hash`] of every sample, sorted: which samples there are, in whatever order. Of text
    /// none, for its windows begin anywhere.
    ///
    /// # Errors
    /// None of a part that was loaded.
    pub fn sample_hashes(&self) -> Result<Vec<u64>, DataError> {
        let mut hashes = Vec::new();
        if let Samples::Text(_) = self.samples {
            return Ok(hashes);
        }
        let mut batch = Batch::new(self.input(), 1);
        for index in 0..self.len() as u32 {
            self.fill_batch(&[index], Draw::AsIs, &mut batch)?;
            if let BatchX::F32 { data, .. } = &batch.x {
                hashes.push(sample_hash(data));
            }
        }
        hashes.sort_unstable();
        Ok(hashes)
    }

    fn hash(&self, hash: &mut Sha256) {
        // Shape and count first, so that no two different sets give one stream of bytes.
        hash.update(format!("{:?} {:?} {}\n", self.role, self.input(), self.len()));
        match &self.samples {
            Samples::Images(images) => hash.update(images.set.pixels.bytes()),
            Samples::Table(table) => table.features.iter().for_each(|f| hash.update(f.to_le_bytes())),
            Samples::Text(text) => text.tokens().iter().for_each(|t| hash.update(t.to_le_bytes())),
        }
        self.labels().iter().for_each(|label| hash.update(label.to_le_bytes()));
    }
}

/// The first 8 bytes of the SHA-256 of a sample as a model is given it, without its class. Two
/// different ones of n samples have the same with a chance of about n² / 2^65.
pub fn sample_hash(x: &[f32]) -> u64 {
    let mut hash = Sha256::new();
    let mut bytes = [0; 4096];
    for values in x.chunks(bytes.len() / 4) {
        for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        hash.update(&bytes[..4 * values.len()]);
    }
    hash.finalize().iter().take(8).fold(0, |word, &byte| word << 8 | u64::from(byte))
}
