//! Statements that contradict themselves, and folders that cannot be signed.

use halfstep_attest::digest::Digest;
use halfstep_attest::model::{Manifest, ModelError};
use halfstep_attest::movement::{Known, Move, MoveLink, MoveRefusal};
use halfstep_attest::pair::{PairNaming, PairVerdict, Side};
use halfstep_attest::statement::{Predicate, Statement, StatementError};
use halfstep_attest::subject::Subject;
use halfstep_attest::verdict::{Arm, Candidate, Conclusion, Naming, Run, Verdict};
use serde_json::{Value, json};

/// The statement of a folder with the files `a` and `sub/b`.
fn of_folder() -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for name in ["sub/b", "a", ".gitignore", "left"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let manifest = Manifest::of_folder(folder.path(), &["left".into()]).unwrap();
    assert_eq!(manifest.len(), 2);
    serde_json::from_str(&Statement::of_model("m", manifest).to_json()).unwrap()
}

fn refused(statement: &Value, what: &str) {
    let parsed = Statement::parse(statement.to_string().as_bytes());
    assert!(matches!(parsed, Err(StatementError::Malformed(_))), "{what}: {parsed:?}");
}

#[test]
fn a_statement_is_read_as_it_was_written() {
    let statement = of_folder();
    let parsed = Statement::parse(statement.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&parsed.to_json()).unwrap(), statement);
    let names: Vec<&str> = statement["predicate"]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "sub/b"]);
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let statement = of_folder();
    for name in ["../a", "/a", "sub/../../a", "./a", "a/", "sub//b", "", "..", ".", "a\\b", "sub/."] {
        let mut wrong = statement.clone();
        wrong["predicate"]["resources"][0]["name"] = json!(name);
        refused(&wrong, name);
        let mut wrong = statement.clone();
        wrong["predicate"]["serialization"]["ignore_paths"][0] = json!(name);
        refused(&wrong, name);
    }
}

#[test]
fn a_statement_that_contradicts_itself_is_refused() {
    let statement = of_folder();
    let cases: [(&str, &str, Value); 12] = [
        ("the digest of another model", "/subject/0/digest/sha256", json!(Digest::of(b"other"))),
        ("another file's digest", "/predicate/resources/0/digest", json!(Digest::of(b"other"))),
        ("a digest of no such length", "/predicate/resources/0/digest", json!("ab")),
        ("another hash of a file", "/predicate/resources/0/algorithm", json!("blake3")),
        ("another hash", "/predicate/serialization/hash_type", json!("blake2b")),
        ("another method", "/predicate/serialization/method", json!("tensors")),
        ("shards without a size", "/predicate/serialization/method", json!("shards")),
        ("one file twice", "/predicate/resources/1/name", json!("a")),
        ("no file", "/predicate/resources", json!([])),
        ("two models", "/subject", json!([statement["subject"][0], statement["subject"][0]])),
        ("no model", "/subject", json!([])),
        ("another form", "/_type", json!("https://in-toto.io/Statement/v0.1")),
    ];
    for (what, pointer, value) in cases {
        let mut wrong = statement.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        refused(&wrong, what);
    }
    for (pointer, name) in [("", "more"), ("/predicate", "more"), ("/predicate/serialization", "more")] {
        let mut wrong = statement.clone();
        wrong.pointer_mut(pointer).unwrap()[name] = json!(1);
        refused(&wrong, "a field that nobody knows");
    }
    // Of resources the specification says the opposite.
    let mut more = statement.clone();
    more["predicate"]["resources"][0]["more"] = json!(1);
    assert!(Statement::parse(more.to_string().as_bytes()).is_ok());
    for size in [json!(0), json!(-1), json!(1.5), json!("1"), json!(1e300)] {
        let mut wrong = statement.clone();
        wrong["predicate"]["serialization"]["method"] = json!("shards");
        wrong["predicate"]["serialization"]["shard_size"] = size.clone();
        refused(&wrong, &size.to_string());
    }
}

