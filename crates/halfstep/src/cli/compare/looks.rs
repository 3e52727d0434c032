//! How often a comparison was judged: with more seeds each time, every judgement is a look, and one
//! of them passes by chance more often than each alone.
//!
//! The cache keeps, for each pair of precisions, the seeds that were judged and the share of α that
//! this took. A look has the α of the recipe's `looks` if the earlier ones that share a seed with
//! it have left as much; otherwise it decides nothing, and takes nothing. So over all looks that
//! share a seed a candidate at the margin passes in at most α of cases. The same seeds again are
//! the same look. What the cache cannot keep is not known later.

use halfstep::evidence::Setup;
use halfstep::evidence::statements::StudyStatement;
use halfstep::evidence::stats::{ALPHA, Looks};
use halfstep::train::files::{Disk, write_whole};
use halfstep::train::metrics::Outcome;
use halfstep::train::recipe::Experiment;
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::one_run::Obtained;
use crate::cli::failure::Failure;

/// What is decided at this look, and what must be said of earlier ones.
pub struct Looked {
    /// The level of this look, or that there is none.
    pub looks: Looks,
    /// Which looks have used α up.
    pub note: Option<StudyStatement>,
}

/// Seeds that were judged together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Look {
    first_seed: u64,
    seeds: u64,
    /// The level of its tests.
    alpha: f64,
}

impl Look {
    fn has(&self, seed: u64) -> bool {
        seed.wrapping_sub(self.first_seed) < self.seeds
    }

    fn is_of(&self, seeds: &[u64]) -> bool {
        seeds.first() == Some(&self.first_seed) && seeds.len() as u64 == self.seeds
    }
}

/// Adds a look at `policy` with the seeds of `setup` to those that were made before.
///
/// # Errors
/// The runs have no name in the cache.
pub fn look(
    cache: &Cache,
    experiment: &Experiment,
    setup: &Setup,
    obtained: &[Obtained],
    policy: &str,
) -> Result<Looked, Failure> {
    let stated = setup.protocol.looks;
    let ended = |policy: &str, seed: u64| {
        let of = |o: &&Obtained| o.result.record.policy == policy && o.result.record.seed == seed;
        obtained.iter().find(of).is_some_and(|o| o.result.record.outcome != Outcome::Interrupted)
    };
    let all_ended = setup.seeds.iter().all(|&s| ended(&setup.reference, s) && ended(policy, s));
    if setup.seeds.len() < 2 || !all_ended {
        // There is no verdict, whatever these runs say.
        return Ok(Looked { looks: stated, note: None });
    }
    // The seed is no part of the name of a comparison.
    let (reference, candidate) =
        (cache.id(experiment, &setup.reference, 0)?, cache.id(experiment, policy, 0)?);
    let folder = cache.looks();
    let path = folder.join(format!("{reference}-{candidate}.json"));
    let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut made: Vec<Look> = known.unwrap_or_default();
    let looked = after(&made, &setup.seeds, stated, policy);
    if !looked.looks.are_spent() {
        add(&mut made, &setup.seeds, stated.alpha());
        // A look that cannot be kept is not known later: the comparison goes on without.
        let bytes = serde_json::to_vec(&made).unwrap_or_default();
        let _ = std::fs::create_dir_all(&folder).and_then(|()| write_whole(&Disk, &path, &bytes));
    }
    Ok(looked)
}

/// What is left for a look at `seeds` after those that were made.
fn after(made: &[Look], seeds: &[u64], stated: Looks, policy: &str) -> Looked {
    let shares = |look: &&Look| !look.is_of(seeds) && seeds.iter().any(|s| look.has(*s));
    let earlier: Vec<&Look> = made.iter().filter(shares).collect();
    // In looks of this level; sums of quotients of α are exact but for their last bits.
    let spent = earlier.iter().map(|look| look.alpha).sum::<f64>() / stated.alpha();
    let looks = stated.after((spent - 1e-9).ceil().max(0.0) as u32);
    let note = looks.are_spent().then(|| {
        let of = |look: &&Look| match look.seeds {
            n if seeds.first() == Some(&look.first_seed) => n.to_string(),
            n => format!("{n} (from seed {})", look.first_seed),
        };
        StudyStatement::LooksUsedUp {
            policy: policy.to_string(),
            looks: earlier.iter().map(of).collect(),
            alpha: earlier.iter().map(|look| look.alpha).sum::<f64>().min(ALPHA),
        }
    });
    Looked { looks, note }
}

fn add(made: &mut Vec<Look>, seeds: &[u64], alpha: f64) {
    match made.iter_mut().find(|look| look.is_of(seeds)) {
        Some(same) => same.alpha = same.alpha.max(alpha),
        None => {
            let first_seed = seeds.first().copied().unwrap_or(0);
            made.push(Look { first_seed, seeds: seeds.len() as u64, alpha });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn stated(looks: u32) -> Looks {
        Looks::of(NonZeroU32::new(looks).unwrap())
    }

    /// Looks one after the other; whether each could decide something.
    fn decide(looks: &[(std::ops::Range<u64>, u32)]) -> Vec<bool> {
        let mut made = Vec::new();
        let mut can = Vec::new();
        for (seeds, n) in looks {
            let seeds: Vec<u64> = seeds.clone().collect();
            let decides = !after(&made, &seeds, stated(*n), "bf16").looks.are_spent();
            if decides {
                add(&mut made, &seeds, stated(*n).alpha());
            }
            can.push(decides);
        }
        can
    }

    #[test]
    fn over_all_looks_that_share_a_seed_no_more_than_alpha_is_spent() {
        // One stated: the second look has nothing left; the first again is no other look, and
        // seeds that nobody looked at have all of it.
        assert_eq!(decide(&[(0..5, 1), (0..10, 1), (0..5, 1), (5..10, 1)]), [true, false, true, true]);
        // A look that decided nothing spends nothing.
        assert_eq!(decide(&[(0..5, 2), (0..10, 2), (0..20, 2), (0..10, 2)]), [true, true, false, true]);
        assert_eq!(decide(&[(0..5, 3), (0..10, 3), (0..20, 3), (0..40, 3)]), [true, true, true, false]);
        // Stating more looks afterwards does not make up for what the first one took.
        assert_eq!(decide(&[(0..5, 1), (0..10, 3)]), [true, false]);
        // Half and a third are less than all; half, a third and another third are not.
        assert_eq!(decide(&[(0..5, 2), (0..10, 3), (0..15, 3)]), [true, true, false]);
        // The same seeds at a higher level take what is missing, if it is left.
        assert_eq!(decide(&[(0..5, 2), (0..5, 1), (0..10, 2)]), [true, true, false]);
        // Who begins at another seed looks at the same runs all the same.
        assert_eq!(decide(&[(0..5, 1), (4..9, 1), (1..3, 1)]), [true, false, false]);
    }

    #[test]
    fn what_used_alpha_up_is_said() {
        let mut made = Vec::new();
        add(&mut made, &[0, 1, 2], stated(1).alpha());
        let note = |seeds: &[u64]| after(&made, seeds, stated(1), "bf16").note;
        let said = note(&[0, 1, 2, 3]).unwrap().to_string();
        assert_eq!(said, "bf16 was judged before with 3 seeds, at 5.0 % over all looks.");
        assert_eq!(note(&[0, 1, 2]), None);
    }
}
