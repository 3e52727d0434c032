//! Values of pixels in 8 or 16 bits; one image in memory: colour, gray and another size.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The value of one pixel in one channel.
pub(crate) trait Level: Copy + Ord {
    /// White: the greatest value.
    const WHITE: u32;

    fn value(self) -> u32;

    /// `value` is at most [`WHITE`](Self::WHITE).
    fn of(value: u32) -> Self;
}

impl Level for u8 {
    const WHITE: u32 = 255;

    fn value(self) -> u32 {
        self.into()
    }

    fn of(value: u32) -> u8 {
        value as u8
    }
}

impl Level for u16 {
    const WHITE: u32 = 65_535;

    fn value(self) -> u32 {
        self.into()
    }

    fn of(value: u32) -> u16 {
        value as u16
    }
}

/// Values of pixels, each as stored: black is 0, white 255 or 65,535.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Of 8 bits.
    Bits8(Vec<u8>),
    /// Of 16 bits.
    Bits16(Vec<u16>),
}

/// A number that two images share only if they are equal, but for a chance of 2^-64. Within one run
/// of the program alone.
pub(crate) fn pixel_hash<T: Hash>(values: &[T]) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

/// The same expression for both kinds of values.
macro_rules! each_depth {
    ($pixels:expr, $values:ident => $make:expr) => {
        match $pixels {
            Pixels::Bits8($values) => Pixels::Bits8($make),
            Pixels::Bits16($values) => Pixels::Bits16($make),
        }
    };
}
pub(crate) use each_depth;

impl Pixels {
    /// Number of values.
    #[allow(clippy::len_without_is_empty)] // a set of images is never empty
    pub fn len(&self) -> usize {
        match self {
            Pixels::Bits8(values) => values.len(),
            Pixels::Bits16(values) => values.len(),
        }
    }

    /// The value that is white: 255 or 65,535.
    pub fn white(&self) -> u32 {
        match self {
            Pixels::Bits8(_) => u8::WHITE,
            Pixels::Bits16(_) => u16::WHITE,
        }
    }

    /// The first values, from 0 (black) to 1 (white).
    ///
    /// # Panics
    /// If there are fewer than `count`.
    pub fn shares(&self, count: usize) -> Vec<f32> {
        match self {
            Pixels::Bits8(values) => values[..count].iter().map(|&v| f32::from(v) / 255.0).collect(),
            Pixels::Bits16(values) => values[..count].iter().map(|&v| f32::from(v) / 65_535.0).collect(),
        }
    }

    /// Makes one value white.
    ///
    /// # Panics
    /// If `at` is not less than the number of values.
    pub fn whiten(&mut self, at: usize) {
        match self {
            Pixels::Bits8(values) => values[at] = u8::MAX,
            Pixels::Bits16(values) => values[at] = u16::MAX,
        }
    }

    /// In 16 bits: 0 to 255 become 0 to 65,535, each the same share of white (255 · 257 = 65,535).
    pub(crate) fn widened(self) -> Vec<u16> {
        match self {
            Pixels::Bits8(values) => values.iter().map(|&v| u16::from(v) * 257).collect(),
            Pixels::Bits16(values) => values,
        }
    }

    pub(crate) fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Pixels::Bits8(values) => values.into(),
            Pixels::Bits16(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// 1 or 3.
    pub(crate) channels: usize,
    /// `[height, width, channels]`
    pub(crate) pixels: Pixels,
}

impl Raw {
    /// Gray to colour repeats the value; colour to gray takes the luminance (ITU-R BT.709),
    /// rounded.
    pub(crate) fn with_channels(self, channels: usize) -> Raw {
        let pixels = match (self.channels, channels) {
            (1, 3) => each_depth!(self.pixels, values => values.iter().flat_map(|&gray| [gray; 3]).collect()),
            (3, 1) => each_depth!(self.pixels, values => values.chunks_exact(3).map(luminance).collect()),
            _ => return self,
        };
        Raw { channels, pixels, ..self }
    }

