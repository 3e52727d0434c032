//! Two-dimensional convolution and its gradients as matrix products whose operands are never
//! written out: packing reads the windows straight from the image (implicit im2col).
//!
//! Activations are NHWC, weights O·KH·KW·C, all dense. `y[n,i,j,o] = Σ x[n, i·s + u − p, j·s + v −
//! p, c] · w[o,u,v,c]` over u, v, c, with stride s, padding p and zeros outside the image. Formats,
//! rounding and error bounds are those of [`crate::gemm`]; the number of terms K is KH·KW·C
//! forward, at most ⌈KH/s⌉·⌈KW/s⌉·O for the gradient with respect to the input, and N·OH·OW for the
//! gradient with respect to the weights.

use crate::elements::{Dst, Src};
use crate::gemm::{
    Along, BlockEpilogue, Ctx, Destination, Extents, Gather, KernelError, Operands, OutRows, Packing,
    Problem, ProductFormat, Sink, Source, Window, check_equal, check_storage, execute,
};
use crate::isa::Isa;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Images, N.
    pub images: usize,
    /// Height and width of the input, H and W.
    pub input: [usize; 2],
    /// Channels of the input, C.
    pub channels: usize,
    /// Channels of the output, O.
    pub out_channels: usize,
    /// Height and width of the window, KH and KW.
    pub window: [usize; 2],
    /// Distance between windows in both directions, s.
    pub stride: usize,
    /// Zeros around the image in both directions, p.
    pub padding: usize,
}

/// Which of the three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvPass {
    /// y from x and w.
    Forward,
    /// dx from dy and w.
    GradInput,
    /// dw from x and dy.
    GradWeight,
}

impl ConvPass {
    /// Windows are packed piece by piece, never whole; weights and dy exist in memory.
    fn operands(self) -> Operands {
        match self {
            ConvPass::Forward | ConvPass::GradInput => {
                Operands { a: Packing::PerJob, a_rows_run: true, b: Packing::Once }
            }
            ConvPass::GradWeight => Operands { a: Packing::Once, a_rows_run: false, b: Packing::PerJob },
        }
    }
}

/// One phase of the gradient with respect to the input: the pixels whose row and column leave the
/// same remainders when divided by the stride meet the same taps.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// First pixel.
    first: [usize; 2],
    /// Pixels.
    grid: [usize; 2],
    /// First tap.
    tap: [usize; 2],
    /// Taps, each the stride apart.
    taps: [usize; 2],
    /// Output row (column) of the first pixel under the first tap.
    offset: [isize; 2],
}

impl Conv2d {
    /// Height and width of the output: ⌊(H + 2p − KH) / s⌋ + 1 and the same for W.
    ///
    /// # Errors
    /// If the stride is zero or the window is empty or larger than the padded image.
    pub fn output(&self) -> Result<[usize; 2], KernelError> {
        let size = |what, found, requirement| Err(KernelError::Size { what, found, requirement });
        if self.stride == 0 {
            return size("stride", 0, "at least 1");
        }
        let mut output = [0; 2];
        for (i, output) in output.iter_mut().enumerate() {
            let padded = self.input[i].saturating_add(self.padding.saturating_mul(2));
            if self.window[i] == 0 || self.window[i] > padded {
                return size("window", self.window[i], "at least 1 and no larger than the padded image");
            }
            *output = (padded - self.window[i]) / self.stride + 1;
        }
        // Pixels are decoded in 32 bits.
        let pixels = |hw: [usize; 2]| self.images.checked_mul(hw[0])?.checked_mul(hw[1]);
        for hw in [output, self.input] {
            if pixels(hw).is_none_or(|p| p > u32::MAX as usize) {
                return size("number of pixels", pixels(hw).unwrap_or(usize::MAX), "below 2^32");
            }
        }
        Ok(output)
    }

