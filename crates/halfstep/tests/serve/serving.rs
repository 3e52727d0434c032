//! A run directory served, as a client meets it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Place, with_data};
use serde_json::{Value, json};

/// Rows whose class the second column says.
fn table() -> String {
    let row = |i: u32| match i % 3 {
        0 => format!("{},y,yes\n", i % 17),
        _ => format!("{},x,no\n", i % 13),
    };
    "a,b,label\n".to_owned() + &(0..200).map(row).collect::<String>()
}

const DATA: &str = "kind = \"csv\"\npath = \"table.csv\"\ntarget = \"label\"";

/// A server of `run`, which is ended when it is dropped.
pub struct Served {
    pub child: Child,
    pub url: String,
    first: Value,
}

impl Served {
    fn start(command: Command) -> Served {
        Served::with_log(command, Stdio::null())
    }

    /// A server whose log goes somewhere.
    pub fn with_log(mut command: Command, log: Stdio) -> Served {
        command.args(["--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut text = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let first: Value = loop {
            assert!(lines.read_line(&mut text).unwrap() > 0, "the server ended: {text}");
            if let Ok(first) = serde_json::from_str(&text) {
                break first;
            }
        };
        let url = format!(
            "http://{}/v2/models/{}",
            first["address"].as_str().unwrap(),
            first["model"].as_str().unwrap()
        );
        Served { child, url, first }
    }

    /// The status, and the body of the answer.
    fn infer(&self, inputs: Value) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = json!({ "inputs": inputs });
        let mut answer = agent.post(format!("{}/infer", self.url)).send_json(&request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    /// The version that answers a row.
    fn version(&self) -> String {
        self.infer(row(&["3", "y"])).1["model_version"].as_str().unwrap().to_string()
    }

    /// Waits until this version answers.
    fn becomes(&self, wanted: &str) {
        let begun = Instant::now();
        while self.version() != wanted {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} is not {wanted}", self.version());
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Asks it to end, and gives its exit code.
    pub fn end(mut self) -> Option<i32> {
        self.terminate();
        self.child.wait().unwrap().code()
    }

    /// Begins a request whose body ends with `rest`, which is still to be sent.
    fn begun(&self) -> (TcpStream, &'static str) {
        let (body, rest) =
            (r#"{"inputs":[{"name":"row","datatype":"BYTES","shape":[1,2],"data":["3","#, r#""y"]}]}"#);
        let address = self.first["address"].as_str().unwrap();
        let path = self.url.split_once(address).unwrap().1;
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len() + rest.len();
        write!(stream, "POST {path}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        (stream, rest)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap();
    &outputs.iter().find(|o| o["name"] == name).unwrap_or_else(|| panic!("no {name}: {answer}"))["data"]
}

fn row(cells: &[&str]) -> Value {
    json!([{"name": "row", "datatype": "BYTES", "shape": [cells.len() / 2, 2], "data": cells}])
}

#[test]
fn answers_are_those_of_predict_and_mistakes_are_named() {
    let place = Place::new();
    place.write("table.csv", table());
    place.write("recipe.toml", with_data(DATA));
    // With scales that would serve the samples that are computed together.
    place.ok(&["train", "recipe.toml", "--precision", "fp8", "--out", "run"]);
    place.write("new.csv", "a,b\n3,y\n11,x\n7,y\n");
    let predicted = place.json(&["predict", "run", "new.csv", "--json"]);
    let served = Served::start(place.command(&["serve", "run", "--batch-invariant", "--max-batch", "2"]));

    let (status, answer) = served.infer(row(&["3", "y", "11", "x", "7", "y"]));
    assert_eq!(status, 200, "{answer}");
    let (classes, shares) = (output(&answer, "class"), output(&answer, "probabilities"));
    for (i, prediction) in predicted["predictions"].as_array().unwrap().iter().enumerate() {
        assert_eq!(classes[i], prediction["class"]);
        let probability = prediction["probability"].as_f64().unwrap() as f32;
        let own = [0, 1].map(|c| shares[2 * i + c].as_f64().unwrap() as f32);
        // Decimals of different length that are read as the same f32.
        let f32 = |number: &Value| number.as_f64().unwrap() as f32;
        let logits = [0, 1].map(|c| f32(&output(&answer, "logits")[2 * i + c]));
        for likely in prediction["top"].as_array().unwrap() {
            assert!(logits.contains(&f32(&likely["logit"])), "{logits:?} {likely}");
        }
        // The same logits, the same arithmetic: the same bits.
        assert!(own.contains(&probability), "{own:?} {probability}");
    }
    // A sample alone has the bits that it has beside others.
    let (_, alone) = served.infer(row(&["11", "x"]));
    for c in [0, 1] {
        assert_eq!(output(&alone, "logits")[c], output(&answer, "logits")[2 + c]);
    }
    for (wrong, said) in [
        (row(&["3", "y", "much", "x"]), "line 2, column `a`"),
        (
            json!([{"name": "rows", "datatype": "BYTES", "shape": [1, 2], "data": ["1", "x"]}]),
            "this model takes `row` or `x`",
        ),
        (
            json!([{"name": "row", "datatype": "BYTES", "shape": [2, 1], "data": ["1", "x"]}]),
            "[any number, 2]",
        ),
        (json!([{"name": "x", "datatype": "FP64", "shape": [1, 3], "data": [0, 0, 0]}]), "is FP64"),
        (json!([]), "0 inputs were sent"),
    ] {
        let (status, answer) = served.infer(wrong);
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
    assert_eq!(served.first["precision"], "fp8");
    assert_eq!(served.end(), Some(0));
}

#[test]
fn what_is_open_to_others_needs_tls_and_keys() {
    let place = Place::new();
    place.write("table.csv", table());
    place.write("recipe.toml", with_data(DATA));
    place.ok(&["train", "recipe.toml", "--precision", "fp32", "--out", "run"]);
    let said = place.fails(2, &["serve", "run", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("neither TLS nor API keys"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_signal_lets_what_has_begun_be_answered_and_a_second_one_does_not() {
    let place = Place::new();
    place.write("table.csv", table());
    place.write("recipe.toml", with_data(DATA));
    place.ok(&["train", "recipe.toml", "--precision", "fp32", "--out", "run"]);

    let mut served = Served::start(place.command(&["serve", "run"]));
    let (mut stream, rest) = served.begun();
    served.terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(served.child.try_wait().unwrap().is_none(), "it ends before a request that has begun");
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"logits\""), "{answer}");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));

    let mut served = Served::start(place.command(&["serve", "run"]));
    let _begun = served.begun();
    served.terminate();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    served.terminate();
    assert_eq!(served.child.wait().unwrap().code(), Some(130));
    // Not after the time for a body, 10 s, or for the drain, 30 s.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// The program with keys and a memory of registries of its own.
pub fn with_registry(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(args);
    command.env("HALFSTEP_KEYS", place.path("keys")).env("XDG_STATE_HOME", place.path("state"));
    command.env("HALFSTEP_REGISTRY", place.path("registry"));
    command
}

/// The program's output, if it ends with this code.
pub fn ends(place: &Place, code: i32, args: &[&str]) -> String {
    let output = with_registry(place, args).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text
}

#[test]
fn a_server_follows_an_alias_to_versions_that_are_signed() {
    let place = Place::new();
    place.write("table.csv", table());
    let ok = |args: &[&str]| ends(&place, 0, args);
    let add = |run: &str, sign: &[&str]| {
        let said = ok(&[&["registry", "add", run, "--as", "m", "--json"], sign].concat());
        serde_json::from_str::<Value>(&said).unwrap()["digest"].as_str().unwrap().to_string()
    };
    let promote = || ok(&["registry", "promote", "m@candidate", "--force", "tried"]);
    for run in ["one", "two", "three"] {
        place.write("own.toml", format!("seed = {}\n", run.len()) + &with_data(DATA));
        let precision = if run == "two" { "bf16" } else { "fp32" };
        ok(&["train", "own.toml", "--precision", precision, "--out", run]);
    }
    ok(&["key", "new", "--no-passphrase"]);
    let one = add("one", &["--sign"]);
    promote();
    let serve = ["serve", "m@champion", "--registry", "registry"];
    assert!(ends(&place, 2, &serve).contains("nobody is trusted"));
    let public = std::fs::read_to_string(place.path("keys/signing-key.pub.pem")).unwrap();
    place.write("keys/trust.toml", format!("[[key]]\nname = \"me\"\npublic = \"\"\"\n{public}\"\"\"\n"));

    // The registry may be named by the environment, and a run directory is none of its versions.
    let served = Served::start(with_registry(&place, &serve[..2]));
    assert!(ends(&place, 2, &["serve", "one", "--unsigned"]).contains("--registry"));
    let mut nowhere = place.command(&serve[..2]);
    let said = String::from_utf8(nowhere.env_remove("HALFSTEP_REGISTRY").output().unwrap().stderr).unwrap();
    assert!(said.contains("no registry is named") && said.contains("HALFSTEP_REGISTRY"), "{said}");
    // No verdict judged it in another precision than its own.
    let other = ends(&place, 1, &["serve", "m@champion", "--precision", "bf16"]);
    assert!(other.contains("the version has no signed verdict") && other.contains("--unjudged"), "{other}");
    let unjudged = ["serve", "m@champion", "--precision", "bf16", "--unjudged"];
    let forced = Served::start(with_registry(&place, &unjudged));
    assert_eq!(forced.first["precision"], "bf16");
    assert_eq!(forced.end(), Some(0));
    assert_eq!(served.version(), one);
    let two = add("two", &["--sign"]);
    promote();
    served.becomes(&two);
    ok(&["registry", "rollback", "m@champion"]);
    served.becomes(&one);
    // What nobody signed is not served, and what was goes on.
    add("three", &[]);
    promote();
    let refused = ends(&place, 1, &serve);
    assert!(refused.contains("has no signature"), "{refused}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(served.version(), one);
    assert_eq!(served.end(), Some(0));

    // A server that follows signed moves alone stays where it is at another, and says so.
    let move_to = |version: &str, sign: &[&str]| {
        let version = format!("m@{}", &version[..16]);
        ok(&[&["registry", "promote", &version, "--force", "tried"], sign].concat());
    };
    move_to(&two, &["--sign"]);
    let log = || std::fs::read_to_string(place.path("server.log")).unwrap();
    let file = std::fs::File::create(place.path("server.log")).unwrap();
    let signed_alone = [&serve[..], &["--signed-moves"]].concat();
    let served = Served::with_log(with_registry(&place, &signed_alone), file.into());
    assert_eq!(served.version(), two);
    move_to(&one, &[]);
    let begun = Instant::now();
    while !log().contains("it is not signed, and --signed-moves asks for it") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(served.version(), two);
    move_to(&one, &["--sign"]);
    served.becomes(&one);
    assert_eq!(served.end(), Some(0));
}
