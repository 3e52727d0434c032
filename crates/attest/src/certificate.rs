//! Chains of X.509 certificates, from a signer's to a trusted root (RFC 5280, section 6).
//!
//! Only what such chains of code signers have is supported, and what is not is refused: name and
//! policy constraints, unknown critical extensions, signatures other than ECDSA and RSA PKCS#1 v1.5
//! with SHA-2. Certificates that authorities have revoked are known only where they are listed as
//! revoked: nothing is fetched.

use std::cell::Cell;

use pkcs8::ObjectIdentifier;
use pkcs8::spki::{AlgorithmIdentifierOwned, DecodePublicKey, SubjectPublicKeyInfoOwned};
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::traits::PublicKeyParts;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use thiserror::Error;
use x509_cert::Certificate as Parsed;
use x509_cert::der::{DateTime, Decode, DecodePem, Encode, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use crate::digest::Digest;
use crate::public_key::PublicKey;

/// Most certificates between the signer's and the root, both included.
const LONGEST: usize = 8;
/// Most signatures that are verified in search of a chain: who sends many certificates of one name
/// could have others try every order.
const MOST_STEPS: u32 = 64;
/// Least bits of an RSA key (NIST SP 800-131A).
const LEAST_RSA_BITS: u32 = 2048;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}
const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
const SUBJECT_ALT_NAME: ObjectIdentifier = oid("2.5.29.17");
/// Name, policy and inhibit constraints: they limit what an authority may sign.
const CONSTRAINTS: [ObjectIdentifier; 3] = [oid("2.5.29.30"), oid("2.5.29.36"), oid("2.5.29.54")];
const CODE_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.3");
const ANY_USAGE: ObjectIdentifier = oid("2.5.29.37.0");
/// ECDSA with a hash (RFC 5758), and RSA PKCS#1 v1.5 with one (RFC 4055).
const ECDSA: [(ObjectIdentifier, Hash); 3] = [
    (oid("1.2.840.10045.4.3.2"), Hash::Sha256),
    (oid("1.2.840.10045.4.3.3"), Hash::Sha384),
    (oid("1.2.840.10045.4.3.4"), Hash::Sha512),
];
const RSA: [(ObjectIdentifier, Hash); 3] = [
    (oid("1.2.840.113549.1.1.11"), Hash::Sha256),
    (oid("1.2.840.113549.1.1.12"), Hash::Sha384),
    (oid("1.2.840.113549.1.1.13"), Hash::Sha512),
];

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Why a chain of certificates vouches for no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is no certificate.
    #[error("this is no X.509 certificate: {0}")]
    Malformed(String),
    /// The time that is judged lies before it.
    #[error("the certificate of {subject} is not valid at {at}: it begins at {from}")]
    NotYet {
        /// Whose it is.
        subject: String,
        /// The time that is judged.
        at: DateTime,
        /// When it begins.
        from: DateTime,
    },
    /// The time that is judged lies after it.
    #[error("the certificate of {subject} is not valid at {at}: it ended at {until}")]
    Expired {
        /// Whose it is.
        subject: String,
        /// The time that is judged.
        at: DateTime,
        /// When it ended.
        until: DateTime,
    },
    /// It may not be used for this.
    #[error("the certificate of {subject} {why}")]
    Unfit {
        /// Whose it is.
        subject: String,
        /// Why.
        why: String,
    },
    /// No chain of these leads to a trusted root.
    #[error("no chain of certificates leads from {subject} to a trusted root")]
    NoPath {
        /// The signer.
        subject: String,
    },
    /// Too many certificates could be the next of the chain.
    #[error("the certificates that lead from {subject} to a root are too many to try")]
    TooMany {
        /// The signer.
        subject: String,
    },
    /// It was revoked.
    #[error("the certificate of {subject} is revoked: {reason}")]
    Revoked {
        /// Whose it is.
        subject: String,
        /// Why, as the list says.
        reason: String,
    },
}

