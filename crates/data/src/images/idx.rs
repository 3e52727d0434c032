//! IDX files, the format of MNIST: two zero bytes, an element type, a rank, sizes as big-endian
//! 32-bit integers, elements.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::ImageSet;
use super::pixels::Pixels;
use crate::error::DataError;
use crate::files;

/// Most bytes of elements in a file: the largest published set of this form (EMNIST, by class) has
/// half as many.
const MOST: u64 = 1 << 30;
/// Most bytes that are unpacked of a gzip file whose bytes are almost all alike.
const MOST_EMPTY: u64 = 1 << 26;
/// Most classes: each gets an output.
const MOST_CLASSES: u32 = 1 << 16;

/// The type of an element; all but bytes are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Element {
    const CODES: [(u8, Element, &'static str); 6] = [
        (0x08, Element::U8, "unsigned bytes"),
        (0x09, Element::I8, "signed bytes"),
        (0x0B, Element::I16, "16-bit integers"),
        (0x0C, Element::I32, "32-bit integers"),
        (0x0D, Element::F32, "32-bit floats"),
        (0x0E, Element::F64, "64-bit floats"),
    ];

    fn size(self) -> u64 {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::I16 => 2,
            Element::I32 | Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    fn name(self) -> &'static str {
        Self::CODES.iter().find(|(_, element, _)| *element == self).map_or("", |(.., name)| name)
    }

    /// One element of [`size`](Self::size) bytes; exact.
    fn number(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Element::U8, &[a]) => a.into(),
            (Element::I8, &[a]) => (a as i8).into(),
            (Element::I16, &[a, b]) => i16::from_be_bytes([a, b]).into(),
            (Element::I32, &[a, b, c, d]) => i32::from_be_bytes([a, b, c, d]).into(),
            (Element::F32, &[a, b, c, d]) => f32::from_be_bytes([a, b, c, d]).into(),
            (Element::F64, &[a, b, c, d, e, f, g, h]) => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => f64::NAN,
        }
    }
}

/// An array.
pub(crate) struct Idx<'a> {
    pub(crate) shape: Vec<usize>,
    element: Element,
    bytes: Cow<'a, [u8]>,
}

impl Idx<'_> {
    fn numbers(&self) -> impl Iterator<Item = f64> {
        self.bytes.chunks_exact(self.element.size() as usize).map(|bytes| self.element.number(bytes))
    }
}

fn bad(path: &Path, reason: String) -> DataError {
    DataError::unusable(path, format!("not a usable IDX file: {reason}"))
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1F, 0x8B])
}

/// Unpacks gzip, recognised by its first two bytes, up to `most` bytes; other bytes pass through.
pub(crate) fn unpack<'a>(bytes: &'a [u8], path: &Path, most: u64) -> Result<Cow<'a, [u8]>, DataError> {
    if !is_gzip(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut unpacked = Vec::with_capacity(most.min(16 * bytes.len() as u64) as usize);
    MultiGzDecoder::new(bytes).take(most).read_to_end(&mut unpacked).map_err(|e| {
        let (packed, found) = (bytes.len(), unpacked.len());
        bad(path, format!("gzip data of {packed} bytes end early or are damaged after {found} bytes: {e}"))
    })?;
    Ok(Cow::Owned(unpacked))
}

/// What the first bytes promise.
struct Header {
    shape: Vec<usize>,
    element: Element,
    length: usize,
    /// Bytes of the whole file.
    expected: u64,
}

/// Bytes of the longest header, that of rank 4.
const HEADER: u64 = 20;

