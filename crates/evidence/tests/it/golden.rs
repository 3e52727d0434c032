//! Measures and tests against their reference implementations: `scripts/golden_measures.py` says
//! which and how.

use halfstep_evidence::exact;
use halfstep_evidence::measures::{
    self, Agreement, GroupColumn, GroupTable, Quality, detection, temperature,
};
use halfstep_evidence::noninferiority::{Asked, Better, Margin, MarginTest, Question};
use halfstep_evidence::power::{Plan, Spread};
use halfstep_evidence::stats::{ALPHA, Looks, Paired};
use serde_json::Value;

/// Sums of a few hundred f64 terms, in another order and with another exponential: γ(1000) = 1000 ·
/// 2^-53 ≈ 1e-13, and the sums are of order one to ten.
const F64: f64 = 1e-11;

/// torchmetrics sums at most 200 confidences in f32: γ(200) = 200 · 2^-24.
const F32: f64 = 200.0 * 6e-8;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/measures.json")).unwrap()
}

fn numbers(v: &Value) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn near(what: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours}, reference {theirs}");
}

#[test]
fn measures_agree_with_their_references() {
    let golden = golden();
    for set in golden["sets"].as_array().unwrap() {
        let classes = set["classes"].as_u64().unwrap() as usize;
        let labels: Vec<u32> =
            set["labels"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap() as u32).collect();
        let models = [numbers(&set["first"]), numbers(&set["second"])];
        let mut exps = vec![0.0; classes];
        for (model, expected) in models.iter().zip(set["quality"].as_array().unwrap()) {
            let mut quality = Quality::default();
            for (row, &label) in model.chunks(classes).zip(&labels) {
                quality.push(&measures::measure(row, label, &mut exps));
            }
            let q = quality.values().unwrap();
            // Accuracies come from torchmetrics as f32.
            near("accuracy", q.accuracy, &expected["accuracy"], 6e-8);
            near("top 5", q.top_5, &expected["top_5"], 6e-8);
            near("nll", q.nll, &expected["nll"], F64);
            near("perplexity", q.perplexity, &expected["perplexity"], F64 * q.perplexity);
            near("brier", q.brier, &expected["brier"], F64);
            near("ece", q.ece, &expected["ece"], F32);
            near("ece debiased", q.ece_debiased, &expected["ece_debiased"], F64);
            let t = temperature::fit(model, &labels, classes).unwrap();
            // A minimiser by values finds the place to the root of the precision, the value to the
            // precision.
            near("temperature", t.temperature, &expected["temperature"], 1e-6);
            near("nll after", t.nll_after, &expected["nll_after"], F64);
        }
        let texts: Vec<String> =
            set["groups"].as_array().unwrap().iter().map(|g| g.as_str().unwrap().into()).collect();
        let column = GroupColumn::new("region", &texts);
        let (mut agreement, mut table) = (Agreement::default(), GroupTable::new(&column));
        let (mut own, mut foreign): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (i, &label) in labels.iter().enumerate() {
            let row = |m: usize| &models[m][i * classes..(i + 1) * classes];
            let (a, b, kl) = measures::measure_pair(row(0), row(1), label, &mut exps);
            agreement.push(&a, &b, kl);
            table.push(column.codes[i], i as u64, &a, &b, kl, None);
            own.push(a);
        }
        for row in numbers(&set["foreign"]).chunks(classes) {
            foreign.push(measures::measure(row, 0, &mut exps));
        }
        let v = agreement.values().unwrap();
        near("flips", v.flips, &set["flips"], F64);
        near("negative flips", v.negative_flips, &set["negative_flips"], F64);
        near("positive flips", v.positive_flips, &set["positive_flips"], F64);
        near("kl", v.kl, &set["kl"], F64);
        near("mcnemar", v.mcnemar, &set["mcnemar"], F64);
        let scores = |samples: &[measures::Sample], f: fn(&measures::Sample) -> f64| {
            samples.iter().map(f).collect::<Vec<_>>()
        };
        for (name, f) in
            [("max_softmax", (|s| -s.confidence) as fn(&measures::Sample) -> f64), ("energy", |s| s.energy)]
        {
            let d = detection::detection(&scores(&own, f), &scores(&foreign, f)).unwrap();
            near("auroc", d.auroc, &set[name]["auroc"], F64);
            near("aupr", d.aupr, &set[name]["aupr"], F64);
            near("fpr at 95", d.fpr_at_95, &set[name]["fpr_at_95"], F64);
        }
        assert_eq!(table.values, ["north", "south", "west"]);
        for (value, row) in table.values.iter().zip(&table.rows) {
            let q = row.candidate.values().unwrap();
            near(value, q.accuracy, &set["by_group"][value]["accuracy"], F64);
            assert_eq!(q.samples, set["by_group"][value]["samples"].as_u64().unwrap());
        }
    }
}

#[test]
fn tests_and_bounds_agree_with_scipy() {
    let golden = golden();
    let plan = |ratio: f64| Plan::of(Spread::of_seeds(ratio), 1.0);
    for case in golden["power"].as_array().unwrap() {
        let ours = plan(case[1].as_f64().unwrap()).power(case[0].as_u64().unwrap() as usize, 1.0);
        // Both integrate numerically; nine digits decide no number of seeds.
        near("power", ours, &case[2], 1e-9);
    }
    for case in golden["bounds"].as_array().unwrap() {
        let (k, n) = (case[0].as_u64().unwrap(), case[1].as_u64().unwrap());
        near("lower bound", exact::lower_bound(k, n, ALPHA), &case[2], 1e-9);
        near("upper bound", exact::upper_bound(k, n, ALPHA), &case[3], 1e-9);
    }
    let paired = &golden["paired"];
    let pairs: Vec<(f64, f64)> = paired["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p[0].as_f64().unwrap(), p[1].as_f64().unwrap()))
        .collect();
    let test = |question| {
        let asked =
            Asked { better: Better::Higher, margin: Margin::Absolute(0.01), question, looks: Looks::ONE };
        MarginTest::of_seeds(&pairs, asked, None).unwrap()
    };
    let t = test(Question::NonInferiority);
    near("p of pass", t.p_pass.unwrap(), &paired["p_pass"], 1e-9);
    near("p of fail", t.p_fail.unwrap(), &paired["p_fail"], 1e-9);
    near("bound", t.harm_at_most.unwrap(), &paired["upper"], 1e-9);
    near("correlation", Paired::of(&pairs).unwrap().correlation.unwrap(), &paired["correlation"], 1e-12);
    near("tost", test(Question::Equivalence).p_pass.unwrap(), &paired["tost"], 1e-9);
}
