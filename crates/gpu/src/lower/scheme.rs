//! How a product is computed: what is multiplied, in tiles of which size, in how many parts of k.
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

/// An operand of a product: which one it is of the node, and how many neighbours lie together.
pub(super) struct Side {
    pub input: usize,
    pub together: usize,
}

/// The operands of a product, the one that rows come from first; none for other nodes.
pub(super) fn sides(graph: &Graph, node: &Node) -> Option<[Side; 2]> {
    let last = |i: usize| graph.shape(node.inputs[i]).last();
    let [left, right] = match node.op {
        Op::MatMul { .. } | Op::Conv2dGradInput { .. } => [(0, last(0)), (1, last(1))],
        Op::Conv2d(_) => [(0, last(0)), (1, graph.shape(node.inputs[1])[1..].iter().product())],
        Op::Conv2dGradWeight { .. } => [(1, last(1)), (0, last(0))],
        _ => return None,
    };
    Some([left, right].map(|(input, together)| Side { input, together }))
}

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factors {
    /// f32 as it is, by fused multiplications.
    F32,
    /// By Tensor Cores, f32 rounded to tf32.
    Tf32,
    /// By Tensor Cores, numbers of a type of 16 bits, of which so many are the terms of an operand.
    Halves(DType, usize),
    /// By Tensor Cores, codes of 8 bits of these types.
    Codes([DType; 2]),
}

impl Factors {
    /// Codes are exact in bf16 where Tensor Cores do not take them, or where their rows would have
    /// to be copied in pieces: such kernels do not fit into registers.
    fn of(graph: &Graph, node: &Node, architecture: Architecture) -> Option<Factors> {
        let sides = sides(graph, node)?;
        let types = sides.each_ref().map(|side| graph.dtype(node.inputs[side.input]));
        let is_code = |d: DType| matches!(d, DType::E4m3 | DType::E5m2);
        let in_bf16 = |d: DType| d == DType::Bf16 || is_code(d);
        let takes_codes =
            architecture.adds_codes_in_f32() && sides.iter().all(|side| side.together % 16 == 0);
        Some(match (types, node.split) {
            (types, _) if types.iter().all(|&d| is_code(d)) && takes_codes => Factors::Codes(types),
            (types, _) if types.iter().all(|&d| in_bf16(d)) => Factors::Halves(DType::Bf16, 1),
            ([DType::F16, DType::F16], _) => Factors::Halves(DType::F16, 1),
            ([DType::F32, DType::F32], Some(Split::Tf32)) => Factors::Tf32,
            ([DType::F32, DType::F32], Some(Split::Bf16x3)) => Factors::Halves(DType::Bf16, 2),
            ([DType::F32, DType::F32], Some(Split::Bf16x6)) => Factors::Halves(DType::Bf16, 3),
            _ => Factors::F32,
        })
    }

    /// Bytes of an element that Tensor Cores multiply; none where they do not.
    fn bytes(self) -> Option<usize> {
        match self {
            Factors::F32 => None,
            Factors::Tf32 => Some(4),
            Factors::Halves(..) => Some(2),
            Factors::Codes(_) => Some(1),
        }
    }

    /// In how many terms an operand is split.
    fn terms(self) -> usize {
        if let Factors::Halves(_, terms) = self { terms } else { 1 }
    }

    /// The tiles there are. The largest has no registers left for codes that are converted.
    fn tiles(self, architecture: Architecture) -> Vec<Tile> {
        let Some(bytes) = self.bytes() else { return F32_TILES.into() };
        if self.terms() > 1 {
            return SPLIT_TILES.into();
        }
        // As many bytes of k; rows of codes are at least 64 bytes long.
        let depth = |t: &Tile| Tile { depth: t.depth * 2 / bytes, ..*t };
        let converted = matches!(self, Factors::Codes(_)) && architecture.converts_codes();
        let tiles = TILES.iter().skip(converted.into());
        tiles.filter(|t| t.columns * bytes >= 64).map(depth).collect()
    }
}

/// How much of a product a block computes between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub rows: usize,
    pub columns: usize,
    /// Of k.
    pub depth: usize,
}

/// The tiles there are for Tensor Cores, for operands that are split, and for f32. Large ones read
/// less, small ones are more. Deep ones have fewer barriers, and more to hide behind each.
const TILES: [Tile; 5] =
    [tile(128, 128, 32), tile(128, 64, 64), tile(64, 128, 64), tile(64, 64, 64), tile(64, 32, 64)];
const SPLIT_TILES: [Tile; 1] = [tile(64, 64, 32)];
const F32_TILES: [Tile; 3] = [tile(128, 128, 8), tile(128, 64, 8), tile(64, 64, 8)];

const fn tile(rows: usize, columns: usize, depth: usize) -> Tile {
    Tile { rows, columns, depth }
}

/// How a product is computed.
pub(super) struct Scheme {
    factors: Factors,
    pub tile: Tile,
    /// In how many parts k is cut: a block sums one, and the last of a tile or a second kernel
    /// adds their sums.
    pub parts: usize,
    /// How much of k is in a part; less in the last one.
    pub depth: usize,
}

