//! Versions, aliases, and what keeps them.

use std::path::Path;
use std::time::Duration;

use halfstep_attest::private_key::PrivateKey;
use halfstep_attest::trust::Trust;
use halfstep_registry::actor::Act;
use halfstep_registry::gc::Sweep;
use halfstep_registry::moves::Grounds;
use halfstep_registry::names::Alias;
use halfstep_registry::seen::Older;
use halfstep_registry::version::{NewVersion, Outcome};
use halfstep_registry::{Registry, RegistryError};
use rusqlite::Connection;

use crate::place::{DAY, Place, act, day, model};

const NO_TIME: Duration = Duration::ZERO;

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_is_loaded_for_a_rollback_is_where_it_goes() {
    let place = Place::new();
    let alias = Alias::champion();
    let fallback = || place.registry.fallback(&model(), &alias).unwrap();
    let roll_back = |on| place.registry.roll_back(&model(), &alias, None, &act(on), None).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|weights| place.add(weights, 0));
    assert_eq!(fallback(), None);
    place.promote(&a, 1);
    assert_eq!(fallback(), None);
    place.promote(&b, 2);
    assert_eq!(fallback(), Some(a.digest));
    place.promote(&c, 3);
    assert_eq!(fallback(), Some(b.digest));
    roll_back(4);
    assert_eq!(fallback(), Some(a.digest));
    // Where there is nothing to go back to, the version that was left last may come again.
    roll_back(5);
    assert_eq!(place.head(&alias).1, a.digest);
    assert_eq!(fallback(), Some(b.digest));
}

#[test]
fn the_same_files_are_the_same_version_and_come_out_as_they_went_in() {
    let place = Place::new();
    let version = place.add("one", 0);
    let files = place.files("one");
    let again = place.registry.add(&NewVersion { model: model(), files: &files }, &act(5)).unwrap();
    assert_eq!(again, (version.clone(), Outcome::Known));

    place.registry.materialise(&version, &place.path("out")).unwrap();
    assert_eq!(std::fs::read(place.path("out/checkpoints/w.safetensors")).unwrap(), b"one");
    assert!(place.registry.materialise(&version, &place.path("out")).is_err());

    // Contents alone make the digest: other names for them are refused, not confused.
    let renamed = [("checkpoints/v.safetensors".to_string(), files[0].1.clone()), files[1].clone()];
    let refused = place.registry.add(&NewVersion { model: model(), files: &renamed }, &act(0));
    assert!(refused.unwrap_err().to_string().contains("under other names"));
    for name in ["../w", "/w", "a/../../w", ""] {
        let files = [(name.to_string(), files[0].1.clone())];
        assert!(
            place.registry.add(&NewVersion { model: model(), files: &files }, &act(0)).is_err(),
            "{name}"
        );
    }
    assert!(place.faults().is_empty());

    // A file that was changed behind the registry's back is found, and never given out.
    let blob = place.registry.path_of(&version.files[0]);
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, "two").unwrap();
    assert_eq!(place.faults().len(), 1);
    let changed = place.registry.materialise(&version, &place.path("changed"));
    assert!(matches!(changed, Err(RegistryError::Changed(_))));
    assert!(!place.path("changed").exists());
    // Adding the same again makes it whole.
    place.add("one", 0);
    assert!(place.faults().is_empty());
}

