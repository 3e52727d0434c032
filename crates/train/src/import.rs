//! Weights from elsewhere: safetensors files whose tensors have other names, and may lie otherwise.
//!
//! A map says how each is called in the model. All of a file is accounted for before anything is
//! taken from it.

mod layout;

use std::collections::BTreeMap;
use std::fmt;

use halfstep_data::printable;
use halfstep_float::{f32_from_bf16, f32_from_f16};
use halfstep_graph::engine::HostSlice;
use halfstep_graph::{Shape, Slot};
use halfstep_nn::InputSpec;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use self::layout::Layouts;
use crate::checkpoint::{KEY, belongs_to_model, open_safetensors};
use crate::session::{Session, TrainError};
use crate::step::AVERAGE;

/// A rule of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRule {
    /// Name of tensors in the file; `{word}` stands for anything without a dot.
    pub from: String,
    /// Name in the model, with what the words stood for in their place. Several names take equal
    /// parts of the first dimension.
    pub to: Targets,
    /// Whether the two dimensions change places. Of a square matrix it must be written if no other
    /// matrix of the file shows how they lie.
    #[serde(default)]
    pub transpose: Option<bool>,
    /// The sizes to take the tensor's values in, in place of its own.
    #[serde(default)]
    pub view: Option<Vec<usize>>,
    /// Which of its dimensions comes first, second and so on in the model: `[0, 2, 3, 1]` for
    /// kernels of PyTorch, `[out, in, height, width]`.
    #[serde(default)]
    pub permute: Option<Vec<usize>>,
    /// Whether a longer tensor's first rows are taken, as many as the model has.
    #[serde(default)]
    pub first_rows: bool,
}

/// One name or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// All of the tensor.
    One(String),
    /// Equal parts of it.
    Parts(Vec<String>),
}

impl Default for Targets {
    fn default() -> Targets {
        Targets::Parts(Vec::new())
    }
}

/// How tensors of a file are called in a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameMap {
    /// What names in the file may begin with.
    #[serde(default)]
    pub optional_prefix: String,
    /// Names, as in [`ImportRule::from`], of tensors that are not needed.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The first rule that fits a name holds.
    #[serde(default, rename = "tensor")]
    pub rules: Vec<ImportRule>,
}

impl NameMap {
    /// The map for files that call everything as the model does.
    pub fn same_names() -> NameMap {
        let words = (1..=8).map(|n| {
            let name: Vec<String> = (0..n).map(|i| format!("{{{i}}}")).collect();
            let name = name.join(".");
            ImportRule { from: name.clone(), to: Targets::One(name), ..ImportRule::default() }
        });
        NameMap { rules: words.collect(), ..NameMap::default() }
    }

    /// The built-in map of a name.
    pub fn built_in(name: &str) -> Option<&'static str> {
        match name {
            "gpt2" => Some(include_str!("../maps/gpt2.toml")),
            _ => None,
        }
    }

    /// Reads a map from TOML.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub fn parse(text: &str) -> Result<NameMap, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }
}

/// What words of a pattern stand for in a name, if it fits.
fn captures<'p, 'n>(pattern: &'p str, name: &'n str) -> Option<BTreeMap<&'p str, &'n str>> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == name).then(BTreeMap::new);
    };
    let (word, pattern) = rest.split_once('}')?;
    let name = name.strip_prefix(before)?;
    // As much as a part of a name can be; shorter where what follows asks for it.
    let most = name.find('.').unwrap_or(name.len());
    (1..=most).rev().filter(|&end| name.is_char_boundary(end)).find_map(|end| {
        let mut found = captures(pattern, &name[end..])?;
        found.insert(word, &name[..end]);
        Some(found)
    })
}

fn filled(pattern: &str, words: &BTreeMap<&str, &str>) -> String {
    words.iter().fold(pattern.to_string(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
}

/// A tensor that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Its name in the file.
    pub from: String,
    /// Its name in the model.
    pub to: String,
    /// Its shape in the model.
    pub shape: Vec<usize>,
    /// What was done with it: `transposed`, `first rows`, `part 1 of 3`, `widened from F16`.
    pub how: Vec<String>,
}

/// A tensor that does not fit where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// Its name in the file.
    pub from: String,
    /// Its name in the model.
    pub to: String,
    /// Why not.
    pub reason: String,
}

/// Tensors of a kind that are shown, the others are counted: a file may have any number of them.
const SHOWN: usize = 50;

/// What became of each tensor of a file, and of each of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Found, and of the right shape.
    pub taken: Vec<Taken>,
    /// The model has it, the file has not.
    pub missing: Vec<String>,
    /// The file has it, the model has not.
    pub unexpected: Vec<String>,
    /// Of another shape or type, not finite, of a layout that is not known, or twice and different.
    pub misfits: Vec<Misfit>,
    /// Left out, as the map says.
    pub ignored: Vec<String>,
}

