//! Counters of a launch.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// What an instruction does, for counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// The name that reports use.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// Integer arithmetic, logic, comparisons and moves.
    Integer "integer",
    /// f32 arithmetic and comparisons.
    Single "f32",
    /// f16 and bf16 arithmetic.
    Half "f16",
    /// f64 arithmetic.
    Double "f64",
    /// Conversions.
    Convert "convert",
    /// Approximate functions.
    Function "function",
    /// Branches, ends and calls.
    Branch "branch",
    /// Barriers, fences and waits.
    Barrier "barrier",
    /// Shuffles, votes, matches and reductions within a warp.
    Warp "warp",
    /// Loads from global memory.
    GlobalLoad "global load",
    /// Stores to global memory.
    GlobalStore "global store",
    /// Loads from shared memory, `ldmatrix` with them.
    SharedLoad "shared load",
    /// Stores to shared memory, `stmatrix` with them.
    SharedStore "shared store",
    /// Loads and stores of local memory.
    Local "local",
    /// Loads of arguments and constants.
    Constant "constant",
    /// Atomic operations and reductions in memory.
    Atomic "atomic",
    /// Asynchronous copies.
    Copy "asynchronous copy",
    /// `mma` and `wgmma`.
    Tensor "tensor",
}

/// Sees each instruction of a launch as it is executed, such as to estimate how long a GPU would
/// take for it. Blocks run one after another.
pub trait Watch: fmt::Debug {
    /// A block of so many warps begins.
    fn block(&mut self, warps: usize);

    /// A warp executes an instruction, by its position in the kernel; also where no lane does.
    fn instruction(&mut self, warp: usize, instruction: usize);
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    instructions: [u64; Kind::ALL.len()],
    /// Sectors of 32 bytes that global loads asked for.
    pub sectors_loaded: u64,
    /// Sectors of 32 bytes that global stores, atomics with them, asked for.
    pub sectors_stored: u64,
    /// Bytes that active lanes asked of global memory, with loads.
    pub bytes_loaded: u64,
    /// Bytes that active lanes asked of global memory, with stores and atomics.
    pub bytes_stored: u64,
    /// Extra passes of shared memory because lanes met in a bank.
    pub bank_conflicts: u64,
    /// Floating-point atomics: their sums depend on an order that a GPU does not fix.
    pub unordered_sums: u64,
    /// Multiplications and additions of `mma` and `wgmma`, two operations for each product.
    pub tensor_operations: u64,
}

impl Counts {
    /// Warp instructions of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.instructions[kind as usize]
    }

    /// All warp instructions.
    pub fn instructions(&self) -> u64 {
        self.instructions.iter().sum()
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, kind: Kind) {
        self.instructions[kind as usize] += 1;
    }

    /// Adds what another launch did.
    pub fn merge(&mut self, other: &Counts) {
        for (a, b) in self.instructions.iter_mut().zip(other.instructions) {
            *a += b;
        }
        self.sectors_loaded += other.sectors_loaded;
        self.sectors_stored += other.sectors_stored;
        self.bytes_loaded += other.bytes_loaded;
        self.bytes_stored += other.bytes_stored;
        self.bank_conflicts += other.bank_conflicts;
        self.unordered_sums += other.unordered_sums;
        self.tensor_operations += other.tensor_operations;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} warp instructions", self.instructions())?;
        for kind in Kind::ALL.iter().filter(|kind| self.of(**kind) > 0) {
            writeln!(f, "  {:<18} {:>12}", kind.name(), self.of(*kind))?;
        }
        for (bytes, sectors, what) in [
            (self.bytes_loaded, self.sectors_loaded, "loads"),
            (self.bytes_stored, self.sectors_stored, "stores"),
        ] {
            writeln!(f, "global {what}: {bytes} bytes in {sectors} sectors of 32 bytes")?;
        }
        write!(f, "bank conflicts: {}", self.bank_conflicts)
    }
}
