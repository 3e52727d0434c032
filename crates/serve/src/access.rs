//! API keys: who may ask what.
//!
//! A key is 256 random bits, of which the server keeps the SHA-256. A plain hash is enough: nobody
//! can try 2^256 keys, so that a salt or a slow hash, which passwords need, would add nothing.
//!
//! ```toml
//! [[key]]
//! name = "web shop"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! scopes = ["read", "infer"]
//! expires = 2027-06-30T00:00:00Z   # optional
//! revoked = "found in a log"       # optional; why
//! ```

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::value::Datetime;

use crate::files::Stamp;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// What the server and its models are, and whether a model is ready.
    Read,
    /// Inferences.
    Infer,
    /// The server's counters.
    Metrics,
}

impl Scope {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Infer => "infer",
            Scope::Metrics => "metrics",
        }
    }
}

/// Why a file of keys cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner can add keys to it.
    #[error("{}: other users may change these API keys (mode {mode:04o}); `chmod 600` the file and look at its keys", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not of the form.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// It has no key.
    #[error("this needs an API key: send the header `Authorization: Bearer KEY`")]
    NoKey,
    /// Nobody has this key.
    #[error("this API key is not known")]
    Unknown,
    /// The key was taken back.
    #[error("the API key `{0}` is revoked")]
    Revoked(String),
    /// The key's time is over.
    #[error("the API key `{name}` expired at {at}")]
    Expired {
        /// Its name.
        name: String,
        /// When.
        at: String,
    },
    /// The key is for other things.
    #[error("the API key `{name}` has not the scope `{}`", scope.name())]
    Scope {
        /// Its name.
        name: String,
        /// What it lacks.
        scope: Scope,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    key: Vec<KeyFields>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFields {
    name: String,
    sha256: String,
    scopes: Vec<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Datetime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

#[derive(Debug)]
struct ApiKey {
    name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
    expires: Option<OffsetDateTime>,
    revoked: bool,
}

/// The keys of a server.
#[derive(Debug)]
pub struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// Reads the keys in a file that its owner alone can change.
    ///
    /// # Errors
    /// The file cannot be read, others can change it, or it is not of the form: a name or hash
    /// stands twice, a hash or time is none. Permissions are not checked on systems other than
    /// Unix.
    pub fn read(path: &Path) -> Result<ApiKeys, KeysError> {
        let of_file = |source| KeysError::File { path: path.into(), source };
        let mode = crate::files::mode(path).map_err(of_file)?;
        if mode & 0o022 != 0 {
            return Err(KeysError::Exposed { path: path.into(), mode });
        }
        let text = std::fs::read_to_string(path).map_err(of_file)?;
        ApiKeys::parse(&text).map_err(|reason| KeysError::Malformed { path: path.into(), reason })
    }

    /// The keys in the text of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<ApiKeys, String> {
        let fields: Fields = toml::from_str(text).map_err(|e| e.to_string())?;
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        let mut keys = Vec::new();
        for KeyFields { name, sha256, scopes, expires, revoked } in fields.key {
            let hash = HEXLOWER.decode(sha256.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
            let hash: [u8; 32] = hash.ok_or_else(|| {
                format!("key `{name}`: sha256 has to be 64 hexadecimal digits, in lower case")
            })?;
            if !names.insert(name.clone()) || !hashes.insert(hash) {
                return Err(format!("key `{name}`: another key has its name or its sha256"));
            }
            let expires = expires.map(|at| {
                instant(at)
                    .ok_or_else(|| format!("key `{name}`: `{at}` is no time, such as 2027-06-30T00:00:00Z"))
            });
            keys.push(ApiKey {
                hash,
                scopes,
                expires: expires.transpose()?,
                revoked: revoked.is_some(),
                name,
            });
        }
        Ok(ApiKeys(keys))
    }

    /// Whether there is a key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the key in `authorization`, the value of that header, if it may be used for
    /// `scope` at `now`.
    ///
    /// # Errors
    /// There is no key, or it is unknown, revoked, expired, or for other things.
    pub fn check(
        &self,
        authorization: Option<&[u8]>,
        scope: Scope,
        now: SystemTime,
    ) -> Result<&str, AccessError> {
        let presented = authorization.and_then(bearer).ok_or(AccessError::NoKey)?;
        let hash = Sha256::digest(presented);
        // All are compared, each in the same time whether or not it is the one.
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.hash.ct_eq(hash.as_slice())) {
                found = Some(key);
            }
        }
        let key = found.ok_or(AccessError::Unknown)?;
        let name = || key.name.clone();
        if key.revoked {
            return Err(AccessError::Revoked(name()));
        }
        if let Some(at) = key.expires.filter(|&at| at <= OffsetDateTime::from(now)) {
            return Err(AccessError::Expired { name: name(), at: at.to_string() });
        }
        if !key.scopes.contains(&scope) {
            return Err(AccessError::Scope { name: name(), scope });
        }
        Ok(&key.name)
    }
}

