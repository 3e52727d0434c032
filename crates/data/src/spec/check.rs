//! From the table as written to a specification that fits together, and back.

use std::path::PathBuf;

use super::{
    Augment, BundledSpec, Channels, CsvFormat, CsvSpec, DataSpec, DataTable, IdxFiles, IdxSpec, ImageOptions,
    ImagesSpec, Kind, Limits, Normalise, RandomSplit, SpecError, TailSplit, TestFrom, TextOptions, TextSpec,
    TokenizerKind, TokenizerSpec,
};
use crate::nearest::{did_you_mean, nearest};

/// Greatest height or width: keeps one image of floats under a gibibyte and arithmetic on sizes far from overflow.
const MAX_SIDE: usize = 8192;
/// Greatest window; attention is quadratic in it.
const MAX_SEQUENCE: usize = 1 << 20;
const VOCAB_RANGE: std::ops::RangeInclusive<usize> = 257..=1_000_000;

fn wrong(key: &'static str, message: impl Into<String>) -> SpecError {
    SpecError { key: Some(key), message: message.into() }
}

impl DataTable {
    /// A table with a kind and nothing else.
    pub fn empty(kind: Kind) -> Self {
        DataTable {
            kind,
            name: None,
            path: None,
            test_path: None,
            images: None,
            labels: None,
            test_images: None,
            test_labels: None,
            test_fraction: None,
            split_seed: None,
            limit_train: None,
            limit_test: None,
            classes: None,
            resize: None,
            channels: None,
            mean: None,
            std: None,
            flip: None,
            crop_padding: None,
            target: None,
            ignore: None,
            numeric: None,
            categorical: None,
            missing: None,
            delimiter: None,
            header: None,
            tokenizer: None,
            vocab_size: None,
            sequence: None,
            groups: None,
            ordinal: None,
        }
    }

