//! The `[data]` section of a recipe: [`DataSpec::read`] makes one from a table of TOML, serde
//! writes one.

mod csv_format;
mod read;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use csv_format::{CsvFormat, DateOrder, DecimalMark};

/// What to do with a missing cell of a numeric column. (In a column of categories, "missing" is a
/// category of its own.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingNumbers {
    /// Stop and say where it is.
    #[default]
    Error,
    /// Put the mean of the train rows.
    Mean,
}

/// What to do with a row whose target is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingTarget {
    /// Stop and say where it is.
    #[default]
    Error,
    /// Leave the row out.
    Drop,
}

/// A `[data]` section that fits together; what each kind of data needs, with defaults filled in.
/// Every default is written out, so that a stored recipe does not change its meaning when a default
/// does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
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
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum BundledSpec {
    /// `fashion-mnist`: 10,000 train and 2,000 test gray images of 28x28, ten classes, balanced;
    /// its split is fixed.
    FashionMnist {
        /// How many samples to use.
        #[serde(flatten)]
        limits: Limits,
        /// How images are made into numbers.
        #[serde(flatten)]
        options: ImageOptions,
    },
    /// `digits`: 1,797 gray images of 8x8, ten classes, to be split at random.
    Digits {
        /// How to split.
        #[serde(flatten)]
        split: RandomSplit,
        /// How many samples to use.
        #[serde(flatten)]
        limits: Limits,
        /// How images are made into numbers.
        #[serde(flatten)]
        options: ImageOptions,
    },
    /// `adult`: 32,561 and 16,281 people of the census of 1994; does one earn more than 50,000
    /// dollars a year? Its split is fixed.
    Adult {
        /// How many rows to use.
        #[serde(flatten)]
        limits: Limits,
        /// `ignore`: columns left out.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ignore: Vec<String>,
        /// `groups`: columns by which measures are also given.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
    },
    /// `shakespeare`: seven plays to train on, an eighth to test on.
    Shakespeare {
        /// How many windows to use.
        #[serde(flatten)]
        limits: Limits,
        /// How text is made into tokens.
        #[serde(flatten)]
        options: TextOptions,
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

/// IDX files of unsigned bytes: images of rank 3 (N, height, width) or 4 (with 1 or 3 channels
/// last) and labels of rank 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdxSpec {
    /// Where they are.
    #[serde(flatten)]
    pub files: IdxFiles,
    /// How many samples to use.
    #[serde(flatten)]
    pub limits: Limits,
    /// `classes`: names in the order of the class indices. By default the indices themselves, up to
    /// the greatest train label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// `ignore_labels`: images with these labels are left out, such as 255 where it marks images
    /// without a class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_labels: Vec<u32>,
    /// How images are made into numbers.
    #[serde(flatten)]
    pub options: ImageOptions,
}

/// Where IDX files are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum IdxFiles {
    /// `path`: a folder with the names that MNIST uses (`train-images-idx3-ubyte`,
    /// `train-labels-idx1-ubyte` and the same with `t10k`; `.gz` after them, and `.idx` in place of
    /// `-idx`, are understood). With `test_fraction` the `t10k` files are not used.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Split the train files instead of reading test files.
        #[serde(flatten)]
        split: Option<RandomSplit>,
    },
    /// `images` and `labels`, and `test_images` and `test_labels` or a random split.
    Named {
        /// Train images, or all.
        images: PathBuf,
        /// Train labels, or all.
        labels: PathBuf,
        /// Where test samples come from.
        #[serde(flatten)]
        test: TestFrom<IdxTestFiles, RandomSplit>,
    },
}

/// IDX files of test samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdxTestFiles {
    /// `test_images`.
    #[serde(rename = "test_images")]
    pub images: PathBuf,
    /// `test_labels`.
    #[serde(rename = "test_labels")]
    pub labels: PathBuf,
}

/// Whether the folders of a folder of images are classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassFolders {
    /// Judged by names and contents: what looks like parts of the data (train and test) is refused.
    #[default]
    Judged,
    /// They are, whatever they look like.
    Classes,
}

impl ClassFolders {
    fn are_judged(&self) -> bool {
        *self == ClassFolders::Judged
    }
}

/// A folder with one folder per class; classes are in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImagesSpec {
    /// `path`: the folder that has the class folders.
    pub path: PathBuf,
    /// `folders`: `"judged"` (default) or `"classes"`.
    #[serde(skip_serializing_if = "ClassFolders::are_judged")]
    pub folders: ClassFolders,
    /// `test_path`, a second such folder, or a random split.
    #[serde(flatten)]
    pub test: TestFrom<TestPath, RandomSplit>,
    /// `validation_path`: a third such folder, of the images that models are chosen by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_path: Option<PathBuf>,
    /// How many samples to use.
    #[serde(flatten)]
    pub limits: Limits,
    /// How images are made into numbers.
    #[serde(flatten)]
    pub options: ImageOptions,
}

