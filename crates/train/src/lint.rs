//! What a recipe will do badly, in its formats or by its settings, known before its first step,
//! with the line that is to blame.

mod settings;

use std::fmt;

use halfstep_graph::DType;
use halfstep_graph::precision::{Extent, Lint, LintFinding, assign, lint};
use halfstep_nn::InputSpec;
use serde::Serialize;

use crate::change::Change;
use crate::optimiser::{Optimiser, STEP_SLOT};
use crate::recipe::{Experiment, Length};
use crate::session::TrainError;
use crate::step::{StepSpec, step_graphs};
use crate::step_options::StepOptions;
use crate::train_loop::RunError;

/// Something that a recipe will do badly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// The precision policy that it is about; none where it is about all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The file of the recipe.
    pub recipe: String,
    /// The line of the recipe that asks for it; none where the model does.
    pub line: Option<usize>,
    /// What, and where.
    #[serde(flatten)]
    pub found: Found,
}

/// What lint found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// A value of the program and its format.
    Format(LintFinding),
    /// A setting of the recipe.
    Setting(SettingFinding),
}

/// A setting that keeps a model from learning, or does nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingFinding {
    /// Its section.
    pub section: String,
    /// Its key.
    pub key: String,
    /// What it does.
    pub message: String,
    /// What to write instead, where that is known.
    pub changes: Vec<Change>,
    /// Whether it can keep a model from learning.
    pub harms: bool,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.recipe)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(policy) = &self.policy {
            write!(f, ": {policy}")?;
        }
        match &self.found {
            Found::Format(finding) => write!(f, ": {finding}"),
            Found::Setting(SettingFinding { section, key, message, changes, .. }) => {
                write!(f, ": `{key}` in [{section}]: {message}")?;
                let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
                if changes.is_empty() { Ok(()) } else { write!(f, "; try {}", changes.join(", ")) }
            }
        }
    }
}

impl Experiment {
    /// What the training step will do badly in this precision.
    ///
    /// # Errors
    /// No policy has that name; the model cannot be built.
    pub fn lint(&self, policy: &str) -> Result<Vec<Warning>, RunError> {
        let (policy, spec) = self.session_spec(policy, self.recipe.seed)?;
        let step = StepSpec {
            model: self.model.as_ref(),
            input: &self.input,
            batch: self.evaluation_batch(),
            optimiser: &spec.optimiser,
            scaling: &spec.scaling,
            clip: spec.clip,
            expose_gradients: false,
        };
        // Of a batch in parts, one part has every operation.
        let options = StepOptions { accumulate: 1, ..spec.options.clone() };
        let graphs = step_graphs(&step, &options, 1).map_err(TrainError::from)?;
        let largest = match self.input {
            InputSpec::Tokens { vocab, .. } => vocab as u64 - 1,
            InputSpec::Features { .. } | InputSpec::Image { .. } => 0,
        };
        let outputs = (self.info.outputs as u64).saturating_sub(1);
        let extents = [Extent { input: "x", largest }, Extent { input: "y", largest: outputs }];
        let (assigned, _) = assign(&graphs.train, &policy);
        let blame = |finding: &LintFinding| {
            if finding.lint == Lint::UpdatesLost {
                return self.recipe.source.line_of(&format!("precision.{}", policy.name), "weights", None);
            }
            let exception = policy.overrides.iter().find(|o| o.matches(&finding.name))?;
            self.recipe.source.line_of("precision", "overrides", Some(&exception.pattern))
        };
        let found = lint(&assigned, &extents).into_iter().map(|finding| (blame(&finding), finding));
        let found = found.chain(self.long_run()).map(|(line, finding)| (line, Found::Format(finding)));
        let of_policy = settings::quantises_nothing(&policy, &graphs.train, &assigned)
            .into_iter()
            .chain(settings::margin(&policy))
            .map(|setting| (self.line_of(&setting), Found::Setting(setting)));
        Ok(found
            .chain(of_policy)
            .map(|(line, found)| self.warning(Some(&policy.name), line, found))
            .collect())
    }

    /// Which settings will keep the model from learning, in any precision.
    ///
    /// # Errors
    /// The model cannot be built; the data cannot be drawn.
    pub fn lint_settings(&self) -> Result<Vec<Warning>, RunError> {
        let found = settings::settings(self)?;
        Ok(found.into_iter().map(|s| self.warning(None, self.line_of(&s), Found::Setting(s))).collect())
    }

    fn line_of(&self, setting: &SettingFinding) -> Option<usize> {
        self.recipe.source.line_of(&setting.section, &setting.key, None)
    }

    fn warning(&self, policy: Option<&str>, line: Option<usize>, found: Found) -> Warning {
        let recipe = self.recipe.source.name().to_string();
        Warning { policy: policy.map(String::from), recipe, line, found }
    }

    /// Adam counts its steps in f32.
    fn long_run(&self) -> Option<(Option<usize>, LintFinding)> {
        let most = 1u64 << 24;
        let counts = matches!(self.recipe.optimiser, Optimiser::AdamW(_));
        (counts && self.steps > most).then(|| {
            let key = match self.recipe.train.length {
                Length::Steps(_) => "steps",
                Length::Epochs(_) => "epochs",
            };
            let finding = LintFinding {
                lint: Lint::IntegerNotHeld,
                name: STEP_SLOT.into(),
                op: "add".into(),
                format: DType::F32,
                message: format!("{} steps are counted in f32, which stays at {most}", self.steps),
            };
            (self.recipe.source.line_of("train", key, None), finding)
        })
    }
}
