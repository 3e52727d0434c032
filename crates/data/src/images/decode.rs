//! From the bytes of a PNG or JPEG file to pixels.
//!
//! The decoders are used directly: the `image` crate around them needs colour management that takes
//! longer to compile than the rest of this crate.

use std::io::Cursor;
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::pixels::Raw;
use crate::error::DataError;

/// Most bytes of a decoded image: 16,384 x 16,384 in colour.
const MAX_BYTES: usize = 3 << 28;

/// What the header of an image says, after turning it as EXIF asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
}

type Jpeg<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

/// The file that is being decoded, for error messages.
#[derive(Clone, Copy)]
struct File<'a> {
    bytes: &'a [u8],
    path: &'a Path,
}

impl<'a> File<'a> {
    fn bad(self, reason: impl std::fmt::Display) -> DataError {
        let bytes = self.bytes.len() as u64;
        DataError::BadImage { path: self.path.to_owned(), bytes, reason: reason.to_string() }
    }

    fn truncated(self, expected: Option<usize>) -> DataError {
        let (path, found) = (self.path.to_owned(), self.bytes.len() as u64);
        DataError::TruncatedImage { path, expected: expected.map(|n| n as u64), found }
    }

    /// By the first bytes, whatever the name says.
    fn format(self) -> Result<Format, DataError> {
        let other = |format: &str| {
            Err(DataError::UnsupportedImage { path: self.path.to_owned(), format: format.to_owned() })
        };
        match self.bytes {
            [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Ok(Format::Png),
            [0xFF, 0xD8, 0xFF, ..] => Ok(Format::Jpeg),
            [b'G', b'I', b'F', b'8', ..] => other("GIF"),
            [b'B', b'M', ..] => other("BMP"),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => other("WebP"),
            [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => other("TIFF"),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => other("HEIF or AVIF"),
            short if short.len() < 16 => Err(self.truncated(Some(16))),
            _ => Err(self.bad("neither PNG nor JPEG by its first bytes")),
        }
    }

    /// Refuses a file that ends early: some decoders fill what is missing with gray and say
    /// nothing.
    fn check_complete(self, format: Format) -> Result<(), DataError> {
        match format {
            Format::Png => self.check_png(),
            Format::Jpeg => self.check_jpeg(),
        }
    }

    /// Signature, then chunks of length, type, data, checksum; IEND is the last (PNG specification,
    /// section 5.3).
    fn check_png(self) -> Result<(), DataError> {
        let mut at = 8usize;
        loop {
            let Some(head) = self.bytes.get(at..at + 8) else { return Err(self.truncated(Some(at + 12))) };
            let end = at + 12 + u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if end > self.bytes.len() {
                return Err(self.truncated(Some(end)));
            }
            if &head[4..] == b"IEND" {
                return Ok(());
            }
            at = end;
        }
    }

    /// Segments of known length up to the start of the scan (ITU-T T.81, annex B), then an end
    /// marker somewhere: cameras and editors may add bytes after it, and a thumbnail before the
    /// scan has one of its own.
    fn check_jpeg(self) -> Result<(), DataError> {
        let mut at = 2usize;
        loop {
            let Some(&[mark, code, high, low]) = self.bytes.get(at..at + 4) else {
                return Err(self.truncated(Some(at + 4)));
            };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            match (mark, code) {
                (0xFF, 0xFF) => at += 1, // fill byte
                (0xFF, _) if end > self.bytes.len() => return Err(self.truncated(Some(end))),
                (0xFF, 0xDA) => {
                    let ended = self.bytes[end..].windows(2).any(|pair| pair == [0xFF, 0xD9]);
                    return if ended { Ok(()) } else { Err(self.truncated(None)) };
                }
                (0xFF, _) => at = end,
                // Not a marker: for the decoder to judge.
                _ => return Ok(()),
            }
        }
    }

    fn png(self) -> Result<png::Reader<Cursor<&'a [u8]>>, DataError> {
        let limits = png::Limits { bytes: MAX_BYTES };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(self.bytes), limits);
        // Palettes and fewer bits become 8 bits per channel; of 16 bits the upper 8 are kept.
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        decoder.read_info().map_err(|e| self.bad(e))
    }

    fn jpeg(self) -> Result<(Jpeg<'a>, Header, Orientation), DataError> {
        let options = DecoderOptions::default().set_max_width(1 << 16).set_max_height(1 << 16);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(self.bytes), options);
        decoder.decode_headers().map_err(|e| self.bad(e))?;
        let (width, height) = decoder.dimensions().ok_or_else(|| self.bad("no size in its header"))?;
        let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
        let orientation = Orientation::of(decoder.exif().map_or(&[], Vec::as_slice));
        Ok((decoder, Header { height, width, channels: if gray { 1 } else { 3 } }, orientation))
    }
}

