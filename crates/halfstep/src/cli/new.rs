//! `halfstep new`: a recipe for a person's own data.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use halfstep::data::{
    ColumnKind, DataSpec, Found, InputShape, Inspection, inspect, inspect_table, shown_name,
};
use halfstep::evidence::units;
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::write_whole;

use super::args::New;
use super::failure::Failure;
use super::{output, progress};

/// Runs the command.
pub fn run(args: New) -> Result<ExitCode, Failure> {
    output::may_write(&args.output, args.force)?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Failure::of_file(path, &e));
    let (path, recipe_path) = (absolute(&args.path)?, absolute(&args.output)?);
    let folder = recipe_path.parent().unwrap_or(Path::new("/"));
    let looked_at = |path: &Path| match &args.target {
        Some(target) if path.is_file() => inspect_table(path, Some(target)),
        _ => inspect(path),
    };
    let mut inspection = progress::during("looking at the data", || looked_at(&path))?;
    if args.target.is_some() && !matches!(inspection.found, Found::Csv { .. }) {
        return Err(Failure::asked("--target is for CSV files", "leave it out"));
    }
    let spec = inspection.spec_relative_to(folder);
    let data = halfstep::data::load(&spec, folder)?;
    let new = data.notes.iter().filter(|note| !inspection.notes.contains(note)).cloned().collect::<Vec<_>>();
    inspection.notes.extend(new);
    let info = data.info();
    let name = path.file_stem().map_or_else(|| "data".into(), |n| plain(&n.to_string_lossy()));
    let plan = Plan::fitting(info.input, info.outputs, info.train_samples);
    let text = compose(&name, &inspection, spec, &plan)?;
    // Loaded as `train` will load it: what is written is known to run.
    Recipe::parse(&args.output.display().to_string(), &text, folder)?.prepare()?;
    write_whole(&args.output, text.as_bytes())?;

    for line in describe(&inspection) {
        output::line(&line);
    }
    output::raw(&output::bullets(&inspection.notes));
    output::line(&format!(
        "\n{}: {} train and {} test samples, model {}.",
        args.output.display(),
        units::count(info.train_samples as u64),
        units::count(info.test_samples as u64),
        plan.kind
    ));
    output::line(&format!("Next: halfstep train {0}   or   halfstep compare {0}", args.output.display()));
    Ok(ExitCode::SUCCESS)
}

/// A name for a folder.
fn plain(name: &str) -> String {
    let dashed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(dashed).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "data".into() } else { name.into() }
}

/// A model and a length of training that fit the data: small enough to learn from so many samples
/// and to end in minutes.
struct Plan {
    kind: &'static str,
    model: String,
    length: String,
    batch: usize,
    warmup: u64,
    clip: bool,
}

impl Plan {
    fn fitting(input: InputShape, outputs: usize, train: usize) -> Plan {
        // At least eight batches in an epoch where there are enough samples, so that shuffling
        // means something.
        let most = match input {
            InputShape::Image { .. } => 64,
            InputShape::Features { .. } => 32,
            InputShape::Tokens { .. } => 16,
        };
        let batch = 1 << (train / 8).clamp(1, most).ilog2();
        let per_epoch = (train / batch).max(1);
        let epochs = |steps: usize| steps.div_ceil(per_epoch).clamp(3, 20);
        // A tenth of a short run, so that it is not all warm-up.
        let warmup = |epochs: usize| (epochs * per_epoch / 10).clamp(1, 50) as u64;
        match input {
            InputShape::Image { height, width, .. } => {
                let stages = (height.min(width) / 4).checked_ilog2().unwrap_or(0).min(4) as usize;
                let channels: Vec<String> = (0..stages).map(|s| (16usize << s).to_string()).collect();
                let hidden = (2 * outputs).next_power_of_two().clamp(64, 256);
                let (kind, model) = match stages {
                    0 => ("mlp", "hidden = [128]               # widths of the hidden layers".to_string()),
                    _ => (
                        "cnn",
                        format!(
                            "channels = [{}]      # one stage each, halving the image\nhidden = {hidden}",
                            channels.join(", ")
                        ),
                    ),
                };
                let epochs = epochs(600);
                let length = format!("epochs = {epochs}");
                Plan { kind, model, length, batch, warmup: warmup(epochs), clip: false }
            }
            InputShape::Features { .. } => {
                let hidden = if train < 5000 { "[64, 32]" } else { "[128, 64]" };
                let model = format!(
                    "hidden = {hidden}            # widths of the hidden layers; [] is a linear model"
                );
                let epochs = epochs(400);
                let length = format!("epochs = {epochs}");
                Plan { kind: "mlp", model, length, batch, warmup: warmup(epochs), clip: false }
            }
            InputShape::Tokens { .. } => {
                let model = "width = 128                  # numbers per token\nlayers = 4\nheads = 4\n\
                             dropout = 0.1                # of a short text, against learning it by heart";
                let length = "steps = 1000".to_string();
                Plan { kind: "gpt", model: model.into(), length, batch, warmup: 100, clip: true }
            }
        }
    }
}

