//! What a signed verdict says of a file.

use std::path::Path;
use std::process::ExitCode;

use halfstep_attest::digest::Digest;
use halfstep_attest::pair::{PairNaming, PairVerdict};
use halfstep_attest::statement::Predicate;
use halfstep_attest::trust::Verified;
use halfstep_attest::verdict::{Arm, Conclusion, Naming, Run};
use serde_json::{Value, json};

use super::Found;
use crate::cli::failure::Failure;

/// The file is named, by a verdict that is no pass.
const NO_PASS: u8 = 3;

/// What is found for programs, lines for people, and whether the verdict is a pass.
type Said = (Value, Vec<(&'static str, String)>, bool);

/// Looks a file up in a verdict.
///
/// # Errors
/// What is signed is no verdict, the file cannot be read, or the verdict does not name it.
pub fn look_up(file: &Path, verified: &Verified) -> Result<Found, Failure> {
    let no_verdict = |what| Err(Failure::asked(format!("--verdict: this is {what}, not a verdict"), ""));
    let predicate = &verified.statement.predicate;
    let name = match predicate {
        Predicate::Verdict(verdict) => format!("`{}`", verdict.name),
        Predicate::Pair(pair) => format!("of `{}` against its parent", pair.converted.weights.name),
        Predicate::Model(_) => return no_verdict("the signature of a model"),
        Predicate::Move(_) => return no_verdict("a move of an alias"),
    };
    if file.is_dir() {
        let help = "name one file of weights in it";
        return Err(Failure::asked(format!("{}: this is a folder", file.display()), help));
    }
    let digest = Digest::of_file(file).map_err(|e| Failure::of_file(file, &e))?;
    let said = match predicate {
        Predicate::Verdict(verdict) => {
            verdict.naming(digest).map(|naming| in_comparison(file, &verdict.name, naming))
        }
        Predicate::Pair(pair) => pair.naming(digest).map(|naming| in_pair(file, pair, naming)),
        Predicate::Model(_) | Predicate::Move(_) => None,
    };
    let Some((mut found, lines, passed)) = said else {
        let message = format!(
            "{}: the verdict {name} does not name this file (SHA-256 {digest}): it says nothing of it. What was converted, pruned or trained again needs a verdict of its own",
            file.display(),
        );
        return Err(Failure::failed(message));
    };
    found["sha256"] = json!(digest);
    let code = if passed { ExitCode::SUCCESS } else { ExitCode::from(NO_PASS) };
    Ok((found, lines, code))
}

/// What a comparison says of a file.
fn in_comparison(file: &Path, comparison: &str, naming: Naming<'_>) -> Said {
    let seeds = |arm: &Arm| {
        let seeds: Vec<String> = arm.seeds.iter().map(u64::to_string).collect();
        format!("{} samples, seeds {}", arm.samples, seeds.join(", "))
    };
    let weights =
        |run: &Run| format!("{}: the weights of {} with seed {}", file.display(), run.policy, run.seed);
    let (mut found, lines, passed) = match naming {
        Naming::Judged(arm, run, candidate) => {
            let words = format!(
                "{} of {} against {}, over {} pairs",
                candidate.verdict.name(),
                candidate.policy,
                arm.reference,
                candidate.pairs
            );
            let claim = match candidate.protocol["claim"].as_str() {
                Some("samples") => "on these samples",
                Some("examples") => "on examples like these",
                _ => "none, because no pair was judged",
            };
            let role = json!({ "role": "judged", "policy": run.policy, "seed": run.seed, "verdict": candidate.verdict });
            let lines = vec![
                ("named", weights(run)),
                ("verdict", words),
                ("claim", format!("{claim}; {}", seeds(arm))),
                ("margins", margins(&candidate.protocol)),
            ];
            (role, lines, candidate.verdict == Conclusion::Pass)
        }
        Naming::Reference(arm, run) => {
            let role = json!({ "role": "reference", "policy": run.policy, "seed": run.seed });
            let words = "none: the reference is what others were measured against".to_string();
            (role, vec![("named", weights(run)), ("verdict", words), ("rests on", seeds(arm))], false)
        }
        Naming::Evidence(arm, subject) => {
            let role = json!({ "role": "evidence", "name": subject.name });
            (role, vec![("named", no_model(file, &subject.name)), ("rests on", seeds(arm))], false)
        }
    };
    found["comparison"] = json!(comparison);
    (found, lines, passed)
}

/// What the verdict of a pair says of a file.
fn in_pair(file: &Path, pair: &PairVerdict, naming: PairNaming<'_>) -> Said {
    let (converted, parent) = (&pair.converted.weights, &pair.parent.weights);
    let rests = format!("{} samples, one pair", pair.samples);
    match naming {
        PairNaming::Judged => {
            let parent_digest = parent.digest.sha256;
            let role = json!({ "role": "converted", "verdict": pair.verdict, "parent": parent_digest });
            let lines = vec![
                ("named", format!("{}: the weights of a converted model", file.display())),
                ("verdict", format!("{} against its parent, {}", pair.verdict.name(), parent.name)),
                ("parent", format!("weights of SHA-256 {parent_digest}")),
                ("claim", format!("of these two models on examples like these; {rests}")),
                ("margins", margins(&pair.protocol)),
            ];
            (role, lines, pair.verdict == Conclusion::Pass)
        }
        PairNaming::Parent => {
            let named =
                format!("{}: the weights that {} was measured against", file.display(), converted.name);
            let words = "none: this verdict is of what was made of them".to_string();
            (
                json!({ "role": "parent" }),
                vec![("named", named), ("verdict", words), ("rests on", rests)],
                false,
            )
        }
        PairNaming::Evidence(subject) => {
            let role = json!({ "role": "evidence", "name": subject.name });
            (role, vec![("named", no_model(file, &subject.name)), ("rests on", rests)], false)
        }
    }
}

fn no_model(file: &Path, name: &str) -> String {
    format!("{}: {name}, which is no model", file.display())
}

/// The margins of a protocol, such as `accuracy 0.01`.
fn margins(protocol: &Value) -> String {
    let margin = |entry: &Value| {
        let of = if entry[1]["kind"] == "relative" { " of the reference's" } else { "" };
        format!("{} {}{of}", entry[0].as_str().unwrap_or("?"), entry[1]["value"])
    };
    let all: Vec<String> = protocol["margins"].as_array().into_iter().flatten().map(margin).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
