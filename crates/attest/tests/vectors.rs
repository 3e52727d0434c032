//! Signatures that others made, verified and with changes refused.
//!
//! `vectors/README.md` says where they are from.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use halfstep_attest::DateTime;
use halfstep_attest::bundle::Bundle;
use halfstep_attest::certificate::{Certificate, CertificateError, key_of_chain};
use halfstep_attest::model::{ModelError, Unsigned};
use halfstep_attest::public_key::PublicKey;
use halfstep_attest::statement::{Predicate, Statement, StatementError};
use halfstep_attest::trust::{Refusal, Trust, Verified};
use serde_json::Value;

/// A time at which the certificates of model-signing's own vectors are valid.
const NOW: &str = "2026-11-27T12:00:00Z";

/// Every bundle that is to verify: its folder, the time it is judged at, and paths that its
/// verifier is to leave out because bundles before 1.1 do not name them.
const VALID: [(&str, &str, &[&str]); 11] = [
    ("v0.3.1-elliptic-key", NOW, &[]),
    ("v1.0.0-elliptic-key", NOW, &[]),
    ("v1.0.1-elliptic-key", NOW, &["ignore-me"]),
    ("v1.1.0-elliptic-key", NOW, &[]),
    ("v0.3.1-certificate", NOW, &[]),
    ("v1.0.0-certificate", NOW, &[]),
    ("v1.0.1-certificate", NOW, &["ignore-me"]),
    ("v1.1.0-certificate", NOW, &[]),
    ("peer/p256-key", NOW, &[]),
    ("peer/p521-key-shards", NOW, &[]),
    ("peer/ended-certificate", "2020-07-01T00:00:00Z", &[]),
];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(vectors().join(name)).unwrap()
}

fn time(text: &str) -> DateTime {
    text.parse().unwrap()
}

fn trust() -> Trust {
    let mut trust = Trust::default();
    for key in ["keys/signing-key-pub.pem", "peer/p256-key.pub.pem", "peer/p521-key-shards.pub.pem"] {
        trust.add_key(key, PublicKey::from_pem(&read(key)).unwrap());
    }
    for root in ["keys/ca-cert.pem", "peer/ended-certificate.root.pem"] {
        trust.add_root(Certificate::from_pem(&read(root)).unwrap());
    }
    trust
}

fn verify(text: &str, at: &str) -> Result<Verified, String> {
    let bundle = Bundle::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    trust().verify(&bundle, time(at)).map_err(|e| e.to_string())
}

/// The model that a signature is of: a folder, or the file of the oldest vectors.
fn model(name: &str) -> PathBuf {
    let folder = vectors().join(name);
    match name {
        "v0.3.1-elliptic-key" | "v1.0.0-elliptic-key" => folder.join("signme-1"),
        _ => folder,
    }
}

/// Whether the files are those that were signed.
fn check(verified: &Verified, model: &Path, ignored: &[&str]) -> Result<(), ModelError> {
    let Predicate::Model(manifest) = &verified.statement.predicate else { panic!("no statement of a model") };
    let ignored: Vec<String> = ignored.iter().map(|p| p.to_string()).collect();
    manifest.check(model, &model.join("model.sig"), &ignored, Unsigned::Refused)
}

#[test]
fn signatures_of_others_verify() {
    for (name, at, ignored) in VALID {
        let verified =
            verify(&read(&format!("{name}/model.sig")), at).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&verified, &model(name), ignored).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verified.at.to_string(), at);
    }
}

/// Copies a vector's model to a folder of its own.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copied(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn a_model_with_one_bit_flipped_is_refused() {
    for (name, at, ignored) in VALID {
        let verified = verify(&read(&format!("{name}/model.sig")), at).unwrap();
        let folder = tempfile::tempdir().unwrap();
        copied(&vectors().join(name), folder.path());
        let place = match model(name) {
            file if file.is_file() => folder.path().join("signme-1"),
            _ => folder.path().to_path_buf(),
        };
        let file =
            ["signme-1", "weights.bin"].map(|f| folder.path().join(f)).into_iter().find(|f| f.is_file());
        let file = file.unwrap();
        let bytes = std::fs::read(&file).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, flipped).unwrap();
            assert!(
                matches!(check(&verified, &place, ignored), Err(ModelError::Differs(_))),
                "{name}, bit {bit}"
            );
        }
        std::fs::write(&file, bytes).unwrap();
        check(&verified, &place, ignored).unwrap();
        if place.is_dir() {
            // Not empty: an empty file has no shards, and a signature by shards no word of it.
            std::fs::write(place.join("more"), "x").unwrap();
            let Err(ModelError::Differs(found)) = check(&verified, &place, ignored) else { panic!("{name}") };
            // In shards it has its bytes behind the name.
            assert!(matches!(&found.unsigned[..], [one] if one.starts_with("more")), "{found:?}");
            std::fs::remove_file(place.join("more")).unwrap();
            std::fs::remove_file(&file).unwrap();
            let Err(ModelError::Differs(found)) = check(&verified, &place, ignored) else { panic!("{name}") };
            assert!(!found.missing.is_empty() && found.unsigned.is_empty());
        }
    }
}

