//! Sends a log file to a server while the log is written.
//!
//! The log grows by whole lines. A thread reads new lines and passes them to a [`Service`]; the
//! number of lines that have arrived is kept in a file. If a server hangs, refuses or fails, the
//! request is repeated after increasing delays; memory holds one batch at most. What has not
//! arrived at the end of the run can be sent later by [`deliver`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Lines in a batch. MLflow takes a thousand numbers at a time; a line has seven.
const BATCH: usize = 140;
/// Time between two reads of the log.
const POLL: Duration = Duration::from_secs(1);
/// Delay before a failed request is repeated: the first, which doubles each time, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// It completed.
    Finished,
    /// It failed.
    Failed,
    /// It was stopped before its end.
    Stopped,
}

/// How much of a log has been delivered, and what resuming the delivery needs. Kept in a file
/// beside the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notes {
    /// The server's URL.
    pub url: String,
    /// Lines of the log that have arrived.
    pub lines: u64,
    /// How the run ended and when, in seconds since 1970; none while it runs.
    pub ended: Option<(Ending, f64)>,
    /// Whether the server knows of the end.
    pub closed: bool,
    /// State of the service: [`Service::memory`].
    pub service: serde_json::Value,
}

impl Notes {
    /// Nothing delivered yet.
    pub fn new(url: &str) -> Notes {
        let service = serde_json::Value::Null;
        Notes { url: url.to_string(), lines: 0, ended: None, closed: false, service }
    }
}

/// Why a server did not accept a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may accept it later: it is unreachable, hangs, or reports a temporary failure.
    #[error("{0}")]
    Later(String),
    /// It will not accept it until the cause is corrected.
    #[error("{0}")]
    Never(String),
}

/// A server that a log is sent to.
pub trait Service: Send {
    /// Announces the run: once per process, before any line.
    ///
    /// # Errors
    /// The server was not reached, or refused.
    fn open(&mut self) -> Result<(), Refusal>;
    /// Receives the lines of the log in order, from the first. A line that has `arrived` is not
    /// sent again.
    fn read(&mut self, line: &str, arrived: bool);
    /// Sends the lines read since the last success.
    ///
    /// # Errors
    /// The server was not reached, or refused; a part may have arrived, and will be sent again.
    fn send(&mut self) -> Result<(), Refusal>;
    /// Announces the end of the run; `time` is in seconds since 1970.
    ///
    /// # Errors
    /// The server was not reached, or refused.
    fn close(&mut self, ending: Ending, time: f64) -> Result<(), Refusal>;
    /// State that another process needs to continue.
    fn memory(&self) -> serde_json::Value;
}

/// Writes notes to their file atomically.
pub type Keep = Box<dyn Fn(&Notes) -> io::Result<()> + Send>;

/// The result of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The server's URL.
    pub url: String,
    /// Lines of the log that have arrived.
    pub lines: u64,
    /// Lines that have not.
    pub missing: u64,
    /// Whether the server knows how the run ended.
    pub closed: bool,
    /// The error that the last request ended with, if it failed.
    pub trouble: Option<Refusal>,
    /// Number of requests that were repeated.
    pub retries: u64,
}

impl Delivered {
    /// Whether everything has arrived.
    pub fn complete(&self) -> bool {
        self.closed && self.missing == 0
    }
}

/// Shared by the exporting thread and its caller.
struct Shared {
    notes: Notes,
    keep: Keep,
    trouble: Option<Refusal>,
    retries: u64,
    /// When something arrived last.
    arrived: Instant,
}

