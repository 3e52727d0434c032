//! Modules to PTX or machine code: what was compiled before is read from the cache, the rest is
//! compiled in as many threads as this process may use.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::architecture::Architecture;
use crate::cache::{KernelCache, KernelKey};
use crate::cuda::nvrtc::{CudaSource, Nvrtc, NvrtcError};
use crate::module::{Module, OPTIONS};

/// Of entries in the cache: another one is not read.
const FORMAT: &str = "halfstep kernel 1";

/// What a module becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeForm {
    /// PTX, as text.
    Ptx,
    /// Machine code for GPUs of just this architecture.
    Cubin,
}

/// What happens while modules are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileProgress {
    /// So many of the modules that were not in the cache are done.
    Compiled {
        /// How many.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// What is compiled cannot be kept; said once.
    NotKept(String),
}

/// NVRTC with a cache.
pub struct Compiler {
    nvrtc: Nvrtc,
    /// The version of NVRTC, to the build.
    version: String,
    cache: Option<KernelCache>,
}

impl Compiler {
    /// A compiler that keeps what it makes in `cache`.
    ///
    /// # Errors
    /// NVRTC cannot compile an empty kernel, such as where it lacks its built-in functions.
    pub fn new(nvrtc: Nvrtc, cache: Option<KernelCache>) -> Result<Compiler, NvrtcError> {
        let version = match build(&nvrtc)? {
            Some(build) => format!("{} ({build})", nvrtc.version()),
            None => nvrtc.version().to_string(),
        };
        Ok(Compiler { nvrtc, version, cache })
    }

    /// What, besides module and architecture, decides what is made.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Each of the modules, compiled.
    ///
    /// # Errors
    /// One does not compile; the first in the order given, if several do not.
    pub fn compile(
        &self,
        modules: &[Module],
        architecture: Architecture,
        form: CodeForm,
        progress: &(dyn Fn(CompileProgress) + Sync),
    ) -> Result<Vec<Vec<u8>>, NvrtcError> {
        let target = match form {
            CodeForm::Ptx => architecture.compute(),
            CodeForm::Cubin => architecture.to_string(),
        };
        let keys: Vec<KernelKey> = modules.iter().map(|module| self.key(module, &target)).collect();
        let cached = |key: &KernelKey| self.cache.as_ref().and_then(|cache| cache.read(key));
        let mut results: Vec<Option<Vec<u8>>> = keys.iter().map(cached).collect();
        let missing: Vec<usize> = (0..modules.len()).filter(|&i| results[i].is_none()).collect();
        if missing.is_empty() {
            return Ok(results.into_iter().flatten().collect());
        }
        progress(CompileProgress::Compiled { done: 0, of: missing.len() });
        let (next, done) = (AtomicUsize::new(0), Mutex::new((0, Vec::new())));
        let work = || {
            while let Some(&i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.one(&modules[i], &target, form);
                if let (Ok(code), Some(cache)) = (&result, &self.cache)
                    && let Err(said) = cache.write(&keys[i], code)
                {
                    progress(CompileProgress::NotKept(said));
                }
                let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
                done.0 += 1;
                done.1.push((i, result));
                progress(CompileProgress::Compiled { done: done.0, of: missing.len() });
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(missing.len());
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let mut compiled = done.into_inner().unwrap_or_else(|e| e.into_inner()).1;
        compiled.sort_by_key(|(i, _)| *i);
        for (i, result) in compiled {
            results[i] = Some(result?);
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn one(&self, module: &Module, target: &str, form: CodeForm) -> Result<Vec<u8>, NvrtcError> {
        let options = options(module);
        let source = CudaSource {
            name: &module.name,
            text: &module.source,
            headers: &module.headers,
            options: &options,
        };
        match form {
            CodeForm::Ptx => self.nvrtc.ptx(source, target).map(String::into_bytes),
            CodeForm::Cubin => self.nvrtc.cubin(source, target),
        }
    }

    fn key(&self, module: &Module, target: &str) -> KernelKey {
        // The number of headers stands before them, so that the options begin behind the last one.
        let (options, count) = (options(module), module.headers.len().to_string());
        let headers = module.headers.iter().flat_map(|(name, text)| [*name, *text]);
        KernelKey::of(
            [FORMAT, &self.version, target, &module.name, &module.source, &count]
                .into_iter()
                .chain(headers)
                .chain(options.iter().map(String::as_str)),
        )
    }
}

fn options(module: &Module) -> Vec<String> {
    let defines = module.defines.iter().map(|(name, value)| format!("--define-macro={name}={value}"));
    OPTIONS.into_iter().map(str::to_string).chain(defines).collect()
}

/// The build of NVRTC as it names it in PTX: `CL-36424714`. The version that its function tells is
/// the same for several builds.
fn build(nvrtc: &Nvrtc) -> Result<Option<String>, NvrtcError> {
    let source = CudaSource {
        name: "empty.cu",
        text: "extern \"C\" __global__ void empty() {}",
        headers: &[],
        options: &[],
    };
    let ptx = nvrtc.ptx(source, &Architecture::MINIMUM.compute())?;
    let line =
        ptx.lines().find_map(|line| line.trim_start_matches('/').trim().strip_prefix("Compiler Build ID:"));
    Ok(line.map(|id| id.trim().to_string()))
}
