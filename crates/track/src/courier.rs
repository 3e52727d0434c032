//! Sends a log to a server, beside what writes the log.
//!
//! The log is a file that grows by whole lines. A thread reads what is new in it and hands it to a [`Service`]; how many lines
//! have arrived is noted on the disk. A server that hangs, refuses or fails is asked again, ever more rarely; meanwhile the log
//! grows as it would anyway, and nothing is held in memory but one batch. What has not arrived when the run ends is sent by
//! [`deliver`], whenever the server is back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Lines in a batch. MLflow takes a thousand numbers at a time; a line has seven.
const BATCH: usize = 140;
/// How often the log is looked at.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait before a server that failed is asked again: at first, doubled each time, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// It did all it was to do.
    Finished,
    /// It failed.
    Failed,
    /// It was stopped before its end.
    Stopped,
}

/// What has been delivered, and what is needed to go on with it. Kept in a file beside the log.
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
    /// What the service has to remember.
    pub service: serde_json::Value,
}

impl Notes {
    /// Nothing delivered yet.
    pub fn new(url: &str) -> Notes {
        let service = serde_json::Value::Null;
        Notes { url: url.to_string(), lines: 0, ended: None, closed: false, service }
    }
}

/// Why a server did not take something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may take it later: it is not there, hangs, or is in trouble.
    #[error("{0}")]
    Later(String),
    /// It will not take it: something has to be mended first.
    #[error("{0}")]
    Never(String),
}

/// A server that takes a log.
pub trait Service: Send {
    /// Tells it that there is a run, once per process, before any line.
    ///
    /// # Errors
    /// It was not reached, or refuses.
    fn open(&mut self) -> Result<(), Refusal>;
    /// Takes a line, in order and from the first one on; one that has arrived earlier is not to be sent again.
    fn read(&mut self, line: &str, arrived: bool);
    /// Sends what was read since it last succeeded.
    ///
    /// # Errors
    /// It was not reached, or refuses; some of it may have arrived, and will be sent again.
    fn send(&mut self) -> Result<(), Refusal>;
    /// Tells it that the run has ended, when and how.
    ///
    /// # Errors
    /// It was not reached, or refuses.
    fn close(&mut self, ending: Ending, time: f64) -> Result<(), Refusal>;
    /// What it has to remember when it goes on in another process.
    fn memory(&self) -> serde_json::Value;
}

/// Writes notes to their file, whole or not at all.
pub type Keep = Box<dyn Fn(&Notes) -> io::Result<()> + Send>;

/// What became of a delivery.
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
    /// The last trouble there was, if it was not overcome.
    pub trouble: Option<Refusal>,
    /// Times that something had to be sent again.
    pub retries: u64,
}

impl Delivered {
    /// Whether everything has arrived.
    pub fn complete(&self) -> bool {
        self.closed && self.missing == 0
    }
}

/// What a delivery and who waits for it both see.
struct Shared {
    notes: Notes,
    keep: Keep,
    trouble: Option<Refusal>,
    retries: u64,
    /// When something arrived last.
    arrived: Instant,
}

impl Shared {
    /// A disk that does not take the notes costs only that lines are sent twice, which servers put up with.
    fn keep(&self) {
        let _ = (self.keep)(&self.notes);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far one go came.
#[derive(PartialEq)]
enum Went {
    /// There may be more.
    On,
    /// To the end of the log as it is now.
    UpToDate,
    /// To the end of the run.
    Closed,
}

/// A log on its way to a server.
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

    /// Does the next thing there is to do.
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
        // A batch that was refused is still in the service's hands.
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

    /// One go, with its result noted.
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

    /// Works until the run has ended and all has arrived, or until nobody wants it any more.
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
                // What is wrong now is wrong until somebody mends it.
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
                // The last tries come quickly: somebody waits.
                Ok(()) => (over, retry) = (true, RETRY.0),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn delivered(&self) -> Delivered {
        delivered(&self.shared, &self.log.path)
    }
}

fn delivered(shared: &Mutex<Shared>, log: &Path) -> Delivered {
    let there = std::fs::File::open(log).map_or(0, |file| count_lines(BufReader::new(file)));
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

fn count_lines(mut from: impl BufRead) -> u64 {
    let mut count = 0;
    loop {
        let length = match from.fill_buf() {
            Ok([]) | Err(_) => return count,
            Ok(bytes) => {
                count += bytes.iter().filter(|&&b| b == b'\n').count() as u64;
                bytes.len()
            }
        };
        from.consume(length);
    }
}

/// A log that is being read while it is written.
struct Log {
    path: PathBuf,
    /// Bytes of the lines read.
    at: u64,
}

impl Log {
    /// The next whole lines, at most so many. A log that is not there yet has none.
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

/// A thread that sends a log while it grows.
pub struct Courier {
    log: PathBuf,
    shared: Arc<Mutex<Shared>>,
    end: Sender<()>,
    done: Receiver<()>,
}

impl Courier {
    /// Begins. `notes` are [`Notes::new`], or those that an earlier courier of this log left.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(log: &Path, service: Box<dyn Service>, mut notes: Notes, keep: Keep) -> io::Result<Courier> {
        (notes.ended, notes.closed, notes.service) = (None, false, service.memory());
        let mut delivery = Delivery::new(log, service, notes, keep);
        let shared = delivery.shared.clone();
        // A run that is killed at once has someone to tell all the same.
        lock(&shared).keep();
        let ((end, ended), (finish, done)) = (channel(), channel());
        std::thread::Builder::new().name("courier".into()).spawn(move || {
            delivery.work(&ended);
            let _ = finish.send(());
        })?;
        Ok(Courier { log: log.to_path_buf(), shared, end, done })
    }

    /// Says that the run has ended, and waits while things arrive: no longer than `patience` after the last that did, nor
    /// than ten times as long in all. What has not arrived then can be sent by [`deliver`].
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

/// Sends what has not arrived of a run that has ended, and returns when all has, or at the first refusal.
///
/// `notes` are those that the run's courier left, or new ones; of a run that says nothing of its end, `ended` is it.
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
    delivery.delivered()
}
