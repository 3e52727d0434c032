//! From a [`DataSpec`] to a [`Dataset`].

use std::path::{Path, PathBuf};

use crate::bundled;
use crate::dataset::{Dataset, Part, Samples};
use crate::error::{DataError, Role};
use crate::files;
use crate::images::{ImagePreprocessing, ImageSamples, ImageSet, folder, idx, remarks};
use crate::preprocessing::Preprocessing;
use crate::spec::{
    BundledSpec, ClassFolders, CsvSpec, DataSpec, IdxFiles, IdxSpec, IdxTestFiles, ImageOptions, ImagesSpec,
    Limits, MissingTarget, SpecError, TestFrom, TestPath, TextOptions, TextSpec,
};
use crate::split;
use crate::table::classes;
use crate::table::encoder::TableEncoder;
use crate::table::groups::Grouping;
use crate::table::read::{self, Cells};
use crate::text::{self, TextPreprocessing, TextSamples, corpus};

/// Reads, checks, splits and encodes data. Relative paths are taken from `base`, the recipe's
/// folder. Writes nothing.
///
/// # Errors
/// Anything that [`DataError`] lists up to batches: a missing or damaged file, cells that are no
/// numbers, classes that cannot be split, a text shorter than a window.
///
/// ```
/// use halfstep_data::{DataSpec, load};
/// let data = load(&DataSpec::bundled("digits")?, std::path::Path::new("."))?;
/// assert_eq!(data.train.len() + data.test.len(), 1797);
/// # Ok::<(), halfstep_data::DataError>(())
/// ```
pub fn load(spec: &DataSpec, base: &Path) -> Result<Dataset, DataError> {
    check_paths(spec, base)?;
    let mut data = load_parts(spec, base)?;
    if let Some(spec) = spec.tested_on_validation() {
        // The train data again, for the same preprocessing.
        let validation = load_parts(&spec, base)?;
        data.validation = Some(Part::new(Role::Validation, validation.test.samples().clone()));
    }
    Ok(data)
}

/// Train and test data.
fn load_parts(spec: &DataSpec, base: &Path) -> Result<Dataset, DataError> {
    match spec {
        DataSpec::Bundled(BundledSpec::FashionMnist { options, limits }) => {
            let (train, test, classes) = bundled::fashion_mnist()?;
            images(Sets { train, validation: None, test }, classes, options, *limits, Vec::new())
        }
        DataSpec::Bundled(BundledSpec::Digits { options, split, limits }) => {
            let (set, classes) = bundled::digits()?;
            let (train, test) = split_images(&set, &classes, *split)?;
            images(Sets { train, validation: None, test }, classes, options, *limits, Vec::new())
        }
        DataSpec::Bundled(BundledSpec::Shakespeare { options, limits }) => {
            let (train, test) = bundled::shakespeare()?;
            texts(&train, &test, *options, *limits)
        }
        DataSpec::Bundled(BundledSpec::Adult { ignore, groups, limits }) => {
            let (train, test) = bundled::adult()?;
            let spec = CsvSpec {
                test: TestFrom::Files(TestPath { path: test.path.clone(), validation: None }),
                limits: *limits,
                ignore: ignore.clone(),
                groups: groups.clone(),
                ..CsvSpec::new(train.path.clone(), bundled::ADULT_TARGET.into())
            };
            tables(&train, Some(&test), &spec)
        }
        DataSpec::Idx(idx) => load_idx(idx, base),
        DataSpec::Images(folder) => load_folder(folder, base),
        DataSpec::Csv(csv) => load_csv(csv, base),
        DataSpec::Text(text) => load_text(text, base),
    }
}

/// Looks whether the files and folders of a specification are there, and whether this program can
/// do what it asks, without reading data.
///
/// # Errors
/// [`DataError::MissingFile`] with the most similar name in the same folder, or
/// [`DataError::FeatureMissing`].
pub fn check_paths(spec: &DataSpec, base: &Path) -> Result<(), DataError> {
    if cfg!(not(feature = "bpe"))
        && let DataSpec::Text(TextSpec { options, .. })
        | DataSpec::Bundled(BundledSpec::Shakespeare { options, .. }) = spec
        && matches!(options.tokenizer, crate::spec::TokenizerSpec::Bpe { .. })
    {
        return Err(DataError::FeatureMissing { feature: "bpe", what: "`tokenizer = \"bpe\"`" });
    }
    let idx_folder = match spec {
        DataSpec::Idx(IdxSpec { files: IdxFiles::Folder { path, split }, .. }) => Some((path, split)),
        _ => None,
    };
    let is_folder = matches!(spec, DataSpec::Images(_)) || idx_folder.is_some();
    for path in spec.clone().paths_mut() {
        let path = base.join(path);
        let is_folder = is_folder || (matches!(spec, DataSpec::Text(_)) && path.is_dir());
        if is_folder { files::require_folder(&path)? } else { files::require_file(&path)? }
    }
    if let Some((path, split)) = idx_folder {
        let parts: &[&str] = if split.is_some() { &["train"] } else { &["train", "t10k"] };
        parts.iter().try_for_each(|part| idx::require(&base.join(path), part).map(drop))?;
    }
    Ok(())
}

