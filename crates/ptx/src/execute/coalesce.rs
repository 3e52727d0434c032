//! How many sectors and passes the accesses of a warp take.

use crate::machine::{Lanes64, lanes};

/// Bytes of a sector, the unit in which global memory is moved.
const SECTOR: u64 = 32;
/// Banks of shared memory, each of 4 bytes.
const BANKS: usize = 32;

/// The lanes that one request serves: a warp's accesses of 8 and 16 bytes are split into halves
/// and quarters.
fn requests(m: u32, bytes: u32) -> impl Iterator<Item = u32> {
    let parts = (bytes / 4).clamp(1, 4).next_power_of_two();
    let width = 32 / parts;
    (0..parts).map(move |part| m & (((1u64 << width) - 1) as u32) << (part * width)).filter(|m| *m != 0)
}

/// Sectors of 32 bytes that the lanes `m` ask for, `bytes` each.
pub(super) fn sectors(addresses: &Lanes64, m: u32, bytes: u32) -> u64 {
    let mut total = 0;
    for request in requests(m, bytes) {
        let mut seen = [0u64; 64];
        let mut count = 0;
        let mut sorted = true;
        for lane in lanes(request) {
            // An access that runs over the last address is a fault, which is found later.
            let last = addresses[lane].saturating_add(u64::from(bytes) - 1);
            let (first, last) = (addresses[lane] / SECTOR, last / SECTOR);
            for sector in [first, last] {
                if count > 0 && seen[count - 1] == sector {
                    continue;
                }
                sorted &= count == 0 || seen[count - 1] < sector;
                if count < 64 {
                    seen[count] = sector;
                    count += 1;
                }
            }
        }
        if !sorted {
            seen[..count].sort_unstable();
            count = 1 + seen[..count].windows(2).filter(|pair| pair[0] != pair[1]).count();
        }
        total += count as u64;
    }
    total
}

/// Passes of shared memory beyond the first: the most different words of one bank, less one, summed
/// over the requests.
pub(super) fn conflicts(offsets: &Lanes64, m: u32, bytes: u32) -> u64 {
    requests(m, bytes).map(|request| passes(offsets, request, u64::from(bytes.div_ceil(4))) - 1).sum()
}

/// Passes of one request, of `words` words for each lane.
fn passes(offsets: &Lanes64, request: u32, words: u64) -> u64 {
    let all = || lanes(request).flat_map(|lane| offsets[lane] / 4..offsets[lane] / 4 + words);
    let mut first = [u64::MAX; BANKS];
    let meets = |word: u64| {
        let known = &mut first[word as usize % BANKS];
        let free = *known == u64::MAX || *known == word;
        *known = word;
        !free
    };
    if !all().any(meets) {
        return 1;
    }
    let mut seen: Vec<u64> = all().collect();
    seen.sort_unstable();
    seen.dedup();
    let mut counts = [0; BANKS];
    seen.iter().for_each(|word| counts[*word as usize % BANKS] += 1);
    counts.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> Lanes64 {
        std::array::from_fn(|lane| 4096 + lane as u64 * stride)
    }

    #[test]
    fn sectors_of_strides() {
        assert_eq!(sectors(&strided(4), u32::MAX, 4), 4);
        assert_eq!(sectors(&strided(16), u32::MAX, 16), 16);
        assert_eq!(sectors(&strided(0), u32::MAX, 4), 1);
        assert_eq!(sectors(&strided(32), u32::MAX, 4), 32);
        assert_eq!(sectors(&strided(2), 1, 2), 1);
        // A misaligned warp touches one sector more.
        let moved = strided(4).map(|address| address + 4);
        assert_eq!(sectors(&moved, u32::MAX, 4), 5);
        let backwards: Lanes64 = std::array::from_fn(|lane| 4096 + (31 - lane as u64) * 4);
        assert_eq!(sectors(&backwards, u32::MAX, 4), 4);
    }

    #[test]
    fn conflicts_of_strides() {
        assert_eq!(conflicts(&strided(4), u32::MAX, 4), 0);
        assert_eq!(conflicts(&strided(0), u32::MAX, 4), 0, "one word is broadcast");
        assert_eq!(conflicts(&strided(8), u32::MAX, 4), 1);
        assert_eq!(conflicts(&strided(128), u32::MAX, 4), 31);
        assert_eq!(conflicts(&strided(132), u32::MAX, 4), 0, "a padded row");
        assert_eq!(conflicts(&strided(16), u32::MAX, 16), 0);
        // Rows of 128 bytes, 16 bytes each: the eight lanes of a quarter meet in the same banks.
        assert_eq!(conflicts(&strided(128), u32::MAX, 16), 4 * 7);
    }
}