/// The key in the value of an `Authorization` header. The name of a scheme has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

/// A key that was made just now.
pub struct NewKey {
    /// What a client sends. It is kept nowhere else.
    pub secret: String,
    /// Its entry for the file of keys, which does not give the key away.
    pub entry: String,
}

impl NewKey {
    /// Makes a key of 256 random bits.
    ///
    /// # Errors
    /// The system has no random numbers, or `expires` names no offset from UTC.
    pub fn generate(name: &str, scopes: &[Scope], expires: Option<Datetime>) -> Result<NewKey, NewKeyError> {
        if let Some(at) = expires {
            instant(at).ok_or(NewKeyError::Time(at))?;
        }
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(NewKeyError::Random)?;
        // By the prefix those who search texts for secrets know it.
        let secret = format!("halfstep_{}", BASE64URL_NOPAD.encode(&bits));
        let sha256 = HEXLOWER.encode(&Sha256::digest(&secret));
        let key = KeyFields { name: name.into(), sha256, scopes: scopes.to_vec(), expires, revoked: None };
        let entry = toml::to_string(&Fields { key: vec![key] }).map_err(NewKeyError::Entry)?;
        Ok(NewKey { secret, entry })
    }
}

/// Why no key can be made.
#[derive(Debug, Error)]
pub enum NewKeyError {
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The time is not one of the world.
    #[error("`{0}` is no time, such as 2027-06-30T00:00:00Z")]
    Time(Datetime),
    /// The entry cannot be written.
    #[error("{0}")]
    Entry(toml::ser::Error),
}

/// A time that has an offset from UTC.
fn instant(at: Datetime) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&at.to_string(), &Rfc3339).ok()
}

/// A file of keys that may change while the server runs: a key that is revoked in it stops working.
pub struct KeyFile {
    path: PathBuf,
    state: RwLock<(Stamp, Arc<ApiKeys>)>,
}

impl KeyFile {
    /// Reads the keys.
    ///
    /// # Errors
    /// As [`ApiKeys::read`].
    pub fn open(path: &Path) -> Result<KeyFile, KeysError> {
        let stamp = stamp(path)?;
        let keys = Arc::new(ApiKeys::read(path)?);
        Ok(KeyFile { path: path.into(), state: RwLock::new((stamp, keys)) })
    }

    /// The keys as they were read last.
    pub fn keys(&self) -> Arc<ApiKeys> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Reads the file again if it has changed, and says whether it has.
    ///
    /// # Errors
    /// As [`ApiKeys::read`]. The keys that were read before stay in force until it can be read.
    pub fn refresh(&self) -> Result<bool, KeysError> {
        // Taken before the keys: what changes in between is seen the next time.
        let stamp = stamp(&self.path)?;
        if self.state.read().unwrap_or_else(PoisonError::into_inner).0 == stamp {
            return Ok(false);
        }
        let keys = Arc::new(ApiKeys::read(&self.path)?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = (stamp, keys);
        Ok(true)
    }
}

fn stamp(path: &Path) -> Result<Stamp, KeysError> {
    crate::files::stamp(path).map_err(|source| KeysError::File { path: path.into(), source })
}

/// The address of a server that anybody who reaches it could use or overhear.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{address} can be reached from other machines, and the server has {lacks}: requests could be read or sent by anybody there. Give it {lacks_of}, or bind it to 127.0.0.1"
)]
pub struct Exposed {
    address: SocketAddr,
    lacks: &'static str,
    lacks_of: &'static str,
}

/// What guards a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// It speaks TLS.
    pub tls: bool,
    /// It asks for API keys, and there are some.
    pub keys: bool,
}

