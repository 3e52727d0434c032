//! Contractions below 16 bits: the part of the pass that inserts magnitudes, scales, codes and
//! rescaled sums.

use std::collections::{HashMap, HashSet};

use halfstep_float::Format;

use super::class::{Class, class};
use super::narrow::{GradientRounding, Narrow, Scaling, SharedScale};
use super::policy::Rule;
use crate::dtype::{DType, Shape, ValueType};
use crate::graph::{Graph, GraphError, Init, Node, Phase, Rewrite, SlotKind, ValueId, When};
use crate::op::{Binary, Blocks, Op, Quantise, ReduceKind, SlotId, Unary};
use crate::reason::Reason;

/// Name of the input that carries the words that draws are keyed by.
pub(super) const KEY: &str = "key";
/// Name of the input whose first dimension counts samples.
const SAMPLES: &str = "x";
/// The largest scale: its reciprocal is a normal number.
const LARGEST_SCALE: f64 = (1u128 << 126) as f64;
/// e2m1's largest value times e4m3's.
const NVFP4_RANGE: f64 = 6.0 * 448.0;

/// What is known of the values quantised so far.
pub(super) struct Quantiser {
    narrow: Narrow,
    /// Names of the last contractions.
    heads: HashSet<String>,
    /// Whether the program leaves state behind. If not, it is evaluated, perhaps with a gradient by
    /// its input, and tensors are scaled by what they hold.
    trains: bool,
    /// Samples with scales of their own; 1 where a scale serves the tensor.
    samples: usize,
    codes: HashMap<(ValueId, Blocks, Format, usize), Codes>,
    names: HashSet<String>,
    observed: Vec<Observed>,
}

/// The codes of a value.
#[derive(Clone, Copy)]
struct Codes {
    codes: ValueId,
    /// What a sum of products with them is to be multiplied by: one number, or one for each place
    /// of its first dimension.
    factor: Option<ValueId>,
}

/// A magnitude to be recorded at the end of the step.
struct Observed {
    name: String,
    amax: ValueId,
    history: SlotId,
    scale: SlotId,
    /// The largest code.
    largest: f64,
}

/// Whether `v` is state, moved at most.
pub(super) fn is_state(graph: &Graph, v: ValueId) -> bool {
    let node = graph.node(graph.value(v).node);
    match node.op {
        Op::Read { .. } => true,
        Op::Reshape { .. } | Op::Permute { .. } => is_state(graph, node.inputs[0]),
        _ => false,
    }
}

fn is_contraction(node: &Node) -> bool {
    class(&node.op) == Class::Contraction
}

/// Names of the contractions of the forward pass on which no other depends.
fn heads(graph: &Graph) -> HashSet<String> {
    let mut leads_on = vec![false; graph.values.len()];
    let mut heads = HashSet::new();
    for node in graph.nodes.iter().rev().filter(|n| n.phase == Phase::Forward) {
        let further = node.outputs.iter().any(|o| leads_on[o.0 as usize]);
        if is_contraction(node) && !further {
            heads.insert(node.name.clone());
        }
        if further || is_contraction(node) {
            node.inputs.iter().for_each(|v| leads_on[v.0 as usize] = true);
        }
    }
    heads
}

/// The samples that the program computes.
fn samples(graph: &Graph) -> usize {
    let input = graph.inputs().find(|(name, _)| *name == SAMPLES);
    input.and_then(|(_, x)| graph.shape(x).first().copied()).unwrap_or(1)
}

impl Quantiser {
    pub fn new(narrow: Narrow, graph: &Graph) -> Quantiser {
        let trains = !graph.writes.is_empty();
        Quantiser {
            narrow,
            heads: heads(graph),
            trains,
            samples: if narrow.shared == SharedScale::Sample && !trains { samples(graph) } else { 1 },
            codes: HashMap::new(),
            names: HashSet::new(),
            observed: Vec::new(),
        }
    }

