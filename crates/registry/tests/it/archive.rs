//! A registry as one file.

use std::fs;
use std::path::Path;

use halfstep_attest::trust::Trust;
use halfstep_registry::import::{Import, Imported};
use halfstep_registry::names::Alias;
use halfstep_registry::seen::Older;
use halfstep_registry::version::AttachmentKind;
use halfstep_registry::{Registry, RegistryError};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::place::{Place, act, day};

fn import(place: &Place, file: &str, into: &str, seen: &str) -> Result<Imported, RegistryError> {
    let (file, seen, trust) = (place.path(file), place.path(seen), Trust::default());
    let import = Import { file: &file, trust: &trust, act: &act(20), seen: &seen, older: Older::Refused };
    import.into_folder(&place.path(into))
}

fn said(imported: Result<Imported, RegistryError>) -> String {
    imported.unwrap_err().to_string()
}

/// A registry of two versions, of which one has a card and is `champion`, and another model.
fn with_two_models() -> Place {
    let place = Place::new();
    let a = place.add("a", 0);
    place.promote(&a, 1);
    place.registry.attach(&a.model, a.digest, AttachmentKind::Card, b"card", &act(1)).unwrap();
    let files = place.files("other");
    let model = "other".parse().unwrap();
    let new = halfstep_registry::version::NewVersion { model, files: &files };
    let (other, _) = place.registry.add(&new, &act(2)).unwrap();
    place.registry.make_candidate(&other.model, other.digest, &act(2), None).unwrap();
    place
}

