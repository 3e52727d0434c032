//! Products by `wgmma` that are on their way.

use super::registers::{Lanes32, R32};
use crate::products::{Descriptor, GroupMma, Major};

/// Where a product has A.
#[derive(Clone, Debug)]
pub(crate) enum Left {
    /// In registers, which have to keep these values until the product is waited for.
    Registers(Vec<(R32, Lanes32)>),
    Shared(Descriptor, Major),
}

/// One warp's part of a product that was asked for and not waited for.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub shape: GroupMma,
    pub left: Left,
    pub right: (Descriptor, Major),
    /// Registers of D. Their values are there; they count as not written.
    pub d: Vec<R32>,
    /// D is added to; else it is overwritten.
    pub accumulates: bool,
    /// Group of its warp that it belongs to.
    pub group: u32,
    /// Whether D has been computed.
    pub computed: bool,
}

/// The products of one warp.
#[derive(Clone, Debug, Default)]
pub(crate) struct Products {
    /// Oldest first.
    pub in_flight: Vec<Product>,
    /// Groups that the warp has committed: the number of the group that is open.
    pub committed: u32,
    /// Products that the warp has asked for, in all.
    pub issued: usize,
    /// The registers as they were at the last `wgmma.fence`, with the results since.
    pub fenced: Option<Vec<Lanes32>>,
}

impl Products {
    /// Takes out the products that have to be over when at most `pending` committed groups are not.
    pub fn due(&mut self, pending: u32) -> Vec<Product> {
        let until = self.committed.saturating_sub(pending);
        self.in_flight.extract_if(.., |product| product.group < until).collect()
    }
}

/// What the four warps of a group have to agree on in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub shape: GroupMma,
    /// The bits of the descriptors; none for A in registers.
    pub left: Option<u64>,
    pub right: u64,
    pub accumulates: bool,
}