/// Reads what the header says, without decoding.
pub(crate) fn header(bytes: &[u8], path: &Path) -> Result<Header, DataError> {
    let file = File { bytes, path };
    let format = file.format()?;
    file.check_complete(format)?;
    let (header, orientation) = match format {
        Format::Png => {
            let reader = file.png()?;
            (png_header(&reader), Orientation::of(reader.info().exif_metadata.as_deref().unwrap_or(&[])))
        }
        Format::Jpeg => {
            let (_, header, orientation) = file.jpeg()?;
            (header, orientation)
        }
    };
    Ok(match orientation.swaps_sides() {
        true => Header { height: header.width, width: header.height, ..header },
        false => header,
    })
}

fn png_header(reader: &png::Reader<Cursor<&[u8]>>) -> Header {
    let (width, height) = reader.info().size();
    let gray =
        matches!(reader.output_color_type().0, png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha);
    Header { height: height as usize, width: width as usize, channels: if gray { 1 } else { 3 } }
}

/// Decodes to gray or colour, as the file is; turned as EXIF asks, transparent pixels laid on
/// white.
pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Raw, DataError> {
    let file = File { bytes, path };
    let format = file.format()?;
    file.check_complete(format)?;
    let (header, orientation, pixels) = match format {
        Format::Png => {
            let mut reader = file.png()?;
            let orientation = Orientation::of(reader.info().exif_metadata.as_deref().unwrap_or(&[]));
            let size = reader.output_buffer_size().filter(|&size| size <= MAX_BYTES);
            let mut pixels = vec![0; size.ok_or_else(|| file.bad("larger than a gigabyte"))?];
            reader.next_frame(&mut pixels).map_err(|e| file.bad(e))?;
            let header = png_header(&reader);
            let alpha =
                matches!(reader.output_color_type().0, png::ColorType::GrayscaleAlpha | png::ColorType::Rgba);
            (header, orientation, if alpha { on_white(&pixels, header.channels) } else { pixels })
        }
        Format::Jpeg => {
            let (mut decoder, header, orientation) = file.jpeg()?;
            let target = if header.channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
            let options = decoder.options().jpeg_set_out_colorspace(target);
            decoder.set_options(options);
            (header, orientation, decoder.decode().map_err(|e| file.bad(e))?)
        }
    };
    let Header { height, width, channels } = header;
    if pixels.len() != height * width * channels {
        return Err(file.bad(format!("{} bytes for {height}x{width} pixels", pixels.len())));
    }
    Ok(orientation.apply(Raw { height, width, channels, pixels }))
}

/// `value * a + white * (1 - a)`, rounded, for pixels of `channels` values and an alpha.
fn on_white(pixels: &[u8], channels: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / (channels + 1) * channels);
    for pixel in pixels.chunks_exact(channels + 1) {
        let alpha = u32::from(pixel[channels]);
        let laid = |value: u8| (u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255;
        out.extend(pixel[..channels].iter().map(|&value| laid(value) as u8));
    }
    out
}

/// How the stored picture is to be turned: the EXIF tag 0x0112, 1 to 8 (EXIF 2.32, 4.6.4 A).
/// Telephones write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Orientation(u8);

impl Orientation {
    const AS_STORED: Orientation = Orientation(1);

