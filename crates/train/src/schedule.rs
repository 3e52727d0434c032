//! Learning-rate schedules. They count committed steps: a skipped step does not advance them.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::setting::{SettingError, require};

/// The full rate after a warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {
    /// Steps over which the rate rises to its full value.
    pub warmup: u64,
}

/// A rate that falls after a warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decay {
    /// Steps over which the rate rises to its full value.
    pub warmup: u64,
    /// Fraction of the full rate that is left at the end.
    pub end: f64,
}

/// A rate that rises and then falls, once (Smith and Topin 2018), as torch's `OneCycleLR` has it by
/// default. The momentum stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// Fraction of the run over which the rate rises to its full value.
    pub rise: f64,
    /// Fraction of the full rate at the beginning.
    pub start: f64,
    /// Fraction of the full rate that is left at the end.
    pub end: f64,
}

impl Default for OneCycle {
    fn default() -> OneCycle {
        OneCycle { rise: 0.3, start: 1.0 / 25.0, end: 1.0 / 25.0 / 1e4 }
    }
}

impl OneCycle {
    /// Half a cosine up to step `rise · total − 1`, and half a cosine down to the last step.
    fn factor(&self, committed: u64, total: u64) -> f64 {
        let half_cosine =
            |from: f64, to: f64, p: f64| to + (from - to) * 0.5 * (1.0 + (PI * p.min(1.0)).cos());
        let (step, top, last) = (committed as f64, self.rise * total as f64 - 1.0, total as f64 - 1.0);
        if top > 0.0 && step <= top {
            half_cosine(self.start, 1.0, step / top)
        } else if last > top.max(0.0) {
            half_cosine(1.0, self.end, (step - top.max(0.0)) / (last - top.max(0.0)))
        } else {
            1.0
        }
    }
}

/// How the learning rate changes over a run.
///
/// During warm-up, step s (from 0) has the factor (s + 1) / warmup. After it, with p the part of
/// the remaining steps already done, the factor falls from 1 at p = 0 to `end` at p = 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Schedule {
    /// Stays at 1.
    Constant(Constant),
    /// 1 − (1 − end)·p.
    Linear(Decay),
    /// end + (1 − end)·(1 + cos πp) / 2 (Loshchilov and Hutter 2017).
    Cosine(Decay),
    /// Up and down again.
    OneCycle(OneCycle),
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Constant(Constant::default())
    }
}

