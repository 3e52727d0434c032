//! Follows the version that is to answer: asks for it often, and loads it beside the answers of the
//! one before.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Kept, Loaded, Loading, Versions};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::model::{CurrentVersion, ServedModel, SourceError, VersionSource};

/// Between two questions which version is current.
const OFTEN: Duration = Duration::from_millis(100);
/// After a version could not be loaded, first and at most, until it is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Follows the current version until it is dropped.
pub struct Watcher(#[expect(dead_code, reason = "its drop ends the thread")] Sender<()>);

/// What became of the loading of a version.
type Outcome<M> = Result<Arc<Loaded<M>>, SourceError>;

struct Following<S: VersionSource> {
    source: Arc<S>,
    versions: Arc<Versions<S::Model>>,
    loading: Loading,
    /// The move with the highest number that was seen.
    seen: CurrentVersion,
    /// The version that is being loaded.
    under_way: Option<(CurrentVersion, JoinHandle<Outcome<S::Model>>)>,
    failed: Option<Failed>,
    /// What was said of the source last, so that it is said once.
    said: Option<String>,
}

/// A version that could not be loaded.
struct Failed {
    digest: String,
    again: Instant,
    pause: Duration,
}

impl Watcher {
    pub(super) fn start<S: VersionSource>(
        source: S,
        version: CurrentVersion,
        versions: Arc<Versions<S::Model>>,
    ) -> io::Result<Watcher> {
        let loading = Loading {
            wait: versions.settings.batch_wait,
            room: versions.room.clone(),
            metrics: versions.metrics.clone(),
        };
        let source = Arc::new(source);
        let (watcher, ended) = channel();
        let mut following =
            Following { source, versions, loading, seen: version, under_way: None, failed: None, said: None };
        following.answers("start");
        std::thread::Builder::new().name("halfstep-versions".into()).spawn(move || following.run(&ended))?;
        Ok(Watcher(watcher))
    }
}

impl<S: VersionSource> Following<S> {
    fn run(&mut self, ended: &Receiver<()>) {
        self.load_fallback();
        while ended.recv_timeout(OFTEN) == Err(RecvTimeoutError::Timeout) {
            match self.source.current() {
                Ok(version) => self.follow(version),
                Err(error) => self.say("source_unreadable", json!({"reason": error.to_string()})),
            }
        }
    }

    /// Begins to load the version that a rollback goes to.
    fn load_fallback(&mut self) {
        let current = self.versions.read().current.info().clone();
        let begun = match self.source.fallback(&current) {
            Ok(Some(digest)) => {
                let begun = self.begin(CurrentVersion { digest, number: 0 });
                begun.map_err(|e| e.to_string())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = begun {
            self.log().write("version_not_kept", json!({"reason": reason}));
        }
    }

    fn log(&self) -> &Log {
        &self.versions.log
    }

    fn metrics(&self) -> &Metrics {
        &self.versions.metrics
    }

    /// Logs, and counts, what is the same at each question only once.
    fn say(&mut self, event: &str, fields: serde_json::Value) {
        let said = format!("{event} {fields}");
        if self.said.as_ref() != Some(&said) {
            self.log().write(event, fields);
            self.metrics().refused(event);
            self.said = Some(said);
        }
    }

    fn follow(&mut self, version: CurrentVersion) {
        let (number, seen) = (version.number, self.seen.number);
        if number < seen || number == seen && version.digest != self.seen.digest {
            let reason = "its number is not above that of the last move: an old move is presented again, or the history was changed";
            let fields =
                json!({"version": version.digest, "move": number, "last_move": seen, "reason": reason});
            return self.say("move_refused", fields);
        }
        self.said = None;
        if number > seen {
            self.metrics().moved();
            self.seen = version.clone();
        }
        let pair = self.versions.read();
        let current = pair.current.info().digest == version.digest;
        let before = pair.before.clone().filter(|before| before.info().digest == version.digest);
        drop(pair);
        if current {
            return self.settle_other(&version);
        }
        match before {
            Some(before) => {
                self.versions.switch(before);
                self.answers("version_changed");
            }
            None => self.load(version),
        }
    }

    /// Keeps a version that has been loaded and is not to answer now, or gives it up.
    fn settle_other(&mut self, wanted: &CurrentVersion) {
        let done = |(version, thread): &mut (CurrentVersion, JoinHandle<_>)| {
            version.digest != wanted.digest && thread.is_finished()
        };
        let Some((version, thread)) = self.under_way.take_if(done) else { return };
        let (event, reason) = match joined(thread).map(|loaded| self.versions.keep(loaded)) {
            Ok(Kept::AsBefore) => return self.answers("version_kept"),
            Ok(Kept::No) => ("version_not_needed", "another move came before it was loaded".into()),
            Err(error) => ("version_not_kept", error.to_string()),
        };
        self.log().write(event, json!({"version": version.digest, "reason": reason}));
    }

    /// Begins to load a version, or lets it answer once it is loaded.
    fn load(&mut self, version: CurrentVersion) {
        self.settle_other(&version);
        let done = |(loaded, thread): &mut (CurrentVersion, JoinHandle<_>)| {
            loaded.digest == version.digest && thread.is_finished()
        };
        if let Some((_, thread)) = self.under_way.take_if(done) {
            match joined(thread) {
                Ok(loaded) => {
                    self.failed = None;
                    self.versions.switch(loaded);
                    self.answers("version_changed");
                }
                Err(error) => self.refuse(version, &error.to_string()),
            }
            return;
        }
        let waits = |failed: &Failed| failed.digest == version.digest && Instant::now() < failed.again;
        if self.under_way.is_some() || self.failed.as_ref().is_some_and(waits) {
            return;
        }
        if let Err(error) = self.begin(version.clone()) {
            self.refuse(version, &error.to_string());
        }
    }

    /// Begins to load a version.
    fn begin(&mut self, version: CurrentVersion) -> Result<(), SourceError> {
        let number = (version.number > 0).then_some(version.number);
        self.log().write("version_loading", json!({"version": version.digest, "move": number}));
        let (source, loading, wanted) = (self.source.clone(), self.loading.clone(), version.clone());
        let thread = std::thread::Builder::new()
            .name("halfstep-load".into())
            .spawn(move || loading.load(&*source, &wanted));
        let thread = thread.map_err(|e| SourceError(format!("there is no thread to load it: {e}")))?;
        self.under_way = Some((version, thread));
        Ok(())
    }

    /// The version before goes on to answer; this one is tried again later.
    fn refuse(&mut self, version: CurrentVersion, reason: &str) {
        let last = self.failed.take().filter(|failed| failed.digest == version.digest);
        let pause = last.map_or(PAUSES.0, |failed| (failed.pause * 2).min(PAUSES.1));
        let fields = json!({
            "version": version.digest,
            "move": version.number,
            "reason": reason,
            "again_in_s": pause.as_secs(),
        });
        self.log().write("version_refused", fields);
        self.metrics().refused("version_refused");
        self.failed = Some(Failed { digest: version.digest, again: Instant::now() + pause, pause });
    }

    /// Says which versions are loaded.
    fn answers(&self, event: &str) {
        let pair = self.versions.read();
        let before = pair.before.as_ref().map(|before| before.info());
        let fields = json!({
            "model": pair.current.info().name,
            "version": pair.current.info().digest,
            "move": self.seen.number,
            "memory": pair.current.info().memory,
            "kept": before.map(|before| before.digest.as_str()),
            "kept_memory": before.map(|before| before.memory),
        });
        drop(pair);
        self.log().write(event, fields);
    }
}

/// What became of a loading that has ended.
fn joined<M: ServedModel>(thread: JoinHandle<Outcome<M>>) -> Outcome<M> {
    thread.join().unwrap_or_else(|_| Err(SourceError("loading it panicked".into())))
}
