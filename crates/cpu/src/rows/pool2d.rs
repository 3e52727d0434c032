//! Maximum and average pooling of images `[N, H, W, C]`, forward and backward.
//!
//! The backward passes compute a band of rows of the input's gradient at a time in f32, from every
//! window that covers them, so that overlapping windows are rounded once and bands can be shared
//! out among threads. The largest element of a window is found again rather than stored: once where
//! windows do not overlap.

use std::ops::Range;

use super::storage::{Dst, Src};
use super::{Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Channels computed at a time.
const CHANNELS: usize = 64;
/// Elements a chunk should at least have.
const CHUNK: usize = 8192;

/// The shape of an image batch and of the windows over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolWindow {
    /// Images.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Distance between windows.
    pub stride: [usize; 2],
    /// Rows and columns added on each side; at most half the window, as in torch.
    pub padding: [usize; 2],
}

impl PoolWindow {
    /// Square windows without padding.
    pub fn square(image: [usize; 4], kernel: usize, stride: usize) -> PoolWindow {
        let [n, h, w, c] = image;
        PoolWindow { n, h, w, c, kernel: [kernel; 2], stride: [stride; 2], padding: [0; 2] }
    }

    /// Height and width of the result.
    ///
    /// # Errors
    /// If a stride or window is zero, the window does not fit, or the padding is more than half of
    /// it.
    pub fn out(&self) -> Result<[usize; 2], RowError> {
        let wrong = |why| Err(RowError::Shape { what: "window", why });
        let mut out = [0; 2];
        for (d, size) in [self.h, self.w].into_iter().enumerate() {
            if self.kernel[d] == 0 || self.stride[d] == 0 {
                return wrong("a size or stride is zero");
            }
            if self.padding[d] * 2 > self.kernel[d] {
                return wrong("the padding is more than half the window");
            }
            let Some(room) = (size + 2 * self.padding[d]).checked_sub(self.kernel[d]) else {
                return wrong("the window is larger than the image");
            };
            out[d] = room / self.stride[d] + 1;
        }
        Ok(out)
    }

    /// The rows (`d` = 0) or columns (1) of the image that window `at` covers.
    #[inline(always)]
    fn covered(&self, d: usize, at: usize) -> Range<usize> {
        let start = at * self.stride[d];
        let end = (start + self.kernel[d]).saturating_sub(self.padding[d]);
        start.saturating_sub(self.padding[d])..end.min([self.h, self.w][d])
    }

    /// The windows that cover row (or column) `at`.
    #[inline(always)]
    fn covering(&self, d: usize, at: usize, out: [usize; 2]) -> Range<usize> {
        let place = at + self.padding[d];
        let first = (place + 1).saturating_sub(self.kernel[d]).div_ceil(self.stride[d]);
        first..(place / self.stride[d] + 1).min(out[d])
    }

    /// Rows of the input's gradient computed together: those of one window, or of two that overlap.
    fn band(&self) -> usize {
        let windows = if self.kernel[0] > self.stride[0] { 2 } else { 1 };
        (windows * self.stride[0]).min(self.h)
    }

    fn check(&self, x: (&'static str, usize), y: (&'static str, usize)) -> Result<[usize; 2], RowError> {
        let out = self.out()?;
        check_len(x.0, self.n * self.h * self.w * self.c, x.1)?;
        check_len(y.0, self.n * out[0] * out[1] * self.c, y.1)?;
        Ok(out)
    }
}

/// How an average counts places in the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadCount {
    /// As zeros: the sum is divided by the window's size (torch's default).
    Included,
    /// Not at all: the sum is divided by the places inside the image.
    #[cfg_attr(not(test), expect(dead_code, reason = "ONNX models count padding either way"))]
    Excluded,
}

/// What becomes of the elements of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest; NaN if there is one. Padding counts as −∞.
    Max,
    /// The mean.
    Mean(PadCount),
}

impl Pooling {
    /// The factor of an average over a window.
    #[inline(always)]
    fn factor(self, window: &PoolWindow, inside: usize) -> f32 {
        match self {
            Pooling::Max => 1.0,
            Pooling::Mean(PadCount::Included) => 1.0 / (window.kernel[0] * window.kernel[1]) as f32,
            Pooling::Mean(PadCount::Excluded) => 1.0 / inside as f32,
        }
    }
}

