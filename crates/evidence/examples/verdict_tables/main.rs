//! How often a verdict is wrong, and how often it is right: the tables of `docs/verdict.md`, made
//! by the code that judges.
//!
//! ```console
//! cargo run --release -p halfstep-evidence --example verdict_tables [EXPERIMENTS [TABLE...]]
//! ```
//!
//! One pair of models is summed exactly over all outcomes. The rest is simulated with EXPERIMENTS
//! experiments a cell (by default 10,000, which tells 5 % to ±0.65 % at three deviations), from
//! counter-based random numbers: the same tables on every machine.

#![allow(clippy::print_stdout)] // a program of its own

mod draw;
mod jackknifed;

use std::num::NonZeroU32;

use halfstep_evidence::answers::Level;
use halfstep_evidence::buckets::TestSets;
use halfstep_evidence::judge::Measured;
use halfstep_evidence::noninferiority::{Asked, Margin, Question};
use halfstep_evidence::power::{Plan, Spread, sd_at_most};
use halfstep_evidence::stats::{ALPHA, Looks};
use halfstep_evidence::{Metric, Verdict};

use draw::{Answers, Smooth, Stream, measured};

/// Prints a table, from so many experiments a cell.
type Maker = fn(u64);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let experiments = arguments.next().map_or(10_000, |n| n.parse().expect("a number of experiments"));
    let asked: Vec<String> = arguments.collect();
    let tables: [(&str, Maker); 9] = [
        ("pair", |_| one_pair()),
        ("few", few_seeds),
        ("examples", on_examples),
        ("smooth", smooth),
        ("ece", jackknifed::ece),
        ("auroc", jackknifed::auroc),
        ("power", power),
        ("looks", looks),
        ("plans", plans),
    ];
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    tables.into_iter().filter(|(name, _)| is_asked(name)).for_each(|(_, table)| table(experiments));
}

fn asked(metric: Metric, margin: f64, looks: Looks) -> Asked {
    Asked {
        better: metric.better(),
        margin: Margin::Absolute(margin),
        question: Question::NonInferiority,
        looks,
    }
}

/// Shares of passes and failures on samples, then on examples.
fn shares(
    experiments: u64,
    cell: u64,
    asked: Asked,
    draw: impl Fn(&mut Stream) -> Measured + Sync,
) -> [f64; 4] {
    let half = experiments / 2;
    let count = |range: std::ops::Range<u64>| {
        let mut counts = [0u64; 4];
        for i in range {
            let m = draw(&mut Stream::new(cell, i));
            let tests = [m.on_samples(asked), m.on_examples(asked, TestSets::Shared)];
            for (k, test) in tests.into_iter().enumerate() {
                let verdict = test.expect("margins and values are finite").verdict;
                counts[2 * k] += u64::from(verdict == Verdict::Pass);
                counts[2 * k + 1] += u64::from(verdict == Verdict::Fail);
            }
        }
        counts
    };
    let (a, b) = std::thread::scope(|s| {
        let other = s.spawn(|| count(half..experiments));
        (count(0..half), other.join().expect("the other half"))
    });
    std::array::from_fn(|k| (a[k] + b[k]) as f64 / experiments as f64)
}

fn one_pair() {
    println!("### One pair of models: false pass and false fail at the margin, summed exactly\n");
    println!("| margin | gains | n = 30–400, worst n | 500 | 1,000 | 2,000 | false fail, worst of all |");
    println!("|--:|--:|--:|--:|--:|--:|--:|");
    let mut worst = 0.0f64;
    for margin in [0.01, 0.03] {
        for gain in [0.0, 0.005, 0.02, 0.05] {
            let level = |examples| Level { examples, loss: margin + gain, gain };
            let small = (30..=400).map(|n| (level(n).passes(margin, ALPHA), n));
            let (small, at) = small.max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are sizes");
            let large = [500, 1000, 2000].map(|n| level(n).passes(margin, ALPHA));
            let fails = (30..=400).chain([500, 1000, 2000]).map(|n| level(n).fails(margin, ALPHA));
            let fails = fails.fold(0.0, f64::max);
            worst = large.into_iter().chain([small]).fold(worst, f64::max);
            println!(
                "| {} pt | {} % | {small:.4} ({at}) | {:.4} | {:.4} | {:.4} | {fails:.4} |",
                margin * 100.0,
                gain * 100.0,
                large[0],
                large[1],
                large[2]
            );
        }
    }
    println!("\nGreatest false pass: {worst:.5}.\n");
    println!("Power at 1 pt with equal models of which 0.9 % of answers differ:\n");
    println!("| n = 500 | 1,000 | 2,000 |\n|--:|--:|--:|");
    let power =
        [500, 1000, 2000].map(|examples| Level { examples, loss: 0.0045, gain: 0.0045 }.passes(0.01, ALPHA));
    println!("| {:.3} | {:.3} | {:.3} |\n", power[0], power[1], power[2]);
}

