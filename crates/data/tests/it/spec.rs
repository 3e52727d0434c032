//! The `[data]` section: what is accepted, what is refused and where an error points.

use halfstep_data::{BundledSpec, DataSpec, IdxFiles, RandomSplit, SpecError, TestFrom};
use toml::de::DeTable;

fn parse(toml: &str) -> Result<DataSpec, SpecError> {
    DataSpec::read(DeTable::parse(toml).unwrap().into_inner())
}

fn refused(toml: &str) -> (Option<&'static str>, String) {
    let error = parse(toml).unwrap_err();
    (error.key.clone().map(|key| &*key.leak()), error.to_string())
}

#[test]
fn defaults_are_filled_in() {
    let DataSpec::Bundled(BundledSpec::Digits { options, split, limits }) =
        parse("kind = 'bundled'\nname = 'digits'").unwrap()
    else {
        panic!("not digits")
    };
    assert_eq!((options, limits), Default::default());
    assert_eq!(split, RandomSplit { fraction: 0.2, seed: 0 });
    let DataSpec::Csv(csv) = parse("kind = 'csv'\npath = 'a.csv'\ntarget = 'y'").unwrap() else {
        panic!("not a table")
    };
    assert_eq!(csv.test, TestFrom::Split(RandomSplit::default()));
}

#[test]
fn every_kind_survives_writing_and_reading() {
    let specs = [
        "kind = 'bundled'\nname = 'fashion-mnist'\nlimit_train = 100\nflip = true",
        "kind = 'bundled'\nname = 'shakespeare'\nsequence = 64\ntokenizer = 'bpe'\nvocab_size = 512",
        "kind = 'idx'\npath = 'mnist'",
        "kind = 'idx'\npath = 'mnist'\ntest_fraction = 0.3",
        "kind = 'idx'\nimages = 'a'\nlabels = 'b'\ntest_images = 'c'\ntest_labels = 'd'\nclasses = ['x', 'y']",
        "kind = 'images'\npath = 'cats'\nresize = [32, 32]\nchannels = 3\nmean = [0.5, 0.5, 0.5]\nstd = [1, 1, 1]",
        "kind = 'images'\npath = 'train'\ntest_path = 'test'\ncrop_padding = 4",
        "kind = 'csv'\npath = 'a.csv'\ntarget = 'y'\nignore = ['id']\nmissing = 'mean'\ndelimiter = ';'\n\
         header = false\nnumeric = ['a']\ncategorical = ['b']\n[ordinal]\nsize = ['s', 'l']",
        "kind = 'text'\npath = 'a.txt'\ntest_path = 'b.txt'",
    ];
    for toml in specs {
        let spec = parse(toml).unwrap_or_else(|e| panic!("{toml}: {e}"));
        let written = toml::to_string(&spec).unwrap();
        assert_eq!(parse(&written).unwrap(), spec, "{written}");
    }
}

#[test]
fn unknown_keys_and_wrong_types_have_a_place() {
    let (key, message) = refused("kind = 'csv'\npath = 'a.csv'\ntagret = 'y'");
    assert_eq!(key, Some("tagret"));
    assert!(message.contains("`tagret`: not a key of `kind = \"csv\"`"), "{message}");
    assert!(message.ends_with("(did you mean `target`?)"), "{message}");
    // The misspelt key is reported, not the one that seems to be missing.
    assert_eq!(refused("kind = 'csv'\npth = 'a.csv'\ntarget = 'y'").0, Some("pth"));
    // And so is a wrong type.
    let error = parse("kind = 'csv'\nheader = 'yes'").unwrap_err();
    assert_eq!((error.key.as_deref(), error.wrong_type), (Some("header"), Some(22..27)));
    let error = parse("kind = 'imagse'").unwrap_err();
    assert!(error.wrong_type == Some(7..15) && error.message.contains("`images`"), "{error}");
}

