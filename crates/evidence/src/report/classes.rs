//! The report's tables by class: scores of each class, and which are taken for which.

use super::parts::{assessed, section, strings, table};
use super::{Block, Section};
use crate::comparison::{Candidate, Comparison};
use crate::measures::ClassScores;
use crate::measures::confusion::{ClassScore, Confused};
use crate::stats::mean_sd;
use crate::units;

/// Most classes whose scores and matrix are shown whole.
const MOST_SHOWN: usize = 20;
/// Classes and confusions that are shown of more.
const SHOWN: usize = 10;

/// Scores and confusions of each candidate beside the reference; none where there are no classes,
/// as in text.
pub(super) fn by_class(c: &Comparison) -> Option<Section> {
    let mut blocks = Vec::new();
    for (i, (candidate, a)) in assessed(c).enumerate().filter(|_| !c.setup.classes.is_empty()) {
        let of_reference: Vec<&ClassScores> = a.seeds.iter().map(|s| &s.reference.classes).collect();
        let of_candidate: Vec<&ClassScores> = a.seeds.iter().map(|s| &s.candidate.classes).collect();
        blocks.extend(scores(c, candidate, &of_reference, &of_candidate));
        if i == 0 {
            blocks.extend(confusions(c, &c.setup.reference, &of_reference));
        }
        blocks.extend(confusions(c, &candidate.policy, &of_candidate));
        blocks.extend(of_candidate.first().and_then(|s| s.left_out()).map(Block::text));
    }
    (!blocks.is_empty()).then(|| section("classes", "By class", blocks))
}

/// The name of a class, or its number where it has none.
fn name(c: &Comparison, class: usize) -> String {
    c.setup.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// Recall, precision and F1 of each class, means over seeds; of many classes those whose F1 falls
/// most.
fn scores(
    c: &Comparison,
    candidate: &Candidate,
    reference: &[&ClassScores],
    own: &[&ClassScores],
) -> Option<Block> {
    type Score = fn(&ClassScore) -> Option<f64>;
    let mean = |models: &[&ClassScores], class: usize, f: Score| {
        let values: Option<Vec<f64>> = models.iter().map(|m| f(m.per_class.as_ref()?.get(class)?)).collect();
        mean_sd(&values?).map(|m| m.0)
    };
    let f1: Score = |s| s.f1;
    let change = |class: usize| Some(mean(own, class, f1)? - mean(reference, class, f1)?);
    let support = own.first()?.per_class.as_ref()?;
    let mut order: Vec<usize> = (0..support.len()).collect();
    let many = order.len() > MOST_SHOWN;
    if many {
        order.sort_by(|&a, &b| change(a).unwrap_or(0.0).total_cmp(&change(b).unwrap_or(0.0)));
        order.truncate(SHOWN);
    }
    let row = |&class: &usize| {
        let mut cells = vec![name(c, class), units::count(support[class].support)];
        for f in [(|s| s.recall) as Score, |s| s.precision, f1] {
            for models in [reference, own] {
                cells.push(mean(models, class, f).map_or("–".into(), |x| units::percent(x, None)));
            }
        }
        cells.push(change(class).map_or("–".into(), units::points));
        cells
    };
    let (base, policy) = (&c.setup.reference, &candidate.policy);
    let which = match many {
        true => format!("the {SHOWN} of {} classes whose F1 falls most", support.len()),
        false => "every class".into(),
    };
    let of = |score: &str| [format!("{score}, {base}"), format!("{score}, {policy}")];
    let head = strings(["class", "samples"]).into_iter();
    let head = head.chain(["recall", "precision", "F1"].iter().flat_map(|s| of(s)));
    Some(table(
        format!("{policy} against {base}, {which}; means over seeds"),
        head.chain(["change of F1".to_string()]).collect(),
        order.iter().map(row).collect(),
    ))
}

/// The confusion matrix, summed over seeds; of many classes the largest confusions.
fn confusions(c: &Comparison, policy: &str, models: &[&ClassScores]) -> Option<Block> {
    let matrices: Option<Vec<&Vec<Vec<u32>>>> =
        models.iter().map(|m| m.confusion_matrix.as_ref().filter(|m| m.len() <= MOST_SHOWN)).collect();
    let seeds =
        if models.len() > 1 { format!(", summed over {} seeds", models.len()) } else { String::new() };
    let block = match matrices.filter(|m| !m.is_empty()) {
        Some(matrices) => {
            let classes = matrices[0].len();
            let cell = |label: usize, answer: usize| {
                matrices.iter().map(|m| u64::from(m[label][answer])).sum::<u64>()
            };
            let row = |label: usize| {
                let cells = (0..classes).map(|answer| units::count(cell(label, answer)));
                std::iter::once(name(c, label)).chain(cells).collect()
            };
            let head = std::iter::once("label \\ answer".to_string()).chain((0..classes).map(|k| name(c, k)));
            let caption =
                format!("Answers of {policy}{seeds}: a row for each label, a column for each answer");
            table(caption, head.collect(), (0..classes).map(row).collect())
        }
        None => {
            let largest: &[Confused] = models.first()?.largest_confusions.as_ref()?;
            let row = |x: &Confused| {
                vec![name(c, x.label as usize), name(c, x.answer as usize), units::count(x.samples.into())]
            };
            let rows: Vec<Vec<String>> = largest.iter().take(SHOWN).map(row).collect();
            let caption = format!("Largest confusions of {policy} in its first seed");
            table(caption, strings(["label", "answer", "samples"]), rows)
        }
    };
    Some(Block::Details { title: format!("Confusions of {policy}"), blocks: vec![block] })
}
