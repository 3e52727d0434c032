//! `halfstep compare --plan`: how many seeds the margins need, and what they will cost, before any
//! is trained.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::cost::Amounts;
use halfstep::evidence::exact::clean_runs_needed;
use halfstep::evidence::metric::{Metric, parse_margin};
use halfstep::evidence::power::{Plan, Spread, all_pass_at_least, sd_at_most};
use halfstep::evidence::statements::{CommandStatement, cost_words};
use halfstep::evidence::stats::Looks;
use halfstep::evidence::{Assessment, Margin, Protocol, Rates, RunResult, Spent, units};
use halfstep::graph::engine::Engine;
use halfstep::train::recipe::{Experiment, Recipe};
use serde::Serialize;

use super::cache::Cache;
use super::one_run::{Obtained, Task, cached, measured_samples};
use super::side_by_side::steps_per_second;
use super::{Arm, assessments, protocol, recipes_of_arms, setup};
use crate::cli::args::Compare;
use crate::cli::failure::Failure;
use crate::cli::output::Messages;
use crate::cli::{memory, output, prepare, progress};

/// Seeds that are looked for in the cache, at least.
const LOOKED_FOR: u64 = 32;
/// Ratios of spread to margin that are shown where nothing is known of the spread.
const RATIOS: [f64; 4] = [0.5, 1.0, 1.5, 2.0];

#[derive(Serialize)]
struct Planned {
    arm: String,
    seeds_stated: u64,
    test_samples: usize,
    candidates: Vec<Candidate>,
    /// Seeds in all that the most demanding candidate needs.
    seeds_needed: Option<usize>,
    precisions: Vec<Precision>,
    /// Runs that are there already.
    cached: usize,
    currency: String,
    stated: Bill,
    needed: Option<Bill>,
}

#[derive(Serialize)]
struct Candidate {
    policy: String,
    metrics: Vec<Row>,
    /// Chance, at least, that all metrics pass with the stated seeds on the test samples there are.
    passes_at_least: f64,
}

/// What one metric needs.
#[derive(Serialize)]
struct Row {
    metric: Metric,
    margin: f64,
    source: Source,
    /// Standard deviation of the paired differences.
    sd: f64,
    /// Its one-sided 95 % upper bound, of a measured one.
    sd_at_most: Option<f64>,
    /// Seeds in all, on the test samples there are.
    seeds: Option<usize>,
    /// The same by the upper bound of the spread.
    seeds_at_most: Option<usize>,
    /// Test samples in all, with the stated seeds.
    samples: Option<usize>,
    /// Chance to pass with the stated seeds on the test samples there are.
    power: f64,
    #[serde(skip)]
    plan: Plan,
}

/// Where a spread comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Source {
    /// `--sd`.
    Given,
    /// Runs in the cache.
    Measured { seeds: usize },
    /// As large as the margin.
    Assumed,
}

#[derive(Serialize)]
struct Precision {
    policy: String,
    step_ms: f64,
    run_seconds: f64,
    bytes: usize,
}

/// The cost of so many seeds, of all precisions, of what is not there yet.
#[derive(Serialize)]
struct Bill {
    seeds: usize,
    runs: usize,
    #[serde(flatten)]
    amounts: Amounts,
}

/// Runs the command.
pub fn run(
    args: &Compare,
    recipe: Recipe,
    engine: &dyn Engine,
    request: EngineRequest,
) -> Result<ExitCode, Failure> {
    let sd = args.sd.as_deref().map(given).transpose()?;
    let place = if args.no_cache { None } else { halfstep::cache_folder() };
    let cache = place.map(|place| Cache::at(place, engine.identity())).transpose()?;
    let name = recipe.name.clone();
    let (power, most) = (recipe.compare.power, recipe.compare.max_divergence);
    let alpha = Looks::of(recipe.compare.looks).alpha();
    let mut arms = Vec::new();
    for (name, recipe) in recipes_of_arms(recipe) {
        let experiment = prepare::prepare(recipe)?;
        arms.push(planned(name, experiment, cache.as_ref(), engine, request, sd)?);
    }
    let clean_runs = most.and_then(|m| clean_runs_needed(m, alpha));
    if args.json {
        output::json(&serde_json::json!({
            "recipe": name,
            "power": power,
            "clean_runs_for_max_divergence": clean_runs,
            "arms": arms,
        }))?;
    } else {
        show(&arms, power, clean_runs);
    }
    Ok(ExitCode::SUCCESS)
}

