//! Where results go: rounding to the output's storage, bias, and the address of each row.

use halfstep_float::{bf16_from_f32, f16_from_f32};

use crate::elements::Dst;

/// The storage of an output, as a pointer that threads share: each writes elements of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination {
    F32(*mut f32),
    Bf16(*mut u16),
    F16(*mut u16),
}

impl Destination {
    /// Where an output begins.
    pub(crate) fn of(output: &mut Dst<'_>) -> Destination {
        match output {
            Dst::F32(d) => Destination::F32(d.as_mut_ptr()),
            Dst::Bf16(d) => Destination::Bf16(d.as_mut_ptr()),
            Dst::F16(d) => Destination::F16(d.as_mut_ptr()),
            Dst::E4m3(_) | Dst::E5m2(_) => {
                unreachable!("the precision plan stores products in 16 or 32 bits")
            }
        }
    }
}

/// Where row `i` of the output begins, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutRows {
    /// `i · stride`.
    Strided(usize),
    /// `i` as a number of three digits with extents (any, `extents[0]`, `extents[1]`), each digit
    /// with a stride.
    Digits { extents: [usize; 2], strides: [usize; 3] },
}

/// An output matrix with adjacent columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sink<'a> {
    pub target: Destination,
    /// First element.
    pub base: usize,
    pub rows: OutRows,
    /// One value per column.
    pub bias: Option<&'a [f32]>,
}

// SAFETY: the pointer comes from an exclusive borrow that outlives the computation, and every
// element is written by exactly one thread.
unsafe impl Sync for Sink<'_> {}
// SAFETY: as above.
unsafe impl Send for Sink<'_> {}

/// Columns handled at a time.
const LANES: usize = 16;

#[inline(always)]
fn lanes(x: &[f32], at: usize) -> &[f32; LANES] {
    x[at..at + LANES].try_into().expect("a range of LANES")
}

impl Sink<'_> {
    /// The position of row `i`'s first element in the output.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> usize {
        self.base
            + match self.rows {
                OutRows::Strided(stride) => i * stride,
                OutRows::Digits { extents, strides } => {
                    let (rest, low) = (i / extents[1], i % extents[1]);
                    rest / extents[0] * strides[0] + rest % extents[0] * strides[1] + low * strides[2]
                }
            }
    }

    /// Writes the first `rows` rows and `columns` columns of a block of sums with row length `nr`
    /// to (`row0`, `column0`) and on.
    ///
    /// # Safety
    /// `acc` points to `rows · nr` values with `columns ≤ nr`; the block lies inside the output;
    /// nobody else reads or writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn store(
        &self,
        acc: *const f32,
        nr: usize,
        (row0, rows): (usize, usize),
        (column0, columns): (usize, usize),
    ) {
        for r in 0..rows {
            let at = self.row(row0 + r) + column0;
            // SAFETY: row `r` of the block, and its place in the output, which lies inside.
            unsafe {
                let acc = std::slice::from_raw_parts(acc.add(r * nr), columns);
                let bias = self.bias.map(|b| &b[column0..column0 + columns]);
                match self.target {
                    Destination::F32(to) => store_row(acc, bias, to.add(at), |x| x),
                    Destination::Bf16(to) => store_row(acc, bias, to.add(at), bf16_from_f32),
                    Destination::F16(to) => store_row(acc, bias, to.add(at), f16_from_f32),
                }
            }
        }
    }
}

/// # Safety
/// `to` points to `acc.len()` elements that nobody else touches.
#[inline(always)]
unsafe fn store_row<T: Copy>(acc: &[f32], bias: Option<&[f32]>, to: *mut T, code: impl Fn(f32) -> T + Copy) {
    // SAFETY: the caller vouches for it.
    let to = unsafe { std::slice::from_raw_parts_mut(to, acc.len()) };
    let mut at = 0;
    while at + LANES <= acc.len() {
        let values = *lanes(acc, at);
        let bias = bias.map(|bias| *lanes(bias, at));
        let to: &mut [T; LANES] = (&mut to[at..at + LANES]).try_into().expect("a range of LANES");
        finish(values, bias, to, code);
        at += LANES;
    }
    for i in at..acc.len() {
        let to: &mut [T; 1] = (&mut to[i..i + 1]).try_into().expect("a range of one");
        finish([acc[i]], bias.map(|b| [b[i]]), to, code);
    }
}

#[inline(always)]
fn finish<T, const L: usize>(
    mut x: [f32; L],
    bias: Option<[f32; L]>,
    to: &mut [T; L],
    code: impl Fn(f32) -> T,
) {
    if let Some(bias) = bias {
        for (x, bias) in x.iter_mut().zip(bias) {
            *x += bias;
        }
    }
    for (to, x) in to.iter_mut().zip(x) {
        *to = code(x);
    }
}
