//! Spoilt images at five severities, and the mean corruption error (Hendrycks and Dietterich, arXiv
//! 1903.12261).

use serde::Serialize;

use crate::draws::Draws;

/// Severities of each corruption, 1 to 5.
pub const SEVERITIES: usize = 5;

/// A way to spoil an image. Pixels lie in [0, 1] before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Gaussian noise is added, of the standard deviations of ImageNet-C.
    Noise,
    /// A Gaussian blur, of the standard deviations of CIFAR-10-C (for 32 pixels; in proportion to
    /// the shorter side).
    Blur,
    /// The distance from the channel's mean is multiplied, by the factors of ImageNet-C.
    Contrast,
    /// The image is moved to the right and down, black coming in; not of Hendrycks and Dietterich.
    Shift,
}

/// A corruption and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorruptionKind {
    /// Its name.
    pub name: &'static str,
    /// What the parameters are.
    pub parameter: &'static str,
    /// The parameter at each severity.
    pub parameters: [f64; SEVERITIES],
}

/// Height, width and channels of an image `[height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Numbers per pixel.
    pub channels: usize,
}

impl ImageSize {
    /// Numbers in an image.
    pub fn count(self) -> usize {
        self.height * self.width * self.channels
    }
}

impl Corruption {
    /// All, in the order of tables.
    pub const ALL: [Corruption; 4] =
        [Corruption::Noise, Corruption::Blur, Corruption::Contrast, Corruption::Shift];

    /// Its name and parameters.
    pub fn kind(self) -> CorruptionKind {
        let (name, parameter, parameters) = match self {
            Corruption::Noise => {
                ("noise", "standard deviation, of pixels in 0 to 1", [0.08, 0.12, 0.18, 0.26, 0.38])
            }
            Corruption::Blur => {
                ("blur", "standard deviation in pixels of an image of 32", [0.4, 0.6, 0.7, 0.8, 1.0])
            }
            Corruption::Contrast => ("contrast", "factor", [0.4, 0.3, 0.2, 0.1, 0.05]),
            Corruption::Shift => ("shift", "share of the side", [0.04, 0.08, 0.12, 0.16, 0.2]),
        };
        CorruptionKind { name, parameter, parameters }
    }

    /// Spoils an image at a severity from 1 to 5. `sample` keys the noise, so that every model sees
    /// the same.
    ///
    /// A severity of 0 changes nothing; one above 5 is 5.
    pub fn apply(self, severity: usize, size: ImageSize, sample: u64, image: &mut [f32]) {
        let Some(at) = severity.min(SEVERITIES).checked_sub(1) else { return };
        let c = self.kind().parameters[at];
        match self {
            Corruption::Noise => {
                let normals = Draws::new(NOISE_SEED, sample);
                for (i, x) in image.iter_mut().enumerate() {
                    *x = (f64::from(*x) + c * normals.normal(i as u64)) as f32;
                }
            }
            Corruption::Blur => blur(c * size.height.min(size.width) as f64 / 32.0, size, image),
            Corruption::Contrast => contrast(c, size, image),
            Corruption::Shift => {
                let by = |side: usize| (c * side as f64).round() as usize;
                shift(by(size.height), by(size.width), size, image);
            }
        }
        image.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
    }
}

const NOISE_SEED: u64 = 0x006e_6f69_7365;

/// Gaussian filter by rows and by columns, edge pixels repeated, cut off at four standard
/// deviations as SciPy does.
fn blur(sd: f64, size: ImageSize, image: &mut [f32]) {
    let radius = (4.0 * sd + 0.5) as isize;
    let weights: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i as f64 / sd).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let ImageSize { height, width, channels } = size;
    for (lines, length, line_step, step) in
        [(width * channels, height, 1, width * channels), (height * channels, width, 0, channels)]
    {
        for line in 0..lines {
            // Columns begin at each number of the first row; rows at each channel of their first
            // pixel.
            let start =
                if line_step == 1 { line } else { line / channels * width * channels + line % channels };
            let old: Vec<f64> = (0..length).map(|i| f64::from(image[start + i * step])).collect();
            for i in 0..length {
                let at =
                    |k: usize| old[(i as isize + k as isize - radius).clamp(0, length as isize - 1) as usize];
                let sum: f64 = weights.iter().enumerate().map(|(k, w)| w * at(k)).sum();
                image[start + i * step] = (sum / total) as f32;
            }
        }
    }
}

fn contrast(factor: f64, size: ImageSize, image: &mut [f32]) {
    let pixels = (size.height * size.width) as f64;
    for c in 0..size.channels {
        let mean = image.iter().skip(c).step_by(size.channels).map(|&x| f64::from(x)).sum::<f64>() / pixels;
        for x in image.iter_mut().skip(c).step_by(size.channels) {
            *x = ((f64::from(*x) - mean) * factor + mean) as f32;
        }
    }
}

fn shift(down: usize, right: usize, size: ImageSize, image: &mut [f32]) {
    let old = image.to_vec();
    let ImageSize { height, width, channels } = size;
    for y in 0..height {
        for x in 0..width {
            let to = (y * width + x) * channels;
            for c in 0..channels {
                image[to + c] = match (y.checked_sub(down), x.checked_sub(right)) {
                    (Some(y), Some(x)) => old[(y * width + x) * channels + c],
                    _ => 0.0,
                };
            }
        }
    }
}

/// The mean corruption error of a model: over corruptions, the mean of Σ error / Σ error of the
/// baseline, each summed over severities. 1 is the baseline's own; above, the model suffers more.
///
/// None without corruptions, or if the baseline makes no error under one of them.
pub fn mean_corruption_error(errors: &[[f64; SEVERITIES]], baseline: &[[f64; SEVERITIES]]) -> Option<f64> {
    let sum = |e: &[f64; SEVERITIES]| e.iter().sum::<f64>();
    if errors.is_empty() || errors.len() != baseline.len() || baseline.iter().any(|b| sum(b) <= 0.0) {
        return None;
    }
    Some(errors.iter().zip(baseline).map(|(e, b)| sum(e) / sum(b)).sum::<f64>() / errors.len() as f64)
}

/// The same of the errors beyond those on clean images: what corruption adds. None also where it
/// adds nothing to the baseline.
pub fn relative_mean_corruption_error(
    (errors, clean): (&[[f64; SEVERITIES]], f64),
    (baseline, baseline_clean): (&[[f64; SEVERITIES]], f64),
) -> Option<f64> {
    let beyond = |all: &[[f64; SEVERITIES]], clean: f64| -> Vec<[f64; SEVERITIES]> {
        all.iter().map(|e| e.map(|e| e - clean)).collect()
    };
    mean_corruption_error(&beyond(errors, clean), &beyond(baseline, baseline_clean))
}
