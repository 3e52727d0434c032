//! Commands on a GPU: what they call the driver with, and how much memory they take. A library
//! stands in for the driver; it runs no kernels.

mod common;

use std::process::{ExitCode, Output};

use common::gpu::{self, calls, command, most_memory, no_problems};
use common::{Place, both};
use serde_json::Value;

const DIGITS: &str = "name = \"digits\"\n[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 64\n\
    limit_test = 16\n[model]\nkind = \"mlp\"\nhidden = [8]\n[train]\nsteps = 4\nbatch = 8\n[precision]\n\
    policies = [\"fp32\", \"bf16\"]\n[compare]\nseeds = 1\n";
const TEXT: &str = "name = \"text\"\n[data]\nkind = \"bundled\"\nname = \"shakespeare\"\nsequence = 16\n\
    limit_train = 32\nlimit_test = 8\n[model]\nkind = \"gpt\"\nwidth = 16\nlayers = 1\nheads = 2\n[train]\n\
    steps = 2\nbatch = 4\n";

/// Runs the program on the GPU, with nothing for the driver to complain of.
fn on_gpu(place: &Place, args: &[&str]) -> Output {
    let output = command(place, "name=Card", &[args, &["--device", "cuda"]].concat()).output().unwrap();
    assert!(!both(&output).contains("panicked"), "{args:?}: {}", both(&output));
    no_problems(place);
    output
}

fn ok(place: &Place, args: &[&str]) -> String {
    let output = on_gpu(place, args);
    assert!(output.status.success(), "{args:?}: {}", both(&output));
    both(&output)
}

