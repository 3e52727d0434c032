//! `halfstep compare`: one model, or the arms of an ablation, in several precisions over paired
//! seeds.
//!
//! What is to be run is a list of tasks ([`one_run::Task`]); each is taken from the cache or made
//! ([`one_run`]), one after another or side by side ([`side_by_side`]); what they measured is
//! gathered and judged here.

pub mod cache;
mod energy;
mod examples;
mod looks;
mod one_run;
mod plan;
pub mod protocol;
mod side_by_side;
mod spread;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use halfstep::EngineRequest;
use halfstep::evidence::report::Picture;
use halfstep::evidence::robustness::Robustness;
use halfstep::evidence::statements::StudyStatement;
use halfstep::evidence::stats::Looks;
use halfstep::evidence::{
    Assessment, Comparison, Report, RunResult, Setup, Study, Verdict, Way, table, units,
};
use halfstep::graph::Split;
use halfstep::graph::communicator::Communicator;
use halfstep::graph::engine::Engine;
use halfstep::graph::engine_info::Arithmetic;
use halfstep::graph::precision::Policy;
use halfstep::train::metrics::Outcome;
use halfstep::train::recipe::{Experiment, Recipe, folder_name};
use halfstep::train::run_dir::{self, RunDir};
use indicatif::MultiProgress;

use self::cache::{Cache, LOGITS, MODEL};
use self::one_run::{Obtained, Task};
use super::args::Compare;
use super::failure::{Failure, INTERRUPTED};
use super::output::Messages;
use super::{gpus, interrupt, new_run, numerics, output, prepare, progress, ranks, report, stress, verdict};

/// Folder of the logits, as `halfstep verdict` reads them.
pub const LOGITS_FOLDER: &str = "logits";
/// One arm, ready to run.
struct Arm {
    name: String,
    experiment: Experiment,
    /// Its run directory; none of a plan.
    dir: Option<RunDir>,
}

/// Runs the command. Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 no verdict; 0 also where there
/// is one precision alone.
pub fn run(args: Compare, request: EngineRequest) -> Result<ExitCode, Failure> {
    let recipe = asked(&args)?;
    let engine = halfstep::engine(request)?;
    let ranks = ranks::join()?.filter(|r| r.size() > 1);
    let ranks = ranks.as_ref();
    match ranks.filter(|r| r.rank() > 0) {
        Some(_) if args.plan => return Ok(ExitCode::SUCCESS),
        Some(ranks) => return spread::help(&args, recipe, engine.as_ref(), request, ranks),
        None => {}
    }
    if args.plan {
        return plan::run(&args, recipe, engine.as_ref(), request);
    }
    let messages = Messages::of(args.json);
    if args.recipe.is_none()
        && let Some(yours) = prepare::recipes_here().first()
    {
        messages.say(&format!(
            "No recipe is named, so the bundled example is compared; `halfstep compare {}` compares yours.",
            output::quoted(yours)
        ));
    }
    let (name, command) = (recipe.name.clone(), command(&args));
    let (top, arms) = directories(recipe, engine.as_ref(), args.out.as_ref())?;
    interrupt::listen(interrupt::TRAINING);
    let folder = cache_folder(&args, &top, messages);
    if let Some(ranks) = ranks {
        ranks.broadcast(folder.to_string_lossy().into_owned().into_bytes())?;
    }
    let spare = Some(top.file(UNKEPT)).filter(|spare| ranks.is_none() && *spare != folder);
    let mut cache = Cache::at(folder, engine.identity())?;
    if let Some(spare) = spare {
        cache = cache.with_spare(spare);
    }

    let start = Instant::now();
    let several = arms.len() > 1;
    let common = Common { engine: engine.as_ref(), cache: &cache, request, jobs: args.jobs, ranks, messages };
    let (mut compared, mut examples, mut stressed) = (Vec::new(), Vec::new(), Vec::new());
    for arm in arms {
        let (comparison, robustness) = compare_arm(arm, &common, &mut examples)?;
        compared.push(comparison);
        stressed.extend(robustness);
        if spread::stops(ranks)? {
            break;
        }
    }
    let study = Study::new(name, command, compared);
    let mut report = Report::of(&study, examples);
    for (arm, robustness) in &stressed {
        let mut sections = halfstep::evidence::report::robustness(robustness);
        if several {
            sections.iter_mut().for_each(|s| s.of_arm(arm));
        }
        report.insert(sections);
    }
    let run_directory = top.path().display().to_string();
    report::write(&top, &run_directory, &study, &report)?;
    let folder = top.file(UNKEPT);
    if (args.no_cache || halfstep::cache_folder().is_some()) && !interrupt::asked() && folder.is_dir() {
        std::fs::remove_dir_all(&folder)
            .map_err(|e| Failure::failed(format!("{}: {e}", folder.display())))?;
    }
    if args.json {
        output::json(&report::Printed { run_directory: &run_directory, study: &study, report: None })?;
    } else {
        for (_, robustness) in &stressed {
            stress::show(robustness);
            output::line("");
        }
        show(&study, several);
        let seconds = units::seconds(start.elapsed().as_secs_f64());
        output::line(&format!("\n{seconds} in all. {}", top.path().join("report.html").display()));
    }
    Ok(if interrupt::asked() {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::from(study.verdict.map_or(0, verdict::code))
    })
}

