//! A registry as a person meets it.

use crate::signing::{Signing, WIDE, compared, in_one_line};

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
    // The history keeps what there was and what was not met.
    let moves = place.json(&["registry", "show", "digits@champion", "--json"])["moves"].clone();
    let forced = moves.as_array().unwrap().iter().find(|made| made["grounds"]["forced"].is_string()).unwrap();
    let grounds = &forced["grounds"];
    assert!(grounds["signature"].is_string() && grounds["policy"].is_string(), "{grounds}");
    assert!(grounds["verdict"].is_null() && grounds["attached_verdicts"].as_array().unwrap().len() == 1);
    assert!(grounds["unmet"][0].as_str().unwrap().contains("those of the reference"), "{grounds}");
    let said = place.ends(0, &["registry", "show", "digits@champion"]);
    assert!(said.contains("forced: a test of the way back, although verdict"), "{said}");
    let back = place.ok(&["registry", "rollback", "digits@champion", "--reason", "worse"]);
    assert!(back.contains("rollback") && back.contains("worse"), "{back}");
    assert!(place.ok(&["registry", "show", "digits@champion"]).contains("bf16-seed0"));
    place.ok(&["registry", "verify", "--trust", "trust.toml"]);
}

#[test]
fn a_precision_that_no_verdict_covers_is_not_served() {
    let place = with_versions();
    let serve = |code: i32, more: &[&str]| {
        let serve = ["serve", "digits@candidate", "--registry", "registry", "--trust", "trust.toml"];
        // An address that cannot be had: what is served ends there.
        place.ends(code, &[&serve[..], &["--listen", "0.0.0.0:0"], more].concat())
    };
    assert!(serve(2, &["--precision", "bf16"]).contains("neither TLS"), "the precision of training");
    let refused = serve(1, &["--precision", "fp16"]);
    assert!(refused.contains("judges these weights in bf16"), "{refused}");
    let forced = serve(2, &["--precision", "fp16", "--unjudged"]);
    assert!(forced.contains("no signed verdict of that") && forced.contains("neither TLS"), "{forced}");
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
    place.ok(&["registry", "list", "--accept-older", "a test brought it back"]);

    let blobs = std::fs::read_dir(place.0.path("registry/blobs")).unwrap();
    let file = blobs.map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "other bytes").unwrap();
    place.ends(1, &["registry", "verify"]);
}

/// Signs by `key` the verdict of `bf16-seed1` as one that was converted from `fp32-seed1`.
fn sign_pair(place: &Signing, key: &str, to: &str) {
    let file = |folder: &str, name: &str| format!("cmp/{folder}/{name}-seed1.safetensors");
    let logits =
        ["--baseline", &file("logits", "fp32"), "--candidate", &file("logits", "bf16")].map(String::from);
    let weights = ["--parent", &file("checkpoints", "fp32"), "--weights", &file("checkpoints", "bf16")]
        .map(String::from);
    let wide = ["--margin", "accuracy=0.9", "--margin", "nll=90", "--margin", "negative-flips=0.9"];
    let logits = logits.each_ref().map(String::as_str);
    let weights = weights.each_ref().map(String::as_str);
    let rest = ["--floor", "none", "--sign", to, "--key", key];
    place.ends(0, &[&["verdict"], &logits[..], &weights, &wide, &rest].concat());
}

