//! What this machine can do at most, measured: the roofs that kernels are held against (Williams,
//! Waterman and Patterson 2009, "Roofline: an insightful visual performance model").

use std::num::NonZeroUsize;
use std::time::Instant;

use crate::gemm::bf16_peak;
use crate::isa::{Isa, Level};
use crate::pool::Pool;
use crate::rows::{Body, Caps, dispatch, fma};

/// Multiply-adds of a chain between two looks at the clock.
const LINKS: usize = 100_000;
/// Bytes of each of the two buffers a thread copies between: past every cache.
const BUFFER: usize = 64 << 20;
/// Each roof is the best of so many tries: a disturbance can only lower one.
const TRIES: usize = 5;

/// The most this machine does per second, with the threads it was measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// f32 operations in registers, a multiply-add counted as two.
    pub f32_flops: f64,
    /// Operations on bf16 operands by what multiplies packed tiles, from the first-level cache;
    /// `None` where that is f32 arithmetic.
    pub bf16_flops: Option<f64>,
    /// Bytes read plus bytes written by copies that no cache holds.
    pub memory_bytes: f64,
}

impl Roofline {
    /// Measures for about a second.
    pub fn measure(isa: Isa, threads: NonZeroUsize) -> Roofline {
        let pool = &Pool::new(threads);
        let threads = pool.threads();
        let rate = |one: &(dyn Fn(usize) -> f64 + Sync)| {
            best(|| {
                let begin = Instant::now();
                let flops = sum(pool, threads, one);
                flops / begin.elapsed().as_secs_f64()
            })
        };
        let f32_flops = rate(&|_| dispatch(isa, Chains));
        let bf16_flops = (isa.level() >= Level::Avx512Bf16).then(|| rate(&|_| bf16_peak(isa)));
        Roofline { f32_flops, bf16_flops, memory_bytes: copy_rate(pool) }
    }
}

fn best(mut once: impl FnMut() -> f64) -> f64 {
    (0..TRIES).map(|_| once()).fold(0.0, f64::max)
}

/// Sum over one chunk per thread.
fn sum(pool: &Pool, threads: usize, f: &(dyn Fn(usize) -> f64 + Sync)) -> f64 {
    let total = std::sync::Mutex::new(0.0);
    pool.for_each(threads, &|_, chunk| {
        let x = f(chunk);
        *total.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += x;
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Independent multiply-add chains in registers: as many as hide the latency, as few as leave room
/// for the operands.
struct Chains;

impl Body for Chains {
    type Output = f64;

    #[inline(always)]
    fn run<C: Caps>(self) -> f64 {
        match C::WIDTH {
            16 => chains::<C, 192>(),
            8 => chains::<C, 96>(),
            _ => chains::<C, 40>(),
        }
    }
}

/// Runs `N` chains; returns the number of operations done.
#[inline(always)]
fn chains<C: Caps, const N: usize>() -> f64 {
    let mut x = [1.0f32; N];
    let (a, b) = (std::hint::black_box(0.999_f32), std::hint::black_box(0.001_f32));
    for _ in 0..LINKS {
        for x in &mut x {
            *x = fma::<C>(*x, a, b);
        }
    }
    std::hint::black_box(x);
    (2 * N * LINKS) as f64
}

fn copy_rate(pool: &Pool) -> f64 {
    let threads = pool.threads();
    let buffers: Vec<_> =
        (0..threads).map(|_| std::sync::Mutex::new((vec![1u8; BUFFER], vec![2u8; BUFFER]))).collect();
    best(|| {
        let begin = Instant::now();
        pool.for_each(threads, &|_, chunk| {
            let mut pair = buffers[chunk].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (from, to) = &mut *pair;
            to.copy_from_slice(std::hint::black_box(from));
            std::hint::black_box(to);
        });
        (2 * threads * BUFFER) as f64 / begin.elapsed().as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Roofs are above what a short computation reaches, on every instruction set: they are
    /// positive and finite.
    #[test]
    fn roofs_are_found_on_every_instruction_set() {
        for isa in Isa::available() {
            let roof = Roofline::measure(isa, NonZeroUsize::MIN);
            assert!(roof.f32_flops > 1e8 && roof.f32_flops < 1e13, "{isa}: {roof:?}");
            assert!(roof.memory_bytes > 1e7 && roof.memory_bytes < 1e13, "{isa}: {roof:?}");
            assert_eq!(roof.bf16_flops.is_some(), isa.level() >= Level::Avx512Bf16);
        }
    }
}