    /// Why a contraction stays in 16 bits, if it does.
    pub fn stays(&self, node: &Node, exception: Option<Rule>) -> Option<Reason> {
        match node.op {
            Op::Attention(_) | Op::AttentionGrad(_) => Some(Reason::AttentionStays),
            Op::MatMul { .. } => None,
            _ if self.narrow.in_blocks() => Some(Reason::ConvolutionStays),
            _ => None,
        }
        .or_else(|| {
            let asked = exception == Some(Rule::Low);
            (!asked && self.heads.contains(&node.name)).then_some(Reason::HeadStays)
        })
    }

    /// A contraction of codes in the place of `node`, whose operands `inputs` are stored as
    /// `operands`; its result is of type `storage`, or f32 for the gradient of a weight.
    pub fn contraction(
        &mut self,
        rewrite: &mut Rewrite<'_>,
        node: &Node,
        inputs: &[ValueId],
        operands: &[ValueId],
        storage: DType,
    ) {
        let rank = rewrite.new.shape(operands[0]).len();
        let (last, before) = (rank - 1, rank.saturating_sub(2));
        let axes = match node.op {
            Op::MatMul { ta, tb } => [if ta { before } else { last }, if tb { last } else { before }],
            _ => [last; 2],
        };
        let [a, b] = [0, 1].map(|i| {
            // A copy may have been made in another phase than the value.
            let made_by = rewrite.new.node(rewrite.new.value(inputs[i]).node);
            let is_gradient = made_by.phase == Phase::Backward;
            // Rows of the result are those of the first operand.
            let samples = match node.op {
                Op::MatMul { ta: false, .. } | Op::Conv2d(_) if i == 0 => self.samples,
                _ => 1,
            };
            self.codes(rewrite, node, operands[i], axes[i], is_gradient, samples)
        });
        let old = node.outputs[0];
        let mut reads = operands.to_vec();
        (reads[0], reads[1]) = (a.codes, b.codes);
        let is_weight_gradient = rewrite.old_value(old).gradient_of.is_some();
        let (dtype, reason) = match is_weight_gradient {
            true => (DType::F32, Reason::WeightGradient),
            false => (storage, Reason::Rescaled),
        };
        let shape = rewrite.old_value(old).ty.shape.clone();
        let typed = |dtype| ValueType { shape: shape.clone(), dtype };
        let new = &mut rewrite.new;
        let name = node.name.clone();
        let result = new.in_phase(node.phase, |g| match [a.factor, b.factor] {
            [None, None] => {
                let reason = if is_weight_gradient { reason } else { Reason::Contraction };
                let product = g.push_typed(node.op.clone(), &reads, name, vec![typed(dtype)])[0];
                g.because(product, reason)
            }
            factors => {
                let product = g.push_typed(node.op.clone(), &reads, name.clone(), vec![typed(DType::F32)])[0];
                g.because(product, Reason::SumOfCodes);
                let mul = Op::Binary(Binary::Mul);
                let factor = match factors {
                    [Some(a), Some(b)] => {
                        // Those of the second operand are one number.
                        let each = ValueType::f32(g.shape(a).clone());
                        let both = g.push_typed(mul.clone(), &[a, b], name.clone(), vec![each])[0];
                        g.because(both, Reason::Scale)
                    }
                    [a, b] => a.or(b).unwrap_or(product),
                };
                let rescaled = g.push_typed(mul, &[product, factor], name, vec![typed(dtype)])[0];
                g.because(rescaled, reason)
            }
        });
        rewrite.set(old, result);
    }