/// Images that share their size and classes.
struct Sets {
    train: ImageSet,
    validation: Option<ImageSet>,
    test: ImageSet,
}

fn images(
    Sets { train, validation, test }: Sets,
    classes: Vec<String>,
    options: &ImageOptions,
    limits: Limits,
    mut notes: Vec<String>,
) -> Result<Dataset, DataError> {
    let limited = |set: ImageSet, limit: Option<usize>| match limit {
        Some(limit) if limit < set.labels.len() => {
            set.select(&split::limited(&set.labels, classes.len(), limit))
        }
        _ => set,
    };
    check_limits(limits, classes.len())?;
    let train = limited(train, limits.train).convert(options);
    let test = limited(test, limits.test).convert(options);
    let fitted = ImagePreprocessing::fit(&train, classes, &options.normalise)?;
    notes.extend(remarks::of(&train, &options.normalise));
    let part = |role, set: ImageSet| {
        let values = fitted.pixel_values(&set.pixels);
        let samples = ImageSamples { set, values, augment: options.augment };
        Part::new(role, Samples::Images(samples))
    };
    Ok(Dataset {
        train: part(Role::Train, train),
        validation: validation.map(|set| part(Role::Validation, set.convert(options))),
        test: part(Role::Test, test),
        preprocessing: Preprocessing::Image(fitted),
        notes,
    })
}

fn check_limits(limits: Limits, classes: usize) -> Result<(), DataError> {
    match limits.train {
        Some(limit) if limit < classes => {
            let message =
                format!("{limit} is less than the {classes} classes, so that some could not be learnt");
            Err(SpecError::at("limit_train", message).into())
        }
        _ => Ok(()),
    }
}

fn split_images(
    set: &ImageSet,
    classes: &[String],
    split: crate::spec::RandomSplit,
) -> Result<(ImageSet, ImageSet), DataError> {
    let parts = split::stratified(&set.labels, classes, split)?;
    Ok((set.select(&parts.train), set.select(&parts.test)))
}

