//! Swizzles of shared memory: how bulk copies lay tiles out, and how `wgmma` reads them.

/// A swizzle: pieces of 16 bytes trade places within a span, by the rows of 128 bytes that they lie
/// in, so that a column of pieces meets all banks.
///
/// Three bits of an offset, those of the piece, are combined by exclusive or with the bits of its
/// 128-byte row; offsets are those from the start of shared memory, whose pattern repeats every
/// 1024, 512 or 256 bytes. See the PTX ISA, section "Tensor: swizzling modes".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Swizzle {
    /// Every byte in its place.
    #[default]
    None,
    /// Within 32 bytes.
    Bytes32,
    /// Within 64 bytes.
    Bytes64,
    /// Within 128 bytes.
    Bytes128,
}

impl Swizzle {
    /// Bytes within which pieces trade places; 16 for none.
    pub fn span(self) -> usize {
        match self {
            Swizzle::None => 16,
            Swizzle::Bytes32 => 32,
            Swizzle::Bytes64 => 64,
            Swizzle::Bytes128 => 128,
        }
    }

    /// Where the byte at an offset lies.
    pub fn place(self, offset: usize) -> usize {
        let pieces = self.span() / 16 - 1;
        offset ^ ((offset >> 7 & pieces) << 4)
    }
}
