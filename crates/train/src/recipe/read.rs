//! From text to a recipe, with the place of everything that can be wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use halfstep_data::{DataSpec, nearest, printable};
use halfstep_graph::precision::Policy;
use halfstep_nn::ModelSpec;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::error::RecipeError;
use super::evidence::EvidenceSettings;
use super::policy::PolicySettings;
use super::settings::{
    CheckpointSettings, CompareSettings, CostSettings, DoctorSettings, Length, PrecisionSettings,
    PrecisionTable, TrackSettings, TrainSettings, TrainTable, VALIDATION_FRACTION,
};
use super::source::RecipeText;
use super::{Recipe, SECTIONS, name};
use crate::optimiser::Optimiser;
use crate::scaler::LossScale;
use crate::schedule::Schedule;
use crate::setting::{SettingError, positive_in_f32};
use crate::step_options::StepOptions;

/// A section that is being read: its table, less what was taken out.
struct Section<'i> {
    name: String,
    table: DeTable<'i>,
    span: Range<usize>,
}

impl<'i> Section<'i> {
    fn deserialise<T: Deserialize<'i>>(self) -> Result<T, RecipeError> {
        let value = Spanned::new(self.span.clone(), DeValue::Table(self.table));
        T::deserialize(ValueDeserializer::from(value))
            .map_err(|e| explain(e.message(), e.span().unwrap_or(self.span)))
    }

    /// Takes out a section inside this one.
    fn take_section(&mut self, key: &str, expected: &str) -> Result<Option<Section<'i>>, RecipeError> {
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            let error = RecipeError::new(format!("`{key}` is not a section"));
            return Err(error.at(span, format!("expected {expected}")));
        };
        Ok(Some(Section { name: format!("{}.{key}", self.name), table, span }))
    }

    /// Takes out `kind`, one of `kinds`.
    fn kind(&mut self, kinds: &[&'static str]) -> Result<&'static str, RecipeError> {
        let all = quoted(kinds);
        let Some(value) = self.table.remove("kind") else {
            let message = format!("[{}] has no `kind`", self.name);
            return Err(RecipeError::new(message)
                .at(self.span.clone(), "this section")
                .help(format!("add kind = {all}")));
        };
        let span = value.span();
        let Some(given) = value.get_ref().as_str() else {
            let message = format!(
                "`kind` of [{}] is {}, expected text",
                self.name,
                indefinite(value.get_ref().type_str())
            );
            return Err(RecipeError::new(message).at(span, format!("expected {all}")));
        };
        kinds.iter().find(|&&k| k == given).copied().ok_or_else(|| {
            let message = format!("[{}] cannot be of kind \"{given}\"", self.name);
            RecipeError::new(message)
                .at(span, format!("expected {all}"))
                .help(meant(nearest(given, kinds.iter().copied())))
        })
    }
}

/// An error if a key or section at the top of a recipe is not known.
pub(super) fn check_names(root: &DeTable<'_>) -> Result<(), RecipeError> {
    for (key, value) in root.iter() {
        let name: &str = key.get_ref();
        if matches!(name, "name" | "seed") {
            continue;
        }
        if !SECTIONS.contains(&name) {
            let known = || ["name", "seed"].into_iter().chain(SECTIONS);
            let what = if value.get_ref().is_table() { "section" } else { "key" };
            let list: Vec<String> = known().map(|k| format!("`{k}`")).collect();
            let error = RecipeError::new(format!("unknown {what} `{name}`"));
            let error = error.at(key.span(), format!("expected one of {}", list.join(", ")));
            return Err(error.help(meant(nearest(name, known()))));
        }
        if name != "ablation" && !value.get_ref().is_table() {
            let found = indefinite(value.get_ref().type_str());
            let error = RecipeError::new(format!("`{name}` is {found}, expected a section"));
            return Err(error.at(value.span(), format!("expected [{name}] on a line of its own")));
        }
    }
    Ok(())
}

/// Reads what the text was parsed to, but for the ablation.
pub(super) fn read(mut root: DeTable<'_>, source: &RecipeText, base: &Path) -> Result<Recipe, RecipeError> {
    let mut section = |name: &str| -> Option<Section<'_>> {
        let (key, value) = root.remove_entry(name)?;
        match value.into_inner() {
            DeValue::Table(table) => Some(Section { name: name.to_string(), table, span: key.span() }),
            _ => None,
        }
    };
    let mut required = |name: &str, what: &str| {
        let missing = || {
            source.own(RecipeError::new(format!("the section [{name}] is missing")).help(what.to_string()))
        };
        section(name).ok_or_else(missing)
    };
    let data = data(
        required("data", "it says what to train on, such as kind = \"bundled\", name = \"fashion-mnist\"")?,
        source,
    )?;
    let model = model(required("model", "it says what to train, such as kind = \"cnn\"")?)?;
    let train = train(required("train", "it says how long, such as epochs = 3 and batch = 64")?, source)?;
    let optimiser = section("optimiser").map_or(Ok(Optimiser::default()), |s| optimiser(s, source))?;
    train.options.check_rates(optimiser.lr()).map_err(|e| setting("train", &e, source))?;
    let schedule = section("schedule").map_or(Ok(Schedule::default()), schedule)?;
    let checkpoint = settings(section("checkpoint"), CheckpointSettings::validate, source)?;
    let (train, checkpoint) = choosing(train, checkpoint, &data);
    let doctor = settings(section("doctor"), DoctorSettings::validate, source)?;
    let track = settings(section("track"), TrackSettings::validate, source)?;
    let precision =
        section("precision").map_or(Ok(PrecisionSettings::default()), |s| precision(s, source))?;
    let compare = settings(section("compare"), CompareSettings::validate, source)?;
    check_policy(("compare", "reference"), &compare.reference, source)?;
    let evidence = section("evidence").map_or(Ok(EvidenceSettings::default()), |s| evidence(s, source))?;
    let cost = settings(section("cost"), CostSettings::validate, source)?;

    #[derive(Deserialize)]
    struct Top {
        name: Option<String>,
        #[serde(default)]
        seed: u64,
    }
    let top: Top = Section { name: String::new(), table: root, span: 0..0 }.deserialise()?;
    let stem = || Path::new(source.name()).file_stem().map(|s| s.to_string_lossy().into_owned());
    let name = match top.name {
        Some(name) if name::is_name(&name) => name,
        Some(name) => {
            let message = format!("the name `{}` cannot name a folder", printable(&name));
            let expected = "expected a name in one line, without `/` and `\\`, that does not begin with `.`";
            return Err(source.wrong("name", None, &message, expected));
        }
        None => name::of_file(&stem().unwrap_or_default()),
    };
    Ok(Recipe {
        name,
        seed: top.seed,
        data,
        model,
        optimiser,
        schedule,
        train,
        checkpoint,
        doctor,
        track,
        precision,
        compare,
        evidence,
        cost,
        ablation: Vec::new(),
        base: base.to_path_buf(),
        source: source.clone(),
    })
}

