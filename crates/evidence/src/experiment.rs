//! One pass over the logits of a reference and a candidate, and of another reference for the noise
//! floor.
//!
//! Memory is bounded by the batch: beside it stand labels, group codes, and the sums of each model
//! ([`ModelSums`]). The next batch is read while one is measured; sums are taken in row order, so
//! nothing depends on the number of threads.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;

use serde::Serialize;

use crate::buckets::{BUCKETS, BucketSums, bucket};
use crate::folds::{FOLDS, Folds, fold_of, of_auroc};
use crate::logits::{CLUSTER, Logits, LogitsError, Source};
use crate::measures::agreement::AgreementValues;
use crate::measures::sample::divergence;
use crate::measures::{Agreement, GroupColumn, GroupTable, Sample, measure};
use crate::model::{ModelMeasures, ModelSums};

/// Logits of one file in a batch.
const BATCH_LOGITS: usize = 1 << 20;
/// Most rows of a batch.
const BATCH_ROWS: usize = 1 << 14;

/// Measures of which every example has its own difference, candidate − reference, and which can be
/// crossed with seeds: [`crate::metric::OF_EXAMPLES`]. The last [`BEYOND_FLOOR`] need a floor.
pub(crate) const EXAMPLE_MEASURES: usize = 7;
const BEYOND_FLOOR: usize = 3;

/// What changed answers and divergence are measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseFloor {
    /// What another seed of the reference changes.
    #[default]
    OtherSeed,
    /// Nothing: every changed answer counts. For candidates made of the reference's own weights.
    None,
}

/// What one pair of models measured.
#[derive(Clone, Debug, Serialize)]
pub struct SeedMeasures {
    /// Seed, if the files tell.
    pub seed: Option<u64>,
    /// Samples.
    pub samples: u64,
    /// Classes.
    pub classes: usize,
    /// The reference.
    pub reference: ModelMeasures,
    /// The candidate.
    pub candidate: ModelMeasures,
    /// Reference and candidate, sample by sample.
    pub agreement: AgreementValues,
    /// Reference and the reference of another seed: what a change of seed alone does.
    pub floor: Option<AgreementValues>,
    /// Sums by group, one table per column.
    #[serde(skip)]
    pub groups: Vec<GroupTable>,
    /// Units that differ from each other by chance: samples, or clusters where the files name them.
    pub units: u64,
    /// Sums of differences by bucket of examples, in the order of [`crate::metric::OF_EXAMPLES`];
    /// those beyond the floor only with a floor.
    #[serde(skip)]
    pub sums: Vec<BucketSums>,
    /// Calibration and answers by part of the examples.
    #[serde(skip)]
    pub folds: Folds,
    /// Of the AUROC by part of the examples, as sums of buckets; none where it has no spread over
    /// them.
    #[serde(skip)]
    pub auroc_parts: Option<BucketSums>,
}

/// Logits of the same rows of all files.
#[derive(Default)]
struct Batch {
    rows: Range<usize>,
    reference: Vec<f32>,
    candidate: Vec<f32>,
    other: Vec<f32>,
}

/// The open files.
struct Files {
    reference: Logits,
    candidate: Logits,
    other: Option<Logits>,
}

impl Files {
    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), LogitsError> {
        batch.rows = self.reference.read(rows, &mut batch.reference)?;
        self.candidate.read(rows, &mut batch.candidate)?;
        if let Some(other) = &mut self.other {
            other.read(rows, &mut batch.other)?;
        }
        Ok(())
    }
}

/// What one row says of all models.
struct Measured {
    reference: Sample,
    candidate: Sample,
    kl: f64,
    floor: Option<(Sample, f64)>,
}

/// Checks that two tables hold the same samples: as many, with the same labels, in as many classes.
///
/// # Errors
/// Which of these they do not share.
pub fn same_samples(a: &Logits, b: &Logits) -> Result<(), LogitsError> {
    let wrong = |message: String| Err(LogitsError::Table { name: b.name().into(), message });
    let of = a.name();
    if a.classes() != b.classes() {
        return wrong(format!("{} classes, but {of} has {}", b.classes(), a.classes()));
    }
    if a.labels().len() != b.labels().len() {
        return wrong(format!(
            "{} samples, but {of} has {}; a pair is measured on the same samples",
            b.labels().len(),
            a.labels().len()
        ));
    }
    match a.labels().iter().zip(b.labels()).position(|(a, b)| a != b) {
        Some(row) => wrong(format!(
            "label {} of row {row} is {} in {of}; a pair is measured on the same samples in the same order",
            b.labels()[row],
            a.labels()[row]
        )),
        None => Ok(()),
    }
}