    /// The codes of `v`, in which so many samples lie one after another, for a contraction that
    /// sums along `axis`, made once.
    fn codes(
        &mut self,
        rewrite: &mut Rewrite<'_>,
        node: &Node,
        v: ValueId,
        axis: usize,
        is_gradient: bool,
        samples: usize,
    ) -> Codes {
        let g = &mut rewrite.new;
        let is_weight = is_state(g, v);
        let samples = if is_weight { 1 } else { samples };
        let blocks = self.narrow.blocks(axis, is_weight && g.shape(v).len() == 2);
        let format = if is_gradient { self.narrow.backward } else { self.narrow.forward };
        let made_as = (v, blocks, format, samples);
        if let Some(&codes) = self.codes.get(&made_as) {
            return codes;
        }
        let role = match (is_gradient, is_weight) {
            (true, _) => "gradient",
            (_, true) => "weight",
            _ => "input",
        };
        let name = self.fresh(format!("{}.{role}", node.name));
        let phase = if is_gradient { Phase::Backward } else { Phase::Forward };
        let key = g.nodes.iter().find(|n| n.op == Op::Input { name: KEY.into() }).map(|n| n.outputs[0]);
        let draws = is_gradient && self.narrow.rounding == GradientRounding::Stochastic;
        let key = key.filter(|_| draws);
        let first = g.values.len();
        let made = g.scoped(&name, |g| {
            g.in_phase(phase, |g| {
                let (scale, factor) = self.scale(g, &name, v, format, samples)?;
                let quantise = Quantise { format, blocks, draws: key.map(|_| draws_number(&name)) };
                let operands: Vec<ValueId> = [Some(v), scale, key].into_iter().flatten().collect();
                Ok::<_, GraphError>(Codes { codes: g.push(Op::Quantise(quantise), &operands)?[0], factor })
            })
        });
        let made = made.expect("scales and codes fit any tensor of numbers");
        g.values[first..].iter_mut().for_each(|v| v.reason = Some(Reason::Scale));
        g.because(made.codes, Reason::Quantised);
        self.codes.insert(made_as, made);
        made
    }