#[test]
#[cfg(unix)]
fn what_is_no_file_cannot_be_signed() {
    let folder = tempfile::tempdir().unwrap();
    let of = |ignored: &[&str]| {
        Manifest::of_folder(folder.path(), &ignored.iter().map(|p| p.to_string()).collect::<Vec<_>>())
    };
    assert!(matches!(of(&[]), Err(ModelError::Empty { .. })));
    std::fs::write(folder.path().join("a"), "a").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
    assert!(matches!(of(&[]), Err(ModelError::Unsignable { .. })));
    assert_eq!(of(&["link"]).unwrap().len(), 1);
    assert!(matches!(Manifest::of_folder(&folder.path().join("a"), &[]), Err(ModelError::NotAFolder { .. })));
    for ignored in ["../a", "/a", "*.bin", "a?", "[a]", "a/"] {
        assert!(matches!(of(&[ignored]), Err(ModelError::IgnoredPath(_))), "{ignored}");
    }
}

fn verdict() -> Verdict {
    let subject = |name: &str| Subject::new(name, Digest::of(name.as_bytes()));
    let run = |policy: &str, seed: u64| Run {
        policy: policy.into(),
        seed,
        weights: Some(subject(&format!("{policy}{seed}"))),
        logits: Some(subject(&format!("{policy}{seed} logits"))),
    };
    let candidate = |policy: &str, verdict| Candidate {
        policy: policy.into(),
        verdict,
        pairs: 2,
        protocol: json!({ "claim": "examples" }),
        metrics: Vec::new(),
    };
    Verdict {
        name: "n".into(),
        made: "2026-11-27T12:00:00Z".into(),
        version: "0.1.0".into(),
        arms: vec![Arm {
            name: "n".into(),
            model: "mlp".into(),
            data: "digits".into(),
            data_sha256: "00".into(),
            engine: "CPU".into(),
            processor: "p".into(),
            samples: 100,
            seeds: vec![0, 1],
            reference: "fp32".into(),
            files: vec![subject("recipe.toml")],
            candidates: vec![candidate("bf16", Conclusion::Pass), candidate("fp16", Conclusion::Fail)],
            runs: vec![run("fp32", 0), run("bf16", 0), run("fp16", 0), run("bf16", 1)],
        }],
    }
}