#[test]
fn each_verdict_that_does_not_do_is_refused_for_what_it_is() {
    let place = with_versions();
    place.0.write("registry/policy.toml", POLICY);
    let add = |model: &str, verdict: &str| {
        let add =
            ["registry", "add", "cmp", "--as", model, "--checkpoint", "bf16-seed0", "--verdict", verdict];
        place.ok(&[&add[..], &["--sign", "--key", "key.pem"]].concat());
        format!("{model}@candidate")
    };
    // A sound verdict, of other weights.
    sign_pair(&place, "key.pem", "pair.sig");
    let said = promote(&place, 1, &add("other-weights", "pair.sig"), &[]);
    assert!(said.contains("does not name these weights") && said.contains("says nothing of them"), "{said}");
    // A verdict of one pair where the policy does not allow those: it is attached later.
    place.ok(&[
        "registry",
        "add",
        "cmp",
        "--as",
        "pairs",
        "--checkpoint",
        "bf16-seed1",
        "--verdict",
        "pair.sig",
    ]);
    let said = promote(&place, 1, "pairs@candidate", &[]);
    assert!(said.contains("the verdict is of one pair") && said.contains("has no signature"), "{said}");
    place.0.write("registry/policy.toml", POLICY.replace("[margins]", "converted = \"allowed\"\n[margins]"));
    place.ok(&["registry", "attach", "pairs@candidate", "--sign", "--key", "key.pem"]);
    promote(&place, 0, "pairs@candidate", &[]);
    place.0.write("registry/policy.toml", POLICY);

    // The right verdict, by a key that is not trusted, is revoked, or was trusted once.
    place.ok(&["key", "new", "--out", "other.pem"]);
    place.ok(&["sign", "cmp", "--verdict", "--key", "other.pem", "--signature", "other.sig"]);
    let version = add("stranger", "other.sig");
    let said = promote(&place, 1, &version, &[]);
    assert!(said.contains("a key that is not trusted"), "{said}");
    let sound = std::fs::read_to_string(place.0.path("trust.toml")).unwrap();
    let other = std::fs::read_to_string(place.0.path("other.pub.pem")).unwrap();
    let trusting = |rest: &str| {
        let entry = format!("[[key]]\nname = \"laptop\"\npublic = \"\"\"\n{other}\"\"\"\n{rest}\n");
        place.0.write("trust.toml", format!("{sound}{entry}"));
    };
    trusting("revoked = \"stolen\"");
    assert!(promote(&place, 1, &version, &[]).contains("`laptop` is revoked: stolen"));
    trusting("until = 2026-01-01T00:00:00Z");
    assert!(promote(&place, 1, &version, &[]).contains("`laptop` is trusted until 2026-01-01"));
    // A signature of something else is no verdict.
    place.ok(&["sign", "cmp", "--key", "key.pem", "--signature", "files.sig"]);
    let said = promote(&place, 1, &add("no-verdict", "files.sig"), &[]);
    assert!(said.contains("something else than a verdict"), "{said}");
    trusting("");
    promote(&place, 0, &version, &["--dry-run"]);
    promote(&place, 0, &version, &[]);
}

#[test]
fn without_a_policy_one_to_start_from_is_printed() {
    let place = with_versions();
    let said = promote(&place, 1, "digits@candidate", &[]);
    assert!(
        said.contains("claim = \"examples\"") && said.contains("[margins] accuracy = \"1.0pt\""),
        "{said}"
    );
}

#[test]
fn moves_are_signed_and_followed_by_their_signatures() {
    let place = with_versions();
    place.0.write("registry/policy.toml", POLICY);
    promote(&place, 0, "digits@candidate", &["--sign", "--key", "key.pem"]);
    let show = ["registry", "show", "digits@champion", "--trust", "trust.toml"];
    let said = place.ends(0, &show);
    assert!(said.contains("champion from nothing") && said.contains("signed by release"), "{said}");
    let moves = place.json(&[&show[..], &["--json"]].concat())["moves"].clone();
    assert!(moves.as_array().unwrap().iter().all(|made| made["signed_by"] == "release"), "{moves}");
    // Who it is, the system says.
    if let Ok(output) = std::process::Command::new("id").arg("-un").output() {
        let user = String::from_utf8(output.stdout).unwrap();
        let who = moves[0]["who"]["name"].as_str().unwrap();
        assert!(who.starts_with(&format!("{} on ", user.trim())) && !who.ends_with(" on "), "{who}");
    }
    // Those of both versions and both `candidate`s, and the promotion.
    let verify = ["registry", "verify", "--trust", "trust.toml", "--json"];
    assert_eq!(place.json(&verify)["signatures"], 5);

    let serve = ["serve", "digits@champion", "--registry", "registry", "--listen", "127.0.0.1:0"];
    let serve = [&serve[..], &["--trust", "trust.toml", "--signed-moves"]].concat();
    promote(&place, 0, "digits@candidate", &["--to", "canary"]);
    let canary: Vec<&str> = serve.iter().map(|word| word.trim_end_matches("digits@champion")).collect();
    let canary: Vec<&str> =
        canary.iter().map(|word| if word.is_empty() { "digits@canary" } else { word }).collect();
    assert!(place.ends(1, &canary).contains("it is not signed, and --signed-moves asks for it"));
    // Whose key is revoked moved nothing.
    let trust = std::fs::read_to_string(place.0.path("trust.toml")).unwrap();
    place.0.write("trust.toml", format!("{trust}revoked = \"stolen\"\n"));
    let said = place.ends(1, &["registry", "verify", "--trust", "trust.toml"]);
    assert!(said.contains("move 3 is not accepted") && said.contains("revoked: stolen"), "{said}");
    assert!(place.ends(1, &serve).contains("is revoked: stolen"));
}

