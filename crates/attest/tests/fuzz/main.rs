//! Every parser that strangers can reach, on inputs that were made of sound ones by changes: none
//! panics, none takes long or much memory, and what is accepted is what was meant.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use halfstep_attest::DateTime;
use halfstep_attest::bundle::Bundle;
use halfstep_attest::certificate::{Certificate, key_of_chain};
use halfstep_attest::digest::Digest;
use halfstep_attest::policy::Policy;
use halfstep_attest::public_key::PublicKey;
use halfstep_attest::statement::{Predicate, Statement};
use halfstep_attest::trust::{Trust, Verified};
use halfstep_fuzz::fuzz;
use serde_json::{Value, json};

/// Memory for an input of 64 KiB: what is decoded of it, and shown of it in messages.
const MEMORY: usize = 16 << 20;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Every file of the vectors with one of these endings.
fn files(endings: &[&str]) -> Vec<Vec<u8>> {
    let mut folders = vec![vectors()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some(ending) if endings.contains(&ending) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(vectors().join(name)).unwrap()
}

fn at() -> DateTime {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn trust() -> Trust {
    let mut trust = Trust::default();
    for key in ["keys/signing-key-pub.pem", "peer/p256-key.pub.pem", "peer/p521-key-shards.pub.pem"] {
        trust.add_key(key, PublicKey::from_pem(&text(key)).unwrap());
    }
    trust.add_root(Certificate::from_pem(&text("keys/ca-cert.pem")).unwrap());
    trust
}

#[test]
fn bundles() {
    let corpus = files(&["sig", "json"]);
    let trust = trust();
    let verify = |input: &[u8]| {
        let bundle = Bundle::parse(input).map_err(|e| e.to_string())?;
        trust.verify(&bundle, at()).map_err(|e| e.to_string())
    };
    let signed: Vec<Statement> =
        corpus.iter().filter_map(|input| Some(verify(input).ok()?.statement)).collect();
    assert!(signed.len() > 5, "{} bundles verify", signed.len());
    fuzz("bundles", MEMORY, corpus, |input| match verify(input) {
        Ok(verified) => {
            assert!(signed.contains(&verified.statement), "something that nobody signed verifies");
            "verified".into()
        }
        Err(why) => why,
    });
}

fn subject(name: &str) -> Value {
    json!({ "name": name, "digest": { "sha256": Digest::of(name.as_bytes()) } })
}

fn candidate() -> Value {
    let test = json!({ "margin": { "kind": "absolute", "value": 0.01 }, "verdict": "pass" });
    json!({
        "policy": "bf16", "verdict": "pass", "pairs": 3, "protocol": { "claim": "examples" },
        "metrics": [{ "metric": "accuracy", "test": test }],
    })
}

/// Statements of our own kinds: a comparison, a pair and a move.
fn statements() -> Vec<Value> {
    let run = |policy: &str| json!({ "policy": policy, "seed": 0, "weights": subject(policy), "logits": subject("logits") });
    let arm = json!({
        "name": "n", "model": "mlp", "data": "digits", "data_sha256": "00", "engine": "CPU", "processor": "p",
        "samples": 1000, "seeds": [0, 1, 2], "reference": "fp32", "files": [subject("recipe.toml")],
        "candidates": [candidate()], "runs": [run("fp32"), run("bf16")],
    });
    let verdict = json!({ "name": "n", "made": "2026-11-01T12:00:00Z", "version": "0.1.0", "arms": [arm] });
    let side = |name: &str| json!({ "weights": subject(name), "logits": subject("logits") });
    let pair = json!({
        "made": "2026-11-01T12:00:00Z", "version": "0.1.0", "converted": side("int8"), "parent": side("fp32"),
        "samples": 1000, "verdict": "pass", "protocol": {}, "metrics": candidate()["metrics"],
    });
    let link = json!({ "number": 1, "record": Digest::of(b"1") });
    let moved = json!({
        "registry": "r", "model": "m", "alias": "champion", "number": 2, "record": Digest::of(b"2"),
        "previous": link, "from": Digest::of(b"a"), "to": Digest::of(b"m"), "when": "2026-11-01T12:00:00Z",
        "who": "a", "reason": null,
    });
    let names = ["recipe.toml", "fp32", "logits", "bf16", "logits"];
    let statement = |subjects: Vec<Value>, kind: &str, predicate: Value| {
        json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": subjects,
            "predicateType": format!("https://example.org/halfstep/{kind}/v1"), "predicate": predicate,
        })
    };
    vec![
        statement(names.map(subject).to_vec(), "verdict", verdict),
        statement(["int8", "logits", "fp32", "logits"].map(subject).to_vec(), "pair-verdict", pair),
        statement(vec![subject("m")], "move", moved),
    ]
}