/// A certificate. Its signature is verified only as part of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    parsed: Parsed,
    /// The bytes that are signed, as they came.
    signed: Vec<u8>,
    fingerprint: Digest,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn from_der(der: &[u8]) -> Result<Certificate, CertificateError> {
        let malformed = |e: x509_cert::der::Error| CertificateError::Malformed(e.to_string());
        let parsed = Parsed::from_der(der).map_err(malformed)?;
        let mut reader = SliceReader::new(der).map_err(malformed)?;
        let signed = reader.sequence(|inner: &mut SliceReader<'_>| {
            let signed = inner.tlv_bytes()?.to_vec();
            while !inner.is_finished() {
                inner.tlv_bytes()?;
            }
            Ok(signed)
        });
        Ok(Certificate { parsed, signed: signed.map_err(malformed)?, fingerprint: Digest::of(der) })
    }

    /// Reads a certificate in PEM.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(text: &str) -> Result<Certificate, CertificateError> {
        let malformed = |e: x509_cert::der::Error| CertificateError::Malformed(e.to_string());
        Certificate::from_der(&Parsed::from_pem(text).and_then(|c| c.to_der()).map_err(malformed)?)
    }

    /// SHA-256 of its DER: what it is revoked by.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The name of whose it is.
    pub fn subject(&self) -> String {
        let name = self.parsed.tbs_certificate().subject().to_string();
        if name.is_empty() { "a holder without a name".into() } else { name }
    }

    fn unfit(&self, why: impl Into<String>) -> CertificateError {
        CertificateError::Unfit { subject: self.subject(), why: why.into() }
    }

    fn extensions(&self) -> &[Extension] {
        self.parsed.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    fn extension<'a, T: Decode<'a, Error = x509_cert::der::Error>>(
        &'a self,
        id: ObjectIdentifier,
    ) -> Result<Option<T>, CertificateError> {
        let mut found = self.extensions().iter().filter(|e| e.extn_id == id);
        let (first, second) = (found.next(), found.next());
        if second.is_some() {
            return Err(self.unfit(format!("has the extension {id} twice")));
        }
        let value = first.map(|e| T::from_der(e.extn_value.as_bytes())).transpose();
        value.map_err(|e| CertificateError::Malformed(e.to_string()))
    }

    /// Refuses what is not valid at a time, or says what is not understood here.
    fn check_at(&self, at: DateTime) -> Result<(), CertificateError> {
        let validity = self.parsed.tbs_certificate().validity();
        let (from, until) = (validity.not_before.to_date_time(), validity.not_after.to_date_time());
        if at < from {
            return Err(CertificateError::NotYet { subject: self.subject(), at, from });
        }
        if at > until {
            return Err(CertificateError::Expired { subject: self.subject(), at, until });
        }
        let known = [BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, SUBJECT_ALT_NAME];
        for extension in self.extensions() {
            let id = extension.extn_id;
            if CONSTRAINTS.contains(&id) || extension.critical && !known.contains(&id) {
                return Err(self.unfit(format!("has the extension {id}, which is not supported")));
            }
        }
        let usage: Option<ExtendedKeyUsage> = self.extension(EXTENDED_KEY_USAGE)?;
        match usage {
            Some(usage) if !usage.0.iter().any(|u| [CODE_SIGNING, ANY_USAGE].contains(u)) => {
                Err(self.unfit("is not for signing code"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may sign a model: as model-signing has it, something has to say so.
    fn check_signer(&self) -> Result<(), CertificateError> {
        let usage: Option<KeyUsage> = self.extension(KEY_USAGE)?;
        let says_so = self.extension::<ExtendedKeyUsage>(EXTENDED_KEY_USAGE)?.is_some();
        match usage {
            Some(usage) if !usage.digital_signature() => Err(self.unfit("is not for signatures")),
            None if !says_so => Err(self.unfit("does not say that it is for signatures")),
            _ => Ok(()),
        }
    }

    /// Whether it may sign certificates that have `below` others between them and the signer's.
    fn check_authority(&self, below: usize) -> Result<(), CertificateError> {
        let constraints: Option<BasicConstraints> = self.extension(BASIC_CONSTRAINTS)?;
        let Some(constraints) = constraints.filter(|c| c.ca) else {
            return Err(self.unfit("is not that of an authority"));
        };
        if constraints.path_len_constraint.is_some_and(|most| usize::from(most) < below) {
            return Err(self.unfit("may not vouch for so long a chain"));
        }
        match self.extension::<KeyUsage>(KEY_USAGE)? {
            Some(usage) if !usage.key_cert_sign() => Err(self.unfit("may not sign certificates")),
            _ => Ok(()),
        }
    }

    /// Refuses a certificate that the key of `issuer` has not signed.
    fn check_signed_by(&self, issuer: &Certificate) -> Result<(), CertificateError> {
        let algorithm = self.parsed.signature_algorithm();
        if algorithm != self.parsed.tbs_certificate().signature() {
            return Err(self.unfit("names two algorithms for its one signature"));
        }
        let Some(signature) = self.parsed.signature().as_bytes() else {
            return Err(self.unfit("has a signature of no whole bytes"));
        };
        let key = issuer.parsed.tbs_certificate().subject_public_key_info();
        match is_signed(&self.signed, signature, algorithm, key) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.unfit(format!("is not signed by the key of {}", issuer.subject()))),
            Err(why) => Err(self.unfit(why)),
        }
    }
}

/// Whether a signature of `message` is that of a key; or what is not supported.
fn is_signed(
    message: &[u8],
    signature: &[u8],
    algorithm: &AlgorithmIdentifierOwned,
    key: &SubjectPublicKeyInfoOwned,
) -> Result<bool, String> {
    let of = |table: &[(ObjectIdentifier, Hash)]| {
        table.iter().find(|(id, _)| *id == algorithm.oid).map(|(_, hash)| *hash)
    };
    let hashed = |hash: Hash| match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha384 => Sha384::digest(message).to_vec(),
        Hash::Sha512 => Sha512::digest(message).to_vec(),
    };
    if let Some(hash) = of(&ECDSA) {
        let key = PublicKey::from_info(key).map_err(|e| format!("has an issuer whose key is unfit: {e}"))?;
        return Ok(key.verifies_hash(&hashed(hash), signature));
    }
    let Some(hash) = of(&RSA) else {
        return Err(format!("is signed by the algorithm {}, which is not supported", algorithm.oid));
    };
    let der = key.to_der().map_err(|e| e.to_string())?;
    let key = rsa::PublicKey::from_public_key_der(&der)
        .map_err(|e| format!("has an issuer whose RSA key is unfit: {e}"))?;
    if key.n().bit_width() < LEAST_RSA_BITS {
        return Err(format!("is signed by an RSA key of fewer than {LEAST_RSA_BITS} bits"));
    }
    let scheme = match hash {
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    };
    Ok(key.verify(scheme, &hashed(hash), signature).is_ok())
}

/// The key of the first certificate of `chain`, if it leads to one of `roots` at a time and none on
/// the way is revoked. The others of `chain` may stand in any order.
///
/// # Errors
/// There is no such way, and why; one on it is not valid at that time, or revoked.
pub fn key_of_chain(
    chain: &[Certificate],
    roots: &[Certificate],
    at: DateTime,
    revoked: &dyn Fn(Digest) -> Option<String>,
) -> Result<PublicKey, CertificateError> {
    let Some(signer) = chain.first() else {
        return Err(CertificateError::Malformed("the chain is empty".into()));
    };
    signer.check_signer()?;
    let search = Search { between: &chain[1..], roots, at, revoked, steps: Cell::new(0) };
    search.follow(signer, 0)?;
    let key = signer.parsed.tbs_certificate().subject_public_key_info();
    PublicKey::from_info(key).map_err(|e| signer.unfit(format!("has a key that is not supported: {e}")))
}

struct Search<'a> {
    between: &'a [Certificate],
    roots: &'a [Certificate],
    at: DateTime,
    revoked: &'a dyn Fn(Digest) -> Option<String>,
    /// Signatures that were verified so far.
    steps: Cell<u32>,
}

impl Search<'_> {
    /// Follows the chain up from a certificate that has `below` others beneath it.
    fn follow(&self, from: &Certificate, below: usize) -> Result<(), CertificateError> {
        from.check_at(self.at)?;
        if let Some(reason) = (self.revoked)(from.fingerprint) {
            return Err(CertificateError::Revoked { subject: from.subject(), reason });
        }
        if self.roots.contains(from) {
            return Ok(());
        }
        let mut why = CertificateError::NoPath { subject: from.subject() };
        if below + 1 == LONGEST {
            return Err(why);
        }
        let issuer = from.parsed.tbs_certificate().issuer();
        let candidates = self.roots.iter().chain(self.between);
        for above in candidates.filter(|c| c.parsed.tbs_certificate().subject() == issuer && *c != from) {
            self.steps.set(self.steps.get() + 1);
            if self.steps.get() > MOST_STEPS {
                return Err(CertificateError::TooMany { subject: from.subject() });
            }
            let step = from.check_signed_by(above).and_then(|()| above.check_authority(below));
            match step.and_then(|()| self.follow(above, below + 1)) {
                Ok(()) => return Ok(()),
                Err(e @ CertificateError::TooMany { .. }) => return Err(e),
                // What is wrong with a way that is there says more than that there is none.
                Err(e) => why = e,
            }
        }
        Err(why)
    }
}
