//! Runs in MLflow, over its REST API.
//!
//! Requests can be repeated without harm, as they must be when an answer is lost: a run is found
//! again by a tag with its key, and MLflow keeps one of several equal measurements, parameters or
//! files.

use std::fmt::Display;
use std::path::PathBuf;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::Scalar;
use crate::exporter::{Ending, Refusal, Service};
use crate::http::Server;

/// Parameters in a request, of which MLflow takes a hundred.
const PARAMETERS: usize = 100;
/// Characters that MLflow keeps of a parameter.
const VALUE: usize = 500;
/// Numbers in a request.
const METRICS: usize = 1000;
const JSON: &str = "application/json";
/// The tag by which a run is found again.
const KEY: &str = "halfstep.key";

/// Authentication, from the environment as in MLflow's own clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// No authentication.
    #[default]
    None,
    /// `MLFLOW_TRACKING_TOKEN`.
    Token(String),
    /// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
    Basic(String, String),
}

impl Credentials {
    /// Those in the environment; name and password have priority over a token, as in MLflow.
    pub fn from_environment() -> Credentials {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        match (var("MLFLOW_TRACKING_USERNAME"), var("MLFLOW_TRACKING_PASSWORD")) {
            (Some(name), Some(password)) => Credentials::Basic(name, password),
            _ => var("MLFLOW_TRACKING_TOKEN").map_or(Credentials::None, Credentials::Token),
        }
    }

    fn header(&self) -> Option<(String, String)> {
        let value = match self {
            Credentials::None => return None,
            Credentials::Token(token) => format!("Bearer {token}"),
            Credentials::Basic(name, password) => {
                format!("Basic {}", BASE64.encode(format!("{name}:{password}").as_bytes()))
            }
        };
        Some(("Authorization".into(), value))
    }
}

/// What MLflow records of a run besides its curves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// The experiment that the run belongs to; it is made if it is missing.
    pub experiment: String,
    /// The run's name.
    pub name: String,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// Names the run among all runs of the server.
    pub key: String,
    /// Settings. Names have letters, digits, `_`, `-`, `.`, spaces, `:` and `/`.
    pub parameters: Vec<(String, String)>,
    /// Files to keep with the run, under their own names.
    pub files: Vec<PathBuf>,
}

/// What is known of a run on the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// The run's key, so that one whose making was never confirmed is found.
    key: String,
    /// What the experiment is called: a run that is sent later belongs to the same one.
    #[serde(default)]
    name: String,
    experiment: Option<String>,
    run: Option<String>,
    /// Where MLflow keeps its files.
    artifacts: Option<String>,
    /// Whether parameters and files are there.
    described: bool,
}

/// The numbers in a line of the log, which get there in order from the first line on.
pub type Read = Box<dyn FnMut(&str) -> Vec<Scalar> + Send>;

/// A run in MLflow.
pub struct Mlflow {
    server: Server,
    about: About,
    read: Read,
    memory: Memory,
    pending: Vec<Scalar>,
}

impl Mlflow {
    /// A run on the server at `url`. `memory` is that of [`Service::memory`] in an earlier process,
    /// or null.
    pub fn new(url: &str, credentials: &Credentials, about: About, memory: &Value, read: Read) -> Mlflow {
        let server = Server::new(url, credentials.header().into_iter().collect());
        let first = || Memory { key: about.key.clone(), ..Memory::default() };
        let mut memory = Memory::deserialize(memory).unwrap_or_else(|_| first());
        memory.name.clone_from(&about.experiment);
        Mlflow { server, about, read, memory, pending: Vec::new() }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        let path = format!("/api/2.0/mlflow/{path}");
        let answer = self.server.tell(Method::POST, &path, JSON, body.to_string().as_bytes())?;
        read(&path, &answer)
    }

    fn experiment(&mut self) -> Result<String, Refusal> {
        if let Some(id) = &self.memory.experiment {
            return Ok(id.clone());
        }
        let name = percent(&self.about.experiment);
        let path = format!("/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}");
        let answer = self.server.ask(Method::GET, &path, JSON, &[])?;
        let id = match answer.status {
            200..300 => text(&path, &read(&path, &answer.body)?["experiment"], "experiment_id")?,
            404 => {
                let made = self.post("experiments/create", &json!({ "name": self.about.experiment }))?;
                text("experiments/create", &made, "experiment_id")?
            }
            _ => return Err(self.server.refusal(&path, &answer)),
        };
        self.memory.experiment = Some(id.clone());
        Ok(id)
    }

    fn run(&mut self) -> Result<String, Refusal> {
        if let Some(run) = &self.memory.run {
            return Ok(run.clone());
        }
        let experiment = self.experiment()?;
        let filter = format!("tags.`{KEY}` = '{}'", self.memory.key);
        let mut path = "runs/search";
        let mut run =
            self.post(path, &json!({ "experiment_ids": [experiment], "filter": filter }))?["runs"][0].clone();
        if run.is_null() {
            path = "runs/create";
            let body = json!({
                "experiment_id": experiment,
                "run_name": self.about.name,
                "start_time": milliseconds(self.about.began),
                "tags": [
                    { "key": KEY, "value": self.memory.key },
                    { "key": "mlflow.source.name", "value": "halfstep" },
                    { "key": "mlflow.source.type", "value": "LOCAL" },
                ],
            });
            run = self.post(path, &body)?["run"].clone();
        }
        let id = text(path, &run["info"], "run_id")?;
        self.memory.run = Some(id.clone());
        self.memory.artifacts = run["info"]["artifact_uri"].as_str().map(String::from);
        Ok(id)
    }