/// What is chosen needs data to choose by, and where there are such, the best checkpoint is kept.
fn choosing(
    mut train: TrainSettings,
    mut checkpoint: CheckpointSettings,
    data: &DataSpec,
) -> (TrainSettings, CheckpointSettings) {
    if checkpoint.keep_best.is_some_and(|best| best > 0) {
        train.validation_fraction.get_or_insert(VALIDATION_FRACTION);
    }
    let there_are = train.validation_fraction.is_some() || data.has_validation();
    checkpoint.keep_best.get_or_insert(usize::from(there_are));
    (train, checkpoint)
}

/// A section of settings; where it is not written, what they are by default.
fn settings<'i, T: Default + Deserialize<'i>>(
    section: Option<Section<'i>>,
    validate: fn(&T) -> Result<(), SettingError>,
    source: &RecipeText,
) -> Result<T, RecipeError> {
    let Some(section) = section else { return Ok(T::default()) };
    let name = section.name.clone();
    let settings = section.deserialise()?;
    validate(&settings).map_err(|e| setting(&name, &e, source))?;
    Ok(settings)
}

fn data(section: Section<'_>, source: &RecipeText) -> Result<DataSpec, RecipeError> {
    let Section { name, table, .. } = section;
    DataSpec::read(table).map_err(|e| {
        if let Some(span) = e.wrong_type {
            return explain(&e.message, span);
        }
        let at_key = e.key.as_ref().and_then(|key| source.place(&format!("{name}.{key}")));
        let span = match at_key {
            Some(place) => Some(place.key.start..place.value.end),
            None => source.place(&name).map(|place| place.key.clone()),
        };
        RecipeError::new(e.to_string()).at(span.unwrap_or_default(), "here")
    })
}

fn model(mut section: Section<'_>) -> Result<ModelSpec, RecipeError> {
    match section.kind(&ModelSpec::KINDS)? {
        "mlp" => section.deserialise().map(ModelSpec::Mlp),
        "cnn" => section.deserialise().map(ModelSpec::Cnn),
        "resnet18" => section.deserialise().map(ModelSpec::Resnet18),
        _ => section.deserialise().map(ModelSpec::Gpt),
    }
}

