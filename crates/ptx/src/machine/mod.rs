//! What an instruction changes: the registers of a warp, and the state of its block.

mod barrier;
mod block;
mod bulk;
mod copies;
mod count;
mod mbarrier;
mod products;
mod proxy;
mod publish;
mod registers;
mod shared;
mod sync;
mod trap;
mod warp;

pub(crate) use barrier::{BARRIERS, Barrier, CLUSTER, Waiting, Wants};
pub(crate) use block::{Block, Settings};
pub(crate) use bulk::{BulkCopy, BulkPiece, Destination};
pub(crate) use copies::{Copies, Piece};
pub use count::{Counts, Kind, Watch};
pub(crate) use mbarrier::{MBARRIER_LIMIT, Mbarrier};
pub(crate) use products::{Agreed, Left, Product, Products};
pub(crate) use proxy::Proxy;
pub(crate) use registers::{Lanes32, Lanes64, R32, R64, RP, Registers, lanes};
pub(crate) use shared::Shared;
pub(crate) use trap::{File, Flow, Trap};
pub(crate) use warp::{Warp, Who};