/// One element for each window of an image.
#[derive(Debug)]
pub struct Pool2d<'a> {
    /// Shapes.
    pub window: PoolWindow,
    /// Which element.
    pub pooling: Pooling,
    /// `[N, H, W, C]`.
    pub x: Src<'a>,
    /// `[N, OH, OW, C]`.
    pub y: Dst<'a>,
}

impl Pool2d<'_> {
    /// Computes y.
    ///
    /// # Errors
    /// If the window is impossible, or a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Pool2d { window, pooling, x, y } = self;
        let out = window.check(("x", x.len()), ("y", y.len()))?;
        let y = SharedDst::new(y);
        let row = out[1] * window.c;
        let grid = Grid::rows(window.n * out[0], row, CHUNK);
        pool.for_each(grid.chunks(), &|_, chunk| {
            for at in grid.range(chunk) {
                // SAFETY: each row of the result belongs to one chunk.
                let to = unsafe { y.part(at * row..(at + 1) * row) };
                let (image, oh) = (at / out[0], at % out[0]);
                dispatch(isa, ForwardRow { pooling, window, out_w: out[1], image, oh, x: &x, to });
            }
        });
        Ok(())
    }
}

struct ForwardRow<'a> {
    pooling: Pooling,
    window: PoolWindow,
    out_w: usize,
    image: usize,
    oh: usize,
    x: &'a Src<'a>,
    to: Dst<'a>,
}

impl Body for ForwardRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let PoolWindow { h, w, c, .. } = self.window;
        let rows = self.window.covered(0, self.oh);
        let (mut values, mut buffer) = ([0.0; CHANNELS], [0.0; CHANNELS]);
        for channels in super::grid::tiles(c, CHANNELS) {
            let values = &mut values[..channels.len()];
            for ow in 0..self.out_w {
                let cols = self.window.covered(1, ow);
                values.fill(if matches!(self.pooling, Pooling::Max) { f32::NEG_INFINITY } else { 0.0 });
                for ih in rows.clone() {
                    for iw in cols.clone() {
                        let at = ((self.image * h + ih) * w + iw) * c;
                        let xs = self.x.view::<C>(at + channels.start..at + channels.end, &mut buffer);
                        match self.pooling {
                            Pooling::Max => {
                                for (v, &x) in values.iter_mut().zip(xs) {
                                    *v = super::sum::larger(*v, x);
                                }
                            }
                            Pooling::Mean(_) => {
                                for (v, &x) in values.iter_mut().zip(xs) {
                                    *v += x;
                                }
                            }
                        }
                    }
                }
                if let Pooling::Mean(_) = self.pooling {
                    let factor = self.pooling.factor(&self.window, rows.len() * cols.len());
                    for v in values.iter_mut() {
                        *v *= factor;
                    }
                }
                self.to.store::<C>(ow * c + channels.start, values);
            }
        }
    }
}

/// The derivative of [`Pool2d`]: of the largest, each window's gradient goes to its first largest
/// element in scan order.
#[derive(Debug)]
pub struct Pool2dBackward<'a> {
    /// Shapes.
    pub window: PoolWindow,
    /// What became of the elements.
    pub pooling: Pooling,
    /// The forward operand, `[N, H, W, C]`: not looked at for means.
    pub x: Src<'a>,
    /// `[N, OH, OW, C]`.
    pub dy: Src<'a>,
    /// `[N, H, W, C]`.
    pub dx: Dst<'a>,
    /// [`pool_backward_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// f32 elements of scratch of the backward passes: a band of the image for each thread.
pub fn pool_backward_scratch_len(threads: usize, window: &PoolWindow) -> usize {
    threads * window.band() * window.w * window.c.min(CHANNELS)
}

