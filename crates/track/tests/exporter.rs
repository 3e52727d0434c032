//! A exporter and servers in every state: in order, gone, hanging, in trouble, back again.

#![cfg(all(feature = "mlflow", feature = "otel"))]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use halfstep_track::exporter::{Delivered, Ending, Exporter, Keep, Notes, Refusal, Service, deliver};
use halfstep_track::mlflow::{About, Credentials, Mlflow};
use halfstep_track::otlp::{Otlp, proto::ExportTraceServiceRequest};
use halfstep_track::span::{Attribute, Span};
use halfstep_track::{Scalar, now};
use prost::Message;
use serde_json::{Value, json};

/// What a server does with the next requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// Takes requests and never answers.
    Hangs,
    Answers(u16),
    /// Makes runs and does not say so.
    LosesRuns,
}

/// A server with as much of MLflow as a exporter sees, and a collector of traces.
#[derive(Default)]
struct Seen {
    mood: Option<Mood>,
    runs: Vec<Value>,
    metrics: Vec<(String, u64, String)>,
    params: BTreeMap<String, String>,
    files: BTreeMap<String, Vec<u8>>,
    status: String,
    authorization: Option<String>,
    spans: Vec<halfstep_track::otlp::proto::Span>,
}

#[derive(Clone)]
struct Server {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    fn start(mood: Mood) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        server.is(mood);
        let seen = server.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || while serve(&stream, &seen).is_some() {});
            }
        });
        server
    }

    fn is(&self, mood: Mood) {
        self.seen.lock().unwrap().mood = Some(mood);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn serve(stream: &TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut from = BufReader::new(stream);
    let mut first = String::new();
    from.read_line(&mut first).ok().filter(|&n| n > 0)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_string()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    let mut state = seen.lock().unwrap();
    state.authorization = authorization;
    let (status, answer) = match state.mood? {
        Mood::Hangs => {
            drop(state);
            std::thread::sleep(Duration::from_secs(600));
            return None;
        }
        Mood::Answers(status) => (status, "{}".to_string()),
        Mood::Well => answered(&mut state, &method, &path, &body),
        Mood::LosesRuns => {
            let answer = answered(&mut state, &method, &path, &body);
            if path.ends_with("runs/create") {
                return None;
            }
            answer
        }
    };
    drop(state);
    let mut out = stream;
    write!(out, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()
}

fn answered(state: &mut Seen, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    if path == "/v1/traces" {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|r| r.scope_spans);
        state.spans.extend(scopes.flat_map(|s| s.spans));
        return (200, String::new());
    }
    if let Some(file) = path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
        assert_eq!(method, "PUT");
        state.files.insert(file.to_string(), body.to_vec());
        return (200, "{}".into());
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let list = |key: &str| body[key].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    let answer = match path.strip_prefix("/api/2.0/mlflow/").unwrap() {
        "experiments/get-by-name" => {
            assert_eq!(query, "experiment_name=an%20experiment");
            return (404, json!({ "error_code": "RESOURCE_DOES_NOT_EXIST" }).to_string());
        }
        "experiments/create" => json!({ "experiment_id": "7" }),
        "runs/search" => json!({ "runs": state.runs }),
        "runs/create" => {
            let uri = "mlflow-artifacts:/7/r/artifacts";
            let run =
                json!({ "info": { "run_id": format!("run{}", state.runs.len()), "artifact_uri": uri } });
            state.runs.push(run.clone());
            json!({ "run": run })
        }
        "runs/log-batch" => {
            assert_eq!(body["run_id"], "run0");
            assert!(list("metrics").len() <= 1000 && list("params").len() <= 100);
            for m in list("metrics") {
                let one = (text(&m["key"]), m["step"].as_u64().unwrap(), text(&m["value"]));
                state.metrics.push(one);
            }
            for p in list("params") {
                state.params.insert(text(&p["key"]), text(&p["value"]));
            }
            json!({})
        }
        "runs/update" => {
            state.status = text(&body["status"]);
            json!({})
        }
        other => panic!("{method} {other}"),
    };
    (200, answer.to_string())
}

/// Lines are numbers; their place is the step.
fn mlflow(url: &str, folder: &Path, notes: &Notes) -> Box<dyn Service> {
    let artifact = folder.join("plan.json");
    std::fs::write(&artifact, "{}").unwrap();
    let about = About {
        experiment: "an experiment".into(),
        name: "run".into(),
        began: now(),
        key: "k".into(),
        parameters: (0..250).map(|i| (format!("p{i}"), i.to_string())).collect(),
        files: vec![artifact],
    };
    let mut step = 0;
    let read = Box::new(move |line: &str| {
        step += 1;
        let value = line.parse().unwrap();
        vec![Scalar { name: "loss", step: step - 1, time: 1.5, value }]
    });
    Box::new(Mlflow::new(url, &Credentials::Token("secret".into()), about, &notes.service, read))
}

fn keep(folder: &Path) -> Keep {
    let path = folder.join("notes.json");
    Box::new(move |notes| std::fs::write(&path, serde_json::to_vec(notes).unwrap()))
}

fn kept(folder: &Path) -> Notes {
    serde_json::from_slice(&std::fs::read(folder.join("notes.json")).unwrap()).unwrap()
}

/// Writes a log of `lines` beside a exporter, as a run does, and ends. Returns also the time that
/// this took the writer.
fn run(url: &str, folder: &Path, lines: u64, meanwhile: impl FnOnce()) -> (Delivered, Duration) {
    let log = folder.join("log");
    let notes = Notes::new(url);
    let exporter = Exporter::start(&log, mlflow(url, folder, &notes), notes, keep(folder)).unwrap();
    let begun = Instant::now();
    let mut file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
    for i in 0..lines {
        // In pieces: a line is not sent before its end.
        write!(file, "{}", i / 10).unwrap();
        writeln!(file, ".{}", i % 10).unwrap();
    }
    let took = begun.elapsed();
    meanwhile();
    (exporter.finish(Ending::Finished, now(), Duration::from_millis(700)), took)
}

fn all_there(server: &Server, lines: u64) {
    let seen = server.seen.lock().unwrap();
    let expected: Vec<_> =
        (0..lines).map(|i| ("loss".to_string(), i, format!("{:?}", i as f64 / 10.0))).collect();
    let mut found = seen.metrics.clone();
    found.sort_by_key(|m| m.1);
    found.dedup();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.0, found.1), (&expected.0, expected.1));
        assert_eq!(found.2.parse::<f64>().unwrap(), expected.2.parse::<f64>().unwrap());
    }
    assert_eq!(seen.runs.len(), 1, "one run, however often it was asked for");
    assert_eq!(seen.params.len(), 250);
    assert_eq!(seen.files["7/r/artifacts/plan.json"], b"{}");
    assert_eq!(seen.status, "FINISHED");
    assert_eq!(seen.authorization.as_deref(), Some("Bearer secret"));
}

