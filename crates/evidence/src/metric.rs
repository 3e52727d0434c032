//! The metrics of a verdict: names, units, directions and the margins that hold unless others are
//! stated.

use serde::Serialize;

use crate::experiment::{EXAMPLE_MEASURES, SeedMeasures};
use crate::noninferiority::{Better, Margin};
use crate::units;

/// A metric that a verdict can rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Share predicted right.
    Accuracy,
    /// Share whose label is among the five likeliest classes.
    Top5,
    /// Mean recall of the classes that have samples.
    BalancedAccuracy,
    /// Mean F1 of the classes that have samples or answers.
    MacroF1,
    /// Area under the ROC curve; of more than two classes one-vs-rest, averaged over classes.
    Auroc,
    /// Mean negative log-likelihood, in nats.
    Nll,
    /// Brier score, 0 to 2.
    Brier,
    /// Expected calibration error.
    Ece,
    /// The same without the part that chance adds.
    EceDebiased,
    /// Share of changed answers, beyond what another seed changes.
    Flips,
    /// Share of right answers that became wrong, beyond what another seed spoils.
    NegativeFlips,
    /// KL(reference ‖ candidate) in nats, beyond that to another seed.
    Kl,
    /// Accuracy in each group of each group column.
    GroupAccuracy,
}

