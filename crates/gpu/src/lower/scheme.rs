//! How a product is computed: what is multiplied, in tiles of which size, and in how many parts of k.
//!
//! Nothing here is measured while a program runs, and nothing depends on how many multiprocessors a
//! device has: a product has the same bits on each device of an architecture.

use halfstep_graph::{DType, Graph, Node, Op, Split};

use crate::architecture::Architecture;
use crate::kernels::c_type;

/// The sizes of a product: `batch` times `m` by `n`, each of which is a sum over `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Sizes {
    /// Of a product of matrices, a convolution or one of its gradients; none for other nodes.
    pub fn of(graph: &Graph, node: &Node) -> Option<Sizes> {
        let (input, to) = (|i: usize| graph.shape(node.inputs[i]), graph.shape(node.outputs[0]));
        let one = |m, n, k| Some(Sizes { batch: 1, m, n, k });
        match node.op {
            Op::MatMul { ta, .. } => {
                let rank = to.len();
                let k = input(0)[if ta { rank - 2 } else { rank - 1 }];
                let batch = to[..rank - 2].iter().product();
                Some(Sizes { batch, m: to[rank - 2], n: to[rank - 1], k })
            }
            Op::Conv2d(_) => one(to.rows(), to.last(), input(1)[1..].iter().product()),
            Op::Conv2dGradInput { .. } => one(to.rows(), to.last(), input(1)[..3].iter().product()),
            Op::Conv2dGradWeight { .. } => one(to[0], to[1..].iter().product(), input(1).rows()),
            _ => None,
        }
    }

    /// Elements of the result.
    pub fn count(self) -> usize {
        self.batch * self.m * self.n
    }
}

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factors {
    /// f32 as it is, by fused multiplications.
    F32,
    /// f32 rounded to tf32.
    Tf32,
    /// By Tensor Cores, numbers of a type of 16 bits, of which so many are the terms of an operand.
    Halves(DType, usize),
}

impl Factors {
    /// Codes of 8 bits are exact in bf16.
    fn of(graph: &Graph, node: &Node) -> Factors {
        let in_bf16 = |d: DType| matches!(d, DType::Bf16 | DType::E4m3 | DType::E5m2);
        match (graph.dtype(node.inputs[0]), graph.dtype(node.inputs[1]), node.split) {
            (a, b, _) if in_bf16(a) && in_bf16(b) => Factors::Halves(DType::Bf16, 1),
            (DType::F16, DType::F16, _) => Factors::Halves(DType::F16, 1),
            (DType::F32, DType::F32, Some(Split::Tf32)) => Factors::Tf32,
            (DType::F32, DType::F32, Some(Split::Bf16x3)) => Factors::Halves(DType::Bf16, 2),
            (DType::F32, DType::F32, Some(Split::Bf16x6)) => Factors::Halves(DType::Bf16, 3),
            _ => Factors::F32,
        }
    }
}

/// How a product is computed.
pub(super) struct Scheme {
    factors: Factors,
    /// Rows and columns of a tile.
    pub tile: [usize; 2],
    /// In how many parts k is cut: a block sums one, and a second kernel adds their sums.
    pub parts: usize,
    /// How much of k is in a part; less in the last one.
    pub depth: usize,
}

impl Scheme {
    /// Of a product; none for other nodes.
    pub fn of(graph: &Graph, node: &Node, architecture: Architecture) -> Option<Scheme> {
        let sizes = Sizes::of(graph, node)?;
        let factors = Factors::of(graph, node);
        let rates = Rates::of(architecture, factors);
        let tiles: &[[usize; 2]] = match factors {
            Factors::Halves(_, 1) => &[[128, 128], [64, 64]],
            _ => &[[64, 64]],
        };
        let choices =
            tiles.iter().flat_map(|&tile| PARTS.map(|parts| cut(sizes.k, parts)).map(|c| (tile, c)));
        let possible = choices.filter(|&(_, (parts, _))| {
            // Partial sums are counted with 32 bits.
            parts == 1 || parts * sizes.count() < 1 << 28 && parts * sizes.batch <= super::MOST_BLOCKS
        });
        let (tile, (parts, depth)) = possible.min_by_key(|&(tile, cut)| rates.clocks(sizes, tile, cut))?;
        Some(Scheme { factors, tile, parts, depth })
    }

