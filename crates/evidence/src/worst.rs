//! Examples to look at: those that a change of precision spoilt, and those that are wrong with the
//! greatest confidence.

use serde::{Deserialize, Serialize};

use crate::experiment::same_samples;
use crate::logits::{LogitsError, Source};

/// Rows read at once.
const ROWS: usize = 4096;

/// Why an example is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The reference has it right, the candidate has not.
    Spoilt,
    /// The candidate has it wrong, whatever the reference says.
    Wrong,
}

/// A test example that a candidate has wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Why it is shown.
    pub kind: Kind,
    /// Its row in the test data.
    pub row: usize,
    /// Its class.
    pub label: u32,
    /// What the reference takes it for.
    pub reference: u32,
    /// What the candidate takes it for.
    pub candidate: u32,
    /// The candidate's confidence in that.
    pub confidence: f64,
}

/// The `most` spoilt examples and the `most` other wrong ones in which the candidate is surest,
/// surest first.
///
/// # Errors
/// A file is bad, or the two do not hold the same samples.
pub fn worst(reference: &dyn Source, candidate: &dyn Source, most: usize) -> Result<Vec<Worst>, LogitsError> {
    let (mut a, mut b) = (reference.open()?, candidate.open()?);
    same_samples(&a, &b)?;
    let (classes, labels) = (a.classes(), a.labels().to_vec());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut found: [Vec<Worst>; 2] = [Vec::new(), Vec::new()];
    loop {
        let rows = a.read(ROWS, &mut first)?;
        b.read(ROWS, &mut second)?;
        if rows.is_empty() {
            break;
        }
        let pairs = first.chunks_exact(classes).zip(second.chunks_exact(classes));
        for (row, (one, two)) in rows.zip(pairs) {
            let label = labels[row];
            let ((reference, _), (candidate, confidence)) = (likeliest(one), likeliest(two));
            if candidate != label {
                let kind = if reference == label { Kind::Spoilt } else { Kind::Wrong };
                let of_kind = &mut found[usize::from(kind == Kind::Wrong)];
                of_kind.push(Worst { kind, row, label, reference, candidate, confidence });
            }
        }
        for of_kind in &mut found {
            // Of equally sure ones the first.
            of_kind.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.row.cmp(&b.row)));
            of_kind.truncate(most);
        }
    }
    Ok(found.concat())
}

/// The first likeliest class and its probability.
fn likeliest(logits: &[f32]) -> (u32, f64) {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    let top = f64::from(logits[best]);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - top).exp()).sum();
    (best as u32, 1.0 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logits::InMemory;

    #[test]
    fn the_surest_mistakes_come_first() {
        let labels = [0, 0, 0, 1, 1];
        // Right, wrong, right, right, wrong.
        let reference = InMemory::new("a", 2, vec![2., 0., 0., 1., 3., 0., 0., 1., 1., 0.], &labels);
        // Spoilt a little, wrong, spoilt much, right, wrong and surer.
        let candidate = InMemory::new("b", 2, vec![0., 1., 0., 1., 0., 4., 0., 1., 5., 0.], &labels);
        let found = worst(&reference, &candidate, 2).unwrap();
        let rows: Vec<(Kind, usize)> = found.iter().map(|w| (w.kind, w.row)).collect();
        assert_eq!(rows, [(Kind::Spoilt, 2), (Kind::Spoilt, 0), (Kind::Wrong, 4), (Kind::Wrong, 1)]);
        // 1 / (1 + e^-4), to a few roundings.
        assert!((found[0].confidence - 1.0 / (1.0 + (-4f64).exp())).abs() < 1e-15);
        assert_eq!((found[0].label, found[0].reference, found[0].candidate), (0, 0, 1));
        assert_eq!(worst(&reference, &reference, 9).unwrap().len(), 2);
    }
}
