//! Chains of elementwise operations, interpreted a tile at a time: each tile passes through the
//! whole chain while it is in the first-level cache, so a fused chain reads and writes memory once.

mod chain;
mod run;

use halfstep_graph::expression::{Access, Dimension};
use halfstep_graph::{Binary, Unary};

pub(crate) use chain::{BLOCK, Chain};
use run::{Chunk, Parts};

use super::key::Key;
use super::storage::{Dst, Src, Storage};
use super::{Grid, RowError, SharedDst, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Elements of a tile; 2 KiB as f32.
const TILE: usize = 512;
/// Tiles that can be alive at once: 32 KiB.
const REGISTERS: usize = 16;
/// Operands a program may read.
pub const MAX_INPUTS: usize = 16;
/// Results a program may write.
pub const MAX_OUTPUTS: usize = 8;
/// Dimensions of a [`Pattern::Strided`].
pub const MAX_RANK: usize = 6;

/// The result of operation `.0` of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub u16);

/// Which element of an operand goes with element `i` of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Element `i`.
    Same,
    /// Element 0.
    Scalar,
    /// Element `i % period`: a row repeated, such as a bias.
    Row {
        /// Length of the row.
        period: usize,
    },
    /// Element `i / inner`: one number per row, such as a mean.
    Column {
        /// Length of the rows.
        inner: usize,
    },
    /// Any broadcast: `i` is split into coordinates of `shape`, which are multiplied with
    /// `strides`.
    Strided {
        /// Dimensions that count, at the front of the arrays.
        rank: usize,
        /// The result's shape.
        shape: [usize; MAX_RANK],
        /// Strides in elements; 0 along stretched dimensions.
        strides: [usize; MAX_RANK],
    },
}

/// An operand of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// How it is stored.
    pub storage: Storage,
    /// How it is stretched to the result's shape.
    pub pattern: Pattern,
}

/// A result of a program, of the program's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// How it is stored; values are rounded to it, ties to even.
    pub storage: Storage,
    /// Which value it is.
    pub value: Value,
}

/// An operation of a program. The n-th defines `Value(n)`; operands must be defined before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TileOp {
    /// An operand.
    Input(usize),
    /// What an output held before the program ran: for results that overwrite an operand in place.
    Previous(usize),
    /// The same number everywhere.
    Const(f32),
    /// A function of one value.
    Unary(Unary, Value),
    /// The error function.
    #[expect(dead_code, reason = "ONNX models have it as an operation of its own")]
    Erf(Value),
    /// A value rounded to a storage format, ties to even: a cast inside a chain.
    Round(Storage, Value),
    /// A function of two values. Max and Min are NaN if either operand is.
    Binary(Binary, Value, Value),
    /// The second where the first is not zero, else the third.
    Select(Value, Value, Value),
    /// The codes of one value times another, as [`halfstep_graph::Blocks::Tensor`] says; the
    /// program's key where it draws.
    Quantise(super::quantise::Codes, Value, Value),
    /// [`halfstep_graph::Op::Dropout`] of a value, with the program's key.
    Dropout {
        /// Probability that an element is dropped: at least 0, below 1.
        rate: f32,
        /// Stable number of this dropout in the model.
        op: u32,
        /// Elements of a sample.
        per_sample: usize,
        /// What it is applied to.
        value: Value,
    },
}

impl TileOp {
    fn operands(self) -> ([Value; 3], usize) {
        let none = Value(0);
        match self {
            TileOp::Input(_) | TileOp::Previous(_) | TileOp::Const(_) => ([none; 3], 0),
            TileOp::Unary(_, a) | TileOp::Erf(a) | TileOp::Round(_, a) => ([a, none, none], 1),
            TileOp::Binary(_, a, b) | TileOp::Quantise(_, a, b) => ([a, b, none], 2),
            TileOp::Select(c, a, b) => ([c, a, b], 3),
            TileOp::Dropout { value, .. } => ([value, none, none], 1),
        }
    }
}

