//! The folder of a comparison, read again: for a statement that is signed, and for cards.

use std::path::Path;

use halfstep::train::recipe::{Recipe, folder_name};
use halfstep::train::run_dir::RECIPE;
use halfstep_attest::digest::Digest;
use halfstep_attest::subject::Subject;
use halfstep_attest::verdict::Conclusion;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::report::RESULTS;

/// A comparison.
pub struct Compared {
    /// Its name.
    pub name: String,
    /// What was compared: one model, or the arms of an ablation.
    pub arms: Vec<ComparedArm>,
}

/// A model in several precisions.
pub struct ComparedArm {
    /// What `results.json` says of it.
    pub record: ArmRecord,
    /// Its recipe.
    pub recipe: Recipe,
    /// Of its paths in the comparison's folder: empty, or ending in `/`.
    pub prefix: String,
}

#[derive(Deserialize)]
struct Results {
    name: String,
    arms: Vec<ArmRecord>,
}

/// What is read of an arm.
#[derive(Deserialize)]
pub struct ArmRecord {
    pub setup: SetupRecord,
    pub candidates: Vec<CandidateRecord>,
    pub runs: Vec<RunRecord>,
}

/// What was set up before the runs.
#[derive(Deserialize)]
pub struct SetupRecord {
    pub name: String,
    pub model: String,
    pub data: String,
    pub fingerprint: String,
    pub parameters: u64,
    pub steps: u64,
    pub batch: u64,
    pub seeds: Vec<u64>,
    pub reference: String,
    pub targets_measured: u64,
    pub engine: String,
    pub processor: String,
    pub version: String,
}

/// A precision against the reference.
#[derive(Deserialize)]
pub struct CandidateRecord {
    pub policy: String,
    pub verdict: Conclusion,
    pub pairs: u64,
    pub missing: u64,
    pub accuracy: Option<PairedRecord>,
    pub assessment: Option<Value>,
}

/// Differences over seeds.
#[derive(Deserialize)]
pub struct PairedRecord {
    /// Mean of candidate − reference.
    pub mean: f64,
    /// Its one-sided bounds at 95 %; none of one pair.
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

/// A run.
#[derive(Deserialize)]
pub struct RunRecord {
    pub policy: String,
    pub seed: u64,
    outcome: OutcomeRecord,
    pub evaluations: Vec<EvaluationRecord>,
}

#[derive(Deserialize)]
struct OutcomeRecord {
    kind: String,
}

/// What was measured during a run.
#[derive(Deserialize)]
pub struct EvaluationRecord {
    pub loss: f64,
    pub accuracy: f64,
}

impl RunRecord {
    /// Whether it did all its steps.
    pub fn finished(&self) -> bool {
        self.outcome.kind == "finished"
    }

    /// Whether it diverged.
    pub fn diverged(&self) -> bool {
        self.outcome.kind == "diverged"
    }

    /// The name of its weights and logits.
    pub fn file(&self) -> String {
        format!("{}-seed{}.safetensors", self.policy, self.seed)
    }
}

impl ComparedArm {
    /// A file of the arm, under its path in the comparison's folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn subject(&self, folder: &Path, name: &str) -> Result<Subject, Failure> {
        let name = format!("{}{name}", self.prefix);
        let path = folder.join(&name);
        let digest = Digest::of_file(&path).map_err(|e| {
            Failure::asked(
                format!("{}: {e}: it belongs to the comparison, and is not there", path.display()),
                "",
            )
        })?;
        Ok(Subject::new(name, digest))
    }

    /// A file of the arm that holds JSON.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read_json<T: DeserializeOwned>(&self, folder: &Path, name: &str) -> Result<T, Failure> {
        read_json(&folder.join(format!("{}{name}", self.prefix)))
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::of_file(path, &e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::asked(format!("{}: not as `compare` writes it: {e}", path.display()), ""))
}

/// Reads the folder of a comparison.
///
/// # Errors
/// It is none.
pub fn read(folder: &Path) -> Result<Compared, Failure> {
    let path = folder.join(RESULTS);
    let results: Results =
        read_json(&path).map_err(|e| e.with_help("give the run directory of `halfstep compare`"))?;
    let recipe = Recipe::read(&folder.join(RECIPE))?;
    let mut arms = Vec::new();
    for record in results.arms {
        let name = &record.setup.name;
        let own = recipe.ablation.iter().find(|arm| arm.name == *name).map(|arm| &arm.recipe);
        let (recipe, prefix) = match (own, recipe.ablation.is_empty()) {
            (Some(own), _) => (own.clone(), format!("{}/", folder_name(name))),
            (None, true) => (recipe.clone(), String::new()),
            (None, false) => {
                return Err(Failure::asked(
                    format!("{}: the recipe has no arm `{name}`", path.display()),
                    "",
                ));
            }
        };
        arms.push(ComparedArm { record, recipe, prefix });
    }
    Ok(Compared { name: results.name, arms })
}
