//! Loss curves as a picture: SVG that takes its text colour from the page.

use plotters::prelude::*;

use crate::comparison::{Comparison, RunResult};

/// Why a picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the loss curves cannot be drawn: {0}")]
pub struct DrawError(String);

/// Colours of precisions, in order: after Okabe and Ito, distinguishable by the colour-blind; the blue is lighter than
/// theirs, to be seen on dark ground too.
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(51, 136, 204),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Stands for the page's text colour until the picture is done.
const TEXT: RGBColor = RGBColor(1, 2, 3);

/// Points of a smoothed curve.
const POINTS: usize = 160;

/// The colour of precision `i`, as in CSS.
pub fn colour(i: usize) -> String {
    let RGBColor(r, g, b) = COLOURS[i % COLOURS.len()];
    format!("#{r:02X}{g:02X}{b:02X}")
}

type Curve = Vec<(f64, f64)>;

/// Train loss over steps: a thick line for the mean over seeds, thin lines for each seed. None if no run has steps.
///
/// Errors: the drawing library failed.
pub fn losses(c: &Comparison) -> Result<Option<String>, DrawError> {
    let curves: Vec<Vec<Curve>> =
        per_policy(c, |r| smooth(&r.losses.iter().map(|&l| f64::from(l)).collect::<Vec<_>>()));
    draw("Train loss", c, &curves)
}

/// How far each precision's loss is from the reference's with the same seed. None without pairs.
///
/// Errors: the drawing library failed.
pub fn differences(c: &Comparison) -> Result<Option<String>, DrawError> {
    let reference = |seed: u64| c.runs.iter().find(|r| r.seed == seed && r.policy == c.setup.reference);
    let curves: Vec<Vec<Curve>> = per_policy(c, |r| {
        let Some(base) = reference(r.seed).filter(|_| r.policy != c.setup.reference) else {
            return Vec::new();
        };
        let pairs = r.losses.iter().zip(&base.losses);
        smooth(&pairs.map(|(&l, &b)| f64::from(l) - f64::from(b)).collect::<Vec<_>>())
    });
    draw(&format!("Difference from {}", c.setup.reference), c, &curves)
}

fn per_policy(c: &Comparison, curve: impl Fn(&RunResult) -> Curve) -> Vec<Vec<Curve>> {
    let of = |policy: &str| {
        let runs = c.runs.iter().filter(|r| r.policy == policy);
        runs.map(&curve).filter(|points| !points.is_empty()).collect()
    };
    c.rows.iter().map(|row| of(&row.policy)).collect()
}

/// Means over equal stretches of steps; losses that are not finite are left out.
fn smooth(losses: &[f64]) -> Curve {
    let stretch = losses.len().div_ceil(POINTS).max(1);
    let mean = |(i, part): (usize, &[f64])| {
        let finite: Vec<f64> = part.iter().copied().filter(|l| l.is_finite()).collect();
        let middle = (i * stretch) as f64 + part.len() as f64 / 2.0;
        (!finite.is_empty()).then(|| (middle, finite.iter().sum::<f64>() / finite.len() as f64))
    };
    losses.chunks(stretch).enumerate().filter_map(mean).collect()
}

/// The mean of curves where all of them have points.
fn mean(curves: &[Curve]) -> Curve {
    let length = curves.iter().map(Vec::len).min().unwrap_or(0);
    let at = |i: usize| (curves[0][i].0, curves.iter().map(|c| c[i].1).sum::<f64>() / curves.len() as f64);
    (0..length).map(at).collect()
}

fn draw(title: &str, c: &Comparison, curves: &[Vec<Curve>]) -> Result<Option<String>, DrawError> {
    let points = || curves.iter().flatten().flatten();
    if points().next().is_none() {
        return Ok(None);
    }
    let (mut low, mut high, mut end) = (f64::INFINITY, f64::NEG_INFINITY, 0.0f64);
    for &(x, y) in points() {
        (low, high, end) = (low.min(y), high.max(y), end.max(x));
    }
    let pad = (0.05 * (high - low)).max(1e-6 * high.abs().max(1e-6));
    let (low, high) = if low >= 0.0 { (0.0, high + pad) } else { (low - pad, high + pad) };
    let mut svg = String::new();
    render(&mut svg, title, c, curves, (end.max(1.0), low, high)).map_err(|e| DrawError(e.to_string()))?;
    Ok(Some(themed(&svg)))
}