#[test]
fn a_rollback_is_a_new_move_to_the_version_before() {
    let place = Place::new();
    let [a, b, c] = ["a", "b", "c"].map(|w| place.add(w, 0));
    let champion = Alias::champion();
    place.promote(&a, 0);
    place.promote(&b, 1);
    assert_eq!(place.head(&Alias::last_good()), (3, a.digest));
    place.promote(&c, 2);
    assert_eq!(place.head(&champion), (4, c.digest));
    let back = |to| place.registry.roll_back(&model(), &champion, to, &act(3), None);
    assert_eq!(back(None).unwrap().record.to, b.digest);
    // What is rolled back twice goes back two versions, not to and fro.
    assert_eq!(back(None).unwrap().record.to, a.digest);
    assert!(matches!(back(None), Err(RegistryError::NoWayBack(_))));
    assert_eq!(back(Some(c.digest)).unwrap().record.to, c.digest);
    let never = place.add("d", 0);
    assert!(matches!(back(Some(never.digest)), Err(RegistryError::NoWayBack(_))));

    let history = place.registry.history(0).unwrap();
    let numbers: Vec<u64> = history.iter().map(|m| m.record.number).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let of_alias: Vec<_> = history.iter().filter(|m| m.record.alias == champion).collect();
    for pair in of_alias.windows(2) {
        assert_eq!(pair[1].record.previous, Some(pair[0].record.number));
        assert_eq!(pair[1].record.from, Some(pair[0].record.to));
    }
    assert!(place.faults().is_empty());
}

#[test]
fn an_older_state_of_a_registry_is_refused() {
    let place = Place::new();
    let seen = place.path("seen");
    let [a, b] = ["a", "b"].map(|w| place.add(w, 0));
    place.promote(&a, 0);
    place.registry.remember(&seen, Older::Refused).unwrap();
    copy_tree(place.registry.folder(), &place.path("backup"));
    place.promote(&b, 1);
    place.registry.remember(&seen, Older::Refused).unwrap();

    let restored = Registry::open(&place.path("backup")).unwrap();
    let refused = restored.remember(&seen, Older::Refused).unwrap_err();
    assert!(refused.to_string().contains("ends before move 3"), "{refused}");
    // Neither does another history of the same length do.
    restored.roll_back(&model(), &Alias::champion(), None, &act(1), None).unwrap_err();
    restored.promote(&b, &Alias::champion(), &Grounds::default(), &act(9), None).unwrap();
    let refused = restored.remember(&seen, Older::Refused).unwrap_err();
    assert!(refused.to_string().contains("written again"), "{refused}");
    let why = Act { reason: Some("the disk was lost".into()), ..act(9) };
    restored.remember(&seen, Older::Accepted(&why)).unwrap();
    let noted = std::fs::read_to_string(seen.join(format!("{}.accepted.jsonl", restored.id()))).unwrap();
    assert!(noted.contains("the disk was lost") && noted.lines().count() == 1, "{noted}");
    restored.remember(&seen, Older::Refused).unwrap();
    assert!(place.registry.remember(&seen, Older::Refused).is_err());
}

#[test]
fn what_is_used_is_not_collected() {
    let place = Place::new();
    let [a, b, held, old] = ["a", "b", "held", "old"].map(|w| place.add(w, 0));
    place.promote(&a, 0);
    place.promote(&b, 1);
    let hold = place.registry.hold(&[held.key()]).unwrap();
    let sweep = |on, keep: u64| Sweep { now: day(on), keep: Duration::from_secs(keep * DAY), grace: NO_TIME };
    // Added within the days that are kept.
    assert!(place.registry.collect(&sweep(3, 30)).unwrap().marked.is_empty());
    assert_eq!(place.registry.collect(&sweep(40, 30)).unwrap().marked, [old.key()]);
    let dry = place.registry.collectable(&sweep(41, 30)).unwrap();
    assert_eq!((dry.removed.as_slice(), dry.files, dry.bytes), ([old.key()].as_slice(), 1, 3));
    let done = place.registry.collect(&sweep(41, 30)).unwrap();
    assert_eq!(done, dry);
    assert!(!place.registry.path_of(&old.files[0]).exists());
    assert!(place.registry.materialise(&old, &place.path("out")).is_err());
    assert!(!place.path("out").exists());
    let gone = place.registry.version(&model(), old.digest).unwrap();
    assert!(matches!(gone.present(), Err(RegistryError::Removed { .. })));
    assert!(matches!(place.registry.hold(&[old.key()]), Err(RegistryError::Removed { .. })));
    // `a` is `last-good`, `b` is `champion`.
    for version in [&a, &b, &held] {
        assert!(place.registry.path_of(&version.files[0]).exists());
    }
    // What is let go is marked first, and removed when the time of grace has passed.
    drop(hold);
    let slow = Sweep { grace: Duration::from_secs(2 * DAY), ..sweep(50, 30) };
    assert_eq!(place.registry.collect(&slow).unwrap().marked, [held.key()]);
    assert_eq!(place.registry.collect(&Sweep { now: day(51), ..slow }).unwrap().waiting, [held.key()]);
    let hold = place.registry.hold(&[held.key()]).unwrap();
    assert_eq!(place.registry.collect(&Sweep { now: day(53), ..slow }).unwrap().removed, []);
    drop(hold);
    // It was used in between, so that its time begins anew.
    assert_eq!(place.registry.collect(&Sweep { now: day(54), ..slow }).unwrap().marked, [held.key()]);
    assert!(place.faults().is_empty());
    place.add("old", 60);
    place.registry.version(&model(), old.digest).unwrap().present().unwrap();
    assert!(place.faults().is_empty());
}

