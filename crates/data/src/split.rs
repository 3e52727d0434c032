//! Choosing samples at random so that every class keeps its share.

use crate::draws::{DrawPurpose, Stream};
use crate::error::DataError;
use crate::spec::RandomSplit;

/// Samples by part; each list is in file order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SplitParts {
    pub(crate) train: Vec<u32>,
    pub(crate) test: Vec<u32>,
}

/// Holds out the fraction of the samples, rounded, but of every class at least one sample and not
/// all.
pub(crate) fn stratified(
    labels: &[u32],
    classes: &[String],
    split: RandomSplit,
) -> Result<SplitParts, DataError> {
    let members = members(labels, classes.len());
    if let Some((class, samples)) = members.iter().enumerate().find(|(_, samples)| samples.len() == 1) {
        return Err(DataError::ClassTooSmall { class: classes[class].clone(), count: samples.len() });
    }
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let wanted = (labels.len() as f64 * split.fraction).round() as usize;
    let shares = apportion(&sizes, wanted, 1)
        .into_iter()
        .zip(&sizes)
        .map(|(share, &size)| share.min(size.saturating_sub(1)));
    let mut parts = SplitParts { train: Vec::new(), test: Vec::new() };
    for (class, (mut samples, share)) in members.into_iter().zip(shares).enumerate() {
        Stream::new(split.seed, DrawPurpose::Split, 0, class as u32).shuffle(&mut samples);
        parts.test.extend(&samples[..share]);
        parts.train.extend(&samples[share..]);
    }
    parts.train.sort_unstable();
    parts.test.sort_unstable();
    Ok(parts)
}

/// Takes a fraction of the samples, rounded, out of the others to choose models by: `test` of the
/// result. Every class keeps at least one sample to train on.
pub(crate) fn validation(labels: &[u32], classes: usize, fraction: f64) -> SplitParts {
    let members = members(labels, classes);
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let wanted = (labels.len() as f64 * fraction).round() as usize;
    let shares = apportion(&sizes, wanted, 0);
    let mut parts = SplitParts { train: Vec::new(), test: Vec::new() };
    for (class, (mut samples, share)) in members.into_iter().zip(shares).enumerate() {
        // The choice belongs to the data, not to the run: its seed is fixed.
        Stream::new(0, DrawPurpose::Validation, 0, class as u32).shuffle(&mut samples);
        let share = share.min(samples.len().saturating_sub(1));
        parts.test.extend(&samples[..share]);
        parts.train.extend(&samples[share..]);
    }
    parts.train.sort_unstable();
    parts.test.sort_unstable();
    parts
}

/// At most `limit` of the samples, in file order; of every class at least one if there is room.
pub(crate) fn limited(labels: &[u32], classes: usize, limit: usize) -> Vec<u32> {
    if labels.len() <= limit {
        return (0..labels.len() as u32).collect();
    }
    let members = members(labels, classes);
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let present = sizes.iter().filter(|&&size| size > 0).count();
    let shares = apportion(&sizes, limit, usize::from(limit >= present));
    let mut chosen = Vec::with_capacity(limit);
    for (class, (mut samples, share)) in members.into_iter().zip(shares).enumerate() {
        // The choice belongs to the data, not to the run: its seed is fixed.
        Stream::new(0, DrawPurpose::Limit, 0, class as u32).shuffle(&mut samples);
        chosen.extend(&samples[..share]);
    }
    chosen.sort_unstable();
    chosen
}

fn members(labels: &[u32], classes: usize) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label as usize].push(index as u32);
    }
    members
}