    /// Finds the tag in the first directory of the TIFF structure that EXIF data are; anything
    /// amiss counts as no tag.
    fn of(exif: &[u8]) -> Orientation {
        Self::find(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif)).unwrap_or(Self::AS_STORED)
    }

    fn find(tiff: &[u8]) -> Option<Orientation> {
        let little = match tiff.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let short = |at: usize| {
            let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
        };
        let offset: [u8; 4] = tiff.get(4..8)?.try_into().ok()?;
        let directory = if little { u32::from_le_bytes(offset) } else { u32::from_be_bytes(offset) } as usize;
        let entries = usize::from(short(directory)?);
        let entry = (0..entries).map(|i| directory + 2 + 12 * i).find(|&at| short(at) == Some(0x0112))?;
        u8::try_from(short(entry + 8)?).ok().filter(|value| (1..=8).contains(value)).map(Orientation)
    }

    fn swaps_sides(self) -> bool {
        self.0 >= 5
    }

    fn apply(self, raw: Raw) -> Raw {
        if self == Self::AS_STORED {
            return raw;
        }
        let (h, w) = (raw.height, raw.width);
        let (height, width) = if self.swaps_sides() { (w, h) } else { (h, w) };
        let mut pixels = Vec::with_capacity(raw.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (from_y, from_x) = match self.0 {
                    2 => (y, w - 1 - x),
                    3 => (h - 1 - y, w - 1 - x),
                    4 => (h - 1 - y, x),
                    5 => (x, y),
                    6 => (h - 1 - x, y),
                    7 => (h - 1 - x, w - 1 - y),
                    8 => (x, w - 1 - y),
                    _ => (y, x),
                };
                pixels.extend_from_slice(&raw.pixels[(from_y * w + from_x) * raw.channels..][..raw.channels]);
            }
        }
        Raw { height, width, channels: raw.channels, pixels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32, data: &[u8], colour: png::ColorType) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(colour);
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        out
    }

    fn jpeg(width: u16, height: u16, data: &[u8], colour: jpeg_encoder::ColorType) -> Vec<u8> {
        let mut out = Vec::new();
        jpeg_encoder::Encoder::new(&mut out, 95).encode(data, width, height, colour).unwrap();
        out
    }

    /// EXIF data with one tag.
    fn exif(little: bool, tag: u16, value: u16) -> Vec<u8> {
        let short = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let long = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut out = if little { b"II".to_vec() } else { b"MM".to_vec() };
        out.extend(short(42));
        out.extend(long(8));
        [1, tag, 3].into_iter().for_each(|v| out.extend(short(v)));
        out.extend(long(1));
        [value, 0].into_iter().for_each(|v| out.extend(short(v)));
        out.extend(long(0));
        out
    }

    #[test]
    fn transparent_pixels_are_laid_on_white() {
        let rgba = [10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128];
        let raw = decode(&png(3, 1, &rgba, png::ColorType::Rgba), Path::new("a.png")).unwrap();
        assert_eq!((raw.height, raw.width, raw.channels), (1, 3, 3));
        assert_eq!(raw.pixels, [10, 20, 30, 255, 255, 255, 127, 127, 127]);
        let gray =
            decode(&png(2, 1, &[7, 255, 7, 0], png::ColorType::GrayscaleAlpha), Path::new("a.png")).unwrap();
        assert_eq!((gray.channels, gray.pixels), (1, vec![7, 255]));
    }

    #[test]
    fn palettes_fewer_and_more_bits_become_bytes() {
        let write = |depth, colour, palette: Option<Vec<u8>>, data: &[u8]| {
            let mut out = Vec::new();
            let mut encoder = png::Encoder::new(&mut out, 2, 1);
            encoder.set_color(colour);
            encoder.set_depth(depth);
            palette.into_iter().for_each(|palette| encoder.set_palette(palette));
            encoder.write_header().unwrap().write_image_data(data).unwrap();
            decode(&out, Path::new("a.png")).unwrap().pixels
        };
        assert_eq!(write(png::BitDepth::One, png::ColorType::Grayscale, None, &[0b0100_0000]), [0, 255]);
        assert_eq!(
            write(png::BitDepth::Sixteen, png::ColorType::Grayscale, None, &[18, 52, 255, 0]),
            [18, 255]
        );
        let palette = Some(vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(
            write(png::BitDepth::Eight, png::ColorType::Indexed, palette, &[1, 0]),
            [4, 5, 6, 1, 2, 3]
        );
    }

    #[test]
    fn jpegs_decode_to_nearly_what_was_encoded() {
        let gradient: Vec<u8> = (0..48u32 * 32).map(|i| (i % 48 * 5) as u8).collect();
        let bytes = jpeg(48, 32, &gradient, jpeg_encoder::ColorType::Luma);
        let raw = decode(&bytes, Path::new("a.jpg")).unwrap();
        assert_eq!((raw.height, raw.width, raw.channels), (32, 48, 1));
        // At quality 95 the quantisation steps of low frequencies are at most 2 and of the highest
        // 12 of 255.
        assert!(raw.pixels.iter().zip(&gradient).all(|(a, b)| a.abs_diff(*b) <= 6));
        let colour = jpeg(16, 16, &[200, 30, 60].repeat(256), jpeg_encoder::ColorType::Rgb);
        let raw = decode(&colour, Path::new("a.jpg")).unwrap();
        assert_eq!(
            header(&colour, Path::new("a.jpg")).unwrap(),
            Header { height: 16, width: 16, channels: 3 }
        );
        assert!(
            raw.pixels
                .chunks(3)
                .all(|p| p[0].abs_diff(200) <= 4 && p[1].abs_diff(30) <= 4 && p[2].abs_diff(60) <= 4)
        );
    }

    #[test]
    fn exif_turns_pictures() {
        let raw = || Raw { height: 2, width: 3, channels: 1, pixels: vec![1, 2, 3, 4, 5, 6] };
        let turned = |value| Orientation(value).apply(raw());
        assert_eq!(turned(3).pixels, [6, 5, 4, 3, 2, 1]);
        // 6: the camera was held upright, the top of the scene is at the right edge of the stored
        // rows.
        assert_eq!((turned(6).height, turned(6).width, turned(6).pixels), (3, 2, vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(turned(8).pixels, [3, 6, 2, 5, 1, 4]);
        for (value, back) in [(2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)] {
            assert_eq!(Orientation(back).apply(turned(value)), raw(), "{value} then {back}");
        }
        for little in [true, false] {
            let data = exif(little, 0x0112, 6);
            assert_eq!(Orientation::of(&data), Orientation(6));
            assert_eq!(Orientation::of(&[b"Exif\0\0".as_slice(), &data].concat()), Orientation(6));
            assert_eq!(Orientation::of(&exif(little, 0x0112, 9)), Orientation::AS_STORED);
            assert_eq!(Orientation::of(&exif(little, 0x0113, 6)), Orientation::AS_STORED);
            for keep in 0..data.len() - 6 {
                assert_eq!(Orientation::of(&data[..keep]), Orientation::AS_STORED, "{keep} bytes");
            }
        }
    }

    #[test]
    fn the_exif_of_a_jpeg_is_found() {
        let pixels: Vec<u8> = (0..8 * 24u32).map(|i| (i % 24 * 10) as u8).collect();
        let mut out = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut out, 95);
        encoder.add_app_segment(1, [b"Exif\0\0".as_slice(), &exif(true, 0x0112, 6)].concat()).unwrap();
        encoder.encode(&pixels, 24, 8, jpeg_encoder::ColorType::Luma).unwrap();
        let seen = header(&out, Path::new("a.jpg")).unwrap();
        assert_eq!((seen.height, seen.width), (24, 8));
        let raw = decode(&out, Path::new("a.jpg")).unwrap();
        assert_eq!((raw.height, raw.width), (24, 8));
        assert!(raw.pixels[0] < 20 && raw.pixels[23 * 8] > 200, "the dark left edge is now on top");
    }

    #[test]
    fn every_truncation_of_a_png_is_noticed() {
        let pixels: Vec<u8> = (0..300u32).map(|i| (i * 7919 % 256) as u8).collect();
        let bytes = png(10, 10, &pixels, png::ColorType::Rgb);
        for keep in 0..bytes.len() {
            match decode(&bytes[..keep], Path::new("cut.png")) {
                Err(DataError::TruncatedImage { path, expected, found }) => {
                    assert_eq!((path.as_path(), found), (Path::new("cut.png"), keep as u64));
                    assert!(
                        expected.is_some_and(|e| e > found && e <= bytes.len() as u64),
                        "{expected:?} at {keep}"
                    );
                }
                other => panic!("{keep} of {} bytes: {other:?}", bytes.len()),
            }
        }
        assert_eq!(decode(&bytes, Path::new("whole.png")).unwrap().pixels, pixels);
    }

    #[test]
    fn every_truncation_of_a_jpeg_is_noticed() {
        let pixels: Vec<u8> = (0..3 * 40 * 40u32).map(|i| (i * 7919 % 256) as u8).collect();
        let bytes = jpeg(40, 40, &pixels, jpeg_encoder::ColorType::Rgb);
        assert_eq!(decode(&bytes, Path::new("a.jpg")).unwrap().pixels.len(), pixels.len());
        for keep in 0..bytes.len() {
            let error = decode(&bytes[..keep], Path::new("cut.jpg")).unwrap_err();
            assert!(matches!(error, DataError::TruncatedImage { .. }), "{keep}: {error}");
        }
    }

    #[test]
    fn damage_and_other_formats_are_named() {
        let error =
            decode(b"GIF89a\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0", Path::new("a.gif")).unwrap_err().to_string();
        assert_eq!(error, "a.gif: GIF images are not read; convert them to PNG or JPEG");
        assert!(matches!(
            decode(&[7; 40], Path::new("a.png")).unwrap_err(),
            DataError::BadImage { bytes: 40, .. }
        ));
        let mut bytes = png(10, 10, &[9; 300], png::ColorType::Rgb);
        bytes[45] ^= 0xFF;
        let error = decode(&bytes, Path::new("a.png")).unwrap_err();
        assert!(matches!(error, DataError::BadImage { .. }), "{error}");
    }
}