/// What the runs of all arms share.
struct Common<'a> {
    engine: &'a dyn Engine,
    cache: &'a Cache,
    request: EngineRequest,
    jobs: Option<NonZeroUsize>,
    ranks: Option<&'a Arc<Communicator>>,
    messages: Messages,
}

/// Makes the runs of an arm and compares them. The first arm also fills `examples`: mistakes of
/// each candidate.
fn compare_arm(
    arm: Arm,
    common: &Common<'_>,
    examples: &mut Vec<(String, Vec<Picture>)>,
) -> Result<(Comparison, Option<(String, Robustness)>), Failure> {
    let Common { engine, request, messages, .. } = *common;
    let setup = setup(&arm, engine)?;
    messages.say(&format!("{} on {}", output::bold(&setup.model), setup.data));
    messages.say(&format!(
        "{} parameters, {} steps of {}, seeds {}; {} ({})\n",
        units::count(setup.parameters as u64),
        units::count(setup.steps),
        setup.batch,
        list(&setup.seeds),
        setup.processor,
        setup.engine
    ));
    let obtained = obtain(&arm, &setup, common)?;
    if let Some(dir) = &arm.dir {
        keep(dir, &arm.name, &obtained)?;
    }
    let mut notes = Vec::new();
    let looks = |policy: &str| {
        let looked = looks::look(common.cache, &arm.experiment, &setup, &obtained, policy)?;
        notes.extend(looked.note);
        Ok(looked.looks)
    };
    let assessments = assessments(&setup, &obtained, request.threads(), looks)?;
    if examples.is_empty() {
        *examples = first_seed(&arm, &setup, &obtained)?;
    }
    let runs = obtained.into_iter().map(|o| o.result).collect();
    let mut comparison = Comparison::new(setup, runs, assessments);
    comparison.notes.extend(notes);
    comparison.notes.extend(not_split_here(&comparison.setup.policies, engine)?);
    comparison.notes.extend(not_measured_of(engine));
    if messages == Messages::Stdout {
        output::raw(&format!("\n{}\n", table::text(&comparison, &output::bold)));
    }
    let robustness = under_stress(arm, &comparison, engine, request.threads())?;
    Ok((comparison, robustness))
}

/// The recipe with what the arguments change in it.
fn asked(args: &Compare) -> Result<Recipe, Failure> {
    let mut recipe = prepare::recipe(args.recipe.as_deref())?;
    if let Some(precisions) = &args.precisions {
        for (i, name) in precisions.iter().enumerate() {
            prepare::known_precision(name)?;
            if precisions[..i].contains(name) {
                return Err(Failure::asked(format!("the precision `{name}` is named twice"), ""));
            }
        }
        recipe.precision.policies.clone_from(precisions);
    }
    if let Some(seeds) = args.seeds {
        if seeds == 0 {
            return Err(Failure::asked(
                "a comparison needs at least one seed",
                "give --seeds 2 or more for a bound",
            ));
        }
        recipe.compare.seeds = seeds;
    }
    if let Some(first) = args.first_seed {
        recipe.seed = first;
        recipe.ablation.iter_mut().for_each(|arm| arm.recipe.seed = first);
    }
    if !recipe.precision.policies.contains(&recipe.compare.reference) {
        recipe.compare.reference = recipe.precision.policies[0].clone();
    }
    for arm in &mut recipe.ablation {
        arm.recipe.precision.policies.clone_from(&recipe.precision.policies);
        arm.recipe.compare.clone_from(&recipe.compare);
    }
    Ok(recipe)
}

