//! `halfstep explain`: what a recipe becomes.

mod commands;

use std::collections::BTreeMap;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep::graph::Graph;
use halfstep::graph::engine::Engine;
use halfstep::nn::Context;
use halfstep::train::memory::step_stages;
use halfstep::train::recipe::Experiment;
use halfstep::train::stages::Stages;

use super::args::{Explain, Stage};
use super::failure::Failure;
use super::{output, prepare};

/// Runs the command.
pub fn run(args: Explain, request: EngineRequest) -> Result<ExitCode, Failure> {
    let recipe = prepare::recipe(args.recipe.as_deref())?;
    prepare::known_precisions(&args.precision)?;
    if args.json && args.stage != Some(Stage::Device) {
        return Err(Failure::asked("--json goes with --stage device", "leave it out"));
    }
    let engine = halfstep::planning_engine(request, args.ranks)?;
    let experiment = prepare::prepare(recipe)?;
    if args.stage == Some(Stage::Graph) {
        output::raw(&forward(&experiment)?.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let policies = match (args.precision, args.stage) {
        (Some(name), _) => vec![name],
        (None, Some(_)) => vec![experiment.recipe.precision.policy.clone()],
        (None, None) => experiment.recipe.precision.policies.clone(),
    };
    let Some(stage) = args.stage else {
        return summary(&experiment, engine.as_ref(), &policies);
    };
    let stages = all_stages(&experiment, engine.as_ref(), &policies[0])?;
    output::raw(&match stage {
        Stage::Graph | Stage::Diff => stages.graph.to_string(),
        Stage::Precision => stages.precision.to_string(),
        Stage::Fused => stages.plan.groups.describe(&stages.plan.graph),
        Stage::Plan => stages.plan.to_string(),
        Stage::Device => {
            commands::show(&stages.plan, &policies[0], request, args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
    });
    Ok(ExitCode::SUCCESS)
}

/// The model alone.
fn forward(experiment: &Experiment) -> Result<Graph, Failure> {
    let mut g = Graph::new();
    let x = g.input("x", experiment.input.value_type(experiment.recipe.train.batch));
    let logits = experiment.model.forward(&mut g, x, &Context::train());
    let logits = logits.map_err(|e| Failure::failed(format!("the model cannot be built: {e}")))?;
    g.add_output("logits", logits);
    Ok(g)
}

fn all_stages(experiment: &Experiment, engine: &dyn Engine, policy: &str) -> Result<Stages, Failure> {
    let (policy, spec) = experiment.session_spec(policy, experiment.recipe.seed)?;
    let (model, input) = (experiment.model.as_ref(), &experiment.input);
    // Of a batch in parts, one part: the end of the step is the update alone.
    Ok(step_stages(model, input, &policy, &spec, engine.target())?.train)
}

fn summary(experiment: &Experiment, engine: &dyn Engine, policies: &[String]) -> Result<ExitCode, Failure> {
    let recipe = &experiment.recipe;
    let mut about = prepare::about(experiment)?;
    about.extend([
        ("run", format!("{} steps of {} samples", units::count(experiment.steps), recipe.train.batch)),
        ("planned for", engine.name()),
    ]);
    output::raw(&output::fields(&about));
    for policy in policies {
        let stages = all_stages(experiment, engine, policy)?;
        let plan = &stages.precision;
        output::line(&format!("\n{}", output::bold(policy)));
        output::raw(&output::fields(&[
            ("  step's scratch", units::bytes(stages.plan.arena_bytes)),
            ("  weights and optimiser", units::bytes(stages.plan.state_bytes().total())),
            (
                "  operations",
                format!("{} in {} steps", stages.assigned.nodes.len(), stages.plan.groups.steps.len()),
            ),
            ("  casts", plan.casts().count().to_string()),
        ]));
        // Values by how they are stored and why, most bytes first.
        let mut groups: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
        for e in &plan.entries {
            let group = groups.entry((e.storage.to_string(), e.reason.to_string())).or_default();
            group.0 += 1;
            group.1 += e.shape.count() * e.storage.bytes();
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
        for ((storage, reason), (count, bytes)) in groups {
            output::line(&format!("  {count:>5} values {:>8} in {storage:<5} {reason}", units::bytes(bytes)));
        }
    }
    output::line("\nWith --stage: graph, diff, precision, fused, plan or device print the program itself.");
    Ok(ExitCode::SUCCESS)
}
