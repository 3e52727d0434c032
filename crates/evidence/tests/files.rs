//! Files as numpy, safetensors and pyarrow write them (`scripts/golden_measures.py`), whole and
//! broken.

use std::path::{Path, PathBuf};

use halfstep_evidence::logits::Logits;
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Logits, labels and groups as the script drew them.
fn expected() -> (Vec<f32>, Vec<u32>, Vec<String>) {
    let all: Value = serde_json::from_str(include_str!("golden/measures.json")).unwrap();
    let set = &all["sets"][1];
    let list = |key: &str| set[key].as_array().unwrap().clone();
    (
        list("first").iter().map(|x| x.as_f64().unwrap() as f32).collect(),
        list("labels").iter().map(|x| x.as_u64().unwrap() as u32).collect(),
        list("groups").iter().map(|x| x.as_str().unwrap().to_string()).collect(),
    )
}

fn all_rows(open: &mut Logits) -> Vec<f32> {
    let (mut all, mut batch) = (Vec::new(), Vec::new());
    // Batches that do not divide the rows.
    while !open.read(7, &mut batch).unwrap().is_empty() {
        all.extend_from_slice(&batch);
    }
    all
}

fn message(path: &Path) -> String {
    match Logits::open(path) {
        Err(e) => e.to_string(),
        Ok(mut open) => {
            let mut batch = Vec::new();
            open.read(usize::MAX, &mut batch).unwrap_err().to_string()
        }
    }
}

#[test]
fn every_format_gives_the_same_table() {
    let (logits, labels, groups) = expected();
    let mut names =
        vec!["plain.npz", "compressed.npz", "double.npz", "single.safetensors", "bfloat16.safetensors"];
    if cfg!(feature = "parquet") {
        names.push("plain.parquet");
    }
    for name in names {
        let mut open = Logits::open(&golden(name)).unwrap();
        assert_eq!((open.classes(), open.labels()), (3, labels.as_slice()), "{name}");
        assert_eq!(open.seed(), (!["compressed.npz", "double.npz"].contains(&name)).then_some(7), "{name}");
        if name != "double.npz" {
            let column = open.groups().iter().find(|g| g.name == "region").unwrap();
            let found: Vec<&String> = column.codes.iter().map(|&c| &column.values[c as usize]).collect();
            assert_eq!(found, groups.iter().collect::<Vec<_>>(), "{name}");
        }
        let found = all_rows(&mut open);
        let stored = |x: f32| match name {
            "bfloat16.safetensors" => halfstep_float::f32_from_bf16(halfstep_float::bf16_from_f32(x)),
            // Multiples of 1/64 below 16: every other format holds them exactly.
            _ => x,
        };
        assert_eq!(found, logits.iter().map(|&x| stored(x)).collect::<Vec<_>>(), "{name}");
    }
    let half = Logits::open(&golden("compressed.npz")).unwrap();
    assert_eq!(half.groups().iter().find(|g| g.name == "half").unwrap().values, ["0", "1"]);
}

/// Cut anywhere, a file is refused with its name and without a panic; so is one with a flipped bit,
/// or it is read.
#[test]
fn broken_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain.npz", "compressed.npz", "single.safetensors"] {
        let bytes = std::fs::read(golden(name)).unwrap();
        let path = folder.path().join(name);
        for cut in (0..bytes.len()).step_by(61) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let said = message(&path);
            assert!(said.contains(name), "{name} cut at {cut}: {said}");
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut broken = bytes.clone();
            broken[at] ^= 0x11;
            std::fs::write(&path, &broken).unwrap();
            if let Ok(mut open) = Logits::open(&path) {
                let mut batch = Vec::new();
                while open.read(50, &mut batch).is_ok_and(|r| !r.is_empty()) {}
            }
        }
    }
    // A bit of the logits themselves: the checksum tells.
    let mut bytes = std::fs::read(golden("plain.npz")).unwrap();
    bytes[600] ^= 1;
    let path = folder.path().join("damaged.npz");
    std::fs::write(&path, &bytes).unwrap();
    assert!(message(&path).contains("damaged"), "{}", message(&path));
    assert!(message(&folder.path().join("none.npz")).contains("none.npz"));
}
