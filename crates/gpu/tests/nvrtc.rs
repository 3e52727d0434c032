//! What is compiled by NVRTC, which needs no GPU and no driver.
//!
//! Whether there is one is known at run time only, so this file has a test harness of its own:
//! without NVRTC its tests are counted as ignored.

use std::process::ExitCode;
use std::sync::Mutex;

use halfstep_gpu::cache::{KernelCache, LIMIT_BYTES};
use halfstep_gpu::compile::{CodeForm, CompileProgress, Compiler};
use halfstep_gpu::cuda::nvrtc::{Nvrtc, NvrtcError};
use halfstep_gpu::{Architecture, Module, find};
use libtest_mimic::{Arguments, Trial};

const SCALE: &str = r#"
#include "factor.cuh"
extern "C" __global__ void scale(float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= factor() * FACTOR;
}
"#;

fn nvrtc() -> Nvrtc {
    find::nvrtc(None).unwrap_or_else(|absent| panic!("{absent}"))
}

fn compiler(cache: Option<KernelCache>) -> Compiler {
    Compiler::new(nvrtc(), cache).unwrap()
}

fn module(factor: &str) -> Module {
    Module {
        name: "scale.cu".into(),
        source: SCALE.into(),
        headers: vec![("factor.cuh", "__device__ float factor() { return 3.0f; }\n")],
        defines: vec![("FACTOR".into(), factor.into())],
    }
}

fn text(code: &[u8]) -> &str {
    std::str::from_utf8(code).unwrap()
}

/// Macros and headers reach the code, and the architecture is the one asked for.
fn ptx_has_the_kernel() {
    let architecture = Architecture { major: 9, minor: 0, specific: true };
    let compiled = compiler(None).compile(&[module("0.5f")], architecture, CodeForm::Ptx, &|_| {}).unwrap();
    let ptx = text(&compiled[0]);
    assert!(ptx.contains(".target sm_90a") && ptx.contains(".entry scale("), "{ptx}");
    // 3 × 0.5 as the bits of a float.
    assert!(ptx.contains("0f3FC00000"), "{ptx}");
    assert!(!ptx.ends_with('\0'));
}

fn machine_code_is_an_elf_file_for_each_architecture() {
    let compiler = compiler(None);
    for (major, minor) in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
        let architecture = Architecture::of_device(major, minor);
        let compiled = compiler.compile(&[module("1.0f")], architecture, CodeForm::Cubin, &|_| {}).unwrap();
        assert_eq!(compiled[0][..4], *b"\x7fELF", "{architecture}");
    }
    let known = nvrtc().architectures().unwrap();
    assert!(known.contains(&80) && known.contains(&90), "{known:?}");
}

fn errors_name_source_and_line() {
    let mut wrong = module("1.0f");
    wrong.source = wrong.source.replace("int i", "int j");
    let modules = [module("2.0f"), wrong];
    let error = compiler(None).compile(&modules, Architecture::MINIMUM, CodeForm::Ptx, &|_| {}).unwrap_err();
    let NvrtcError::Source { name, architecture, log } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), architecture.as_str()), ("scale.cu", "compute_80"));
    assert!(log.contains("scale.cu(5): error: identifier \"i\" is undefined"), "{log}");
    assert!(error.to_string().starts_with("scale.cu does not compile for compute_80:\n"), "{error}");

    let nowhere = Architecture { major: 1, minor: 0, specific: false };
    let error = compiler(None).compile(&[module("1.0f")], nowhere, CodeForm::Ptx, &|_| {}).unwrap_err();
    assert!(
        matches!(&error, NvrtcError::Call { reason, .. } if reason == "NVRTC_ERROR_INVALID_OPTION"),
        "{error}"
    );

    let mut zero = module("1.0f");
    zero.source.push('\0');
    let error = compiler(None).compile(&[zero], Architecture::MINIMUM, CodeForm::Ptx, &|_| {}).unwrap_err();
    assert_eq!(error, NvrtcError::Text { name: "scale.cu".into() });
}

/// The same source with another macro, form or architecture is another entry.
fn what_was_compiled_is_not_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = || Some(KernelCache::at(folder.path().to_path_buf(), LIMIT_BYTES));
    let modules: Vec<Module> = (0..5).map(|i| module(&format!("{i}.0f"))).collect();
    let heard = Mutex::new(Vec::new());
    let hear = |p: CompileProgress| heard.lock().unwrap().push(p);
    let first = compiler(cache()).compile(&modules, Architecture::MINIMUM, CodeForm::Ptx, &hear).unwrap();
    let expected: Vec<CompileProgress> =
        (0..=5).map(|done| CompileProgress::Compiled { done, of: 5 }).collect();
    assert_eq!(*heard.lock().unwrap(), expected);
    heard.lock().unwrap().clear();

    let again = compiler(cache());
    assert!(first == again.compile(&modules, Architecture::MINIMUM, CodeForm::Ptx, &hear).unwrap());
    assert_eq!(*heard.lock().unwrap(), []);

    let none = |heard: &Mutex<Vec<CompileProgress>>| heard.lock().unwrap().drain(..).count();
    again.compile(&[module("7.0f")], Architecture::MINIMUM, CodeForm::Ptx, &hear).unwrap();
    assert_eq!(none(&heard), 2);
    again.compile(&modules[..1], Architecture::of_device(9, 0), CodeForm::Ptx, &hear).unwrap();
    assert_eq!(none(&heard), 2);
    again.compile(&modules[..1], Architecture::MINIMUM, CodeForm::Cubin, &hear).unwrap();
    assert_eq!(none(&heard), 2);
}

/// A build of NVRTC is part of what decides the bits.
fn the_version_names_the_build() {
    let compiler = compiler(None);
    let version = nvrtc().version();
    assert!(compiler.version().starts_with(&format!("{version} (CL-")), "{}", compiler.version());
}

fn a_cache_that_cannot_be_written_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let compiler = compiler(Some(KernelCache::at(file.join("kernels"), LIMIT_BYTES)));
    let modules: Vec<Module> = (0..3).map(|i| module(&format!("{i}.0f"))).collect();
    let said = Mutex::new(0);
    let hear =
        |p: CompileProgress| *said.lock().unwrap() += usize::from(matches!(p, CompileProgress::NotKept(_)));
    let compiled = compiler.compile(&modules, Architecture::MINIMUM, CodeForm::Ptx, &hear).unwrap();
    assert_eq!((compiled.len(), *said.lock().unwrap()), (3, 1));
}

fn main() -> ExitCode {
    let absent = find::nvrtc(None).err();
    // Read by who wonders why tests are ignored.
    #[allow(clippy::print_stderr)]
    if let Some(absent) = &absent {
        eprintln!("{absent}");
    }
    let trial = |name: &str, test: fn()| {
        let test = move || {
            test();
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(absent.is_some())
    };
    let trials = vec![
        trial("ptx_has_the_kernel", ptx_has_the_kernel),
        trial(
            "machine_code_is_an_elf_file_for_each_architecture",
            machine_code_is_an_elf_file_for_each_architecture,
        ),
        trial("errors_name_source_and_line", errors_name_source_and_line),
        trial("what_was_compiled_is_not_compiled_again", what_was_compiled_is_not_compiled_again),
        trial("the_version_names_the_build", the_version_names_the_build),
        trial("a_cache_that_cannot_be_written_is_named_once", a_cache_that_cannot_be_written_is_named_once),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
