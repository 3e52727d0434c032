//! The comparison as a Markdown page and as one HTML file that needs nothing else.

use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;

use crate::comparison::{Comparison, Outcome, Setup};
use crate::curves::{self, DrawError};
use crate::table::{self, Group};
use crate::units;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The template failed.
    #[error("the report cannot be made: {0}")]
    Template(#[from] minijinja::Error),
    /// The picture failed.
    #[error(transparent)]
    Draw(#[from] DrawError),
}

/// A run as the report lists it.
#[derive(Serialize)]
struct Listed {
    policy: String,
    seed: u64,
    accuracy: String,
    loss: String,
    step: String,
    wall: String,
    skipped: u64,
    outcome: String,
}

/// What the templates read.
#[derive(Serialize)]
struct Page<'a> {
    setup: &'a Setup,
    parameters: String,
    steps: String,
    seeds: String,
    margin: String,
    policies: Vec<&'a str>,
    colours: Vec<String>,
    groups: Vec<Group>,
    findings: &'a [String],
    runs: Vec<Listed>,
    pictures: &'a [String],
}

fn listed(c: &Comparison) -> Vec<Listed> {
    let none = || "–".to_string();
    c.runs
        .iter()
        .map(|r| {
            let last = r.evaluations.last();
            Listed {
                policy: r.policy.clone(),
                seed: r.seed,
                accuracy: last.map_or_else(none, |e| units::percent(e.accuracy, None)),
                loss: last.map_or_else(none, |e| format!("{:.4}", e.loss)),
                step: r.step_ms.map_or_else(none, units::milliseconds),
                wall: units::seconds(r.wall_seconds),
                skipped: r.skipped,
                outcome: match &r.outcome {
                    Outcome::Finished => "finished".into(),
                    Outcome::Interrupted => "stopped by hand".into(),
                    Outcome::Diverged { reason } => reason.clone(),
                },
            }
        })
        .collect()
}

/// Whether values are escaped follows from the ending of `name`.
fn render(c: &Comparison, name: &str, template: &str, pictures: &[String]) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template(name, template)?;
    let seeds: Vec<String> = c.setup.seeds.iter().map(u64::to_string).collect();
    let page = Page {
        setup: &c.setup,
        parameters: units::count(c.setup.parameters as u64),
        steps: units::count(c.setup.steps),
        seeds: seeds.join(", "),
        margin: format!("{:.2}", c.setup.margin * 100.0),
        policies: c.rows.iter().map(|r| r.policy.as_str()).collect(),
        colours: (0..c.rows.len()).map(curves::colour).collect(),
        groups: table::lines(c),
        findings: &c.findings,
        runs: listed(c),
        pictures,
    };
    Ok(environment.get_template(name)?.render(Serde(page))?)
}

/// The report as Markdown.
///
/// Errors: the template failed.
pub fn markdown(c: &Comparison) -> Result<String, ReportError> {
    render(c, "report.md", include_str!("report.md.jinja"), &[])
}

/// The report as one HTML file with its pictures inside, light or dark as the reader's system is.
///
/// Errors: the template or the drawing failed.
pub fn html(c: &Comparison) -> Result<String, ReportError> {
    let pictures: Vec<String> = [curves::losses(c)?, curves::differences(c)?].into_iter().flatten().collect();
    render(c, "report.html", include_str!("report.html.jinja"), &pictures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::{run, setup};

    fn comparison() -> Comparison {
        let mut setup = setup();
        setup.data = "photos of <cats> & dogs".into();
        Comparison::new(setup, vec![run("fp32", 0, 0.9, 10.0), run("bf16", 0, 0.9, 5.0)])
    }

    #[test]
    fn html_needs_nothing_else_and_escapes_names() {
        let page = html(&comparison()).unwrap();
        for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
            // The namespace of SVG is a name, not an address that is fetched.
            let found = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").contains(outside);
            assert!(!found, "{outside}");
        }
        assert!(page.contains("&lt;cats&gt; &amp; dogs"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn markdown_has_a_table_of_every_line() {
        let c = comparison();
        let page = markdown(&c).unwrap();
        let lines: usize = table::lines(&c).iter().map(|g| g.lines.len()).sum();
        // A heading and a rule, and one row per line; the table of runs has its own.
        let rows = page.lines().filter(|l| l.starts_with('|')).count();
        assert_eq!(rows, lines + 4 + 2 + c.runs.len() + 2, "{page}");
    }
}
