//! How numbers are stored in each format.

use halfstep::float::{Class, Draws, Format, Overflow, Rounding, Stored, exact_decimal};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output;
use super::args::Numbers;
use super::{bits, brief, draw, picture, read, rough};

/// Digits of an exact value shown in text; `--json` has all.
const DIGITS: usize = 64;

/// More draws tell nothing new and take long.
const MOST_DRAWS: u32 = 10_000_000;

/// What is left of a number that was multiplied, stored and divided.
#[derive(Serialize)]
struct Scaled {
    scale: f64,
    stored: f64,
    value: f64,
    relative_error: Option<f64>,
}

/// What stochastic rounding did.
#[derive(Serialize)]
struct Drawn {
    draws: u32,
    near: f64,
    far: f64,
    expected_share_far: f64,
    share_far: f64,
    mean: f64,
}

/// Prints the numbers.
pub fn run(args: &Numbers, formats: &[Format], numbers: &[f64]) -> Result<(), Failure> {
    if args.svg.is_some() {
        if numbers.len() > 1 {
            return Err(Failure::asked("a picture shows one number", "give one number, or leave out --svg"));
        }
        if !numbers[0].is_finite() {
            return Err(Failure::asked("a number that is not finite has no picture", "leave out --svg"));
        }
    }
    let scale = args.scale.as_deref().map(read::number).transpose()?;
    if let Some(scale) = scale
        && !(scale.is_finite() && scale != 0.0)
    {
        return Err(Failure::asked(
            format!("--scale {scale} cannot be divided out again"),
            "give a finite number other than 0, such as --scale 65536",
        ));
    }
    if let Some(n) = args.stochastic
        && !(1..=MOST_DRAWS).contains(&n)
    {
        let message = format!("--stochastic {n} is out of range");
        return Err(Failure::asked(message, format!("give --stochastic from 1 to {MOST_DRAWS}")));
    }
    draw(args.svg.as_deref(), || picture::neighbours(numbers[0], formats))?;
    let overflow = if args.saturate { Overflow::Saturate } else { Overflow::NonFinite };
    let in_format = |given: f64, format: Format| {
        let s = Stored::new(format, given, Rounding::NearestEven, overflow);
        let scaled = scale.map(|scale| {
            let stored = Stored::new(format, given * scale, Rounding::NearestEven, overflow).value;
            let value = stored / scale;
            let relative_error = Some(((value - given) / given).abs()).filter(|e| e.is_finite());
            Scaled { scale, stored, value, relative_error }
        });
        let stochastic = args.stochastic.and_then(|n| drawn(&s, n, args.seed));
        (s, scaled, stochastic)
    };
    if args.json {
        let number = |&given: &f64| {
            let formats: Vec<Value> = formats.iter().map(|&f| json_of(in_format(given, f))).collect();
            json!({ "given": given, "exact": exact_decimal(given), "formats": formats })
        };
        return output::json(&json!({ "numbers": numbers.iter().map(number).collect::<Vec<_>>() }));
    }
    for (i, &given) in numbers.iter().enumerate() {
        let exact = exact_decimal(given);
        let gap = if i > 0 { "\n" } else { "" };
        output::line(&format!(
            "{gap}{}",
            output::bold(&format!("{}, in f64 {}", args.values[i], clipped(&exact)))
        ));
        for &format in formats {
            output::raw(&card(in_format(given, format)));
        }
    }
    Ok(())
}

/// Rounds `n` times; `None` where there is nothing to choose.
fn drawn(s: &Stored, n: u32, seed: u64) -> Option<Drawn> {
    let odds = s.odds()?;
    let draws = Draws { seed, attempt: 0, op: s.format as u32 };
    let value =
        |i| Stored::new(s.format, s.given, Rounding::Stochastic(draws.word(i)), Overflow::NonFinite).value;
    let far = (0..u64::from(n)).filter(|&i| value(i) == odds.far).count();
    let share_far = far as f64 / f64::from(n);
    let mean = odds.near + (odds.far - odds.near) * share_far;
    Some(Drawn { draws: n, near: odds.near, far: odds.far, expected_share_far: odds.share, share_far, mean })
}

