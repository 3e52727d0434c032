//! Whether the scans of a JPEG file have data for the whole of its picture.
//!
//! A decoder takes zeros for what is missing before the end marker, and says nothing. But the data
//! of a whole picture are never read to the end marker: what is put before that changes nothing.
//! Where a file has restart markers, their number tells as much, but of what follows the last.

/// More bytes than a decoder reads ahead; in Huffman codes unlike the zeros that it makes up.
const MORE: [u8; 64] = [0x5A; 64];

/// A file with more data before its end marker, and nothing after it. `scan` is where the data of
/// the first scan begin. In them, `FF` is the start of a marker unless 0 follows it (ITU-T T.81,
/// B.1.1.5); between scans, segments say their length.
pub(super) fn lengthened(bytes: &[u8], scan: usize) -> Option<Vec<u8>> {
    let mut at = scan;
    loop {
        match bytes.get(at..at + 2)? {
            [0xFF, 0xD9] => return Some([&bytes[..at], &MORE, &[0xFF, 0xD9]].concat()),
            [0xFF, 0x00 | 0xD0..=0xD7] => at += 2,
            [0xFF, 0xFF] => at += 1,
            [0xFF, _] => {
                let length = bytes.get(at + 2..at + 4)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
            _ => at += 1,
        }
    }
}

/// The least number of units (MCUs, A.2.4) that restart markers count, by the frame header: as many
/// as the largest sampling factors leave.
pub(super) fn units(frame: &[u8]) -> usize {
    let &[_, h1, h0, w1, w0, _, ref components @ ..] = frame else { return 0 };
    let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
    let factor = |shift: u32| {
        let factors = components.chunks_exact(3).map(|component| usize::from(component[1] >> shift & 15));
        8 * factors.max().unwrap_or(1).max(1)
    };
    usize::from(width).div_ceil(factor(4)) * usize::from(height).div_ceil(factor(0))
}

/// Restart markers in the first scan, whose data these are.
pub(super) fn restarts(scan: &[u8]) -> usize {
    let markers = scan.windows(2).filter(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
    markers.take_while(|pair| matches!(pair[1], 0xD0..=0xD7)).count()
}