#[test]
#[cfg(unix)]
fn a_hold_that_cannot_be_read_keeps_everything() {
    let place = Place::new();
    let [old, newest] = ["old", "newest"].map(|w| place.add(w, 0));
    place.promote(&newest, 0);
    let sweep = |on| Sweep { now: day(on), keep: Duration::from_secs(DAY), grace: NO_TIME };
    assert_eq!(place.registry.collect(&sweep(40)).unwrap().marked, [old.key()]);
    let hold = place.registry.hold(&[old.key()]).unwrap().unwrap();
    // A link to itself stands for the file of another user: root reads every file.
    let holds = place.registry.folder().join("holds");
    let unreadable = holds.join("another's");
    std::os::unix::fs::symlink(&unreadable, &unreadable).unwrap();
    let refused = place.registry.collect(&sweep(41)).unwrap_err().to_string();
    assert!(refused.contains("another's"), "{refused}");
    std::fs::remove_file(&unreadable).unwrap();
    assert_eq!(place.registry.collect(&sweep(41)).unwrap().removed, []);
    drop(hold);

    // What a killed process held is let go, and a dry run leaves its file where it is.
    let left = holds.join("99999-0");
    std::fs::write(&left, format!("[{{\"model\":\"{}\",\"digest\":\"{}\"}}]", model(), old.digest)).unwrap();
    assert_eq!(place.registry.collectable(&sweep(42)).unwrap().marked, [old.key()]);
    assert!(left.exists());
    assert_eq!(place.registry.collect(&sweep(42)).unwrap().marked, [old.key()]);
    assert!(!left.exists());
}

#[test]
#[cfg(unix)]
fn what_has_no_end_is_not_read() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let [a, b] = ["a", "b"].map(|w| place.add(w, 0));
    let endless = std::path::Path::new("/dev/zero");
    let policy = place.registry.policy_file();
    assert_eq!(place.registry.policy().unwrap(), None);
    symlink(endless, &policy).unwrap();
    assert!(place.registry.policy().unwrap_err().to_string().contains("no regular file"));
    std::fs::remove_file(&policy).unwrap();
    std::fs::write(&policy, "x".repeat((1 << 20) + 1)).unwrap();
    assert!(place.registry.policy().unwrap_err().to_string().contains("more than"));
    std::fs::write(&policy, "claim").unwrap();
    assert_eq!(place.registry.policy().unwrap().as_deref(), Some("claim"));

    for (version, file) in [(&a, &a.files[0]), (&b, &b.files[0])] {
        let path = place.registry.path_of(file);
        std::fs::remove_file(&path).unwrap();
        symlink(endless, &path).unwrap();
        assert!(place.registry.materialise(version, &place.path("out")).is_err());
        assert!(place.registry.read_file(file, 1 << 40).is_err());
    }
    let faults = place.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(place.registry.export(&place.path("x.zip"), None, day(1)).is_err());
    symlink(endless, place.registry.folder().join("holds/1-1")).unwrap();
    let sweep = Sweep { now: day(9), keep: Duration::from_secs(DAY), grace: NO_TIME };
    assert!(place.registry.collect(&sweep).is_err());
}