fn json(place: &Place, args: &[&str]) -> Value {
    let output = on_gpu(place, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", both(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn trained_models_are_used_on_a_gpu() {
    let place = gpu::place();
    place.write("r.toml", DIGITS);
    place.write("text.toml", TEXT);
    let trained = json(&place, &["train", "r.toml", "--precision", "bf16", "--out", "run"]);
    assert_eq!(trained["outcome"]["kind"], "finished", "{trained}");
    assert!(trained["data_seconds"].is_number(), "{trained}");
    assert!(calls(&place, "cuGraphLaunch") > 4);
    place.picture("digit.png", 8, 8, |x, _| [x as u8 * 30]);
    for args in [
        &["eval", "run"][..],
        &["predict", "run", "digit.png"],
        &["doctor", "r.toml", "--steps", "3", "--precision", "bf16"],
        &["bench", "step", "--model", "mlp", "--seconds", "0", "--groups", "3"],
    ] {
        let output = on_gpu(&place, args);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{args:?}: {}", both(&output));
        assert!(calls(&place, "cuGraphLaunch") > 0, "{args:?}");
    }
    ok(&place, &["export", "run", "--onnx", "model.onnx"]);
    ok(&place, &["train", "text.toml", "--out", "text"]);
    ok(&place, &["generate", "text", "--prompt", "a", "--tokens", "3"]);
}

fn what_is_searched_and_measured_is_of_the_gpu() {
    let place = gpu::place();
    place.write("r.toml", DIGITS);
    let quick = ["--objective", "memory", "--steps", "2", "--seeds", "1", "--max-slowdown", "100000%"];
    let output = on_gpu(&place, &[&["tune", "r.toml"], &quick[..]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", both(&output));
    let clothes = DIGITS.replace("\"digits\"\nlimit", "\"fashion-mnist\"\nlimit");
    place.write("clothes.toml", clothes);
    ok(&place, &["train", "clothes.toml", "--precision", "fp32", "--out", "clothes"]);
    let measures = ["--measures", "mismatch,ladder,corruptions,attacks", "--samples", "4", "--steps", "2"];
    let output = on_gpu(&place, &[&["stress", "clothes", "--queries", "2"], &measures[..]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", both(&output));

    let suite =
        ["bench", "suite", "--models", "mlp", "--precisions", "bf16", "--rounds", "1", "--seconds", "0"];
    let suite = json(&place, &suite);
    assert_eq!((&suite["engine"], &suite["roofs"]), (&"GPU sm_90a, Card".into(), &Value::Array(Vec::new())));
    let slow = &suite["cases"][0]["slowest"][0];
    assert!(slow["ms"].is_number() && slow["roofline_share"].is_null(), "{suite}");
    let output = on_gpu(&place, &["bench", "gemm"]);
    assert_eq!(output.status.code(), Some(2), "{}", both(&output));
}

/// No runs of another engine.
fn comparisons_keep_to_the_runs_of_their_engine() {
    let place = gpu::place();
    place.write("r.toml", DIGITS);
    let compare = |device: &str, out: &str| {
        let args = ["compare", "r.toml", "--threads", "2", "--device", device, "--out", out];
        let output = command(&place, "name=Card", &args).output().unwrap();
        assert!(matches!(output.status.code(), Some(0..=2)), "{}", both(&output));
        no_problems(&place);
        both(&output)
    };
    let first = compare("cuda", "first");
    assert!(first.contains(" at a time: ") && first.contains(" were measured to do "), "{first}");
    for (policy, products) in
        [("fp32", "f32 multiply-add on CUDA cores"), ("bf16", "Tensor Cores: exact bf16")]
    {
        let results = std::fs::read(place.path("first/results.json")).unwrap();
        let results: Value = serde_json::from_slice(&results).unwrap();
        let how = &results["arms"][0]["setup"]["arithmetic"][policy];
        assert_eq!(how["arithmetic"], "native", "{how}");
        assert!(how["runs_on"].as_str().unwrap().starts_with(products), "{how}");
    }
    assert!(first.contains("what the GPU draws is not measured"), "{first}");
    let again = compare("cuda", "again");
    assert!(again.contains("2 of 2 runs were made before"), "{again}");
    let cpu = compare("cpu", "cpu");
    let others = "2 of the others were made before by another engine (GPU, architecture sm_90a, ";
    assert!(cpu.contains(others) && !cpu.contains("taken from the cache"), "{cpu}");
    assert!(!cpu.contains("what the GPU draws"), "{cpu}");
    let gpu = compare("auto", "auto");
    assert!(gpu.contains("note: computing on Card") && gpu.contains("2 of 2 runs"), "{gpu}");
}

/// One run at a time, unless two fit and were measured to be faster.
fn two_runs_go_side_by_side_where_they_fit_and_are_faster() {
    let place = gpu::place();
    place.write("r.toml", DIGITS);
    let compare = |settings: &str, more: &[&str]| {
        let args = ["compare", "r.toml", "--no-cache", "--device", "cuda", "--threads", "2"];
        let output =
            command(&place, &format!("name=Card;{settings}"), &[&args[..], more].concat()).output().unwrap();
        assert!(matches!(output.status.code(), Some(0..=2)), "{}", both(&output));
        no_problems(&place);
        both(&output)
    };
    // What was measured decides. A GPU that runs one graph at a time gains little: what the host
    // does meanwhile, beside 20 ms, and a first graph in 300 ms. One that runs two may do twice.
    let measured = |said: &str| {
        let ratio = said.split("measured to do ").nth(1).and_then(|rest| rest.split('×').next());
        let ratio: f64 = ratio.and_then(|ratio| ratio.parse().ok()).unwrap_or_else(|| panic!("{said}"));
        let way = if ratio >= 1.1 { "2 runs at a time: they" } else { "One run at a time: 2" };
        assert!(said.contains(&format!("{way} were measured to do ")), "{said}");
        ratio
    };
    let serial = measured(&compare("graph_ms=20", &["--out", "serial"]));
    let parallel = "graph_ms=20;graphs_at_once=2";
    let said = compare(parallel, &["--out", "parallel"]);
    assert!(serial < 1.5 && measured(&said) >= 1.1, "{serial}: {said}");
    assert!(said.contains("Speed (GPU, 1 thread, 2 runs side by side)"), "{said}");

    // What may be taken is shared: as much as the larger precision takes twice, and no byte less.
    let need = |policy: &str| {
        let plan = json(&place, &["plan", "r.toml", "--precision", policy]);
        let of = |key: &str| plan["plans"][0][key].as_u64().unwrap() as usize;
        of("total_bytes") + of("evaluation_bytes")
    };
    let twice = 2 * need("fp32").max(need("bf16"));
    let enough = twice.to_string();
    let said = compare(parallel, &["--out", "enough", "--device-memory", &enough]);
    assert!(said.contains("2 runs at a time: ") && most_memory(&place) <= twice, "{said}");
    let short = (twice - 2).to_string();
    let said = compare(parallel, &["--out", "short", "--device-memory", &short]);
    assert!(said.contains("One run at a time: memory is short for more at a time."), "{said}");
    let said = compare(&format!("{parallel};memory={twice}"), &["--out", "full"]);
    assert!(said.contains("One run at a time: memory is short for more at a time."), "{said}");

    // Which way does not show in what is kept of a run.
    for name in ["fp32-seed0", "bf16-seed0"] {
        let logits =
            |out: &str| std::fs::read(place.path(out).join(format!("logits/{name}.safetensors"))).ok();
        assert_eq!(logits("serial"), logits("parallel"), "{name}");
    }
}

/// What `plan` says is what is taken, to the byte, and a limit below it is refused before anything
/// is written.
fn memory_is_what_the_plan_says() {
    let place = gpu::place();
    // Without test samples that fill no batch, whose evaluation is a program of its own.
    let in_parts = DIGITS.replace("batch = 8", "batch = 8\naccumulate = 2");
    for recipe in [DIGITS, TEXT, &in_parts] {
        place.write("r.toml", recipe);
        let plan = json(&place, &["plan", "r.toml", "--precision", "bf16"]);
        let of = |key: &str| plan["plans"][0][key].as_u64().unwrap_or(0) as usize;
        let all = of("total_bytes") + of("update_bytes") + of("evaluation_bytes");
        assert_eq!(of("update_bytes") > 0, recipe == in_parts);
        let architecture =
            place.json(&["plan", "r.toml", "--precision", "bf16", "--json", "--device", "sm_90a"]);
        assert_eq!(architecture["plans"], plan["plans"]);

        let name = format!("run-{all}");
        let train = ["train", "r.toml", "--precision", "bf16", "--out", &name];
        let limit = |bytes: usize| format!("{bytes}");
        let too_little = on_gpu(&place, &[&train[..], &["--device-memory", &limit(all - 1)]].concat());
        let said = both(&too_little).replace(['│', '×', '╰', '─', '▶'], " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(too_little.status.code(), Some(2), "{said}");
        assert!(said.contains("more for evaluations") || of("evaluation_bytes") == 0, "{said}");
        assert!(said.contains("are left of what may be taken of Card"), "{said}");
        assert!(!place.path(&name).exists());

        ok(&place, &[&train[..], &["--device-memory", &limit(all)]].concat());
        assert_eq!(most_memory(&place), all);
    }
    // A command that asks for no plan says what there is, and what its step holds.
    let bench = ["bench", "step", "--model", "mlp", "--seconds", "0", "--device-memory", "2%"];
    let output = on_gpu(&place, &bench);
    let said = both(&output).replace(['│', '×', '╰', '─', '▶'], " ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("could not be taken of the memory of `Card`, "), "{said}");
}

fn main() -> ExitCode {
    gpu::run(&[
        ("trained_models_are_used_on_a_gpu", trained_models_are_used_on_a_gpu),
        ("what_is_searched_and_measured_is_of_the_gpu", what_is_searched_and_measured_is_of_the_gpu),
        ("comparisons_keep_to_the_runs_of_their_engine", comparisons_keep_to_the_runs_of_their_engine),
        (
            "two_runs_go_side_by_side_where_they_fit_and_are_faster",
            two_runs_go_side_by_side_where_they_fit_and_are_faster,
        ),
        ("memory_is_what_the_plan_says", memory_is_what_the_plan_says),
    ])
}
