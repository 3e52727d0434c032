//! Sets of images of one size, as stored, and how they become normalised floats.

pub(crate) mod augment;
pub(crate) mod decode;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod kind;
pub(crate) mod layout;
mod orientation;
pub(crate) mod pixels;
pub(crate) mod remarks;
pub(crate) mod tree;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::spec::{Channels, ImageOptions, Normalise};
use augment::View;
pub use pixels::Pixels;
use pixels::{Level, Raw, each_depth};

/// N labelled images of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// `[N, height, width, channels]`, row-major.
    pub pixels: Pixels,
    /// `[N]`, class indices.
    pub labels: Vec<u32>,
}

impl ImageSet {
    /// Values of one image.
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The values of one image in 8 bits, `[height, width, channels]`; of 16 bits the upper 8.
    ///
    /// # Panics
    /// If `index` is not less than the number of labels.
    pub fn image_in_8_bits(&self, index: usize) -> Vec<u8> {
        match self.image(index).pixels {
            Pixels::Bits8(values) => values,
            Pixels::Bits16(values) => values.iter().map(|&v| (v >> 8) as u8).collect(),
        }
    }

    fn image(&self, index: usize) -> Raw {
        let place = index * self.image_len()..(index + 1) * self.image_len();
        let pixels = each_depth!(&self.pixels, values => values[place].to_vec());
        Raw { height: self.height, width: self.width, channels: self.channels, pixels }
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
        let length = self.image_len();
        let pixels = each_depth!(&self.pixels, values => {
            let images = indices.iter().map(|&i| &values[i as usize * length..][..length]);
            images.flatten().copied().collect()
        });
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
        let images = (0..self.labels.len())
            .map(|index| self.image(index).with_channels(channels).resized(height, width).pixels)
            .collect();
        ImageSet { height, width, channels, pixels: joined(images), labels: self.labels }
    }
}

/// The values of one image after another; all in 16 bits if one has them.
fn joined(images: Vec<Pixels>) -> Pixels {
    let count = images.iter().map(Pixels::len).sum();
    if images.iter().any(|pixels| matches!(pixels, Pixels::Bits16(_))) {
        let mut all = Vec::with_capacity(count);
        images.into_iter().for_each(|pixels| all.extend(pixels.widened()));
        return Pixels::Bits16(all);
    }
    let mut all = Vec::with_capacity(count);
    images.iter().for_each(|pixels| all.extend_from_slice(&pixels.bytes()));
    Pixels::Bits8(all)
}

/// Rows and columns of the picture in a PNG, JPEG or PNM file, from its header alone.
///
/// # Errors
/// If the bytes are of another format, or the header is cut off.
pub fn picture_size(bytes: &[u8], name: &Path) -> Result<(usize, usize), DataError> {
    decode::size(bytes, name)
}

/// What turns an image into the floats the model was trained on; stored with the model.
///
/// The steps, in order: 8 or 16 bits per channel (fewer become 8), transparent pixels laid on
/// white, EXIF orientation, gray or colour as the model has it, bilinear resizing to the model's
/// size, `(value / white - mean) / std` per channel, where white is 255 or 65,535.
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

    /// Height, width and channels of what the model reads.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// Reads a PNG, JPEG or PNM file of any size: `[height, width, channels]`, normalised.
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
        let white = raw.pixels.white();
        let value = |(i, v): (usize, u32)| self.normalised(v, white, i % self.channels);
        Ok(match &raw.pixels {
            Pixels::Bits8(values) => values.iter().map(|v| v.value()).enumerate().map(value).collect(),
            Pixels::Bits16(values) => values.iter().map(|v| v.value()).enumerate().map(value).collect(),
        })
    }

    /// The values of 8 bits of pixels of the model's own size, `[.., channels]`, normalised.
    pub fn normalise(&self, pixels: &[u8]) -> Vec<f32> {
        let white = u32::from(u8::MAX);
        let value = |(i, &v): (usize, &u8)| self.normalised(u32::from(v), white, i % self.channels);
        pixels.iter().enumerate().map(value).collect()
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

    /// In f64, rounded once.
    fn normalised(&self, value: u32, white: u32, channel: usize) -> f32 {
        ((f64::from(value) / f64::from(white) - self.mean[channel]) / self.std[channel]) as f32
    }

    /// For the images of a set, so that no value is computed twice.
    pub(crate) fn pixel_values(&self, of: &Pixels) -> PixelValues {
        let value = |level: usize, c: usize| self.normalised(level as u32, of.white(), c);
        let channels = 0..self.channels;
        match of {
            Pixels::Bits8(_) => {
                PixelValues::Bits8(channels.map(|c| std::array::from_fn(|level| value(level, c))).collect())
            }
            Pixels::Bits16(_) => {
                let table = |c: usize| (0..=usize::from(u16::MAX)).map(|level| value(level, c)).collect();
                PixelValues::Bits16(channels.map(table).collect())
            }
        }
    }
}

