//! The CPU engine passes what every engine must, on every instruction set this processor has.

use std::num::NonZeroUsize;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::conformance;

fn check(level: Level) {
    match Isa::new(level) {
        Ok(isa) => {
            for threads in [1, 2, 3] {
                conformance::check(&CpuEngine::new(isa, NonZeroUsize::new(threads).unwrap()));
            }
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn portable() {
    check(Level::Portable);
}

#[test]
fn avx2() {
    check(Level::Avx2);
}

#[test]
fn avx512() {
    check(Level::Avx512);
}

#[test]
fn avx512_bf16() {
    check(Level::Avx512Bf16);
}

#[test]
fn amx() {
    check(Level::Amx);
}

#[test]
fn amx_fp16() {
    check(Level::AmxFp16);
}