impl ImportReport {
    /// Whether everything has its place.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misfits.is_empty()
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = |kind: &str, lines: &mut dyn ExactSizeIterator<Item = String>| {
            for line in (&mut *lines).take(SHOWN) {
                writeln!(f, "{kind:<11} {}", printable(&line))?;
            }
            match lines.len() {
                0 => Ok(()),
                more => writeln!(f, "{kind:<11} … and {more} more"),
            }
        };
        let missing = |name| format!("{name}: the model has it, the file has not");
        let unexpected = |name| format!("{name}: the file has it, the model has not");
        list("missing", &mut self.missing.iter().map(missing))?;
        list("unexpected", &mut self.unexpected.iter().map(unexpected))?;
        list("misfit", &mut self.misfits.iter().map(|m| format!("{} for {}: {}", m.from, m.to, m.reason)))?;
        list("ignored", &mut self.ignored.iter().cloned())
    }
}

/// Values for slots, by their names.
pub type Values = BTreeMap<String, Vec<f32>>;

/// Reads a safetensors file for the slots of a model that takes `input`. The values are all that
/// the model needs if, and only if, the report fits.
///
/// # Errors
/// It is no safetensors file.
pub fn read(
    slots: &[Slot],
    input: &InputSpec,
    file: &[u8],
    map: &NameMap,
) -> Result<(Values, ImportReport), String> {
    let (_, metadata) = SafeTensors::read_metadata(file).map_err(|e| e.to_string())?;
    // What this program wrote lies as the model has it.
    let ours = metadata.metadata().as_ref().is_some_and(|m| m.contains_key(KEY));
    let file = open_safetensors(file)?;
    let mut layouts = Layouts::of(slots, input);
    let wanted: BTreeMap<&str, &Shape> =
        slots.iter().filter(|s| belongs_to_model(s.kind)).map(|s| (s.name.as_str(), &s.ty.shape)).collect();
    let (mut values, mut report) = (Values::new(), ImportReport::default());
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    for (full, tensor) in &tensors {
        let name = full.strip_prefix(map.optional_prefix.as_str()).unwrap_or(full);
        if map.ignore.iter().any(|pattern| captures(pattern, name).is_some()) {
            report.ignored.push(full.clone());
            continue;
        }
        let rule = map.rules.iter().find_map(|rule| Some((rule, captures(&rule.from, name)?)));
        let Some((rule, words)) = rule else {
            report.unexpected.push(full.clone());
            continue;
        };
        let targets: Vec<String> = match &rule.to {
            Targets::One(to) => vec![filled(to, &words)],
            Targets::Parts(parts) => parts.iter().map(|to| filled(to, &words)).collect(),
        };
        if targets.iter().any(|to| !wanted.contains_key(to.as_str())) {
            report.unexpected.push(full.clone());
            continue;
        }
        for (part, to) in targets.iter().enumerate() {
            match taken(tensor, rule, (part, targets.len()), wanted[to.as_str()]) {
                Err(reason) => report.misfits.push(Misfit { from: full.clone(), to: to.clone(), reason }),
                Ok((new, how)) => {
                    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    if values.get(to).is_some_and(|there| bits(there) != bits(&new)) {
                        let reason =
                            "another tensor of the file is for the same place, with other values".into();
                        report.misfits.push(Misfit { from: full.clone(), to: to.clone(), reason });
                        continue;
                    }
                    let shape = wanted[to.as_str()].to_vec();
                    layouts.see((full, to), rule, (tensor.shape(), &shape));
                    report.taken.push(Taken { from: full.clone(), to: to.clone(), shape, how });
                    values.insert(to.clone(), new);
                }
            }
        }
    }
    if !ours {
        report.misfits.extend(layouts.ambiguous());
    }
    let claimed = |name: &str| values.contains_key(name) || report.misfits.iter().any(|m| m.to == name);
    let missing: Vec<String> = wanted.keys().filter(|n| !claimed(n)).map(|n| n.to_string()).collect();
    report.missing = missing;
    Ok((values, report))
}

