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
    assert!(message.contains("no kernel `other`; it has `gelu`"), "{message}");
    let message = with("grid = [1]\nblock = [32]\narguments = [{ s31 = 4 }]\n");
    assert!(message.contains("{ s32 = 5 }"), "{message}");
}

/// A launch of `gelu` with lines for its buffers `x` and `y`.
fn gelu(folder: &Path, x: &str, y: &str, more: &[&str]) -> Output {
    let launch = folder.join("launch.toml");
    let text = format!(
        "grid = [1]\nblock = [64]\narguments = [\"x\", \"y\", {{ s32 = 64 }}]\n\
         [buffers.x]\ntype = \"f32\"\naccess = \"read\"\n{x}\n\
         [buffers.y]\ntype = \"f32\"\nelements = 64\naccess = \"write\"\n{y}\n"
    );
    std::fs::write(&launch, text).unwrap();
    run("gelu.ptx", &launch, &[&["--seeds", "1"], more].concat())
}

#[test]
fn sizes_and_rules_that_cannot_be_are_said() {
    let folder = tempfile::tempdir().unwrap();
    for (x, said) in [
        (
            "elements = 9223372036854775807\nfill = 1",
            "9223372036854775807 elements of 4 bytes; 4 GiB are the most",
        ),
        ("elements = 1000000000000\nfill = \"zeros\"", "1000000000000 elements of 4 bytes"),
        ("elements = 9223372036854775807\nfrom = \"launch.toml\"", "4 GiB are the most"),
        ("elements = 0", "an allocation of 0 bytes"),
        (
            "elements = 64\nfill = \"ones\"",
            "`fill` is \"nothing\", \"zeros\", \"counting\", \"uniform\" or a number",
        ),
        ("elements = 64\nfill = 1\nto = \"x.bin\"", "buffer `x` has `to`, and nothing writes it"),
    ] {
        let message = error(&gelu(folder.path(), x, "", &[]));
        assert!(message.contains(said), "{x}: {message}");
    }
    let empty = folder.path().join("empty.ptx");
    std::fs::write(&empty, ".version 9.0\n.target sm_90\n").unwrap();
    let message = error(&run(empty.to_str().unwrap(), &example(), &[]));
    assert!(message.contains("the module has no kernel"), "{message}");
    let buffer =
        |name: &str| format!("{name} = {{ type = \"u8\", elements = 1, access = \"write\", to = \"o\" }}\n");
    let two = format!("grid = [1]\nblock = [64]\n[buffers]\n{}{}", buffer("a"), buffer("b"));
    std::fs::write(folder.path().join("two.toml"), two).unwrap();
    let message = error(&run("gelu.ptx", &folder.path().join("two.toml"), &[]));
    assert!(message.contains("buffers `a` and `b` both go to"), "{message}");
}

/// What was found is printed although a buffer cannot be written; the exit code says that one was
/// not.
#[test]
fn buffers_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let x = "elements = 64\nfill = \"uniform\"";
    for to in ["no/such/folder.npy", "."] {
        let output = gelu(folder.path(), x, &format!("to = \"{to}\""), &["--json"]);
        assert_eq!(json(&output)["clean"], true, "{to}");
        assert!(!error(&output).is_empty(), "{to}");
    }
    // A disk that is full, and a device that stays one.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::FileTypeExt;
        let output = gelu(folder.path(), x, "to = \"/dev/full\"", &["--json"]);
        assert_eq!(json(&output)["clean"], true);
        assert!(error(&output).contains("/dev/full: No space left"), "{output:?}");
        assert_eq!(gelu(folder.path(), x, "to = \"/dev/null\"", &[]).status.code(), Some(0));
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}

/// A module with one kernel without parameters, and a launch of it by two warps.
fn written(folder: &Path, body: &str) -> PathBuf {
    let head = ".version 9.0\n.target sm_90\n.shared .align 4 .b32 count;\n.visible .entry k()";
    let registers = ".reg .b32 %r<4>;\n.reg .pred %p<4>;";
    std::fs::write(folder.join("k.ptx"), format!("{head} {{\n{registers}\n{body}\n}}\n")).unwrap();
    std::fs::write(folder.join("k.toml"), "grid = [1]\nblock = [64]\n").unwrap();
    folder.join("k.ptx")
}

#[test]
fn a_kernel_that_does_not_end_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = written(folder.path(), "A: bra A;");
    let output = run(kernel.to_str().unwrap(), &folder.path().join("k.toml"), &["--limit", "1000"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("more than 1000 warp instructions"), "{text}");
}

/// A fence and then very many atomic operations take no more memory than few.
#[cfg(unix)]
#[test]
fn atomic_operations_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = written(
        folder.path(),
        "mov.u32 %r0, %tid.x;\nsetp.eq.u32 %p0, %r0, 0;\n@%p0 st.shared.u32 [count], 0;\nbar.sync 0;\n\
         membar.cta;\nmov.u32 %r1, 0;\nL: red.shared.add.u32 [count], 1;\nadd.u32 %r1, %r1, 1;\n\
         setp.lt.u32 %p1, %r1, 60000;\n@%p1 bra L;\nret;",
    );
    let program = env!("CARGO_BIN_EXE_halfstep-ptx");
    let run =
        format!("ulimit -v 300000; exec {program} run \"$0\" --launch \"$1\" --seeds 1 --delivery late");
    let mut shell = Command::new("sh");
    let output = shell.arg("-c").arg(run).arg(kernel).arg(folder.path().join("k.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
