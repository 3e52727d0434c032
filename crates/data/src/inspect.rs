//! Looking at a person's own data: what it is, and a `[data]` section that would load it.

mod pictures;
mod tables;
mod texts;

use std::path::{Path, PathBuf};

pub use tables::inspect_table;

use crate::error::DataError;
use crate::files;
use crate::images::kind::Kind;
use crate::images::{idx, tree};
use crate::spec::{DataSpec, IdxFiles, IdxSpec, ImageOptions, Limits, RandomSplit};

/// What was found at a path, and what to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// The path that was looked at.
    pub path: PathBuf,
    /// What is there.
    pub found: Found,
    /// A specification that loads it; its paths begin with `path` as it was given.
    pub spec: DataSpec,
    /// Remarks for the person: choices made and what may need a look, one sentence each.
    pub notes: Vec<String>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A folder with one folder of images per class.
    Images {
        /// Whether test images have a folder of their own.
        layout: FolderLayout,
        /// Train classes with their numbers of images, in the order of names.
        classes: Vec<(String, usize)>,
        /// Number of test images, if they have a folder of their own.
        test_images: Option<usize>,
        /// Smallest height and width.
        smallest: (usize, usize),
        /// Greatest height and width.
        greatest: (usize, usize),
        /// Number of gray images; the others are in colour.
        gray: usize,
    },
    /// A folder of IDX files.
    Idx {
        /// `[N, height, width]` or `[N, height, width, channels]` of the train images.
        shape: Vec<usize>,
        /// Different train labels with their numbers of images.
        classes: Vec<(String, usize)>,
        /// Number of test images, if there are any.
        test_images: Option<usize>,
    },
    /// A table.
    Csv {
        /// Rows, the header not counted.
        rows: usize,
        /// Columns in the order of the file.
        columns: Vec<ColumnReport>,
        /// The column suggested as target.
        target: String,
        /// Classes of the suggested target with their numbers of rows.
        classes: Vec<(String, usize)>,
    },
    /// A text.
    Text {
        /// Its size.
        bytes: usize,
        /// Its lines.
        lines: usize,
        /// Different characters.
        characters: usize,
    },
}

/// Where train and test images are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderLayout {
    /// All together.
    OneFolder,
    /// In two folders, of these names.
    TrainAndTest {
        /// Folder of train images.
        train: String,
        /// Folder of test images.
        test: String,
    },
}

/// What a column of a table is like.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Number of missing cells.
    pub missing: usize,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnKind {
    /// Numbers.
    Numeric {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// Categories.
    Categorical {
        /// Different values.
        values: usize,
    },
    /// A different value in (nearly) every row: a name or number of the row, suggested to be
    /// ignored.
    Identifier,
    /// One value in all rows, or none.
    Constant,
    /// Numbers or dates that can be read in two ways, or not at all.
    Open,
    /// What is to be predicted.
    Target,
}

/// Looks at a folder, CSV file or text file. Reads tables and texts whole, of images only the
/// headers.
///
/// # Errors
/// A path that does not exist or holds none of the known kinds of data, or data that no recipe
/// could load as they are.
pub fn inspect(path: &Path) -> Result<Inspection, DataError> {
    if path.is_dir() {
        let has_idx = idx::find(path, "train", "images").is_some();
        if has_idx {
            return inspect_idx(path);
        }
        return pictures::inspect(path).or_else(|error| texts::inspect_folder(path).unwrap_or(Err(error)));
    }
    files::require_file(path).map_err(|error| match error {
        DataError::MissingFile { path, nearest, .. } => {
            DataError::MissingFile { path, expected: "file or folder", nearest }
        }
        other => other,
    })?;
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let unusable = |reason: &str| Err(DataError::unusable(path, reason));
    let start = tree::first_bytes(path)?;
    if Kind::of(&start) != Kind::NoPicture {
        return unusable("a single image; give the folder that has one folder of images per class");
    }
    if idx::is_idx(&start) {
        return unusable("a single IDX file; give the folder that has the files of images and of labels");
    }
    match extension.as_str() {
        "csv" | "tsv" | "tab" | "data" => inspect_table(path, None),
        "gz" | "zip" | "tar" | "xz" | "zst" | "bz2" | "7z" => unusable("an archive; unpack it first"),
        "parquet" | "xlsx" | "xls" | "arrow" | "feather" => {
            unusable("this kind of table is not read; save it as CSV")
        }
        _ => texts::inspect(path),
    }
}

fn inspect_idx(folder: &Path) -> Result<Inspection, DataError> {
    let read = |part: &str| -> Result<_, DataError> {
        let (images, labels) = idx::require(folder, part)?;
        idx::read(&images, &labels)
    };
    let train = read("train")?;
    let test = if idx::find(folder, "t10k", "images").is_some() { Some(read("t10k")?) } else { None };
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    train.labels.iter().for_each(|&label| *counts.entry(label).or_default() += 1);
    let classes = counts.into_iter().map(|(label, count)| (label.to_string(), count)).collect();
    let mut notes = Vec::new();
    if test.is_none() {
        notes.push("There are no test files (`t10k-…`): a fifth of the images is held out, the same share of every class.".to_owned());
    }
    let mut shape = vec![train.labels.len(), train.height, train.width];
    if train.channels > 1 {
        shape.push(train.channels);
    }
    let spec = DataSpec::Idx(IdxSpec {
        files: IdxFiles::Folder { path: folder.to_owned(), split: test.is_none().then(RandomSplit::default) },
        limits: Limits::default(),
        classes: None,
        ignore_labels: Vec::new(),
        options: ImageOptions::default(),
    });
    let found = Found::Idx { shape, classes, test_images: test.map(|t| t.labels.len()) };
    Ok(Inspection { path: folder.to_owned(), found, spec, notes })
}

impl Inspection {
    /// The specification with `path` and `test_path` taken relative to a folder, where they lie in
    /// it: for a recipe that is written there.
    pub fn spec_relative_to(&self, folder: &Path) -> DataSpec {
        let mut spec = self.spec.clone();
        for path in spec.paths_mut() {
            if let Ok(relative) = path.strip_prefix(folder) {
                *path = relative.to_owned();
            }
        }
        spec
    }

    /// Number of classes, or `None` for text.
    pub fn classes(&self) -> Option<usize> {
        match &self.found {
            Found::Images { classes, .. } | Found::Idx { classes, .. } | Found::Csv { classes, .. } => {
                Some(classes.len())
            }
            Found::Text { .. } => None,
        }
    }
}
