//! The checksum that a safetensors file carries of itself: SHA-256 of the file in which its own
//! digits are zeros.

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use super::own_manifest;
use crate::run_log::hex;

/// What stands for the digits while they are computed.
pub(super) const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The digits in the file, behind their key as JSON inside of JSON has it.
fn digits(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    const KEY: &[u8] = br#"\"sha256\":\""#;
    let header = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let header = bytes.get(8..usize::try_from(header).ok()?.checked_add(8)?)?;
    let begin = 8 + header.windows(KEY.len()).position(|w| w == KEY)? + KEY.len();
    (begin + ZEROS.len() <= 8 + header.len()).then_some(begin..begin + ZEROS.len())
}

fn sum(bytes: &[u8], digits: &std::ops::Range<usize>) -> String {
    let hash = Sha256::new().chain_update(&bytes[..digits.start]).chain_update(ZEROS);
    hex(&hash.chain_update(&bytes[digits.end..]).finalize())
}

/// Puts the checksum in place of its zeros.
pub(super) fn set(bytes: &mut [u8]) {
    if let Some(digits) = digits(bytes) {
        let sum = sum(bytes, &digits);
        bytes[digits].copy_from_slice(sum.as_bytes());
    }
}

/// Compares a file with its checksum. What another program or an older version wrote has none.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    // What is no safetensors file is said where its tensors are read.
    if SafeTensors::read_metadata(bytes).is_err() {
        return Ok(());
    }
    let Some(written) = own_manifest(bytes)?.and_then(|manifest| manifest.sha256) else { return Ok(()) };
    let found = digits(bytes).map(|digits| sum(bytes, &digits)).unwrap_or_default();
    if found == written {
        return Ok(());
    }
    Err(format!(
        "it has changed since it was written: its SHA-256 is {found:.8}…, it was {written:.8}…. Of a file that was changed on \
         purpose, remove the `{}` entry of its metadata",
        super::KEY
    ))
}