fn load_idx(spec: &IdxSpec, base: &Path) -> Result<Dataset, DataError> {
    let (train_files, test) = match &spec.files {
        IdxFiles::Folder { path, split } => {
            let folder = base.join(path);
            let test = match split {
                Some(split) => TestFrom::Split(*split),
                None => TestFrom::Files(idx::require(&folder, "t10k")?),
            };
            (idx::require(&folder, "train")?, test)
        }
        IdxFiles::Named { images, labels, test } => {
            let test = match test {
                TestFrom::Files(IdxTestFiles { images, labels }) => {
                    TestFrom::Files((base.join(images), base.join(labels)))
                }
                TestFrom::Split(split) => TestFrom::Split(*split),
            };
            ((base.join(images), base.join(labels)), test)
        }
    };
    let mut notes = Vec::new();
    let mut read = |images: &Path, labels: &Path| {
        let set = idx::read(images, labels)?;
        if spec.ignore_labels.is_empty() {
            return Ok(set);
        }
        let kept = |&i: &u32| !spec.ignore_labels.contains(&set.labels[i as usize]);
        let kept: Vec<u32> = (0..set.labels.len() as u32).filter(kept).collect();
        let left_out = set.labels.len() - kept.len();
        notes.push(format!("{}: {left_out} image(s) left out by `ignore_labels`.", images.display()));
        match kept.is_empty() {
            true => Err(DataError::Empty { what: images.display().to_string(), unit: "image" }),
            false => Ok(set.select(&kept)),
        }
    };
    let set = read(&train_files.0, &train_files.1)?;
    let classes = match &spec.classes {
        Some(names) => names.clone(),
        None => (0..=set.labels.iter().copied().max().unwrap_or(0)).map(|class| class.to_string()).collect(),
    };
    idx::check_labels(&set, classes.len(), &train_files.1)?;
    let mut present = vec![false; classes.len()];
    set.labels.iter().for_each(|&label| present[label as usize] = true);
    let found = present.iter().filter(|&&p| p).count();
    let remarks = idx::remarks(&set.labels, &classes, &train_files.1);
    if found < 2 {
        let hint = "the classes are the different labels of the train file";
        return Err(DataError::TooFewClasses { what: train_files.1.display().to_string(), found, hint });
    }
    let (train, test) = match test {
        TestFrom::Split(split) => split_images(&set, &classes, split).map_err(|error| match error {
            // What the label is like says more than that there is one.
            DataError::ClassTooSmall { .. } if !remarks.is_empty() => {
                DataError::unusable(&train_files.1, format!("{error}. {}", remarks.join(" ")))
            }
            other => other,
        })?,
        TestFrom::Files((images, labels)) => {
            let test = read(&images, &labels)?;
            // With names given, an index beyond them is out of range; without, it is a class never
            // seen.
            if spec.classes.is_some() {
                idx::check_labels(&test, classes.len(), &labels)?;
            }
            let unseen =
                test.labels.iter().find(|&&label| !present.get(label as usize).is_some_and(|&seen| seen));
            if let Some(&label) = unseen {
                let class = classes.get(label as usize).cloned().unwrap_or_else(|| label.to_string());
                return Err(DataError::UnseenLabel { what: labels.display().to_string(), class });
            }
            folder::check_alike(&spec.options, (&train_files.0, set.shape()), (&images, test.shape()))?;
            (set, test)
        }
    };
    notes.extend(remarks);
    notes.extend(remarks::of_parts(&train, &test, &classes));
    images(Sets { train, validation: None, test }, classes, &spec.options, spec.limits, notes)
}

fn load_folder(spec: &ImagesSpec, base: &Path) -> Result<Dataset, DataError> {
    let root = base.join(&spec.path);
    let (listing, mut notes) = folder::list(&root, spec.folders)?;
    let least = if matches!(spec.test, TestFrom::Split(_)) { 2 } else { 1 };
    listing.check(&root, least)?;
    let classes: Vec<String> = listing.classes.keys().cloned().collect();
    let label_of = |class: &str, root: &Path| {
        if let Some(index) = classes.iter().position(|c| c == class) {
            return Ok(index as u32);
        }
        match classes.iter().find(|c| c.to_lowercase() == class.to_lowercase()) {
            Some(train) => {
                let reason = format!("`{class}` is `{train}` in the train data: name them alike");
                Err(DataError::unusable(root, reason))
            }
            None => Err(DataError::UnseenLabel { what: root.display().to_string(), class: class.to_owned() }),
        }
    };
    // Names are checked before any image is decoded.
    let mut held_out = |path: &Path| {
        let root = base.join(path);
        let (listing, more) = folder::list(&root, ClassFolders::Classes)?;
        listing.check_test(&root)?;
        listing.classes.keys().try_for_each(|class| label_of(class, &root).map(drop))?;
        notes.extend(more);
        Ok::<_, DataError>((root, listing))
    };
    let test = match &spec.test {
        TestFrom::Split(split) => TestFrom::Split(*split),
        TestFrom::Files(test) => TestFrom::Files(held_out(&test.path)?),
    };
    let validation = spec.validation_path.as_deref().map(held_out).transpose()?;
    let (set, mut headers) = listing.load(&spec.options, |class| label_of(class, &root))?;
    let (first, shape) = (&root, set.shape());
    let mut decoded = |(root, listing): (PathBuf, folder::Listing)| {
        let (set, own) = listing.load(&spec.options, |class| label_of(class, &root))?;
        folder::check_alike(&spec.options, (first, shape), (&root, set.shape()))?;
        headers.extend(own);
        Ok::<_, DataError>(set)
    };
    let validation = validation.map(&mut decoded).transpose()?;
    let (train, test) = match test {
        TestFrom::Split(split) => split_images(&set, &classes, split)?,
        TestFrom::Files(test) => (set, decoded(test)?),
    };
    notes.extend(remarks::of_headers(&headers));
    notes.extend(remarks::of_parts(&train, &test, &classes));
    images(Sets { train, validation, test }, classes, &spec.options, spec.limits, notes)
}