/// One number in one format, as `--json` prints it.
fn json_of((s, scaled, stochastic): (Stored, Option<Scaled>, Option<Drawn>)) -> Value {
    let (fields, (below, above)) = (s.fields(), s.neighbours());
    let mut value = json!({
        "format": s.format.name(),
        "code": format!("{:#0width$x}", s.code, width = s.format.bits().div_ceil(4) as usize + 2),
        "sign": fields.sign,
        "exponent": fields.exponent,
        "mantissa": fields.mantissa,
        "class": format!("{:?}", s.class()).to_lowercase(),
        "value": s.value,
        "exact": exact_decimal(s.value),
        "below": below,
        "above": above,
        "ulp": s.ulp(),
        "error": s.error(),
        "relative_error": s.relative_error(),
    });
    if let Some(scaled) = scaled {
        value["scaled"] = json!(scaled);
    }
    if let Some(stochastic) = stochastic {
        value["stochastic"] = json!(stochastic);
    }
    value
}

fn clipped(digits: &str) -> String {
    let (number, power) = digits.split_once('e').unwrap_or((digits, ""));
    if number.len() <= DIGITS {
        return digits.into();
    }
    let power = if power.is_empty() { String::new() } else { format!("e{power}") };
    format!("{}…{power} ({} digits)", &number[..DIGITS], number.trim_start_matches(['-', '0', '.']).len())
}

/// The lines of one format.
fn card((s, scaled, stochastic): (Stored, Option<Scaled>, Option<Drawn>)) -> String {
    let info = s.format.info();
    let hex = format!("{:#0width$x}", s.code, width = info.bits.div_ceil(4) as usize + 2);
    let name = output::bold(&format!("{:<9}", s.format.name()));
    let mut out = format!("\n{name} {}   {hex}\n", bits(s.format, s.code));
    let mut say = |label: &str, text: String| out += &format!("  {label:<11}{text}\n");
    let fields = s.fields();
    let sign = if fields.sign == 1 { "-" } else { "" };
    let power = s.exponent();
    match s.class() {
        Class::Normal | Class::Subnormal => {
            let lead = if s.class() == Class::Normal { 1.0 } else { 0.0 };
            let significand = lead + f64::from(fields.mantissa) / f64::from(1 << info.mantissa_bits);
            let kind = if lead == 0.0 { "   (subnormal: no implicit one)" } else { "" };
            say("value", clipped(&exact_decimal(s.value)));
            say("that is", format!("{sign}{} × 2^{power}{kind}", exact_decimal(significand)));
        }
        Class::Zero => say("value", format!("{sign}0")),
        Class::Infinite => say("value", format!("{sign}infinity: beyond {}", brief(info.max_finite))),
        Class::Nan if s.given.is_nan() => say("value", "not a number".into()),
        Class::Nan => say("value", format!("not a number: beyond {}", brief(info.max_finite))),
    }
    if s.value.is_finite() && s.given.is_finite() {
        let error = s.error();
        say(
            "error",
            match s.relative_error() {
                _ if error == 0.0 => "none: stored exactly".into(),
                Some(relative) => {
                    let ulps = rough((error / s.ulp()).abs());
                    format!("{}   relative {}, {ulps} ulp", rough(error), rough(relative))
                }
                None => rough(error),
            },
        );
        let end = |x: Option<f64>| x.map_or("none".into(), brief);
        let (below, above) = s.neighbours();
        say("neighbours", format!("{} and {}   ulp {}", end(below), end(above), rough(s.ulp())));
    }
    if let Some(x) = scaled {
        let error = x.relative_error.map(|e| format!(", relative error {}", rough(e))).unwrap_or_default();
        let (scale, stored, value) = (brief(x.scale), brief(x.stored), brief(x.value));
        say("scaled", format!("× {scale} is stored as {stored}; divided again {value}{error}"));
    }
    if let Some(d) = stochastic {
        let share = |p: f64| format!("{} %", rough(100.0 * p));
        say(
            "stochastic",
            format!(
                "{} in {}, {} in {} of {} draws",
                brief(d.near),
                share(1.0 - d.share_far),
                brief(d.far),
                share(d.share_far),
                d.draws
            ),
        );
        say(
            "",
            format!("expected {}; mean {}", share(d.expected_share_far), rough_mean(d.mean, d.far - d.near)),
        );
    }
    out
}

/// A mean to a hundredth of the step it is made of.
fn rough_mean(mean: f64, step: f64) -> String {
    let digits = (3.0 - step.abs().log10().floor()).clamp(0.0, 300.0) as usize;
    if digits > 12 { format!("{mean:.4e}") } else { format!("{mean:.digits$}") }
}
