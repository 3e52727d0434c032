//! Chains of elementwise operations, interpreted a tile at a time: each tile passes through the whole chain while it
//! is in the first-level cache, so a fused chain reads and writes memory once.

use std::ops::Range;

use halfstep_graph::{Binary, Unary};

use super::grid::tiles;
use super::storage::{Dst, Src, Storage, round_in_place};
use super::sum::larger;
use super::{Body, Caps, Grid, RowError, SharedDst, check_len, dispatch, math};
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
    /// Any broadcast: `i` is split into coordinates of `shape`, which are multiplied with `strides`.
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
    Erf(Value),
    /// A value rounded to a storage format, ties to even: a cast inside a chain.
    Round(Storage, Value),
    /// A function of two values. Max and Min are NaN if either operand is.
    Binary(Binary, Value, Value),
    /// The second where the first is not zero, else the third.
    Select(Value, Value, Value),
}

impl TileOp {
    fn operands(self) -> ([Value; 3], usize) {
        let none = Value(0);
        match self {
            TileOp::Input(_) | TileOp::Previous(_) | TileOp::Const(_) => ([none; 3], 0),
            TileOp::Unary(_, a) | TileOp::Erf(a) | TileOp::Round(_, a) => ([a, none, none], 1),
            TileOp::Binary(_, a, b) => ([a, b, none], 2),
            TileOp::Select(c, a, b) => ([c, a, b], 3),
        }
    }
}

impl Operand {
    /// An operand of shape `from` stretched to `to` by numpy's rule, with the cheapest pattern that says so.
    ///
    /// # Errors
    /// If `from` does not broadcast to `to`, or needs more than [`MAX_RANK`] dimensions after merging.
    pub fn broadcast(storage: Storage, from: &[usize], to: &[usize]) -> Result<Operand, RowError> {
        Pattern::broadcast(from, to).map(|pattern| Operand { storage, pattern })
    }
}

