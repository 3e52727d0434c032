//! `halfstep lint`, and the warnings that `train` and `compare` begin with.

use std::process::ExitCode;

use halfstep::train::lint::Warning;
use halfstep::train::recipe::Experiment;

use super::args::Lint;
use super::failure::{FAILED, Failure};
use super::{output, prepare};

/// Runs the command.
pub fn run(args: Lint) -> Result<ExitCode, Failure> {
    let recipe = prepare::own_recipe(args.recipe.as_deref(), "lint")?;
    prepare::known_precisions(&args.precision)?;
    let experiment = prepare::prepare(recipe)?;
    let policies = match args.precision {
        Some(name) => vec![name],
        None => {
            let precision = &experiment.recipe.precision;
            let own = (!precision.policies.contains(&precision.policy)).then_some(&precision.policy);
            precision.policies.iter().chain(own).cloned().collect()
        }
    };
    let warnings = warnings(&experiment, &policies)?;
    if args.json {
        output::json(&warnings)?;
    } else if warnings.is_empty() {
        output::line(&format!("Nothing found in {}.", policies.join(", ")));
    } else {
        warnings.iter().for_each(|w| output::line(&w.to_string()));
    }
    Ok(if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Warns on stderr of what these precisions will do badly.
pub fn warn(experiment: &Experiment, policies: &[String]) -> Result<(), Failure> {
    warnings(experiment, policies)?.iter().for_each(output::warning);
    Ok(())
}

fn warnings(experiment: &Experiment, policies: &[String]) -> Result<Vec<Warning>, Failure> {
    let mut all = experiment.lint_settings()?;
    for policy in policies {
        all.extend(experiment.lint(policy)?);
    }
    Ok(all)
}
