//! IDX files, the format of MNIST: two zero bytes, an element type, a rank, sizes as big-endian
//! 32-bit integers, elements.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::ImageSet;
use crate::error::DataError;
use crate::files;

/// An array of unsigned bytes.
pub(crate) struct Idx<'a> {
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Cow<'a, [u8]>,
}

fn bad(path: &Path, reason: String) -> DataError {
    DataError::unusable(path, format!("not a usable IDX file: {reason}"))
}

/// Unpacks gzip, recognised by its first two bytes; other bytes pass through.
pub(crate) fn unpack<'a>(bytes: &'a [u8], path: &Path) -> Result<Cow<'a, [u8]>, DataError> {
    if !bytes.starts_with(&[0x1F, 0x8B]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut unpacked).map_err(|e| {
        let (packed, found) = (bytes.len(), unpacked.len());
        bad(path, format!("gzip data of {packed} bytes end early or are damaged after {found} bytes: {e}"))
    })?;
    Ok(Cow::Owned(unpacked))
}

/// Parses the contents of a file, gzipped or not.
pub(crate) fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<Idx<'a>, DataError> {
    let content = unpack(bytes, path)?;
    let found = content.len() as u64;
    let short = |expected| DataError::IdxLength { path: path.to_owned(), expected, found };
    let head = content.get(..4).ok_or_else(|| short(4))?;
    if head[..2] != [0, 0] {
        return Err(bad(path, format!("it starts with bytes {head:02x?}, expected 00 00")));
    }
    if head[2] != 0x08 {
        let found = head[2];
        let reason = format!("its element type is 0x{found:02x}; only unsigned bytes (0x08) are read");
        return Err(bad(path, reason));
    }
    let rank = usize::from(head[3]);
    if !(1..=4).contains(&rank) {
        return Err(bad(path, format!("its rank is {rank}, expected 1 (labels), 3 or 4 (images)")));
    }
    let header = 4 + 4 * rank;
    let sizes = content.get(4..header).ok_or_else(|| short(header as u64))?;
    let shape: Vec<usize> =
        sizes.chunks_exact(4).map(|s| u32::from_be_bytes([s[0], s[1], s[2], s[3]]) as usize).collect();
    let count = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let expected = count
        .and_then(|n| n.checked_add(header as u64))
        .ok_or_else(|| bad(path, format!("its shape is {shape:?}")))?;
    if expected != found {
        return Err(short(expected));
    }
    let elements = match content {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[header..]),
        Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(header)),
    };
    Ok(Idx { shape, elements })
}

/// The contents of a file of images and a file of labels, with the names to blame.
pub(crate) struct Pair<'a> {
    pub(crate) images: (&'a [u8], &'a Path),
    pub(crate) labels: (&'a [u8], &'a Path),
}

impl Pair<'_> {
    /// Images of rank 3 are gray; rank 4 has 1 or 3 channels last.
    pub(crate) fn parse(&self) -> Result<ImageSet, DataError> {
        let images = parse(self.images.0, self.images.1)?;
        let labels = parse(self.labels.0, self.labels.1)?;
        let (count, height, width, channels) = match images.shape[..] {
            [n, h, w] => (n, h, w, 1),
            [n, h, w, c @ (1 | 3)] => (n, h, w, c),
            _ => {
                let shape = &images.shape;
                let reason = format!(
                    "its shape is {shape:?}, expected [N, height, width] or [N, height, width, 1 or 3]"
                );
                return Err(bad(self.images.1, reason));
            }
        };
        let [labelled] = labels.shape[..] else {
            return Err(bad(self.labels.1, format!("its shape is {:?}, expected [N] labels", labels.shape)));
        };
        if count != labelled {
            return Err(DataError::CountMismatch {
                image_path: self.images.1.to_owned(),
                images: count,
                label_path: self.labels.1.to_owned(),
                labels: labelled,
            });
        }
        if count == 0 || height == 0 || width == 0 {
            return Err(DataError::Empty { what: self.images.1.display().to_string(), unit: "image" });
        }
        let labels = labels.elements.iter().map(|&label| u32::from(label)).collect();
        Ok(ImageSet { height, width, channels, pixels: images.elements.into_owned(), labels })
    }
}

/// Reads a pair of files.
pub(crate) fn read(images: &Path, labels: &Path) -> Result<ImageSet, DataError> {
    let (image_bytes, label_bytes) = (files::read(images)?, files::read(labels)?);
    Pair { images: (&image_bytes, images), labels: (&label_bytes, labels) }.parse()
}

