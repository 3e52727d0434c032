//! Images, channels last: convolutions and pooling.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{ConvGeometry, PoolKind, Shape};

use super::contract::product;
use super::{Call, Lowering, structure};
use crate::command::Argument;
use crate::kernels::Source;

/// The sizes of a convolution as kernels have them.
struct Conv {
    image: Shape,
    /// Of the windows, `[O, KH, KW, C]`.
    windows: Shape,
    geometry: ConvGeometry,
}

impl Conv {
    fn output(&self) -> [usize; 2] {
        let out = |size, window| self.geometry.output(size, window).unwrap_or(0);
        [out(self.image[1], self.windows[1]), out(self.image[2], self.windows[2])]
    }

    fn argument(&self) -> Argument {
        let (image, windows, [height, width]) = (&self.image, &self.windows, self.output());
        let ConvGeometry { stride, pad } = self.geometry;
        let divisors = [image[1], image[2], image[3], height, width, windows[0], windows[2], stride];
        let divisors = divisors.into_iter().flat_map(divisor);
        structure(&divisors.chain([image[0], windows[1], pad]).collect::<Vec<_>>())
    }
}

/// A size, and the multiplier and the shift by which kernels divide by it: x / size is the upper
/// half of 2 x multiplier, shifted, for every x below 2^31 (Granlund and Montgomery 1994, theorem
/// 4.2).
fn divisor(size: usize) -> [usize; 3] {
    let shift = size.max(1).next_power_of_two().ilog2();
    [size, (1usize << (31 + shift)).div_ceil(size.max(1)), shift as usize]
}

/// A convolution or one of its gradients.
fn convolution(l: &mut Lowering<'_>, conv: &Conv, entry: &str) -> Result<(), EngineError> {
    let pass = match entry {
        "conv2d" => "FORWARD",
        "conv2d_grad_input" => "GRAD_INPUT",
        _ => "GRAD_WEIGHT",
    };
    let unit = if conv.geometry.stride == 1 { "true" } else { "false" };
    let macros = [("PASS", pass), ("UNIT_STRIDE", unit)];
    // Other kernels are the same with any stride.
    let known = if pass == "GRAD_INPUT" { &macros[..] } else { &macros[..1] };
    product(l, Source::Conv, known, entry, conv.argument())
}

pub(super) fn conv2d(l: &mut Lowering<'_>, geometry: ConvGeometry) -> Result<(), EngineError> {
    let conv = Conv { image: l.shape(0).clone(), windows: l.shape(1).clone(), geometry };
    convolution(l, &conv, "conv2d")
}

pub(super) fn conv2d_grad_input(l: &mut Lowering<'_>, geometry: ConvGeometry) -> Result<(), EngineError> {
    let conv = Conv { image: l.result_shape().clone(), windows: l.shape(1).clone(), geometry };
    convolution(l, &conv, "conv2d_grad_input")
}

pub(super) fn conv2d_grad_weight(l: &mut Lowering<'_>, geometry: ConvGeometry) -> Result<(), EngineError> {
    let conv = Conv { image: l.shape(0).clone(), windows: l.result_shape().clone(), geometry };
    convolution(l, &conv, "conv2d_grad_weight")
}

/// The sizes of a pooling of `image` to images of `output`.
fn window(image: &Shape, output: &Shape, size: usize, stride: usize) -> Argument {
    structure(&[image[1], image[2], image[3], output[1], output[2], size, stride])
}

pub(super) fn pool(
    l: &mut Lowering<'_>,
    kind: PoolKind,
    size: usize,
    stride: usize,
) -> Result<(), EngineError> {
    let (x, y) = (l.input(0), l.result(0));
    let window = window(l.shape(0), l.result_shape(), size, stride);
    let entry = match kind {
        PoolKind::Max => "pool_max",
        PoolKind::Mean => "pool_mean",
    };
    let kernel = l.kernel(Source::Pool, &[("TypeX", x.dtype), ("TypeY", y.dtype)], entry);
    l.launch(Call::each(kernel, y.count).read(x).write(y).sizes([y.count]).with(window));
    Ok(())
}

pub(super) fn pool_grad(
    l: &mut Lowering<'_>,
    kind: PoolKind,
    size: usize,
    stride: usize,
) -> Result<(), EngineError> {
    let (x, dy, dx) = (l.input(0), l.input(1), l.result(0));
    let window = window(l.shape(0), l.shape(1), size, stride);
    let types = [("TypeX", x.dtype), ("TypeY", dx.dtype), ("TypeD", dy.dtype)];
    let call = match kind {
        PoolKind::Max => Call::each(l.kernel(Source::Pool, &types, "pool_max_grad"), dx.count).read(x),
        PoolKind::Mean => Call::each(l.kernel(Source::Pool, &types, "pool_mean_grad"), dx.count),
    };
    l.launch(call.read(dy).write(dx).sizes([dx.count]).with(window));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::divisor;

    #[test]
    fn multipliers_divide() {
        for size in (1..2000).chain([65_535, 65_536, (1 << 30) + 1, (1 << 31) - 1]) {
            let [_, multiplier, shift] = divisor(size).map(|n| n as u64);
            assert!(multiplier < 1 << 32, "{size}");
            let multiples = (0..100).flat_map(|n| [n * size as u64, (n + 1) * size as u64 - 1]);
            for x in multiples.chain([(1 << 31) - 1]).filter(|&x| x < 1 << 31) {
                assert_eq!(((2 * x * multiplier) >> 32) >> shift, x / size as u64, "{x} / {size}");
            }
        }
    }
}
