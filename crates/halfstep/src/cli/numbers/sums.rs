//! Adding one number again and again.

use halfstep::evidence::units;
use halfstep::float::{Accumulation, Draws, Format, RunningSum};
use serde_json::json;

use super::super::failure::Failure;
use super::super::output;
use super::args::Numbers;
use super::picture::{Axes, SumCurve};
use super::{brief, draw, picture, rough, table};

/// A sum and how it was computed.
struct Sum {
    way: &'static str,
    /// Index of its colour: that of the format, or that of the way where there is one format.
    colour: usize,
    sum: RunningSum,
}

impl Sum {
    fn curve(&self) -> SumCurve<'_> {
        let format = self.sum.format;
        // The remedies are thinner than what they remedy.
        let (name, stroke) = match self.way {
            NEAREST => (format.name().into(), 2),
            way => (format!("{format} {way}"), 1),
        };
        SumCurve { name, colour: self.colour, stroke, points: &self.sum.curve }
    }
}

const NEAREST: &str = "nearest";

/// Prints the sums.
pub fn run(args: &Numbers, formats: &[Format], numbers: &[f64], count: u64) -> Result<(), Failure> {
    let term = match numbers {
        [] => 1.0,
        [term] if term.is_finite() => *term,
        [_] => {
            return Err(Failure::asked("the number to add is not finite", "give a finite number"));
        }
        _ => return Err(Failure::asked("a sum takes one number", "it is added as often as --sum says")),
    };
    let mut sums = Vec::new();
    for (op, &format) in formats.iter().enumerate() {
        let mut ways = vec![(NEAREST, Accumulation::Nearest)];
        if args.remedies && format != Format::F32 {
            ways.push((
                "stochastic",
                Accumulation::Stochastic(Draws { seed: args.seed, attempt: 0, op: op as u32 }),
            ));
            ways.push(("Kahan", Accumulation::Kahan));
        }
        for (way, accumulation) in ways {
            let colour = if formats.len() > 1 { op } else { sums.len() };
            sums.push(Sum { way, colour, sum: RunningSum::new(format, accumulation, term, count) });
        }
    }
    // Remedies differ little from the truth, which powers of ten would hide.
    let axes = if args.remedies { Axes::Linear } else { Axes::Logarithmic };
    let curves: Vec<SumCurve<'_>> = sums.iter().map(Sum::curve).collect();
    draw(args.svg.as_deref(), || picture::sums(term, count, axes, &curves))?;
    let exact = term * count as f64;
    let relative = |s: &RunningSum| Some(((s.last() - exact) / exact).abs()).filter(|e| e.is_finite());
    if args.json {
        let row = |s: &Sum| {
            json!({
                "format": s.sum.format.name(),
                "rounding": s.way,
                "term": s.sum.term,
                "sum": s.sum.last(),
                "relative_error": relative(&s.sum),
                "stuck_after": s.sum.stuck_after,
                "curve": &s.sum.curve,
            })
        };
        let rows: Vec<_> = sums.iter().map(row).collect();
        return output::json(&json!({ "term": term, "count": count, "f64": exact, "sums": rows }));
    }
    let times = units::count(count);
    output::line(&format!("{} added {times} times; in f64 {}\n", brief(term), brief(exact)));
    let row = |s: &Sum| {
        vec![
            s.sum.format.name().into(),
            s.way.into(),
            brief(s.sum.term),
            brief(s.sum.last()),
            relative(&s.sum).map_or("–".into(), |e| format!("{} %", rough(100.0 * e))),
            remark(&s.sum),
        ]
    };
    output::raw(&table("format | rounding | term | sum | error | ", sums.iter().map(row)));
    Ok(())
}

/// Why the sum is what it is.
fn remark(sum: &RunningSum) -> String {
    let Some(after) = sum.stuck_after else { return String::new() };
    let last = sum.last();
    let after = units::count(after);
    if sum.term == 0.0 {
        return "the term is stored as zero".into();
    }
    if !last.is_finite() {
        return format!("overflows after {after} terms");
    }
    let ulp = halfstep::float::ulp(sum.format, last);
    format!("stuck after {after} terms: there the ulp is {}", brief(ulp))
}
