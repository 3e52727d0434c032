//! Sets of images of one size, as bytes, and how they become normalised floats.

pub(crate) mod augment;
pub(crate) mod decode;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod pixels;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::spec::{Channels, ImageOptions, Normalise};
use augment::View;

/// N labelled images of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// `[N, height, width, channels]`, row-major, 0..=255.
    pub pixels: Vec<u8>,
    /// `[N]`, class indices.
    pub labels: Vec<u32>,
}

impl ImageSet {
    /// Bytes of one image.
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The bytes of one image, `[height, width, channels]`.
    ///
    /// # Panics
    /// If `index` is not less than the number of labels.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.image_len()..][..self.image_len()]
    }

    /// Height, width and channels.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }

    /// The images at these places, in this order.
    ///
    /// # Panics
    /// If a place is not less than the number of labels.
    pub fn select(&self, indices: &[u32]) -> ImageSet {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_len());
        indices.iter().for_each(|&i| pixels.extend_from_slice(self.image(i as usize)));
        let labels = indices.iter().map(|&i| self.labels[i as usize]).collect();
        ImageSet { pixels, labels, ..*self }
    }

    /// Every image with the size and channels that the options ask for.
    pub(crate) fn convert(self, options: &ImageOptions) -> ImageSet {
        let (height, width) = options.resize.unwrap_or((self.height, self.width));
        let channels = options.channels.map_or(self.channels, Channels::count);
        if (height, width, channels) == (self.height, self.width, self.channels) {
            return self;
        }
        let mut pixels = Vec::with_capacity(self.labels.len() * height * width * channels);
        for index in 0..self.labels.len() {
            let raw = pixels::Raw {
                height: self.height,
                width: self.width,
                channels: self.channels,
                pixels: self.image(index).to_vec(),
            };
            pixels.extend(raw.with_channels(channels).resized(height, width).pixels);
        }
        ImageSet { height, width, channels, pixels, labels: self.labels }
    }
}

/// What turns an image into the floats the model was trained on; stored with the model.
///
/// The steps, in order: EXIF orientation, 8 bits per channel, transparent pixels laid on white,
/// gray or colour as the model has it, bilinear resizing to the model's size,
/// `(value / 255 - mean) / std` per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePreprocessing {
    height: usize,
    width: usize,
    channels: usize,
    /// Mean of each channel, of pixels scaled to 0..1.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, of pixels scaled to 0..1.
    pub std: Vec<f64>,
    /// Names of the classes, in the order of their indices.
    pub classes: Vec<String>,
}

impl ImagePreprocessing {
    /// Fits what the options leave open on the train images.
    pub(crate) fn fit(
        train: &ImageSet,
        classes: Vec<String>,
        normalise: &Normalise,
    ) -> Result<Self, DataError> {
        let (mean, std) = match normalise {
            Normalise::Fit => statistics(train),
            Normalise::Given { mean, std } if mean.len() == train.channels => (mean.clone(), std.clone()),
            Normalise::Given { mean, .. } => {
                let message =
                    format!("{} number(s), but the images have {} channel(s)", mean.len(), train.channels);
                return Err(crate::spec::SpecError::at("mean", message).into());
            }
        };
        Ok(ImagePreprocessing {
            height: train.height,
            width: train.width,
            channels: train.channels,
            mean,
            std,
            classes,
        })
    }

    /// Reads a PNG or JPEG file of any size: `[height, width, channels]`, normalised.
    ///
    /// # Errors
    /// A missing, truncated or undecodable file, or another format.
    pub fn image_from_path(&self, path: &Path) -> Result<Vec<f32>, DataError> {
        let bytes = crate::files::read(path)?;
        self.image_from_bytes(&bytes, path)
    }

    /// As [`image_from_path`](Self::image_from_path), from the bytes of a file; `name` is for error
    /// messages.
    ///
    /// # Errors
    /// If the bytes are truncated, cannot be decoded, or are of another format.
    pub fn image_from_bytes(&self, bytes: &[u8], name: &Path) -> Result<Vec<f32>, DataError> {
        let raw = decode::decode(bytes, name)?.with_channels(self.channels).resized(self.height, self.width);
        let mut out = vec![0.0; raw.pixels.len()];
        self.pixel_values().write(&raw.pixels, &mut out);
        Ok(out)
    }

    pub(crate) fn check(&self) -> Result<(), DataError> {
        let ImagePreprocessing { height, width, channels, mean, std, .. } = self;
        let statistics = mean.len() == *channels && std.len() == *channels;
        let finite = mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0);
        let sides = (1..=1 << 16).contains(height) && (1..=1 << 16).contains(width);
        if sides && matches!(channels, 1 | 3) && statistics && finite {
            return Ok(());
        }
        let reason =
            format!("{height}x{width} images of {channels} channels with mean {mean:?} and std {std:?}");
        Err(DataError::BadPreprocessing { reason })
    }

    pub(crate) fn pixel_values(&self) -> PixelValues {
        let value = |byte: usize, c: usize| ((byte as f64 / 255.0 - self.mean[c]) / self.std[c]) as f32;
        let tables = (0..self.channels).map(|c| std::array::from_fn(|byte| value(byte, c))).collect();
        PixelValues { tables }
    }
}

