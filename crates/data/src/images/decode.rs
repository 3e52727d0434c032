//! From the bytes of a PNG or JPEG file to pixels, and from one size to another.

use std::io::Cursor;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};

use crate::error::DataError;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// `[height, width, channels]`
    pub(crate) pixels: Vec<u8>,
}

/// What the header of an image says, after turning it as EXIF asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) format: &'static str,
}

fn format_of(bytes: &[u8], path: &Path) -> Result<ImageFormat, DataError> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => Ok(format),
        Ok(other) => Err(DataError::UnsupportedImage { path: path.to_owned(), format: format!("{other:?}") }),
        Err(_) if bytes.len() < 16 => Err(DataError::TruncatedImage {
            path: path.to_owned(),
            expected: Some(16),
            found: bytes.len() as u64,
        }),
        Err(_) => Err(bad(path, bytes, "neither PNG nor JPEG by its first bytes")),
    }
}

fn bad(path: &Path, bytes: &[u8], reason: impl std::fmt::Display) -> DataError {
    DataError::BadImage { path: path.to_owned(), bytes: bytes.len() as u64, reason: reason.to_string() }
}

/// Refuses a file that ends early: some decoders fill what is missing with gray and say nothing.
fn check_complete(bytes: &[u8], format: ImageFormat, path: &Path) -> Result<(), DataError> {
    let found = bytes.len() as u64;
    let truncated = |expected| Err(DataError::TruncatedImage { path: path.to_owned(), expected, found });
    if format == ImageFormat::Jpeg {
        // Segments of known length up to the start of the scan (ITU-T T.81, annex B), then an end marker somewhere: cameras and
        // editors may add bytes after it, and a thumbnail before the scan has one of its own.
        let mut at = 2usize;
        loop {
            let Some(&[mark, code, high, low]) = bytes.get(at..at + 4) else {
                return truncated(Some(at as u64 + 4));
            };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            match (mark, code) {
                (0xFF, 0xFF) => at += 1, // fill byte
                (0xFF, _) if end > bytes.len() => return truncated(Some(end as u64)),
                (0xFF, 0xDA) => {
                    let ended = bytes[end..].windows(2).any(|pair| pair == [0xFF, 0xD9]);
                    return if ended { Ok(()) } else { truncated(None) };
                }
                (0xFF, _) => at = end,
                // Not a marker: for the decoder to judge.
                _ => return Ok(()),
            }
        }
    }
    // PNG (specification, section 5.3): signature, then chunks of length, type, data, checksum; IEND is the last.
    let mut at = 8usize;
    loop {
        let Some(head) = bytes.get(at..at + 8) else { return truncated(Some(at as u64 + 12)) };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at + 12 + length;
        if end > bytes.len() {
            return truncated(Some(end as u64));
        }
        if &head[4..] == b"IEND" {
            return Ok(());
        }
        at = end;
    }
}

fn decoder<'a>(bytes: &'a [u8], path: &Path) -> Result<(impl ImageDecoder + 'a, ImageFormat), DataError> {
    let format = format_of(bytes, path)?;
    check_complete(bytes, format, path)?;
    let decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(|e| unreadable(e, bytes, path))?;
    Ok((decoder, format))
}

fn unreadable(error: ImageError, bytes: &[u8], path: &Path) -> DataError {
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            DataError::TruncatedImage { path: path.to_owned(), expected: None, found: bytes.len() as u64 }
        }
        other => bad(path, bytes, other),
    }
}

/// Reads what the header says, without decoding.
pub(crate) fn header(bytes: &[u8], path: &Path) -> Result<Header, DataError> {
    let (mut decoder, format) = decoder(bytes, path)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().unwrap_or(Orientation::NoTransforms),
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (height, width) = if turned { (width, height) } else { (height, width) };
    Ok(Header {
        height: height as usize,
        width: width as usize,
        channels: if decoder.color_type().has_color() { 3 } else { 1 },
        format: if format == ImageFormat::Png { "PNG" } else { "JPEG" },
    })
}

