//! The report: one model of it, from which the HTML file, the Markdown page and the JSON object are
//! made, so that they cannot disagree.
//!
//! The HTML file needs nothing else: no network, no script. It can be read with the keyboard alone
//! and by screen readers (headings, landmarks, captions, a table of data beside every chart), light
//! or dark as the reader's system is, and printed.

mod build;
mod charts;
mod classes;
mod curves;
mod parts;
mod robustness;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, HtmlEscape, Template, context};
use serde::{Deserialize, Serialize};

pub use build::{Picture, Pictures};
pub use charts::{COLOURS, Chart, ChartSeries};
pub use robustness::robustness;

use crate::stats::Verdict;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The template failed.
    #[error("the report cannot be made: {0}")]
    Template(#[from] Error),
    /// The picture failed.
    #[error("a chart cannot be drawn: {0}")]
    Draw(String),
}

/// Everything that is in a report, before it has a form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its title.
    pub title: String,
    /// What it is about, in one line each.
    pub about: Vec<String>,
    /// What follows; none without anything to judge.
    pub verdict: Option<Verdict>,
    /// That in one sentence.
    pub headline: String,
    /// The first screen.
    pub answers: Vec<Answer>,
    /// The rest, in order.
    pub sections: Vec<Section>,
    /// What made it.
    pub footer: String,
}

/// A question of the first screen, and its answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Such as `What was gained`.
    pub question: String,
    /// Sentences.
    pub lines: Vec<String>,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Its name in links: lower-case letters, digits and `-`.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Block {
    /// A paragraph.
    Text {
        /// Plain text.
        text: String,
    },
    /// A table.
    Table(Table),
    /// A chart, with its data as a table.
    Chart(Chart),
    /// Examples to look at.
    Pictures(Pictures),
    /// What is shown when it is asked for.
    Details {
        /// What it is about.
        title: String,
        /// What is in it.
        blocks: Vec<Block>,
    },
}

impl Block {
    /// A paragraph.
    pub fn text(text: impl Into<String>) -> Block {
        Block::Text { text: text.into() }
    }
}

/// A table; the first cell of a row is its heading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Headings of the columns.
    pub head: Vec<String>,
    /// Rows of as many cells; a row of one cell is a heading for those below it.
    pub rows: Vec<Vec<String>>,
    /// Columns of words, which stand to the left.
    pub words: Vec<usize>,
}

impl Section {
    /// Says which arm of an ablation it is about.
    pub fn of_arm(&mut self, arm: &str) {
        self.id = format!("{}-{}", parts::id(arm), self.id);
        self.title = format!("{arm}: {}", self.title);
    }
}

impl Report {
    /// Puts sections in before the one that tells how numbers were made, in place of those of the
    /// same name.
    pub fn insert(&mut self, sections: Vec<Section>) {
        self.sections.retain(|s| !sections.iter().any(|new| new.id == s.id));
        let at = self.sections.iter().position(|s| s.id == build::HOW).unwrap_or(self.sections.len());
        self.sections.splice(at..at, sections);
    }

    /// As one HTML file.
    ///
    /// # Errors
    /// A template or the drawing failed.
    pub fn html(&self) -> Result<String, ReportError> {
        self.render(Form::Html)
    }

    /// As Markdown, for a pull request.
    ///
    /// # Errors
    /// A template failed.
    pub fn markdown(&self) -> Result<String, ReportError> {
        self.render(Form::Markdown)
    }

    fn render(&self, form: Form) -> Result<String, ReportError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_filter("code", |text: &str| Value::from_safe_string(with_code(text)));
        let [page, block] = form.templates();
        environment.add_template(page.0, page.1)?;
        environment.add_template(block.0, block.1)?;
        let template = environment.get_template(block.0)?;
        let mut sections = Vec::new();
        for s in &self.sections {
            let content = blocks(form, &template, &s.blocks)?;
            sections.push(context! { id => s.id.clone(), title => s.title.clone(), content });
        }
        let verdict = self.verdict.map(Verdict::name);
        let page = environment.get_template(page.0)?;
        Ok(page.render(context! { report => Serde(self), verdict, sections })?)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Markdown,
}

impl Form {
    /// Names and texts of the page and of a block. Whether values are escaped follows from the
    /// ending of the name.
    fn templates(self) -> [(&'static str, &'static str); 2] {
        match self {
            Form::Html => [
                ("report.html", include_str!("report.html.jinja")),
                ("block.html", include_str!("block.html.jinja")),
            ],
            Form::Markdown => {
                [("report.md", include_str!("report.md.jinja")), ("block.md", include_str!("block.md.jinja"))]
            }
        }
    }
}

