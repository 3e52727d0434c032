//! Requests while versions change, the server is killed or ended, and a writer of the registry is
//! killed. `scripts/soak_serving.py` does the same for longer, and over gRPC besides.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Place, TINY};
use crate::serving::{Served, ends, with_registry};

const IMAGES: usize = 32;
/// Of 8 × 8.
const PIXELS: usize = 64;
const CLASSES: usize = 10;
/// Samples of requests: the programs are for up to 32 at once.
const SIZES: [usize; 6] = [1, 33, 2, 16, 3, 7];
const CLIENTS: usize = 3;
const SOAK: Duration = Duration::from_secs(60);
/// From the start of `rollback` to the first answer of the old version.
const ROLLBACK: Duration = Duration::from_secs(1);
/// After which a version that does not answer is given up.
const NEVER: Duration = Duration::from_secs(30);

fn image(number: usize) -> Vec<u8> {
    (0..PIXELS).map(|place| (number * 97 + place * place * 31 + place * 7) as u8).collect()
}

fn images(chosen: &[usize]) -> Vec<u8> {
    chosen.iter().flat_map(|&number| image(number)).collect()
}

/// Decimals of an f32, as its bits.
fn bits(number: &Value) -> u32 {
    (number.as_f64().unwrap() as f32).to_bits()
}

/// A request and what became of it.
struct Asked {
    begun: Instant,
    ended: Instant,
    /// The version that answered, or why none did.
    version: Result<String, String>,
}

/// What the clients share with the one who ends servers.
struct Traffic {
    /// The bits of the logits of each image, by version.
    expected: BTreeMap<String, Vec<[u32; CLASSES]>>,
    /// Where the server is, another one each time that it is started.
    url: Mutex<String>,
    asked: Mutex<Vec<Asked>>,
    /// What is wrong, in sentences.
    faults: Mutex<Vec<String>>,
    ended: AtomicBool,
}

/// Ends the clients, also where a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// Sends one request after another, in JSON and with binary tensors.
    fn client(&self, first: usize) {
        let mut connection = (String::new(), agent());
        for number in (first..).step_by(CLIENTS) {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let begun = Instant::now();
            let url = self.url.lock().unwrap().clone();
            // A connection that is kept is of no use to another server.
            if connection.0 != url {
                connection = (url, agent());
            }
            let chosen: Vec<usize> =
                (0..SIZES[number / 2 % SIZES.len()]).map(|k| (number * 7 + k * 5) % IMAGES).collect();
            let ask = if number % 2 == 0 { in_json } else { with_binary_tensors };
            let answer = ask(&connection.1, &connection.0, &chosen);
            let ended = Instant::now();
            let version = answer.map(|(version, logits)| {
                self.compare(&version, &chosen, &logits);
                version
            });
            if version.is_err() {
                connection.1 = agent();
                sleep(Duration::from_millis(20));
            }
            self.asked.lock().unwrap().push(Asked { begun, ended, version });
            sleep(Duration::from_millis(number as u64 % 4));
        }
    }

    /// Compares an answer with the logits that `predict` gives for the version that it names.
    fn compare(&self, version: &str, chosen: &[usize], logits: &[u32]) {
        match self.expected.get(version) {
            None => self.fault(format!("an answer names version {version}, which was never deployed")),
            Some(rows) if !chosen.iter().flat_map(|&number| rows[number]).eq(logits.iter().copied()) => {
                self.fault(format!("logits of version {version} are not those of predict for {chosen:?}"));
            }
            Some(_) => {}
        }
    }

    /// The time of the first answer of a version that came after `since`.
    fn first_answer(&self, version: &str, since: Instant) -> Instant {
        while since.elapsed() < NEVER {
            let asked = self.asked.lock().unwrap();
            let own = asked.iter().filter(|a| a.ended >= since && a.version.as_deref() == Ok(version));
            if let Some(first) = own.map(|a| a.ended).min() {
                return first;
            }
            drop(asked);
            sleep(Duration::from_millis(2));
        }
        panic!("version {version} does not answer within {NEVER:?}: {:?}", self.faults.lock().unwrap());
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(20))).build().into()
}

/// The head of a request of pixels.
fn head(chosen: &[usize], more: (&str, Value), output: Value) -> Value {
    let mut tensor = json!({"name": "pixels", "datatype": "UINT8", "shape": [chosen.len(), 8, 8, 1]});
    tensor[more.0] = more.1;
    json!({"inputs": [tensor], "outputs": [{"name": "logits", "parameters": output}]})
}

/// The version and the bits of the logits of an answer, or why there is none.
type Answer = Result<(String, Vec<u32>), String>;

