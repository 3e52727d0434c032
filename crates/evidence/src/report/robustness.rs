//! What was measured of robustness as sections of the report: charts of corruption and of the
//! ladder, and every table.

use super::curves::over_seeds;
use super::{Block, Chart, ChartSeries, Section, Table};
use crate::measures::corruption::SEVERITIES;
use crate::robustness::{ByPrecision, CorruptionErrors, Corruptions, Ladder, Robustness};
use crate::robustness_table;

/// The sections of a report, in the order of the tables.
pub fn robustness(r: &Robustness) -> Vec<Section> {
    let mut blocks: Vec<Block> = r.findings.iter().map(|said| Block::text(said.to_string())).collect();
    blocks.extend(r.not_applicable.iter().map(|n| Block::text(format!("{}: {}.", n.measure, n.reason))));
    let mut all = Vec::new();
    if !blocks.is_empty() {
        all.push(Section { id: "stress".into(), title: "Under stress".into(), blocks });
    }
    let mut curves = r.corruptions.iter().map(corruption);
    let mut ladder = r.ladder.iter().map(ladder);
    for (i, table) in robustness_table::sections(r).into_iter().enumerate() {
        let chart = if table.title.starts_with("Errors under corruption") {
            curves.next()
        } else if table.title.starts_with("Weights of") {
            ladder.next()
        } else {
            None
        };
        let words = (1..table.header.len())
            .filter(|&c| table.rows.iter().any(|row| row.get(c).is_some_and(|cell| cell.len() > 30)))
            .collect();
        let (caption, head, rows) = (table.note, table.header, table.rows);
        let table_block = Block::Table(Table { caption, head, rows, words });
        let blocks = chart.map(Block::Chart).into_iter().chain([table_block]).collect();
        all.push(Section { id: format!("stress-{}", i + 1), title: table.title, blocks });
    }
    all
}

fn corruption(c: &Corruptions) -> Chart {
    let line = |(colour, p): (usize, &ByPrecision)| {
        let models = c.models.iter().filter(|m| m.model.precision == p.precision);
        let curve = |m: &CorruptionErrors| {
            let mean = |s: usize| m.errors.iter().map(|kind| kind[s]).sum::<f64>() / m.errors.len() as f64;
            let spoilt = (0..SEVERITIES).map(|s| ((s + 1) as f64, mean(s)));
            [(0.0, m.clean)].into_iter().chain(spoilt).collect()
        };
        over_seeds(&p.precision, colour, &models.map(curve).collect::<Vec<_>>())
    };
    let kinds: Vec<&str> = c.kinds.iter().map(|k| k.name).collect();
    Chart {
        title: "Error by severity of corruption".into(),
        description: format!(
            "Mean over {}; severity 0 is the clean image. Line: mean over seeds; band: from the least to the greatest seed.",
            kinds.join(", ")
        ),
        x: "severity".into(),
        y: "error".into(),
        marks: true,
        series: c.mean_error.precisions.iter().enumerate().filter_map(line).collect(),
        ..Chart::default()
    }
}

fn ladder(l: &Ladder) -> Chart {
    let mut points: Vec<(f64, f64)> = l.rungs.iter().map(|r| (r.bits, r.accuracy)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ends = points.first().zip(points.last()).map(|(a, b)| ((a.0, b.0), l.rungs[0].reference));
    Chart {
        title: format!("Accuracy of {} by bits of a stored weight", l.trained),
        description:
            "Each point is a format of the ladder; the straight line is the accuracy with f32 weights.".into(),
        x: "bits".into(),
        y: "accuracy".into(),
        marks: true,
        guide: ends.map(|((low, high), reference)| ((low, reference), (high, reference))),
        series: vec![ChartSeries { name: "stored".into(), colour: 0, points, band: Vec::new() }],
        ..Chart::default()
    }
}