impl Pattern {
    /// The cheapest pattern that reads an operand so.
    ///
    /// # Errors
    /// If that takes more than [`MAX_RANK`] dimensions.
    pub fn of(access: &Access) -> Result<Pattern, RowError> {
        let Access::Strided(dimensions) = access else { return Ok(Pattern::Same) };
        Ok(match dimensions[..] {
            [] | [_] => Pattern::Scalar,
            [Dimension { stride: 0, .. }, Dimension { size: period, .. }] => Pattern::Row { period },
            [_, Dimension { size: inner, stride: 0 }] => Pattern::Column { inner },
            _ => {
                let rank = dimensions.len();
                if rank > MAX_RANK {
                    return Err(RowError::Shape {
                        what: "broadcast",
                        why: "more than six alternating dimensions",
                    });
                }
                let (mut shape, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
                for (d, &Dimension { size, stride }) in dimensions.iter().enumerate() {
                    (shape[d], strides[d]) = (size, stride);
                }
                Pattern::Strided { rank, shape, strides }
            }
        })
    }

    /// Elements an operand must have for a result of `len`.
    fn operand_len(&self, len: usize) -> usize {
        match *self {
            Pattern::Same => len,
            Pattern::Scalar => 1,
            Pattern::Row { period } => period,
            Pattern::Column { inner } => len.div_ceil(inner.max(1)),
            Pattern::Strided { rank, shape, strides } => {
                1 + (0..rank).map(|d| (shape[d].max(1) - 1) * strides[d]).sum::<usize>()
            }
        }
    }

    /// Whether every tile that begins at a multiple of the period holds the same.
    fn fills_tiles(&self) -> bool {
        matches!(*self, Pattern::Row { period } if TILE.is_multiple_of(period))
    }

    fn fits(&self, len: usize) -> bool {
        match *self {
            Pattern::Same | Pattern::Scalar => true,
            Pattern::Row { period: n } | Pattern::Column { inner: n } => n > 0 && len.is_multiple_of(n),
            Pattern::Strided { rank, shape, .. } => {
                rank <= MAX_RANK && shape[..rank].iter().product::<usize>() == len
            }
        }
    }
}

/// Where a value is while a tile is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A tile buffer.
    Register(u8),
    /// The f32 elements of an input themselves.
    Input(u8),
    /// The f32 elements of an output themselves.
    Output(u8),
}

/// A chain of elementwise operations, ready to run.
#[derive(Clone, Debug)]
pub struct TileProgram {
    /// The operands in order.
    pub inputs: Vec<Operand>,
    ops: Vec<TileOp>,
    /// The results in order.
    pub outputs: Vec<Output>,
    places: Vec<Place>,
    /// Tile buffers in use: the first so many.
    registers: usize,
}

impl TileProgram {
    /// Checks a program and gives its values places.
    ///
    /// # Errors
    /// If an operand is used before it is defined, there are more than [`MAX_INPUTS`] inputs,
    /// [`MAX_OUTPUTS`] outputs or 65,535 operations, or more than 16 values are alive at once: such
    /// a chain must be cut in two.
    pub fn new(
        inputs: Vec<Operand>,
        ops: Vec<TileOp>,
        outputs: Vec<Output>,
    ) -> Result<TileProgram, RowError> {
        let wrong = |why| Err(RowError::Shape { what: "tile program", why });
        if inputs.len() > MAX_INPUTS || outputs.len() > MAX_OUTPUTS || ops.len() > usize::from(u16::MAX) {
            return wrong("too many inputs, outputs or operations");
        }
        for (i, op) in ops.iter().enumerate() {
            let (operands, count) = op.operands();
            if operands[..count].iter().any(|v| usize::from(v.0) >= i) {
                return wrong("an operation uses a value that is defined later");
            }
            let known = match *op {
                TileOp::Input(n) => n < inputs.len(),
                TileOp::Previous(n) => n < outputs.len(),
                _ => true,
            };
            if !known {
                return wrong("an operation reads an input or output that does not exist");
            }
            if let TileOp::Dropout { rate, per_sample, .. } = *op
                && !((0.0..1.0).contains(&rate) && per_sample > 0)
            {
                return wrong("a dropout's rate must be at least 0 and below 1, and a sample not empty");
            }
        }
        if outputs.iter().any(|o| usize::from(o.value.0) >= ops.len()) {
            return wrong("an output is a value that does not exist");
        }
        let Some(places) = place(&inputs, &ops, &outputs) else {
            return wrong("more than 16 values are alive at once");
        };
        let register = |place: &Place| if let Place::Register(r) = *place { usize::from(r) + 1 } else { 0 };
        let registers = places.iter().map(register).max().unwrap_or(0);
        Ok(TileProgram { inputs, ops, outputs, places, registers })
    }

