//! Which items to take: the most gain within a budget of harm, a knapsack problem.

/// What taking one item brings, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// Time or bytes saved; one that saves nothing is never taken.
    pub gain: f64,
    /// Its part of the budget, not below 0; an infinite or undefined one is never taken.
    pub harm: f64,
}

/// Parts that a budget is divided into.
const STEPS: usize = 4096;

/// The positions of the items to take, in order.
///
/// Dynamic programming over the budget in 4096 parts (Martello and Toth 1990, section 2.6). Harm is
/// rounded up to whole parts: the sum never exceeds the budget, and the gain is at least that of
/// the best choice whose harm is below it by one part per item. Time O(4096 · items).
pub fn most_gain(items: &[Item], budget: f64) -> Vec<usize> {
    // best[b]: the most gain with a harm of at most b parts, by the items so far.
    let mut best = vec![0.0; STEPS + 1];
    let mut taken: Vec<Vec<bool>> = Vec::with_capacity(items.len());
    for item in items {
        let mut with = vec![false; STEPS + 1];
        if let Some(parts) = parts(item, budget) {
            for b in (parts..=STEPS).rev() {
                let gain = best[b - parts] + item.gain;
                if gain > best[b] {
                    (best[b], with[b]) = (gain, true);
                }
            }
        }
        taken.push(with);
    }
    let mut left = STEPS;
    let mut chosen = Vec::new();
    for (i, item) in items.iter().enumerate().rev() {
        if taken[i][left] {
            chosen.push(i);
            left -= parts(item, budget).unwrap_or(0);
        }
    }
    chosen.reverse();
    chosen
}

/// The parts of the budget that an item takes, if it is worth taking and fits.
fn parts(item: &Item, budget: f64) -> Option<usize> {
    if item.gain.is_nan() || item.gain <= 0.0 || item.harm.is_nan() || item.harm > budget {
        return None;
    }
    if item.harm == 0.0 { Some(0) } else { Some((item.harm / budget * STEPS as f64).ceil() as usize) }
}

/// The positions of the items that are taken by falling gain per harm, as long as they fit: what
/// one would do by hand.
pub fn greedy(items: &[Item], budget: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).filter(|&i| parts(&items[i], budget).is_some()).collect();
    let ratio = |i: usize| items[i].gain / items[i].harm;
    order.sort_by(|&a, &b| ratio(b).total_cmp(&ratio(a)));
    let mut left = budget;
    order.retain(|&i| {
        let fits = items[i].harm <= left;
        left -= if fits { items[i].harm } else { 0.0 };
        fits
    });
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use halfstep_float::{Philox, unit_f64};

    use super::*;

    fn sum(items: &[Item], chosen: impl IntoIterator<Item = usize>) -> (f64, f64) {
        chosen.into_iter().fold((0.0, 0.0), |(g, h), i| (g + items[i].gain, h + items[i].harm))
    }

    /// The best gain of all subsets.
    fn by_trying_all(items: &[Item], budget: f64) -> f64 {
        let subset = |bits: u32| sum(items, (0..items.len()).filter(move |i| bits >> i & 1 == 1));
        (0..1u32 << items.len()).map(subset).filter(|s| s.1 <= budget).map(|s| s.0).fold(0.0, f64::max)
    }

    #[test]
    fn it_finds_the_best_choice_and_stays_within_the_budget() {
        let random = Philox::new(5);
        for case in 0..200 {
            let n = 1 + case as usize % 11;
            let item = |i: usize| {
                let [a, b, c, d] = random.block([case, i as u32, 0, 0]);
                Item { gain: unit_f64(a, b) - 0.1, harm: unit_f64(c, d).powi(3) }
            };
            let items: Vec<Item> = (0..n).map(item).collect();
            let budget = 0.6;
            let (gain, harm) = sum(&items, most_gain(&items, budget));
            assert!(harm <= budget, "case {case}: {harm}");
            let least = by_trying_all(&items, budget * (1.0 - n as f64 / STEPS as f64));
            assert!(gain >= least - 1e-12, "case {case}: {gain} < {least}");
            let (greedy_gain, greedy_harm) = sum(&items, greedy(&items, budget));
            assert!(greedy_harm <= budget);
            assert!(greedy_gain <= by_trying_all(&items, budget) + 1e-12);
        }
    }

    #[test]
    fn greed_is_not_enough() {
        let items =
            [Item { gain: 6.0, harm: 0.5 }, Item { gain: 8.0, harm: 0.7 }, Item { gain: 5.0, harm: 0.5 }];
        assert_eq!(greedy(&items, 1.0), [0, 2]);
        let items = [Item { gain: 6.0, harm: 0.4 }, Item { gain: 9.0, harm: 1.0 }];
        assert_eq!(greedy(&items, 1.0), [0]);
        assert_eq!(most_gain(&items, 1.0), [1]);
    }

    #[test]
    fn what_harms_without_bound_or_gains_nothing_is_left() {
        let item = |gain, harm| Item { gain, harm };
        let items = [item(1.0, f64::INFINITY), item(1.0, f64::NAN), item(-1.0, 0.0), item(1.0, 0.0)];
        assert_eq!(most_gain(&items, 1.0), [3]);
        assert_eq!(most_gain(&items, 0.0), [3]);
        assert_eq!(greedy(&items, 1.0), [3]);
    }
}
