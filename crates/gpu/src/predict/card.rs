//! Rates and latencies of GPUs: all constants of the predictor, with their sources.
//!
//! Those that say "fitted" were set once, on the times of the groups of the MLP, GPT and ResNet-18
//! of `halfstep bench step` on an H200 (2026-11-27), for all kernels together; none is of a kernel.

/// A GPU. Times are in cycles of its multiprocessors, rates per cycle and multiprocessor, if
/// nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name.
    pub name: &'static str,
    /// Multiprocessors: NVIDIA H100 white paper, SXM5.
    pub multiprocessors: f64,
    /// Cycles in a microsecond: the boost clock at which 989 TFLOP/s of the data sheet are
    /// 4,096 operations of 16 bits a cycle and multiprocessor.
    pub cycles_per_us: f64,
    /// Bytes of DRAM in a microsecond. Nine tenths of the data sheet's 3.35 and 4.8 TB/s, which is
    /// what a copy reaches.
    pub dram_bytes_per_us: f64,
    /// Bytes of the L2 cache in a microsecond: 5.5 TB/s by reads (Chips and Cheese 2023, "Nvidia's
    /// H100: Funny L2, and Tons of Bandwidth"). What the first cache has is not left out.
    pub l2_bytes_per_us: f64,
    /// Bytes that stay in L2 between launches. It has 50 MB in two halves, each of which has copies
    /// of what the other holds.
    pub l2_bytes: usize,
    /// Bytes between L2 and one multiprocessor (same source as the L2 rate).
    pub fill_bytes: f64,
    /// Operations by `mma.sync` of 16-bit operands: 0.62 of the peak (Luo et al. 2024,
    /// arXiv:2402.13499, which measured this share on an H100).
    pub tensor_operations: f64,
    /// From the issue of a load to its result from L2, while others wait too: 263 where none does
    /// (Luo et al. 2024). Fitted.
    pub l2_latency: f64,
    /// From DRAM: 478 where no other load waits (Luo et al. 2024). Fitted.
    pub dram_latency: f64,
    /// Of shared memory and `ldmatrix` (Luo et al. 2024).
    pub shared_latency: f64,
    /// Of `mma.sync` m16n8k16 (Luo et al. 2024).
    pub tensor_latency: f64,
    /// Of f32 and integer arithmetic: four cycles, and what the scheduler does in between. Fitted.
    pub arithmetic_latency: f64,
    /// Of a barrier once the last warp is there. Fitted.
    pub barrier_latency: f64,
    /// Between a branch and what follows it.
    pub branch_latency: f64,
    /// Shared memory that a multiprocessor has for blocks, and what each takes besides its own:
    /// CUDA C++ Programming Guide, technical specifications per compute capability.
    pub shared_bytes: f64,
    /// Microseconds that a command in a graph takes at least.
    pub least_us: f64,
    /// The same where each launch is between events: the shortest groups of `bench step --groups`.
    pub least_measured_us: f64,
}

/// Registers of a multiprocessor, threads and blocks that it holds: CUDA C++ Programming Guide,
/// technical specifications of compute capability 9.0.
pub(super) const REGISTERS: f64 = 65_536.0;
pub(super) const THREADS: f64 = 2_048.0;
pub(super) const BLOCKS: f64 = 32.0;
/// Shared memory that the system takes of each block.
pub(super) const SYSTEM_SHARED: f64 = 1_024.0;
/// Schedulers of a multiprocessor, each of which issues one instruction a cycle.
pub(super) const SCHEDULERS: f64 = 4.0;

/// NVIDIA H100 SXM5.
pub const H100: Card = Card {
    name: "H100",
    multiprocessors: 132.0,
    cycles_per_us: 1_830.0,
    dram_bytes_per_us: 3.0e6,
    l2_bytes_per_us: 5.5e6,
    l2_bytes: 25 << 20,
    fill_bytes: 64.0,
    tensor_operations: 0.62 * 4096.0,
    l2_latency: 500.0,
    dram_latency: 600.0,
    shared_latency: 29.0,
    tensor_latency: 33.0,
    arithmetic_latency: 6.0,
    barrier_latency: 40.0,
    branch_latency: 8.0,
    shared_bytes: 228.0 * 1024.0,
    least_us: 2.0,
    least_measured_us: 3.7,
};

/// NVIDIA H200: the same processor with faster memory.
pub const H200: Card = Card { name: "H200", dram_bytes_per_us: 4.3e6, ..H100 };
