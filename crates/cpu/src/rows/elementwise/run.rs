//! The interpreter: some of a program's results, tile by tile.

use std::mem::MaybeUninit;

use halfstep_float::{bf16_from_f32, f32_from_bf16};
use halfstep_graph::{Binary, Unary};

use super::{MAX_RANK, Pattern, Place, REGISTERS, TILE, TileOp, TileProgram, Value};
use crate::rows::dropout::Mask;
use crate::rows::grid::tiles;
use crate::rows::key::Key;
use crate::rows::storage::{Src, Storage, round_in_place};
use crate::rows::sum::larger;
use crate::rows::{Body, Caps, SharedDst, math};

/// Which results to compute: `rows` runs of `width` elements, run `r` from element `at(r)` on.
pub(super) struct Parts<'a> {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) at: &'a dyn Fn(usize) -> usize,
}

/// Some of a program's results, and what it takes to compute them.
pub(super) struct Chunk<'a> {
    pub(super) program: &'a TileProgram,
    pub(super) parts: Parts<'a>,
    /// An operand that holds the elements of these parts alone, one run after another.
    pub(super) own: Option<usize>,
    pub(super) inputs: &'a [Src<'a>],
    pub(super) outputs: &'a [Option<SharedDst<'a>>],
    /// Of the program's draws.
    pub(super) key: Key,
}

#[repr(align(64))]
struct Registers([MaybeUninit<[f32; TILE]>; REGISTERS]);

impl Registers {
    /// The first `count`, set to zero: most programs need few, and clearing all takes as long as a
    /// short chain.
    #[inline(always)]
    fn take(&mut self, count: usize) -> &mut [[f32; TILE]] {
        let used = &mut self.0[..count];
        used.iter_mut().for_each(|r| {
            r.write([0.0; TILE]);
        });
        // SAFETY: just written, and `MaybeUninit<T>` has the layout of `T`.
        unsafe { std::slice::from_raw_parts_mut(used.as_mut_ptr().cast(), count) }
    }
}

/// A tile: its first element, where that is in the operand of these parts alone, and its length.
#[derive(Clone, Copy)]
struct Tile {
    start: usize,
    own: usize,
    len: usize,
}

/// Everything a value of the current tile can be read from: registers (without the one being
/// written), inputs, outputs.
struct Sources<'a> {
    below: &'a [[f32; TILE]],
    above: &'a [[f32; TILE]],
    inputs: &'a [Src<'a>],
    places: &'a [Place],
    own: Option<usize>,
    tile: Tile,
}

impl<'a> Sources<'a> {
    #[inline(always)]
    fn get(&self, v: Value, outputs: &'a [Option<SharedDst<'a>>]) -> &'a [f32] {
        let Tile { start, own, len } = self.tile;
        match self.places[usize::from(v.0)] {
            Place::Register(r) => {
                let r = usize::from(r);
                let below = self.below.len();
                let tile = if r < below { &self.below[r] } else { &self.above[r - below - 1] };
                &tile[..len]
            }
            Place::Input(n) => match self.inputs[usize::from(n)] {
                Src::F32(s) => {
                    let start = if self.own == Some(usize::from(n)) { own } else { start };
                    &s[start..start + len]
                }
                // `place` gives this only to f32 operands.
                _ => &[],
            },
            Place::Output(n) => match &outputs[usize::from(n)] {
                // SAFETY: this chunk alone uses this range, and the operation being computed writes
                // another place: each output holds one value.
                Some(SharedDst::F32(s)) => unsafe { s.part_ref(start..start + len) },
                _ => &[],
            },
        }
    }
}

impl Body for Chunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let TileProgram { inputs: operands, ops, places, registers: count, .. } = self.program;
        let mut registers = Registers([const { MaybeUninit::uninit() }; REGISTERS]);
        let registers = registers.take(*count);
        for (op, place) in ops.iter().zip(places) {
            let Place::Register(r) = *place else { continue };
            let register = &mut registers[usize::from(r)];
            match *op {
                TileOp::Const(value) => register.fill(value),
                TileOp::Input(n) if operands[n].pattern == Pattern::Scalar => {
                    register.fill(self.inputs[n].get(0));
                }
                _ => {}
            }
        }
        let Parts { rows, width, at } = self.parts;
        let mut row = 0;
        while row < rows {
            let (start, own) = (at(row), row * width);
            let mut len = width;
            row += 1;
            // Runs that follow one another in memory are one.
            while row < rows && at(row) == start + len {
                len += width;
                row += 1;
            }
            // A row that fits into a tile a whole number of times is the same in every tile.
            for (op, place) in ops.iter().zip(places) {
                if let (TileOp::Input(n), Place::Register(r)) = (*op, *place)
                    && operands[n].pattern.fills_tiles()
                {
                    let register = &mut registers[usize::from(r)][..len.min(TILE)];
                    load::<C>(&operands[n].pattern, &self.inputs[n], start, register);
                }
            }
            for tile in tiles(len, TILE) {
                let tile = Tile { start: start + tile.start, own: own + tile.start, len: tile.len() };
                self.tile::<C>(registers, tile);
            }
        }
    }
}

impl Chunk<'_> {
    #[inline(always)]
    fn tile<C: Caps>(&self, registers: &mut [[f32; TILE]], tile: Tile) {
        let TileProgram { inputs: operands, ops, outputs: results, places, .. } = self.program;
        let Tile { start, len, .. } = tile;
        let (inputs, own) = (self.inputs, self.own);
        for (op, place) in ops.iter().zip(places) {
            let (below, dst, above): (&[[f32; TILE]], &mut [f32], &[[f32; TILE]]) = match *place {
                Place::Input(_) => continue,
                Place::Register(r) => {
                    let (below, rest) = registers.split_at_mut(usize::from(r));
                    let Some((dst, above)) = rest.split_first_mut() else { continue };
                    (&*below, &mut dst[..len], &*above)
                }
                Place::Output(n) => match &self.outputs[usize::from(n)] {
                    // SAFETY: chunks are disjoint; operands of this operation are in other places.
                    Some(SharedDst::F32(s)) => (&*registers, unsafe { s.part(start..start + len) }, &[]),
                    _ => continue,
                },
            };
            let sources = Sources { below, above, inputs, places, own, tile };
            let get = |v| sources.get(v, self.outputs);
            match *op {
                TileOp::Const(_) => {}
                TileOp::Input(n) => {
                    let from = if own == Some(n) { tile.own } else { start };
                    if !operands[n].pattern.fills_tiles() {
                        load::<C>(&operands[n].pattern, &inputs[n], from, dst);
                    }
                }
                TileOp::Previous(n) => {
                    if let Some(output) = &self.outputs[n] {
                        // SAFETY: chunks are disjoint, and `dst` is a register: `place` says so for
                        // this op.
                        let old = unsafe { output.part(start..start + len) };
                        old.as_src().load::<C>(0, dst);
                    }
                }
                TileOp::Unary(op, a) => unary::<C>(op, get(a), dst),
                TileOp::Erf(a) => map(get(a), dst, |x| math::erf::<C>(x)),
                TileOp::Round(Storage::Bf16, a) => map(get(a), dst, |x| f32_from_bf16(bf16_from_f32(x))),
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
                TileOp::Quantise(codes, a, scale) => codes.of::<C>(self.key, start, get(a), get(scale), dst),
                TileOp::Dropout { rate, op, per_sample, value } => {
                    Mask::new(rate, self.key, op, per_sample).apply(start, get(value), dst);
                }
            }
        }
        let sources = Sources { below: registers, above: &[], inputs, places, own, tile };
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
