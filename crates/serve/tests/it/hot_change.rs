//! Versions that change while requests are answered, and the end of a server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use halfstep_serve::limits::Limits;
use halfstep_serve::log::Log;
use halfstep_serve::model::{
    ComputeError, CurrentVersion, InputError, ModelInfo, Prepared, ServedModel, SourceError, TensorSpec,
    VersionSource,
};
use halfstep_serve::server::{AccessLog, Ended, Running, Server, ServerOptions};
use halfstep_serve::tensor::{Datatype, Tensor};

/// Adds the number of its version, times 1000, to each sample.
struct Adds {
    version: i64,
    info: ModelInfo,
    takes: Duration,
}

fn digest(version: i64) -> String {
    format!("{version:x}").repeat(64)
}

impl ServedModel for Adds {
    type Samples = Vec<i64>;

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self, inputs: &[Tensor]) -> usize {
        2 * inputs.iter().map(|x| x.data().len()).sum::<usize>()
    }

    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared<Vec<i64>>, InputError> {
        let [x] = inputs else { return Err(InputError("there has to be one input".into())) };
        let samples: Vec<i64> =
            x.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        Ok(Prepared { count: samples.len(), samples })
    }

    fn compute(&self, requests: Vec<Prepared<Vec<i64>>>) -> Result<Vec<Vec<Tensor>>, ComputeError> {
        sleep(self.takes);
        let one = |request: Prepared<Vec<i64>>| {
            let bytes: Vec<u8> =
                request.samples.iter().flat_map(|x| (x + 1000 * self.version).to_le_bytes()).collect();
            vec![Tensor::new("y", Datatype::Int64, vec![request.count], Bytes::from(bytes)).unwrap()]
        };
        Ok(requests.into_iter().map(one).collect())
    }
}

/// Versions 1 to 14, of which 13 cannot be loaded.
#[derive(Clone)]
struct Moves {
    current: Arc<Mutex<(i64, u64)>>,
    takes: Duration,
    fallback: Option<i64>,
}

impl Moves {
    fn new(takes: Duration) -> Moves {
        Moves { current: Arc::new(Mutex::new((1, 1))), takes, fallback: None }
    }

    fn to(&self, version: i64, number: u64) {
        *self.current.lock().unwrap() = (version, number);
    }
}

impl VersionSource for Moves {
    type Model = Adds;

    fn current(&self) -> Result<CurrentVersion, SourceError> {
        let (version, number) = *self.current.lock().unwrap();
        Ok(CurrentVersion { digest: digest(version), number })
    }

    fn fallback(&self, current: &ModelInfo) -> Result<Option<String>, SourceError> {
        assert_eq!(current.digest, digest(1));
        Ok(self.fallback.map(digest))
    }

    fn load(&self, wanted: &CurrentVersion) -> Result<Adds, SourceError> {
        // Long enough that a rollback which loads would be late.
        if wanted.number > 1 {
            sleep(Duration::from_millis(1200));
        }
        let version = (1..15).find(|&version| digest(version) == wanted.digest).unwrap();
        if version == 13 {
            return Err(SourceError("a file is damaged".into()));
        }
        let spec =
            |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Int64, shape: vec![None] };
        let info = ModelInfo {
            name: "adds".into(),
            digest: wanted.digest.clone(),
            platform: "test".into(),
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            memory: 1000 + version as u64,
            max_batch: 4,
        };
        Ok(Adds { version, info, takes: self.takes })
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The events of this name.
    fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.filter(|event| event["event"] == name).collect()
    }
}

fn start(source: &Moves, limits: Limits, drain: Duration) -> (Running<Adds>, Lines) {
    let lines = Lines::default();
    let options = ServerOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        keys: None,
        limits,
        batch_wait: Duration::ZERO,
        drain,
        log: Log::new(lines.clone()),
        access_log: AccessLog::None,
    };
    (Server::start(source.clone(), options).unwrap(), lines)
}

/// A connection that is kept.
struct Client(TcpStream);

impl Client {
    fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    fn send(&mut self, request: &str) -> (u16, String, String) {
        self.0.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .unwrap_or("")
                .to_string()
        };
        let mut body = vec![0; field("content-length").parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        let version = field("halfstep-model-digest");
        (head[9..12].parse().unwrap(), version, String::from_utf8(body).unwrap())
    }

    fn get(&mut self, path: &str) -> (u16, String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
    }

    fn infer(&mut self, path: &str, x: i64) -> (u16, String, String) {
        let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"INT64","shape":[1],"data":[{x}]}}]}}"#);
        let length = body.len();
        self.send(&format!("POST {path}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"))
    }
}