fn in_json(agent: &ureq::Agent, url: &str, chosen: &[usize]) -> Answer {
    let request = head(chosen, ("data", json!(images(chosen))), json!({}));
    let mut answer = agent.post(url).send_json(&request).map_err(|e| e.to_string())?;
    let body: Value = answer.body_mut().read_json().map_err(|e| e.to_string())?;
    if answer.status() != 200 {
        return Err(body.to_string());
    }
    let version = body["model_version"].as_str().unwrap().to_string();
    Ok((version, body["outputs"][0]["data"].as_array().unwrap().iter().map(bits).collect()))
}

fn with_binary_tensors(agent: &ureq::Agent, url: &str, chosen: &[usize]) -> Answer {
    const LENGTH: &str = "inference-header-content-length";
    let data = images(chosen);
    let size = ("parameters", json!({"binary_data_size": data.len()}));
    let head = head(chosen, size, json!({"binary_data": true})).to_string();
    let post = agent.post(url).header(LENGTH, head.len().to_string());
    let sent = post.send(&[head.as_bytes(), &data].concat()[..]);
    let mut answer = sent.map_err(|e| e.to_string())?;
    let body = answer.body_mut().read_to_vec().map_err(|e| e.to_string())?;
    if answer.status() != 200 {
        return Err(String::from_utf8_lossy(&body).into_owned());
    }
    let length: usize = answer.headers()[LENGTH].to_str().unwrap().parse().unwrap();
    let (head, tensor) = body.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    let words = tensor.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    Ok((head["model_version"].as_str().unwrap().to_string(), words.collect()))
}

/// A registry with two signed versions of a model, and a third run that is no version yet.
struct Models {
    place: Place,
    one: String,
    two: String,
}

impl Models {
    fn new() -> (Models, BTreeMap<String, Vec<[u32; CLASSES]>>) {
        let place = Place::new();
        for number in 0..IMAGES {
            place.write(&format!("images/{number:03}.pgm"), [b"P5 8 8 255\n", &image(number)[..]].concat());
        }
        ends(&place, 0, &["key", "new", "--no-passphrase"]);
        let public = std::fs::read_to_string(place.path("keys/signing-key.pub.pem")).unwrap();
        place.write("keys/trust.toml", format!("[[key]]\nname = \"me\"\npublic = \"\"\"\n{public}\"\"\"\n"));
        let mut expected = BTreeMap::new();
        let versions = ["fp32", "bf16", "fp16"].map(|precision| {
            place.write("own.toml", format!("seed = {}\n", precision.len()) + TINY);
            ends(&place, 0, &["train", "own.toml", "--precision", precision, "--out", precision]);
            if precision == "fp16" {
                return String::new();
            }
            let added = ends(&place, 0, &["registry", "add", precision, "--as", "m", "--sign", "--json"]);
            let added: Value = serde_json::from_str(&added).unwrap();
            let version = added["digest"].as_str().unwrap().to_string();
            let predicted = place.json(&["predict", precision, "images", "--json"]);
            let rows = predicted["predictions"].as_array().unwrap().iter().map(|prediction| {
                let likely = prediction["top"].as_array().unwrap();
                std::array::from_fn(|class| {
                    let class = json!(class.to_string());
                    let own = likely.iter().find(|l| l["class"] == class).unwrap();
                    bits(&own["logit"])
                })
            });
            expected.insert(version.clone(), rows.collect());
            version
        });
        let [one, two, _] = versions;
        (Models { place, one, two }, expected)
    }

    fn promote(&self, version: &str) {
        let version = format!("m@{}", &version[..16]);
        ends(&self.place, 0, &["registry", "promote", &version, "--force", "soak"]);
    }

    fn roll_back(&self) {
        ends(&self.place, 0, &["registry", "rollback", "m@champion", "--reason", "soak"]);
    }

    /// A server, whose log goes on where that of the one before ended.
    fn serve(&self) -> Served {
        let log = File::options().create(true).append(true).open(self.place.path("server.log")).unwrap();
        let serve = ["serve", "m@champion", "--registry", "registry", "--batch-invariant", "--drain", "5s"];
        Served::with_log(with_registry(&self.place, &serve), log.into())
    }

    /// Kills a command that writes to the registry, so long after its start.
    fn kill_a_writer(&self, after: Duration) {
        let add = ["registry", "add", "fp16", "--as", "m", "--sign"];
        let mut command = with_registry(&self.place, &add);
        let mut writer = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(after);
        let _ = writer.kill();
        writer.wait().unwrap();
        ends(&self.place, 0, &["registry", "verify"]);
    }
}

/// How a server is ended.
enum End {
    Killed,
    Terminated,
}

/// What the test did, and when.
struct Soak<'a> {
    models: &'a Models,
    traffic: &'a Traffic,
    server: Served,
    /// When there was no server: from the signal to the first line of the next one.
    down: Vec<(Instant, Instant)>,
    /// From the start of `rollback` to the first answer of the old version.
    rollbacks: Vec<(Instant, Instant)>,
}