/// Measures a pair in one pass over its files. `other` is the reference of another seed, for
/// [`NoiseFloor::OtherSeed`]; where it holds other samples there is no floor.
///
/// # Errors
/// A file is bad, or reference and candidate do not hold the same samples or groups.
pub fn measure_seed(
    reference: &dyn Source,
    candidate: &dyn Source,
    other: Option<&dyn Source>,
    floor: NoiseFloor,
    threads: NonZeroUsize,
) -> Result<SeedMeasures, LogitsError> {
    let mut files = Files {
        reference: reference.open()?,
        candidate: candidate.open()?,
        other: other.filter(|_| floor == NoiseFloor::OtherSeed).map(|o| o.open()).transpose()?,
    };
    same_samples(&files.reference, &files.candidate)?;
    same_groups(&files.reference, &files.candidate)?;
    files.other = files.other.filter(|o| same_samples(&files.reference, o).is_ok());

    let classes = files.reference.classes();
    let labels = files.reference.labels().to_vec();
    let columns = files.reference.groups().to_vec();
    let clusters = files.reference.clusters().cloned();
    let samples = labels.len() as u64;
    let units = clusters.as_ref().map_or(samples, |c| c.values.len() as u64);
    let rows = (BATCH_LOGITS / classes).clamp(1, BATCH_ROWS);
    let mut totals =
        Totals::new(samples, units, classes, &columns, files.other.is_some() || floor == NoiseFloor::None);

    let unit_of = |row: u64| clusters.as_ref().map_or(row, |c| u64::from(c.codes[row as usize]));

    let (mut current, mut next) = (Batch::default(), Batch::default());
    files.read(rows, &mut current)?;
    while !current.rows.is_empty() {
        let (measured, read) = thread::scope(|s| {
            let reading = s.spawn(|| files.read(rows, &mut next));
            let measured = measure_batch(&current, &labels[current.rows.clone()], classes, floor, threads);
            (measured, reading.join().unwrap_or_else(|e| resume_unwind(e)))
        });
        for (at, m) in measured.iter().enumerate() {
            let i = current.rows.start + at;
            let codes = || columns.iter().map(|c| c.codes[i]);
            totals.push(labels[i], unit_of(i as u64), m, codes());
            let logits = at * classes..(at + 1) * classes;
            totals.reference.push(labels[i], &m.reference, &current.reference[logits.clone()], codes());
            totals.candidate.push(labels[i], &m.candidate, &current.candidate[logits], codes());
        }
        read?;
        std::mem::swap(&mut current, &mut next);
    }
    let seed = files.reference.seed().or(files.candidate.seed());
    totals.finish(seed, files.reference.name(), files.candidate.name(), unit_of)
}

fn same_groups(a: &Logits, b: &Logits) -> Result<(), LogitsError> {
    let wrong = |message: String| Err(LogitsError::Table { name: b.name().into(), message });
    for column in b.groups() {
        if a.groups().iter().any(|c| c.name == column.name && c != column) {
            return wrong(format!("group `{}` has other values than in {}", column.name, a.name()));
        }
    }
    if a.clusters() != b.clusters() {
        return wrong(format!("`{CLUSTER}` has other values than in {}", a.name()));
    }
    Ok(())
}

fn measure_batch(
    batch: &Batch,
    labels: &[u32],
    classes: usize,
    floor: NoiseFloor,
    threads: NonZeroUsize,
) -> Vec<Measured> {
    let share = labels.len().div_ceil(threads.get()).max(1);
    let part = |from: usize| {
        let to = labels.len().min(from + share);
        let mut exps = vec![0.0; classes];
        (from..to)
            .map(|i| {
                let at = i * classes..(i + 1) * classes;
                let (a, b) = (&batch.reference[at.clone()], &batch.candidate[at.clone()]);
                let candidate = measure(b, labels[i], &mut exps);
                let other = batch.other.get(at).map(|o| (o, measure(o, labels[i], &mut exps)));
                let reference = measure(a, labels[i], &mut exps);
                let kl = divergence(a, b, &exps, &reference, &candidate);
                let floor = match floor {
                    NoiseFloor::OtherSeed => other.map(|(o, s)| (s, divergence(a, o, &exps, &reference, &s))),
                    NoiseFloor::None => Some((reference, 0.0)),
                };
                Measured { reference, candidate, kl, floor }
            })
            .collect::<Vec<_>>()
    };
    if threads.get() == 1 {
        return part(0);
    }
    thread::scope(|s| {
        let part = &part;
        let parts: Vec<_> =
            (0..labels.len()).step_by(share).map(|from| s.spawn(move || part(from))).collect();
        parts.into_iter().flat_map(|p| p.join().unwrap_or_else(|e| resume_unwind(e))).collect()
    })
}

