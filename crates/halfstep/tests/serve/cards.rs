//! Model cards and bills of materials as a person meets them. `scripts/check_cards.py` has others
//! read them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::{Place, TINY};

/// SHA-256 of every file of a folder.
fn digests(place: &Place, folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in place.everything().iter().filter(|name| name.starts_with(folder)) {
        let path = place.path(name);
        if path.is_file() {
            found.insert(halfstep_attest::digest::Digest::of_file(&path).unwrap().to_string());
        }
    }
    found
}

/// Every text in JSON that could be a SHA-256.
fn hexes(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            found.push(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| hexes(item, found)),
        Value::Object(map) => map.values().for_each(|item| hexes(item, found)),
        _ => {}
    }
}

#[test]
fn every_digest_in_a_card_is_that_of_a_file() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.compare(&["recipe.toml", "--precisions", "fp32,bf16", "--out", "cmp"]);
    let there = digests(&place, "cmp");
    let results: Value =
        serde_json::from_slice(&std::fs::read(place.path("cmp/results.json")).unwrap()).unwrap();
    let fingerprint = results["arms"][0]["setup"]["fingerprint"].as_str().unwrap();
    for (policy, seed) in [("bf16", "1"), ("fp32", "0")] {
        place.ok(&["card", "cmp", "--precision", policy, "--seed", seed, "--out", "cards", "--force"]);
        let bom: Value =
            serde_json::from_slice(&std::fs::read(place.path("cards/model.cdx.json")).unwrap()).unwrap();
        let mut found = Vec::new();
        hexes(&bom, &mut found);
        // Weights twice, for they are the model's version too; logits, recipe, plan, preprocessing,
        // and the fingerprint of the data, which is no file's.
        assert_eq!(found.len(), 7);
        for digest in found.iter().filter(|digest| *digest != fingerprint) {
            assert!(there.contains(digest), "{digest}");
        }
        let card = std::fs::read_to_string(place.path("cards/README.md")).unwrap();
        let in_card: Vec<&str> =
            card.split(|c: char| !c.is_ascii_hexdigit()).filter(|w| w.len() == 64).collect();
        assert_eq!(in_card.len(), 1 + 5);
        assert!(in_card.iter().all(|digest| there.contains(*digest)), "{card}");
        let weights = format!("checkpoints/{policy}-seed{seed}.safetensors");
        assert!(card.contains(&format!("| `{weights}` |")), "{card}");
        assert_eq!(bom["metadata"]["component"]["name"], "tiny");
        assert_eq!(card.contains("against fp32"), policy == "bf16");
    }
    // The same folder gives the same bytes.
    let before = std::fs::read(place.path("cards/model.cdx.json")).unwrap();
    place.ok(&["card", "cmp", "--precision", "fp32", "--out", "cards", "--force"]);
    assert_eq!(std::fs::read(place.path("cards/model.cdx.json")).unwrap(), before);
    controls(&place, &there);
}

/// Every control has a file that is there, by its digest, or none; a verdict only if it is signed.
fn controls(place: &Place, comparison: &BTreeSet<String>) {
    let card =
        ["card", "cmp", "--precision", "bf16", "--seed", "1", "--out", "cards", "--force", "--controls"];
    let page = || {
        let printed: Value = serde_json::from_str(&place.ok(&[&card[..], &["--json"]].concat())).unwrap();
        let text = std::fs::read_to_string(place.path("cards/CONTROLS.md")).unwrap();
        (printed["controls"].clone(), text)
    };
    let rows =
        |text: &str, with: &str| text.lines().filter(|l| l.starts_with("| ") && l.contains(with)).count();
    let (printed, text) = page();
    // 72, 38 and 23 controls; risks of generative models are left out of one of images.
    assert_eq!(printed["controls"], 133);
    assert!(text.contains("Left out: this model does not generate."), "{text}");
    let evidenced = printed["evidenced"].as_u64().unwrap() as usize;
    assert_eq!(evidenced + rows(&text, "| not evidenced |"), 133);
    assert!(!text.contains("verdict.sig"), "{text}");
    place.ok(&["key", "new", "--no-passphrase", "--out", "key.pem"]);
    place.ok(&["sign", "cmp", "--verdict", "--key", "key.pem"]);
    let (_, text) = page();
    assert_eq!(rows(&text, "`verdict.sig`"), 6, "{text}");
    let mut there = digests(place, "cards");
    there.extend(digests(place, "cmp"));
    assert!(comparison.is_subset(&there));
    let in_page: Vec<&str> = text.split(|c: char| !c.is_ascii_hexdigit()).filter(|w| w.len() == 64).collect();
    assert!(in_page.len() > 8 && in_page.iter().all(|digest| there.contains(*digest)), "{text}");
    // A verdict of other weights is no evidence.
    place.write("cmp/verdict.sig", "{}");
    assert_eq!(page().1.matches("verdict.sig").count(), 0);
}

#[test]
fn a_card_of_no_model_is_refused() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.compare(&["recipe.toml", "--precisions", "fp32,bf16", "--out", "cmp"]);
    let fails = |args: &[&str]| place.fails(2, &[&["card", "cmp"], args].concat());
    assert!(fails(&["--precision", "bf61"]).contains("did you mean `bf16`?"));
    assert!(fails(&["--precision", "bf16", "--seed", "9"]).contains("the seeds are 0, 1"));
    assert!(fails(&["--precision", "bf16", "--arm", "a"]).contains("no arm `a`"));
    for licence in ["", " ", "mit\nmodel-index: x"] {
        assert!(fails(&["--precision", "bf16", "--license", licence]).contains("names no licence"));
    }
    place.ok(&["card", "cmp", "--precision", "bf16"]);
    assert!(fails(&["--precision", "bf16"]).contains("exists already"));
    std::fs::remove_file(place.path("cmp/checkpoints/bf16-seed0.safetensors")).unwrap();
    assert!(fails(&["--precision", "bf16", "--force"]).contains("is not there"));
    place.write("empty/x", "");
    assert!(place.fails(2, &["card", "empty", "--precision", "bf16"]).contains("halfstep compare"));
}
