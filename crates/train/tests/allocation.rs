//! After the first, a step allocates nothing: counted by an allocator that counts.
//!
//! A program of its own, without the test harness, whose threads allocate too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::Policy;
use halfstep_graph::{MomentFormat, StateFormats, WeightFormat};
use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, ModelSpec, Resnet18Spec};
use halfstep_train::init::initial_tensor;
use halfstep_train::optimiser::Optimiser;
use halfstep_train::scaler::LossScale;
use halfstep_train::session::stages;
use halfstep_train::step::{StepSpec, train_graph};

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
            let batch = 5;
            let model = spec.build(&input, outputs).unwrap();
            let step = StepSpec {
                model: &*model,
                input: &input,
                batch,
                optimiser: &Optimiser::AdamW(Default::default()),
                scaling: &LossScale::for_policy(&policy),
                clip: Some(1.0),
                expose_gradients: false,
            };
            let engine = CpuEngine::new(Isa::best(), NonZeroUsize::new(2).unwrap());
            let plan = stages(train_graph(&step).unwrap(), &policy, engine.target()).plan;
            let mut state = engine.new_state(&plan.graph.slots).unwrap();
            for slot in &plan.graph.slots {
                state.upload(&slot.name, initial_tensor(slot, 1).as_slice()).unwrap();
            }
            let mut program = engine.compile(&plan, &state).unwrap();
            let count = input.value_type(batch).shape.count();
            let numbers: Vec<f32> = (0..count).map(|i| (i % 17) as f32 / 17.0).collect();
            let tokens: Vec<i32> = (0..count).map(|i| (i % 50) as i32).collect();
            let x = match input {
                InputSpec::Tokens { .. } => HostSlice::I32(&tokens),
                _ => HostSlice::F32(&numbers),
            };
            let y: Vec<i32> = (0..input.rows(batch)).map(|i| (i % 10) as i32).collect();
            let inputs = [
                ("x", x),
                ("y", HostSlice::I32(&y)),
                ("key", HostSlice::I32(&[1, 2, 3, 4])),
                ("lr", HostSlice::F32(&[1e-3])),
            ];
            program.run(&mut state, &inputs).unwrap();
            // A thread allocates when it first runs, which on a busy machine may be after a small step has ended without it.
            std::thread::sleep(Duration::from_millis(20));
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..3 {
                program.run(&mut state, &inputs).unwrap();
            }
            let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(made, 0, "{} allocations in three steps of {} in {}", made, spec.kind(), policy.name);
            println!("{} in {}: no allocation in three steps", spec.kind(), policy.name);
        }
    }
}
