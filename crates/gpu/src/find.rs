//! Where NVIDIA's compiler and driver are looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cuda::nvrtc::{Nvrtc, NvrtcError};
use crate::cuda::{CudaVersion, Library};

/// The environment's name for the file of NVRTC; nothing else is looked for then.
pub const NVRTC_VARIABLE: &str = "HALFSTEP_NVRTC";
/// Versions of CUDA by whose compilers kernels are compiled, where there is no driver to ask.
const MAJORS: [u32; 2] = [13, 12];

/// Why there is no NVRTC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// It is nowhere.
    #[error(
        "NVIDIA's compiler of kernels, NVRTC, was not found; `pip install {package}` installs it, under NVIDIA's \
         licence, or {NVRTC_VARIABLE} names its file; looked for: {}", looked.join(", ")
    )]
    Nowhere {
        /// The package of PyPI that has it.
        package: &'static str,
        /// Files and names.
        looked: Vec<String>,
    },
    /// What was found cannot be used.
    #[error("NVIDIA's compiler of kernels, NVRTC, cannot be used: {0}")]
    Unusable(NvrtcError),
    /// The driver does not run what it makes.
    #[error(
        "NVRTC {found} ({}) is newer than the driver, which runs code of CUDA {driver} and older: \
         update the driver, or `pip install {}`", file.display(), package(Some(*driver))
    )]
    TooNew {
        /// Its version.
        found: CudaVersion,
        /// Where it was found.
        file: PathBuf,
        /// The major version of CUDA that the driver knows.
        driver: u32,
    },
}

/// NVRTC, opened: of the same major version as the driver, or an older one.
///
/// `driver` is the major version of CUDA that the driver knows; none where no driver will run what
/// is compiled.
///
/// # Errors
/// There is none, it cannot be opened, or it is newer than the driver.
pub fn nvrtc(driver: Option<u32>) -> Result<Nvrtc, FindError> {
    if let Some(file) = std::env::var_os(NVRTC_VARIABLE).filter(|f| !f.is_empty()) {
        return of_driver(open(Path::new(&file)).map_err(FindError::Unusable)?, driver);
    }
    let mut looked = Vec::new();
    let majors = majors(driver);
    for major in &majors {
        let name = format!("libnvrtc.so.{major}");
        match Nvrtc::open(&name) {
            Ok(nvrtc) => return of_driver(nvrtc, driver),
            Err(_) => looked.push(name),
        }
    }
    // Python is started only where nothing else has it.
    let folders = toolkits(Path::new("/usr/local")).into_iter().chain(lazily(|| of_python(&python_paths())));
    let mut newer = None;
    for folder in folders {
        for major in &majors {
            let file = folder.join(format!("libnvrtc.so.{major}"));
            if file.is_file() {
                return of_driver(open(&file).map_err(FindError::Unusable)?, driver);
            }
        }
        // What the driver cannot run is named if nothing else is there.
        let next = majors[0] + 1;
        let too_new = folder.join(format!("libnvrtc.so.{next}"));
        if driver.is_some() && newer.is_none() && too_new.is_file() {
            newer = Some((CudaVersion { major: next, minor: 0 }, too_new));
        }
        looked.push(folder.display().to_string());
    }
    match (newer, driver) {
        (Some((found, file)), Some(driver)) => Err(FindError::TooNew { found, file, driver }),
        _ => Err(FindError::Nowhere { package: package(driver), looked }),
    }
}

/// Major versions to look for, the best first.
fn majors(driver: Option<u32>) -> Vec<u32> {
    let least = MAJORS[MAJORS.len() - 1];
    match driver {
        None => MAJORS.to_vec(),
        Some(driver) => (least..=driver.max(least)).rev().collect(),
    }
}

/// The package of PyPI whose NVRTC such a driver runs.
fn package(driver: Option<u32>) -> &'static str {
    if driver.is_some_and(|major| major < 13) { "nvidia-cuda-nvrtc-cu12" } else { "nvidia-cuda-nvrtc" }
}

fn of_driver(nvrtc: Nvrtc, driver: Option<u32>) -> Result<Nvrtc, FindError> {
    let found = nvrtc.version();
    match driver {
        Some(driver) if driver < found.major => {
            Err(FindError::TooNew { found, file: nvrtc.file().to_path_buf(), driver })
        }
        _ => Ok(nvrtc),
    }
}

/// Opens NVRTC of a folder that the system's loader does not search. NVRTC itself opens its library
/// of built-in functions by name, and finds it there only if it is open already.
fn open(file: &Path) -> Result<Nvrtc, NvrtcError> {
    if let Some(builtins) = builtins(file) {
        Library::open(builtins)?;
    }
    Nvrtc::open(file)
}

