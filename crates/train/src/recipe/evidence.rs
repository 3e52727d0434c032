//! The `[evidence]` section: what else is measured of trained models, and how hard.

use halfstep_data::DataSpec;
use serde::{Deserialize, Serialize};

use crate::setting::{SettingError, require};

/// Something to measure of a trained model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// The same weights computed in every precision, layer by layer.
    Mismatch,
    /// Accuracy and flips by group.
    Groups,
    /// Weights stored in ever smaller formats.
    Ladder,
    /// Telling foreign samples from own ones.
    Foreign,
    /// Errors on spoilt images.
    Corruptions,
    /// Accuracy under attack.
    Attacks,
    /// Answers on trigger inputs.
    Trigger,
    /// A backdoor planted on purpose, and its removal: trains twice.
    Backdoor,
}

impl Measure {
    /// All, with their names in a recipe and on the command line, in the order of tables.
    pub const NAMED: [(Measure, &'static str); 8] = [
        (Measure::Mismatch, "mismatch"),
        (Measure::Groups, "groups"),
        (Measure::Ladder, "ladder"),
        (Measure::Foreign, "foreign"),
        (Measure::Corruptions, "corruptions"),
        (Measure::Attacks, "attacks"),
        (Measure::Trigger, "trigger"),
        (Measure::Backdoor, "backdoor"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Measure::NAMED.iter().find(|(measure, _)| *measure == self).map_or("", |(_, name)| name)
    }

    /// The measure of a name.
    pub fn from_name(name: &str) -> Option<Measure> {
        Measure::NAMED.into_iter().find(|(_, n)| *n == name).map(|(measure, _)| measure)
    }

    /// Those that train nothing.
    pub fn usual() -> Vec<Measure> {
        Measure::NAMED.map(|(m, _)| m).into_iter().filter(|m| *m != Measure::Backdoor).collect()
    }
}

/// The `[evidence]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceSettings {
    /// What `compare` measures of its models besides; nothing by default.
    pub measures: Vec<Measure>,
    /// Images attacked, and samples that layers are compared on.
    pub samples: usize,
    /// Greatest change of a pixel in 0 to 1 that an attack may make.
    pub epsilon: f64,
    /// Steps of the projected gradient method.
    pub steps: usize,
    /// Queries of the Square attack for each image.
    pub queries: usize,
    /// Side in pixels of the trigger patch; absent, a seventh of the shorter side.
    pub trigger_side: Option<usize>,
    /// Index of the class that a trigger is to cause.
    pub trigger_class: usize,
    /// Share of the train images that a planted backdoor poisons.
    pub poisoned: f64,
    /// The foreign samples: a `[data]` section of images. Absent, the bundled digits (for digits,
    /// Fashion-MNIST).
    #[serde(skip_deserializing)]
    pub foreign: Option<DataSpec>,
}

impl Default for EvidenceSettings {
    fn default() -> EvidenceSettings {
        EvidenceSettings {
            measures: Vec::new(),
            samples: 200,
            epsilon: 0.03,
            steps: 10,
            queries: 100,
            trigger_side: None,
            trigger_class: 0,
            poisoned: 0.01,
            foreign: None,
        }
    }
}

impl EvidenceSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        require(self.samples > 0, "samples", self.samples, "at least 1")?;
        let inside = self.epsilon > 0.0 && self.epsilon <= 1.0;
        require(inside, "epsilon", self.epsilon, "a number above 0, at most 1")?;
        require((1..=10_000).contains(&self.steps), "steps", self.steps, "a count from 1 to 10000")?;
        require((1..=100_000).contains(&self.queries), "queries", self.queries, "a count from 1 to 100000")?;
        require(self.trigger_side != Some(0), "trigger_side", 0, "at least 1")?;
        let inside = self.poisoned > 0.0 && self.poisoned < 0.5;
        require(inside, "poisoned", self.poisoned, "a share above 0, below 0.5")
    }
}