impl Scheme {
    /// Of a product; none for other nodes.
    pub fn of(graph: &Graph, node: &Node, architecture: Architecture) -> Option<Scheme> {
        let sizes = Sizes::of(graph, node)?;
        let factors = Factors::of(graph, node, architecture)?;
        let (rates, tiles) = (Rates::of(architecture, factors), factors.tiles(architecture));
        let cuts = |&tile: &Tile| PARTS.map(|parts| (tile, cut(sizes.k, parts, tile.depth)));
        let possible = tiles.iter().flat_map(cuts).filter(|&(_, (parts, _))| {
            // Partial sums are counted with 32 bits.
            parts == 1 || parts * sizes.count() < 1 << 28 && parts * sizes.batch <= super::MOST_BLOCKS
        });
        let (tile, (parts, depth)) = possible.min_by_key(|&(tile, cut)| rates.clocks(sizes, tile, cut))?;
        Some(Scheme { factors, tile, parts, depth })
    }

    /// What kernels know of it.
    pub fn macros(&self) -> Vec<(&'static str, &'static str)> {
        let tile = [("TILE_M", number(self.tile.rows)), ("TILE_N", number(self.tile.columns))];
        let tensor = match self.factors {
            Factors::F32 => return tile.into(),
            Factors::Tf32 => vec![("BYTES", "4"), ("LEFT", "tf32"), ("RIGHT", "tf32"), ("PLANES", "1")],
            Factors::Halves(dtype, terms) => vec![("HALF", c_type(dtype)), ("PLANES", number(terms))],
            Factors::Codes([left, right]) => {
                vec![("BYTES", "1"), ("LEFT", c_type(left)), ("RIGHT", c_type(right)), ("PLANES", "1")]
            }
        };
        let pipeline = [("DEPTH", number(self.tile.depth)), ("STAGES", number(self.stages()))];
        [&tile[..], &tensor, &pipeline].concat()
    }

    /// Neighbours that a thread brings at a time.
    pub fn chunk(&self) -> usize {
        self.factors.bytes().map_or(4, |bytes| 16 / bytes)
    }

    /// Threads of a block: warps with half of the rows each and 32 columns, or 64 where there
    /// are 128; or 8 by 8 results each.
    pub fn threads(&self) -> u32 {
        let Tile { rows, columns, .. } = self.tile;
        (match self.factors {
            Factors::F32 => rows * columns / 64,
            _ if columns == 128 => columns,
            _ => 2 * columns,
        }) as u32
    }

    /// Tiles of a block in shared memory at a time: as many as leave room for a second block where
    /// there is less than 100 KiB for both.
    fn stages(&self) -> usize {
        match (self.factors.bytes(), self.factors.terms()) {
            (Some(bytes), 1) if self.tile.depth * bytes == 64 => 4,
            (Some(_), 1) => 3,
            _ => 2,
        }
    }

    /// Bytes of shared memory of a block, besides what its kernel declares.
    pub fn shared_bytes(&self) -> usize {
        let Tile { rows, columns, depth } = self.tile;
        let Some(bytes) = self.factors.bytes() else { return 0 };
        let stage = self.factors.terms() * bytes * (rows + columns) * depth;
        // Of stages, and of half the rows of results with room for 16 more in each.
        (self.stages() * stage).max(rows / 2 * 4 * (columns + 16))
    }

    /// Whether the last block of a tile adds the sums of parts, and no second kernel.
    pub fn adds_itself(&self) -> bool {
        self.parts > 1 && Rates::added_by_last(self.tile, self.parts) <= Rates::LONGEST_ADDED
    }

    /// Parts that one block adds at a time.
    pub fn group(&self) -> usize {
        group(self.parts)
    }

    /// Bytes of the counters of tiles whose last blocks add.
    pub fn kept_bytes(&self, sizes: Sizes) -> usize {
        let tiles = sizes.m.div_ceil(self.tile.rows) * sizes.n.div_ceil(self.tile.columns);
        let groups = self.parts.div_ceil(self.group());
        if self.adds_itself() { 4 * sizes.batch * tiles * (groups + 1) } else { 0 }
    }

    /// Bytes of the sums of parts.
    pub fn workspace_bytes(&self, sizes: Sizes) -> usize {
        if self.parts > 1 { 4 * self.parts * sizes.count() } else { 0 }
    }
}

/// A number of a scheme as text.
fn number(n: usize) -> &'static str {
    match n {
        1 => "1",
        2 => "2",
        3 => "3",
        4 => "4",
        16 => "16",
        32 => "32",
        64 => "64",
        128 => "128",
        other => unreachable!("no scheme has {other}"),
    }
}

/// In how many parts k may be cut.
const PARTS: [usize; 16] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

