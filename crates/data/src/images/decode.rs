//! From the bytes of a PNG, JPEG or PNM file to pixels.
//!
//! The decoders are used directly: the `image` crate around them needs colour management that takes
//! longer to compile than the rest of this crate.

mod jpeg_end;
mod pnm;

use std::io::Cursor;
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::kind::{self, Kind, LOOKED_AT};
use super::orientation::Orientation;
use super::pixels::{Level, Pixels, Raw, each_depth, pixel_hash};
use crate::error::DataError;

/// Most bytes of a decoded image: 16,384 x 16,384 in colour.
const MAX_BYTES: usize = 3 << 28;

/// What the header of an image says, after turning it as EXIF asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// Has 16 bits per channel.
    pub(crate) deep: bool,
    /// May have transparent pixels.
    pub(crate) transparent: bool,
    /// Is followed by others in the same file: an animated PNG, or a multi-picture JPEG.
    pub(crate) several: bool,
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
    Pnm,
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

    fn format(self) -> Result<Format, DataError> {
        match Kind::of(&self.bytes[..self.bytes.len().min(LOOKED_AT)]) {
            Kind::Png => Ok(Format::Png),
            Kind::Jpeg => Ok(Format::Jpeg),
            Kind::Pnm => Ok(Format::Pnm),
            Kind::Other(format) => Err(DataError::UnsupportedImage { path: self.path.to_owned(), format }),
            Kind::NoPicture if self.bytes.len() < 16 => Err(self.truncated(Some(16))),
            Kind::NoPicture => Err(self.bad(kind::looks_like(self.bytes))),
        }
    }

    /// Refuses a file that ends early: some decoders fill what is missing with gray and say
    /// nothing. Signature, then chunks of length, type, data, checksum; IEND is the last (PNG
    /// specification, section 5.3).
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

    /// Refuses a file that ends early, as [`check_png`](Self::check_png) does. Segments of known
    /// length up to the start of the scan (ITU-T T.81, annex B), then an end marker somewhere:
    /// cameras and editors may add bytes after it, and a thumbnail before the scan has one of its
    /// own.
    fn check_jpeg(self) -> Result<Segments, DataError> {
        let mut at = 2usize;
        let mut seen = Segments::default();
        loop {
            let Some(&[mark, code, high, low]) = self.bytes.get(at..at + 4) else {
                return Err(self.truncated(Some(at + 4)));
            };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            match (mark, code) {
                (0xFF, 0xFF) => at += 1, // fill byte
                // The length counts its own two bytes.
                (0xFF, _) if end < at + 4 => {
                    return Err(self.bad(format!("the segment at byte {at} has a length below 2")));
                }
                (0xFF, _) if end > self.bytes.len() => return Err(self.truncated(Some(end))),
                (0xFF, 0xDA) => {
                    seen.scan = end;
                    let ended = self.bytes[end..].windows(2).any(|pair| pair == [0xFF, 0xD9]);
                    return if ended { Ok(seen) } else { Err(self.truncated(None)) };
                }
                (0xFF, _) => {
                    let content = &self.bytes[at + 4..end];
                    seen.adobe |= code == 0xEE && content.starts_with(b"Adobe");
                    match (code, content) {
                        (0xDD, &[high, low]) => seen.interval = u16::from_be_bytes([high, low]),
                        (0xC0..=0xC2, _) => seen.units = jpeg_end::units(content),
                        _ => {}
                    }
                    seen.several |= code == 0xE2 && content.starts_with(b"MPF\0");
                    at = end;
                }
                // Not a marker: for the decoder to judge.
                _ => return Ok(seen),
            }
        }
    }

    fn png(self) -> Result<png::Reader<Cursor<&'a [u8]>>, DataError> {
        self.check_png()?;
        let limits = png::Limits { bytes: MAX_BYTES };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(self.bytes), limits);
        // Palettes and fewer bits become 8 bits per channel, a transparent colour an alpha.
        decoder.set_transformations(png::Transformations::EXPAND);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        decoder.read_info().map_err(|e| self.bad(e))
    }

    fn jpeg(self, seen: Segments, damage: Damage) -> Result<(Jpeg<'a>, Header, Orientation), DataError> {
        let options = DecoderOptions::default()
            .set_strict_mode(damage == Damage::Refused)
            .set_max_width(1 << 16)
            .set_max_height(1 << 16);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(self.bytes), options);
        decoder.decode_headers().map_err(|e| self.bad(e))?;
        let (width, height) = decoder.dimensions().ok_or_else(|| self.bad("no size in its header"))?;
        let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
        let Segments { adobe, several, .. } = seen;
        if decoder.input_colorspace() == Some(ColorSpace::CMYK) && !adobe {
            let reason =
                "four inks (CMYK) without the marker that says whether they are inverted; convert it to RGB";
            return Err(self.bad(reason));
        }
        let orientation = Orientation::of(decoder.exif().map_or(&[], Vec::as_slice));
        let channels = if gray { 1 } else { 3 };
        let header = Header { height, width, channels, deep: false, transparent: false, several };
        Ok((decoder, header, orientation))
    }

    /// The values of a JPEG. With `Damage::Refused` a damaged scan is an error, not a picture with
    /// gray in it.
    fn jpeg_values(
        self,
        seen: Segments,
        damage: Damage,
    ) -> Result<(Header, Orientation, Vec<u8>), DataError> {
        let (mut decoder, header, orientation) = self.jpeg(seen, damage)?;
        let target = if header.channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
        let options = decoder.options().jpeg_set_out_colorspace(target);
        decoder.set_options(options);
        Ok((header, orientation, decoder.decode().map_err(|e| self.bad(e))?))
    }

    /// As [`jpeg_values`](Self::jpeg_values); a picture whose data end early is refused.
    fn whole_jpeg(self) -> Result<(Header, Orientation, Vec<u8>), DataError> {
        let cut_off = || self.bad("its data end before its picture does, as of a file that was cut off");
        let seen = self.check_jpeg()?;
        let Segments { scan, interval, units, .. } = seen;
        if interval > 0 {
            let needed = units.div_ceil(usize::from(interval)).saturating_sub(1);
            let enough = jpeg_end::restarts(&self.bytes[scan..]) >= needed;
            return if enough { self.jpeg_values(seen, Damage::Refused) } else { Err(cut_off()) };
        }
        // Only its fingerprint is kept, so that the picture is in memory once.
        let longer = jpeg_end::lengthened(self.bytes, scan).and_then(|bytes| {
            let values = File { bytes: &bytes, ..self }.jpeg_values(seen, Damage::Passed);
            values.map(|(.., values)| pixel_hash(&values)).ok()
        });
        let (header, orientation, values) = self.jpeg_values(seen, Damage::Refused)?;
        match longer {
            Some(longer) if longer != pixel_hash(&values) => Err(cut_off()),
            _ => Ok((header, orientation, values)),
        }
    }
}

