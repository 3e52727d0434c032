//! `halfstep predict`: classes of images and table rows, scores of texts.

mod known;
mod scores;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::data::{Pictures, Preprocessing, TableEncoder, pictures};
use halfstep::evidence::units;
use halfstep::graph::engine::HostSlice;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::Predict;
use super::failure::Failure;
use super::open::Opened;
use super::output;
use super::output::Messages;
use known::Known;

/// Samples predicted at a time: enough to keep the processor busy, few enough to need little
/// memory.
const CHUNK: usize = 64;

/// Where a sample is from.
#[derive(Clone)]
struct Origin {
    input: String,
    /// Row of a table, counted from 1, and its line in the file.
    row: Option<(usize, u64)>,
    /// Its cells in the columns of `--id`.
    ids: Vec<String>,
    /// The class that the table says it is of.
    class: Option<u32>,
}

/// A class for one sample.
#[derive(Serialize)]
struct Prediction {
    input: String,
    /// Row of a table, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<usize>,
    /// The line of the file in which the row starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    id: Map<String, Value>,
    class: String,
    probability: f64,
    /// Of the likeliest classes, likeliest first, as many as were asked for.
    top: Vec<Likely>,
}

/// A class, its logit as the model gave it, and its probability.
#[derive(Clone, Serialize)]
struct Likely {
    class: String,
    logit: f32,
    probability: f64,
}