#[test]
fn a_verdict_speaks_of_what_it_lists() {
    let statement = Statement::of_verdict(verdict());
    let parsed = Statement::parse(statement.to_json().as_bytes()).unwrap();
    assert_eq!(parsed, statement);
    assert_eq!(parsed.subject.len(), 1 + 4 * 2);
    let Predicate::Verdict(verdict) = &parsed.predicate else { panic!("a verdict") };
    let naming = |name: &str| verdict.naming(Digest::of(name.as_bytes()));
    let judged = |name: &str| match naming(name) {
        Some(Naming::Judged(_, run, candidate)) => (run.seed, candidate.verdict),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(judged("bf161"), (1, Conclusion::Pass));
    assert_eq!(judged("fp160"), (0, Conclusion::Fail));
    assert!(matches!(naming("fp320"), Some(Naming::Reference(..))));
    assert!(matches!(naming("bf160 logits"), Some(Naming::Evidence(..))));
    assert!(matches!(naming("recipe.toml"), Some(Naming::Evidence(..))));
    assert_eq!(naming("converted"), None);
    // Subjects that are not those of the predicate would mislead readers who know no predicate.
    let mut wrong: Value = serde_json::from_str(&statement.to_json()).unwrap();
    wrong["subject"].as_array_mut().unwrap().pop();
    refused(&wrong, "a subject less");
}

#[test]
fn a_verdict_of_a_pair_speaks_of_the_converted_model() {
    let subject = |name: &str| Subject::new(name, Digest::of(name.as_bytes()));
    let side = |name: &str| Side { weights: subject(name), logits: subject(&format!("{name} logits")) };
    let pair = PairVerdict {
        made: "2026-11-27T12:00:00Z".into(),
        version: "0.1.0".into(),
        converted: side("int8"),
        parent: side("fp32"),
        samples: 100,
        verdict: Conclusion::Pass,
        protocol: json!({ "claim": "examples" }),
        metrics: Vec::new(),
    };
    let statement = Statement::of_pair(pair.clone());
    let text = statement.to_json();
    assert_eq!(Statement::parse(text.as_bytes()).unwrap(), statement);
    let naming = |name: &str| pair.naming(Digest::of(name.as_bytes()));
    assert_eq!(naming("int8"), Some(PairNaming::Judged));
    assert_eq!(naming("fp32"), Some(PairNaming::Parent));
    assert_eq!(naming("fp32 logits"), Some(PairNaming::Evidence(&subject("fp32 logits"))));
    assert_eq!(naming("bf16"), None);

    let statement: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = statement.clone();
    wrong["subject"][0]["digest"]["sha256"] = json!(Digest::of(b"bf16"));
    refused(&wrong, "a subject that its predicate does not name");
    let mut wrong = statement.clone();
    wrong["predicate"]["pairs"] = json!(3);
    refused(&wrong, "a field that nobody knows");
    let itself = PairVerdict { converted: side("fp32"), ..pair };
    refused(
        &serde_json::from_str(&Statement::of_pair(itself).to_json()).unwrap(),
        "weights beside themselves",
    );
}

/// Move `number` of an alias to a version that has its number as a name.
fn a_move(number: u64, previous: Option<u64>) -> Move {
    let link = |number: u64| MoveLink { number, record: Digest::of(&number.to_le_bytes()) };
    Move {
        registry: "r".into(),
        model: "m".into(),
        alias: "champion".into(),
        number,
        record: link(number).record,
        previous: previous.map(link),
        from: previous.map(version),
        to: version(number),
        when: "2026-11-27T12:00:00Z".into(),
        who: "a@b, said by the system".into(),
        reason: None,
    }
}

fn version(number: u64) -> Digest {
    Digest::of(format!("version {number}").as_bytes())
}

#[test]
fn only_the_next_move_follows() {
    let unseen = Known { registry: "r", model: "m", alias: "champion", latest: None };
    let latest = a_move(3, Some(1)).follows(unseen, version(3)).unwrap();
    let known = Known { latest: Some(latest), ..unseen };
    // The next of this alias: numbers are those of the registry, of which other aliases have some.
    assert_eq!(a_move(7, Some(3)).follows(known, version(7)).unwrap().number, 7);

    for old in [a_move(3, Some(1)), a_move(1, None), a_move(2, Some(1))] {
        let is = old.number;
        assert_eq!(old.follows(known, old.to), Err(MoveRefusal::Old { is, latest: 3 }));
    }
    // A move between them is left out, or the history is another one.
    let other = Move { record: Digest::of(b"other"), ..a_move(3, Some(1)) };
    for unlinked in
        [a_move(8, Some(7)), a_move(4, None), Move { previous: Some(other.link()), ..a_move(4, Some(3)) }]
    {
        let refusal = unlinked.follows(known, unlinked.to).unwrap_err();
        assert_eq!(refusal, MoveRefusal::Unlinked { is: unlinked.previous, latest });
    }
    let next = a_move(4, Some(3));
    let elsewhere = [
        ("registry", Known { registry: "s", ..known }),
        ("model", Known { model: "n", ..known }),
        ("alias", Known { alias: "candidate", ..known }),
    ];
    for (place, known) in elsewhere {
        let refusal = next.follows(known, version(4));
        assert!(matches!(refusal, Err(MoveRefusal::Elsewhere { what, .. }) if what == place), "{refusal:?}");
    }
    let refusal = next.follows(known, version(5)).unwrap_err();
    assert_eq!(refusal, MoveRefusal::OtherVersion { is: version(4), version: version(5) });
}

#[test]
fn a_move_that_contradicts_itself_is_no_statement() {
    let statement =
        |moved: Move| -> Value { serde_json::from_str(&Statement::of_move(moved).to_json()).unwrap() };
    let good = statement(a_move(3, Some(1)));
    let parsed = Statement::parse(good.to_string().as_bytes()).unwrap();
    assert_eq!(parsed.predicate, Predicate::Move(Box::new(a_move(3, Some(1)))));
    refused(&statement(a_move(0, None)), "a number below 1");
    refused(&statement(a_move(3, Some(3))), "a move that comes before itself");
    refused(&statement(Move { from: Some(version(1)), ..a_move(3, None) }), "a first move from a version");
    let mut wrong = good.clone();
    wrong["subject"][0]["digest"]["sha256"] = json!(version(1));
    refused(&wrong, "another version as subject");
    let mut wrong = good;
    wrong["predicate"]["force"] = json!(true);
    refused(&wrong, "a field that nobody knows");
}