/// A table whose `target` column holds classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CsvSpec {
    /// `path`: the file.
    pub path: PathBuf,
    /// `test_path`, a second file with the same columns, or a random split.
    #[serde(flatten)]
    pub test: TestFrom<TestPath, RandomSplit>,
    /// How many rows to use.
    #[serde(flatten)]
    pub limits: Limits,
    /// `target`: the column to predict.
    pub target: String,
    /// `ignore`: columns left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// `numeric`: columns taken as numbers whatever they look like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub numeric: Vec<String>,
    /// `categorical`: columns taken as categories even if they look like numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<String>,
    /// `missing`: what to do with missing numbers.
    pub missing: MissingNumbers,
    /// `missing_target`: what to do with rows whose target is missing.
    pub missing_target: MissingTarget,
    /// How the file is cut into cells.
    #[serde(flatten)]
    pub format: CsvFormat,
    /// `groups`: columns by which measures are also given group by group, used as features or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// `[data.ordinal]`: columns of categories with an order, each with its categories from low to
    /// high.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ordinal: BTreeMap<String, Vec<String>>,
}

impl CsvSpec {
    /// A file and the column to predict; everything else by default.
    pub fn new(path: PathBuf, target: String) -> CsvSpec {
        CsvSpec { path, target, ..CsvSpec::default() }
    }
}

/// A text to continue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextSpec {
    /// `path`: the file, or a folder of text files.
    pub path: PathBuf,
    /// `encoding`: what files are that are not UTF-8, as [`CsvFormat::encoding`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// `test_path`, a second text, or the fraction at the end of the first.
    #[serde(flatten)]
    pub test: TestFrom<TestPath, TailSplit>,
    /// How many windows to use.
    #[serde(flatten)]
    pub limits: Limits,
    /// How text is made into tokens.
    #[serde(flatten)]
    pub options: TextOptions,
}

/// Where test samples come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TestFrom<Files, Split> {
    /// From files of their own.
    Files(Files),
    /// From a part of the train files.
    Split(Split),
}

/// A file or folder of test samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestPath {
    /// `test_path`.
    #[serde(rename = "test_path")]
    pub path: PathBuf,
    /// `validation_path`, of tables and texts: samples to choose models by. Absent, such samples
    /// are set aside from the train samples where something is chosen.
    #[serde(rename = "validation_path", skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
}

impl<Files, Split: Default> Default for TestFrom<Files, Split> {
    fn default() -> Self {
        TestFrom::Split(Split::default())
    }
}

impl<Split> TestFrom<TestPath, Split> {
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let files = match self {
            TestFrom::Files(files) => Some(files),
            TestFrom::Split(_) => None,
        };
        files.into_iter().flat_map(|files| [&mut files.path].into_iter().chain(&mut files.validation))
    }

    /// The validation data in the place of the test data, where there are any.
    fn test_on_validation(&mut self) -> bool {
        let TestFrom::Files(TestPath { path, validation }) = self else { return false };
        validation.take().map(|validation| *path = validation).is_some()
    }
}

/// A random split in which every class keeps its share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RandomSplit {
    /// `test_fraction`: share of the samples that are held out; 0.2 by default.
    #[serde(rename = "test_fraction")]
    pub fraction: f64,
    /// `split_seed`: which of them; 0 by default. It belongs to the data, not to the run: every
    /// seed of a run has one test set.
    #[serde(rename = "split_seed")]
    pub seed: u64,
}

impl Default for RandomSplit {
    fn default() -> Self {
        RandomSplit { fraction: 0.2, seed: 0 }
    }
}

/// The end of a text is held out: neighbouring windows are alike, so that a random split would
/// leak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TailSplit {
    /// `test_fraction`: share of the bytes that are held out; 0.1 by default.
    #[serde(rename = "test_fraction")]
    pub fraction: f64,
}

impl Default for TailSplit {
    fn default() -> Self {
        TailSplit { fraction: 0.1 }
    }
}

/// `limit_train`, `limit_test`: use at most so many samples. Classes keep their shares; of a text,
/// the beginning is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Greatest number of train samples.
    #[serde(rename = "limit_train", skip_serializing_if = "Option::is_none")]
    pub train: Option<usize>,
    /// Greatest number of test samples.
    #[serde(rename = "limit_test", skip_serializing_if = "Option::is_none")]
    pub test: Option<usize>,
}

