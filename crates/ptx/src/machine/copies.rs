//! Asynchronous copies that are on their way.

/// A piece of a copy to shared memory that `cp.async` asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub lane: usize,
    /// Where it goes, an offset in shared memory.
    pub to: usize,
    pub data: [u8; 16],
    pub bytes: usize,
    /// The group of its lane that it belongs to.
    pub group: u32,
}

/// The copies of a warp by `cp.async`, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    pub pieces: Vec<Piece>,
    /// Groups that each lane has committed.
    pub committed: [u32; 32],
}

impl Copies {
    /// Takes out the pieces that have to be there when `lane` waits until at most `pending` of its
    /// committed groups are on their way.
    pub fn due(&mut self, lane: usize, pending: u32) -> Vec<Piece> {
        let until = self.committed[lane].saturating_sub(pending);
        self.pieces.extract_if(.., |piece| piece.lane == lane && piece.group < until).collect()
    }
}
