//! How often a comparison was judged: with more seeds each time, every judgement is a look, and one
//! of them passes by chance more often than each alone.
//!
//! The cache keeps, for each pair of precisions, the numbers of seeds with which it was judged.
//! What it cannot write it does not know: then the looks that the recipe states are all there are.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use halfstep::evidence::Setup;
use halfstep::evidence::statements::StudyStatement;
use halfstep::evidence::stats::Looks;
use halfstep::train::files::{Disk, write_whole};

use super::cache::Cache;
use super::one_run::Obtained;

/// Looks at one pair of precisions.
pub struct Looked {
    /// Those that α is divided over: as many as are stated, or as were made if these are more.
    pub divided: Looks,
    /// What must be said where more were made than are stated.
    pub note: Option<StudyStatement>,
}

/// Adds a look at `policy` with the seeds of `setup` to those that were made before.
pub fn look(cache: &Cache, setup: &Setup, obtained: &[Obtained], policy: &str) -> Looked {
    let stated = setup.protocol.looks;
    let none = Looked { divided: stated, note: None };
    let first = |policy: &str| {
        let of = |o: &&Obtained| {
            o.result.record.policy == policy && setup.seeds.first() == Some(&o.result.record.seed)
        };
        obtained.iter().find(of).map(|o| o.result.id.as_str())
    };
    let (Some(reference), Some(candidate)) = (first(&setup.reference), first(policy)) else { return none };
    let folder = cache.looks();
    let path = folder.join(format!("{reference}-{candidate}.json"));
    let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut seeds: BTreeSet<u64> = known.unwrap_or_default();
    if seeds.insert(setup.seeds.len() as u64) {
        // A look that cannot be kept is not known later: the comparison goes on without.
        let bytes = serde_json::to_vec(&seeds).unwrap_or_default();
        let _ = std::fs::create_dir_all(&folder).and_then(|()| write_whole(&Disk, &path, &bytes));
    }
    let made = u32::try_from(seeds.len()).unwrap_or(u32::MAX);
    let Some(divided) = NonZeroU32::new(made).filter(|made| made.get() > stated.number()) else {
        return none;
    };
    let divided = Looks::of(divided);
    let note = StudyStatement::LooksUsedUp {
        policy: policy.to_string(),
        seeds: seeds.into_iter().collect(),
        looks: made,
        stated: stated.number(),
        held_to: divided.alpha(),
        alpha: stated.alpha(),
        in_all: stated.level_of_all(made),
    };
    Looked { divided, note: Some(note) }
}
