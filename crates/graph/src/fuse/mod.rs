//! Fusion: fewer trips to memory for the same arithmetic.
//!
//! Two passes. [`fuse()`] rewrites: a bias added to a matrix product or convolution becomes its
//! third operand, added to the f32 accumulator before the one rounding. [`group()`] rewrites
//! nothing: it says which nodes an engine runs as one step, so that values which only that step
//! reads never reach memory. The graph stays one of primitive operations, and its meaning, its
//! precision plan and its text stay true. A value inside a group is rounded to its storage type as
//! if it were stored: a program has the same bits with and without groups.

mod bias;
mod describe;
mod grouping;

pub use bias::fuse;
pub use describe::{Traffic, flops};
pub use grouping::group;
