//! Codes of 8 and 4 bits: of a whole tensor by one factor, and in blocks with scales of their own.
//! The arithmetic of a block is `halfstep_float`'s.

use halfstep_float::blocks::{BlockShape, F32Scale, Fp8Blocks, Mx, Nvfp4, ScaleRule};
use halfstep_float::{Draws, E8m0, Format, Overflow, SliceRounding, round_f32};
use halfstep_graph::Quantise;

use super::body::out_of_line;
use super::key::Key;
use super::storage::{Dst, Src};
use super::{Body, Caps, Grid, RowError, SharedDst, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// How elements become codes of one scale: [`halfstep_graph::Blocks::Tensor`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codes {
    /// Format of the codes.
    pub format: Format,
    /// What becomes of finite numbers out of range.
    pub overflow: Overflow,
    /// Number of the draws of stochastic rounding; none rounds to nearest even.
    pub draws: Option<u32>,
}

impl Codes {
    /// The values of the codes of `xs`·`scales`; `start` is the place of the first element in its
    /// tensor.
    #[inline(always)]
    pub(crate) fn of<C: Caps>(self, key: Key, start: usize, xs: &[f32], scales: &[f32], to: &mut [f32]) {
        codes::<C>(self, key, start, xs, scales, to);
    }
}

out_of_line! {
    fn codes(codes: Codes, key: Key, start: usize, xs: &[f32], scales: &[f32], to: &mut [f32]) = codes_body
}

#[inline(always)]
fn codes_body(codes: Codes, key: Key, start: usize, xs: &[f32], scales: &[f32], to: &mut [f32]) {
    let mut scaled = [0.0; PART];
    let parts = xs.chunks(PART).zip(scales.chunks(PART)).zip(to.chunks_mut(PART));
    for (i, ((xs, scales), to)) in parts.enumerate() {
        let scaled = &mut scaled[..xs.len()];
        scaled.iter_mut().zip(xs).zip(scales).for_each(|((to, &x), &scale)| *to = x * scale);
        let rounding = rounding(key, codes.draws, start + i * PART);
        // Named, so that the loops of other formats are not compiled.
        match codes.format {
            Format::E4m3 => round_f32(Format::E4m3, rounding, codes.overflow, scaled, to),
            _ => round_f32(Format::E5m2, rounding, codes.overflow, scaled, to),
        }
        // Saturation would make an infinity the largest code.
        for (to, &x) in to.iter_mut().zip(&*scaled) {
            *to = if x.abs() < f32::INFINITY { *to } else { f32::NAN };
        }
    }
}

const PART: usize = 128;

/// How the elements from number `first` on are rounded.
#[inline(always)]
fn rounding(key: Key, draws: Option<u32>, first: usize) -> SliceRounding {
    match draws {
        None => SliceRounding::NearestEven,
        Some(op) => {
            let draws = Draws { seed: key.seed, attempt: key.attempt, op };
            SliceRounding::Stochastic { draws, first: Quantise::first_draw(key.first_sample) + first as u64 }
        }
    }
}

/// A form in blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Blocks of 32.
    Mx(Format, ScaleRule),
    /// Blocks of 16, relative to the scale of the tensor.
    Nvfp4,
    /// Blocks of 128.
    Row128(Format),
    /// Squares of 128.
    Square128(Format),
}

impl Form {
    /// Places along the axis that share a scale.
    fn block(self) -> usize {
        match self {
            Form::Mx(..) => Mx::BLOCK,
            Form::Nvfp4 => Nvfp4::BLOCK,
            Form::Row128(_) | Form::Square128(_) => 128,
        }
    }
}

/// Numbers as a form in blocks has them.
#[derive(Debug)]
pub struct InBlocks<'a> {
    /// The form.
    pub form: Form,
    /// Number of slices before the axis that blocks run along.
    pub outer: usize,
    /// Its length; for squares, the rows of a matrix.
    pub length: usize,
    /// Elements behind each of its places; for squares, the columns of a matrix.
    pub inner: usize,
    /// For NVFP4 the scale of the tensor, or of each of equal shares of the slices.
    pub tensor_scales: &'a [f32],
    /// Number of the draws of stochastic rounding; none rounds to nearest even.
    pub draws: Option<u32>,
    /// What they are drawn from.
    pub key: Key,
    /// `[outer, length, inner]`.
    pub x: Src<'a>,
    /// Likewise.
    pub y: Dst<'a>,
}