/// What to type for the same again, less the seeds.
fn command(args: &Compare) -> String {
    let mut words = vec!["halfstep compare".to_string()];
    words.extend(args.recipe.as_ref().map(|path| output::quoted(path)));
    words.extend(args.precisions.as_ref().map(|list| format!("--precisions {}", list.join(","))));
    words.join(" ")
}

/// Makes the run directory: of the recipe itself, or, with an ablation, a folder with one for each
/// arm.
fn directories(
    recipe: Recipe,
    engine: &dyn Engine,
    out: Option<&PathBuf>,
) -> Result<(RunDir, Vec<Arm>), Failure> {
    protocol::of(&recipe)?;
    if recipe.ablation.is_empty() {
        let (name, experiment) = (recipe.name.clone(), prepare::prepare(recipe)?);
        let policies = experiment.recipe.precision.policies.clone();
        let (dir, _) = new_run::run_dir(&experiment, engine, &policies, out)?;
        return Ok((dir.clone(), vec![Arm { name, experiment, dir: Some(dir) }]));
    }
    let resolved = recipe.resolved()?;
    let mut prepared = Vec::new();
    // All first: nothing is written for an ablation of which one arm cannot run.
    for of_arm in recipe.ablation {
        let experiment = prepare::prepare(of_arm.recipe)?;
        prepare::check_supported(&experiment, engine, &experiment.recipe.precision.policies)?;
        prepared.push((of_arm.name, experiment));
    }
    let top = new_run::create_run_dir(out, &recipe.name)?;
    let mut arms = Vec::new();
    for (name, experiment) in prepared {
        let policies = experiment.recipe.precision.policies.clone();
        let path = top.file(&folder_name(&name));
        let (dir, _) = new_run::run_dir(&experiment, engine, &policies, Some(&path))?;
        arms.push(Arm { name, experiment, dir: Some(dir) });
    }
    top.write(run_dir::RECIPE, resolved.as_bytes())?;
    Ok((top, arms))
}

/// The recipes of an ablation's arms by name, or the recipe itself.
fn recipes_of_arms(recipe: Recipe) -> Vec<(String, Recipe)> {
    match recipe.ablation.is_empty() {
        true => vec![(recipe.name.clone(), recipe)],
        false => recipe.ablation.into_iter().map(|arm| (arm.name, arm.recipe)).collect(),
    }
}

/// Folder of runs that are not kept, in the run directory.
const UNKEPT: &str = ".runs";

/// The folder of the cache, or, with `--no-cache` and where there is no place for one, a folder
/// that is removed at the end.
fn cache_folder(args: &Compare, top: &RunDir, messages: Messages) -> PathBuf {
    match halfstep::cache_folder() {
        Some(place) if !args.no_cache => place,
        Some(_) => top.file(UNKEPT),
        None => {
            messages.say(
                "No folder for the cache is known (HALFSTEP_CACHE, XDG_CACHE_HOME, HOME): runs are kept in the run directory.",
            );
            top.file(UNKEPT)
        }
    }
}

