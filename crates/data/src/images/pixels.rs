//! One image in memory: colour, gray and another size.

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// 1 or 3.
    pub(crate) channels: usize,
    /// `[height, width, channels]`
    pub(crate) pixels: Vec<u8>,
}

impl Raw {
    /// Gray to colour repeats the value; colour to gray takes the luminance (ITU-R BT.709),
    /// rounded.
    pub(crate) fn with_channels(self, channels: usize) -> Raw {
        let pixels = match (self.channels, channels) {
            (1, 3) => self.pixels.iter().flat_map(|&gray| [gray; 3]).collect(),
            (3, 1) => {
                let luminance =
                    |p: &[u8]| 2126 * u32::from(p[0]) + 7152 * u32::from(p[1]) + 722 * u32::from(p[2]);
                self.pixels.chunks_exact(3).map(|p| ((luminance(p) + 5000) / 10_000) as u8).collect()
            }
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
        let (channels, row) = (self.channels, self.width * self.channels);
        let vertical = taps(self.height, height);
        let horizontal = taps(self.width, width);
        let mut pixels = Vec::with_capacity(height * width * channels);
        let mut blended = vec![0.0f32; row];
        for tap in &vertical {
            blended.fill(0.0);
            for (i, &weight) in tap.weights.iter().enumerate() {
                let source = &self.pixels[(tap.start + i) * row..][..row];
                blended.iter_mut().zip(source).for_each(|(sum, &byte)| *sum += weight * f32::from(byte));
            }
            for tap in &horizontal {
                for c in 0..channels {
                    let source = blended[tap.start * channels + c..].iter().step_by(channels);
                    let value: f32 =
                        tap.weights.iter().zip(source).map(|(weight, value)| weight * value).sum();
                    pixels.push(value.round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        Raw { height, width, channels, pixels }
    }
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

    proptest! {
        #[test]
        fn resizing_to_the_same_size_changes_nothing(
            height in 1usize..12, width in 1usize..12, colour: bool, salt: u8,
        ) {
            let channels = if colour { 3 } else { 1 };
            let pixels: Vec<u8> = (0..height * width * channels).map(|i| (i as u8).wrapping_mul(salt)).collect();
            let raw = Raw { height, width, channels, pixels };
            prop_assert_eq!(raw.clone().resized(height, width), raw.clone());
            // The filter itself, not only the short cut, is the identity at equal sizes.
            for (i, tap) in taps(height, height).iter().enumerate() {
                prop_assert_eq!(tap.weights[i - tap.start], 1.0);
            }
        }

        #[test]
        fn a_constant_image_stays_constant(from in 1usize..40, to in 1usize..40, value: u8) {
            let raw = Raw { height: from, width: from + 3, channels: 1, pixels: vec![value; from * (from + 3)] };
            prop_assert_eq!(raw.resized(to, to + 1).pixels, vec![value; to * (to + 1)]);
        }

        #[test]
        fn mirroring_and_resizing_can_be_swapped(width in 1usize..20, to in 1usize..20, seed: u8) {
            let pixels: Vec<u8> = (0..width).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let mirror = |mut raw: Raw| { raw.pixels.reverse(); raw };
            let raw = Raw { height: 1, width, channels: 1, pixels };
            let (a, b) = (mirror(raw.clone()).resized(1, to), mirror(raw.resized(1, to)));
            // Sums of at most 40 products of f32, in another order: they may round to the
            // neighbouring byte.
            prop_assert!(a.pixels.iter().zip(&b.pixels).all(|(a, b)| a.abs_diff(*b) <= 1), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn enlarging_by_two_interpolates() {
        let raw = Raw { height: 1, width: 2, channels: 1, pixels: vec![0, 200] };
        // Centres at 1/4, 3/4, 5/4, 7/4 of the source, whose own are at 1/2 and 3/2.
        assert_eq!(raw.resized(1, 4).pixels, [0, 50, 150, 200]);
    }

    #[test]
    fn shrinking_by_two_averages() {
        // A checkerboard has no detail left at half size; nearest or plain bilinear sampling would
        // keep 0 or 255.
        let pixels: Vec<u8> = (0..64).map(|i| if (i / 8 + i % 8) % 2 == 0 { 0 } else { 255 }).collect();
        let half = Raw { height: 8, width: 8, channels: 1, pixels }.resized(4, 4);
        assert!(half.pixels.iter().all(|&p| (100..=155).contains(&p)), "{:?}", half.pixels);
    }

    #[test]
    fn gray_and_colour() {
        let gray = Raw { height: 1, width: 2, channels: 1, pixels: vec![0, 200] };
        let colour = gray.clone().with_channels(3);
        assert_eq!(colour.pixels, [0, 0, 0, 200, 200, 200]);
        assert_eq!(colour.with_channels(1), gray);
        let primaries =
            Raw { height: 1, width: 3, channels: 3, pixels: vec![255, 0, 0, 0, 255, 0, 0, 0, 255] };
        assert_eq!(primaries.with_channels(1).pixels, [54, 182, 18]);
    }
}
