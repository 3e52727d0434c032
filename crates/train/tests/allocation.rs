//! A step of a session that commits allocates nothing after the first: counted by an allocator that
//! counts.
//!
//! A program of its own, without the test harness, whose threads allocate too.

#![allow(clippy::print_stdout, clippy::print_stderr)] // of tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_graph::engine::HostSlice;
use halfstep_graph::precision::Policy;
use halfstep_graph::{MomentFormat, StateFormats, WeightFormat};
use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, ModelSpec, Resnet18Spec};
use halfstep_train::session::{Session, SessionSpec};
use halfstep_train::step_options::StepOptions;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// State in fewer bytes, for the tensors that are large enough.
fn low_state() -> [Policy; 2] {
    [(WeightFormat::Bf16Stochastic, MomentFormat::Int8), (WeightFormat::Bf16Kahan, MomentFormat::Bf16)].map(
        |(weights, moments)| Policy {
            state: StateFormats { weights, moments },
            ..Policy::named("bf16").unwrap()
        },
    )
}

fn main() {
    let image = |channels| InputSpec::Image { height: 32, width: 32, channels };
    let cases = [
        (ModelSpec::Mlp(MlpSpec { hidden: vec![33, 20] }), InputSpec::Features { width: 17 }, 10),
        (ModelSpec::Cnn(CnnSpec::default()), image(1), 10),
        (ModelSpec::Resnet18(Resnet18Spec { width: 8 }), image(3), 10),
        (
            ModelSpec::Gpt(GptSpec { width: 32, layers: 2, heads: 4, dropout: 0.1, ..GptSpec::default() }),
            InputSpec::Tokens { length: 40, vocab: 50 },
            50,
        ),
    ];
    for (spec, input, outputs) in cases {
        for policy in Policy::NAMES.map(|name| Policy::named(name).unwrap()).into_iter().chain(low_state()) {
            check(&spec, &input, outputs, &policy, 1);
            if matches!(spec, ModelSpec::Mlp(_)) {
                check(&spec, &input, outputs, &policy, 5);
            }
        }
    }
}

/// Committed steps of a session, with the batch in so many parts and the next one announced.
fn check(spec: &ModelSpec, input: &InputSpec, outputs: usize, policy: &Policy, accumulate: usize) {
    let batch = 5;
    let model = spec.build(input, outputs).unwrap();
    let options = StepOptions { accumulate, ..StepOptions::default() };
    let settings = SessionSpec { clip: Some(1.0), options, ..SessionSpec::new(policy, batch, 1) };
    let engine = CpuEngine::new(Isa::best(), NonZeroUsize::new(2).unwrap());
    let mut session = Session::new(&engine, &*model, input, policy, &settings).unwrap();
    let count = input.value_type(batch).shape.count();
    let numbers: Vec<f32> = (0..count).map(|i| (i % 17) as f32 / 17.0).collect();
    let tokens: Vec<i32> = (0..count).map(|i| (i % 50) as i32).collect();
    let x = match input {
        InputSpec::Tokens { .. } => HostSlice::I32(&tokens),
        _ => HostSlice::F32(&numbers),
    };
    let y: Vec<i32> = (0..input.rows(batch)).map(|i| (i % 10) as i32).collect();
    let mut step = || session.step_ahead((x, &y), 1e-3, || Some((x, &y))).unwrap().committed;
    // A first loss scale may be too high.
    assert!((0..20).any(|_| step()), "{} in {}: no step commits", spec.kind(), policy.name);
    // A thread allocates when it first runs, which on a busy machine may be after a small step has
    // ended without it.
    std::thread::sleep(Duration::from_millis(20));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let committed = [step(), step(), step()];
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let what = format!("{} in {} and {accumulate} parts", spec.kind(), policy.name);
    assert_eq!(committed, [true; 3], "{what}");
    assert_eq!(made, 0, "{made} allocations in three steps of {what}");
    println!("{what}: no allocation in three steps");
}
