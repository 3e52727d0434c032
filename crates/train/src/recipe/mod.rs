//! Recipes: everything that decides a run, in one TOML file.
//!
//! | section | what it says |
//! |---|---|
//! | (top) | `name` of the run directory, `seed` |
//! | `[data]` | [`halfstep_data::DataTable`] |
//! | `[model]` | `kind` and the fields of [`halfstep_nn::ModelSpec`] |
//! | `[optimiser]` | `kind` and the fields of [`Optimiser`] |
//! | `[schedule]` | `kind` and the fields of [`Schedule`] |
//! | `[train]` | [`TrainSettings`] |
//! | `[checkpoint]` | [`CheckpointSettings`] |
//! | `[track]` | [`TrackSettings`] |
//! | `[precision]` | [`PrecisionSettings`] |
//! | `[compare]` | [`CompareSettings`] |
//!
//! [`Recipe::read`] finds what is wrong with the text alone; [`Recipe::prepare`] loads the data, builds the model and
//! finds what does not fit together. Neither writes anything.

mod error;
mod experiment;
mod read;
mod settings;

use std::path::{Path, PathBuf};

use halfstep_data::{DataSpec, DataTable};
use halfstep_nn::ModelSpec;
use serde::Serialize;

pub use error::RecipeError;
pub use experiment::{Experiment, input_spec};
pub use settings::{
    BestBy, CheckpointSettings, CompareSettings, Length, PrecisionSettings, TrackSettings, TrainSettings,
    check_url,
};

use crate::optimiser::Optimiser;
use crate::schedule::Schedule;

/// Names of the sections.
const SECTIONS: [&str; 9] =
    ["data", "model", "optimiser", "schedule", "train", "checkpoint", "track", "precision", "compare"];

/// A recipe whose text is valid.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// Names the run directory: letters, digits, `-`, `_` and `.`. By default the file's name.
    pub name: String,
    /// Seed of weights, batches, augmentation and dropout.
    pub seed: u64,
    /// What to train on.
    pub data: DataSpec,
    /// What to train.
    pub model: ModelSpec,
    /// How gradients become weights.
    pub optimiser: Optimiser,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// How long, and in what batches.
    pub train: TrainSettings,
    /// When checkpoints are made, and which are kept.
    pub checkpoint: CheckpointSettings,
    /// Who else is told.
    pub track: TrackSettings,
    /// In which formats.
    pub precision: PrecisionSettings,
    /// How precisions are compared.
    pub compare: CompareSettings,
    #[serde(skip)]
    base: PathBuf,
    #[serde(skip)]
    source: read::Source,
}

impl Recipe {
    /// Reads a recipe file. Relative paths in it are taken from its folder.
    ///
    /// Errors: the file cannot be read; what [`Recipe::parse`] finds.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
        let base = path.parent().unwrap_or(Path::new("."));
        Recipe::parse(&path.display().to_string(), &text, base)
    }

    /// Reads the text of a recipe; `name` stands for it in messages, `base` is the folder of relative paths.
    ///
    /// Errors: text that is not TOML, an unknown key, a wrong type, a value out of range.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Recipe, RecipeError> {
        read::parse(name, text, base)
    }

    /// The folder that relative paths are taken from.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The recipe as TOML with every default written out and every path absolute, so that it means the same anywhere.
    ///
    /// Errors: a path that is not UTF-8.
    pub fn resolved(&self) -> Result<String, RecipeError> {
        let mut recipe = self.clone();
        let mut table = DataTable::from(recipe.data);
        let paths = [
            &mut table.path,
            &mut table.test_path,
            &mut table.images,
            &mut table.labels,
            &mut table.test_images,
            &mut table.test_labels,
        ];
        for path in paths.into_iter().flatten() {
            let joined = self.base.join(&*path);
            *path = std::path::absolute(&joined).unwrap_or(joined);
        }
        recipe.data = DataSpec::try_from(table).map_err(|e| RecipeError::new(e.to_string()))?;
        toml::to_string(&recipe)
            .map_err(|e| RecipeError::new(format!("the recipe cannot be written as TOML: {e}")))
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> RecipeError {
    if e.kind() != std::io::ErrorKind::NotFound {
        return RecipeError::new(format!("{}: cannot be read: {e}", path.display()));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let wanted = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let near = halfstep_data::nearest(&wanted, names.iter().map(String::as_str));
    let help = match near {
        Some(name) => format!("did you mean `{}`?", folder.join(name).display()),
        None => "expected a recipe in TOML; `halfstep new PATH` writes one for your data".to_string(),
    };
    RecipeError::new(format!("{}: no such file", path.display())).help(help)
}

#[cfg(test)]
mod tests;
