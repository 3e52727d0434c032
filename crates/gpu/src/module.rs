//! CUDA C++ sources as they are given to the compiler.

/// A translation unit: everything that decides what is compiled, the architecture and the
/// compiler's version apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Module {
    /// The name that messages of the compiler begin with, such as `reduce.cu`.
    pub name: String,
    /// The text. Its kernels are `extern "C"`.
    pub source: String,
    /// Files that it includes, by the names by which it does.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Macros and their values, in the order in which they are defined.
    pub defines: Vec<(String, String)>,
}

/// The compiler's options for every module, besides architecture and macros.
///
/// Products and sums are contracted only where a kernel says `fmaf`: a chain of operations has the
/// bits that its members have one by one. Division, square root and subnormal numbers are exact,
/// which is the default.
pub const OPTIONS: [&str; 3] = ["--std=c++17", "--device-as-default-execution-space", "--fmad=false"];
