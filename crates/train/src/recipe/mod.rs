//! Recipes: everything that decides a run, in one TOML file.
//!
//! | section | what it says |
//! |---|---|
//! | (top) | `name` of the run directory, `seed` |
//! | `[data]` | [`halfstep_data::DataSpec`] |
//! | `[model]` | `kind` and the fields of [`halfstep_nn::ModelSpec`] |
//! | `[optimiser]` | `kind` and the fields of [`Optimiser`] |
//! | `[schedule]` | `kind` and the fields of [`Schedule`] |
//! | `[train]` | [`TrainSettings`] |
//! | `[checkpoint]` | [`CheckpointSettings`] |
//! | `[doctor]` | [`DoctorSettings`] |
//! | `[track]` | [`TrackSettings`] |
//! | `[precision]` | [`PrecisionSettings`] |
//! | `[compare]` | [`CompareSettings`] |
//! | `[evidence]` | [`EvidenceSettings`] |
//! | `[cost]` | [`CostSettings`] |
//! | `[[ablation]]` | [`Arm`]: sections in place of those above |
//!
//! [`Recipe::read`] finds what is wrong with the text alone; [`Recipe::prepare`] loads the data,
//! builds the model and finds what does not fit together. Neither writes anything.

mod arms;
mod error;
mod evidence;
mod experiment;
mod name;
mod plan_file;
mod policy;
mod read;
mod settings;
mod source;

use std::path::{Path, PathBuf};

use halfstep_data::DataSpec;
use halfstep_nn::ModelSpec;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

pub use error::RecipeError;
pub use evidence::{EvidenceSettings, Measure};
pub use experiment::{Experiment, input_spec};
pub use name::folder_name;
pub use plan_file::PlanFile;
pub use policy::PolicySettings;
pub(crate) use policy::check_state;
pub use settings::{
    BestBy, CheckpointSettings, ClaimSetting, CompareSettings, CostSettings, DoctorSettings, Length,
    MarginText, PrecisionSettings, TrackSettings, TrainSettings, VALIDATION_FRACTION, check_url,
};

use crate::optimiser::Optimiser;
use crate::schedule::Schedule;

/// Names of the sections.
const SECTIONS: [&str; 13] = [
    "data",
    "model",
    "optimiser",
    "schedule",
    "train",
    "checkpoint",
    "doctor",
    "track",
    "precision",
    "compare",
    "evidence",
    "cost",
    "ablation",
];

/// Sections that an arm of an ablation may have whole in place of the recipe's. Of `precision` it
/// may have those of policies.
const OF_AN_ARM: [&str; 5] = ["data", "model", "optimiser", "schedule", "train"];

/// A recipe whose text is valid.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// Names the run directory, as [`folder_name`] says. By default the file's name.
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
    /// How closely its numbers are watched.
    pub doctor: DoctorSettings,
    /// Trackers that the run is sent to.
    pub track: TrackSettings,
    /// In which formats.
    pub precision: PrecisionSettings,
    /// How precisions are compared.
    pub compare: CompareSettings,
    /// What else is measured.
    pub evidence: EvidenceSettings,
    /// What runs cost.
    pub cost: CostSettings,
    /// What `compare` runs in place of this recipe alone, if there are any: the same question asked
    /// of several models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ablation: Vec<Arm>,
    /// The folder that relative paths are taken from.
    #[serde(skip)]
    pub base: PathBuf,
    /// What it was read from.
    #[serde(skip)]
    pub(crate) source: source::RecipeText,
}

/// One arm of an ablation: the recipe with sections of its own.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Its name, and that of its folder as [`folder_name`] says.
    pub name: String,
    /// The whole recipe of this arm, without an ablation.
    pub recipe: Recipe,
}

impl Serialize for Arm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Recipe { data, model, optimiser, schedule, train, precision, .. } = &self.recipe;
        let mut table = serializer.serialize_struct("Arm", 2 + OF_AN_ARM.len())?;
        table.serialize_field("name", &self.name)?;
        table.serialize_field("data", data)?;
        table.serialize_field("model", model)?;
        table.serialize_field("optimiser", optimiser)?;
        table.serialize_field("schedule", schedule)?;
        table.serialize_field("train", train)?;
        table.serialize_field("precision", &precision.of_policies)?;
        table.end()
    }
}

impl Recipe {
    /// Reads a recipe file. Relative paths in it are taken from its folder.
    ///
    /// # Errors
    /// The file cannot be read; what [`Recipe::parse`] finds.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        let text = halfstep_data::read_settings(path).map_err(|e| unreadable(path, &e))?;
        let base = path.parent().unwrap_or(Path::new("."));
        Recipe::parse(&path.display().to_string(), &text, base)
    }

    /// Reads the text of a recipe; `name` stands for it in messages, `base` is the folder of
    /// relative paths.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a wrong type, a value out of range.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Recipe, RecipeError> {
        arms::parse(name, text, base)
    }

    /// The same recipe in the precision of a plan file.
    pub fn with_plan(mut self, plan: PlanFile) -> Recipe {
        (self.precision.policy, self.precision.overrides) = (plan.policy, plan.overrides);
        self
    }

    /// The recipe as TOML with every default written out and every path absolute, so that it means
    /// the same anywhere.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn resolved(&self) -> Result<String, RecipeError> {
        let mut recipe = self.clone();
        let arms = recipe.ablation.iter_mut().map(|arm| &mut arm.recipe.data);
        let data = [&mut recipe.data].into_iter().chain(&mut recipe.evidence.foreign).chain(arms);
        for path in data.flat_map(DataSpec::paths_mut) {
            let joined = self.base.join(&*path);
            *path = std::path::absolute(&joined).unwrap_or(joined);
        }
        toml::to_string(&recipe)
            .map_err(|e| RecipeError::new(format!("the recipe cannot be written as TOML: {e}")))
    }

    /// A mistake that was found after reading, at the value of `section.key`.
    pub fn mistake(&self, section: &str, key: &str, message: &str, label: &str) -> RecipeError {
        self.source.wrong(section, Some(key), message, label)
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