impl Pool2dBackward<'_> {
    /// Computes dx.
    ///
    /// # Errors
    /// If the window is impossible, or a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Pool2dBackward { window, pooling, x, dy, dx, scratch } = self;
        if pooling == Pooling::Max {
            check_len("x", dx.len(), x.len())?;
        }
        let out = window.check(("dx", dx.len()), ("dy", dy.len()))?;
        check_scratch(pool_backward_scratch_len(pool.threads(), &window), scratch.len())?;
        let dx = SharedDst::new(dx);
        let (band, row) = (window.band(), window.w * window.c);
        let per_worker = pool_backward_scratch_len(1, &window);
        let scratch = SharedSlice::new(scratch);
        let bands = window.h.div_ceil(band);
        let grid = Grid::rows(window.n * bands, band * row, CHUNK);
        pool.for_each(grid.chunks(), &|worker, chunk| {
            for at in grid.range(chunk) {
                let (image, first) = (at / bands, at % bands * band);
                let rows = first..(first + band).min(window.h);
                let start = image * window.h;
                // SAFETY: each band of the result belongs to one chunk, and a worker runs one chunk
                // at a time.
                let (to, sums) = unsafe {
                    (
                        dx.part((start + rows.start) * row..(start + rows.end) * row),
                        scratch.part(worker * per_worker..(worker + 1) * per_worker),
                    )
                };
                dispatch(isa, BackwardBand { pooling, window, out, image, rows, x, dy: &dy, to, sums });
            }
        });
        Ok(())
    }
}

struct BackwardBand<'a> {
    pooling: Pooling,
    window: PoolWindow,
    out: [usize; 2],
    image: usize,
    /// Rows of the image.
    rows: Range<usize>,
    x: Src<'a>,
    dy: &'a Src<'a>,
    to: Dst<'a>,
    sums: &'a mut [f32],
}

impl Body for BackwardBand<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let PoolWindow { h, w, c, .. } = self.window;
        let band = self.rows.clone();
        let windows = self.window.covering(0, band.start, self.out).start
            ..self.window.covering(0, band.end - 1, self.out).end;
        let mut buffers = [[0.0; CHANNELS]; 2];
        let [dy_buffer, x_buffer] = &mut buffers;
        for channels in super::grid::tiles(c, CHANNELS) {
            let n = channels.len();
            let sums = &mut self.sums[..band.len() * w * n];
            sums.fill(0.0);
            for oh in windows.clone() {
                let rows = self.window.covered(0, oh);
                let inside = rows.start.max(band.start)..rows.end.min(band.end);
                for ow in 0..self.out[1] {
                    let cols = self.window.covered(1, ow);
                    let at = ((self.image * self.out[0] + oh) * self.out[1] + ow) * c;
                    let dys = self.dy.view::<C>(at + channels.start..at + channels.end, dy_buffer);
                    if let Pooling::Mean(_) = self.pooling {
                        let factor = self.pooling.factor(&self.window, rows.len() * cols.len());
                        for ih in inside.clone() {
                            for iw in cols.clone() {
                                let at = ((ih - band.start) * w + iw) * n;
                                for (sum, &dy) in sums[at..at + n].iter_mut().zip(dys) {
                                    *sum += dy * factor;
                                }
                            }
                        }
                        continue;
                    }
                    let mut best = [f32::NEG_INFINITY; CHANNELS];
                    let mut place = [0u32; CHANNELS];
                    let mut number = 0;
                    for ih in rows.clone() {
                        for iw in cols.clone() {
                            let at = ((self.image * h + ih) * w + iw) * c;
                            let xs = self.x.view::<C>(at + channels.start..at + channels.end, x_buffer);
                            for ((best, place), &x) in best.iter_mut().zip(&mut place).zip(xs) {
                                // NaN takes over, as in torch.
                                let better = x > *best || x.is_nan();
                                *best = if better { x } else { *best };
                                *place = if better { number } else { *place };
                            }
                            number += 1;
                        }
                    }
                    for ih in inside.clone() {
                        let first = (ih - rows.start) * cols.len();
                        for (i, iw) in cols.clone().enumerate() {
                            let here = (first + i) as u32;
                            let at = ((ih - band.start) * w + iw) * n;
                            let sums = &mut sums[at..at + n];
                            for ((sum, &dy), &place) in sums.iter_mut().zip(dys).zip(&place) {
                                *sum += if place == here { dy } else { 0.0 };
                            }
                        }
                    }
                }
            }
            for (pixel, sums) in sums.chunks_exact(n).enumerate() {
                self.to.store::<C>(pixel * c + channels.start, sums);
            }
        }
    }
}
