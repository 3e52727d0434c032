//! Runs a parser on inputs that were made of others by changes. Of tests alone: what links this
//! crate has an allocator that counts.
//!
//! There is no feedback from the code that ran; an input is kept, to be changed further, if what
//! the parser says of it was not said before. As a test each target gets a thousand inputs, the
//! same ones every time. `scripts/fuzz.sh` runs them for longer.
#![allow(clippy::print_stdout)] // of tests

mod mutation;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mutation::{Draws, mutated};

/// Inputs of a target as a test.
const INPUTS: u32 = 1000;
/// No input of 64 KiB may take longer. A chain takes most: 64 signatures, without optimisation.
const SLOW: Duration = Duration::from_secs(5);
/// Most outcomes that are remembered, and so inputs that are kept.
const MOST_KEPT: usize = 4000;

/// Counts the bytes that are allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One target at a time: what is allocated is counted for all threads.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a target: `parse` says what becomes of an input, and panics where that is wrong. For no
/// input it may hold more than `memory` bytes.
///
/// # Panics
/// For an input that `parse` panics on, takes long or takes more memory; the message has it in
/// hexadecimal digits.
pub fn fuzz(name: &str, memory: usize, corpus: Vec<Vec<u8>>, parse: impl Fn(&[u8]) -> String) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let until = setting("HALFSTEP_FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let mut draws = Draws(setting("HALFSTEP_FUZZ_SEED").unwrap_or(0));
    let mut said = HashSet::new();
    let mut pool = corpus.clone();
    let (mut tries, mut most) = (0_u32, 0);
    let mut run = |input: &[u8]| {
        let (start, before) = (Instant::now(), NOW.load(Ordering::Relaxed));
        MOST.store(before, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| parse(input)));
        let held = MOST.load(Ordering::Relaxed).saturating_sub(before);
        let shown = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let outcome = outcome.unwrap_or_else(|_| panic!("{name} fails on this input: {}", shown()));
        assert!(start.elapsed() < SLOW, "{name} takes {:?} for this input: {}", start.elapsed(), shown());
        assert!(held <= memory, "{name} takes {held} bytes of memory for this input: {}", shown());
        most = most.max(held);
        // Memory stays bounded, however long this runs.
        said.len() < MOST_KEPT && said.insert(kind(&outcome))
    };
    for input in &corpus {
        run(input);
    }
    while until.map_or(tries < INPUTS, |until| Instant::now() < until) {
        let input = mutated(&pool, &mut draws);
        if run(&input) {
            pool.push(input);
        }
        tries += 1;
    }
    let kept = pool.len() - corpus.len();
    println!("{name}: {tries} inputs, {kept} of them kept, at most {} KiB of memory", most >> 10);
}

/// A message without what is particular to an input: numbers, and what is quoted.
fn kind(message: &str) -> String {
    let unquoted = message.split('`').step_by(2).collect::<Vec<_>>().join("`");
    unquoted.chars().filter(|c| !c.is_ascii_digit()).take(200).collect()
}
