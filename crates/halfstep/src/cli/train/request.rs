//! Which run `train` begins or resumes.

use std::path::{Path, PathBuf};

use halfstep::train::checkpoint::{Latest, Rejected};
use halfstep::train::recipe::{Length, PlanFile, Recipe, RecipeError, TrackSettings, folder_name};
use halfstep::train::run_dir::{self, RunDir, RunDirError, RunInfo};

use crate::cli::args::Train;
use crate::cli::failure::Failure;
use crate::cli::moved::recipe_of;
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
    Resume(Box<Resumed>),
}

/// A run to resume.
pub struct Resumed {
    /// Its directory, locked.
    pub dir: RunDir,
    /// The checkpoint to resume from; none before the first.
    pub latest: Option<Latest>,
    /// Checkpoints that cannot be used.
    pub rejected: Vec<Rejected>,
}

impl Resumed {
    fn of(dir: RunDir) -> Resumed {
        let (latest, rejected) = Latest::find(&dir);
        Resumed { dir, latest, rejected }
    }
}

impl Destination {
    /// The name of the engine that a run to resume has computed with.
    pub fn engine(&self) -> Option<&str> {
        match self {
            Destination::Resume(resumed) => Some(&resumed.latest.as_ref()?.state.engine),
            Destination::New(_) | Destination::Over(_) => None,
        }
    }
}

impl Request {
    /// Reads the recipe, or the one of the run to resume.
    pub fn of(args: &Train) -> Result<Request, Failure> {
        let given = match (&args.recipe, &args.resume) {
            (None, Some(_)) => None,
            (path, _) => Some(changed(prepare::own_recipe(path.as_deref(), "train")?, args)?),
        };
        let resume = |path: &Path, given: Option<Recipe>| {
            let (dir, mut there) = open(path)?;
            let mut asked = match given {
                Some(recipe) => recipe,
                None => changed(there.clone(), args)?,
            };
            // An older version set no validation data aside, and kept the best by the test data.
            if !dir.file(run_dir::SAMPLES).is_file() {
                (there.train.validation_fraction, asked.train.validation_fraction) = (None, None);
                asked.checkpoint.keep_best = there.checkpoint.keep_best;
            }
            let recipe = resumed(path, &dir, there, &asked)?;
            Ok(Request { recipe, destination: Destination::Resume(Box::new(Resumed::of(dir))) })
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
    let recipe = recipe_of(&dir)?;
    Ok((dir, recipe))
}

/// What a recipe is to the run in a directory.
enum Relation {
    Same,
    /// The same run, for longer.
    Longer(Length),
    /// The same for longer, but the rates of the steps so far depend on the length.
    OtherRates,
    Other {
        differs: String,
    },
}

impl Relation {
    fn of(there: &Recipe, asked: &Recipe) -> Result<Relation, RecipeError> {
        let (was, now) = (what_decides(there)?, what_decides(asked)?);
        if was == now {
            return Ok(Relation::Same);
        }
        let length = asked.train.length;
        let longer = match (there.train.length, length) {
            (Length::Steps(was), Length::Steps(now)) | (Length::Epochs(was), Length::Epochs(now)) => {
                now > was
            }
            (Length::Steps(_), Length::Epochs(_)) | (Length::Epochs(_), Length::Steps(_)) => false,
        };
        if longer && what_decides(&lengthened(there, length))? == now {
            let depends = there.schedule.depends_on_length();
            return Ok(if depends { Relation::OtherRates } else { Relation::Longer(length) });
        }
        let line = |text: &str, of: &str| -> Option<String> {
            text.lines().find(|line| !of.lines().any(|other| other == *line)).map(str::to_string)
        };
        let differs = match (line(&was, &now), line(&now, &was)) {
            (Some(was), Some(now)) => format!("`{was}` is now `{now}`"),
            (Some(was), None) => format!("`{was}` is missing now"),
            (None, Some(now)) => format!("`{now}` is new"),
            (None, None) => "its sections are in another order".into(),
        };
        Ok(Relation::Other { differs })
    }
}

fn lengthened(recipe: &Recipe, length: Length) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.train.length = length;
    recipe
}

/// The recipe to resume the run in a directory by, which may ask for more steps; an error if the
/// arguments ask for another run.
fn resumed(path: &Path, dir: &RunDir, there: Recipe, asked: &Recipe) -> Result<Recipe, Failure> {
    let run = path.display();
    match Relation::of(&there, asked)? {
        Relation::Same => Ok(there),
        Relation::Longer(length) => {
            // As it is in the directory, where paths may be those before it was moved.
            let kept = Recipe::read(&dir.file(run_dir::RECIPE))?;
            dir.write(run_dir::RECIPE, lengthened(&kept, length).resolved()?.as_bytes())?;
            Ok(lengthened(&there, length))
        }
        Relation::OtherRates => Err(Failure::asked(
            format!(
                "{run}: cannot be resumed for longer: with the schedule \"{}\" the rate of every step, also of those \
                 that were done, depends on the length of the run",
                there.schedule.kind()
            ),
            format!("begin a new run with its weights: `halfstep train RECIPE --from {run}`"),
        )),
        Relation::Other { differs } => Err(Failure::asked(
            format!("{run}: the run was begun by another recipe: {differs}"),
            format!(
                "leave the recipe out to resume the run as it was, or leave --resume out to begin a new run, with \
                 `--from {run}` with its weights"
            ),
        )),
    }
}

/// The resolved recipe less what decides nothing of the run.
fn what_decides(recipe: &Recipe) -> Result<String, RecipeError> {
    let mut recipe = recipe.clone();
    recipe.track = TrackSettings::default();
    recipe.name.clear();
    recipe.resolved()
}

/// The latest run of a recipe, by its number.
fn latest(recipe: &Recipe) -> Result<Option<PathBuf>, Failure> {
    let prefix = format!("{}-", folder_name(&recipe.name));
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok();
    let entries = std::fs::read_dir(new_run::RUNS).into_iter().flatten().flatten().map(|e| e.path());
    let mut runs: Vec<(u64, PathBuf)> = entries.filter_map(|p| Some((number(&p)?, p))).collect();
    runs.sort();
    let relation = |path: &PathBuf| {
        let there = Recipe::read(&path.join(run_dir::RECIPE)).ok()?;
        path.join(run_dir::RUN).is_file().then(|| Relation::of(&there, recipe).ok()).flatten()
    };
    runs.reverse();
    let same = runs.iter().find(|(_, path)| matches!(relation(path), Some(Relation::Same)));
    let longer = |(_, path): &&(u64, PathBuf)| {
        matches!(relation(path), Some(Relation::Longer(_) | Relation::OtherRates))
    };
    Ok(same.or_else(|| runs.iter().find(longer)).map(|(_, path)| path.clone()))
}
