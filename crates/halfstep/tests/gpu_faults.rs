//! What becomes of a training on a GPU when something fails: the sentence, the exit code, and what
//! is on disk. A library stands in for the driver; it runs no kernels, so what is trained means
//! nothing.
//!
//! Kernels are compiled, so without NVRTC these tests are counted as ignored.

mod common;

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use common::gpu::{self, command, no_problems};
use common::{Place, both};
use halfstep::gpu::find;

const RECIPE: &str = "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 64\nlimit_test = 16\n\
    [model]\nkind = \"mlp\"\nhidden = [8]\n[train]\nsteps = 8\nbatch = 8\n[checkpoint]\nevery = 2\n";

/// A folder with the recipe.
fn place() -> Place {
    let place = gpu::place();
    place.write("r.toml", RECIPE);
    place
}

fn train(place: &Place, settings: &str, out: &str) -> Output {
    command(place, settings, &["train", "r.toml", "--device", "cuda", "--precision", "fp32", "--out", out])
        .output()
        .unwrap()
}

/// The words of what was printed, without the frame around an error.
fn words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '×', '╰', '─', '▶'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every line of the log is whole.
fn whole(run: &Path) {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(metrics.ends_with('\n') || metrics.is_empty());
    for line in metrics.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

fn a_training_calls_the_driver_as_it_wants() {
    // With a cache of its own: kernels are compiled.
    let place = Place::new();
    place.write("r.toml", RECIPE);
    let output = train(&place, "", "run");
    assert!(output.status.success(), "{}", both(&output));
    assert!(words(&output).contains("note: compiling"), "{}", both(&output));
    no_problems(&place);
    whole(&place.path("run"));
    let again = train(&place, "", "again");
    assert!(again.status.success() && !words(&again).contains("compiling"), "{}", both(&again));
}

/// Whichever allocation fails, it is said, and no directory of a run is half made.
fn any_allocation_may_fail() {
    let place = place();
    assert!(train(&place, "", "first").status.success());
    let mut refused = Vec::new();
    for n in 1.. {
        let name = format!("run{n}");
        let output = train(&place, &format!("no_memory={n}"), &name);
        no_problems(&place);
        if output.status.success() {
            assert!(n > 8, "{n}");
            break;
        }
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        // Of the host, pinned; or of the GPU, with what there is and what the program holds.
        let said = words(&output);
        let host = said.contains("bytes of memory could not be allocated");
        let device = said.contains("bytes could not be taken of the memory of `Fake GPU`, 10");
        assert!(host || (device && said.contains(" of which are free")), "{}", both(&output));
        refused.push(if host {
            "host"
        } else if said.contains("this program holds") {
            "program"
        } else {
            "state"
        });
        let run = place.path(&name);
        if run.exists() {
            whole(&run);
        }
    }
    assert!(["host", "program", "state"].iter().all(|kind| refused.contains(kind)), "{refused:?}");
}

/// The GPU fails in the middle: the sentence names the checkpoint, and the run resumes from it, on
/// the CPU too.
fn a_failed_gpu_loses_no_checkpoint() {
    for (fault, name) in [("illegal", "CUDA_ERROR_ILLEGAL_ADDRESS"), ("lost", "CUDA_ERROR_UNKNOWN")] {
        let place = place();
        assert!(train(&place, "", "first").status.success());
        let log = std::fs::read_to_string(place.path("log")).unwrap();
        // Each graph of a step has as many kernels as the first that was made.
        let kernels = log.lines().filter(|l| l.starts_with("cuGraphAddKernelNode_v2")).count();
        let launches = log.lines().filter(|l| l.starts_with("cuGraphLaunch")).count();
        assert!(launches > 8 && kernels > 8, "{launches} {kernels}");
        let (mut before, mut named) = (0, 0);
        for at in [1, 2 * kernels, 4 * kernels, 6 * kernels] {
            let run = format!("run{at}");
            let output = train(&place, &format!("{fault}={at}"), &run);
            no_problems(&place);
            if output.status.success() {
                continue;
            }
            let says = words(&output);
            assert_eq!(output.status.code(), Some(1), "{says}");
            assert!(says.contains("`Fake GPU` failed: ") && says.contains(name), "{says}");
            whole(&place.path(&run));
            let resume = format!("`halfstep train --resume {run}`");
            if says.contains(&format!("there is no checkpoint yet: {resume} starts at the first step")) {
                before += 1;
            } else {
                assert!(says.contains(&format!("{resume} resumes from the checkpoint step-")), "{says}");
                named += 1;
            }
            let resumed = place.run(&["train", "--resume", &run, "--device", "cpu"]);
            assert!(resumed.status.success(), "{}", both(&resumed));
        }
        assert!(before > 0 && named > 0, "{before} {named}");
    }
}

fn what_the_driver_does_not_run_is_refused_before_a_run_begins() {
    let place = place();
    let nvrtc = find::nvrtc(None).unwrap().version().major;
    let older = format!("NVRTC {nvrtc}.");
    for (settings, code, says) in [
        ("load=209", 1, "does not take the code of"),
        ("version=12080", 2, older.as_str()),
        ("capability=7.5", 2, "has compute capability 7.5"),
        ("devices=0", 2, "shows no GPU"),
        ("init=999", 2, "NVIDIA's driver cannot be used: cuInit failed: CUDA_ERROR_UNKNOWN"),
    ] {
        if settings.starts_with("version") && nvrtc == 12 {
            continue;
        }
        let output = train(&place, settings, "run");
        assert_eq!(output.status.code(), Some(code), "{settings}: {}", both(&output));
        assert!(words(&output).contains(says), "{settings}: {}", both(&output));
        assert!(!place.path("run").exists(), "{settings}");
        no_problems(&place);
    }
}

/// `auto` takes a GPU that works, and says so in a line; a run goes on where it began.
fn auto_takes_a_gpu_and_leaves_runs_where_they_are() {
    let place = place();
    let says = |args: &[&str]| {
        let output = command(&place, "name=Card", args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", both(&output));
        no_problems(&place);
        both(&output)
    };
    let short = RECIPE
        .replace("steps = 8", "steps = 4")
        .replace("[checkpoint]", "[schedule]\nkind = \"constant\"\n[checkpoint]");
    place.write("short.toml", &short);
    place.write("r.toml", short.replace("steps = 4", "steps = 8"));
    let card = "Card (cuda:0, compute capability 9.0, driver of CUDA 13.0)";
    let begun = says(&["train", "short.toml", "--precision", "fp32", "--out", "gpu"]);
    let taken =
        format!("note: computing on {card}: the first GPU that can be used; `--device cpu` takes the CPU\n");
    assert_eq!(begun.matches(&taken).count(), 1, "{begun}");
    assert!(begun.contains("GPU sm_90a, Card"), "{begun}");

    let resume = |run| ["train", "r.toml", "--precision", "fp32", "--resume", run];
    let resumed = says(&resume("gpu"));
    assert!(
        resumed.contains(&format!("note: computing on {card}: the run was begun on a GPU\n")),
        "{resumed}"
    );
    assert!(!resumed.contains("warning"), "{resumed}");

    says(&["train", "short.toml", "--precision", "fp32", "--out", "cpu", "--device", "cpu"]);
    let resumed = says(&resume("cpu"));
    let stays =
        "note: computing on the CPU, on which the run was begun; `--device cuda` takes Card (cuda:0, ";
    assert!(resumed.contains(stays) && !resumed.contains("warning"), "{resumed}");

    // What the GPU does not run is said, and is the CPU.
    let broken = ["train", "short.toml", "--precision", "fp32", "--out", "broken"];
    let output = command(&place, "load=209", &broken).output().unwrap();
    let said = words(&output);
    assert!(
        output.status.success() && said.contains("computing on the CPU: `Fake GPU` does not take"),
        "{said}"
    );
    no_problems(&place);
}

/// `scripts/gpu.sh check`, as on a GPU machine; without a GPU, what needs kernels has to fail.
fn the_script_for_gpu_machines_runs_to_its_end() {
    let place = place();
    let (programs, out) = (place.path("programs"), place.path("out"));
    std::fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_halfstep"), programs.join("halfstep")).unwrap();
    // In place of the conformance suite: it says what it says where there is no GPU.
    std::os::unix::fs::symlink("/bin/true", programs.join("gpu")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/gpu.sh");
    let output = Command::new("bash")
        .arg(script)
        .arg("check")
        .args([&programs, &out])
        .env("HALFSTEP_CUDA_DRIVER", halfstep_fake_cuda::library())
        .env("HALFSTEP_FAKE_CUDA", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("gpu.json")).unwrap()).unwrap();
    let part = |name: &str| json["parts"].as_array().unwrap().iter().find(|p| p["part"] == name).unwrap();
    for name in ["info", "cuda", "cpu"] {
        assert_eq!(part(name)["code"], 0, "{}", both(&output));
    }
    assert_eq!(part("info")["printed"]["gpu"]["devices"][0]["name"], "Fake GPU");
    assert_eq!(part("conformance")["code"], "nothing was tested");
    assert_eq!((&part("losses")["code"], &part("losses")["printed"]["steps"][0]), (&1.into(), &200.into()));
}

/// `scripts/gpu.sh time` measures our steps, says why PyTorch's were not, and makes tables of both.
fn the_script_times_steps_and_makes_tables() {
    let place = place();
    let (programs, out) = (place.path("programs"), place.path("out"));
    std::fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_halfstep"), programs.join("halfstep")).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    let output = Command::new("bash")
        .arg(scripts.join("gpu.sh"))
        .arg("time")
        .args([&programs, &out])
        .args(["--models", "mlp", "--precisions", "bf16", "--seconds", "0", "--no-compile"])
        .env("HALFSTEP_CUDA_DRIVER", halfstep_fake_cuda::library())
        .env("HALFSTEP_FAKE_CUDA", "")
        .output()
        .unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("time.json")).unwrap()).unwrap();
    let steps = json["parts"].as_array().unwrap().iter().find(|p| p["part"] == "steps").unwrap();
    assert_eq!(steps["code"], 0, "{}", both(&output));
    let [ours, theirs] = &steps["printed"].as_array().unwrap()[..] else { panic!("{steps}") };
    assert_eq!(
        (&ours["who"], &ours["engine"]),
        (&"halfstep".into(), &"GPU sm_90a, Fake GPU".into()),
        "{ours}"
    );
    assert!(ours["device_bytes"].as_u64() > ours["state_bytes"].as_u64(), "{ours}");
    assert_eq!((&theirs["who"], &theirs["way"]), (&"torch".into(), &"eager".into()));
    let tables = place.path("tables.md");
    std::fs::write(&tables, "above\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nbelow\n").unwrap();
    let mut report = Command::new("python3");
    report.arg(scripts.join("gpu_report.py")).arg("docs").args([&out, &tables]);
    let report = report.output().unwrap();
    assert!(report.status.success(), "{}", both(&report));
    let text = std::fs::read_to_string(&tables).unwrap();
    let ms = format!("| bf16 | {:.2} |", ours["median_ms"].as_f64().unwrap());
    assert!(text.contains(&ms) && text.contains("not measured") && !text.contains("old"), "{text}");
    assert!(text.starts_with("above\n") && text.ends_with("\nbelow\n"), "{text}");
}

fn main() -> ExitCode {
    gpu::run(&[
        ("a_training_calls_the_driver_as_it_wants", a_training_calls_the_driver_as_it_wants),
        ("any_allocation_may_fail", any_allocation_may_fail),
        ("a_failed_gpu_loses_no_checkpoint", a_failed_gpu_loses_no_checkpoint),
        (
            "what_the_driver_does_not_run_is_refused_before_a_run_begins",
            what_the_driver_does_not_run_is_refused_before_a_run_begins,
        ),
        ("auto_takes_a_gpu_and_leaves_runs_where_they_are", auto_takes_a_gpu_and_leaves_runs_where_they_are),
        ("the_script_for_gpu_machines_runs_to_its_end", the_script_for_gpu_machines_runs_to_its_end),
        ("the_script_times_steps_and_makes_tables", the_script_times_steps_and_makes_tables),
    ])
}
