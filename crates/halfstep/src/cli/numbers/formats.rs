//! `halfstep numbers` without a number: what each format can hold.

use halfstep::float::Format;
use serde::Serialize;

use super::super::failure::Failure;
use super::super::output;
use super::args::Numbers;
use super::{brief, draw, picture, rough, table};

/// A format's constants, as `--json` prints them.
#[derive(Serialize)]
struct Row {
    format: &'static str,
    python_name: &'static str,
    bits: u32,
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    max_finite: f64,
    min_normal: f64,
    min_subnormal: f64,
    unit_roundoff: f64,
    has_inf: bool,
    has_nan: bool,
}

/// Prints the formats.
pub fn run(args: &Numbers, formats: &[Format]) -> Result<(), Failure> {
    draw(args.svg.as_deref(), || picture::formats(formats))?;
    let rows: Vec<Row> = formats.iter().map(|&format| row(format)).collect();
    if args.json {
        return output::json(&serde_json::json!({ "formats": rows }));
    }
    let heading =
        ["format", "bits", "1 + exp + mant", "largest", "least normal", "least", "2^-p", "inf", "NaN"];
    let mut lines = vec![heading.map(String::from).to_vec()];
    for r in &rows {
        let yes = |b: bool| if b { "yes" } else { "no" }.to_string();
        let largest = if r.max_finite < 1e6 { brief(r.max_finite) } else { rough(r.max_finite) };
        lines.push(vec![
            r.format.into(),
            r.bits.to_string(),
            format!("1 + {} + {}", r.exponent_bits, r.mantissa_bits),
            largest,
            rough(r.min_normal),
            rough(r.min_subnormal),
            rough(r.unit_roundoff),
            yes(r.has_inf),
            yes(r.has_nan),
        ]);
    }
    output::raw(&table(&lines));
    output::line(
        "\n2^-p, the unit roundoff, is the largest relative error of rounding a normal number to the nearest.",
    );
    Ok(())
}

fn row(format: Format) -> Row {
    let i = format.info();
    Row {
        format: format.name(),
        python_name: format.python_name(),
        bits: i.bits,
        exponent_bits: i.exponent_bits,
        mantissa_bits: i.mantissa_bits,
        bias: i.bias,
        max_finite: i.max_finite,
        min_normal: i.min_normal,
        min_subnormal: i.min_subnormal,
        unit_roundoff: i.unit_roundoff,
        has_inf: i.has_inf,
        has_nan: i.has_nan,
    }
}
