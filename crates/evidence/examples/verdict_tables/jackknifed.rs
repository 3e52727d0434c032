//! Measures that are no mean over examples: the expected calibration error and the area under the
//! ROC curve.

use halfstep_evidence::Metric;
use halfstep_evidence::buckets::{BUCKETS, BucketSums, bucket};
use halfstep_evidence::folds::{FOLDS, Folds, fold_of, of_auroc};
use halfstep_evidence::judge::Measured;
use halfstep_evidence::measures::ranking::auroc_by_parts;
use halfstep_evidence::measures::{Calibration, Sample};
use halfstep_evidence::stats::Looks;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::draw::Stream;
use crate::{asked, shares};

/// Shares of what is random that are the same in every seed.
const COMMON: [f64; 3] = [0.0, 0.5, 0.9];

/// A number of which a share of the variance, one in all, is common to all seeds.
fn mixed(common: f64, of_all: f64, of_seed: f64) -> f64 {
    common.sqrt() * of_all + (1.0 - common).sqrt() * of_seed
}

/// Classifiers of two classes whose confidences do not hold: the reference divides the logarithm of
/// the odds that it is right by `temperatures[0]`, the candidate by `temperatures[1]`, and answers
/// otherwise in a few per cent of the samples.
#[derive(Clone, Copy)]
struct Confident {
    seeds: usize,
    examples: usize,
    common: f64,
    temperatures: [f64; 2],
}

impl Confident {
    fn draw(&self, numbers: &mut Stream) -> Measured {
        let Confident { seeds, examples, common, temperatures } = *self;
        let normal = Normal::standard();
        let of_all: Vec<[f64; 3]> =
            (0..examples).map(|_| std::array::from_fn(|_| numbers.normal())).collect();
        let (mut pairs, mut sums) = (Vec::new(), Vec::new());
        for _ in 0..seeds {
            let (mut folds, mut whole) = (Folds::new(2), [Calibration::default(), Calibration::default()]);
            for (i, all) in of_all.iter().enumerate() {
                let mut of = |which: usize| mixed(common, all[which], numbers.normal());
                let (odds, answer, change) = (1.5 + 1.2 * of(0).abs(), of(1), of(2));
                let right = 1.0 / (1.0 + (-odds).exp());
                // The same answer but where chance is near to what decides it.
                let answers = [answer, 0.995 * answer + (1.0f64 - 0.995 * 0.995).sqrt() * change];
                let samples: [Sample; 2] = std::array::from_fn(|model| Sample {
                    predicted: 0,
                    rank: u32::from(normal.cdf(answers[model]) > right),
                    confidence: 1.0 / (1.0 + (-odds / temperatures[model]).exp()),
                    nll: 0.0,
                    brier: 0.0,
                    energy: 0.0,
                });
                folds.push(bucket(i as u64, examples as u64, BUCKETS), 0, [&samples[0], &samples[1]]);
                for (sums, s) in whole.iter_mut().zip(&samples) {
                    sums.push(s.confidence, s.correct());
                }
            }
            pairs.push((whole[0].ece(), whole[1].ece()));
            sums.push(folds.of_calibration(Calibration::ece));
        }
        measured(Metric::Ece, pairs, sums, examples, 1.0)
    }

    /// How much larger the candidate's error is on average over test sets of this size, whatever is
    /// common: of one seed each, by two threads.
    fn harm(&self, draws: u64) -> f64 {
        let one = Confident { seeds: 1, common: 0.0, ..*self };
        let sum = |from: u64| -> f64 {
            let of = |i| {
                let (reference, candidate) = one.draw(&mut Stream::new(9, i)).pairs[0];
                candidate - reference
            };
            (from..from + draws / 2).map(of).sum()
        };
        let (a, b) = std::thread::scope(|s| {
            let other = s.spawn(|| sum(draws / 2));
            (sum(0), other.join().expect("the other half"))
        });
        (a + b) / (draws / 2 * 2) as f64
    }
}

/// Two classes of the same size. The reference's scores of the second lie 2.326 standard deviations
/// above those of the first: an area of 0.95. The candidate's area is 0.94.
#[derive(Clone, Copy)]
struct Ranking {
    seeds: usize,
    examples: usize,
    common: f64,
    harm: Harm,
}

/// What the candidate does.
#[derive(Clone, Copy)]
enum Harm {
    /// Its scores are less separate, and have a correlation of 0.98 with the reference's.
    Spread,
    /// It puts one in 95 samples of the second class below all others, and leaves the rest.
    Few,
}

const SEPARATION: f64 = 2.326_174;

