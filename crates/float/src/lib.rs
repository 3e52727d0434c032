//! Number formats, rounding and bulk conversion; range statistics; the counter-based generator.
//!
//! Two conversions exist. [`encode`], [`decode`] and [`round_to`] are the reference for every
//! [`Format`], in integer arithmetic. The functions of [`bulk`] and [`convert`] are the fast ones,
//! for f16 and bf16 with NaN payloads kept, and for every format with either rounding; they are
//! tested against the reference.

#![forbid(unsafe_code)]

pub mod bulk;
mod code;
#[macro_use]
pub mod convert;
pub mod blocks;
mod draws;
mod format;
mod integers;
mod philox;
mod scale;
mod stats;
mod stored;
mod sums;
mod tf32;

pub use bulk::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};
pub use bulk::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use code::{Overflow, Rounding, decode, encode, round_to, ulp};
pub use convert::{SliceRounding, codes8_to_bf16, codes8_to_f32, f32_to_codes8, f32_to_codes16, round_f32};
pub use convert::{e4m3_from_f32, e5m2_from_f32, f32_from_e4m3, f32_from_e5m2};
pub use convert::{pack4, unpack4};
pub use draws::Draws;
pub use format::{Format, FormatInfo, UnknownFormat};
pub use integers::round_to_integers;
pub use philox::{Philox, unit_f32, unit_f64};
pub use scale::E8m0;
pub use stats::{FormatCounts, RangeStats};
pub use stored::{Class, Fields, Odds, Stored, exact_decimal};
pub use sums::{Accumulation, RunningSum};
pub use tf32::round_to_tf32;
