//! The data that come with the program: inside it, so that nothing is fetched and no path matters.
//! Their cards are in `data/`.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::files;
use crate::images::idx::{self, Pair};
use crate::images::{ImageSet, Pixels};
use crate::spec::CsvFormat;
use crate::table::read::{self, Cells};

/// A file of `data/` with the checksum on its card.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
    pub(crate) sha256: &'static str,
}

macro_rules! file {
    ($name:literal, $sha256:literal) => {
        File { name: $name, bytes: include_bytes!(concat!("../../../data/", $name)), sha256: $sha256 }
    };
}

const FASHION: [File; 4] = [
    file!(
        "fashion-mnist-10k/train-images-idx3-ubyte.gz",
        "fb5d76be9a26fa809a3b13c18f7191e33c2115c6e377baf29656711358a51b1d"
    ),
    file!(
        "fashion-mnist-10k/train-labels-idx1-ubyte.gz",
        "4cc57b2814542612de157ac954fec39e17b40ac7cc646602198dc0f4c7c97fc9"
    ),
    file!(
        "fashion-mnist-10k/t10k-images-idx3-ubyte.gz",
        "f63b5f3a005caedab708d16a900babd905c8331b1cd2188b91245c032cfe6acd"
    ),
    file!(
        "fashion-mnist-10k/t10k-labels-idx1-ubyte.gz",
        "09f5dc909c8586184bae0fbde44202a1b007bf6f2bd2bc952652fa22dc323f95"
    ),
];
const SHAKESPEARE: [File; 2] = [
    file!("shakespeare/train.txt.gz", "64bb03e9273c02d283afa3471a95dda395f9108f50ad509143e8e5565dccb00e"),
    file!("shakespeare/test.txt.gz", "1b00c60bd7ac9b509985c402ae52500ce7c0e7cc692ab9aa9f16281c8c5f717c"),
];
const DIGITS: File =
    file!("digits/digits.csv.gz", "02633070f0eba52475fb2cfaedcf256826aa2b6c462429e2e6d0826619fc55c9");

const ADULT: [File; 2] = [
    file!("adult/train.csv.gz", "d86ae5bac7e8455cec5fdea286ff69854f9d9d303b583837fc08217c324fd7d5"),
    file!("adult/test.csv.gz", "41e34d1a1d42fd23075aa976f82b63326a1d4668e9871b84cb5eee856a5c78d6"),
];
/// The column of the class.
pub(crate) const ADULT_TARGET: &str = "income";

const FASHION_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

impl File {
    /// The unpacked content, once the checksum holds.
    fn content(&self) -> Result<Vec<u8>, DataError> {
        let found = hex(&Sha256::digest(self.bytes));
        if found != self.sha256 {
            return Err(DataError::Checksum { name: self.name, expected: self.sha256, found });
        }
        idx::unpack(self.bytes, Path::new(self.name), u64::MAX).map(std::borrow::Cow::into_owned)
    }