/// Decodes to gray or colour, as the file is; turned as EXIF asks, transparent pixels laid on white.
pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Raw, DataError> {
    let (mut decoder, _) = decoder(bytes, path)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(e, bytes, path))?;
    picture.apply_orientation(orientation);
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let (colour, alpha) = (picture.color().has_color(), picture.color().has_alpha());
    let pixels = match (colour, alpha) {
        (false, false) => picture.into_luma8().into_raw(),
        (true, false) => picture.into_rgb8().into_raw(),
        (false, true) => on_white(&picture.into_luma_alpha8().into_raw(), 1),
        (true, true) => on_white(&picture.into_rgba8().into_raw(), 3),
    };
    Ok(Raw { height, width, channels: if colour { 3 } else { 1 }, pixels })
}

/// `value * a + white * (1 - a)`, rounded, for pixels of `channels` values and an alpha.
fn on_white(pixels: &[u8], channels: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / (channels + 1) * channels);
    for pixel in pixels.chunks_exact(channels + 1) {
        let alpha = u32::from(pixel[channels]);
        out.extend(
            pixel[..channels]
                .iter()
                .map(|&v| ((u32::from(v) * alpha + 255 * (255 - alpha) + 127) / 255) as u8),
        );
    }
    out
}

impl Raw {
    /// Gray to colour repeats the value; colour to gray takes the luminance.
    pub(crate) fn with_channels(self, channels: usize) -> Raw {
        if channels == self.channels {
            return self;
        }
        let (height, width) = (self.height, self.width);
        let pixels = match self.into_picture() {
            DynamicImage::ImageLuma8(gray) => DynamicImage::ImageLuma8(gray).into_rgb8().into_raw(),
            colour => colour.into_luma8().into_raw(),
        };
        Raw { height, width, channels, pixels }
    }

    /// Bilinear, with the filter widened by the factor when shrinking (so nothing aliases).
    pub(crate) fn resized(self, height: usize, width: usize) -> Raw {
        if (height, width) == (self.height, self.width) {
            return self;
        }
        let channels = self.channels;
        // Sides are at most `u32::MAX` (decoders) or 8192 (the recipe).
        let (h, w) = (height as u32, width as u32);
        let pixels = match self.into_picture() {
            DynamicImage::ImageLuma8(gray) => imageops::resize(&gray, w, h, FilterType::Triangle).into_raw(),
            colour => imageops::resize(&colour.into_rgb8(), w, h, FilterType::Triangle).into_raw(),
        };
        Raw { height, width, channels, pixels }
    }

