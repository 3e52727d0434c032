//! PBM, PGM and PPM files, plain and raw, of any greatest value: the `pbm(5)`, `pgm(5)` and
//! `ppm(5)` pages of Netpbm. Crates that read them leave out the plain forms and do not scale by
//! the greatest value.

use super::{File, Header, MAX_BYTES};
use crate::error::DataError;
use crate::images::pixels::{Level, Pixels};

/// Most digits of a number; of a bit in the plain form, one.
const NUMBER: usize = 9;

/// What the magic number says.
#[derive(Clone, Copy)]
struct Form {
    channels: usize,
    /// Numbers as text.
    plain: bool,
    /// One bit a pixel, of which 1 is black.
    bits: bool,
}

/// The text before the values.
struct Size {
    width: usize,
    height: usize,
    /// The greatest value.
    most: u32,
    /// Numbers in all.
    count: usize,
}

/// Height and width of the first image of a file, whose values are not looked at.
pub(super) fn size(file: File<'_>) -> Result<(usize, usize), DataError> {
    let Size { width, height, .. } = Text { file, at: 2 }.size(form(file))?;
    Ok((height, width))
}

fn form(file: File<'_>) -> Form {
    match file.bytes.get(1) {
        Some(b'1') => Form { channels: 1, plain: true, bits: true },
        Some(b'2') => Form { channels: 1, plain: true, bits: false },
        Some(b'3') => Form { channels: 3, plain: true, bits: false },
        Some(b'4') => Form { channels: 1, plain: false, bits: true },
        Some(b'5') => Form { channels: 1, plain: false, bits: false },
        _ => Form { channels: 3, plain: false, bits: false },
    }
}

/// Decodes the first image of a file.
pub(super) fn decode(file: File<'_>) -> Result<(Header, Pixels), DataError> {
    let form = form(file);
    let mut text = Text { file, at: 2 };
    let Size { width, height, most, count } = text.size(form)?;
    let digits = if form.bits { 1 } else { NUMBER };
    let values = match form.plain {
        true => (0..count).map(|_| text.number(digits)).collect::<Result<Vec<u32>, _>>()?,
        false => text.raw(form, (width, height), most)?,
    };
    if let Some(value) = values.iter().find(|&&value| value > most) {
        return Err(file.bad(format!("the value {value} is above its greatest value, {most}")));
    }
    let deep = most > 255;
    let pixels = match deep {
        true => Pixels::Bits16(scaled(&values, most, form)),
        false => Pixels::Bits8(scaled(&values, most, form)),
    };
    let several = !form.plain && text.at + 2 < file.bytes.len();
    let channels = form.channels;
    Ok((Header { height, width, channels, deep, transparent: false, several }, pixels))
}

/// Shares of the greatest value as shares of white, rounded; no two become one.
fn scaled<T: Level>(values: &[u32], most: u32, form: Form) -> Vec<T> {
    let most = u64::from(most);
    let share = |value: u32| (u64::from(value) * u64::from(T::WHITE) + most / 2) / most;
    values.iter().map(|&value| T::of(share(if form.bits { 1 - value } else { value }) as u32)).collect()
}

struct Text<'a> {
    file: File<'a>,
    at: usize,
}