    fn text(&self) -> Result<String, DataError> {
        files::utf8(self.content()?, Path::new(self.name))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Train and test images, and the names of the classes.
pub(crate) fn fashion_mnist() -> Result<(ImageSet, ImageSet, Vec<String>), DataError> {
    let [train_images, train_labels, test_images, test_labels] = &FASHION;
    let pair = |images: &File, labels: &File| {
        let (image_bytes, label_bytes) = (images.content()?, labels.content()?);
        let (image_name, label_name) = (Path::new(images.name), Path::new(labels.name));
        Pair { images: (&image_bytes, image_name), labels: (&label_bytes, label_name) }.parse()
    };
    let classes = FASHION_CLASSES.map(str::to_owned).to_vec();
    Ok((pair(train_images, train_labels)?, pair(test_images, test_labels)?, classes))
}

/// Train and test text.
pub(crate) fn shakespeare() -> Result<(String, String), DataError> {
    let [train, test] = &SHAKESPEARE;
    Ok((train.text()?, test.text()?))
}

/// Train and test rows.
pub(crate) fn adult() -> Result<(Cells, Cells), DataError> {
    let cells = |file: &File| read::parse(&file.text()?, Path::new(file.name), &CsvFormat::default());
    let [train, test] = &ADULT;
    Ok((cells(train)?, cells(test)?))
}

/// Values 0..=16 are scaled to 0..=255, so that 8x8 images from elsewhere can be compared and
/// predicted.
pub(crate) fn digits() -> Result<(ImageSet, Vec<String>), DataError> {
    let reason = "not valid CSV: not 64 values and a class per line";
    let damaged = || DataError::unusable(Path::new(DIGITS.name), reason);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in DIGITS.text()?.lines() {
        let values: Vec<u32> =
            line.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| damaged())?;
        match values.split_last() {
            Some((&label, image)) if image.len() == 64 && label < 10 && image.iter().all(|&v| v <= 16) => {
                pixels.extend(image.iter().map(|&v| ((v * 255 + 8) / 16) as u8));
                labels.push(label);
            }
            _ => return Err(damaged()),
        }
    }
    let set = ImageSet { height: 8, width: 8, channels: 1, pixels: Pixels::Bits8(pixels), labels };
    Ok((set, (0..10).map(|digit| digit.to_string()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(labels: &[u32]) -> Vec<usize> {
        (0..10).map(|class| labels.iter().filter(|&&l| l == class).count()).collect()
    }

    #[test]
    fn the_cards_state_the_checksums_and_sizes_in_use() {
        for file in FASHION.iter().chain(&SHAKESPEARE).chain([&DIGITS]).chain(&ADULT) {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(file.name);
            let card = std::fs::read_to_string(folder.with_file_name("CARD.md")).unwrap();
            let name = folder.file_name().unwrap().to_str().unwrap();
            let row = card.lines().find(|line| line.contains(name) && line.contains(file.sha256));
            let row = row.unwrap_or_else(|| panic!("{}: no row with its checksum on its card", file.name));
            let size = file.bytes.len().to_string();
            assert!(row.replace(',', "").contains(&size), "{}: {size} bytes; the card says {row}", file.name);
        }
    }

    #[test]
    fn fashion_mnist_is_balanced() {
        let (train, test, classes) = fashion_mnist().unwrap();
        assert_eq!((train.height, train.width, train.channels, classes.len()), (28, 28, 1, 10));
        assert_eq!(counts(&train.labels), [1000; 10]);
        assert_eq!(counts(&test.labels), [200; 10]);
        // The first train image of the full set is an ankle boot and must be the first here.
        assert_eq!((train.labels[0], test.labels[0]), (9, 9));
    }

    #[test]
    fn digits_have_the_published_class_sizes() {
        let (set, _) = digits().unwrap();
        assert_eq!(set.labels.len(), 1797);
        assert_eq!(counts(&set.labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let pixels = set.pixels.bytes();
        assert_eq!((pixels.iter().min(), pixels.iter().max()), (Some(&0), Some(&255)));
    }

    #[test]
    fn shakespeare_is_plain_ascii_by_play() {
        let (train, test) = shakespeare().unwrap();
        assert_eq!((train.len(), test.len()), (936_707, 98_440));
        assert!(train.is_ascii() && test.is_ascii());
        assert!(train.starts_with("HAMLET, PRINCE OF DENMARK") && test.starts_with("THE TEMPEST"));
        assert!(!train.contains("Prospero") && !train.to_lowercase().contains("copyright"));
    }

    #[test]
    fn adult_has_the_rows_of_its_card() {
        let (train, test) = adult().unwrap();
        assert_eq!((train.rows.len(), test.rows.len(), train.header.len()), (32_561, 16_281, 15));
        let sex = train.column("sex").unwrap();
        assert_eq!(train.rows.iter().filter(|r| r.cells[sex] == "Female").count(), 10_771);
        assert!(
            train.rows.iter().chain(&test.rows).all(|r| ["<=50K", ">50K"].contains(&r.cells[14].as_str()))
        );
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let file = File { bytes: &DIGITS.bytes[..1000], ..DIGITS };
        let error = file.content().unwrap_err().to_string();
        assert!(error.starts_with("bundled data `digits/digits.csv.gz` is damaged"), "{error}");
    }
}
