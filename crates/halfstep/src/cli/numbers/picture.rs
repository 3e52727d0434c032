//! Pictures of formats, of a number among its neighbours, and of sums: SVG that is dark on light
//! and light on dark ground.

use halfstep::evidence::report::COLOURS;
use halfstep::float::{Format, Overflow, Rounding, Stored, round_to, ulp};
use plotters::prelude::*;

use super::brief;

/// A picture, or why it could not be drawn.
pub type Drawn = Result<String, Box<dyn std::error::Error>>;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Stands for the text's colour until the picture is done.
const TEXT: RGBColor = RGBColor(1, 2, 3);

const WIDTH: u32 = 860;

/// Numbers of a format drawn one by one in a window; more are drawn as a band.
const MOST_TICKS: usize = 250;

fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

/// The style of a name in the colour of this index.
fn named(i: usize) -> TextStyle<'static> {
    ("sans-serif", 14).into_font().color(&colour(i))
}

fn finished(
    height: u32,
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Outcome,
) -> Drawn {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    let RGBColor(r, g, b) = TEXT;
    let svg = svg.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), "\"currentColor\"");
    // Within another page the text takes the page's colour; alone it follows the reader's setting.
    let style = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>";
    Ok(match svg.find('>') {
        Some(end) => format!("{}{style}{}", &svg[..=end], &svg[end + 1..]),
        None => svg,
    })
}

/// Significant bits of each format over the magnitude.
pub fn formats(formats: &[Format]) -> Drawn {
    let least = |f: Format| f.info().min_subnormal.log2() as i32;
    let low = formats.iter().map(|&f| least(f)).min().unwrap_or(0) - 6;
    let high = formats.iter().map(|&f| f.max_exponent()).max().unwrap_or(0) + 6;
    let most = formats.iter().map(|f| f.info().mantissa_bits + 1).max().unwrap_or(1);
    finished(400, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption("Significant bits at each magnitude", font(17))
            .margin(8)
            .margin_right(70)
            .x_label_area_size(38)
            .y_label_area_size(48)
            .build_cartesian_2d(f64::from(low)..f64::from(high), 0.0..f64::from(most) + 1.0)?;
        chart
            .configure_mesh()
            .axis_style(TEXT.mix(0.5))
            .bold_line_style(TEXT.mix(0.15))
            .light_line_style(TRANSPARENT)
            .label_style(font(13))
            .x_desc("magnitude")
            .y_desc("bits")
            .x_label_formatter(&|x| format!("2^{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        for (i, &format) in formats.iter().enumerate() {
            let bits = |e: i32| (e - least(format) + 1).min(format.info().mantissa_bits as i32 + 1);
            let mut line = vec![(f64::from(least(format)), 0.0)];
            for e in least(format)..=format.max_exponent() {
                line.push((f64::from(e), f64::from(bits(e))));
                line.push((f64::from(e + 1), f64::from(bits(e))));
            }
            let end = f64::from(format.max_exponent() + 1);
            line.push((end, 0.0));
            chart.draw_series(LineSeries::new(line, colour(i).stroke_width(2)))?;
            let (x, y) = chart.backend_coord(&(end, f64::from(bits(format.max_exponent()))));
            area.draw(&Text::new(format.name(), (x + 5, y - 7), named(i)))?;
        }
        Ok(())
    })
}