/// What becomes of a damaged scan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    Refused,
    Passed,
}

/// What the segments before the scan of a JPEG file tell.
#[derive(Clone, Copy, Default)]
struct Segments {
    /// The marker by which Adobe's programs say how colours are stored.
    adobe: bool,
    /// The index of a multi-picture file (CIPA DC-007).
    several: bool,
    /// Units of the picture between two restart markers; 0 if there are none.
    interval: u16,
    /// Units of the picture, at least.
    units: usize,
    /// Where the data of the first scan begin; 0 if there is none.
    scan: usize,
}

/// Reads what the header says, without decoding.
pub(crate) fn header(bytes: &[u8], path: &Path) -> Result<Header, DataError> {
    let file = File { bytes, path };
    let (header, orientation) = match file.format()? {
        Format::Png => png_header(&file.png()?),
        Format::Jpeg => {
            let (_, header, orientation) = file.jpeg(file.check_jpeg()?, Damage::Refused)?;
            (header, orientation)
        }
        Format::Pnm => (pnm::decode(file)?.0, Orientation::AS_STORED),
    };
    Ok(match orientation.swaps_sides() {
        true => Header { height: header.width, width: header.height, ..header },
        false => header,
    })
}

/// Height and width, as [`header`] has them, without a look at the pixels.
pub(crate) fn size(bytes: &[u8], path: &Path) -> Result<(usize, usize), DataError> {
    let file = File { bytes, path };
    if let Format::Pnm = file.format()? {
        return pnm::size(file);
    }
    let header = header(bytes, path)?;
    Ok((header.height, header.width))
}

