//! Controls of frameworks, and the files that are evidence for them.

use std::collections::BTreeMap;
use std::path::Path;

use halfstep_attest::digest::Digest;
use halfstep_attest::statement::{Predicate, Statement};
use halfstep_attest::subject::Subject;
use serde::Deserialize;

use super::facts::{Facts, TEXT};
use super::markdown;
use crate::cli::report::{EMISSIONS, RESULTS};
use crate::cli::sign::VERDICT;
use crate::cli::stress::ROBUSTNESS;

const MAP: &str = include_str!("controls.toml");

/// What stands where nothing shows that a control is met.
const NONE: &str = "not evidenced";

/// Of whole comparisons, which not every comparison has.
const OF_COMPARISON: [&str; 3] = [RESULTS, EMISSIONS, ROBUSTNESS];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    framework: Vec<Framework>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Framework {
    name: String,
    source: String,
    /// Whether it is of generative models alone.
    #[serde(default)]
    generative: bool,
    control: Vec<Control>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    id: String,
    title: String,
    #[serde(default)]
    shows: String,
    #[serde(default)]
    evidence: Vec<String>,
}

/// Files by the names that the map calls them.
pub struct Files(BTreeMap<String, Subject>);

impl Files {
    /// Those of a model: what its card lists, what the comparison has, and `written` beside them.
    /// A signed verdict counts where it names the model's weights; its signature is not checked.
    pub fn of(folder: &Path, facts: &Facts<'_>, written: Vec<Subject>) -> Files {
        let mut files = BTreeMap::from([("weights".to_string(), facts.weights.clone())]);
        for subject in &facts.evidence {
            let name = subject.name.strip_prefix(facts.prefix).unwrap_or(&subject.name);
            files.insert(name.split_once('/').map_or(name, |(of, _)| of).into(), subject.clone());
        }
        let verdict = names(folder, &facts.weights).then_some(VERDICT);
        for name in OF_COMPARISON.into_iter().chain(verdict) {
            if let Ok(digest) = Digest::of_file(&folder.join(name)) {
                files.insert(name.into(), Subject::new(name, digest));
            }
        }
        files.extend(written.into_iter().map(|subject| (subject.name.clone(), subject)));
        Files(files)
    }
}

/// Whether a folder's signed verdict judged these weights.
fn names(folder: &Path, weights: &Subject) -> bool {
    let bytes = std::fs::read(folder.join(VERDICT)).ok();
    let statement = bytes.and_then(|bytes| Statement::unverified(&bytes));
    match statement.map(|statement| statement.predicate) {
        Some(Predicate::Verdict(verdict)) => verdict.naming(weights.digest.sha256).is_some(),
        _ => false,
    }
}

/// The map as a page, and how many controls have evidence, of how many.
pub struct Page {
    /// Markdown.
    pub text: String,
    pub evidenced: usize,
    pub controls: usize,
}

impl Page {
    /// Of a model.
    pub fn of(facts: &Facts<'_>, Files(files): &Files) -> Page {
        let map: Map = toml::from_str(MAP).expect("controls.toml, which a test reads");
        let mut page = Page { text: head(facts), evidenced: 0, controls: 0 };
        for framework in &map.framework {
            page.text += &format!("## {}\n\n<{}>\n\n", framework.name, framework.source);
            if framework.generative && facts.task != TEXT {
                page.text += "Left out: this model does not generate.\n\n";
                continue;
            }
            page.text += "| control | about | evidence | which shows |\n|---|---|---|---|\n";
            for control in &framework.control {
                let there: Vec<&str> =
                    control.evidence.iter().filter_map(|name| Some(files.get(name)?.name.as_str())).collect();
                let (evidence, shows) = match there.as_slice() {
                    [] => (NONE.into(), ""),
                    names => {
                        let names: Vec<String> = names.iter().map(|name| markdown::code(name)).collect();
                        (names.join(", "), control.shows.as_str())
                    }
                };
                page.evidenced += usize::from(!there.is_empty());
                page.controls += 1;
                page.text += &format!("| {} | {} | {evidence} | {shows} |\n", control.id, control.title);
            }
            page.text += "\n";
        }
        page.text += "## Files\n\n| file | SHA-256 |\n|---|---|\n";
        for subject in files.values() {
            page.text += &format!("| {} | `{}` |\n", markdown::code(&subject.name), subject.digest.sha256);
        }
        page
    }
}

fn head(facts: &Facts<'_>) -> String {
    format!(
        "# Controls: {}, {}, seed {}\n\nFor each control, the files of the comparison that show something \
         of it, and what; \"{NONE}\" where none does. A file beside a control does not say that the control \
         is met: that is for who assesses. Titles are short; the sources have the texts. Signatures were \
         not checked: `halfstep verify` does.\n\n",
        markdown::text(&facts.setup.name),
        facts.run.policy,
        facts.run.seed
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{BOM, MODEL_CARD};
    use super::*;

    #[test]
    fn the_map_has_every_control_once_and_names_files_that_can_be_there() {
        let of_card = ["weights", "logits", "recipe.toml", "plan.json", "preprocessing.json"];
        let mut known = BTreeSet::from(of_card);
        known.extend([RESULTS, EMISSIONS, ROBUSTNESS, VERDICT, MODEL_CARD, BOM]);
        let map: Map = toml::from_str(MAP).unwrap();
        // As many as the texts have: subcategories, risks, controls of Annex A, points.
        let counts: Vec<usize> = map.framework.iter().map(|f| f.control.len()).collect();
        assert_eq!(counts, [72, 12, 38, 23]);
        for framework in &map.framework {
            let ids: BTreeSet<&str> = framework.control.iter().map(|c| c.id.as_str()).collect();
            assert_eq!(ids.len(), framework.control.len());
            for control in &framework.control {
                assert_eq!(control.evidence.is_empty(), control.shows.is_empty(), "{}", control.id);
                for name in &control.evidence {
                    assert!(known.contains(name.as_str()), "{}: {name}", control.id);
                }
            }
        }
    }
}
