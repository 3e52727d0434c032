//! The `[data]` section of a recipe: [`DataTable`] as it is written, [`DataSpec`] once it is known to fit together.
//!
//! The two are apart so that a deserialiser that knows lines (such as `toml`) can point at an unknown key or a wrong type in
//! the flat table, and [`SpecError::key`] names the key to point at when the table's keys contradict each other.

mod check;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `kind` of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One of the sets that come with the program.
    Bundled,
    /// IDX files (the format of MNIST), plain or gzipped.
    Idx,
    /// A folder of PNG and JPEG images with one folder per class.
    Images,
    /// A CSV file.
    Csv,
    /// A UTF-8 text file.
    Text,
}

impl Kind {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bundled => "bundled",
            Kind::Idx => "idx",
            Kind::Images => "images",
            Kind::Csv => "csv",
            Kind::Text => "text",
        }
    }
}

/// The `tokenizer` of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// Each byte of the UTF-8 text is a token; 256 tokens.
    #[default]
    Bytes,
    /// Byte-level byte-pair encoding, trained on the train text (cargo feature `bpe`).
    Bpe,
}

/// What to do with a missing cell of a numeric column. (In a column of categories, "missing" is a category of its own.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingNumbers {
    /// Stop and say where it is.
    #[default]
    Error,
    /// Put the mean of the train rows.
    Mean,
}

/// The `[data]` section exactly as written: every key, each optional but `kind`. Turn it into a [`DataSpec`] with `try_from`;
/// the fields of `DataSpec` say in full what each key means, its range and its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    /// What the data are.
    pub kind: Kind,
    /// Which bundled set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file or folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// File or folder of test samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_path: Option<PathBuf>,
    /// IDX file of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// IDX file of labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// IDX file of test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_images: Option<PathBuf>,
    /// IDX file of test labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_labels: Option<PathBuf>,
    /// Share held out for testing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// Which samples are held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_seed: Option<u64>,
    /// Use at most so many train samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Use at most so many test samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,
    /// Names of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Height and width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<[usize; 2]>,
    /// 1 (gray) or 3 (colour).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Mean of each channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// Mirror train images at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<bool>,
    /// Shift train images at random by up to so many pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_padding: Option<usize>,
    /// Column to predict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Columns left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Vec<String>>,
    /// Columns of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numeric: Option<Vec<String>>,
    /// Columns of categories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categorical: Option<Vec<String>>,
    /// What to do with missing numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingNumbers>,
    /// Character between cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether the first line names the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// How text becomes tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerKind>,
    /// Tokens of a byte-pair tokeniser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Tokens of a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
    /// Columns by which measures are also given group by group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Columns of ordered categories, each with its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<BTreeMap<String, Vec<String>>>,
}

impl DataTable {
    /// Every path it names.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [
            &mut self.path,
            &mut self.test_path,
            &mut self.images,
            &mut self.labels,
            &mut self.test_images,
            &mut self.test_labels,
        ]
        .into_iter()
        .flatten()
    }
}

/// A `[data]` section that fits together; what each kind of data needs, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DataTable", into = "DataTable")]
pub enum DataSpec {
    /// `kind = "bundled"`.
    Bundled(BundledSpec),
    /// `kind = "idx"`.
    Idx(IdxSpec),
    /// `kind = "images"`.
    Images(ImagesSpec),
    /// `kind = "csv"`.
    Csv(CsvSpec),
    /// `kind = "text"`.
    Text(TextSpec),
}

/// A set that comes with the program, by its `name`.
#[derive(Clone, Debug, PartialEq)]
pub enum BundledSpec {
    /// `fashion-mnist`: 10,000 train and 2,000 test gray images of 28x28, ten classes, balanced; its split is fixed.
    FashionMnist {
        /// How images are made into numbers.
        options: ImageOptions,
        /// How many samples to use.
        limits: Limits,
    },
    /// `digits`: 1,797 gray images of 8x8, ten classes, to be split at random.
    Digits {
        /// How images are made into numbers.
        options: ImageOptions,
        /// How to split.
        split: RandomSplit,
        /// How many samples to use.
        limits: Limits,
    },
    /// `adult`: 32,561 and 16,281 people of the census of 1994; does one earn more than 50,000 dollars a year? Its split is fixed.
    Adult {
        /// `ignore`: columns left out.
        ignore: Vec<String>,
        /// `groups`: columns by which measures are also given.
        groups: Vec<String>,
        /// How many rows to use.
        limits: Limits,
    },
    /// `shakespeare`: seven plays to train on, an eighth to test on.
    Shakespeare {
        /// How text is made into tokens.
        options: TextOptions,
        /// How many windows to use.
        limits: Limits,
    },
}