/// Places of the inner dimension that are worked on together where it is not 1.
const COLUMNS: usize = 16;

impl InBlocks<'_> {
    /// Computes y.
    ///
    /// # Errors
    /// If a length differs from what the sizes say.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let InBlocks { form, outer, length, inner, tensor_scales, draws, key, x, y } = self;
        check_len("x", outer * length * inner, x.len())?;
        check_len("y", outer * length * inner, y.len())?;
        let share = outer / tensor_scales.len().max(1);
        if form == Form::Nvfp4 {
            check_len("scales", outer, share * tensor_scales.len())?;
        }
        let y = SharedDst::new(y);
        let part = Part { form, length, inner, tensor_scales, share, draws, key, x: &x, y };
        let blocks = length.div_ceil(form.block());
        match (form, inner) {
            (Form::Square128(_), _) => {
                let across = inner.div_ceil(128);
                pool.for_each(outer * blocks * across, &|_, i| {
                    dispatch(
                        isa,
                        Square {
                            part,
                            slice: i / (blocks * across),
                            block: i / across % blocks,
                            across: i % across,
                        },
                    );
                });
            }
            (_, 1) => {
                // Whole rows, some together.
                let grid = Grid::rows(outer, length, 1 << 14);
                pool.for_each(grid.chunks(), &|_, chunk| {
                    dispatch(isa, Rows { part, rows: grid.range(chunk) })
                });
            }
            _ => pool.for_each(outer * blocks, &|_, i| {
                dispatch(isa, Columns { part, slice: i / blocks, block: i % blocks });
            }),
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Part<'a> {
    form: Form,
    length: usize,
    inner: usize,
    tensor_scales: &'a [f32],
    /// Slices that share a scale of the tensor.
    share: usize,
    draws: Option<u32>,
    key: Key,
    x: &'a Src<'a>,
    y: SharedDst<'a>,
}

impl Part<'_> {
    /// The values of the codes of rows of `width` elements of a slice that share their scales, in
    /// place of the numbers: one block, or a square.
    #[inline(always)]
    fn code<C: Caps>(&self, values: &mut [f32], width: usize, codes: &mut [u8], slice: usize, first: usize) {
        let rounding = rounding(self.key, self.draws, first);
        let tensor_scale =
            if self.form == Form::Nvfp4 { self.tensor_scales[slice / self.share] } else { 1.0 };
        block::<C>(self.form, tensor_scale, rounding, values, width, codes);
    }
}

out_of_line! {
    fn block(
        form: Form,
        tensor_scale: f32,
        rounding: SliceRounding,
        values: &mut [f32],
        width: usize,
        codes: &mut [u8],
    ) = block_body
}

#[inline(always)]
fn block_body(
    form: Form,
    tensor_scale: f32,
    rounding: SliceRounding,
    values: &mut [f32],
    width: usize,
    codes: &mut [u8],
) {
    // A macro, because a closure that is called more than once is not inlined, and then not
    // compiled for vectors.
    macro_rules! coded {
        ($form:expr, $scale:expr) => {
            $form.and_then(|form| {
                let mut scale = [$scale];
                form.quantise(rounding, values, width, codes, &mut scale)?;
                form.dequantise(codes, width, &scale, values)
            })
        };
    }
    let fp8 = |format, rows| Fp8Blocks::new(format, BlockShape { rows, columns: 128 }, F32Scale::PowerOfTwo);
    // Formats are named, so that the loops of those that no policy has are not compiled.
    let fits = match form {
        Form::Mx(Format::E4m3, rule) => coded!(Mx::new(Format::E4m3, rule), E8m0::ONE),
        Form::Mx(Format::E5m2, rule) => coded!(Mx::new(Format::E5m2, rule), E8m0::ONE),
        Form::Mx(_, rule) => coded!(Mx::new(Format::E2m1, rule), E8m0::ONE),
        Form::Nvfp4 => {
            let mut scale = [0u8];
            Nvfp4
                .quantise(rounding, values, width, tensor_scale, codes, &mut scale)
                .and_then(|()| Nvfp4.dequantise(codes, width, 1.0, &scale, values))
        }
        Form::Row128(Format::E4m3) => coded!(fp8(Format::E4m3, 1), 0.0),
        Form::Row128(_) => coded!(fp8(Format::E5m2, 1), 0.0),
        Form::Square128(Format::E4m3) => coded!(fp8(Format::E4m3, 128), 0.0),
        Form::Square128(_) => coded!(fp8(Format::E5m2, 128), 0.0),
    };
    debug_assert_eq!(fits, Ok(()), "a block has one scale");
}

