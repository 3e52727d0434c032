//! `halfstep plan`: how much memory a recipe needs in each precision, and what would fit a number
//! of bytes, before any step.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::graph::engine_info::Arithmetic;
use halfstep::graph::{ByteSize, MemoryReport, Purpose, Resident};
use halfstep::nn::ModelSpec;
use halfstep::train::memory::{Family, Recompute, StepStages, largest_batch, largest_model, step_stages};
use halfstep::train::recipe::Experiment;
use halfstep::train::session::TrainError;
use halfstep::train::step::snapshot_bytes;
use serde::Serialize;
use serde_json::json;

use super::args::{Largest, Plan};
use super::failure::{ASKED, Failure};
use super::{memory, output, prepare, progress};

/// Lines of what is in the arena when it is fullest.
const RESIDENTS: usize = 8;

/// The plan of one precision.
#[derive(Default, Serialize)]
struct Planned {
    precision: String,
    /// How its contractions are multiplied, and the same in words.
    arithmetic: Option<Arithmetic>,
    runs_on: String,
    /// Of the training step: footprint, bytes by purpose, what is in the arena when it is fullest.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<MemoryReport>,
    total_bytes: Option<usize>,
    /// What the update adds to it after the last part of a batch in parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    update_bytes: Option<usize>,
    /// What the evaluation of a batch adds to it.
    evaluation_bytes: Option<usize>,
    /// What the copy adds that checkpoints of `train` are written from.
    checkpoint_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recomputation: Option<Recomputed>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Recomputed {
    bytes_without: usize,
    values: usize,
    nodes: usize,
    extra_work: f64,
}

/// What fits a budget.
#[derive(Serialize)]
struct Found {
    budget: usize,
    recompute: bool,
    rows: Vec<FoundRow>,
}

#[derive(Serialize)]
struct FoundRow {
    what: &'static str,
    /// By precision; none where nothing fits, or the model has no such family.
    values: Vec<(String, Option<Member>)>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Member {
    Batch(usize),
    Model(ModelSpec),
}

/// Runs the command.
pub fn run(args: Plan, request: EngineRequest) -> Result<ExitCode, Failure> {
    let mut recipe = prepare::recipe(args.recipe.as_deref())?;
    prepare::known_precisions(args.precision.iter().flatten())?;
    recipe.train.memory_budget = args.memory_budget.or(recipe.train.memory_budget);
    let engine = halfstep::planning_engine(request, NonZeroUsize::MIN)?;
    let experiment = progress::during("loading data", || recipe.prepare())?;
    let policies = args.precision.unwrap_or_else(|| experiment.recipe.precision.policies.clone());

    let spinner = progress::spinner("planning");
    let mut plans = Vec::new();
    for policy in &policies {
        plans.push(planned(&experiment, engine.as_ref(), policy)?);
    }
    let largest = match (args.max, args.budget) {
        (Some(what), Some(budget)) => {
            let recompute = if args.recompute { Recompute::Allowed } else { Recompute::Not };
            Some(search(&experiment, engine.as_ref(), &policies, what, recompute, budget)?)
        }
        _ => None,
    };
    spinner.finish_and_clear();

    let fits = plans.iter().any(|p| p.step.is_some());
    if args.json {
        let mut printed = json!({
            "recipe": experiment.recipe.name,
            "engine": engine.name(),
            "batch": experiment.recipe.train.batch,
            "memory_budget": experiment.recipe.train.memory_budget.map(|b| b.0),
            "plans": plans,
        });
        if let Some(largest) = largest {
            printed["largest"] = json!(largest);
        }
        output::json(&printed)?;
    } else {
        show(&plans, largest.as_ref(), engine.as_ref(), &experiment)?;
    }
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(ASKED) })
}