#[test]
fn payloads() {
    let payload = |bundle: Vec<u8>| {
        let bundle: Value = serde_json::from_slice(&bundle).ok()?;
        BASE64.decode(bundle["dsseEnvelope"]["payload"].as_str()?.as_bytes()).ok()
    };
    let mut corpus: Vec<Vec<u8>> = files(&["sig", "json"]).into_iter().filter_map(payload).collect();
    for statement in statements() {
        Statement::parse(statement.to_string().as_bytes()).expect("a sound statement");
        corpus.push(statement.to_string().into_bytes());
    }
    fuzz("payloads", MEMORY, corpus, |input| match Statement::parse(input) {
        Ok(statement) => {
            let again = Statement::parse(statement.to_json().as_bytes());
            assert_eq!(again.ok().as_ref(), Some(&statement), "it is not read as it is written");
            format!("{:?}", std::mem::discriminant(&statement.predicate))
        }
        Err(why) => why.to_string(),
    });
}

#[test]
fn certificates() {
    let chains: Vec<Value> = serde_json::from_str(&text("peer/chains.json")).unwrap();
    let der = |value: &Value| BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let of_chain = |chain: &Value| chain["chain"].as_array().unwrap().iter().map(der).collect::<Vec<_>>();
    let mut corpus: Vec<Vec<u8>> = chains.iter().flat_map(of_chain).collect();
    corpus.extend(files(&["pem"]));
    let roots: Vec<Certificate> =
        chains.iter().filter_map(|chain| Certificate::from_der(&der(&chain["root"])).ok()).collect();
    fuzz("certificates", MEMORY, corpus, |input| {
        let certificate = match std::str::from_utf8(input) {
            Ok(pem) => Certificate::from_pem(pem),
            Err(_) => Certificate::from_der(input),
        };
        let key = certificate.and_then(|certificate| {
            let chain = [certificate];
            key_of_chain(&chain, &roots, at(), &|_| None)
        });
        key.map_or_else(|e| e.to_string(), |_| "a key".into())
    });
}

#[test]
fn trust_files() {
    let pem = text("peer/p256-key.pub.pem");
    let root = text("keys/ca-cert.pem");
    let key = format!("[[key]]\nname = \"a\"\npublic = \"\"\"\n{pem}\"\"\"\nuntil = 2026-12-31T23:59:59Z\n");
    let revoked = format!("[[revoked_certificate]]\nsha256 = \"{}\"\nreason = \"left\"\n", Digest::of(b"a"));
    let root = format!("[[root]]\nname = \"b\"\ncertificate = \"\"\"\n{root}\"\"\"\n");
    let corpus = [key.clone(), format!("{key}revoked = \"lost\"\n"), root + &revoked];
    assert!(corpus.iter().all(|text| Trust::parse(text).is_ok()));
    fuzz("trust files", MEMORY, corpus.map(String::into_bytes).to_vec(), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "no text".into() };
        Trust::parse(text).map_or_else(|e| e.to_string(), |_| "a trust file".into())
    });
}

#[test]
fn policies() {
    const SOUND: &str = "claim = \"examples\"\nsamples = 1000\npairs = 3\nprecisions = [\"bf16\"]\nreference = \"refused\"\nconverted = \"allowed\"\nmax_age_days = 90\nunsigned_moves = \"refused\"\n[margins]\naccuracy = \"1.0pt\"\n";
    let statement = Statement::parse(statements()[0].to_string().as_bytes()).unwrap();
    assert!(matches!(statement.predicate, Predicate::Verdict(_)));
    let verified = Verified { statement, signer: "a".into(), fingerprint: String::new(), at: at() };
    let corpus = [SOUND.into(), SOUND.replace("\"1.0pt\"", "0.01\nnll = \"2%\"\ngroup-accuracy = 0.5")];
    fuzz("policies", MEMORY, corpus.map(String::into_bytes).to_vec(), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "no text".into() };
        let policy = match Policy::parse(text) {
            Ok(policy) => policy,
            Err(e) => return e.to_string(),
        };
        match policy.judge(&verified, Digest::of(b"bf16")) {
            Ok(_) => {
                let met = policy.samples.get() <= 1000 && policy.pairs.get() <= 3;
                assert!(met && policy.margins.keys().eq(["accuracy"]), "{policy:?}");
                "admitted".into()
            }
            Err(unmet) => format!("{unmet:?}"),
        }
    });
}
