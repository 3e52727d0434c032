//! The driver's functions: those that ask, and those that use a GPU. What they take is what
//! `cuda.h` says.

mod asked;
mod graphs;
mod kernels;
mod memory;

use std::ffi::{CStr, c_char, c_void};
use std::time::Instant;

use crate::settings::Settings;
use crate::state::{self, CURRENT, State, Status};

type Done = Result<(), Status>;

/// Settings for this copy of the library.
///
/// # Safety
/// The text ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn halfstep_fake_cuda_configure(settings: *const c_char) {
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(settings) }.to_string_lossy().into_owned();
    *state::lock() = Some(State::new(Settings::parse(&text)));
}

/// What a function needs before it does anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// The driver, initialised.
    Driver,
    /// A current context, and a GPU that has not failed.
    Context,
    /// The same, for what frees: it is freed even where the GPU has failed.
    Freeing,
}

fn call(function: &str, needs: Needs, body: impl FnOnce(&mut State) -> Done) -> Status {
    let mut lock = state::lock();
    let state = lock.get_or_insert_with(|| {
        let text = std::env::var("HALFSTEP_FAKE_CUDA").unwrap_or_default();
        State::new(Settings::parse(&text))
    });
    let status = check(state, function, needs).and_then(|()| match (needs, state.failed) {
        (Needs::Context, Some(failed)) => Err(failed),
        (Needs::Freeing, Some(failed)) => body(state).and(Err(failed)),
        _ => body(state),
    });
    let status = status.err().unwrap_or(0);
    state.end_line(function, status);
    let end = state.wait_until.take();
    // Other threads may call meanwhile.
    drop(lock);
    if let Some(end) = end {
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    status
}

fn check(state: &mut State, function: &str, needs: Needs) -> Done {
    if needs != Needs::Nothing && !state.initialised {
        return Err(state::NOT_INITIALIZED);
    }
    if matches!(needs, Needs::Context | Needs::Freeing) {
        let current = CURRENT.get().and_then(|device| state.retained.get(&device));
        if current.is_none_or(|count| *count == 0) {
            state.problem(format!("{function} without a current context"));
            return Err(state::INVALID_CONTEXT);
        }
    }
    Ok(())
}

/// Writes where the caller asked for it.
///
/// # Safety
/// The place is null or can be written.
unsafe fn give<T>(place: *mut T, value: T) -> Done {
    if place.is_null() {
        return Err(state::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

fn pointer(handle: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(handle)
}

/// Removes an object, or says that it was not there.
fn removed<T>(state: &mut State, what: &str, found: Option<T>) -> Result<T, Status> {
    found.ok_or_else(|| {
        state.problem(format!("{what} that is not there is freed: it never was, or was freed before"));
        state::INVALID_HANDLE
    })
}

/// Declares functions of the driver; each is unsafe as C is.
macro_rules! driver {
    ($($needs:ident fn $name:ident($state:ident $(, $arg:ident: $ty:ty)*) $body:block)*) => {
        $(
            /// As `cuda.h` has it.
            ///
            /// # Safety
            /// As `cuda.h` has it.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::missing_safety_doc)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> Status {
                call(stringify!($name), Needs::$needs, |$state| $body)
            }
        )*
    };
}

use driver;
