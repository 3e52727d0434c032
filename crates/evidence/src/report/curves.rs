//! The report's curves: losses over steps, and confidence against accuracy.

use super::charts::{Chart, ChartSeries};
use super::parts::{assessed, section, strings, table};
use super::{Block, Section};
use crate::comparison::Comparison;
use crate::measures::ReliabilityBin;
use crate::model::ModelMeasures;
use crate::run::RunResult;
use crate::units;

/// Points of a smoothed curve.
const POINTS: usize = 120;

/// Means over equal stretches of steps; losses that are not finite are left out.
fn smooth(losses: &[f64]) -> Vec<(f64, f64)> {
    let stretch = losses.len().div_ceil(POINTS).max(1);
    let mean = |(i, part): (usize, &[f64])| {
        let finite: Vec<f64> = part.iter().copied().filter(|l| l.is_finite()).collect();
        let middle = (i * stretch) as f64 + part.len() as f64 / 2.0;
        (!finite.is_empty()).then(|| (middle, finite.iter().sum::<f64>() / finite.len() as f64))
    };
    losses.chunks(stretch).enumerate().filter_map(mean).collect()
}

/// The mean over seeds with the band from the least to the greatest, where all have points.
pub(super) fn over_seeds(name: &str, colour: usize, curves: &[Vec<(f64, f64)>]) -> Option<ChartSeries> {
    let length = curves.iter().map(Vec::len).min().filter(|&n| n > 0)?;
    let at = |i: usize| curves.iter().map(move |c| c[i].1);
    let mean = |i: usize| at(i).sum::<f64>() / curves.len() as f64;
    let edges = |i: usize| (at(i).fold(f64::INFINITY, f64::min), at(i).fold(f64::NEG_INFINITY, f64::max));
    Some(ChartSeries {
        name: name.into(),
        colour,
        points: (0..length).map(|i| (curves[0][i].0, mean(i))).collect(),
        band: if curves.len() > 1 { (0..length).map(edges).collect() } else { Vec::new() },
    })
}