/// `0.5pt` or `0.005`.
fn given(text: &str) -> Result<f64, Failure> {
    match parse_margin(Metric::Accuracy, text) {
        Ok(Some(Margin::Absolute(sd))) => Ok(sd),
        Ok(_) => {
            Err(Failure::asked(format!("--sd {text}: not a standard deviation"), "write 0.5pt or 0.005"))
        }
        Err(message) => Err(Failure::asked(format!("--sd {text}: {message}"), "write 0.5pt or 0.005")),
    }
}

fn planned(
    name: String,
    experiment: Experiment,
    cache: Option<&Cache>,
    engine: &dyn Engine,
    request: EngineRequest,
    sd: Option<f64>,
) -> Result<Planned, Failure> {
    let recipe = &experiment.recipe;
    let (policies, stated) = (recipe.precision.policies.clone(), recipe.compare.seeds);
    let rates = protocol::rates(recipe);
    let mut there: Vec<Obtained> = Vec::new();
    let looked_for: Vec<u64> = (0..stated.max(LOOKED_FOR)).map(|i| recipe.seed.wrapping_add(i)).collect();
    if let Some(cache) = cache {
        for policy in &policies {
            for &seed in &looked_for {
                let task = Task::of(cache, &experiment, policy, seed)?;
                there.extend(cached(cache, &task, Messages::Quiet));
            }
        }
    }
    let mut candidates = policies.clone();
    candidates.retain(|p| *p != recipe.compare.reference);
    let precisions = precisions(&experiment, &policies, engine, request, &there)?;
    let test_samples = measured_samples(&experiment).len();
    let arm = Arm { name, experiment, dir: None };
    let mut setup = setup(&arm, engine)?;
    setup.seeds = looked_for;
    let measured = assessments(&setup, &there, request.threads(), |_| Ok(setup.protocol.looks))?;
    let asked = Asked { protocol: &setup.protocol, seeds: stated as usize, samples: test_samples };
    let candidate = |policy: String| {
        let of = measured.iter().find(|(p, a)| *p == policy && a.seeds.len() > 1).map(|(_, a)| a);
        let row = |&(metric, margin): &_| row(metric, margin, of, sd, &asked);
        let metrics: Vec<Row> = setup.protocol.margins.iter().filter_map(row).collect();
        let passes_at_least = all_pass_at_least(metrics.iter().map(|r| r.power));
        Candidate { policy, metrics, passes_at_least }
    };
    let candidates: Vec<Candidate> = candidates.into_iter().map(candidate).collect();
    // One that no number of seeds settles on these samples leaves none to plan.
    let seeds: Option<Vec<usize>> = candidates.iter().flat_map(|c| &c.metrics).map(|r| r.seeds).collect();
    let needed = seeds.and_then(|seeds| seeds.into_iter().max());
    let bill = |seeds: usize| bill(seeds, &setup.seeds, &precisions, &there, request.threads(), &rates);
    Ok(Planned {
        arm: arm.name,
        seeds_stated: stated,
        test_samples,
        seeds_needed: needed,
        cached: there.len(),
        currency: rates.currency.clone(),
        stated: bill(stated as usize),
        needed: needed.map(bill),
        candidates,
        precisions,
    })
}

/// What is stated, and on how many test samples.
struct Asked<'a> {
    protocol: &'a Protocol,
    seeds: usize,
    samples: usize,
}

