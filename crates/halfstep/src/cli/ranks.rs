//! The MPI job that this process may be a rank of.
//!
//! Rank 0 reads arguments and files, prints and writes; the others follow what it tells them.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use halfstep::EngineRequest;
use halfstep::graph::communicator::{Communicator, CommunicatorError};
use halfstep::graph::engine::Engine;
use halfstep::train::metrics::{EvaluationMetrics, StepMetrics};
use halfstep::train::recipe::{Experiment, Recipe};
use halfstep::train::session::Session;
use halfstep::train::train_loop::{Callbacks, Keeping, Proceed, RunError};

use super::failure::Failure;
use super::{interrupt, prepare};

static JOB: OnceLock<Arc<Communicator>> = OnceLock::new();

/// What launchers tell their processes: Open MPI's mpirun, MPICH's and Slurm's PMI, PMIx.
const SIGNS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// Whether this process was started in an MPI job.
pub fn in_job() -> bool {
    SIGNS.iter().any(|name| std::env::var_os(name).is_some())
}

/// Joins the MPI job that this process was started in, if it was.
///
/// # Errors
/// MPI fails, or this program was built without it and would do the same work on every rank.
pub fn join() -> Result<Option<Arc<Communicator>>, Failure> {
    if !in_job() {
        return Ok(None);
    }
    let ranks = Arc::new(joined()?);
    Ok(Some(JOB.get_or_init(|| ranks).clone()))
}

#[cfg(feature = "mpi")]
fn joined() -> Result<Communicator, Failure> {
    Ok(halfstep::mpi::join()?)
}

#[cfg(not(feature = "mpi"))]
fn joined() -> Result<Communicator, Failure> {
    Err(Failure::asked(
        "this process was started as a rank of an MPI job, and this program was built without MPI",
        "build it with --features mpi, or start it by itself",
    ))
}

/// Ends this rank's part in the job: quietly if all went well, else with the job.
pub fn leave(failed: Option<i32>) {
    match (JOB.get(), failed) {
        (Some(ranks), Some(code)) => ranks.abort(code),
        (Some(ranks), None) => ranks.leave(),
        (None, _) => {}
    }
}

/// The engine for a training step that all ranks share.
pub fn engine(request: EngineRequest, ranks: Option<&Arc<Communicator>>) -> Result<Box<dyn Engine>, Failure> {
    Ok(match ranks {
        Some(ranks) => halfstep::engine_of_rank(request, ranks.clone())?,
        None => halfstep::engine(request)?,
    })
}

/// What must be the same on all ranks for their sums to mean anything.
const SAME: [&str; 4] = ["version", "engine", "fingerprint of the data", "program of a step"];

/// An error unless all ranks have the same version, engine, data and program.
pub fn agree(
    ranks: Option<&Arc<Communicator>>,
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &str,
) -> Result<(), Failure> {
    let Some(ranks) = ranks.filter(|r| r.size() > 1) else { return Ok(()) };
    let session = experiment.session(engine, policy, experiment.recipe.seed)?;
    let own = [
        env!("CARGO_PKG_VERSION").into(),
        engine.identity().to_string(),
        experiment.info.fingerprint.clone(),
        format!("{} steps", session.plan().groups.steps.len()),
    ];
    let all = ranks.gather(serde_json::to_vec(&own)?)?;
    for (rank, bytes) in all.iter().enumerate() {
        let there: [String; 4] = serde_json::from_slice(bytes)?;
        if let Some(i) = (0..SAME.len()).find(|&i| own[i] != there[i]) {
            let (what, here, there, own_rank) = (SAME[i], &own[i], &there[i], ranks.rank());
            return Err(Failure::asked(
                format!("the {what} is {here} on rank {own_rank} and {there} on rank {rank}"),
                "start the same program on machines of one kind, with the same data",
            ));
        }
    }
    Ok(())
}

/// Takes part in the training that rank 0 leads.
pub fn follow(ranks: &Arc<Communicator>, request: EngineRequest) -> Result<ExitCode, Failure> {
    let text = ranks.broadcast(Vec::new())?;
    let text = String::from_utf8(text).map_err(|e| CommunicatorError::Failed(e.to_string()))?;
    let recipe = Recipe::parse("recipe.toml", &text, Path::new("."))?;
    let (policy, seed) = (recipe.precision.policy.clone(), recipe.seed);
    let engine = engine(request, Some(ranks))?;
    let experiment = prepare::prepare(recipe)?;
    interrupt::listen(interrupt::TRAINING);
    agree(Some(ranks), &experiment, engine.as_ref(), &policy)?;
    experiment.run_with(engine.as_ref(), &policy, seed, &mut Follower, Keeping::default())?;
    // How the run ended is for rank 0 to say; a launcher takes another code for a failure and ends
    // the rest.
    Ok(ExitCode::SUCCESS)
}

/// Stops when this process is asked to.
struct Follower;

impl Callbacks for Follower {
    fn step(&mut self, _: &StepMetrics) -> Result<Proceed, RunError> {
        Ok(self.proceed())
    }
    fn evaluation(&mut self, _: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
        Ok(())
    }
    fn proceed(&self) -> Proceed {
        if interrupt::asked() { Proceed::Stop } else { Proceed::Continue }
    }
}
