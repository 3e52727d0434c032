//! Looking at a trained model: its logits, the values inside it and its gradients by the input, in
//! any precision, with its own weights or changed ones.

use std::path::Path;

use halfstep_graph::engine::{Engine, HostSlice, Program, State};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{
    Graph, GraphError, Op, Shape, Slot, SlotKind, ValueId, ValueType, differentiate_values, fuse, plan,
};
use halfstep_nn::{Context, InputSpec, Model};

use crate::checkpoint::{self, CheckpointError};
use crate::session::{Programs, Reader, Session, TrainError, batch_of, compile, compiled};
use crate::step::predict_graph;

/// The weights and running statistics of a model, in f32.
#[derive(Clone, Debug)]
pub struct Weights {
    values: Vec<(Slot, Vec<f32>)>,
}

impl Weights {
    /// Those of a session: moving averages where they are kept.
    ///
    /// # Errors
    /// The engine does not give them.
    pub fn of(session: &Session<'_>) -> Result<Weights, TrainError> {
        let belongs = |s: &&Slot| matches!(s.kind, SlotKind::Weight { .. } | SlotKind::Statistic);
        let value = |s: &Slot| Ok((s.clone(), session.download_averaged(&s.name)?.f32().to_vec()));
        let values = session.slots().iter().filter(belongs).map(value).collect::<Result<_, TrainError>>()?;
        Ok(Weights { values })
    }

    /// Those of the file at `path`, which is a checkpoint of `model`.
    ///
    /// # Errors
    /// The file is damaged or of another model; the model does not take this input.
    pub fn read(model: &dyn Model, input: &InputSpec, path: &Path) -> Result<Weights, CheckpointError> {
        let slots = predict_graph(model, input, 1).map_err(TrainError::from)?.slots;
        let values = checkpoint::model_values(&slots, path)?;
        Ok(Weights { values: values.into_iter().map(|(slot, v)| (slot.clone(), v.f32().to_vec())).collect() })
    }

    /// The same with every matrix and convolution kernel changed: `change` gets its shape, output
    /// channels first, and its values. Biases, norms and statistics stay as they are.
    ///
    /// # Errors
    /// What `change` returns.
    pub fn map_matrices<E>(
        &self,
        mut change: impl FnMut(&[usize], &mut [f32]) -> Result<(), E>,
    ) -> Result<Weights, E> {
        let mut changed = self.clone();
        for (slot, values) in &mut changed.values {
            if slot.ty.shape.len() > 1 && matches!(slot.kind, SlotKind::Weight { .. }) {
                change(&slot.ty.shape, values)?;
            }
        }
        Ok(changed)
    }

    /// Numbers in matrices and kernels, and in all.
    pub fn counts(&self) -> (usize, usize) {
        let count = |least: usize| {
            self.values.iter().filter(|(s, _)| s.ty.shape.len() >= least).map(|(_, v)| v.len()).sum()
        };
        (count(2), count(0))
    }
}

/// The values of one layer for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerValues {
    /// The layer, as the nodes of the graph are called.
    pub name: String,
    /// `[batch, …]`, row-major.
    pub values: Vec<f32>,
}

/// Logits, and what the last layer makes them of.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `[rows, classes]`.
    pub logits: Vec<f32>,
    /// `[rows, width]`: the LHS of the last matrix product, as it reads it.
    pub features: Vec<f32>,
}

/// A model with its weights in one precision. A program for another batch size is compiled once and
/// kept.
pub struct Probe<'a> {
    engine: &'a dyn Engine,
    model: &'a dyn Model,
    input: &'a InputSpec,
    policy: Policy,
    state: State,
    programs: Programs,
    layer_names: Vec<String>,
}

