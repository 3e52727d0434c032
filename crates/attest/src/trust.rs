//! Who is trusted to sign, and the judgement of a signature.
//!
//! A bundle holds no time that anybody but its signer vouches for. So a key or certificate is
//! judged at a time that the caller states, and one that is revoked is refused whatever the time:
//! who has a stolen key can write any date.

use serde::Deserialize;
use thiserror::Error;
use toml::value::Datetime;
use x509_cert::der::DateTime;

use crate::bundle::{Bundle, Material, signed_bytes};
use crate::certificate::{Certificate, CertificateError, key_of_chain};
use crate::digest::Digest;
use crate::public_key::{PublicKey, PublicKeyError};
use crate::statement::{Statement, StatementError};

/// Why a trust file cannot be used.
#[derive(Debug, Error)]
pub enum TrustError {
    /// It is not of the form.
    #[error("{0}")]
    Malformed(String),
    /// A key in it is none.
    #[error("key `{name}`: {source}")]
    Key {
        /// Its name.
        name: String,
        /// Why.
        source: PublicKeyError,
    },
    /// A certificate in it is none.
    #[error("root `{name}`: {source}")]
    Root {
        /// Its name.
        name: String,
        /// Why.
        source: CertificateError,
    },
    /// A time is not one of UTC.
    #[error("key `{name}`: `{time}` is no time in UTC, such as 2026-11-27T12:00:00Z")]
    Time {
        /// Whose key.
        name: String,
        /// What stands there.
        time: String,
    },
    /// Two entries name one key.
    #[error("the keys `{0}` and `{1}` are the same")]
    Twice(String, String),
}

/// Why a signature is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It needs the network.
    #[error(
        "this is signed by Sigstore's keyless method. Its certificate was valid for minutes, and only the public log can show that the signature is of that time: verifying it needs the network, which this program does not use. Ask for a signature by a key or by a certificate chain"
    )]
    Keyless,
    /// Nobody trusts the key.
    #[error("this is signed by a key that is not trusted (fingerprint {0})")]
    UnknownKey(String),
    /// The key that the bundle names is no key.
    #[error("the key that the signature brings along is none: {0}")]
    Key(#[from] PublicKeyError),
    /// The key is trusted no longer, or not yet.
    #[error("the key `{name}` is trusted {when}, and the time that is judged is {at}")]
    OutsideValidity {
        /// Its name.
        name: String,
        /// From when or until when it is trusted.
        when: String,
        /// The time that is judged.
        at: DateTime,
    },
    /// The key is revoked.
    #[error("the key `{name}` is revoked: {reason}")]
    Revoked {
        /// Its name.
        name: String,
        /// Why, as the trust file says.
        reason: String,
    },
    /// The certificates do not lead to a root.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The signature is of other bytes, or by another key.
    #[error("the signature does not fit what it signs: one of them was changed, or another key signed")]
    Forged,
    /// The signature is right, and what it signs is nothing that is known here.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// What a signature proved.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What was signed.
    pub statement: Statement,
    /// The name of the key in the trust file, or the subject of the certificate.
    pub signer: String,
    /// Fingerprint of the key that signed.
    pub fingerprint: String,
    /// The time at which key or certificate were judged.
    pub at: DateTime,
}

struct TrustedKey {
    name: String,
    key: PublicKey,
    from: Option<DateTime>,
    until: Option<DateTime>,
    revoked: Option<String>,
}

