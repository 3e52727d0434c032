//! Signing and verifying as a person meets them.

use std::path::Path;

use crate::common::{Place, TINY, both};
use serde_json::Value;

const PASSPHRASE: &str = "a passphrase of a test";

/// What was said, without the breaks of lines and their marks.
pub fn in_one_line(output: &std::process::Output) -> String {
    both(output).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A place with a key, whose passphrase is in the environment of its commands.
pub struct Signing(pub Place);

impl Signing {
    pub fn new() -> Signing {
        let place = Signing(Place::new());
        place.ok(&["key", "new", "--out", "key.pem"]);
        place
    }

    pub fn run(&self, args: &[&str]) -> std::process::Output {
        let mut command = self.0.command(args);
        command.env("HALFSTEP_PASSPHRASE", PASSPHRASE).env("HALFSTEP_KEYS", self.0.path("keys"));
        command.env("HALFSTEP_REGISTRY", self.0.path("registry")).env("XDG_STATE_HOME", self.0.path("state"));
        command.output().unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Runs the program, which must end with this code, and returns what it said, in one line.
    pub fn ends(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let said = in_one_line(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// A folder with two files, signed.
    fn signed(&self) {
        self.0.write("model/weights.bin", "weights");
        self.0.write("model/sub/config.json", "{}");
        self.ok(&["sign", "model", "--key", "key.pem"]);
    }
}

#[test]
fn a_signed_folder_verifies_until_it_is_changed() {
    let place = Signing::new();
    place.signed();
    let verify = ["verify", "model", "--key", "key.pub.pem"];
    let said = place.json(&[&verify[..], &["--json"]].concat());
    assert_eq!(said["found"]["files"], 2);
    // The same elsewhere, under another name.
    std::fs::rename(place.0.path("model"), place.0.path("moved")).unwrap();
    place.ok(&["verify", "moved", "--key", "key.pub.pem"]);
    std::fs::rename(place.0.path("moved"), place.0.path("model")).unwrap();

    place.0.write("model/weights.bin", "weighty");
    assert!(place.ends(1, &verify).contains("other bytes in `weights.bin`"));
    place.0.write("model/weights.bin", "weights");
    place.0.write("model/more", "");
    assert!(place.ends(1, &verify).contains("not signed: `more`"));
    place.ok(&[&verify[..], &["--ignore-unsigned"]].concat());
    place.ok(&[&verify[..], &["--ignore", "more"]].concat());
    std::fs::remove_file(place.0.path("model/sub/config.json")).unwrap();
    assert!(
        place.ends(1, &[&verify[..], &["--ignore-unsigned"]].concat()).contains("missing: `sub/config.json`")
    );
    // A signature is not lost by signing again by mistake.
    assert!(place.ends(2, &["sign", "model", "--key", "key.pem"]).contains("exists already"));
}

#[test]
fn who_is_trusted_is_said_in_a_file() {
    let place = Signing::new();
    place.signed();
    assert!(place.ends(2, &["verify", "model"]).contains("nobody is trusted"));
    place.ok(&["key", "new", "--out", "other.pem"]);
    assert!(place.ends(1, &["verify", "model", "--key", "other.pub.pem"]).contains("not trusted"));

    let entry = |name: &str, file: &str, rest: &str| {
        let pem = std::fs::read_to_string(place.0.path(file)).unwrap();
        format!("[[key]]\nname = \"{name}\"\npublic = \"\"\"\n{pem}\"\"\"\n{rest}\n")
    };
    let trusting = |text: &str, at: &str| {
        place.0.write("keys/trust.toml", text);
        let output = place.run(&["verify", "model", "--at", at]);
        (output.status.code().unwrap(), in_one_line(&output))
    };
    let both_keys = |rest: &str| entry("next", "other.pub.pem", "") + &entry("2026", "key.pub.pem", rest);
    assert_eq!(trusting(&both_keys(""), "2026-11-27T12:00:00Z").0, 0);
    let year = "from = 2026-01-01T00:00:00Z\nuntil = 2027-01-01T00:00:00Z";
    for (at, code) in [
        ("2025-12-31T23:59:59Z", 1),
        ("2026-01-01T00:00:00Z", 0),
        ("2027-01-01T00:00:00Z", 0),
        ("2027-01-01T00:00:01Z", 1),
    ] {
        let (is, said) = trusting(&both_keys(year), at);
        assert_eq!(is, code, "{at}: {said}");
        assert!(code == 0 || said.contains(at), "{said}");
    }
    // Whatever the time: who has the key can write any.
    let (code, said) = trusting(&both_keys("revoked = \"stolen\""), "2026-06-01T00:00:00Z");
    assert!(code == 1 && said.contains("`2026` is revoked: stolen"), "{said}");
    // What is in the file and makes no sense is an error, not a key less.
    for wrong in [
        both_keys("untill = 2027-01-01T00:00:00Z"),
        both_keys("until = 2027-01-01"),
        both_keys("") + &both_keys(""),
    ] {
        assert_eq!(trusting(&wrong, "2026-11-27T12:00:00Z").0, 2);
    }
}

#[test]
fn a_key_is_kept_from_others() {
    let place = Signing::new();
    place.0.write("model/weights.bin", "weights");
    let text = std::fs::read_to_string(place.0.path("key.pem")).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let sign = ["sign", "model", "--key", "key.pem"];
    let output = place.0.command(&sign).stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", both(&output));
    let output = place.0.command(&sign).env("HALFSTEP_PASSPHRASE", "another passphrase").output().unwrap();
    assert!(output.status.code() == Some(2) && both(&output).contains("does not open"), "{}", both(&output));
    // A key is never overwritten.
    assert!(place.ends(2, &["key", "new", "--out", "key.pem"]).contains("not overwritten"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |mode| {
            std::fs::set_permissions(place.0.path("key.pem"), PermissionsExt::from_mode(mode)).unwrap()
        };
        assert_eq!(std::fs::metadata(place.0.path("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
        mode(0o644);
        assert!(place.ends(2, &sign).contains("mode 0644"));
        mode(0o600);
    }
    place.ok(&sign);
    // The default place, and no passphrase.
    place.ok(&["key", "new", "--no-passphrase"]);
    place.ok(&["sign", "model", "--force"]);
    let public = place.0.path("keys/signing-key.pub.pem").display().to_string();
    place.ok(&["verify", "model", "--key", &public]);
}

/// A comparison of two pairs of seeds with these margins, after so many epochs.
pub fn compared(place: &Signing, epochs: u32, margins: &str) {
    let recipe = TINY.replace("epochs = 2", &format!("epochs = {epochs}"));
    place.0.write("recipe.toml", format!("{recipe}{margins}"));
    let output = place.run(&["compare", "recipe.toml", "--precisions", "fp32,bf16", "--out", "cmp"]);
    assert!(matches!(output.status.code(), Some(0..=2)), "{}", both(&output));
}

/// Margins that a candidate keeps where the reference has learnt something.
pub const WIDE: &str = "margin = 0.9\nclaim = \"samples\"\n[compare.margins]\nnll = 90.0\nece = \"off\"\nnegative-flips = \"off\"\n";

#[test]
fn a_verdict_names_what_it_judged_and_nothing_else() {
    let place = Signing::new();
    compared(&place, 30, WIDE);
    place.ok(&["sign", "cmp", "--verdict", "--key", "key.pem"]);
    let verify = |file: &str| {
        ["verify", file, "--verdict", "cmp/verdict.sig", "--key", "key.pub.pem"].map(String::from)
    };
    let run = |code: i32, file: &str| place.ends(code, &verify(file).each_ref().map(String::as_str));

    let said = run(0, "cmp/checkpoints/bf16-seed0.safetensors");
    assert!(said.contains("pass of bf16 against fp32, over 2 pairs"), "{said}");
    assert!(said.contains("100 samples, seeds 0, 1") && said.contains("accuracy 0.9"), "{said}");
    // The reference was not judged, and logits are no model.
    assert!(run(3, "cmp/checkpoints/fp32-seed0.safetensors").contains("the reference is what others"));
    assert!(run(3, "cmp/logits/bf16-seed1.safetensors").contains("which is no model"));
    // A copy is the same artifact; with one bit flipped it is none of these.
    let mut weights = std::fs::read(place.0.path("cmp/checkpoints/bf16-seed0.safetensors")).unwrap();
    place.0.write("copy.safetensors", &weights);
    run(0, "copy.safetensors");
    *weights.last_mut().unwrap() ^= 1;
    place.0.write("copy.safetensors", &weights);
    assert!(run(1, "copy.safetensors").contains("needs a verdict of its own"));

    // The folder itself is signed as any other, with the verdict in it.
    place.ok(&["sign", "cmp", "--key", "key.pem"]);
    place.ok(&["verify", "cmp", "--key", "key.pub.pem"]);
    // One is not taken for the other.
    assert!(
        place
            .ends(2, &["verify", "cmp", "-s", "cmp/verdict.sig", "--key", "key.pub.pem"])
            .contains("--verdict")
    );
    let model = ["verify", "copy.safetensors", "--verdict", "cmp/model.sig", "--key", "key.pub.pem"];
    assert!(place.ends(2, &model).contains("not a verdict"));
}

#[test]
fn a_verdict_that_is_no_pass_does_not_open_a_gate() {
    let place = Signing::new();
    // Two seeds and a hundred samples show nothing at the default margins.
    compared(&place, 2, "");
    place.ok(&["sign", "cmp", "--verdict", "--key", "key.pem"]);
    let weights = "cmp/checkpoints/bf16-seed0.safetensors";
    let said = place.ends(3, &["verify", weights, "--verdict", "cmp/verdict.sig", "--key", "key.pub.pem"]);
    assert!(said.contains("inconclusive of bf16"), "{said}");
}

#[test]
fn what_the_logits_do_not_give_is_not_signed() {
    let place = Signing::new();
    compared(&place, 30, WIDE);
    let sign = ["sign", "cmp", "--verdict", "--key", "key.pem", "--force"];
    place.ok(&sign);
    let path = |name: &str| place.0.path(name);
    let spoiled = |name: &str, spoil: &dyn Fn(&Path)| {
        let kept = std::fs::read(path(name)).unwrap();
        spoil(&path(name));
        let said = place.ends(2, &sign);
        std::fs::write(path(name), kept).unwrap();
        place.ok(&sign);
        said
    };
    // Results that were improved, logits of another run, weights that are gone.
    let edit = |from: &'static str, to: &'static str| {
        move |file: &Path| {
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.contains(from));
            std::fs::write(file, text.replacen(from, to, 1)).unwrap();
        }
    };
    let said = spoiled("cmp/results.json", &edit("\"harm\":", "\"harm\":1e-3,\"was\":"));
    assert!(said.contains("is not what the logits"), "{said}");
    let other = path("cmp/logits/bf16-seed1.safetensors");
    let said = spoiled("cmp/logits/bf16-seed0.safetensors", &|file| drop(std::fs::copy(&other, file)));
    assert!(said.contains("seed"), "{said}");
    let gone = |file: &Path| std::fs::remove_file(file).unwrap();
    let said = spoiled("cmp/checkpoints/bf16-seed1.safetensors", &gone);
    assert!(said.contains("and is not there"), "{said}");
    // Margins that were widened after the runs.
    let said = spoiled("cmp/recipe.toml", &edit("margin = 0.9", "margin = 0.95"));
    assert!(said.contains("is not what the logits"), "{said}");
    assert!(
        place
            .ends(2, &["sign", "model", "--verdict", "--key", "key.pem"])
            .contains("give the run directory of `halfstep compare`")
    );
}

/// Vectors that were made by model-signing.
fn vector(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../attest/tests/vectors");
    folder.join(name).display().to_string()
}

#[test]
fn certificates_are_judged_at_a_time_that_is_said() {
    let place = Signing::new();
    let (model, root) = (vector("peer/ended-certificate"), vector("peer/ended-certificate.root.pem"));
    let verify = ["verify", &model, "--root", &root];
    assert!(place.ends(1, &verify).contains("it ended at 2021-01-01T00:00:00Z"));
    let then = [&verify[..], &["--at", "2020-05-05T00:00:00Z"]].concat();
    let said = place.ends(0, &then);
    assert!(said.contains("CN=leaf") && said.contains("2020-05-05T00:00:00Z (as stated)"), "{said}");
    assert_eq!(place.json(&[&then[..], &["--json"]].concat())["judged_at"], "2020-05-05T00:00:00Z");
    for wrong in ["2020", "2020-05-05", "2020-05-05T00:00:00+02:00"] {
        assert!(place.ends(2, &[&verify[..], &["--at", wrong]].concat()).contains("not a time in UTC"));
    }
    // A single file, which the oldest bundles name by a point; and what only a network could tell.
    let (file, signature) = (vector("v0.3.1-elliptic-key/signme-1"), vector("v0.3.1-elliptic-key/model.sig"));
    let key = vector("keys/signing-key-pub.pem");
    place.ok(&["verify", &file, "-s", &signature, "--key", &key]);
    let keyless = place.ends(1, &["verify", &vector("v1.1.0-sigstore"), "--key", &key]);
    assert!(keyless.contains("which this program does not use"), "{keyless}");
}

#[test]
fn api_keys_are_shown_once_and_kept_as_hashes() {
    let place = Signing::new();
    let made = place.json(&["key", "api", "web shop", "--file", "keys.toml", "--json"]);
    let key = made["key"].as_str().unwrap();
    place.ok(&["key", "api", "watch", "--scopes", "metrics", "--file", "keys.toml"]);
    let file = std::fs::read_to_string(place.0.path("keys.toml")).unwrap();
    assert!(!file.contains(key) && file.contains("\"web shop\"") && file.contains("\"watch\""), "{file}");
    // A name is of one key, and a file that is none is left as it is.
    let said = place.ends(2, &["key", "api", "watch", "--file", "keys.toml"]);
    assert!(said.contains("another key has its name"), "{said}");
    assert_eq!(std::fs::read_to_string(place.0.path("keys.toml")).unwrap(), file);
    assert!(place.ends(2, &["key", "api", "x", "--scopes", "write"]).contains("read, infer and metrics"));
}

#[test]
fn a_converted_model_has_a_verdict_of_its_own() {
    let place = Signing::new();
    compared(&place, 30, WIDE);
    // A run in BF16 stands for a conversion: it has other weights and nearly the same logits.
    let file = |folder: &str, name: &str| format!("cmp/{folder}/{name}.safetensors");
    let (converted, parent) = (file("checkpoints", "bf16-seed0"), file("checkpoints", "fp32-seed0"));
    let (candidate, baseline) = (file("logits", "bf16-seed0"), file("logits", "fp32-seed0"));
    let files = ["verdict", "--baseline", &baseline, "--candidate", &candidate, "--floor", "none"];
    let wide = ["--margin", "accuracy=0.9", "--margin", "nll=90", "--margin", "negative-flips=0.9"];
    let to = ["--sign", "pair.sig", "--key", "key.pem"];
    let of = ["--weights", &converted, "--parent", &parent];
    assert!(place.ends(0, &[&files[..], &wide, &to, &of].concat()).contains("signature pair.sig"));

    let verify = |code: i32, file: &str| {
        place.ends(code, &["verify", file, "--verdict", "pair.sig", "--key", "key.pub.pem"])
    };
    let said = verify(0, &converted);
    assert!(said.contains("pass against its parent, fp32-seed0.safetensors"), "{said}");
    assert!(said.contains("of these two models on examples like these; 100 samples, one pair"), "{said}");
    assert!(verify(3, &parent).contains("was measured against"));
    assert!(verify(3, &candidate).contains("which is no model"));
    assert!(verify(1, &file("checkpoints", "bf16-seed1")).contains("needs a verdict of its own"));

    // Signed as it came out: here the default margins show nothing.
    let again = [&files[..], &to, &of, &["--force"]].concat();
    place.ends(2, &again);
    assert!(verify(3, &converted).contains("inconclusive against its parent"));

    // What is no pair, or says more than one pair shows, is not signed.
    let two = ["--baseline", &baseline, "--baseline", &baseline, "--candidate", &candidate, &candidate];
    let refused: [(&[&str], &str); 6] = [
        (&[&["verdict"], &two[..], &to, &of, &["--force"]].concat(), "several files are given"),
        (&[&again[..], &["--claim", "samples"]].concat(), "of one pair there are none"),
        (&[&again[..], &["--looks", "2"]].concat(), "one pair is signed"),
        (&[&files[..], &to, &of].concat(), "exists already"),
        (
            &[&files[..], &to, &["--force", "--weights", &parent, "--parent", &parent]].concat(),
            "the same weights",
        ),
        (&[&files[..], &to, &["--force", "--weights", &converted]].concat(), "--parent"),
    ];
    for (args, says) in refused {
        let said = place.ends(3, args);
        assert!(said.contains(says), "{says}: {said}");
    }
}
