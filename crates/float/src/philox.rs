//! Philox4x32-10: a counter-based generator (Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011). Output depends on key and counter only, so any element
//! can be drawn in any order.

/// A Philox4x32-10 generator: a key, and nothing that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The generator whose key is `seed`, low word first.
    #[inline(always)]
    pub const fn new(seed: u64) -> Philox {
        Philox { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// The generator with this key.
    #[inline(always)]
    pub const fn with_key(key: [u32; 2]) -> Philox {
        Philox { key }
    }

    /// Four independent uniform 32-bit words for `counter`.
    #[inline(always)]
    pub const fn block(self, counter: [u32; 4]) -> [u32; 4] {
        let [mut c0, mut c1, mut c2, mut c3] = counter;
        let [mut k0, mut k1] = self.key;
        let mut round = 0;
        while round < 10 {
            let p0 = 0xd251_1f53u64 * c0 as u64;
            let p1 = 0xcd9e_8d57u64 * c2 as u64;
            (c0, c1, c2, c3) =
                ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
            k0 = k0.wrapping_add(0x9e37_79b9);
            k1 = k1.wrapping_add(0xbb67_ae85);
            round += 1;
        }
        [c0, c1, c2, c3]
    }

    /// [`Philox::block`] of `N` counters at once, lane by lane, so that the work vectorises.
    #[inline(always)]
    pub fn blocks<const N: usize>(self, counters: [[u32; N]; 4]) -> [[u32; N]; 4] {
        let [c0, c1, c2, c3] = counters;
        let mut out = [[0; N]; 4];
        let [o0, o1, o2, o3] = &mut out;
        for i in 0..N {
            [o0[i], o1[i], o2[i], o3[i]] = self.block([c0[i], c1[i], c2[i], c3[i]]);
        }
        out
    }

    /// Word `index` of the sequence of blocks whose counters are (index / 4, `stream`): a random
    /// number for each (seed, stream, element).
    #[inline(always)]
    pub const fn word(self, stream: u64, index: u64) -> u32 {
        let block = index / 4;
        let words = self.block([block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32]);
        words[(index % 4) as usize]
    }
}

/// A uniform number in [0, 1) from 32 random bits: the upper 24 as multiples of 2^-24, each equally
/// likely.
#[inline(always)]
pub const fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// A uniform number in [0, 1) from 64 random bits: the upper 53 as multiples of 2^-53, each equally
/// likely.
#[inline(always)]
pub const fn unit_f64(high: u32, low: u32) -> f64 {
    let bits = ((high as u64) << 32 | low as u64) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three vectors of Random123's `kat_vectors` for `philox4x32 10`.
    #[test]
    fn known_answers() {
        let zero = Philox::new(0).block([0; 4]);
        assert_eq!(zero, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        let ones = Philox::new(u64::MAX).block([u32::MAX; 4]);
        assert_eq!(ones, [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = Philox::with_key([0xa4093822, 0x299f31d0])
            .block([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]);
        assert_eq!(pi, [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn words_are_the_blocks_in_order() {
        let p = Philox::new(7);
        let block = p.block([5, 0, 3, 0]);
        assert_eq!(std::array::from_fn(|i| p.word(3, 20 + i as u64)), block);
    }

    #[test]
    fn lanes_are_blocks() {
        let p = Philox::new(3);
        let counters = [[1, 2, 3, u32::MAX], [0, 5, 6, 7], [8, 9, u32::MAX, 0], [1, 1, 2, 3]];
        let lanes = p.blocks(counters);
        for i in 0..4 {
            assert_eq!(lanes.map(|l| l[i]), p.block(counters.map(|c| c[i])));
        }
    }

    #[test]
    fn unit_numbers_cover_the_half_open_interval() {
        assert_eq!(unit_f32(0), 0.0);
        assert_eq!(unit_f32(u32::MAX), 1.0 - 2f32.powi(-24));
        assert_eq!(unit_f64(u32::MAX, u32::MAX), 1.0 - 2f64.powi(-53));
        // Mean of n uniform numbers: 1/2 with a standard deviation of 1/sqrt(12 n); 6 deviations.
        let n = 1 << 16;
        let p = Philox::new(1);
        let mean = (0..n).map(|i| f64::from(unit_f32(p.word(0, i)))).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 6.0 / (12.0 * n as f64).sqrt(), "{mean}");
    }
}
