//! A registry as a person meets it.

use crate::signing::{Signing, WIDE, compared};

/// What a promotion asks of a comparison by [`compared`].
const POLICY: &str = "claim = \"samples\"\nsamples = 100\npairs = 2\n[margins]\naccuracy = 0.9\n";

/// A registry with the two precisions of a signed comparison, the second of which is the candidate.
fn with_versions() -> Signing {
    let place = Signing::new();
    compared(&place, 30, WIDE);
    place.ok(&["sign", "cmp", "--verdict", "--key", "key.pem"]);
    for checkpoint in ["fp32-seed0", "bf16-seed0"] {
        let add = ["registry", "add", "cmp", "--as", "digits", "--checkpoint", checkpoint];
        place.ok(&[&add[..], &["--sign", "--key", "key.pem"]].concat());
    }
    let public = std::fs::read_to_string(place.0.path("key.pub.pem")).unwrap();
    place.0.write("trust.toml", format!("[[key]]\nname = \"release\"\npublic = \"\"\"\n{public}\"\"\"\n"));
    place
}

fn promote(place: &Signing, code: i32, version: &str, more: &[&str]) -> String {
    let promote = ["registry", "promote", version, "--trust", "trust.toml"];
    place.ends(code, &[&promote[..], more].concat())
}

#[test]
fn a_version_is_promoted_with_its_evidence_and_rolled_back() {
    let place = with_versions();
    assert!(promote(&place, 1, "digits@candidate", &[]).contains("there is no policy"));
    place.0.write("registry/policy.toml", POLICY.replace("0.9", "0.1"));
    let said = promote(&place, 1, "digits@candidate", &[]);
    assert!(said.contains("accuracy") && said.contains("0.9"), "a margin that is too wide: {said}");
    place.0.write("registry/policy.toml", POLICY);
    assert!(place.ends(1, &["registry", "promote", "digits@candidate"]).contains("not trusted"));
    promote(&place, 0, "digits@candidate", &["--reason", "first"]);

    // The reference was measured against, and not judged.
    let list = place.json(&["registry", "list", "--json"]);
    let others = |version: &&serde_json::Value| version["aliases"].as_array().unwrap().is_empty();
    let reference = list["versions"].as_array().unwrap().iter().find(others).unwrap();
    let reference = format!("digits@{}", reference["digest"].as_str().unwrap());
    promote(&place, 1, &reference, &[]);
    promote(&place, 0, &reference, &["--force", "a test of the way back"]);
    assert!(place.ok(&["registry", "show", "digits@champion"]).contains("a test of the way back"));
    let back = place.ok(&["registry", "rollback", "digits@champion", "--reason", "worse"]);
    assert!(back.contains("rollback") && back.contains("worse"), "{back}");
    assert!(place.ok(&["registry", "show", "digits@champion"]).contains("bf16-seed0"));
    place.ok(&["registry", "verify", "--trust", "trust.toml"]);
}

#[test]
fn a_registry_that_was_changed_or_brought_back_is_refused() {
    let place = with_versions();
    let older = std::fs::read(place.0.path("registry/registry.db")).unwrap();
    let add = ["registry", "add", "cmp", "--as", "digits", "--checkpoint", "bf16-seed1"];
    place.ok(&add);
    place.0.write("registry/registry.db", older);
    let said = place.ends(1, &["registry", "list"]);
    assert!(said.contains("--accept-older"), "{said}");
    place.ok(&["registry", "list", "--accept-older"]);

    let blobs = std::fs::read_dir(place.0.path("registry/blobs")).unwrap();
    let file = blobs.map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "other bytes").unwrap();
    place.ends(1, &["registry", "verify"]);
}
