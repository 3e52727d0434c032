//! Sigstore bundles with a DSSE envelope: the form of a signature.
//!
//! Bundles of model-signing 0.3.1 to 1.1 are read, and those that other programs write after
//! version 1.0 of OpenSSF Model Signing; the current form is written. Fields that its schema does
//! not know are refused where the schema refuses them.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::private_key::PrivateKey;

/// The media type that is written.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const OLDER_MEDIA_TYPES: [&str; 3] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
];
/// The type of what is signed.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Most bytes of a bundle: the manifest of about a hundred thousand files.
pub const MOST_BYTES: u64 = 64 << 20;

/// Why a text is no bundle.
#[derive(Debug, Error)]
#[error("this is no signature bundle: {0}")]
pub struct BundleError(String);

/// A signature, with what it signs and what to verify it by.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

/// What a signature is to be verified by.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "MaterialFields")]
pub enum Material {
    /// A key, by the SHA-256 of its PEM.
    Fingerprint(String),
    /// A key, by its PEM: bundles of model-signing before 1.1.
    Pem(Vec<u8>),
    /// Certificates in DER: the signer's, then those that lead to a root.
    Certificates(Vec<Vec<u8>>),
    /// The certificate of a moment, from Sigstore's own authority, with entries of its public log.
    Keyless,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    #[serde(deserialize_with = "base64")]
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    #[serde(deserialize_with = "base64")]
    sig: Vec<u8>,
    /// Says nothing here, and may be null or absent.
    #[serde(default, rename = "keyid")]
    _keyid: Option<String>,
}

/// The fields of `verificationMaterial`, of which one of the first three has to be there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MaterialFields {
    public_key: Option<KeyFields>,
    x509_certificate_chain: Option<ChainFields>,
    certificate: Option<Raw>,
    tlog_entries: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyFields {
    hint: Option<String>,
    raw_bytes: Option<String>,
}

#[derive(Deserialize)]
struct ChainFields {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(deserialize_with = "base64")]
    raw_bytes: Vec<u8>,
}

impl TryFrom<MaterialFields> for Material {
    type Error = String;

    fn try_from(fields: MaterialFields) -> Result<Material, String> {
        match (fields.public_key, fields.x509_certificate_chain, fields.certificate) {
            (Some(KeyFields { hint: Some(hint), raw_bytes: None }), None, None) => {
                Ok(Material::Fingerprint(hint))
            }
            (Some(KeyFields { hint: None, raw_bytes: Some(pem) }), None, None) => {
                let pem = BASE64.decode(pem.as_bytes()).map_err(|e| format!("publicKey.rawBytes: {e}"))?;
                Ok(Material::Pem(pem))
            }
            (Some(_), None, None) => Err("publicKey has not one of `hint` and `rawBytes`".into()),
            (None, Some(ChainFields { certificates }), None) if !certificates.is_empty() => {
                Ok(Material::Certificates(certificates.into_iter().map(|c| c.raw_bytes).collect()))
            }
            (None, Some(_), None) => Err("x509CertificateChain has no certificate".into()),
            (None, None, Some(_)) if fields.tlog_entries.is_some_and(|entries| !entries.is_empty()) => {
                Ok(Material::Keyless)
            }
            (None, None, Some(_)) => Err("a `certificate` needs entries of the log, `tlogEntries`".into()),
            _ => Err(
                "verificationMaterial has not one of `publicKey`, `x509CertificateChain` and `certificate`"
                    .into(),
            ),
        }
    }
}

/// Bytes as base64 with padding and without slack bits: each byte string has one text.
fn base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match BASE64.decode(text.as_bytes()) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        Ok(_) => Err(serde::de::Error::custom("an empty text stands for bytes")),
        Err(e) => Err(serde::de::Error::custom(e)),
    }
}

/// The bytes that are signed: DSSE's pre-authentication encoding
/// (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>).
pub fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Signs a payload. Returns the text of the bundle's file, with the key's fingerprint in it.
pub fn sign(payload: &[u8], key: &PrivateKey) -> String {
    let signature = BASE64.encode(&key.sign(&signed_bytes(payload)));
    json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": key.public().fingerprint() }, "tlogEntries": [] },
        "dsseEnvelope": {
            "payload": BASE64.encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": signature, "keyid": "" }],
        },
    })
    .to_string()
}

impl Bundle {
    /// Reads a bundle. What it says is not verified by that.
    ///
    /// # Errors
    /// It is not of the form, is of another type, or has not one signature.
    pub fn parse(text: &[u8]) -> Result<Bundle, BundleError> {
        let bundle: Bundle = serde_json::from_slice(text).map_err(|e| BundleError(e.to_string()))?;
        let Bundle { media_type, dsse_envelope, .. } = &bundle;
        if media_type != MEDIA_TYPE && !OLDER_MEDIA_TYPES.contains(&media_type.as_str()) {
            return Err(BundleError(format!("its type is `{media_type}`")));
        }
        if dsse_envelope.payload_type != PAYLOAD_TYPE {
            return Err(BundleError(format!("its payload is `{}`", dsse_envelope.payload_type)));
        }
        if dsse_envelope.signatures.len() != 1 {
            return Err(BundleError(format!(
                "it has {} signatures in place of one",
                dsse_envelope.signatures.len()
            )));
        }
        Ok(bundle)
    }

    /// What to verify it by.
    pub fn material(&self) -> &Material {
        &self.verification_material
    }

    /// What is signed, not verified.
    pub fn payload(&self) -> &[u8] {
        &self.dsse_envelope.payload
    }

    /// The signature, in DER.
    pub(crate) fn signature(&self) -> &[u8] {
        &self.dsse_envelope.signatures[0].sig
    }
}
