//! What a card says of a model, from the folder of its comparison.

use std::collections::{BTreeMap, BTreeSet};

use halfstep::data::Preprocessing;
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::{CHECKPOINTS, PLAN, PREPROCESSING, RECIPE};
use halfstep::train::scaler::LossScale;
use halfstep_attest::subject::Subject;
use serde::Deserialize;

use crate::cli::args::Card;
use crate::cli::compare::LOGITS_FOLDER;
use crate::cli::compared::{Compared, ComparedArm, PairedRecord, RunRecord, SetupRecord};
use crate::cli::failure::Failure;

/// What a model of texts does.
pub const TEXT: &str = "text-generation";

/// Storage, compute and accumulation type of a contraction.
pub type Types = (String, String, String);

/// The precision a model was trained in.
pub struct Precision {
    /// The policy's name.
    pub policy: String,
    /// Matrix products, convolutions and attention of a training step: how many have which types.
    pub contractions: BTreeMap<Types, usize>,
    /// In which type the weights are updated and stored.
    pub weights: String,
    /// How the loss is scaled.
    pub loss_scaling: String,
    /// How operands below 16 bits are scaled; none where there are none.
    pub operand_scaling: Option<String>,
}

/// A measure of the model, as a share or in nats.
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    /// Its value on the test data.
    pub value: f64,
}

/// What the comparison found of the precision, over all seeds.
pub struct Judged<'a> {
    /// pass, fail or inconclusive.
    pub verdict: String,
    /// Pairs of seeds.
    pub pairs: u64,
    /// Accuracy less that of the reference, over the seeds.
    pub difference: Option<&'a PairedRecord>,
}

/// What a card says.
pub struct Facts<'a> {
    /// What was set up.
    pub setup: &'a SetupRecord,
    /// The run.
    pub run: &'a RunRecord,
    /// Of the paths of its files in the comparison's folder: empty, or ending in `/`.
    pub prefix: &'a str,
    /// The licence that was stated.
    pub licence: Option<&'a str>,
    /// What the model is for, in Hugging Face's words.
    pub task: &'static str,
    /// Its weights.
    pub weights: Subject,
    /// Logits, recipe, plan and preprocessing.
    pub evidence: Vec<Subject>,
    /// In which precision.
    pub precision: Precision,
    /// What it measured.
    pub measures: Vec<Measure>,
    /// What was found of its precision; none of the reference's.
    pub judged: Option<Judged<'a>>,
}

/// What is read of a plan.
#[derive(Deserialize)]
struct PlanRecord {
    policy: String,
    precision: PrecisionRecord,
}

#[derive(Deserialize)]
struct PrecisionRecord {
    entries: Vec<EntryRecord>,
}

#[derive(Deserialize)]
struct EntryRecord {
    op: String,
    phase: String,
    storage: String,
    compute: String,
    accumulate: String,
    reason: String,
}