/// Parts of `wanted` in proportion to `sizes` by largest remainder, each at least `least` where the
/// size allows. The sum is `wanted`, unless the minimum makes it more.
fn apportion(sizes: &[usize], wanted: usize, least: usize) -> Vec<usize> {
    let total: usize = sizes.iter().sum();
    let product = |size: usize| size as u128 * wanted.min(total) as u128;
    let mut shares: Vec<usize> =
        sizes.iter().map(|&size| (product(size) / total.max(1) as u128) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by_key(|&i| (std::cmp::Reverse(product(sizes[i]) % total.max(1) as u128), i));
    let left = wanted.min(total) - shares.iter().sum::<usize>();
    by_remainder.iter().take(left).for_each(|&i| shares[i] += 1);
    for i in 0..sizes.len() {
        while shares[i] < least.min(sizes[i]) {
            shares[i] += 1;
            // From the class that can best spare one.
            let donor = (0..sizes.len())
                .filter(|&j| shares[j] > least)
                .max_by_key(|&j| (shares[j], std::cmp::Reverse(j)));
            if let Some(donor) = donor {
                shares[donor] -= 1;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    proptest! {
        #[test]
        fn parts_are_disjoint_complete_and_hold_every_class(
            sizes in prop::collection::vec(2usize..40, 2..8), fraction in 0.01f64..0.99, seed: u64,
        ) {
            let labels: Vec<u32> = sizes.iter().enumerate().flat_map(|(c, &n)| vec![c as u32; n]).collect();
            let split = RandomSplit { fraction, seed };
            let parts = stratified(&labels, &names(sizes.len()), split).unwrap();
            let mut all: Vec<u32> = parts.train.iter().chain(&parts.test).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len() as u32).collect::<Vec<_>>());
            for (class, &size) in sizes.iter().enumerate() {
                let held_out = parts.test.iter().filter(|&&i| labels[i as usize] == class as u32).count();
                prop_assert!(held_out >= 1 && held_out < size);
            }
            prop_assert_eq!(parts, stratified(&labels, &names(sizes.len()), split).unwrap());
        }

        #[test]
        fn a_limit_is_met_and_shares_are_kept(
            sizes in prop::collection::vec(0usize..40, 1..8), limit in 1usize..200,
        ) {
            let labels: Vec<u32> = sizes.iter().enumerate().flat_map(|(c, &n)| vec![c as u32; n]).collect();
            let chosen = limited(&labels, sizes.len(), limit);
            prop_assert_eq!(chosen.len(), limit.min(labels.len()));
            prop_assert!(chosen.windows(2).all(|w| w[0] < w[1]));
            let present = sizes.iter().filter(|&&s| s > 0).count();
            if limit >= present {
                for (class, &size) in sizes.iter().enumerate() {
                    prop_assert!(size == 0 || chosen.iter().any(|&i| labels[i as usize] == class as u32));
                }
            }
        }
    }

    #[test]
    fn validation_samples_are_of_every_class_that_has_enough() {
        let labels: Vec<u32> = (0..1001).map(|i| if i == 1000 { 5 } else { i % 5 }).collect();
        let parts = validation(&labels, 6, 0.1);
        assert_eq!((parts.train.len(), parts.test.len()), (901, 100));
        let of_class = |class: u32| parts.test.iter().filter(|&&i| labels[i as usize] == class).count();
        assert_eq!([0, 1, 2, 3, 4, 5].map(of_class), [20, 20, 20, 20, 20, 0], "the only one is trained on");
        let mut all = [parts.train.clone(), parts.test.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1001).collect::<Vec<u32>>());
        assert_eq!(validation(&labels, 6, 0.1), parts);
        assert_eq!(validation(&[0, 0, 1], 2, 0.01).test, [0u32; 0]);
    }

    #[test]
    fn the_seed_changes_the_choice() {
        let labels: Vec<u32> = (0..1000).map(|i| i % 10).collect();
        let parts = |seed| stratified(&labels, &names(10), RandomSplit { fraction: 0.2, seed }).unwrap();
        assert_eq!(parts(0).test.len(), 200);
        assert_ne!(parts(0).test, parts(1).test);
    }

    #[test]
    fn a_class_of_one_cannot_be_split() {
        let error = stratified(&[0, 0, 1], &names(2), RandomSplit::default()).unwrap_err();
        assert!(
            error.to_string().starts_with("class `class 1` has 1 sample: at least 2 are needed"),
            "{error}"
        );
    }
}
