//! Signed moves.

use std::fs;

use halfstep_attest::private_key::PrivateKey;
use halfstep_attest::trust::Trust;
use halfstep_registry::RegistryError;
use halfstep_registry::import::Import;
use halfstep_registry::moves::{Grounds, Recorded};
use halfstep_registry::names::Alias;
use halfstep_registry::seen::Older;
use halfstep_registry::version::Version;
use rusqlite::Connection;

use crate::place::{Place, act, day, model};

/// A registry whose `champion` was moved three times by a key that is trusted.
struct Signed {
    place: Place,
    key: PrivateKey,
    trust: Trust,
    versions: [Version; 3],
}

impl Signed {
    fn new() -> Signed {
        let place = Place::new();
        let key = PrivateKey::generate().unwrap();
        let mut trust = Trust::default();
        trust.add_key("release", key.public());
        let versions = ["a", "b", "c"].map(|weights| place.add(weights, 0));
        let signed = Signed { place, key, trust, versions };
        for (on, version) in (1..).zip(&signed.versions) {
            signed.promote(version, on, Some(&signed.key)).unwrap();
        }
        signed
    }

    fn promote(
        &self,
        version: &Version,
        on: u64,
        key: Option<&PrivateKey>,
    ) -> Result<Vec<Recorded>, RegistryError> {
        self.place.registry.promote(version, &Alias::champion(), &Grounds::default(), &act(on), key)
    }

    fn head(&self) -> Recorded {
        self.place.registry.head(&model(), &Alias::champion()).unwrap()
    }

    fn mover(&self, made: &Recorded) -> Result<Option<String>, RegistryError> {
        self.place.registry.mover(made, &self.trust, day(10))
    }

    /// What is said of the latest move, and of the whole registry.
    fn refused(&self) -> String {
        let said = self.mover(&self.head()).unwrap_err().to_string();
        let faults = self.place.registry.audit(&self.trust, day(10)).unwrap().faults;
        assert!(faults.contains(&said), "{said}: {faults:?}");
        said
    }

    /// Gives a move another signature, as somebody can who can write to the folder.
    fn set_signature(&self, number: u64, signature: Option<&str>) {
        let db = Connection::open(self.place.registry.folder().join("registry.db")).unwrap();
        let number = i64::try_from(number).unwrap();
        db.execute("UPDATE move SET signature = ? WHERE number = ?", (signature, number)).unwrap();
    }
}

#[test]
fn who_moved_an_alias_is_proved_by_signatures() {
    let signed = Signed::new();
    // Each promotion but the first moves `last-good` besides.
    let history = signed.place.registry.history(0).unwrap();
    assert_eq!(history.len(), 5);
    for made in &history {
        assert_eq!(signed.mover(made).unwrap().as_deref(), Some("release"));
    }
    let audit = signed.place.registry.audit(&signed.trust, day(10)).unwrap();
    assert_eq!((audit.signatures, audit.faults), (5, vec![]));
    let back =
        signed.place.registry.roll_back(&model(), &Alias::champion(), None, &act(4), Some(&signed.key));
    assert_eq!(signed.mover(&back.unwrap()).unwrap().as_deref(), Some("release"));
    let a = &signed.versions[0];
    signed.promote(a, 5, None).unwrap();
    assert_eq!(signed.mover(&signed.head()).unwrap(), None);

    // Signed anew it is another move to the same version, from which the way back is the same.
    assert!(signed.promote(a, 6, None).unwrap_err().to_string().contains("already"));
    let anew = signed.promote(a, 6, Some(&signed.key)).unwrap();
    assert_eq!((anew.len(), anew[0].record.from, anew[0].record.to), (1, Some(a.digest), a.digest));
    assert_eq!(signed.mover(&signed.head()).unwrap().as_deref(), Some("release"));
    let to = signed.place.registry.way_back(&model(), &Alias::champion(), None).unwrap();
    assert_eq!(to, signed.versions[1].digest);
    assert!(signed.place.registry.audit(&signed.trust, day(10)).unwrap().faults.is_empty());
}

