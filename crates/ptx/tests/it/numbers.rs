//! Inputs of kernels, and their bytes.

use halfstep_ptx::formats::{Conversion, Format, Rounding};

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between −1 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Values of a format between −`scale` and `scale`: their codes, and what these are worth.
    pub fn codes(&mut self, format: Format, count: usize, scale: f64) -> (Vec<u32>, Vec<f64>) {
        let codes: Vec<u32> = (0..count).map(|_| nearest(format, self.unit() * scale)).collect();
        let values = codes.iter().map(|&code| f64::from(format.decode(code))).collect();
        (codes, values)
    }
}

/// The code nearest to a value.
pub fn nearest(format: Format, value: f64) -> u32 {
    format.encode(value, Conversion::rounded(Rounding::NearestEven))
}

/// Codes as they lie in memory.
pub fn bytes_of(codes: &[u32], format: Format) -> Vec<u8> {
    let size = format.bits() as usize / 8;
    codes.iter().flat_map(|code| code.to_le_bytes()[..size].to_vec()).collect()
}

/// f32 values as they lie in memory.
pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Unsigned integers as they lie in memory.
pub fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}