impl Pattern {
    /// The cheapest pattern that stretches `from` to `to` by numpy's rule.
    ///
    /// # Errors
    /// If `from` does not broadcast to `to`, or needs more than [`MAX_RANK`] dimensions after merging.
    pub fn broadcast(from: &[usize], to: &[usize]) -> Result<Pattern, RowError> {
        let wrong = |why| Err(RowError::Shape { what: "broadcast", why });
        if from.len() > to.len() {
            return wrong("the operand has more dimensions than the result");
        }
        // Dimensions from the last to the first, neighbours merged where both shapes allow it.
        let mut rank = 0;
        let (mut shape, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        let mut stride = 1;
        for i in 0..to.len() {
            let size = to[to.len() - 1 - i];
            let own = if i < from.len() { from[from.len() - 1 - i] } else { 1 };
            if own != size && own != 1 {
                return wrong("a dimension is neither 1 nor the result's");
            }
            if size == 1 {
                continue;
            }
            let step = if own == 1 { 0 } else { stride };
            stride *= own;
            let merges = rank > 0
                && (step == 0) == (strides[rank - 1] == 0)
                && (step == 0 || step == strides[rank - 1] * shape[rank - 1]);
            if merges {
                shape[rank - 1] *= size;
            } else if rank == MAX_RANK {
                return wrong("more than six alternating dimensions");
            } else {
                (shape[rank], strides[rank]) = (size, step);
                rank += 1;
            }
        }
        shape[..rank].reverse();
        strides[..rank].reverse();
        Ok(match (rank, strides) {
            (0, _) => Pattern::Scalar,
            (1, [0, ..]) => Pattern::Scalar,
            (1, _) => Pattern::Same,
            (2, [0, _, ..]) => Pattern::Row { period: shape[1] },
            (2, [_, 0, ..]) => Pattern::Column { inner: shape[1] },
            _ => Pattern::Strided { rank, shape, strides },
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
    inputs: Vec<Operand>,
    ops: Vec<TileOp>,
    outputs: Vec<Output>,
    places: Vec<Place>,
}

impl TileProgram {
    /// Checks a program and gives its values places.
    ///
    /// # Errors
    /// If an operand is used before it is defined, there are more than [`MAX_INPUTS`] inputs, [`MAX_OUTPUTS`] outputs
    /// or 65,535 operations, or more than 16 values are alive at once: such a chain must be cut in two.
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
        }
        if outputs.iter().any(|o| usize::from(o.value.0) >= ops.len()) {
            return wrong("an output is a value that does not exist");
        }
        let Some(places) = place(&inputs, &ops, &outputs) else {
            return wrong("more than 16 values are alive at once");
        };
        Ok(TileProgram { inputs, ops, outputs, places })
    }

    /// The program of one function of one operand of the result's shape.
    ///
    /// # Errors
    /// None; the type is that of [`TileProgram::new`].
    pub fn unary(op: Unary, from: Storage, to: Storage) -> Result<TileProgram, RowError> {
        TileProgram::new(
            vec![Operand { storage: from, pattern: Pattern::Same }],
            vec![TileOp::Input(0), TileOp::Unary(op, Value(0))],
            vec![Output { storage: to, value: Value(1) }],
        )
    }

    /// The program of one function of two operands.
    ///
    /// # Errors
    /// None; the type is that of [`TileProgram::new`].
    pub fn binary(op: Binary, a: Operand, b: Operand, to: Storage) -> Result<TileProgram, RowError> {
        TileProgram::new(
            vec![a, b],
            vec![TileOp::Input(0), TileOp::Input(1), TileOp::Binary(op, Value(0), Value(1))],
            vec![Output { storage: to, value: Value(2) }],
        )
    }

    /// The operands in order.
    pub fn inputs(&self) -> &[Operand] {
        &self.inputs
    }

    /// The results in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Computes all outputs, each of `len` elements.
    ///
    /// # Errors
    /// If an operand or result has another length or storage than the program says.
    pub fn run(
        &self,
        isa: Isa,
        pool: &Pool,
        len: usize,
        inputs: &[Src<'_>],
        outputs: &mut [Dst<'_>],
    ) -> Result<(), RowError> {
        check_len("inputs", self.inputs.len(), inputs.len())?;
        check_len("outputs", self.outputs.len(), outputs.len())?;
        for (operand, src) in self.inputs.iter().zip(inputs) {
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
        for (output, dst) in self.outputs.iter().zip(&*outputs) {
            check_len("output", len, dst.len())?;
            if output.storage != dst.storage() {
                return Err(RowError::Shape { what: "output", why: "storage differs from the program" });
            }
        }
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
            dispatch(isa, Chunk { program: self, range: grid.range(chunk), inputs, outputs });
        });
        Ok(())
    }
}

/// Gives every value a place; `None` if the registers do not suffice.
///
/// An f32 operand of the result's shape is read where it lies, and a value is computed right where an f32 output lies
/// when nothing reads that output's old contents afterwards.
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
        TileOp::Input(n) => inputs[n].pattern == Pattern::Scalar,
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

struct Chunk<'a> {
    program: &'a TileProgram,
    range: Range<usize>,
    inputs: &'a [Src<'a>],
    outputs: &'a [Option<SharedDst<'a>>],
}

#[repr(align(64))]
struct Registers([[f32; TILE]; REGISTERS]);

/// Everything a value of the current tile can be read from: registers (without the one being written), inputs, outputs.
struct Sources<'a> {
    below: &'a [[f32; TILE]],
    above: &'a [[f32; TILE]],
    inputs: &'a [Src<'a>],
    places: &'a [Place],
    start: usize,
    len: usize,
}

impl<'a> Sources<'a> {
    #[inline(always)]
    fn get(&self, v: Value, outputs: &'a [Option<SharedDst<'a>>]) -> &'a [f32] {
        match self.places[usize::from(v.0)] {
            Place::Register(r) => {
                let r = usize::from(r);
                let below = self.below.len();
                let tile = if r < below { &self.below[r] } else { &self.above[r - below - 1] };
                &tile[..self.len]
            }
            Place::Input(n) => match self.inputs[usize::from(n)] {
                Src::F32(s) => &s[self.start..self.start + self.len],
                // `place` gives this only to f32 operands.
                _ => &[],
            },
            Place::Output(n) => match &outputs[usize::from(n)] {
                // SAFETY: this chunk alone uses this range, and the operation being computed writes another place:
                // each output holds one value.
                Some(SharedDst::F32(s)) => unsafe { s.part_ref(self.start..self.start + self.len) },
                _ => &[],
            },
        }
    }
}

