//! Named tensors, as they come from and go to a client.

use bytes::Bytes;
use thiserror::Error;

/// The types of elements: those of the protocol, and Triton's `BF16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    /// A byte that is 0 or 1.
    Bool,
    /// Unsigned, of 8 bits.
    Uint8,
    /// Of 16 bits.
    Uint16,
    /// Of 32 bits.
    Uint32,
    /// Of 64 bits.
    Uint64,
    /// Signed, of 8 bits.
    Int8,
    /// Of 16 bits.
    Int16,
    /// Of 32 bits.
    Int32,
    /// Of 64 bits.
    Int64,
    /// IEEE half precision.
    Fp16,
    /// The upper half of an FP32.
    Bf16,
    /// IEEE single precision.
    Fp32,
    /// IEEE double precision.
    Fp64,
    /// Texts or files, each of a length of its own.
    Bytes,
}

impl Datatype {
    /// All of them, with their names in the protocol.
    const NAMES: [(Datatype, &'static str); 14] = [
        (Datatype::Bool, "BOOL"),
        (Datatype::Uint8, "UINT8"),
        (Datatype::Uint16, "UINT16"),
        (Datatype::Uint32, "UINT32"),
        (Datatype::Uint64, "UINT64"),
        (Datatype::Int8, "INT8"),
        (Datatype::Int16, "INT16"),
        (Datatype::Int32, "INT32"),
        (Datatype::Int64, "INT64"),
        (Datatype::Fp16, "FP16"),
        (Datatype::Bf16, "BF16"),
        (Datatype::Fp32, "FP32"),
        (Datatype::Fp64, "FP64"),
        (Datatype::Bytes, "BYTES"),
    ];

    /// The type of this name; none if the protocol has none.
    pub fn named(name: &str) -> Option<Datatype> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(datatype, _)| *datatype)
    }

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(datatype, _)| *datatype == self).map_or("", |(_, name)| name)
    }

    /// Bytes of an element; none for [`Datatype::Bytes`], whose elements say it themselves.
    pub fn size(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => Some(1),
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }
}

/// A tensor by its name. Its bytes fit its type and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    data: Bytes,
}

/// Why bytes are no tensor.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TensorError {
    /// There are more or fewer bytes than type and shape say.
    #[error("tensor `{name}`: {} {shape:?} has {expected} bytes, and there are {found}", datatype.name())]
    Size {
        /// The tensor.
        name: String,
        /// Its type.
        datatype: Datatype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that it has.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// The shape has more elements than can be counted.
    #[error("tensor `{name}`: {shape:?} has too many elements")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The lengths of the elements of a [`Datatype::Bytes`] tensor do not fit its bytes.
    #[error("tensor `{name}`: its bytes end within element {element}, or go on after the last of {count}")]
    Elements {
        /// The tensor.
        name: String,
        /// The first element that is not whole, or the number of all.
        element: usize,
        /// The number of elements that the shape has.
        count: usize,
    },
    /// An element of a [`Datatype::Bool`] tensor is neither 0 nor 1.
    #[error("tensor `{name}`: element {element} is a byte other than 0 and 1, which BOOL has alone")]
    Bool {
        /// The tensor.
        name: String,
        /// The first such element.
        element: usize,
    },
}

impl Tensor {
    /// A tensor of little-endian elements, one after another in the order of rows. Elements of
    /// [`Datatype::Bytes`] are a length of four bytes, little-endian, and as many bytes.
    ///
    /// # Errors
    /// The bytes do not fit the type and the shape.
    pub fn new(
        name: impl Into<String>,
        datatype: Datatype,
        shape: Vec<usize>,
        data: Bytes,
    ) -> Result<Tensor, TensorError> {
        let name = name.into();
        let count = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let size = count.and_then(|count| count.checked_mul(datatype.size().unwrap_or(1)));
        let (Some(count), Some(size)) = (count, size) else {
            return Err(TensorError::TooLarge { name, shape });
        };
        match datatype.size() {
            Some(_) if size == data.len() => {}
            Some(_) => {
                return Err(TensorError::Size { name, datatype, shape, expected: size, found: data.len() });
            }
            None => check_elements(&name, count, &data)?,
        }
        let wrong = |data: &Bytes| data.iter().position(|&byte| byte > 1);
        if let Some(element) = Some(&data).filter(|_| datatype == Datatype::Bool).and_then(wrong) {
            return Err(TensorError::Bool { name, element });
        }
        Ok(Tensor { name, datatype, shape, data })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Its extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, as [`Tensor::new`] has them.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The elements of a [`Datatype::Bytes`] tensor, without their lengths; of another, none.
    pub fn elements(&self) -> impl Iterator<Item = Bytes> {
        let mut rest = if self.datatype == Datatype::Bytes { self.data.clone() } else { Bytes::new() };
        std::iter::from_fn(move || take_element(&mut rest))
    }
}

fn check_elements(name: &str, count: usize, data: &Bytes) -> Result<(), TensorError> {
    let mut rest = data.clone();
    let whole = (0..count).take_while(|_| take_element(&mut rest).is_some()).count();
    if whole < count || !rest.is_empty() {
        return Err(TensorError::Elements { name: name.into(), element: whole, count });
    }
    Ok(())
}

/// The first element; none if it is not whole.
fn take_element(rest: &mut Bytes) -> Option<Bytes> {
    let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let end = length.checked_add(4).filter(|&end| end <= rest.len())?;
    let element = rest.split_to(end).slice(4..);
    Some(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_type_each() {
        for (datatype, name) in Datatype::NAMES {
            assert_eq!((Datatype::named(name), datatype.name()), (Some(datatype), name));
        }
        assert_eq!(Datatype::named("fp32"), None);
    }

    #[test]
    fn bytes_have_to_fit() {
        let tensor = |datatype, shape: &[usize], data: &'static [u8]| {
            Tensor::new("x", datatype, shape.to_vec(), Bytes::from_static(data))
        };
        assert!(tensor(Datatype::Bf16, &[1, 2], &[0; 4]).is_ok());
        assert!(matches!(
            tensor(Datatype::Bf16, &[1, 2], &[0; 5]),
            Err(TensorError::Size { expected: 4, .. })
        ));
        assert!(matches!(tensor(Datatype::Fp64, &[usize::MAX, 2], &[]), Err(TensorError::TooLarge { .. })));
        assert!(matches!(
            tensor(Datatype::Fp64, &[usize::MAX / 2, 1], &[]),
            Err(TensorError::TooLarge { .. })
        ));
        assert!(tensor(Datatype::Bool, &[2], &[0, 1]).is_ok());
        let neither = tensor(Datatype::Bool, &[3], &[1, 2, 3]);
        assert!(matches!(neither, Err(TensorError::Bool { element: 1, .. })));

        let texts = tensor(Datatype::Bytes, &[2], &[2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]).unwrap();
        assert_eq!(texts.elements().collect::<Vec<_>>(), [&b"ab"[..], &b""[..]]);
        let cut = tensor(Datatype::Bytes, &[2], &[2, 0, 0, 0, b'a', b'b', 9, 0, 0, 0]);
        assert!(matches!(cut, Err(TensorError::Elements { element: 1, .. })));
        let more = tensor(Datatype::Bytes, &[1], &[0, 0, 0, 0, 0]);
        assert!(matches!(more, Err(TensorError::Elements { element: 1, count: 1, .. })));
    }
}