/// What a metric needs: by the given standard deviation of the difference between seeds, by the
/// scatter of seeds and samples measured in `found`, or by a standard deviation of the size of the
/// margin. None where the margin is relative and nothing was measured.
fn row(
    metric: Metric,
    margin: Margin,
    found: Option<&Assessment>,
    given_sd: Option<f64>,
    asked: &Asked<'_>,
) -> Option<Row> {
    let found = found.and_then(|a| a.rows.iter().find(|r| r.metric == metric));
    let size = found.and_then(|r| r.test).map(|t| t.margin_mean);
    let margin = size.or(match margin {
        Margin::Absolute(m) => Some(m),
        Margin::Relative(_) => None,
    })?;
    let (source, sd) = match (given_sd.filter(|_| metric == Metric::Accuracy), found) {
        (Some(sd), _) => (Source::Given, sd),
        (None, Some(r)) => (Source::Measured { seeds: r.paired.pairs }, r.paired.sd?),
        (None, None) if metric == Metric::GroupAccuracy => return None,
        (None, None) => (Source::Assumed, margin),
    };
    let measured = found.and_then(|r| r.plan).filter(|_| matches!(source, Source::Measured { .. }));
    let plan = measured.unwrap_or(Plan {
        answers: metric.moves_by_answers().then_some(1.0),
        claim: asked.protocol.claim,
        looks: asked.protocol.looks,
        ..Plan::of(Spread::of_seeds(sd), margin)
    });
    let pilot = match source {
        Source::Measured { seeds } => Some(seeds),
        Source::Given | Source::Assumed => None,
    };
    let careful = pilot.and_then(|n| plan.at_most(n));
    let (samples, power) = (asked.samples as f64, asked.protocol.power);
    Some(Row {
        metric,
        margin,
        source,
        sd,
        sd_at_most: pilot.and_then(|n| sd_at_most(sd, n)),
        seeds: plan.seeds_needed(samples, power),
        seeds_at_most: careful.and_then(|plan| plan.seeds_needed(samples, power)),
        samples: plan.examples_needed(asked.seeds, power),
        power: plan.power(asked.seeds, samples),
        plan,
    })
}

/// What so many seeds cost, less the runs that are there.
fn bill(
    seeds: usize,
    order: &[u64],
    precisions: &[Precision],
    there: &[Obtained],
    threads: NonZeroUsize,
    rates: &Rates,
) -> Bill {
    let (mut runs, mut wall) = (0, 0.0);
    for p in precisions {
        let is_there = |o: &&Obtained| {
            o.result.record.policy == p.policy && order.iter().take(seeds).any(|s| *s == o.result.record.seed)
        };
        let missing = seeds - there.iter().filter(is_there).count().min(seeds);
        runs += missing;
        wall += missing as f64 * p.run_seconds;
    }
    let spent = Spent { wall_seconds: wall, core_seconds: wall * threads.get() as f64, joules: None };
    Bill { seeds, runs, amounts: spent.amounts(rates) }
}

/// Time and memory of a run in each precision: of runs made before, or from the time of a few
/// steps.
fn precisions(
    experiment: &Experiment,
    policies: &[String],
    engine: &dyn Engine,
    request: EngineRequest,
    there: &[Obtained],
) -> Result<Vec<Precision>, Failure> {
    let spinner = progress::spinner("timing a few steps");
    let mut all = Vec::new();
    for policy in policies {
        let alike = |r: &&RunResult| {
            r.record.policy == *policy && r.way.threads == request.threads().get() && r.way.beside == 0
        };
        let mut before = there.iter().map(|o| &o.result).filter(alike);
        let measured = before.find_map(|r| Some((r.record.median_ms()?, r.record.wall_seconds)));
        let (step_ms, run_seconds) = match measured {
            Some(measured) => measured,
            None => {
                let seconds = 1.0 / steps_per_second(experiment, policy, NonZeroUsize::MIN, request)?;
                // A forward pass is a third of a step's work.
                let batches = experiment.data.test.len() as f64 / experiment.recipe.train.batch as f64;
                let evaluations = (experiment.steps as f64 / experiment.evaluate_every() as f64).ceil() + 1.0;
                (seconds * 1e3, seconds * (experiment.steps as f64 + batches * evaluations / 3.0))
            }
        };
        let bytes = memory::total(experiment, engine, policy)?;
        all.push(Precision { policy: policy.clone(), step_ms, run_seconds, bytes });
    }
    spinner.finish_and_clear();
    Ok(all)
}

