//! Bytes of the state spaces, which of them were written, and who touched them last.

mod bits;
mod clock;
mod global;
mod shadow;
mod window;

pub(crate) use bits::{Bits, Bytes};
pub(crate) use clock::{Clocks, Vector, join};
pub(crate) use global::{Global, LaunchMemory, Span, Touch};
pub(crate) use shadow::{Conflict, Order, Shadow, Strength, Thread};
pub(crate) use window::{CONST_WINDOW, GLOBAL_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, space_of};