impl Body for Chunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let TileProgram { inputs: operands, ops, outputs: results, places } = self.program;
        let mut registers = Registers([[0.0; TILE]; REGISTERS]);
        for (op, place) in ops.iter().zip(places) {
            let Place::Register(r) = *place else { continue };
            let register = &mut registers.0[usize::from(r)];
            match *op {
                TileOp::Const(value) => register.fill(value),
                TileOp::Input(n) if operands[n].pattern == Pattern::Scalar => {
                    register.fill(self.inputs[n].get(0));
                }
                _ => {}
            }
        }
        for tile in tiles(self.range.len(), TILE) {
            let (start, len) = (self.range.start + tile.start, tile.len());
            for (op, place) in ops.iter().zip(places) {
                let (below, dst, above): (&[[f32; TILE]], &mut [f32], &[[f32; TILE]]) = match *place {
                    Place::Input(_) => continue,
                    Place::Register(r) => {
                        let (below, rest) = registers.0.split_at_mut(usize::from(r));
                        let Some((dst, above)) = rest.split_first_mut() else { continue };
                        (&*below, &mut dst[..len], &*above)
                    }
                    Place::Output(n) => match &self.outputs[usize::from(n)] {
                        // SAFETY: chunks are disjoint; operands of this operation are in other places.
                        Some(SharedDst::F32(s)) => (&registers.0, unsafe { s.part(start..start + len) }, &[]),
                        _ => continue,
                    },
                };
                let sources = Sources { below, above, inputs: self.inputs, places, start, len };
                let get = |v| sources.get(v, self.outputs);
                match *op {
                    TileOp::Const(_) => {}
                    TileOp::Input(n) => {
                        load::<C>(&operands[n].pattern, &self.inputs[n], start, dst);
                    }
                    TileOp::Previous(n) => {
                        if let Some(output) = &self.outputs[n] {
                            // SAFETY: chunks are disjoint, and `dst` is a register: `place` says so for this op.
                            let old = unsafe { output.part(start..start + len) };
                            old.as_src().load::<C>(0, dst);
                        }
                    }
                    TileOp::Unary(op, a) => unary::<C>(op, get(a), dst),
                    TileOp::Erf(a) => map(get(a), dst, |x| math::erf::<C>(x)),
                    TileOp::Round(storage, a) => {
                        dst.copy_from_slice(get(a));
                        round_in_place::<C>(storage, dst);
                    }
                    TileOp::Binary(op, a, b) => binary(op, get(a), get(b), dst),
                    TileOp::Select(c, a, b) => {
                        let (c, a, b) = (get(c), get(a), get(b));
                        for (((to, &c), &a), &b) in dst.iter_mut().zip(c).zip(a).zip(b) {
                            *to = if c != 0.0 { a } else { b };
                        }
                    }
                }
            }
            let sources =
                Sources { below: &registers.0, above: &[], inputs: self.inputs, places, start, len };
            for (n, result) in results.iter().enumerate() {
                let value = usize::from(result.value.0);
                if places[value] == Place::Output(n as u8) {
                    continue;
                }
                let values = sources.get(result.value, self.outputs);
                if let Some(output) = &self.outputs[n] {
                    // SAFETY: chunks are disjoint, and `values` are not in this output.
                    let mut to = unsafe { output.part(start..start + len) };
                    to.store::<C>(0, values);
                }
            }
        }
    }
}

/// Fills `dst` with the operand's elements for results `start ..`.
#[inline(always)]
fn load<C: Caps>(pattern: &Pattern, src: &Src<'_>, start: usize, dst: &mut [f32]) {
    match *pattern {
        Pattern::Same => src.load::<C>(start, dst),
        // Filled once, before the first tile.
        Pattern::Scalar => {}
        Pattern::Row { period } => {
            let (mut at, mut done) = (start % period, 0);
            while done < dst.len() {
                let n = (period - at).min(dst.len() - done);
                src.load::<C>(at, &mut dst[done..done + n]);
                (at, done) = (0, done + n);
            }
        }
        Pattern::Column { inner } => {
            let (mut row, mut at, mut done) = (start / inner, start % inner, 0);
            while done < dst.len() {
                let n = (inner - at).min(dst.len() - done);
                dst[done..done + n].fill(src.get(row));
                (row, at, done) = (row + 1, 0, done + n);
            }
        }
        Pattern::Strided { rank, shape, strides } => strided::<C>(rank, &shape, &strides, src, start, dst),
    }
}