impl BundledSpec {
    /// The names that `name` can have.
    pub const NAMES: [&'static str; 4] = ["fashion-mnist", "digits", "shakespeare", "adult"];

    /// The `name` of this set.
    pub fn name(&self) -> &'static str {
        match self {
            BundledSpec::FashionMnist { .. } => Self::NAMES[0],
            BundledSpec::Digits { .. } => Self::NAMES[1],
            BundledSpec::Shakespeare { .. } => Self::NAMES[2],
            BundledSpec::Adult { .. } => Self::NAMES[3],
        }
    }
}

/// IDX files of unsigned bytes: images of rank 3 (N, height, width) or 4 (with 1 or 3 channels last) and labels of rank 1.
#[derive(Clone, Debug, PartialEq)]
pub struct IdxSpec {
    /// Where they are.
    pub files: IdxFiles,
    /// `classes`: names in the order of the class indices. By default the indices themselves, up to the greatest train label.
    pub classes: Option<Vec<String>>,
    /// How images are made into numbers.
    pub options: ImageOptions,
    /// How many samples to use.
    pub limits: Limits,
}

/// Where IDX files are.
#[derive(Clone, Debug, PartialEq)]
pub enum IdxFiles {
    /// `path`: a folder with the names that MNIST uses (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same
    /// with `t10k`; `.gz` after them, and `.idx` in place of `-idx`, are understood). With `test_fraction` the `t10k` files are not used.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Split the train files instead of reading test files.
        split: Option<RandomSplit>,
    },
    /// `images` and `labels`, and `test_images` and `test_labels` or a random split.
    Named {
        /// Train images, or all.
        images: PathBuf,
        /// Train labels, or all.
        labels: PathBuf,
        /// Where test samples come from: (images, labels) or a split.
        test: TestFrom<(PathBuf, PathBuf), RandomSplit>,
    },
}

/// A folder with one folder per class; classes are in the order of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagesSpec {
    /// `path`: the folder that has the class folders.
    pub path: PathBuf,
    /// `test_path`, a second such folder, or a random split.
    pub test: TestFrom<PathBuf, RandomSplit>,
    /// How images are made into numbers.
    pub options: ImageOptions,
    /// How many samples to use.
    pub limits: Limits,
}

/// A table whose `target` column holds classes.
#[derive(Clone, Debug, PartialEq)]
pub struct CsvSpec {
    /// `path`: the file.
    pub path: PathBuf,
    /// `test_path`, a second file with the same columns, or a random split.
    pub test: TestFrom<PathBuf, RandomSplit>,
    /// How the file is cut into cells.
    pub format: CsvFormat,
    /// `target`: the column to predict.
    pub target: String,
    /// `ignore`: columns left out.
    pub ignore: Vec<String>,
    /// `numeric`: columns taken as numbers whatever they look like.
    pub numeric: Vec<String>,
    /// `categorical`: columns taken as categories even if they look like numbers.
    pub categorical: Vec<String>,
    /// `[data.ordinal]`: columns of categories with an order, each with its categories from low to high.
    pub ordinal: BTreeMap<String, Vec<String>>,
    /// `missing`: what to do with missing numbers.
    pub missing: MissingNumbers,
    /// `groups`: columns by which measures are also given group by group, used as features or not.
    pub groups: Vec<String>,
    /// How many rows to use.
    pub limits: Limits,
}

/// How a CSV file is cut into cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsvFormat {
    /// `delimiter`: one ASCII character; a comma by default.
    pub delimiter: char,
    /// `header`: whether the first line names the columns (default); else they are called `c1`, `c2` and so on.
    pub header: bool,
}

impl Default for CsvFormat {
    fn default() -> Self {
        CsvFormat { delimiter: ',', header: true }
    }
}

/// A text to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSpec {
    /// `path`: the file.
    pub path: PathBuf,
    /// `test_path`, a second text, or the fraction at the end of the first.
    pub test: TestFrom<PathBuf, TailSplit>,
    /// How text is made into tokens.
    pub options: TextOptions,
    /// How many windows to use.
    pub limits: Limits,
}

/// Where test samples come from.
#[derive(Clone, Debug, PartialEq)]
pub enum TestFrom<Files, Split> {
    /// From files of their own.
    Files(Files),
    /// From a part of the train files.
    Split(Split),
}

/// A random split in which every class keeps its share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomSplit {
    /// `test_fraction`: share of the samples that are held out; 0.2 by default.
    pub fraction: f64,
    /// `split_seed`: which of them; 0 by default. It belongs to the data, not to the run: every seed of a run has one test set.
    pub seed: u64,
}