    /// Computes all outputs, each of `len` elements; `key` is that of dropouts and of codes that
    /// are rounded by draws.
    ///
    /// # Errors
    /// If an operand or result has another length or storage than the program says, or a key is
    /// missing.
    pub fn run_keyed(
        &self,
        isa: Isa,
        pool: &Pool,
        len: usize,
        inputs: &[Src<'_>],
        outputs: &mut [Dst<'_>],
        key: Option<Key>,
    ) -> Result<(), RowError> {
        self.check(len, inputs, outputs, None, key)?;
        if outputs.is_empty() {
            return Ok(());
        }
        let mut shared = [None; MAX_OUTPUTS];
        for (to, dst) in shared.iter_mut().zip(outputs) {
            *to = Some(SharedDst::new(dst.reborrow()));
        }
        let outputs = &shared[..self.outputs.len()];
        let grid = Grid::new(len, 16 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            let parts = Parts { rows: 1, width: range.len(), at: &|_| range.start };
            let key = key.unwrap_or_default();
            dispatch(isa, Chunk { program: self, parts, own: None, inputs, outputs, key });
        });
        Ok(())
    }

    /// Whether these operands and results are what the program works on; operand `own` is not
    /// looked at.
    fn check(
        &self,
        len: usize,
        inputs: &[Src<'_>],
        outputs: &[Dst<'_>],
        own: Option<usize>,
        key: Option<Key>,
    ) -> Result<(), RowError> {
        let draws = |op: &TileOp| match op {
            TileOp::Dropout { .. } => true,
            TileOp::Quantise(codes, ..) => codes.draws.is_some(),
            _ => false,
        };
        if key.is_none() && self.ops.iter().any(draws) {
            return Err(RowError::Shape { what: "key", why: "an operation that draws needs one" });
        }
        check_len("inputs", self.inputs.len(), inputs.len())?;
        check_len("outputs", self.outputs.len(), outputs.len())?;
        for (i, (operand, src)) in self.inputs.iter().zip(inputs).enumerate() {
            if Some(i) == own {
                continue;
            }
            if operand.storage != src.storage() || !operand.pattern.fits(len) {
                return Err(RowError::Shape {
                    what: "input",
                    why: "storage or pattern differs from the program",
                });
            }
            let needed = operand.pattern.operand_len(len);
            if src.len() < needed || (operand.pattern == Pattern::Same && src.len() != len) {
                return Err(RowError::Length { what: "input", expected: needed, actual: src.len() });
            }
        }
        for (output, dst) in self.outputs.iter().zip(outputs) {
            check_len("output", len, dst.len())?;
            if output.storage != dst.storage() {
                return Err(RowError::Shape { what: "output", why: "storage differs from the program" });
            }
        }
        Ok(())
    }
}

/// Gives every value a place; `None` if the registers do not suffice.
///
/// An f32 operand of the result's shape is read where it lies, and a value is computed right where
/// an f32 output lies when nothing reads that output's old contents afterwards.
fn place(inputs: &[Operand], ops: &[TileOp], outputs: &[Output]) -> Option<Vec<Place>> {
    let mut last_use = vec![0; ops.len()];
    for (i, op) in ops.iter().enumerate() {
        let (operands, count) = op.operands();
        for v in &operands[..count] {
            last_use[usize::from(v.0)] = i;
        }
    }
    for output in outputs {
        last_use[usize::from(output.value.0)] = ops.len();
    }
    // Filled once for all tiles, so they keep a register of their own.
    let constant = |op: &TileOp| match *op {
        TileOp::Const(_) => true,
        TileOp::Input(n) => inputs[n].pattern == Pattern::Scalar || inputs[n].pattern.fills_tiles(),
        _ => false,
    };
    let mut free: Vec<u8> = (0..REGISTERS as u8).rev().collect();
    let mut reserved = Vec::with_capacity(ops.len());
    for op in ops {
        reserved.push(if constant(op) { Some(free.pop()?) } else { None });
    }
    let mut places: Vec<Place> = Vec::with_capacity(ops.len());
    for (i, op) in ops.iter().enumerate() {
        let in_place = outputs.iter().position(|o| {
            usize::from(o.value.0) == i
                && o.storage == Storage::F32
                && !matches!(op, TileOp::Input(_) | TileOp::Previous(_) | TileOp::Const(_))
        });
        let read_later = |n: usize| ops[i..].iter().any(|op| matches!(op, TileOp::Previous(m) if *m == n));
        let place = match (*op, in_place) {
            (TileOp::Input(n), _)
                if inputs[n] == (Operand { storage: Storage::F32, pattern: Pattern::Same }) =>
            {
                Place::Input(n as u8)
            }
            (_, Some(n)) if !read_later(n) => Place::Output(n as u8),
            _ => Place::Register(match reserved[i] {
                Some(register) => register,
                None => free.pop()?,
            }),
        };
        places.push(place);
        for v in 0..=i {
            let dies = last_use[v] == i || (v == i && last_use[v] == 0);
            if dies
                && reserved[v].is_none()
                && let Place::Register(r) = places[v]
            {
                free.push(r);
            }
        }
    }
    Some(places)
}
