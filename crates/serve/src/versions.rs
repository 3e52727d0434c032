//! The loaded versions of a model, and the change from one to another while requests are answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use crate::batcher::{Batcher, Room, panicked};
use crate::infer::{Answer, Inference, Refusal};
use crate::limits::Reservation;
use crate::log::Log;
use crate::metrics::{Loaded as LoadedMemory, Metrics, Role};
use crate::model::{ModelInfo, Prepared, ServedModel, SourceError, VersionSource};
use crate::tensor::{Datatype, Tensor};
use crate::work::{beside, is_long};

mod watcher;
pub use watcher::Watcher;

/// How requests are computed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests that wait for the model, of all versions together.
    pub queue: usize,
    /// The time from a request to its answer.
    pub request: Duration,
    /// How long a request may wait for others to be computed with it.
    pub batch_wait: Duration,
    /// Large requests that are prepared side by side.
    pub workers: usize,
}

/// A loaded version. Requests hold the one that they began with.
struct Loaded<M: ServedModel> {
    batcher: Batcher<M>,
}

impl<M: ServedModel> Loaded<M> {
    fn info(&self) -> &ModelInfo {
        self.batcher.model().info()
    }
}

/// The version that answers, and the one before it, which stays loaded: a rollback to it is a
/// change of two pointers. When a server starts, the one that a rollback goes to is loaded as the
/// one before.
struct Pair<M: ServedModel> {
    current: Arc<Loaded<M>>,
    before: Option<Arc<Loaded<M>>>,
}

/// Whether a version stays loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// As the one before.
    AsBefore,
    /// Another one is.
    No,
}

/// The versions of a model that are loaded.
pub struct Versions<M: ServedModel> {
    pair: RwLock<Pair<M>>,
    settings: Settings,
    room: Arc<Room>,
    preparing: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    log: Log,
    draining: AtomicBool,
    /// Whether requests are given up.
    ended: watch::Sender<bool>,
    given_up: AtomicUsize,
}

