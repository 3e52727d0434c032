//! NVRTC, NVIDIA's compiler of CUDA C++ as a library: <https://docs.nvidia.com/cuda/nvrtc/>.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::Path;
use std::ptr;

use super::library::{Library, LibraryError, functions};
use super::version::CudaVersion;

/// `nvrtcProgram`, an address that means something to the library alone.
type Program = *mut c_void;
/// `nvrtcResult`: 0 is success.
type Status = c_int;
/// `NVRTC_ERROR_COMPILATION`: the source is at fault, and the log says where.
const COMPILATION: Status = 6;

functions! {
    pub(super) struct Functions {
        fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> Status;
        fn nvrtcGetErrorString(status: Status) -> *const c_char;
        fn nvrtcGetNumSupportedArchs(count: *mut c_int) -> Status;
        fn nvrtcGetSupportedArchs(architectures: *mut c_int) -> Status;
        fn nvrtcCreateProgram(
            program: *mut Program,
            source: *const c_char,
            name: *const c_char,
            headers: c_int,
            texts: *const *const c_char,
            names: *const *const c_char,
        ) -> Status;
        fn nvrtcDestroyProgram(program: *mut Program) -> Status;
        fn nvrtcCompileProgram(program: Program, options: c_int, list: *const *const c_char) -> Status;
        fn nvrtcGetProgramLogSize(program: Program, bytes: *mut usize) -> Status;
        fn nvrtcGetProgramLog(program: Program, log: *mut c_char) -> Status;
        fn nvrtcGetPTXSize(program: Program, bytes: *mut usize) -> Status;
        fn nvrtcGetPTX(program: Program, ptx: *mut c_char) -> Status;
        fn nvrtcGetCUBINSize(program: Program, bytes: *mut usize) -> Status;
        fn nvrtcGetCUBIN(program: Program, cubin: *mut c_char) -> Status;
    }
}

/// Why nothing was compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NvrtcError {
    /// The library cannot be used.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A source is wrong.
    #[error("{name} does not compile for {architecture}:\n{log}")]
    Source {
        /// Its name.
        name: String,
        /// What it was compiled for.
        architecture: String,
        /// What the compiler says.
        log: String,
    },
    /// Something else failed.
    #[error("{function} failed for {name}: {reason}{}", if log.is_empty() { String::new() } else { format!("\n{log}") })]
    Call {
        /// The function of NVRTC.
        function: &'static str,
        /// The name of the source, or of the library.
        name: String,
        /// NVRTC's name of the error.
        reason: String,
        /// What the compiler says, if anything.
        log: String,
    },
    /// A text holds a zero byte.
    #[error("{name}: a source, header or option holds a zero byte")]
    Text {
        /// The name of the source.
        name: String,
    },
}

/// What is compiled: a source with the headers that it includes, by name and text.
#[derive(Clone, Copy, Debug)]
pub struct CudaSource<'a> {
    /// The name that messages begin with.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
    /// Headers: name and text.
    pub headers: &'a [(&'a str, &'a str)],
    /// Options, without the architecture.
    pub options: &'a [String],
}

/// The open library.
pub struct Nvrtc {
    functions: Functions,
    library: Library,
    version: CudaVersion,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NVRTC {} of {}", self.version, self.file().display())
    }
}

impl Nvrtc {
    /// NVRTC of this file or name.
    ///
    /// # Errors
    /// It cannot be opened, or is not NVRTC.
    pub fn open(file: impl AsRef<Path>) -> Result<Nvrtc, NvrtcError> {
        let library = Library::open(file)?;
        let functions = Functions::of(&library)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are places for one int.
        let status = unsafe { (functions.nvrtcVersion)(&mut major, &mut minor) };
        let version = CudaVersion { major: major.unsigned_abs(), minor: minor.unsigned_abs() };
        let nvrtc = Nvrtc { functions, library, version };
        nvrtc.check("nvrtcVersion", status, &nvrtc.file().display().to_string())?;
        Ok(nvrtc)
    }

    /// Its version, which is that of the CUDA toolkit it belongs to.
    pub fn version(&self) -> CudaVersion {
        self.version
    }

    /// The path or name by which it was opened.
    pub fn file(&self) -> &Path {
        self.library.file()
    }

    /// The compute capabilities that it compiles for: 90 is 9.0.
    ///
    /// # Errors
    /// NVRTC fails.
    pub fn architectures(&self) -> Result<Vec<u32>, NvrtcError> {
        let name = self.file().display().to_string();
        let mut count = 0;
        // SAFETY: a place for one int.
        let status = unsafe { (self.functions.nvrtcGetNumSupportedArchs)(&mut count) };
        self.check("nvrtcGetNumSupportedArchs", status, &name)?;
        let mut list = vec![0; count.max(0) as usize];
        // SAFETY: the list has as many places as NVRTC said it fills.
        let status = unsafe { (self.functions.nvrtcGetSupportedArchs)(list.as_mut_ptr()) };
        self.check("nvrtcGetSupportedArchs", status, &name)?;
        Ok(list.into_iter().map(c_int::unsigned_abs).collect())
    }

