//! The model that an alias of a registry names, which changes when the alias moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep_attest::digest::Digest;
use halfstep_attest::trust::Trust;
use halfstep_registry::moves::Recorded;
use halfstep_registry::names::{Reference, Selector};
use halfstep_registry::version::Version;
use halfstep_registry::{Registry, RegistryError};
use halfstep_serve::model::{CurrentVersion, ModelInfo, SourceError, VersionSource};

use super::super::args::Chosen;
use super::super::failure::Failure;
use super::super::open::Opened;
use super::super::registry::{Asked, failure};
use super::super::trust;
use super::model::{Facts, Looked, Manner, TrainedModel};

/// Whether a version has to be signed by somebody who is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// It has to be.
    Demanded,
    /// Nobody looks.
    NotLookedAt,
}

/// Whether another precision than that of a version needs a signed verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdicts {
    /// It does.
    Demanded,
    /// Nobody looks.
    NotLookedAt,
}

/// A version of a registry, or the one that an alias points at.
pub struct RegistrySource {
    asked: Asked,
    registry: Registry,
    reference: Reference,
    trust: Trust,
    loading: Loading,
    /// The last move whose signature was looked at.
    accepted: AtomicU64,
    /// The last move that was compared with what was seen of the registry.
    remembered: AtomicU64,
    /// The first version, until the server takes it.
    loaded: Mutex<Option<(CurrentVersion, TrainedModel)>>,
}

/// How versions are loaded.
pub struct Loading {
    /// What clients call the model.
    pub name: String,
    /// The precision to compute in, where it is not that of training.
    pub precision: Option<String>,
    /// What computes.
    pub engine: Arc<dyn Engine>,
    /// How samples are computed together.
    pub manner: Manner,
    /// Which versions are served.
    pub signatures: Signatures,
    /// Which of them in another precision than their own.
    pub verdicts: Verdicts,
    /// Which moves are followed. A signature that a move has is looked at wherever those of
    /// versions are.
    pub moves: Signatures,
}