/// `k` in at most so many parts, each but the last a multiple of `step`: how many there are, and
/// how much each has.
fn cut(k: usize, parts: usize, step: usize) -> (usize, usize) {
    let depth = k.div_ceil(parts).next_multiple_of(step).max(step);
    (k.div_ceil(depth).max(1), depth)
}

/// Of so many parts, how many one block adds at a time: all, or else about as many as there are
/// groups.
fn group(parts: usize) -> usize {
    if parts <= 4 { parts } else { parts.isqrt() }
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
    /// How much of k an instruction multiplies.
    product_depth: usize,
}

impl Rates {
    /// Bytes that a multiprocessor gets in a clock while all load from the second-level cache: 5.5
    /// TB/s were measured on an H100 (Chips and Cheese, 2023).
    const LOADED: usize = 24;
    /// The same of one of a few.
    const LOADED_BY_ONE: usize = 48;
    /// From one barrier to the next with nothing to wait for but shared memory and Tensor Cores: at
    /// all, and for an instruction's part of k besides a clock for each row.
    const BARRIER: usize = 100;
    const LATENCY: usize = 40;
    /// Of a block, before its first product and behind its last.
    const BLOCK: usize = 2000;
    /// Of a launch that waits for another: 3 µs.
    const LAUNCH: usize = 5000;
    /// For so long the last blocks of a tile may add; where that is too long, a launch does it with
    /// all multiprocessors.
    const LONGEST_ADDED: usize = 3 * Self::LAUNCH;

    /// Clocks in which the last blocks of a tile add the sums of all parts.
    fn added_by_last(tile: Tile, parts: usize) -> usize {
        let groups = parts.div_ceil(group(parts));
        let added = group(parts) + if groups > 1 { groups } else { 0 };
        4 * added * tile.rows * tile.columns / Self::LOADED_BY_ONE
    }

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
            Factors::F32 => (128, 4),
            Factors::Tf32 => (512, 4),
            Factors::Halves(_, terms) => (1024 / [1, 3, 6][terms - 1], if terms == 1 { 2 } else { 4 }),
            Factors::Codes(_) if architecture.converts_codes() => (1024, 1),
            Factors::Codes(_) => (2048, 1),
        };
        let product_depth = factors.bytes().map_or(16, |bytes| 32 / bytes);
        Rates { multiprocessors, products, element_bytes, product_depth }
    }

    fn clocks(&self, sizes: Sizes, tile: Tile, (parts, depth): (usize, usize)) -> usize {
        let Tile { rows, columns, depth: step } = tile;
        let blocks = sizes.m.div_ceil(rows) * sizes.n.div_ceil(columns) * sizes.batch * parts;
        let steps = depth.min(sizes.k).div_ceil(step);
        let waves = blocks.div_ceil(self.multiprocessors);
        let multiplied = waves * steps * (rows * columns * step / self.products);
        let operands = steps * (rows + columns) * step * self.element_bytes;
        let together = blocks * operands / (Self::LOADED * self.multiprocessors);
        let loaded = together.max(waves * operands / Self::LOADED_BY_ONE);
        // Two blocks at a time hide each other's latency.
        let waited =
            waves.div_ceil(2) * steps * (Self::BARRIER + step * (rows + Self::LATENCY) / self.product_depth);
        let added = 8 * parts * sizes.count() / (Self::LOADED * self.multiprocessors);
        let by_last = Self::added_by_last(tile, parts);
        let last = match parts {
            1 => 0,
            _ if by_last <= Self::LONGEST_ADDED => by_last,
            _ => Self::LAUNCH + added,
        };
        // What takes longest hides most of the rest.
        let longest = multiplied.max(loaded).max(waited);
        longest + (multiplied + loaded + waited - longest) / 8 + waves.div_ceil(2) * Self::BLOCK + last
    }
}

#[cfg(test)]
mod tests {
    use super::{Architecture, Factors, Rates, Sizes, TILES, cut, tile};
    use halfstep_graph::DType;

    #[test]
    fn parts_are_multiples_of_a_step_and_cover_k() {
        assert_eq!(cut(1000, 3, 64), (3, 384));
        assert_eq!(cut(1000, 256, 64), (16, 64));
        assert_eq!(cut(10, 1, 64), (1, 64));
    }

    #[test]
    fn long_sums_with_few_results_are_estimated_to_be_faster_in_parts() {
        let rates = Rates::of(Architecture::of_device(9, 0), Factors::Halves(DType::Bf16, 1));
        // The weight gradient of a stem of 3 channels, and a large product of matrices.
        let stem = Sizes { batch: 1, m: 64, n: 27, k: 65_536 };
        let large = Sizes { batch: 1, m: 8192, n: 8192, k: 8192 };
        let small = tile(64, 32, 64);
        let clocks = |parts| rates.clocks(stem, small, cut(stem.k, parts, 64));
        assert!(clocks(128) * 20 < clocks(1));
        assert!(TILES[1..].iter().all(|&t| rates.clocks(large, TILES[0], cut(large.k, 1, 32))
            < rates.clocks(large, t, cut(large.k, 1, 64))));
    }
}
