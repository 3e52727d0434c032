//! How the elements of a product are multiplied, and in tiles of which size.

use halfstep_graph::{DType, Split};

use super::Lowering;
use crate::kernels::c_type;

/// How a product is computed.
pub(super) struct Scheme {
    /// The type that Tensor Cores multiply, and in how many terms each operand is split; none where
    /// f32 is multiplied as it is.
    tensor: Option<(DType, usize)>,
    /// Rows and columns of a tile.
    pub tile: usize,
}

impl Scheme {
    /// Of a product of the first two operands: `batch` times `m` by `n`.
    ///
    /// Codes of 8 bits are exact in bf16. The size of tiles decides no bit: each sum has one order.
    pub fn of(l: &Lowering<'_>, batch: usize, m: usize, n: usize) -> Scheme {
        let in_bf16 = |d: DType| matches!(d, DType::Bf16 | DType::E4m3 | DType::E5m2);
        let tensor = match (l.input(0).dtype, l.input(1).dtype, l.node.split) {
            (a, b, _) if in_bf16(a) && in_bf16(b) => Some((DType::Bf16, 1)),
            (DType::F16, DType::F16, _) => Some((DType::F16, 1)),
            (DType::F32, DType::F32, Some(Split::Bf16x3)) => Some((DType::Bf16, 2)),
            (DType::F32, DType::F32, Some(Split::Bf16x6)) => Some((DType::Bf16, 3)),
            _ => None,
        };
        // Large tiles read less, where there are enough of them to occupy a GPU; terms of split
        // operands fill the shared memory of small ones.
        let large = m.div_ceil(128) * n.div_ceil(128) * batch >= 64;
        let tile = if large && matches!(tensor, Some((_, 1))) { 128 } else { 64 };
        Scheme { tensor, tile }
    }

    /// What kernels know of it.
    pub fn macros(&self) -> Vec<(&'static str, &'static str)> {
        let Some((half, planes)) = self.tensor else { return Vec::new() };
        let planes = ["1", "2", "3"][planes - 1];
        vec![
            ("HALF", c_type(half)),
            ("PLANES", planes),
            ("TILE", if self.tile == 128 { "128" } else { "64" }),
        ]
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        if self.tensor.is_some() { 2 * self.tile as u32 } else { 256 }
    }
}
