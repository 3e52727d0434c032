//! Line charts as SVG that takes its text colour from the page, and the same data as a table.

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ReportError, Table};

/// Colours of series, in order: after Okabe and Ito, distinguishable by the colour-blind; darkened
/// or lightened where it takes that to stand out from white and from dark ground at least 3 : 1
/// (WCAG 2.2, 1.4.11).
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(46, 125, 190),
    RGBColor(213, 94, 0),
    RGBColor(0, 150, 110),
    RGBColor(190, 95, 150),
    RGBColor(170, 120, 0),
    RGBColor(110, 115, 215),
];

/// Stands for the page's text colour until the picture is done.
const TEXT: RGBColor = RGBColor(1, 2, 3);

const WIDTH: u32 = 860;
const HEIGHT: u32 = 300;
/// Rows of the table beside a chart.
const TABLE_ROWS: usize = 12;

/// A line over x, with a band around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChartSeries {
    /// Its name, which stands at its end.
    pub name: String,
    /// Its colour, by its place in the list of colours.
    pub colour: usize,
    /// (x, y), by rising x.
    pub points: Vec<(f64, f64)>,
    /// Lower and upper edge at each point; empty without a band.
    pub band: Vec<(f64, f64)>,
}

/// A chart of lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What can be seen in it, for those who do not.
    pub description: String,
    /// What x is.
    pub x: String,
    /// What y is.
    pub y: String,
    /// Least and greatest y; none fits them to the data.
    pub y_range: Option<(f64, f64)>,
    /// Whether points are marked: few measured points rather than a curve.
    pub marks: bool,
    /// A straight line for reference, from (x, y) to (x, y).
    pub guide: Option<((f64, f64), (f64, f64))>,
    /// The lines.
    pub series: Vec<ChartSeries>,
}

impl Chart {
    /// The data, at some of the points where there are many.
    pub fn table(&self) -> Table {
        let longest = self.series.iter().max_by_key(|s| s.points.len());
        let xs: Vec<f64> = longest.map(|s| s.points.iter().map(|p| p.0).collect()).unwrap_or_default();
        let n = xs.len().min(TABLE_ROWS);
        let at = |i: usize| if n < 2 { 0 } else { i * (xs.len() - 1) / (n - 1) };
        let cell = |s: &ChartSeries, x: f64| {
            let found = s.points.iter().position(|p| p.0 == x);
            found.map_or("–".into(), |i| match s.band.get(i) {
                Some((low, high)) if low < high => {
                    format!("{:.4} ({low:.4} to {high:.4})", s.points[i].1)
                }
                _ => format!("{:.4}", s.points[i].1),
            })
        };
        let row = |i: usize| {
            let x = xs[at(i)];
            let label = if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{x:.3}") };
            std::iter::once(label).chain(self.series.iter().map(|s| cell(s, x))).collect()
        };
        Table {
            caption: format!("{}: {} by {}", self.title, self.y, self.x),
            head: std::iter::once(self.x.clone()).chain(self.series.iter().map(|s| s.name.clone())).collect(),
            rows: (0..n).map(row).collect(),
            words: Vec::new(),
        }
    }