/// The numbers of each format around `given`, and the one it becomes. `given` is finite.
pub fn neighbours(given: f64, formats: &[Format]) -> Drawn {
    let stored = |f: Format| Stored::new(f, given, Rounding::NearestEven, Overflow::NonFinite);
    // Wide enough for the neighbours of the coarsest format that has the number in its range.
    let step = formats.iter().filter(|&&f| holds(f, given)).map(|&f| ulp(f, given)).fold(0.0, f64::max);
    if step == 0.0 {
        return Err(format!("none of the formats holds {}", brief(given)).into());
    }
    let reach = 1.6 * step;
    let (low, high) = (given - reach, given + reach);
    let rows = formats.len();
    finished(110 + 46 * rows as u32, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{} among its neighbours", brief(given)), font(17))
            .margin(8)
            .margin_right(30)
            .x_label_area_size(30)
            .y_label_area_size(80)
            .build_cartesian_2d(low..high, 0.0..rows as f64)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(TEXT.mix(0.5))
            .label_style(font(13))
            .x_labels(7)
            .y_labels(0)
            .x_label_formatter(&|&x| label(x, reach))
            .draw()?;
        for (i, &format) in formats.iter().enumerate() {
            let middle = (rows - i) as f64 - 0.5;
            let (bottom, top) = (middle - 0.3, middle + 0.3);
            let (x, y) = chart.backend_coord(&(low, middle));
            area.draw(&Text::new(format.name(), (x - 76, y - 8), named(i)))?;
            let s = stored(format);
            if !holds(format, given) {
                let (x, y) = chart.backend_coord(&(given, middle));
                area.draw(&Text::new("beyond its largest number", (x + 10, y - 8), font(13)))?;
                continue;
            }
            match ticks(format, low, high) {
                Some(values) => {
                    let lines =
                        values.into_iter().map(|v| PathElement::new([(v, bottom), (v, top)], colour(i)));
                    chart.draw_series(lines)?;
                }
                None => {
                    let band = Rectangle::new([(low, bottom), (high, top)], colour(i).mix(0.45).filled());
                    chart.draw_series([band])?;
                }
            }
            if (low..=high).contains(&s.value) {
                chart.draw_series([Circle::new((s.value, middle), 5, colour(i).filled())])?;
            }
        }
        chart.draw_series([PathElement::new([(given, 0.0), (given, rows as f64)], TEXT.stroke_width(1))])?;
        Ok(())
    })
}

/// Whether the number lies within the format's range, or so near that it rounds into it.
fn holds(format: Format, given: f64) -> bool {
    let max = format.info().max_finite;
    given.abs() < max + ulp(format, max) && round_to(format, given).is_finite()
}

/// The format's numbers from `low` to `high`, if there are few.
fn ticks(format: Format, low: f64, high: f64) -> Option<Vec<f64>> {
    let mut values = Vec::new();
    let mut at = Stored::new(format, low, Rounding::NearestEven, Overflow::Saturate);
    loop {
        if at.value > high {
            return Some(values);
        }
        if at.value >= low {
            values.push(at.value);
        }
        if values.len() > MOST_TICKS {
            return None;
        }
        match at.neighbours().1 {
            Some(next) if next.is_finite() => {
                at = Stored::new(format, next, Rounding::NearestEven, Overflow::NonFinite);
            }
            _ => return Some(values),
        }
    }
}

/// A place on the axis, to a hundredth of the window.
fn label(x: f64, reach: f64) -> String {
    let digits = 2 - reach.log10().floor() as i32;
    match digits {
        8.. => format!("{x:.3e}"),
        0..8 => format!("{x:.*}", digits as usize),
        ..0 => brief(x),
    }
}

/// What the axes of a picture of sums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// Terms and sum as they are.
    Linear,
    /// Both in powers of ten.
    Logarithmic,
}

impl Axes {
    /// Where a number of terms or a sum lies.
    fn place(self, x: f64) -> f64 {
        match self {
            Axes::Linear => x.abs(),
            Axes::Logarithmic => x.abs().log10(),
        }
    }

    /// What stands there.
    fn label(self, x: f64) -> String {
        match self {
            Axes::Linear => brief(x),
            Axes::Logarithmic if (x - x.round()).abs() < 1e-9 => format!("10^{x:.0}"),
            Axes::Logarithmic => String::new(),
        }
    }

    /// The range of the sums.
    fn range(self, low: f64, high: f64) -> (f64, f64) {
        match self {
            _ if low > high => (0.0, 1.0),
            // The axis' steps must be f64 numbers, too.
            Axes::Linear => (0.0, if high > 1e-300 { high * 1.05 } else { 1.0 }),
            Axes::Logarithmic => (low.floor(), high.ceil().max(low.floor() + 1.0)),
        }
    }
}

