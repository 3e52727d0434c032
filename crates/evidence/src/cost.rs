//! What runs cost: time, core-hours, energy, carbon and money, for each run that could be used.
//!
//! Everything that was spent on a precision is charged to the runs of it that were accepted: runs
//! that diverged, were broken off or had to be repeated too. Energy is what the processor counted
//! where it does (RAPL), and else core-seconds times an assumed power; carbon is always reckoned
//! from an assumed grid.

use halfstep_train::metrics::Outcome;
use serde::{Deserialize, Serialize};

use crate::run::{RunResult, Spent};

/// Joules of a kilowatt-hour.
pub(crate) const JOULES_PER_KWH: f64 = 3.6e6;

/// What costs are reckoned from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Price of a core for an hour, if one was stated.
    pub rate_per_core_hour: Option<f64>,
    /// What the price is in.
    pub currency: String,
    /// Watts of a busy core, assumed where energy was not counted.
    pub watts_per_core: f64,
    /// Grams of carbon dioxide of a kilowatt-hour, assumed.
    pub grams_co2_per_kwh: f64,
}

impl Spent {
    /// In the units that costs are reported in.
    pub fn amounts(&self, rates: &Rates) -> Amounts {
        let joules = self.joules.unwrap_or(self.core_seconds * rates.watts_per_core);
        let (core_hours, kwh) = (self.core_seconds / 3600.0, joules / JOULES_PER_KWH);
        Amounts {
            wall_seconds: self.wall_seconds,
            core_hours,
            kwh,
            kg_co2: kwh * rates.grams_co2_per_kwh / 1000.0,
            price: rates.rate_per_core_hour.map(|rate| rate * core_hours),
        }
    }
}

/// A cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Amounts {
    /// Seconds by the clock, of runs one after another.
    pub wall_seconds: f64,
    /// Core-hours.
    pub core_hours: f64,
    /// Kilowatt-hours.
    pub kwh: f64,
    /// Kilograms of carbon dioxide.
    pub kg_co2: f64,
    /// Money, if a rate was stated.
    pub price: Option<f64>,
}

impl Amounts {
    /// Each amount of both put together by `f`; no price where one has none.
    pub fn with(self, other: Amounts, f: impl Fn(f64, f64) -> f64) -> Amounts {
        Amounts {
            wall_seconds: f(self.wall_seconds, other.wall_seconds),
            core_hours: f(self.core_hours, other.core_hours),
            kwh: f(self.kwh, other.kwh),
            kg_co2: f(self.kg_co2, other.kg_co2),
            price: self.price.zip(other.price).map(|(a, b)| f(a, b)),
        }
    }

    /// So many times as much.
    pub fn times(self, factor: f64) -> Amounts {
        self.with(self, |a, _| a * factor)
    }
}

/// Where an amount of energy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Energy {
    /// Counted by the processor.
    Measured,
    /// Core-seconds times the assumed power.
    Estimated,
}

/// What the runs of one precision cost.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyCost {
    /// Runs begun.
    pub runs: usize,
    /// Runs that finished.
    pub accepted: usize,
    /// Everything that was spent on them.
    pub all: Amounts,
    /// Of it, on runs that did not finish, and on attempts that were broken off.
    pub wasted: Amounts,
    /// Everything that was spent, for each run that finished; none without one.
    pub per_accepted: Option<Amounts>,
    /// A million predictions; none where they were not timed.
    pub per_million_predictions: Option<Amounts>,
    /// Where the energy comes from.
    pub energy: Energy,
}

