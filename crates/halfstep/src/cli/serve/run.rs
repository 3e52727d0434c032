//! The model of a run directory, which does not change.

use std::sync::{Arc, Mutex, PoisonError};

use halfstep::graph::engine::Engine;
use halfstep::train::recipe::folder_name;
use halfstep_attest::digest::Digest;
use halfstep_serve::model::{CurrentVersion, SourceError, VersionSource};

use super::super::args::Chosen;
use super::super::failure::Failure;
use super::super::open::Opened;
use super::model::{Facts, Manner, TrainedModel};

/// A run directory. The digest of its only version is that of the file of its weights.
pub struct RunSource {
    opened: Opened,
    name: String,
    digest: Digest,
    engine: Arc<dyn Engine>,
    manner: Manner,
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
        let digest = digest(&opened)?;
        let names = (name.as_str(), &*digest.to_string());
        let loaded = TrainedModel::load(&opened, engine.clone(), names, manner)?;
        let facts = Facts::of(&opened, &loaded);
        let loaded = Mutex::new(Some(loaded));
        Ok((RunSource { opened, name, digest, engine, manner, loaded }, facts))
    }
}

fn digest(opened: &Opened) -> Result<Digest, Failure> {
    let path = opened.weights_file();
    Digest::of_file(&path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
}

impl VersionSource for RunSource {
    type Model = TrainedModel;

    fn current(&self) -> Result<CurrentVersion, SourceError> {
        Ok(CurrentVersion { digest: self.digest.to_string(), number: 0 })
    }

    fn load(&self, version: &CurrentVersion) -> Result<TrainedModel, SourceError> {
        if let Some(loaded) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(loaded);
        }
        let failed = |e: Failure| SourceError(e.message());
        if digest(&self.opened).map_err(failed)? != self.digest {
            let path = self.opened.weights_file();
            return Err(SourceError(format!("{}: has changed while it was loaded", path.display())));
        }
        let names = (self.name.as_str(), version.digest.as_str());
        TrainedModel::load(&self.opened, self.engine.clone(), names, self.manner).map_err(failed)
    }
}
