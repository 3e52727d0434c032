//! `halfstep numbers`, and the chapter that is written with it.

use std::path::{Path, PathBuf};

use crate::common::Place;

#[test]
fn a_tenth_in_each_format() {
    let place = Place::new();
    let out = place.json(&["numbers", "0.1", "--json", "--formats", "f32,bf16,f16,e4m3,e5m2,e2m1"]);
    let formats = out["numbers"][0]["formats"].as_array().unwrap();
    let codes: Vec<&str> = formats.iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["0x3dcccccd", "0x3dcd", "0x2e66", "0x1d", "0x2e", "0x0"]);
    assert_eq!(formats[2]["exact"], "0.0999755859375");
    assert_eq!(formats[3]["below"], 0.09375);
    assert_eq!(out["numbers"][0]["exact"], "0.1000000000000000055511151231257827021181583404541015625");
}

#[test]
fn what_loss_scaling_saves_and_what_stochastic_rounding_draws() {
    let place = Place::new();
    let args = ["numbers", "2e-8", "--formats", "f16", "--scale", "65536", "--json"];
    let f16 = &place.json(&args)["numbers"][0]["formats"][0];
    assert_eq!((&f16["value"], &f16["class"]), (&0.0.into(), &"zero".into()));
    assert!(f16["scaled"]["relative_error"].as_f64().unwrap() <= 2f64.powi(-11));
    let args = ["numbers", "0.1", "--formats", "e4m3", "--stochastic", "10000", "--json"];
    let drawn = &place.json(&args)["numbers"][0]["formats"][0]["stochastic"];
    // A share p of n draws has a standard deviation of √(p(1 − p)/n); 5 of them.
    let p = drawn["expected_share_far"].as_f64().unwrap();
    let share = drawn["share_far"].as_f64().unwrap();
    assert!((p - 0.8).abs() < 1e-9 && (share - p).abs() < 5.0 * (p * (1.0 - p) / 1e4).sqrt(), "{share}");
}

#[test]
fn sums_swamp_and_the_remedies_remedy() {
    let place = Place::new();
    let args = ["numbers", "--sum", "1e4", "--formats", "f32,bf16", "--remedies", "--json"];
    let out = place.json(&args);
    let of = |i: usize| out["sums"][i]["sum"].as_f64().unwrap();
    assert_eq!((of(0), of(1)), (10_000.0, 256.0));
    assert_eq!(out["sums"][1]["stuck_after"], 256);
    // The ulp of bf16 is 64 there.
    assert!((of(3) - 10_000.0).abs() <= 64.0, "Kahan: {}", of(3));
}

#[test]
fn blocks_share_scales() {
    let place = Place::new();
    let args = ["numbers", "1", "-3", "0.5", "6", "--blocks", "mxfp4,nvfp4,fp8-blocks", "--json"];
    let out = place.json(&args);
    assert_eq!(out["forms"][0]["codes"], serde_json::json!([2, 13, 1, 7]));
    assert_eq!(out["forms"][0]["scales"], serde_json::json!([1.0]));
    assert_eq!(out["forms"][1]["scales"], serde_json::json!([448.0]));
    assert_eq!(out["forms"][2]["block"], 128);
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let place = Place::new();
    for (args, says) in [
        (&["abc"][..], "`abc` is not a number"),
        (&["0.1", "--formats", "fp16"], "did you mean `f16`?"),
        (&["0.1", "--formats", ""], "there is no number format"),
        (&["--sum", "1e10"], "a whole number from 1 to 1e8"),
        (&["--sum", "-3"], "a whole number from 1 to 1e8"),
        (&["1", "2", "--sum", "10"], "takes one number"),
        (&["inf", "--sum", "10"], "not finite"),
        (&["1", "2", "--svg", "x.svg"], "shows one number"),
        (&["nan", "--svg", "x.svg"], "not finite"),
        (&["0.1", "--scale", "0"], "cannot be divided"),
        (&["0.1", "--stochastic", "0"], "from 1 to"),
        (&["--blocks", "mxfp4"], "needs numbers"),
        (&["1", "--blocks", "mxfp9"], "mxfp4"),
        (&["1", "--sum", "10", "--blocks", "mxfp4"], "cannot be used with"),
    ] {
        let stderr = place.fails(2, &[&["numbers"], args].concat());
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(!place.path("x.svg").exists());
    }
    place.fails(1, &["numbers", "0.1", "--svg", "no/such/folder/x.svg"]);
}