impl<'a> Facts<'a> {
    /// Of the run that the arguments name.
    pub fn of(args: &'a Card, compared: &'a Compared) -> Result<Facts<'a>, Failure> {
        let arm = arm(args, compared)?;
        let setup = &arm.record.setup;
        let policies: BTreeSet<&str> = arm.record.runs.iter().map(|r| r.policy.as_str()).collect();
        if !policies.contains(args.precision.as_str()) {
            let policies: Vec<&str> = policies.into_iter().collect();
            let message =
                format!("{}: no run in the precision `{}`", args.comparison.display(), args.precision);
            return Err(Failure::unknown(message, &args.precision, &policies));
        }
        let no_name = |name: &str| name.trim().is_empty() || name.contains(char::is_control);
        if args.licence.as_deref().is_some_and(no_name) {
            let help = "give its name in one line, such as apache-2.0; without --license the card says that none is stated";
            return Err(Failure::asked("--license: this names no licence", help));
        }
        let seed = args.seed.unwrap_or(setup.seeds.first().copied().unwrap_or(0));
        let run =
            arm.record.runs.iter().find(|r| r.policy == args.precision && r.seed == seed && r.finished());
        let Some(run) = run else {
            let seeds: Vec<String> = setup.seeds.iter().map(u64::to_string).collect();
            return Err(Failure::asked(
                format!("no finished run of {} has the seed {seed}", args.precision),
                format!("the seeds are {}; a run that diverged has no model", seeds.join(", ")),
            ));
        };
        let subject = |name: &str| arm.subject(&args.comparison, name);
        let evidence =
            [RECIPE.into(), PLAN.into(), PREPROCESSING.into(), format!("{LOGITS_FOLDER}/{}", run.file())];
        let evidence = evidence.iter().map(|name: &String| subject(name)).collect::<Result<_, _>>()?;
        let last = run.evaluations.last();
        let measures = [("accuracy", last.map(|e| e.accuracy)), ("loss", last.map(|e| e.loss))];
        let judged = arm.record.candidates.iter().find(|c| c.policy == run.policy).map(|c| Judged {
            verdict: c.verdict.name().into(),
            pairs: c.pairs,
            difference: c.accuracy.as_ref(),
        });
        let plans: Vec<PlanRecord> = arm.read_json(&args.comparison, PLAN)?;
        Ok(Facts {
            setup,
            run,
            prefix: &arm.prefix,
            licence: args.licence.as_deref(),
            task: task(&arm.read_json(&args.comparison, PREPROCESSING)?),
            weights: subject(&format!("{CHECKPOINTS}/{}", run.file()))?,
            evidence,
            precision: precision(&arm.recipe, run, &plans)?,
            measures: measures
                .into_iter()
                .filter_map(|(name, v)| Some(Measure { name, value: v? }))
                .collect(),
            judged,
        })
    }
}

fn arm<'a>(args: &Card, compared: &'a Compared) -> Result<&'a ComparedArm, Failure> {
    let names: Vec<&str> = compared.arms.iter().map(|arm| arm.record.setup.name.as_str()).collect();
    match (&args.arm, compared.arms.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::asked(
            format!("{}: a comparison of several arms", args.comparison.display()),
            format!("name one with --arm: {}", names.join(", ")),
        )),
        (Some(name), arms) => arms.iter().find(|arm| arm.record.setup.name == *name).ok_or_else(|| {
            Failure::unknown(format!("{}: no arm `{name}`", args.comparison.display()), name, &names)
        }),
    }
}

/// What a model of such data does, as Hugging Face names it.
fn task(preprocessing: &Preprocessing) -> &'static str {
    match preprocessing {
        Preprocessing::Image(_) => "image-classification",
        Preprocessing::Table(_) => "tabular-classification",
        Preprocessing::Text(_) => TEXT,
    }
}

fn precision(recipe: &Recipe, run: &RunRecord, plans: &[PlanRecord]) -> Result<Precision, Failure> {
    let Some(plan) = plans.iter().find(|plan| plan.policy == run.policy) else {
        return Err(Failure::asked(format!("{PLAN} has no plan of the precision {}", run.policy), ""));
    };
    let (policy, loss_scale) = recipe.precision.resolve(&run.policy)?;
    let entries = &plan.precision.entries;
    let mut contractions = BTreeMap::new();
    for entry in entries.iter().filter(|e| is_contraction(&e.op)) {
        let types = (entry.storage.clone(), entry.compute.clone(), entry.accumulate.clone());
        *contractions.entry(types).or_insert(0) += 1;
    }
    let weights = entries.iter().find(|e| e.op == "read" && e.phase == "forward" && e.reason == "state");
    let narrow = policy.narrow.map(|n| serde_json::to_value(n.scaling)).transpose()?;
    Ok(Precision {
        policy: run.policy.clone(),
        contractions,
        weights: weights.map_or_else(|| "f32".into(), |e| e.storage.clone()),
        loss_scaling: match loss_scale {
            LossScale::Off => "none".into(),
            LossScale::Static(_) => "static".into(),
            LossScale::Dynamic(_) => "dynamic".into(),
        },
        operand_scaling: narrow.and_then(|n| n["kind"].as_str().map(String::from)),
    })
}

/// Whether an operation of a plan is a product with a long sum.
fn is_contraction(op: &str) -> bool {
    op == "matmul" || op.starts_with("conv2d") || op.starts_with("attention")
}
