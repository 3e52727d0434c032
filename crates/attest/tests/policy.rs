//! What a policy asks of a verdict, each demand alone.

use halfstep_attest::DateTime;
use halfstep_attest::bundle::{self, Bundle};
use halfstep_attest::digest::Digest;
use halfstep_attest::policy::{Admission, Policy, Unmet};
use halfstep_attest::private_key::PrivateKey;
use halfstep_attest::statement::Statement;
use halfstep_attest::trust::{Refusal, Trust, Verified};
use serde_json::{Value, json};

const POLICY: &str = r#"
claim = "examples"
samples = 1000
pairs = 3
precisions = ["bf16"]
max_age_days = 30

[margins]
accuracy = "1.0pt"
nll = 0.02
"#;

fn at(text: &str) -> DateTime {
    text.parse().unwrap()
}

fn subject(name: &str) -> Value {
    json!({ "name": name, "digest": { "sha256": Digest::of(name.as_bytes()) } })
}

fn metric(name: &str, kind: &str, margin: Value) -> Value {
    json!({
        "metric": name, "reference": 0.9, "candidate": 0.9, "unit": "seeds",
        "test": { "margin": { "kind": kind, "value": margin }, "verdict": "pass" },
    })
}

/// A verdict that meets every demand of [`POLICY`].
fn verdict() -> Value {
    let run = |policy: &str| {
        let logits = subject(&format!("{policy} logits"));
        json!({ "policy": policy, "seed": 0, "weights": subject(policy), "logits": logits })
    };
    json!({
        "name": "n", "made": "2026-11-01T12:00:00Z", "version": "0.1.0",
        "arms": [{
            "name": "n", "model": "mlp", "data": "digits", "data_sha256": "00", "engine": "CPU",
            "processor": "p", "samples": 1000, "seeds": [0, 1, 2], "reference": "fp32",
            "files": [subject("recipe.toml")],
            "candidates": [{
                "policy": "bf16", "verdict": "pass", "pairs": 3, "protocol": { "claim": "examples" },
                "metrics": [metric("accuracy", "absolute", json!(0.01)), metric("nll", "absolute", json!(0.02))],
            }],
            "runs": [run("fp32"), run("bf16")],
        }],
    })
}

/// The verdict as somebody signed it, judged by who trusts that signer.
fn signed(verdict: &Value) -> Verified {
    let key = PrivateKey::generate().unwrap();
    let mut trust = Trust::default();
    trust.add_key("release", key.public());
    trust.verify(&bundle_of(verdict, &key), at("2026-11-28T12:00:00Z")).unwrap()
}

fn bundle_of(verdict: &Value, key: &PrivateKey) -> Bundle {
    let statement = match verdict.get("arms") {
        Some(_) => Statement::of_verdict(serde_json::from_value(verdict.clone()).unwrap()),
        None => Statement::of_pair(serde_json::from_value(verdict.clone()).unwrap()),
    };
    let text = bundle::sign(statement.to_json().as_bytes(), key);
    Bundle::parse(text.as_bytes()).unwrap()
}

/// What is not met for the weights of a name, as sentences.
fn unmet(policy: &str, verdict: &Value, weights: &str) -> Vec<String> {
    let policy = Policy::parse(policy).unwrap();
    let verified = signed(verdict);
    let judged = policy.judge(&verified, Digest::of(weights.as_bytes()));
    judged.err().into_iter().flatten().map(|unmet: Unmet| unmet.to_string()).collect()
}

#[test]
fn a_verdict_that_meets_every_demand_admits() {
    let verified = signed(&verdict());
    let policy = Policy::parse(POLICY).unwrap();
    let admission = policy.judge(&verified, Digest::of(b"bf16")).unwrap();
    assert!(matches!(admission, Admission::Judged(_, candidate) if candidate.policy == "bf16"));
    // Narrower than asked for, and a claim of more than is asked for.
    let less = POLICY.replace("\"examples\"", "\"samples\"").replace("1.0pt", "1.5pt");
    assert_eq!(unmet(&less, &verdict(), "bf16"), [""; 0]);
    // One number, written in two ways that differ by a rounding.
    assert_ne!(0.55_f64 / 100.0, 0.0055);
    let mut same = verdict();
    same["arms"][0]["candidates"][0]["metrics"][0] = metric("accuracy", "absolute", json!(0.55 / 100.0));
    assert_eq!(unmet(&POLICY.replace("\"1.0pt\"", "0.0055"), &same, "bf16"), [""; 0]);
}