/// Refuses an address beyond the machine itself where TLS or API keys are missing.
///
/// # Errors
/// That is so.
pub fn check_exposure(address: SocketAddr, guards: Guards) -> Result<(), Exposed> {
    let (lacks, lacks_of) = match guards {
        _ if address.ip().to_canonical().is_loopback() => return Ok(()),
        Guards { tls: true, keys: true } => return Ok(()),
        Guards { tls: false, keys: false } => ("neither TLS nor API keys", "both"),
        Guards { tls: false, keys: true } => ("no TLS", "a certificate and its key"),
        Guards { tls: true, keys: false } => ("no API keys", "a file of them"),
    };
    Err(Exposed { address, lacks, lacks_of })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
    }

    fn header(secret: &str) -> Vec<u8> {
        format!("Bearer {secret}").into_bytes()
    }

    #[test]
    fn a_key_is_for_its_scopes_until_it_expires() {
        let expires = Some("2027-06-30T02:00:00+02:00".parse().unwrap());
        let key = NewKey::generate("web \"shop\"", &[Scope::Read, Scope::Infer], expires).unwrap();
        assert!(!key.entry.contains(&key.secret[9..]));
        let other = NewKey::generate("other", &[Scope::Metrics], None).unwrap();
        let keys = ApiKeys::parse(&(key.entry + &other.entry)).unwrap();
        let (before, after) = (at("2027-06-29T23:59:59Z"), at("2027-06-30T00:00:00Z"));
        let check = |value: &[u8], scope, now| keys.check(Some(value), scope, now).map(str::to_string);

        assert_eq!(check(&header(&key.secret), Scope::Infer, before), Ok("web \"shop\"".to_string()));
        assert_eq!(check(&header(&other.secret), Scope::Metrics, after), Ok("other".to_string()));
        let lacking = check(&header(&key.secret), Scope::Metrics, before);
        assert!(matches!(lacking, Err(AccessError::Scope { scope: Scope::Metrics, .. })));
        let expired = check(&header(&key.secret), Scope::Infer, after);
        assert!(matches!(expired, Err(AccessError::Expired { .. })));

        // Another key, another scheme, and none at all.
        let mut wrong = key.secret.clone();
        wrong.pop();
        assert_eq!(check(&header(&wrong), Scope::Infer, before), Err(AccessError::Unknown));
        assert_eq!(check(b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe", Scope::Infer, before), Err(AccessError::NoKey));
        assert_eq!(check(key.secret.as_bytes(), Scope::Infer, before), Err(AccessError::NoKey));
        assert_eq!(check(b"Bearer  ", Scope::Infer, before), Err(AccessError::NoKey));
        assert_eq!(keys.check(None, Scope::Infer, before), Err(AccessError::NoKey));
        assert!(check(format!("bEARER  {} ", key.secret).as_bytes(), Scope::Infer, before).is_ok());
    }

    #[test]
    fn a_file_that_is_not_of_the_form_is_refused() {
        let hash = "ab".repeat(32);
        let entry = |name: &str, hash: &str, more: &str| {
            format!("[[key]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nscopes = [\"infer\"]\n{more}\n")
        };
        let good = entry("a", &hash, "expires = 2027-06-30T00:00:00Z\nrevoked = \"lost\"");
        assert_eq!(ApiKeys::parse(&good).unwrap().0.len(), 1);
        assert!(ApiKeys::parse("").unwrap().is_empty());
        for (bad, why) in [
            (entry("a", &hash, "") + &entry("a", &"cd".repeat(32), ""), "another key"),
            (entry("a", &hash, "") + &entry("b", &hash, ""), "another key"),
            (entry("a", &hash[2..], ""), "64 hexadecimal digits"),
            (entry("a", &hash.to_uppercase(), ""), "64 hexadecimal digits"),
            (entry("a", &hash, "expires = 2027-06-30"), "is no time"),
            (entry("a", &hash, "expires = 2027-06-30T00:00:00"), "is no time"),
            (entry("a", &hash, "expire = 2027-06-30T00:00:00Z"), "unknown field"),
            (entry("a", &hash, "").replace("infer", "all"), "unknown variant"),
        ] {
            let error = ApiKeys::parse(&bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_is_revoked_stops_working_and_others_add_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-keys.toml");
        let key = NewKey::generate("a", &[Scope::Infer], None).unwrap();
        let now = SystemTime::now();
        std::fs::write(&path, &key.entry).unwrap();
        let file = KeyFile::open(&path).unwrap();
        assert!(!file.refresh().unwrap());
        assert!(file.keys().check(Some(&header(&key.secret)), Scope::Infer, now).is_ok());

        // A file that cannot be used takes no key away and adds none.
        std::fs::write(&path, "[[key]]").unwrap();
        assert!(matches!(file.refresh(), Err(KeysError::Malformed { .. })));
        assert!(file.keys().check(Some(&header(&key.secret)), Scope::Infer, now).is_ok());

        std::fs::write(&path, key.entry + "revoked = \"lost\"").unwrap();
        assert!(file.refresh().unwrap());
        let revoked = file.keys().check(Some(&header(&key.secret)), Scope::Infer, now).map(str::to_string);
        assert_eq!(revoked, Err(AccessError::Revoked("a".into())));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(KeyFile::open(&path), Err(KeysError::Exposed { mode: 0o620, .. })));
    }

    #[test]
    fn a_server_beyond_this_machine_needs_tls_and_keys() {
        let check = |address: &str, tls, keys| check_exposure(address.parse().unwrap(), Guards { tls, keys });
        for here in ["127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(check(here, false, false), Ok(()));
        }
        for beyond in ["0.0.0.0:80", "[::]:80", "192.168.0.7:80", "[::ffff:10.0.0.1]:80"] {
            assert_eq!(check(beyond, true, true), Ok(()));
            for (tls, keys, lacks) in [
                (false, false, "neither TLS nor API keys"),
                (false, true, "no TLS"),
                (true, false, "no API keys"),
            ] {
                let refused = check(beyond, tls, keys).unwrap_err().to_string();
                assert!(refused.contains(lacks), "{refused}");
            }
        }
    }
}
