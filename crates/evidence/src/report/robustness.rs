//! What was measured of robustness, as sections of a report.

use super::charts::{Chart, Series};
use super::{Block, Section, Table};
use crate::measures::corruption::SEVERITIES;
use crate::robustness::{Corruptions, Ladder, Robustness};
use crate::robustness_table;

/// The sections: what follows first, then charts, then every table.
pub fn sections(r: &Robustness) -> Vec<Section> {
    let mut blocks: Vec<Block> = r.findings.iter().map(Block::text).collect();
    blocks.extend(r.ladder.as_ref().and_then(ladder));
    blocks.extend(r.corruptions.as_ref().map(corruptions));
    for table in robustness_table::sections(r) {
        let words = (0..table.header.len()).filter(|&c| is_words(&table.rows, c)).collect();
        let caption = format!("{}. {}", table.title, table.note);
        blocks.push(Block::Table(Table { caption, head: table.header, rows: table.rows, words }));
    }
    vec![Section { id: "stress".into(), title: "Under stress".into(), blocks }]
}

/// Whether a column holds no numbers.
fn is_words(rows: &[Vec<String>], column: usize) -> bool {
    let number = |s: &String| s.starts_with(|c: char| c.is_ascii_digit() || "+-−".contains(c));
    !rows.iter().filter_map(|row| row.get(column)).any(number)
}

/// Accuracy over bits per weight; none with fewer than two rungs.
fn ladder(l: &Ladder) -> Option<Block> {
    let mut points: Vec<(f64, f64)> = l.rungs.iter().map(|rung| (rung.bits, rung.accuracy)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    // One mark where several formats take as many bits: the worst of them.
    points.dedup_by(|b, a| {
        let same = a.0 == b.0;
        a.1 = if same { a.1.min(b.1) } else { a.1 };
        same
    });
    let (least, _) = points.first().zip(points.get(1))?;
    let reference = l.rungs.first()?.reference;
    let of_worst = format!("{:.1} % at {} bits", least.1 * 100.0, least.0);
    Some(Block::Chart(Chart {
        title: "Accuracy with weights stored smaller".into(),
        description: format!("f32 weights give {:.1} %; {of_worst}.", reference * 100.0),
        x: "bits per weight".into(),
        y: "accuracy".into(),
        y_range: None,
        marks: true,
        guide: Some(((points[0].0, reference), (points[points.len() - 1].0, reference))),
        series: vec![Series { name: l.trained.clone(), colour: 0, points, band: Vec::new() }],
    }))
}

/// Mean error over corruptions by severity, a line per precision.
fn corruptions(c: &Corruptions) -> Block {
    let line = |(colour, p): (usize, &crate::robustness::ByPrecision)| {
        let of: Vec<_> = c.models.iter().filter(|m| m.model.precision == p.precision).collect();
        let mean = |f: &dyn Fn(&crate::robustness::CorruptionErrors) -> f64| {
            of.iter().map(|m| f(m)).sum::<f64>() / of.len() as f64
        };
        let at = |s: usize| {
            let over_kinds =
                |m: &crate::robustness::CorruptionErrors| m.errors.iter().map(|e| e[s]).sum::<f64>();
            mean(&over_kinds) / c.kinds.len() as f64
        };
        let mut points = vec![(0.0, mean(&|m| m.clean))];
        points.extend((0..SEVERITIES).map(|s| ((s + 1) as f64, at(s))));
        Series { name: p.precision.clone(), colour, points, band: Vec::new() }
    };
    let series: Vec<Series> = c.mean_error.precisions.iter().enumerate().map(line).collect();
    Block::Chart(Chart {
        title: "Error under corruption".into(),
        description: "Mean error over all corruptions, from clean images (0) to the worst severity (5)."
            .into(),
        x: "severity".into(),
        y: "error".into(),
        y_range: None,
        marks: true,
        guide: None,
        series,
    })
}