/// Blocks along the last dimension.
struct Rows<'a> {
    part: Part<'a>,
    rows: std::ops::Range<usize>,
}

impl Body for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Rows { part, rows } = self;
        let (mut values, mut codes) = ([0.0; 128], [0; 128]);
        for row in rows {
            for start in (0..part.length).step_by(part.form.block()) {
                let values = &mut values[..part.form.block().min(part.length - start)];
                let at = row * part.length + start;
                part.x.load::<C>(at, values);
                let width = values.len();
                part.code::<C>(values, width, &mut codes[..width], row, at);
                // SAFETY: chunks have rows of their own.
                unsafe { part.y.part(at..at + values.len()) }.store::<C>(0, values);
            }
        }
    }
}

/// One block of an axis that has places behind it, for all of them.
struct Columns<'a> {
    part: Part<'a>,
    slice: usize,
    block: usize,
}

impl Body for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Columns { part, slice, block } = self;
        let (length, inner) = (part.length, part.inner);
        let first = block * part.form.block();
        let rows = part.form.block().min(length - first);
        let (mut columns, mut line, mut codes) = ([[0.0; 128]; COLUMNS], [0.0; COLUMNS], [0; 128]);
        for start in (0..inner).step_by(COLUMNS) {
            let width = COLUMNS.min(inner - start);
            let at = |row: usize| (slice * length + first + row) * inner + start;
            for row in 0..rows {
                part.x.load::<C>(at(row), &mut line[..width]);
                columns.iter_mut().zip(&line).for_each(|(column, &x)| column[row] = x);
            }
            for (i, column) in columns[..width].iter_mut().enumerate() {
                // Numbered along the axis: neighbours in a block have neighbouring draws.
                let number = (slice * inner + start + i) * length + first;
                part.code::<C>(&mut column[..rows], rows, &mut codes[..rows], slice, number);
            }
            for row in 0..rows {
                line.iter_mut().zip(&columns).for_each(|(to, column)| *to = column[row]);
                // SAFETY: each block has rows of its own.
                unsafe { part.y.part(at(row)..at(row) + width) }.store::<C>(0, &line[..width]);
            }
        }
    }
}

/// One square of a matrix.
struct Square<'a> {
    part: Part<'a>,
    slice: usize,
    block: usize,
    across: usize,
}

impl Body for Square<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Square { part, slice, block, across } = self;
        let (first, start) = (block * 128, across * 128);
        let (rows, width) = (128.min(part.length - first), 128.min(part.inner - start));
        let (mut values, mut codes) = ([0.0; 128 * 128], [0; 128 * 128]);
        let (values, codes) = (&mut values[..rows * width], &mut codes[..rows * width]);
        let at = |row: usize| (slice * part.length + first + row) * part.inner + start;
        for (row, values) in values.chunks_exact_mut(width).enumerate() {
            part.x.load::<C>(at(row), values);
        }
        let number = ((slice * part.length.div_ceil(128) + block) * part.inner.div_ceil(128) + across) << 14;
        part.code::<C>(values, width, codes, slice, number);
        for (row, values) in values.chunks_exact(width).enumerate() {
            // SAFETY: squares are disjoint.
            unsafe { part.y.part(at(row)..at(row) + width) }.store::<C>(0, values);
        }
    }
}