    /// Bilinear, with the filter widened by the factor when shrinking (so that nothing aliases).
    /// Pixel centres are at halves.
    pub(crate) fn resized(self, height: usize, width: usize) -> Raw {
        if (height, width) == (self.height, self.width) {
            return self;
        }
        let from = (self.height, self.width, self.channels);
        let pixels = each_depth!(&self.pixels, values => resized(values, from, (height, width)));
        Raw { height, width, channels: self.channels, pixels }
    }
}

fn luminance<T: Level>(colour: &[T]) -> T {
    let weighted = 2126 * colour[0].value() + 7152 * colour[1].value() + 722 * colour[2].value();
    T::of((weighted + 5000) / 10_000)
}

/// As [`Raw::resized`]; `from` is height, width and channels.
fn resized<T: Level>(
    pixels: &[T],
    (from_height, from_width, channels): (usize, usize, usize),
    (height, width): (usize, usize),
) -> Vec<T> {
    let row = from_width * channels;
    let vertical = taps(from_height, height);
    let horizontal = taps(from_width, width);
    let mut out = Vec::with_capacity(height * width * channels);
    let mut blended = vec![0.0f32; row];
    for tap in &vertical {
        blended.fill(0.0);
        for (i, &weight) in tap.weights.iter().enumerate() {
            let source = &pixels[(tap.start + i) * row..][..row];
            blended.iter_mut().zip(source).for_each(|(sum, level)| *sum += weight * level.value() as f32);
        }
        for tap in &horizontal {
            for c in 0..channels {
                let source = blended[tap.start * channels + c..].iter().step_by(channels);
                let value: f32 = tap.weights.iter().zip(source).map(|(weight, value)| weight * value).sum();
                out.push(T::of(value.round().clamp(0.0, T::WHITE as f32) as u32));
            }
        }
    }
    out
}

/// The source pixels that one target pixel blends, and their weights, which add up to 1.
struct Tap {
    start: usize,
    weights: Vec<f32>,
}

/// A triangle filter for each of `to` pixels made from `from`.
fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let tap = |target: usize| {
        let centre = (target as f64 + 0.5) * scale;
        let start = ((centre - reach).floor().max(0.0) as usize).min(from - 1);
        let end = ((centre + reach).ceil() as usize).clamp(start + 1, from);
        let weights: Vec<f64> =
            (start..end).map(|i| (1.0 - ((i as f64 + 0.5 - centre) / reach).abs()).max(0.0)).collect();
        let total: f64 = weights.iter().sum();
        Tap { start, weights: weights.iter().map(|w| (w / total) as f32).collect() }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gray(height: usize, width: usize, pixels: Vec<u8>) -> Raw {
        Raw { height, width, channels: 1, pixels: Pixels::Bits8(pixels) }
    }

    fn bytes(raw: Raw) -> Vec<u8> {
        match raw.pixels {
            Pixels::Bits8(values) => values,
            Pixels::Bits16(values) => panic!("{} values of 16 bits", values.len()),
        }
    }

    proptest! {
        #[test]
        fn resizing_to_the_same_size_changes_nothing(
            height in 1usize..12, width in 1usize..12, colour: bool, salt: u8,
        ) {
            let channels = if colour { 3 } else { 1 };
            let pixels: Vec<u8> = (0..height * width * channels).map(|i| (i as u8).wrapping_mul(salt)).collect();
            let raw = Raw { height, width, channels, pixels: Pixels::Bits8(pixels) };
            prop_assert_eq!(raw.clone().resized(height, width), raw.clone());
            // The filter itself, not only the short cut, is the identity at equal sizes.
            for (i, tap) in taps(height, height).iter().enumerate() {
                prop_assert_eq!(tap.weights[i - tap.start], 1.0);
            }
        }

        #[test]
        fn a_constant_image_stays_constant(from in 1usize..40, to in 1usize..40, value: u8) {
            let raw = gray(from, from + 3, vec![value; from * (from + 3)]);
            prop_assert_eq!(bytes(raw.resized(to, to + 1)), vec![value; to * (to + 1)]);
        }

        #[test]
        fn mirroring_and_resizing_can_be_swapped(width in 1usize..20, to in 1usize..20, seed: u8) {
            let pixels: Vec<u8> = (0..width).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let mirrored: Vec<u8> = pixels.iter().rev().copied().collect();
            let a = bytes(gray(1, width, mirrored).resized(1, to));
            let b = bytes(gray(1, width, pixels).resized(1, to));
            // Sums of at most 40 products of f32, in another order: they may round to the
            // neighbouring byte.
            prop_assert!(a.iter().zip(b.iter().rev()).all(|(a, b)| a.abs_diff(*b) <= 1), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn enlarging_by_two_interpolates() {
        let raw = gray(1, 2, vec![0, 200]);
        // Centres at 1/4, 3/4, 5/4, 7/4 of the source, whose own are at 1/2 and 3/2.
        assert_eq!(bytes(raw.resized(1, 4)), [0, 50, 150, 200]);
        let fine = Raw { height: 1, width: 2, channels: 1, pixels: Pixels::Bits16(vec![1000, 1004]) };
        assert_eq!(fine.resized(1, 4).pixels, Pixels::Bits16(vec![1000, 1001, 1003, 1004]));
    }

    #[test]
    fn shrinking_by_two_averages() {
        // A checkerboard has no detail left at half size; nearest or plain bilinear sampling would
        // keep 0 or 255.
        let pixels: Vec<u8> = (0..64).map(|i| if (i / 8 + i % 8) % 2 == 0 { 0 } else { 255 }).collect();
        let half = bytes(gray(8, 8, pixels).resized(4, 4));
        assert!(half.iter().all(|&p| (100..=155).contains(&p)), "{half:?}");
    }

    #[test]
    fn gray_and_colour() {
        let two = gray(1, 2, vec![0, 200]);
        let colour = two.clone().with_channels(3);
        assert_eq!(bytes(colour.clone()), [0, 0, 0, 200, 200, 200]);
        assert_eq!(colour.with_channels(1), two);
        let primaries = vec![255, 0, 0, 0, 255, 0, 0, 0, 255];
        let primaries = Raw { height: 1, width: 3, channels: 3, pixels: Pixels::Bits8(primaries) };
        assert_eq!(bytes(primaries.with_channels(1)), [54, 182, 18]);
        let white = Raw { height: 1, width: 1, channels: 3, pixels: Pixels::Bits16(vec![65_535; 3]) };
        assert_eq!(white.with_channels(1).pixels, Pixels::Bits16(vec![65_535]));
    }

    #[test]
    fn widened_values_are_the_same_shares() {
        let all: Vec<u8> = (0..=255).collect();
        let (narrow, wide) = (Pixels::Bits8(all.clone()), Pixels::Bits16(Pixels::Bits8(all).widened()));
        assert_eq!(narrow.shares(256), wide.shares(256));
    }
}