fn one(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

struct Totals {
    units: u64,
    classes: usize,
    reference: ModelSums,
    candidate: ModelSums,
    agreement: Agreement,
    floor: Option<Agreement>,
    groups: Vec<GroupTable>,
    sums: Vec<BucketSums>,
    folds: Folds,
}

impl Totals {
    fn new(samples: u64, units: u64, classes: usize, columns: &[GroupColumn], floor: bool) -> Totals {
        let metrics = if floor { EXAMPLE_MEASURES } else { EXAMPLE_MEASURES - BEYOND_FLOOR };
        let buckets = BUCKETS.min(units as usize);
        Totals {
            units,
            classes,
            reference: ModelSums::new(samples, classes, columns),
            candidate: ModelSums::new(samples, classes, columns),
            agreement: Agreement::default(),
            floor: floor.then(Agreement::default),
            groups: columns.iter().map(GroupTable::new).collect(),
            sums: vec![BucketSums::new(buckets); metrics],
            folds: Folds::new(classes),
        }
    }

    fn push(&mut self, label: u32, unit: u64, m: &Measured, codes: impl Iterator<Item = u32>) {
        let (a, b) = (&m.reference, &m.candidate);
        self.agreement.push(a, b, m.kl);
        if let (Some(floor), Some((other, kl))) = (&mut self.floor, &m.floor) {
            floor.push(a, other, *kl);
        }
        for (table, code) in self.groups.iter_mut().zip(codes) {
            table.push(code, unit, a, b, m.kl, m.floor.as_ref().map(|(s, kl)| (s, *kl)));
        }
        let bucket = bucket(unit, self.units, BUCKETS);
        let values = |s: &Sample| [one(s.correct()), one(s.rank < 5), s.nll, s.brier];
        let quality = values(a).into_iter().zip(values(b));
        let changed =
            |s: &Sample, kl: f64| [one(s.predicted != a.predicted), one(a.correct() && !s.correct()), kl];
        let beyond =
            m.floor.iter().flat_map(|(other, kl)| changed(other, *kl).into_iter().zip(changed(b, m.kl)));
        for (sums, (reference, candidate)) in self.sums.iter_mut().zip(quality.chain(beyond)) {
            sums.push(bucket, reference, candidate - reference);
        }
        self.folds.push(bucket, label, [a, b]);
    }

    fn finish(
        self,
        seed: Option<u64>,
        reference: &str,
        candidate: &str,
        unit_of: impl Fn(u64) -> u64,
    ) -> Result<SeedMeasures, LogitsError> {
        let part_of = |row: u64| fold_of(bucket(unit_of(row), self.units, BUCKETS));
        let all = || {
            let (a, parts_of_a) = self.reference.measures_by_parts(reference, FOLDS, part_of)?;
            let (b, parts_of_b) = self.candidate.measures_by_parts(candidate, FOLDS, part_of)?;
            let areas = a.auroc.zip(b.auroc).map(|(a, b)| [a.value, b.value]);
            Some(SeedMeasures {
                seed,
                samples: self.agreement.values()?.samples,
                classes: self.classes,
                auroc_parts: areas.and_then(|areas| of_auroc(areas, [&parts_of_a, &parts_of_b])),
                reference: a,
                candidate: b,
                agreement: self.agreement.values()?,
                floor: self.floor.and_then(|f| f.values()),
                groups: self.groups.clone(),
                units: self.units,
                sums: self.sums.clone(),
                folds: self.folds.clone(),
            })
        };
        all().ok_or_else(|| LogitsError::Table { name: reference.into(), message: "no samples".into() })
    }
}