    /// The drawing. It says nothing to screen readers: what stands around it does.
    ///
    /// # Errors
    /// The drawing library failed.
    pub fn svg(&self) -> Result<String, ReportError> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|e| ReportError::Draw(e.to_string()))?;
        let RGBColor(r, g, b) = TEXT;
        let themed = svg.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), "\"currentColor\"");
        Ok(themed.replacen(
            &format!("width=\"{WIDTH}\" height=\"{HEIGHT}\" "),
            "aria-hidden=\"true\" focusable=\"false\" ",
            1,
        ))
    }

    fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        let points = self.series.iter().flat_map(|s| s.points.iter());
        let bands = self.series.iter().flat_map(|s| s.points.iter().zip(&s.band));
        let bands = bands.flat_map(|(p, &(low, high))| [(p.0, low), (p.0, high)]);
        let guide = self.guide.into_iter().flat_map(|(a, b)| [a, b]);
        let (mut x, mut y) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        for (px, py) in points.copied().chain(bands).chain(guide) {
            x = (x.0.min(px), x.1.max(px));
            y = (y.0.min(py), y.1.max(py));
        }
        if !(x.0.is_finite() && y.0.is_finite()) {
            return ((0.0, 1.0), (0.0, 1.0));
        }
        if !self.marks {
            x.0 = x.0.min(0.0);
        }
        let pad = (0.05 * (y.1 - y.0)).max(1e-6 * y.1.abs().max(1e-6));
        let fitted = if y.0 >= 0.0 && !self.marks { (0.0, y.1 + pad) } else { (y.0 - pad, y.1 + pad) };
        ((x.0, x.1.max(x.0 + 1e-9)), self.y_range.unwrap_or(fitted))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let (x, y) = self.ranges();
        let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
        let font = |size: i32| ("sans-serif", size).into_font().color(&TEXT);
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_top(14)
            .margin_right(96)
            .x_label_area_size(38)
            .y_label_area_size(70)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let digits = |range: (f64, f64)| match range.1 - range.0 {
            d if d < 0.05 => 4,
            d if d < 10.0 => 2,
            _ => 0,
        };
        let (x_digits, y_digits) = (digits(x), digits(y));
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(TEXT.mix(0.5))
            .bold_line_style(TEXT.mix(0.15))
            .light_line_style(TRANSPARENT)
            .label_style(font(14))
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .x_label_formatter(&|x| format!("{x:.x_digits$}"))
            .y_label_formatter(&|y| format!("{y:.y_digits$}"))
            .x_labels(8)
            .y_labels(6)
            .draw()?;
        if let Some((from, to)) = self.guide {
            chart.draw_series(LineSeries::new([from, to], TEXT.mix(0.4)))?;
        }
        let inside = |(x, y): (f64, f64), range: (f64, f64)| (x, y.clamp(range.0, range.1));
        let mut ends = Vec::new();
        for s in self.series.iter().filter(|s| !s.points.is_empty()) {
            let colour = COLOURS[s.colour % COLOURS.len()];
            if s.band.len() == s.points.len() {
                let edge = |upper: bool| {
                    s.points.iter().zip(&s.band).map(move |(p, b)| (p.0, if upper { b.1 } else { b.0 }))
                };
                let outline: Vec<(f64, f64)> =
                    edge(false).chain(edge(true).rev()).map(|p| inside(p, y)).collect();
                chart.draw_series([Polygon::new(outline, colour.mix(0.2))])?;
            }
            let line: Vec<(f64, f64)> = s.points.iter().map(|&p| inside(p, y)).collect();
            if self.marks {
                chart.draw_series(line.iter().map(|&p| Circle::new(p, 3, colour.filled())))?;
            }
            ends.extend(line.last().map(|&end| (end, colour, s.name.clone())));
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        }
        // Names at the ends of the lines, moved apart where they would overlap; a dot tells which
        // is which.
        ends.sort_by(|a, b| b.0.1.total_cmp(&a.0.1));
        let right = chart.backend_coord(&(x.1, y.0)).0;
        let mut free = 8;
        for (end, colour, name) in ends {
            let at = (chart.backend_coord(&end).1 - 8).max(free);
            free = at + 17;
            area.draw(&Circle::new((right + 10, at + 8), 4, colour.filled()))?;
            area.draw(&Text::new(name, (right + 18, at), font(14)))?;
        }
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let series = |name: &str, colour| ChartSeries {
            name: name.into(),
            colour,
            points: (0..100).map(|i| (f64::from(i), 2.0 - 0.01 * f64::from(i))).collect(),
            band: (0..100).map(|i| (1.9 - 0.01 * f64::from(i), 2.1 - 0.01 * f64::from(i))).collect(),
        };
        Chart {
            title: "Loss".into(),
            description: "It falls.".into(),
            x: "step".into(),
            y: "loss".into(),
            series: vec![series("fp32", 0), series("bf16", 1)],
            ..Chart::default()
        }
    }

    #[test]
    fn a_line_and_a_band_for_each_series_and_no_fixed_text_colour() {
        let svg = chart().svg().unwrap();
        assert!(svg.matches("<polyline").count() >= 2 && svg.matches("<polygon").count() == 2, "{svg}");
        assert!(svg.contains("fp32") && svg.contains("bf16") && svg.contains("currentColor"));
        assert!(!svg.contains("#010203") && !svg.contains(" width=\"860\""), "{}", &svg[..200]);
        let empty = Chart { series: Vec::new(), ..chart() };
        assert!(empty.svg().is_ok() && empty.table().rows.is_empty());
    }

    #[test]
    fn the_table_has_first_and_last_point_and_some_between() {
        let table = chart().table();
        assert_eq!((table.rows.len(), table.head.len()), (TABLE_ROWS, 3));
        assert_eq!((table.rows[0][0].as_str(), table.rows[11][0].as_str()), ("0", "99"));
        assert_eq!(table.rows[0][1], "2.0000 (1.9000 to 2.1000)");
    }

    /// Contrast of every colour with both grounds, by the formula of WCAG 2.2.
    #[test]
    fn lines_stand_out_from_both_grounds() {
        let channel = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let luminance =
            |RGBColor(r, g, b): RGBColor| 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        for ground in [RGBColor(255, 255, 255), RGBColor(0x14, 0x18, 0x1c)] {
            for colour in COLOURS {
                let (a, b) = (luminance(ground), luminance(colour));
                let ratio = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(ratio >= 3.0, "{colour:?} on {ground:?}: {ratio}");
            }
        }
    }
}
