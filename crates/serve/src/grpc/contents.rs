//! Elements by their type, as bytes.

use bytes::Bytes;

use super::messages::InferTensorContents;
use crate::tensor::Datatype;

/// The bytes of a tensor of this type.
///
/// # Errors
/// The type has no such form, an element is not of the type, or there are some of another kind.
pub(super) fn bytes(datatype: Datatype, contents: InferTensorContents) -> Result<Bytes, String> {
    if let (Some(own), Some(other)) = (list_of(datatype), other_list(datatype, &contents)) {
        return Err(format!("{} has its elements in {own}, and there are some in {other}", datatype.name()));
    }
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let bytes = match datatype {
        Datatype::Bool => bool_contents.into_iter().map(u8::from).collect(),
        Datatype::Int8 => narrow(&int_contents, i8::to_le_bytes)?,
        Datatype::Int16 => narrow(&int_contents, i16::to_le_bytes)?,
        Datatype::Int32 => narrow(&int_contents, i32::to_le_bytes)?,
        Datatype::Int64 => narrow(&int64_contents, i64::to_le_bytes)?,
        Datatype::Uint8 => narrow(&uint_contents, u8::to_le_bytes)?,
        Datatype::Uint16 => narrow(&uint_contents, u16::to_le_bytes)?,
        Datatype::Uint32 => narrow(&uint_contents, u32::to_le_bytes)?,
        Datatype::Uint64 => narrow(&uint64_contents, u64::to_le_bytes)?,
        Datatype::Fp32 => narrow(&fp32_contents, f32::to_le_bytes)?,
        Datatype::Fp64 => narrow(&fp64_contents, f64::to_le_bytes)?,
        Datatype::Bytes => {
            let mut all = Vec::new();
            for element in &bytes_contents {
                let length = u32::try_from(element.len()).map_err(|e| e.to_string())?;
                all.extend_from_slice(&length.to_le_bytes());
                all.extend_from_slice(element);
            }
            all
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!(
                "{} has no contents by type: send its bytes in raw_input_contents",
                datatype.name()
            ));
        }
    };
    Ok(bytes.into())
}

/// The list in which elements of a type are sent.
fn list_of(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// A list that has elements and is not that of the type.
fn other_list(datatype: Datatype, contents: &InferTensorContents) -> Option<&'static str> {
    let lists = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    let own = list_of(datatype);
    lists.into_iter().find(|(name, empty)| !empty && Some(*name) != own).map(|(name, _)| name)
}

fn narrow<W, N, const SIZE: usize>(wide: &[W], bytes: fn(N) -> [u8; SIZE]) -> Result<Vec<u8>, String>
where
    W: Copy,
    N: TryFrom<W>,
{
    let mut all = Vec::with_capacity(wide.len() * SIZE);
    for &element in wide {
        let element = N::try_from(element).map_err(|_| "an element is out of the range of its type")?;
        all.extend_from_slice(&bytes(element));
    }
    Ok(all)
}
