//! Who is trusted, and as of when.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use halfstep_attest::DateTime;
use halfstep_attest::trust::Trust;

use super::failure::Failure;
use super::key;

/// Who is trusted by a file: the one that is named, or else the one beside the default key. Where
/// that is not there, nobody.
pub fn of_file(named: Option<&Path>) -> Result<Trust, Failure> {
    let default = || Ok(key::folder()?.join(key::TRUST));
    let file = named.map_or_else(default, |file| Ok::<PathBuf, Failure>(file.to_path_buf()))?;
    if named.is_none() && !file.is_file() {
        return Ok(Trust::default());
    }
    let text = std::fs::read_to_string(&file).map_err(|e| Failure::of_file(&file, &e))?;
    Trust::parse(&text).map_err(|e| Failure::of_file(&file, &e))
}

/// The time by the system's clock.
pub fn now() -> Result<DateTime, Failure> {
    DateTime::try_from(SystemTime::now())
        .map_err(|e| Failure::failed(format!("the system's clock is wrong: {e}")))
}