impl Schedule {
    /// Every kind's name.
    pub const KINDS: [&'static str; 4] = ["constant", "linear", "cosine", "onecycle"];

    /// What the learning rate is multiplied with in the next step, after `committed` steps out of
    /// `total`.
    pub fn factor(&self, committed: u64, total: u64) -> f64 {
        let warmup = self.warmup();
        if committed < warmup {
            return (committed + 1) as f64 / warmup as f64;
        }
        let rest = total.saturating_sub(warmup).max(1);
        let done = ((committed - warmup) as f64 / rest as f64).min(1.0);
        match self {
            Schedule::Constant(_) => 1.0,
            Schedule::Linear(d) => 1.0 - (1.0 - d.end) * done,
            Schedule::Cosine(d) => d.end + (1.0 - d.end) * 0.5 * (1.0 + (PI * done).cos()),
            Schedule::OneCycle(c) => c.factor(committed, total),
        }
    }

    /// Whether the constants make sense for a run of `total` steps.
    ///
    /// # Errors
    /// A warm-up longer than the run; an end outside 0..=1.
    pub fn validate(&self, total: u64) -> Result<(), SettingError> {
        require(self.warmup() <= total, "warmup", self.warmup(), "no more steps than the run has")?;
        match self {
            Schedule::Constant(_) => Ok(()),
            Schedule::Linear(d) | Schedule::Cosine(d) => {
                require((0.0..=1.0).contains(&d.end), "end", d.end, "a fraction from 0 to 1")
            }
            Schedule::OneCycle(c) => {
                require((0.0..=1.0).contains(&c.rise), "rise", c.rise, "a fraction from 0 to 1")?;
                require((0.0..=1.0).contains(&c.start), "start", c.start, "a fraction from 0 to 1")?;
                require((0.0..=1.0).contains(&c.end), "end", c.end, "a fraction from 0 to 1")
            }
        }
    }

    /// Its kind, as recipes write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Schedule::Constant(_) => Self::KINDS[0],
            Schedule::Linear(_) => Self::KINDS[1],
            Schedule::Cosine(_) => Self::KINDS[2],
            Schedule::OneCycle(_) => Self::KINDS[3],
        }
    }

    /// Whether the rate of a step depends on how many there are.
    pub fn depends_on_length(&self) -> bool {
        !matches!(self, Schedule::Constant(_))
    }

    fn warmup(&self) -> u64 {
        match self {
            Schedule::Constant(c) => c.warmup,
            Schedule::Linear(d) | Schedule::Cosine(d) => d.warmup,
            Schedule::OneCycle(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_reaches_the_full_rate_at_its_last_step() {
        for schedule in [
            Schedule::Constant(Constant { warmup: 4 }),
            Schedule::Linear(Decay { warmup: 4, end: 0.0 }),
            Schedule::Cosine(Decay { warmup: 4, end: 0.0 }),
        ] {
            let factors: Vec<f64> = (0..5).map(|s| schedule.factor(s, 100)).collect();
            assert_eq!(factors, [0.25, 0.5, 0.75, 1.0, 1.0], "{schedule:?}");
        }
    }

    #[test]
    fn decay_ends_where_it_should_and_stays_there() {
        let linear = Schedule::Linear(Decay { warmup: 0, end: 0.1 });
        let cosine = Schedule::Cosine(Decay { warmup: 0, end: 0.1 });
        // Half way both are in the middle of 1 and 0.1; a rounding error or two of numbers below 1.
        let near = |a: f64, b: f64| (a - b).abs() <= 2.0 * f64::EPSILON;
        for schedule in [linear, cosine] {
            assert_eq!(schedule.factor(0, 10), 1.0);
            assert!(near(schedule.factor(5, 10), 0.55), "{}", schedule.factor(5, 10));
            assert!(near(schedule.factor(10, 10), 0.1));
            assert!(near(schedule.factor(1000, 10), 0.1));
            let falls = (0..10).all(|s| schedule.factor(s, 10) > schedule.factor(s + 1, 10));
            assert!(falls, "{schedule:?}");
        }
    }

    #[test]
    fn cosine_is_flat_at_its_ends() {
        // The derivative of cos is 0 at 0 and π: the first of 100 steps changes the factor by about
        // (π/100)²/4.
        let cosine = Schedule::Cosine(Decay { warmup: 0, end: 0.0 });
        let first = 1.0 - cosine.factor(1, 100);
        assert!((first - (PI / 100.0).powi(2) / 4.0).abs() < (PI / 100.0).powi(4));
    }

    /// Factors of torch 2's `OneCycleLR`, with its defaults and with others.
    #[test]
    fn one_cycle_follows_torch() {
        let default = [
            0.04,
            0.52,
            1.0,
            0.9504846320134737,
            0.8117456539497631,
            0.6112620219362893,
            0.38874197806371075,
            0.18825834605023697,
            0.049519367986526286,
            4e-06,
        ];
        let other = [
            0.1,
            0.41094235253127365,
            0.9140576474687263,
            0.9505339495172583,
            0.611649206511179,
            0.18906684397156262,
            0.001,
        ];
        let others = OneCycle { rise: 0.5, start: 0.1, end: 0.1 / 100.0 };
        for (cycle, expected) in [(OneCycle::default(), &default[..]), (others, &other[..])] {
            let (schedule, total) = (Schedule::OneCycle(cycle), expected.len() as u64);
            for (step, &expected) in expected.iter().enumerate() {
                let found = schedule.factor(step as u64, total);
                // A few roundings of numbers of at most 1.
                assert!(
                    (found - expected).abs() <= 8.0 * f64::EPSILON,
                    "step {step}: {found} is not {expected}"
                );
            }
        }
        let short = Schedule::OneCycle(OneCycle::default());
        assert!((0..3).all(|total| short.factor(0, total).is_finite()));
    }

    #[test]
    fn a_run_without_room_for_decay_is_defined() {
        let cosine = Schedule::Cosine(Decay { warmup: 3, end: 0.5 });
        assert_eq!(cosine.factor(3, 3), 1.0);
        assert_eq!(cosine.factor(4, 3), 0.5);
        assert_eq!(Schedule::default().factor(0, 0), 1.0);
    }

    #[test]
    fn contradictions_are_named() {
        assert_eq!(Schedule::Constant(Constant { warmup: 5 }).validate(4).unwrap_err().field, "warmup");
        let high = Schedule::Linear(Decay { warmup: 0, end: 1.5 });
        assert_eq!(high.validate(4).unwrap_err().field, "end");
        assert_eq!(Schedule::Cosine(Decay { warmup: 4, end: 0.0 }).validate(4), Ok(()));
    }
}
