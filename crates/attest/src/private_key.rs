//! Private keys and their files: P-256, in PKCS#8, encrypted with a passphrase.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use pkcs8::{DecodePrivateKey, EncodePrivateKey, EncryptedPrivateKeyInfoRef, LineEnding};
use thiserror::Error;
use x509_cert::der::SecretDocument;
use zeroize::Zeroizing;

use crate::public_key::PublicKey;

/// Why a private key cannot be used or written.
#[derive(Debug, Error)]
pub enum PrivateKeyError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users could read it.
    #[error(
        "{}: other users may read or change this private key (mode {mode:04o}); `chmod 600` it, and make a new key if others had access",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key that can sign here.
    #[error(
        "{}: this is no P-256 private key in PKCS#8 ({reason}); `openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW` converts other forms",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is of another curve, or no key on a curve.
    #[error(
        "{}: this private key is of another kind ({algorithm}), and P-256 is what signs here: `halfstep key new` makes such a key",
        path.display()
    )]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// The object identifier of its algorithm or curve.
        algorithm: String,
    },
    /// It is encrypted and there is no passphrase.
    #[error("{}: this private key is encrypted, and no passphrase is given", path.display())]
    PassphraseNeeded {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is another one.
    #[error("{}: the passphrase does not open this private key", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random numbers, or the key cannot be encoded.
    #[error("no key can be made: {0}")]
    NotMade(String),
}

/// A passphrase, wiped from memory when it is dropped.
pub type Passphrase = Zeroizing<String>;

/// A private key. It is wiped from memory when it is dropped.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new key, from the system's random numbers.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> Result<PrivateKey, PrivateKeyError> {
        let key = SigningKey::try_generate().map_err(|e| PrivateKeyError::NotMade(e.to_string()))?;
        Ok(PrivateKey(key))
    }

    /// Reads a key from a file that its owner alone can read. `passphrase` is asked where the key
    /// is encrypted.
    ///
    /// # Errors
    /// The file cannot be read, or others can read it too; it is no P-256 key in PKCS#8; the
    /// passphrase is wrong or none is given. Permissions are not checked on systems other than
    /// Unix.
    pub fn read(
        path: &Path,
        passphrase: impl FnOnce() -> Option<Passphrase>,
    ) -> Result<PrivateKey, PrivateKeyError> {
        let of_file = |source| PrivateKeyError::File { path: path.into(), source };
        let malformed = |reason: String| PrivateKeyError::Malformed { path: path.into(), reason };
        check_owner_only(path)?;
        let text = Zeroizing::new(fs::read_to_string(path).map_err(of_file)?);
        let (label, document) = SecretDocument::from_pem(&text).map_err(|e| malformed(e.to_string()))?;
        let key = match label {
            "PRIVATE KEY" => SecretKey::from_pkcs8_der(document.as_bytes()),
            "ENCRYPTED PRIVATE KEY" => {
                let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
                let encrypted = encrypted.map_err(|e| malformed(e.to_string()))?;
                let Some(passphrase) = passphrase() else {
                    return Err(PrivateKeyError::PassphraseNeeded { path: path.into() });
                };
                let opened = encrypted.decrypt(passphrase.as_bytes());
                let opened = opened.map_err(|_| PrivateKeyError::WrongPassphrase { path: path.into() })?;
                SecretKey::from_pkcs8_der(opened.as_bytes())
            }
            label => return Err(malformed(format!("it is a {label}"))),
        };
        let key = key.map_err(|e| match e {
            pkcs8::Error::PublicKey(pkcs8::spki::Error::OidUnknown { oid }) => {
                PrivateKeyError::OtherKind { path: path.into(), algorithm: oid.to_string() }
            }
            e => malformed(e.to_string()),
        });
        Ok(PrivateKey(key?.into()))
    }

    /// Writes the key to a new file that its owner alone can read, encrypted where there is a
    /// passphrase (scrypt and AES-256-CBC).
    ///
    /// # Errors
    /// There is a file of this name, or it cannot be written. Then none is left.
    pub fn write(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<(), PrivateKeyError> {
        let of_file = |source| PrivateKeyError::File { path: path.into(), source };
        let pem = match passphrase {
            Some(passphrase) => self.0.to_pkcs8_encrypted_pem(passphrase.as_bytes(), LineEnding::LF),
            None => self.0.to_pkcs8_pem(LineEnding::LF),
        };
        let pem = pem.map_err(|e| PrivateKeyError::NotMade(e.to_string()))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(of_file)?;
        if let Err(source) = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()) {
            let _ = fs::remove_file(path);
            return Err(of_file(source));
        }
        Ok(())
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::P256(*self.0.verifying_key())
    }

    /// The signature of `message`, ECDSA with SHA-256 in DER. The nonce is that of RFC 6979: the
    /// same key and message give the same signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

/// Refuses a file that others than its owner can read or change.
fn check_owner_only(path: &Path) -> Result<(), PrivateKeyError> {
    #[cfg(unix)]
    {
        let meta =
            fs::metadata(path).map_err(|source| PrivateKeyError::File { path: path.into(), source })?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PrivateKeyError::Exposed { path: path.into(), mode });
        }
    }
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Option<Passphrase> {
        Some(Zeroizing::new(text.to_string()))
    }

    #[test]
    fn a_key_is_opened_by_its_passphrase_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = PrivateKey::generate().unwrap();
        key.write(&path, passphrase("correct horse").as_ref()).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));

        let again = PrivateKey::read(&path, || passphrase("correct horse")).unwrap();
        assert_eq!(again.public(), key.public());
        let wrong = PrivateKey::read(&path, || passphrase("correct horsf"));
        assert!(matches!(wrong, Err(PrivateKeyError::WrongPassphrase { .. })));
        let none = PrivateKey::read(&path, || None);
        assert!(matches!(none, Err(PrivateKeyError::PassphraseNeeded { .. })));
        // A key that is there is never overwritten.
        assert!(matches!(key.write(&path, None), Err(PrivateKeyError::File { .. })));
    }

    #[test]
    fn a_key_of_another_kind_cannot_be_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        PrivateKey::generate().unwrap().write(&path, None).unwrap();
        // Ed25519, in the file of a key that its owner alone can read.
        let other = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIButvemjKsvgTVxZRDFvKAoBEvaaOShHlGxn8DOp+wPZ\n-----END PRIVATE KEY-----\n";
        fs::write(&path, other).unwrap();
        let refused = PrivateKey::read(&path, || None).map(|_| ()).unwrap_err();
        assert!(matches!(refused, PrivateKeyError::OtherKind { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("1.3.101.112") && !said.contains("openssl"), "{said}");
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        PrivateKey::generate().unwrap().write(&path, None).unwrap();
        assert!(PrivateKey::read(&path, || None).is_ok());
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = PrivateKey::read(&path, || None);
            assert!(matches!(read, Err(PrivateKeyError::Exposed { mode: m, .. }) if m == mode));
        }
    }

    #[test]
    fn what_is_signed_verifies_and_anything_else_does_not() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let signature = key.sign(b"message");
        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"messagf", &signature));
        assert!(!other.public().verifies(b"message", &signature));
        assert_eq!(key.sign(b"message"), signature);
    }
}