/// Every run of an arm, in the order of the tasks: from the cache, or made, on several ranks by
/// each its share.
fn obtain(arm: &Arm, setup: &Setup, common: &Common<'_>) -> Result<Vec<Obtained>, Failure> {
    let Common { cache, request, jobs, ranks, messages, .. } = *common;
    let experiment = &arm.experiment;
    let mut tasks = Vec::new();
    for (round, &seed) in setup.seeds.iter().enumerate() {
        for i in 0..setup.policies.len() {
            // Precisions take turns in going first: what else the machine does falls on all of them
            // alike.
            let policy = &setup.policies[(i + round) % setup.policies.len()];
            tasks.push(Task::of(cache, experiment, policy, seed)?);
        }
    }
    let mut found: Vec<Option<Obtained>> =
        tasks.iter().map(|task| one_run::cached(cache, task, messages)).collect();
    let there = found.iter().flatten().count();
    if there > 0 {
        messages
            .say(&format!("{there} of {} runs were made before and are taken from the cache.", tasks.len()));
    }
    let missing: Vec<&str> = (tasks.iter().zip(&found))
        .filter_map(|(task, found)| found.is_none().then_some(task.on_any_engine.as_str()))
        .collect();
    for (engine, count) in cache.of_other_engines(&missing) {
        messages.say(&format!(
            "{count} of the others were made before by another engine ({engine}), whose last bits differ: they are \
             not used here."
        ));
    }
    // Each rank does runs of its own.
    let is_mine = |i: usize| found[i].is_none() && ranks.is_none_or(|ranks| i % ranks.size() == ranks.rank());
    let pending: Vec<&Task> = (0..tasks.len()).filter(|&i| is_mine(i)).map(|i| &tasks[i]).collect();
    if !pending.is_empty() {
        // Ranks are side by side already.
        let jobs = if ranks.is_some() { Some(NonZeroUsize::MIN) } else { jobs };
        let policies: Vec<&str> = pending.iter().map(|task| task.policy.as_str()).collect();
        let choice = side_by_side::choose(experiment, &policies, request, jobs)?;
        let beside = choice.workers.get() - 1;
        let way = Way { processor: setup.processor.clone(), threads: choice.threads.get(), beside };
        let is_choice = gpus::is_gpu(common.engine) || request.threads().get() > 1;
        if is_choice && pending.len() > 1 && ranks.is_none() {
            let runs = if beside == 0 { "One run".into() } else { format!("{} runs", choice.workers) };
            messages.say(&format!("{runs} at a time: {}.", choice.why));
        }
        let bars = MultiProgress::new();
        let done = |o: &Obtained| progress::above(&bars, || messages.say(&one_line(&o.result)));
        let work =
            |task: &&Task, engine: &dyn Engine| one_run::make(cache, experiment, engine, task, &way, &bars);
        let mut made = side_by_side::run_all(&pending, &choice, request, &work, &done)?;
        for (task, found) in tasks.iter().zip(&mut found) {
            if found.is_none() {
                *found = made.iter().position(|o| o.result.id == task.id).map(|at| made.swap_remove(at));
            }
        }
    }
    if let Some(ranks) = ranks {
        // Every rank has ended its runs before any looks for those of the others.
        ranks.gather(Vec::new())?;
        for (task, found) in tasks.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            *found = one_run::cached(cache, task, messages);
            if let Some(theirs) = found {
                theirs.result.cached = false;
                messages.say(&one_line(&theirs.result));
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Puts models, logits and the log of the runs into the run directory, which then needs no cache.
fn keep(dir: &RunDir, title: &str, obtained: &[Obtained]) -> Result<(), Failure> {
    let folder = dir.file(LOGITS_FOLDER);
    std::fs::create_dir_all(&folder).map_err(|e| Failure::failed(format!("{}: {e}", folder.display())))?;
    let mut log = Vec::new();
    for Obtained { result, place } in obtained {
        let name = format!("{}-seed{}.safetensors", result.record.policy, result.record.seed);
        let read = |file: &str| {
            let path = place.join(file);
            std::fs::read(&path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
        };
        for (file, folder) in [(MODEL, run_dir::CHECKPOINTS), (LOGITS, LOGITS_FOLDER)] {
            if place.join(file).is_file() {
                dir.write(&format!("{folder}/{name}"), &read(file)?)?;
            }
        }
        log.extend(read(run_dir::METRICS)?);
    }
    numerics::gather(dir, title, obtained.iter().map(|o| o.place.as_path()))?;
    Ok(dir.write(run_dir::METRICS, &log)?)
}

/// The logits of finished runs of a precision and of the reference, by seeds that both finished.
fn pairs<'o>(setup: &Setup, obtained: &'o [Obtained], policy: &str) -> Vec<(&'o Obtained, &'o Obtained)> {
    let finished = |policy: &str, seed: u64| {
        let is_it = |o: &&Obtained| o.result.record.policy == policy && o.result.record.seed == seed;
        obtained.iter().find(is_it).filter(|o| o.result.record.outcome == Outcome::Finished)
    };
    setup.seeds.iter().filter_map(|&s| finished(&setup.reference, s).zip(finished(policy, s))).collect()
}

/// What the logits of every candidate say; none of those without a pair.
fn assessments(
    setup: &Setup,
    obtained: &[Obtained],
    threads: NonZeroUsize,
    mut looks: impl FnMut(&str) -> Result<Looks, Failure>,
) -> Result<Vec<(String, Assessment)>, Failure> {
    let mut all = Vec::new();
    for policy in setup.policies.iter().filter(|p| **p != setup.reference) {
        let pairs = pairs(setup, obtained, policy);
        if pairs.is_empty() {
            continue;
        }
        let diverged = |policy: &str| {
            let is_one = |o: &&Obtained| {
                o.result.record.policy == policy
                    && matches!(o.result.record.outcome, Outcome::Diverged { .. })
            };
            obtained.iter().filter(is_one).count() as u64
        };
        let mut protocol = setup.protocol.clone();
        protocol.looks = looks(policy)?;
        protocol.diverged = diverged(policy);
        protocol.baseline_diverged = diverged(&setup.reference);
        let (a, b): (Vec<PathBuf>, Vec<PathBuf>) =
            pairs.iter().map(|(a, b)| (a.place.join(LOGITS), b.place.join(LOGITS))).unzip();
        let assessment =
            verdict::assess_files(&a, &b, protocol, threads).map_err(|e| Failure::failed(e.to_string()))?;
        all.push((policy.clone(), assessment));
    }
    Ok(all)
}

/// Pictures of the mistakes of every candidate with the first seed that it and the reference
/// finished.
fn first_seed(
    arm: &Arm,
    setup: &Setup,
    obtained: &[Obtained],
) -> Result<Vec<(String, Vec<Picture>)>, Failure> {
    let mut all = Vec::new();
    for policy in setup.policies.iter().filter(|p| **p != setup.reference) {
        if let Some((a, b)) = pairs(setup, obtained, policy).first() {
            let pictures = examples::pictures(&arm.experiment, &a.place.join(LOGITS), &b.place.join(LOGITS))?;
            all.push((policy.clone(), pictures));
        }
    }
    Ok(all)
}

/// The finished models of an arm under the stress that its recipe asks for, with the arm's name.
fn under_stress(
    arm: Arm,
    comparison: &Comparison,
    engine: &dyn Engine,
    threads: NonZeroUsize,
) -> Result<Option<(String, Robustness)>, Failure> {
    let Arm { name, experiment, dir, .. } = arm;
    let measures = experiment.recipe.evidence.measures.clone();
    let Some(dir) = dir.filter(|_| !measures.is_empty() && !interrupt::asked()) else { return Ok(None) };
    let mut trained = stress::trained(&[dir.path().to_path_buf()])?;
    let finished = |policy: &str, seed| {
        let of = |r: &&RunResult| r.record.policy == policy && r.record.seed == seed;
        comparison.runs.iter().find(of).is_some_and(|r| r.record.outcome == Outcome::Finished)
    };
    trained.retain(|t| finished(&t.policy.name, t.seed));
    if trained.is_empty() {
        return Ok(None);
    }
    let measured = stress::measure(experiment, engine, &trained, None, &measures, threads)?;
    dir.write_json(stress::ROBUSTNESS, &measured)?;
    Ok(Some((name, measured)))
}

/// What must be said of policies that split f32 products into bf16 ones where the engine does not.
fn not_split_here(policies: &[String], engine: &dyn Engine) -> Result<Option<StudyStatement>, Failure> {
    let (mut names, mut how) = (Vec::new(), Vec::new());
    for name in policies {
        let policy = Policy::named(name)?;
        let described = engine.describe(&policy);
        let allowed = policy.split.is_some_and(Split::allows_f32);
        if allowed && described.arithmetic != Arithmetic::Split {
            names.push(name.clone());
            how.push(described.text);
        }
    }
    how.dedup();
    Ok((!names.is_empty()).then_some(StudyStatement::NotSplit { policies: names, how }))
}

/// What must be said of energy and cost where a GPU draws most of it.
fn not_measured_of(engine: &dyn Engine) -> Option<StudyStatement> {
    gpus::is_gpu(engine).then_some(StudyStatement::WithoutTheGpu)
}

fn setup(arm: &Arm, engine: &dyn Engine) -> Result<Setup, Failure> {
    let (experiment, recipe) = (&arm.experiment, &arm.experiment.recipe);
    let (per_sample, device) = (experiment.info.input.labels_per_sample(), engine.device());
    let policies = recipe.precision.policies.clone();
    let arithmetic = |name: &String| Ok((name.clone(), engine.describe(&Policy::named(name)?).into()));
    let arithmetic = policies.iter().map(arithmetic).collect::<Result<_, Failure>>()?;
    Ok(Setup {
        name: arm.name.clone(),
        model: prepare::describe_model(experiment),
        data: prepare::describe_data(experiment),
        fingerprint: experiment.info.fingerprint.clone(),
        classes: experiment.data.preprocessing.classes().to_vec(),
        parameters: prepare::parameters(experiment)?,
        steps: experiment.steps,
        batch: recipe.train.batch,
        seeds: (0..recipe.compare.seeds).map(|i| recipe.seed.wrapping_add(i)).collect(),
        policies,
        reference: recipe.compare.reference.clone(),
        protocol: protocol::of(recipe)?,
        rates: protocol::rates(recipe),
        targets_measured: one_run::measured_samples(experiment).len() * per_sample,
        targets: experiment.data.test.len() * per_sample,
        engine: engine.name(),
        device: device.kind,
        processor: device.name,
        arithmetic,
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

fn show(study: &Study, several: bool) {
    let verdict = study.verdict.map_or(String::new(), |v: Verdict| format!("{}: ", v.name().to_uppercase()));
    output::line(&format!("{}{}", output::bold(&verdict), study.summary.headline));
    let s = &study.summary;
    for (heading, lines) in
        [("Gained", &s.gained), ("Lost", &s.lost), ("Unknown", &s.unknown), ("Next", &s.next)]
    {
        if !lines.is_empty() {
            output::line(&format!("\n{}", output::bold(heading)));
            output::raw(&output::bullets(lines));
        }
    }
    if several {
        output::line("");
        for c in &study.arms {
            for x in &c.candidates {
                output::line(&format!("  {:<12} {:<6} {}", c.setup.name, x.policy, x.verdict.name()));
            }
        }
    }
}

fn one_line(run: &RunResult) -> String {
    let accuracy = run.record.evaluations.last().map_or("–".into(), |e| units::percent(e.accuracy, None));
    let step = run.record.median_ms().map_or("–".into(), units::milliseconds);
    let wall = units::seconds(run.record.wall_seconds);
    let skipped =
        if run.record.skipped > 0 { format!("   {} skipped", run.record.skipped) } else { String::new() };
    let end = match &run.record.outcome {
        Outcome::Finished => String::new(),
        Outcome::Interrupted => "   stopped; the same command goes on from here".into(),
        Outcome::Diverged { reason } => format!("\n  {reason}"),
    };
    let (policy, seed) = (&run.record.policy, run.record.seed);
    format!(
        "{policy:<6} seed {seed:<3} test accuracy {accuracy:>8}   {step:>8}/step   {wall:>7}{skipped}{end}"
    )
}

fn list(seeds: &[u64]) -> String {
    match seeds {
        [first, .., last] if seeds.len() > 2 => format!("{first}–{last}"),
        _ => seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use halfstep::gpu::device::Facts;
    use halfstep::gpu::{Architecture, GpuEngine};
    use halfstep::graph::interp::{InterpreterEngine, Rounding};

    use super::*;

    #[test]
    fn what_a_gpu_draws_is_said_to_be_left_out() {
        let gpu = GpuEngine::planning(Facts::of_architecture(Architecture::MINIMUM));
        let said = not_measured_of(&gpu).unwrap().to_string();
        assert!(said.starts_with("energy and cost are those of the processor's cores: "), "{said}");
        let cpu = halfstep::engine(EngineRequest::default().cpu_by_default()).unwrap();
        assert_eq!(not_measured_of(cpu.as_ref()), None);
    }

    #[test]
    fn what_was_not_split_is_said() {
        // The interpreter computes everything in f64: it splits nothing.
        let not_split = |policies: &[&str]| {
            let policies: Vec<String> = policies.iter().map(ToString::to_string).collect();
            not_split_here(&policies, &InterpreterEngine { rounding: Rounding::None })
                .unwrap()
                .map(|said| said.to_string())
        };
        assert_eq!(not_split(&["fp32", "bf16", "tf32"]), None);
        let said = not_split(&["fp32", "bf16x3"]).unwrap();
        assert!(said.starts_with("bf16x3 was computed as fp32 ("), "{said}");
        assert!(said.ends_with("These runs say nothing about the split itself."), "{said}");
    }
}
