//! The model of a run directory, which does not change.

use std::sync::{Arc, Mutex, PoisonError};

use halfstep::graph::engine::Engine;
use halfstep::train::recipe::folder_name;
use halfstep_attest::digest::Digest;
use halfstep_serve::model::{CurrentVersion, ModelInfo, SourceError, VersionSource};

use super::super::args::Chosen;
use super::super::failure::Failure;
use super::super::open::Opened;
use super::model::{Facts, Looked, Manner, TrainedModel};

/// A run directory. The digest of its only version is that of the file of its weights.
pub struct RunSource {
    digest: String,
    /// The model, until the server takes it.
    loaded: Mutex<Option<TrainedModel>>,
}

impl RunSource {
    /// The model that the arguments choose, under this name or that of its recipe.
    pub fn open(
        chosen: &Chosen,
        name: Option<String>,
        engine: Arc<dyn Engine>,
        manner: Manner,
    ) -> Result<(RunSource, Facts), Failure> {
        let opened = Opened::open(chosen)?;
        let name = name.unwrap_or_else(|| folder_name(&opened.recipe.name));
        let path = opened.weights_file();
        let digest = Digest::of_file(&path);
        let digest = digest.map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?.to_string();
        let loaded = TrainedModel::load(&opened, engine, (&name, &digest), manner)?;
        let facts = Facts::of(&opened, &loaded, Looked::No);
        Ok((RunSource { digest, loaded: Mutex::new(Some(loaded)) }, facts))
    }
}

impl VersionSource for RunSource {
    type Model = TrainedModel;

    fn current(&self) -> Result<CurrentVersion, SourceError> {
        Ok(CurrentVersion { digest: self.digest.clone(), number: 0 })
    }

    fn fallback(&self, _: &ModelInfo) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    fn load(&self, _: &CurrentVersion) -> Result<TrainedModel, SourceError> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        loaded.ok_or_else(|| SourceError("the one version of a run directory has been loaded".into()))
    }
}
