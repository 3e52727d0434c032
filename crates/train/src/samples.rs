//! Which samples a run was trained on, and which it held out: kept in its directory, so that none
//! of the former is measured as one of the latter, whatever becomes of the data.
//!
//! The file is one of safetensors: sorted hashes of the samples of each part (8 bytes each), and
//! the fingerprints of the parts in its metadata.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use halfstep_data::{DataError, Dataset, Part};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::run_dir::{RunDir, RunDirError, SAMPLES, damaged, failed, read};

/// The key of our entry in the file's metadata.
const KEY: &str = "halfstep";
const TRAIN: &str = "train";
const TEST: &str = "test";

/// The samples of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSamples {
    about: About,
    /// Hashes of the samples that it was trained on, or chosen by, sorted.
    train: Vec<u64>,
    /// Of those held out.
    test: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// Fingerprints of the parts trained on and chosen by.
    train: Vec<String>,
    /// Of the part held out.
    test: String,
    /// The run directory when it was made, absolute.
    directory: PathBuf,
}

/// What the test samples of a data set are to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOut {
    /// Those that it held out.
    Same,
    /// Others, none of which it was trained on.
    Others,
    /// Others, so many of which it was trained on.
    TrainedOn(usize),
    /// Unknown: the samples to train on are others too, so that the split, and what inputs are
    /// prepared by, are no longer those of the run.
    Changed,
}

impl RunSamples {
    /// Those of the data that a run in `directory` is about to be trained on.
    ///
    /// # Errors
    /// None of data that were loaded.
    pub fn of(data: &Dataset, directory: &Path) -> Result<RunSamples, DataError> {
        let about = About {
            train: used(data).map(Part::fingerprint).collect(),
            test: data.test.fingerprint(),
            directory: std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf()),
        };
        let mut train = Vec::new();
        for part in used(data) {
            train.extend(part.sample_hashes()?);
        }
        train.sort_unstable();
        Ok(RunSamples { about, train, test: data.test.sample_hashes()? })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, dir: &RunDir) -> Result<(), RunDirError> {
        let bytes = |hashes: &[u64]| hashes.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<u8>>();
        let (train, test) = (bytes(&self.train), bytes(&self.test));
        let serialised = || -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
            let mut views = Vec::new();
            for (name, data) in [(TRAIN, &train), (TEST, &test)] {
                views.push((name, TensorView::new(Dtype::U64, vec![data.len() / 8], data)?));
            }
            let about = HashMap::from([(KEY.to_string(), serde_json::to_string(&self.about)?)]);
            Ok(safetensors::serialize(views, Some(about))?)
        };
        let file = serialised().map_err(|e| failed(&dir.file(SAMPLES))(io::Error::other(e)))?;
        dir.write(SAMPLES, &file)
    }

    /// Reads the file of a run; none where there is none, as in directories of older versions and
    /// of imported weights.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn read(dir: &RunDir) -> Result<Option<RunSamples>, RunDirError> {
        let path = dir.file(SAMPLES);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = read(&path)?;
        let parsed = || -> Result<RunSamples, Box<dyn std::error::Error>> {
            let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
            let about = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
            let about = serde_json::from_str(about.ok_or(format!("it has no `{KEY}` entry"))?)?;
            let file = SafeTensors::deserialize(&bytes)?;
            let hashes = |name| -> Result<Vec<u64>, Box<dyn std::error::Error>> {
                let tensor = file.tensor(name)?;
                if tensor.dtype() != Dtype::U64 {
                    return Err(format!("`{name}` holds no 64-bit numbers").into());
                }
                let word = |b: &[u8]| b.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
                let hashes: Vec<u64> = tensor.data().chunks_exact(8).map(word).collect();
                if !hashes.is_sorted() {
                    return Err(format!("`{name}` is not sorted").into());
                }
                Ok(hashes)
            };
            Ok(RunSamples { about, train: hashes(TRAIN)?, test: hashes(TEST)? })
        };
        parsed().map(Some).map_err(|e| damaged(&path)(e.to_string()))
    }

    /// What the test samples of `data` are to the run.
    ///
    /// # Errors
    /// None of data that were loaded.
    pub fn held_out(&self, data: &Dataset) -> Result<HeldOut, DataError> {
        if !used(data).map(Part::fingerprint).eq(self.about.train.iter().cloned()) {
            return Ok(HeldOut::Changed);
        }
        if data.test.fingerprint() == self.about.test {
            return Ok(HeldOut::Same);
        }
        // A sample that is in both parts from the beginning stays one of the test samples.
        let known = |hash: &u64| self.trained_on(*hash) && self.test.binary_search(hash).is_err();
        Ok(match data.test.sample_hashes()?.iter().filter(|hash| known(hash)).count() {
            0 => HeldOut::Others,
            n => HeldOut::TrainedOn(n),
        })
    }

    /// Whether the run was trained on, or chosen by, a sample of this hash, as
    /// [`halfstep_data::sample_hash`] has it.
    pub fn trained_on(&self, hash: u64) -> bool {
        self.train.binary_search(&hash).is_ok()
    }

    /// Where the run directory was when the run began, absolute.
    pub fn directory(&self) -> &Path {
        &self.about.directory
    }
}

/// The parts that a model is made by.
fn used(data: &Dataset) -> impl Iterator<Item = &Part> {
    [&data.train].into_iter().chain(&data.validation)
}
