//! From the logits of a reference and a candidate, one file per seed, to a verdict.

use std::num::NonZeroUsize;

use crate::assessment::{Assessment, Protocol};
use crate::buckets::TestSets;
use crate::experiment::{measure_seed, same_samples};
use crate::judge::judge;
use crate::logits::{Logits, LogitsError, Source};

/// Why there is no assessment.
#[derive(Debug, thiserror::Error)]
pub enum AssessmentError {
    /// A file is bad.
    #[error(transparent)]
    Logits(#[from] LogitsError),
    /// Files do not pair.
    #[error("{0}")]
    Pairing(String),
}

/// Measures all pairs and judges them.
///
/// Every baseline file is read twice: with its candidate, and as the other seed of the one before
/// it.
///
/// # Errors
/// If files do not pair, or one cannot be read.
pub fn assess(
    references: &[&dyn Source],
    candidates: &[&dyn Source],
    protocol: Protocol,
    threads: NonZeroUsize,
) -> Result<Assessment, AssessmentError> {
    let Pairing { order, by_seed, examples } = pair(references, candidates)?;
    let mut seeds = Vec::with_capacity(order.len());
    for (i, &(r, c)) in order.iter().enumerate() {
        // Around a ring, so that each reference is the other of one: two differences share at most
        // one run.
        let other = (order.len() > 1).then(|| references[order[(i + 1) % order.len()].0]);
        seeds.push(measure_seed(references[r], candidates[c], other, protocol.floor, threads)?);
    }
    let references: Vec<_> = seeds.iter().map(|s| &s.reference).collect();
    let candidates: Vec<_> = seeds.iter().map(|s| &s.candidate).collect();
    for side in [references, candidates] {
        for (i, model) in side.iter().enumerate() {
            if let Some(other) = side[..i].iter().find(|m| m.digest == model.digest) {
                return Err(AssessmentError::Pairing(format!(
                    "{} and {} hold the same logits: one model counted twice says nothing of other seeds; give each \
                     run's own file, or one pair",
                    other.name, model.name
                )));
            }
        }
    }
    Ok(judge(seeds, protocol, by_seed, examples))
}

struct Pairing {
    order: Vec<(usize, usize)>,
    by_seed: bool,
    examples: TestSets,
}

/// Names of the columns that divide the samples.
fn columns(file: &Logits) -> Vec<&str> {
    let mut names: Vec<&str> = file.groups().iter().map(|g| g.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn pair(references: &[&dyn Source], candidates: &[&dyn Source]) -> Result<Pairing, AssessmentError> {
    let fail = |message: String| Err(AssessmentError::Pairing(message));
    if references.is_empty() || references.len() != candidates.len() {
        return fail(format!(
            "{} baseline files and {} candidate files do not pair; give one of each per seed",
            references.len(),
            candidates.len()
        ));
    }
    // Opening reads the headers and labels only.
    let first = references[0].open()?;
    let (mut examples, mut divided) = (TestSets::Shared, None);
    let mut seeds_of = |sources: &[&dyn Source]| -> Result<Vec<Option<u64>>, AssessmentError> {
        let mut seeds = Vec::new();
        for source in sources {
            let open = source.open()?;
            if open.classes() != first.classes() {
                let (name, n) = (open.name(), open.classes());
                return Err(AssessmentError::Pairing(format!(
                    "{name} has {n} classes, {} has {}",
                    first.name(),
                    first.classes()
                )));
            }
            if columns(&open) != columns(&first) || open.clusters().is_some() != first.clusters().is_some() {
                let of = |file: &Logits| match (columns(file), file.clusters()) {
                    (names, None) if names.is_empty() => "none".to_string(),
                    (names, clusters) => {
                        let clusters = clusters.map(|_| "`cluster`".to_string());
                        let groups = names.iter().map(|n| format!("`group_{n}`"));
                        groups.chain(clusters).collect::<Vec<_>>().join(", ")
                    }
                };
                divided.get_or_insert(AssessmentError::Pairing(format!(
                    "the files do not divide their samples alike: {} has {}, {} has {}; a group is judged over all files \
                     or in none",
                    first.name(),
                    of(&first),
                    open.name(),
                    of(&open)
                )));
            }
            if same_samples(&first, &open).is_err() {
                examples = TestSets::OfEachSeed;
            }
            seeds.push(open.seed());
        }
        Ok(seeds)
    };
    let (a, b) = (seeds_of(references)?, seeds_of(candidates)?);
    let known: usize = a.iter().chain(&b).flatten().count();
    if known > 0 && known < a.len() + b.len() {
        return fail("some files name their seed and some do not; name it in all or in none".into());
    }
    if let Some(error) = divided {
        return Err(error);
    }
    if known == 0 {
        return Ok(Pairing { order: (0..a.len()).map(|i| (i, i)).collect(), by_seed: false, examples });
    }
    let mut order = Vec::new();
    for (i, seed) in a.iter().enumerate() {
        let of = |side: &[Option<u64>]| side.iter().filter(|s| *s == seed).count();
        if of(&a) != 1 {
            return fail(format!("two baseline files name seed {}", seed.unwrap_or(0)));
        }
        match b.iter().position(|s| s == seed) {
            Some(j) if of(&b) == 1 => order.push((i, j)),
            _ => {
                return fail(format!(
                    "{} has seed {}; there must be one candidate file of that seed",
                    references[i].name(),
                    seed.unwrap_or(0)
                ));
            }
        }
    }
    Ok(Pairing { order, by_seed: true, examples })
}