fn blocks(form: Form, template: &Template<'_, '_>, blocks: &[Block]) -> Result<String, ReportError> {
    let mut all = String::new();
    for block in blocks {
        let mut block = block.clone();
        let (inner, drawing) = match &mut block {
            Block::Details { blocks: inside, .. } => (self::blocks(form, template, inside)?, String::new()),
            Block::Chart(chart) => {
                let drawing = if form == Form::Html { chart.svg()? } else { String::new() };
                (self::blocks(form, template, &[Block::Table(chart.table())])?, drawing)
            }
            Block::Table(table) if form == Form::Markdown => {
                let cells = table.head.iter_mut().chain(table.rows.iter_mut().flatten());
                cells.for_each(|cell| *cell = plain(cell));
                (String::new(), String::new())
            }
            _ => (String::new(), String::new()),
        };
        all += &template.render(context! { block => Serde(&block), inner, drawing })?;
    }
    Ok(all)
}

/// Text that neither ends a cell of a Markdown table nor begins a tag.
fn plain(cell: &str) -> String {
    cell.replace('|', "\\|").replace('<', "&lt;")
}

/// Text as HTML, in which what stands between backticks is code.
fn with_code(text: &str) -> String {
    let escaped = HtmlEscape(text).to_string();
    let (mut html, mut rest) = (String::with_capacity(escaped.len()), escaped.as_str());
    while let Some((before, code, after)) = rest.split_once('`').and_then(|(before, rest)| {
        let (code, after) = rest.split_once('`')?;
        Some((before, code, after))
    }) {
        html += before;
        html += &format!("<code>{code}</code>");
        rest = after;
    }
    html + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::tests::study;

    fn report() -> Report {
        let picture = Picture { png: vec![1, 2, 3], caption: "row 7: a cat, taken for a <dog>".into() };
        Report::of(&study(5), vec![("bf16".into(), vec![picture])])
    }

    #[test]
    fn html_needs_nothing_else_and_escapes_names() {
        let page = report().html().unwrap();
        // The namespace of SVG is a name, not an address that is fetched; pictures are inside.
        let rest =
            page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").replace("src=\"data:image/png", "");
        for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
            assert!(!rest.contains(outside), "{outside}");
        }
        assert!(page.contains("&lt;cats&gt; &amp; dogs") && page.contains("taken for a &lt;dog&gt;"));
        assert!(page.contains("data:image/png;base64,AQID"));
        assert!(page.matches("<svg").count() >= 3, "loss, difference, reliability");
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
        assert!(!page.contains("#010203"), "text takes the page's colour");
    }

    #[test]
    fn every_form_has_the_same_numbers() {
        let report = report();
        let (html, markdown) = (report.html().unwrap(), report.markdown().unwrap());
        let decoded = html.replace("<code>", "`").replace("</code>", "`");
        let decoded =
            decoded.replace("&lt;", "<").replace("&#x27;", "'").replace("&amp;", "&").replace("&#x2f;", "/");
        let mut cells = 0;
        for section in &report.sections {
            for block in &section.blocks {
                let table = match block {
                    Block::Table(table) => table.clone(),
                    Block::Chart(chart) => chart.table(),
                    _ => continue,
                };
                for cell in table.rows.iter().flatten() {
                    assert!(decoded.contains(cell.as_str()), "{cell} is not in the HTML");
                    assert!(markdown.contains(plain(cell).as_str()), "{cell} is not in the Markdown");
                    cells += 1;
                }
            }
        }
        assert!(cells > 100, "{cells}");
        for line in report.answers.iter().flat_map(|a| &a.lines) {
            assert!(decoded.contains(line) && markdown.contains(line), "{line}");
        }
        // And the JSON is the model itself.
        let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again, report);
    }

    #[test]
    fn what_stands_between_backticks_is_code_in_html_alone() {
        assert_eq!(with_code("raise `a < b` & `c`"), "raise <code>a &lt; b</code> &amp; <code>c</code>");
        assert_eq!(with_code("`<b>`"), "<code>&lt;b&gt;</code>");
        assert_eq!(with_code("one ` alone, <i>"), "one ` alone, &lt;i&gt;");
        let mut report = report();
        let line = "Set `seeds = [0, 1]`, <then> run it again.";
        report.answers[0].lines = vec![line.into()];
        report.sections.truncate(1);
        report.sections[0].blocks = vec![Block::text(line)];
        let (html, markdown) = (report.html().unwrap(), report.markdown().unwrap());
        let coded = "Set <code>seeds = [0, 1]</code>, &lt;then&gt; run it again.";
        assert_eq!((html.matches(coded).count(), html.contains('`')), (2, false));
        assert_eq!((markdown.matches(line).count(), markdown.contains("<code>")), (2, false));
    }

    #[test]
    fn sections_from_elsewhere_come_before_the_explanations() {
        let mut report = report();
        let section = |title: &str| Section { id: "ladder".into(), title: title.into(), blocks: Vec::new() };
        report.insert(vec![section("Old")]);
        report.insert(vec![section("New")]);
        let ids: Vec<&str> = report.sections.iter().map(|s| s.id.as_str()).collect();
        let at = ids.iter().position(|id| *id == "ladder").unwrap();
        assert_eq!((ids[at + 1], report.sections[at].title.as_str()), (build::HOW, "New"));
        assert_eq!(ids.iter().filter(|id| **id == "ladder").count(), 1);
    }
}
