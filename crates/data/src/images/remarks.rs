//! What looks odd in the values of train images.

use super::pixels::{Level, Pixels};
use super::{ImageSet, counts};
use crate::spec::Normalise;

/// A range of values below this share of white to black is remarked upon.
const NARROW: u32 = 8;

/// Sentences about images of a single value, and about values that fill little of their range.
pub(crate) fn of(train: &ImageSet, normalise: &Normalise) -> Vec<String> {
    match &train.pixels {
        Pixels::Bits8(values) => of_values(values, train, normalise),
        Pixels::Bits16(values) => of_values(values, train, normalise),
    }
}

fn of_values<T: Level>(values: &[T], train: &ImageSet, normalise: &Normalise) -> Vec<String> {
    let counts = counts(values, 1).swap_remove(0);
    let used = |found: Option<usize>| found.unwrap_or(0) as u32;
    let least = used(counts.iter().position(|&n| n > 0));
    let most = used(counts.iter().rposition(|&n| n > 0));
    let (white, images) = (T::WHITE, train.labels.len());
    if least == most {
        return vec![format!(
            "Every pixel of all {images} train images has the value {least} (of 0 to {white}): there is nothing to \
             tell them apart by."
        )];
    }
    let plain = values.chunks_exact(train.image_len()).filter(|image| image.iter().all(|v| *v == image[0]));
    let plain = plain.count();
    let mut remarks = Vec::new();
    if plain * 100 >= images {
        remarks.push(format!("{plain} of {images} train images are of one value all over."));
    }
    if (most - least) * NARROW < white {
        let bits = if white == u8::WHITE { 8 } else { 16 };
        let so = match normalise {
            Normalise::Fit => "`mean` and `std` of the train images make up for it",
            Normalise::Given { .. } => "`mean` and `std` must be those of such values, as shares of white",
        };
        remarks.push(format!(
            "The train images have {bits} bits and use only the values {least} to {most} of 0 to {white}; {so}."
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pixels: Pixels, images: usize) -> ImageSet {
        let width = pixels.len() / images;
        ImageSet { height: 1, width, channels: 1, pixels, labels: vec![0; images] }
    }

    #[test]
    fn odd_values_are_named() {
        let said = |pixels, images| of(&set(pixels, images), &Normalise::Fit);
        let all = said(Pixels::Bits16(vec![7; 12]), 3);
        assert!(matches!(&all[..], [one] if one.contains("has the value 7 (of 0 to 65535)")), "{all:?}");
        let dark = said(Pixels::Bits16(vec![0, 4095, 9, 9]), 2);
        assert!(dark[0].starts_with("1 of 2 train images are of one value"), "{dark:?}");
        assert!(
            dark[1].contains("16 bits and use only the values 0 to 4095 of 0 to 65535; `mean`"),
            "{dark:?}"
        );
        let narrow = said(Pixels::Bits8(vec![10, 40, 10, 41]), 2);
        assert!(narrow[0].contains("10 to 41"), "31 · 8 < 255: {narrow:?}");
        assert!(said(Pixels::Bits8(vec![0, 255, 3, 4]), 2).is_empty());
        let given = Normalise::Given { mean: vec![0.5], std: vec![0.5] };
        assert!(of(&set(Pixels::Bits8(vec![0, 1]), 1), &given)[0].contains("must be those of such values"));
    }
}