    /// Each key with whether it was given.
    fn given(&self) -> [(&'static str, bool); 31] {
        let keys = DataSpec::KEYS;
        let given = [
            true,
            self.name.is_some(),
            self.path.is_some(),
            self.test_path.is_some(),
            self.images.is_some(),
            self.labels.is_some(),
            self.test_images.is_some(),
            self.test_labels.is_some(),
            self.test_fraction.is_some(),
            self.split_seed.is_some(),
            self.limit_train.is_some(),
            self.limit_test.is_some(),
            self.classes.is_some(),
            self.resize.is_some(),
            self.channels.is_some(),
            self.mean.is_some(),
            self.std.is_some(),
            self.flip.is_some(),
            self.crop_padding.is_some(),
            self.target.is_some(),
            self.ignore.is_some(),
            self.numeric.is_some(),
            self.categorical.is_some(),
            self.missing.is_some(),
            self.delimiter.is_some(),
            self.header.is_some(),
            self.tokenizer.is_some(),
            self.vocab_size.is_some(),
            self.sequence.is_some(),
            self.groups.is_some(),
            self.ordinal.is_some(),
        ];
        std::array::from_fn(|i| (keys[i], given[i]))
    }

    /// Refuses keys that mean nothing for this data.
    fn only(&self, what: &str, allowed: &[&[&str]]) -> Result<(), SpecError> {
        for (key, given) in self.given() {
            if given && key != "kind" && !allowed.iter().any(|group| group.contains(&key)) {
                let names: Vec<String> =
                    allowed.iter().flat_map(|group| group.iter()).map(|k| format!("`{k}`")).collect();
                return Err(wrong(key, format!("not a key of {what}, which has {}", names.join(", "))));
            }
        }
        Ok(())
    }

    fn need_path(&self, what: &str) -> Result<PathBuf, SpecError> {
        self.path
            .clone()
            .ok_or_else(|| SpecError { key: None, message: format!("`path` is missing: {what}") })
    }

    fn fraction(&self) -> Result<Option<f64>, SpecError> {
        match self.test_fraction {
            Some(f) if !(f > 0.0 && f < 1.0) => {
                Err(wrong("test_fraction", format!("{f} is not between 0 and 1, both excluded")))
            }
            other => Ok(other),
        }
    }

    fn random_split(&self) -> Result<RandomSplit, SpecError> {
        let default = RandomSplit::default();
        Ok(RandomSplit {
            fraction: self.fraction()?.unwrap_or(default.fraction),
            seed: self.split_seed.unwrap_or(default.seed),
        })
    }

    /// Test files and a split exclude each other.
    fn no_split_beside(&self, files: &'static str) -> Result<(), SpecError> {
        for (key, given) in
            [("test_fraction", self.test_fraction.is_some()), ("split_seed", self.split_seed.is_some())]
        {
            if given {
                return Err(wrong(key, format!("has no use beside `{files}`: remove one of them")));
            }
        }
        Ok(())
    }

    fn path_or_random_split(&self) -> Result<TestFrom<PathBuf, RandomSplit>, SpecError> {
        match &self.test_path {
            Some(path) => self.no_split_beside("test_path").map(|()| TestFrom::Files(path.clone())),
            None => self.random_split().map(TestFrom::Split),
        }
    }

    fn limits(&self) -> Result<Limits, SpecError> {
        for (key, value) in [("limit_train", self.limit_train), ("limit_test", self.limit_test)] {
            if value == Some(0) {
                return Err(wrong(key, "must be at least 1"));
            }
        }
        Ok(Limits { train: self.limit_train, test: self.limit_test })
    }

    fn image_options(&self) -> Result<ImageOptions, SpecError> {
        let resize = match self.resize {
            Some([h, w]) if !(1..=MAX_SIDE).contains(&h) || !(1..=MAX_SIDE).contains(&w) => {
                return Err(wrong(
                    "resize",
                    format!("[{h}, {w}] is not a height and a width from 1 to {MAX_SIDE}"),
                ));
            }
            other => other.map(|[h, w]| (h, w)),
        };
        let channels = match self.channels {
            None => None,
            Some(1) => Some(Channels::Gray),
            Some(3) => Some(Channels::Rgb),
            Some(n) => return Err(wrong("channels", format!("{n} is neither 1 (gray) nor 3 (colour)"))),
        };
        let normalise = match (&self.mean, &self.std) {
            (None, None) => Normalise::Fit,
            (Some(_), None) => return Err(wrong("mean", "needs `std` beside it")),
            (None, Some(_)) => return Err(wrong("std", "needs `mean` beside it")),
            (Some(mean), Some(std)) => {
                if mean.len() != std.len() || !matches!(mean.len(), 1 | 3) {
                    let lengths = format!("`mean` has {} and `std` {}", mean.len(), std.len());
                    return Err(wrong(
                        "std",
                        format!("one number per channel (1 or 3) is needed, but {lengths}"),
                    ));
                }
                if let Some(c) = channels.filter(|c| c.count() != mean.len()) {
                    return Err(wrong(
                        "mean",
                        format!("{} numbers for {} channel(s)", mean.len(), c.count()),
                    ));
                }
                if let Some(m) = mean.iter().find(|m| !m.is_finite()) {
                    return Err(wrong("mean", format!("{m} is not a finite number")));
                }
                // Below 1e-6, pixels in 0..1 would leave the range in which f16 is accurate.
                if let Some(s) = std.iter().find(|s| !(s.is_finite() && **s >= 1e-6)) {
                    return Err(wrong("std", format!("{s} is not a finite number of at least 1e-6")));
                }
                Normalise::Given { mean: mean.clone(), std: std.clone() }
            }
        };
        let crop_padding = self.crop_padding.unwrap_or(0);
        if crop_padding > MAX_SIDE {
            return Err(wrong("crop_padding", format!("{crop_padding} is more than {MAX_SIDE}")));
        }
        let augment = Augment { flip: self.flip.unwrap_or(false), crop_padding };
        Ok(ImageOptions { resize, channels, normalise, augment })
    }

    fn group_columns(&self) -> Result<Vec<String>, SpecError> {
        let columns = self.groups.clone().unwrap_or_default();
        match duplicate(&columns) {
            Some(twice) => Err(wrong("groups", format!("names \"{twice}\" twice"))),
            None => Ok(columns),
        }
    }

    fn text_options(&self) -> Result<TextOptions, SpecError> {
        let tokenizer = match self.tokenizer.unwrap_or_default() {
            TokenizerKind::Bytes if self.vocab_size.is_some() => {
                return Err(wrong("vocab_size", "only for `tokenizer = \"bpe\"`; bytes have 256 tokens"));
            }
            TokenizerKind::Bytes => TokenizerSpec::Bytes,
            TokenizerKind::Bpe => {
                let vocab_size = self.vocab_size.unwrap_or(1024);
                if !VOCAB_RANGE.contains(&vocab_size) {
                    let (low, high) = (VOCAB_RANGE.start(), VOCAB_RANGE.end());
                    return Err(wrong("vocab_size", format!("{vocab_size} is not between {low} and {high}")));
                }
                TokenizerSpec::Bpe { vocab_size }
            }
        };
        let sequence = self.sequence.unwrap_or(TextOptions::default().sequence);
        if !(1..=MAX_SEQUENCE).contains(&sequence) {
            return Err(wrong("sequence", format!("{sequence} is not between 1 and {MAX_SEQUENCE}")));
        }
        Ok(TextOptions { tokenizer, sequence })
    }

    fn bundled(&self) -> Result<BundledSpec, SpecError> {
        let names = BundledSpec::NAMES;
        let Some(name) = self.name.as_deref() else {
            let message =
                format!("`name` is missing: one of {}", names.map(|n| format!("\"{n}\"")).join(", "));
            return Err(SpecError { key: None, message });
        };
        let what = format!("the bundled set \"{name}\"");
        match name {
            "fashion-mnist" => {
                self.only(&what, &[&["name"], LIMITS, IMAGES])?;
                Ok(BundledSpec::FashionMnist { options: self.image_options()?, limits: self.limits()? })
            }
            "digits" => {
                self.only(&what, &[&["name"], SPLIT, LIMITS, IMAGES])?;
                let (options, split) = (self.image_options()?, self.random_split()?);
                Ok(BundledSpec::Digits { options, split, limits: self.limits()? })
            }
            "adult" => {
                self.only(&what, &[&["name", "ignore", "groups"], LIMITS])?;
                let ignore = self.ignore.clone().unwrap_or_default();
                Ok(BundledSpec::Adult { ignore, groups: self.group_columns()?, limits: self.limits()? })
            }
            "shakespeare" => {
                self.only(&what, &[&["name"], LIMITS, TEXT])?;
                Ok(BundledSpec::Shakespeare { options: self.text_options()?, limits: self.limits()? })
            }
            _ => {
                let meant = did_you_mean(nearest(name, names));
                let all = names.map(|n| format!("\"{n}\"")).join(", ");
                Err(wrong("name", format!("no bundled set \"{name}\"{meant}; there are {all}")))
            }
        }
    }

    fn idx(&self) -> Result<IdxSpec, SpecError> {
        self.only(
            "`kind = \"idx\"`",
            &[&["path", "images", "labels", "test_images", "test_labels", "classes"], SPLIT, LIMITS, IMAGES],
        )?;
        let pair = |a: &Option<PathBuf>, b: &Option<PathBuf>, ka, kb| match (a, b) {
            (Some(a), Some(b)) => Ok(Some((a.clone(), b.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(wrong(ka, format!("needs `{kb}` beside it"))),
            (None, Some(_)) => Err(wrong(kb, format!("needs `{ka}` beside it"))),
        };
        let named = pair(&self.images, &self.labels, "images", "labels")?;
        let test = pair(&self.test_images, &self.test_labels, "test_images", "test_labels")?;
        let files = match (&self.path, named, test) {
            (Some(path), None, None) => {
                let wants_split = self.test_fraction.is_some() || self.split_seed.is_some();
                let split = if wants_split { Some(self.random_split()?) } else { None };
                IdxFiles::Folder { path: path.clone(), split }
            }
            (Some(_), ..) => {
                return Err(wrong(
                    "path",
                    "is a folder with all files; remove it or the keys of single files",
                ));
            }
            (None, Some((images, labels)), test) => {
                let test = match test {
                    Some(files) => self.no_split_beside("test_images").map(|()| TestFrom::Files(files))?,
                    None => TestFrom::Split(self.random_split()?),
                };
                IdxFiles::Named { images, labels, test }
            }
            (None, None, _) => {
                let message = "`path` (a folder), or `images` and `labels` (files), are missing".to_owned();
                return Err(SpecError { key: None, message });
            }
        };
        if let Some(classes) = &self.classes {
            if classes.len() < 2 {
                return Err(wrong(
                    "classes",
                    format!("names {} class(es); at least 2 are needed", classes.len()),
                ));
            }
            if let Some(twice) = duplicate(classes) {
                return Err(wrong("classes", format!("names \"{twice}\" twice")));
            }
        }
        Ok(IdxSpec {
            files,
            classes: self.classes.clone(),
            options: self.image_options()?,
            limits: self.limits()?,
        })
    }

    fn csv(&self) -> Result<CsvSpec, SpecError> {
        let own = [
            "path",
            "test_path",
            "target",
            "ignore",
            "numeric",
            "categorical",
            "missing",
            "delimiter",
            "header",
            "groups",
            "ordinal",
        ];
        self.only("`kind = \"csv\"`", &[&own, SPLIT, LIMITS])?;
        let Some(target) = self.target.clone() else {
            return Err(SpecError {
                key: None,
                message: "`target` is missing: the column to predict".to_owned(),
            });
        };
        let delimiter = self.delimiter.unwrap_or(CsvFormat::default().delimiter);
        if !delimiter.is_ascii() || matches!(delimiter, '"' | '\n' | '\r') {
            return Err(wrong(
                "delimiter",
                format!("{delimiter:?} is not an ASCII character that can part cells"),
            ));
        }
        let ordinal = self.ordinal.clone().unwrap_or_default();
        for (column, categories) in &ordinal {
            if categories.len() < 2 {
                return Err(wrong("ordinal", format!("`{column}` lists fewer than 2 categories")));
            }
            if let Some(twice) = duplicate(categories) {
                return Err(wrong("ordinal", format!("`{column}` lists \"{twice}\" twice")));
            }
        }
        let spec = CsvSpec {
            path: self.need_path("the CSV file")?,
            test: self.path_or_random_split()?,
            format: CsvFormat { delimiter, header: self.header.unwrap_or(true) },
            target,
            ignore: self.ignore.clone().unwrap_or_default(),
            numeric: self.numeric.clone().unwrap_or_default(),
            categorical: self.categorical.clone().unwrap_or_default(),
            ordinal,
            missing: self.missing.unwrap_or_default(),
            groups: self.group_columns()?,
            limits: self.limits()?,
        };
        let mut roles = vec![(&spec.target, "target")];
        roles.extend(spec.ignore.iter().map(|c| (c, "ignore")));
        roles.extend(spec.numeric.iter().map(|c| (c, "numeric")));
        roles.extend(spec.categorical.iter().map(|c| (c, "categorical")));
        roles.extend(spec.ordinal.keys().map(|c| (c, "ordinal")));
        for (i, (column, key)) in roles.iter().enumerate() {
            if let Some((_, earlier)) = roles[..i].iter().find(|(other, _)| other == column) {
                return Err(wrong(key, format!("column \"{column}\" is already in `{earlier}`")));
            }
        }
        Ok(spec)
    }
}

const SPLIT: &[&str] = &["test_fraction", "split_seed"];
const LIMITS: &[&str] = &["limit_train", "limit_test"];
const IMAGES: &[&str] = &["resize", "channels", "mean", "std", "flip", "crop_padding"];
const TEXT: &[&str] = &["tokenizer", "vocab_size", "sequence"];

fn duplicate(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name)
}

impl TryFrom<DataTable> for DataSpec {
    type Error = SpecError;

    fn try_from(table: DataTable) -> Result<Self, SpecError> {
        match table.kind {
            Kind::Bundled => table.bundled().map(DataSpec::Bundled),
            Kind::Idx => table.idx().map(DataSpec::Idx),
            Kind::Images => {
                table.only("`kind = \"images\"`", &[&["path", "test_path"], SPLIT, LIMITS, IMAGES])?;
                Ok(DataSpec::Images(ImagesSpec {
                    path: table.need_path("the folder that has one folder of images per class")?,
                    test: table.path_or_random_split()?,
                    options: table.image_options()?,
                    limits: table.limits()?,
                }))
            }
            Kind::Csv => table.csv().map(DataSpec::Csv),
            Kind::Text => {
                table.only("`kind = \"text\"`", &[&["path", "test_path", "test_fraction"], LIMITS, TEXT])?;
                let test = match &table.test_path {
                    Some(path) => {
                        table.no_split_beside("test_path").map(|()| TestFrom::Files(path.clone()))?
                    }
                    None => {
                        let fraction = table.fraction()?.unwrap_or(TailSplit::default().fraction);
                        TestFrom::Split(TailSplit { fraction })
                    }
                };
                let path = table.need_path("the text file")?;
                Ok(DataSpec::Text(TextSpec {
                    path,
                    test,
                    options: table.text_options()?,
                    limits: table.limits()?,
                }))
            }
        }
    }
}

impl From<DataSpec> for DataTable {
    /// Every default is written out, so that a stored recipe does not change its meaning when a default does.
    fn from(spec: DataSpec) -> Self {
        let mut table = DataTable::empty(spec.kind());
        match spec {
            DataSpec::Bundled(bundled) => {
                table.name = Some(bundled.name().to_owned());
                match bundled {
                    BundledSpec::FashionMnist { options, limits } => table.put(limits).put(options),
                    BundledSpec::Digits { options, split, limits } => {
                        table.put(limits).put(options).put(split)
                    }
                    BundledSpec::Shakespeare { options, limits } => table.put(limits).put(options),
                    BundledSpec::Adult { ignore, groups, limits } => {
                        table.ignore = Some(ignore).filter(|c| !c.is_empty());
                        table.groups = Some(groups).filter(|c| !c.is_empty());
                        table.put(limits)
                    }
                };
            }
            DataSpec::Idx(IdxSpec { files, classes, options, limits }) => {
                table.put(options).put(limits).classes = classes;
                match files {
                    IdxFiles::Folder { path, split } => {
                        table.path = Some(path);
                        if let Some(split) = split {
                            table.put(split);
                        }
                    }
                    IdxFiles::Named { images, labels, test } => {
                        (table.images, table.labels) = (Some(images), Some(labels));
                        match test {
                            TestFrom::Files((images, labels)) => {
                                (table.test_images, table.test_labels) = (Some(images), Some(labels));
                            }
                            TestFrom::Split(split) => {
                                table.put(split);
                            }
                        }
                    }
                }
            }
            DataSpec::Images(ImagesSpec { path, test, options, limits }) => {
                table.put(options).put(limits).put(test).path = Some(path);
            }
            DataSpec::Csv(csv) => {
                table.put(csv.limits).put(csv.test).path = Some(csv.path);
                table.target = Some(csv.target);
                (table.delimiter, table.header) = (Some(csv.format.delimiter), Some(csv.format.header));
                table.ignore = Some(csv.ignore).filter(|c| !c.is_empty());
                table.numeric = Some(csv.numeric).filter(|c| !c.is_empty());
                table.categorical = Some(csv.categorical).filter(|c| !c.is_empty());
                table.ordinal = Some(csv.ordinal).filter(|c| !c.is_empty());
                table.missing = Some(csv.missing);
                table.groups = Some(csv.groups).filter(|c| !c.is_empty());
            }
            DataSpec::Text(TextSpec { path, test, options, limits }) => {
                table.put(options).put(limits).path = Some(path);
                match test {
                    TestFrom::Files(path) => table.test_path = Some(path),
                    TestFrom::Split(split) => table.test_fraction = Some(split.fraction),
                }
            }
        }
        table
    }
}

/// A group of keys that several kinds of data share.
trait Keys {
    fn write(self, table: &mut DataTable);
}

impl DataTable {
    fn put(&mut self, keys: impl Keys) -> &mut Self {
        keys.write(self);
        self
    }
}

impl Keys for Limits {
    fn write(self, table: &mut DataTable) {
        (table.limit_train, table.limit_test) = (self.train, self.test);
    }
}

impl Keys for RandomSplit {
    fn write(self, table: &mut DataTable) {
        (table.test_fraction, table.split_seed) = (Some(self.fraction), Some(self.seed));
    }
}

impl Keys for TestFrom<PathBuf, RandomSplit> {
    fn write(self, table: &mut DataTable) {
        match self {
            TestFrom::Files(path) => table.test_path = Some(path),
            TestFrom::Split(split) => split.write(table),
        }
    }
}

impl Keys for ImageOptions {
    fn write(self, table: &mut DataTable) {
        table.resize = self.resize.map(|(h, w)| [h, w]);
        table.channels = self.channels.map(Channels::count);
        if let Normalise::Given { mean, std } = self.normalise {
            (table.mean, table.std) = (Some(mean), Some(std));
        }
        (table.flip, table.crop_padding) = (Some(self.augment.flip), Some(self.augment.crop_padding));
    }
}

impl Keys for TextOptions {
    fn write(self, table: &mut DataTable) {
        table.sequence = Some(self.sequence);
        match self.tokenizer {
            TokenizerSpec::Bytes => table.tokenizer = Some(TokenizerKind::Bytes),
            TokenizerSpec::Bpe { vocab_size } => {
                (table.tokenizer, table.vocab_size) = (Some(TokenizerKind::Bpe), Some(vocab_size));
            }
        }
    }
}
