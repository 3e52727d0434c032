//! Which classes a model takes for which: the confusion matrix, and the scores by class that follow
//! from it.

use serde::Serialize;

use super::Sums;

/// Most classes of which the matrix is counted, four bytes a cell: 4 MiB. Of more, only what its
/// sums and diagonal give is known.
pub const MOST_CLASSES_COUNTED: usize = 1024;

/// Most classes of which the whole matrix is given.
pub const MOST_CLASSES_GIVEN: usize = 100;

/// The largest confusions that are given.
pub const LARGEST: usize = 20;

/// Counts of the labels and answers of one model: the matrix, as far as it is counted, and its
/// sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfusionMatrix {
    /// `[label, answer]`; empty with more than [`MOST_CLASSES_COUNTED`] classes.
    matrix: Vec<u32>,
    labels: Vec<u64>,
    answers: Vec<u64>,
    right: Vec<u64>,
}

/// Scores of one class, in the definitions of scikit-learn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    /// Samples with this label.
    pub support: u64,
    /// Samples with this answer.
    pub answers: u64,
    /// Share of its answers that are right; none without answers.
    pub precision: Option<f64>,
    /// Share of its samples that are found; none without samples.
    pub recall: Option<f64>,
    /// Harmonic mean of both: 2·right / (support + answers). None without samples and answers.
    pub f1: Option<f64>,
}

/// Samples of one class that are taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Confused {
    /// What they are.
    pub label: u32,
    /// What they are taken for.
    pub answer: u32,
    /// How many.
    pub samples: u32,
}

/// What the answers of one model come to, class by class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// The most frequent label; the first of equals.
    pub majority_class: u32,
    /// Share that is right of who always answers the most frequent label.
    pub majority_accuracy: f64,
    /// Mean recall of the classes that have samples.
    pub balanced_accuracy: f64,
    /// Mean F1 of the classes that have samples or answers.
    pub macro_f1: f64,
    /// One entry per class; none with more than [`MOST_CLASSES_COUNTED`].
    pub per_class: Option<Vec<ClassScore>>,
    /// Samples by `[label][answer]`; none with more than [`MOST_CLASSES_GIVEN`].
    pub confusion_matrix: Option<Vec<Vec<u32>>>,
    /// The confusions with most samples, at most [`LARGEST`]; none with more than
    /// [`MOST_CLASSES_COUNTED`] classes.
    pub largest_confusions: Option<Vec<Confused>>,
}

impl ClassScores {
    /// The share of the samples that one of the rarest class counts among in a mean over classes,
    /// C · (its samples)/n of C classes that have some; none with too many classes.
    pub fn rarest(&self) -> Option<f64> {
        let supports = || self.per_class.iter().flatten().map(|c| c.support as f64).filter(|n| *n > 0.0);
        let fewest = supports().reduce(f64::min)?;
        Some(fewest * supports().count() as f64 / supports().sum::<f64>())
    }

    /// What is not given because there are many classes, in a sentence; none if all is.
    pub fn left_out(&self) -> Option<String> {
        match (&self.per_class, &self.confusion_matrix) {
            (None, _) => Some(format!(
                "Scores of each class and the confusion matrix are not given: they are for at most {MOST_CLASSES_COUNTED} \
                 classes."
            )),
            (_, None) => Some(format!(
                "The whole confusion matrix is not given: it is for at most {MOST_CLASSES_GIVEN} classes. The {LARGEST} \
                 largest confusions are."
            )),
            _ => None,
        }
    }
}

impl ConfusionMatrix {
    /// Without samples yet, for so many classes.
    pub fn new(classes: usize) -> ConfusionMatrix {
        let cells = if classes <= MOST_CLASSES_COUNTED { classes * classes } else { 0 };
        ConfusionMatrix { matrix: vec![0; cells], ..ConfusionMatrix::sums_alone(classes) }
    }

    /// The same without the matrix, in 24 bytes per class.
    pub fn sums_alone(classes: usize) -> ConfusionMatrix {
        let zeros = vec![0; classes];
        ConfusionMatrix { matrix: Vec::new(), labels: zeros.clone(), answers: zeros.clone(), right: zeros }
    }