/// `libnvrtc-builtins.so.13.0` beside `libnvrtc.so.13`.
fn builtins(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    let version = name.strip_prefix("libnvrtc.so")?.trim_start_matches('.').split('.').next()?.to_string();
    let prefix = format!("libnvrtc-builtins.so.{version}");
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty())?;
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .collect();
    found.sort();
    found.into_iter().next()
}

/// `lib64` of the CUDA toolkits under `/usr/local`: the one that the system has chosen, then the
/// newest.
fn toolkits(root: &Path) -> Vec<PathBuf> {
    let name = |p: &PathBuf| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let number = |p: &PathBuf| -> Vec<u32> {
        name(p).trim_start_matches("cuda-").split('.').map_while(|n| n.parse().ok()).collect()
    };
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        entries.filter(|p| name(p) == "cuda" || name(p).starts_with("cuda-")).collect();
    found.sort_by_key(|p| (name(p) != "cuda", std::cmp::Reverse(number(p))));
    found.into_iter().map(|p| p.join("lib64")).filter(|p| p.is_dir()).collect()
}

/// Where packages of NVIDIA have their libraries in the folders that Python imports from: since
/// CUDA 13 in one folder, before that in one for each package. Conda has them in its own `lib`.
fn of_python(paths: &[PathBuf]) -> Vec<PathBuf> {
    let inside =
        |path: &PathBuf| ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "lib"].map(|inside| path.join(inside));
    paths.iter().flat_map(inside).filter(|p| p.is_dir()).collect()
}

/// The folders that the first `python3` on the path imports from, and its own.
fn python_paths() -> Vec<PathBuf> {
    let program = "import sys; print('\\n'.join([p for p in sys.path if p] + [sys.prefix]))";
    let output = Command::new("python3").args(["-c", program]).output();
    let text = output.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(|line| PathBuf::from(OsString::from(line))).collect()
}

/// The elements of a list that is made when the first one is asked for.
fn lazily<T>(make: impl FnOnce() -> Vec<T>) -> impl Iterator<Item = T> {
    std::iter::once_with(make).flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_compiler_is_never_newer_than_the_driver() {
        assert_eq!(majors(None), [13, 12]);
        assert_eq!(majors(Some(12)), [12]);
        assert_eq!(majors(Some(14)), [14, 13, 12]);
        assert_eq!(package(Some(12)), "nvidia-cuda-nvrtc-cu12");
        assert_eq!(package(None), "nvidia-cuda-nvrtc");
        let version = CudaVersion { major: 13, minor: 0 };
        let error = FindError::TooNew { found: version, file: "/x/libnvrtc.so.13".into(), driver: 12 };
        assert_eq!(
            error.to_string(),
            "NVRTC 13.0 (/x/libnvrtc.so.13) is newer than the driver, which runs code of CUDA 12 and \
             older: update the driver, or `pip install nvidia-cuda-nvrtc-cu12`"
        );
    }

    #[test]
    fn the_chosen_toolkit_comes_first_then_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cuda-12.8", "cuda-13.0", "cuda", "cuda-9.2", "other"] {
            fs::create_dir_all(folder.path().join(name).join("lib64")).unwrap();
        }
        fs::create_dir(folder.path().join("cuda-13.1")).unwrap();
        let names: Vec<String> = toolkits(folder.path())
            .iter()
            .map(|p| p.strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["cuda/lib64", "cuda-13.0/lib64", "cuda-12.8/lib64", "cuda-9.2/lib64"]);
    }

    #[test]
    fn built_in_functions_are_those_of_the_same_version() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnvrtc.so.13");
        assert_eq!(builtins(&file), None);
        for name in
            ["libnvrtc-builtins.so.12.8", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(builtins(&file), Some(folder.path().join("libnvrtc-builtins.so.13.0")));
        assert_eq!(builtins(Path::new("libnvrtc.so.13")), None);
    }

    #[test]
    fn packages_of_both_kinds_are_looked_for_in_each_folder_of_python() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) =
            (folder.path().join("a/nvidia/cu13/lib"), folder.path().join("b/nvidia/cuda_nvrtc/lib"));
        fs::create_dir_all(&new).unwrap();
        fs::create_dir_all(&old).unwrap();
        let paths = ["a", "b", "none"].map(|name| folder.path().join(name));
        assert_eq!(of_python(&paths), [new, old]);
    }
}
