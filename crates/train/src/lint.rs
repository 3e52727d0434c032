//! What a recipe will do badly in its formats, known before its first step, with the line that is
//! to blame.

use std::fmt;

use halfstep_graph::DType;
use halfstep_graph::precision::{Extent, Lint, LintFinding, assign, lint};
use halfstep_nn::InputSpec;
use serde::Serialize;

use crate::optimiser::{Optimiser, STEP_SLOT};
use crate::recipe::{Experiment, Length};
use crate::session::TrainError;
use crate::step::{StepSpec, step_graphs};
use crate::step_options::StepOptions;
use crate::train_loop::RunError;

/// Something that a recipe will do badly in one precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// The precision policy.
    pub policy: String,
    /// The file of the recipe.
    pub recipe: String,
    /// The line of the recipe that asks for it; none where the model does.
    pub line: Option<usize>,
    /// What, and where in the model.
    #[serde(flatten)]
    pub finding: LintFinding,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}: {}", self.recipe, self.policy, self.finding),
            None => write!(f, "{}: {}: {}", self.recipe, self.policy, self.finding),
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
        let warning = |(line, finding): (Option<usize>, LintFinding)| Warning {
            policy: policy.name.clone(),
            recipe: self.recipe.source.name().to_string(),
            line,
            finding,
        };
        let found = lint(&assigned, &extents).into_iter().map(|finding| (blame(&finding), finding));
        Ok(found.chain(self.long_run()).map(warning).collect())
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
