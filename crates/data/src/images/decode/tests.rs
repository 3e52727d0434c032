use super::*;
use crate::images::orientation::tests::exif;

fn png(width: u32, height: u32, data: &[u8], colour: png::ColorType) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(colour);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

/// The values of an image of 8 bits.
fn bytes_of(raw: &Raw) -> &[u8] {
    match &raw.pixels {
        Pixels::Bits8(values) => values,
        Pixels::Bits16(values) => panic!("{} values of 16 bits", values.len()),
    }
}

fn jpeg(width: u16, height: u16, data: &[u8], colour: jpeg_encoder::ColorType) -> Vec<u8> {
    let mut out = Vec::new();
    jpeg_encoder::Encoder::new(&mut out, 95).encode(data, width, height, colour).unwrap();
    out
}

#[test]
fn transparent_pixels_are_laid_on_white() {
    let rgba = [10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128];
    let raw = decode(&png(3, 1, &rgba, png::ColorType::Rgba), Path::new("a.png")).unwrap();
    assert_eq!((raw.height, raw.width, raw.channels), (1, 3, 3));
    assert_eq!(bytes_of(&raw), [10, 20, 30, 255, 255, 255, 127, 127, 127]);
    let gray =
        decode(&png(2, 1, &[7, 255, 7, 0], png::ColorType::GrayscaleAlpha), Path::new("a.png")).unwrap();
    assert_eq!((gray.channels, bytes_of(&gray)), (1, [7, 255].as_slice()));
    let deep = [0x12, 0x34, 0xFF, 0xFF, 0x12, 0x34, 0, 0];
    let deep =
        decode(&png_of(2, png::BitDepth::Sixteen, png::ColorType::GrayscaleAlpha, &deep), Path::new("a"));
    assert_eq!(deep.unwrap().pixels, Pixels::Bits16(vec![0x1234, 0xFFFF]));
}

/// One row of pixels, packed as PNG has them.
fn png_of(width: u32, depth: png::BitDepth, colour: png::ColorType, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, 1);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

/// The bytes of a PNG with a chunk put before its pixels.
fn with_chunk(png: &[u8], name: [u8; 4], content: &[u8]) -> Vec<u8> {
    let at = png.windows(4).position(|four| four == b"IDAT").unwrap() - 4;
    let mut chunk = (content.len() as u32).to_be_bytes().to_vec();
    let body = [name.as_slice(), content].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    chunk.extend(body);
    chunk.extend(crc.sum().to_be_bytes());
    [&png[..at], &chunk, &png[at..]].concat()
}

#[test]
fn every_depth_and_kind_of_colour_of_a_png() {
    use png::{BitDepth, ColorType};
    let pixels = |bytes: &[u8]| decode(bytes, Path::new("a.png")).unwrap().pixels;
    let bits8 = |values: &[u8]| Pixels::Bits8(values.to_vec());
    let gray = ColorType::Grayscale;
    assert_eq!(pixels(&png_of(2, BitDepth::One, gray, &[0b0100_0000])), bits8(&[0, 255]));
    assert_eq!(pixels(&png_of(4, BitDepth::Two, gray, &[0b0001_1011])), bits8(&[0, 85, 170, 255]));
    assert_eq!(pixels(&png_of(2, BitDepth::Four, gray, &[0x1F])), bits8(&[17, 255]));
    // All 16 bits stay.
    let deep = png_of(3, BitDepth::Sixteen, gray, &[0, 0, 0x12, 0x34, 0x12, 0x35]);
    assert_eq!(pixels(&deep), Pixels::Bits16(vec![0, 0x1234, 0x1235]));
    assert!(header(&deep, Path::new("a.png")).unwrap().deep);
    let colour = png_of(1, BitDepth::Sixteen, ColorType::Rgb, &[0, 1, 0, 2, 0, 3]);
    assert_eq!(pixels(&colour), Pixels::Bits16(vec![1, 2, 3]));
    for (depth, data) in [(BitDepth::Eight, vec![1, 0]), (BitDepth::One, vec![0b1000_0000])] {
        assert_eq!(pixels(&png_of(2, depth, ColorType::Indexed, &data)), bits8(&[4, 5, 6, 1, 2, 3]));
    }
    // The second colour of the palette is transparent; of the gray image, the value 7.
    let palette = png_of(2, BitDepth::Eight, ColorType::Indexed, &[1, 0]);
    let palette = with_chunk(&palette, *b"tRNS", &[255, 0]);
    assert_eq!(pixels(&palette), bits8(&[255, 255, 255, 1, 2, 3]));
    assert!(header(&palette, Path::new("a.png")).unwrap().transparent);
    let keyed = with_chunk(&png_of(2, BitDepth::Eight, gray, &[7, 9]), *b"tRNS", &[0, 7]);
    assert_eq!(pixels(&keyed), bits8(&[255, 9]));
    // What it says of gamma changes no value.
    let plain = png_of(2, BitDepth::Eight, gray, &[7, 9]);
    assert_eq!(pixels(&with_chunk(&plain, *b"gAMA", &100_000u32.to_be_bytes())), bits8(&[7, 9]));
}