    fn taps(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Elements of x, w and y.
    fn lengths(&self) -> Result<[usize; 3], KernelError> {
        let [oh, ow] = self.output()?;
        let product = |factors: &[usize]| factors.iter().try_fold(1usize, |p, &f| p.checked_mul(f));
        let x = product(&[self.images, self.input[0], self.input[1], self.channels]);
        let w = product(&[self.out_channels, self.window[0], self.window[1], self.channels]);
        let y = product(&[self.images, oh, ow, self.out_channels]);
        let too_large =
            KernelError::Size { what: "number of elements", found: usize::MAX, requirement: "below 2^64" };
        x.zip(w).zip(y).map(|((x, w), y)| [x, w, y]).ok_or(too_large)
    }

    /// x as pixels of y × (tap, channel).
    fn windows<'a>(&self, x: Src<'a>, output: [usize; 2], along: Along) -> Source<'a> {
        let gather = Gather::Window(Window {
            image: self.input,
            channels: self.channels,
            grid: output,
            taps_x: self.window[1],
            line_step: self.stride as isize,
            tap_step: 1,
            offset: [-(self.padding as isize); 2],
        });
        Source { data: x, base: 0, gather, along }
    }

    fn phases(&self) -> impl Iterator<Item = Phase> {
        let s = self.stride;
        let conv = *self;
        (0..s * s).map(move |i| {
            let first = [i / s, i % s];
            let tap = first.map(|f| (f + conv.padding) % s);
            let each =
                |f: fn(&Conv2d, usize, usize, usize) -> usize| [0, 1].map(|d| f(&conv, d, first[d], tap[d]));
            Phase {
                first,
                grid: each(|c, d, first, _| c.input[d].saturating_sub(first).div_ceil(c.stride)),
                tap,
                taps: each(|c, d, _, tap| c.window[d].saturating_sub(tap).div_ceil(c.stride)),
                offset: each(|c, _, first, tap| (first + c.padding - tap) / c.stride).map(|o| o as isize),
            }
        })
    }

    /// The operands of dx\[n, i·s + f\] = Σ dy\[n, i + offset − t\] · w\[tap + t·s\], summed over
    /// the taps t of the phase and the channels of dy; and where the first pixel and its rows lie
    /// in dx.
    fn phase_operands<'a>(
        &self,
        phase: &Phase,
        dy: Src<'a>,
        w: Src<'a>,
        output: [usize; 2],
    ) -> ([Source<'a>; 2], (usize, OutRows)) {
        let (c, o, s) = (self.channels, self.out_channels, self.stride);
        let [height, width] = self.input;
        let windows = Window {
            image: output,
            channels: o,
            grid: phase.grid,
            taps_x: phase.taps[1],
            line_step: 1,
            tap_step: -1,
            offset: phase.offset,
        };
        let a = Source { data: dy, base: 0, gather: Gather::Window(windows), along: Along::K };
        let b = Source {
            data: w,
            base: (phase.tap[0] * self.window[1] + phase.tap[1]) * c,
            gather: Gather::Digits {
                extents: [phase.taps[1], o],
                strides: [s * self.window[1] * c, s * c, self.taps() * c],
            },
            along: Along::Outer,
        };
        let rows =
            OutRows::Digits { extents: phase.grid, strides: [height * width * c, s * width * c, s * c] };
        ([a, b], ((phase.first[0] * width + phase.first[1]) * c, rows))
    }

    fn forward_extents(&self, [oh, ow]: [usize; 2]) -> Extents {
        Extents { batches: 1, m: self.images * oh * ow, n: self.out_channels, k: self.taps() * self.channels }
    }

    fn phase_extents(&self, p: &Phase) -> Extents {
        let m = self.images * p.grid[0] * p.grid[1];
        Extents { batches: 1, m, n: self.channels, k: p.taps[0] * p.taps[1] * self.out_channels }
    }

    fn weight_extents(&self, [oh, ow]: [usize; 2]) -> Extents {
        Extents { batches: 1, m: self.out_channels, n: self.taps() * self.channels, k: self.images * oh * ow }
    }

    /// Bytes of scratch that a pass uses with `threads` threads, `in_strips` if an epilogue takes
    /// its results.
    ///
    /// # Errors
    /// As [`Conv2d::output`].
    pub fn scratch_bytes(
        &self,
        pass: ConvPass,
        isa: Isa,
        threads: usize,
        compute: ProductFormat,
        in_strips: bool,
    ) -> Result<usize, KernelError> {
        let output = self.output()?;
        let bytes = |extents| crate::gemm::bytes(isa, threads, compute, extents, pass.operands(), in_strips);
        Ok(match pass {
            ConvPass::Forward => bytes(self.forward_extents(output)),
            ConvPass::GradWeight => bytes(self.weight_extents(output)),
            ConvPass::GradInput => self.phases().map(|p| bytes(self.phase_extents(&p))).max().unwrap_or(0),
        })
    }
}