    /// Parameters and files.
    fn describe(&mut self, run: &str) -> Result<(), Refusal> {
        let parameter = |(key, value): &(String, String)| json!({ "key": key, "value": value.chars().take(VALUE).collect::<String>() });
        for some in self.about.parameters.chunks(PARAMETERS) {
            let params: Vec<Value> = some.iter().map(parameter).collect();
            self.post("runs/log-batch", &json!({ "run_id": run, "params": params }))?;
        }
        for file in &self.about.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let never = |e: String| Refusal::Never(format!("{}: {e}", file.display()));
            let bytes = std::fs::read(file).map_err(|e| never(e.to_string()))?;
            let uri = self.memory.artifacts.as_deref().unwrap_or_default();
            let Some(folder) = proxied(uri) else {
                return Err(never(format!(
                    "the server keeps files at `{uri}`, where only its own clients can put them; start it with --serve-artifacts"
                )));
            };
            let path = format!("/api/2.0/mlflow-artifacts/artifacts/{folder}/{}", percent(&name));
            self.server.tell(Method::PUT, &path, "application/octet-stream", &bytes)?;
        }
        Ok(())
    }

    fn update(&self, run: &str, status: &str, end: Option<f64>) -> Result<(), Refusal> {
        let end = end.map(milliseconds);
        self.post("runs/update", &json!({ "run_id": run, "status": status, "end_time": end })).map(|_| ())
    }
}

impl Service for Mlflow {
    fn open(&mut self) -> Result<(), Refusal> {
        let goes_on = self.memory.run.is_some();
        let run = self.run()?;
        if goes_on {
            self.update(&run, "RUNNING", None)?;
        }
        if !self.memory.described {
            self.describe(&run)?;
            self.memory.described = true;
        }
        Ok(())
    }

    fn read(&mut self, line: &str, arrived: bool) {
        let scalars = (self.read)(line);
        if !arrived {
            self.pending.extend(scalars);
        }
    }

    fn send(&mut self) -> Result<(), Refusal> {
        let run = self.run()?;
        for some in self.pending.chunks(METRICS) {
            let metrics: Vec<Value> = some.iter().map(metric).collect();
            self.post("runs/log-batch", &json!({ "run_id": run, "metrics": metrics }))?;
        }
        self.pending.clear();
        Ok(())
    }

    fn close(&mut self, ending: Ending, time: f64) -> Result<(), Refusal> {
        let status = match ending {
            Ending::Finished => "FINISHED",
            Ending::Failed => "FAILED",
            Ending::Stopped => "KILLED",
        };
        let run = self.run()?;
        self.update(&run, status, Some(time))
    }

    fn memory(&self) -> Value {
        serde_json::to_value(&self.memory).unwrap_or_default()
    }
}

/// A measurement as MLflow takes it. JSON has no numbers that are not finite; protocol buffers
/// write them as text.
fn metric(scalar: &Scalar) -> Value {
    let value = match scalar.value {
        v if v.is_finite() => json!(v),
        v if v.is_nan() => json!("NaN"),
        v if v > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    };
    let time = milliseconds(scalar.time);
    json!({ "key": scalar.name, "value": value, "timestamp": time, "step": scalar.step })
}

fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1e3).round() as i64
}

/// The path of a URI such as `mlflow-artifacts:/1/ab12/artifacts` or
/// `mlflow-artifacts://host:5000/1/ab12/artifacts`.
fn proxied(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
        None => rest,
    };
    Some(path.trim_matches('/'))
}

/// A text as part of a URL (RFC 3986).
fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (b as char).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

fn read(path: &str, body: &str) -> Result<Value, Refusal> {
    serde_json::from_str(body).map_err(|e| unexpected(path, e))
}

/// The text `key` of an object that the server answered with.
fn text(path: &str, object: &Value, key: &str) -> Result<String, Refusal> {
    object[key].as_str().map(String::from).ok_or_else(|| unexpected(path, format!("missing field `{key}`")))
}

fn unexpected(path: &str, why: impl Display) -> Refusal {
    Refusal::Never(format!("{path}: what the server answered is not MLflow's: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(BASE64.encode(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn artifacts_are_found_where_the_server_says() {
        assert_eq!(proxied("mlflow-artifacts:/1/ab/artifacts"), Some("1/ab/artifacts"));
        assert_eq!(proxied("mlflow-artifacts://host:5000/1/ab/artifacts"), Some("1/ab/artifacts"));
        assert_eq!(proxied("file:///var/mlruns/1/ab"), None);
    }
}