    /// Adds a sample; one whose label or answer is no class is ignored.
    pub fn push(&mut self, label: u32, answer: u32) {
        let (label, answer, classes) = (label as usize, answer as usize, self.labels.len());
        if label >= classes || answer >= classes {
            return;
        }
        self.labels[label] += 1;
        self.answers[answer] += 1;
        self.right[label] += u64::from(label == answer);
        if let Some(cell) = self.matrix.get_mut(label * classes + answer) {
            *cell = cell.saturating_add(1);
        }
    }

    /// Samples.
    pub fn samples(&self) -> u64 {
        self.labels.iter().sum()
    }

    fn sums(&mut self) -> [&mut Vec<u64>; 3] {
        [&mut self.labels, &mut self.answers, &mut self.right]
    }

    /// Mean F1 of the classes that have samples or answers.
    pub fn macro_f1(&self) -> f64 {
        let counts = self.labels.iter().zip(&self.answers).zip(&self.right);
        let there = counts.filter(|((n, answers), _)| **n + **answers > 0);
        let f1 = there.map(|((n, answers), right)| 2.0 * *right as f64 / (n + answers) as f64);
        let (sum, classes) = f1.fold((0.0, 0usize), |(sum, c), f1| (sum + f1, c + 1));
        sum / classes.max(1) as f64
    }

    /// Samples of each label.
    pub fn labels(&self) -> &[u64] {
        &self.labels
    }

    /// Samples of each answer.
    pub fn answers(&self) -> &[u64] {
        &self.answers
    }

    /// Samples of each label that are answered right.
    pub fn right(&self) -> &[u64] {
        &self.right
    }

    /// The most frequent label, the first of equals.
    fn majority(&self) -> usize {
        (0..self.labels.len()).fold(0, |best, c| if self.labels[c] > self.labels[best] { c } else { best })
    }

    /// Samples that the model has right and the most frequent label wrong, and the reverse.
    pub fn beside_majority(&self) -> (u64, u64) {
        let majority = self.majority();
        let own = self.right.get(majority).copied().unwrap_or(0);
        (self.right.iter().sum::<u64>() - own, self.labels.get(majority).map_or(0, |n| n - own))
    }

    /// Mean recall of the classes that have samples, and how many these are.
    pub fn balanced_accuracy(&self) -> (f64, usize) {
        let recalls = self.labels.iter().zip(&self.right).filter(|(n, _)| **n > 0);
        let (sum, classes) =
            recalls.fold((0.0, 0usize), |(sum, c), (n, right)| (sum + *right as f64 / *n as f64, c + 1));
        (sum / classes.max(1) as f64, classes)
    }

    /// What answers that do not depend on the sample would do to the balanced accuracy: its
    /// variance if each class were answered as often as the model answers it, and the greatest
    /// weight of one sample.
    ///
    /// Σ q (1 − q) / n over classes, by the square of their number; q is the share of the class
    /// among the answers, n its samples.
    pub fn balanced_accuracy_by_chance(&self) -> (f64, f64) {
        let (samples, classes) = (self.samples() as f64, self.balanced_accuracy().1.max(1) as f64);
        let there = || self.labels.iter().zip(&self.answers).filter(|(n, _)| **n > 0);
        let variance = |(n, answers): (&u64, &u64)| {
            let q = *answers as f64 / samples;
            q * (1.0 - q) / *n as f64
        };
        let least = there().map(|(n, _)| *n).min().unwrap_or(1) as f64;
        (there().map(variance).sum::<f64>() / (classes * classes), 1.0 / (classes * least))
    }

