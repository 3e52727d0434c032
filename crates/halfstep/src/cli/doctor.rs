//! `halfstep doctor`: why a run fails or does not learn, and what helps.

use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::statements::CommandStatement;
use halfstep::train::checkpoint::Latest;
use halfstep::train::doctor::{Diagnosis, Sample, ValueRange};
use halfstep::train::examination::{Examination, Examined, Learns};
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::{self, RunDir};

use super::args::Doctor;
use super::failure::{FAILED, Failure, INTERRUPTED};
use super::import::IMPORTED;
use super::numerics::DIAGNOSES;
use super::{interrupt, numerics, output, prepare, progress};

/// Rows of the table unless all are asked for.
const ROWS: usize = 12;

/// Runs the command.
pub fn run(args: Doctor, request: EngineRequest) -> Result<ExitCode, Failure> {
    let is_run = args.target.is_dir();
    let (mut recipe, latest, start) = match is_run {
        true => {
            let dir = RunDir::open(&args.target)?;
            if !args.again && stored(&dir, args.json)? {
                return Ok(ExitCode::from(FAILED));
            }
            let (latest, _) = Latest::find(&dir);
            // What `train --from` began with, or `import` has made.
            let starts = [run_dir::START, IMPORTED].map(|name| dir.checkpoint(name));
            let start = starts.into_iter().find(|path| path.is_file());
            (Recipe::read(&dir.file(run_dir::RECIPE))?, latest, start)
        }
        false => (prepare::recipe(Some(&args.target))?, None, None),
    };
    if let Some(name) = args.precision {
        prepare::known_precision(&name)?;
        recipe.precision.policy = name;
    }
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    let (policy, seed) = (recipe.precision.policy.clone(), recipe.seed);
    let engine = halfstep::engine(request)?;
    let experiment = prepare::prepare(recipe)?;
    // A checkpoint of another precision or seed is of another run; behind that of the last step
    // there is nothing to see.
    let latest = latest.filter(|l| l.state.policy == policy && l.state.seed == seed);
    let latest = latest.filter(|l| l.state.progress.attempts < experiment.steps);
    interrupt::listen("Stopping after this step, which will be examined.");
    let bar = progress::bar(&policy, args.steps.min(experiment.steps));
    let mut told = |what: &str, step: u64| {
        if step == 0 {
            bar.set_message(what.to_string());
        }
        bar.set_position(step);
        !interrupt::asked()
    };
    let examined = Examined {
        engine: engine.as_ref(),
        policy: &policy,
        seed,
        from: latest.as_ref(),
        start: start.as_deref(),
        steps: args.steps,
        thorough: args.thorough,
    };
    let found = experiment.examine(&examined, &mut told)?;
    bar.finish_and_clear();
    if args.json {
        output::json(&found)?;
    } else {
        output::line(&headline(&found).to_string());
        output::raw(&found.diagnosis.to_string());
        found.warnings.iter().for_each(|warning| output::line(&format!("warning: {warning}")));
        output::raw(&format!("\n{}", table(&found.sample, args.all)));
    }
    if let Some(out) = &args.out {
        let dir = RunDir::create_at(out)?;
        dir.write_json(DIAGNOSES, &[&found.diagnosis])?;
        numerics::write(&dir, &experiment.recipe.name, std::slice::from_ref(&found.sample))?;
    }
    if interrupt::asked() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(if found.is_bad() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// What was found, in a line.
fn headline(found: &Examination) -> CommandStatement {
    let step = found.steps;
    match (found.is_bad(), found.learning.learns) {
        (true, _) if found.failed => CommandStatement::RunFails { step },
        (true, _) => CommandStatement::SomethingWrong { step },
        (false, Learns::Yes) => CommandStatement::NothingWrong { step },
        (false, _) => CommandStatement::TooEarlyToSay { step },
    }
}

/// Prints what was found when the run failed, if it did.
fn stored(dir: &RunDir, json: bool) -> Result<bool, Failure> {
    if !dir.file(DIAGNOSES).is_file() {
        return Ok(false);
    }
    let diagnoses: Vec<Diagnosis> = dir.read_json(DIAGNOSES)?;
    if json {
        output::json(&diagnoses)?;
    } else {
        for diagnosis in &diagnoses {
            output::line(&diagnosis.to_string());
        }
        output::line(
            "This was found when the run failed; --again repeats the step from the last checkpoint.",
        );
    }
    Ok(!diagnoses.is_empty())
}

/// The values nearest to the ends of their formats, or all in execution order.
fn table(sample: &Sample, all: bool) -> String {
    let mut values: Vec<&ValueRange> = sample.values.iter().collect();
    let headroom = |v: &ValueRange| v.headroom().unwrap_or(f64::INFINITY);
    if !all {
        values.sort_by(|a, b| headroom(a).total_cmp(&headroom(b)));
        values.truncate(ROWS);
    }
    let row = |value: &&ValueRange| {
        let share = |format: &str, over: bool| {
            let shares = value.formats.get(format);
            match shares.map_or(0.0, |s| if over { s.overflow } else { s.underflow }) {
                0.0 => "0".to_string(),
                s if s < 1e-4 => "<0.01 %".to_string(),
                s => format!("{:.2} %", s * 100.0),
            }
        };
        let bits = match value.headroom() {
            Some(bits) if bits.is_infinite() => "none".into(),
            Some(bits) => format!("{bits:.1}"),
            None => "–".into(),
        };
        vec![
            if value.name.is_empty() { "–".into() } else { value.name.clone() },
            value.op.clone(),
            format!("{:?}", value.phase).to_lowercase(),
            value.format.to_string(),
            format!("{:.2e}", value.amax),
            bits,
            share("f16", false),
            share("f16", true),
            share("bf16", false),
            share("e4m3", false),
            share("e4m3", true),
            share("e5m2", false),
            share("e5m2", true),
        ]
    };
    let heading = "value | op | pass | stored | largest | bits left | f16 < | f16 > | bf16 < | e4m3 < | e4m3 > | \
                   e5m2 < | e5m2 >";
    let rest = sample.values.len() - values.len();
    let below = match rest {
        0 => String::new(),
        n => format!("and {n} more with --all. "),
    };
    format!(
        "{}{below}As f32 has them. <: becomes zero, >: overflows or saturates in that format, as shares of the elements that\n\
         are not zero.\n",
        output::columns(&output::headed(heading, values.iter().map(row)))
    )
}
