//! `halfstep verdict` as a release script runs it.

use crate::common::{Place, both};
use serde_json::Value;

const PLAIN: &[u8] = include_bytes!("../../../evidence/tests/golden/plain.npz");
const HALF: &[u8] = include_bytes!("../../../evidence/tests/golden/compressed.npz");
const SINGLE: &[u8] = include_bytes!("../../../evidence/tests/golden/single.safetensors");

/// Safetensors of `n` samples in three classes: the label's logit is `margin` where the answer is
/// right. In every `wrong`-th sample the next class has it.
fn logits(n: usize, wrong: usize, margin: f32, seed: u64) -> Vec<u8> {
    let mut x = Vec::new();
    let labels: Vec<i64> = (0..n).map(|i| (i % 3) as i64).collect();
    for i in 0..n {
        // A seed's own few errors, so that there is a spread.
        let is_wrong = i.is_multiple_of(wrong) || (i * 7 + seed as usize * 13).is_multiple_of(101);
        let answer = if is_wrong { (i + 1) % 3 } else { i % 3 };
        x.extend((0..3).map(|k| if k == answer { margin } else { 0.0f32 }));
    }
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let label_bytes: Vec<u8> = labels.iter().flat_map(|v| v.to_le_bytes()).collect();
    use safetensors::{Dtype, tensor::TensorView};
    let tensors = [
        ("logits", TensorView::new(Dtype::F32, vec![n, 3], &bytes).unwrap()),
        ("labels", TensorView::new(Dtype::I64, vec![n], &label_bytes).unwrap()),
    ];
    let metadata = std::collections::HashMap::from([("seed".to_string(), seed.to_string())]);
    safetensors::serialize(tensors, Some(metadata)).unwrap()
}

fn code(place: &Place, args: &[&str]) -> (i32, String) {
    let output = place.run(args);
    (output.status.code().unwrap(), both(&output))
}

