//! What goes to which server, and what is remembered of it in the run directory.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use halfstep::train::run_dir::{self, RunDir};
use halfstep_track::exporter::{Keep, Notes, Service};
use halfstep_track::now;

use super::Trackers;

/// What MLflow has got of the run.
#[cfg(feature = "mlflow")]
pub const MLFLOW: &str = "mlflow.json";
/// What the collector has got of the run.
#[cfg(feature = "otel")]
pub const OTLP: &str = "otlp.json";

/// A log with the server it goes to.
pub struct LogExport {
    /// What the server is called.
    pub name: &'static str,
    /// The log.
    pub log: PathBuf,
    /// The server.
    pub service: Box<dyn Service>,
    /// What has arrived.
    pub notes: Notes,
    /// Where that is noted.
    pub keep: Keep,
}

/// The notes of an earlier exporter.
fn before(dir: &RunDir, file: &str) -> Option<Notes> {
    dir.read_json(file).ok()
}

/// The notes of an earlier exporter to this server, or new ones.
fn notes(dir: &RunDir, file: &str, url: &str) -> Notes {
    before(dir, file).filter(|notes| notes.url == url).unwrap_or_else(|| Notes::new(url))
}

/// The URL of the server that the run was sent to before.
pub fn url(dir: &RunDir, file: &str) -> Option<String> {
    before(dir, file).map(|notes| notes.url)
}

fn keep(dir: &RunDir, file: &'static str) -> Keep {
    let dir = dir.clone();
    Box::new(move |notes| dir.write_json(file, notes).map_err(std::io::Error::other))
}

/// All that is to be sent of a run.
pub fn log_exports(dir: &RunDir, trackers: &Trackers, recipe: &str) -> Vec<LogExport> {
    let mut log_exports = Vec::new();
    let _ = recipe;
    #[cfg(feature = "mlflow")]
    if let Some(url) = &trackers.mlflow {
        let notes = notes(dir, MLFLOW, url);
        // By the command line, the recipe or the environment, else as before, else by the recipe's
        // name.
        let before = notes.service.get("name").and_then(serde_json::Value::as_str).map(str::to_string);
        let experiment = trackers.experiment.clone().or(before).unwrap_or_else(|| recipe.to_string());
        let about = mlflow::about(dir, experiment);
        let service = mlflow::service(dir, url, about, &notes);
        let log = dir.file(run_dir::METRICS);
        log_exports.push(LogExport { name: "MLflow", log, service, notes, keep: keep(dir, MLFLOW) });
    }
    #[cfg(feature = "otel")]
    if let Some(url) = &trackers.otlp {
        let var = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
        let headers = var("OTEL_EXPORTER_OTLP_HEADERS", "");
        let name = var("OTEL_SERVICE_NAME", "halfstep");
        let service = Box::new(halfstep_track::otlp::Otlp::new(url, &headers, &name));
        let log = dir.file(super::spans::SPANS);
        let notes = notes(dir, OTLP, url);
        log_exports.push(LogExport { name: "OpenTelemetry", log, service, notes, keep: keep(dir, OTLP) });
    }
    log_exports
}

#[cfg(feature = "mlflow")]
mod mlflow {
    use super::*;
    use crate::cli::track::curves::Curves;
    use halfstep::train::recipe::Recipe;
    use halfstep_track::mlflow::{About, Credentials, Mlflow};

    /// What there is to say of a run.
    pub fn about(dir: &RunDir, experiment: String) -> About {
        let name = dir.path().canonicalize().unwrap_or_else(|_| dir.path().to_path_buf());
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(dir.file(run_dir::RECIPE)).unwrap_or_default();
        let mut parameters = Vec::new();
        flatten("", toml::Value::Table(text.parse().unwrap_or_default()), &mut parameters);
        parameters.retain(|(key, _)| !key.starts_with("track."));
        parameters.push(("halfstep.version".into(), env!("CARGO_PKG_VERSION").into()));
        // A run that is sent long after it was made began when its first files were written.
        let made = std::fs::metadata(dir.file(run_dir::RECIPE)).and_then(|m| m.modified()).ok();
        let made = made.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let files = [run_dir::RECIPE, run_dir::PLAN, run_dir::PREPROCESSING].map(|name| dir.file(name));
        About {
            experiment,
            name,
            began: made.map_or_else(now, |t| t.as_secs_f64()),
            key: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            parameters,
            files: files.to_vec(),
        }
    }

    /// The run on the server.
    pub fn service(dir: &RunDir, url: &str, about: About, notes: &Notes) -> Box<dyn Service> {
        let batch = Recipe::read(&dir.file(run_dir::RECIPE)).map_or(0, |recipe| recipe.train.batch);
        let mut curves = Curves::new(batch, 0);
        let read = Box::new(move |line: &str| curves.of_line(line));
        Box::new(Mlflow::new(url, &Credentials::from_environment(), about, &notes.service, read))
    }

    /// Every setting by its path, such as `train.batch`, in characters that MLflow takes.
    fn flatten(path: &str, value: toml::Value, into: &mut Vec<(String, String)>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let plain =
                        |c: char| if c.is_ascii_alphanumeric() || "_-. ".contains(c) { c } else { '_' };
                    let key: String = key.chars().map(plain).collect();
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    flatten(&path, value, into);
                }
            }
            toml::Value::String(text) => into.push((path.to_string(), text)),
            value => into.push((path.to_string(), value.to_string())),
        }
    }
}
