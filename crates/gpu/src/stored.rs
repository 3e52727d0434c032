//! Values as kernels see them: where they lie, and in which type.

use halfstep_graph::DType;
use halfstep_graph::engine::{HostSlice, HostTensor};

use crate::command::{Region, Span};

/// Every value and region begins at a multiple of this.
pub(crate) const ALIGNMENT: usize = 256;

/// Elements in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub span: Span,
    pub dtype: DType,
    pub count: usize,
}

impl Stored {
    pub fn new(region: Region, offset: usize, count: usize, dtype: DType) -> Stored {
        Stored { span: Span { region, offset, bytes: count * dtype.bytes() }, dtype, count }
    }
}

/// Writes host values as a device stores them; lengths and kinds were checked.
pub(crate) fn encode(dtype: DType, data: HostSlice<'_>, to: &mut [u8]) {
    fn put<T: Copy, const N: usize>(to: &mut [u8], from: &[T], bytes: impl Fn(T) -> [u8; N]) {
        to.as_chunks_mut::<N>().0.iter_mut().zip(from).for_each(|(to, &x)| *to = bytes(x));
    }
    match (dtype, data) {
        (DType::F32, HostSlice::F32(x)) => put(to, x, f32::to_le_bytes),
        (DType::Bf16, HostSlice::F32(x)) => put(to, x, |x| halfstep_float::bf16_from_f32(x).to_le_bytes()),
        (DType::F16, HostSlice::F32(x)) => put(to, x, |x| halfstep_float::f16_from_f32(x).to_le_bytes()),
        (DType::E4m3, HostSlice::F32(x)) => put(to, x, |x| [halfstep_float::e4m3_from_f32(x)]),
        (DType::E5m2, HostSlice::F32(x)) => put(to, x, |x| [halfstep_float::e5m2_from_f32(x)]),
        (DType::I32, HostSlice::I32(x)) => put(to, x, i32::to_le_bytes),
        (DType::U8, HostSlice::I32(x)) => put(to, x, |x| [x as u8]),
        (DType::I32 | DType::U8, HostSlice::F32(_)) | (_, HostSlice::I32(_)) => {
            unreachable!("the kind was checked against the value's type")
        }
    }
}

/// Whether these bytes are those values. False for types that inputs do not have: they are written
/// again.
pub(crate) fn is_encoded(dtype: DType, data: HostSlice<'_>, bytes: &[u8]) -> bool {
    fn same<T: Copy>(bytes: &[u8], values: &[T], encoded: impl Fn(T) -> [u8; 4]) -> bool {
        let pairs = bytes.as_chunks().0.iter().zip(values);
        // Without a way out of the loop, which is faster: they hardly ever differ.
        bytes.len() == 4 * values.len() && pairs.fold(true, |same, (b, &x)| same & (*b == encoded(x)))
    }
    match (dtype, data) {
        (DType::F32, HostSlice::F32(x)) => same(bytes, x, f32::to_le_bytes),
        (DType::I32, HostSlice::I32(x)) => same(bytes, x, i32::to_le_bytes),
        _ => false,
    }
}

/// Reads what a device has stored.
pub(crate) fn decode(dtype: DType, from: &[u8]) -> HostTensor {
    fn get<T, const N: usize>(from: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
        from.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
    }
    let half = |value: fn(u16) -> f32| get(from, move |b| value(u16::from_le_bytes(b)));
    match dtype {
        DType::F32 => HostTensor::F32(get(from, f32::from_le_bytes)),
        DType::Bf16 => HostTensor::F32(half(halfstep_float::f32_from_bf16)),
        DType::F16 => HostTensor::F32(half(halfstep_float::f32_from_f16)),
        DType::E4m3 => HostTensor::F32(get(from, |[x]| halfstep_float::f32_from_e4m3(x))),
        DType::E5m2 => HostTensor::F32(get(from, |[x]| halfstep_float::f32_from_e5m2(x))),
        DType::I32 => HostTensor::I32(get(from, i32::from_le_bytes)),
        DType::U8 => HostTensor::I32(from.iter().map(|&x| x.into()).collect()),
    }
}

/// The floating-point number in the first of these bytes.
pub(crate) fn decode_number(dtype: DType, bytes: [u8; 4]) -> f32 {
    let half = u16::from_le_bytes([bytes[0], bytes[1]]);
    match dtype {
        DType::F32 => f32::from_le_bytes(bytes),
        DType::Bf16 => halfstep_float::f32_from_bf16(half),
        DType::F16 => halfstep_float::f32_from_f16(half),
        DType::E4m3 => halfstep_float::f32_from_e4m3(bytes[0]),
        DType::E5m2 => halfstep_float::f32_from_e5m2(bytes[0]),
        DType::I32 | DType::U8 => unreachable!("scalar outputs are floating-point numbers"),
    }
}