impl Soak<'_> {
    fn deploy(&self, version: &str) {
        let begun = Instant::now();
        self.models.promote(version);
        self.traffic.first_answer(version, begun);
    }

    fn roll_back(&mut self, to: &str) {
        let begun = Instant::now();
        self.models.roll_back();
        self.rollbacks.push((begun, self.traffic.first_answer(to, begun)));
    }

    /// Ends the server and starts another.
    fn end(&mut self, how: &End) {
        let begun = Instant::now();
        let code = match how {
            End::Killed => {
                self.server.child.kill().unwrap();
                None
            }
            End::Terminated => {
                self.server.terminate();
                Some(0)
            }
        };
        assert_eq!(self.server.child.wait().unwrap().code(), code);
        self.server = self.models.serve();
        *self.traffic.url.lock().unwrap() = format!("{}/infer", self.server.url);
        self.down.push((begun, Instant::now()));
    }

    fn cycle(&mut self, number: u64) {
        let Models { one, two, .. } = self.models;
        self.deploy(two);
        sleep(Duration::from_millis(200));
        self.roll_back(one);
        sleep(Duration::from_millis(100));
        self.deploy(two);
        self.end(&End::Killed);
        self.traffic.first_answer(two, Instant::now());
        self.models.kill_a_writer(Duration::from_millis(40 * number));
        self.roll_back(one);
        self.end(&End::Terminated);
        self.traffic.first_answer(one, Instant::now());
    }

    /// Adds to the faults what is wrong with requests without an answer, and with rollbacks.
    fn judge(&self) {
        let asked = self.traffic.asked.lock().unwrap();
        let overlaps = |a: &Asked, (from, to): &(Instant, Instant)| a.begun <= *to && a.ended >= *from;
        for failed in asked.iter().filter(|a| a.version.is_err()) {
            let why = failed.version.as_ref().unwrap_err();
            if !self.down.iter().any(|down| overlaps(failed, down)) {
                self.traffic
                    .fault(format!("a request failed, and no server was killed or ended then: {why}"));
            }
            if self.rollbacks.iter().any(|rollback| overlaps(failed, rollback)) {
                self.traffic.fault(format!("a request failed at a rollback: {why}"));
            }
        }
        for (begun, first) in &self.rollbacks {
            let took = *first - *begun;
            if took >= ROLLBACK {
                self.traffic.fault(format!("the old version answered {took:?} after a rollback began"));
            }
        }
        let log = std::fs::read_to_string(self.models.place.path("server.log")).unwrap();
        if !log.contains("\"version_kept\"") {
            self.traffic.fault("no server loaded the version that a rollback goes to".into());
        }
        let wrong = ["panicked", "version_refused", "version_not_kept", "move_refused", "source_unreadable"];
        for line in log.lines().filter(|line| wrong.iter().any(|event| line.contains(event))) {
            self.traffic.fault(format!("the server says: {line}"));
        }
    }
}

#[cfg(unix)]
#[test]
fn every_answer_is_that_of_its_version_while_servers_and_writers_are_killed() {
    let (models, expected) = Models::new();
    models.promote(&models.one);
    let server = models.serve();
    let traffic = Traffic {
        expected,
        url: Mutex::new(format!("{}/infer", server.url)),
        asked: Mutex::default(),
        faults: Mutex::default(),
        ended: AtomicBool::new(false),
    };
    let mut soak =
        Soak { models: &models, traffic: &traffic, server, down: Vec::new(), rollbacks: Vec::new() };
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic.ended);
        let traffic = &traffic;
        (0..CLIENTS).for_each(|first| drop(scope.spawn(move || traffic.client(first))));
        let begun = Instant::now();
        (0..).take_while(|_| begun.elapsed() < SOAK).for_each(|number| soak.cycle(number));
    });
    soak.judge();
    let faults = traffic.faults.lock().unwrap();
    assert!(faults.is_empty(), "{} faults, such as: {:#?}", faults.len(), &faults[..faults.len().min(5)]);
    let asked = traffic.asked.lock().unwrap();
    let of = |version: &str| asked.iter().filter(|a| a.version.as_deref() == Ok(version)).count();
    let (one, two) = (of(&models.one), of(&models.two));
    let failed = asked.len() - one - two;
    assert!(one.min(two) > 50 && failed > 0, "answers: {one} and {two}; {failed} requests failed");
    println!("answers: {one} and {two}; without an answer: {failed}; rollbacks: {:?}", {
        soak.rollbacks.iter().map(|(begun, first)| *first - *begun).collect::<Vec<_>>()
    });
    assert_eq!(soak.server.end(), Some(0));
}
