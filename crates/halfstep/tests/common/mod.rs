//! Running the program as a person would.

#![allow(dead_code)] // each test file uses some of it

pub mod gpu;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for a test, and the program run in it.
pub struct Place {
    pub folder: tempfile::TempDir,
    /// Runs of comparisons, apart from what the program leaves in the folder.
    pub cache: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfstep"));
        command.current_dir(self.folder.path()).args(args).env_remove("HALFSTEP_ISA").env("NO_COLOR", "1");
        command.env("HALFSTEP_CACHE", self.cache.path());
        command
    }

    /// Writes a PNG picture of `width`×`height` whose pixel at (x, y) is `pixel(x, y)`: one number
    /// is gray, three are colour.
    pub fn picture<const C: usize>(
        &self,
        name: &str,
        width: u32,
        height: u32,
        pixel: impl Fn(u32, u32) -> [u8; C],
    ) {
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| pixel(x, y))
            .collect();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(if C == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        self.write(name, bytes);
    }

    /// Runs the program.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the program, which must succeed, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must succeed, and reads the JSON object that it printed.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    /// Runs a comparison, which must come to a verdict, and returns it with what was printed.
    pub fn compare(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(&[&["compare"], args].concat());
        let code = output.status.code().unwrap();
        assert!((0..=2).contains(&code), "{args:?}: {}", both(&output));
        (code, String::from_utf8(output.stdout).unwrap())
    }

    /// [`Place::compare`] with `--json`.
    pub fn compare_json(&self, args: &[&str]) -> (i32, serde_json::Value) {
        let (code, text) = self.compare(&[args, &["--json"]].concat());
        (code, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}")))
    }

    /// Runs the program, which must fail with this exit code, and returns what it said on stderr.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", both(&output));
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        stderr
    }

    /// Every file and folder in the place, by its path.
    pub fn everything(&self) -> Vec<String> {
        let mut found = Vec::new();
        visit(self.folder.path(), self.folder.path(), &mut found);
        found.sort();
        found
    }
}

fn visit(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.strip_prefix(root).unwrap().display().to_string());
        if path.is_dir() {
            visit(root, &path, found);
        }
    }
}

/// Stdout and stderr, for messages.
pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A recipe that is done in a moment.
pub const TINY: &str = r#"
name = "tiny"
[data]
kind = "bundled"
name = "digits"
limit_train = 200
limit_test = 100
[model]
kind = "mlp"
hidden = [16]
[train]
epochs = 2
batch = 32
[compare]
seeds = 2
"#;

/// The tiny recipe with another `[data]` section.
pub fn with_data(data: &str) -> String {
    let (top, rest) = TINY.split_once("[data]").unwrap();
    let (_, rest) = rest.split_once("[model]").unwrap();
    format!("{top}[data]\n{data}\n[model]{rest}")
}
