//! Shared libraries that are opened while the program runs.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// Why a library cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// The system's loader did not open it.
    #[error("{}: {reason}", file.display())]
    Open {
        /// Its path, or the name that the loader was to search.
        file: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A function is not in it.
    #[error("{}: it has no function {function}: it is another library, or older than what is needed", file.display())]
    Function {
        /// The library.
        file: PathBuf,
        /// The function's name.
        function: &'static str,
    },
}

/// An open library. It stays open until the process ends, for the driver and the compiler have
/// threads and handlers of their own that would run into unmapped code.
#[derive(Debug)]
pub struct Library {
    file: PathBuf,
    handle: ManuallyDrop<libloading::Library>,
}

impl Library {
    /// Opens a library by its path, or by a name that the system's loader searches.
    ///
    /// # Errors
    /// The loader does not open it.
    pub fn open(file: impl AsRef<Path>) -> Result<Library, LibraryError> {
        let file = file.as_ref();
        // SAFETY: opening a library runs its initialisers. It is NVIDIA's driver or compiler, or
        // what the user named in their place; both may be initialised in any thread.
        let handle = unsafe { libloading::Library::new(file) }.map_err(|e| LibraryError::Open {
            file: file.to_path_buf(),
            // Some systems' loaders begin with the path, which is said already.
            reason: reason(&e).trim_start_matches(&format!("{}: ", file.display())).to_string(),
        })?;
        Ok(Library { file: file.to_path_buf(), handle: ManuallyDrop::new(handle) })
    }

    /// The path or name by which it was opened.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A function of this library.
    ///
    /// # Errors
    /// It has none of this name.
    ///
    /// # Safety
    /// `F` is the type of a function pointer, and the function has that type.
    pub(super) unsafe fn function<F: Copy>(&self, name: &'static str) -> Result<F, LibraryError> {
        // SAFETY: the caller vouches for the type. The pointer stays valid because the library is
        // never closed.
        let found = unsafe { self.handle.get::<F>(name) };
        let missing = |_| LibraryError::Function { file: self.file.clone(), function: name };
        found.map(|f| *f).map_err(missing)
    }
}

/// What the loader says; libloading's own text where it says nothing.
fn reason(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |loader| loader.to_string())
}

/// Declares a struct of functions of a library and how it is filled: the names and types are those
/// of CUDA's headers.
macro_rules! functions {
    ($(#[$meta:meta])* pub(super) struct $Table:ident {
        $(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty;)*
    }) => {
        $(#[$meta])*
        #[allow(non_snake_case)]
        pub(super) struct $Table {
            $(pub(super) $name: unsafe extern "C" fn($($ty),*) -> $ret,)*
        }

        impl $Table {
            pub(super) fn of(library: &$crate::cuda::Library) -> Result<$Table, $crate::cuda::LibraryError> {
                Ok($Table {
                    $(
                        // SAFETY: declared as in CUDA's headers; a test compares it with bindings
                        // that are generated from those.
                        $name: unsafe { library.function(stringify!($name))? },
                    )*
                })
            }

            /// Each function's name, the classes of its arguments, and that of its result.
            #[cfg(test)]
            pub(super) fn signatures() -> Vec<String> {
                vec![$({
                    let classes: &[char] = &[$(<$ty as $crate::cuda::library::Class>::CLASS),*];
                    let classes = if classes.is_empty() { "-".into() } else { String::from_iter(classes) };
                    let result = <$ret as $crate::cuda::library::Class>::CLASS;
                    format!("{} {classes} {result}", stringify!($name))
                }),*]
            }
        }
    };
}

pub(super) use functions;

/// How a type is passed, in the letters of `signatures.txt`.
#[cfg(test)]
pub(super) trait Class {
    const CLASS: char;
}

#[cfg(test)]
mod classes {
    use super::Class;

    impl<T> Class for *mut T {
        const CLASS: char = 'p';
    }
    impl<T> Class for *const T {
        const CLASS: char = 'p';
    }
    impl Class for u8 {
        const CLASS: char = '1';
    }
    impl Class for u32 {
        const CLASS: char = '4';
    }
    impl Class for i32 {
        const CLASS: char = '4';
    }
    impl Class for u64 {
        const CLASS: char = '8';
    }
    impl Class for usize {
        const CLASS: char = '8';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_absent_is_named_with_what_the_loader_says() {
        let error = Library::open("/nowhere/libcuda.so.1").unwrap_err();
        let LibraryError::Open { reason, .. } = &error else { panic!("{error:?}") };
        assert!(!reason.is_empty() && !reason.contains("/nowhere/"), "{reason}");
        assert_eq!(error.to_string(), format!("/nowhere/libcuda.so.1: {reason}"));
    }
}
