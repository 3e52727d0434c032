//! The ranges of a run's values as pictures: layers by steps.

use std::collections::BTreeMap;

use halfstep_evidence::heat_map::{Cell, HeatMap, escaped};
use halfstep_graph::Phase;
use halfstep_train::doctor::{Sample, ValueRange};

/// Powers of two below the end of its format at which a value is out of danger.
const SAFE: f64 = 16.0;
/// Most steps that a picture shows.
const COLUMNS: usize = 100;

/// One figure per value, its heat and its words.
type Measure = fn(&ValueRange) -> Option<(f64, String)>;

fn headroom(value: &ValueRange) -> Option<(f64, String)> {
    let bits = value.headroom()?;
    let text = match value.non_finite > 0 {
        true => format!("{} of {} elements are not finite", value.non_finite, value.count),
        false => format!("up to {:e}, {bits:.1} powers of two below the end of {}", value.amax, value.format),
    };
    Some((1.0 - bits / SAFE, format!("{}: {text}", value.op)))
}

fn lost(value: &ValueRange) -> Option<(f64, String)> {
    let share = value.lost()?;
    // Tenths of a percent are seen already.
    Some((
        share.sqrt(),
        format!("{}: {:.2} % below the normal range of {}", value.op, share * 100.0, value.format),
    ))
}

/// Heat maps of samples of one run: forward and backward, towards the upper end of the formats and
/// the lower.
///
/// A cell is the worst value of its layer. Layers stand in execution order.
pub fn numerics_maps(samples: &[&Sample]) -> Vec<HeatMap> {
    let measures: [(&str, Measure, [&str; 2]); 2] = [
        ("room below the largest number of the format", headroom, ["16 powers of two", "none: overflow"]),
        ("share of elements below the smallest normal number", lost, ["none", "all"]),
    ];
    let mut maps = Vec::new();
    for (phase, pass) in [(Phase::Forward, "Forward pass"), (Phase::Backward, "Backward pass")] {
        for (what, measure, ends) in measures {
            maps.push(map(samples, phase, &format!("{pass}: {what}"), measure, ends));
        }
    }
    maps
}

fn map(samples: &[&Sample], phase: Phase, title: &str, measure: Measure, ends: [&str; 2]) -> HeatMap {
    let mut rows: Vec<String> = Vec::new();
    for value in samples.iter().flat_map(|s| &s.values).filter(|v| v.phase == phase) {
        if !rows.contains(&value.name) {
            rows.push(value.name.clone());
        }
    }
    let worst = |sample: &Sample, name: &str| {
        let of_layer = sample.values.iter().filter(|v| v.phase == phase && v.name == name);
        let cells = of_layer.filter_map(measure).map(|(heat, text)| Cell { heat, text });
        cells.max_by(|a, b| a.heat.total_cmp(&b.heat))
    };
    let cells = rows.iter().map(|name| samples.iter().map(|s| worst(s, name)).collect()).collect();
    HeatMap {
        title: title.to_string(),
        ends: (ends[0].into(), ends[1].into()),
        columns: samples.iter().map(|s| s.attempt.to_string()).collect(),
        rows,
        cells,
    }
}

/// A page of its own with the heat maps of every run that was sampled.
pub fn numerics_page(title: &str, samples: &[Sample]) -> String {
    let mut runs: BTreeMap<(&str, u64), Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        runs.entry((&sample.policy, sample.seed)).or_default().push(sample);
    }
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font-family:system-ui,sans-serif;margin:2em;color:#222;background:#fff}}\
         figure{{margin:1em 0;overflow-x:auto}}</style></head><body>\n<h1>Ranges of the values of {title}</h1>\n\
         <p>Rows are the layers in execution order, columns the steps that were sampled. A cell is the worst value of its \
         layer; point at it to see which.</p>\n"
    );
    for ((policy, seed), samples) in runs {
        page += &format!("<h2>{}, seed {seed}</h2>\n", escaped(policy));
        // As many columns as a page has room for, evenly over the run.
        let samples: Vec<&Sample> =
            samples.iter().copied().step_by(samples.len().div_ceil(COLUMNS)).collect();
        for map in numerics_maps(&samples) {
            page += &format!("<figure>{}</figure>\n", map.svg());
        }
    }
    page + "</body></html>\n"
}
