//! Numbers and places in words.

use halfstep_graph::Phase;

/// A number with few digits.
pub(crate) fn short(x: f64) -> String {
    match x.abs() {
        a if a != 0.0 && !(1e-3..1e5).contains(&a) => format!("{x:.3e}"),
        a if a >= 100.0 => format!("{x:.0}"),
        _ => format!("{}", (x * 1e4).round() / 1e4),
    }
}

/// "forward pass" and so on.
pub(super) fn pass(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "forward pass",
        Phase::Backward => "backward pass",
        Phase::Update => "update",
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.1 => "less than 0.1 %".into(),
        p => format!("{} %", (p * 10.0).round() / 10.0),
    }
}
