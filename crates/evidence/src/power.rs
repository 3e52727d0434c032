//! How many seeds the one-sided paired t-test needs.

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};
use statrs::function::gamma::ln_gamma;

use crate::stats::{ALPHA, t_upper};

/// More seeds than anyone trains.
pub const MOST_SEEDS: usize = 10_000;

/// Chance that a candidate without any difference passes with `n` pairs, where `spread_over_margin`
/// is the standard deviation of the differences over the margin. 0 for fewer than two pairs, 1
/// without spread.
///
/// This is P(T > t(0.95, ν)) for T noncentral t with ν = n − 1 and δ = √n / spread_over_margin.
/// With S = √(χ²(ν)/ν) it is the mean of Φ(δ − t·S), integrated here over the density of S by
/// Simpson's rule.
pub fn power(n: usize, spread_over_margin: f64) -> f64 {
    if n < 2 || spread_over_margin.is_nan() {
        return 0.0;
    }
    if spread_over_margin <= 0.0 {
        return 1.0;
    }
    let (t, delta) = (t_upper(n - 1), (n as f64).sqrt() / spread_over_margin);
    let v = (n - 1) as f64;
    let scale = std::f64::consts::LN_2 + v / 2.0 * (v / 2.0).ln() - ln_gamma(v / 2.0);
    let normal = Normal::standard();
    let integrand = |s: f64| {
        // The density of S: 2 (ν/2)^(ν/2) / Γ(ν/2) · s^(ν−1) · exp(−ν s²/2); s^0 is 1 at zero too.
        let log_power = if v > 1.0 { (v - 1.0) * s.ln() } else { 0.0 };
        (scale + log_power - v * s * s / 2.0).exp() * normal.cdf(delta - t * s)
    };
    // S has mean about 1 and standard deviation below 1/√(2ν): 12/√ν is 17 deviations beyond.
    const PANELS: usize = 2000;
    let width = (1.0 + 12.0 / v.sqrt()) / PANELS as f64;
    let inner: f64 =
        (1..PANELS).map(|i| integrand(i as f64 * width) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    ((integrand(0.0) + inner + integrand(PANELS as f64 * width)) * width / 3.0).min(1.0)
}

/// The fewest seeds with which a candidate without any difference passes with chance `goal`, such
/// as 0.8. None if [`MOST_SEEDS`] are too few, or for a ratio or goal that means nothing.
pub fn seeds_needed(spread_over_margin: f64, goal: f64) -> Option<usize> {
    if !(spread_over_margin >= 0.0 && goal > 0.0 && goal < 1.0)
        || power(MOST_SEEDS, spread_over_margin) < goal
    {
        return None;
    }
    // Power rises with n: bisection.
    let (mut too_few, mut enough) = (1, MOST_SEEDS);
    while enough - too_few > 1 {
        let middle = (too_few + enough) / 2;
        if power(middle, spread_over_margin) >= goal { enough = middle } else { too_few = middle }
    }
    Some(enough)
}

/// One-sided 95 % upper bound of a standard deviation that was `sd` over `n` values of a normal
/// distribution: sd·√((n − 1)/χ²(0.05, n − 1)). A few pilot seeds may by chance have scattered
/// little; plans by the bound do not suffer for it. None for fewer than two values.
pub fn sd_at_most(sd: f64, n: usize) -> Option<f64> {
    let v = n.checked_sub(1).filter(|&v| v > 0)? as f64;
    Some(sd * (v / ChiSquared::new(v).ok()?.inverse_cdf(ALPHA)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::stats::mean_sd;

    /// The bound lies below the truth in 5 % of experiments: a binomial count, five of whose
    /// deviations are allowed.
    #[test]
    fn the_bound_of_a_spread_covers_it_as_often_as_it_says() {
        const TRIALS: u64 = 20_000;
        for n in [2, 3, 5, 10] {
            let misses = (0..TRIALS).filter(|&which| {
                let draws = Draws::new(11 + n as u64, which);
                let values: Vec<f64> = (0..n as u64).map(|i| draws.normal(i)).collect();
                let sd = mean_sd(&values).unwrap().1.unwrap();
                sd_at_most(sd, n).unwrap() < 1.0
            });
            let share = misses.count() as f64 / TRIALS as f64;
            let error = 5.0 * (0.05 * 0.95 / TRIALS as f64).sqrt();
            assert!((share - 0.05).abs() < error, "{n}: {share}");
        }
        assert_eq!(sd_at_most(1.0, 1), None);
    }

    /// The table that the project plans by, from the noncentral t distribution.
    #[test]
    fn the_table_of_seeds() {
        let table = [(0.5, 4, 4), (1.0, 8, 11), (1.5, 16, 21), (2.0, 27, 36), (3.0, 58, 79)];
        for (ratio, at_80, at_90) in table {
            assert_eq!(
                (seeds_needed(ratio, 0.8), seeds_needed(ratio, 0.9)),
                (Some(at_80), Some(at_90)),
                "{ratio}"
            );
        }
    }

    #[test]
    fn limits() {
        assert_eq!(seeds_needed(0.0, 0.8), Some(2));
        assert_eq!(seeds_needed(f64::NAN, 0.8), None);
        assert_eq!(seeds_needed(1e6, 0.8), None);
        assert_eq!(power(1, 1.0), 0.0);
        // No chance beyond α without a margin to speak of.
        assert!((power(10, 1e9) - 0.05).abs() < 1e-6);
    }
}
