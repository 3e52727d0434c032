//! From a table of TOML to a specification that fits together.
//!
//! Each key is taken out of the table by what it means. Mistakes are noted on the way, so that a
//! key that nobody took is known when all is read: it is reported first, for it is often the
//! misspelt name of one that seems to be missing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{
    Augment, BundledSpec, Channels, CsvFormat, CsvSpec, DataSpec, DateOrder, IdxFiles, IdxSpec, IdxTestFiles,
    ImageOptions, ImagesSpec, Limits, Normalise, RandomSplit, SpecError, TailSplit, TestFrom, TestPath,
    TextOptions, TextSpec, TokenizerSpec,
};
use crate::nearest::{did_you_mean, nearest};

/// Greatest height or width: keeps one image of floats under a gibibyte and arithmetic on sizes far
/// from overflow.
const MAX_SIDE: usize = 8192;
/// Greatest window; attention is quadratic in it.
const MAX_SEQUENCE: usize = 1 << 20;
const VOCAB_RANGE: std::ops::RangeInclusive<usize> = 257..=1_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Bundled,
    Idx,
    Images,
    Csv,
    Text,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TokenizerKind {
    #[default]
    Bytes,
    Bpe,
}

impl DataSpec {
    /// Reads the table of a `[data]` section.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong type or out of its range, keys that do not fit
    /// together.
    pub fn read(table: DeTable<'_>) -> Result<DataSpec, SpecError> {
        let mut keys = Keys::new(table);
        let Some(kind) = keys.take::<Kind>("kind") else {
            let missing = || SpecError::new("`kind` is missing: what the data are, such as \"images\"");
            return Err(keys.mistake.unwrap_or_else(missing));
        };
        let spec = match kind {
            Kind::Bundled => {
                let Some(name) = keys.take::<String>("name") else {
                    let missing = SpecError::new(format!("`name` is missing: one of {}", bundled_names()));
                    keys.note(missing.clone());
                    // Without a name, the keys of every set are known.
                    BundledSpec::NAMES.iter().for_each(|name| drop(keys.bundled_set(name)));
                    return keys.finish("`kind = \"bundled\"`").and(Err(missing));
                };
                return keys.bundled(&name);
            }
            Kind::Idx => DataSpec::Idx(keys.idx()),
            Kind::Images => DataSpec::Images(ImagesSpec {
                path: keys.need("path", "the folder that has one folder of images per class"),
                folders: keys.take_or_default("folders"),
                test: keys.path_or_random_split(),
                validation_path: keys.take("validation_path"),
                limits: keys.limits(),
                options: keys.image_options(),
            }),
            Kind::Csv => DataSpec::Csv(keys.csv()),
            Kind::Text => DataSpec::Text(TextSpec {
                path: keys.need("path", "the text file, or a folder of them"),
                encoding: keys.encoding(),
                test: {
                    let test = match keys.test_path(&["test_fraction"]) {
                        Some(path) => TestFrom::Files(path),
                        None => {
                            let fraction = keys.fraction(TailSplit::default().fraction);
                            TestFrom::Split(TailSplit { fraction })
                        }
                    };
                    keys.with_validation(test)
                },
                limits: keys.limits(),
                options: keys.text_options(),
            }),
        };
        keys.finish(&format!("`kind = \"{}\"`", spec.kind()))?;
        Ok(spec)
    }

    /// The bundled set of a name (one of [`BundledSpec::NAMES`]) with its defaults.
    ///
    /// # Errors
    /// There is no such set.
    pub fn bundled(name: &str) -> Result<Self, SpecError> {
        Keys::new(DeTable::new()).bundled(name)
    }
}

/// The keys that are not read yet, and what went wrong with those that are.
struct Keys<'i> {
    table: DeTable<'i>,
    known: Vec<&'static str>,
    /// The first value of a wrong type, else the first of any kind.
    mistake: Option<SpecError>,
}

