//! Texts.

use std::path::Path;

use super::{Found, Inspection, tables};
use crate::encoding;
use crate::error::DataError;
use crate::files;
use crate::spec::{DataSpec, Limits, TailSplit, TestFrom, TextOptions, TextSpec};
use crate::text::corpus;

pub(super) fn inspect(path: &Path) -> Result<Inspection, DataError> {
    let bytes = files::read(path)?;
    let encoding = encoding::needed(&bytes);
    let text = encoding::text(bytes, path, encoding)?;
    if text.is_empty() {
        return Err(DataError::Empty { what: path.display().to_string(), unit: "byte of text" });
    }
    // Every byte is a character of Windows-1252.
    let controls = text.chars().filter(|c| c.is_control() && !c.is_whitespace()).count();
    if text.contains('\0') || controls * 100 > text.chars().count() {
        let reason = "neither text nor a known kind of data (it has bytes that are no characters)";
        return Err(DataError::unusable(path, reason));
    }
    let mut notes = Vec::new();
    if let Some(name) = encoding {
        notes.push(format!("The file is not UTF-8; it is read as {name}."));
    }
    if let Some(columns) = tables::columns_of(&text, path) {
        notes.push(format!(
            "It is taken as a text to continue, but looks like a table of {columns} columns: if it is one, give it a \
             name that ends in .csv."
        ));
    }
    Ok(found(path, &text, encoding, notes))
}

/// A folder of text files, if there are any in it.
pub(super) fn inspect_folder(folder: &Path) -> Option<Result<Inspection, DataError>> {
    let texts = corpus::text_files(folder).ok().filter(|texts| !texts.is_empty())?;
    Some(folder_of(folder, texts.iter().any(|text| text.parent() != Some(folder))))
}

fn folder_of(folder: &Path, nested: bool) -> Result<Inspection, DataError> {
    let mut encoding = None;
    for file in corpus::text_files(folder)? {
        encoding = encoding.or(encoding::needed(&files::read(&file)?));
    }
    let text = corpus::read(folder, encoding)?.text;
    if text.is_empty() {
        return Err(DataError::Empty { what: folder.display().to_string(), unit: "byte of text" });
    }
    let mut notes = Vec::new();
    if let Some(name) = encoding {
        notes.push(format!("Some files are not UTF-8; they are read as {name}."));
    }
    if nested {
        notes.push(
            "Folders in it are not taken as classes: models of text learn to continue it, not to sort it."
                .to_owned(),
        );
    }
    Ok(found(folder, &text, encoding, notes))
}

fn found(path: &Path, text: &str, encoding: Option<&str>, mut notes: Vec<String>) -> Inspection {
    // Four windows must fit into the tenth that is held out, and a line of it may stay with the
    // train text.
    let sequence =
        [256, 128, 64, 32, 16, 8].into_iter().find(|&t| text.len() / 10 > 4 * t + 200).unwrap_or(8);
    let spec = DataSpec::Text(TextSpec {
        path: path.to_owned(),
        encoding: encoding.map(str::to_owned),
        test: TestFrom::Split(TailSplit::default()),
        limits: Limits::default(),
        options: TextOptions { sequence, ..TextOptions::default() },
    });
    notes.push("The last tenth of the text is held out; each byte is a token.".to_owned());
    if text.len() < 100_000 {
        let size = text.len();
        notes.push(format!(
            "The text is short ({size} bytes): a model will learn it by heart rather than learn from it."
        ));
    }
    let characters = text.chars().collect::<std::collections::BTreeSet<_>>().len();
    let found = Found::Text { bytes: text.len(), lines: text.lines().count(), characters };
    Inspection { path: path.to_owned(), found, spec, notes }
}
