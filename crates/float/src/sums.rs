//! Adding the same number again and again in a format: where the sum grows so large that the next
//! term vanishes in its rounding ("swamping"), and what prevents it.

use crate::code::{Overflow, Rounding, decode, encode, round_to};
use crate::draws::Draws;
use crate::format::Format;

/// How a running sum is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// Each sum rounded to nearest even.
    Nearest,
    /// Each sum rounded stochastically, term `i` with word `i`: right on average.
    Stochastic(Draws),
    /// Kahan's compensated summation (1965): a second number of the same format carries what
    /// rounding dropped.
    Kahan,
}

/// A running sum of equal terms.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningSum {
    /// Format of term and sum.
    pub format: Format,
    /// The term as the format has it.
    pub term: f64,
    /// The sum after some numbers of terms, about sixteen to a decade, the last after all of them.
    pub curve: Vec<(u64, f64)>,
    /// After how many terms no further one could change the sum, if that was before the last.
    pub stuck_after: Option<u64>,
}

impl RunningSum {
    /// The sum of `count` terms, each `term` rounded to `format`, beginning with 0. Overflow goes
    /// to infinity or NaN.
    ///
    /// The sum of two numbers of at most 24 significant bits is rounded to f64 first: that is
    /// innocuous, f64 having more than 2·24 + 2 bits (Figueroa 1995).
    pub fn new(format: Format, accumulation: Accumulation, term: f64, count: u64) -> RunningSum {
        let term = round_to(format, term);
        let points = points(count);
        let mut curve = Vec::with_capacity(points.len());
        let (mut sum, mut lost, mut changed, mut fixed) = (0.0f64, 0.0, 0, false);
        let mut at = 0;
        for point in points {
            while at < point {
                let before = (sum, lost);
                match accumulation {
                    Accumulation::Nearest => sum = round_to(format, sum + term),
                    Accumulation::Stochastic(draws) => {
                        let rounding = Rounding::Stochastic(draws.word(at));
                        sum = decode(format, encode(format, sum + term, rounding, Overflow::NonFinite));
                    }
                    Accumulation::Kahan => {
                        let corrected = round_to(format, term - lost);
                        let next = round_to(format, sum + corrected);
                        lost = round_to(format, round_to(format, next - sum) - corrected);
                        sum = next;
                    }
                }
                at += 1;
                let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
                if !same(sum, before.0) {
                    changed = at;
                } else if !sum.is_finite()
                    || same(lost, before.1) && !matches!(accumulation, Accumulation::Stochastic(_))
                {
                    // Nothing will ever change again.
                    fixed = true;
                    at = point;
                }
            }
            curve.push((point, sum));
        }
        RunningSum { format, term, curve, stuck_after: (fixed && changed < count).then_some(changed) }
    }

    /// The sum of all terms.
    pub fn last(&self) -> f64 {
        self.curve.last().map_or(0.0, |&(_, sum)| sum)
    }
}

/// About sixteen numbers to a decade, from 1 to `count`.
fn points(count: u64) -> Vec<u64> {
    let steps = (16.0 * (count.max(1) as f64).log10()).ceil() as u32;
    let mut points: Vec<u64> = (0..steps).map(|i| 10f64.powf(f64::from(i) / 16.0).round() as u64).collect();
    points.push(count);
    points.retain(|&p| p > 0 && p <= count);
    points.dedup();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum of ones stops where the ulp becomes 2: the tie goes to the even sum.
    #[test]
    fn ones_stop_at_two_to_the_significant_bits() {
        for (format, stop) in
            [(Format::Bf16, 256), (Format::F16, 2048), (Format::E4m3, 16), (Format::E5m2, 8)]
        {
            let sum = RunningSum::new(format, Accumulation::Nearest, 1.0, 10_000);
            assert_eq!((sum.last(), sum.stuck_after), (stop as f64, Some(stop)), "{format}");
            assert_eq!(sum.curve.last(), Some(&(10_000, stop as f64)));
        }
        let f32 = RunningSum::new(Format::F32, Accumulation::Nearest, 1.0, 10_000);
        assert_eq!((f32.last(), f32.stuck_after), (10_000.0, None));
    }

    #[test]
    fn f32_sums_are_the_processors() {
        let expected = (0..10_000).fold(0f32, |sum, _| sum + 0.1);
        let sum = RunningSum::new(Format::F32, Accumulation::Nearest, 0.1, 10_000);
        assert_eq!(sum.last(), f64::from(expected));
    }

    #[test]
    fn the_remedies_remedy() {
        // Kahan: within two roundings of the sum. Stochastic: n steps whose variance is at most
        // (ulp/2)² each, ulp being that of the sum, 64 at its end; 5 standard deviations, 5 · 32 ·
        // √n.
        let n = 10_000;
        let kahan = RunningSum::new(Format::Bf16, Accumulation::Kahan, 1.0, n);
        assert!((kahan.last() - n as f64).abs() <= 2.0 * 64.0, "{}", kahan.last());
        let draws = Draws { seed: 0, attempt: 0, op: 0 };
        let stochastic = RunningSum::new(Format::Bf16, Accumulation::Stochastic(draws), 1.0, n);
        assert!(
            (stochastic.last() - n as f64).abs() < 5.0 * 32.0 * (n as f64).sqrt(),
            "{}",
            stochastic.last()
        );
        assert!(stochastic.last() > 8000.0, "{}", stochastic.last());
    }

    #[test]
    fn overflow_and_nothing() {
        let sum = RunningSum::new(Format::F16, Accumulation::Nearest, 1000.0, 100);
        assert_eq!((sum.last(), sum.stuck_after), (f64::INFINITY, Some(66)));
        let none = RunningSum::new(Format::F16, Accumulation::Nearest, 1.0, 0);
        assert_eq!((none.last(), none.curve.len(), none.stuck_after), (0.0, 0, None));
    }

    #[test]
    fn points_ascend_to_the_count() {
        for count in [1, 2, 7, 100, 12_345] {
            let points = points(count);
            assert!(points.is_sorted_by(|a, b| a < b) && points[0] == 1 && points.last() == Some(&count));
        }
    }
}