/// A sum to draw.
pub struct SumCurve<'a> {
    /// Format, and how the sum was computed.
    pub name: String,
    /// Index of its colour.
    pub colour: usize,
    /// Width of its line.
    pub stroke: u32,
    /// Numbers of terms and sums of so many.
    pub points: &'a [(u64, f64)],
}

/// Magnitudes of sums over the number of terms.
pub fn sums(term: f64, count: u64, axes: Axes, sums: &[SumCurve<'_>]) -> Drawn {
    let shown = |(_, y): &(f64, f64)| y.is_finite() && *y < 1e300;
    let curve = |s: &SumCurve<'_>| -> Vec<(f64, f64)> {
        let places = s.points.iter().map(|&(n, y)| (axes.place(n as f64), axes.place(y)));
        places.filter(shown).collect()
    };
    let exact = [1.0, count as f64].map(|n| (axes.place(n), axes.place(term * n)));
    let exact: Vec<(f64, f64)> = exact.into_iter().filter(shown).collect();
    let all = || sums.iter().flat_map(&curve).chain(exact.clone()).map(|(_, y)| y);
    let (low, high) =
        axes.range(all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let end = axes.place(count as f64).max(1.0);
    let place = |x: &f64| axes.label(*x);
    finished(400, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{} added again and again", brief(term)), font(17))
            .margin(8)
            .margin_right(130)
            .x_label_area_size(38)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..end, low..high)?;
        chart
            .configure_mesh()
            .axis_style(TEXT.mix(0.5))
            .bold_line_style(TEXT.mix(0.15))
            .light_line_style(TRANSPARENT)
            .label_style(font(13))
            .x_desc("terms")
            .y_desc("sum")
            .x_label_formatter(&place)
            .y_label_formatter(&place)
            .draw()?;
        chart.draw_series(LineSeries::new(exact, TEXT.mix(0.6).stroke_width(1)))?;
        let mut ends = Vec::new();
        for (i, s) in sums.iter().enumerate() {
            let points = curve(s);
            ends.extend(points.last().map(|&(_, y)| (y, i)));
            chart.draw_series(LineSeries::new(points, colour(s.colour).stroke_width(s.stroke)))?;
        }
        // Names at the ends of the curves, moved apart where they would overlap.
        ends.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut free = 0;
        for (y, i) in ends {
            let (x, at) = chart.backend_coord(&(end, y));
            let at = (at - 8).max(free);
            free = at + 16;
            area.draw(&Text::new(sums[i].name.clone(), (x + 8, at), named(sums[i].colour)))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_the_formats_numbers() {
        assert_eq!(ticks(Format::E2m1, -1.2, 3.5), Some(vec![-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]));
        assert_eq!(ticks(Format::E2m1, 5.0, 9.0), Some(vec![6.0]));
        assert_eq!(ticks(Format::F32, 0.0, 1.0), None);
    }

    #[test]
    fn pictures_have_a_mark_for_each_format() {
        let five = [Format::F32, Format::Bf16, Format::F16, Format::E4m3, Format::E5m2];
        for given in [0.1, 0.0, -3.5e4, 1e-40, 65_510.0, 3e38, 5e-324] {
            let svg = neighbours(given, &five).unwrap();
            for format in five {
                assert!(svg.contains(format.name()), "{given} {format}");
            }
            let inside = five.iter().filter(|&&f| halfstep::float::round_to(f, given).is_finite()).count();
            assert_eq!(svg.matches("<circle").count(), inside, "{given}");
            assert!(!svg.contains("NaN") && !svg.contains("#010203"), "{given}");
        }
        assert!(neighbours(f64::MAX, &five).is_err() && neighbours(-7.0, &[Format::E2m1]).is_ok());
        let svg = formats(&five).unwrap();
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), five.len());
    }
}
