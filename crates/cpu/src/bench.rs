//! What benchmarks run without a graph around it.

use std::num::NonZeroUsize;

use halfstep_float::{Philox, bf16_from_f32, f16_from_f32, unit_f32};

use crate::gemm::{Ctx, Data, DataMut, GemmArgs, Layout, Operand, Output, ProductFormat, Scratch, gemm};
use crate::isa::Isa;
use crate::pool::Pool;

/// Elements of an operand in storage form.
enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

impl Elements {
    /// Uniform between −1 and 1.
    fn random(format: ProductFormat, count: usize, stream: u64) -> Elements {
        let random = Philox::new(0);
        let values = (0..count).map(|i| 2.0 * unit_f32(random.word(stream, i as u64)) - 1.0);
        match format {
            ProductFormat::F32 | ProductFormat::Split(_) => Elements::F32(values.collect()),
            ProductFormat::Bf16 => Elements::Bf16(values.map(bf16_from_f32).collect()),
            ProductFormat::F16 => Elements::F16(values.map(f16_from_f32).collect()),
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Elements::F32(x) => Data::F32(x),
            Elements::Bf16(x) => Data::Bf16(x),
            Elements::F16(x) => Data::F16(x),
        }
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
    let (a, b) = (Elements::random(format, m * k, 1), Elements::random(format, k * n, 2));
    let mut c = vec![0.0f32; m * n];
    let (pool, mut scratch) = (Pool::new(threads), Scratch::new());
    move || {
        let args = GemmArgs {
            batch: [1, 1],
            a: Operand { data: a.data(), layout: Layout::row_major(m, k) },
            b: Operand { data: b.data(), layout: Layout::row_major(k, n) },
            c: Output { data: DataMut::F32(&mut c), layout: Layout::row_major(m, n) },
            compute: format,
            bias: None,
        };
        gemm(&mut Ctx { isa, pool: &pool, scratch: &mut scratch }, args)
            .expect("operands made in these sizes and this format fit together");
    }
}