    /// What kernels know of it.
    pub fn macros(&self) -> Vec<(&'static str, &'static str)> {
        let (half, planes) = match self.factors {
            Factors::F32 => return Vec::new(),
            Factors::Tf32 => return vec![("TF32", "1")],
            Factors::Halves(half, terms) => (half, ["1", "2", "3"][terms - 1]),
        };
        vec![
            ("HALF", c_type(half)),
            ("PLANES", planes),
            ("TILE", if self.tile[0] == 128 { "128" } else { "64" }),
        ]
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        if matches!(self.factors, Factors::Halves(..)) { 2 * self.tile[0] as u32 } else { 256 }
    }

    /// Bytes of the sums of parts.
    pub fn workspace_bytes(&self, sizes: Sizes) -> usize {
        if self.parts > 1 { 4 * self.parts * sizes.count() } else { 0 }
    }
}

/// In how many parts k may be cut.
const PARTS: [usize; 16] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

/// How much of k a block multiplies between two barriers; parts are multiples of it.
const STEP: usize = 32;

/// `k` in at most so many parts: how many there are, and how much each has.
fn cut(k: usize, parts: usize) -> (usize, usize) {
    let depth = k.div_ceil(parts).next_multiple_of(STEP).max(STEP);
    (k.div_ceil(depth).max(1), depth)
}

/// What the time of a product is estimated by, in clocks of a multiprocessor. The estimate chooses
/// between tiles and cuts, and needs no more than the right order.
struct Rates {
    /// Of the largest GPU of the architecture.
    multiprocessors: usize,
    /// Products of a multiprocessor in a clock.
    products: usize,
    /// Bytes of an element as it is loaded.
    element_bytes: usize,
}

impl Rates {
    /// Bytes that a multiprocessor gets in a clock while all load from the second-level cache: 5.5
    /// TB/s were measured on an H100 (Chips and Cheese, 2023).
    const LOADED: usize = 24;
    /// From one barrier to the next with nothing to wait for but shared memory and Tensor Cores.
    const STEP_LATENCY: usize = 250;
    /// Of a block, before its first product and behind its last.
    const BLOCK: usize = 2000;
    /// Of a launch that waits for another: 3 µs.
    const LAUNCH: usize = 5000;

    fn of(architecture: Architecture, factors: Factors) -> Rates {
        // CUDA C++ Programming Guide and the whitepapers of the architectures: A100, GA102, AD102,
        // H100, B200, GB202.
        let multiprocessors = match (architecture.major, architecture.minor) {
            (8, 0) => 108,
            (8, 9) => 142,
            (8, _) => 84,
            (9, _) => 132,
            (10, _) => 148,
            _ => 170,
        };
        let (products, element_bytes) = match factors {
            Factors::Halves(_, terms) => (1024 / [1, 3, 6][terms - 1], if terms == 1 { 2 } else { 4 }),
            Factors::F32 | Factors::Tf32 => (128, 4),
        };
        Rates { multiprocessors, products, element_bytes }
    }

    fn clocks(&self, sizes: Sizes, [rows, columns]: [usize; 2], (parts, depth): (usize, usize)) -> usize {
        let blocks = sizes.m.div_ceil(rows) * sizes.n.div_ceil(columns) * sizes.batch * parts;
        let steps = depth.min(sizes.k).div_ceil(STEP);
        let waves = blocks.div_ceil(self.multiprocessors);
        let multiplied = waves * steps * (rows * columns * STEP / self.products);
        let loaded = blocks * steps * (rows + columns) * STEP * self.element_bytes;
        let loaded = loaded / (Self::LOADED * self.multiprocessors);
        // Two blocks at a time hide each other's latency.
        let waited = waves.div_ceil(2) * steps * Self::STEP_LATENCY;
        let added = 8 * parts * sizes.count() / (Self::LOADED * self.multiprocessors);
        let together = if parts > 1 { Self::LAUNCH + added } else { 0 };
        multiplied.max(loaded).max(waited) + waves.div_ceil(2) * Self::BLOCK + together
    }
}