#[test]
fn keys_of_another_kind_are_pointed_at() {
    let (key, message) = refused("kind = 'images'\npath = 'a'\ntarget = 'y'");
    assert_eq!(key, Some("target"));
    assert!(
        message.starts_with("[data] `target`: not a key of `kind = \"images\"`, which has `path`"),
        "{message}"
    );
    assert_eq!(
        refused("kind = 'bundled'\nname = 'fashion-mnist'\ntest_fraction = 0.1").0,
        Some("test_fraction")
    );
    assert_eq!(refused("kind = 'bundled'\nname = 'shakespeare'\nflip = true").0, Some("flip"));
}

#[test]
fn values_out_of_range_are_pointed_at() {
    let images = |more: &str| refused(&format!("kind = 'images'\npath = 'a'\n{more}"));
    assert_eq!(images("test_fraction = 1.0").0, Some("test_fraction"));
    assert_eq!(images("test_fraction = nan").0, Some("test_fraction"));
    assert_eq!(images("resize = [0, 32]").0, Some("resize"));
    assert_eq!(images("channels = 4").0, Some("channels"));
    assert_eq!(images("mean = [0.5]").0, Some("mean"));
    assert_eq!(images("mean = [0.5]\nstd = [0.0]").0, Some("std"));
    assert_eq!(images("mean = [0.5]\nstd = [inf]").0, Some("std"));
    assert_eq!(images("mean = [0.5, 0.5]\nstd = [1, 1]").0, Some("std"));
    assert_eq!(images("channels = 3\nmean = [0.5]\nstd = [1]").0, Some("mean"));
    assert_eq!(images("limit_test = 0").0, Some("limit_test"));
    assert_eq!(images("test_path = 'b'\nsplit_seed = 1").0, Some("split_seed"));
    let text = |more: &str| refused(&format!("kind = 'text'\npath = 'a'\n{more}"));
    assert_eq!(text("sequence = 0").0, Some("sequence"));
    assert_eq!(text("vocab_size = 300").0, Some("vocab_size"));
    assert_eq!(text("tokenizer = 'bpe'\nvocab_size = 256").0, Some("vocab_size"));
    let csv = |more: &str| refused(&format!("kind = 'csv'\npath = 'a'\ntarget = 'y'\n{more}"));
    assert_eq!(csv("delimiter = '\"'").0, Some("delimiter"));
    assert_eq!(csv("ignore = ['y']").0, Some("ignore"));
    assert_eq!(csv("numeric = ['a']\ncategorical = ['a']").0, Some("categorical"));
    assert_eq!(csv("ordinal = { a = ['x', 'x'] }").0, Some("ordinal"));
    let (key, message) = refused("kind = 'bundled'\nname = 'fashon-mnist'");
    assert_eq!(key, Some("name"));
    assert!(message.contains("did you mean `fashion-mnist`?"), "{message}");
}

#[test]
fn missing_keys_are_named() {
    for (toml, needed) in [
        ("kind = 'bundled'", "`name` is missing"),
        ("kind = 'images'", "`path` is missing"),
        ("kind = 'csv'\npath = 'a.csv'", "`target` is missing"),
        ("kind = 'idx'", "`path` (a folder), or `images` and `labels` (files), are missing"),
    ] {
        let (key, message) = refused(toml);
        assert!(key.is_none() && message.contains(needed), "{toml}: {message}");
    }
    assert_eq!(refused("kind = 'idx'\nimages = 'a'").0, Some("images"));
    let mixed = "kind = 'idx'\npath = 'a'\nimages = 'a'\nlabels = 'b'";
    assert_eq!(refused(mixed).0, Some("path"));
    let DataSpec::Idx(idx) = parse("kind = 'idx'\nimages = 'a'\nlabels = 'b'").unwrap() else {
        panic!("not IDX")
    };
    assert!(matches!(idx.files, IdxFiles::Named { test: TestFrom::Split(_), .. }));
}
