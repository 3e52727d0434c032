//! What the logits of one model say, from one pass over its samples.
//!
//! Memory does not grow with the samples: beside sums by class stand at most
//! [`temperature::MOST_LOGITS`] logits of evenly spaced rows, for the temperature and the AUROC.

use serde::Serialize;

use crate::measures::by_group::ColumnSums;
use crate::measures::constant::LossesByLabel;
use crate::measures::ranking::{LeftOut, auroc_by_parts};
use crate::measures::{
    Auroc, BesideConstant, ClassScores, ColumnMeasures, ConfusionMatrix, GroupColumn, Quality, QualityValues,
    ReliabilityBin, Sample, Temperature, temperature,
};

/// What one model's logits say.
#[derive(Clone, Debug, Serialize)]
pub struct ModelMeasures {
    /// File, or what the source calls itself.
    pub name: String,
    /// Accuracy to calibration.
    #[serde(flatten)]
    pub quality: QualityValues,
    /// Balanced accuracy, scores of each class, the confusion matrix.
    #[serde(flatten)]
    pub classes: ClassScores,
    /// Area under the ROC curve; none where all samples have one label.
    #[serde(flatten)]
    pub auroc: Option<Auroc>,
    /// Beside the constant predictor.
    pub beside_constant: BesideConstant,
    /// The best single temperature.
    pub temperature: Temperature,
    /// The reliability diagram.
    pub reliability: Vec<ReliabilityBin>,
    /// Accuracy, calibration and gaps by group, one entry per column.
    pub by_group: Vec<ColumnMeasures>,
    /// Equal for models that say the same of every sample.
    #[serde(skip)]
    pub digest: u64,
}

/// Sums over the samples of one model.
#[derive(Clone, Debug)]
pub struct ModelSums {
    classes: usize,
    stride: u64,
    rows: u64,
    quality: Quality,
    answers: ConfusionMatrix,
    losses: LossesByLabel,
    columns: Vec<ColumnSums>,
    kept: Vec<f32>,
    kept_labels: Vec<u32>,
    digest: u64,
}

impl ModelSums {
    /// Without samples yet, for `rows` of them in `classes` classes and the groups of `columns`.
    pub fn new(rows: u64, classes: usize, columns: &[GroupColumn]) -> ModelSums {
        ModelSums {
            classes,
            stride: temperature::stride(rows, classes),
            rows: 0,
            quality: Quality::default(),
            answers: ConfusionMatrix::new(classes),
            losses: LossesByLabel::new(classes),
            columns: columns.iter().map(|c| ColumnSums::new(c, classes)).collect(),
            kept: Vec::new(),
            kept_labels: Vec::new(),
            digest: 0,
        }
    }

    /// Adds the next sample: its label, what [`crate::measures::measure`] found, its logits, and
    /// its group in each column.
    pub fn push(&mut self, label: u32, sample: &Sample, logits: &[f32], codes: impl Iterator<Item = u32>) {
        self.quality.push(sample);
        self.answers.push(label, sample.predicted);
        self.losses.push(label, sample.nll);
        for (column, code) in self.columns.iter_mut().zip(codes) {
            column.push(code, label, sample);
        }
        if self.rows.is_multiple_of(self.stride) {
            self.kept.extend_from_slice(logits);
            self.kept_labels.push(label);
        }
        // One step of FNV-1a over a word: others than equal models agree with a chance of about
        // 2^-64.
        let word =
            sample.nll.to_bits() ^ sample.confidence.to_bits().rotate_left(32) ^ u64::from(sample.predicted);
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        self.rows += 1;
    }

    /// What they come to; none without samples.
    pub fn measures(&self, name: &str) -> Option<ModelMeasures> {
        Some(self.measures_by_parts(name, 1, |_| 0)?.0)
    }

    /// The same, and the AUROC without each of `parts` parts of the samples: `part_of` tells that
    /// of a sample.
    pub(crate) fn measures_by_parts(
        &self,
        name: &str,
        parts: usize,
        part_of: impl Fn(u64) -> usize,
    ) -> Option<(ModelMeasures, LeftOut)> {
        let part_of = |row: usize| part_of(row as u64 * self.stride);
        let ranked = auroc_by_parts(&self.kept, &self.kept_labels, self.classes, parts, part_of);
        let (auroc, left_out) = ranked.unzip();
        let measures = ModelMeasures {
            name: name.into(),
            quality: self.quality.values()?,
            classes: self.answers.scores()?,
            auroc,
            beside_constant: BesideConstant::of(&self.answers, &self.losses, auroc)?,
            temperature: temperature::fit(&self.kept, &self.kept_labels, self.classes)?,
            reliability: self.quality.calibration.reliability(),
            by_group: self.columns.iter().map(ColumnSums::measures).collect(),
            digest: self.digest,
        };
        Some((measures, left_out.unwrap_or_default()))
    }
}