/// How images are made into numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ImageOptions {
    /// `resize = [height, width]`, by bilinear interpolation with a filter that widens when
    /// shrinking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<(usize, usize)>,
    /// `channels`: 1 makes all images gray, 3 makes all colour; by default as they are. Transparent
    /// pixels are laid on white.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// `mean` and `std`, per channel, of pixels scaled to 0..1; by default those of the train
    /// images.
    #[serde(flatten)]
    pub normalise: Normalise,
    /// What is done to train images at random.
    #[serde(flatten)]
    pub augment: Augment,
}

/// Channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "usize")]
pub enum Channels {
    /// One: luminance (ITU-R BT.709 weights when made from colour).
    Gray = 1,
    /// Three: red, green, blue.
    Rgb = 3,
}

impl Channels {
    /// 1 or 3.
    pub fn count(self) -> usize {
        self as usize
    }
}

impl From<Channels> for usize {
    fn from(channels: Channels) -> usize {
        channels.count()
    }
}

/// Where the mean and standard deviation of each channel come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(untagged)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Augment {
    /// `flip`: mirror left and right with probability 1/2; off by default.
    pub flip: bool,
    /// `crop_padding`: shift by up to so many pixels in each direction, edge pixels repeated; 0 by
    /// default.
    pub crop_padding: usize,
}

/// How text is made into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TextOptions {
    /// `tokenizer`, with `vocab_size` for `bpe`; bytes by default.
    #[serde(flatten)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "tokenizer", rename_all = "lowercase")]
pub enum TokenizerSpec {
    /// The 256 bytes.
    Bytes,
    /// Byte pairs.
    Bpe {
        /// `vocab_size`: tokens to learn, the 256 bytes included; 1024 by default. A short text may
        /// give fewer.
        vocab_size: usize,
    },
}

/// Keys of `[data]` that do not fit together, or a value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[data] {}{message}", key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
pub struct SpecError {
    /// The key to point at, if one is to blame.
    pub key: Option<String>,
    /// What was expected; of a value of the wrong type, what serde says of it.
    pub message: String,
    /// The bytes of the text that hold a value of the wrong type.
    pub wrong_type: Option<Range<usize>>,
}

impl SpecError {
    /// An error that no single key is to blame for.
    pub fn new(message: impl Into<String>) -> SpecError {
        SpecError { key: None, message: message.into(), wrong_type: None }
    }

    /// An error in the value of a key.
    pub fn at(key: &str, message: impl Into<String>) -> SpecError {
        SpecError { key: Some(key.to_owned()), ..SpecError::new(message) }
    }
}

impl DataSpec {
    /// The `kind` of data.
    pub fn kind(&self) -> &'static str {
        match self {
            DataSpec::Bundled(_) => "bundled",
            DataSpec::Idx(_) => "idx",
            DataSpec::Images(_) => "images",
            DataSpec::Csv(_) => "csv",
            DataSpec::Text(_) => "text",
        }
    }

    /// The same table or text with that of `validation_path` to test on; none if it names none.
    pub(crate) fn tested_on_validation(&self) -> Option<DataSpec> {
        let mut spec = self.clone();
        let found = match &mut spec {
            DataSpec::Csv(CsvSpec { test, limits, .. }) => {
                limits.test = None;
                test.test_on_validation()
            }
            DataSpec::Text(TextSpec { test, limits, .. }) => {
                limits.test = None;
                test.test_on_validation()
            }
            // Folders of images are read at once.
            DataSpec::Bundled(_) | DataSpec::Idx(_) | DataSpec::Images(_) => false,
        };
        found.then_some(spec)
    }

    /// Whether it names data to choose models by.
    pub fn has_validation(&self) -> bool {
        match self {
            DataSpec::Images(images) => images.validation_path.is_some(),
            other => other.tested_on_validation().is_some(),
        }
    }

    /// Every path it names.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let paths = match self {
            DataSpec::Bundled(_) => vec![],
            DataSpec::Idx(IdxSpec { files: IdxFiles::Folder { path, .. }, .. }) => vec![Some(path)],
            DataSpec::Idx(IdxSpec { files: IdxFiles::Named { images, labels, test }, .. }) => {
                let (test_images, test_labels) = match test {
                    TestFrom::Files(files) => (Some(&mut files.images), Some(&mut files.labels)),
                    TestFrom::Split(_) => (None, None),
                };
                vec![Some(images), Some(labels), test_images, test_labels]
            }
            DataSpec::Images(ImagesSpec { path, test, validation_path, .. }) => {
                let paths = [path].into_iter().chain(test.paths_mut()).chain(validation_path);
                paths.map(Some).collect()
            }
            DataSpec::Csv(CsvSpec { path, test, .. }) => {
                [path].into_iter().chain(test.paths_mut()).map(Some).collect()
            }
            DataSpec::Text(TextSpec { path, test, .. }) => {
                [path].into_iter().chain(test.paths_mut()).map(Some).collect()
            }
        };
        paths.into_iter().flatten()
    }
}
