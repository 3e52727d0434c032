//! What the driver knows: GPUs, contexts, memory, modules, streams, events and graphs.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cubin::Cubin;
use crate::graph::Graph;
use crate::settings::Settings;
use crate::work::Work;

/// `CUresult`, of what fails.
pub(crate) type Status = u32;
pub(crate) const INVALID_VALUE: Status = 1;
pub(crate) const OUT_OF_MEMORY: Status = 2;
pub(crate) const NOT_INITIALIZED: Status = 3;
pub(crate) const NO_DEVICE: Status = 100;
pub(crate) const INVALID_DEVICE: Status = 101;
pub(crate) const INVALID_IMAGE: Status = 200;
pub(crate) const INVALID_CONTEXT: Status = 201;
pub(crate) const NO_BINARY_FOR_GPU: Status = 209;
pub(crate) const INVALID_HANDLE: Status = 400;
pub(crate) const NOT_FOUND: Status = 500;
pub(crate) const NOT_READY: Status = 600;
pub(crate) const ILLEGAL_ADDRESS: Status = 700;
pub(crate) const UNKNOWN: Status = 999;

/// Names and words of errors, as the driver has them.
pub(crate) const ERRORS: [(Status, &std::ffi::CStr, &std::ffi::CStr); 17] = [
    (0, c"CUDA_SUCCESS", c"no error"),
    (INVALID_VALUE, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (OUT_OF_MEMORY, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (NOT_INITIALIZED, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (NO_DEVICE, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (INVALID_DEVICE, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (INVALID_IMAGE, c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid"),
    (INVALID_CONTEXT, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (
        NO_BINARY_FOR_GPU,
        c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        c"no kernel image is available for execution on the device",
    ),
    (
        222,
        c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        c"the provided PTX was compiled with an unsupported toolchain.",
    ),
    (INVALID_HANDLE, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (NOT_FOUND, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (NOT_READY, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (ILLEGAL_ADDRESS, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered"),
    (
        803,
        c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        c"system has unsupported display driver / cuda driver combination",
    ),
    (
        804,
        c"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        c"forward compatibility was attempted on non supported HW",
    ),
    (UNKNOWN, c"CUDA_ERROR_UNKNOWN", c"unknown error"),
];

/// A kernel of a module.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) module: usize,
    pub(crate) name: String,
    pub(crate) parameter_bytes: usize,
    /// Dynamic shared memory that it may have.
    pub(crate) shared_bytes: u32,
}

/// Where an event was put last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Event {
    /// Counts how often it was put somewhere: only the last time counts.
    pub(crate) recorded: u64,
    /// The stream it waits in; none once it has passed.
    pub(crate) stream: Option<usize>,
    /// When it passed.
    pub(crate) time: u64,
}

/// Everything.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) initialised: bool,
    /// What failed on the GPU: every later call returns it.
    pub(crate) failed: Option<Status>,
    handles: usize,
    pub(crate) allocations: u64,
    pub(crate) kernels: u64,
    /// How much work was done.
    pub(crate) clock: u64,
    /// When each of the graphs that may run at a time has ended, of settings that give them a time.
    ends: Vec<Instant>,
    /// When what the call under way waits for has ended.
    pub(crate) wait_until: Option<Instant>,
    /// How often the context of a GPU is retained, by GPU.
    pub(crate) retained: BTreeMap<i32, u32>,
    pub(crate) memory: BTreeMap<u64, Vec<u8>>,
    next_address: u64,
    /// Bytes of pinned memory by its address.
    pub(crate) pinned: BTreeMap<usize, usize>,
    pub(crate) modules: BTreeMap<usize, Cubin>,
    pub(crate) functions: BTreeMap<usize, Function>,
    /// What each stream has to do. 0 is the one that is meant where none is named.
    pub(crate) streams: BTreeMap<usize, VecDeque<Work>>,
    pub(crate) events: BTreeMap<usize, Event>,
    pub(crate) graphs: BTreeMap<usize, Graph>,
    pub(crate) executables: BTreeMap<usize, Arc<Graph>>,
    line: String,
}

thread_local! {
    /// The GPU whose context is current in this thread.
    pub(crate) static CURRENT: Cell<Option<i32>> = const { Cell::new(None) };
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

pub(crate) fn lock() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(settings: Settings) -> State {
        State { settings, next_address: 0x7f00_0000_0000, ..State::default() }
    }

    /// A handle that is not zero and was not given before.
    pub(crate) fn handle(&mut self) -> usize {
        self.handles += 1;
        0x1000 + 16 * self.handles
    }

    /// Runs a graph for its time, behind those that leave it no place.
    pub(crate) fn take_time(&mut self) {
        if self.settings.graph_ms == 0 {
            return;
        }
        let now = Instant::now();
        self.ends.resize(self.settings.graphs_at_once, now);
        let first = self.ends.iter_mut().min();
        self.wait_until = first.map(|end| {
            *end = now.max(*end) + Duration::from_millis(self.settings.graph_ms);
            *end
        });
    }

    /// Adds to the line of the call in the log.
    pub(crate) fn say(&mut self, what: impl std::fmt::Display) {
        let _ = write!(self.line, " {what}");
    }

    /// Notes that something was done wrong.
    pub(crate) fn problem(&mut self, what: impl std::fmt::Display) {
        self.write(&format!("PROBLEM {what}"));
    }

    pub(crate) fn end_line(&mut self, function: &str, status: Status) {
        let details = std::mem::take(&mut self.line);
        let result = if status == 0 { String::new() } else { format!(" -> {status}") };
        self.write(&format!("{function}{details}{result}"));
    }

    fn write(&self, line: &str) {
        let Some(path) = &self.settings.log else { return };
        let file = std::fs::File::options().create(true).append(true).open(path);
        // A log that cannot be written has no lines, which tests notice.
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }

    /// GPUs as `CUDA_VISIBLE_DEVICES` leaves them, as far as it names numbers.
    pub(crate) fn visible(&self) -> Vec<u32> {
        let all = 0..self.settings.devices;
        match std::env::var("CUDA_VISIBLE_DEVICES") {
            Err(_) => all.collect(),
            // The list ends at the first that is none.
            Ok(list) => list.split(',').map_while(|n| n.parse().ok()).filter(|n| all.contains(n)).collect(),
        }
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.memory.values().map(Vec::len).sum()
    }

    /// Counts an allocation, and fails where it is the one that is to fail.
    pub(crate) fn count_allocation(&mut self) -> Result<(), Status> {
        self.allocations += 1;
        if self.settings.no_memory == Some(self.allocations) { Err(OUT_OF_MEMORY) } else { Ok(()) }
    }

    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<u64, Status> {
        self.count_allocation()?;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        if self.used_bytes() + bytes > self.settings.memory {
            return Err(OUT_OF_MEMORY);
        }
        let address = self.next_address;
        // With a gap, so that what runs over the end is in no other allocation.
        self.next_address += (bytes as u64).next_multiple_of(512) + 512;
        // Not zero: nothing is before it was written.
        self.memory.insert(address, vec![0xcd; bytes]);
        Ok(address)
    }

    /// These bytes of device memory, if they are in one allocation.
    pub(crate) fn bytes(&mut self, address: u64, bytes: usize) -> Option<&mut [u8]> {
        let (first, all) = self.memory.range_mut(..=address).next_back()?;
        let offset = (address - first) as usize;
        all.get_mut(offset..offset.checked_add(bytes)?)
    }

    /// Names what is left when the last context is released.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.memory.iter().map(|(a, m)| format!("{} bytes of device memory at {a:#x}", m.len())));
        left.extend(self.pinned.values().map(|bytes| format!("{bytes} bytes of pinned memory")));
        let mut count = |n: usize, what: &str| {
            if n > 0 {
                left.push(format!("{n} {what}"));
            }
        };
        count(self.modules.len(), "modules");
        count(self.streams.keys().filter(|s| **s != 0).count(), "streams");
        count(self.events.len(), "events");
        count(self.graphs.len(), "graphs");
        count(self.executables.len(), "instantiated graphs");
        left
    }
}