fn few_seeds(experiments: u64) {
    println!("### Few seeds on the samples measured, losses only: wrong at the margin\n");
    println!("| margin | seeds | samples | false pass | false fail |");
    println!("|--:|--:|--:|--:|--:|");
    for margin in [0.01, 0.03] {
        for seeds in [2, 3, 5, 10] {
            for examples in [50, 500, 2000] {
                let cell = Answers { seeds, examples, common: 0.0, loss: margin, gain: 0.0 };
                let [pass, fail, ..] =
                    shares(experiments, 1, asked(Metric::Accuracy, margin, Looks::ONE), |s| cell.draw(s));
                println!("| {} pt | {seeds} | {examples} | {pass:.4} | {fail:.4} |", margin * 100.0);
            }
        }
    }
    println!();
}

fn on_examples(experiments: u64) {
    println!("### Seeds and examples, accuracy at 1 pt: wrong at the margin\n");
    println!("| seeds | samples | gains | common: 0 | 0.25 | 0.5 | 0.9 | worst false fail |");
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut worst = 0.0f64;
    for seeds in [3, 5, 10] {
        for examples in [500, 2000] {
            for gain in [0.0, 0.005, 0.02] {
                let (mut passes, mut fails) = (Vec::new(), 0.0f64);
                for common in [0.0, 0.25, 0.5, 0.9] {
                    let cell = Answers { seeds, examples, common, loss: 0.01 + gain, gain };
                    let [.., pass, fail] =
                        shares(experiments, 2, asked(Metric::Accuracy, 0.01, Looks::ONE), |s| cell.draw(s));
                    passes.push(format!("{pass:.4}"));
                    (worst, fails) = (worst.max(pass), fails.max(fail));
                }
                println!(
                    "| {seeds} | {examples} | {} % | {} | {fails:.4} |",
                    gain * 100.0,
                    passes.join(" | ")
                );
            }
        }
    }
    println!("\nGreatest false pass: {worst:.4}.\n");
}

