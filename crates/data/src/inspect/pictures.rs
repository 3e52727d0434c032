//! Folders of images.

use std::path::{Path, PathBuf};

use super::{FolderLayout, Found, Inspection};
use crate::error::DataError;
use crate::files;
use crate::images::decode::{self, Header};
use crate::images::folder::{Listing, in_parallel};
use crate::images::layout;
use crate::images::tree::{self, Tree};
use crate::spec::{
    Channels, ClassFolders, DataSpec, ImageOptions, ImagesSpec, Limits, RandomSplit, TestFrom, TestPath,
};

/// Side that larger images are made smaller to: a CPU trains the reference models at this size in
/// minutes.
const SIDE: usize = 32;

pub(super) fn inspect(root: &Path) -> Result<Inspection, DataError> {
    let (tree, passed) = tree::scan(root)?;
    require_class_folders(&tree, &passed.notes(root))?;
    let found = layout::find(&tree).map_err(|reason| DataError::unusable(root, reason))?;
    let (train_root, test_root) = (found.train.path.clone(), found.test.map(|test| test.path.clone()));
    let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let layout = match &test_root {
        Some(test) => FolderLayout::TrainAndTest { train: name(&train_root), test: name(test) },
        None => FolderLayout::OneFolder,
    };
    // Loading says what it passes over in the folders of train and test images.
    let (listing, _) = Listing::of(found.train);
    listing.check(&train_root, if test_root.is_some() { 1 } else { 2 })?;
    let test = found.test.map(|test| Listing::of(test).0);
    let validation_root = found.validation.map(|validation| validation.path.clone());
    let validation = found.validation.map(|validation| Listing::of(validation).0);
    let mut notes = found.notes;
    notes.extend(
        passed.outside([&train_root].into_iter().chain(&test_root).chain(&validation_root)).notes(root),
    );
    let mut all = headers(&listing)?;
    for (listing, root) in test.iter().zip(&test_root).chain(validation.iter().zip(&validation_root)) {
        listing.check_test(root)?;
        all.extend(headers(listing)?);
    }

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
        folders: ClassFolders::Judged,
        test: match test_root {
            Some(path) => TestFrom::Files(TestPath { path, validation: None }),
            None => TestFrom::Split(RandomSplit::default()),
        },
        validation_path: validation_root,
        limits: Limits::default(),
        options,
    });
    Ok(Inspection { path: root.to_owned(), found, spec, notes })
}

/// Refuses a folder without pictures, or with pictures but no folders of them.
fn require_class_folders(tree: &Tree, passed: &[String]) -> Result<(), DataError> {
    let reason = match tree.count() {
        0 => {
            let expected = "no IDX files and no folders with images in it; expected one folder of PNG, JPEG or PNM images per class";
            if passed.is_empty() { expected.to_owned() } else { format!("{expected}. {}", passed.join(" ")) }
        }
        count if tree.filled().is_empty() => format!(
            "{count} image(s) but no folders of them: put the images of each class into a folder of its own, named by \
             the class"
        ),
        _ => return Ok(()),
    };
    Err(DataError::unusable(&tree.path, reason))
}

fn headers(listing: &Listing) -> Result<Vec<Header>, DataError> {
    let images: Vec<&PathBuf> = listing.classes.values().flatten().collect();
    in_parallel(&images, |path| path.as_path(), |path| decode::header(&files::read(path)?, path))
}
