//! `halfstep import`: a run directory with weights from elsewhere; and the weights that
//! `train --from` begins with.

use std::path::Path;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::train::checkpoint;
use halfstep::train::import::{self, ImportReport, NameMap};
use halfstep::train::recipe::Experiment;
use halfstep::train::run_dir::RunInfo;
use halfstep::train::session::Session;
use serde_json::json;

use super::args::Import;
use super::failure::{ASKED, Failure};
use super::open::latest_checkpoint;
use super::{new_run, output, prepare};

/// Name of the model in the run directory.
pub const IMPORTED: &str = "imported";

/// Prints what `--json` asks for.
fn print_json(run_directory: Option<String>, report: &ImportReport) -> Result<(), Failure> {
    let mut printed = json!(report);
    printed["run_directory"] = json!(run_directory);
    printed["fits"] = json!(report.fits());
    output::json(&printed)
}

/// Runs the command.
pub fn run(args: Import, request: EngineRequest) -> Result<ExitCode, Failure> {
    let recipe = prepare::recipe(Some(&args.recipe))?;
    let map = map(args.map.as_deref())?;
    let engine = halfstep::engine(request)?;
    let experiment = prepare::prepare(recipe)?;
    let policy = experiment.recipe.precision.policy.clone();
    let mut session = experiment.session(engine.as_ref(), &policy, experiment.recipe.seed)?;
    let report = put(&mut session, &args.file, &map)?;
    if !report.fits() {
        if args.json {
            print_json(None, &report)?;
        } else {
            output::raw(&report.to_string());
        }
        does_not_fit(&args.file, &report).show();
        return Ok(ExitCode::from(ASKED));
    }
    let info = RunInfo {
        command: new_run::IMPORT.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        from: Some(args.file.display().to_string()),
    };
    let (dir, _) = new_run::begin(&experiment, engine.as_ref(), &[policy], Some(info), || {
        new_run::create_run_dir(args.out.as_ref(), &experiment.recipe.name)
    })?;
    checkpoint::save(&session, &dir.checkpoint(IMPORTED))?;
    if args.json {
        print_json(Some(dir.path().display().to_string()), &report)?;
    } else {
        for t in &report.taken {
            let how = if t.how.is_empty() { String::new() } else { format!("  ({})", t.how.join(", ")) };
            output::line(&format!("{} → {} {:?}{how}", t.from, t.to, t.shape));
        }
        output::raw(&report.to_string());
        output::line(&format!(
            "\n{} tensors for {} parameters. {}",
            report.taken.len(),
            units::count(prepare::parameters(&experiment)? as u64),
            dir.path().display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The map of a name or a file; without one, names are taken as they are.
fn map(asked: Option<&str>) -> Result<NameMap, Failure> {
    let Some(asked) = asked else { return Ok(NameMap::same_names()) };
    let text = match NameMap::built_in(asked) {
        Some(text) => text.to_string(),
        None => halfstep::data::read_settings(Path::new(asked)).map_err(|e| {
            Failure::asked(
                format!("{asked}: the map cannot be read: {e}"),
                "give a map file, or `gpt2`, which is built in",
            )
        })?,
    };
    NameMap::parse(&text)
        .map_err(|e| Failure::asked(format!("{asked}: {e}"), "a map is TOML: see docs/tracking.md"))
}

/// Puts the weights of a file into a session if all of them have their place, else none.
fn put(session: &mut Session<'_>, file: &Path, map: &NameMap) -> Result<ImportReport, Failure> {
    let bytes = checkpoint::read(file)?;
    let (values, report) = import::read(session.slots(), session.input(), &bytes, map)
        .map_err(|e| Failure::asked(format!("{} is not a safetensors file: {e}", file.display()), ""))?;
    if report.fits() {
        import::put(session, &values)?;
    }
    Ok(report)
}

fn does_not_fit(file: &Path, report: &ImportReport) -> Failure {
    let (missing, unexpected, misfits) =
        (report.missing.len(), report.unexpected.len(), report.misfits.len());
    let first = report.misfits.first();
    let first = first.map_or_else(String::new, |m| format!(" (`{}`: {})", m.from, m.reason));
    let message = format!(
        "{}: does not fit the model of the recipe: {missing} tensors are missing, {unexpected} are unexpected, {misfits} do \
         not fit{first}; nothing was imported",
        file.display()
    );
    Failure::asked(
        message,
        "`halfstep import FILE --recipe RECIPE --map MAP` lists them; --map says what they are called in the model",
    )
}

/// Sees that the run in `dir` begins with the weights of another run, or of a file.
pub fn start(
    experiment: &Experiment,
    engine: &dyn Engine,
    from: &Path,
    asked: Option<&str>,
) -> Result<Vec<u8>, Failure> {
    let file = match from.is_dir() {
        true => latest_checkpoint(from)?,
        false => from.to_path_buf(),
    };
    let policy = &experiment.recipe.precision.policy;
    let mut session = experiment.session(engine, policy, experiment.recipe.seed)?;
    let report = put(&mut session, &file, &map(asked)?)?;
    if !report.fits() {
        output::message(report.to_string().trim_end());
        return Err(does_not_fit(&file, &report));
    }
    Ok(checkpoint::serialised(&session, &file)?)
}
