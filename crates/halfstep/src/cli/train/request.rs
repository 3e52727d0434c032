//! Which run `train` begins or resumes.

use std::path::{Path, PathBuf};

use halfstep::train::recipe::{PlanFile, Recipe, RecipeError, TrackSettings};
use halfstep::train::run_dir::{self, RunDir, RunDirError, RunInfo};

use crate::cli::args::Train;
use crate::cli::failure::Failure;
use crate::cli::{new_run, prepare};

/// What the arguments of `train` ask for.
pub struct Request {
    /// The recipe, with the changes that the arguments make.
    pub recipe: Recipe,
    /// The run directory.
    pub destination: Destination,
}

/// The run directory of a training.
pub enum Destination {
    /// A new one of this path, or of the next free number.
    New(Option<PathBuf>),
    /// A new one of this path, where a run may have been killed before it had begun.
    Over(PathBuf),
    /// That of a run to resume, locked.
    Resume(RunDir),
}

impl Request {
    /// Reads the recipe, or the one of the run to resume.
    pub fn of(args: &Train) -> Result<Request, Failure> {
        let given = match &args.recipe {
            Some(path) => Some(changed(prepare::recipe(Some(path))?, args)?),
            None => None,
        };
        let resume = |path: &Path, given: Option<Recipe>| {
            let (dir, recipe) = open(path)?;
            same(path, &recipe, given.as_ref(), args)?;
            Ok(Request { recipe, destination: Destination::Resume(dir) })
        };
        match (&args.resume, &args.out, given) {
            (Some(Some(_)), Some(_), _) => Err(Failure::asked(
                "--resume and --out name two run directories",
                "give --resume RUN or --out DIR, not both",
            )),
            (Some(Some(run)), None, given) => resume(run, given),
            (Some(None), Some(out), given) if out.join(run_dir::RECIPE).exists() => resume(out, given),
            (_, _, None) => Err(Failure::asked(
                "--resume names no run, and no recipe is given",
                "give --resume RUN, or a recipe whose latest run is to be resumed",
            )),
            (None, out, Some(recipe)) => Ok(Request { recipe, destination: Destination::New(out.clone()) }),
            (Some(None), Some(out), Some(recipe)) => {
                Ok(Request { recipe, destination: Destination::Over(out.clone()) })
            }
            (Some(None), None, Some(recipe)) => match latest(&recipe)? {
                Some(run) => resume(&run, Some(recipe)),
                None => Ok(Request { recipe, destination: Destination::New(None) }),
            },
        }
    }
}

/// The recipe with what the arguments change in it.
fn changed(mut recipe: Recipe, args: &Train) -> Result<Recipe, Failure> {
    if let Some(path) = &args.plan {
        recipe = recipe.with_plan(PlanFile::read(path)?);
    }
    if let Some(name) = &args.precision {
        prepare::known_precision(name)?;
        recipe.precision.policy.clone_from(name);
    }
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    Ok(recipe)
}

/// The run directory and its recipe.
fn open(path: &Path) -> Result<(RunDir, Recipe), Failure> {
    if !path.exists() {
        return Err(Failure::asked(format!("{}: there is no such run directory", path.display()), ""));
    }
    let readable = RunDir::open(path)?;
    let info: Result<RunInfo, RunDirError> = readable.read_json(run_dir::RUN);
    match info {
        Ok(info) if info.command == "train" => {}
        Err(e @ RunDirError::Damaged { .. }) => return Err(e.into()),
        _ => {
            let message = format!("{} is not a run of `halfstep train`", path.display());
            return Err(Failure::asked(message, "--resume takes the run directory of `halfstep train`"));
        }
    }
    let dir = RunDir::resume(path)?;
    let recipe = Recipe::read(&dir.file(run_dir::RECIPE))?;
    Ok((dir, recipe))
}

/// An error if the arguments ask for another run than the one in the directory.
fn same(path: &Path, there: &Recipe, given: Option<&Recipe>, args: &Train) -> Result<(), Failure> {
    let asked = match given {
        Some(recipe) => what_decides(recipe)?,
        None => what_decides(&changed(there.clone(), args)?)?,
    };
    let there = what_decides(there)?;
    if asked == there {
        return Ok(());
    }
    let lines = |text: &str, of: &str| -> Option<String> {
        text.lines().find(|line| !of.lines().any(|other| other == *line)).map(str::to_string)
    };
    let (was, now) = (lines(&there, &asked), lines(&asked, &there));
    let differs = match (was, now) {
        (Some(was), Some(now)) => format!("`{was}` is now `{now}`"),
        (Some(was), None) => format!("`{was}` is missing now"),
        (None, Some(now)) => format!("`{now}` is new"),
        (None, None) => "its sections are in another order".into(),
    };
    let message = format!("{}: the run was begun by another recipe: {differs}", path.display());
    Err(Failure::asked(
        message,
        "leave the recipe out to resume the run as it was, or leave --resume out to begin a new run",
    ))
}

/// The resolved recipe less what decides nothing of the run.
fn what_decides(recipe: &Recipe) -> Result<String, RecipeError> {
    let mut recipe = recipe.clone();
    recipe.track = TrackSettings::default();
    recipe.resolved()
}

/// The latest run of a recipe, by its number.
fn latest(recipe: &Recipe) -> Result<Option<PathBuf>, Failure> {
    let resolved = what_decides(recipe)?;
    let prefix = format!("{}-", recipe.name);
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok();
    let entries = std::fs::read_dir(new_run::RUNS).into_iter().flatten().flatten().map(|e| e.path());
    let mut runs: Vec<(u64, PathBuf)> = entries.filter_map(|p| Some((number(&p)?, p))).collect();
    runs.sort();
    let is_it = |path: &PathBuf| {
        let there = Recipe::read(&path.join(run_dir::RECIPE)).ok().and_then(|r| what_decides(&r).ok());
        there.as_ref() == Some(&resolved) && path.join(run_dir::RUN).is_file()
    };
    Ok(runs.into_iter().rev().map(|(_, path)| path).find(is_it))
}