/// What a key of `[data]` means, in few words.
fn meaning(key: &str) -> &'static str {
    match key {
        "test_fraction" => "held out to test on",
        "split_seed" => "which samples are held out; not changed by the run's seed",
        "limit_train" => "use at most so many train samples",
        "limit_test" => "use at most so many test samples",
        "resize" => "height and width that every image is brought to",
        "channels" => "1 is gray, 3 is colour",
        "validation_path" => "images that models are chosen by, where they are",
        "folders" => "whether the folders are classes: \"judged\" or \"classes\"",
        "flip" => "mirror train images at random",
        "crop_padding" => "shift train images by up to so many pixels at random",
        "target" => "the column to predict",
        "ignore" => "columns left out",
        "categorical" => "columns taken as categories though they look like numbers",
        "numeric" => "columns taken as numbers",
        "missing" => "what to do with missing numbers: \"mean\" or \"error\"",
        "missing_target" => "rows without a target: \"drop\" or \"error\"",
        "missing_markers" => "cells that count as missing, as empty ones do",
        "decimal" => "what stands before decimals",
        "date_order" => "which comes first in dates: \"day-month-year\" or \"month-day-year\"",
        "encoding" => "of a file that is not UTF-8",
        "delimiter" => "what parts the cells",
        "header" => "whether the first line names the columns",
        "tokenizer" => "bytes, or \"bpe\" in a build with that feature",
        "sequence" => "tokens of a window",
        _ => "",
    }
}

fn compose(name: &str, inspection: &Inspection, spec: DataSpec, plan: &Plan) -> Result<String, Failure> {
    let unwritable =
        |e: toml::ser::Error| Failure::failed(format!("the recipe cannot be written as TOML: {e}"));
    let data = toml::to_string(&BTreeMap::from([("data", spec)])).map_err(unwritable)?;
    let mut text = String::new();
    let mut comment = |line: &str| {
        // TOML allows no control characters in comments, and names may hold any.
        let line = line.replace(|c: char| c.is_control(), " ");
        for part in textwrap::wrap(&line, output::wrapped(96)) {
            text.push_str(&format!("# {part}\n"));
        }
    };
    comment(&format!("Written by `halfstep new` for {}.", inspection.path.display()));
    for line in describe(inspection) {
        comment(&line);
    }
    for note in &inspection.notes {
        comment(&format!("- {note}"));
    }
    let _ = write!(text, "\nname = \"{name}\"\nseed = 0\n\n");
    // Names with line ends are written in several lines, which take no remarks.
    let several_lines = data.contains("\"\"\"") || data.contains("'''");
    for line in data.lines() {
        let key = line.split_once(" = ").filter(|_| !several_lines).map(|(key, _)| key);
        let meaning = key.map(meaning).filter(|m| !m.is_empty());
        let _ = match meaning {
            Some(meaning) => writeln!(text, "{line:<28} # {meaning}"),
            None => writeln!(text, "{line}"),
        };
    }
    let Plan { kind, model, length, batch, warmup, clip } = plan;
    let clip = if *clip { "clip = 1.0                   # largest norm of the gradients\n" } else { "" };
    let _ = write!(
        text,
        "\n[model]\nkind = \"{kind}\"\n{model}\n\n\
         [optimiser]\nkind = \"adamw\"\nlr = 0.001\n\n\
         [schedule]\nkind = \"cosine\"\nwarmup = {warmup}                  # steps over which the learning rate rises\n\n\
         [train]\n{length}\nbatch = {batch}\n{clip}\n\
         [precision]\npolicy = \"bf16\"              # what `halfstep train` uses: fp32, bf16, fp16, fp8 and others\n\n\
         [compare]\nseeds = 3                    # runs per precision for `halfstep compare`\n\
         margin = 0.01                # loss of accuracy that counts as none\n"
    );
    Ok(text)
}

