//! The arithmetic of attacks: losses as gradients by the logits, steps within a ball, and the
//! schedule of the Square attack.

/// The gradient of the cross-entropy of one row by its logits: softmax − one-hot, in f64, so that a
/// confident row keeps a gradient where f32 would round 1 − p to zero.
///
/// `label` is an index of `logits`; `out` has their length.
pub fn cross_entropy_gradient(logits: &[f32], label: u32, out: &mut [f32]) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps = || logits.iter().map(|&x| (f64::from(x) - f64::from(top)).exp());
    let sum: f64 = exps().sum();
    let others: f64 = exps().enumerate().filter(|(i, _)| *i != label as usize).map(|(_, e)| e).sum();
    for (i, (o, e)) in out.iter_mut().zip(exps()).enumerate() {
        // Of the label, −Σ of the others: p − 1 would cancel.
        *o = (if i == label as usize { -others / sum } else { e / sum }) as f32;
    }
}

/// The difference of logits ratio (Croce and Hein, arXiv 2003.01690) of one row, −(z_y − max_{i≠y}
/// z_i) / (z_π1 − z_π3) with π the order of the logits from the greatest, and its gradient by the
/// logits. It does not change when the logits are scaled or moved, so a model cannot hide its
/// gradients behind large logits.
///
/// As [`cross_entropy_gradient`]. With two classes, where there is no third, the denominator is 1
/// (only the sign matters to a step). Equal logits are ordered by their place. A denominator of
/// zero gives zeros.
pub fn dlr(logits: &[f32], label: u32, out: &mut [f32]) -> f64 {
    out.fill(0.0);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let y = label as usize;
    let z = |i: usize| f64::from(logits[i]);
    let Some(&other) = order.iter().find(|&&i| i != y) else { return 0.0 };
    let margin = z(y) - z(other);
    let spread = if logits.len() > 2 { z(order[0]) - z(order[2]) } else { 1.0 };
    if spread == 0.0 {
        return 0.0;
    }
    let mut gradient = vec![0.0; logits.len()];
    gradient[y] -= 1.0 / spread;
    gradient[other] += 1.0 / spread;
    if logits.len() > 2 {
        gradient[order[0]] += margin / (spread * spread);
        gradient[order[2]] -= margin / (spread * spread);
    }
    out.iter_mut().zip(gradient).for_each(|(o, g)| *o = g as f32);
    -margin / spread
}

/// The margin loss z_y − max_{i≠y} z_i: below zero, the row is misclassified.
pub fn margin(logits: &[f32], label: u32) -> f64 {
    let y = label as usize;
    let other =
        logits.iter().enumerate().filter(|(i, _)| *i != y).map(|(_, &x)| x).fold(f32::NEG_INFINITY, f32::max);
    f64::from(logits[y]) - f64::from(other)
}

/// One step of the projected gradient method in the maximum norm (Madry et al., arXiv 1706.06083):
/// x + step·sign(gradient), kept within ±`epsilon` of `clean` and within [0, 1]. With step = ε from
/// the clean image it is the fast gradient sign method (Goodfellow et al., arXiv 1412.6572). In
/// f32, in torch's order of operations.
pub fn sign_step(x: &mut [f32], gradient: &[f32], step: f32, clean: &[f32], epsilon: f32) {
    for ((x, g), c) in x.iter_mut().zip(gradient).zip(clean) {
        let sign = if *g > 0.0 {
            1.0
        } else if *g < 0.0 {
            -1.0
        } else {
            0.0
        };
        let moved = *x + step * sign;
        *x = moved.max(c - epsilon).min(c + epsilon).clamp(0.0, 1.0);
    }
}

/// Share of an image that the Square attack changes in query `query` of `queries` (Andriushchenko
/// et al., arXiv 1912.00049): `first`, halved at the places that the authors chose for 10,000
/// queries, in proportion.
pub fn square_share(first: f64, query: usize, queries: usize) -> f64 {
    let at = (query as f64 / queries.max(1) as f64 * 10_000.0).floor();
    let halvings = [10.0, 50.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0, 6000.0, 8000.0];
    first / 2f64.powi(halvings.iter().filter(|&&h| at > h).count() as i32)
}

/// The side of the square for that share of an image of height × width pixels: at least 1, less
/// than the shorter side.
pub fn square_side(share: f64, height: usize, width: usize) -> usize {
    let side = (share * (height * width) as f64).sqrt().round() as usize;
    side.clamp(1, (height.min(width) - 1).max(1))
}