/// The loss curves of all precisions, and their differences from the reference's.
pub(super) fn losses(c: &Comparison) -> Option<Section> {
    let series = |curve: &dyn Fn(&RunResult) -> Vec<(f64, f64)>| -> Vec<ChartSeries> {
        let of = |(i, row): (usize, &crate::comparison::PolicyRow)| {
            let runs = c.runs.iter().filter(|r| r.record.policy == row.policy);
            let curves: Vec<_> = runs.map(curve).filter(|points| !points.is_empty()).collect();
            over_seeds(&row.policy, i, &curves)
        };
        c.rows.iter().enumerate().filter_map(of).collect()
    };
    let wide = |losses: &[f32]| losses.iter().map(|&l| f64::from(l)).collect::<Vec<_>>();
    let chart = |title: String, description: String, y: &str, series: Vec<ChartSeries>| {
        let ends = series.iter().filter_map(|s| Some(format!("{} {:.4}", s.name, s.points.last()?.1)));
        let ends: Vec<String> = ends.collect();
        (!series.is_empty()).then(|| {
            Block::Chart(Chart {
                title,
                description: format!("{description} At the end: {}.", ends.join(", ")),
                x: "step".into(),
                y: y.into(),
                series,
                ..Chart::default()
            })
        })
    };
    let band = "Line: mean over seeds; band: from the least to the greatest seed. Each point is the mean of neighbouring steps.";
    let reference = &c.setup.reference;
    let base = |seed: u64| c.runs.iter().find(|r| r.record.seed == seed && r.record.policy == *reference);
    let differences = series(&|r| {
        let Some(base) = base(r.record.seed).filter(|_| r.record.policy != *reference) else {
            return Vec::new();
        };
        let pairs = wide(&r.record.losses).into_iter().zip(wide(&base.record.losses));
        smooth(&pairs.map(|(l, b)| l - b).collect::<Vec<_>>())
    });
    let blocks: Vec<Block> = [
        chart("Train loss".into(), band.into(), "loss", series(&|r| smooth(&wide(&r.record.losses)))),
        chart(
            format!("Train loss less that of {reference} with the same seed"),
            band.into(),
            "difference",
            differences,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!blocks.is_empty()).then(|| section("losses", "Loss curves", blocks))
}

/// What the reference's models measured beside the first candidate, and what each candidate's did.
fn models(c: &Comparison) -> Vec<(&str, Vec<&ModelMeasures>)> {
    let reference = assessed(c)
        .take(1)
        .map(|(_, a)| (c.setup.reference.as_str(), a.seeds.iter().map(|s| &s.reference).collect()));
    let candidates =
        assessed(c).map(|(x, a)| (x.policy.as_str(), a.seeds.iter().map(|s| &s.candidate).collect()));
    reference.chain(candidates).collect()
}

/// The reliability diagram, and the temperature that each model would need.
pub(super) fn reliability(c: &Comparison) -> Option<Section> {
    let all = models(c);
    if all.is_empty() {
        return None;
    }
    // Bins are summed over the seeds, by the number of samples in each.
    let line = |(colour, (name, models)): (usize, &(&str, Vec<&ModelMeasures>))| {
        let bins = models.first().map_or(0, |m| m.reliability.len());
        let point = |i: usize| {
            let all = || models.iter().map(|m| &m.reliability[i]);
            let n: u64 = all().map(|b| b.samples).sum();
            let mean = |f: &dyn Fn(&ReliabilityBin) -> Option<f64>| {
                all().filter_map(|b| Some(f(b)? * b.samples as f64)).sum::<f64>() / n as f64
            };
            (n > 0).then(|| (mean(&|b| b.confidence), mean(&|b| b.accuracy)))
        };
        let points = (0..bins).filter_map(point).collect();
        ChartSeries { name: name.to_string(), colour, points, band: Vec::new() }
    };
    let mean = |models: &[&ModelMeasures], f: fn(&ModelMeasures) -> f64| {
        models.iter().map(|m| f(m)).sum::<f64>() / models.len() as f64
    };
    let ece = |(name, models): &(&str, Vec<&ModelMeasures>)| {
        format!("{name} {}", units::percent(mean(models, |m| m.quality.ece), None))
    };
    let chart = Chart {
        title: "Reliability diagram".into(),
        description: format!(
            "Share of right answers by confidence, over all seeds; on the straight line, a confidence of 80 % is right in 80 of \
             100 cases. Expected calibration error: {}.",
            all.iter().map(ece).collect::<Vec<_>>().join(", ")
        ),
        x: "confidence".into(),
        y: "share right".into(),
        y_range: Some((0.0, 1.0)),
        marks: true,
        guide: Some(((0.0, 0.0), (1.0, 1.0))),
        series: all.iter().enumerate().map(line).collect(),
    };
    let row = |(name, models): &(&str, Vec<&ModelMeasures>)| {
        vec![
            name.to_string(),
            format!("{:.3}", mean(models, |m| m.temperature.temperature)),
            format!("{:.4}", mean(models, |m| m.temperature.nll_before)),
            format!("{:.4}", mean(models, |m| m.temperature.nll_after)),
        ]
    };
    let caption = "The temperature that makes each model likeliest: above 1 the model is overconfident";
    let head = strings(["precision", "temperature", "NLL", "NLL after refit"]);
    let refit = table(caption, head, all.iter().map(row).collect());
    Some(section("reliability", "Calibration", vec![Block::Chart(chart), refit]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_the_mean_and_leaves_out_nan() {
        let losses: Vec<f64> = (0..1200).map(|i| if i == 3 { f64::NAN } else { f64::from(i) }).collect();
        let curve = smooth(&losses);
        assert_eq!(curve.len(), POINTS);
        assert_eq!(curve[0], (5.0, 42.0 / 9.0));
        assert_eq!(curve[1], (15.0, 14.5));
    }

    #[test]
    fn the_band_is_from_the_least_to_the_greatest_seed() {
        let curves = [vec![(0.0, 1.0), (1.0, 2.0)], vec![(0.0, 3.0), (1.0, 2.0), (2.0, 9.0)]];
        let s = over_seeds("a", 0, &curves).unwrap();
        assert_eq!(s.points, [(0.0, 2.0), (1.0, 2.0)]);
        assert_eq!(s.band, [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(over_seeds("a", 0, &[]), None);
    }
}