#[test]
fn a_server_in_order_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Well);
    let (delivered, _) = run(&server.url(), folder.path(), 3000, || {});
    assert!(delivered.complete(), "{delivered:?}");
    assert_eq!((delivered.lines, delivered.retries), (3000, 0));
    all_there(&server, 3000);
}

/// Whatever the server does, the writer is not held up, the end comes soon, and everything is sent
/// later.
#[test]
fn a_server_in_trouble_costs_nothing_and_gets_everything_later() {
    for mood in [None, Some(Mood::Hangs), Some(Mood::Answers(500)), Some(Mood::Answers(401))] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(mood.unwrap_or(Mood::Well));
        // A port that nobody listens at.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = if mood.is_some() { server.url() } else { format!("http://127.0.0.1:{gone}") };
        let begun = Instant::now();
        let (delivered, took) =
            run(&url, folder.path(), 2000, || std::thread::sleep(Duration::from_millis(300)));
        let whole = begun.elapsed();
        assert!(!delivered.complete() && delivered.missing == 2000, "{mood:?}: {delivered:?}");
        assert!(took < Duration::from_secs(2), "{mood:?}: the writer took {took:?}");
        assert!(whole < Duration::from_secs(12), "{mood:?}: the end took {whole:?}");
        match (mood, &delivered.trouble) {
            (Some(Mood::Answers(401)), Some(Refusal::Never(why))) => assert!(why.contains("401"), "{why}"),
            // Still waiting for its first answer.
            (Some(Mood::Hangs), None) => {}
            (None | Some(Mood::Answers(500)), Some(Refusal::Later(_))) => {}
            other => panic!("{other:?}"),
        }
        // Later, in another process, at a server that is back.
        server.is(Mood::Well);
        let notes = Notes { url: server.url(), ..kept(folder.path()) };
        assert_eq!(notes.ended.map(|e| e.0), Some(Ending::Finished), "the end is not forgotten");
        let service = mlflow(&server.url(), folder.path(), &notes);
        let log = folder.path().join("log");
        let later = deliver(&log, service, notes, (Ending::Stopped, 0.0), keep(folder.path()));
        assert!(later.complete(), "{mood:?}: {later:?}");
        all_there(&server, 2000);
    }
}