#[test]
fn an_old_signed_move_or_a_stranger_s_is_refused() {
    let signed = Signed::new();
    let [old, head] = [1, signed.head().record.number].map(|number| {
        let history = signed.place.registry.history(number).unwrap();
        history[0].signature.clone().unwrap()
    });
    let number = signed.head().record.number;
    // The move to `a`, presented as the latest.
    signed.set_signature(number, Some(&old));
    assert!(signed.refused().contains("an old move is presented again"), "{}", signed.refused());
    let b = &signed.versions[1];
    // A move that somebody else signed, and one of this key that is of another registry.
    let other = Signed::new();
    signed.set_signature(number, other.head().signature.as_deref());
    assert!(signed.refused().contains("not trusted"), "{}", signed.refused());
    let elsewhere = other.promote(b, 4, Some(&signed.key));
    let elsewhere = elsewhere.unwrap()[0].signature.clone();
    signed.set_signature(number, elsewhere.as_deref());
    assert!(signed.refused().contains("this is a move of the registry"), "{}", signed.refused());
    signed.set_signature(number, Some("{}"));
    assert!(signed.refused().contains("does not hold"), "{}", signed.refused());
    // Without its signature it is a move that nobody signed.
    signed.set_signature(number, None);
    assert_eq!(signed.mover(&signed.head()).unwrap(), None);
    signed.set_signature(number, Some(&head));
    assert_eq!(signed.mover(&signed.head()).unwrap().as_deref(), Some("release"));
}

#[test]
fn a_signed_move_of_one_alias_is_none_of_another() {
    let signed = Signed::new();
    let newest = signed.place.add("d", 4);
    let registry = &signed.place.registry;
    let added = registry.make_candidate(&model(), newest.digest, &act(4), Some(&signed.key)).unwrap();
    let database = Connection::open(registry.folder().join("registry.db")).unwrap();
    // Somebody who can write to the folder lists the move of `candidate`, which anybody signs who
    // adds a version, as one of `champion`, of another model, or as a later one.
    for change in ["alias = 'champion'", "model = 'other'", "number = 100"] {
        let was = format!("alias = 'candidate', model = '{}', number = {}", model(), added.record.number);
        let to = |set: &str| {
            let sql = format!("UPDATE move SET {set} WHERE sha256 = ?");
            assert_eq!(database.execute(&sql, [added.sha256.to_string()]).unwrap(), 1);
        };
        to(change);
        let faults = registry.audit(&signed.trust, day(10)).unwrap().faults;
        assert!(faults.iter().any(|fault| fault.contains("than its record has")), "{change}: {faults:?}");
        let champion = registry.head(&model(), &Alias::champion());
        match champion {
            Ok(head) => assert_eq!(head.record.to, signed.versions[2].digest, "{change}"),
            Err(e) => assert!(matches!(e, RegistryError::History { .. }), "{change}: {e}"),
        }
        to(&was);
    }
    assert_eq!(registry.audit(&signed.trust, day(10)).unwrap().faults, Vec::<String>::new());
}

#[test]
fn a_key_that_is_trusted_no_longer_proves_no_latest_move() {
    let signed = Signed::new();
    let pem = signed.key.public().to_pem();
    let trust = |rest: &str| {
        let text = format!("[[key]]\nname = \"old\"\npublic = \"\"\"\n{pem}\"\"\"\n{rest}\n");
        Trust::parse(&text).unwrap()
    };
    let faults = |trust: &Trust| signed.place.registry.audit(trust, day(10)).unwrap().faults;
    // The moves were on the days 1 to 3. The latest of `champion` and of `last-good` count now.
    let expired = trust(&format!("until = {}", day(9)));
    let said = faults(&expired);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|fault| fault.contains("`old` is trusted until")), "{said:?}");
    let early = trust(&format!("until = {}", day(2)));
    assert_eq!(faults(&early).len(), 2);
    // A key that was stolen proves nothing, of whatever time.
    let said = faults(&trust("revoked = \"stolen\""));
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(said.iter().all(|fault| fault.contains("revoked: stolen")), "{said:?}");
}

#[test]
fn moves_keep_their_signatures_in_a_file_and_a_wrong_one_is_not_imported() {
    let signed = Signed::new();
    let import = |file: &str, into: &str| {
        let place = &signed.place;
        let (file, seen) = (place.path(file), place.path("seen"));
        let act = &act(10);
        let import = Import { file: &file, trust: &signed.trust, act, seen: &seen, older: Older::Refused };
        import.into_folder(&place.path(into))
    };
    signed.place.registry.export(&signed.place.path("sound.zip"), None, day(4)).unwrap();
    assert_eq!(import("sound.zip", "there").unwrap().moves, 5);
    let old = signed.place.registry.history(1).unwrap()[0].signature.clone();
    signed.set_signature(signed.head().record.number, old.as_deref());
    signed.place.registry.export(&signed.place.path("changed.zip"), None, day(4)).unwrap();
    let refused = import("changed.zip", "not-there").unwrap_err().to_string();
    assert!(refused.contains("an old move is presented again"), "{refused}");
    assert!(fs::metadata(signed.place.path("not-there")).is_err());
}
