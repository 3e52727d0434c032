//! How a camera was held: pictures are turned as EXIF data ask.

use super::pixels::{Pixels, Raw, each_depth};

/// How the stored picture is to be turned: the EXIF tag 0x0112, 1 to 8 (EXIF 2.32, 4.6.4 A).
/// Telephones write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation(u8);

impl Orientation {
    pub(crate) const AS_STORED: Orientation = Orientation(1);

    /// Finds the tag in the first directory of the TIFF structure that EXIF data are; anything
    /// amiss counts as no tag.
    pub(crate) fn of(exif: &[u8]) -> Orientation {
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

    pub(crate) fn swaps_sides(self) -> bool {
        self.0 >= 5
    }

    pub(crate) fn apply(self, raw: Raw) -> Raw {
        if self == Self::AS_STORED {
            return raw;
        }
        let (height, width) = match self.swaps_sides() {
            true => (raw.width, raw.height),
            false => (raw.height, raw.width),
        };
        let pixels = each_depth!(&raw.pixels, values => self.turned(values, &raw));
        Raw { height, width, channels: raw.channels, pixels }
    }

    /// `pixels` are those of `raw`.
    fn turned<T: Copy>(self, pixels: &[T], raw: &Raw) -> Vec<T> {
        let (h, w) = (raw.height, raw.width);
        let (height, width) = if self.swaps_sides() { (w, h) } else { (h, w) };
        let mut turned = Vec::with_capacity(pixels.len());
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
                turned.extend_from_slice(&pixels[(from_y * w + from_x) * raw.channels..][..raw.channels]);
            }
        }
        turned
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// EXIF data with one tag.
    pub(crate) fn exif(little: bool, tag: u16, value: u16) -> Vec<u8> {
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
    fn exif_turns_pictures() {
        let raw = || Raw { height: 2, width: 3, channels: 1, pixels: Pixels::Bits8(vec![1, 2, 3, 4, 5, 6]) };
        let turned = |value| Orientation(value).apply(raw());
        let values = |value| turned(value).pixels.bytes().into_owned();
        assert_eq!(values(3), [6, 5, 4, 3, 2, 1]);
        // 6: the camera was held upright, the top of the scene is at the right edge of the stored
        // rows.
        assert_eq!((turned(6).height, turned(6).width, values(6)), (3, 2, vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(values(8), [3, 6, 2, 5, 1, 4]);
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
}