    /// The scores; none without samples.
    pub fn scores(&self) -> Option<ClassScores> {
        let samples = self.samples();
        if samples == 0 {
            return None;
        }
        let classes = self.labels.len();
        let of_class = |c: usize| {
            let (support, answers, right) = (self.labels[c], self.answers[c], self.right[c]);
            let share = |of: u64| (of > 0).then(|| right as f64 / of as f64);
            let both = support + answers;
            ClassScore {
                support,
                answers,
                precision: share(answers),
                recall: share(support),
                f1: (both > 0).then(|| 2.0 * right as f64 / both as f64),
            }
        };
        let majority = self.majority();
        let counted = !self.matrix.is_empty();
        let given = counted && classes <= MOST_CLASSES_GIVEN;
        Some(ClassScores {
            majority_class: majority as u32,
            majority_accuracy: self.labels[majority] as f64 / samples as f64,
            balanced_accuracy: self.balanced_accuracy().0,
            macro_f1: self.macro_f1(),
            per_class: counted.then(|| (0..classes).map(of_class).collect()),
            confusion_matrix: given.then(|| self.matrix.chunks(classes).map(<[u32]>::to_vec).collect()),
            largest_confusions: counted.then(|| self.largest()),
        })
    }

    /// The cells beside the diagonal with most samples; of equals the first.
    fn largest(&self) -> Vec<Confused> {
        let classes = self.labels.len();
        let cell = |(i, &samples): (usize, &u32)| {
            let (label, answer) = ((i / classes) as u32, (i % classes) as u32);
            (samples > 0 && label != answer).then_some(Confused { label, answer, samples })
        };
        let mut all: Vec<Confused> = self.matrix.iter().enumerate().filter_map(cell).collect();
        all.sort_by_key(|c| std::cmp::Reverse(c.samples));
        all.truncate(LARGEST);
        all
    }
}

/// Of two without a matrix.
impl Sums for ConfusionMatrix {
    fn add(&mut self, other: &ConfusionMatrix) {
        for (mine, theirs) in self.sums().into_iter().zip([&other.labels, &other.answers, &other.right]) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
    }

    fn subtract(&mut self, other: &ConfusionMatrix) {
        for (mine, theirs) in self.sums().into_iter().zip([&other.labels, &other.answers, &other.right]) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a -= b);
        }
    }

    fn samples(&self) -> u64 {
        ConfusionMatrix::samples(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_classes_by_hand() {
        // Label 0: three of four right, one taken for 1. Label 1: both taken for 0. Class 2 never
        // occurs.
        let mut a = ConfusionMatrix::new(3);
        for (label, answer) in [(0, 0), (0, 0), (0, 0), (0, 1), (1, 0), (1, 0), (9, 0), (0, 9)] {
            a.push(label, answer);
        }
        let s = a.scores().unwrap();
        assert_eq!((s.majority_class, s.majority_accuracy), (0, 4.0 / 6.0));
        assert_eq!(s.balanced_accuracy, 0.75 / 2.0);
        assert_eq!(s.macro_f1, (6.0 / 9.0 + 0.0) / 2.0);
        let per_class = s.per_class.as_ref().unwrap();
        assert_eq!((per_class[0].precision, per_class[0].recall), (Some(0.6), Some(0.75)));
        assert_eq!((per_class[1].precision, per_class[1].f1), (Some(0.0), Some(0.0)));
        assert_eq!((per_class[2].precision, per_class[2].recall, per_class[2].f1), (None, None, None));
        assert_eq!(s.confusion_matrix, Some(vec![vec![3, 1, 0], vec![2, 0, 0], vec![0, 0, 0]]));
        let largest = s.largest_confusions.as_ref().unwrap();
        assert_eq!((largest[0].label, largest[0].answer, largest[0].samples), (1, 0, 2));
        assert_eq!((largest.len(), s.left_out()), (2, None));
        // The model alone is right nowhere; the constant answer alone in one sample.
        assert_eq!(a.beside_majority(), (0, 1));
        assert_eq!(ConfusionMatrix::new(3).scores(), None);
    }

    #[test]
    fn what_many_classes_leave_out_is_said() {
        let of = |classes: usize| {
            let mut a = ConfusionMatrix::new(classes);
            a.push(0, 1);
            a.scores().unwrap()
        };
        let many = of(MOST_CLASSES_GIVEN + 1);
        assert!(many.confusion_matrix.is_none() && many.largest_confusions.is_some());
        assert!(many.left_out().unwrap().contains("at most 100 classes"));
        let more = of(MOST_CLASSES_COUNTED + 1);
        assert!(more.per_class.is_none() && more.largest_confusions.is_none() && more.macro_f1 == 0.0);
        assert!(more.left_out().unwrap().contains("at most 1024 classes"));
    }
}
