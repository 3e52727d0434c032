//! What can be wrong with a file of logits.

use std::io;
use std::path::{Path, PathBuf};

/// Why logits cannot be used. Every message says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogitsError {
    /// The file's ending is none that is known.
    #[error("{}: logits come as .npz, .safetensors or .parquet", path.display())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// Parquet is not compiled in.
    #[error("{}: this program was built without Parquet; build it with `--features parquet` or save .npz", path.display())]
    NotBuilt {
        /// The file.
        path: PathBuf,
    },
    /// The system cannot open it.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its format is broken or it is cut short.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// An array is missing.
    #[error("{}: there is no `{array}` in it, only {found}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// What there is.
        found: String,
    },
    /// Arrays do not fit together.
    #[error("{name}: {message}")]
    Table {
        /// The file.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A label is no class.
    #[error(
        "{name}: label {label} of row {row} is none of the {classes} classes 0 to {}; leave out rows without a label",
        classes - 1
    )]
    Label {
        /// The file.
        name: String,
        /// The row, from 0.
        row: usize,
        /// Its label.
        label: i64,
        /// Classes.
        classes: usize,
    },
    /// A logit is NaN or infinite.
    #[error(
        "{name}: the logit of row {row}, class {class} is {}; a model that gives such numbers has failed, and no measure of it means anything",
        if value.is_nan() { "NaN" } else { "infinite, or beyond what f32 holds (3.4e38)" }
    )]
    NotFinite {
        /// The file.
        name: String,
        /// The row, from 0.
        row: usize,
        /// The class.
        class: usize,
        /// The value.
        value: f32,
    },
    /// The rows are probabilities, of which a softmax would make others.
    #[error(
        "{name}: `logits` holds probabilities: each row lies between 0 and 1 and sums to 1. Save what the model gives before \
         its softmax, or np.log(np.maximum(p, 1e-30))"
    )]
    Probabilities {
        /// The file.
        name: String,
    },
    /// Reading failed on the way.
    #[error("{name}: the logits cannot be read: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl LogitsError {
    pub(super) fn missing(path: &Path, array: &str, names: &[String]) -> LogitsError {
        const SHOWN: usize = 20;
        let found = match names.len() {
            0 => "nothing".into(),
            1..=SHOWN => names.join(", "),
            all => format!("{} … and {} more", names[..SHOWN].join(", "), all - SHOWN),
        };
        LogitsError::Missing { path: path.into(), array: array.into(), found }
    }
}

/// The seed as metadata hold it.
pub(super) fn seed(path: &Path, text: Option<&str>) -> Result<Option<u64>, LogitsError> {
    let number = |text: &str| {
        text.trim().parse().map_err(|_| LogitsError::Format {
            path: path.into(),
            message: format!("the metadata `seed` is \"{text}\", no number"),
        })
    };
    text.map(number).transpose()
}
