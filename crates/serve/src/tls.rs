//! The certificate of a server and its private key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::files::{Stamp, stamp};

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users could read the private key.
    #[error("{}: other users may read or change this private key (mode {mode:04o}); `chmod 600` it, and make a new key if others had access", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{}: this is no {what} in PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// Key and certificate cannot be used together, or not at all.
    #[error("the certificate {} and its private key cannot be used: {reason}", certificate.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What a server proves itself with: files that may change while it runs.
#[derive(Clone)]
pub struct Tls(Arc<Files>);

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    state: RwLock<(Stamps, TlsAcceptor)>,
}

/// Of the certificate and of its key.
type Stamps = [Stamp; 2];

impl Tls {
    /// Reads a certificate with those that lead from it to its authority, and its private key,
    /// which its owner alone can read. TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// A file cannot be read or is not of the form, others can read the key, or the key is not that
    /// of the certificate. Permissions are not checked on systems other than Unix.
    pub fn read(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
        let state = (stamps(certificate, key)?, acceptor(certificate, key)?);
        let (certificate, key) = (certificate.into(), key.into());
        Ok(Tls(Arc::new(Files { certificate, key, state: RwLock::new(state) })))
    }

    /// Reads the files again if one of them has changed, and says whether that is so. Connections
    /// that are open stay as they are.
    ///
    /// # Errors
    /// As [`Tls::read`], also while one file of the two has been changed and the other not yet. The
    /// certificate that was read before is used until both can be.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let Files { certificate, key, state } = &*self.0;
        // Taken before the files: what changes in between is seen the next time.
        let stamps = stamps(certificate, key)?;
        if state.read().unwrap_or_else(PoisonError::into_inner).0 == stamps {
            return Ok(false);
        }
        let acceptor = acceptor(certificate, key)?;
        *state.write().unwrap_or_else(PoisonError::into_inner) = (stamps, acceptor);
        Ok(true)
    }

    /// What accepts a connection now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

fn stamps(certificate: &Path, key: &Path) -> Result<Stamps, TlsError> {
    let of = |path: &Path| stamp(path).map_err(|source| TlsError::File { path: path.into(), source });
    Ok([of(certificate)?, of(key)?])
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let malformed = |path: &Path, what| TlsError::Malformed { path: path.into(), what };
    let text = read(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.ok().filter(|c| !c.is_empty()).ok_or_else(|| malformed(certificate, "certificate"))?;

    let mode = crate::files::mode(key).map_err(|source| TlsError::File { path: key.into(), source })?;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: key.into(), mode });
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| malformed(key, "private key without a passphrase"))?;

    let unusable = |reason: String| TlsError::Unusable { certificate: certificate.into(), reason };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|e| unusable(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
}
