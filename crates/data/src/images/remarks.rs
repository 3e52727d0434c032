//! What looks odd in the values of train images.

use std::collections::HashMap;
use std::hash::Hash;

use super::decode::Header;
use super::pixels::{Level, Pixels, pixel_hash};
use super::{ImageSet, counts};
use crate::class_names::shown;
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

/// Sentences on what becomes of transparent pixels, 16 bits and files with several pictures.
pub(crate) fn of_headers(all: &[Header]) -> Vec<String> {
    let count = |of: fn(&Header) -> bool| all.iter().filter(|header| of(header)).count();
    let deep = count(|header| header.deep);
    let widened = if deep < all.len() { "; the others are widened to that" } else { "" };
    [
        (
            count(|header| header.transparent),
            "can have transparent pixels: these are laid on white".to_owned(),
        ),
        (deep, format!("have 16 bits per channel, all of which are kept{widened}")),
        (
            count(|header| header.several),
            "are animated or hold several pictures: the first is used".to_owned(),
        ),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} of {} images {what}.", all.len()))
    .collect()
}

/// Sentences on how train and test images go together.
pub(crate) fn of_parts(train: &ImageSet, test: &ImageSet, classes: &[String]) -> Vec<String> {
    let mut remarks = of_copies(train, test);
    remarks.extend(of_missing_classes(&test.labels, classes));
    remarks
}

/// Sentences on images that are in both parts, and on those with two classes: test images that were
/// trained on make figures look better than they are.
fn of_copies(train: &ImageSet, test: &ImageSet) -> Vec<String> {
    let mut classes: HashMap<u64, u32> = HashMap::with_capacity(train.labels.len());
    let mut torn = 0;
    for (place, &label) in train.labels.iter().enumerate() {
        let Some(print) = print_of(train, place) else { continue };
        torn += usize::from(*classes.entry(print).or_insert(label) != label);
    }
    let class = |place: usize| classes.get(&print_of(test, place)?).copied();
    let known: Vec<Option<u32>> = (0..test.labels.len()).map(class).collect();
    let copies = known.iter().flatten().count();
    let other = known.iter().zip(&test.labels).filter(|(own, label)| own.is_some_and(|own| own != **label));
    torn += other.count();
    let mut remarks = Vec::new();
    if copies > 0 {
        remarks.push(format!(
            "{copies} of {} test images are train images too, pixel by pixel: what is measured on them flatters the \
             model; remove the copies.",
            test.labels.len()
        ));
    }
    if torn > 0 {
        remarks.push(format!("{torn} image(s) have another class than a copy of them, pixel by pixel."));
    }
    remarks
}

/// The hash of an image. None of images of one value all over, which are equal without being
/// copies.
fn print_of(set: &ImageSet, place: usize) -> Option<u64> {
    let values = place * set.image_len()..(place + 1) * set.image_len();
    match &set.pixels {
        Pixels::Bits8(all) => print(&all[values]),
        Pixels::Bits16(all) => print(&all[values]),
    }
}

fn print<T: PartialEq + Hash>(image: &[T]) -> Option<u64> {
    image.iter().any(|value| *value != image[0]).then(|| pixel_hash(image))
}

/// A sentence on classes without test images.
fn of_missing_classes(test: &[u32], classes: &[String]) -> Option<String> {
    let mut present = vec![false; classes.len()];
    test.iter().for_each(|&label| present[label as usize] = true);
    let missing: Vec<&String> =
        classes.iter().zip(present).filter(|(_, p)| !p).map(|(class, _)| class).collect();
    let shown: Vec<String> = missing.iter().take(5).map(|class| format!("`{}`", shown(class))).collect();
    let more = if missing.len() > shown.len() { " and others" } else { "" };
    (!missing.is_empty()).then(|| {
        format!("There are no test images of {}{more}: nothing is measured of that.", shown.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pixels: Pixels, images: usize) -> ImageSet {
        let width = pixels.len() / images;
        ImageSet { height: 1, width, channels: 1, pixels, labels: vec![0; images] }
    }

    #[test]
    fn copies_are_counted() {
        let set = |pixels: Vec<u8>, labels: Vec<u32>| {
            let width = pixels.len() / labels.len();
            ImageSet { height: 1, width, channels: 1, pixels: Pixels::Bits8(pixels), labels }
        };
        let train = set(vec![1, 2, 3, 4, 1, 2], vec![0, 1, 1]);
        let said = of_copies(&train, &set(vec![3, 4, 1, 2, 9, 9], vec![1, 1, 0]));
        assert!(said[0].starts_with("2 of 3 test images are train images too"), "{said:?}");
        assert!(said[1].starts_with("2 image(s) have another class"), "{said:?}");
        assert!(of_copies(&set(vec![1, 2], vec![0]), &set(vec![2, 1], vec![0])).is_empty());
        let deep = ImageSet { pixels: Pixels::Bits16(vec![1, 256]), ..set(vec![0, 0], vec![0]) };
        assert_eq!(of_copies(&deep, &deep).len(), 1);
        let classes = ["a", "b", "c"].map(str::to_owned);
        assert!(of_missing_classes(&[0, 2], &classes).unwrap().contains("no test images of `b`:"));
        assert!(of_missing_classes(&[0, 2, 1], &classes).is_none());
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