impl Shared {
    /// An error is ignored: without notes, lines are sent twice, which servers accept.
    fn keep(&self) {
        let _ = (self.keep)(&self.notes);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far one request came.
#[derive(PartialEq)]
enum Went {
    /// There may be more.
    On,
    /// To the end of the log as it is now.
    UpToDate,
    /// The end of the run has arrived.
    Closed,
}

/// The delivery of one log.
struct Delivery {
    service: Box<dyn Service>,
    log: Log,
    shared: Arc<Mutex<Shared>>,
    opened: bool,
    /// Lines read, of which those not in the notes are to be sent.
    read: u64,
}

impl Delivery {
    fn new(log: &Path, service: Box<dyn Service>, notes: Notes, keep: Keep) -> Delivery {
        let shared = Shared { notes, keep, trouble: None, retries: 0, arrived: Instant::now() };
        let log = Log { path: log.to_path_buf(), at: 0 };
        Delivery { service, log, shared: Arc::new(Mutex::new(shared)), opened: false, read: 0 }
    }

    /// Opens the service, sends the next batch, or closes the service.
    fn go(&mut self) -> Result<Went, Refusal> {
        if !self.opened {
            let opened = self.service.open();
            let mut shared = lock(&self.shared);
            shared.notes.service = self.service.memory();
            shared.keep();
            drop(shared);
            opened?;
            self.opened = true;
        }
        let (sent, ended) = {
            let shared = lock(&self.shared);
            (shared.notes.lines, shared.notes.ended)
        };
        // The service still holds a batch that was refused.
        if self.read <= sent {
            let lines =
                self.log.next(BATCH).map_err(|e| Refusal::Later(format!("the log cannot be read: {e}")))?;
            for line in &lines {
                self.service.read(line, self.read < sent);
                self.read += 1;
            }
            if lines.is_empty() {
                let Some((ending, time)) = ended else { return Ok(Went::UpToDate) };
                self.service.close(ending, time)?;
                let mut shared = lock(&self.shared);
                shared.notes.closed = true;
                shared.keep();
                return Ok(Went::Closed);
            }
        }
        if self.read > sent {
            self.service.send()?;
            let mut shared = lock(&self.shared);
            shared.notes.lines = self.read;
            shared.keep();
        }
        Ok(Went::On)
    }

    /// [`Delivery::go`], with its result recorded.
    fn try_once(&mut self) -> Result<Went, Refusal> {
        let result = self.go();
        let mut shared = lock(&self.shared);
        match &result {
            Ok(went) => {
                shared.trouble = None;
                if *went != Went::UpToDate {
                    shared.arrived = Instant::now();
                }
            }
            Err(refusal) => {
                shared.trouble = Some(refusal.clone());
                shared.retries += 1;
            }
        }
        result
    }

    /// Runs until the run has ended and everything has arrived, or the [`Exporter`] is dropped.
    fn work(&mut self, ended: &Receiver<()>) {
        let mut retry = RETRY.0;
        let mut over = false;
        loop {
            let wait = match self.try_once() {
                Ok(went) => {
                    retry = RETRY.0;
                    match went {
                        Went::Closed => return,
                        Went::On => Duration::ZERO,
                        Went::UpToDate => POLL,
                    }
                }
                // Repeating cannot help until the cause is corrected.
                Err(Refusal::Never(_)) => {
                    if !over {
                        let _ = ended.recv();
                    }
                    return;
                }
                Err(Refusal::Later(_)) => {
                    let wait = retry;
                    retry = (2 * retry).min(RETRY.1);
                    wait
                }
            };
            match ended.recv_timeout(wait) {
                // The caller waits for the last attempts: they start with the shortest delay.
                Ok(()) => (over, retry) = (true, RETRY.0),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn delivered(shared: &Mutex<Shared>, log: &Path) -> Delivered {
    let bytes = File::open(log).into_iter().flat_map(|file| BufReader::new(file).bytes());
    let there = bytes.map_while(Result::ok).filter(|&b| b == b'\n').count() as u64;
    let shared = lock(shared);
    Delivered {
        url: shared.notes.url.clone(),
        lines: shared.notes.lines,
        missing: there.saturating_sub(shared.notes.lines),
        closed: shared.notes.closed,
        trouble: shared.trouble.clone(),
        retries: shared.retries,
    }
}

/// A log that is being read while it is written.
struct Log {
    path: PathBuf,
    /// Bytes of the lines read.
    at: u64,
}

impl Log {
    /// The next whole lines, at most `most`; none if the log does not exist yet.
    fn next(&mut self, most: usize) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.at))?;
        let mut file = BufReader::new(file);
        let mut lines = Vec::new();
        while lines.len() < most {
            let mut line = String::new();
            self.at += match file.read_line(&mut line)? {
                length if line.ends_with('\n') => length as u64,
                _ => break,
            };
            line.pop();
            lines.push(line);
        }
        Ok(lines)
    }
}

/// A thread that sends a log to a server while it grows.
pub struct Exporter {
    log: PathBuf,
    shared: Arc<Mutex<Shared>>,
    end: Sender<()>,
    done: Receiver<()>,
}

impl Exporter {
    /// Starts the thread. `notes` are [`Notes::new`], or those of an earlier exporter of this log.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(
        log: &Path,
        service: Box<dyn Service>,
        mut notes: Notes,
        keep: Keep,
    ) -> io::Result<Exporter> {
        (notes.ended, notes.closed, notes.service) = (None, false, service.memory());
        let mut delivery = Delivery::new(log, service, notes, keep);
        let shared = delivery.shared.clone();
        // So that the log of a run that is killed at once can be delivered later.
        lock(&shared).keep();
        let ((end, ended), (finish, done)) = (channel(), channel());
        std::thread::Builder::new().name("exporter".into()).spawn(move || {
            delivery.work(&ended);
            let _ = finish.send(());
        })?;
        Ok(Exporter { log: log.to_path_buf(), shared, end, done })
    }

    /// Announces the end of the run and waits until everything has arrived: at most `patience`
    /// after the last arrival and ten times that in all. The rest can be sent by [`deliver`].
    pub fn finish(self, ending: Ending, time: f64, patience: Duration) -> Delivered {
        let asked = Instant::now();
        {
            let mut shared = lock(&self.shared);
            shared.notes.ended = Some((ending, time));
            shared.keep();
        }
        let _ = self.end.send(());
        while self.done.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            let since = lock(&self.shared).arrived.max(asked).elapsed();
            if since > patience || asked.elapsed() > 10 * patience {
                break;
            }
        }
        delivered(&self.shared, &self.log)
    }
}

/// Sends what has not arrived of a run that has ended. Returns when everything has arrived, or at
/// the first refusal.
///
/// `notes` are those of the run's exporter, or new ones. `ended` is used where they record no end.
pub fn deliver(
    log: &Path,
    service: Box<dyn Service>,
    mut notes: Notes,
    ended: (Ending, f64),
    keep: Keep,
) -> Delivered {
    notes.ended = notes.ended.or(Some(ended));
    notes.closed = false;
    let mut delivery = Delivery::new(log, service, notes, keep);
    while let Ok(Went::On | Went::UpToDate) = delivery.try_once() {}
    delivered(&delivery.shared, log)
}
