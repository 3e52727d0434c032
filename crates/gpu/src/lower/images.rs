//! Images, channels last: convolutions and pooling.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{ConvGeometry, PoolKind, Shape};

use super::contract::bias_of;
use super::pointwise::After;
use super::scheme::Scheme;
use super::{Call, Lowering, MOST_BLOCKS, structure};
use crate::command::Argument;
use crate::kernels::{Source, c_type};

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
        structure(&[
            image[0], image[1], image[2], image[3], height, width, windows[0], windows[1], windows[2],
            stride, pad,
        ])
    }
}

/// A convolution or one of its gradients: a product of `rows` by `columns`.
fn convolution(
    l: &mut Lowering<'_>,
    conv: &Conv,
    entry: &str,
    rows: usize,
    columns: usize,
) -> Result<(), EngineError> {
    let (a, b, bias, after) = (l.input(0), l.input(1), bias_of(l)?, After::of(l)?);
    let scheme = Scheme::of(l, 1, rows, columns);
    if columns.div_ceil(scheme.tile) > MOST_BLOCKS {
        return Err(l.unsupported("a convolution of so many channels is too wide for a GPU"));
    }
    let pass = match entry {
        "conv2d" => "FORWARD",
        "conv2d_grad_input" => "GRAD_INPUT",
        _ => "GRAD_WEIGHT",
    };
    let types = [("TypeA", c_type(a.dtype)), ("TypeB", c_type(b.dtype)), ("PASS", pass)];
    let macros = [&types[..], &scheme.macros()].concat();
    let kernel = after.kernel(l, Source::Conv, &macros, entry);
    let grid = [rows.div_ceil(scheme.tile), columns.div_ceil(scheme.tile), 1];
    let call = Call::new(kernel, grid, scheme.threads());
    l.launch(after.given(call.read(a).read(b).maybe_read(bias).with(conv.argument())));
    Ok(())
}

pub(super) fn conv2d(l: &mut Lowering<'_>, geometry: ConvGeometry) -> Result<(), EngineError> {
    let conv = Conv { image: l.shape(0).clone(), windows: l.shape(1).clone(), geometry };
    let (rows, columns) = (l.result_shape().rows(), l.result_shape().last());
    convolution(l, &conv, "conv2d", rows, columns)
}

pub(super) fn conv2d_grad_input(l: &mut Lowering<'_>, geometry: ConvGeometry) -> Result<(), EngineError> {
    let conv = Conv { image: l.result_shape().clone(), windows: l.shape(1).clone(), geometry };
    let (rows, columns) = (l.result_shape().rows(), l.result_shape().last());
    convolution(l, &conv, "conv2d_grad_input", rows, columns)
}

pub(super) fn conv2d_grad_weight(l: &mut Lowering<'_>, geometry: ConvGeometry) -> Result<(), EngineError> {
    let conv = Conv { image: l.shape(0).clone(), windows: l.result_shape().clone(), geometry };
    let windows = &conv.windows;
    let (rows, columns) = (windows[0], windows[1..].iter().product());
    convolution(l, &conv, "conv2d_grad_weight", rows, columns)
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
