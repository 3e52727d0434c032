//! How products of tiles make one product of matrices: which planes operands are packed into, and
//! which pairs of planes are multiplied.

use halfstep_graph::Split;

use super::ProductFormat;

/// What the tile instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileFormat {
    /// `tdpbf16ps`.
    Bf16,
    /// `tdpfp16ps`.
    F16,
}

/// A way to multiply by tiles.
pub(crate) trait Scheme: Copy + Send + Sync + 'static {
    /// What it computes.
    const COMPUTE: ProductFormat;
    /// What its planes hold.
    const FORMAT: TileFormat;
    /// Planes of an operand; a step of 32 k has one after the other.
    const PLANES: usize;
    /// Planes of A and B that are multiplied in a step, in order.
    ///
    /// The sum already holds the steps before, so within a step the order decides nothing about the
    /// bound. It is chosen so that from one pass to the next only one operand changes, which saves
    /// loads, and so that the pass that may overflow comes last where that is free.
    const PASSES: &'static [(usize, usize)];
    /// The longest k block: a panel of 32 columns of B then has about 40 KB, the size at which
    /// streaming it through the first-level cache was measured to be fastest.
    const KC: usize = 640 / Self::PLANES / 32 * 32;
}

macro_rules! schemes {
    ($($(#[$doc:meta])* $name:ident: $compute:expr, $format:ident, $planes:literal, $passes:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;

        impl Scheme for $name {
            const COMPUTE: ProductFormat = $compute;
            const FORMAT: TileFormat = TileFormat::$format;
            const PLANES: usize = $planes;
            const PASSES: &'static [(usize, usize)] = &$passes;
        }
    )+};
}

schemes! {
    /// bf16 operands, one product.
    Bf16: ProductFormat::Bf16, Bf16, 1, [(0, 0)];
    /// f16 operands as f16.
    F16: ProductFormat::F16, F16, 1, [(0, 0)];
    /// f16 operands, each the exact sum of two bf16 planes: all four products.
    F16ByBf16: ProductFormat::F16, Bf16, 2, [(1, 1), (0, 1), (0, 0), (1, 0)];
    /// f32 operands as two bf16 planes: [`Split::Bf16x3`].
    Bf16x3: ProductFormat::Split(Split::Bf16x3), Bf16, 2, [(1, 0), (0, 0), (0, 1)];
    /// f32 operands as three bf16 planes: [`Split::Bf16x6`].
    Bf16x6: ProductFormat::Split(Split::Bf16x6), Bf16, 3,
        [(0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0)];
}

/// Runs `$body` with `$scheme` naming the [`Scheme`] of a compute format, given whether tiles take
/// f16; f32 and tf32 have none.
macro_rules! with_scheme {
    ($compute:expr, $native_f16:expr, $scheme:ident => $body:expr, else $other:expr) => {
        $crate::gemm::scheme::with_scheme!(@ $compute, $native_f16, $scheme, $body, $other;
            ProductFormat::Bf16, _ => Bf16;
            ProductFormat::F16, true => F16;
            ProductFormat::F16, false => F16ByBf16;
            ProductFormat::Split(halfstep_graph::Split::Bf16x3), _ => Bf16x3;
            ProductFormat::Split(halfstep_graph::Split::Bf16x6), _ => Bf16x6)
    };
    (@ $compute:expr, $native_f16:expr, $scheme:ident, $body:expr, $other:expr;
        $($format:pat, $native:pat => $name:ident);+) => {{
        use $crate::gemm::ProductFormat;
        match ($compute, $native_f16) {
            (ProductFormat::F32 | ProductFormat::Split(halfstep_graph::Split::Tf32), _) => $other,
            $(($format, $native) => {
                type $scheme = $crate::gemm::scheme::$name;
                $body
            })+
        }
    }};
}
pub(crate) use with_scheme;