fn render(
    svg: &mut String,
    title: &str,
    c: &Comparison,
    curves: &[Vec<Curve>],
    (end, low, high): (f64, f64, f64),
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (860, 300)).into_drawing_area();
    let font = |size: i32| ("sans-serif", size).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, font(17))
        .margin(8)
        .margin_right(70)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, low..high)?;
    let digits = if high - low < 0.05 { 4 } else { 2 };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .axis_style(TEXT.mix(0.5))
        .bold_line_style(TEXT.mix(0.15))
        .light_line_style(TRANSPARENT)
        .label_style(font(13))
        .x_desc("step")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.digits$}"))
        .x_labels(8)
        .y_labels(6)
        .draw()?;
    let mut ends = Vec::new();
    for (i, of_policy) in curves.iter().enumerate().filter(|(_, curves)| !curves.is_empty()) {
        let colour = COLOURS[i % COLOURS.len()];
        if of_policy.len() > 1 {
            for curve in of_policy {
                chart.draw_series(LineSeries::new(curve.iter().copied(), colour.mix(0.25)))?;
            }
        }
        let mean = mean(of_policy);
        ends.extend(mean.last().map(|&(_, y)| (y, i)));
        chart.draw_series(LineSeries::new(mean, colour.stroke_width(2)))?;
    }
    // Names at the ends of the curves, moved apart where they would overlap.
    ends.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (x, _) = chart.backend_coord(&(end, low));
    let mut free = 30;
    for (y, i) in ends {
        let (_, at) = chart.backend_coord(&(end, y));
        let at = (at - 8).max(free);
        free = at + 16;
        let style = ("sans-serif", 14).into_font().color(&COLOURS[i % COLOURS.len()]);
        area.draw(&Text::new(c.rows[i].policy.clone(), (x + 8, at), style))?;
    }
    area.present()?;
    Ok(())
}

/// Text and axes in the page's colour; the size left to the page.
fn themed(svg: &str) -> String {
    let RGBColor(r, g, b) = TEXT;
    let marker = format!("#{r:02X}{g:02X}{b:02X}");
    svg.replace(&format!("\"{marker}\""), "\"currentColor\"").replacen("width=\"860\" height=\"300\" ", "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::{run, setup};

    #[test]
    fn smoothing_keeps_the_mean_and_leaves_out_nan() {
        let losses: Vec<f64> = (0..1600).map(|i| if i == 3 { f64::NAN } else { f64::from(i) }).collect();
        let curve = smooth(&losses);
        assert_eq!(curve.len(), POINTS);
        assert_eq!(curve[0], (5.0, 42.0 / 9.0));
        assert_eq!(curve[1], (15.0, 14.5));
    }

    #[test]
    fn the_picture_has_a_line_per_run_and_per_mean_and_no_fixed_text_colour() {
        let runs = vec![run("fp32", 0, 0.9, 1.0), run("fp32", 1, 0.9, 1.0), run("bf16", 0, 0.9, 1.0)];
        let c = Comparison::new(setup(), runs);
        let svg = losses(&c).unwrap().unwrap();
        // Two seeds and a mean of fp32, one of bf16.
        let lines = svg.matches("<polyline").count();
        let axes = svg.matches("stroke=\"currentColor\"").count();
        assert!(lines >= 4 && axes >= 1, "{lines} {axes}");
        assert!(!svg.contains("#010203"), "{svg}");
        assert!(svg.contains("bf16") && svg.contains("currentColor"));
        assert!(differences(&c).unwrap().is_some());
    }

    #[test]
    fn without_steps_there_is_no_picture() {
        let mut empty = run("fp32", 0, 0.9, 1.0);
        empty.losses.clear();
        let c = Comparison::new(setup(), vec![empty]);
        assert!(losses(&c).unwrap().is_none() && differences(&c).unwrap().is_none());
    }
}