#[test]
fn the_exit_code_is_the_verdict() {
    let place = Place::new();
    for seed in 0..4u64 {
        place.write(&format!("a{seed}.safetensors"), logits(3000, 10, 2.5, seed));
        // Another order of files: seeds pair them.
        place.write(&format!("same{}.safetensors", 3 - seed), logits(3000, 10, 2.5, seed));
        place.write(&format!("worse{seed}.safetensors"), logits(3000, 5, 2.5, seed));
    }
    let files = |name: &str, n: usize| (0..n).map(|i| format!("{name}{i}.safetensors")).collect::<Vec<_>>();
    let run = |candidate: &str, n: usize, more: &[&str]| {
        let (a, mut b) = (files("a", n), files(candidate, 4));
        if candidate == "same" {
            b.reverse();
        }
        b.truncate(n);
        b.reverse();
        let mut args = vec!["verdict", "--baseline"];
        args.extend(a.iter().map(String::as_str));
        args.push("--candidate");
        args.extend(b.iter().map(String::as_str));
        args.extend(more);
        code(&place, &args)
    };
    let (exit, said) = run("same", 4, &[]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.starts_with("PASS: 4 pairs of files, paired by seed"), "{said}");
    let (exit, said) = run("worse", 4, &[]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("accuracy: worse by at least"), "{said}");
    // Without logits of some runs, divergence decides: three of seven are more than 5 %.
    let (exit, said) = run("same", 4, &["--diverged", "3", "--max-divergence", "5%"]);
    assert_eq!(exit, 1, "{said}");
    // No run diverged, but four are too few to say so.
    let (exit, said) = run("same", 4, &["--max-divergence", "5%"]);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("59 clean runs"), "{said}");
    // Changed answers of one pair have no floor to be compared with; accuracy needs none.
    let (exit, said) = run("same", 1, &["--margin", "flips=1pt"]);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("flips: not judged, so there is no pass"), "{said}");
    assert_eq!(run("same", 1, &["--margin", "flips=1pt", "--floor", "none"]).0, 0);
    assert_eq!(run("same", 1, &[]).0, 0);

    let (exit, text) = run("worse", 4, &["--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &json["verdict"]), (1, &Value::from("fail")));
    let row = json["rows"].as_array().unwrap().iter().find(|r| r["metric"] == "accuracy").unwrap();
    assert!(
        row["test"]["p_fail"].as_f64().unwrap() < 0.05
            && row["on_samples"]["harm_at_least"].as_f64().unwrap() > 0.0
    );
    assert_eq!(json["seeds"].as_array().unwrap().len(), 4);
}

#[test]
fn what_cannot_be_judged_has_its_own_code() {
    let place = Place::new();
    place.write("a.npz", PLAIN);
    place.write("half.npz", HALF);
    place.write("s.safetensors", SINGLE);
    place.write("cut.npz", &PLAIN[..PLAIN.len() - 100]);
    place.write("other.safetensors", logits(90, 10, 2.0, 7));
    place.write("longer.safetensors", logits(120, 10, 2.0, 7));
    let mut nan = SINGLE.to_vec();
    // The logits lie before the labels or behind them: the last four bytes of theirs become NaN.
    let text = String::from_utf8_lossy(&SINGLE[8..]).into_owned();
    let offsets = text.split("\"logits\"").nth(1).unwrap().split('[').nth(2).unwrap();
    let end: usize = offsets.split([',', ']']).nth(1).unwrap().trim().parse().unwrap();
    let start = 8 + u64::from_le_bytes(SINGLE[..8].try_into().unwrap()) as usize;
    nan[start + end - 4..start + end].copy_from_slice(&f32::NAN.to_le_bytes());
    place.write("nan.safetensors", nan);

    // The same numbers in both formats: that none of 120 answers changed shows less than 3 points,
    // not less than 1.
    let args = ["verdict", "--baseline", "a.npz", "--candidate", "s.safetensors"];
    let (exit, same) = code(&place, &args);
    assert!(exit == 2 && same.contains("one pair of files") && same.contains("up to 2.47 pt"), "{same}");
    assert_eq!(code(&place, &[&args[..], &["--margin", "accuracy=3pt"]].concat()).0, 0);
    let cases: &[(&[&str], &str)] = &[
        (&["--baseline", "a.npz"], "--candidate"),
        (&["--baseline", "a.npz", "--candidate", "none.npz"], "none.npz"),
        (&["--baseline", "a.npz", "--candidate", "a.npz", "a.npz"], "do not pair"),
        (&["--baseline", "a.npz", "--candidate", "half.npz"], "some files name their seed"),
        (&["--baseline", "a.npz", "--candidate", "cut.npz"], "cut.npz: not a whole .npz file"),
        (&["--baseline", "a.npz", "--candidate", "other.safetensors"], "do not divide their samples alike"),
        (&["--baseline", "longer.safetensors", "--candidate", "other.safetensors"], "90 samples, but longer"),
        (&["--baseline", "a.npz", "--candidate", "nan.safetensors"], "row 119, class 2 is NaN"),
        (&["--baseline", "a.npz", "--candidate", "a.npz", "--margin", "acuracy=1pt"], "there is no metric"),
        (&["--baseline", "a.npz", "--candidate", "a.npz", "--margin", "accuracy=1%"], "1.0pt"),
        (&["--baseline", "a.npz", "--candidate", "a.npz", "--max-divergence", "5"], "5% or 0.05"),
    ];
    for (args, expected) in cases {
        let said = place.fails(3, &[&["verdict"], *args].concat());
        // Messages are wrapped to the terminal.
        let said = said.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn a_baseline_that_knows_nothing_gives_no_verdict() {
    let place = Place::new();
    // Equal logits: a constant answer.
    place.write("constant.safetensors", logits(600, 10, 0.0, 0));
    place.write("good.safetensors", logits(600, 10, 2.5, 0));
    // Neither one that is as bad, nor one that is better.
    for candidate in ["constant.safetensors", "good.safetensors"] {
        let args = ["verdict", "--baseline", "constant.safetensors", "--candidate", candidate];
        let (code, said) = code(&place, &[&args[..], &["--margin", "accuracy=50pt"]].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("is not shown better than a constant predictor"), "{said}");
    }
}
