//! Inputs made of others, the same ones for the same seed.

/// A stream of numbers (SplitMix64, Steele, Lea and Flood 2014).
pub struct Draws(pub u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of 0 to `n` − 1; 0 for none.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
}

/// What parsers trip over: texts of JSON, TOML and PEM, and heads of DER.
const TRIPS: [&[u8]; 28] = [
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"nan",
    b"-0.0",
    b"18446744073709551616",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"../a\"",
    b"\"\\u0000\"",
    b"\\ud800",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\n[[key]]\n",
    b"\"\"\"",
    b"9999-99-99T99:99:99Z",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END PUBLIC KEY-----",
    b"=",
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"100000000pt",
];

/// An input made of one of a pool by one to four changes; at most 64 KiB.
pub fn mutated(pool: &[Vec<u8>], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = pool[draws.below(pool.len())].clone();
    for _ in 0..=draws.below(4) {
        let at = draws.below(bytes.len() + 1);
        let longest = 1 << draws.below(10);
        let end = (at + 1 + draws.below(longest)).min(bytes.len());
        match draws.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draws.below(8),
            1 if at < bytes.len() => bytes[at] = draws.next() as u8,
            2 => drop(bytes.drain(at.min(end)..end)),
            3 => {
                let copy = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => drop(bytes.splice(at..at, TRIPS[draws.below(TRIPS.len())].iter().copied())),
            5 => replace_token(&mut bytes, at, TRIPS[draws.below(TRIPS.len())]),
            6 => {
                let other = &pool[draws.below(pool.len())];
                let from = draws.below(other.len() + 1);
                let to = (from + draws.below(256)).min(other.len());
                bytes.splice(at.min(end)..end, other[from..to].iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes.truncate(1 << 16);
    bytes
}

/// Replaces the word or number around a place.
fn replace_token(bytes: &mut Vec<u8>, at: usize, by: &[u8]) {
    let is_inner = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    let start = bytes[..at].iter().rposition(|b| !is_inner(b)).map_or(0, |p| p + 1);
    let end = bytes[at..].iter().position(|b| !is_inner(b)).map_or(bytes.len(), |p| at + p);
    bytes.splice(start..end, by.iter().copied());
}