#[test]
fn a_policy_can_refuse_moves_that_nobody_signs() {
    let place = with_versions();
    place.0.write("registry/policy.toml", format!("unsigned_moves = \"refused\"\n{POLICY}"));
    let signed = ["--sign", "--key", "key.pem"];
    for more in [&[][..], &["--dry-run"], &["--force", "in a hurry"]] {
        let said = promote(&place, 1, "digits@candidate", more);
        assert!(said.contains("it is not signed") && said.contains("sign it with --sign"), "{said}");
    }
    promote(&place, 0, "digits@candidate", &signed);
    let list = place.json(&["registry", "list", "--json"]);
    let others = |version: &&serde_json::Value| version["aliases"].as_array().unwrap().is_empty();
    let reference = list["versions"].as_array().unwrap().iter().find(others).unwrap();
    let reference = format!("digits@{}", reference["digest"].as_str().unwrap());
    promote(&place, 0, &reference, &[&signed[..], &["--force", "a test"]].concat());
    let back = ["registry", "rollback", "digits@champion"];
    let said = place.ends(1, &back);
    assert!(said.contains("policy.toml refuses unsigned moves"), "{said}");
    // A policy that cannot be read may ask for a signature, and keeps nobody from a signed move.
    place.0.write("registry/policy.toml", "claim");
    place.ends(2, &back);
    place.ok(&[&back[..], &signed].concat());
}

