//! A table of colours: places of a model by steps, as an SVG picture that stands by itself or in a
//! page.

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// How bad it is, 0 (light) to 1 (dark).
    pub heat: f64,
    /// What is said when it is pointed at.
    pub text: String,
}

/// Rows by columns of colours.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// What it shows.
    pub title: String,
    /// What a light and a dark cell mean.
    pub ends: (String, String),
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// By rows; none where nothing was measured.
    pub cells: Vec<Vec<Option<Cell>>>,
}

const HEIGHT: usize = 16;
/// Pixels of a letter, about.
const LETTER: usize = 7;

/// Pixels of a letter of the title, about.
const BOLD: usize = 9;

/// White to dark red, by way of yellow: readable in print, and with every kind of colour vision by
/// lightness alone.
fn colour(heat: f64) -> String {
    const STOPS: [[f64; 3]; 4] =
        [[247.0, 247.0, 242.0], [253.0, 219.0, 132.0], [227.0, 94.0, 58.0], [96.0, 11.0, 30.0]];
    let at = heat.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (at as usize).min(STOPS.len() - 2);
    let part = at - below as f64;
    let mix = |c: usize| (STOPS[below][c] * (1.0 - part) + STOPS[below + 1][c] * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// `text` with what XML reserves written otherwise.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl HeatMap {
    /// The picture.
    pub fn svg(&self) -> String {
        let longest = |names: &[String]| names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        let left = longest(&self.rows) * LETTER + 12;
        // Wide enough for the columns' names; few columns need not fill the page.
        let cell = (longest(&self.columns) * LETTER + 8).max(22);
        let top = 30;
        let (width, height) = (
            left + (cell * self.columns.len()).max(self.title.chars().count() * BOLD).max(260) + 10,
            top + HEIGHT * self.rows.len() + 58,
        );
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"ui-monospace, monospace\" font-size=\"11\" role=\"img\" aria-label=\"{0}\">\n\
             <text x=\"{left}\" y=\"16\" font-size=\"13\" font-weight=\"bold\">{0}</text>\n",
            escaped(&self.title)
        );
        let label = |x: usize, y: usize, style: &str, text: &str| {
            format!("<text x=\"{x}\" y=\"{y}\" {style}>{}</text>\n", escaped(text))
        };
        for (r, (name, cells)) in self.rows.iter().zip(&self.cells).enumerate() {
            let y = top + r * HEIGHT;
            out += &label(left - 6, y + 12, "text-anchor=\"end\"", name);
            for (c, found) in cells.iter().enumerate() {
                let x = left + c * cell;
                let (fill, text) = match found {
                    Some(found) => (colour(found.heat), escaped(&found.text)),
                    None => ("none".into(), "not measured".into()),
                };
                out += &format!(
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{fill}\"><title>{}, {}: {text}</title></rect>\n",
                    cell - 1,
                    HEIGHT - 1,
                    escaped(name),
                    escaped(self.columns.get(c).map_or("", String::as_str)),
                );
            }
        }
        let below = top + self.rows.len() * HEIGHT + 13;
        for (c, name) in self.columns.iter().enumerate() {
            out += &label(left + c * cell + cell / 2, below, "text-anchor=\"middle\" fill=\"#666\"", name);
        }
        let legend = below + 18;
        for step in 0..10 {
            let (x, fill) = (left + step * 12, colour(step as f64 / 9.0));
            out += &format!("<rect x=\"{x}\" y=\"{legend}\" width=\"12\" height=\"10\" fill=\"{fill}\"/>\n");
        }
        out += &label(left - 6, legend + 9, "text-anchor=\"end\" fill=\"#666\"", &self.ends.0);
        out += &label(left + 126, legend + 9, "fill=\"#666\"", &self.ends.1);
        out += "</svg>\n";
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_and_name_is_drawn_and_escaped() {
        let cell = |heat| Some(Cell { heat, text: "a < b".into() });
        let map = HeatMap {
            title: "t".into(),
            ends: ("low".into(), "high".into()),
            rows: vec!["a & b".into(), "c".into()],
            columns: vec!["1".into(), "2".into()],
            cells: vec![vec![cell(0.0), cell(1.0)], vec![None, cell(0.5)]],
        };
        let svg = map.svg();
        assert_eq!(svg.matches("<title>").count(), 4);
        assert!(svg.contains("a &amp; b") && svg.contains("a &lt; b") && svg.contains("not measured"));
        assert!(svg.contains(&colour(0.0)) && svg.contains(&colour(1.0)) && colour(2.0) == colour(1.0));
    }
}
