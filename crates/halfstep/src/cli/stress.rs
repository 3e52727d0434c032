//! `halfstep stress`: trained models under stress, precision beside precision.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::data::{
    ClassFolders, DataSpec, IdxFiles, IdxSpec, ImageOptions, ImagesSpec, Limits, RandomSplit, TestFrom,
};
use halfstep::evidence::robustness::Robustness;
use halfstep::evidence::robustness_table::{TableSection, sections};
use halfstep::graph::engine::Engine;
use halfstep::graph::precision::Policy;
use halfstep::stress::{StressError, Subject, Trained, backdoor, stress};
use halfstep::train::recipe::{Experiment, Measure, Recipe};
use halfstep::train::run_dir::{RunDir, pretty, write_whole};
use halfstep::train::train_loop::Proceed;

use super::args::{Chosen, Stress};
use super::failure::{Failure, INTERRUPTED};
use super::moved::recipe_of;
use super::open::Opened;
use super::{interrupt, output, prepare, progress, report};

/// The file of everything measured.
pub const ROBUSTNESS: &str = "robustness.json";

/// Runs the command.
pub fn run(args: Stress, request: EngineRequest) -> Result<ExitCode, Failure> {
    let engine = halfstep::engine(request)?;
    let first = RunDir::open(&args.runs[0])?;
    let mut recipe = recipe_of(&first)?;
    settings(&args, &mut recipe)?;
    let measures = measures(&args.measures)?;
    if let Some(precisions) = &args.precisions {
        prepare::known_precisions(precisions)?;
        recipe.precision.policies = precisions.clone();
    }
    let trained = trained(&args.runs)?;
    let experiment = prepare::prepare(recipe)?;
    // Of every run: another may have been trained on what the first held out.
    for run in &args.runs {
        Opened::open(&chosen(run, None))?.check_data(&experiment.data)?;
    }
    interrupt::listen("Stopping after what is being measured; nothing will be written.");
    let measured = measure(
        experiment,
        engine.as_ref(),
        &trained,
        args.baseline.as_deref(),
        &measures,
        request.threads(),
    );
    let r = match measured {
        Ok(r) => r,
        Err(_) if interrupt::asked() => return Ok(ExitCode::from(INTERRUPTED)),
        Err(e) => return Err(e),
    };
    match &args.out {
        Some(path) => write_whole(path, &pretty(&r)?)?,
        None => {
            first.write_json(ROBUSTNESS, &r)?;
            report::add(&first, halfstep::evidence::report::robustness(&r))?;
        }
    }
    if args.json {
        output::json(&r)?;
    } else {
        show(&r);
        let path = args.out.clone().unwrap_or_else(|| first.file(ROBUSTNESS));
        output::line(&format!("\n{}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts trained models under stress; a planted backdoor is trained by the experiment's recipe.
pub fn measure(
    experiment: Experiment,
    engine: &dyn Engine,
    trained: &[Trained],
    baseline: Option<&str>,
    measures: &[Measure],
    threads: NonZeroUsize,
) -> Result<Robustness, Failure> {
    let recipe = &experiment.recipe;
    let there: Vec<&str> = trained.iter().map(|t| t.policy.name.as_str()).collect();
    let reference = recipe.compare.reference.as_str();
    let baseline = match baseline {
        Some(name) if there.contains(&name) => name,
        Some(name) => {
            let message = format!("no model was trained in `{name}`");
            return Err(Failure::asked(message, format!("there are models in {}", there.join(", "))));
        }
        None if there.contains(&reference) => reference,
        None => there[0],
    }
    .to_string();
    let mut served = Vec::new();
    for name in recipe.precision.policies.iter().map(String::as_str).chain(["fp32"]) {
        if !served.iter().any(|p: &Policy| p.name == name) {
            let (policy, _) = recipe.precision.resolve(name)?;
            let policy = policy.reading_f32_weights();
            engine.target().supports(&policy)?;
            served.push(policy);
        }
    }
    let subject = Subject {
        engine,
        model: experiment.model.as_ref(),
        input: &experiment.input,
        data: &experiment.data,
        base: &recipe.base,
        trained,
        baseline: &baseline,
        served: &served,
        threads,
    };
    let spinner = progress::spinner("loading");
    let mut on_progress = |what: &str| {
        spinner.set_message(what.to_string());
        if interrupt::asked() { Proceed::Stop } else { Proceed::Continue }
    };
    let mut r = stress(&subject, &recipe.evidence, measures, &mut on_progress).map_err(failure)?;
    (r.model, r.data) = (prepare::describe_model(&experiment), prepare::describe_data(&experiment));
    if measures.contains(&Measure::Backdoor) {
        let planted =
            backdoor(experiment, engine, &baseline, &served, threads, &mut on_progress).map_err(failure)?;
        r.backdoor = Some(planted);
        r.findings = halfstep::evidence::robustness_findings::findings(&r);
    }
    spinner.finish_and_clear();
    Ok(r)
}

fn failure(e: StressError) -> Failure {
    match e {
        StressError::Data(e) => e.into(),
        StressError::Recipe(e) => e.into(),
        StressError::Train(e) => e.into(),
        e => Failure::failed(e.to_string()),
    }
}

/// The tables and sentences.
pub fn show(r: &Robustness) {
    output::line(&format!("{} on {}", output::bold(&r.model), r.data));
    for TableSection { title, note, header, rows } in sections(r) {
        output::raw(&format!("\n{}\n", output::bold(&title)));
        output::raw(&output::bullets(&[note]));
        let mut all = vec![header];
        all.extend(rows);
        output::raw(&output::columns(&all));
    }
    output::raw("\n");
    output::raw(&output::bullets(&r.findings));
}

fn measures(asked: &[String]) -> Result<Vec<Measure>, Failure> {
    if asked.is_empty() {
        return Ok(Measure::usual());
    }
    let one = |name: &String| {
        Measure::from_name(name).ok_or_else(|| {
            Failure::unknown(
                format!("there is no measure `{name}`"),
                name,
                &Measure::NAMED.map(|(_, name)| name),
            )
        })
    };
    asked.iter().map(one).collect()
}

fn settings(args: &Stress, recipe: &mut Recipe) -> Result<(), Failure> {
    let e = &mut recipe.evidence;
    e.samples = args.samples.unwrap_or(e.samples);
    e.epsilon = args.epsilon.unwrap_or(e.epsilon);
    e.steps = args.steps.unwrap_or(e.steps);
    e.queries = args.queries.unwrap_or(e.queries);
    if let Some(path) = &args.foreign {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let is_images = |e: std::fs::DirEntry| e.file_name().to_string_lossy().contains("images");
        let is_idx = std::fs::read_dir(path).is_ok_and(|folder| folder.flatten().any(is_images));
        let (limits, options) = (Limits::default(), ImageOptions::default());
        e.foreign = Some(if is_idx {
            let files = IdxFiles::Folder { path: absolute, split: None };
            DataSpec::Idx(IdxSpec { files, limits, classes: None, ignore_labels: Vec::new(), options })
        } else {
            let test = TestFrom::Split(RandomSplit::default());
            // Which class a foreign image has does not matter.
            let folders = ClassFolders::Classes;
            DataSpec::Images(ImagesSpec {
                path: absolute,
                folders,
                test,
                validation_path: None,
                limits,
                options,
            })
        });
    }
    e.validate()
        .map_err(|e| Failure::asked(format!("--{}: {}, expected {}", e.field, e.found, e.expected), ""))
}

fn chosen(run: &Path, checkpoint: Option<String>) -> Chosen {
    Chosen { run: run.to_path_buf(), checkpoint, precision: None }
}

/// The models of run directories: of `compare`, one per precision and seed; of `train`, the one it
/// ended with.
pub fn trained(runs: &[PathBuf]) -> Result<Vec<Trained>, Failure> {
    let mut all: Vec<Trained> = Vec::new();
    let mut input = None;
    for run in runs {
        let of_compare = |n: &String| {
            n.split_once("-seed").is_some_and(|(p, s)| Policy::NAMES.contains(&p) && s.parse::<u64>().is_ok())
        };
        let names: Vec<String> = RunDir::open(run)?.checkpoints().into_iter().filter(of_compare).collect();
        let checkpoints: Vec<Option<String>> =
            if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for checkpoint in checkpoints {
            let opened = Opened::open(&chosen(run, checkpoint))?;
            if *input.get_or_insert_with(|| opened.manifest.input.clone()) != opened.manifest.input {
                let message =
                    format!("{} holds a model for {}", run.display(), opened.manifest.input.describe());
                return Err(Failure::asked(message, "models are compared on the same data"));
            }
            let model = Trained {
                policy: opened.manifest.policy.clone(),
                seed: opened.manifest.seed,
                weights: opened.weights()?,
            };
            if all.iter().any(|t| t.policy.name == model.policy.name && t.seed == model.seed) {
                let message = format!("two models are {} with seed {}", model.policy.name, model.seed);
                return Err(Failure::asked(message, "name each run once"));
            }
            all.push(model);
        }
    }
    all.sort_by_key(|t| t.seed);
    Ok(all)
}
