//! Processes that change one registry at a time and are killed: a short form of
//! `scripts/soak_registry.py`, in which the crate itself is called.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use halfstep_attest::trust::Trust;
use halfstep_registry::gc::Sweep;
use halfstep_registry::moves::Grounds;
use halfstep_registry::names::Alias;
use halfstep_registry::version::NewVersion;
use halfstep_registry::{Registry, RegistryError};

use crate::place::{Place, act, day, model};

/// Names the folder of a worker, which is this program again.
const FOLDER: &str = "HALFSTEP_TEST_REGISTRY";
const WORKERS: u64 = 4;
const VERSIONS: u64 = 6;

/// What a worker does until it is killed. It ends by itself only where something is wrong.
#[test]
#[ignore = "is run by the test below"]
fn worker() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let registry = Registry::open(&folder.join("registry")).unwrap();
    let sweep = Sweep { now: day(100), keep: Duration::ZERO, grace: Duration::ZERO };
    for n in u64::from(std::process::id()).. {
        // A walk through the versions that differs from process to process.
        let choice = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let files = vec![("checkpoints/w".to_string(), folder.join(format!("w{}", choice % VERSIONS)))];
        let done = match choice / VERSIONS % 4 {
            0 => registry.collect(&sweep).map(drop),
            1 => registry.roll_back(&model(), &Alias::champion(), None, &act(n % 90), None).map(drop),
            _ => registry.add(&NewVersion { model: model(), files: &files }, &act(n % 90)).and_then(
                |(version, _)| {
                    registry
                        .promote(&version, &Alias::champion(), &Grounds::default(), &act(n % 90), None)
                        .map(drop)
                },
            ),
        };
        match done {
            // It is there already, or the version was collected between the two steps.
            Ok(()) | Err(RegistryError::NoWayBack(_) | RegistryError::Removed { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

fn start(place: &Place) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed::worker", "--ignored"]).env(FOLDER, place.folder.path());
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn nothing_is_lost_when_processes_are_killed() {
    let place = Place::new();
    for n in 0..VERSIONS {
        std::fs::write(place.path(&format!("w{n}")), n.to_string()).unwrap();
    }
    let held = place.add("held", 0);
    let first = place.add("first", 0);
    place.promote(&first, 0);
    let _hold = place.registry.hold(&[held.key()]).unwrap();
    let mut workers: BTreeMap<u64, Child> = (0..WORKERS).map(|n| (n, start(&place))).collect();
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        std::thread::sleep(Duration::from_millis(60 + 37 * (kills % 7)));
        let worker = workers.get_mut(&(kills % WORKERS)).unwrap();
        assert!(worker.try_wait().unwrap().is_none(), "a worker ended by itself");
        worker.kill().unwrap();
        worker.wait().unwrap();
        *worker = start(&place);
        kills += 1;
    }
    for worker in workers.values_mut() {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    // The chain, every file of every version that is there, and the moves of each alias.
    let audit = place.registry.audit(&Trust::default(), day(100)).unwrap();
    assert_eq!(audit.faults, Vec::<String>::new());
    assert!(audit.moves > 10, "{audit:?}");
    place.registry.version(&model(), held.digest).unwrap().present().unwrap();
    for head in place.registry.heads().unwrap() {
        place.registry.version(&model(), head.record.to).unwrap().present().unwrap();
    }
    println!("{kills} processes were killed, {} moves", audit.moves);
}
