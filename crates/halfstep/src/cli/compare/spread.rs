//! The runs of a comparison spread over the ranks of an MPI job. All ranks reach one cache, to
//! which each adds its runs; rank 0 then finds them there and does the rest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use halfstep::EngineRequest;
use halfstep::graph::communicator::{Communicator, CommunicatorError};
use halfstep::graph::engine::Engine;
use halfstep::train::recipe::Recipe;

use super::cache::Cache;
use super::{Arm, Common, obtain, recipes_of_arms, setup};
use crate::cli::args::Compare;
use crate::cli::failure::Failure;
use crate::cli::output::Messages;
use crate::cli::{interrupt, prepare};

/// Makes this rank's runs of every arm.
pub fn help(
    args: &Compare,
    recipe: Recipe,
    engine: &dyn Engine,
    request: EngineRequest,
    ranks: &Arc<Communicator>,
) -> Result<ExitCode, Failure> {
    let folder = String::from_utf8(ranks.broadcast(Vec::new())?);
    let folder = folder.map_err(|e| CommunicatorError::Failed(e.to_string()))?;
    let cache = Cache::at(PathBuf::from(folder), engine.identity())?;
    interrupt::listen(interrupt::TRAINING);
    let (jobs, ranks) = (args.jobs, Some(ranks));
    let common = Common { engine, cache: &cache, request, jobs, ranks, messages: Messages::Quiet };
    for (name, recipe) in recipes_of_arms(recipe) {
        let experiment = prepare::prepare(recipe)?;
        let arm = Arm { name, experiment, dir: None };
        let setup = setup(&arm, engine)?;
        obtain(&arm, &setup, &common)?;
        if stops(ranks)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether any rank was asked to stop: all of them stop then.
pub fn stops(ranks: Option<&Arc<Communicator>>) -> Result<bool, Failure> {
    Ok(match ranks {
        Some(ranks) => ranks.any(interrupt::asked())?,
        None => interrupt::asked(),
    })
}