/// Prints what `--json` asks for.
fn print_json<T: Serialize>(
    opened: &Opened,
    predictions: &[T],
    known: Option<&Known>,
) -> Result<ExitCode, Failure> {
    let (checkpoint, precision) = (&opened.checkpoint, opened.precision());
    let mut printed = json!({ "checkpoint": checkpoint, "precision": precision, "predictions": predictions });
    if let Some(known) = known {
        printed["known"] = json!(known);
    }
    output::json(&printed)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the command.
pub fn run(args: Predict, request: EngineRequest) -> Result<ExitCode, Failure> {
    let opened = Opened::open(&args.chosen)?;
    let engine = halfstep::engine(request)?;
    if !args.id.is_empty() && !matches!(opened.preprocessing, Preprocessing::Table(_)) {
        return Err(Failure::asked("--id is for models of tables", "leave it out"));
    }
    if let Preprocessing::Text(_) = &opened.preprocessing {
        if args.csv || args.top.is_some() {
            return Err(Failure::asked("--csv and --top are for models of classes", "leave them out"));
        }
        return scores::texts(&args, &opened, engine.into());
    }
    // Everything is read before anything is predicted: a bad input gives an error, not half an
    // answer.
    let (samples, origins) = read(&args, &opened)?;
    let mut predictor = opened.predictor(engine.into())?;
    // What is said of a sample then depends on no other, where the engine can do that.
    predictor.make_batch_invariant()?;
    let classes = opened.preprocessing.classes();
    let most = args.top.map_or(classes.len(), |top| top.get().min(classes.len()));
    let elements = opened.manifest.input.elements();
    let mut predictions = Vec::new();
    for (chunk, origins) in samples.chunks(CHUNK * elements).zip(origins.chunks(CHUNK)) {
        let logits = predictor.predict(HostSlice::F32(chunk))?;
        for (row, origin) in logits.chunks(classes.len()).zip(origins) {
            let likely = |(class, probability): (usize, f64)| Likely {
                class: classes[class].clone(),
                logit: row[class],
                probability,
            };
            let top: Vec<Likely> = likeliest(row).into_iter().take(most).map(likely).collect();
            let Likely { class, probability, .. } = top[0].clone();
            let ids = args.id.iter().cloned().zip(origin.ids.iter().cloned().map(Value::String));
            predictions.push(Prediction {
                input: origin.input.clone(),
                row: origin.row.map(|(row, _)| row),
                line: origin.row.map(|(_, line)| line),
                id: ids.collect(),
                class,
                probability,
                top,
            });
        }
    }
    let right = |(origin, prediction): (&Origin, &Prediction)| {
        Some(classes[origin.class? as usize] == prediction.class)
    };
    let right: Vec<Option<bool>> = origins.iter().zip(&predictions).map(right).collect();
    let known = Known::of(opened.samples()?.as_ref(), samples.chunks(elements).zip(right));
    if let Some(warning) = known.as_ref().and_then(Known::warning) {
        Messages::Stderr.say(&format!("warning: {warning}"));
    }
    if args.json {
        return print_json(&opened, &predictions, known.as_ref());
    }
    if args.csv {
        let ranked = args.top.is_some();
        output::raw(&table(&args.id, if ranked { &[] } else { classes }, &predictions)?);
        return Ok(ExitCode::SUCCESS);
    }
    let shown = args.top.map_or(1, |top| top.get());
    print_lines(&args.id, &predictions, shown);
    if let Some(known) = known {
        output::raw(&format!("\n{}", output::fields(&known.fields())));
    }
    Ok(ExitCode::SUCCESS)
}

/// The samples of all inputs, one after another, and where each is from.
fn read(args: &Predict, opened: &Opened) -> Result<(Vec<f32>, Vec<Origin>), Failure> {
    let (mut samples, mut origins) = (Vec::new(), Vec::new());
    for input in &args.inputs {
        match &opened.preprocessing {
            Preprocessing::Image(image) => {
                for path in images(input)? {
                    samples.extend(image.image_from_path(&path)?);
                    origins.push(Origin {
                        input: path.display().to_string(),
                        row: None,
                        ids: vec![],
                        class: None,
                    });
                }
            }
            Preprocessing::Table(table) => {
                for path in tables(input)? {
                    rows(table, &path, &args.id, &mut samples, &mut origins)?;
                }
            }
            Preprocessing::Text(_) => {}
        }
    }
    Ok((samples, origins))
}

fn rows(
    table: &TableEncoder,
    path: &Path,
    ids: &[String],
    samples: &mut Vec<f32>,
    origins: &mut Vec<Origin>,
) -> Result<(), Failure> {
    let rows = table.read_rows(path)?;
    let columns = ids.iter().map(|id| rows.column(id)).collect::<Result<Vec<_>, _>>()?;
    for (row, line) in rows.lines().enumerate() {
        origins.push(Origin {
            input: path.display().to_string(),
            row: Some((row + 1, line)),
            ids: columns.iter().map(|column| column[row].to_owned()).collect(),
            class: rows.classes[row],
        });
    }
    samples.extend(&rows.features);
    Ok(())
}

/// The images of an input: itself, or those in a folder, found as for training.
fn images(input: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !input.is_dir() {
        return Ok(vec![input.to_path_buf()]);
    }
    let Pictures { paths, notes } = pictures(input)?;
    notes.iter().for_each(output::note);
    if paths.is_empty() {
        return Err(Failure::asked(
            format!("{}: no PNG, JPEG or PNM images in this folder", input.display()),
            "",
        ));
    }
    Ok(paths)
}

/// A table itself, or those in a folder by their endings, in the order of their names.
fn tables(input: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !input.is_dir() {
        return Ok(vec![input.to_path_buf()]);
    }
    let unreadable = |e: std::io::Error| Failure::failed(format!("{}: cannot be read: {e}", input.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(input).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if ending.is_some_and(|e| ["csv", "tsv", "tab", "data"].contains(&e.as_str())) {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(Failure::asked(format!("{}: no tables in this folder", input.display()), ""));
    }
    Ok(paths)
}

/// Every class with its probability under softmax, likeliest first; of equals, in their order.
fn likeliest(logits: &[f32]) -> Vec<(usize, f64)> {
    let all = probabilities(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.into_iter().map(|i| (i, all[i])).collect()
}

/// Softmax of logits, of each class in their order.
pub fn probabilities(logits: &[f32]) -> Vec<f64> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps = logits.iter().map(|&l| (f64::from(l) - f64::from(greatest)).exp());
    let sum: f64 = exps.clone().sum();
    exps.map(|exp| exp / sum).collect()
}

/// A line for each sample with its likeliest classes.
fn print_lines(ids: &[String], predictions: &[Prediction], shown: usize) {
    let origin = |p: &Prediction| {
        let place = p.line.map_or(p.input.clone(), |line| format!("{}:{line}", p.input));
        let values = ids.iter().filter_map(|id| Some(format!("{id}={}", p.id.get(id)?.as_str()?)));
        std::iter::once(place).chain(values).collect::<Vec<_>>().join("  ")
    };
    let width = predictions.iter().map(|p| origin(p).chars().count()).max().unwrap_or(0);
    let classes = || predictions.iter().flat_map(|p| p.top.iter().take(shown));
    let class_width = classes().map(|l| l.class.chars().count()).max().unwrap_or(0);
    for p in predictions {
        let one =
            |l: &Likely| format!("{:<class_width$}  {:>8}", l.class, units::percent(l.probability, None));
        let top = p.top.iter().take(shown).map(one).collect::<Vec<_>>().join("  ");
        output::line(&format!("{:<width$}  {top}", origin(p)));
    }
}

/// Comma-separated values: where the sample is from, its class and probability, and then the
/// probability of each of `classes` in their order, or, without them, the other likeliest classes.
fn table(ids: &[String], classes: &[String], predictions: &[Prediction]) -> Result<String, Failure> {
    let failed = |e: csv::Error| Failure::failed(format!("the predictions cannot be written as CSV: {e}"));
    let ranks = predictions.first().map_or(1, |p| p.top.len());
    let mut header: Vec<String> = vec!["input".into(), "line".into()];
    header.extend(ids.iter().cloned());
    header.extend(["class".into(), "probability".into()]);
    if classes.is_empty() {
        header.extend((2..=ranks).flat_map(|rank| [format!("class_{rank}"), format!("probability_{rank}")]));
    } else {
        header.extend(classes.iter().map(|class| format!("probability of {class}")));
    }
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(&header).map_err(failed)?;
    for p in predictions {
        let mut record = vec![p.input.clone(), p.line.map(|line| line.to_string()).unwrap_or_default()];
        record.extend(p.id.values().filter_map(|v| v.as_str().map(str::to_owned)));
        record.extend([p.class.clone(), p.probability.to_string()]);
        if classes.is_empty() {
            record.extend(p.top.iter().skip(1).flat_map(|l| [l.class.clone(), l.probability.to_string()]));
        } else {
            let of = |class: &String| p.top.iter().find(|l| l.class == *class).map_or(0.0, |l| l.probability);
            record.extend(classes.iter().map(|class| of(class).to_string()));
        }
        out.write_record(&record).map_err(failed)?;
    }
    let bytes =
        out.into_inner().map_err(|e| Failure::failed(format!("the predictions cannot be written: {e}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_softmax() {
        let all = likeliest(&[0.0, 3.0f32.ln(), 3.0f32.ln()]);
        assert_eq!(all.iter().map(|l| l.0).collect::<Vec<_>>(), [1, 2, 0], "the first of equals first");
        // Logits rounded to f32: a relative error of about 2^-24 in each exponential.
        assert!((all[0].1 - 3.0 / 7.0).abs() < 1e-7 && (all[2].1 - 1.0 / 7.0).abs() < 1e-7, "{all:?}");
    }

    #[test]
    fn csv_has_ids_and_every_class() {
        let likely = |class: &str, probability| Likely { class: class.into(), logit: 0.0, probability };
        let prediction = Prediction {
            input: "a,b.csv".into(),
            row: Some(1),
            line: Some(2),
            id: [("key".to_owned(), Value::String("x\"1".into()))].into_iter().collect(),
            class: "tulip".into(),
            probability: 0.75,
            top: vec![likely("tulip", 0.75), likely("rosa", 0.25)],
        };
        let classes = ["rosa".to_owned(), "tulip".to_owned()];
        let ids = ["key".to_owned()];
        assert_eq!(
            table(&ids, &classes, std::slice::from_ref(&prediction)).unwrap(),
            "input,line,key,class,probability,probability of rosa,probability of tulip\n\
             \"a,b.csv\",2,\"x\"\"1\",tulip,0.75,0.25,0.75\n"
        );
        assert_eq!(
            table(&ids, &[], &[prediction]).unwrap(),
            "input,line,key,class,probability,class_2,probability_2\n\
             \"a,b.csv\",2,\"x\"\"1\",tulip,0.75,rosa,0.25\n"
        );
    }
}
