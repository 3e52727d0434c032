//! The operations of this module, decoded.

use super::barrier::BarrierOp;
use super::bulk::BulkOp;
use super::group::GroupOp;
use super::warp::WarpOp;
use crate::machine::Kind;

/// A decoded operation.
#[derive(Clone, Debug)]
pub(crate) enum TensorOp {
    /// Matrices and products of one warp.
    Warp(WarpOp),
    /// An mbarrier, or a fence that bulk copies need.
    Barrier(BarrierOp),
    /// A bulk copy.
    Bulk(BulkOp),
    /// Products of a group of four warps.
    Group(GroupOp),
}

impl TensorOp {
    /// What the operation does, for counting.
    pub fn kind(&self) -> Kind {
        match self {
            TensorOp::Warp(WarpOp::LoadMatrix(_)) => Kind::SharedLoad,
            TensorOp::Warp(WarpOp::StoreMatrix(_)) => Kind::SharedStore,
            TensorOp::Warp(WarpOp::Transpose { .. }) => Kind::Warp,
            TensorOp::Warp(WarpOp::Multiply(_)) | TensorOp::Group(GroupOp::Multiply(_)) => Kind::Tensor,
            TensorOp::Barrier(_) | TensorOp::Group(_) => Kind::Barrier,
            TensorOp::Bulk(_) => Kind::Copy,
        }
    }

    /// Whether it reads or writes shared memory through the async proxy.
    pub fn through_proxy(&self) -> bool {
        matches!(self, TensorOp::Bulk(_) | TensorOp::Group(_))
    }
}