#[test]
fn each_demand_refuses_alone_and_says_both_numbers() {
    let cases: [(&str, Value, &str); 18] = [
        ("verdict", json!("inconclusive"), "the verdict is `inconclusive`, and the policy asks for `pass`"),
        ("verdict", json!("fail"), "the verdict is `fail`, and the policy asks for `pass`"),
        ("pairs", json!(2), "rests on 2 pairs of seeds, and the policy asks for 3 or more"),
        ("protocol/claim", json!("samples"), "claim is `samples`, and the policy asks for `examples`"),
        ("protocol/claim", json!("all"), "claim is `all`, and the policy asks for `examples`"),
        ("protocol", Value::Null, "claim is not stated, and the policy asks for `examples`"),
        (
            "metrics/0",
            metric("accuracy", "absolute", json!(0.011)),
            "accuracy is 0.011, and the policy asks for 0.01 or less",
        ),
        (
            "metrics/1",
            metric("nll", "relative", json!(0.01)),
            "nll is 1 % of the reference's value, and the policy states one of the other kind, 0.02",
        ),
        ("metrics/0", metric("accuracy", "absolute", Value::Null), "accuracy is `null`, which is none"),
        ("metrics/0", metric("accuracy", "absolute", json!(-1)), "accuracy is `-1`, which is none"),
        ("metrics/0", metric("accuracy", "absolute", json!("0.01")), "accuracy is `\"0.01\"`, which is none"),
        ("metrics/0", metric("accuracy", "squared", json!(0.01)), "accuracy is `0.01`, which is none"),
        ("metrics/0/test", Value::Null, "accuracy is `null`, which is none"),
        ("metrics/0", json!(7), "accuracy was not judged (judged were: ?, nll)"),
        (
            "metrics",
            json!([metric("nll", "absolute", json!(0.02))]),
            "accuracy was not judged (judged were: nll), and the policy asks for a margin of 0.01 or less",
        ),
        (
            "metrics/0/test/verdict",
            json!("inconclusive"),
            "accuracy came to `inconclusive`, and the policy asks for `pass`",
        ),
        ("metrics/0/test/verdict", json!(null), "accuracy came to `nothing`, and the policy asks for `pass`"),
        ("policy", json!("fp16"), ""),
    ];
    for (place, value, sentence) in cases {
        let mut wrong = verdict();
        *wrong.pointer_mut(&format!("/arms/0/candidates/0/{place}")).unwrap() = value.clone();
        if place == "policy" {
            wrong["arms"][0]["runs"][1]["policy"] = value;
            assert_eq!(unmet(POLICY, &wrong, "bf16"), ["the precision is fp16, and the policy allows bf16"]);
            continue;
        }
        let said = unmet(POLICY, &wrong, "bf16");
        // A metric without a test has no margin, and came to nothing.
        let expected = if place == "metrics/0/test" { 2 } else { 1 };
        assert!(said.len() == expected && said[0].contains(sentence), "{place}: {said:?}");
    }
    let mut few = verdict();
    few["arms"][0]["samples"] = json!(999);
    let said = unmet(POLICY, &few, "bf16");
    assert_eq!(said, ["the verdict rests on 999 samples, and the policy asks for 1000 or more"]);
    // All at once, in place of one after the other.
    few["arms"][0]["candidates"][0]["pairs"] = json!(1);
    assert_eq!(unmet(POLICY, &few, "bf16").len(), 2);
}