/// The float of each byte, per channel: normalisation in f64, rounded once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PixelValues {
    tables: Vec<[f32; 256]>,
}

impl PixelValues {
    /// `pixels` and `out` are `[.., channels]` of one length.
    fn write(&self, pixels: &[u8], out: &mut [f32]) {
        match self.tables.as_slice() {
            [gray] => out.iter_mut().zip(pixels).for_each(|(value, &byte)| *value = gray[usize::from(byte)]),
            tables => {
                for (pixel, values) in
                    pixels.chunks_exact(tables.len()).zip(out.chunks_exact_mut(tables.len()))
                {
                    for ((value, &byte), table) in values.iter_mut().zip(pixel).zip(tables) {
                        *value = table[usize::from(byte)];
                    }
                }
            }
        }
    }
}

/// Images ready to be drawn in batches.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSamples {
    /// The images as bytes.
    pub set: ImageSet,
    pub(crate) values: PixelValues,
    pub(crate) augment: crate::spec::Augment,
}

impl ImageSamples {
    /// One image, `[height, width, channels]`, changed as `view` says, normalised.
    pub(crate) fn write(&self, index: u32, view: View, out: &mut [f32]) {
        let image = self.set.image(index as usize);
        if view == View::AS_IT_IS {
            self.values.write(image, out);
            return;
        }
        let ImageSet { height, width, channels, .. } = self.set;
        for (y, row) in out.chunks_exact_mut(width * channels).enumerate() {
            let source = &image[view.row(y, height) * width * channels..][..width * channels];
            for (x, values) in row.chunks_exact_mut(channels).enumerate() {
                let pixel = &source[view.column(x, width) * channels..][..channels];
                for ((value, &byte), table) in values.iter_mut().zip(pixel).zip(&self.values.tables) {
                    *value = table[usize::from(byte)];
                }
            }
        }
    }
}

/// Mean and population standard deviation of each channel, of pixels scaled to 0..1. Sums are of
/// integers, so exact. A channel that never changes gets a standard deviation of 1.
fn statistics(set: &ImageSet) -> (Vec<f64>, Vec<f64>) {
    let mut counts = vec![[0u64; 256]; set.channels];
    for pixel in set.pixels.chunks_exact(set.channels) {
        for (c, &byte) in pixel.iter().enumerate() {
            counts[c][usize::from(byte)] += 1;
        }
    }
    counts
        .iter()
        .map(|count| {
            let moment = |power: u32| -> u128 {
                (0u128..256).zip(count).map(|(byte, &n)| byte.pow(power) * u128::from(n)).sum()
            };
            let (n, sum, squares) = (moment(0), moment(1), moment(2));
            // n² times the variance, an integer: nothing cancels.
            let spread = n * squares - sum * sum;
            let std = (spread as f64).sqrt() / n as f64 / 255.0;
            (sum as f64 / n as f64 / 255.0, if spread == 0 { 1.0 } else { std })
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pixels: Vec<u8>, channels: usize) -> ImageSet {
        ImageSet { height: 1, width: pixels.len() / channels, channels, pixels, labels: vec![0] }
    }

    #[test]
    fn statistics_of_known_pixels() {
        let (mean, std) = statistics(&set(vec![0, 51, 255, 51], 2));
        // Exact values rounded once or twice in f64.
        assert!((mean[0] - 0.5).abs() < 1e-15 && (std[0] - 0.5).abs() < 1e-15);
        assert!((mean[1] - 0.2).abs() < 1e-15);
        assert_eq!(std[1], 1.0, "a constant channel is not divided by zero");
    }

    #[test]
    fn normalised_train_pixels_have_mean_0_and_variance_1() {
        let pixels: Vec<u8> = (0..3000u32).map(|i| (i * i % 251) as u8).collect();
        let set = set(pixels, 3);
        let fitted = ImagePreprocessing::fit(&set, vec![], &Normalise::Fit).unwrap();
        let mut out = vec![0.0; 3000];
        fitted.pixel_values().write(&set.pixels, &mut out);
        for c in 0..3 {
            let values: Vec<f64> = out.iter().skip(c).step_by(3).map(|&v| f64::from(v)).collect();
            let mean = values.iter().sum::<f64>() / 1000.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1000.0;
            // Each |value| < 2 and is rounded once to f32: error below 2 * 2^-24 each, and so of
            // the mean; of the variance below 2 * 2 * that.
            assert!(mean.abs() < 2.0_f64.powi(-22), "mean {mean}");
            assert!((variance - 1.0).abs() < 2.0_f64.powi(-20), "variance {variance}");
        }
    }
}