fn load_csv(spec: &CsvSpec, base: &Path) -> Result<Dataset, DataError> {
    let read = |path: &Path| {
        let mut cells = read::read(&base.join(path), &spec.format)?;
        if spec.missing_target == MissingTarget::Drop {
            cells.drop_without(cells.column(&spec.target)?);
        }
        Ok::<_, DataError>(cells)
    };
    let cells = read(&spec.path)?;
    let test = match &spec.test {
        TestFrom::Split(_) => None,
        TestFrom::Files(test) => Some(read(&test.path)?),
    };
    tables(&cells, test.as_ref(), spec)
}

/// A table of its own to test on, or a part of the only one, as the specification says.
fn tables(cells: &Cells, test_cells: Option<&Cells>, spec: &CsvSpec) -> Result<Dataset, DataError> {
    let target = cells.column(&spec.target)?;
    let classes = classes::classes(cells, target)?;
    check_limits(spec.limits, classes.len())?;
    let labels = classes::labels(cells, target, &classes)?;
    let limited = |rows: Vec<u32>, labels: &[u32], limit: Option<usize>| {
        let own: Vec<u32> = rows.iter().map(|&row| labels[row as usize]).collect();
        let chosen = limit.map(|limit| split::limited(&own, classes.len(), limit));
        chosen.map(|chosen| chosen.iter().map(|&i| rows[i as usize]).collect()).unwrap_or(rows)
    };
    let every = |count: usize| (0..count as u32).collect::<Vec<u32>>();
    let mut notes = [&cells.notes[..], test_cells.map_or(&[], |cells| &cells.notes)].concat();
    notes.extend(classes::remarks(cells, target, "The classes"));
    let test_cells = test_cells.unwrap_or(cells);
    let (train_rows, test_rows) = match &spec.test {
        TestFrom::Split(split) => {
            let parts = split::stratified(&labels, &classes, *split)?;
            (parts.train, parts.test)
        }
        TestFrom::Files(_) => (every(cells.rows.len()), every(test_cells.rows.len())),
    };
    let test_labels = classes::labels(test_cells, test_cells.column(&spec.target)?, &classes)?;
    let train_rows = limited(train_rows, &labels, spec.limits.train);
    let test_rows = limited(test_rows, &test_labels, spec.limits.test);
    let fitted = TableEncoder::fit(cells, &train_rows, classes.clone(), spec)?;
    let encoder = fitted.encoder;
    notes.extend(fitted.notes);
    let groups = Grouping::fit(cells, &train_rows, &spec.groups)?;
    let train = encoder.samples(cells, &train_rows, &labels, &groups)?;
    let test = encoder.samples(test_cells, &test_rows, &test_labels, &groups)?;
    let part = |role, samples| Part::new(role, Samples::Table(samples));
    Ok(Dataset {
        train: part(Role::Train, train),
        validation: None,
        test: part(Role::Test, test),
        preprocessing: Preprocessing::Table(encoder),
        notes,
    })
}

fn load_text(spec: &TextSpec, base: &Path) -> Result<Dataset, DataError> {
    let read = |path: &Path| {
        let path = base.join(path);
        let corpus = corpus::read(&path, spec.encoding.as_deref())?;
        match corpus.text.is_empty() {
            true => Err(DataError::Empty { what: path.display().to_string(), unit: "byte of text" }),
            false => Ok(corpus),
        }
    };
    let train = read(&spec.path)?;
    let (mut dataset, test_notes) = match &spec.test {
        TestFrom::Split(split) => {
            let (train, test) = text::split_tail(&train.text, split.fraction);
            (texts(train, test, spec.options, spec.limits)?, Vec::new())
        }
        TestFrom::Files(test) => {
            let test = read(&test.path)?;
            (texts(&train.text, &test.text, spec.options, spec.limits)?, test.notes)
        }
    };
    dataset.notes = [train.notes, test_notes].concat();
    Ok(dataset)
}

fn texts(train: &str, test: &str, options: TextOptions, limits: Limits) -> Result<Dataset, DataError> {
    let fitted = TextPreprocessing::fit(train, options)?;
    let part = |role, text: &str, limit| {
        let samples = TextSamples::new(fitted.encode(text)?, options.sequence, limit, role)?;
        Ok::<_, DataError>(Part::new(role, Samples::Text(samples)))
    };
    Ok(Dataset {
        train: part(Role::Train, train, limits.train)?,
        validation: None,
        test: part(Role::Test, test, limits.test)?,
        preprocessing: Preprocessing::Text(fitted),
        notes: Vec::new(),
    })
}