    fn into_picture(self) -> DynamicImage {
        let (h, w) = (self.height as u32, self.width as u32);
        let whole = "a Raw has height * width * channels bytes";
        match self.channels {
            1 => DynamicImage::ImageLuma8(GrayImage::from_raw(w, h, self.pixels).expect(whole)),
            _ => DynamicImage::ImageRgb8(RgbImage::from_raw(w, h, self.pixels).expect(whole)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn png(width: u32, height: u32, data: &[u8], colour: image::ExtendedColorType) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image::write_buffer_with_format(&mut out, data, width, height, colour, ImageFormat::Png).unwrap();
        out.into_inner()
    }

    proptest! {
        #[test]
        fn resizing_to_the_same_size_changes_nothing(height in 1usize..12, width in 1usize..12, colour: bool, salt: u8) {
            let channels = if colour { 3 } else { 1 };
            let pixels: Vec<u8> = (0..height * width * channels).map(|i| (i as u8).wrapping_mul(salt)).collect();
            let raw = Raw { height, width, channels, pixels };
            prop_assert_eq!(raw.clone().resized(height, width), raw);
        }

        #[test]
        fn a_constant_image_stays_constant(from in 1usize..40, to in 1usize..40, value: u8) {
            let raw = Raw { height: from, width: from + 3, channels: 1, pixels: vec![value; from * (from + 3)] };
            let resized = raw.resized(to, to + 1);
            prop_assert_eq!(resized.pixels, vec![value; to * (to + 1)]);
        }
    }

    #[test]
    fn shrinking_by_two_averages() {
        // A checkerboard has no detail left at half size; nearest or plain bilinear sampling would keep 0 or 255.
        let pixels: Vec<u8> = (0..64).map(|i| if (i / 8 + i % 8) % 2 == 0 { 0 } else { 255 }).collect();
        let half = Raw { height: 8, width: 8, channels: 1, pixels }.resized(4, 4);
        assert!(half.pixels.iter().all(|&p| (100..=155).contains(&p)), "{:?}", half.pixels);
    }

    #[test]
    fn transparent_pixels_are_laid_on_white() {
        let rgba = [10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128];
        let raw = decode(&png(3, 1, &rgba, image::ExtendedColorType::Rgba8), Path::new("a.png")).unwrap();
        assert_eq!((raw.height, raw.width, raw.channels), (1, 3, 3));
        assert_eq!(raw.pixels, [10, 20, 30, 255, 255, 255, 127, 127, 127]);
    }

    #[test]
    fn gray_stays_gray_and_converts_both_ways() {
        let bytes = png(2, 1, &[0, 200], image::ExtendedColorType::L8);
        let raw = decode(&bytes, Path::new("a.png")).unwrap();
        assert_eq!((raw.channels, raw.pixels.as_slice()), (1, [0u8, 200].as_slice()));
        assert_eq!(header(&bytes, Path::new("a.png")).unwrap().channels, 1);
        let colour = raw.clone().with_channels(3);
        assert_eq!(colour.pixels, [0, 0, 0, 200, 200, 200]);
        assert_eq!(colour.with_channels(1), raw);
    }

    #[test]
    fn every_truncation_of_a_png_is_noticed() {
        let pixels: Vec<u8> = (0..300u32).map(|i| (i * 7919 % 256) as u8).collect();
        let bytes = png(10, 10, &pixels, image::ExtendedColorType::Rgb8);
        for keep in 0..bytes.len() {
            match decode(&bytes[..keep], Path::new("cut.png")) {
                Err(DataError::TruncatedImage { path, expected, found }) => {
                    assert_eq!((path.as_path(), found), (Path::new("cut.png"), keep as u64));
                    assert!(
                        expected.is_none_or(|e| e > found && e <= bytes.len() as u64),
                        "{expected:?} at {keep}"
                    );
                }
                other => panic!("{keep} of {} bytes: {other:?}", bytes.len()),
            }
        }
        assert!(decode(&bytes, Path::new("whole.png")).is_ok());
    }

    #[test]
    fn a_truncated_jpeg_is_noticed() {
        let pixels: Vec<u8> = (0..3 * 64 * 64u32).map(|i| (i * 7919 % 256) as u8).collect();
        let mut out = Cursor::new(Vec::new());
        image::write_buffer_with_format(
            &mut out,
            &pixels,
            64,
            64,
            image::ExtendedColorType::Rgb8,
            ImageFormat::Jpeg,
        )
        .unwrap();
        let bytes = out.into_inner();
        assert_eq!(decode(&bytes, Path::new("a.jpg")).unwrap().pixels.len(), pixels.len());
        for keep in (0..bytes.len() - 1).step_by(7) {
            let error = decode(&bytes[..keep], Path::new("cut.jpg")).unwrap_err();
            assert!(matches!(error, DataError::TruncatedImage { .. }), "{keep}: {error}");
        }
    }

    #[test]
    fn other_formats_are_named() {
        let gif = b"GIF89a\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0";
        let error = decode(gif, Path::new("a.gif")).unwrap_err().to_string();
        assert!(error.contains("a.gif") && error.contains("Gif") && error.contains("PNG or JPEG"), "{error}");
        let error = decode(&[7; 40], Path::new("a.png")).unwrap_err();
        assert!(matches!(error, DataError::BadImage { bytes: 40, .. }));
    }
}
