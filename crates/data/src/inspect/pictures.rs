//! Folders of images.

use std::path::{Path, PathBuf};

use super::{FolderLayout, Found, Inspection};
use crate::error::DataError;
use crate::files;
use crate::images::decode::{self, Header};
use crate::images::folder::{self, Listing, in_parallel};
use crate::spec::{Channels, DataSpec, ImageOptions, ImagesSpec, Limits, RandomSplit, TestFrom, TestPath};

/// Names of a folder of test images beside one called `train`, most telling first.
const TEST_NAMES: [&str; 5] = ["test", "val", "valid", "validation", "dev"];
/// Side that larger images are made smaller to: a CPU trains the reference models at this size in
/// minutes.
const SIDE: usize = 32;

pub(super) fn inspect(root: &Path) -> Result<Inspection, DataError> {
    let layout = layout(root)?;
    let (train_root, test_root) = match &layout {
        FolderLayout::OneFolder => (root.to_owned(), None),
        FolderLayout::TrainAndTest { train, test } => (root.join(train), Some(root.join(test))),
    };
    let listing = folder::list(&train_root)?;
    if listing.classes.is_empty() {
        let reason = "no IDX files and no folders with images in it; expected one folder of PNG or JPEG images per class";
        return Err(DataError::unusable(root, reason));
    }
    listing.check(&train_root, if test_root.is_some() { 1 } else { 2 })?;
    let test = test_root.as_deref().map(folder::list).transpose()?;
    let mut all = headers(&listing)?;
    if let Some(test) = &test {
        all.extend(headers(test)?);
    }

    let mut notes = Vec::new();
    let mut options = ImageOptions::default();
    if test_root.is_none() {
        notes
            .push("A fifth of the images is held out for testing, the same share of every class.".to_owned());
    }
    let heights = || all.iter().map(|h| h.height);
    let widths = || all.iter().map(|h| h.width);
    let smallest = (heights().min().unwrap_or(0), widths().min().unwrap_or(0));
    let greatest = (heights().max().unwrap_or(0), widths().max().unwrap_or(0));
    if smallest != greatest || greatest.0 > SIDE || greatest.1 > SIDE {
        options.resize = Some((SIDE, SIDE));
        let sizes = match smallest == greatest {
            true => format!("The images are {}x{}", smallest.0, smallest.1),
            false => {
                format!("The images are from {}x{} to {}x{}", smallest.0, smallest.1, greatest.0, greatest.1)
            }
        };
        notes.push(format!(
            "{sizes}: they are resized to {SIDE}x{SIDE}, which trains fast; raise it for finer detail."
        ));
    }
    let gray = all.iter().filter(|h| h.channels == 1).count();
    if gray > 0 && gray < all.len() {
        options.channels = Some(Channels::Rgb);
        notes.push(format!(
            "{gray} of {} images are gray, the others in colour: all are made colour.",
            all.len()
        ));
    }
    let counts: Vec<(String, usize)> =
        listing.classes.iter().map(|(c, images)| (c.clone(), images.len())).collect();
    let (least, most) = (counts.iter().min_by_key(|c| c.1), counts.iter().max_by_key(|c| c.1));
    if let (Some((rare, few)), Some((common, many))) = (least, most)
        && few * 10 < *many
    {
        notes.push(format!("The classes are unbalanced: `{rare}` has {few} images, `{common}` has {many}."));
    }
    let test_images = test.map(|test| test.classes.values().map(Vec::len).sum());
    let found = Found::Images { layout, classes: counts, test_images, smallest, greatest, gray };
    let spec = DataSpec::Images(ImagesSpec {
        path: train_root,
        test: match test_root {
            Some(path) => TestFrom::Files(TestPath { path }),
            None => TestFrom::Split(RandomSplit::default()),
        },
        limits: Limits::default(),
        options,
    });
    Ok(Inspection { path: root.to_owned(), found, spec, notes })
}

fn layout(root: &Path) -> Result<FolderLayout, DataError> {
    let folders: Vec<String> = files::entries(root)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    let named = |name: &str| folders.iter().find(|folder| folder.to_lowercase() == name).cloned();
    let test = TEST_NAMES.iter().find_map(|name| named(name));
    Ok(match (named("train").or_else(|| named("training")), test) {
        (Some(train), Some(test)) => FolderLayout::TrainAndTest { train, test },
        _ => FolderLayout::OneFolder,
    })
}

fn headers(listing: &Listing) -> Result<Vec<Header>, DataError> {
    let images: Vec<&PathBuf> = listing.classes.values().flatten().collect();
    in_parallel(&images, |path| decode::header(&files::read(path)?, path))
}
