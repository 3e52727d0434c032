//! Accuracy and flips by group: the columns that the recipe names, and the classes.

use halfstep_data::Samples;
use halfstep_evidence::logits::{InMemory, Source};
use halfstep_evidence::measures::GroupColumn;
use halfstep_evidence::robustness::GroupComparison;
use halfstep_evidence::{Protocol, assess, group_table};

use crate::inputs::Inputs;
use crate::{StressError, Subject};

pub(crate) fn measure(
    subject: &Subject<'_>,
    test: &Inputs,
    own: &[Vec<f32>],
) -> Result<Vec<GroupComparison>, StressError> {
    let Some(columns) = columns(subject) else { return Ok(Vec::new()) };
    let source = |i: usize| {
        let trained = &subject.trained[i];
        let name = format!("{} seed {}", trained.policy.name, trained.seed);
        let classes = own[i].len() / test.labels.len();
        let all = InMemory::new(name, classes, own[i].clone(), &test.labels).with_seed(trained.seed);
        columns.iter().fold(all, |all, column| all.with_group(column.clone()))
    };
    let mut comparisons = Vec::new();
    for candidate in subject.precisions().into_iter().skip(1) {
        let pairs: Vec<(InMemory, InMemory)> = subject
            .of(subject.baseline)
            .filter_map(|(b, t)| {
                let (c, _) = subject.of(candidate).find(|(_, other)| other.seed == t.seed)?;
                Some((source(b), source(c)))
            })
            .collect();
        if pairs.is_empty() {
            continue;
        }
        let first: Vec<&dyn Source> = pairs.iter().map(|p| &p.0 as &dyn Source).collect();
        let second: Vec<&dyn Source> = pairs.iter().map(|p| &p.1 as &dyn Source).collect();
        let assessment = assess(&first, &second, Protocol::default(), subject.threads)?;
        comparisons.push(GroupComparison {
            candidate: candidate.into(),
            rows: assessment.rows.into_iter().filter(|r| r.group.is_some()).collect(),
            flips: assessment.group_flips,
            calibration: group_table::calibration(&assessment.seeds),
            gaps: group_table::gaps(&assessment.seeds),
        });
    }
    Ok(comparisons)
}

/// The columns of the data, and the class; none for a text.
fn columns(subject: &Subject<'_>) -> Option<Vec<GroupColumn>> {
    let part = &subject.data.test;
    let names = subject.data.preprocessing.classes();
    let classes: Vec<String> = part.labels().iter().map(|&l| names[l as usize].clone()).collect();
    let class = GroupColumn::new("class", &classes);
    match part.samples() {
        Samples::Text(_) => None,
        Samples::Images(_) => Some(vec![class]),
        Samples::Table(table) => {
            let own = table.groups.iter().map(|g| GroupColumn::new(&g.column, &g.values));
            Some(own.filter(|g| g.name != "class").chain([class]).collect())
        }
    }
}
