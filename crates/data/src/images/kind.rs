//! What a file is by its first bytes, whatever its name says.

use std::path::Path;

/// Bytes that [`Kind::of`] looks at.
pub(crate) const LOOKED_AT: usize = 256;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Png,
    Jpeg,
    /// PBM, PGM or PPM.
    Pnm,
    /// A picture in a format that is not read, by its name.
    Other(&'static str),
    /// No picture, as far as its first bytes say.
    NoPicture,
}

/// Endings of names that promise a picture: with other content such a file is a damaged picture,
/// not one of other files.
const ENDINGS: [&str; 23] = [
    "apng", "avif", "bmp", "dib", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg", "jpg", "jxl", "mpo",
    "pbm", "pgm", "png", "pnm", "ppm", "qoi", "tif", "tiff", "webp",
];

/// Whether a file's name ends like that of a picture.
pub(crate) fn is_named_as_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ENDINGS.contains(&ending.as_str())
}

impl Kind {
    /// By the first [`LOOKED_AT`] bytes, or all if there are fewer.
    pub(crate) fn of(bytes: &[u8]) -> Kind {
        match bytes {
            [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Kind::Png,
            [0xFF, 0xD8, 0xFF, 0xF7, ..] => Kind::Other("JPEG-LS"),
            [0xFF, 0xD8, 0xFF, ..] => Kind::Jpeg,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Kind::Other("GIF"),
            // The size of the second header follows that of the file, two spare numbers and an
            // offset.
            [
                b'B',
                b'M',
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                12 | 40 | 52 | 56 | 64 | 108 | 124,
                0,
                0,
                0,
                ..,
            ] => Kind::Other("BMP"),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Kind::Other("WebP"),
            [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Kind::Other("TIFF"),
            [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => iso_brand(brand),
            [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Kind::Other("JPEG XL"),
            [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => {
                Kind::Other("JPEG 2000")
            }
            [b'P', number, b' ' | b'\t' | b'\n' | b'\r', next, ..]
                if next.is_ascii_digit() || matches!(next, b'#' | b'W' | b'\n') =>
            {
                match number {
                    b'1'..=b'6' => Kind::Pnm,
                    b'7' => Kind::Other("PAM"),
                    b'F' | b'f' => Kind::Other("PFM"),
                    _ => Kind::NoPicture,
                }
            }
            [b'q', b'o', b'i', b'f', ..] => Kind::Other("QOI"),
            [0, 0, 1, 0, 1..=64, 0, ..] => Kind::Other("ICO"),
            [b'8', b'B', b'P', b'S', 0, 1 | 2, ..] => Kind::Other("Photoshop"),
            [0x76, 0x2F, 0x31, 0x01, ..] => Kind::Other("OpenEXR"),
            [b'#', b'?', b'R', b'A', b'D', b'I', b'A', b'N', b'C', b'E', ..] => Kind::Other("Radiance"),
            [b'i', b'c', b'n', b's', ..] => Kind::Other("ICNS"),
            [b'%', b'!', b'P', b'S', ..] | [0xC5, 0xD0, 0xD3, 0xC6, ..] => Kind::Other("PostScript"),
            // Version, coding and bits of a pixel.
            [10, 0 | 2 | 3 | 4 | 5, 1, 1 | 2 | 4 | 8, ..] => Kind::Other("PCX"),
            [0x01, 0xDA, 0 | 1, 1 | 2, 0, 1..=3, ..] => Kind::Other("SGI"),
            [b'F', b'U', b'J', b'I', b'F', b'I', b'L', b'M', b'C', b'C', b'D', ..] => {
                Kind::Other("Fujifilm raw")
            }
            [b'I', b'I', b'U', 0, ..] => Kind::Other("Panasonic raw"),
            [b'I', b'I', b'R', b'O' | b'S', ..] => Kind::Other("Olympus raw"),
            _ if matches!(bytes, [92, 1, 0, 0, ..] | [0, 0, 1, 92, ..]) => Kind::Other("NIfTI"),
            [b'D', b'D', b'S', b' ', 124, 0, 0, 0, ..] => Kind::Other("DDS"),
            [b'S', b'I', b'M', b'P', b'L', b'E', b' ', b' ', b'=', ..] => Kind::Other("FITS"),
            _ if bytes.get(128..132) == Some(b"DICM") => Kind::Other("DICOM"),
            _ if is_svg(bytes) => Kind::Other("SVG"),
            _ => Kind::NoPicture,
        }
    }
}

/// Of an ISO base media file (ISO/IEC 14496-12): still pictures, films and others share the
/// container.
fn iso_brand(brand: &[u8]) -> Kind {
    match brand.get(..4) {
        Some(b"avif" | b"avis") => Kind::Other("AVIF"),
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
            Kind::Other("HEIF")
        }
        Some(b"crx ") => Kind::Other("Canon raw"),
        _ => Kind::NoPicture,
    }
}

fn is_svg(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let xml =
        start.starts_with(b"<?xml") || start.starts_with(b"<!--") || start.starts_with(b"<!DOCTYPE svg");
    start.starts_with(b"<svg") || xml && bytes.windows(4).any(|four| four == b"<svg")
}

/// What bytes without a picture look like, for the message about a file that is named as one.
pub(crate) fn looks_like(bytes: &[u8]) -> &'static str {
    let start = bytes[..bytes.len().min(LOOKED_AT)].trim_ascii_start();
    let begins =
        |word: &str| start.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word.as_bytes()));
    if begins("<!doctype html") || begins("<html") || begins("<head") {
        "it holds a web page (HTML), as downloads that failed do"
    } else if begins("version https://git-lfs") {
        "it is a pointer of Git LFS: fetch the file with `git lfs pull`"
    } else if begins("{") || begins("<?xml") {
        "it holds JSON or XML"
    } else if bytes.starts_with(&[0, 5, 22, 7]) {
        "it is a resource fork that macOS keeps beside a file"
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x1F, 0x8B]) {
        "it is an archive"
    } else if bytes.iter().take(LOOKED_AT).all(|&byte| byte == 0) {
        "it begins with zeros, as files do whose copying was cut off"
    } else {
        "neither PNG, JPEG nor PNM by its first bytes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        for (bytes, kind) in [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), Kind::Png),
            (b"\xFF\xD8\xFF\xE1\0\0Exif", Kind::Jpeg),
            (b"\xFF\xD8\xFF\xDB", Kind::Jpeg),
            (b"GIF89a\x01\0", Kind::Other("GIF")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Kind::Other("WebP")),
            (b"MM\0*\0\0\0\x08", Kind::Other("TIFF")),
            (b"II+\0\x08\0\0\0", Kind::Other("TIFF")),
            (b"\0\0\0\x18ftypheic\0\0\0\0", Kind::Other("HEIF")),
            (b"\0\0\0\x1cftypavif\0\0\0\0", Kind::Other("AVIF")),
            (b"\0\0\0\x0cJXL \r\n\x87\n", Kind::Other("JPEG XL")),
            (b"P5\n# made by hand\n", Kind::Pnm),
            (b"P3 2 2 255 ", Kind::Pnm),
            (b"P7\nWIDTH 2", Kind::Other("PAM")),
            (b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", Kind::Other("BMP")),
            (b"\0\0\x01\0\x01\0", Kind::Other("ICO")),
            (b"<?xml version='1.0'?>\n<svg xmlns=''>", Kind::Other("SVG")),
            (b"icns\0\0\x01\0", Kind::Other("ICNS")),
            (b"%!PS-Adobe-3.0 EPSF-3.0", Kind::Other("PostScript")),
            (b"\x0a\x05\x01\x08\0\0\0\0", Kind::Other("PCX")),
            (b"\x01\xDA\x01\x01\0\x03\0\x10", Kind::Other("SGI")),
            (b"FUJIFILMCCD-RAW ", Kind::Other("Fujifilm raw")),
            (b"\\\x01\0\0", Kind::Other("NIfTI")),
            // Words, tables, films and sounds.
            (b"BMW,Audi\n1,2\n and more text", Kind::NoPicture),
            (b"P1,P2\n", Kind::NoPicture),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", Kind::NoPicture),
            (b"RIFF\x10\0\0\0WAVEfmt ", Kind::NoPicture),
            (b"<?xml version='1.0'?><annotation>", Kind::NoPicture),
            (b"", Kind::NoPicture),
        ] {
            assert_eq!(Kind::of(bytes), kind, "{}", bytes.escape_ascii());
        }
        let dicom = [[0u8; 128].as_slice(), b"DICM"].concat();
        assert_eq!(Kind::of(&dicom), Kind::Other("DICOM"));
    }

    #[test]
    fn what_is_no_picture_is_described() {
        for (bytes, word) in [
            (b"\n<!DOCTYPE HTML><html>".as_slice(), "web page"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (&[0; 40], "zeros"),
            (b"PK\x03\x04", "archive"),
            (b"{\"error\": 404}", "JSON"),
            (b"hello", "neither PNG"),
        ] {
            assert!(looks_like(bytes).contains(word), "{}", bytes.escape_ascii());
        }
    }
}