/// Who is trusted.
#[derive(Default)]
pub struct Trust {
    keys: Vec<TrustedKey>,
    roots: Vec<Certificate>,
    revoked: Vec<(Digest, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    key: Vec<KeyFields>,
    #[serde(default)]
    root: Vec<RootFields>,
    #[serde(default)]
    revoked_certificate: Vec<RevokedFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFields {
    name: String,
    public: String,
    from: Option<Datetime>,
    until: Option<Datetime>,
    revoked: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFields {
    name: String,
    certificate: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedFields {
    sha256: Digest,
    reason: String,
}

impl Trust {
    /// Reads a trust file.
    ///
    /// # Errors
    /// It is not of the form; a key, certificate or time in it is none; a key is in it twice.
    pub fn parse(text: &str) -> Result<Trust, TrustError> {
        let fields: Fields = toml::from_str(text).map_err(|e| TrustError::Malformed(e.to_string()))?;
        let mut trust = Trust::default();
        for KeyFields { name, public, from, until, revoked } in fields.key {
            let key = PublicKey::from_pem(&public);
            let key = key.map_err(|source| TrustError::Key { name: name.clone(), source })?;
            if let Some(other) = trust.keys.iter().find(|k| k.key == key) {
                return Err(TrustError::Twice(other.name.clone(), name));
            }
            let time = |time: Option<Datetime>| {
                let parse = |time: Datetime| {
                    let time = time.to_string();
                    time.parse().map_err(|_| TrustError::Time { name: name.clone(), time })
                };
                time.map(parse).transpose()
            };
            let (from, until) = (time(from)?, time(until)?);
            trust.keys.push(TrustedKey { name, key, from, until, revoked });
        }
        for RootFields { name, certificate } in fields.root {
            let root = Certificate::from_pem(&certificate);
            trust.roots.push(root.map_err(|source| TrustError::Root { name, source })?);
        }
        trust.revoked = fields.revoked_certificate.into_iter().map(|r| (r.sha256, r.reason)).collect();
        Ok(trust)
    }

    /// Trusts a key without end, unless it is there already.
    pub fn add_key(&mut self, name: impl Into<String>, key: PublicKey) {
        if self.keys.iter().all(|k| k.key != key) {
            self.keys.push(TrustedKey { name: name.into(), key, from: None, until: None, revoked: None });
        }
    }

    /// Trusts an authority.
    pub fn add_root(&mut self, root: Certificate) {
        self.roots.push(root);
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.roots.is_empty()
    }

    /// Judges a signature at a time: who made it, and what it says.
    ///
    /// # Errors
    /// The key or certificate is not trusted at that time, the signature does not fit, or what was
    /// signed is not known here.
    pub fn verify(&self, bundle: &Bundle, at: DateTime) -> Result<Verified, Refusal> {
        let (signer, key) = self.signer(bundle.material(), at)?;
        if !key.verifies(&signed_bytes(bundle.payload()), bundle.signature()) {
            return Err(Refusal::Forged);
        }
        let statement = Statement::parse(bundle.payload())?;
        Ok(Verified { statement, signer, fingerprint: key.fingerprint(), at })
    }

    /// The trusted signer that a bundle names, and the key.
    fn signer(&self, material: &Material, at: DateTime) -> Result<(String, PublicKey), Refusal> {
        let fingerprint = match material {
            Material::Keyless => return Err(Refusal::Keyless),
            Material::Certificates(chain) => {
                let chain: Result<Vec<_>, _> = chain.iter().map(|der| Certificate::from_der(der)).collect();
                let chain = chain?;
                let reason =
                    |f: Digest| self.revoked.iter().find(|(r, _)| *r == f).map(|(_, why)| why.clone());
                let key = key_of_chain(&chain, &self.roots, at, &reason)?;
                let name = chain[0].subject();
                // A key that is revoked by name does not come back in a certificate.
                if let Some(known) = self.keys.iter().find(|k| k.key == key && k.revoked.is_some()) {
                    known.check(at)?;
                }
                return Ok((name, key));
            }
            Material::Fingerprint(fingerprint) => fingerprint.clone(),
            Material::Pem(pem) => PublicKey::from_pem(&String::from_utf8_lossy(pem))?.fingerprint(),
        };
        let Some(known) = self.keys.iter().find(|k| k.key.fingerprint() == fingerprint) else {
            return Err(Refusal::UnknownKey(fingerprint));
        };
        known.check(at)?;
        Ok((known.name.clone(), known.key.clone()))
    }
}

impl TrustedKey {
    fn check(&self, at: DateTime) -> Result<(), Refusal> {
        let name = self.name.clone();
        let outside = |when| Refusal::OutsideValidity { name: name.clone(), when, at };
        if let Some(reason) = &self.revoked {
            return Err(Refusal::Revoked { name, reason: reason.clone() });
        }
        match (self.from, self.until) {
            (Some(from), _) if at < from => Err(outside(format!("from {from} on"))),
            (_, Some(until)) if at > until => Err(outside(format!("until {until}"))),
            _ => Ok(()),
        }
    }
}
