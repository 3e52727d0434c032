//! `halfstep tune`: which parts of a model to lower, found by measuring.

use std::path::Path;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::statements::{CommandStatement, TriedPlan, change, ratio};
use halfstep::evidence::units as format;
use halfstep::train::recipe::{PlanFile, VALIDATION_FRACTION};
use halfstep::train::run_dir::write_whole;
use halfstep::train::train_loop::Proceed;
use halfstep::train::tune::{Doing, Objective, Tried, TuneError, TuneSpec, Tuned, UnitReport, tune};
use serde::Serialize;

use super::args::{Save, Tune};
use super::failure::{FAILED, Failure, INTERRUPTED};
use super::progress::bar;
use super::{interrupt, output, prepare};

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    tuned: &'a Tuned,
    /// The file with the best plan, if there is one.
    plan_file: Option<&'a Path>,
}

/// Runs the command.
pub fn run(args: Tune, request: EngineRequest) -> Result<ExitCode, Failure> {
    output::may_write(&args.output, args.force)?;
    let mut recipe = prepare::recipe(args.recipe.as_deref())?;
    // A plan is chosen: by data that judge nothing afterwards.
    recipe.train.validation_fraction.get_or_insert(VALIDATION_FRACTION);
    prepare::known_precisions(&args.precision)?;
    let policy = args.precision.unwrap_or_else(|| recipe.precision.policy.clone());
    let engine = halfstep::engine(request)?;
    let experiment = prepare::prepare(recipe)?;
    prepare::check_supported(&experiment, engine.as_ref(), &["fp32".into(), policy.clone()])?;
    let spec = TuneSpec {
        policy,
        objective: match args.objective {
            Save::Time => Objective::Time,
            Save::Memory => Objective::Memory,
        },
        max_loss_increase: args.max_loss_increase,
        max_slowdown: args.max_slowdown,
        steps: args.steps.get() as u64,
        batches: args.batches.get(),
        seeds: args.seeds.get() as u64,
    };
    experiment.recipe.schedule.validate(spec.steps).map_err(|e| {
        Failure::asked(format!("the schedule does not fit --steps {}: {e}", spec.steps), "give more steps")
    })?;
    interrupt::listen("Stopping after this step; no plan will be written.");
    if !args.json {
        for (name, value) in prepare::about(&experiment)? {
            output::line(&format!("{name:<8} {value}"));
        }
    }
    let bar = bar("tuning", 1);
    let mut on_progress = |doing: Doing| {
        let (text, done, of) = match doing {
            Doing::WarmingUp { step, steps } => ("training in fp32".to_string(), step, steps),
            Doing::Measuring { unit, units } => ("lowering one by one".into(), unit as u64, units as u64),
            Doing::Trying { step, steps, plans } => (format!("trying {plans} plans"), step, steps),
        };
        bar.set_length(of);
        bar.set_position(done);
        bar.set_message(text);
        if interrupt::asked() { Proceed::Stop } else { Proceed::Continue }
    };
    let result = tune(&experiment, engine.as_ref(), spec, &mut on_progress);
    bar.finish_and_clear();
    let tuned = match result {
        Ok(tuned) => tuned,
        Err(TuneError::Stopped) => return Ok(ExitCode::from(INTERRUPTED)),
        Err(TuneError::Train(e)) => return Err(e.into()),
        Err(e) => return Err(Failure::asked(e.to_string(), "")),
    };
    let best = tuned.best.map(|i| &tuned.tried[i]);
    if let Some(best) = best {
        let plan = PlanFile::of(&best.policy).to_toml(&comment(&experiment.recipe.name, &tuned, best))?;
        write_whole(&args.output, plan.as_bytes())?;
    }
    if args.json {
        output::json(&Printed { tuned: &tuned, plan_file: best.map(|_| args.output.as_path()) })?;
    } else {
        show(&tuned);
        output::line(&conclusion(&tuned, best).to_string());
        if best.is_some() {
            let recipe = args.recipe.as_deref().map_or("RECIPE".into(), output::quoted);
            output::line(&format!("Next: halfstep train {recipe} --plan {}", output::quoted(&args.output)));
        }
    }
    Ok(if best.is_some() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The lines above the plan: where it comes from, and what was measured of it.
fn comment(recipe: &str, tuned: &Tuned, best: &Tried) -> String {
    let (plan, steps, seeds) = (measured(tuned, best), tuned.spec.steps, tuned.spec.seeds);
    format!(
        "A precision plan for {recipe}, found by halfstep {} on {}.\n{}",
        env!("CARGO_PKG_VERSION"),
        tuned.engine,
        CommandStatement::PlanMeasured { plan, steps, seeds }
    )
}

fn measured(tuned: &Tuned, best: &Tried) -> TriedPlan {
    let o = &best.outcome;
    TriedPlan {
        name: best.name.clone(),
        time: o.time,
        bytes: o.bytes,
        fp32_bytes: tuned.tried[0].outcome.bytes,
        loss_increase: o.loss_increase,
        worst_increase: o.worst_increase,
    }
}

fn show(tuned: &Tuned) {
    let heading =
        "part | saves | loss change | 1 − cosine | update change | update/weight | in the search's plan";
    let units = tuned.units.iter().map(|unit| unit_row(unit, tuned.spec.objective));
    let rows = output::headed(heading, units);
    output::raw(&format!("\n{}\n{}", output::bold("Lowered one by one"), output::columns(&rows)));
    let row = |(i, tried): (usize, &Tried)| {
        let o = &tried.outcome;
        let note = match (tuned.best == Some(i), tried.within) {
            (true, _) => "best",
            (_, true) => "",
            (_, false) => "beyond a limit",
        };
        vec![
            tried.name.clone(),
            format::milliseconds(o.step_ms),
            ratio(o.time),
            ratio(o.time_at_most),
            format::bytes(o.bytes),
            change(o.loss_increase),
            change(o.worst_increase),
            note.into(),
        ]
    };
    let heading = "plan | step | of fp32's time | at most | memory | validation loss | worst seed | ";
    let rows = output::headed(heading, tuned.tried.iter().enumerate().map(row));
    output::raw(&format!("\n{}\n{}\n", output::bold("Tried side by side"), output::columns(&rows)));
}

fn unit_row(unit: &UnitReport, objective: Objective) -> Vec<String> {
    let saves = match objective {
        Objective::Time => format!("{:+.3} ms", unit.gain * 1e3),
        Objective::Memory if unit.gain < 0.0 => format!("−{}", format::bytes(-unit.gain as usize)),
        Objective::Memory => format::bytes(unit.gain as usize),
    };
    let mut row = vec![unit.name.clone(), saves];
    match unit.sensitivity {
        Some(s) => row.extend([
            format!("{:.1e}", s.loss),
            format!("{:.1e}", 1.0 - s.cosine),
            format!("{:.1e}", s.update),
            s.update_to_weight.map_or("–".into(), |r| format!("{r:.1e}")),
        ]),
        None => row.extend(["never finite", "–", "–", "–"].map(String::from)),
    }
    row.push(if unit.lowered { "low" } else { "f32" }.into());
    row
}

fn conclusion(tuned: &Tuned, best: Option<&Tried>) -> CommandStatement {
    let spec = &tuned.spec;
    match best {
        Some(best) => CommandStatement::BestPlan { plan: measured(tuned, best) },
        None => CommandStatement::NoPlan {
            saves: match spec.objective {
                Objective::Time => "time",
                Objective::Memory => "memory",
            },
            loss: spec.max_loss_increase,
            time: spec.max_slowdown,
        },
    }
}
