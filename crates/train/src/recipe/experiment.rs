//! A recipe with its data loaded and its model built: known to fit together.

use std::sync::Arc;

use halfstep_data::{DataError, Dataset, DatasetInfo, InputShape, load, nearest, printable};
use halfstep_graph::precision::Override;
use halfstep_nn::{InputSpec, Model};

use super::read::setting;
use super::{Recipe, RecipeError};
use crate::scaler::LossScale;
use crate::step::{StepSpec, train_graph};
use crate::step_options::ParameterGroup;

/// A recipe that can run: its data are loaded, its model is built, its sizes fit.
pub struct Experiment {
    /// The recipe.
    pub recipe: Recipe,
    /// The data.
    pub data: Arc<Dataset>,
    /// Shapes, counts and fingerprint of the data.
    pub info: DatasetInfo,
    /// The form of a sample.
    pub input: InputSpec,
    /// The model.
    pub model: Box<dyn Model>,
    /// Whole batches in an epoch.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub steps: u64,
}

/// What a model must take for data of this shape; `outputs` is the number of classes or tokens.
pub fn input_spec(shape: InputShape, outputs: usize) -> InputSpec {
    match shape {
        InputShape::Image { height, width, channels } => InputSpec::Image { height, width, channels },
        InputShape::Features { count } => InputSpec::Features { width: count },
        InputShape::Tokens { sequence } => InputSpec::Tokens { length: sequence, vocab: outputs },
    }
}

impl Recipe {
    /// Loads the data and builds the model.
    ///
    /// # Errors
    /// Data that cannot be used, a model that does not fit them, a batch larger than the data, a
    /// warm-up longer than the run, an override that matches nothing; with the line that is to
    /// blame.
    pub fn prepare(self) -> Result<Experiment, RecipeError> {
        let data = self.load()?;
        let info = data.info();
        self.fit(Arc::new(data), info)
    }

    /// Builds the model for data that are loaded.
    ///
    /// # Errors
    /// As [`Recipe::prepare`], but for those of the data.
    pub(crate) fn fit(self, data: Arc<Dataset>, info: DatasetInfo) -> Result<Experiment, RecipeError> {
        let input = input_spec(info.input, info.outputs);
        let batch = self.train.batch;
        let steps_per_epoch = info.steps_per_epoch(batch).map_err(|e| {
            let label = format!("expected at most {}", info.train_samples);
            self.source.wrong("train", Some("batch"), &e.to_string(), &label)
        })? as u64;
        let steps = self.train.length.steps(steps_per_epoch);
        if info.train_samples > 0 && steps / steps_per_epoch >= u64::from(u32::MAX) {
            let message = format!("a run of {steps} steps is longer than epochs can be counted");
            return Err(self.source.wrong("train", None, &message, "expected fewer epochs or steps"));
        }
        self.schedule.validate(steps).map_err(|e| {
            let error = setting("schedule", &e, &self.source);
            match e.field {
                "warmup" => error.help(format!(
                    "the run has {steps} steps: lower `warmup` to at most that, or raise `{}` of [train]",
                    self.train.length.key()
                )),
                _ => error,
            }
        })?;
        let model = self.model.build(&input, info.outputs).map_err(|e| {
            let key = e.field();
            self.source.wrong("model", key, &e.to_string(), "does not fit").help(e.hint())
        })?;
        let graph = train_graph(&StepSpec {
            model: model.as_ref(),
            input: &input,
            batch,
            optimiser: &self.optimiser,
            scaling: &LossScale::Off,
            clip: self.train.clip,
            expose_gradients: false,
        });
        let graph = graph.map_err(|e| {
            self.source.wrong("model", None, &format!("the model cannot be built: {e}"), "here")
        })?;
        let unmatched = |section, key, message: String, pattern: &str, names: &[&str]| {
            let near = nearest(pattern, names.iter().copied()).map(|n| format!("did you mean `{n}`? "));
            let help = near.unwrap_or_default() + "`halfstep explain --stage graph` prints the names";
            Err(self.source.wrong(section, Some(key), &message, "here").help(help))
        };
        let mut parts: Vec<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
        parts.dedup();
        let excepts_none = |e: &&Override| !parts.iter().any(|name| e.matches(name));
        if let Some(Override { pattern, .. }) = self.precision.overrides.iter().find(excepts_none) {
            let message = format!("the override `{pattern}` matches no part of the model");
            return unmatched("precision", "overrides", message, pattern, &parts);
        }
        let weights: Vec<&str> = graph.weights().map(|slot| graph.slot(slot).name.as_str()).collect();
        let holds_none = |g: &&ParameterGroup| !weights.iter().any(|name| g.matches(name));
        if let Some(ParameterGroup { pattern, .. }) = self.train.options.groups.iter().find(holds_none) {
            let message = format!("the group `{pattern}` matches no parameter of the model");
            return unmatched("train", "groups", message, pattern, &weights);
        }
        if weights.iter().all(|name| self.train.options.is_frozen(name)) {
            let message = "every parameter is frozen: there is nothing to train";
            return Err(self.source.wrong("train", Some("groups"), message, "here"));
        }
        Ok(Experiment { recipe: self, data, info, input, model, steps_per_epoch, steps })
    }

    /// Loads the data, with what is set aside to choose by.
    ///
    /// # Errors
    /// Data that cannot be used; too few to choose by.
    pub fn load(&self) -> Result<Dataset, RecipeError> {
        let data = load(&self.data, &self.base).map_err(|e| self.in_data(&e))?;
        let Some(fraction) = self.train.validation_fraction else { return Ok(data) };
        data.with_validation(fraction).map_err(|e| {
            let key = Some("validation_fraction");
            self.source.wrong("train", key, &e.to_string(), "too few for what is chosen")
        })
    }

    /// A mistake in the data, at the key that names the file or column it is about.
    fn in_data(&self, e: &DataError) -> RecipeError {
        let file_name = |path: &std::path::Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let key = match e {
            DataError::Spec(spec) => spec.key.as_deref(),
            DataError::MissingFile { path, .. } | DataError::Read { path, .. } => {
                file_name(path).and_then(|n| self.source.key_holding("data", &n))
            }
            DataError::UnknownColumn { column, .. } => self.source.key_holding("data", column),
            DataError::TooManyClasses { .. } => Some("target"),
            DataError::TextTooShort { .. } => Some("sequence"),
            DataError::FeatureMissing { .. } => Some("tokenizer"),
            // Most mistakes are inside the file; without one, the section is pointed at.
            _ => Some("path"),
        };
        self.source.wrong("data", key, &printable(&e.to_string()), "from here")
    }
}

impl Experiment {
    /// Other data for the same model, such as part of them.
    ///
    /// # Errors
    /// They are of another form, or too few for a batch.
    pub fn with_data(self, data: Dataset) -> Result<Experiment, RecipeError> {
        let info = data.info();
        if input_spec(info.input, info.outputs) != self.input {
            return Err(RecipeError::new(format!("the data are not {}", self.input.describe())));
        }
        let steps_per_epoch = info
            .steps_per_epoch(self.recipe.train.batch)
            .map_err(|e| RecipeError::new(e.to_string()))? as u64;
        let steps = self.recipe.train.length.steps(steps_per_epoch);
        Ok(Experiment { data: Arc::new(data), info, steps_per_epoch, steps, ..self })
    }
}
