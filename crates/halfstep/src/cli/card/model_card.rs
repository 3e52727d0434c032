//! A model card in Hugging Face's form: YAML in front of Markdown
//! (<https://huggingface.co/docs/hub/model-cards>).

use serde_json::{Value, json};

use super::facts::Facts;
use super::markdown;

/// The card's text.
pub fn text(facts: &Facts<'_>) -> String {
    format!("---\n{}---\n\n{}", yaml(&head(facts), 0), body(facts))
}

/// What programs read.
fn head(facts: &Facts<'_>) -> Value {
    let setup = facts.setup;
    let precision = &facts.precision;
    let metrics: Vec<Value> =
        facts.measures.iter().map(|m| json!({ "type": m.name, "value": m.value })).collect();
    let contractions: Vec<Value> = precision
        .contractions
        .iter()
        .map(|((storage, compute, accumulation), count)| {
            json!({ "storage": storage, "compute": compute, "accumulation": accumulation, "count": count })
        })
        .collect();
    let mut head = json!({
        "library_name": "halfstep",
        "pipeline_tag": facts.task,
        "tags": ["halfstep", "mixed-precision", precision.policy],
        "metrics": facts.measures.iter().map(|m| m.name).collect::<Vec<_>>(),
        "model-index": [{
            "name": setup.name,
            "results": [{
                "task": { "type": facts.task },
                "dataset": { "type": "local", "name": setup.data },
                "metrics": metrics,
            }],
        }],
        "halfstep": {
            "version": setup.version,
            "weights": { "file": facts.weights.name, "sha256": facts.weights.digest.sha256 },
            "precision": {
                "policy": precision.policy,
                "weights": precision.weights,
                "contractions": contractions,
                "scaling": {
                    "loss": precision.loss_scaling,
                    "operands": precision.operand_scaling.as_deref().unwrap_or("none"),
                },
            },
        },
    });
    if let Some(licence) = facts.licence {
        head["license"] = json!(licence);
    }
    head
}

/// A scalar of JSON, which YAML takes as it is but for characters that end its lines or that it
/// does not allow.
fn scalar(value: &Value) -> String {
    let special = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    let mut text = String::new();
    for c in value.to_string().chars() {
        match special(c) {
            true => text += &format!("\\u{:04x}", u32::from(c)),
            false => text.push(c),
        }
    }
    text
}

/// A value in YAML's block style.
fn yaml(value: &Value, indent: usize) -> String {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::Object(_) => format!("{pad}{key}:\n{}", yaml(value, indent + 2)),
                Value::Array(items) if items.is_empty() => format!("{pad}{key}: []\n"),
                Value::Array(_) => format!("{pad}{key}:\n{}", yaml(value, indent)),
                value => format!("{pad}{key}: {}\n", scalar(value)),
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(_) => format!("{pad}- {}", yaml(item, indent + 2).trim_start()),
                value => format!("{pad}- {}\n", scalar(value)),
            })
            .collect(),
        value => format!("{pad}{}\n", scalar(value)),
    }
}

/// What people read.
fn body(facts: &Facts<'_>) -> String {
    let (setup, run, precision) = (facts.setup, facts.run, &facts.precision);
    let mut text = format!(
        "# {}\n\n{} ({} parameters), trained on {} in {} with seed {}: {} steps of {} samples, on {}.\n\n",
        markdown::text(&setup.name),
        markdown::text(&setup.model),
        setup.parameters,
        markdown::text(&setup.data),
        run.policy,
        run.seed,
        setup.steps,
        setup.batch,
        markdown::text(&setup.processor)
    );
    if facts.licence.is_none() {
        text += "No licence is stated.\n\n";
    }
    text += "## Results\n\n";
    for measure in &facts.measures {
        text += &format!("* {} on the test data: {:.4}\n", measure.name, measure.value);
    }
    if let Some(judged) = &facts.judged {
        text += &format!(
            "* {} against {}: **{}**, over {} pairs of seeds and {} test targets\n",
            run.policy, setup.reference, judged.verdict, judged.pairs, setup.targets_measured
        );
    } else {
        text += &format!("* {} is the reference that others were measured against\n", run.policy);
    }
    text += "\n## Precision\n\n| contractions of a training step | stored | multiplied | summed |\n|--:|---|---|---|\n";
    for ((storage, compute, accumulation), count) in &precision.contractions {
        text += &format!("| {count} | {storage} | {compute} | {accumulation} |\n");
    }
    text += &format!(
        "\nWeights are kept in {}. Loss scaling: {}. Scaling of operands below 16 bits: {}.\n",
        precision.weights,
        precision.loss_scaling,
        precision.operand_scaling.as_deref().unwrap_or("none")
    );
    text += "\n## Files\n\n| file | SHA-256 |\n|---|---|\n";
    for subject in std::iter::once(&facts.weights).chain(&facts.evidence) {
        text += &format!("| {} | `{}` |\n", markdown::code(&subject.name), subject.digest.sha256);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_line_of_yaml() {
        let odd = json!({ "name": "a\u{7f}\u{85}\u{9b}\u{2028}\u{feff}\n\u{1b}: \"é\" # \\" });
        assert_eq!(
            yaml(&odd, 0),
            "name: \"a\\u007f\\u0085\\u009b\\u2028\\ufeff\\n\\u001b: \\\"é\\\" # \\\\\"\n"
        );
    }
}