impl Metric {
    /// All, in the order of tables.
    pub const ALL: [Metric; 13] = [
        Metric::Accuracy,
        Metric::Top5,
        Metric::BalancedAccuracy,
        Metric::MacroF1,
        Metric::Auroc,
        Metric::Nll,
        Metric::Brier,
        Metric::Ece,
        Metric::EceDebiased,
        Metric::NegativeFlips,
        Metric::Flips,
        Metric::Kl,
        Metric::GroupAccuracy,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Top5 => "top5",
            Metric::BalancedAccuracy => "balanced-accuracy",
            Metric::MacroF1 => "macro-f1",
            Metric::Auroc => "auroc",
            Metric::Nll => "nll",
            Metric::Brier => "brier",
            Metric::Ece => "ece",
            Metric::EceDebiased => "ece-debiased",
            Metric::Flips => "flips",
            Metric::NegativeFlips => "negative-flips",
            Metric::Kl => "kl",
            Metric::GroupAccuracy => "group-accuracy",
        }
    }

    /// The metric of a name.
    pub fn from_name(name: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Which way is good.
    pub fn better(self) -> Better {
        match self {
            Metric::Accuracy
            | Metric::Top5
            | Metric::BalancedAccuracy
            | Metric::MacroF1
            | Metric::Auroc
            | Metric::GroupAccuracy => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// Whether it is a share, written in per cent and percentage points.
    pub fn is_share(self) -> bool {
        !matches!(self, Metric::Nll | Metric::Brier | Metric::Kl)
    }

    /// Whether it counts answers, so that the difference of an example is −1, 0 or 1.
    pub fn is_share_of_answers(self) -> bool {
        matches!(
            self,
            Metric::Accuracy | Metric::Top5 | Metric::Flips | Metric::NegativeFlips | Metric::GroupAccuracy
        )
    }

    /// Whether a changed answer moves it by a step of its own, as a share of answers, or of those
    /// in a class: where few change, its scatter does not show how far it may move.
    pub fn moves_by_answers(self) -> bool {
        !matches!(self, Metric::Nll | Metric::Brier | Metric::Kl)
    }

    /// Whether the reference's value is that of another seed's reference: the noise floor.
    pub fn is_beside_floor(self) -> bool {
        matches!(self, Metric::Flips | Metric::NegativeFlips | Metric::Kl)
    }

    /// The margin that holds if none is stated; a metric without one is shown and does not gate.
    pub fn default_margin(self) -> Option<Margin> {
        match self {
            Metric::Accuracy | Metric::Ece | Metric::NegativeFlips => Some(Margin::Absolute(0.01)),
            // 2 % of perplexity.
            Metric::Nll => Some(Margin::Absolute(0.02)),
            // Groups are smaller than the whole, and what is asked of each is asked of all.
            Metric::GroupAccuracy => Some(Margin::Absolute(0.03)),
            _ => None,
        }
    }

    /// Its place in [`OF_EXAMPLES`], if it is a mean over examples.
    pub fn of_examples(self) -> Option<usize> {
        OF_EXAMPLES.iter().position(|m| *m == self)
    }

    /// (reference, candidate) of a seed; none without a floor where one is needed, for groups, and
    /// of the AUROC where all samples have one label.
    pub fn values(self, seed: &SeedMeasures) -> Option<(f64, f64)> {
        let (a, b) = (&seed.reference.quality, &seed.candidate.quality);
        let classes = (&seed.reference.classes, &seed.candidate.classes);
        Some(match self {
            Metric::Accuracy => (a.accuracy, b.accuracy),
            Metric::Top5 => (a.top_5, b.top_5),
            Metric::BalancedAccuracy => (classes.0.balanced_accuracy, classes.1.balanced_accuracy),
            Metric::MacroF1 => (classes.0.macro_f1, classes.1.macro_f1),
            Metric::Auroc => (seed.reference.auroc?.value, seed.candidate.auroc?.value),
            Metric::Nll => (a.nll, b.nll),
            Metric::Brier => (a.brier, b.brier),
            Metric::Ece => (a.ece, b.ece),
            Metric::EceDebiased => (a.ece_debiased, b.ece_debiased),
            Metric::Flips => (seed.floor?.flips, seed.agreement.flips),
            Metric::NegativeFlips => (seed.floor?.negative_flips, seed.agreement.negative_flips),
            Metric::Kl => (seed.floor?.kl, seed.agreement.kl),
            Metric::GroupAccuracy => return None,
        })
    }

    /// A value in words.
    pub fn show(self, value: f64) -> String {
        if self.is_share() { units::percent(value, None) } else { format!("{value:.4}") }
    }

    /// A difference in words, with its sign.
    pub fn show_difference(self, difference: f64) -> String {
        if self.is_share() {
            return units::points(difference);
        }
        let sign = if difference < 0.0 { "−" } else { "+" };
        if difference.abs() < 0.00005 { "0.0000".into() } else { format!("{sign}{:.4}", difference.abs()) }
    }

    /// A margin in words.
    pub fn show_margin(self, margin: Margin) -> String {
        match margin {
            Margin::Absolute(m) => self.show_amount(m),
            Margin::Relative(share) => format!("{:.1} %", share * 100.0),
        }
    }

    /// An amount without sign in words.
    pub fn show_amount(self, amount: f64) -> String {
        if self.is_share() { format!("{:.2} pt", amount * 100.0) } else { format!("{amount:.4}") }
    }
}

/// The metrics that are means over examples, in the order of [`SeedMeasures::sums`].
pub const OF_EXAMPLES: [Metric; EXAMPLE_MEASURES] = [
    Metric::Accuracy,
    Metric::Top5,
    Metric::Nll,
    Metric::Brier,
    Metric::Flips,
    Metric::NegativeFlips,
    Metric::Kl,
];

/// Reads a margin: `1.0pt` is percentage points, `2%` a share of the baseline's value, a bare
/// number is in units of the metric. None for `off`: the metric does not gate.
///
/// # Errors
/// What is wrong with it.
pub fn parse_margin(metric: Metric, text: &str) -> Result<Option<Margin>, String> {
    if text == "off" {
        return Ok(None);
    }
    let number = |digits: &str| match digits.trim().parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err(format!("\"{text}\" is not a margin: write 1.0pt, 2%, a number above zero, or off")),
    };
    let margin = if let Some(points) = text.strip_suffix("pt") {
        if !metric.is_share() {
            return Err(format!(
                "{} is no share: give its margin as a number or as a per cent of itself",
                metric.name()
            ));
        }
        Margin::Absolute(number(points)? / 100.0)
    } else if let Some(share) = text.strip_suffix('%') {
        if metric.is_share() {
            // 1% of 90 % is not 1pt: who writes it may mean either.
            return Err(format!("for {} write percentage points, such as 1.0pt", metric.name()));
        }
        Margin::Relative(number(share)? / 100.0)
    } else {
        let x = number(text)?;
        if metric.is_share() && x >= 1.0 {
            return Err(format!(
                "{} lies between 0 and 1: write 1.0pt for a percentage point",
                metric.name()
            ));
        }
        Margin::Absolute(x)
    };
    Ok(Some(margin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_read_as_they_are_meant() {
        let read = parse_margin;
        assert_eq!(read(Metric::Accuracy, "1.5pt"), Ok(Some(Margin::Absolute(0.015))));
        assert_eq!(read(Metric::Accuracy, "0.01"), Ok(Some(Margin::Absolute(0.01))));
        assert_eq!(read(Metric::Nll, "2%"), Ok(Some(Margin::Relative(0.02))));
        assert_eq!(read(Metric::Ece, "off"), Ok(None));
        for (metric, text) in [
            (Metric::Accuracy, "1%"),
            (Metric::Accuracy, "1"),
            (Metric::Nll, "1pt"),
            (Metric::Nll, "-1"),
            (Metric::Nll, "NaN"),
            (Metric::Nll, ""),
        ] {
            assert!(read(metric, text).is_err(), "{text}");
        }
        assert!(Metric::ALL.iter().all(|m| Metric::from_name(m.name()) == Some(*m)));
    }
}