    /// Compiles to PTX, a text, for a virtual architecture such as `compute_90a`.
    ///
    /// # Errors
    /// The source does not compile.
    pub fn ptx(&self, source: CudaSource<'_>, architecture: &str) -> Result<String, NvrtcError> {
        let functions = &self.functions;
        let compiled = self.compile(source, architecture)?;
        let mut bytes = compiled.bytes("nvrtcGetPTX", functions.nvrtcGetPTXSize, functions.nvrtcGetPTX)?;
        // It ends with a zero byte, as texts in C do.
        while bytes.pop_if(|last| *last == 0).is_some() {}
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Compiles to a cubin, machine code for a real architecture such as `sm_90a`.
    ///
    /// # Errors
    /// The source does not compile.
    pub fn cubin(&self, source: CudaSource<'_>, architecture: &str) -> Result<Vec<u8>, NvrtcError> {
        let functions = &self.functions;
        let compiled = self.compile(source, architecture)?;
        compiled.bytes("nvrtcGetCUBIN", functions.nvrtcGetCUBINSize, functions.nvrtcGetCUBIN)
    }

    fn compile<'n>(&'n self, source: CudaSource<'_>, architecture: &str) -> Result<Compiled<'n>, NvrtcError> {
        let text = |t: &str| CString::new(t).map_err(|_| NvrtcError::Text { name: source.name.to_string() });
        let texts = |all: Vec<&str>| all.into_iter().map(text).collect::<Result<Vec<CString>, _>>();
        let pointers = |all: &[CString]| all.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (body, name) = (text(source.text)?, text(source.name)?);
        let headers = texts(source.headers.iter().map(|(_, text)| *text).collect())?;
        let header_names = texts(source.headers.iter().map(|(name, _)| *name).collect())?;
        let target = format!("--gpu-architecture={architecture}");
        let options = texts(
            std::iter::once(target.as_str()).chain(source.options.iter().map(String::as_str)).collect(),
        )?;

        let mut program = Compiled { nvrtc: self, name: source.name.to_string(), program: ptr::null_mut() };
        let (header_texts, header_names) = (pointers(&headers), pointers(&header_names));
        // SAFETY: all texts end with a zero byte and live until the end of this function; both
        // lists have as many entries as is said. NVRTC copies what it keeps.
        let status = unsafe {
            (self.functions.nvrtcCreateProgram)(
                &mut program.program,
                body.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                header_texts.as_ptr(),
                header_names.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", status, source.name)?;
        let list = pointers(&options);
        // SAFETY: as above; the program was made just now.
        let status = unsafe {
            (self.functions.nvrtcCompileProgram)(program.program, list.len() as c_int, list.as_ptr())
        };
        match status {
            0 => Ok(program),
            COMPILATION => Err(NvrtcError::Source {
                name: source.name.to_string(),
                architecture: architecture.to_string(),
                log: program.log(),
            }),
            _ => Err(NvrtcError::Call {
                function: "nvrtcCompileProgram",
                name: source.name.to_string(),
                reason: self.reason(status),
                log: program.log(),
            }),
        }
    }

    fn check(&self, function: &'static str, status: Status, name: &str) -> Result<(), NvrtcError> {
        if status == 0 {
            return Ok(());
        }
        let (name, reason) = (name.to_string(), self.reason(status));
        Err(NvrtcError::Call { function, name, reason, log: String::new() })
    }

    fn reason(&self, status: Status) -> String {
        // SAFETY: NVRTC returns a text of its own that is never freed, or null.
        let text = unsafe { (self.functions.nvrtcGetErrorString)(status) };
        if text.is_null() {
            return format!("error {status}");
        }
        // SAFETY: it is not null, and ends with a zero byte.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// Asks for a number of bytes.
type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> Status;
/// Copies so many bytes.
type BytesOf = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// A program of NVRTC, destroyed when it is dropped.
struct Compiled<'n> {
    nvrtc: &'n Nvrtc,
    name: String,
    program: Program,
}

impl Compiled<'_> {
    fn bytes(&self, function: &'static str, size: SizeOf, copy: BytesOf) -> Result<Vec<u8>, NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program lives, and the size has its place.
        let status = unsafe { size(self.program, &mut bytes) };
        self.nvrtc.check(function, status, &self.name)?;
        let mut all = vec![0u8; bytes];
        // SAFETY: there are as many bytes as NVRTC asked for.
        let status = unsafe { copy(self.program, all.as_mut_ptr().cast()) };
        self.nvrtc.check(function, status, &self.name)?;
        Ok(all)
    }

    /// What the compiler said; empty where it said nothing.
    fn log(&self) -> String {
        let functions = &self.nvrtc.functions;
        let log =
            self.bytes("nvrtcGetProgramLog", functions.nvrtcGetProgramLogSize, functions.nvrtcGetProgramLog);
        let log = log.unwrap_or_default();
        String::from_utf8_lossy(&log).trim_end_matches('\0').trim_end().to_string()
    }
}

impl Drop for Compiled<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: made by this library and destroyed nowhere else. What is returned cannot
            // matter any more.
            let _ = unsafe { (self.nvrtc.functions.nvrtcDestroyProgram)(&mut self.program) };
        }
    }
}
