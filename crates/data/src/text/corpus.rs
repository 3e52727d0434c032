//! The text of a file, or of all text files in a folder.

use std::path::{Path, PathBuf};

use crate::encoding;
use crate::error::DataError;

/// Endings of files that are taken as texts.
const ENDINGS: [&str; 12] =
    ["txt", "text", "md", "rst", "tex", "org", "html", "htm", "xml", "srt", "log", "asc"];

/// A text, and what it was made of where that is not one file.
pub(crate) struct Corpus {
    pub(crate) text: String,
    pub(crate) notes: Vec<String>,
}

/// Reads a file, or the text files of a folder and those in it, one after another in the order of
/// their names.
pub(crate) fn read(path: &Path, encoding: Option<&str>) -> Result<Corpus, DataError> {
    if !path.is_dir() {
        return Ok(Corpus { text: encoding::read_declared(path, encoding)?, notes: Vec::new() });
    }
    let (texts, others) = sorted(path)?;
    let mut text = String::new();
    for file in &texts {
        let own = encoding::read_declared(file, encoding)?;
        text.push_str(&own);
        if !own.is_empty() && !own.ends_with('\n') {
            text.push('\n');
        }
    }
    let mut note = format!("{}: {} text files, in the order of their names", path.display(), texts.len());
    if !others.is_empty() {
        let first = others[0].file_name().unwrap_or_default().to_string_lossy();
        note += &format!("; {} other file(s) are passed over, such as {first:?}", others.len());
    }
    Ok(Corpus { text, notes: vec![note + "."] })
}

/// The text files of a folder and of those in it, by their endings, in the order of their names.
///
/// # Errors
/// A folder cannot be read.
pub fn text_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(sorted(folder)?.0)
}

/// The text files of a folder, and the other files. Hidden files are not looked at, and links to
/// folders, which may lead back, are not followed.
fn sorted(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let unreadable = |e| DataError::read(folder, e);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        entries.push((entry.path(), entry.file_type().map_err(unreadable)?.is_dir()));
    }
    entries.sort();
    let (mut texts, mut others) = (Vec::new(), Vec::new());
    for (path, is_folder) in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with('.') || name == "__MACOSX" {
            continue;
        }
        if is_folder {
            let (inner, passed_over) = sorted(&path)?;
            texts.extend(inner);
            others.extend(passed_over);
        } else if ENDINGS.contains(&ending.as_str()) {
            texts.push(path);
        } else {
            others.push(path);
        }
    }
    Ok((texts, others))
}
