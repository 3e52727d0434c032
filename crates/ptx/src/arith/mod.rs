//! Scalar arithmetic as PTX defines it, applied to whole registers.
//!
//! [`lookup`] finds the function of an opcode. Each function takes registers of 32 lanes, and is
//! defined for every value, since lanes that are not active are computed as well.

mod bits;
mod compare;
mod convert;
mod exact;
mod float;
mod function;
mod half;
mod integer;
mod shape;

pub(crate) use bits::permute_mode;
pub(crate) use compare::{Comparison, comparison};
pub(crate) use convert::{Convert, conversion, convert};
pub(crate) use shape::{Shape, Words};

use crate::machine::Kind;

/// The function of an opcode and what it counts as; nothing where there is none, or not with these
/// modifiers.
pub(crate) fn lookup(stem: &str, modifiers: &[String]) -> Option<(Shape, Kind)> {
    let words = Words::new(modifiers);
    integer::lookup(stem, words.clone())
        .or_else(|| bits::lookup(stem, words.clone()))
        .map(|shape| (shape, Kind::Integer))
        .or_else(|| float::lookup(stem, words.clone()))
        .or_else(|| half::lookup(stem, words.clone()).map(|shape| (shape, Kind::Half)))
        .or_else(|| function::lookup(stem, words).map(|shape| (shape, Kind::Function)))
}
