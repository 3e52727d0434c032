//! What was measured of robustness as sections of the report: charts of corruption and of the
//! ladder, and every table.

use super::{Block, Chart, ChartSeries, Section, Table};
use crate::measures::corruption::SEVERITIES;
use crate::robustness::{Corruptions, Ladder, Robustness};
use crate::robustness_table;
use crate::stats::mean_sd;

/// The sections of a report, in the order of the tables.
pub fn robustness(r: &Robustness) -> Vec<Section> {
    let mut blocks: Vec<Block> = r.findings.iter().map(Block::text).collect();
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

/// A line per precision over x, with the band of its seeds; `of` gives (precision, value) of each
/// model at an x.
fn lines(names: &[String], xs: &[f64], of: impl Fn(usize, &str) -> Vec<f64>) -> Vec<ChartSeries> {
    let series = |(colour, name): (usize, &String)| {
        let values: Vec<Vec<f64>> = (0..xs.len()).map(|i| of(i, name)).collect();
        let mean = |v: &Vec<f64>| mean_sd(v).map_or(f64::NAN, |m| m.0);
        let edges = |v: &Vec<f64>| {
            (
                v.iter().copied().fold(f64::INFINITY, f64::min),
                v.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            )
        };
        let several = values.iter().all(|v| v.len() > 1);
        ChartSeries {
            name: name.clone(),
            colour,
            points: xs.iter().zip(&values).map(|(&x, v)| (x, mean(v))).collect(),
            band: if several { values.iter().map(edges).collect() } else { Vec::new() },
        }
    };
    names.iter().enumerate().map(series).collect()
}

fn corruption(c: &Corruptions) -> Chart {
    let names: Vec<String> = c.mean_error.precisions.iter().map(|p| p.precision.clone()).collect();
    let xs: Vec<f64> = (0..=SEVERITIES).map(|s| s as f64).collect();
    let series = lines(&names, &xs, |i, name| {
        let models = c.models.iter().filter(|m| m.model.precision == name);
        let error = |m: &crate::robustness::CorruptionErrors| match i {
            0 => m.clean,
            s => m.errors.iter().map(|of_kind| of_kind[s - 1]).sum::<f64>() / m.errors.len() as f64,
        };
        models.map(error).collect()
    });
    let kinds: Vec<&str> = c.kinds.iter().map(|k| k.name).collect();
    Chart {
        title: "Error by severity of corruption".into(),
        description: format!(
            "Mean over {}; severity 0 is the clean image. Line: mean over seeds; band: from the least to the greatest seed.",
            kinds.join(", ")
        ),
        x: "severity".into(),
        y: "error".into(),
        y_range: None,
        marks: true,
        guide: None,
        series,
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
        y_range: None,
        marks: true,
        guide: ends.map(|((low, high), reference)| ((low, reference), (high, reference))),
        series: vec![ChartSeries { name: "stored".into(), colour: 0, points, band: Vec::new() }],
    }
}
