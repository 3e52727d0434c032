//! The widths with which Tensor Cores add, by architecture and instruction.
//!
//! Sources: Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ
//! Computer Science 7:e330, 2021 (V100, T4, A100: truncation, alignment to the greatest exponent,
//! blocks of 4 and 8); Li, Wang et al., "FTTN: Feature-Targeted Testing for Numerical Properties of
//! NVIDIA & AMD Matrix Accelerators", 2024 (H100: two extra bits, blocks of 16 and more); Xie,
//! Wang, Yang, Yang, "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores",
//! arXiv:2511.10909, 2025 (all below, equal bit by bit to ten GPUs); DeepSeek-AI, "DeepSeek-V3
//! Technical Report", arXiv:2412.19437, section 3.3.2 (fp8 on H800 keeps about 14 bits); Khattak
//! and Mikaitis, arXiv:2510.15884 (the RTX 3060 adds as the A100 does). `mma.sync` on Hopper was
//! measured by `scripts/gpu_sums.py` on an H200 on 2026-11-27: 3,072 sums each of bf16, f16, tf32,
//! e4m3 and e5m2, all of which this table gives bit by bit; `tests/it/hardware.rs` has a third.

use crate::formats::Format;
use crate::summation::{AccumulatorAdded, Alignment};

/// The compute capability that a kernel is run as: 80 for 8.0, 90 for 9.0, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(pub u32);

/// Which instruction multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `mma.sync`, by one warp.
    Warp,
    /// `wgmma.mma_async`, by four warps.
    WarpGroup,
}

const F32_BITS: u32 = 23;
/// Results of fp8 sums in short registers have as many mantissa bits.
const SHORT_BITS: u32 = 13;

/// How sums of products of `format` are aligned and truncated.
pub fn alignment(capability: Capability, unit: Unit, format: Format) -> Alignment {
    let sm = capability.0;
    let fp8 = matches!(format, Format::E4m3 | Format::E5m2);
    let tf32 = format == Format::Tf32;
    let apart = emulated(capability, unit, format);
    let accumulator = if apart { AccumulatorAdded::AfterProducts } else { AccumulatorAdded::WithProducts };
    let bits = |fraction_bits, products, result_bits| Alignment {
        fraction_bits,
        products,
        result_bits,
        accumulator,
    };
    match sm {
        // Ada: short registers for fp8, 16 products at a time (MMA-Sim); everything else as Ampere.
        89 if fp8 => bits(SHORT_BITS, 16, SHORT_BITS),
        // Ampere: one extra bit; 8 products of 16 bits, 4 of tf32 (Fasi et al., table 6; MMA-Sim).
        ..90 => bits(24, if tf32 { 4 } else { 8 }, F32_BITS),
        // Hopper's fp8 wgmma: short registers over all 32 products (MMA-Sim; DeepSeek-V3).
        90..100 if fp8 && unit == Unit::WarpGroup => bits(SHORT_BITS, 32, SHORT_BITS),
        // Hopper and Blackwell: two extra bits, one step an instruction (FTTN; MMA-Sim; Hopper's
        // `mma.sync` measured).
        _ if fp8 && !apart => bits(25, 32, F32_BITS),
        _ => bits(25, if tf32 { 8 } else { 16 }, F32_BITS),
    }
}

/// Whether `mma.sync` of fp8 is assembled to conversions and two f16 products, the first of them
/// with elements 0 and 1 of each register, the second with 2 and 3, and an addition of the
/// accumulator to what both give. So does ptxas 13.0 for 9.0 and 10.0, but not for 8.9 and 12.0.
pub fn emulated(capability: Capability, unit: Unit, format: Format) -> bool {
    let fp8 = matches!(format, Format::E4m3 | Format::E5m2);
    fp8 && unit == Unit::Warp && (90..120).contains(&capability.0)
}
