//! Bytes that know which of them were written.

/// A set of bytes, one bit for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Bits for `bytes` bytes, none set.
    pub fn new(bytes: usize) -> Bits {
        Bits { words: vec![0; bytes.div_ceil(64)] }
    }

    /// Takes every byte out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Whether all of `at..at + bytes` are set.
    #[inline]
    pub fn all(&self, at: usize, bytes: usize) -> bool {
        pieces(at, bytes).all(|(word, mask)| self.words[word] & mask == mask)
    }

    /// Whether any of `at..at + bytes` is set.
    #[inline]
    pub fn any(&self, at: usize, bytes: usize) -> bool {
        pieces(at, bytes).any(|(word, mask)| self.words[word] & mask != 0)
    }

    /// Sets `at..at + bytes`.
    #[inline]
    pub fn set(&mut self, at: usize, bytes: usize) {
        for (word, mask) in pieces(at, bytes) {
            self.words[word] |= mask;
        }
    }

    /// Takes `at..at + bytes` out.
    pub fn unset(&mut self, at: usize, bytes: usize) {
        for (word, mask) in pieces(at, bytes) {
            self.words[word] &= !mask;
        }
    }
}

/// The words that `at..at + bytes` touches, each with a mask of its bits.
#[inline]
fn pieces(at: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = at + bytes;
    let mut from = at;
    std::iter::from_fn(move || {
        if from >= end {
            return None;
        }
        let word = from / 64;
        let stop = end.min((word + 1) * 64);
        let mask = (u64::MAX >> (64 - (stop - from))) << (from % 64);
        from = stop;
        Some((word, mask))
    })
}

/// Bytes, and which of them were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes {
    pub data: Vec<u8>,
    pub written: Bits,
}

/// What bytes hold that nothing was written to.
const POISON: u8 = 0xcd;

impl Bytes {
    /// `bytes` bytes, none written.
    pub fn new(bytes: usize) -> Bytes {
        Bytes { data: vec![POISON; bytes], written: Bits::new(bytes) }
    }

    /// Bytes that count as written.
    pub fn of(data: Vec<u8>) -> Bytes {
        let mut written = Bits::new(data.len());
        written.set(0, data.len());
        Bytes { data, written }
    }

    /// Writes `from` at `at`; the caller has checked the bounds.
    #[inline]
    pub fn store(&mut self, at: usize, from: &[u8]) {
        self.data[at..at + from.len()].copy_from_slice(from);
        self.written.set(at, from.len());
    }

    /// Forgets what was written.
    pub fn reset(&mut self) {
        self.data.fill(POISON);
        self.written.clear();
    }
}