const MODEL: &str = "/v2/models/adds";

struct Answered {
    begun: Instant,
    ended: Instant,
    version: String,
}

/// Asks on one connection until `stop`: each request is answered by the version it names.
fn load(address: SocketAddr, stop: &AtomicBool, first: i64) -> Vec<Answered> {
    let (mut client, mut answers) = (Client::new(address), Vec::new());
    for x in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let (status, version, body) = client.infer(MODEL, x);
        assert_eq!(status, 200, "{body}");
        let number = i64::from_str_radix(&version[..1], 16).unwrap();
        assert_eq!(version, digest(number));
        assert!(body.contains(&format!("\"data\":[{}]", x + 1000 * number)), "{version}: {body}");
        answers.push(Answered { begun, ended: Instant::now(), version });
    }
    answers
}

/// Waits until this version answers.
fn until(client: &mut Client, version: i64, within: Duration) {
    let begun = Instant::now();
    while client.infer(MODEL, 0).1 != digest(version) {
        assert!(begun.elapsed() < within, "version {version} does not answer in {within:?}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until the log has an event of this name.
fn until_event(lines: &Lines, name: &str) {
    let begun = Instant::now();
    while lines.events(name).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "there is no {name}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_change_and_a_rollback_under_load_lose_no_request() {
    let source = Moves::new(Duration::from_millis(1));
    let (running, lines) = start(&source, Limits::default(), Duration::from_secs(5));
    let address = running.address();
    let stop = AtomicBool::new(false);
    let (answers, rollback) = std::thread::scope(|scope| {
        let loads: Vec<_> = (0..3)
            .map(|i| {
                scope.spawn({
                    let stop = &stop;
                    move || load(address, stop, i * 100)
                })
            })
            .collect();
        let mut client = Client::new(address);
        sleep(Duration::from_millis(100));
        source.to(2, 2);
        until(&mut client, 2, Duration::from_secs(10));
        let rollback = Instant::now();
        source.to(1, 3);
        until(&mut client, 1, Duration::from_secs(1));
        // While another version is loaded, the one before comes back as fast.
        source.to(3, 4);
        sleep(Duration::from_millis(300));
        source.to(2, 5);
        until(&mut client, 2, Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        let answers: Vec<Answered> = loads.into_iter().flat_map(|load| load.join().unwrap()).collect();
        (answers, rollback)
    });

    // Once a version has answered, no request that begins later is answered by the one before.
    let phase = |answer: &Answered| match (answer.version == digest(1), answer.ended < rollback) {
        (true, true) => 0,
        (false, _) if answer.begun < rollback + Duration::from_millis(300) => 1,
        (true, false) => 2,
        (false, _) => 3,
    };
    assert!(answers.iter().any(|answer| phase(answer) == 1) && answers.iter().any(|a| phase(a) == 3));
    for first in &answers {
        let later = answers.iter().filter(|later| later.begun >= first.ended);
        assert!(later.into_iter().all(|later| phase(later) >= phase(first)));
    }
    let changes = lines.events("version_changed");
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert_eq!(changes[0]["memory"], 1002);
    assert_eq!((changes[0]["kept"].as_str(), &changes[0]["kept_memory"]), (Some(&*digest(1)), &1001.into()));
    assert_eq!(running.drain(), Ended::Drained { refused: 0 });
}

#[test]
fn versions_that_fail_and_old_moves_change_nothing() {
    let source = Moves::new(Duration::ZERO);
    let (running, lines) = start(&source, Limits::default(), Duration::from_secs(5));
    let mut client = Client::new(running.address());
    source.to(13, 7);
    until_event(&lines, "version_refused");
    assert_eq!(lines.events("version_refused")[0]["reason"], "a file is damaged");
    // Moves with numbers that were seen, one of them with another version.
    source.to(2, 6);
    until_event(&lines, "move_refused");
    source.to(2, 7);
    sleep(Duration::from_millis(400));
    assert_eq!(lines.events("move_refused").len(), 2);
    assert_eq!(client.get("/v2/health/ready").0, 200);
    assert_eq!(client.infer(MODEL, 5).1, digest(1));

    // By digest, by a beginning of it, and by one that is not loaded.
    source.to(2, 8);
    until(&mut client, 2, Duration::from_secs(10));
    for (version, status) in [("11", 200), (&*digest(1), 200), ("2", 200), ("3", 404), ("12", 404)] {
        let (found, by, body) = client.infer(&format!("{MODEL}/versions/{version}"), 5);
        assert_eq!(found, status, "{version}: {body}");
        assert!(status == 404 || by.starts_with(version));
    }

    let (status, _, text) = client.send("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((status, text.as_str()), (405, r#"{"error":"this address does not take this method"}"#));
    let (status, _, text) = client.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        format!(
            r#"halfstep_requests_total{{route="/v2/models/{{name}}/infer",code="200",version="{}"}}"#,
            digest(1)
        ),
        format!(r#"halfstep_model_memory_bytes{{version="{}",role="Current"}} 1002"#, digest(2)),
        format!(r#"halfstep_model_memory_bytes{{version="{}",role="Before"}} 1001"#, digest(1)),
        "halfstep_moves_total 2".into(),
        r#"halfstep_refusals_total{reason="move_refused"} 2"#.into(),
        "halfstep_queue_length 0".into(),
        "halfstep_batch_size_bucket{le=\"1.0\"}".into(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    running.drain();
}

#[test]
fn a_rollback_right_after_a_start_takes_no_loading() {
    let source = Moves { fallback: Some(2), ..Moves::new(Duration::ZERO) };
    let (running, lines) = start(&source, Limits::default(), Duration::from_secs(5));
    let mut client = Client::new(running.address());
    assert_eq!(client.infer(MODEL, 0).1, digest(1));
    until_event(&lines, "version_kept");
    assert_eq!(lines.events("version_kept")[0]["kept_memory"], 1002);
    let memory = format!(r#"halfstep_model_memory_bytes{{version="{}",role="Before"}} 1002"#, digest(2));
    let text = client.get("/metrics").2;
    assert!(text.contains(&memory), "{memory} is not in\n{text}");
    source.to(2, 2);
    // To load it would take longer.
    until(&mut client, 2, Duration::from_secs(1));
    source.to(1, 3);
    until(&mut client, 1, Duration::from_secs(1));
    assert_eq!(lines.events("version_loading").len(), 1);
    running.drain();
}

#[test]
fn a_version_to_go_back_to_that_fails_changes_nothing() {
    let source = Moves { fallback: Some(13), ..Moves::new(Duration::ZERO) };
    let (running, lines) = start(&source, Limits::default(), Duration::from_secs(5));
    let mut client = Client::new(running.address());
    until_event(&lines, "version_not_kept");
    assert_eq!(lines.events("version_not_kept")[0]["reason"], "a file is damaged");
    assert_eq!(client.infer(MODEL, 0).1, digest(1));
    source.to(2, 2);
    until(&mut client, 2, Duration::from_secs(10));
    running.drain();
}

/// The statuses of requests that are sent at the same time, each on a connection of its own.
fn at_once(address: SocketAddr, count: usize) -> std::thread::JoinHandle<Vec<u16>> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::new(address)).collect();
    std::thread::spawn(move || {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| client.infer(MODEL, 1).0)).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        })
    })
}

#[test]
fn a_server_that_ends_answers_what_has_begun() {
    let source = Moves::new(Duration::from_millis(150));
    let (running, lines) = start(&source, Limits::default(), Duration::from_secs(10));
    let address = running.address();
    // Three batches of four.
    let asked = at_once(address, 12);
    sleep(Duration::from_millis(100));
    assert_eq!(running.drain(), Ended::Drained { refused: 0 });
    assert_eq!(asked.join().unwrap(), [200; 12]);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(lines.events("ended")[0]["refused"], 0);
}

#[test]
fn what_cannot_be_answered_in_time_is_refused() {
    let source = Moves::new(Duration::from_secs(2));
    let (running, _) = start(&source, Limits::default(), Duration::from_millis(200));
    let asked = at_once(running.address(), 6);
    sleep(Duration::from_millis(200));
    assert_eq!(running.drain(), Ended::Drained { refused: 6 });
    assert_eq!(asked.join().unwrap(), [503; 6]);
}

#[test]
fn a_full_queue_and_a_late_answer_have_their_codes() {
    let source = Moves::new(Duration::from_millis(600));
    let limits = Limits { queue: 1, request: Duration::from_millis(300), ..Limits::default() };
    let (running, _) = start(&source, limits, Duration::from_secs(5));
    // One is computed, one waits, and both are late; six find the queue full. The first may be
    // taken from the queue after the others came.
    let mut statuses = at_once(running.address(), 8).join().unwrap();
    statuses.sort_unstable();
    assert!(statuses[..6] == [429; 6] && statuses[6] >= 429 && statuses[7] == 504, "{statuses:?}");
    assert_eq!(Client::new(running.address()).get("/v2/health/ready").0, 200);
    running.drain();
}
