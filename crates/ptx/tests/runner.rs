//! The program `halfstep-ptx`: exit codes, what it prints, and the files it reads and writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels")
}

fn run(kernel: &str, launch: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfstep-ptx"));
    command.arg("run").arg(kernels().join(kernel)).arg("--launch").arg(launch).args(more);
    command.output().unwrap()
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/softmax.toml")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_kernel_without_fault() {
    let output = run("softmax.ptx", &example(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("8 schedules\nno fault, and the same bits under all of them"), "{text}");
    assert!(text.contains("global loads: 7200 bytes"), "{text}");
}

#[test]
fn a_kernel_with_a_fault() {
    let output = run("softmax.no_barrier.ptx", &example(), &["--json", "--seeds", "3", "--delivery", "late"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["clean"], false);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        let fault = &run["fault"];
        assert!(["never-written", "race"].contains(&fault["kind"].as_str().unwrap()), "{fault}");
        assert!(fault["instruction"].as_str().unwrap().contains("shared"), "{fault}");
    }
}

#[test]
fn buffers_come_from_files_and_go_to_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // 64 floats in a file of numpy's, as numpy 2 writes it.
    let mut array = b"\x93NUMPY\x01\x00v\x00".to_vec();
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (64,), }";
    array.extend_from_slice(format!("{text:<117}\n").as_bytes());
    let values: Vec<f32> = (0..64).map(|i| i as f32 / 8.0 - 4.0).collect();
    array.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path("x.npy"), array).unwrap();
    let launch = r#"
        grid = [1]
        block = [64]
        arguments = ["x", "y", { s32 = 64 }]
        [buffers.x]
        type = "f32"
        from = "x.npy"
        access = "read"
        [buffers.y]
        type = "f32"
        elements = 64
        access = "write"
        to = "y.npy"
    "#;
    std::fs::write(path("launch.toml"), launch).unwrap();
    let output = run("gelu.ptx", &path("launch.toml"), &["--seeds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let written = std::fs::read(path("y.npy")).unwrap();
    assert_eq!(written.len(), 128 + 256);
    assert!(written.starts_with(b"\x93NUMPY\x01\x00") && written[127] == b'\n');
    let last = f32::from_le_bytes(written[380..].try_into().unwrap());
    // gelu(3.875) = 3.875 · Φ(3.875), and 1 − Φ(3.875) = 5.3e-5.
    assert!((last - 3.875 * (1.0 - 5.33e-5)).abs() < 1e-5, "{last}");
    // What was written can be read again.
    let again = launch.replace("x.npy", "y.npy").replace("to = \"y.npy\"", "to = \"z.bin\"");
    std::fs::write(path("again.toml"), again).unwrap();
    assert_eq!(run("gelu.ptx", &path("again.toml"), &["--seeds", "1"]).status.code(), Some(0));
    assert_eq!(std::fs::read(path("z.bin")).unwrap().len(), 256);
}

#[test]
fn what_cannot_be_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let launch = folder.path().join("launch.toml");
    let with = |text: &str| {
        std::fs::write(&launch, text).unwrap();
        error(&run("gelu.ptx", &launch, &[]))
    };
    let message = error(&run("nothing.ptx", &example(), &[]));
    assert!(message.contains("nothing.ptx"), "{message}");
    let message = with("grid = [1]\nblock = [32]\n");
    assert!(message.contains("it takes 3 arguments, and the launch has 0"), "{message}");
    let message = with("grid = []\nblock = [32]\n");
    assert!(message.contains("`grid` has 0 numbers"), "{message}");
    let message = with("grid = [1]\nblock = [32]\narguments = [\"x\"]\n");
    assert!(message.contains("there is no buffer `x`"), "{message}");
    let message = with("grid = [1]\nblock = [32]\nbuffers.x = { type = \"f32\", access = \"read\" }\n");
    assert!(message.contains("needs `elements` or `from`"), "{message}");
    let message = with("grid = [1]\nblock = [32]\nkernel = \"other\"\n");
    assert!(message.contains("no kernel `other`"), "{message}");
    let message = with("grid = [1]\nblock = [32]\narguments = [{ s31 = 4 }]\n");
    assert!(message.contains("{ s32 = 5 }"), "{message}");
}
