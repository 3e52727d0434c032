//! Everything that can be wrong with data, said with its place and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::nearest::{did_you_mean, nearest};
use crate::spec::SpecError;

/// The part of a data set that an error or a batch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The samples the model is fitted on.
    Train,
    /// The samples by which a model is chosen from several.
    Validation,
    /// The held-out samples.
    Test,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Train => "train",
            Role::Validation => "validation",
            Role::Test => "test",
        })
    }
}

/// Why data could not be read, encoded or batched. Lines of text files are counted from 1, samples
/// from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The `[data]` section asks for something that does not fit together.
    #[error(transparent)]
    Spec(#[from] SpecError),

    /// A file or folder of the recipe does not exist.
    #[error("{}: no such {expected}{}", path.display(), did_you_mean(nearest.as_deref()))]
    MissingFile {
        /// The path after resolving it against the recipe's folder.
        path: PathBuf,
        /// What should be there: "file" or "folder".
        expected: &'static str,
        /// The most similar name in the same folder.
        nearest: Option<String>,
    },

    /// The operating system refused a read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },

    /// So few train samples that none can be set aside to choose by.
    #[error(
        "{fraction} of {count} train samples is none that could be set aside to choose models by; expected more \
         samples, a larger `validation_fraction`, or a recipe that chooses nothing (no `patience`, no `keep_best`)"
    )]
    NoValidation {
        /// Train samples there are.
        count: usize,
        /// Share of them that was asked for.
        fraction: f64,
    },

    /// There is nothing to learn from.
    #[error("{what}: no samples; expected at least one {unit}")]
    Empty {
        /// The file, folder or part that holds nothing.
        what: String,
        /// What a sample would be: "image", "data row", "byte of text".
        unit: &'static str,
    },

    /// A bundled file is not the one that the data card describes.
    #[error(
        "bundled data `{name}` is damaged: SHA-256 {found}, expected {expected}; restore the file and build again"
    )]
    Checksum {
        /// File name under `data/`.
        name: &'static str,
        /// The sum on the data card, in hexadecimal.
        expected: &'static str,
        /// The sum of the bytes in this program.
        found: String,
    },

    /// An IDX file ends early or goes on too long.
    #[error(
        "{}: {} IDX file: its header promises {expected} bytes, it has {found}; fetch the file again",
        path.display(), if found < expected { "truncated" } else { "over-long" }
    )]
    IdxLength {
        /// The file.
        path: PathBuf,
        /// Bytes (after decompression) that the header calls for, the header included.
        expected: u64,
        /// Bytes found after decompression.
        found: u64,
    },

    /// As many labels as images are needed.
    #[error("{} has {images} images but {} has {labels} labels", image_path.display(), label_path.display())]
    CountMismatch {
        /// File of images.
        image_path: PathBuf,
        /// Images in it.
        images: usize,
        /// File of labels.
        label_path: PathBuf,
        /// Labels in it.
        labels: usize,
    },

    /// The test data contain a class that the train data do not, so that no model could learn it.
    #[error("{what}: class `{class}` is in the test data but never in the train data")]
    UnseenLabel {
        /// File or folder of the test data.
        what: String,
        /// The class.
        class: String,
    },

    /// A class too small to be split into train and test.
    #[error(
        "class `{class}` has {count} sample{}: at least 2 are needed, one to train on and one to test on; \
         add samples or remove the class", if *count == 1 { "" } else { "s" }
    )]
    ClassTooSmall {
        /// The class.
        class: String,
        /// Its samples.
        count: usize,
    },

    /// Telling classes apart takes two of them.
    #[error("{what}: {found} class(es) found, at least 2 are needed; {hint}")]
    TooFewClasses {
        /// File or folder.
        what: String,
        /// Number found.
        found: usize,
        /// Where classes come from for this kind of data.
        hint: &'static str,
    },

    /// A target column that does not look like classes.
    #[error(
        "column `{column}` has {found} different values, too many for classes (at most {limit}): choose another `target`; \
         predicting a quantity is not supported"
    )]
    TooManyClasses {
        /// Target column.
        column: String,
        /// Different values found.
        found: usize,
        /// Greatest number allowed.
        limit: usize,
    },

    /// An image file that ends early.
    #[error("{}: truncated image: {}", path.display(), truncation(*expected, *found))]
    TruncatedImage {
        /// The file.
        path: PathBuf,
        /// Bytes that the file's own structure calls for, where it says so.
        expected: Option<u64>,
        /// Bytes found.
        found: u64,
    },

    /// An image file that cannot be decoded.
    #[error("{}: cannot be decoded ({bytes} bytes): {reason}", path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The decoder's reason.
        reason: String,
    },

    /// An image format that is not read.
    #[error("{}: {format} images are not read; convert them to PNG or JPEG", path.display())]
    UnsupportedImage {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
    },

    /// Several files of a folder that cannot be used.
    #[error(
        "{first}. {} other file(s) cannot be used either: {}; convert, replace or remove them",
        others.len(), list_paths(others)
    )]
    Several {
        /// What is wrong with the first.
        first: Box<DataError>,
        /// The others.
        others: Vec<PathBuf>,
    },

    /// Gray and colour images in one set.
    #[error(
        "{} is gray but {} is in colour: set `channels = 1` to make all gray or `channels = 3` to make all colour",
        gray.display(), colour.display()
    )]
    MixedChannels {
        /// A gray image.
        gray: PathBuf,
        /// A colour image.
        colour: PathBuf,
    },

    /// Images of several sizes, and no size chosen.
    #[error(
        "{} is {}x{} but {} is {}x{} (height x width): set `resize = [height, width]`",
        first.display(), first_size.0, first_size.1, other.display(), other_size.0, other_size.1
    )]
    MixedSizes {
        /// The first image.
        first: PathBuf,
        /// Its height and width.
        first_size: (usize, usize),
        /// The first image of another size.
        other: PathBuf,
        /// Its height and width.
        other_size: (usize, usize),
    },

    /// A cell that cannot be used.
    #[error("{}: line {line}, column `{column}`: {problem}", path.display())]
    Cell {
        /// The table.
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        /// Its column.
        column: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A column that the file does not have.
    #[error(
        "{}: no column `{column}`{}; the columns are {}",
        path.display(), did_you_mean(nearest(column, columns.iter().map(String::as_str))), list(columns)
    )]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        column: String,
        /// The names there are.
        columns: Vec<String>,
    },

    /// A text column with nearly as many values as rows.
    #[error(
        "column `{column}` has {found} different texts, too many to encode (at most {limit}): leave it out with \
         `ignore = [\"{column}\"]`"
    )]
    TooManyCategories {
        /// The column.
        column: String,
        /// Different values found.
        found: usize,
        /// Greatest number allowed.
        limit: usize,
    },

    /// Text that is not UTF-8.
    #[error(
        "{}: not UTF-8 text: byte {offset} (line {line}) is invalid; save the file as UTF-8, or say what it is, such \
         as `encoding = \"windows-1252\"` for text of older Windows programs", path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// First invalid byte, counted from 0.
        offset: usize,
        /// Its line, counted from 1.
        line: usize,
    },

    /// Text whose encoding shows but is not said.
    #[error(
        "{}: it looks like text in {looks_like} without a byte-order mark; save the file as UTF-8, or write \
         `encoding = \"{looks_like}\"`", path.display()
    )]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The encoding.
        looks_like: &'static str,
    },

    /// A column of numbers or dates that can be read in two ways, or not at all.
    #[error(
        "column `{column}`: {reason}; or leave it out with `ignore = [\"{column}\"]`, or take its cells as texts with \
         `categorical = [\"{column}\"]`"
    )]
    OpenColumn {
        /// The column.
        column: String,
        /// What is open, and what to write.
        reason: String,
    },

    /// A text that does not fill one window.
    #[error(
        "the {role} text has {tokens} tokens, but one window needs {needed} (`sequence` + 1): use more text, a smaller \
         `sequence` or another `test_fraction`"
    )]
    TextTooShort {
        /// Train or test.
        role: Role,
        /// Tokens there are.
        tokens: usize,
        /// Tokens of a window with its target.
        needed: usize,
    },

    /// Training or using the tokeniser failed.
    #[error("tokeniser: {reason}")]
    Tokenizer {
        /// The reason.
        reason: String,
    },

    /// Something that this program was built without.
    #[error(
        "this program was built without the feature `{feature}`, which {what} needs; build with `--features {feature}`"
    )]
    FeatureMissing {
        /// The cargo feature.
        feature: &'static str,
        /// What needs it.
        what: &'static str,
    },

    /// A batch that the data cannot fill.
    #[error(
        "a batch of {batch} is larger than the {samples} {role} samples; choose a batch of at most {samples}"
    )]
    BatchTooLarge {
        /// Batch size asked for.
        batch: usize,
        /// Samples there are.
        samples: usize,
        /// Train or test.
        role: Role,
    },

    /// A batch without samples.
    #[error("a batch needs at least one sample")]
    ZeroBatch,

    /// More samples than the 32-bit indices of this crate can count.
    #[error("{what}: {found} samples are more than the {} that can be indexed", u32::MAX)]
    TooManySamples {
        /// File, folder or part.
        what: String,
        /// Samples found.
        found: usize,
    },

    /// A sample that does not exist.
    #[error("sample {index} of {samples} {role} samples does not exist")]
    NoSuchSample {
        /// Index asked for, counted from 0.
        index: u32,
        /// Samples there are.
        samples: usize,
        /// Train or test.
        role: Role,
    },

    /// A caller's buffer of the wrong length or kind.
    #[error("{buffer} buffer: expected {expected}, found {found}")]
    Buffer {
        /// Which buffer.
        buffer: &'static str,
        /// Length and kind needed.
        expected: String,
        /// Length and kind given.
        found: String,
    },

    /// An input of another kind than the model was trained on.
    #[error("the model was trained on {trained_on}; it cannot take {given}")]
    WrongInput {
        /// Kind of data in the stored preprocessing.
        trained_on: &'static str,
        /// Kind given.
        given: &'static str,
    },

    /// Stored preprocessing that contradicts itself.
    #[error("stored preprocessing is damaged: {reason}")]
    BadPreprocessing {
        /// The contradiction.
        reason: String,
    },

    /// A path whose contents are not what they should be.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What was looked for and found.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        DataError::Read { path: path.to_owned(), source }
    }

    pub(crate) fn several(first: DataError, others: Vec<PathBuf>) -> Self {
        DataError::Several { first: Box::new(first), others }
    }

    pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> Self {
        DataError::Unusable { path: path.to_owned(), reason: reason.into() }
    }
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn list_paths(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 5;
    let mut text = paths.iter().take(SHOWN).map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN {
        text += &format!(" and {} more", paths.len() - SHOWN);
    }
    text
}

fn truncation(expected: Option<u64>, found: u64) -> String {
    match expected {
        Some(expected) => format!("at least {expected} bytes expected, {found} found"),
        None => format!("the file ends after {found} bytes without an end marker"),
    }
}