#[test]
fn a_server_that_comes_back_gets_everything_in_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Answers(503));
    let (delivered, _) = run(&server.url(), folder.path(), 1000, || {
        std::thread::sleep(Duration::from_millis(300));
        // The server makes the run, but its answer is lost: the run must not be made twice.
        server.is(Mood::LosesRuns);
        let made = Instant::now();
        while server.seen.lock().unwrap().runs.is_empty() && made.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(20));
        }
        server.is(Mood::Well);
        std::thread::sleep(Duration::from_secs(5));
    });
    assert!(delivered.complete() && delivered.retries >= 2, "{delivered:?}");
    all_there(&server, 1000);
}

/// A run that goes on elsewhere sends only what is new, under the same run.
#[test]
fn a_run_that_goes_on_sends_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Well);
    run(&server.url(), folder.path(), 500, || {});
    let before = server.seen.lock().unwrap().metrics.len();
    let log = folder.path().join("log");
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    (500..600).for_each(|i| writeln!(file, "{}", f64::from(i) / 10.0).unwrap());
    let notes = kept(folder.path());
    let service = mlflow(&server.url(), folder.path(), &notes);
    let exporter = Exporter::start(&log, service, notes, keep(folder.path())).unwrap();
    let delivered = exporter.finish(Ending::Finished, now(), Duration::from_secs(5));
    assert!(delivered.complete(), "{delivered:?}");
    assert_eq!(server.seen.lock().unwrap().metrics.len(), before + 100);
    all_there(&server, 600);
}

#[test]
fn spans_arrive_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Well);
    let span = Span {
        trace: "000102030405060708090a0b0c0d0e0f".into(),
        id: "1011121314151617".into(),
        parent: Some("1811121314151617".into()),
        name: "evaluation".into(),
        begin: 1_700_000_000.25,
        end: 1_700_000_001.5,
        attributes: vec![("step".into(), Attribute::Count(7)), ("loss".into(), Attribute::Number(0.5))],
        error: Some("no".into()),
    };
    let log = folder.path().join("spans");
    std::fs::write(&log, serde_json::to_string(&span).unwrap() + "\n").unwrap();
    let service = Box::new(Otlp::new(&server.url(), "", "test"));
    let delivered =
        deliver(&log, service, Notes::new(&server.url()), (Ending::Finished, 0.0), keep(folder.path()));
    assert!(delivered.complete(), "{delivered:?}");
    let seen = server.seen.lock().unwrap();
    let [found] = seen.spans.as_slice() else { panic!("{:?}", seen.spans) };
    assert_eq!(found.trace_id, (0..16).collect::<Vec<u8>>());
    assert_eq!(found.span_id, (16..24).collect::<Vec<u8>>());
    assert_eq!((found.parent_span_id[0], found.name.as_str()), (24, "evaluation"));
    assert_eq!(found.start_time_unix_nano, 1_700_000_000_250_000_000);
    assert_eq!(found.end_time_unix_nano - found.start_time_unix_nano, 1_250_000_000);
    assert_eq!(found.attributes.len(), 2);
    assert_eq!(found.status.as_ref().unwrap().code, 2);
}