#[test]
fn a_registry_travels_as_one_file_and_evidence_is_attached_there() {
    let place = with_versions();
    place.0.write("registry/policy.toml", POLICY);
    let written = place.ok(&["registry", "export", "models.zip"]);
    assert!(written.contains("left out") && written.contains("policy.toml"), "{written}");
    assert!(place.ends(1, &["registry", "export", "models.zip"]).contains("already"));
    let there = ["--registry", "there", "--trust", "trust.toml"];
    let with = |words: &[&'static str]| [&["registry"], words, &there[..]].concat();
    let said = place.ok(&with(&["import", "models.zip"]));
    assert!(said.contains("2 new"), "{said}");
    place.ok(&with(&["verify"]));
    assert!(place.ends(1, &with(&["promote", "digits@candidate"])).contains("there is no policy"));
    place.0.write("there/policy.toml", POLICY);
    place.ok(&with(&["promote", "digits@candidate"]));
    // What is exported here is older than what was seen there, of the same registry.
    assert!(place.ends(1, &with(&["import", "models.zip"])).contains("it is older"));
    let older = place.ends(1, &["registry", "list"]);
    assert!(older.contains("--accept-older REASON"), "{older}");
    place.ends(2, &["registry", "list", "--accept-older", " "]);
    place.ok(&["registry", "list", "--accept-older", "a test"]);
    let cut = std::fs::read(place.0.path("models.zip")).unwrap();
    place.0.write("cut.zip", &cut[..cut.len() / 2]);
    let said = place.ends(1, &["registry", "import", "cut.zip", "--registry", "cut"]);
    assert!(said.contains("no whole export"), "{said}");
    assert!(!place.0.path("cut").exists());

    place.0.write("README.md", "a card");
    sign_pair(&place, "key.pem", "pair.sig");
    let attach = ["registry", "attach", "digits@candidate", "--card", "README.md", "--verdict", "pair.sig"];
    let attached = place.json(&[&attach[..], &["--json"]].concat());
    assert_eq!(attached["attached"].as_array().unwrap().len(), 2);
    place.ends(2, &["registry", "attach", "digits@candidate"]);
    let show = place.json(&["registry", "show", "digits@candidate", "--json"]);
    let kinds: Vec<&str> = show["version"]["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["card", "signature", "verdict", "verdict"]);
}

#[test]
fn two_versions_differ_in_precision_recipe_and_figures() {
    let place = with_versions();
    let mut recipe = std::fs::read_to_string(place.0.path("cmp/recipe.toml")).unwrap();
    assert!(recipe.contains("epochs = 30"), "{recipe}");
    recipe = recipe.replace("epochs = 30", "epochs = 31");
    place.0.write("cmp/recipe.toml", recipe);
    place.ok(&["registry", "add", "cmp", "--as", "digits", "--checkpoint", "fp32-seed1"]);
    let list = place.json(&["registry", "list", "--json"]);
    let digest = |n: usize| list["versions"][n]["digest"].as_str().unwrap().to_string();
    // One is of each precision; the order is that of digests where the second is the same.
    let all: Vec<String> = (0..3).map(|n| format!("digits@{}", digest(n))).collect();
    let of = |precision: &str, file: &str| {
        let is = |version: &&String| place.ok(&["registry", "show", version]).contains(file);
        all.iter().find(is).unwrap_or_else(|| panic!("{precision}")).clone()
    };
    let (low, full) = (of("bf16", "bf16-seed0"), of("fp32", "fp32-seed1"));
    let diff = place.json(&["registry", "diff", &full, &low, "--json"]);
    assert_eq!(diff["precision"], serde_json::json!(["fp32", "bf16"]));
    let epochs = &diff["recipe"][0];
    assert!(epochs["key"].as_str().unwrap().ends_with("epochs"), "{diff}");
    assert_eq!((&epochs["before"], &epochs["after"]), (&"31".into(), &"30".into()));
    assert_eq!(diff["verdicts"][1][0]["verdict"], "pass");
    assert!(diff["verdicts"][0][0]["verdict"].is_null(), "the reference is judged by nobody: {diff}");
    let said = place.ends(0, &["registry", "diff", &full, &low]);
    assert!(
        said.contains("precision fp32 before, bf16 after")
            && said.contains("pass, of bf16, 2 pairs, 100 samples; accuracy"),
        "{said}"
    );
}

/// Steps on a small file system of its own, mounted in a namespace: fill it, free it, make it
/// read-only. `$H` is the program, `$D` the folder of the mount; the rest is as in other tests.
#[cfg(target_os = "linux")]
const SMALL_DISK: &str = r#"
mount -t tmpfs -o size=2m tmpfs "$D" || { echo "no mount"; exit 9; }
export HALFSTEP_REGISTRY="$D/registry"
try() { echo "== $1"; shift; "$@" 2>&1; echo "code $?"; }
add() { "$H" registry add "$1" --as digits; }
try first add run
dd if=/dev/zero of="$D/filler" bs=4k 2>/dev/null
try full-add add run-2
try full-promote "$H" registry promote digits@candidate --force full
try full-export "$H" registry export "$D/models.zip"
rm "$D/filler"
ls -A "$D" "$D/registry/blobs" | grep -c unfinished
try freed-verify "$H" registry verify
try freed-add add run-2
mount -o remount,ro "$D" || { echo "no remount"; exit 9; }
try read-only-list "$H" registry list
try read-only-show "$H" registry show digits@candidate
try read-only-verify "$H" registry verify
try read-only-promote "$H" registry promote digits@candidate --force read-only
try read-only-add add run
try read-only-export "$H" registry export models.zip
"#;

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_or_a_read_only_one_is_named_and_loses_nothing() {
    let place = Signing::new();
    place.0.write("recipe.toml", crate::common::TINY);
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    // The same run, with a recipe that is another file and takes some of the disk.
    let mut copy = std::process::Command::new("cp");
    assert!(copy.args(["-r", "run", "run-2"]).current_dir(place.0.path("")).status().unwrap().success());
    let recipe = std::fs::read_to_string(place.0.path("run/recipe.toml")).unwrap();
    place.0.write("run-2/recipe.toml", format!("{recipe}# {}\n", "x".repeat(100_000)));
    std::fs::create_dir(place.0.path("disk")).unwrap();
    let output = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", SMALL_DISK])
        .current_dir(place.0.path(""))
        .env("H", env!("CARGO_BIN_EXE_halfstep"))
        .env("D", place.0.path("disk"))
        .env("XDG_STATE_HOME", place.0.path("state"))
        .env("HALFSTEP_KEYS", place.0.path("keys"))
        .env("NO_COLOR", "1")
        .output();
    let said = match &output {
        Ok(output) if output.status.code() == Some(0) => in_one_line(output),
        _ => {
            println!("skipped: no file system can be mounted here by unshare: {output:?}");
            return;
        }
    };
    let step = |name: &str| {
        let (_, rest) = said.split_once(&format!("== {name} ")).unwrap_or_else(|| panic!("{name}: {said}"));
        let (step, _) = rest.split_once(" ==").unwrap_or((rest, ""));
        step.to_string()
    };
    assert!(!said.contains("panicked"), "{said}");
    for name in ["first", "freed-verify", "freed-add", "read-only-list", "read-only-show", "read-only-verify"]
    {
        assert!(step(name).contains("code 0"), "{name}: {}", step(name));
    }
    for name in ["full-add", "full-promote", "full-export"] {
        let step = step(name);
        assert!(step.contains("code 1") && step.contains("free some space"), "{name}: {step}");
    }
    assert!(
        step("full-export").contains("code 1 0 =") || step("full-export").ends_with("code 1 0"),
        "something unfinished is left: {}",
        step("full-export")
    );
    for name in ["read-only-promote", "read-only-add"] {
        let step = step(name);
        assert!(step.contains("code 1") && step.to_lowercase().contains("read-only"), "{name}: {step}");
    }
    assert!(step("read-only-export").contains("code 0"), "{}", step("read-only-export"));
}
