//! A trained model from a run directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use halfstep::data::{Dataset, Preprocessing};
use halfstep::evidence::statements::CommandStatement;
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::graph::precision::Policy;
use halfstep::nn::{InputSpec, Model};
use halfstep::train::checkpoint::{self, Manifest};
use halfstep::train::predictor::Predictor;
use halfstep::train::probe::Weights;
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::{self, RunDir};
use halfstep::train::samples::{HeldOut, RunSamples};

use super::args::Chosen;
use super::failure::Failure;
use super::moved::recipe_of;
use super::output::Messages;
use super::prepare;

/// Name of the model that a run of `train` ends with.
pub const FINAL: &str = "final";

/// A run directory, and the checkpoint of it that was chosen.
pub struct Opened {
    /// The recipe it was trained by.
    pub recipe: Recipe,
    /// How inputs are prepared.
    pub preprocessing: Preprocessing,
    /// What the checkpoint says of itself.
    pub manifest: Manifest,
    /// The model.
    pub model: Arc<dyn Model>,
    /// The checkpoint's name.
    pub checkpoint: String,
    /// Number of classes or tokens.
    pub outputs: usize,
    /// The precision policy that will be computed with.
    pub policy: Policy,
    dir: RunDir,
}

impl Opened {
    /// Opens what the arguments name.
    pub fn open(chosen: &Chosen) -> Result<Opened, Failure> {
        let dir = RunDir::open(&chosen.run)?;
        let recipe = recipe_of(&dir)?;
        let preprocessing: Preprocessing = dir.read_json(run_dir::PREPROCESSING)?;
        let checkpoint = checkpoint_name(&dir, &recipe, chosen.checkpoint.as_deref())?;
        let manifest = checkpoint::manifest(&dir.checkpoint(&checkpoint))?;
        let outputs = match manifest.input {
            InputSpec::Tokens { vocab, .. } => vocab,
            InputSpec::Features { .. } | InputSpec::Image { .. } => preprocessing.classes().len(),
        };
        let model = recipe.model.build(&manifest.input, outputs);
        let model = model.map_err(|e| Failure::failed(format!("{}: {e}", dir.path().display())))?.into();
        let policy = match &chosen.precision {
            None => manifest.policy.clone(),
            Some(name) => {
                prepare::known_precision(name)?;
                recipe.precision.resolve(name)?.0
            }
        };
        let policy = policy.reading_f32_weights();
        Ok(Opened { recipe, preprocessing, manifest, model, checkpoint, outputs, policy, dir })
    }

    /// The model with the checkpoint's weights.
    pub fn predictor(&self, engine: Arc<dyn Engine>) -> Result<Predictor, Failure> {
        let path = self.dir.checkpoint(&self.checkpoint);
        Ok(Predictor::open(engine, self.model.clone(), &self.manifest.input, &self.policy, &path)?)
    }

    /// The file of the checkpoint's weights.
    #[cfg(feature = "serve")]
    pub fn weights_file(&self) -> PathBuf {
        self.dir.checkpoint(&self.checkpoint)
    }

    /// The checkpoint's weights.
    pub fn weights(&self) -> Result<Weights, Failure> {
        let path = self.dir.checkpoint(&self.checkpoint);
        Ok(Weights::read(self.model.as_ref(), &self.manifest.input, &path)?)
    }

    /// Which samples the run was trained on, where its directory says it.
    pub fn samples(&self) -> Result<Option<RunSamples>, Failure> {
        Ok(RunSamples::read(&self.dir)?)
    }

    /// The precision that will be computed in.
    pub fn precision(&self) -> &str {
        &self.policy.name
    }

    /// An error unless the recipe's data are of the shape the model was trained on, and their test
    /// samples were not trained on. What cannot be known is said.
    pub fn check_data(&self, data: &Dataset) -> Result<(), Failure> {
        let info = data.info();
        let now = halfstep::train::recipe::input_spec(info.input, info.outputs);
        if now != self.manifest.input || info.outputs != self.outputs {
            let message = format!(
                "the data are now {}; the model was trained on {}",
                now.describe(),
                self.manifest.input.describe()
            );
            return Err(Failure::asked(message, "the data of the recipe have changed since the run"));
        }
        let run = self.dir.path().display().to_string();
        let warn = |said: CommandStatement| Messages::Stderr.say(&format!("warning: {said}"));
        let Some(samples) = self.samples()? else {
            warn(CommandStatement::CannotBeChecked { run });
            return Ok(());
        };
        let measured = data.test.len() as u64;
        let count = units::count(measured);
        match samples.held_out(data)? {
            HeldOut::Same => Ok(()),
            HeldOut::Others => {
                warn(CommandStatement::NoneTrainedOn { run, samples: measured });
                Ok(())
            }
            HeldOut::TrainedOn(known) => Err(Failure::asked(
                format!(
                    "{run}: the test data have changed since the run, and its model was trained on {} of their {count} \
                     samples",
                    units::count(known as u64)
                ),
                "take the samples that were trained on out of the test data, or put back the data of the run",
            )),
            HeldOut::Changed => Err(Failure::asked(
                format!(
                    "{run}: the data have changed since the run, so that samples its model was trained on could be \
                     measured as test samples; nothing is measured"
                ),
                "put back the data of the run, or train anew on the data as they are; `halfstep predict` takes samples \
                 that were never trained on from a file of their own",
            )),
        }
    }
}

/// The weights of a run that would be used if none are named.
pub fn latest_checkpoint(run: &Path) -> Result<PathBuf, Failure> {
    let dir = RunDir::open(run)?;
    let recipe = Recipe::read(&dir.file(run_dir::RECIPE))?;
    Ok(dir.checkpoint(&checkpoint_name(&dir, &recipe, None)?))
}

/// The checkpoint that is asked for, or that would be used if none is named.
pub fn checkpoint_name(dir: &RunDir, recipe: &Recipe, asked: Option<&str>) -> Result<String, Failure> {
    let there = dir.checkpoints();
    let default = || {
        let of_recipe = format!("{}-seed{}", recipe.precision.policy, recipe.seed);
        let names = [FINAL.to_string(), of_recipe];
        let latest = || there.iter().filter_map(|n| Some((checkpoint::attempts_of(n)?, n))).max();
        let named = names.into_iter().find(|n| there.contains(n));
        named.or_else(|| latest().map(|(_, n)| n.clone())).or_else(|| there.first().cloned())
    };
    match asked {
        Some(name) if there.iter().any(|n| n == name) => Ok(name.to_string()),
        Some(name) => {
            let names: Vec<&str> = there.iter().map(String::as_str).collect();
            Err(Failure::unknown(
                format!("{} has no checkpoint `{name}`", dir.path().display()),
                name,
                &names,
            ))
        }
        None => default().ok_or_else(|| {
            let message =
                format!("{} has no checkpoint: its run ended before one was written", dir.path().display());
            Failure::asked(message, "run the recipe again")
        }),
    }
}
