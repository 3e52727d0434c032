//! What a build with the feature `serve` does besides, in one program, which is linked once.
#![cfg(feature = "serve")]

#[path = "../common/mod.rs"]
mod common;

mod cards;
mod registry;
mod serving;
mod signing;
mod soak;