impl<'a> Probe<'a> {
    /// A probe of `model` with these weights.
    ///
    /// # Errors
    /// The weights are of another model; not enough memory.
    pub fn new(
        engine: &'a dyn Engine,
        model: &'a dyn Model,
        input: &'a InputSpec,
        policy: &Policy,
        weights: &Weights,
    ) -> Result<Probe<'a>, TrainError> {
        let slots = predict_graph(model, input, 1)?.slots;
        let mut state = engine.new_state(&slots)?;
        for slot in &slots {
            let known = || weights.values.iter().map(|(s, _)| s.name.as_str());
            let found = weights.values.iter().find(|(s, _)| s.name == slot.name);
            let (_, values) = found
                .ok_or_else(|| halfstep_graph::engine::EngineError::unknown("slot", &slot.name, known()))?;
            state.upload(&slot.name, HostSlice::F32(values))?;
        }
        Ok(Probe {
            engine,
            model,
            input,
            policy: policy.clone(),
            state,
            programs: Programs::new(),
            layer_names: Vec::new(),
        })
    }

    /// The form of a sample.
    pub fn input(&self) -> &InputSpec {
        self.input
    }

    /// Logits `[rows, classes]` of a batch.
    ///
    /// # Errors
    /// `x` is not whole samples; an index out of range; not enough memory.
    pub fn logits(&mut self, x: HostSlice<'_>) -> Result<Vec<f32>, TrainError> {
        let mut reader = Reader {
            engine: self.engine,
            model: self.model,
            input: self.input,
            policy: &self.policy,
            state: &mut self.state,
            programs: &mut self.programs,
        };
        reader.predict(x)
    }

    /// Logits and the features that they are made of.
    ///
    /// # Errors
    /// As [`Probe::logits`]; a model without a matrix product.
    pub fn features(&mut self, x: HostSlice<'_>) -> Result<Features, TrainError> {
        let batch = batch_of(self.input, x, None)?;
        let program = compiled(&mut self.programs, ("features", batch), || {
            let graph = predict_graph(self.model, self.input, batch)?;
            let (mut assigned, _) = assign(&graph, &self.policy);
            let last = assigned.nodes.iter().rev().find(|n| matches!(n.op, Op::MatMul { .. }));
            let operand = last.map(|n| n.inputs[0]);
            let operand = operand.ok_or_else(|| {
                GraphError::Derivative("a model without a matrix product has no feature space".into())
            })?;
            assigned.add_output("features", operand);
            planned(self.engine, &assigned, &self.state)
        })?;
        program.run(&mut self.state, &[("x", x)])?;
        let read = |name: &str| Ok::<_, TrainError>(program.read(name)?.f32().to_vec());
        Ok(Features { logits: read("logits")?, features: read("features")? })
    }

    /// The last value of every named part of the model, as this precision stores it, in the order
    /// of the program.
    ///
    /// # Errors
    /// As [`Probe::logits`].
    pub fn layers(&mut self, x: HostSlice<'_>) -> Result<Vec<LayerValues>, TrainError> {
        let batch = batch_of(self.input, x, None)?;
        let program = compiled(&mut self.programs, ("layers", batch), || {
            let graph = predict_graph(self.model, self.input, batch)?;
            // Outputs are added when every value has its type: what is looked at does not change
            // how it is rounded.
            let (mut assigned, _) = assign(&graph, &self.policy);
            self.layer_names = Vec::new();
            for (name, value) in last_of_each_name(&assigned, &graph) {
                assigned.add_output(&format!("layer.{name}"), value);
                self.layer_names.push(name);
            }
            planned(self.engine, &assigned, &self.state)
        })?;
        program.run(&mut self.state, &[("x", x)])?;
        let value = |name: &String| {
            Ok(LayerValues {
                name: name.clone(),
                values: program.read(&format!("layer.{name}"))?.f32().to_vec(),
            })
        };
        self.layer_names.iter().map(value).collect()
    }

    /// Jᵀ·`cotangent` for each row: the gradient by the input of any loss whose gradient by the
    /// logits is `cotangent` `[rows, classes]`. Of the shape of `x`; only for models of numbers.
    ///
    /// # Errors
    /// As [`Probe::logits`]; a model of tokens; a cotangent of another size.
    pub fn input_gradient(&mut self, x: &[f32], cotangent: &[f32]) -> Result<Vec<f32>, TrainError> {
        let batch = batch_of(self.input, HostSlice::F32(x), None)?;
        let program = compiled(&mut self.programs, ("gradient", batch), || {
            let graph = gradient_graph(self.model, self.input, batch)?;
            Ok(compile(self.engine, graph, &self.policy, &self.state)?)
        })?;
        let inputs = [("x", HostSlice::F32(x)), ("cotangent", HostSlice::F32(cotangent))];
        program.run(&mut self.state, &inputs)?;
        Ok(program.read("gradient")?.f32().to_vec())
    }
}

/// The program of a graph whose precision is assigned.
fn planned(engine: &dyn Engine, assigned: &Graph, state: &State) -> Result<Box<dyn Program>, TrainError> {
    Ok(engine.compile(&plan(fuse(assigned), engine.target()), state)?)
}

/// The last value of each name of the model, as `assigned` stores it: of the shape it has in the
/// model, and none of the copies, codes, magnitudes and scales that stand under the same name for
/// the sake of a format.
fn last_of_each_name(assigned: &Graph, model: &Graph) -> Vec<(String, ValueId)> {
    let named = |g: &Graph, v: ValueId| {
        let node = g.node(g.value(v).node);
        let skipped = matches!(
            node.op,
            Op::Input { .. } | Op::Read { .. } | Op::Const { .. } | Op::Cast { .. } | Op::Quantise(_)
        );
        let number = g.dtype(v).is_float() && !skipped && node.outputs[0] == v;
        (number && !node.name.is_empty() && node.name != "loss").then(|| node.name.clone())
    };
    let last = |g: &Graph, name: &str, shape: Option<&Shape>| {
        let fits =
            |v: &ValueId| shape.is_none_or(|s| g.shape(*v) == s) && named(g, *v).as_deref() == Some(name);
        (0..g.values.len() as u32).rev().map(ValueId).find(fits)
    };
    let mut found: Vec<(String, ValueId)> = Vec::new();
    for v in (0..model.values.len() as u32).map(ValueId) {
        let Some(name) = named(model, v).filter(|name| found.iter().all(|(n, _)| n != name)) else {
            continue;
        };
        let shape = last(model, &name, None).map(|v| model.shape(v));
        if let Some(value) = last(assigned, &name, shape) {
            found.push((name, value));
        }
    }
    found
}

/// Inputs `x` and `cotangent`, output `gradient`: that of Σ logits · cotangent by x.
fn gradient_graph(model: &dyn Model, input: &InputSpec, batch: usize) -> Result<Graph, GraphError> {
    if let InputSpec::Tokens { .. } = input {
        return Err(GraphError::Derivative("tokens have no gradient".into()));
    }
    let mut g = Graph::new();
    let x = g.input("x", input.value_type(batch));
    let logits = model.forward(&mut g, x, &Context::eval())?;
    let shape = g.shape(logits).clone();
    let gradient = g.scoped("loss", |g| {
        let logits = g.reshape(logits, [shape.rows(), shape.last()])?;
        let ty = ValueType::f32(Shape::from([shape.rows(), shape.last()]));
        let cotangent = g.input("cotangent", ty);
        let product = g.mul(logits, cotangent)?;
        let loss = g.sum(product, &[0, 1])?;
        let one = g.scalar(1.0);
        differentiate_values(g, loss, one, &[x])
    })?;
    g.add_output("gradient", gradient[0]);
    Ok(g)
}