/// `start` has the first [`HEADER`] bytes of a file, or all if there are fewer.
fn header(start: &[u8], path: &Path) -> Result<Header, DataError> {
    let short =
        |expected| DataError::IdxLength { path: path.to_owned(), expected, found: start.len() as u64 };
    let head = start.get(..4).ok_or_else(|| short(4))?;
    if head[..2] != [0, 0] {
        return Err(bad(path, format!("it starts with bytes {head:02x?}, expected 00 00")));
    }
    let Some(&(_, element, _)) = Element::CODES.iter().find(|(code, ..)| *code == head[2]) else {
        return Err(bad(
            path,
            format!("its element type is 0x{:02x}, which the format does not have", head[2]),
        ));
    };
    let rank = usize::from(head[3]);
    if !(1..=4).contains(&rank) {
        return Err(bad(path, format!("its rank is {rank}, expected 1 (labels), 3 or 4 (images)")));
    }
    let length = 4 + 4 * rank;
    let sizes = start.get(4..length).ok_or_else(|| short(length as u64))?;
    let shape: Vec<usize> =
        sizes.chunks_exact(4).map(|s| u32::from_be_bytes([s[0], s[1], s[2], s[3]]) as usize).collect();
    let bytes = shape.iter().try_fold(element.size(), |product, &size| product.checked_mul(size as u64));
    match bytes.filter(|&bytes| bytes <= MOST) {
        Some(bytes) => Ok(Header { shape, element, length, expected: bytes + length as u64 }),
        None => {
            let name = element.name();
            Err(bad(
                path,
                format!("its shape is {shape:?} of {name}, more than the {MOST} bytes that are read"),
            ))
        }
    }
}

/// Parses the contents of a file, gzipped or not.
pub(crate) fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<Idx<'a>, DataError> {
    let start = unpack(bytes, path, HEADER)?;
    let Header { shape, element, length, expected } =
        header(&start[..start.len().min(HEADER as usize)], path)?;
    // Pictures shrink to a fifth, empty ones to a thousandth: so much of nothing is no data.
    if is_gzip(bytes) && expected > MOST_EMPTY && expected / bytes.len() as u64 > 100 {
        let packed = bytes.len();
        let reason = format!(
            "its header promises {expected} bytes, but {packed} bytes of gzip can hold so many only if \
                              almost all are alike"
        );
        return Err(bad(path, reason));
    }
    // One byte more shows a file that is too long, without unpacking all of it.
    let content = unpack(bytes, path, expected + 1)?;
    if expected != content.len() as u64 {
        let found = content.len() as u64;
        return Err(DataError::IdxLength { path: path.to_owned(), expected, found });
    }
    let bytes = match content {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[length..]),
        Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(length)),
    };
    Ok(Idx { shape, element, bytes })
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
        if images.element != Element::U8 {
            let least = images.numbers().fold(f64::INFINITY, f64::min);
            let most = images.numbers().fold(f64::NEG_INFINITY, f64::max);
            let name = images.element.name();
            return Err(bad(
                self.images.1,
                format!(
                    "its pixels are {name} from {least} to {most}, and it does not say which is white; save them as \
                     unsigned bytes from 0 (black) to 255 (white), or as PNG files of 16 bits"
                ),
            ));
        }
        let class = |(sample, number): (usize, f64)| {
            let whole = number >= 0.0 && number < f64::from(MOST_CLASSES) && number.fract() == 0.0;
            let problem = || {
                format!("label {sample} is {number}, expected a whole number from 0 to {}", MOST_CLASSES - 1)
            };
            if whole { Ok(number as u32) } else { Err(bad(self.labels.1, problem())) }
        };
        let labels = labels.numbers().enumerate().map(class).collect::<Result<_, _>>()?;
        Ok(ImageSet { height, width, channels, pixels: Pixels::Bits8(images.bytes.into_owned()), labels })
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

/// A label with less than this share of the middle class's images is remarked upon.
const RARE: f64 = 0.01;

