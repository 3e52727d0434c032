//! From a recipe's file to an experiment, and both in words.

use std::path::{Path, PathBuf};

use halfstep::data::read_settings;
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::graph::precision::Policy;
use halfstep::nn::{InputSpec, ModelSpec, parameter_count};
use halfstep::train::recipe::{Experiment, Recipe};

use super::failure::Failure;
use super::{machine, output, progress};

/// The recipe that `compare` runs when none is named.
const DEFAULT: &str = include_str!("../../../../recipes/fashion-cnn.toml");

/// Reads the recipe, or the default one.
pub fn recipe(path: Option<&Path>) -> Result<Recipe, Failure> {
    Ok(match path {
        Some(path) => Recipe::read(path)?,
        None => Recipe::parse("fashion-cnn.toml", DEFAULT, Path::new("."))?,
    })
}

/// Reads the recipe, which a command must be given.
pub fn own_recipe(path: Option<&Path>, command: &str) -> Result<Recipe, Failure> {
    if path.is_some() {
        return recipe(path);
    }
    let found = recipes_here();
    let help = match found.as_slice() {
        [] => "there is none in this folder; `halfstep new PATH` writes one for your data".into(),
        [one] => format!("there is one in this folder: halfstep {command} {}", output::quoted(one)),
        several => {
            let names: Vec<String> = several.iter().take(20).map(|p| output::quoted(p)).collect();
            let more = several.len() - names.len();
            let more = if more > 0 { format!(" … and {more} more") } else { String::new() };
            format!("there are {} in this folder: {}{more}", several.len(), names.join(", "))
        }
    };
    Err(Failure::asked(format!("`halfstep {command}` needs a recipe"), help))
}

/// The recipes in this folder, by their names: TOML files with a model.
pub fn recipes_here() -> Vec<PathBuf> {
    let is_recipe = |path: &PathBuf| {
        let has_model = |text: String| text.lines().any(|line| line.trim() == "[model]");
        path.extension().is_some_and(|e| e == "toml") && read_settings(path).is_ok_and(has_model)
    };
    let here = std::fs::read_dir(".").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = here.map(|e| PathBuf::from(e.file_name())).filter(is_recipe).collect();
    found.sort();
    found
}

/// An error unless there is a precision of that name.
pub fn known_precision(name: &str) -> Result<(), Failure> {
    if Policy::NAMES.contains(&name) {
        return Ok(());
    }
    Err(Failure::unknown(format!("there is no precision `{name}`"), name, &Policy::NAMES))
}

/// An error unless there are precisions of all these names.
pub fn known_precisions<'n>(names: impl IntoIterator<Item = &'n String>) -> Result<(), Failure> {
    names.into_iter().try_for_each(|name| known_precision(name))
}

/// An error unless the engine runs these precisions as the recipe has them.
pub fn check_supported(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
) -> Result<(), Failure> {
    for name in policies {
        let (policy, _) = experiment.session_spec(name, experiment.recipe.seed)?;
        engine.target().supports(&policy)?;
    }
    Ok(())
}

/// Loads data and builds the model.
pub fn prepare(recipe: Recipe) -> Result<Experiment, Failure> {
    let experiment = progress::during("loading data", || recipe.prepare())?;
    experiment.data.notes.iter().for_each(output::note);
    // Weights and two moments in f32; what else a step needs is known once it is planned.
    machine::check_memory("training this model", parameters(&experiment)?.saturating_mul(12))?;
    if let Some(few) = few_to_choose_by(&experiment) {
        output::warning(few);
    }
    Ok(experiment)
}

/// Targets below which what is chosen by them is chosen largely by chance: an accuracy of 100
/// answers is known to about ± 10 points.
const FEW: usize = 100;

/// What is to be said of validation data that are too few.
fn few_to_choose_by(experiment: &Experiment) -> Option<String> {
    let part = experiment.data.validation.as_ref()?;
    let targets = part.len() * experiment.info.input.labels_per_sample();
    (targets < FEW).then(|| {
        // Half the width of a 95 % interval, for an accuracy of one half.
        let points = 98.0 / (targets as f64).sqrt();
        let more = match experiment.recipe.data.has_validation() {
            true => "Put more samples into `validation_path`".to_owned(),
            false => format!(
                "Set aside more of the {} train samples with `validation_fraction`",
                units::count((experiment.info.train_samples + part.len()) as u64)
            ),
        };
        format!(
            "models are chosen by {targets} validation samples, whose accuracy is known to about ± {points:.0} points: \
             what is chosen is chosen largely by chance. {more}, or choose nothing (no `patience`, no `keep_best`)"
        )
    })
}

/// The model in words.
pub fn describe_model(experiment: &Experiment) -> String {
    describe_spec(&experiment.recipe.model)
}

/// A model of these sizes in words.
pub fn describe_spec(spec: &ModelSpec) -> String {
    let list = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
    match spec {
        ModelSpec::Mlp(m) if m.hidden.is_empty() => "linear model".into(),
        ModelSpec::Mlp(m) if m.hidden.len() > 4 && m.hidden.windows(2).all(|w| w[0] == w[1]) => {
            format!("mlp {} layers × {}", m.hidden.len(), m.hidden[0])
        }
        ModelSpec::Mlp(m) => format!("mlp {}", list(&m.hidden)),
        ModelSpec::Cnn(m) => format!("cnn {}, hidden {}", list(&m.channels), m.hidden),
        ModelSpec::Resnet18(m) => format!("resnet18, width {}", m.width),
        ModelSpec::Gpt(m) => format!("gpt {} layers × {}", m.layers, m.width),
    }
}

/// The form of a sample in words.
fn describe_sample(input: &InputSpec) -> String {
    match *input {
        InputSpec::Features { width } => format!("{width} numbers each"),
        InputSpec::Image { height, width, channels: 1 } => format!("{height}×{width} gray"),
        InputSpec::Image { height, width, .. } => format!("{height}×{width} colour"),
        InputSpec::Tokens { length, vocab } => format!("windows of {length} tokens out of {vocab}"),
    }
}

/// The data in words.
pub fn describe_data(experiment: &Experiment) -> String {
    use halfstep::data::DataSpec;
    let name = match &experiment.recipe.data {
        DataSpec::Bundled(bundled) => bundled.name().to_string(),
        DataSpec::Idx(_) => "IDX images".into(),
        DataSpec::Images(images) => file_name(&images.path),
        DataSpec::Csv(csv) => file_name(&csv.path),
        DataSpec::Text(text) => file_name(&text.path),
    };
    let info = &experiment.info;
    let (train, test) = (units::count(info.train_samples as u64), units::count(info.test_samples as u64));
    let validation = experiment.data.validation.as_ref();
    let validation = validation
        .map_or_else(String::new, |part| format!("{} validation, ", units::count(part.len() as u64)));
    format!("{name} ({train} train, {validation}{test} test samples; {})", describe_sample(&experiment.input))
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// Recipe, data and model, as the first lines about an experiment.
pub fn about(experiment: &Experiment) -> Result<Vec<(&'static str, String)>, Failure> {
    let parameters = units::count(parameters(experiment)? as u64);
    Ok(vec![
        ("recipe", experiment.recipe.name.clone()),
        ("data", describe_data(experiment)),
        ("model", format!("{}, {parameters} parameters", describe_model(experiment))),
    ])
}

/// Trained numbers of the model.
pub fn parameters(experiment: &Experiment) -> Result<usize, Failure> {
    parameter_count(experiment.model.as_ref(), &experiment.input)
        .map_err(|e| Failure::failed(format!("the model cannot be built: {e}")))
}