impl RegistrySource {
    /// Opens the registry, and loads the version that is current.
    ///
    /// # Errors
    /// There is no such version; it is damaged, or not signed; the registry is older than it was
    /// when it was seen last.
    pub fn open(
        asked: Asked,
        reference: Reference,
        loading: Loading,
    ) -> Result<(RegistrySource, Facts), Failure> {
        let registry = asked.open()?;
        let trust = match loading.signatures {
            Signatures::Demanded => trust::of_file(asked.trust.as_deref())?,
            Signatures::NotLookedAt => Trust::default(),
        };
        if loading.signatures == Signatures::Demanded && trust.is_empty() {
            return Err(Failure::asked(
                "nobody is trusted, so that no version can be served",
                "name who signs in trust.toml beside your keys or with --trust, or serve versions whoever made them with --unsigned",
            ));
        }
        let (accepted, remembered, loaded) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(None));
        let source =
            RegistrySource { asked, registry, reference, trust, loading, accepted, remembered, loaded };
        let current = source.now().map_err(failure)?;
        let (model, facts) = source.read(&current)?;
        *source.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some((current, model));
        Ok((source, facts))
    }

    /// Where the reference points.
    fn now(&self) -> Result<CurrentVersion, RegistryError> {
        let Reference { model, selector } = &self.reference;
        Ok(match selector {
            Selector::Alias(alias) => {
                let head = self.registry.head(model, alias)?;
                self.accept(&head)?;
                let head = head.record;
                CurrentVersion { digest: head.to.to_string(), number: head.number }
            }
            Selector::Prefix(_) => {
                let version = self.registry.resolve(&self.reference)?;
                CurrentVersion { digest: version.digest.to_string(), number: 0 }
            }
        })
    }

    /// Looks at the signature of a move that is new.
    fn accept(&self, head: &Recorded) -> Result<(), RegistryError> {
        let number = head.record.number;
        if self.loading.signatures == Signatures::NotLookedAt
            || self.accepted.load(Ordering::Relaxed) == number
        {
            return Ok(());
        }
        // A clock that is wrong proves nobody's signature.
        let now = trust::now().map_err(|e| RegistryError::SignedMove { number, why: e.message() })?;
        if self.registry.mover(head, &self.trust, now)?.is_none()
            && self.loading.moves == Signatures::Demanded
        {
            let why = "it is not signed, and --signed-moves asks for it".into();
            return Err(RegistryError::SignedMove { number, why });
        }
        self.accepted.store(number, Ordering::Relaxed);
        Ok(())
    }

    /// Reads a version: held against removal, its signature and each of its files verified.
    fn read(&self, wanted: &CurrentVersion) -> Result<(TrainedModel, Facts), Failure> {
        let Loading { name, precision, engine, manner, signatures, verdicts, .. } = &self.loading;
        let digest = Digest::try_from(wanted.digest.clone());
        let digest = digest.map_err(|e| Failure::failed(&e))?;
        let model = &self.reference.model;
        let version = self.registry.version(model, digest).and_then(|v| v.present()).map_err(failure)?;
        let hold = self.registry.hold(&[version.key()]).map_err(failure)?;
        if *signatures == Signatures::Demanded {
            self.registry.signed(&version, &self.trust, trust::now()?).map_err(failure)?.map_err(|why| {
                Failure::failed(format!("version {digest} of {model} is not served: {}", why.join("; ")))
                    .with_help("sign it with `halfstep registry add --sign`")
            })?;
        }
        // Files of a registry can be changed by others while they are read: a copy of them, each
        // verified, cannot.
        let own = tempfile::tempdir();
        let own =
            own.map_err(|e| Failure::failed(format!("there is no folder for a copy of the version: {e}")))?;
        let run = own.path().join("version");
        self.registry.materialise(&version, &run).map_err(failure)?;
        let opened = Opened::open(&Chosen { run, checkpoint: None, precision: precision.clone() })?;
        let own = opened.precision() == opened.manifest.policy.name;
        let judged = match verdicts {
            Verdicts::Demanded if !own => {
                self.covered(&version, opened.precision())?;
                true
            }
            _ => own,
        };
        let names = (name.as_str(), wanted.digest.as_str());
        let model = TrainedModel::load(&opened, engine.clone(), names, *manner)?.holding(hold);
        let facts = Facts::of(&opened, &model, if judged { Looked::Covers } else { Looked::No });
        Ok((model, facts))
    }

    /// Refuses a precision that no signed verdict of the version covers.
    fn covered(&self, version: &Version, precision: &str) -> Result<(), Failure> {
        let covers = self.registry.covers(version, precision, &self.trust, trust::now()?).map_err(failure)?;
        covers.map(|_| ()).map_err(|why| {
            let (digest, model) = (version.digest, &version.model);
            let why = why.join("; ");
            Failure::failed(format!("version {digest} of {model} is not served in {precision}: {why}"))
                .with_help("leave out --precision, or serve what nobody judged with --unjudged")
        })
    }

    /// Compares the registry with what was seen of it, when it has a move that was not.
    fn compare(&self, current: &CurrentVersion) -> Result<(), Failure> {
        if self.remembered.swap(current.number, Ordering::Relaxed) != current.number {
            self.asked
                .remember(&self.registry)
                .inspect_err(|_| self.remembered.store(0, Ordering::Relaxed))?;
        }
        Ok(())
    }
}

impl VersionSource for RegistrySource {
    type Model = TrainedModel;

    fn current(&self) -> Result<CurrentVersion, SourceError> {
        let current = self.now().map_err(|e| SourceError(e.to_string()))?;
        self.compare(&current).map_err(|e| SourceError(e.message()))?;
        Ok(current)
    }

    fn fallback(&self, current: &ModelInfo) -> Result<Option<String>, SourceError> {
        let Reference { model, selector: Selector::Alias(alias) } = &self.reference else { return Ok(None) };
        let digest = self.registry.fallback(model, alias).map_err(|e| SourceError(e.to_string()))?;
        let Some(digest) = digest.map(|digest| digest.to_string()) else { return Ok(None) };
        // What it takes is known once it is loaded: as much as the current one is assumed.
        match self.loading.engine.free_memory() {
            Some(free) if (free.bytes as u64) < current.memory => Err(SourceError(format!(
                "there is no memory for version {digest}, to which a rollback goes: the current one takes {}, and {} {}",
                units::bytes(current.memory as usize),
                units::bytes(free.bytes),
                free.limit
            ))),
            _ => Ok(Some(digest)),
        }
    }

    fn load(&self, version: &CurrentVersion) -> Result<TrainedModel, SourceError> {
        let first = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some((loaded, model)) if loaded.digest == version.digest => Ok(model),
            _ => self.read(version).map(|(model, _)| model).map_err(|e| SourceError(e.message())),
        }
    }
}