fn planned(experiment: &Experiment, engine: &dyn Engine, policy: &str) -> Result<Planned, Failure> {
    let (policy, spec) = experiment.session_spec(policy, experiment.recipe.seed)?;
    let (model, input, target) = (experiment.model.as_ref(), &experiment.input, engine.target());
    let (precision, how) = (policy.name.clone(), engine.describe(&policy));
    let described =
        Planned { precision, arithmetic: Some(how.arithmetic), runs_on: how.text, ..Planned::default() };
    let step = match step_stages(model, input, &policy, &spec, target) {
        Ok(step) => step,
        Err(problem @ TrainError::Budget { .. }) => {
            return Ok(Planned { problem: Some(problem.to_string()), ..described });
        }
        Err(e) => return Err(e.into()),
    };
    let StepStages { train: step, apply } = step;
    let total = step.plan.footprint;
    let held = apply.map(|update| total.together(update.plan.footprint));
    let batch = experiment.evaluation_batch();
    let added = memory::evaluation_bytes(experiment, batch, &policy, held.unwrap_or(total), target)?;
    let recomputation = step.recomputation.as_ref().map(|r| Recomputed {
        bytes_without: r.without.total(),
        values: r.dropped.len(),
        nodes: r.nodes,
        extra_work: r.extra_work,
    });
    let report = step.plan.memory();
    let checkpoint = snapshot_bytes(&step.plan.graph.slots);
    Ok(Planned {
        total_bytes: Some(report.footprint.total()),
        update_bytes: held.map(|held| held.total() - total.total()),
        evaluation_bytes: Some(added),
        checkpoint_bytes: Some(checkpoint),
        recomputation,
        step: Some(report),
        ..described
    })
}

fn search(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    what: Largest,
    recompute: Recompute,
    budget: ByteSize,
) -> Result<Found, Failure> {
    let (input, outputs) = (&experiment.input, experiment.info.outputs);
    let spec = &experiment.recipe.model;
    let families: &[(&'static str, Option<Family>)] = match what {
        Largest::Batch => &[("largest batch", None)],
        Largest::Model => &[
            ("widest", Some(Family::Wider)),
            ("deepest", Some(Family::Deeper)),
            ("both", Some(Family::Both)),
        ],
    };
    let mut rows = Vec::new();
    for &(what, family) in families {
        let mut values = Vec::new();
        for name in policies {
            let (policy, session) = experiment.session_spec(name, experiment.recipe.seed)?;
            let limit = (recompute, budget);
            let target = engine.target();
            let found = match family {
                None => {
                    let model = experiment.model.as_ref();
                    largest_batch(model, input, &policy, &session, limit, target)?.map(Member::Batch)
                }
                Some(family) if family.unit(spec).is_some() => {
                    let data = (input, outputs);
                    largest_model(spec, family, data, &policy, &session, limit, target)?.map(Member::Model)
                }
                Some(_) => None,
            };
            values.push((name.clone(), found));
        }
        rows.push(FoundRow { what, values });
    }
    Ok(Found { budget: budget.0, recompute: recompute == Recompute::Allowed, rows })
}

fn show(
    plans: &[Planned],
    largest: Option<&Found>,
    engine: &dyn Engine,
    experiment: &Experiment,
) -> Result<(), Failure> {
    let train = &experiment.recipe.train;
    let mut about: Vec<(&str, String)> = prepare::about(experiment)?;
    about.extend([("batch", train.batch.to_string()), ("planned for", engine.name())]);
    if let Some(budget) = train.memory_budget {
        about.push(("memory budget", units::bytes(budget.0)));
    }
    about.extend(plans.iter().map(|plan| (plan.precision.as_str(), plan.runs_on.clone())));
    output::raw(&output::fields(&about));
    let fitting: Vec<&Planned> = plans.iter().filter(|p| p.step.is_some()).collect();
    if !fitting.is_empty() {
        output::line(&format!("\n{}", output::bold("Bytes of a training step when its arena is fullest")));
        output::raw(&table(&fitting));
    }
    for plan in plans {
        if let Some(problem) = &plan.problem {
            output::line(&format!("\n{}", output::bold(&plan.precision)));
            output::raw(&output::bullets(std::slice::from_ref(problem)));
        }
        let Some(step) = &plan.step else { continue };
        output::line(&format!(
            "\n{}: the arena is fullest at {}",
            output::bold(&plan.precision),
            step.peak_at
        ));
        output::raw(&residents(&step.residents));
        if let Some(r) = &plan.recomputation {
            output::line(&format!(
                "  {} values are computed again, for {:.1} % more work; without, the step needs {}",
                r.values,
                r.extra_work * 100.0,
                units::bytes(r.bytes_without)
            ));
        }
    }
    if let Some(found) = largest {
        show_found(found, experiment);
    }
    Ok(())
}

/// Rows of a label and one cell for each precision, the cells to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    output::layout(rows, |c| c > 0).iter().map(|line| format!("  {line}\n")).collect()
}

