//! Persistent worker threads that share out the chunks of one computation at a time.
//!
//! Chunks are handed out by an atomic counter, so a thread that the operating system has set aside
//! holds up only the chunk it has begun: the others take the rest, and the caller waits for nobody
//! who did not join. What a chunk computes must not depend on which worker computes it; then
//! results do not depend on the number of threads.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The computation of a chunk: (worker, chunk).
type Task = dyn Fn(usize, usize) + Sync;

/// How long an idle worker watches for work before it sleeps. About what waking a sleeping thread
/// costs, so that at worst the wait doubles.
const SPIN: Duration = Duration::from_micros(40);

// The state word: how many workers have joined (low bits), two flags, and the number of the
// computation.
const JOINED: u64 = (1 << 30) - 1;
const CALLER_SLEEPS: u64 = 1 << 30;
const OPEN: u64 = 1 << 31;
const EPOCH: u64 = 1 << 32;

/// A fixed set of worker threads. The thread that calls [`Pool::for_each`] is worker 0.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    busy: AtomicBool,
}

struct Shared {
    state: AtomicU64,
    next: AtomicUsize,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    lock: Mutex<()>,
    /// Workers wait here for a computation.
    work: Condvar,
    /// The caller waits here for the last worker.
    done: Condvar,
    spin: Duration,
}

#[derive(Clone, Copy)]
struct Job {
    task: Option<*const Task>,
    chunks: usize,
}