fn optimiser(mut section: Section<'_>, source: &RecipeText) -> Result<Optimiser, RecipeError> {
    let optimiser = match section.kind(&Optimiser::KINDS)? {
        "adamw" => Optimiser::AdamW(section.deserialise()?),
        _ => Optimiser::Sgd(section.deserialise()?),
    };
    optimiser.validate().map_err(|e| setting("optimiser", &e, source))?;
    Ok(optimiser)
}

fn schedule(mut section: Section<'_>) -> Result<Schedule, RecipeError> {
    match section.kind(&Schedule::KINDS)? {
        "constant" => section.deserialise().map(Schedule::Constant),
        "linear" => section.deserialise().map(Schedule::Linear),
        "onecycle" => section.deserialise().map(Schedule::OneCycle),
        _ => section.deserialise().map(Schedule::Cosine),
    }
}

fn evidence(mut section: Section<'_>, source: &RecipeText) -> Result<EvidenceSettings, RecipeError> {
    let foreign = section.take_section("foreign", "[evidence.foreign] with a kind and a path")?;
    let foreign = foreign.map(|section| data(section, source)).transpose()?;
    let settings = EvidenceSettings { foreign, ..section.deserialise()? };
    settings.validate().map_err(|e| setting("evidence", &e, source))?;
    Ok(settings)
}

fn train(section: Section<'_>, source: &RecipeText) -> Result<TrainSettings, RecipeError> {
    let t: TrainTable = section.deserialise()?;
    let wrong = |key, message: &str, label: &str| Err(source.wrong("train", key, message, label));
    let length = match (t.epochs, t.steps) {
        (Some(epochs), None) => Length::Epochs(epochs),
        (None, Some(steps)) => Length::Steps(steps),
        (Some(_), Some(_)) => {
            return wrong(Some("steps"), "both `epochs` and `steps` are given", "keep one of them");
        }
        (None, None) => {
            return wrong(
                None,
                "neither `epochs` nor `steps` is given",
                "expected one of them in this section",
            );
        }
    };
    let zeros = [
        ("epochs", t.epochs == Some(0)),
        ("steps", t.steps == Some(0)),
        ("batch", t.batch == 0),
        ("skip_limit", t.skip_limit == Some(0)),
        ("evaluate_every", t.evaluate_every == Some(0)),
        ("patience", t.patience == Some(0)),
    ];
    if let Some((key, _)) = zeros.into_iter().find(|(_, is_zero)| *is_zero) {
        return wrong(Some(key), &format!("`{key}` is 0"), "expected at least 1");
    }
    if t.clip.is_some_and(|c| !positive_in_f32(c)) {
        let message = "`clip` is not a number above 1e-45 and below 3.4e38";
        return wrong(Some("clip"), message, "leave it out for no clipping");
    }
    let inside = |x: f64| x > 0.0 && x < 1.0;
    if t.validation_fraction.is_some_and(|x| !inside(x)) {
        let message = "`validation_fraction` is not between 0 and 1, both excluded";
        return wrong(Some("validation_fraction"), message, "leave it out where nothing is chosen");
    }
    let TrainTable { batch, clip, evaluate_every, patience, memory_budget, ema, groups, reduce, .. } = t;
    let validation_fraction = t.validation_fraction.or(patience.map(|_| VALIDATION_FRACTION));
    let (skip_limit, accumulate) = (t.skip_limit.unwrap_or(25), t.accumulate.unwrap_or(1));
    let options = StepOptions { accumulate, average: ema, groups, reduce };
    options.validate(batch).map_err(|e| setting("train", &e, source))?;
    Ok(TrainSettings {
        length,
        batch,
        clip,
        skip_limit,
        evaluate_every,
        patience,
        validation_fraction,
        memory_budget,
        options,
    })
}