/// The entries of an export.
fn entries(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut zip = ZipArchive::new(fs::File::open(file).unwrap()).unwrap();
    (0..zip.len())
        .map(|number| {
            let mut entry = zip.by_index(number).unwrap();
            let mut bytes = Vec::new();
            std::io::copy(&mut entry, &mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

fn write(file: &Path, entries: &[(String, Vec<u8>)]) {
    let mut zip = ZipWriter::new(fs::File::create(file).unwrap());
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), stored).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn a_registry_goes_through_a_file_and_grows_by_later_ones() {
    let place = with_two_models();
    let done = place.registry.export(&place.path("first.zip"), None, day(3)).unwrap();
    assert_eq!((done.versions, done.moves), (2, 2));
    // Two weights, a recipe that both have, and the card.
    assert_eq!(done.files, 4);
    assert!(place.registry.export(&place.path("first.zip"), None, day(3)).is_err(), "overwritten");

    let new = import(&place, "first.zip", "there", "seen-there").unwrap();
    assert_eq!((new.versions, new.attachments, new.moves), (2, 1, 2));
    let there = Registry::open(&place.path("there")).unwrap();
    assert_eq!(there.id(), place.registry.id());
    assert_eq!(there.versions(None).unwrap(), place.registry.versions(None).unwrap());
    assert_eq!(there.history(0).unwrap(), place.registry.history(0).unwrap());
    assert!(there.audit(&Trust::default(), day(4)).unwrap().faults.is_empty());
    // The same once more changes nothing.
    let again = import(&place, "first.zip", "there", "seen-there").unwrap();
    assert_eq!((again.versions, again.attachments, again.moves), (0, 0, 0));

    place.promote(&place.add("b", 4), 5);
    place.registry.export(&place.path("second.zip"), None, day(6)).unwrap();
    let new = import(&place, "second.zip", "there", "seen-there").unwrap();
    assert_eq!((new.versions, new.attachments, new.moves), (1, 0, 2));
    assert_eq!(there.history(0).unwrap(), place.registry.history(0).unwrap());
    assert!(there.audit(&Trust::default(), day(7)).unwrap().faults.is_empty());
    // An empty folder is taken, another is not.
    fs::create_dir(place.path("empty")).unwrap();
    import(&place, "second.zip", "empty", "seen-empty").unwrap();
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/mine"), "").unwrap();
    assert!(said(import(&place, "second.zip", "full", "seen-full")).contains("holds something"));
}

#[test]
fn an_older_or_another_history_is_refused() {
    let place = with_two_models();
    place.registry.export(&place.path("old.zip"), None, day(3)).unwrap();
    import(&place, "old.zip", "parted", "seen-parted").unwrap();
    let b = place.add("b", 4);
    place.promote(&b, 5);
    place.registry.export(&place.path("new.zip"), None, day(6)).unwrap();
    import(&place, "new.zip", "there", "seen").unwrap();
    let older = said(import(&place, "old.zip", "there", "seen"));
    assert!(older.contains("ends at move 2") && older.contains("at move 4: it is older"), "{older}");
    // Where the folder is gone, what was seen still knows.
    fs::remove_dir_all(place.path("there")).unwrap();
    let older = said(import(&place, "old.zip", "there", "seen"));
    assert!(older.contains("ends before move 4") && older.contains("old.zip"), "{older}");
    assert!(!place.path("there").exists());
    import(&place, "new.zip", "there", "seen").unwrap();

    let parted = Registry::open(&place.path("parted")).unwrap();
    parted.roll_back(&b.model, &Alias::champion(), None, &act(7), None).unwrap_err();
    let files = place.files("c");
    let new = halfstep_registry::version::NewVersion { model: b.model.clone(), files: &files };
    let (c, _) = parted.add(&new, &act(7)).unwrap();
    parted.make_candidate(&c.model, c.digest, &act(7), None).unwrap();
    let refused = said(import(&place, "new.zip", "parted", "seen-parted"));
    assert!(refused.contains("move 3 is another") && refused.contains("have parted"), "{refused}");
    assert!(parted.version(&b.model, b.digest).is_err(), "a version was added all the same");
    let stranger = Place::new();
    let refused = import(&stranger, "new.zip", "registry", "seen");
    assert!(matches!(refused, Err(RegistryError::File { .. })), "no such file there");
    fs::copy(place.path("new.zip"), stranger.path("new.zip")).unwrap();
    assert!(said(import(&stranger, "new.zip", "registry", "seen")).contains("it is of the registry"));
}

#[test]
fn one_model_is_exported_with_the_whole_history() {
    let place = with_two_models();
    let model = "net".parse().unwrap();
    let done = place.registry.export(&place.path("net.zip"), Some(&model), day(3)).unwrap();
    assert_eq!((done.versions, done.moves, done.files), (1, 2, 3));
    assert!(place.registry.export(&place.path("x.zip"), Some(&"no".parse().unwrap()), day(3)).is_err());
    import(&place, "net.zip", "there", "seen").unwrap();
    let there = Registry::open(&place.path("there")).unwrap();
    assert!(there.audit(&Trust::default(), day(4)).unwrap().faults.is_empty());
    let other = there.resolve(&"other@candidate".parse().unwrap()).unwrap();
    let refused = other.present().unwrap_err().to_string();
    assert!(refused.contains("an export left them out"), "{refused}");
    // A whole export brings the rest.
    place.registry.export(&place.path("all.zip"), None, day(5)).unwrap();
    assert_eq!(import(&place, "all.zip", "there", "seen").unwrap().versions, 1);
    there.resolve(&"other@candidate".parse().unwrap()).unwrap().present().unwrap();
    // What is left out of a later export is not taken away.
    place.registry.export(&place.path("net2.zip"), Some(&model), day(6)).unwrap();
    import(&place, "net2.zip", "there", "seen").unwrap();
    there.resolve(&"other@candidate".parse().unwrap()).unwrap().present().unwrap();
    assert!(there.audit(&Trust::default(), day(4)).unwrap().faults.is_empty());
}

#[test]
fn a_file_that_was_changed_is_refused_and_leaves_nothing() {
    let place = with_two_models();
    place.registry.export(&place.path("sound.zip"), None, day(3)).unwrap();
    let sound = entries(&place.path("sound.zip"));
    let text = String::from_utf8(sound[0].1.clone()).unwrap();
    let refused = |what: &str, entries: &[(String, Vec<u8>)]| {
        write(&place.path("changed.zip"), entries);
        let said = said(import(&place, "changed.zip", "there", "seen"));
        assert!(!place.path("there").exists() && !place.path("seen").exists(), "{what}: something is left");
        said
    };
    let index = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let mut entries = sound.clone();
        entries[0].1 = text.replacen(from, to, 1).into_bytes();
        refused(from, &entries)
    };
    assert!(index("\"form\":1", "\"form\":2").contains("this version of halfstep reads"));
    assert!(index(place.registry.id(), "../../../elsewhere").contains("identity"));
    assert!(index("checkpoints/w.safetensors", "../../w").contains("w"));
    // A move that was changed is not the one that the next move, or its alias, follows.
    assert!(index("\"alias\":\"champion\"", "\"alias\":\"champions\"").contains("does not name the move"));
    assert!(index("\"number\":1", "\"number\":0").contains("not the next"));
    assert!(index("\"bytes\":1", "\"bytes\":7").contains("another size"));
    assert!(index("\"bytes\":1", "\"bytes\":77777777").contains("more bytes than it has"));
    assert!(index("\"model\":", "\"modell\":").contains("modell"));

    let mut entries = sound.clone();
    entries[1].1[0] ^= 1;
    assert!(refused("other bytes", &entries).contains("has other bytes"));
    assert!(refused("a file less", &sound[..sound.len() - 1]).contains("is missing"));
    assert!(refused("no index", &sound[1..]).contains("no export of a registry"));
    for name in ["../../escape", "/etc/passwd", "blobs/../registry.db", "registry.db", "policy.toml"] {
        let with = [&sound[..], &[(name.to_string(), b"x".to_vec())]].concat();
        assert!(refused(name, &with).contains("does not belong"), "{name}");
    }
    // What grows when it is read is not read: an index that says that it is compressed.
    let mut bytes = fs::read(place.path("sound.zip")).unwrap();
    let directory = (0..bytes.len()).find(|&at| bytes[at..].starts_with(b"PK\x01\x02")).unwrap();
    (bytes[8], bytes[directory + 10]) = (8, 8);
    fs::write(place.path("bomb.zip"), bytes).unwrap();
    let bomb = said(import(&place, "bomb.zip", "there", "seen"));
    assert!(bomb.contains("no export of a registry"), "{bomb}");
}

#[test]
fn sizes_that_nothing_shows_are_not_believed() {
    let place = with_two_models();
    let model = "net".parse().unwrap();
    place.registry.export(&place.path("net.zip"), Some(&model), day(3)).unwrap();
    let sound = entries(&place.path("net.zip"));
    let index: serde_json::Value = serde_json::from_slice(&sound[0].1).unwrap();
    let left_out = |v: &serde_json::Value| v["model"] == "other";
    let at = index["versions"].as_array().unwrap().iter().position(left_out).unwrap();
    let write_with = |file: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut index = index.clone();
        change(&mut index["versions"][at]["files"]);
        let mut entries = sound.clone();
        entries[0].1 = serde_json::to_vec(&index).unwrap();
        write(&place.path(file), &entries);
    };
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        write_with("changed.zip", change);
        let said = said(import(&place, "changed.zip", "there", "seen"));
        assert!(!place.path("there").exists());
        said
    };
    assert!(refused(&|files| files[0]["bytes"] = u64::MAX.into()).contains("larger than files can be"));
    assert!(refused(&|files| files[0]["bytes"] = (i64::MAX as u64).into()).contains("larger than files"));
    // Of the recipe, which the other model has too, the size is known.
    assert!(refused(&|files| files[1]["bytes"] = 7.into()).contains("listed with two sizes"));
    let twice = |files: &mut serde_json::Value| {
        let first = files[0].clone();
        files.as_array_mut().unwrap().insert(0, first);
    };
    assert!(refused(&twice).contains("not in the order of their names"));

    // A size that is wrong, where the file is left out, does not keep the file itself away.
    write_with("lie.zip", &|files| files[0]["bytes"] = 12_345.into());
    import(&place, "lie.zip", "there", "seen").unwrap();
    place.registry.export(&place.path("all.zip"), None, day(5)).unwrap();
    assert_eq!(import(&place, "all.zip", "there", "seen").unwrap().versions, 1);
    let there = Registry::open(&place.path("there")).unwrap();
    assert_eq!(there.versions(None).unwrap(), place.registry.versions(None).unwrap());
}

