//! What an instruction changes: the registers of a warp, and the state of its block.

mod block;
mod copies;
mod count;
mod mbarrier;
mod registers;
mod shared;
mod trap;
mod warp;

pub(crate) use block::{Block, Settings, Who};
pub(crate) use copies::{Copies, Piece};
pub(crate) use count::{Counts, Kind};
pub(crate) use mbarrier::Mbarrier;
pub(crate) use registers::{Lanes32, Lanes64, R32, R64, RP, Registers, lanes};
pub(crate) use shared::Shared;
pub(crate) use trap::{File, Flow, Trap};
pub(crate) use warp::Warp;