/// A label and its cells.
fn row(label: impl Into<String>, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(label.into()).chain(cells).collect()
}

fn table(plans: &[&Planned]) -> String {
    let steps = || plans.iter().filter_map(|p| p.step.as_ref());
    let cells = |of: &dyn Fn(&MemoryReport) -> usize| -> Vec<String> {
        let cell = |n: usize| if n == 0 { "–".to_string() } else { units::bytes(n) };
        steps().map(|s| cell(of(s))).collect()
    };
    let mut rows = vec![row("", plans.iter().map(|p| p.precision.clone()))];
    for purpose in Purpose::ALL {
        if steps().any(|s| s.bytes(purpose) > 0) {
            rows.push(row(purpose.to_string(), cells(&|s| s.bytes(purpose))));
        }
    }
    rows.push(row("total", cells(&|s| s.footprint.total())));
    rows.push(row("of these, the arena", cells(&|s| s.footprint.arena)));
    if plans.iter().any(|p| p.update_bytes.is_some()) {
        let update = plans.iter().map(|p| units::bytes(p.update_bytes.unwrap_or(0)));
        rows.push(row("the update after the last part adds", update));
    }
    let evaluation = plans.iter().map(|p| units::bytes(p.evaluation_bytes.unwrap_or(0)));
    rows.push(row("an evaluation adds", evaluation));
    let checkpoint = plans.iter().map(|p| units::bytes(p.checkpoint_bytes.unwrap_or(0)));
    rows.push(row("a checkpoint adds", checkpoint));
    aligned(&rows)
}

/// The largest things in the arena, alike ones of different layers together.
fn residents(all: &[Resident]) -> String {
    let mut groups: BTreeMap<(String, String, Purpose), (usize, usize, &str)> = BTreeMap::new();
    for r in all {
        let ty = r.ty.as_ref().map_or_else(|| "workspace".to_string(), ToString::to_string);
        let group = groups.entry((r.op.clone(), ty, r.purpose)).or_insert((0, 0, &r.name));
        group.0 += r.bytes;
        group.1 += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (bytes, ..))| std::cmp::Reverse(*bytes));
    let rest: usize = groups.iter().skip(RESIDENTS).map(|(_, (bytes, ..))| bytes).sum();
    let mut out = String::new();
    for ((op, ty, purpose), (bytes, count, name)) in groups.into_iter().take(RESIDENTS) {
        let times = if count > 1 { format!("{count} × ") } else { String::new() };
        let like = if count > 1 { "such as " } else { "" };
        out += &format!("  {:>8}  {purpose:<24}  {times}{ty} of {op}, {like}{name}\n", units::bytes(bytes));
    }
    if rest > 0 {
        out += &format!("  {:>8}  the rest\n", units::bytes(rest));
    }
    out
}

fn show_found(found: &Found, experiment: &Experiment) {
    let how = if found.recompute { ", computing activations again where that helps" } else { "" };
    output::line(&format!(
        "\n{}{how}",
        output::bold(&format!("What a budget of {} holds", units::bytes(found.budget)))
    ));
    let mut rows = Vec::new();
    if let Some(first) = found.rows.first() {
        rows.push(row("", first.values.iter().map(|(name, _)| name.clone())));
    }
    let mut notes = Vec::new();
    for found in &found.rows {
        let cell = |value: &Option<Member>| match value {
            None => "–".to_string(),
            Some(Member::Batch(n)) => n.to_string(),
            Some(Member::Model(spec)) => prepare::describe_spec(spec),
        };
        rows.push(row(found.what, found.values.iter().map(|(_, v)| cell(v))));
        let most = found.values.iter().filter_map(|(_, v)| match v {
            Some(Member::Batch(n)) => Some(*n),
            _ => None,
        });
        if most.max().is_some_and(|n| n > experiment.info.train_samples) {
            notes.push(format!(
                "the data have only {} samples",
                units::count(experiment.info.train_samples as u64)
            ));
        }
    }
    output::raw(&aligned(&rows));
    if found.rows.len() > 1 {
        notes
            .push("widest: with the recipe's depth; deepest: with its width; both: in its proportion".into());
    }
    notes.iter().for_each(|note| output::line(&format!("  {note}")));
}