#[inline(always)]
fn strided<C: Caps>(
    rank: usize,
    shape: &[usize; MAX_RANK],
    strides: &[usize; MAX_RANK],
    src: &Src<'_>,
    start: usize,
    dst: &mut [f32],
) {
    let mut at = [0; MAX_RANK];
    let mut rest = start;
    for d in (0..rank).rev() {
        at[d] = rest % shape[d];
        rest /= shape[d];
    }
    let last = rank - 1;
    let mut done = 0;
    while done < dst.len() {
        let n = (shape[last] - at[last]).min(dst.len() - done);
        let offset = (0..rank).map(|d| at[d] * strides[d]).sum::<usize>();
        let to = &mut dst[done..done + n];
        match strides[last] {
            0 => to.fill(src.get(offset)),
            1 => src.load::<C>(offset, to),
            step => {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = src.get(offset + i * step);
                }
            }
        }
        done += n;
        at[last] += n;
        for d in (1..rank).rev() {
            if at[d] < shape[d] {
                break;
            }
            at[d] = 0;
            at[d - 1] += 1;
        }
    }
}

#[inline(always)]
fn map(a: &[f32], dst: &mut [f32], f: impl Fn(f32) -> f32) {
    for (to, &x) in dst.iter_mut().zip(a) {
        *to = f(x);
    }
}

#[inline(always)]
fn flag(condition: bool) -> f32 {
    if condition { 1.0 } else { 0.0 }
}

#[inline(always)]
fn unary<C: Caps>(op: Unary, a: &[f32], dst: &mut [f32]) {
    match op {
        Unary::Neg => map(a, dst, |x| -x),
        Unary::Abs => map(a, dst, |x| x.abs()),
        Unary::Exp => map(a, dst, |x| math::exp::<C>(x)),
        Unary::Log => map(a, dst, |x| math::log::<C>(x)),
        Unary::Sqrt => map(a, dst, |x| x.sqrt()),
        Unary::Rsqrt => map(a, dst, |x| 1.0 / x.sqrt()),
        Unary::Recip => map(a, dst, |x| 1.0 / x),
        Unary::Tanh => map(a, dst, |x| math::tanh::<C>(x)),
        Unary::Sigmoid => map(a, dst, |x| math::sigmoid::<C>(x)),
        // NaN stays NaN, as in torch.
        Unary::Relu => map(a, dst, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Step => map(a, dst, |x| flag(x > 0.0)),
        Unary::Gelu => map(a, dst, |x| math::gelu::<C>(x)),
        Unary::GeluGrad => map(a, dst, |x| math::gelu_grad::<C>(x)),
        Unary::IsFinite => map(a, dst, |x| flag(x.abs() < f32::INFINITY)),
        Unary::Square => map(a, dst, |x| x * x),
        Unary::Sign => {
            map(a, dst, |x| if x.is_nan() { x } else { flag(x > 0.0) - flag(x < 0.0) });
        }
    }
}

#[inline(always)]
fn zip(a: &[f32], b: &[f32], dst: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    for ((to, &a), &b) in dst.iter_mut().zip(a).zip(b) {
        *to = f(a, b);
    }
}

#[inline(always)]
fn binary(op: Binary, a: &[f32], b: &[f32], dst: &mut [f32]) {
    match op {
        Binary::Add => zip(a, b, dst, |a, b| a + b),
        Binary::Sub => zip(a, b, dst, |a, b| a - b),
        Binary::Mul => zip(a, b, dst, |a, b| a * b),
        Binary::Div => zip(a, b, dst, |a, b| a / b),
        Binary::Max => zip(a, b, dst, larger),
        Binary::Min => zip(a, b, dst, |a, b| -larger(-a, -b)),
        Binary::Greater => zip(a, b, dst, |a, b| flag(a > b)),
        Binary::GreaterEqual => zip(a, b, dst, |a, b| flag(a >= b)),
        Binary::Equal => zip(a, b, dst, |a, b| flag(a == b)),
    }
}