fn describe(inspection: &Inspection) -> Vec<String> {
    let count = |n: usize| units::count(n as u64);
    let some = |classes: &[(String, usize)]| {
        let mut names: Vec<String> =
            classes.iter().take(12).map(|(c, n)| format!("{} ({})", shown_name(c), count(*n))).collect();
        if classes.len() > 12 {
            names.push(format!("and {} more", classes.len() - 12));
        }
        names.join(", ")
    };
    match &inspection.found {
        Found::Images { classes, test_images, smallest, greatest, gray, .. } => {
            let all: usize = classes.iter().map(|c| c.1).sum();
            let size = if smallest == greatest {
                format!("{}×{}", smallest.0, smallest.1)
            } else {
                format!("{}×{} to {}×{}", smallest.0, smallest.1, greatest.0, greatest.1)
            };
            let colour = match *gray {
                0 => "colour",
                gray if gray >= all => "gray",
                _ => "gray and colour",
            };
            let test = test_images.map_or_else(String::new, |n| format!(" and {} test images", count(n)));
            vec![
                format!("{} images{test} ({size}, {colour}) in {} classes.", count(all), classes.len()),
                format!("Classes: {}.", some(classes)),
            ]
        }
        Found::Idx { shape, classes, test_images } => {
            let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
            let test = test_images.map_or_else(String::new, |n| format!(", {} test images", count(n)));
            vec![
                format!("IDX images of shape {}{test}, {} classes.", shape.join("×"), classes.len()),
                format!("Classes: {}.", some(classes)),
            ]
        }
        Found::Csv { rows, columns, target, classes } => {
            let kind = |f: fn(&ColumnKind) -> bool| columns.iter().filter(|c| f(&c.kind)).count();
            let numeric = kind(|k| matches!(k, ColumnKind::Numeric { .. }));
            let categorical = kind(|k| matches!(k, ColumnKind::Categorical { .. }));
            vec![
                format!("{} rows; {numeric} columns of numbers, {categorical} of categories.", count(*rows)),
                format!("Target `{target}`: {}.", some(classes)),
            ]
        }
        Found::Text { bytes, lines, characters } => vec![format!(
            "Text of {} in {} lines, {characters} different characters.",
            units::bytes(*bytes),
            count(*lines)
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_small_for_small_data() {
        let image = InputShape::Image { height: 28, width: 28, channels: 1 };
        let plan = Plan::fitting(image, 10, 10_000);
        assert_eq!((plan.kind, plan.batch), ("cnn", 64));
        assert!(plan.model.starts_with("channels = [16, 32]"), "{}", plan.model);
        assert_eq!(Plan::fitting(image, 2, 5).batch, 1);
        assert_eq!(Plan::fitting(InputShape::Image { height: 6, width: 6, channels: 1 }, 2, 100).kind, "mlp");
        assert_eq!(Plan::fitting(InputShape::Features { count: 4 }, 2, 800).batch, 32);
        // Two rows: 20 epochs of two steps of one row.
        assert_eq!(Plan::fitting(InputShape::Features { count: 4 }, 2, 2).warmup, 4);
        assert_eq!(Plan::fitting(InputShape::Features { count: 4 }, 2, 40_000).warmup, 50);
        assert_eq!(Plan::fitting(InputShape::Tokens { sequence: 64 }, 256, 40).batch, 4);
    }

    #[test]
    fn names_are_fit_for_folders() {
        assert_eq!(plain("My Photos (2024)"), "my-photos--2024");
        assert_eq!(plain("..."), "data");
    }
}
