//! `halfstep registry diff`: what two versions differ in.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use halfstep::train::checkpoint;
use halfstep::train::run_dir::RECIPE;
use halfstep_attest::pair::PairNaming;
use halfstep_attest::statement::{Predicate, Statement};
use halfstep_attest::verdict::{Conclusion, Naming};
use halfstep_registry::Registry;
use halfstep_registry::version::{AttachmentKind, Version, VersionFile};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::args::DiffVersions;
use super::super::failure::Failure;
use super::super::output;
use super::{Asked, failure, said};

/// Most bytes of a recipe that is looked into.
const MOST_OF_RECIPE: u64 = 1 << 20;
/// What stands where there is nothing.
const NONE: &str = "none";

/// Runs the command.
pub fn run(args: &DiffVersions, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let side = |reference| {
        let version = registry.resolve(reference).map_err(failure)?;
        Side::of(&registry, version)
    };
    let (before, after) = (side(&args.before)?, side(&args.after)?);
    let mut found = json!({ "before": before.version.digest, "after": after.version.digest });
    let mut lines = Vec::new();
    let files = files(&before.version, &after.version);
    lines.extend(files.iter().map(|file| (file.is, file.name.clone())));
    if before.precision != after.precision {
        lines.push(("precision", changed(before.precision.as_deref(), after.precision.as_deref())));
    }
    let recipe = keys(&before.recipe, &after.recipe);
    lines.extend(recipe.iter().map(|key| ("recipe", key.to_string())));
    for (which, side) in [("verdict before", &before), ("verdict after", &after)] {
        let none = side.verdicts.is_empty().then(|| NONE.to_string());
        lines.extend(side.verdicts.iter().map(ToString::to_string).chain(none).map(|text| (which, text)));
    }
    if !before.verdicts.is_empty() || !after.verdicts.is_empty() {
        output::note("verdicts are shown as they are attached: who signed them, `promote` looks at");
    }
    found["files"] = json!(files);
    found["precision"] = json!([before.precision, after.precision]);
    found["recipe"] = json!(recipe);
    found["verdicts"] = json!([before.verdicts, after.verdicts]);
    said(asked, &found, &lines)
}

/// What is known of a version.
struct Side {
    version: Version,
    /// The precision that its weights were trained in; none where its files were removed.
    precision: Option<String>,
    /// Its recipe's values by their keys.
    recipe: BTreeMap<String, String>,
    /// What the verdicts that are attached say of its weights. Who signed them is not looked at.
    verdicts: Vec<Figures>,
}

/// What a verdict came to.
#[derive(Serialize)]
struct Figures {
    /// The precision that was judged; none of a converted model.
    precision: Option<String>,
    /// The conclusion; none of weights that others were measured against.
    verdict: Option<Conclusion>,
    /// Pairs of seeds.
    pairs: u64,
    samples: u64,
    metrics: Vec<Value>,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { precision, verdict, pairs, samples, metrics } = self;
        let verdict = verdict.map_or("none, as the reference", Conclusion::name);
        let of = precision.as_deref().unwrap_or("a converted model");
        write!(f, "{verdict}, of {of}, {pairs} pairs, {samples} samples")?;
        for row in metrics {
            let name = row["metric"].as_str().unwrap_or("?");
            let number = |key: &str| row[key].as_f64().map_or_else(|| NONE.into(), |x| format!("{x:.4}"));
            write!(f, "; {name} {} (reference {})", number("candidate"), number("reference"))?;
        }
        Ok(())
    }
}

impl Side {
    fn of(registry: &Registry, version: Version) -> Result<Side, Failure> {
        let there = version.removed.is_none();
        let file = |is: &dyn Fn(&VersionFile) -> bool| version.files.iter().find(|f| there && is(f));
        let recipe = match file(&|f| f.name == RECIPE) {
            Some(file) => registry.read_file(file, MOST_OF_RECIPE).map_err(failure)?,
            None => Vec::new(),
        };
        let weights = version.weights().map_err(failure)?;
        let manifest = file(&|f| f.sha256 == weights).map(|f| checkpoint::manifest(&registry.path_of(f)));
        let precision = manifest.transpose()?.map(|manifest| manifest.policy.name);
        let mut verdicts = Vec::new();
        for attachment in version.attachments.iter().filter(|a| a.kind == AttachmentKind::Verdict) {
            let bytes = registry.attached(attachment).map_err(failure)?;
            let statement = Statement::unverified(&bytes);
            verdicts.extend(statement.and_then(|statement| figures(&statement.predicate, weights)));
        }
        let mut values = BTreeMap::new();
        // A recipe that cannot be read any more has the digest of its file.
        let text = String::from_utf8_lossy(&recipe);
        if let Ok(table) = text.parse::<toml::Table>() {
            flatten("", &toml::Value::Table(table), &mut values);
        }
        Ok(Side { version, precision, recipe: values, verdicts })
    }
}

/// What a statement says of weights.
fn figures(predicate: &Predicate, weights: halfstep_attest::digest::Digest) -> Option<Figures> {
    match predicate {
        Predicate::Verdict(verdict) => match verdict.naming(weights)? {
            Naming::Judged(arm, _, candidate) => Some(Figures {
                precision: Some(candidate.policy.clone()),
                verdict: Some(candidate.verdict),
                pairs: candidate.pairs,
                samples: arm.samples,
                metrics: candidate.metrics.clone(),
            }),
            Naming::Reference(arm, run) => {
                let (precision, samples) = (Some(run.policy.clone()), arm.samples);
                Some(Figures { precision, verdict: None, pairs: 0, samples, metrics: Vec::new() })
            }
            Naming::Evidence(..) => None,
        },
        Predicate::Pair(pair) => (pair.naming(weights)? == PairNaming::Judged).then(|| Figures {
            precision: None,
            verdict: Some(pair.verdict),
            pairs: 1,
            samples: pair.samples,
            metrics: pair.metrics.clone(),
        }),
        Predicate::Model(_) | Predicate::Move(_) => None,
    }
}

/// A file in one version or both.
#[derive(Serialize)]
struct FileDiff {
    name: String,
    is: &'static str,
    before: Option<String>,
    after: Option<String>,
}

fn files(before: &Version, after: &Version) -> Vec<FileDiff> {
    let digest = |version: &Version, name: &str| {
        version.files.iter().find(|f| f.name == name).map(|f| f.sha256.to_string())
    };
    let names: BTreeSet<&String> = before.files.iter().chain(&after.files).map(|f| &f.name).collect();
    let diff = |name: &String| {
        let (before, after) = (digest(before, name), digest(after, name));
        let is = match (&before, &after) {
            (Some(was), Some(is)) if was == is => "same",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "gone",
            (None, _) => "new",
        };
        FileDiff { name: name.clone(), is, before, after }
    };
    names.into_iter().map(diff).collect()
}

/// A value of a recipe that differs.
#[derive(Serialize)]
struct KeyDiff {
    key: String,
    before: Option<String>,
    after: Option<String>,
}

impl std::fmt::Display for KeyDiff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, changed(self.before.as_deref(), self.after.as_deref()))
    }
}

fn changed(before: Option<&str>, after: Option<&str>) -> String {
    format!("{} before, {} after", before.unwrap_or(NONE), after.unwrap_or(NONE))
}

fn keys(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<KeyDiff> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |key: &String| KeyDiff {
        key: key.clone(),
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
    };
    keys.into_iter().map(of).filter(|diff| diff.before != diff.after).collect()
}

/// Values of tables by their dotted keys.
fn flatten(path: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        value => drop(into.insert(path.into(), value.to_string())),
    }
}