impl PolicyCost {
    /// Of all runs of one precision.
    pub fn of(runs: &[&RunResult], rates: &Rates) -> PolicyCost {
        let sum = |spent: &mut dyn Iterator<Item = Spent>| {
            let zero = Spent { joules: Some(0.0), ..Spent::default() };
            spent.fold(zero, Spent::plus)
        };
        let finished = |r: &RunResult| r.record.outcome == Outcome::Finished;
        let all = sum(&mut runs.iter().map(|r| r.spent));
        let wasted = sum(&mut runs.iter().map(|r| {
            // What a run took of its own belongs to it; the rest went into attempts that came to
            // nothing.
            let used = match (finished(r), r.attempts) {
                (false, _) => 0.0,
                (true, 0 | 1) => r.spent.wall_seconds,
                (true, _) => r.record.wall_seconds.min(r.spent.wall_seconds),
            };
            let share = 1.0 - used / r.spent.wall_seconds.max(f64::MIN_POSITIVE);
            Spent {
                wall_seconds: r.spent.wall_seconds * share,
                core_seconds: r.spent.core_seconds * share,
                joules: r.spent.joules.map(|j| j * share),
            }
        }));
        let accepted = runs.iter().filter(|r| finished(r)).count();
        let predictions = runs.iter().filter_map(|r| Some((r.inference?, r.way.threads)));
        let (samples, wall, cores) =
            predictions.fold((0usize, 0.0, 0.0), |(n, wall, cores), (i, threads)| {
                (n + i.samples, wall + i.seconds, cores + i.seconds * threads as f64)
            });
        let predicting = Spent { wall_seconds: wall, core_seconds: cores, joules: None };
        PolicyCost {
            runs: runs.len(),
            accepted,
            all: all.amounts(rates),
            wasted: wasted.amounts(rates),
            per_accepted: (accepted > 0).then(|| all.amounts(rates).times(1.0 / accepted as f64)),
            per_million_predictions: (samples > 0)
                .then(|| predicting.amounts(rates).times(1e6 / samples as f64)),
            energy: if all.joules.is_some() { Energy::Measured } else { Energy::Estimated },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::comparison::tests::run;

    pub(crate) fn rates() -> Rates {
        Rates {
            rate_per_core_hour: Some(0.1),
            currency: "EUR".into(),
            watts_per_core: 10.0,
            grams_co2_per_kwh: 400.0,
        }
    }

    #[test]
    fn failed_and_repeated_runs_are_charged_to_the_accepted() {
        let mut diverged = run("bf16", 1, 0.1, 5.0);
        diverged.record.outcome = Outcome::Diverged { reason: "x".into() };
        // Killed once after 3 s: 4 s in all, of which its own is 1 s.
        let mut repeated = run("bf16", 2, 0.9, 5.0);
        repeated.spent = Spent { wall_seconds: 4.0, core_seconds: 8.0, joules: None };
        repeated.attempts = 2;
        let good = run("bf16", 0, 0.9, 5.0);
        let cost = PolicyCost::of(&[&good, &diverged, &repeated], &rates());
        assert_eq!((cost.runs, cost.accepted, cost.energy), (3, 2, Energy::Estimated));
        // 2 + 2 + 8 core-seconds over two runs.
        let each = cost.per_accepted.unwrap();
        assert!((each.core_hours - 6.0 / 3600.0).abs() < 1e-15);
        assert!((each.price.unwrap() - 0.6 / 3600.0).abs() < 1e-15);
        assert!((each.kwh - 60.0 / 3.6e6).abs() < 1e-15);
        assert!((each.kg_co2 - each.kwh * 0.4).abs() < 1e-18);
        // 1 s diverged and 3 s repeated.
        assert!((cost.wasted.wall_seconds - 4.0).abs() < 1e-12, "{cost:?}");
        // 3 × 0.5 s on two threads for 3,000 samples.
        let million = cost.per_million_predictions.unwrap();
        assert!((million.core_hours * 3600.0 - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn energy_is_called_measured_only_if_all_of_it_was() {
        let with = |joules| RunResult {
            spent: Spent { joules, ..run("a", 0, 0.9, 1.0).spent },
            ..run("a", 0, 0.9, 1.0)
        };
        let (counted, not) = (with(Some(36.0)), with(None));
        let both = PolicyCost::of(&[&counted, &counted], &rates());
        assert_eq!(both.energy, Energy::Measured);
        assert!((both.all.kwh - 72.0 / 3.6e6).abs() < 1e-15);
        assert_eq!(PolicyCost::of(&[&counted, &not], &rates()).energy, Energy::Estimated);
    }
}