#[test]
fn an_audit_names_everything_that_was_changed_in_the_database() {
    let place = Place::new();
    let [a, b] = ["a", "b"].map(|w| place.add(w, 0));
    place.promote(&a, 0);
    let mut trust = Trust::default();
    trust.add_key("me", PrivateKey::generate().unwrap().public());
    let faults_with = |change: &str, back: &str| {
        let database = Connection::open(place.registry.folder().join("registry.db")).unwrap();
        database.execute_batch(change).unwrap();
        let faults = place.registry.audit(&trust, day(1)).map(|audit| audit.faults);
        database.execute_batch(back).unwrap();
        faults
    };
    // Of both versions, though the first has no name that could be signed.
    let faults = faults_with(
        "UPDATE file SET name = '../r' WHERE name = 'recipe.toml'",
        "UPDATE file SET name = 'recipe.toml' WHERE name = '../r'",
    );
    let faults = faults.unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
    for version in [&a, &b] {
        let named = |fault: &String| fault.contains(&version.digest.to_string()) && fault.contains("../r");
        assert!(faults.iter().any(named), "{faults:?}");
    }
    let sizes = "UPDATE file SET bytes = 7 WHERE name = 'recipe.toml'";
    let faults = faults_with(sizes, "UPDATE file SET bytes = 6 WHERE name = 'recipe.toml'").unwrap();
    assert!(faults.len() == 1 && faults[0].contains("it has 6 bytes"), "{faults:?}");
    let said = faults_with("UPDATE version SET model = '../net'", "UPDATE version SET model = 'net'");
    let said = said.unwrap_err().to_string();
    assert!(said.contains("the database is damaged") && said.contains("../net"), "{said}");
    assert_eq!(place.faults(), Vec::<String>::new());
}

#[test]
fn where_nothing_can_be_remembered_it_is_said_what_for() {
    let place = Place::new();
    std::fs::write(place.path("a-file"), "").unwrap();
    let said = place.registry.remember(&place.path("a-file/seen"), Older::Refused).unwrap_err().to_string();
    assert!(said.contains("a-file") && said.contains("what was seen of registries"), "{said}");
}

#[test]
fn what_is_no_registry_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |registry: Result<Registry, RegistryError>| registry.err().unwrap().to_string();
    assert!(refused(Registry::open(folder.path())).contains("there is no registry"));
    std::fs::write(folder.path().join("mine"), "").unwrap();
    assert!(refused(Registry::open_or_create(folder.path(), &act(0))).contains("holds something"));
    std::fs::write(folder.path().join("registry.db"), "not a database, but long enough to be one").unwrap();
    assert!(refused(Registry::open(folder.path())).contains("no database of a registry"));

    let place = Place::new();
    let database = place.registry.folder().join("registry.db");
    let bytes = std::fs::read(&database).unwrap();
    // `application_id` is at 68 of SQLite's header, and the pages behind the first hold tables.
    let mut foreign = bytes.clone();
    foreign[68..72].fill(0);
    std::fs::write(folder.path().join("registry.db"), &foreign).unwrap();
    assert!(refused(Registry::open(folder.path())).contains("another program"));
    let mut damaged = bytes;
    damaged[4096..].fill(0xAA);
    std::fs::write(folder.path().join("registry.db"), &damaged).unwrap();
    assert!(refused(Registry::open(folder.path())).contains("damaged"));
}