/// The bundle with one bit of a base64 field flipped.
fn flipped(bundle: &Value, pointer: &str, bit: usize) -> String {
    let mut changed = bundle.clone();
    let field = changed.pointer_mut(pointer).unwrap();
    let mut bytes = BASE64.decode(field.as_str().unwrap().as_bytes()).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    *field = Value::String(BASE64.encode(&bytes));
    changed.to_string()
}

/// Every bit of a signature is tried, and of what is signed and of certificates every `STRIDE`th,
/// which is prime, so that each bit of a byte gets its turn.
#[test]
fn a_bundle_with_one_bit_flipped_is_refused() {
    const STRIDE: usize = 61;
    for (name, at, _) in VALID {
        let text = read(&format!("{name}/model.sig"));
        let bundle: Value = serde_json::from_str(&text).unwrap();
        assert!(verify(&bundle.to_string(), at).is_ok());
        let mut fields = vec![("/dsseEnvelope/payload".to_string(), STRIDE)];
        // One vector's every bit: the rest are signatures by the same code.
        fields.push((
            "/dsseEnvelope/signatures/0/sig".into(),
            if name == "peer/p256-key" { 1 } else { STRIDE },
        ));
        let chain = bundle.pointer("/verificationMaterial/x509CertificateChain/certificates");
        for i in 0..chain.and_then(Value::as_array).map_or(0, Vec::len) {
            let pointer = format!("/verificationMaterial/x509CertificateChain/certificates/{i}/rawBytes");
            fields.push((pointer, STRIDE));
        }
        for (pointer, stride) in fields {
            let bytes =
                BASE64.decode(bundle.pointer(&pointer).unwrap().as_str().unwrap().as_bytes()).unwrap();
            for bit in (0..bytes.len() * 8).step_by(stride) {
                assert!(
                    verify(&flipped(&bundle, &pointer, bit), at).is_err(),
                    "{name}: {pointer}, bit {bit}"
                );
            }
        }
        // The key that is named.
        for pointer in ["/verificationMaterial/publicKey/hint", "/verificationMaterial/publicKey/rawBytes"] {
            let Some(field) = bundle.pointer(pointer).and_then(Value::as_str) else { continue };
            for bit in (0..field.len() * 8).step_by(STRIDE) {
                let mut bytes = field.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let mut changed = bundle.clone();
                *changed.pointer_mut(pointer).unwrap() = String::from_utf8_lossy(&bytes).into();
                assert!(verify(&changed.to_string(), at).is_err(), "{name}: {pointer}, bit {bit}");
            }
        }
    }
}

#[test]
fn the_schema_vectors_come_out_as_they_say() {
    let parse = |name: &str| Bundle::parse(&std::fs::read(vectors().join("schema").join(name)).unwrap());
    for valid in ["certificate", "key", "sigstore"] {
        parse(&format!("valid/{valid}.bundle.json")).unwrap();
    }
    for invalid in ["empty", "missing-envelope", "missing-tlog-entries", "missing-verification-material"] {
        let name = format!("invalid/{invalid}.bundle.json");
        assert!(parse(&name).is_err(), "{name}");
    }
    // A sound bundle, whose statement is of another kind.
    let name = "schema/invalid-payload/wrong-predicate.bundle.json";
    let bundle: Value = serde_json::from_str(&read(name)).unwrap();
    Bundle::parse(read(name).as_bytes()).unwrap();
    let payload = BASE64.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap().as_bytes()).unwrap();
    assert!(matches!(Statement::parse(&payload), Err(StatementError::Unknown(kind))
        if kind == "https://example.com/wrong-predicate/v1.0"));
}