#[test]
fn accuracy_in_groups_is_asked_of_every_group() {
    let policy = POLICY.replace("nll = 0.02", "group-accuracy = \"3pt\"");
    let said = unmet(&policy, &verdict(), "bf16");
    assert!(said.len() == 1 && said[0].starts_with("group-accuracy was not judged"), "{said:?}");
    let mut grouped = verdict();
    let metrics = grouped["arms"][0]["candidates"][0]["metrics"].as_array_mut().unwrap();
    metrics.push(metric("accuracy of region=west", "absolute", json!(0.03)));
    metrics.push(metric("accuracy of region=east", "absolute", json!(0.04)));
    let said = unmet(&policy, &grouped, "bf16");
    assert!(said.len() == 1 && said[0].contains("accuracy of region=east is 0.04"), "{said:?}");
}

#[test]
fn a_verdict_speaks_for_no_other_weights() {
    let said = unmet(POLICY, &verdict(), "converted");
    assert!(said.len() == 1 && said[0].contains("`n` does not name these weights"), "{said:?}");
    let said = unmet(POLICY, &verdict(), "bf16 logits");
    assert!(said.len() == 1 && said[0].contains("`bf16 logits`, which is no model"), "{said:?}");
}

#[test]
fn a_reference_is_promoted_only_where_the_policy_says_so() {
    let said = unmet(POLICY, &verdict(), "fp32");
    assert!(said.len() == 1 && said[0].contains("`reference = \"allowed\"` does"), "{said:?}");
    let allowing = format!("reference = \"allowed\"\n{POLICY}");
    let verified = signed(&verdict());
    let admission = Policy::parse(&allowing).unwrap();
    let admission = admission.judge(&verified, Digest::of(b"fp32")).unwrap();
    assert!(matches!(admission, Admission::Reference(arm) if arm.reference == "fp32"));
    let mut low = verdict();
    low["arms"][0]["runs"][0]["policy"] = json!("tf32");
    let said = unmet(&allowing, &low, "fp32");
    assert!(said.len() == 1 && said[0].contains("tf32, which nothing judged"), "{said:?}");
}

/// A verdict of one pair that meets every demand of [`POLICY`] but that it is of one.
fn pair() -> Value {
    let side = |name: &str| json!({ "weights": subject(name), "logits": subject(&format!("{name} logits")) });
    let candidate = &verdict()["arms"][0]["candidates"][0];
    json!({
        "made": "2026-11-01T12:00:00Z", "version": "0.1.0", "converted": side("int8"), "parent": side("fp32"),
        "samples": 1000, "verdict": "pass", "protocol": candidate["protocol"], "metrics": candidate["metrics"],
    })
}

#[test]
fn a_converted_model_is_promoted_by_its_own_verdict_where_the_policy_says_so() {
    let said = unmet(POLICY, &pair(), "int8");
    assert!(said.len() == 1 && said[0].contains("`converted = \"allowed\"` does"), "{said:?}");
    let allowing = format!("converted = \"allowed\"\n{POLICY}");
    let verified = signed(&pair());
    let policy = Policy::parse(&allowing).unwrap();
    let admission = policy.judge(&verified, Digest::of(b"int8")).unwrap();
    assert!(matches!(admission, Admission::Converted(pair) if pair.parent.weights.name == "fp32"));
    // What is not of seeds is asked of it as of any.
    let cases = [
        ("samples", json!(999), "rests on 999 samples, and the policy asks for 1000"),
        ("verdict", json!("fail"), "the verdict is `fail`"),
        ("made", json!("2026-01-01T12:00:00Z"), "331 days before"),
        ("protocol", json!({ "claim": "samples" }), "claim is `samples`"),
        ("metrics", json!([]), "accuracy was not judged (judged were: none)"),
    ];
    for (place, value, says) in cases {
        let mut wrong = pair();
        wrong[place] = value;
        let said = unmet(&allowing, &wrong, "int8");
        assert!(said[0].contains(says), "{place}: {said:?}");
    }
    // The parent is not judged by it, whatever the policy allows, and neither is any other.
    let all = format!("reference = \"allowed\"\n{allowing}");
    assert!(unmet(&all, &pair(), "fp32")[0].contains("those of the parent"));
    assert!(unmet(&all, &pair(), "int8 logits")[0].contains("which is no model"));
    assert!(unmet(&all, &pair(), "bf16")[0].contains("does not name these weights"));
    // A comparison's verdict does not name it.
    assert!(unmet(&all, &verdict(), "int8")[0].contains("does not name these weights"));
}

