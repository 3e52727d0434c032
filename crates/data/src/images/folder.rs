//! A folder of images with one folder per class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ImageSet;
use super::decode;
use super::pixels::Raw;
use crate::error::DataError;
use crate::files;
use crate::spec::{Channels, ImageOptions};

/// Endings of image formats that are not read: leaving such files out silently would change the
/// data.
const OTHER_FORMATS: [&str; 10] = ["avif", "bmp", "gif", "heic", "heif", "jp2", "qoi", "tif", "tiff", "webp"];

/// The image files of each class, in the order of names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) classes: BTreeMap<String, Vec<PathBuf>>,
}

/// Looks at names only. A class folder may have folders in it; hidden files and files of other
/// kinds are passed over.
pub(crate) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut classes = BTreeMap::new();
    for path in files::entries(root)? {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut images = Vec::new();
            gather(&path, &mut images)?;
            classes.insert(name, images);
        }
    }
    Ok(Listing { classes })
}

fn gather(folder: &Path, images: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for path in files::entries(folder)? {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            gather(&path, images)?;
        } else if matches!(extension.as_str(), "png" | "jpg" | "jpeg") {
            images.push(path);
        } else if OTHER_FORMATS.contains(&extension.as_str()) {
            return Err(DataError::UnsupportedImage { path, format: extension });
        }
    }
    Ok(())
}

impl Listing {
    /// Every class must have at least `least` images.
    pub(crate) fn check(&self, root: &Path, least: usize) -> Result<(), DataError> {
        if self.classes.values().all(Vec::is_empty) {
            return Err(DataError::Empty {
                what: root.display().to_string(),
                unit: "PNG or JPEG image in a class folder",
            });
        }
        if self.classes.len() < 2 {
            return Err(DataError::TooFewClasses {
                what: root.display().to_string(),
                found: self.classes.len(),
                hint: "put the images of each class into a folder of its own",
            });
        }
        match self.classes.iter().find(|(_, images)| images.len() < least) {
            Some((class, images)) if images.is_empty() => Err(DataError::Empty {
                what: root.join(class).display().to_string(),
                unit: "PNG or JPEG image",
            }),
            Some((class, images)) => {
                Err(DataError::ClassTooSmall { class: class.clone(), count: images.len() })
            }
            None => Ok(()),
        }
    }

    /// Decodes all images; `class_of` turns a folder's name into a class index. All have one size
    /// and one kind of colour, by the options or by themselves.
    pub(crate) fn load(
        &self,
        options: &ImageOptions,
        class_of: impl Fn(&str) -> Result<u32, DataError>,
    ) -> Result<ImageSet, DataError> {
        let mut samples = Vec::new();
        for (class, images) in &self.classes {
            if !images.is_empty() {
                let label = class_of(class)?;
                samples.extend(images.iter().map(|path| (path.as_path(), label)));
            }
        }
        let raws = in_parallel(&samples, |(path, _)| {
            let mut raw = decode::decode(&files::read(path)?, path)?;
            if let Some(channels) = options.channels {
                raw = raw.with_channels(channels.count());
            }
            // At once, so that the originals are never all in memory.
            Ok(match options.resize {
                Some((height, width)) => raw.resized(height, width),
                None => raw,
            })
        })?;
        join(&samples, raws, options)
    }
}

fn join(samples: &[(&Path, u32)], raws: Vec<Raw>, options: &ImageOptions) -> Result<ImageSet, DataError> {
    let Some(first) = raws.first() else {
        return Err(DataError::Empty { what: "image folder".to_owned(), unit: "image" });
    };
    let (height, width, channels) = (first.height, first.width, first.channels);
    let mut pixels = Vec::with_capacity(raws.len() * height * width * channels);
    for (raw, (path, _)) in raws.iter().zip(samples) {
        let own = (raw.height, raw.width, raw.channels);
        check_alike(options, (samples[0].0, (height, width, channels)), (path, own))?;
        pixels.extend_from_slice(&raw.pixels);
    }
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
/// that has one.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    f: impl Fn(&T) -> Result<R, DataError> + Sync,
) -> Result<Vec<R>, DataError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunk = items.len().div_ceil(threads).max(1);
    let parts: Vec<Result<Vec<R>, DataError>> = std::thread::scope(|scope| {
        let handles: Vec<_> =
            items.chunks(chunk).map(|part| scope.spawn(|| part.iter().map(&f).collect())).collect();
        handles
            .into_iter()
            .map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Vec::with_capacity(items.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}