/// Sentences about labels that look astray: numbers that are left out, and classes of few images.
pub(crate) fn remarks(labels: &[u32], classes: &[String], path: &Path) -> Vec<String> {
    let mut counts = vec![0usize; classes.len()];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut remarks = Vec::new();
    let absent: Vec<usize> = (0..counts.len()).filter(|&class| counts[class] == 0).collect();
    if !absent.is_empty() {
        let places = ranges(&absent, classes);
        remarks.push(format!(
            "{name}: {} of {} classes have no train image ({places}): labels are numbers of classes from 0 on, and \
             the model gets an output for each.",
            absent.len(),
            classes.len()
        ));
    }
    let mut sizes: Vec<usize> = counts.iter().copied().filter(|&n| n > 0).collect();
    sizes.sort_unstable();
    let middle = sizes.get(sizes.len() / 2).copied().unwrap_or(0);
    let rare = (0..counts.len()).filter(|&c| counts[c] > 0 && (counts[c] as f64) < RARE * middle as f64);
    remarks.extend(rare.take(10).map(|class| {
        let first = labels.iter().position(|&label| label as usize == class).unwrap_or(0);
        format!(
            "{name}: only {} of {} labels are {} (the first is that of image {first}, counted from 0), while half of \
             the classes have {middle} or more: a mistake, or a mark for images without a class? To leave them out, \
             write `ignore_labels = [{class}]`.",
            counts[class],
            labels.len(),
            classes[class]
        )
    }));
    remarks
}

/// Names of classes, runs of neighbours as "first to last".
fn ranges(chosen: &[usize], classes: &[String]) -> String {
    let runs = chosen.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [one] => classes[*one].clone(),
        run => format!("{} to {}", classes[run[0]], classes[run[run.len() - 1]]),
    };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

/// One file of a folder under any of the names it may have: `train-images-idx3-ubyte`,
/// `train-images.idx3-ubyte`, with `.gz`; else the only one that has these words in its name, as
/// `emnist-letters-train-images-idx3-ubyte` has.
pub(crate) fn find(folder: &Path, part: &str, content: &str) -> Option<PathBuf> {
    // Rank 4 (colour) is not in MNIST's names but follows from them.
    let ranks: &[u32] = if content == "images" { &[3, 4] } else { &[1] };
    let names =
        ranks.iter().flat_map(|rank| ["-", "."].map(|dot| format!("{part}-{content}{dot}idx{rank}-ubyte")));
    let mut exact = names.flat_map(|name| [folder.join(&name), folder.join(name + ".gz")]);
    exact.find(|path| path.is_file()).or_else(|| {
        let parts: &[&str] = if part == "t10k" { &["t10k", "test"] } else { &["train"] };
        let mut found = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            let is_part = parts.iter().any(|part| name.contains(part));
            is_part && name.contains(content) && name.contains("idx") && path.is_file()
        });
        found.next().filter(|_| found.next().is_none())
    })
}

/// As [`find`], where the file is needed.
pub(crate) fn require(folder: &Path, part: &str) -> Result<(PathBuf, PathBuf), DataError> {
    let file = |content: &str, rank: u32| {
        let name = format!("{part}-{content}-idx{rank}-ubyte.gz");
        find(folder, part, content).ok_or_else(|| files::missing(&folder.join(name), "file"))
    };
    Ok((file("images", 3)?, file("labels", 1)?))
}