impl Ranking {
    fn draw(&self, numbers: &mut Stream) -> Measured {
        let Ranking { seeds, examples, common, harm } = *self;
        let labels: Vec<u32> = (0..examples).map(|_| u32::from(numbers.uniform() <= 0.5)).collect();
        let of_all: Vec<[f64; 2]> =
            (0..examples).map(|_| std::array::from_fn(|_| numbers.normal())).collect();
        let part_of = |row: usize| fold_of(bucket(row as u64, examples as u64, BUCKETS));
        let (mut pairs, mut sums, mut counted) = (Vec::new(), Vec::new(), 1.0);
        for _ in 0..seeds {
            let mut logits = [Vec::new(), Vec::new()];
            for (all, &label) in of_all.iter().zip(&labels) {
                let mut of = |which: usize| mixed(common, all[which], numbers.normal());
                let (noise, change) = (of(0), of(1));
                let reference = noise + SEPARATION * f64::from(label);
                let candidate = match harm {
                    Harm::Spread => {
                        let noise = 0.98 * noise + (1.0f64 - 0.98 * 0.98).sqrt() * change;
                        noise + 2.198_773 * f64::from(label)
                    }
                    // The upper 1/95 of a normal number.
                    Harm::Few if label == 1 && change > 2.307_039 => -99.0,
                    Harm::Few => reference,
                };
                logits[0].extend([0.0, reference as f32]);
                logits[1].extend([0.0, candidate as f32]);
            }
            let [a, b] = logits.map(|logits| auroc_by_parts(&logits, &labels, 2, FOLDS, part_of));
            let ((a, parts_of_a), (b, parts_of_b)) = a.zip(b).expect("both classes");
            counted = a.rarest;
            pairs.push((a.value, b.value));
            sums.push(of_auroc([a.value, b.value], [&parts_of_a, &parts_of_b]).expect("both classes"));
        }
        measured(Metric::Auroc, pairs, sums, examples, counted)
    }
}

/// Of a measure that a changed answer moves by 1/(`counted` · `examples`).
fn measured(
    metric: Metric,
    pairs: Vec<(f64, f64)>,
    sums: Vec<BucketSums>,
    examples: usize,
    counted: f64,
) -> Measured {
    let units = (sums.len() * examples) as f64;
    Measured { metric, group: None, pairs, sums, units, clustered: false, counted }
}

/// The lines of one reference: false passes and failures at the margin, which is the harm itself.
fn lines(
    name: &str,
    cell: u64,
    experiments: u64,
    draw: impl Fn(usize, usize, f64) -> (f64, Metric, Drawn),
) -> f64 {
    let mut worst = 0.0f64;
    for seeds in [3, 5, 10] {
        for examples in [500, 2000] {
            let (mut passes, mut fails) = (Vec::new(), 0.0f64);
            for common in COMMON {
                let (harm, metric, drawn) = draw(seeds, examples, common);
                let [.., pass, fail] =
                    shares(experiments, cell, asked(metric, harm, Looks::ONE), |s| drawn.draw(s));
                passes.push(format!("{pass:.4}"));
                (worst, fails) = (worst.max(pass), fails.max(fail));
            }
            println!("| {name} | {seeds} | {examples} | {} | {fails:.4} |", passes.join(" | "));
        }
    }
    worst
}

/// One of both.
enum Drawn {
    Confident(Confident),
    Ranking(Ranking),
}

impl Drawn {
    fn draw(&self, numbers: &mut Stream) -> Measured {
        match self {
            Drawn::Confident(cell) => cell.draw(numbers),
            Drawn::Ranking(cell) => cell.draw(numbers),
        }
    }
}

pub fn ece(experiments: u64) {
    println!("### Seeds and examples, calibration (ece) at about 1 pt: wrong at the margin\n");
    println!("| reference | seeds | samples | common: 0 | 0.5 | 0.9 | worst false fail |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let mut worst = 0.0f64;
    let mut harms = Vec::new();
    for (name, temperatures) in [("calibrated", [1.0, 0.78]), ("overconfident", [0.7, 0.62])] {
        let of = |seeds, examples, common| Confident { seeds, examples, common, temperatures };
        // Ten times as many draws as experiments, of one seed each: a harm known to a few per cent
        // of the standard error of the largest cell.
        let known = [500, 2000].map(|examples| (examples, of(1, examples, 0.0).harm(10 * experiments)));
        let harm = |examples| known.iter().find(|k| k.0 == examples).expect("of this size").1;
        harms.push(format!("{name} {:.2} and {:.2} pt", 100.0 * known[0].1, 100.0 * known[1].1));
        let draw = |seeds, examples, common| {
            (harm(examples), Metric::Ece, Drawn::Confident(of(seeds, examples, common)))
        };
        worst = worst.max(lines(name, 10, experiments, draw));
    }
    println!("\nGreatest false pass: {worst:.4}. The harm, which is the margin: {}.\n", harms.join("; "));
}

pub fn auroc(experiments: u64) {
    println!("### Seeds and examples, the area under the ROC curve (auroc) at 1 pt: wrong at the margin\n");
    println!("| the harm | seeds | samples | common: 0 | 0.5 | 0.9 | worst false fail |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let mut worst = 0.0f64;
    for (name, harm) in [("spread", Harm::Spread), ("in few samples", Harm::Few)] {
        let draw = |seeds, examples, common| {
            (0.01, Metric::Auroc, Drawn::Ranking(Ranking { seeds, examples, common, harm }))
        };
        worst = worst.max(lines(name, 11, experiments, draw));
    }
    println!("\nGreatest false pass: {worst:.4}.\n");
}
