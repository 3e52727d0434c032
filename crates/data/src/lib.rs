//! Datasets, loaders and preprocessing.
//!
//! [`DataSpec`] is the `[data]` section of a recipe; [`load`] turns it into a [`Dataset`]: train
//! and test samples and the [`Preprocessing`] that is stored with the model. [`Sampler`] says which
//! samples make up which batch, [`Part::fill_batch`] lays them out for a program, and [`inspect`]
//! looks at a person's own files and suggests a `DataSpec` for them.
//!
//! Values are plain: this crate knows nothing of graphs, models or processors. Images are
//! `[B, height, width, channels]` floats, table rows `[B, F]` floats, windows of text `[B, T]`
//! tokens with targets shifted by one. Every random choice is a function of a seed and of what is
//! chosen, never of threads or of the order of calls.
//!
//! ```
//! use halfstep_data::{Batch, DataSpec, Sampler, load};
//! let data = load(&DataSpec::bundled("digits")?, std::path::Path::new("."))?;
//! let info = data.info();
//! let mut sampler = Sampler::new(info.train_samples, 32, 0)?;
//! let mut batch = Batch::new(info.input, 32);
//! let (draw, indices) = sampler.batch(0);
//! data.train.fill_batch(indices, draw, &mut batch)?;
//! assert_eq!(batch.labels.len(), 32);
//! # Ok::<(), halfstep_data::DataError>(())
//! ```
//!
//! # Features
//! `bpe`: byte-pair tokenisers through the `tokenizers` crate.

#![forbid(unsafe_code)]

mod batch;
mod bundled;
mod class_names;
mod dataset;
mod draws;
mod encoding;
mod error;
mod files;
mod images;
mod inspect;
mod load;
mod nearest;
mod preprocessing;
mod printable;
mod sampler;
mod spec;
mod split;
mod table;
mod text;

pub use batch::{Batch, BatchX, Draw};
pub use class_names::shown as shown_name;
pub use dataset::{Dataset, DatasetInfo, InputShape, Part, Samples, sample_hash};
pub use encoding::read_text;
pub use error::{DataError, Role};
pub use files::{open_file, read_file, read_settings};
pub use images::{ImagePreprocessing, ImageSamples, ImageSet, Pictures, Pixels, picture_size, pictures};
pub use inspect::{ColumnKind, ColumnReport, FolderLayout, Found, Inspection, inspect, inspect_table};
pub use load::{check_paths, load};
pub use nearest::nearest;
pub use preprocessing::Preprocessing;
pub use printable::{is_printable, printable, readable};
pub use sampler::{InOrder, Sampler};
pub use spec::{
    Augment, BundledSpec, Channels, ClassFolders, CsvFormat, CsvSpec, DataSpec, DateOrder, DecimalMark,
    IdxFiles, IdxSpec, IdxTestFiles, ImageOptions, ImagesSpec, Limits, MissingNumbers, MissingTarget,
    Normalise, RandomSplit, SpecError, TailSplit, TestFrom, TestPath, TextOptions, TextSpec, TokenizerSpec,
};
pub use table::{ColumnEncoder, Encoding, GroupLabels, Notation, TableEncoder, TableRows, TableSamples};
pub use text::corpus::text_files;
pub use text::{Bpe, TextPreprocessing, TextSamples, Tokenizer};
