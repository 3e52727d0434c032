//! A library that stands in for NVIDIA's driver in tests.
//!
//! It exports the functions of `libcuda.so.1` that this project calls, and behaves as the driver
//! does as far as a host can see, on the worst terms that CUDA allows: what may be done later is
//! done as late as possible, when somebody waits for it, and what may be done in any order is done
//! in the reverse of the order in which it was given. Kernels do nothing. It checks that
//!
//! * every call is made with a current context, and with objects that live,
//! * copies stay within one allocation, and launches have the parameters that the cubin declares,
//! * everything is freed once, and nothing is left when the context is released,
//! * nothing is freed that a graph still uses,
//! * pinned memory is not written while a copy of it may be under way.
//!
//! What is wrong is a line that begins with `PROBLEM` in its log. Settings (`settings.rs`) say what
//! GPUs there are and what fails; a program gets them by the environment variable
//! `HALFSTEP_FAKE_CUDA`, a test by [`FakeDriver::new`].

mod calls;
mod cubin;
mod graph;
mod settings;
mod state;
mod work;

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};

/// A copy of the library of its own, so that tests in one process do not share GPUs.
pub struct FakeDriver {
    folder: tempfile::TempDir,
}

impl FakeDriver {
    /// A driver with these settings.
    ///
    /// # Panics
    /// The library was not built, or cannot be copied.
    pub fn new(settings: &str) -> FakeDriver {
        let folder = tempfile::tempdir().expect("a folder");
        let driver = FakeDriver { folder };
        std::fs::copy(library(), driver.file()).expect("a copy of the library");
        let settings = format!("{settings};log={}", driver.log_file().display());
        let settings = CString::new(settings).expect("no zero byte");
        // SAFETY: the library is the one of this crate; it is never closed.
        let library = unsafe { libloading::Library::new(driver.file()) }.expect("a library");
        // SAFETY: declared so in `calls.rs`.
        let configure: libloading::Symbol<'_, unsafe extern "C" fn(*const c_char)> =
            unsafe { library.get("halfstep_fake_cuda_configure") }.expect("its function");
        // SAFETY: the text ends with a zero byte.
        unsafe { configure(settings.as_ptr()) };
        std::mem::forget(library);
        driver
    }

    /// The file to open in place of the driver.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("libcuda.so.1")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What was called so far: each function by its name, with what matters of its arguments.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        text.lines().map(str::to_string).collect()
    }

    /// What was done wrong so far.
    pub fn problems(&self) -> Vec<String> {
        problems(&self.log_file())
    }
}

/// The library, to be named to a program.
///
/// # Panics
/// It was not built: this crate is no dependency of the test.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own file");
    let beside = test.parent().expect("a folder").join("libhalfstep_fake_cuda.so");
    assert!(beside.is_file(), "{} is not there", beside.display());
    beside
}

/// The lines of a log that say that something was wrong.
pub fn problems(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("PROBLEM")).map(str::to_string).collect()
}
