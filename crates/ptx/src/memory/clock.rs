//! Which accesses of a block's warps are in an order: vector clocks.
//!
//! A warp's own entry counts the points where it let others know what it did; the other entries
//! say up to which such point it knows of theirs. See Flanagan and Freund, "FastTrack", PLDI 2009.

/// Most warps of a block: 1024 threads.
pub(crate) const WARPS: usize = 32;

/// What one warp knows of all, at one time.
pub(crate) type Vector = [u32; WARPS];

/// The clocks of a block's warps.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    of: Vec<Vector>,
}

impl Clocks {
    /// Clocks at the start of a block.
    pub fn new(warps: usize) -> Clocks {
        let mut clocks = Clocks { of: vec![[0; WARPS]; warps] };
        clocks.reset();
        clocks
    }

    /// As at the start of a block.
    pub fn reset(&mut self) {
        for (warp, vector) in self.of.iter_mut().enumerate() {
            *vector = [0; WARPS];
            vector[warp] = 1;
        }
    }

    /// The own count of a warp.
    #[inline]
    pub fn now(&self, warp: usize) -> u32 {
        self.of[warp][warp]
    }

    /// Whether `warp` knows of what `other` did at `count`.
    #[inline]
    pub fn knows(&self, warp: usize, other: usize, count: u32) -> bool {
        count <= self.of[warp][other]
    }

    /// What `warp` has done so far is let known through the result; what it does next is not.
    pub fn release(&mut self, warp: usize) -> Vector {
        let vector = self.of[warp];
        self.of[warp][warp] += 1;
        vector
    }

    /// `warp` learns what a released vector knows.
    pub fn acquire(&mut self, warp: usize, from: &Vector) {
        join(&mut self.of[warp], from);
    }

    /// The lanes of a warp let each other know.
    pub fn sync_lanes(&mut self, warp: usize) {
        self.of[warp][warp] += 1;
    }
}

/// The larger entry of both, in `to`.
pub(crate) fn join(to: &mut Vector, from: &Vector) {
    for (a, b) in to.iter_mut().zip(from) {
        *a = (*a).max(*b);
    }
}
