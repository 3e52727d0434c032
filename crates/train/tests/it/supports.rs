//! An engine is asked what it supports before anything is planned for it.

use std::collections::BTreeSet;

use halfstep_graph::engine::Target;
use halfstep_graph::interp::{InterpreterEngine, Rounding};
use halfstep_graph::precision::{Override, Policy, Rule};
use halfstep_graph::{DType, Graph, Group, MomentFormat, Node, StateFormats, WeightFormat};
use halfstep_nn::{InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::memory::step_stages;
use halfstep_train::session::{SessionSpec, TrainError};

const INPUT: InputSpec = InputSpec::Features { width: 64 };

/// Its matrices are large enough for state in fewer bytes.
fn model() -> Box<dyn Model> {
    ModelSpec::Mlp(MlpSpec { hidden: vec![64, 64] }).build(&INPUT, 10).unwrap()
}

/// Stores f32 and whole numbers alone.
struct F32Only;

impl Target for F32Only {
    fn name(&self) -> String {
        "f32 only".into()
    }
    fn alignment(&self) -> usize {
        1
    }
    fn workspace_bytes(&self, _: &Graph, _: &Node) -> usize {
        0
    }
    fn fuses(&self, _: &Graph, _: &Group) -> bool {
        false
    }
    fn stores(&self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::I32)
    }
}

/// Every named policy in every form of state that it takes, and with parts of the model in bf16.
fn policies() -> Vec<Policy> {
    use MomentFormat::{Bf16, F32, Int8};
    let weights = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Bf16Kahan];
    let mut all = Vec::new();
    for policy in Policy::NAMES.map(|name| Policy::named(name).unwrap()) {
        for weights in weights.into_iter().filter(|&w| policy.takes(w)) {
            let states = [F32, Bf16, Int8].map(|moments| StateFormats { weights, moments });
            all.extend(states.map(|state| Policy { state, ..policy.clone() }));
        }
        let overrides = vec![Override { pattern: "*".into(), rule: Rule::Bf16 }];
        all.push(Policy { overrides, ..policy });
    }
    all
}

#[test]
fn a_policy_names_every_type_that_its_programs_store() {
    let (model, engine) = (model(), InterpreterEngine { rounding: Rounding::Stored });
    for policy in policies() {
        let spec = SessionSpec::new(&policy, 8, 0);
        let stages = step_stages(model.as_ref(), &INPUT, &policy, &spec, &engine).unwrap();
        let graph = stages.train.plan.graph;
        let values = graph.values.iter().map(|v| v.ty.dtype);
        let mut found: BTreeSet<DType> = values.chain(graph.slots.iter().map(|s| s.ty.dtype)).collect();
        found.remove(&DType::I32);
        assert!(found.is_subset(&policy.dtypes()), "{policy:?} stores {found:?}");
        // An exception for every operation leaves the policy's own formats unused.
        assert!(found == policy.dtypes() || !policy.overrides.is_empty(), "{policy:?} stores {found:?}");
    }
}

#[test]
fn what_an_engine_cannot_store_is_refused_before_it_is_planned() {
    let model = model();
    for policy in policies() {
        let spec = SessionSpec::new(&policy, 8, 0);
        let found = step_stages(model.as_ref(), &INPUT, &policy, &spec, &F32Only);
        if policy.dtypes().len() == 1 {
            assert!(found.is_ok(), "{policy:?}");
            continue;
        }
        let Err(TrainError::Unsupported(error)) = found else { panic!("{policy:?} was planned") };
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("`{}` does not run on f32 only: it stores no ", policy.name)),
            "{said}"
        );
    }
}
