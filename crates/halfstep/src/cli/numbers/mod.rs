//! `halfstep numbers`: what formats do to a number, to a sum, and to a block of numbers.

pub mod args;
mod blocks;
mod formats;
mod picture;
mod read;
mod sums;
mod values;

use std::path::Path;
use std::process::ExitCode;

use halfstep::float::Format;
use halfstep::train::run_dir::write_whole;

use super::failure::Failure;
use super::output::{self, styled};
use args::Numbers;

/// Runs the command.
pub fn run(args: Numbers) -> Result<ExitCode, Failure> {
    let formats = args.formats.iter().map(|name| read::format(name)).collect::<Result<Vec<Format>, _>>()?;
    let numbers = args.values.iter().map(|text| read::number(text)).collect::<Result<Vec<f64>, _>>()?;
    if !args.blocks.is_empty() {
        blocks::run(&args, &numbers)?;
    } else if let Some(count) = &args.sum {
        sums::run(&args, &formats, &numbers, read::count(count)?)?;
    } else if numbers.is_empty() {
        formats::run(&args, &formats)?;
    } else {
        values::run(&args, &formats, &numbers)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a picture, if one is asked for.
fn draw(path: Option<&Path>, svg: impl FnOnce() -> picture::Drawn) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let svg = svg().map_err(|e| Failure::failed(format!("the picture cannot be drawn: {e}")))?;
    Ok(write_whole(path, svg.as_bytes())?)
}

/// A number of a table: short, with a power of ten where it is far from 1.
fn brief(x: f64) -> String {
    match x.abs() {
        a if a == 0.0 || !x.is_finite() || (1e-4..1e10).contains(&a) => x.to_string(),
        _ => format!("{x:e}"),
    }
}

/// Three significant digits.
fn rough(x: f64) -> String {
    match x.abs() {
        a if a == 0.0 || !x.is_finite() => x.to_string(),
        a if (1e-3..1e4).contains(&a) => {
            let digits = (2 - a.log10().floor() as i32).max(0) as usize;
            format!("{x:.digits$}")
        }
        _ => format!("{x:.2e}"),
    }
}

/// The bits of a code, sign, exponent and mantissa apart and in red, green and blue.
fn bits(format: Format, code: u32) -> String {
    let info = format.info();
    let text = format!("{code:0width$b}", width = info.bits as usize);
    let (sign, rest) = text.split_at(1);
    let (exponent, mantissa) = rest.split_at(info.exponent_bits as usize);
    format!("{} {} {}", styled(31, sign), styled(32, exponent), styled(34, mantissa))
}

/// Rows of cells, aligned under a heading in bold.
fn table(heading: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines = output::layout(&output::headed(heading, rows), |_| false);
    lines[0] = output::bold(&lines[0]);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.5, 1e-9, 12345.0, 0.0].map(brief), ["0.5", "1e-9", "12345", "0"]);
        assert_eq!([0.123456, 12.3456, 1234.56, 1e-9].map(rough), ["0.123", "12.3", "1235", "1.00e-9"]);
    }

    #[test]
    fn bits_are_apart() {
        assert_eq!(bits(Format::E4m3, 0xba), "1 0111 010");
    }
}