fn show(arms: &[Planned], power: f64, clean_runs: Option<u64>) {
    for arm in arms {
        let heading = CommandStatement::WhatAPassTakes { arm: arm.arm.clone(), power };
        output::line(&output::bold(&heading.to_string()));
        let mut rows = Vec::new();
        for c in &arm.candidates {
            for r in &c.metrics {
                let (m, show) = (r.metric, |x: f64| r.metric.show_amount(x));
                let from = match r.source {
                    Source::Given => "--sd".to_string(),
                    Source::Measured { seeds } => format!("{seeds} seeds made before"),
                    Source::Assumed => "assumed as large as the margin".into(),
                };
                let spread =
                    r.sd_at_most.map_or(show(r.sd), |b| format!("{} (at most {})", show(r.sd), show(b)));
                let count = |n: Option<usize>| n.map_or("more than 10,000".into(), |n| n.to_string());
                let seeds = match r.seeds_at_most {
                    Some(b) if Some(b) != r.seeds => format!("{} (at most {b})", count(r.seeds)),
                    _ => count(r.seeds),
                };
                let many = || "no number".to_string();
                let samples = r.samples.map_or_else(many, |n| units::count(n as u64));
                let chance = format!("{:.0} %", r.power * 100.0);
                let label = format!("{} {}", c.policy, m.name());
                rows.push(vec![label, show(r.margin), spread, from, seeds, samples, chance]);
            }
        }
        let heading = " | margin | spread (SD) | from | seeds | or samples | as stated";
        output::raw(&output::columns(&output::headed(heading, rows)));
        if arm.candidates.iter().flat_map(|c| &c.metrics).any(|r| r.source == Source::Assumed) {
            let plans = arm.candidates.iter().flat_map(|c| &c.metrics).map(|r| r.plan);
            let seeds = |ratio: &f64| {
                let looks = plans.clone().next()?.looks;
                let of_ratio = Plan { looks, ..Plan::of(Spread::of_seeds(*ratio), 1.0) };
                Some((of_ratio.seeds_needed(1.0, power)?, *ratio))
            };
            let seeds = RATIOS.iter().filter_map(seeds).collect();
            output::line(&CommandStatement::SpreadUnknown { seeds }.to_string());
        }
        for c in &arm.candidates {
            let as_stated = CommandStatement::PassesAsStated {
                policy: c.policy.clone(),
                seeds: arm.seeds_stated,
                samples: arm.test_samples as u64,
                at_least: c.passes_at_least,
            };
            output::line(&as_stated.to_string());
        }
        let row = |p: &Precision| {
            let (step, run) = (units::milliseconds(p.step_ms), units::seconds(p.run_seconds));
            vec![p.policy.clone(), step, run, units::bytes(p.bytes)]
        };
        let rows = output::headed(" | step | a run | memory", arm.precisions.iter().map(row));
        output::raw(&format!("\n{}", output::columns(&rows)));
        output::line(&format!("\n{} runs are in the cache and cost nothing more.", arm.cached));
        let bill = |what: &str, b: &Bill| {
            let cost = cost_words(&b.amounts, &arm.currency);
            output::line(&format!("{what} ({} seeds): {} runs, {cost}.", b.seeds, b.runs));
        };
        bill("As the recipe states", &arm.stated);
        if let Some(needed) = &arm.needed {
            bill("As the margins need", needed);
        }
        output::line("");
    }
    if let Some(runs) = clean_runs {
        output::line(&CommandStatement::CleanRunsNeeded { runs }.to_string());
    }
}