fn png_header(reader: &png::Reader<Cursor<&[u8]>>) -> (Header, Orientation) {
    use png::ColorType::{Grayscale, GrayscaleAlpha, Rgba};
    let (width, height) = reader.info().size();
    let (colour, depth) = reader.output_color_type();
    let header = Header {
        height: height as usize,
        width: width as usize,
        channels: if matches!(colour, Grayscale | GrayscaleAlpha) { 1 } else { 3 },
        deep: depth == png::BitDepth::Sixteen,
        transparent: matches!(colour, GrayscaleAlpha | Rgba),
        several: reader.info().animation_control().is_some(),
    };
    (header, Orientation::of(reader.info().exif_metadata.as_deref().unwrap_or(&[])))
}

/// Decodes to gray or colour of 8 or 16 bits, as the file is; turned as EXIF asks, transparent
/// pixels laid on white. Of several pictures in a file the first is taken.
pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Raw, DataError> {
    Ok(decode_with_header(bytes, path)?.0)
}

/// As [`decode`], with what the header says.
pub(crate) fn decode_with_header(bytes: &[u8], path: &Path) -> Result<(Raw, Header), DataError> {
    let file = File { bytes, path };
    let (header, orientation, pixels) = match file.format()? {
        Format::Png => {
            let mut reader = file.png()?;
            let (header, orientation) = png_header(&reader);
            let size = reader.output_buffer_size().filter(|&size| size <= MAX_BYTES);
            let mut bytes = vec![0; size.ok_or_else(|| file.bad("larger than a gigabyte"))?];
            reader.next_frame(&mut bytes).map_err(|e| file.bad(e))?;
            let words = |b: &[u8]| b.chunks_exact(2).map(|w| u16::from_be_bytes([w[0], w[1]])).collect();
            let pixels = if header.deep { Pixels::Bits16(words(&bytes)) } else { Pixels::Bits8(bytes) };
            let opaque = !header.transparent;
            let on_white = |p: Pixels| each_depth!(p, values => on_white(&values, header.channels));
            (header, orientation, if opaque { pixels } else { on_white(pixels) })
        }
        Format::Jpeg => {
            let (header, orientation, values) = file.whole_jpeg()?;
            (header, orientation, Pixels::Bits8(values))
        }
        Format::Pnm => {
            let (header, pixels) = pnm::decode(file)?;
            (header, Orientation::AS_STORED, pixels)
        }
    };
    let Header { height, width, channels, .. } = header;
    if pixels.len() != height * width * channels {
        return Err(file.bad(format!("{} values for {height}x{width} pixels", pixels.len())));
    }
    Ok((orientation.apply(Raw { height, width, channels, pixels }), header))
}

/// `value * a + white * (1 - a)`, rounded, for pixels of `channels` values and an alpha.
fn on_white<T: Level>(pixels: &[T], channels: usize) -> Vec<T> {
    let white = u64::from(T::WHITE);
    let mut out = Vec::with_capacity(pixels.len() / (channels + 1) * channels);
    for pixel in pixels.chunks_exact(channels + 1) {
        let alpha = u64::from(pixel[channels].value());
        let laid =
            |level: &T| (u64::from(level.value()) * alpha + white * (white - alpha) + white / 2) / white;
        out.extend(pixel[..channels].iter().map(|level| T::of(laid(level) as u32)));
    }
    out
}

#[cfg(test)]
mod tests;