fn precision(mut section: Section<'_>, source: &RecipeText) -> Result<PrecisionSettings, RecipeError> {
    let expected = "{ kind = \"off\" }, \"static\" or \"dynamic\"";
    let loss_scale = match section.take_section("loss_scale", expected)? {
        None => None,
        Some(mut inner) => {
            let scale = match inner.kind(&LossScale::KINDS)? {
                "off" => {
                    #[derive(Deserialize)]
                    #[serde(deny_unknown_fields)]
                    struct Nothing {}
                    inner.deserialise::<Nothing>().map(|_| LossScale::Off)?
                }
                "static" => LossScale::Static(inner.deserialise()?),
                _ => LossScale::Dynamic(inner.deserialise()?),
            };
            scale.validate().map_err(|e| setting("precision.loss_scale", &e, source))?;
            Some(scale)
        }
    };
    let mut of_policies = BTreeMap::new();
    for name in Policy::NAMES {
        let Ok(policy) = Policy::named(name) else { continue };
        let expected = format!("a section, such as [precision.{name}] with moments = \"bf16\"");
        let Some(inner) = section.take_section(name, &expected)? else { continue };
        let path = inner.name.clone();
        let settings: PolicySettings = inner.deserialise()?;
        settings.apply(policy).map_err(|e| setting(&path, &e, source))?;
        of_policies.insert(name.to_string(), settings);
    }
    let PrecisionTable { policy, policies, overrides, .. } = section.deserialise()?;
    let default = PrecisionSettings::default();
    let (policy, policies) = (policy.unwrap_or(default.policy), policies.unwrap_or(default.policies));
    check_policy(("precision", "policy"), &policy, source)?;
    if policies.is_empty() {
        let message = "`policies` is empty";
        return Err(source.wrong("precision", Some("policies"), message, "expected at least one precision"));
    }
    for (i, policy) in policies.iter().enumerate() {
        check_policy(("precision", "policies"), policy, source)?;
        if policies[..i].contains(policy) {
            let message = format!("`policies` names \"{policy}\" twice");
            return Err(source.wrong("precision", Some("policies"), &message, "once is enough"));
        }
    }
    Ok(PrecisionSettings { policy, policies, loss_scale, overrides, of_policies })
}

fn check_policy((section, key): (&str, &str), name: &str, source: &RecipeText) -> Result<(), RecipeError> {
    if Policy::NAMES.contains(&name) {
        return Ok(());
    }
    let message = format!("there is no precision \"{name}\"");
    let error = source.wrong(section, Some(key), &message, &format!("expected {}", quoted(&Policy::NAMES)));
    Err(error.help(meant(nearest(name, Policy::NAMES))))
}

/// A setting out of range, at its place.
pub(crate) fn setting(section: &str, e: &SettingError, source: &RecipeText) -> RecipeError {
    let message = format!("`{}` of [{section}] is {}", e.field, e.found);
    source.wrong(section, Some(e.field), &message, &format!("expected {}", e.expected))
}

/// What serde says, in the words of someone who writes recipes.
fn explain(message: &str, span: Range<usize>) -> RecipeError {
    let mut names = message.split('`').skip(1).step_by(2);
    let first = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let list = || known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    if message.starts_with("unknown field") {
        let label = match known.len() {
            0 => "there are no keys here".into(),
            1 => format!("the only key here is {}", list()),
            _ => format!("expected one of {}", list()),
        };
        return RecipeError::new(format!("unknown key `{first}`"))
            .at(span, label)
            .help(meant(nearest(first, known)));
    }
    if message.starts_with("unknown variant") {
        let label = format!("expected {}", quoted(&known));
        return RecipeError::new(format!("\"{first}\" is not possible here"))
            .at(span, label)
            .help(meant(nearest(first, known)));
    }
    if message.starts_with("missing field") {
        return RecipeError::new(format!("the key `{first}` is missing")).at(span, "in this section");
    }
    let Some((found, expected)) = message.split_once(", expected ") else {
        return RecipeError::new(message).at(span, "here");
    };
    let found = found
        .strip_prefix("invalid type: ")
        .or_else(|| found.strip_prefix("invalid value: "))
        .unwrap_or(found);
    let found =
        found.replace("floating point", "number").replace("string", "text").replace("sequence", "list");
    let expected = match expected.trim() {
        "usize" | "u64" | "u32" => "a whole number of at least 0",
        "f64" => "a number",
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in square brackets",
        "a character" => "one character in quotes",
        "path string" => "a path in quotes",
        other => other,
    };
    RecipeError::new(format!("wrong type: {found}, expected {expected}"))
        .at(span, format!("expected {expected}"))
}

pub(super) fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("did you mean `{name}`?")).unwrap_or_default()
}

/// `"a", "b" or "c"`.
fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

fn indefinite(toml_type: &str) -> String {
    match toml_type {
        "string" => "text".into(),
        "float" => "a number".into(),
        "integer" => "a whole number".into(),
        "array" => "a list".into(),
        "boolean" => "true or false".into(),
        "table" => "a section".into(),
        other => format!("a {other}"),
    }
}