/// Why no version answers.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no version, or it cannot be loaded.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The system gives no thread.
    #[error("the server cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl<M: ServedModel> Versions<M> {
    /// Loads the current version, and starts the [`Watcher`] that follows `source`.
    ///
    /// # Errors
    /// There is no version, it cannot be loaded or does not compute, or there is no thread.
    pub fn start<S: VersionSource<Model = M>>(
        source: S,
        settings: Settings,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Result<(Arc<Versions<M>>, Watcher), StartError> {
        let room = Room::new(settings.queue);
        let version = source.current()?;
        let loading = Loading { wait: settings.batch_wait, room: room.clone(), metrics: metrics.clone() };
        let current = loading.load(&source, &version)?;
        let pair = RwLock::new(Pair { current, before: None });
        let (draining, given_up) = (AtomicBool::new(false), AtomicUsize::new(0));
        let ended = watch::Sender::new(false);
        let preparing = Arc::new(Semaphore::new(settings.workers.clamp(1, Semaphore::MAX_PERMITS)));
        let versions = Versions { pair, settings, room, preparing, metrics, log, draining, ended, given_up };
        let versions = Arc::new(versions);
        versions.state_memory();
        let watcher = Watcher::start(source, version, versions.clone()).map_err(StartError::Thread)?;
        Ok((versions, watcher))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Pair<M>> {
        self.pair.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a version the current one, and keeps the one that was it as the one before.
    fn switch(&self, version: Arc<Loaded<M>>) {
        let mut pair = self.pair.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut pair.current, version);
        let dropped = pair.before.replace(before);
        drop(pair);
        // The memory of a model may take a while to be given back: no request waits for that.
        drop(dropped);
        self.state_memory();
    }

    /// Keeps a version as the one before, if there is none.
    fn keep(&self, version: Arc<Loaded<M>>) -> Kept {
        let mut pair = self.pair.write().unwrap_or_else(PoisonError::into_inner);
        if pair.before.is_some() {
            return Kept::No;
        }
        pair.before = Some(version);
        drop(pair);
        self.state_memory();
        Kept::AsBefore
    }

    fn state_memory(&self) {
        let pair = self.read();
        let state = |version: &Arc<Loaded<M>>, role| LoadedMemory {
            version: version.info().digest.clone(),
            role,
            memory: version.info().memory,
        };
        let mut loaded = vec![state(&pair.current, Role::Current)];
        loaded.extend(pair.before.as_ref().map(|before| state(before, Role::Before)));
        drop(pair);
        self.metrics.loaded(&loaded);
    }

    fn choose(&self, model: &str, version: Option<&str>) -> Result<Arc<Loaded<M>>, Refusal> {
        let pair = self.read();
        let chosen = match version {
            None => Some(&pair.current),
            Some("") => None,
            Some(prefix) => {
                let loaded = [Some(&pair.current), pair.before.as_ref()].into_iter().flatten();
                let mut named = loaded.filter(|loaded| loaded.info().digest.starts_with(prefix));
                named.next().filter(|_| named.next().is_none())
            }
        };
        if chosen.unwrap_or(&pair.current).info().name != model {
            return Err(Refusal::UnknownModel(model.into()));
        }
        chosen.cloned().ok_or_else(|| Refusal::UnknownVersion(version.unwrap_or_default().into()))
    }

    /// Is not ready any more. Requests are still answered: those that come now were sent before
    /// their clients could know.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Refuses all requests that have no answer yet, and says how many they were so far.
    pub fn give_up(&self) {
        self.drain();
        self.ended.send_replace(true);
    }

    /// Requests that were refused because the server ended.
    pub fn given_up(&self) -> usize {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Requests that wait for a model.
    pub fn waiting(&self) -> usize {
        self.room.waiting()
    }

    async fn computed(
        &self,
        version: Arc<Loaded<M>>,
        inputs: Vec<Tensor>,
        mut held: Reservation,
    ) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + self.settings.request;
        let digest = version.info().digest.clone();
        held.make(version.batcher.model().memory(&inputs))?;
        let prepare = self.prepare(version.clone(), inputs, held);
        let prepared = tokio::time::timeout_at(deadline.into(), prepare).await;
        let (prepared, held) = prepared.map_err(|_| Refusal::TimedOut)??;
        let (outputs, held) = version.batcher.answer(prepared, held, deadline).await?;
        Ok(Answer { digest, outputs, held })
    }

    /// Prepares a request. A model that panics fails this request alone.
    async fn prepare(
        &self,
        version: Arc<Loaded<M>>,
        inputs: Vec<Tensor>,
        held: Reservation,
    ) -> Result<(Prepared<M::Samples>, Reservation), Refusal> {
        let failed = |why: String| Refusal::Failed(crate::model::ComputeError(why));
        let long = is_long(inputs.iter().map(|tensor| tensor.data().len()).sum());
        // More at a time would be no faster, and would each take memory.
        let turn = match long {
            true => Some(self.preparing.clone().acquire_owned().await.map_err(|e| failed(e.to_string()))?),
            false => None,
        };
        // What is begun goes on when its client goes away, and holds its memory so long.
        let work = move || {
            let prepared = catch_unwind(AssertUnwindSafe(|| version.batcher.model().prepare(&inputs)));
            drop(turn);
            Ok((prepared.map_err(|panic| panicked(&*panic))??, held))
        };
        beside(long, work).await.map_err(|e| failed(e.to_string()))?
    }
}

impl<M: ServedModel> Inference for Versions<M> {
    fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    fn info(&self, model: &str, version: Option<&str>) -> Result<ModelInfo, Refusal> {
        Ok(self.choose(model, version)?.info().clone())
    }

    async fn infer(
        &self,
        model: &str,
        version: Option<&str>,
        inputs: Vec<Tensor>,
        held: Reservation,
    ) -> Result<Answer, Refusal> {
        let version = self.choose(model, version)?;
        let mut ended = self.ended.subscribe();
        tokio::select! {
            answer = self.computed(version, inputs, held) => answer,
            _ = ended.wait_for(|ended| *ended) => {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                Err(Refusal::Draining)
            }
        }
    }
}

/// What a version needs to be loaded.
#[derive(Clone)]
struct Loading {
    wait: Duration,
    room: Arc<Room>,
    metrics: Arc<Metrics>,
}

impl Loading {
    /// Loads a version, and lets it compute once.
    fn load<S: VersionSource>(
        &self,
        source: &S,
        version: &crate::model::CurrentVersion,
    ) -> Result<Arc<Loaded<S::Model>>, SourceError> {
        let model = catch_unwind(AssertUnwindSafe(|| {
            let model = source.load(version)?;
            if model.info().digest != version.digest {
                return Err(SourceError(format!(
                    "version {} was asked for, and what was loaded is {}",
                    version.digest,
                    model.info().digest
                )));
            }
            warm_up(&model)?;
            Ok(model)
        }));
        let model = model.map_err(|panic| SourceError(panicked(&*panic).0))??;
        let batcher = Batcher::start(model, self.wait, self.room.clone(), self.metrics.clone());
        let batcher = batcher.map_err(|e| SourceError(format!("there is no thread for its batches: {e}")))?;
        Ok(Arc::new(Loaded { batcher }))
    }
}

/// Computes one sample of zeros, so that the first request finds everything in place, and a version
/// that cannot compute never answers. A model that does not take zeros is not warmed up.
fn warm_up<M: ServedModel>(model: &M) -> Result<(), SourceError> {
    let zeros = |spec: &crate::model::TensorSpec| {
        let shape: Vec<usize> = spec.shape.iter().map(|extent| extent.unwrap_or(1)).collect();
        // An element of BYTES that has none is its length alone.
        let size = if spec.datatype == Datatype::Bytes { 4 } else { spec.datatype.size().unwrap_or(1) };
        let length = shape.iter().try_fold(size, |length, &extent| length.checked_mul(extent))?;
        Tensor::new(spec.name.clone(), spec.datatype, shape, Bytes::from(vec![0; length])).ok()
    };
    let inputs: Option<Vec<Tensor>> = model.info().inputs.iter().map(zeros).collect();
    let Some(Ok(prepared)) = inputs.map(|inputs| model.prepare(&inputs)) else { return Ok(()) };
    match model.compute(vec![prepared]) {
        Ok(_) => Ok(()),
        Err(error) => Err(SourceError(format!("it does not compute: {error}"))),
    }
}
