//! Public keys on the three curves that OpenSSF Model Signing names.

use data_encoding::HEXLOWER;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use pkcs8::spki::{DecodePublicKey, EncodePublicKey, SubjectPublicKeyInfoOwned};
use pkcs8::{LineEnding, ObjectIdentifier};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_cert::der::{Decode, DecodePem, Encode};

/// `id-ecPublicKey`, RFC 5480.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Why bytes are no public key that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    /// They are no key at all.
    #[error("this is no public key in PEM (`-----BEGIN PUBLIC KEY-----`): {0}")]
    Malformed(String),
    /// They are a key of another kind.
    #[error("this public key is not on one of the curves P-256, P-384 and P-521 (algorithm {0})")]
    Unsupported(String),
}

/// A public key: what a signature is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// secp256r1; signatures are of SHA-256.
    P256(p256::ecdsa::VerifyingKey),
    /// secp384r1; signatures are of SHA-384.
    P384(p384::ecdsa::VerifyingKey),
    /// secp521r1; signatures are of SHA-512.
    P521(p521::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// It is malformed, or not of one of the three curves.
    pub fn from_pem(text: &str) -> Result<PublicKey, PublicKeyError> {
        let malformed = |e: x509_cert::der::Error| PublicKeyError::Malformed(e.to_string());
        PublicKey::from_info(&SubjectPublicKeyInfoOwned::from_pem(text).map_err(malformed)?)
    }

    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// As [`PublicKey::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
        let malformed = |e: x509_cert::der::Error| PublicKeyError::Malformed(e.to_string());
        PublicKey::from_info(&SubjectPublicKeyInfoOwned::from_der(der).map_err(malformed)?)
    }

    /// The key of a certificate or of a file.
    pub(crate) fn from_info(info: &SubjectPublicKeyInfoOwned) -> Result<PublicKey, PublicKeyError> {
        let malformed = |e: &dyn std::fmt::Display| PublicKeyError::Malformed(e.to_string());
        let der = info.to_der().map_err(|e| malformed(&e))?;
        let curve = info.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        match curve.filter(|_| info.algorithm.oid == EC) {
            Some(P256) => DecodePublicKey::from_public_key_der(&der).map(PublicKey::P256),
            Some(P384) => DecodePublicKey::from_public_key_der(&der).map(PublicKey::P384),
            Some(P521) => DecodePublicKey::from_public_key_der(&der).map(PublicKey::P521),
            _ => return Err(PublicKeyError::Unsupported(curve.unwrap_or(info.algorithm.oid).to_string())),
        }
        .map_err(|e| malformed(&e))
    }

    /// The key as PEM, as OpenSSL writes it: lines of 64 characters, the point not compressed, a
    /// final line end.
    pub fn to_pem(&self) -> String {
        match self {
            PublicKey::P256(key) => key.to_public_key_pem(LineEnding::LF),
            PublicKey::P384(key) => key.to_public_key_pem(LineEnding::LF),
            PublicKey::P521(key) => key.to_public_key_pem(LineEnding::LF),
        }
        .expect("a key on a curve has an encoding")
    }

    /// SHA-256 of [`PublicKey::to_pem`] in hexadecimal digits: what bundles name a key by.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.to_pem()))
    }

    /// The curve's name.
    pub fn curve(&self) -> &'static str {
        match self {
            PublicKey::P256(_) => "P-256",
            PublicKey::P384(_) => "P-384",
            PublicKey::P521(_) => "P-521",
        }
    }

    /// Whether `signature`, in DER, is this key's of the hash of `message` that belongs to the
    /// curve.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            PublicKey::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            PublicKey::P521(key) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }

    /// Whether `signature`, in DER, is this key's of a hash, of whatever function.
    pub(crate) fn verifies_hash(&self, hash: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok()),
            PublicKey::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok()),
            PublicKey::P521(key) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok()),
        }
    }
}