impl Text<'_> {
    fn size(&mut self, form: Form) -> Result<Size, DataError> {
        let (width, height) = (self.number(NUMBER)? as usize, self.number(NUMBER)? as usize);
        let most = if form.bits { 1 } else { self.number(NUMBER)? };
        let count = width.checked_mul(height).and_then(|n| n.checked_mul(form.channels));
        match count.filter(|&n| n > 0 && n <= MAX_BYTES && (1..=65_535).contains(&most)) {
            Some(count) => Ok(Size { width, height, most, count }),
            None => Err(self.file.bad(format!("its size is {width}x{height} and its greatest value {most}"))),
        }
    }

    /// The next number, past blanks and comments, of so many digits at most.
    fn number(&mut self, digits: usize) -> Result<u32, DataError> {
        let bytes = self.file.bytes;
        loop {
            match bytes.get(self.at) {
                Some(b'#') => {
                    let rest = &bytes[self.at..];
                    self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
                }
                Some(byte) if byte.is_ascii_whitespace() => self.at += 1,
                Some(_) => break,
                None => return Err(self.file.truncated(Some(bytes.len() + 1))),
            }
        }
        let digits = bytes[self.at..].iter().take(digits).take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Err(self.file.bad(format!("no number at byte {}", self.at)));
        }
        let digits = &bytes[self.at..self.at + digits];
        self.at += digits.len();
        Ok(digits.iter().fold(0, |number, digit| 10 * number + u32::from(digit - b'0')))
    }

    /// The values behind the one blank that ends the header; rows of bits end with a whole byte,
    /// values above 255 take two bytes.
    fn raw(&mut self, form: Form, (width, height): (usize, usize), most: u32) -> Result<Vec<u32>, DataError> {
        let start = self.at + 1;
        let row = match (form.bits, most > 255) {
            (true, _) => width.div_ceil(8),
            (false, deep) => width * form.channels * if deep { 2 } else { 1 },
        };
        let end = start + row * height;
        let Some(bytes) = self.file.bytes.get(start..end) else { return Err(self.file.truncated(Some(end))) };
        self.at = end;
        Ok(if form.bits {
            let bit = |row: &[u8], x: usize| u32::from(row[x / 8] >> (7 - x % 8) & 1);
            bytes.chunks_exact(row).flat_map(|row| (0..width).map(move |x| bit(row, x))).collect()
        } else if most > 255 {
            bytes.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).collect()
        } else {
            bytes.iter().map(|&byte| byte.into()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn decoded(bytes: &[u8]) -> Result<(Header, Pixels), DataError> {
        decode(File { bytes, path: Path::new("a.pgm") })
    }

    #[test]
    fn every_form_and_greatest_value() {
        let bits8 = |values: &[u8]| Pixels::Bits8(values.to_vec());
        for (bytes, size, pixels) in [
            (b"P1\n# bits\n3 2\n1 0 1\n010".as_slice(), (2, 3, 1), bits8(&[0, 255, 0, 255, 0, 255])),
            (b"P4 3 2\n\xA0\x40", (2, 3, 1), bits8(&[0, 255, 0, 255, 0, 255])),
            (b"P2\n2 1 # wide\n15\n0 15\n", (1, 2, 1), bits8(&[0, 255])),
            (b"P3 1 1 255 1 2 3", (1, 1, 3), bits8(&[1, 2, 3])),
            (b"P5 2 1 255\n\x07\x09", (1, 2, 1), bits8(&[7, 9])),
            (b"P5 2 1 100\n\x32\x64", (1, 2, 1), bits8(&[128, 255])),
            (b"P6\n1 1\n255\n\x01\x02\x03", (1, 1, 3), bits8(&[1, 2, 3])),
            (b"P5 2 1 65535\n\x12\x34\x12\x35", (1, 2, 1), Pixels::Bits16(vec![0x1234, 0x1235])),
            (b"P2 3 1 4095 0 2048 4095", (1, 3, 1), Pixels::Bits16(vec![0, 32_776, 65_535])),
        ] {
            let (header, found) = decoded(bytes).unwrap_or_else(|e| panic!("{}: {e}", bytes.escape_ascii()));
            assert_eq!((header.height, header.width, header.channels), size, "{}", bytes.escape_ascii());
            assert_eq!(found, pixels, "{}", bytes.escape_ascii());
        }
        assert!(decoded(b"P5 1 1 255\n\x07P5 1 1 255\n\x09").unwrap().0.several);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let whole = b"P6 2 2 300\n\0\x01\0\x02\0\x03\0\x01\0\x02\0\x03\0\x01\0\x02\0\x03\0\x01\0\x02\0\x03";
        assert!(decoded(whole).is_ok());
        for keep in 3..whole.len() {
            assert!(decoded(&whole[..keep]).is_err(), "{keep} bytes");
        }
        for bytes in [
            b"P5 0 1 255\n".as_slice(),
            b"P5 1 1 0\n\0",
            b"P5 1 1 65536\n\0\0",
            b"P5 999999999 999999999 255\n\0",
            b"P5 2 1 100\n\x32\x65",
            b"P2 2 1 255 1 x",
            b"P1 2 1 1 2",
        ] {
            assert!(decoded(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
