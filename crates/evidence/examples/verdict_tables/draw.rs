//! What the experiments draw: candidates of which it is known what they do.

use halfstep_evidence::Metric;
use halfstep_evidence::buckets::BucketSums;
use halfstep_evidence::judge::Measured;
use halfstep_float::{Philox, unit_f64};

/// Numbers of one experiment, drawn in order.
pub struct Stream {
    generator: Philox,
    stream: u64,
    next: u64,
    /// The second of two normal numbers.
    kept: Option<f64>,
}

impl Stream {
    pub fn new(cell: u64, experiment: u64) -> Stream {
        Stream { generator: Philox::new(cell), stream: experiment, next: 0, kept: None }
    }

    fn block(&mut self) -> [u32; 4] {
        self.next += 1;
        let (i, s) = (self.next - 1, self.stream);
        self.generator.block([i as u32, (i >> 32) as u32, s as u32, (s >> 32) as u32])
    }

    /// In (0, 1].
    pub fn uniform(&mut self) -> f64 {
        let [a, b, _, _] = self.block();
        1.0 - unit_f64(a, b)
    }

    /// By Box and Muller, two of a block.
    pub fn normal(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let [a, b, c, d] = self.block();
        let radius = (-2.0 * (1.0 - unit_f64(a, b)).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * unit_f64(c, d)).sin_cos();
        self.kept = Some(radius * sin);
        radius * cos
    }

    /// The examples of `n` to which something of chance `p` happens: the gaps between them are
    /// geometric.
    pub fn hits(&mut self, n: usize, p: f64, mut of: impl FnMut(&mut Stream, usize)) {
        if p <= 0.0 {
            return;
        }
        let mut at = 0usize;
        loop {
            let gap = (self.uniform().ln() / (-p).ln_1p()).floor();
            if gap >= (n - at) as f64 {
                return;
            }
            at += gap as usize;
            of(self, at);
            at += 1;
            if at >= n {
                return;
            }
        }
    }
}

/// Candidates whose answers change: each example is lost with chance `loss` and gained with chance
/// `gain`, and a share `common` of both happens to the same examples in every seed.
#[derive(Clone, Copy)]
pub struct Answers {
    pub seeds: usize,
    pub examples: usize,
    pub common: f64,
    pub loss: f64,
    pub gain: f64,
}

impl Answers {
    pub fn draw(&self, numbers: &mut Stream) -> Measured {
        let Answers { seeds, examples, common, loss, gain } = *self;
        let changed = loss + gain;
        let is_loss = |numbers: &mut Stream| numbers.uniform() * changed <= loss;
        let mut fixed = vec![0i8; examples];
        numbers
            .hits(examples, common * changed, |numbers, i| fixed[i] = if is_loss(numbers) { -1 } else { 1 });
        // What is left of the chance for examples that have no common change.
        let own = (1.0 - common) * changed / (1.0 - common * changed);
        let of_seed = |numbers: &mut Stream| {
            let mut answers = fixed.clone();
            numbers.hits(examples, own, |numbers, i| {
                if fixed[i] == 0 {
                    answers[i] = if is_loss(numbers) { -1 } else { 1 };
                }
            });
            answers
        };
        let mut sums = Vec::new();
        for _ in 0..seeds {
            let answers = of_seed(numbers);
            let mut of_seed = BucketSums::new(examples.min(2048));
            for (i, &change) in answers.iter().enumerate() {
                let bucket = halfstep_evidence::buckets::bucket(i as u64, examples as u64, 2048);
                of_seed.push(bucket, if change < 0 { 1.0 } else { 0.0 }, f64::from(change));
            }
            sums.push(of_seed);
        }
        measured(Metric::Accuracy, sums, examples)
    }
}

/// Of each seed from its sums.
pub fn measured(metric: Metric, sums: Vec<BucketSums>, examples: usize) -> Measured {
    let pair = |s: &BucketSums| {
        let reference = s.references.iter().sum::<f64>() / examples as f64;
        (reference, reference + s.differences.iter().sum::<f64>() / examples as f64)
    };
    let pairs = sums.iter().map(pair).collect();
    let units = (sums.len() * examples) as f64;
    Measured { metric, group: None, pairs, sums, units, clustered: false, counted: 1.0 }
}

/// Differences of a smooth measure: seed, example and rest have the standard deviations given.
#[derive(Clone, Copy)]
pub struct Smooth {
    pub seeds: usize,
    pub examples: usize,
    pub mean: f64,
    pub seed: f64,
    pub example: f64,
    pub rest: f64,
}

impl Smooth {
    pub fn draw(&self, numbers: &mut Stream) -> Measured {
        let common: Vec<f64> = (0..self.examples).map(|_| self.example * numbers.normal()).collect();
        let mut sums = Vec::new();
        for _ in 0..self.seeds {
            let of_seed = self.mean + self.seed * numbers.normal();
            let mut sum = BucketSums::new(self.examples.min(2048));
            for (i, common) in common.iter().enumerate() {
                let bucket = halfstep_evidence::buckets::bucket(i as u64, self.examples as u64, 2048);
                sum.push(bucket, 1.0, of_seed + common + self.rest * numbers.normal());
            }
            sums.push(sum);
        }
        measured(Metric::Nll, sums, self.examples)
    }
}
