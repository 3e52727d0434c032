//! The mistakes to look at: pictures of the test samples that a precision spoilt, or has wrong most
//! surely.

use std::path::Path;

use halfstep::data::{ImageSamples, Samples};
use halfstep::evidence::report::Picture;
use halfstep::evidence::worst::{Kind, Worst, worst};
use halfstep::train::recipe::Experiment;

use super::one_run::measured_samples;
use crate::cli::failure::Failure;

/// Pictures of each kind.
const MOST: usize = 6;

/// Pictures from the logits of a reference and a candidate with one seed. None where samples are no
/// images.
pub fn pictures(
    experiment: &Experiment,
    reference: &Path,
    candidate: &Path,
) -> Result<Vec<Picture>, Failure> {
    let Samples::Images(images) = experiment.data.test.samples() else { return Ok(Vec::new()) };
    let (a, b) = (reference.to_path_buf(), candidate.to_path_buf());
    let found = worst(&a, &b, MOST).map_err(|e| Failure::failed(e.to_string()))?;
    let (classes, samples) = (experiment.data.preprocessing.classes(), measured_samples(experiment));
    let name = |class: u32| classes.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
    found
        .iter()
        .map(|w: &Worst| {
            let was = match w.kind {
                Kind::Spoilt => "which the reference has right, ".to_string(),
                Kind::Wrong if w.reference == w.candidate => "as by the reference, ".to_string(),
                Kind::Wrong => format!("by the reference for {}, ", name(w.reference)),
            };
            let (label, taken) = (name(w.label), name(w.candidate));
            let index = samples[w.row] as usize;
            Ok(Picture {
                png: png(images, index)?,
                caption: format!(
                    "Test sample {index}: {label}, taken for {taken} with {:.0} %, {was}",
                    w.confidence * 100.0
                )
                .trim_end_matches(", ")
                .to_string(),
            })
        })
        .collect()
}

fn png(images: &ImageSamples, index: usize) -> Result<Vec<u8>, Failure> {
    let set = &images.set;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, set.width as u32, set.height as u32);
    encoder.set_color(if set.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&set.image_in_8_bits(index))?;
        writer.finish()
    });
    written.map_err(|e| Failure::failed(format!("a picture cannot be written: {e}")))?;
    Ok(bytes)
}