/// A convolution or one of its gradients.
///
/// | pass | a | b | to |
/// |---|---|---|---|
/// | forward | x \[N,H,W,C\] | w \[O,KH,KW,C\] | y = x ∗ w + bias \[N,OH,OW,O\] |
/// | gradient with respect to the input | dy, as y | w | dx, as x: every element is written |
/// | gradient with respect to the weights | x | dy | dw, as w |
#[derive(Debug)]
pub struct Convolution<'a> {
    /// Sizes.
    pub conv: Conv2d,
    /// Which product.
    pub pass: ConvPass,
    /// The first operand.
    pub a: Src<'a>,
    /// The second operand.
    pub b: Src<'a>,
    /// The result.
    pub to: Dst<'a>,
    /// The format of the products.
    pub compute: ProductFormat,
    /// One value per channel of the output.
    pub bias: Option<&'a [f32]>,
    /// What takes the results in the place of the output, which is then not written.
    pub(crate) epilogue: Option<&'a dyn BlockEpilogue>,
}

impl Convolution<'_> {
    /// Computes the result.
    ///
    /// # Errors
    /// If a length is not that of its shape, or storage and compute format do not go together;
    /// nothing is written then.
    pub fn run(self, ctx: &mut Ctx<'_>) -> Result<(), KernelError> {
        let output = self.check()?;
        let Convolution { conv, pass, a, b, mut to, compute, bias, epilogue } = self;
        let mut product = |[a, b]: [Source<'_>; 2], (base, rows): (usize, OutRows), extents: Extents| {
            let problem = Problem {
                a,
                b,
                sink: Sink { target: Destination::of(&mut to), base, rows, bias },
                epilogue,
                compute,
                batch: [1, 1],
                a_batch: [0; 2],
                b_batch: [0; 2],
                out_batch: [0; 2],
            };
            execute(ctx, &problem, extents, pass.operands());
        };
        match pass {
            ConvPass::Forward => {
                let extents = conv.forward_extents(output);
                let gather = Gather::Strided { line: extents.k, position: 1 };
                let w = Source { data: b, base: 0, gather, along: Along::K };
                let place = (0, OutRows::Strided(conv.out_channels));
                product([conv.windows(a, output, Along::K), w], place, extents);
            }
            ConvPass::GradInput => {
                for phase in conv.phases() {
                    let (operands, place) = conv.phase_operands(&phase, a, b, output);
                    product(operands, place, conv.phase_extents(&phase));
                }
            }
            ConvPass::GradWeight => {
                let extents = conv.weight_extents(output);
                let gather = Gather::Strided { line: conv.out_channels, position: 1 };
                let dy = Source { data: b, base: 0, gather, along: Along::Outer };
                let place = (0, OutRows::Strided(extents.n));
                product([dy, conv.windows(a, output, Along::Outer)], place, extents);
            }
        }
        Ok(())
    }

    /// Checks the arguments; height and width of y.
    fn check(&self) -> Result<[usize; 2], KernelError> {
        let conv = &self.conv;
        let output = conv.output()?;
        let [x, w, y] = conv.lengths()?;
        let (names, what, [a, b, to], channels) = match self.pass {
            ConvPass::Forward => {
                let what = ["elements of x", "elements of w", "elements of y"];
                (["x", "w"], what, [x, w, y], conv.out_channels)
            }
            ConvPass::GradInput => {
                let what = ["elements of dy", "elements of w", "elements of dx"];
                (["dy", "w"], what, [y, w, x], conv.channels)
            }
            ConvPass::GradWeight => {
                let what = ["elements of x", "elements of dy", "elements of dw"];
                (["x", "dy"], what, [x, y, w], conv.taps() * conv.channels)
            }
        };
        check_equal(what[0], a, self.a.len())?;
        check_equal(what[1], b, self.b.len())?;
        check_equal(what[2], to, self.epilogue.map_or(self.to.len(), BlockEpilogue::len))?;
        if let Some(bias) = self.bias {
            check_equal("length of the bias (channels)", channels, bias.len())?;
        }
        check_storage(names[0], self.a, self.compute)?;
        check_storage(names[1], self.b, self.compute)?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests;
