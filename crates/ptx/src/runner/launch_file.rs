//! What to launch, as a TOML or JSON file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use halfstep_ptx::Swizzle;
use serde::Deserialize;

use super::RunnerError;

/// A launch: `launch.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaunchFile {
    /// The entry; may be left out where the module has one.
    pub kernel: Option<String>,
    /// Blocks, in up to three axes.
    pub grid: Vec<u32>,
    /// Threads of a block, in up to three axes.
    pub block: Vec<u32>,
    /// Bytes of shared memory besides what the kernel declares.
    #[serde(default)]
    pub shared: u32,
    /// In the order of the kernel's parameters.
    #[serde(default)]
    pub arguments: Vec<Argument>,
    /// By name.
    #[serde(default)]
    pub buffers: BTreeMap<String, Buffer>,
}

/// An argument.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "an argument is the name of a buffer in quotes, a number with its type such as { s32 = 5 }, or { map = { … } }"
)]
pub(super) enum Argument {
    Buffer(String),
    Value(Value),
}

/// An argument by value.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Value {
    S32(i32),
    U32(u32),
    S64(i64),
    U64(u64),
    F32(f32),
    F64(f64),
    /// A tensor map of a buffer.
    Map(Map),
}

/// A tensor map, as `halfstep_ptx::TensorMap` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Map {
    pub buffer: String,
    pub sizes: Vec<u64>,
    #[serde(default)]
    pub strides: Vec<u64>,
    pub tile: Vec<u32>,
    /// Bytes within which it swizzles: 32, 64 or 128; 0 for none.
    #[serde(default)]
    pub swizzle: u32,
}

/// Global memory of the launch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Buffer {
    #[serde(rename = "type")]
    pub element: Element,
    /// Number of elements; may be left out where `from` says it.
    pub elements: Option<usize>,
    /// What the kernel may do with it.
    pub access: Permission,
    /// A `.npy` file, or any other as raw bytes.
    pub from: Option<PathBuf>,
    /// What it holds without a file; nothing that was written, unless it is said.
    #[serde(default)]
    pub fill: Fill,
    /// Where it goes afterwards: a `.npy` file, or any other as raw bytes.
    pub to: Option<PathBuf>,
}

/// What a launch declares of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Permission {
    Read,
    Write,
    ReadWrite,
}

/// The type of a buffer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Element {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    E4m3,
    E5m2,
    F32,
    F64,
}

/// What a buffer holds at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    expecting = "`fill` is \"nothing\", \"zeros\", \"counting\", \"uniform\" or a number"
)]
pub(super) enum Fill {
    /// Bytes that a kernel must not read before it writes them.
    #[default]
    Nothing,
    Zeros,
    /// 0, 1, 2 and on.
    Counting,
    /// Numbers between −1 and 1, integers from 0 to 127; each buffer has its own.
    Uniform,
    /// One number.
    #[serde(untagged)]
    Constant(f64),
}

impl LaunchFile {
    /// Reads a file: JSON by its ending, else TOML.
    pub fn read(path: &Path) -> Result<LaunchFile, RunnerError> {
        let text = std::fs::read_to_string(path).map_err(|error| RunnerError::file(path, error))?;
        let parsed = if path.extension().is_some_and(|ending| ending == "json") {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        let mut launch: LaunchFile = parsed.map_err(|error| RunnerError::file(path, error))?;
        // Files are named as seen from this one.
        let folder = path.parent().unwrap_or(Path::new(""));
        for buffer in launch.buffers.values_mut() {
            for file in [&mut buffer.from, &mut buffer.to].into_iter().flatten() {
                *file = folder.join(&*file);
            }
        }
        Ok(launch)
    }
}

impl Map {
    pub fn swizzle(&self) -> Result<Swizzle, RunnerError> {
        Ok(match self.swizzle {
            0 => Swizzle::None,
            32 => Swizzle::Bytes32,
            64 => Swizzle::Bytes64,
            128 => Swizzle::Bytes128,
            other => {
                let text =
                    format!("a map of `{}`: `swizzle` is {other}; it is 0, 32, 64 or 128", self.buffer);
                return Err(RunnerError::Launch(text));
            }
        })
    }
}

/// Up to three numbers; those that are left out are 1.
pub(super) fn axes(what: &str, numbers: &[u32]) -> Result<[u32; 3], RunnerError> {
    match numbers {
        [] | [_, _, _, _, ..] => Err(RunnerError::Launch(format!(
            "`{what}` has {} numbers; one to three are possible",
            numbers.len()
        ))),
        _ => Ok([0, 1, 2].map(|axis| numbers.get(axis).copied().unwrap_or(1))),
    }
}