    /// `name`, numbered if another value has it.
    fn fresh(&mut self, name: String) -> String {
        let numbered = (2..).map(|i| format!("{name}.{i}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|n| !self.names.contains(n));
        let free = free.unwrap_or(name);
        self.names.insert(free.clone());
        free
    }

    /// The scale that is an operand of the codes of `v`, and the factor that undoes it in a sum of
    /// products: of each sample, where `v` has more than one.
    fn scale(
        &mut self,
        g: &mut Graph,
        name: &str,
        v: ValueId,
        format: Format,
        samples: usize,
    ) -> Result<(Option<ValueId>, Option<ValueId>), GraphError> {
        let largest = format.info().max_finite;
        let of_tensor = |g: &mut Graph, margin| {
            let amax = amax(g, v, samples)?;
            let scale = scale_of(g, amax, largest, margin)?;
            let scale = by_row(g, scale, v)?;
            Ok::<_, GraphError>((Some(scale), Some(g.unary(Unary::Recip, scale)?)))
        };
        match self.narrow.scaling {
            Scaling::Block128 | Scaling::Mx { .. } => Ok((None, None)),
            Scaling::Current { margin } => of_tensor(g, margin),
            Scaling::Delayed { margin, .. } if !self.trains => of_tensor(g, margin),
            Scaling::Delayed { history, .. } => {
                let slot = |g: &mut Graph, what: &str, shape: Shape, first| {
                    g.add_slot(what, ValueType::f32(shape), SlotKind::Scale, Init::Constant(first))
                };
                let scale_slot = slot(g, "scale", Shape::scalar(), 1.0)?;
                let history = slot(g, "amax_history", Shape::from([history]), 0.0)?;
                let amax = amax(g, v, 1)?;
                let scale = g.read(scale_slot);
                self.observed.push(Observed { name: name.into(), amax, history, scale: scale_slot, largest });
                Ok((Some(scale), Some(g.unary(Unary::Recip, scale)?)))
            }
            Scaling::Nvfp4 => {
                let amax = amax(g, v, samples)?;
                let (usable, one) = (usable(g, amax)?, g.scalar(1.0));
                let range = g.scalar(NVFP4_RANGE);
                let scale = g.div(amax, range)?;
                let least = g.scalar(f32::MIN_POSITIVE.into());
                let scale = g.binary(Binary::Max, scale, least)?;
                let scale = g.select(usable, scale, one)?;
                let scale = by_row(g, scale, v)?;
                Ok((Some(scale), Some(scale)))
            }
        }
    }

    /// Adds the end of a step with delayed scaling: each magnitude enters its history, and the next
    /// scale follows from that. Both are written also when the step is skipped, so that a scale
    /// that caused the skip recovers.
    pub fn update_scales(self, g: &mut Graph) {
        let Scaling::Delayed { margin, .. } = self.narrow.scaling else { return };
        let first = g.values.len();
        for observed in &self.observed {
            let made =
                g.in_phase(Phase::Update, |g| g.scoped(&observed.name, |g| observed.record(g, margin)));
            made.expect("histories are vectors, scales and magnitudes numbers");
        }
        g.values[first..].iter_mut().for_each(|v| v.reason = Some(Reason::Scale));
    }
}

impl Observed {
    fn record(&self, g: &mut Graph, margin: u32) -> Result<(), GraphError> {
        let (before, old_scale) = (g.read(self.history), g.read(self.scale));
        let length = g.shape(before)[0];
        let seen = g.reshape(self.amax, [1])?;
        let pushed = match length {
            1 => seen,
            _ => {
                let younger = g.slice(before, 0, 0, length - 1)?;
                g.concat(&[seen, younger], 0)?
            }
        };
        let finite = g.unary(Unary::IsFinite, self.amax)?;
        let history = g.select(finite, pushed, before)?;
        let amax = g.max(history, &[0])?;
        let zero = g.scalar(0.0);
        let any = g.binary(Binary::Greater, amax, zero)?;
        let scale = ratio(g, amax, self.largest, margin)?;
        let scale = g.select(any, scale, old_scale)?;
        g.write(self.history, history, When::Always);
        g.write(self.scale, scale, When::Always);
        Ok(())
    }
}

/// The largest magnitude of all elements, or of those of each sample, where there are several.
fn amax(g: &mut Graph, v: ValueId, samples: usize) -> Result<ValueId, GraphError> {
    let (v, axes) = match samples {
        1 => (v, (0..g.shape(v).len()).collect()),
        _ => (g.reshape(v, [samples, g.shape(v).count() / samples])?, vec![1]),
    };
    Ok(g.push(Op::Reduce { kind: ReduceKind::AbsMax, axes }, &[v])?[0])
}

/// The scales of samples for each place of the first dimension of `v`, of which a sample may have
/// several; a scale of all of it as it is.
fn by_row(g: &mut Graph, scale: ValueId, v: ValueId) -> Result<ValueId, GraphError> {
    let Some(&samples) = g.shape(scale).first() else { return Ok(scale) };
    let mut shape = vec![1; g.shape(v).len()];
    shape[0] = g.shape(v)[0];
    let rows = shape[0] / samples;
    let scale = match rows {
        1 => scale,
        _ => {
            let column = g.reshape(scale, [samples, 1])?;
            g.broadcast(column, &[samples, rows].into())?
        }
    };
    g.reshape(scale, shape)
}

/// 1 if a scale can be derived from `amax`: it is neither zero nor infinite nor NaN.
fn usable(g: &mut Graph, amax: ValueId) -> Result<ValueId, GraphError> {
    let zero = g.scalar(0.0);
    let positive = g.binary(Binary::Greater, amax, zero)?;
    let finite = g.unary(Unary::IsFinite, amax)?;
    g.mul(positive, finite)
}

/// largest / (2^margin · amax), at most [`LARGEST_SCALE`].
fn ratio(g: &mut Graph, amax: ValueId, largest: f64, margin: u32) -> Result<ValueId, GraphError> {
    let largest = g.scalar(largest / f64::from(margin).exp2());
    let scale = g.div(largest, amax)?;
    let most = g.scalar(LARGEST_SCALE);
    g.binary(Binary::Min, scale, most)
}

/// The scale of a tensor by what it holds.
fn scale_of(g: &mut Graph, amax: ValueId, largest: f64, margin: u32) -> Result<ValueId, GraphError> {
    let (usable, one) = (usable(g, amax)?, g.scalar(1.0));
    let scale = ratio(g, amax, largest, margin)?;
    g.select(usable, scale, one)
}

/// The number of the draws of the value of this name: the FNV-1a hash of 32 bits (Fowler, Noll and
/// Vo) with the highest bit set. Dropouts are numbered from 0.
pub(super) fn draws_number(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |h: u32, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)) | 1 << 31
}
