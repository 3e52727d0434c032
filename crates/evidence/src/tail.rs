//! One-sided tests of a mean against zero: its bounds, and the p values that belong to them.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::stats::{Looks, t_survival, t_upper, z_upper};

/// What is known of a mean excess: harm, or gain, less the margin.
pub(crate) struct Tail {
    /// One-sided bounds of it.
    pub at_most: Option<f64>,
    pub at_least: Option<f64>,
    /// P value of "the mean is zero or more".
    pub below: Option<f64>,
    /// P value of "the mean is zero or less".
    pub above: Option<f64>,
}

/// A part of a mean's variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    /// Its estimate.
    pub variance: f64,
    /// Degrees of freedom of the estimate; infinite of a variance that is known.
    pub degrees: f64,
}

/// Half of the interval of a mean whose variance is a sum of parts that are estimated
/// independently: the root of Σ t²·variance, each part with the quantile of its own degrees of
/// freedom. A one-sided bound at that distance holds with confidence 1 − `alpha` at least, whatever
/// the shares of the parts are (Banerjee, Sankhyā 22, 1960, 357–358, and A 23, 1961, 359–378): the
/// chance that a squared normal number stays below a bound is concave in the bound, so the mean
/// over parts is no less than what each would give alone. By Satterthwaite's degrees of freedom of
/// the sum a candidate at the margin would pass in up to 5.5 % of cases of three seeds.
pub(crate) fn half_width(parts: &[Part], alpha: f64) -> f64 {
    let of = |p: &Part| if p.variance > 0.0 { t_upper(p.degrees, alpha).powi(2) * p.variance } else { 0.0 };
    parts.iter().map(of).sum::<f64>().sqrt()
}

impl Tail {
    /// The one-sample t-test of a mean against zero.
    pub fn of_t(mean: f64, error: Option<f64>, degrees: f64, looks: Looks) -> Tail {
        Tail::symmetric(mean, error, |t| t_survival(t, degrees), t_upper(degrees, looks.alpha()))
    }

    /// The same with a known standard error, of a mean that moves by steps: `correction` is half of
    /// one (for continuity).
    pub fn of_normal(mean: f64, error: f64, correction: f64, looks: Looks) -> Tail {
        let of =
            |mean| Tail::symmetric(mean, Some(error), |z| Normal::standard().sf(z), z_upper(looks.alpha()));
        let (up, down) = (of(mean + correction), of(mean - correction));
        Tail { at_most: up.at_most, below: up.below, at_least: down.at_least, above: down.above }
    }

    fn symmetric(mean: f64, error: Option<f64>, survival: impl Fn(f64) -> f64, quantile: f64) -> Tail {
        // Without spread the mean is certain: t is infinite, and a mean of exactly zero is on
        // neither side.
        let p =
            |sign: f64| error.map(|e| if e == 0.0 && mean == 0.0 { 1.0 } else { survival(sign * mean / e) });
        let half = error.map(|e| if e == 0.0 { 0.0 } else { quantile * e });
        Tail {
            at_most: half.map(|h| mean + h),
            at_least: half.map(|h| mean - h),
            below: p(-1.0),
            above: p(1.0),
        }
    }

    /// Of a mean whose variance has several parts: the bounds of [`half_width`], and as p values
    /// the levels at which a bound reaches zero.
    pub fn of_parts(mean: f64, parts: &[Part], looks: Looks) -> Tail {
        let spread: Vec<Part> = parts.iter().copied().filter(|p| p.variance != 0.0).collect();
        if let [] | [_] = spread[..] {
            let part = spread.first().copied().unwrap_or(Part { variance: 0.0, degrees: f64::INFINITY });
            return Tail::of_t(mean, Some(part.variance.sqrt()), part.degrees, looks);
        }
        let half = half_width(&spread, looks.alpha());
        let beyond = level(mean.abs(), &spread);
        let (below, above) = if mean < 0.0 { (beyond, 1.0 - beyond) } else { (1.0 - beyond, beyond) };
        Tail {
            at_most: Some(mean + half),
            at_least: Some(mean - half),
            below: Some(below),
            above: Some(above),
        }
    }

