//! `.safetensors`: tensors `logits`, `labels` and `group_…`, and the metadata `seed`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use halfstep_data::open_file;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};

use super::array::{self, Elements, Float};
use super::error::seed;
use super::{CLUSTER, LogitsError, Parts, Rows, divides};
use crate::measures::GroupColumn;

/// The format's own limit of its header.
const MOST_HEADER: u64 = 100_000_000;

/// The bytes of a `.safetensors` file of logits `[labels.len(), classes]` in row order, as
/// [`super::Logits::open`] reads it. `clusters` is what each row belongs to, if rows do not differ
/// from each other by chance alone.
///
/// # Errors
/// The logits are not so many.
pub fn to_safetensors(
    logits: &[f32],
    classes: usize,
    labels: &[u32],
    clusters: Option<&[u32]>,
    seed: u64,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let floats: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = |of: &[u32]| -> Vec<u8> { of.iter().flat_map(|&l| i64::from(l).to_le_bytes()).collect() };
    let (labels_bytes, clusters) = (bytes(labels), clusters.map(bytes));
    let mut tensors = vec![
        ("logits", TensorView::new(Dtype::F32, vec![labels.len(), classes], &floats)?),
        ("labels", TensorView::new(Dtype::I64, vec![labels.len()], &labels_bytes)?),
    ];
    if let Some(clusters) = &clusters {
        tensors.push((CLUSTER, TensorView::new(Dtype::I64, vec![labels.len()], clusters)?));
    }
    // One entry: several would be written in no fixed order.
    let metadata = HashMap::from([("seed".to_string(), seed.to_string())]);
    safetensors::serialize(tensors, Some(metadata))
}

/// The integers of the array `name`, whose offsets count from `start`.
fn integers(
    file: &mut File,
    path: &Path,
    start: u64,
    name: &str,
    info: &TensorInfo,
) -> Result<Vec<i64>, LogitsError> {
    let io = |source| LogitsError::Open { path: path.into(), source };
    let signed = match info.dtype {
        Dtype::BOOL | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => false,
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => true,
        other => {
            let message = format!("`{name}` has type {other:?}; expected integers");
            return Err(LogitsError::Format { path: path.into(), message });
        }
    };
    let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
    file.seek(SeekFrom::Start(start + info.data_offsets.0 as u64)).map_err(io)?;
    file.read_exact(&mut bytes).map_err(io)?;
    Ok(array::integers(signed, info.dtype.bitsize() / 8, &bytes).unwrap_or_default())
}

/// The groups of an array of codes; `names` of the groups by number, if the metadata has them.
fn group_column(array: &str, codes: &[i64], names: Option<&String>) -> GroupColumn {
    let known: Vec<&str> = names.map(|t| t.split(',').collect()).unwrap_or_default();
    let text = |&code: &i64| {
        let name = usize::try_from(code).ok().and_then(|c| known.get(c));
        name.map_or(code.to_string(), |n| n.trim().into())
    };
    GroupColumn::new(array, &codes.iter().map(text).collect::<Vec<_>>())
}

pub(super) fn open(path: &Path) -> Result<(Parts, Rows), LogitsError> {
    let io = |source| LogitsError::Open { path: path.into(), source };
    let bad = |message: String| LogitsError::Format { path: path.into(), message };
    let mut file = open_file(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| bad("not a safetensors file: it has no header".into()))?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > MOST_HEADER || header_length > length - 8 {
        return Err(bad("not a whole safetensors file: its header is longer than the file".into()));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| bad(format!("its header is broken: {e}")))?;
    halfstep_train::checkpoint::refuse_duplicates(&header).map_err(bad)?;
    let start = 8 + header_length;
    let expected = start.saturating_add(metadata.data_len() as u64);
    if length != expected {
        return Err(bad(format!("it has {length} bytes, its header says {expected}: not a whole file")));
    }

    let names = metadata.offset_keys();
    let info = |array: &str| metadata.info(array).ok_or_else(|| LogitsError::missing(path, array, &names));
    let logits = info("logits")?;
    let format = match logits.dtype {
        Dtype::F16 => Float::F16,
        Dtype::BF16 => Float::Bf16,
        Dtype::F32 => Float::F32,
        Dtype::F64 => Float::F64,
        other => return Err(bad(format!("`logits` has type {other:?}; expected F16, BF16, F32 or F64"))),
    };
    let &[rows, classes] = logits.shape.as_slice() else {
        return Err(bad(format!("`logits` has shape {:?}; expected [samples, classes]", logits.shape)));
    };
    let labels = integers(&mut file, path, start, "labels", info("labels")?)?;
    let texts = metadata.metadata().clone().unwrap_or_default();
    let mut groups = Vec::new();
    for name in names.iter().filter(|n| divides(n)) {
        let codes = integers(&mut file, path, start, name, info(name)?)?;
        groups.push(group_column(name, &codes, texts.get(name)));
    }
    let seed = seed(path, texts.get("seed").map(String::as_str))?;
    file.seek(SeekFrom::Start(start + logits.data_offsets.0 as u64)).map_err(io)?;
    let parts = Parts { name: path.display().to_string(), classes, rows: rows as u64, labels, groups, seed };
    Ok((parts, Rows::Elements(Elements::new(Box::new(file), format))))
}