/// Whether the first bytes are those of an IDX file of a rank that is read.
pub(crate) fn is_idx(start: &[u8]) -> bool {
    matches!(start, [0, 0, code, 1..=4, ..] if Element::CODES.iter().any(|(known, ..)| known == code))
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
        assert!(text(&idx(0x0A, &[1], &[0; 4])).contains("0x0a"));
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
        assert_eq!((&set.pixels, set.labels.as_slice()), (&Pixels::Bits8(vec![1, 2]), [0u32, 7].as_slice()));
        let error = check_labels(&set, 7, Path::new("l")).unwrap_err().to_string();
        assert_eq!(error, "l: sample 1 has class index 7, but there are 7 classes (indices 0 to 6)");
        let (none, no_labels) = (idx(8, &[0, 28, 28], &[]), idx(8, &[0], &[]));
        let empty = Pair { images: (&none, Path::new("i")), labels: (&no_labels, Path::new("l")) }.parse();
        assert!(matches!(empty, Err(DataError::Empty { .. })));
    }

    #[test]
    fn labels_of_other_types_are_read_and_pixels_of_other_types_refused() {
        let images = idx(8, &[2, 1, 1], &[1, 2]);
        let parsed = |images: &[u8], labels: &[u8]| {
            let (images, labels) = ((images, Path::new("i")), (labels, Path::new("l")));
            Pair { images, labels }.parse()
        };
        let big = |values: [i32; 2]| values.map(i32::to_be_bytes).concat();
        assert_eq!(parsed(&images, &idx(0x0C, &[2], &big([3, 300]))).unwrap().labels, [3, 300]);
        let short = [1i16, 5].map(i16::to_be_bytes).concat();
        assert_eq!(parsed(&images, &idx(0x0B, &[2], &short)).unwrap().labels, [1, 5]);
        let floats = [0f32, 9.0].map(f32::to_be_bytes).concat();
        assert_eq!(parsed(&images, &idx(0x0D, &[2], &floats)).unwrap().labels, [0, 9]);
        let error = parsed(&images, &idx(9, &[2], &[1, 0xFF])).err().unwrap().to_string();
        assert!(
            error.starts_with("l: not a usable IDX file: label 1 is -1, expected a whole number"),
            "{error}"
        );
        let labels = idx(8, &[2], &[0, 1]);
        let error = parsed(&idx(0x0B, &[2, 1, 1], &[0, 7, 0x0F, 0xFF]), &labels).err().unwrap().to_string();
        assert!(error.contains("16-bit integers from 7 to 4095"), "{error}");
    }

    #[test]
    fn a_gzip_file_is_unpacked_no_further_than_its_header_promises() {
        let packed = |content: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut packed, content).unwrap();
            packed.finish().unwrap()
        };
        let whole = packed(&idx(8, &[2], &[5, 6]));
        assert_eq!(parse(&whole, Path::new("t")).unwrap().numbers().collect::<Vec<_>>(), [5.0, 6.0]);
        let long = packed(&[idx(8, &[2], &[5, 6]), vec![0; 1 << 20]].concat());
        let error = parse(&long, Path::new("t")).err().unwrap();
        assert!(matches!(error, DataError::IdxLength { expected: 10, found: 11, .. }), "{error}");
        let error = parse(&idx(8, &[40_000, 200, 200], &[]), Path::new("t")).err().unwrap().to_string();
        assert!(error.contains("more than the 1073741824 bytes"), "{error}");
        // As many bytes as may be, in a file of a few hundred.
        let empty = packed(&idx(8, &[20_000, 200, 200], &[0; 1 << 16]));
        let error = parse(&empty, Path::new("t")).err().unwrap().to_string();
        assert!(error.contains("only if almost all are alike"), "{error}");
    }

    #[test]
    fn stray_and_absent_labels_are_named() {
        let classes = |count: usize| (0..count).map(|class| class.to_string()).collect::<Vec<_>>();
        let balanced: Vec<u32> = (0..4000).map(|i| i % 10).collect();
        assert!(remarks(&balanced, &classes(10), Path::new("l")).is_empty());
        let stray = [balanced.clone(), vec![255]].concat();
        let said = remarks(&stray, &classes(256), Path::new("x/l"));
        assert!(said[0].starts_with("l: 245 of 256 classes have no train image (10 to 254)"), "{said:?}");
        assert!(
            said[1].starts_with("l: only 1 of 4001 labels are 255 (the first is that of image 4000"),
            "{said:?}"
        );
        // As the letters of EMNIST, which begin with 1; one is missing.
        let letters: Vec<u32> = balanced.iter().map(|label| label + 1).filter(|&label| label != 5).collect();
        let said = remarks(&letters, &classes(11), Path::new("l"));
        assert!(
            matches!(&said[..], [one] if one.contains("2 of 11 classes have no train image (0, 5)")),
            "{said:?}"
        );
    }
}