    /// The more careful of two on each side.
    pub fn or_wider(self, other: Tail) -> Tail {
        let most = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.max(b));
        Tail {
            at_most: most(self.at_most, other.at_most),
            at_least: self.at_least.zip(other.at_least).map(|(a, b)| a.min(b)),
            below: most(self.below, other.below),
            above: most(self.above, other.above),
        }
    }
}

/// The least level that is looked for: no test needs quantiles that are further out.
const LEAST_LEVEL: f64 = 1e-15;
/// More steps than are made: about ten are.
const MOST_STEPS: u32 = 100;
/// How near a half width is to the distance, as a share of it.
const NEAR: f64 = 1e-12;

/// The level in [[`LEAST_LEVEL`], 1/2] at which `half_width` is `distance`, by regula falsi with
/// halved weights (Illinois; Dowell and Jarratt, BIT 11, 1971).
fn level(distance: f64, parts: &[Part]) -> f64 {
    let normal = Normal::standard();
    let beyond = |z: f64| half_width(parts, normal.sf(z)) - distance;
    // No quantile is less than the normal one, and at 1/2 all are zero.
    let least = distance / parts.iter().map(|p| p.variance).sum::<f64>().sqrt();
    let (mut low, mut below) = (0.0, -distance);
    let mut high = least.min(z_upper(LEAST_LEVEL));
    let mut above = beyond(high);
    if above <= 0.0 {
        return normal.sf(high);
    }
    let mut before = 0.0;
    for _ in 0..MOST_STEPS {
        let z = (low * above - high * below) / (above - below);
        let here = beyond(z);
        if here.abs() <= NEAR * distance {
            return normal.sf(z);
        }
        // An end that stays twice counts half.
        let again = if here * before > 0.0 { 0.5 } else { 1.0 };
        if here < 0.0 {
            (low, below, above) = (z, here, above * again);
        } else {
            (high, above, below) = (z, here, below * again);
        }
        before = here;
    }
    normal.sf(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ALPHA;

    fn part(variance: f64, degrees: f64) -> Part {
        Part { variance, degrees }
    }

    #[test]
    fn a_p_value_is_the_level_at_which_the_bound_is_zero() {
        for parts in [
            vec![part(1.0, 2.0), part(0.5, 250.0), part(0.1, f64::INFINITY)],
            vec![part(0.01, 1.0), part(2.0, 4.0)],
            vec![part(3.0, 9.0), part(1e-9, 1000.0)],
        ] {
            for alpha in [0.4, ALPHA, ALPHA / 3.0, 1e-6] {
                let half = half_width(&parts, alpha);
                // The half width is found to 1e-12 of itself, quantiles of t to about 1e-9.
                let close = |p: Option<f64>| (p.unwrap() / alpha - 1.0).abs() < 1e-6;
                assert!(close(Tail::of_parts(-half, &parts, Looks::ONE).below), "{parts:?} at {alpha}");
                assert!(close(Tail::of_parts(half, &parts, Looks::ONE).above), "{parts:?} at {alpha}");
            }
            let at = half_width(&parts, ALPHA);
            let tail = Tail::of_parts(-at, &parts, Looks::ONE);
            assert!(tail.at_most.unwrap().abs() < 1e-12 && tail.above.unwrap() > 0.9);
        }
    }

    #[test]
    fn one_part_is_the_t_test_and_none_is_certain() {
        let (one, t) = (
            Tail::of_parts(-1.5, &[part(0.25, 4.0), part(0.0, 9.0)], Looks::ONE),
            Tail::of_t(-1.5, Some(0.5), 4.0, Looks::ONE),
        );
        assert_eq!((one.below, one.at_most), (t.below, t.at_most));
        let none = Tail::of_parts(-1.5, &[part(0.0, 4.0)], Looks::ONE);
        assert_eq!((none.below, none.above, none.at_most), (Some(0.0), Some(1.0), Some(-1.5)));
        assert_eq!(Tail::of_parts(0.0, &[], Looks::ONE).below, Some(1.0));
        // Far out there is a level too.
        let far = Tail::of_parts(-1e9, &[part(1.0, 2.0), part(1.0, 200.0)], Looks::ONE);
        assert!(far.below.unwrap() <= 1.1 * LEAST_LEVEL);
    }
}