#[test]
fn every_cut_and_many_flipped_bits_are_refused_or_change_nothing() {
    let place = with_two_models();
    place.registry.export(&place.path("sound.zip"), None, day(3)).unwrap();
    let sound = fs::read(place.path("sound.zip")).unwrap();
    let whole = place.registry.versions(None).unwrap();
    let tried = |bytes: &[u8]| {
        fs::write(place.path("tried.zip"), bytes).unwrap();
        let imported = import(&place, "tried.zip", "there", "seen").is_ok();
        assert_eq!(imported, place.path("there").exists());
        if imported {
            // Of a ZIP's own fields, such as times, nothing depends. Nor does of who added what.
            let there = Registry::open(&place.path("there")).unwrap();
            let files = |v: &halfstep_registry::version::Version| (v.digest, v.files.clone());
            let [is, was] = [there.versions(None).unwrap(), whole.clone()]
                .map(|v| v.iter().map(files).collect::<Vec<_>>());
            assert_eq!(is, was);
            assert!(there.audit(&Trust::default(), day(4)).unwrap().faults.is_empty());
            fs::remove_dir_all(place.path("there")).unwrap();
            let _ = fs::remove_dir_all(place.path("seen"));
        }
        imported
    };
    assert!(tried(&sound));
    for length in (0..sound.len()).step_by(97) {
        assert!(!tried(&sound[..length]), "cut at {length}");
    }
    let mut imported = 0;
    for at in (0..sound.len()).step_by(41) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        imported += u32::from(tried(&bytes));
    }
    println!("{imported} of {} flipped bits changed nothing that counts", sound.len().div_ceil(41));
}