/// The float of each value of a pixel, per channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PixelValues {
    Bits8(Vec<[f32; 256]>),
    Bits16(Vec<Vec<f32>>),
}

/// The pictures in a folder and in the folders in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// In the order of their names.
    pub paths: Vec<PathBuf>,
    /// What was passed over and why, one sentence each.
    pub notes: Vec<String>,
}

/// Finds the pictures in a folder as training does: by content, whatever their names end in.
///
/// # Errors
/// A folder that cannot be read, or pictures in formats that are not read.
pub fn pictures(folder: &Path) -> Result<Pictures, DataError> {
    let (tree, passed) = tree::scan(folder)?;
    let (mut paths, mut unread) = (Vec::new(), Vec::new());
    tree.gather(&mut paths, &mut unread);
    match unread.into_iter().next() {
        Some((path, format)) => Err(DataError::UnsupportedImage { path, format }),
        None => Ok(Pictures { paths, notes: passed.notes(folder) }),
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
        let ImageSet { height, width, channels, .. } = self.set;
        let at = index as usize * self.set.image_len();
        let size = (height, width, channels);
        match (&self.set.pixels, &self.values) {
            (Pixels::Bits8(values), PixelValues::Bits8(tables)) => {
                write(&values[at..][..self.set.image_len()], size, tables, view, out);
            }
            (Pixels::Bits16(values), PixelValues::Bits16(tables)) => {
                write(&values[at..][..self.set.image_len()], size, tables, view, out);
            }
            _ => unreachable!("the tables are made for the set"),
        }
    }
}

/// An image of `size` (height, width, channels) through the table of each channel.
fn write<T: Level, F: AsRef<[f32]>>(
    image: &[T],
    (height, width, channels): (usize, usize, usize),
    tables: &[F],
    view: View,
    out: &mut [f32],
) {
    if view == View::AS_IT_IS {
        normalise(image, tables, out);
        return;
    }
    for (y, row) in out.chunks_exact_mut(width * channels).enumerate() {
        let source = &image[view.row(y, height) * width * channels..][..width * channels];
        for (x, values) in row.chunks_exact_mut(channels).enumerate() {
            normalise(&source[view.column(x, width) * channels..][..channels], tables, values);
        }
    }
}

/// `pixels` and `out` are `[.., channels]` of one length.
fn normalise<T: Level, F: AsRef<[f32]>>(pixels: &[T], tables: &[F], out: &mut [f32]) {
    let look_up = |table: &F, level: T| table.as_ref()[level.value() as usize];
    match tables {
        [gray] => out.iter_mut().zip(pixels).for_each(|(value, &level)| *value = look_up(gray, level)),
        tables => {
            for (pixel, values) in pixels.chunks_exact(tables.len()).zip(out.chunks_exact_mut(tables.len())) {
                for ((value, &level), table) in values.iter_mut().zip(pixel).zip(tables) {
                    *value = look_up(table, level);
                }
            }
        }
    }
}

/// How often each value occurs in each channel: `[channels][white + 1]`.
fn counts<T: Level>(pixels: &[T], channels: usize) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0u64; T::WHITE as usize + 1]; channels];
    for pixel in pixels.chunks_exact(channels) {
        for (count, level) in counts.iter_mut().zip(pixel) {
            count[level.value() as usize] += 1;
        }
    }
    counts
}

/// Mean and population standard deviation of each channel, of pixels scaled to 0..1. Sums are of
/// integers, so exact. A channel that never changes gets a standard deviation of 1.
fn statistics(set: &ImageSet) -> (Vec<f64>, Vec<f64>) {
    let counts = match &set.pixels {
        Pixels::Bits8(values) => counts(values, set.channels),
        Pixels::Bits16(values) => counts(values, set.channels),
    };
    let white = f64::from(set.pixels.white());
    counts
        .iter()
        .map(|count| {
            let moment = |power: u32| -> u128 {
                (0u128..).zip(count).map(|(level, &n)| level.pow(power) * u128::from(n)).sum()
            };
            let (n, sum, squares) = (moment(0), moment(1), moment(2));
            // n² times the variance, an integer: nothing cancels.
            let spread = n * squares - sum * sum;
            let std = (spread as f64).sqrt() / n as f64 / white;
            (sum as f64 / n as f64 / white, if spread == 0 { 1.0 } else { std })
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pixels: Vec<u8>, channels: usize) -> ImageSet {
        let width = pixels.len() / channels;
        ImageSet { height: 1, width, channels, pixels: Pixels::Bits8(pixels), labels: vec![0] }
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
        let (mut out, values) = (vec![0.0; 3000], fitted.pixel_values(&set.pixels));
        ImageSamples { set, values, augment: Default::default() }.write(0, View::AS_IT_IS, &mut out);
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