#[test]
fn an_old_verdict_is_refused_where_its_age_is_limited() {
    let made = |time: &str| {
        let mut verdict = verdict();
        verdict["made"] = json!(time);
        unmet(POLICY, &verdict, "bf16")
    };
    // The signature is judged at noon on the 28th.
    assert_eq!(made("2026-10-29T12:00:00Z"), [""; 0]);
    let said = made("2026-10-29T11:59:59Z");
    assert!(said.len() == 1 && said[0].contains("30 days before"), "{said:?}");
    assert_eq!(made("2026-11-28T12:05:00Z"), [""; 0]);
    assert!(made("2026-11-28T12:05:01Z")[0].contains("after the time of this check"));
    assert!(made("yesterday")[0].contains("states `yesterday` as its time"));
    let mut old = verdict();
    old["made"] = json!("1999-01-01T00:00:00Z");
    assert_eq!(unmet(&POLICY.replace("max_age_days = 30", ""), &old, "bf16"), [""; 0]);
}

#[test]
fn a_verdict_that_a_stranger_signed_or_that_is_none_is_refused() {
    let (ours, theirs) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let mut trust = Trust::default();
    trust.add_key("release", ours.public());
    let now = at("2026-11-28T12:00:00Z");
    let foreign = trust.verify(&bundle_of(&verdict(), &theirs), now);
    assert!(matches!(foreign, Err(Refusal::UnknownKey(_))), "{foreign:?}");

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "bf16").unwrap();
    let manifest = halfstep_attest::model::Manifest::of_folder(folder.path(), &[]).unwrap();
    let text = bundle::sign(Statement::of_model("m", manifest).to_json().as_bytes(), &ours);
    let verified = trust.verify(&Bundle::parse(text.as_bytes()).unwrap(), now).unwrap();
    let judged = Policy::parse(POLICY).unwrap().judge(&verified, Digest::of(b"bf16")).unwrap_err();
    assert_eq!(judged, [Unmet::NoVerdict]);
}

#[test]
fn what_is_no_policy_is_refused_with_its_line() {
    let cases = [
        ("claim = \"examples\"", "claim = \"exmples\"", "line 2"),
        ("claim = \"examples\"", "", "missing field `claim`"),
        ("samples = 1000", "samples = 0", "line 3"),
        ("samples = 1000", "sample = 1000", "line 3"),
        ("pairs = 3", "pairs = -3", "line 4"),
        ("pairs = 3", "", "missing field `pairs`"),
        ("precisions = [\"bf16\"]", "precisions = []", "`precisions` is empty"),
        ("max_age_days = 30", "max_age_days = 0.5", "line 6"),
        ("\"1.0pt\"", "\"1.0\"", "line 9"),
        ("\"1.0pt\"", "\"pt\"", "line 9"),
        ("\"1.0pt\"", "\"-1pt\"", "above zero"),
        ("\"1.0pt\"", "\"infpt\"", "above zero"),
        ("0.02", "nan", "line 10"),
        ("0.02", "inf", "above zero"),
        ("0.02", "0", "above zero"),
        ("0.02", "\"off\"", "line 10"),
        ("0.02", "true", "a margin: \"1.0pt\""),
        ("accuracy = \"1.0pt\"\nnll = 0.02", "", "`margins` is empty"),
        ("[margins]", "[margin]", "unknown field `margin`"),
        ("pairs = 3", "pairs = 3\nreference = true", "reference"),
    ];
    for (from, to, says) in cases {
        assert!(POLICY.contains(from), "{from}");
        let error = Policy::parse(&POLICY.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
}