/// Infinities, NaN and the ends of every range have nothing that panics.
#[test]
fn every_kind_of_number_in_every_format() {
    let place = Place::new();
    let all = "f32,bf16,f16,e4m3,e5m2,e4m3fnuz,e5m2fnuz,e3m2,e2m3,e2m1";
    let numbers =
        ["0", "-0", "inf", "-inf", "nan", "1e308", "-1e-308", "5e-324", "1e-45", "448", "2^-149", "1/3"];
    let more = ["--formats", all, "--scale", "2^20", "--stochastic", "3"];
    place.ok(&[&["numbers"], &more[..], &["--"], &numbers].concat());
    place.ok(&[&["numbers"], &more[..], &["--saturate", "--json", "--"], &numbers].concat());
    let blocks = "mxfp8,mxfp8-e5m2,mxfp6-e3m2,mxfp6-e2m3,mxfp4,nvfp4,fp8-blocks";
    place.ok(&[&["numbers", "--blocks", blocks, "--"], &numbers[..]].concat());
    for number in ["0", "-1e38", "1e-300", "5e-324", "1.7e308"] {
        if number != "1.7e308" {
            place.ok(&["numbers", "--formats", all, "--svg", "n.svg", number]);
        }
        for more in [&["--sum", "100", "--remedies"][..], &["--sum", "1"]] {
            place.ok(&[&["numbers", "--formats", all, "--svg", "s.svg", number], more].concat());
        }
    }
    let stderr = place.fails(1, &["numbers", "1.7e308", "--svg", "none.svg"]);
    assert!(stderr.contains("none of the formats holds"), "{stderr}");
}

/// Runs each command of the chapter and compares what it prints, and the pictures it draws.
/// `UPDATE_DOCS=1` writes them instead.
#[test]
fn the_chapter_shows_what_the_program_prints() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let chapter = std::fs::read_to_string(docs.join("numbers.md")).unwrap();
    let place = Place::new();
    std::fs::create_dir_all(place.path("docs/pictures")).unwrap();
    let mut parts = chapter.split("```console\n");
    let mut now = parts.next().unwrap().to_string();
    let mut commands = 0;
    for part in parts {
        let (block, rest) = part.split_once("```").unwrap();
        let command = block.lines().next().unwrap();
        let args: Vec<&str> = command.strip_prefix("$ halfstep ").unwrap().split(' ').collect();
        now += &format!("```console\n{command}\n{}```{rest}", place.ok(&args));
        commands += 1;
    }
    assert!(commands > 10);
    let drawn: Vec<PathBuf> =
        std::fs::read_dir(place.path("docs/pictures")).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(drawn.len() >= 3);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(docs.join("numbers.md"), now).unwrap();
        std::fs::create_dir_all(docs.join("pictures")).unwrap();
        for path in drawn {
            std::fs::copy(&path, docs.join("pictures").join(path.file_name().unwrap())).unwrap();
        }
        return;
    }
    assert_eq!(now, chapter, "UPDATE_DOCS=1 writes what the program prints now");
    for path in drawn {
        let kept = std::fs::read(docs.join("pictures").join(path.file_name().unwrap())).unwrap();
        assert!(std::fs::read(&path).unwrap() == kept, "{path:?}: UPDATE_DOCS=1 draws it anew");
    }
}