impl<'i> Keys<'i> {
    fn new(table: DeTable<'i>) -> Self {
        Keys { table, known: Vec::new(), mistake: None }
    }

    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.remove_entry(&Spanned::new(0..0, Cow::Borrowed(key))).map(|(_, value)| value)
    }

    /// The value of a key, if it is given.
    fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.remove(key)?;
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(e) => {
                let wrong_type = Some(e.span().unwrap_or(span));
                self.note(SpecError { wrong_type, ..SpecError::at(key, e.message()) });
                None
            }
        }
    }

    fn take_or_default<T: DeserializeOwned + Default>(&mut self, key: &'static str) -> T {
        self.take(key).unwrap_or_default()
    }

    /// The value of a key that must be given.
    fn need<T: DeserializeOwned + Default>(&mut self, key: &'static str, what: &str) -> T {
        self.take(key).unwrap_or_else(|| {
            self.note(SpecError::new(format!("`{key}` is missing: {what}")));
            T::default()
        })
    }

    fn note(&mut self, mistake: SpecError) {
        let stays = |earlier: &SpecError| earlier.wrong_type.is_some() || mistake.wrong_type.is_none();
        if !self.mistake.as_ref().is_some_and(stays) {
            self.mistake = Some(mistake);
        }
    }

    fn require(&mut self, holds: bool, key: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.note(SpecError::at(key, message()));
        }
    }

    /// Reports a key that nobody took, or the first mistake.
    fn finish(self, what: &str) -> Result<(), SpecError> {
        if let Some(unknown) = self.table.keys().min_by_key(|key| key.span().start) {
            let key = unknown.get_ref();
            let known = self.known.iter().copied().filter(|k| *k != "kind");
            let names: Vec<String> = known.clone().map(|k| format!("`{k}`")).collect();
            let meant = did_you_mean(nearest(key, known));
            let message = format!("not a key of {what}, which has {}{meant}", names.join(", "));
            return Err(SpecError::at(key, message));
        }
        self.mistake.map_or(Ok(()), Err)
    }

    fn bundled(mut self, name: &str) -> Result<DataSpec, SpecError> {
        let Some(spec) = self.bundled_set(name) else {
            let meant = did_you_mean(nearest(name, BundledSpec::NAMES));
            let message = format!("no bundled set \"{name}\"{meant}; there are {}", bundled_names());
            return Err(SpecError::at("name", message));
        };
        self.finish(&format!("the bundled set \"{name}\""))?;
        Ok(DataSpec::Bundled(spec))
    }

    fn bundled_set(&mut self, name: &str) -> Option<BundledSpec> {
        match name {
            "fashion-mnist" => {
                Some(BundledSpec::FashionMnist { limits: self.limits(), options: self.image_options() })
            }
            "digits" => Some(BundledSpec::Digits {
                split: self.random_split(),
                limits: self.limits(),
                options: self.image_options(),
            }),
            "adult" => Some(BundledSpec::Adult {
                limits: self.limits(),
                ignore: self.take_or_default("ignore"),
                groups: self.group_columns(),
            }),
            "shakespeare" => {
                Some(BundledSpec::Shakespeare { limits: self.limits(), options: self.text_options() })
            }
            _ => None,
        }
    }

    fn idx(&mut self) -> IdxSpec {
        let path = self.take::<PathBuf>("path");
        let named = self.pair("images", "labels");
        let test = self.pair("test_images", "test_labels");
        if path.is_some() {
            let message = || "is a folder with all files; remove it or the keys of single files".into();
            self.require(named.is_none() && test.is_none(), "path", message);
        }
        let files = match (path, named) {
            (Some(path), _) => {
                let default = RandomSplit::default();
                let (fraction, seed) = (self.optional_fraction(), self.take("split_seed"));
                let split = (fraction.is_some() || seed.is_some()).then(|| RandomSplit {
                    fraction: fraction.unwrap_or(default.fraction),
                    seed: seed.unwrap_or(default.seed),
                });
                IdxFiles::Folder { path, split }
            }
            (None, named) => {
                if named.is_none() {
                    let message = "`path` (a folder), or `images` and `labels` (files), are missing";
                    self.note(SpecError::new(message));
                }
                let (images, labels) = named.unwrap_or_default();
                let test = match test {
                    Some((images, labels)) => {
                        self.no_split_beside("test_images", &["test_fraction", "split_seed"]);
                        TestFrom::Files(IdxTestFiles { images, labels })
                    }
                    None => TestFrom::Split(self.random_split()),
                };
                IdxFiles::Named { images, labels, test }
            }
        };
        let classes = self.take::<Vec<String>>("classes");
        if let Some(classes) = &classes {
            let few = || format!("names {} class(es); at least 2 are needed", classes.len());
            self.require(classes.len() >= 2, "classes", few);
            self.distinct(classes, "classes");
        }
        IdxSpec {
            files,
            limits: self.limits(),
            classes,
            ignore_labels: self.take_or_default("ignore_labels"),
            options: self.image_options(),
        }
    }

    /// Two files, each of which needs the other.
    fn pair(&mut self, a: &'static str, b: &'static str) -> Option<(PathBuf, PathBuf)> {
        let (first, second) = (self.take::<PathBuf>(a), self.take::<PathBuf>(b));
        self.require(first.is_none() || second.is_some(), a, || format!("needs `{b}` beside it"));
        self.require(second.is_none() || first.is_some(), b, || format!("needs `{a}` beside it"));
        first.zip(second)
    }

    fn csv(&mut self) -> CsvSpec {
        let format = CsvFormat::default();
        let spec = CsvSpec {
            path: self.need("path", "the CSV file"),
            test: {
                let test = self.path_or_random_split();
                self.with_validation(test)
            },
            limits: self.limits(),
            target: self.need("target", "the column to predict"),
            ignore: self.take_or_default("ignore"),
            numeric: self.take_or_default("numeric"),
            categorical: self.take_or_default("categorical"),
            missing: self.take_or_default("missing"),
            missing_target: self.take_or_default("missing_target"),
            format: CsvFormat {
                delimiter: self.take("delimiter").unwrap_or(format.delimiter),
                header: self.take("header").unwrap_or(format.header),
                decimal: self.take("decimal"),
                date_order: self.date_order(),
                encoding: self.encoding(),
                missing_markers: self.take("missing_markers").unwrap_or(format.missing_markers),
            },
            groups: self.group_columns(),
            ordinal: self.take_or_default::<BTreeMap<String, Vec<String>>>("ordinal"),
        };
        self.distinct(&spec.format.missing_markers, "missing_markers");
        let delimiter = spec.format.delimiter;
        let parts = delimiter.is_ascii() && !matches!(delimiter, '"' | '\n' | '\r');
        let message = || format!("{delimiter:?} is not an ASCII character that can part cells");
        self.require(parts, "delimiter", message);
        for (column, categories) in &spec.ordinal {
            let few = || format!("`{column}` lists fewer than 2 categories");
            self.require(categories.len() >= 2, "ordinal", few);
            if let Some(twice) = duplicate(categories) {
                self.note(SpecError::at("ordinal", format!("`{column}` lists \"{twice}\" twice")));
            }
        }
        let mut roles = vec![(&spec.target, "target")];
        roles.extend(spec.ignore.iter().map(|c| (c, "ignore")));
        roles.extend(spec.numeric.iter().map(|c| (c, "numeric")));
        roles.extend(spec.categorical.iter().map(|c| (c, "categorical")));
        roles.extend(spec.ordinal.keys().map(|c| (c, "ordinal")));
        let mut first: HashMap<&String, &str> = HashMap::new();
        for (column, key) in roles {
            if let Some(earlier) = first.get(column) {
                self.note(SpecError::at(key, format!("column \"{column}\" is already in `{earlier}`")));
            }
            first.entry(column).or_insert(key);
        }
        spec
    }

    fn date_order(&mut self) -> Option<DateOrder> {
        let order = self.take("date_order")?;
        let is_open = matches!(order, DateOrder::DayMonthYear | DateOrder::MonthDayYear);
        let message =
            || "\"day-month-year\" or \"month-day-year\" is expected: other orders show by themselves".into();
        self.require(is_open, "date_order", message);
        Some(order)
    }

    fn encoding(&mut self) -> Option<String> {
        let name = self.take::<String>("encoding")?;
        let known = encoding_rs::Encoding::for_label(name.as_bytes()).is_some();
        let message =
            || format!("\"{name}\" is no encoding; some are \"windows-1252\", \"utf-16le\", \"shift_jis\"");
        self.require(known, "encoding", message);
        Some(name)
    }

    fn optional_fraction(&mut self) -> Option<f64> {
        let fraction = self.take::<f64>("test_fraction")?;
        let message = || format!("{fraction} is not between 0 and 1, both excluded");
        self.require(fraction > 0.0 && fraction < 1.0, "test_fraction", message);
        Some(fraction)
    }

    fn fraction(&mut self, default: f64) -> f64 {
        self.optional_fraction().unwrap_or(default)
    }

    fn random_split(&mut self) -> RandomSplit {
        let RandomSplit { fraction, seed } = RandomSplit::default();
        RandomSplit { fraction: self.fraction(fraction), seed: self.take("split_seed").unwrap_or(seed) }
    }

    fn path_or_random_split(&mut self) -> TestFrom<TestPath, RandomSplit> {
        match self.test_path(&["test_fraction", "split_seed"]) {
            Some(path) => TestFrom::Files(path),
            None => TestFrom::Split(self.random_split()),
        }
    }

    /// `test_path`; the keys of a split must not stand beside it.
    fn test_path(&mut self, split: &[&'static str]) -> Option<TestPath> {
        let path = self.take("test_path")?;
        self.no_split_beside("test_path", split);
        Some(TestPath { path, validation: None })
    }

    /// `validation_path` of a table or text, which stands beside `test_path` alone.
    fn with_validation<Split>(&mut self, mut test: TestFrom<TestPath, Split>) -> TestFrom<TestPath, Split> {
        let validation = self.take("validation_path");
        match &mut test {
            TestFrom::Files(files) => files.validation = validation,
            TestFrom::Split(_) => {
                let message = "needs `test_path` beside it; without one, samples to choose by are set aside from the \
                               train samples by `validation_fraction` of [train]";
                self.require(validation.is_none(), "validation_path", || message.into());
            }
        }
        test
    }

    /// Test files and a split exclude each other.
    fn no_split_beside(&mut self, files: &str, split: &[&'static str]) {
        for &key in split {
            let absent = self.remove(key).is_none();
            self.require(absent, key, || format!("has no use beside `{files}`: remove one of them"));
        }
    }

    fn limits(&mut self) -> Limits {
        let mut limit = |key| {
            let limit = self.take(key);
            self.require(limit != Some(0), key, || "must be at least 1".into());
            limit
        };
        Limits { train: limit("limit_train"), test: limit("limit_test") }
    }

    fn image_options(&mut self) -> ImageOptions {
        let resize = self.take::<[usize; 2]>("resize").map(|[height, width]| (height, width));
        if let Some((h, w)) = resize {
            let fits = (1..=MAX_SIDE).contains(&h) && (1..=MAX_SIDE).contains(&w);
            let message = || format!("[{h}, {w}] is not a height and a width from 1 to {MAX_SIDE}");
            self.require(fits, "resize", message);
        }
        let channels = match self.take::<usize>("channels") {
            None => None,
            Some(1) => Some(Channels::Gray),
            Some(3) => Some(Channels::Rgb),
            Some(n) => {
                self.note(SpecError::at("channels", format!("{n} is neither 1 (gray) nor 3 (colour)")));
                None
            }
        };
        let normalise = self.normalise(channels);
        let augment = Augment {
            flip: self.take_or_default("flip"),
            crop_padding: self.take_or_default("crop_padding"),
        };
        let too_much = || format!("{} is more than {MAX_SIDE}", augment.crop_padding);
        self.require(augment.crop_padding <= MAX_SIDE, "crop_padding", too_much);
        ImageOptions { resize, channels, normalise, augment }
    }

    fn normalise(&mut self, channels: Option<Channels>) -> Normalise {
        let (mean, std) = (self.take::<Vec<f64>>("mean"), self.take::<Vec<f64>>("std"));
        self.require(mean.is_none() || std.is_some(), "mean", || "needs `std` beside it".into());
        self.require(std.is_none() || mean.is_some(), "std", || "needs `mean` beside it".into());
        let Some((mean, std)) = mean.zip(std) else { return Normalise::Fit };
        let lengths = || {
            let (means, stds) = (mean.len(), std.len());
            format!("one number per channel (1 or 3) is needed, but `mean` has {means} and `std` {stds}")
        };
        self.require(mean.len() == std.len() && matches!(mean.len(), 1 | 3), "std", lengths);
        if let Some(c) = channels.filter(|c| c.count() != mean.len()) {
            let message = format!("{} numbers for {} channel(s)", mean.len(), c.count());
            self.note(SpecError::at("mean", message));
        }
        if let Some(m) = mean.iter().find(|m| !m.is_finite()) {
            self.note(SpecError::at("mean", format!("{m} is not a finite number")));
        }
        // Below 1e-6, pixels in 0..1 would leave the range in which f16 is accurate.
        if let Some(s) = std.iter().find(|s| !(s.is_finite() && **s >= 1e-6)) {
            self.note(SpecError::at("std", format!("{s} is not a finite number of at least 1e-6")));
        }
        Normalise::Given { mean, std }
    }

    fn group_columns(&mut self) -> Vec<String> {
        let columns: Vec<String> = self.take_or_default("groups");
        self.distinct(&columns, "groups");
        columns
    }

    fn distinct(&mut self, names: &[String], key: &'static str) {
        if let Some(twice) = duplicate(names) {
            self.note(SpecError::at(key, format!("names \"{twice}\" twice")));
        }
    }

    fn text_options(&mut self) -> TextOptions {
        let kind = self.take_or_default("tokenizer");
        let vocab_size = self.take::<usize>("vocab_size");
        let tokenizer = match kind {
            TokenizerKind::Bytes => {
                let message = || "only for `tokenizer = \"bpe\"`; bytes have 256 tokens".into();
                self.require(vocab_size.is_none(), "vocab_size", message);
                TokenizerSpec::Bytes
            }
            TokenizerKind::Bpe => {
                let vocab_size = vocab_size.unwrap_or(1024);
                let (low, high) = (VOCAB_RANGE.start(), VOCAB_RANGE.end());
                let message = || format!("{vocab_size} is not between {low} and {high}");
                self.require(VOCAB_RANGE.contains(&vocab_size), "vocab_size", message);
                TokenizerSpec::Bpe { vocab_size }
            }
        };
        let sequence = self.take("sequence").unwrap_or(TextOptions::default().sequence);
        let message = || format!("{sequence} is not between 1 and {MAX_SEQUENCE}");
        self.require((1..=MAX_SEQUENCE).contains(&sequence), "sequence", message);
        TextOptions { tokenizer, sequence }
    }
}

fn bundled_names() -> String {
    BundledSpec::NAMES.map(|name| format!("\"{name}\"")).join(", ")
}

fn duplicate(names: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(*name))
}