#[test]
fn a_certificate_is_judged_at_the_time_that_is_stated() {
    let verdict = |name: &str, at: &str| {
        let bundle = Bundle::parse(read(&format!("{name}/model.sig")).as_bytes()).unwrap();
        trust().verify(&bundle, time(at))
    };
    // The first and the last second of each, and those beside them.
    for (name, from, until) in [
        ("v1.1.0-certificate", "2025-05-02T23:36:28Z", "2035-04-30T23:36:28Z"),
        ("peer/ended-certificate", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
    ] {
        let beside = |text: &str, seconds: i64| {
            let moved = time(text).unix_duration().as_secs().checked_add_signed(seconds).unwrap();
            DateTime::from_unix_duration(std::time::Duration::from_secs(moved)).unwrap().to_string()
        };
        assert!(verdict(name, from).is_ok() && verdict(name, until).is_ok(), "{name}");
        let early = verdict(name, &beside(from, -1));
        assert!(matches!(early, Err(Refusal::Certificate(CertificateError::NotYet { .. }))), "{early:?}");
        let late = verdict(name, &beside(until, 1));
        assert!(matches!(late, Err(Refusal::Certificate(CertificateError::Expired { .. }))), "{late:?}");
    }
}

#[test]
fn what_cannot_be_verified_says_why() {
    let refusal = |name: &str| {
        let bundle = Bundle::parse(read(name).as_bytes()).unwrap();
        trust().verify(&bundle, time(NOW)).unwrap_err()
    };
    for keyless in ["v1.1.0-sigstore/model.sig", "schema/valid/sigstore.bundle.json"] {
        let refused = refusal(keyless);
        assert!(matches!(refused, Refusal::Keyless), "{refused:?}");
        assert!(refused.to_string().contains("needs the network"));
    }
    // Signed with another encoding and hash, by a version before the first specification.
    let refused = refusal("v0.2.0-certificate/model.sig");
    assert!(matches!(refused, Refusal::Forged), "{refused:?}");
}

#[test]
fn a_chain_needs_its_root_and_all_between() {
    let text = read("v1.1.0-certificate/model.sig");
    let bundle = Bundle::parse(text.as_bytes()).unwrap();
    let mut other = Trust::default();
    other.add_root(Certificate::from_pem(&read("peer/ended-certificate.root.pem")).unwrap());
    let refused = other.verify(&bundle, time(NOW));
    assert!(matches!(refused, Err(Refusal::Certificate(CertificateError::NoPath { .. }))), "{refused:?}");

    let mut shorter: Value = serde_json::from_str(&text).unwrap();
    let chain = shorter.pointer_mut("/verificationMaterial/x509CertificateChain/certificates").unwrap();
    let between = chain.as_array_mut().unwrap().pop().unwrap();
    assert!(verify(&shorter.to_string(), NOW).is_err());
    // An authority's certificate does not sign models, whoever has its key.
    let chain = shorter.pointer_mut("/verificationMaterial/x509CertificateChain/certificates").unwrap();
    chain.as_array_mut().unwrap()[0] = between;
    assert!(verify(&shorter.to_string(), NOW).unwrap_err().contains("is not for signatures"));
}

#[test]
fn what_is_revoked_stays_so_whatever_vouches_for_it() {
    let text = read("v1.1.0-certificate/model.sig");
    let bundle = Bundle::parse(text.as_bytes()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let certificate = |i: usize| {
        let pointer = format!("/verificationMaterial/x509CertificateChain/certificates/{i}/rawBytes");
        BASE64.decode(value.pointer(&pointer).unwrap().as_str().unwrap().as_bytes()).unwrap()
    };
    let root =
        format!("[[root]]\nname = \"root\"\ncertificate = \"\"\"\n{}\"\"\"\n", read("keys/ca-cert.pem"));
    let judged = |more: &str| Trust::parse(&(root.clone() + more)).unwrap().verify(&bundle, time(NOW));
    judged("").unwrap();
    for i in 0..2 {
        let sha256 = Certificate::from_der(&certificate(i)).unwrap().fingerprint();
        let refused = judged(&format!("[[revoked_certificate]]\nsha256 = \"{sha256}\"\nreason = \"left\"\n"));
        assert!(
            matches!(refused, Err(Refusal::Certificate(CertificateError::Revoked { .. }))),
            "{refused:?}"
        );
    }
    let key = read("keys/signing-key-pub.pem");
    let key = format!("[[key]]\nname = \"k\"\npublic = \"\"\"\n{key}\"\"\"\nrevoked = \"stolen\"\n");
    let refused = judged(&key);
    assert!(matches!(&refused, Err(Refusal::Revoked { reason, .. }) if reason == "stolen"), "{refused:?}");
}

#[test]
fn a_chain_with_a_fault_is_refused_for_it() {
    let cases: Value = serde_json::from_str(&read("peer/chains.json")).unwrap();
    let certificate = |der: &Value| {
        Certificate::from_der(&BASE64.decode(der.as_str().unwrap().as_bytes()).unwrap()).unwrap()
    };
    for case in cases.as_array().unwrap() {
        let chain: Vec<Certificate> = case["chain"].as_array().unwrap().iter().map(certificate).collect();
        let roots = [certificate(&case["root"])];
        let found = key_of_chain(&chain, &roots, time("2020-07-01T00:00:00Z"), &|_| None);
        let said = found.err().map(|e| e.to_string()).unwrap_or_default();
        let expected = case["expect"].as_str().unwrap();
        assert!(
            said.contains(expected) && said.is_empty() == expected.is_empty(),
            "{}: {said}",
            case["name"]
        );
    }
}
