//! `halfstep numbers` without a number: what each format can hold.

use halfstep::float::Format;
use serde_json::json;

use super::super::failure::Failure;
use super::super::output;
use super::args::Numbers;
use super::{brief, draw, picture, rough, table};

/// Prints the formats.
pub fn run(args: &Numbers, formats: &[Format]) -> Result<(), Failure> {
    draw(args.svg.as_deref(), || picture::formats(formats))?;
    if args.json {
        let row = |format: &Format| {
            let i = format.info();
            json!({
                "format": format.name(),
                "python_name": format.python_name(),
                "bits": i.bits,
                "exponent_bits": i.exponent_bits,
                "mantissa_bits": i.mantissa_bits,
                "bias": i.bias,
                "max_finite": i.max_finite,
                "min_normal": i.min_normal,
                "min_subnormal": i.min_subnormal,
                "unit_roundoff": i.unit_roundoff,
                "has_inf": i.has_inf,
                "has_nan": i.has_nan,
            })
        };
        return output::json(&json!({ "formats": formats.iter().map(row).collect::<Vec<_>>() }));
    }
    let row = |format: &Format| {
        let i = format.info();
        let yes = |b: bool| if b { "yes" } else { "no" }.to_string();
        vec![
            format.name().into(),
            i.bits.to_string(),
            format!("1 + {} + {}", i.exponent_bits, i.mantissa_bits),
            if i.max_finite < 1e6 { brief(i.max_finite) } else { rough(i.max_finite) },
            rough(i.min_normal),
            rough(i.min_subnormal),
            rough(i.unit_roundoff),
            yes(i.has_inf),
            yes(i.has_nan),
        ]
    };
    let heading = "format | bits | 1 + exp + mant | largest | least normal | least | 2^-p | inf | NaN";
    output::raw(&table(heading, formats.iter().map(row)));
    output::line(
        "\n2^-p, the unit roundoff, is the largest relative error of rounding a normal number to the nearest.",
    );
    Ok(())
}