/// Every label must name a class.
pub(crate) fn check_labels(set: &ImageSet, classes: usize, path: &Path) -> Result<(), DataError> {
    let Some(index) = set.labels.iter().position(|&label| label as usize >= classes) else { return Ok(()) };
    let (label, last) = (set.labels[index], classes - 1);
    let problem = format!("class index {label}, but there are {classes} classes (indices 0 to {last})");
    Err(DataError::unusable(path, format!("sample {index} has {problem}")))
}

/// One file of a folder under any of the names it may have: `train-images-idx3-ubyte`,
/// `train-images.idx3-ubyte`, with `.gz`.
pub(crate) fn find(folder: &Path, part: &str, content: &str) -> Option<PathBuf> {
    // Rank 4 (colour) is not in MNIST's names but follows from them.
    let ranks: &[u32] = if content == "images" { &[3, 4] } else { &[1] };
    let names =
        ranks.iter().flat_map(|rank| ["-", "."].map(|dot| format!("{part}-{content}{dot}idx{rank}-ubyte")));
    names.flat_map(|name| [folder.join(&name), folder.join(name + ".gz")]).find(|path| path.is_file())
}

/// As [`find`], where the file is needed.
pub(crate) fn require(folder: &Path, part: &str) -> Result<(PathBuf, PathBuf), DataError> {
    let file = |content: &str, rank: u32| {
        let name = format!("{part}-{content}-idx{rank}-ubyte.gz");
        find(folder, part, content).ok_or_else(|| files::missing(&folder.join(name), "file"))
    };
    Ok((file("images", 3)?, file("labels", 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx(kind: u8, shape: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, shape.len() as u8];
        shape.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
        bytes.extend(elements);
        bytes
    }

    #[test]
    fn every_truncation_is_noticed_with_byte_counts() {
        let whole = idx(8, &[2, 2, 3], &[9; 12]);
        for keep in 0..whole.len() {
            match parse(&whole[..keep], Path::new("t")).err() {
                Some(DataError::IdxLength { expected, found, .. }) => {
                    assert!(found == keep as u64 && expected > found && expected <= 28, "{expected} {found}");
                }
                other => panic!("{keep}: {other:?}"),
            }
        }
        let error = parse(&whole[..20], Path::new("train.idx")).err().unwrap().to_string();
        assert_eq!(
            error,
            "train.idx: truncated IDX file: its header promises 28 bytes, it has 20; fetch the file again"
        );
        assert_eq!(parse(&whole, Path::new("t")).unwrap().shape, [2, 2, 3]);
    }

    #[test]
    fn trailing_bytes_other_types_and_huge_shapes_are_refused() {
        let text = |bytes: &[u8]| parse(bytes, Path::new("t")).err().unwrap().to_string();
        assert!(text(&idx(8, &[1], &[1, 2])).contains("over-long"));
        assert!(text(&idx(0x0D, &[1], &[0; 4])).contains("0x0d"));
        assert!(text(&idx(8, &[u32::MAX, u32::MAX, u32::MAX], &[])).contains("shape"));
        assert!(text(b"\x89PNG").contains("expected 00 00"));
    }

    #[test]
    fn pairs_must_match() {
        let images = idx(8, &[2, 1, 1], &[1, 2]);
        let labels = idx(8, &[3], &[0, 1, 0]);
        let pair =
            |labels| Pair { images: (&images, Path::new("i")), labels: (labels, Path::new("l")) }.parse();
        assert!(matches!(pair(&labels), Err(DataError::CountMismatch { images: 2, labels: 3, .. })));
        let set = pair(&idx(8, &[2], &[0, 7])).unwrap();
        assert_eq!(
            (set.pixels.as_slice(), set.labels.as_slice()),
            ([1u8, 2].as_slice(), [0u32, 7].as_slice())
        );
        let error = check_labels(&set, 7, Path::new("l")).unwrap_err().to_string();
        assert_eq!(error, "l: sample 1 has class index 7, but there are 7 classes (indices 0 to 6)");
        let (none, no_labels) = (idx(8, &[0, 28, 28], &[]), idx(8, &[0], &[]));
        let empty = Pair { images: (&none, Path::new("i")), labels: (&no_labels, Path::new("l")) }.parse();
        assert!(matches!(empty, Err(DataError::Empty { .. })));
    }
}
