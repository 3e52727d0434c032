//! `halfstep card`: a model of a comparison described for those who will use it.

mod bom;
mod controls;
mod facts;
mod markdown;
mod model_card;

use std::path::Path;
use std::process::ExitCode;

use halfstep::train::run_dir::write_whole;
use halfstep_attest::digest::Digest;
use halfstep_attest::subject::Subject;
use serde_json::json;

use super::args::Card;
use super::failure::Failure;
use super::{compared, output};
use controls::{Files, Page};
use facts::Facts;

/// The model card, under the name that Hugging Face shows.
const MODEL_CARD: &str = "README.md";
/// The bill of materials, under the ending that CycloneDX recommends.
const BOM: &str = "model.cdx.json";
/// The map from controls to evidence.
const CONTROLS: &str = "CONTROLS.md";

/// Runs the command.
pub fn run(args: Card) -> Result<ExitCode, Failure> {
    let compared = compared::read(&args.comparison)?;
    let facts = Facts::of(&args, &compared)?;
    let to = args.out.as_ref().unwrap_or(&args.comparison);
    let mut files = vec![
        (MODEL_CARD, model_card::text(&facts)),
        (BOM, serde_json::to_string_pretty(&bom::json(&facts))? + "\n"),
    ];
    let page = match args.controls {
        true => {
            let written = |(name, text): &(&str, String)| Subject::new(*name, Digest::of(text.as_bytes()));
            let there = Files::of(&args.comparison, &facts, files.iter().map(written).collect());
            Some(Page::of(&facts, &there))
        }
        false => None,
    };
    files.extend(page.as_ref().map(|page| (CONTROLS, page.text.clone())));
    write(to, &files, &args)?;
    let shown = |name: &str| to.join(name).display().to_string();
    if args.json {
        let controls = page.map(
            |page| json!({ "file": shown(CONTROLS), "evidenced": page.evidenced, "controls": page.controls }),
        );
        let printed = json!({
            "model_card": shown(MODEL_CARD), "bom": shown(BOM), "controls": controls, "weights": facts.weights
        });
        output::json(&printed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut fields = vec![
        ("model", format!("{}, SHA-256 {}", facts.weights.name, facts.weights.digest.sha256)),
        ("model card", shown(MODEL_CARD)),
        ("bill of materials", shown(BOM)),
    ];
    fields.extend(page.map(|page| {
        let text =
            format!("{}: evidence for {} of {} controls", shown(CONTROLS), page.evidenced, page.controls);
        ("controls", text)
    }));
    output::raw(&output::fields(&fields));
    Ok(ExitCode::SUCCESS)
}

/// Writes the files to a folder. None is overwritten that was not asked for.
fn write(to: &Path, files: &[(&str, String)], args: &Card) -> Result<(), Failure> {
    for (name, _) in files {
        let path = to.join(name);
        if path.exists() && !args.force {
            let help = "write elsewhere with --out, or overwrite them with --force";
            return Err(Failure::asked(format!("{} exists already", path.display()), help));
        }
    }
    if args.out.is_some() {
        std::fs::create_dir_all(to).map_err(|e| Failure::failed(format!("{}: {e}", to.display())))?;
    }
    for (name, text) in files {
        write_whole(&to.join(name), text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::facts::{Judged, Measure, Precision};
    use super::*;
    use crate::cli::compared::ArmRecord;

    const RESULTS: &str = r#"{
        "setup": {
            "name": "digits: \"small\"", "model": "mlp 16", "data": "digits (200 train, 100 test samples; 8×8 gray)",
            "fingerprint": "9b941341ec3b1b87662b8ba9213e56d454f7123d530fb0fd49abaf3d252a1246",
            "parameters": 1210, "steps": 60, "batch": 32, "seeds": [0, 1], "reference": "fp32",
            "targets_measured": 100, "engine": "CPU avx2, 2 threads", "processor": "a processor", "version": "0.1.0"
        },
        "candidates": [{
            "policy": "bf16", "verdict": "pass", "pairs": 2, "missing": 0, "assessment": null,
            "accuracy": { "mean": -0.005, "lower": -0.0366, "upper": 0.0266 }
        }],
        "runs": [{
            "policy": "bf16", "seed": 1, "outcome": { "kind": "finished" },
            "evaluations": [{ "loss": 0.7168, "accuracy": 0.89 }]
        }]
    }"#;

    /// `scripts/check_cards.py` has the golden files read by those whose forms they are.
    #[test]
    fn cards_are_written_as_the_golden_files() {
        let arm: ArmRecord = serde_json::from_str(RESULTS).unwrap();
        let subject = |name: &str| Subject::new(name, Digest::of(name.as_bytes()));
        let types = |storage: &str| (storage.to_string(), "bf16".to_string(), "f32".to_string());
        let (run, candidate) = (&arm.runs[0], &arm.candidates[0]);
        let facts = Facts {
            setup: &arm.setup,
            run,
            prefix: "",
            licence: Some("apache-2.0"),
            task: "image-classification",
            weights: subject("checkpoints/bf16-seed1.safetensors"),
            evidence: ["recipe.toml", "plan.json"].map(subject).into(),
            precision: Precision {
                policy: run.policy.clone(),
                contractions: BTreeMap::from([(types("bf16"), 3), (types("f32"), 2)]),
                weights: "f32".into(),
                loss_scaling: "none".into(),
                operand_scaling: None,
            },
            measures: vec![
                Measure { name: "accuracy", value: run.evaluations[0].accuracy },
                Measure { name: "loss", value: run.evaluations[0].loss },
            ],
            judged: Some(Judged {
                verdict: candidate.verdict.name().into(),
                pairs: candidate.pairs,
                difference: candidate.accuracy.as_ref(),
            }),
        };
        let bom = serde_json::to_string_pretty(&bom::json(&facts)).unwrap() + "\n";
        assert_eq!(model_card::text(&facts), include_str!("card/golden/README.md"));
        assert_eq!(bom, include_str!("card/golden/model.cdx.json"));
    }
}