#[test]
fn of_an_animated_png_the_first_picture_is_taken() {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 2, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[1, 2]).unwrap();
    writer.write_image_data(&[3, 4]).unwrap();
    writer.finish().unwrap();
    assert!(header(&out, Path::new("a.png")).unwrap().several);
    assert_eq!(bytes_of(&decode(&out, Path::new("a.png")).unwrap()), [1, 2]);
}

#[test]
fn interlaced_pngs_are_put_together() {
    // 2x2 in Adam7: the passes 1, 6 and 7 hold the pixels (0, 0), (0, 1) and the row below; each
    // row begins with its filter.
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], content: &[u8]| {
        let body = [name.as_slice(), content].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        out.extend((content.len() as u32).to_be_bytes());
        out.extend(body);
        out.extend(crc.sum().to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 1]);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &[0, 10, 0, 20, 0, 30, 40]).unwrap();
    chunk(b"IDAT", &packed.finish().unwrap());
    chunk(b"IEND", &[]);
    assert_eq!(bytes_of(&decode(&out, Path::new("a.png")).unwrap()), [10, 20, 30, 40]);
}

#[test]
fn progressive_and_subsampled_jpegs_and_four_inks() {
    use jpeg_encoder::{ColorType, SamplingFactor};
    for (height, width) in [(1, 1), (7, 9), (16, 16), (33, 50), (64, 17)] {
        let gradient: Vec<u8> =
            (0..height * width).flat_map(|i| [i % width, i / width, 30].map(|v| (v * 3) as u8)).collect();
        for factor in
            [SamplingFactor::F_1_1, SamplingFactor::F_2_2, SamplingFactor::F_2_1, SamplingFactor::F_4_1]
        {
            for (progressive, restart) in [(false, 0), (true, 0), (false, 2), (true, 3)] {
                let mut out = Vec::new();
                let mut encoder = jpeg_encoder::Encoder::new(&mut out, 95);
                encoder.set_progressive(progressive);
                encoder.set_sampling_factor(factor);
                encoder.set_restart_interval(restart);
                encoder.encode(&gradient, width as u16, height as u16, ColorType::Rgb).unwrap();
                let what = format!("{height}x{width} {factor:?} {progressive} {restart}");
                let raw = decode(&out, Path::new("a.jpg")).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!((raw.height, raw.width, raw.channels), (height, width, 3), "{what}");
            }
        }
    }
    // Cyan 200 of 255 leaves red 55 of 255, and black 51 takes a fifth of each: in inks as in
    // light. Rounding and quantisation at quality 95 change a value by a few units.
    for colour in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        let bytes = jpeg(16, 16, &[200, 0, 100, 51].repeat(256), colour);
        let raw = decode(&bytes, Path::new("a.jpg")).unwrap();
        assert_eq!(raw.channels, 3);
        let near = |p: &[u8]| p.iter().zip([44, 204, 124]).all(|(a, b)| a.abs_diff(b) <= 6);
        assert!(bytes_of(&raw).chunks(3).all(near), "{colour:?}: {:?}", &bytes_of(&raw)[..3]);
        // Without Adobe's marker nobody knows whether the inks are inverted.
        let at = bytes.windows(5).position(|five| five == b"Adobe").unwrap();
        let mut unmarked = bytes.clone();
        unmarked[at] = b'B';
        let error = decode(&unmarked, Path::new("a.jpg")).unwrap_err().to_string();
        assert!(error.contains("four inks (CMYK)"), "{error}");
    }
}

