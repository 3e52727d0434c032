//! What benchmarks run without a graph around it.

use std::num::NonZeroUsize;

use halfstep_float::{Philox, bf16_from_f32, f16_from_f32, unit_f32};

use crate::elements::{Dst, Elements, map_elements};
use crate::gemm::{Ctx, GemmArgs, Layout, Operand, Output, ProductFormat, Scratch, gemm};
use crate::isa::Isa;
use crate::pool::Pool;

/// Uniform between −1 and 1, in storage form.
fn random(format: ProductFormat, count: usize, stream: u64) -> Elements<Vec<f32>, Vec<u16>, Vec<u8>> {
    let random = Philox::new(0);
    let values = (0..count).map(|i| 2.0 * unit_f32(random.word(stream, i as u64)) - 1.0);
    match format {
        ProductFormat::F32 | ProductFormat::Split(_) => Elements::F32(values.collect()),
        ProductFormat::Bf16 => Elements::Bf16(values.map(bf16_from_f32).collect()),
        ProductFormat::F16 => Elements::F16(values.map(f16_from_f32).collect()),
    }
}

/// A matrix product to time: each call of the result computes C = A·B once, on `threads` threads.
///
/// A is `[m, k]` and B is `[k, n]`, row-major, uniform between −1 and 1 and the same for every call
/// of this function, stored in `format` (f32 where that is a split); C is f32 `[m, n]`. The first
/// call allocates what packing needs, later ones nothing.
///
/// # Panics
/// If memory cannot hold the operands; m·k, k·n and m·n are at most `isize::MAX / 4`.
pub fn random_product(
    isa: Isa,
    threads: NonZeroUsize,
    format: ProductFormat,
    [m, n, k]: [usize; 3],
) -> impl FnMut() {
    let (a, b) = (random(format, m * k, 1), random(format, k * n, 2));
    let mut c = vec![0.0f32; m * n];
    let (pool, mut scratch) = (Pool::new(threads), Scratch::new());
    move || {
        let args = GemmArgs {
            batch: [1, 1],
            a: Operand { data: map_elements!(&a, x => &x[..]), layout: Layout::row_major(m, k) },
            b: Operand { data: map_elements!(&b, x => &x[..]), layout: Layout::row_major(k, n) },
            c: Output { data: Dst::F32(&mut c), layout: Layout::row_major(m, n) },
            compute: format,
            bias: None,
        };
        gemm(&mut Ctx { isa, pool: &pool, scratch: &mut scratch }, args, None)
            .expect("operands made in these sizes and this format fit together");
    }
}