fn smooth(experiments: u64) {
    println!("### Seeds and examples, a smooth measure (nll) at 0.02: wrong at the margin\n");
    println!(
        "| seeds | samples | seed's share of the rest | common: 0 | 0.25 | 0.5 | 0.9 | worst false fail |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut worst = 0.0f64;
    for seeds in [3, 5, 10] {
        for examples in [500usize, 2000] {
            for own in [0.0, 0.5] {
                let (mut passes, mut fails) = (Vec::new(), 0.0f64);
                for common in [0.0, 0.25, 0.5, 0.9] {
                    // Of a variance of 0.2² an example; seeds vary as one of their own examples'
                    // means does.
                    let rest: f64 = 0.2 * f64::sqrt(1.0 - common);
                    let cell = Smooth {
                        seeds,
                        examples,
                        mean: 0.02,
                        seed: own * rest / (examples as f64).sqrt(),
                        example: 0.2 * common.sqrt(),
                        rest,
                    };
                    let [.., pass, fail] =
                        shares(experiments, 3, asked(Metric::Nll, 0.02, Looks::ONE), |s| cell.draw(s));
                    passes.push(format!("{pass:.4}"));
                    (worst, fails) = (worst.max(pass), fails.max(fail));
                }
                println!("| {seeds} | {examples} | {own} | {} | {fails:.4} |", passes.join(" | "));
            }
        }
    }
    println!("\nGreatest false pass: {worst:.4}.\n");
}

fn power(experiments: u64) {
    println!(
        "### Power: equal models, 0.9 % of answers change, a quarter of them in every seed, margin 1 pt\n"
    );
    println!("| seeds | samples | on these samples | on examples like these |\n|--:|--:|--:|--:|");
    for (seeds, examples) in [(3, 1000), (3, 2000), (5, 500), (5, 1000), (5, 2000), (10, 2000)] {
        let cell = Answers { seeds, examples, common: 0.25, loss: 0.0045, gain: 0.0045 };
        let [a, _, b, _] =
            shares(experiments, 4, asked(Metric::Accuracy, 0.01, Looks::ONE), |s| cell.draw(s));
        println!("| {seeds} | {examples} | {a:.3} | {b:.3} |");
    }
    println!();
}

/// Seeds are added until a look decides.
fn looks(experiments: u64) {
    println!(
        "### Looking more than once: seeds are added until a look decides, nll at its margin, on these samples\n"
    );
    println!("| looks at seeds | stated | false pass | false fail |\n|---|--:|--:|--:|");
    for (at, stated) in [(&[5, 10][..], 2), (&[5, 10, 20], 3), (&[5, 10, 20], 1), (&[3, 4, 5, 6, 7, 8], 6)] {
        let looks = Looks::of(NonZeroU32::new(stated).expect("at least one look"));
        let (mut passed, mut failed) = (0u64, 0u64);
        for i in 0..experiments {
            let most = *at.last().expect("there is a look");
            let cell = Smooth { seeds: most, examples: 50, mean: 0.02, seed: 0.01, example: 0.0, rest: 0.05 };
            let all = cell.draw(&mut Stream::new(5, i));
            for (before, &seeds) in (0..).zip(at) {
                let some = measured(Metric::Nll, all.sums[..seeds].to_vec(), 50);
                let asked = asked(Metric::Nll, 0.02, looks.after(before));
                match some.on_samples(asked).expect("finite").verdict {
                    Verdict::Pass => passed += 1,
                    Verdict::Fail => failed += 1,
                    Verdict::Inconclusive => continue,
                }
                break;
            }
        }
        let share = |count: u64| count as f64 / experiments as f64;
        let list = at.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        println!("| {list} | {stated} | {:.4} | {:.4} |", share(passed), share(failed));
    }
    println!();
}

fn plans(experiments: u64) {
    println!("### Plans: the planned chance to pass, and how often it does\n");
    println!("| measure | seeds | samples | planned | simulated |\n|---|--:|--:|--:|--:|");
    for (seeds, examples, seed, example, rest) in [
        (3, 2000, 0.004, 0.1, 0.1),
        (5, 2000, 0.008, 0.0, 0.1),
        (5, 2000, 0.002, 0.3, 0.1),
        (8, 500, 0.01, 0.1, 0.2),
        (10, 2000, 0.012, 0.2, 0.2),
    ] {
        let spread = Spread { seed: seed * seed, example: example * example, rest: rest * rest };
        let plan = Plan::of(spread, 0.02);
        let planned = plan.power(seeds, examples as f64);
        let cell = Smooth { seeds, examples, mean: 0.0, seed, example, rest };
        let [_, _, found, _] = shares(experiments, 6, asked(Metric::Nll, 0.02, Looks::ONE), |s| cell.draw(s));
        println!("| nll | {seeds} | {examples} | {planned:.3} | {found:.3} |");
    }
    for (seeds, examples, common, changed) in
        [(5, 2000, 0.25, 0.009), (5, 1000, 0.25, 0.009), (3, 1000, 0.5, 0.02), (5, 1000, 0.25, 0.05)]
    {
        let cell = Answers { seeds, examples, common, loss: changed / 2.0, gain: changed / 2.0 };
        let spread = Spread { seed: 0.0, example: common * changed, rest: (1.0 - common) * changed };
        let plan = Plan { answers: Some(1.0), ..Plan::of(spread, 0.01) };
        let planned = plan.power(seeds, examples as f64);
        let [_, _, found, _] =
            shares(experiments, 7, asked(Metric::Accuracy, 0.01, Looks::ONE), |s| cell.draw(s));
        println!("| accuracy | {seeds} | {examples} | {planned:.3} | {found:.3} |");
    }
    println!(
        "\nPilots: seeds planned by the 95 % upper bound of the spread of a few pilot seeds have at least\nthe planned power of 80 % in this share of pilots:\n"
    );
    println!("| pilot seeds | share |\n|--:|--:|");
    for pilot in [3, 5, 10] {
        let truth = Plan::of(Spread::of_seeds(1.0), 1.0);
        let needed = truth.seeds_needed(1.0, 0.8).expect("a plan for a ratio of one");
        let enough = (0..experiments).filter(|&i| {
            let mut numbers = Stream::new(8, i);
            let values: Vec<f64> = (0..pilot).map(|_| numbers.normal()).collect();
            let sd = halfstep_evidence::stats::mean_sd(&values).and_then(|m| m.1).expect("several values");
            let bound = sd_at_most(sd, pilot).expect("several values");
            Plan { spread: Spread::of_seeds(bound), ..truth }
                .seeds_needed(1.0, 0.8)
                .is_none_or(|n| n >= needed)
        });
        println!("| {pilot} | {:.3} |", enough.count() as f64 / experiments as f64);
    }
}