#[test]
fn jpegs_decode_to_nearly_what_was_encoded() {
    let gradient: Vec<u8> = (0..48u32 * 32).map(|i| (i % 48 * 5) as u8).collect();
    let bytes = jpeg(48, 32, &gradient, jpeg_encoder::ColorType::Luma);
    let raw = decode(&bytes, Path::new("a.jpg")).unwrap();
    assert_eq!((raw.height, raw.width, raw.channels), (32, 48, 1));
    // At quality 95 the quantisation steps of low frequencies are at most 2 and of the highest
    // 12 of 255.
    assert!(bytes_of(&raw).iter().zip(&gradient).all(|(a, b)| a.abs_diff(*b) <= 6));
    let colour = jpeg(16, 16, &[200, 30, 60].repeat(256), jpeg_encoder::ColorType::Rgb);
    let raw = decode(&colour, Path::new("a.jpg")).unwrap();
    let seen = header(&colour, Path::new("a.jpg")).unwrap();
    assert_eq!((seen.height, seen.width, seen.channels, seen.deep), (16, 16, 3, false));
    assert!(
        bytes_of(&raw)
            .chunks(3)
            .all(|p| p[0].abs_diff(200) <= 4 && p[1].abs_diff(30) <= 4 && p[2].abs_diff(60) <= 4)
    );
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
    let pixels = bytes_of(&raw);
    assert!(pixels[0] < 20 && pixels[23 * 8] > 200, "the dark left edge is now on top");
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
    assert_eq!(bytes_of(&decode(&bytes, Path::new("whole.png")).unwrap()), pixels);
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

/// An end marker makes a file whole to the eye: only its data say that something is missing.
#[test]
fn a_jpeg_cut_off_before_its_end_marker_is_noticed() {
    use jpeg_encoder::{ColorType, SamplingFactor};
    let noise: Vec<u8> = (0..48u32 * 40 * 3).map(|i| (i * i % 251) as u8).collect();
    for (progressive, sampling, restart) in [
        (false, SamplingFactor::F_1_1, 0),
        (false, SamplingFactor::F_2_2, 0),
        (false, SamplingFactor::F_1_1, 3),
        (true, SamplingFactor::F_1_1, 0),
    ] {
        let mut whole = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut whole, 90);
        encoder.set_sampling_factor(sampling);
        encoder.set_progressive(progressive);
        if restart > 0 {
            encoder.set_restart_interval(restart);
        }
        encoder.encode(&noise, 48, 40, ColorType::Rgb).unwrap();
        decode(&whole, Path::new("whole.jpg")).unwrap();
        let scan = whole.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
        // Scans that are missing altogether only leave out detail.
        let first = if progressive { scan + 300 } else { whole.len() - 20 };
        // After the last restart marker, nothing counts.
        let last = if restart > 0 { first / 2 } else { first };
        for length in [scan + 40, (scan + first) / 2, last] {
            let cut = [&whole[..length], &[0xFF, 0xD9]].concat();
            let error = decode(&cut, Path::new("cut.jpg")).map(drop).unwrap_err().to_string();
            assert!(error.contains("cannot be decoded"), "{progressive} {restart} {length}: {error}");
        }
        // Bytes after the end marker are of the camera.
        decode(&[&whole[..], b"\0\0more\xFF\xD9"].concat(), Path::new("more.jpg")).unwrap();
    }
    // Of one colour, so that the last rows are a few bits.
    decode(&jpeg(64, 64, &[255; 64 * 64], ColorType::Luma), Path::new("white.jpg")).unwrap();
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

#[test]
fn a_transparent_colour_of_16_bits_is_matched_in_all_of_them() {
    use png::{BitDepth, ColorType};
    let gray = png_of(2, BitDepth::Sixteen, ColorType::Grayscale, &[0x12, 0x34, 0x12, 0x35]);
    let keyed = with_chunk(&gray, *b"tRNS", &[0x12, 0x34]);
    assert_eq!(decode(&keyed, Path::new("a")).unwrap().pixels, Pixels::Bits16(vec![0xFFFF, 0x1235]));
    let colour = png_of(2, BitDepth::Sixteen, ColorType::Rgb, &[0, 1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 4]);
    let keyed = with_chunk(&colour, *b"tRNS", &[0, 1, 0, 2, 0, 3]);
    let white = [0xFFFF; 3].into_iter().chain([1, 2, 4]).collect();
    assert_eq!(decode(&keyed, Path::new("a")).unwrap().pixels, Pixels::Bits16(white));
    let bit = png_of(2, BitDepth::One, ColorType::Grayscale, &[0b0100_0000]);
    let keyed = with_chunk(&bit, *b"tRNS", &[0, 0]);
    assert_eq!(bytes_of(&decode(&keyed, Path::new("a")).unwrap()), [255, 255], "black is transparent");
}

#[test]
fn jpegs_of_other_processes_are_errors() {
    let pixels: Vec<u8> = (0..64 * 64u32).map(|i| (i * 7919 % 256) as u8).collect();
    for progressive in [false, true] {
        let mut whole = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut whole, 90);
        encoder.set_progressive(progressive);
        encoder.encode(&pixels, 64, 64, jpeg_encoder::ColorType::Luma).unwrap();
        decode(&whole, Path::new("a.jpg")).unwrap();
        let marker = if progressive { 0xC2 } else { 0xC0 };
        let frame = whole.windows(2).position(|two| two == [0xFF, marker]).unwrap();
        // 12 bits a value; lossless; hierarchical; arithmetic coding (ITU-T T.81, table B.1).
        for (at, value) in [(4, 12), (1, 0xC3), (1, 0xC5), (1, 0xC9), (1, 0xCA)] {
            let mut other = whole.clone();
            other[frame + at] = value;
            let other = decode(&other, Path::new("a.jpg")).map(|_| "decoded");
            assert!(matches!(other, Err(DataError::BadImage { .. })), "{at} {value:x}: {other:?}");
        }
    }
}

/// A segment's length counts its own two bytes, so that none is shorter.
#[test]
fn a_segment_of_a_jpeg_without_a_length_is_refused() {
    for length in [0, 1] {
        let bytes = [&[0xFF, 0xD8, 0xFF, 0xE0, 0, length][..], &[0; 16]].concat();
        let said = header(&bytes, Path::new("a.jpg")).unwrap_err().to_string();
        assert!(said.contains("the segment at byte 2 has a length below 2"), "{said}");
    }
}
