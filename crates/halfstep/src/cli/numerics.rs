//! What a run directory keeps of the ranges of its values, and of failed steps.

use std::path::Path;

use halfstep::train::doctor::{Diagnosis, Sample};
use halfstep::train::run_dir::{RunDir, RunDirError};
use halfstep::train::run_log::Lines;
use halfstep::train::train_loop::RunError;

/// File of the ranges: a sample on each line.
pub const NUMERICS: &str = "numerics.jsonl";
/// The same as pictures.
const PAGE: &str = "numerics.html";
/// The same as a table, in a build with that feature.
#[cfg(feature = "parquet")]
const TABLE: &str = "numerics.parquet";
/// File of what was found in failed steps.
pub const DIAGNOSES: &str = "doctor.json";

/// Keeps samples and diagnoses of the runs in a directory as they come. Samples go to the disk, for
/// there may be many.
pub struct Numerics<'d> {
    dir: &'d RunDir,
    title: &'d str,
    samples: Option<Lines>,
    diagnoses: Vec<Diagnosis>,
}

impl<'d> Numerics<'d> {
    /// Of a run that begins, or goes on after `attempts`: then what was kept of steps before stays.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn new(dir: &'d RunDir, title: &'d str, attempts: u64) -> Result<Numerics<'d>, RunError> {
        let before = |at: u64| at < attempts;
        let mut samples = None;
        if dir.file(NUMERICS).is_file() {
            let mut kept = samples_in(dir.path());
            kept.retain(|s| before(s.attempt));
            write_samples(dir, &kept)?;
            samples = Some(Lines::extend(dir.files(), &dir.file(NUMERICS))?);
        }
        let mut diagnoses: Vec<Diagnosis> = dir.read_json(DIAGNOSES).unwrap_or_default();
        diagnoses.retain(|d| before(d.attempt));
        Ok(Numerics { dir, title, samples, diagnoses })
    }

    /// Keeps a sample.
    pub fn sampled(&mut self, sample: &Sample) -> Result<(), RunError> {
        let lines = match &mut self.samples {
            Some(lines) => lines,
            none => none.insert(Lines::create(self.dir.files(), &self.dir.file(NUMERICS))?),
        };
        Ok(lines.push(sample)?)
    }

    /// Keeps a diagnosis.
    pub fn diagnosed(&mut self, diagnosis: &Diagnosis) -> Result<(), RunError> {
        self.diagnoses.push(diagnosis.clone());
        Ok(self.dir.write_json(DIAGNOSES, &self.diagnoses)?)
    }

    /// Writes pictures and table at the end, if there is anything to show.
    pub fn finish(&self) -> Result<(), RunError> {
        if self.samples.is_none() {
            return Ok(());
        }
        show(self.dir, self.title, &samples_in(self.dir.path()))
    }
}

/// Puts together in `dir` what the runs in `places` kept.
pub fn gather<'p>(
    dir: &RunDir,
    title: &str,
    places: impl Iterator<Item = &'p Path> + Clone,
) -> Result<(), RunError> {
    let samples: Vec<Sample> = places.clone().flat_map(samples_in).collect();
    if !samples.is_empty() {
        write(dir, title, &samples)?;
    }
    let diagnoses: Vec<Diagnosis> = places
        .flat_map(|place| {
            let bytes = std::fs::read(place.join(DIAGNOSES)).unwrap_or_default();
            serde_json::from_slice::<Vec<Diagnosis>>(&bytes).unwrap_or_default()
        })
        .collect();
    if !diagnoses.is_empty() {
        dir.write_json(DIAGNOSES, &diagnoses)?;
    }
    Ok(())
}

/// The samples that a run kept, whole lines of them; none where there are none.
fn samples_in(place: &Path) -> Vec<Sample> {
    let bytes = std::fs::read(place.join(NUMERICS)).unwrap_or_default();
    bytes.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Writes the samples in every form.
pub fn write(dir: &RunDir, title: &str, samples: &[Sample]) -> Result<(), RunError> {
    write_samples(dir, samples)?;
    show(dir, title, samples)
}

/// Writes pictures and table.
fn show(dir: &RunDir, title: &str, samples: &[Sample]) -> Result<(), RunError> {
    dir.write(PAGE, halfstep::numerics_page(title, samples).as_bytes())?;
    #[cfg(feature = "parquet")]
    match halfstep::train::doctor::parquet(samples) {
        Ok(bytes) => dir.write(TABLE, &bytes)?,
        // Of numbers in memory, which a full disk cannot hinder; the other forms are there.
        Err(e) => super::output::warning(format!("{TABLE} cannot be made: {e}")),
    }
    Ok(())
}

fn write_samples(dir: &RunDir, samples: &[Sample]) -> Result<(), RunError> {
    let mut text = Vec::new();
    for sample in samples {
        serde_json::to_writer(&mut text, sample)
            .map_err(|e| RunDirError::Write { path: dir.file(NUMERICS), source: e.into() })?;
        text.push(b'\n');
    }
    Ok(dir.write(NUMERICS, &text)?)
}
