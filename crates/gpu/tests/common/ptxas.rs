//! NVIDIA's assembler, where `HALFSTEP_PTXAS` names it: what machine code of a kernel needs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use halfstep_gpu::predict::Resources;

/// The program, if it is named.
pub fn program() -> Option<PathBuf> {
    std::env::var_os("HALFSTEP_PTXAS").map(PathBuf::from)
}

/// The kernels of a PTX text, assembled for a target such as `sm_90a`.
///
/// # Errors
/// What ptxas says against it.
pub fn assemble(ptx: &[u8], target: &str) -> Result<BTreeMap<String, Resources>, String> {
    let program = program().ok_or("HALFSTEP_PTXAS names no ptxas: `scripts/fetch_ptxas.sh` fetches it")?;
    let mut file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    file.write_all(ptx).map_err(|e| e.to_string())?;
    let output = Command::new(&program)
        .args(["--verbose", "--gpu-name", target, "--output-file", "/dev/null"])
        .arg(file.path())
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(read(&said)) } else { Err(said.into_owned()) }
}

/// The number before each of some words.
fn before(line: &str, words: &str) -> u32 {
    let start = line.find(words).map_or("", |at| line[..at].trim_end());
    start.rsplit([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What `ptxas --verbose` prints: a line that names the kernel, one of spills, one of resources.
pub fn read(said: &str) -> BTreeMap<String, Resources> {
    let mut kernels = BTreeMap::new();
    let mut current = (String::new(), 0);
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            current = (rest.split('\'').next().unwrap_or_default().to_string(), 0);
        } else if line.contains("bytes spill stores") {
            current.1 = before(line, "bytes spill stores");
        } else if line.contains("Used ") {
            let (registers, shared) = (before(line, "registers"), before(line, "bytes smem"));
            kernels.insert(current.0.clone(), Resources { registers, shared, spilled: current.1 });
        }
    }
    kernels
}
