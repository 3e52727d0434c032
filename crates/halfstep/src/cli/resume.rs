//! Which run `train` begins or goes on with.

use std::path::{Path, PathBuf};

use halfstep::train::recipe::{PlanFile, Recipe, RecipeError, TrackSettings};
use halfstep::train::run_dir::{self, RunDir, RunDirError, RunInfo};

use super::args::Train;
use super::failure::Failure;
use super::prepare;

/// What is to be done.
pub struct Task {
    /// By this recipe, with what the arguments change in it.
    pub recipe: Recipe,
    /// In this place.
    pub place: Place,
}

/// Where a run is.
pub enum Place {
    /// In a new directory of this path, or of the next free number.
    New(Option<PathBuf>),
    /// In this directory, where a run may have been killed before it had begun.
    Over(PathBuf),
    /// In this directory, which is locked for us.
    There(RunDir),
}

/// Folder of run directories.
const RUNS: &str = "runs";

impl Task {
    /// What the arguments ask for.
    pub fn of(args: &Train) -> Result<Task, Failure> {
        let given = match &args.recipe {
            Some(path) => Some(changed(prepare::recipe(Some(path))?, args)?),
            None => None,
        };
        let there = match (&args.resume, &args.out, &given) {
            (None, _, Some(_)) => None,
            (Some(Some(_)), Some(_), _) => {
                return Err(Failure::asked(
                    "two run directories are named",
                    "give --resume RUN or --out, not both",
                ));
            }
            (Some(Some(run)), None, _) => Some(run.clone()),
            (Some(None), Some(out), _) if out.join(run_dir::RECIPE).exists() => Some(out.clone()),
            (Some(None), None, Some(recipe)) => latest(recipe)?,
            (Some(None), Some(_), Some(_)) => None,
            (_, _, None) => {
                return Err(Failure::asked(
                    "neither a run nor a recipe is named",
                    "give --resume RUN, or a recipe",
                ));
            }
        };
        match (there, given) {
            (Some(path), given) => {
                let (dir, recipe) = open(&path)?;
                same(&path, &recipe, given.as_ref(), args)?;
                Ok(Task { recipe, place: Place::There(dir) })
            }
            (None, Some(recipe)) => {
                let place = match (&args.resume, &args.out) {
                    (Some(_), Some(out)) => Place::Over(out.clone()),
                    (_, out) => Place::New(out.clone()),
                };
                Ok(Task { recipe, place })
            }
            (None, None) => Err(Failure::asked("no recipe is named", "")),
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
        return Err(Failure::asked(format!("{}: there is no such run", path.display()), ""));
    }
    let readable = RunDir::open(path)?;
    let info: Result<RunInfo, RunDirError> = readable.read_json(run_dir::RUN);
    match info {
        Ok(info) if info.command == "train" => {}
        Err(e @ RunDirError::Damaged { .. }) => return Err(e.into()),
        _ => {
            let message = format!("{}: is no run of `halfstep train`", path.display());
            return Err(Failure::asked(message, "only those can be gone on with"));
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
        (Some(was), Some(now)) => format!("`{was}` has become `{now}`"),
        (Some(was), None) => format!("`{was}` is gone"),
        (None, Some(now)) => format!("`{now}` is new"),
        (None, None) => "its sections are in another order".into(),
    };
    let message = format!("{}: was begun by another recipe: {differs}", path.display());
    Err(Failure::asked(
        message,
        "leave the recipe out to go on as it was, or leave --resume out to begin anew",
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
    let entries = std::fs::read_dir(RUNS).into_iter().flatten().flatten().map(|e| e.path());
    let mut runs: Vec<(u64, PathBuf)> = entries.filter_map(|p| Some((number(&p)?, p))).collect();
    runs.sort();
    let is_it = |path: &PathBuf| {
        let there = Recipe::read(&path.join(run_dir::RECIPE)).ok().and_then(|r| what_decides(&r).ok());
        there.as_ref() == Some(&resolved) && path.join(run_dir::RUN).is_file()
    };
    Ok(runs.into_iter().rev().map(|(_, path)| path).find(is_it))
}
