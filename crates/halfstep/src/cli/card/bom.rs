//! A bill of materials in CycloneDX 1.7, as JSON (<https://cyclonedx.org/docs/1.7/json/>).
//!
//! It has no time and no random number: the same folder gives the same text.

use halfstep_attest::subject::Subject;
use serde_json::{Value, json};

use super::facts::{Facts, TEXT};

/// The bill of materials of a model.
pub fn json(facts: &Facts<'_>) -> Value {
    let setup = facts.setup;
    let components: Vec<Value> = [data(facts)].into_iter().chain(facts.evidence.iter().map(file)).collect();
    let refs: Vec<Value> = facts.evidence.iter().map(|s| json!(s.name)).chain([json!("data")]).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "halfstep", "version": setup.version }] },
            "component": model(facts),
        },
        "components": components,
        "dependencies": [{ "ref": "model", "dependsOn": refs }],
    })
}

fn hashes(subject: &Subject) -> Value {
    json!([{ "alg": "SHA-256", "content": subject.digest.sha256 }])
}

fn file(subject: &Subject) -> Value {
    json!({ "type": "file", "bom-ref": subject.name, "name": subject.name, "hashes": hashes(subject) })
}

fn data(facts: &Facts<'_>) -> Value {
    json!({
        "type": "data",
        "bom-ref": "data",
        "name": facts.setup.data,
        "data": [{ "type": "dataset", "name": facts.setup.data }],
        // Of the samples as they were read, which is the digest of no one file.
        "properties": [{ "name": "halfstep:data:fingerprint", "value": facts.setup.fingerprint }],
    })
}

fn model(facts: &Facts<'_>) -> Value {
    let setup = facts.setup;
    // The targets of a text are its own next tokens.
    let approach = if facts.task == TEXT { "self-supervised" } else { "supervised" };
    let mut model = json!({
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": setup.name,
        "version": facts.weights.digest.sha256,
        "description": format!("{}, trained in {} with seed {}", setup.model, facts.run.policy, facts.run.seed),
        "hashes": hashes(&facts.weights),
        "modelCard": {
            "modelParameters": {
                "approach": { "type": approach },
                "task": facts.task,
                "modelArchitecture": setup.model,
                "datasets": [{ "ref": "data" }],
            },
            "quantitativeAnalysis": { "performanceMetrics": metrics(facts) },
        },
        "properties": properties(facts),
    });
    if let Some(licence) = facts.licence {
        model["licenses"] = json!([{ "license": { "name": licence } }]);
    }
    model
}

/// Measures as the form has them, in texts.
fn metrics(facts: &Facts<'_>) -> Vec<Value> {
    let own = facts.measures.iter().map(|m| json!({ "type": m.name, "value": m.value.to_string() }));
    let difference = facts.judged.as_ref().and_then(|judged| judged.difference).map(|found| {
        let what = format!(
            "accuracy of {} less that of {}, mean over seeds",
            facts.run.policy, facts.setup.reference
        );
        let mut metric = json!({ "type": what, "value": found.mean.to_string() });
        // Each bound is one-sided at 95 %.
        if let (Some(lower), Some(upper)) = (found.lower, found.upper) {
            metric["confidenceInterval"] =
                json!({ "lowerBound": lower.to_string(), "upperBound": upper.to_string() });
        }
        metric
    });
    own.chain(difference).collect()
}

/// What the form has no place for, under names of our own.
fn properties(facts: &Facts<'_>) -> Vec<Value> {
    let precision = &facts.precision;
    let mut all = vec![
        ("file".to_string(), facts.weights.name.clone()),
        ("precision:policy".into(), precision.policy.clone()),
        ("precision:weights".into(), precision.weights.clone()),
        ("precision:scaling:loss".into(), precision.loss_scaling.clone()),
        (
            "precision:scaling:operands".into(),
            precision.operand_scaling.clone().unwrap_or_else(|| "none".into()),
        ),
    ];
    for (i, ((storage, compute, accumulation), count)) in precision.contractions.iter().enumerate() {
        let under = |name: &str| format!("precision:contractions:{i}:{name}");
        all.push((under("storage"), storage.clone()));
        all.push((under("compute"), compute.clone()));
        all.push((under("accumulation"), accumulation.clone()));
        all.push((under("count"), count.to_string()));
    }
    if let Some(judged) = &facts.judged {
        all.push(("verdict".into(), judged.verdict.clone()));
        all.push(("verdict:reference".into(), facts.setup.reference.clone()));
        all.push(("verdict:pairs".into(), judged.pairs.to_string()));
        all.push(("verdict:samples".into(), facts.setup.targets_measured.to_string()));
    }
    all.into_iter()
        .map(|(name, value)| json!({ "name": format!("halfstep:{name}"), "value": value }))
        .collect()
}
