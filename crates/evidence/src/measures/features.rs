//! Scores in a model's feature space, the input of its last layer: how far a sample is from what
//! the model was trained on, and which training samples stand out of their class.

/// Classes as normal distributions with means of their own and one covariance (Lee et al., arXiv
/// 1807.03888).
///
/// The covariance gets a thousandth of its mean variance on its diagonal: features that never vary,
/// as dead ReLUs, would make it singular.
#[derive(Clone, Debug)]
pub struct Mahalanobis {
    width: usize,
    /// Lower triangle L with L·Lᵀ = covariance, row by row, the whole square stored.
    factor: Vec<f64>,
    /// L⁻¹·mean of each class.
    means: Vec<Vec<f64>>,
}

/// Part of the mean variance that is added to the diagonal.
pub const RIDGE: f64 = 1e-3;

impl Mahalanobis {
    /// Fits to features `[labels.len(), width]` of training samples. Classes without samples are
    /// left out.
    ///
    /// None without samples, or if a feature is not finite, or none varies. Time is n·width², space
    /// width².
    pub fn fit(features: &[f32], width: usize, labels: &[u32]) -> Option<Mahalanobis> {
        if labels.is_empty() || width == 0 || features.len() != labels.len() * width {
            return None;
        }
        if features.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let classes = labels.iter().max().map_or(0, |&l| l as usize + 1);
        let (mut means, mut counts) = (vec![vec![0.0; width]; classes], vec![0u64; classes]);
        for (row, &label) in features.chunks_exact(width).zip(labels) {
            counts[label as usize] += 1;
            means[label as usize].iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x));
        }
        for (mean, &count) in means.iter_mut().zip(&counts) {
            mean.iter_mut().for_each(|m| *m /= count.max(1) as f64);
        }
        let mut covariance = vec![0.0; width * width];
        let mut centred = vec![0.0; width];
        for (row, &label) in features.chunks_exact(width).zip(labels) {
            let mean = &means[label as usize];
            for ((c, &x), m) in centred.iter_mut().zip(row).zip(mean) {
                *c = f64::from(x) - m;
            }
            for (i, &a) in centred.iter().enumerate().filter(|(_, a)| **a != 0.0) {
                let line = &mut covariance[i * width..i * width + i + 1];
                line.iter_mut().zip(&centred).for_each(|(sum, &b)| *sum += a * b);
            }
        }
        let n = labels.len() as f64;
        covariance.iter_mut().for_each(|c| *c /= n);
        let variance = (0..width).map(|i| covariance[i * width + i]).sum::<f64>() / width as f64;
        if variance <= 0.0 {
            return None;
        }
        (0..width).for_each(|i| covariance[i * width + i] += RIDGE * variance);
        cholesky(&mut covariance, width)?;
        let mut fitted = Mahalanobis { width, factor: covariance, means: Vec::new() };
        let seen = means.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        fitted.means = seen.map(|(mean, _)| fitted.whitened(mean)).collect();
        Some(fitted)
    }

    /// The squared distance to the nearest class; high for foreign samples. Infinite for features
    /// that are not as many as those fitted.
    pub fn score(&self, features: &[f32]) -> f64 {
        if features.len() != self.width {
            return f64::INFINITY;
        }
        let x = self.whitened(features.iter().map(|&x| f64::from(x)).collect());
        let distance = |mean: &Vec<f64>| x.iter().zip(mean).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        self.means.iter().map(distance).fold(f64::INFINITY, f64::min)
    }

    /// L⁻¹·x.
    fn whitened(&self, mut x: Vec<f64>) -> Vec<f64> {
        for i in 0..self.width {
            let row = &self.factor[i * self.width..][..i + 1];
            let known: f64 = row[..i].iter().zip(&x).map(|(l, x)| l * x).sum();
            x[i] = (x[i] - known) / row[i];
        }
        x
    }
}

/// The lower factor in place of the lower triangle of a symmetric matrix; none unless it is
/// positive definite.
fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for i in 0..n {
        for j in 0..=i {
            let (before, own) = a.split_at(i * n);
            let known: f64 = if i == j {
                own[..j].iter().map(|x| x * x).sum()
            } else {
                before[j * n..j * n + j].iter().zip(&own[..j]).map(|(x, y)| x * y).sum()
            };
            let rest = own[j] - known;
            if i == j && !(rest > 0.0 && rest.is_finite()) {
                return None;
            }
            let value = if i == j { rest.sqrt() } else { rest / before[j * n + j] };
            a[i * n + j] = value;
        }
    }
    Some(())
}

/// The spectral signature of each sample (Tran, Li and Madry, arXiv 1811.00636): within its class,
/// the square of its centred features' component along the direction in which the class varies
/// most. Poisoned samples score high.
///
/// Features `[labels.len(), width]`; the direction comes from so many steps of the power method
/// that a part of 10^-6 of the gap to the next one is left, at most 1000.
pub fn spectral_signatures(features: &[f32], width: usize, labels: &[u32]) -> Vec<f64> {
    let mut scores = vec![0.0; labels.len()];
    let classes = labels.iter().max().map_or(0, |&l| l + 1);
    for class in 0..classes {
        let own: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
        if own.is_empty() {
            continue;
        }
        let row = |i: usize| features[i * width..(i + 1) * width].iter().map(|&x| f64::from(x));
        let mut mean = vec![0.0; width];
        own.iter().for_each(|&i| mean.iter_mut().zip(row(i)).for_each(|(m, x)| *m += x));
        mean.iter_mut().for_each(|m| *m /= own.len() as f64);
        let centred: Vec<f64> =
            own.iter().flat_map(|&i| row(i).zip(&mean).map(|(x, m)| x - m).collect::<Vec<_>>()).collect();
        let direction = first_singular(&centred, width);
        for (&i, x) in own.iter().zip(centred.chunks_exact(width)) {
            scores[i] = dot(x, &direction).powi(2);
        }
    }
    scores
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The first right singular vector of the rows of `x`, of length 1; zeros if all rows are.
fn first_singular(x: &[f64], width: usize) -> Vec<f64> {
    // The longest row is not orthogonal to it but by a rare accident, which rounding corrects.
    let longest = x.chunks_exact(width).max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut v = longest.map_or(vec![0.0; width], <[f64]>::to_vec);
    for _ in 0..1000 {
        let norm = dot(&v, &v).sqrt();
        if norm == 0.0 {
            break;
        }
        v.iter_mut().for_each(|v| *v /= norm);
        let mut next = vec![0.0; width];
        for row in x.chunks_exact(width) {
            let along = dot(row, &v);
            next.iter_mut().zip(row).for_each(|(n, r)| *n += along * r);
        }
        let length = dot(&next, &next).sqrt();
        let turned = 1.0 - dot(&next, &v) / length.max(f64::MIN_POSITIVE);
        v = next;
        if turned < 1e-14 {
            break;
        }
    }
    let norm = dot(&v, &v).sqrt();
    if norm > 0.0 {
        v.iter_mut().for_each(|v| *v /= norm);
    }
    v
}
