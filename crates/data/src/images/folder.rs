//! A folder of images with one folder per class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::decode::{self, Header};
use super::pixels::Raw;
use super::tree::{self, Tree};
use super::{ImageSet, joined, layout};
use crate::class_names;
use crate::error::DataError;
use crate::files;
use crate::spec::{Channels, ClassFolders, ImageOptions};

/// The image files of each class, in the order of names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) classes: BTreeMap<String, Vec<PathBuf>>,
    /// Pictures among them in formats that are not read.
    unread: Vec<(PathBuf, &'static str)>,
}

/// Looks at names and first bytes. With the listing come sentences about what is left out.
pub(crate) fn list(root: &Path, folders: ClassFolders) -> Result<(Listing, Vec<String>), DataError> {
    let (tree, passed) = tree::scan(root)?;
    if folders == ClassFolders::Judged {
        layout::check(&tree).map_err(|reason| DataError::unusable(root, reason))?;
    }
    let (listing, mut notes) = Listing::of(&tree);
    notes.extend(passed.notes(root));
    Ok((listing, notes))
}

impl Listing {
    /// Every folder with images is a class; folders whose names are equal once composed are one.
    pub(crate) fn of(tree: &Tree) -> (Listing, Vec<String>) {
        let mut listing = Listing { classes: BTreeMap::new(), unread: Vec::new() };
        let mut notes = layout::remarks(tree);
        for folder in tree.filled() {
            let name = folder.name();
            if listing.classes.contains_key(&name) {
                notes.push(format!(
                    "Two folders are named `{name}`, in other characters (Unicode): one class."
                ));
            }
            folder.gather(listing.classes.entry(name).or_default(), &mut listing.unread);
        }
        notes.extend(class_names::remarks("The classes", listing.classes.keys().map(String::as_str)));
        (listing, notes)
    }

    /// All must be in formats that are read, and every class must have at least `least` images.
    pub(crate) fn check(&self, root: &Path, least: usize) -> Result<(), DataError> {
        self.check_test(root)?;
        if self.classes.len() < 2 {
            return Err(DataError::TooFewClasses {
                what: root.display().to_string(),
                found: self.classes.len(),
                hint: "put the images of each class into a folder of its own",
            });
        }
        match self.classes.iter().find(|(_, images)| images.len() < least) {
            Some((class, images)) => {
                Err(DataError::ClassTooSmall { class: class.clone(), count: images.len() })
            }
            None => Ok(()),
        }
    }

    /// As [`check`](Self::check) without a least number: test images need not show every class.
    pub(crate) fn check_test(&self, root: &Path) -> Result<(), DataError> {
        if let Some((path, format)) = self.unread.first() {
            let first = DataError::UnsupportedImage { path: path.clone(), format };
            let others: Vec<PathBuf> = self.unread[1..].iter().map(|(path, _)| path.clone()).collect();
            return Err(if others.is_empty() { first } else { DataError::several(first, others) });
        }
        if self.classes.is_empty() {
            let unit = "PNG, JPEG or PNM image in a class folder";
            return Err(DataError::Empty { what: root.display().to_string(), unit });
        }
        Ok(())
    }

    /// Decodes all images, and gives their headers as well; `class_of` turns a folder's name into a
    /// class index. All have one size and one kind of colour, by the options or by themselves.
    pub(crate) fn load(
        &self,
        options: &ImageOptions,
        class_of: impl Fn(&str) -> Result<u32, DataError>,
    ) -> Result<(ImageSet, Vec<Header>), DataError> {
        let mut samples = Vec::new();
        for (class, images) in &self.classes {
            let label = class_of(class)?;
            samples.extend(images.iter().map(|path| (path.as_path(), label)));
        }
        let decoded = in_parallel(
            &samples,
            |(path, _)| *path,
            |(path, _)| {
                let (mut raw, header) = decode::decode_with_header(&files::read(path)?, path)?;
                if let Some(channels) = options.channels {
                    raw = raw.with_channels(channels.count());
                }
                // At once, so that the originals are never all in memory.
                let raw = match options.resize {
                    Some((height, width)) => raw.resized(height, width),
                    None => raw,
                };
                Ok((raw, header))
            },
        )?;
        let (raws, headers) = decoded.into_iter().unzip();
        Ok((join(&samples, raws, options)?, headers))
    }
}

fn join(samples: &[(&Path, u32)], raws: Vec<Raw>, options: &ImageOptions) -> Result<ImageSet, DataError> {
    let Some(first) = raws.first() else {
        return Err(DataError::Empty { what: "image folder".to_owned(), unit: "image" });
    };
    let (height, width, channels) = (first.height, first.width, first.channels);
    for (raw, (path, _)) in raws.iter().zip(samples) {
        let own = (raw.height, raw.width, raw.channels);
        check_alike(options, (samples[0].0, (height, width, channels)), (path, own))?;
    }
    let pixels = joined(raws.into_iter().map(|raw| raw.pixels).collect());
    Ok(ImageSet {
        height,
        width,
        channels,
        pixels,
        labels: samples.iter().map(|(_, label)| *label).collect(),
    })
}

/// Refuses images of other sizes or channels (height, width, channels) than the first, unless the
/// options make them alike.
pub(crate) fn check_alike(
    options: &ImageOptions,
    (first, (height, width, channels)): (&Path, (usize, usize, usize)),
    (other, own): (&Path, (usize, usize, usize)),
) -> Result<(), DataError> {
    let (first, other) = (first.to_owned(), other.to_owned());
    if options.channels.is_none() && own.2 != channels {
        let first_is_gray = channels == Channels::Gray.count();
        let (gray, colour) = if first_is_gray { (first, other) } else { (other, first) };
        return Err(DataError::MixedChannels { gray, colour });
    }
    let (first_size, other_size) = ((height, width), (own.0, own.1));
    if options.resize.is_none() && first_size != other_size {
        return Err(DataError::MixedSizes { first, first_size, other, other_size });
    }
    Ok(())
}

/// `f` of every item, in order, on all processors. The error, if any, is that of the first item
/// that has one, with the paths of the others.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    path_of: impl Fn(&T) -> &Path,
    f: impl Fn(&T) -> Result<R, DataError> + Sync,
) -> Result<Vec<R>, DataError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunk = items.len().div_ceil(threads).max(1);
    let results: Vec<Result<R, DataError>> = std::thread::scope(|scope| {
        let handles: Vec<_> =
            items.chunks(chunk).map(|part| scope.spawn(|| part.iter().map(&f).collect::<Vec<_>>())).collect();
        handles
            .into_iter()
            .flat_map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Vec::with_capacity(items.len());
    let (mut first, mut others) = (None, Vec::new());
    for (item, result) in items.iter().zip(results) {
        match result {
            Ok(value) => all.push(value),
            Err(_) if first.is_some() => others.push(path_of(item).to_owned()),
            Err(error) => first = Some(error),
        }
    }
    match first {
        None => Ok(all),
        Some(error) if others.is_empty() => Err(error),
        Some(error) => Err(DataError::several(error, others)),
    }
}