/// A tensor as the model has it, and what was done for that.
fn taken(
    tensor: &TensorView<'_>,
    rule: &ImportRule,
    (part, parts): (usize, usize),
    expected: &Shape,
) -> Result<(Vec<f32>, Vec<String>), String> {
    let mut how = Vec::new();
    let values = widened(tensor)?;
    if tensor.dtype() != Dtype::F32 {
        how.push(format!("converted from {:?}", tensor.dtype()));
    }
    let (mut values, mut shape) = laid_out((values, tensor.shape()), rule, expected, &mut how)?;
    if parts > 1 {
        let rows = shape.first().copied().unwrap_or(0);
        if !rows.is_multiple_of(parts) {
            return Err(format!("it is {shape:?}; its first dimension has no {parts} equal parts"));
        }
        let size = values.len() / parts;
        values = values[part * size..(part + 1) * size].to_vec();
        shape[0] = rows / parts;
        how.push(format!("part {} of {parts}", part + 1));
    }
    if rule.first_rows
        && let (Some(&there), Some(&wanted)) = (shape.first(), expected.first())
        && there > wanted
    {
        values.truncate(values.len() / there * wanted);
        shape[0] = wanted;
        how.push(format!("the first {wanted} of {there} rows"));
    }
    if shape[..] != expected[..] {
        return Err(format!(
            "it is {shape:?}, expected {:?}{}",
            &expected[..],
            layout::advice(&shape, expected)
        ));
    }
    Ok((values, how))
}

/// Values and sizes with the dimensions in the order that the rule says.
fn laid_out(
    (values, shape): (Vec<f32>, &[usize]),
    rule: &ImportRule,
    expected: &Shape,
    how: &mut Vec<String>,
) -> Result<(Vec<f32>, Vec<usize>), String> {
    let shape = match &rule.view {
        Some(view) if view.iter().product::<usize>() == values.len() => view.clone(),
        Some(view) => return Err(format!("it is {shape:?}, which cannot be taken as {view:?}")),
        None => shape.to_vec(),
    };
    let order = match (&rule.permute, rule.transpose) {
        (Some(_), Some(true)) => return Err("its rule has both `permute` and `transpose`".into()),
        (Some(order), _) => order.clone(),
        (None, Some(true)) if shape.len() == 2 => vec![1, 0],
        (None, Some(true)) => return Err(format!("it is {shape:?}; only matrices can be transposed")),
        (None, _) => (0..shape.len()).collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..shape.len()) {
        let sizes = shape.len();
        return Err(format!(
            "it is {shape:?}, and `permute = {order:?}` is no order of its {sizes} dimensions"
        ));
    }
    let (values, mut shape) = if order.is_sorted() {
        (values, shape)
    } else {
        how.push(if order == [1, 0] { "transposed".into() } else { format!("permuted by {order:?}") });
        layout::permuted(&values, &shape, &order)
    };
    if rule.view.is_some() && !expected.is_empty() && shape.len() > expected.len() {
        let rest = shape.split_off(expected.len());
        let last = expected.len() - 1;
        shape[last] *= rest.iter().product::<usize>();
    }
    Ok((values, shape))
}

/// The values as f32, all of them finite. Those of f16 and bf16 are exact, those of f64 are
/// rounded.
fn widened(tensor: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = tensor.data();
    let two = || data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let eight = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F64 => data.chunks_exact(8).map(|b| eight(b) as f32).collect(),
        Dtype::F16 => two().map(f32_from_f16).collect(),
        Dtype::BF16 => two().map(f32_from_bf16).collect(),
        other => return Err(format!("it holds {other:?}, no numbers that a model is made of")),
    };
    let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(values) };
    let element = layout::index(at, tensor.shape());
    Err(match tensor.dtype() {
        Dtype::F64 if eight(&data[8 * at..]).is_finite() => {
            let value = eight(&data[8 * at..]);
            format!("its element {element:?} is {value:e}, which is beyond f32 ({:e})", f32::MAX)
        }
        _ => format!("its element {element:?} is {}; a model takes finite numbers alone", values[at]),
    })
}

/// Puts values into a session. A moving average begins anew at its weight.
///
/// # Errors
/// The engine does not take them.
pub fn put(session: &mut Session<'_>, values: &Values) -> Result<(), TrainError> {
    let averages: Vec<String> = session.slots().iter().map(|s| s.name.clone()).collect();
    for (name, values) in values {
        session.upload(name, HostSlice::F32(values))?;
        let average = format!("{AVERAGE}{name}");
        if averages.contains(&average) {
            session.upload(&average, HostSlice::F32(values))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_what_has_no_dot() {
        let found = captures("h.{i}.attn.{part}", "h.11.attn.bias").unwrap();
        assert_eq!((found["i"], found["part"]), ("11", "bias"));
        assert_eq!(filled("blocks.{i}.x.{part}", &found), "blocks.11.x.bias");
        assert!(captures("h.{i}.weight", "h.1.attn.weight").is_none());
        assert!(captures("h.{i}.weight", "h..weight").is_none());
        assert_eq!(captures("conv{n}.weight", "conv2.weight").unwrap()["n"], "2");
        assert_eq!(captures("{a}_{b}", "x_y_z").unwrap()["a"], "x_y");
    }

    #[test]
    fn the_built_in_maps_can_be_read() {
        let map = NameMap::parse(NameMap::built_in("gpt2").unwrap()).unwrap();
        assert!(map.rules.len() > 10);
    }
}
