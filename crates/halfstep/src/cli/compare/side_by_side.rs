//! Whether runs go faster one after another on all threads, or several side by side on a share of
//! them each.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use halfstep::data::{Batch, Sampler};
use halfstep::graph::engine::Engine;
use halfstep::train::checkpoint::host_slice;
use halfstep::train::recipe::Experiment;
use halfstep::train::session::TrainError;
use halfstep::{DeviceRequest, EngineRequest};

use crate::cli::failure::Failure;
use crate::cli::{interrupt, memory};

/// How much faster side by side must be: times of steps are then those of a share of the machine.
const WORTH: f64 = 1.1;
/// Time to measure for.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

/// How runs are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Runs at a time.
    pub workers: NonZeroUsize,
    /// Threads of each.
    pub threads: NonZeroUsize,
    /// Why.
    pub why: String,
}

/// Chooses for runs in these precisions, which share what is asked for: as asked for by `jobs`, or
/// by measuring both ways on a few steps of the first.
pub fn choose(
    experiment: &Experiment,
    policies: &[&str],
    request: EngineRequest,
    jobs: Option<NonZeroUsize>,
) -> Result<Choice, Failure> {
    let choice = |workers: NonZeroUsize, why: String| {
        let threads = request.shared_among(workers).threads();
        Choice { workers, threads, why }
    };
    let one = |why: &str| choice(NonZeroUsize::MIN, why.into());
    let at_most =
        |most: NonZeroUsize| most.min(NonZeroUsize::new(policies.len()).unwrap_or(NonZeroUsize::MIN));
    if let Some(jobs) = jobs {
        return Ok(choice(at_most(jobs), "as --jobs asks".into()));
    }
    let most = match request.device {
        // On a GPU a second run fills what one leaves idle between its kernels.
        DeviceRequest::Gpu(_) => NonZeroUsize::MIN.saturating_add(1),
        _ => request.threads(),
    };
    let workers = at_most(most);
    if workers == NonZeroUsize::MIN {
        return Ok(one("there is nothing to share out"));
    }
    if !fit(experiment, policies, workers, request)? {
        return Ok(one("memory is short for more at a time"));
    }
    let together = match steps_per_second(experiment, policies[0], workers, request) {
        Ok(steps) => steps,
        Err(failure) => return Ok(one(&format!("{workers} at a time fail: {}", failure.message()))),
    };
    let alone = steps_per_second(experiment, policies[0], NonZeroUsize::MIN, request)?;
    let ratio = together / alone;
    Ok(if ratio >= WORTH {
        choice(
            workers,
            format!("they were measured to do {ratio:.2}× as many steps a second as one after another"),
        )
    } else {
        one(&format!("{workers} were measured to do {ratio:.2}× as many steps a second"))
    })
}

/// Whether so many runs at a time fit, whichever of these precisions they are in: each within its
/// share of what may be taken, and all within what is free, with a tenth of it to spare for what is
/// not planned, as their data and the code of kernels. Where an engine does not say how much is
/// free, they do.
fn fit(
    experiment: &Experiment,
    policies: &[&str],
    workers: NonZeroUsize,
    request: EngineRequest,
) -> Result<bool, Failure> {
    let shared = request.shared_among(workers);
    let engine = halfstep::engine(shared)?;
    let mut need = 0;
    for policy in BTreeSet::from_iter(policies) {
        need = need.max(memory::total(experiment, engine.as_ref(), policy)?);
    }
    let own = engine.free_memory();
    let all = match shared.device_memory {
        None => own.clone(),
        Some(_) => halfstep::engine(EngineRequest { device_memory: None, ..shared })?.free_memory(),
    };
    let fits = own.is_none_or(|free| need <= free.bytes);
    Ok(fits && all.is_none_or(|free| need.saturating_mul(workers.get()) <= free.bytes / 10 * 9))
}

/// Steps of all workers together, which share what is asked for, on a first batch, after one step
/// each to warm up.
pub fn steps_per_second(
    experiment: &Experiment,
    policy: &str,
    workers: NonZeroUsize,
    request: EngineRequest,
) -> Result<f64, Failure> {
    let batch_size = experiment.recipe.train.batch;
    let mut sampler = Sampler::new(experiment.info.train_samples, batch_size, experiment.recipe.seed)?;
    let mut batch = Batch::new(experiment.info.input, batch_size);
    let (draw, indices) = sampler.batch(0);
    experiment.data.train.fill_batch(indices, draw, &mut batch)?;
    let (ready, batch, request) = (Barrier::new(workers.get()), &batch, request.shared_among(workers));
    let worker = || -> Result<f64, Failure> {
        // Every worker comes to the barrier, or the others would wait forever.
        let engine = halfstep::engine(request);
        let session = engine.as_ref().ok().map(|engine| {
            let mut session = experiment.session(engine.as_ref(), policy, experiment.recipe.seed)?;
            step(&mut session, batch)?;
            Ok::<_, Failure>(session)
        });
        ready.wait();
        let Some(session) = session else {
            return Err(engine.err().map_or_else(|| Failure::failed("no engine"), Failure::from));
        };
        let mut session = session?;
        let (begun, mut steps) = (Instant::now(), 0.0);
        while steps < 2.0 || begun.elapsed() < LONG_ENOUGH {
            step(&mut session, batch)?;
            steps += 1.0;
        }
        Ok(steps / begun.elapsed().as_secs_f64())
    };
    side_by_side(workers, worker).into_iter().sum()
}

/// What `worker` gives on each of so many threads.
fn side_by_side<R: Send>(workers: NonZeroUsize, worker: impl Fn() -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers.get()).map(|_| scope.spawn(&worker)).collect();
        handles.into_iter().map(|h| h.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

fn step(session: &mut halfstep::train::session::Session<'_>, batch: &Batch) -> Result<(), Failure> {
    match session.step(host_slice(&batch.x), &batch.labels, 0.0) {
        // The run itself will tell.
        Ok(_) | Err(TrainError::Diverged { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Does all of `tasks` as `choice` says, with the engine that each is given, and calls `done` after
/// each. Results are in the order of the tasks; those behind an interruption are left out.
pub fn run_all<T: Sync, R: Send>(
    tasks: &[T],
    choice: &Choice,
    request: EngineRequest,
    work: &(dyn Fn(&T, &dyn Engine) -> Result<R, Failure> + Sync),
    done: &(dyn Fn(&R) + Sync),
) -> Result<Vec<R>, Failure> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let worker = || -> Result<(), Failure> {
        let engine = halfstep::engine(request.shared_among(choice.workers))?;
        while !interrupt::asked() {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(i) else { break };
            let result = work(task, engine.as_ref());
            if result.is_err() {
                // The others end after what they are doing.
                next.store(tasks.len(), Ordering::Relaxed);
            }
            let result = result?;
            done(&result);
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
        Ok(())
    };
    if choice.workers == NonZeroUsize::MIN {
        worker()?;
    } else {
        side_by_side(choice.workers, worker).into_iter().collect::<Result<(), Failure>>()?;
    }
    Ok(results.into_iter().filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}