impl Default for RandomSplit {
    fn default() -> Self {
        RandomSplit { fraction: 0.2, seed: 0 }
    }
}

/// The end of a text is held out: neighbouring windows are alike, so that a random split would leak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TailSplit {
    /// `test_fraction`: share of the bytes that are held out; 0.1 by default.
    pub fraction: f64,
}

impl Default for TailSplit {
    fn default() -> Self {
        TailSplit { fraction: 0.1 }
    }
}

/// `limit_train`, `limit_test`: use at most so many samples. Classes keep their shares; of a text, the beginning is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Greatest number of train samples.
    pub train: Option<usize>,
    /// Greatest number of test samples.
    pub test: Option<usize>,
}

/// How images are made into numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageOptions {
    /// `resize = [height, width]`, by bilinear interpolation with a filter that widens when shrinking.
    pub resize: Option<(usize, usize)>,
    /// `channels`: 1 makes all images gray, 3 makes all colour; by default as they are. Transparent pixels are laid on white.
    pub channels: Option<Channels>,
    /// `mean` and `std`, per channel, of pixels scaled to 0..1; by default those of the train images.
    pub normalise: Normalise,
    /// What is done to train images at random.
    pub augment: Augment,
}

/// Channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One: luminance (ITU-R BT.709 weights when made from colour).
    Gray,
    /// Three: red, green, blue.
    Rgb,
}

impl Channels {
    /// 1 or 3.
    pub fn count(self) -> usize {
        match self {
            Channels::Gray => 1,
            Channels::Rgb => 3,
        }
    }
}

/// Where the mean and standard deviation of each channel come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Normalise {
    /// From the train images.
    #[default]
    Fit,
    /// From the recipe; one number per channel, for pixels scaled to 0..1.
    Given {
        /// Means.
        mean: Vec<f64>,
        /// Standard deviations, greater than 0.
        std: Vec<f64>,
    },
}

/// What is done to train images at random, anew in every epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// `flip`: mirror left and right with probability 1/2; off by default.
    pub flip: bool,
    /// `crop_padding`: shift by up to so many pixels in each direction, edge pixels repeated; 0 by default.
    pub crop_padding: usize,
}

/// How text is made into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// `tokenizer`, with `vocab_size` for `bpe`; bytes by default.
    pub tokenizer: TokenizerSpec,
    /// `sequence`: tokens of a window; 128 by default.
    pub sequence: usize,
}

impl Default for TextOptions {
    fn default() -> Self {
        TextOptions { tokenizer: TokenizerSpec::Bytes, sequence: 128 }
    }
}

/// Which tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// The 256 bytes.
    Bytes,
    /// Byte pairs.
    Bpe {
        /// `vocab_size`: tokens to learn, the 256 bytes included; 1024 by default. A short text may give fewer.
        vocab_size: usize,
    },
}

/// Keys of `[data]` that do not fit together, or a value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[data] {}{message}", key.map(|k| format!("`{k}`: ")).unwrap_or_default())]
pub struct SpecError {
    /// The key to point at, if one is to blame.
    pub key: Option<&'static str>,
    /// What was expected.
    pub message: String,
}

impl DataSpec {
    /// Every key that `[data]` can have.
    pub const KEYS: [&'static str; 31] = [
        "kind",
        "name",
        "path",
        "test_path",
        "images",
        "labels",
        "test_images",
        "test_labels",
        "test_fraction",
        "split_seed",
        "limit_train",
        "limit_test",
        "classes",
        "resize",
        "channels",
        "mean",
        "std",
        "flip",
        "crop_padding",
        "target",
        "ignore",
        "numeric",
        "categorical",
        "missing",
        "delimiter",
        "header",
        "tokenizer",
        "vocab_size",
        "sequence",
        "groups",
        "ordinal",
    ];

    /// The bundled set of a name (one of [`BundledSpec::NAMES`]) with its defaults.
    pub fn bundled(name: &str) -> Result<Self, SpecError> {
        DataTable { name: Some(name.to_owned()), ..DataTable::empty(Kind::Bundled) }.try_into()
    }

    /// The kind of data.
    pub fn kind(&self) -> Kind {
        match self {
            DataSpec::Bundled(_) => Kind::Bundled,
            DataSpec::Idx(_) => Kind::Idx,
            DataSpec::Images(_) => Kind::Images,
            DataSpec::Csv(_) => Kind::Csv,
            DataSpec::Text(_) => Kind::Text,
        }
    }
}