// SAFETY: `job` is written only while no worker has joined and none can (the state is not OPEN),
// and read only between joining and leaving; the state's atomic operations order the two. The task
// it points to is Sync, and the caller keeps it alive until every worker that joined has left.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer is never used outside that protocol.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of ours panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads, the caller included: `threads` − 1 are started.
    ///
    /// Where the operating system refuses to start one, the pool has as many as could be started.
    pub fn new(threads: NonZeroUsize) -> Pool {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { task: None, chunks: 0 }),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            work: Condvar::new(),
            done: Condvar::new(),
            // With more threads than cores a spinning thread keeps a working one from running.
            spin: if threads.get() > cores { Duration::ZERO } else { SPIN },
        });
        let workers = (1..threads.get())
            .map_while(|worker| {
                let shared = Arc::clone(&shared);
                let name = format!("halfstep-{worker}");
                std::thread::Builder::new().name(name).spawn(move || shared.work(worker)).ok()
            })
            .collect();
        Pool { shared, workers, busy: AtomicBool::new(false) }
    }

    /// The number of threads, the caller's included. Worker numbers are below it.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(worker, chunk)` once for each chunk in 0 .. `chunks`, and returns when all are
    /// done.
    ///
    /// Within one call no two threads have the same worker number at the same time, so it may index
    /// scratch memory. Nothing is allocated. A call from inside `f`, or from a second thread while
    /// a computation runs, is correct but runs alone on its caller, as worker 0.
    ///
    /// # Panics
    /// If `f` panics: chunks that have not begun are dropped, and the first panic is passed on to
    /// the caller.
    pub fn for_each(&self, chunks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let alone = self.workers.is_empty() || chunks <= 1;
        if alone || self.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            for chunk in 0..chunks {
                f(0, chunk);
            }
            return;
        }
        let result = self.shared.run(chunks, f);
        self.busy.store(false, Ordering::Release);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.lock));
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker cannot panic: tasks are caught, and what they threw went to the caller.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The caller's side of one computation. Only one thread at a time is in here.
    fn run(&self, chunks: usize, f: &(dyn Fn(usize, usize) + Sync)) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: only the lifetime changes. No worker uses the pointer after it has left, and this
        // function does not return before all that joined have left.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static Task>(f) };
        // SAFETY: the state is not OPEN and nobody has joined, so no other thread reads the job.
        unsafe { *self.job.get() = Job { task: Some(task), chunks } };
        self.next.store(0, Ordering::Relaxed);
        let epoch = self.state.load(Ordering::Relaxed).wrapping_add(EPOCH) & !(EPOCH - 1);
        self.state.store(epoch | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.lock));
            self.work.notify_all();
        }
        self.take_chunks(0, Job { task: Some(task), chunks });
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        self.wait_until_left();
        match lock(&self.panic).take() {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }

    fn wait_until_left(&self) {
        let left = || self.state.load(Ordering::Acquire) & JOINED == 0;
        if spin_until(self.spin, left) {
            return;
        }
        let mut guard = lock(&self.lock);
        self.state.fetch_or(CALLER_SLEEPS, Ordering::SeqCst);
        while !left() {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.state.fetch_and(!CALLER_SLEEPS, Ordering::SeqCst);
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        while let Some(job) = self.join(&mut seen) {
            self.take_chunks(worker, job);
            let before = self.state.fetch_sub(1, Ordering::SeqCst);
            if before & CALLER_SLEEPS != 0 && before & JOINED == 1 {
                drop(lock(&self.lock));
                self.done.notify_all();
            }
        }
    }

    /// Waits for a computation other than number `seen` and joins it; `None` when the pool ends.
    fn join(&self, seen: &mut u64) -> Option<Job> {
        let ready = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && state / EPOCH != *seen) || self.stop.load(Ordering::SeqCst)
        };
        loop {
            if !spin_until(self.spin, ready) {
                let mut guard = lock(&self.lock);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !ready() {
                    guard = self.work.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            let state = self.state.load(Ordering::SeqCst);
            if state & OPEN == 0 || state / EPOCH == *seen {
                continue;
            }
            if self.state.compare_exchange_weak(state, state + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                *seen = state / EPOCH;
                // SAFETY: this thread has joined an open computation, so the caller does not write
                // the job until this thread has left.
                return Some(unsafe { *self.job.get() });
            }
        }
    }

    fn take_chunks(&self, worker: usize, job: Job) {
        let Some(task) = job.task else { return };
        // SAFETY: the caller keeps the task alive until every thread that joined has left.
        let task = unsafe { &*task };
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let chunk = self.next.fetch_add(1, Ordering::Relaxed);
                if chunk >= job.chunks {
                    break;
                }
                task(worker, chunk);
            }
        }));
        if let Err(panic) = result {
            self.next.store(job.chunks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// Watches for `ready` for about `limit`; whether it came.
fn spin_until(limit: Duration, ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    if limit.is_zero() {
        return false;
    }
    let begin = Instant::now();
    loop {
        for _ in 0..32 {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        if begin.elapsed() > limit {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap())
    }

    #[test]
    fn every_chunk_runs_once() {
        for threads in 1..=5 {
            let pool = pool(threads);
            for chunks in [0, 1, 2, 3, 7, 100, 1000] {
                let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(chunks, &|worker, chunk| {
                    assert!(worker < threads);
                    counts[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts.iter().all(|c| c.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {chunks} chunks"
                );
            }
        }
    }

    #[test]
    fn no_two_threads_share_a_worker_number() {
        let pool = pool(4);
        let inside: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..200 {
            pool.for_each(64, &|worker, _| {
                assert_eq!(inside[worker].fetch_add(1, Ordering::SeqCst), 0);
                std::hint::spin_loop();
                inside[worker].fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// More threads than cores: each call must still end soon, although most workers do not run.
    #[test]
    fn progress_with_more_threads_than_cores() {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let pool = pool(4 * cores + 1);
        let total = AtomicUsize::new(0);
        for _ in 0..2000 {
            pool.for_each(9, &|_, _| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(total.load(Ordering::Relaxed), 18_000);
    }

    /// A worker stuck in a chunk does not keep the others from the chunks that nobody has begun.
    #[test]
    fn others_take_what_a_stuck_worker_has_not_begun() {
        let pool = pool(2);
        let finished = AtomicUsize::new(0);
        pool.for_each(10, &|_, chunk| {
            if chunk == 0 {
                while finished.load(Ordering::Acquire) < 9 {
                    std::thread::yield_now();
                }
            } else {
                finished.fetch_add(1, Ordering::Release);
            }
        });
        assert_eq!(finished.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = pool(3);
        for bad in [0, 5, 49] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each(50, &|_, chunk| assert_ne!(chunk, bad, "chunk {chunk} fails"));
            }));
            let message = result.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("chunk {bad} fails")));
            let sum = AtomicUsize::new(0);
            pool.for_each(50, &|_, chunk| {
                sum.fetch_add(chunk, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 49 * 25);
        }
    }

    #[test]
    fn nested_and_concurrent_calls_run_alone() {
        let pool = pool(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.for_each(4, &|_, _| {
                            pool.for_each(3, &|worker, _| {
                                assert_eq!(worker, 0);
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3600);
    }
}
