//! What a run directory keeps of the ranges of its values, and of failed steps.

use std::path::Path;

use halfstep::train::doctor::{Diagnosis, Sample};
use halfstep::train::run_dir::{RunDir, RunDirError};
use halfstep::train::train_loop::RunError;
use serde::de::DeserializeOwned;

/// File of the ranges.
pub const NUMERICS: &str = "numerics.json";
/// The same as pictures.
const PAGE: &str = "numerics.html";
/// The same as a table, in a build with that feature.
#[cfg(feature = "parquet")]
const TABLE: &str = "numerics.parquet";
/// File of what was found in failed steps.
pub const DIAGNOSES: &str = "doctor.json";

/// Keeps samples and diagnoses of the runs in a directory as they come.
pub struct Numerics<'d> {
    dir: &'d RunDir,
    title: &'d str,
    samples: Vec<Sample>,
    diagnoses: Vec<Diagnosis>,
}

impl<'d> Numerics<'d> {
    /// Of a run that begins, or goes on after `attempts`: then what was kept of steps before stays.
    pub fn new(dir: &'d RunDir, title: &'d str, attempts: u64) -> Numerics<'d> {
        let before = |at: u64| at < attempts;
        let mut samples: Vec<Sample> = dir.read_json(NUMERICS).unwrap_or_default();
        samples.retain(|s| before(s.attempt));
        let mut diagnoses: Vec<Diagnosis> = dir.read_json(DIAGNOSES).unwrap_or_default();
        diagnoses.retain(|d| before(d.attempt));
        Numerics { dir, title, samples, diagnoses }
    }

    /// Keeps a sample.
    pub fn sampled(&mut self, sample: &Sample) -> Result<(), RunError> {
        self.samples.push(sample.clone());
        write_samples(self.dir, &self.samples)
    }

    /// Keeps a diagnosis.
    pub fn diagnosed(&mut self, diagnosis: &Diagnosis) -> Result<(), RunError> {
        self.diagnoses.push(diagnosis.clone());
        Ok(self.dir.write_json(DIAGNOSES, &self.diagnoses)?)
    }

    /// Writes pictures and table at the end, if there is anything to show.
    pub fn finish(&self) -> Result<(), RunError> {
        if self.samples.is_empty() {
            return Ok(());
        }
        write(self.dir, self.title, &self.samples)
    }
}

/// Puts together in `dir` what the runs in `places` kept.
pub fn gather<'p>(
    dir: &RunDir,
    title: &str,
    places: impl Iterator<Item = &'p Path> + Clone,
) -> Result<(), RunError> {
    let samples: Vec<Sample> = places.clone().flat_map(|place| kept(place, NUMERICS)).collect();
    if !samples.is_empty() {
        write(dir, title, &samples)?;
    }
    let diagnoses: Vec<Diagnosis> = places.flat_map(|place| kept(place, DIAGNOSES)).collect();
    if !diagnoses.is_empty() {
        dir.write_json(DIAGNOSES, &diagnoses)?;
    }
    Ok(())
}

/// What a run kept in a file of that name; nothing where there is none.
fn kept<T: DeserializeOwned>(place: &Path, name: &str) -> Vec<T> {
    let bytes = std::fs::read(place.join(name)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Writes the samples in every form.
pub fn write(dir: &RunDir, title: &str, samples: &[Sample]) -> Result<(), RunError> {
    write_samples(dir, samples)?;
    dir.write(PAGE, halfstep::numerics_page(title, samples).as_bytes())?;
    #[cfg(feature = "parquet")]
    match halfstep::train::doctor::parquet(samples) {
        Ok(bytes) => dir.write(TABLE, &bytes)?,
        // Of numbers in memory, which a full disk cannot hinder; the other forms are there.
        Err(e) => eprintln!("warning: {TABLE} cannot be made: {e}"),
    }
    Ok(())
}

/// On one line: laid out for reading, counts by exponent would take most of the file.
fn write_samples(dir: &RunDir, samples: &[Sample]) -> Result<(), RunError> {
    let text = serde_json::to_vec(samples)
        .map_err(|e| RunDirError::Write { path: dir.file(NUMERICS), source: e.into() })?;
    Ok(dir.write(NUMERICS, &text)?)
}
