//! Tensor maps: what a tile of a tensor is, for `cp.async.bulk.tensor`.

use crate::swizzle::Swizzle;

/// Bytes of an encoded tensor map; as an argument it lies at a multiple of 64.
pub const TENSOR_MAP_BYTES: usize = 128;
/// Most dimensions of a tensor.
const RANK: usize = 5;
/// The first bytes of an encoded tensor map.
const MARK: [u8; 4] = *b"tmap";

/// A tensor in global memory and the box that one copy takes out of it.
///
/// As of `cuTensorMapEncodeTiled`, without interleaving. Dimensions run from the innermost to the
/// outermost. NVIDIA does not publish how the driver encodes a map; the simulated GPU has its own
/// encoding, which a GPU would not understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address in global memory, a multiple of 16.
    pub address: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element_bytes: usize,
    /// Elements of each dimension.
    pub sizes: Vec<u64>,
    /// Bytes from one index to the next, for all dimensions but the innermost: multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of the box in each dimension, at most 256.
    pub tile: Vec<u32>,
    /// How the box lies in shared memory.
    pub swizzle: Swizzle,
}

/// Why a tensor map cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(String);

/// A row of a box: as many bytes as are inside the tensor, then zeros.
pub(crate) struct Row {
    /// Bytes from the start of the box in shared memory, before the swizzle.
    pub offset: usize,
    /// Bytes of the innermost dimension of the box.
    pub bytes: usize,
    /// Bytes before the part that is inside.
    pub before: usize,
    /// Address and bytes of the part that is inside.
    pub inside: Option<(u64, usize)>,
}

impl TensorMap {
    /// The map as an argument of a kernel.
    ///
    /// # Errors
    ///
    /// What the driver would refuse, and boxes narrower than their swizzle, which are not
    /// simulated.
    pub fn encode(&self) -> Result<[u8; TENSOR_MAP_BYTES], TensorMapError> {
        self.check().map_err(TensorMapError)?;
        let mut words = [0u64; TENSOR_MAP_BYTES / 8];
        let head = [self.element_bytes as u8, self.sizes.len() as u8, self.swizzle.span() as u8, 0];
        words[0] = u64::from(u32::from_le_bytes(MARK)) | u64::from(u32::from_le_bytes(head)) << 32;
        words[1] = self.address;
        for at in 0..self.sizes.len() {
            words[2 + at] = self.sizes[at];
            words[7 + at] = if at == 0 { 0 } else { self.strides[at - 1] };
            words[12] |= u64::from(self.tile[at] - 1) << (8 * at);
        }
        let mut bytes = [0; TENSOR_MAP_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The map that these bytes encode, if they do.
    pub(crate) fn decode(bytes: &[u8; TENSOR_MAP_BYTES]) -> Option<TensorMap> {
        let word = |at: usize| {
            bytes[at * 8..].iter().take(8).rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let [.., element_bytes, rank, span, _] = word(0).to_le_bytes();
        let swizzle = [Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128]
            .into_iter()
            .find(|swizzle| swizzle.span() == usize::from(span));
        if bytes[..4] != MARK || !(1..=RANK).contains(&usize::from(rank)) {
            return None;
        }
        let dimensions = 0..usize::from(rank);
        let map = TensorMap {
            address: word(1),
            element_bytes: usize::from(element_bytes),
            sizes: dimensions.clone().map(|at| word(2 + at)).collect(),
            strides: dimensions.clone().skip(1).map(|at| word(7 + at)).collect(),
            tile: dimensions.map(|at| (word(12) >> (8 * at) & 0xff) as u32 + 1).collect(),
            swizzle: swizzle?,
        };
        map.check().is_ok().then_some(map)
    }

    /// Bytes of the box.
    pub fn bytes(&self) -> usize {
        self.tile.iter().map(|&size| size as usize).product::<usize>() * self.element_bytes
    }

    fn check(&self) -> Result<(), String> {
        let rank = self.sizes.len();
        let require = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        let inner = self.tile.first().map_or(0, |&size| size as usize * self.element_bytes);
        require((1..=RANK).contains(&rank), format!("{rank} dimensions; 1 to {RANK} are possible"))?;
        require(self.tile.len() == rank, format!("a box of {} dimensions of {rank}", self.tile.len()))?;
        require(
            self.strides.len() + 1 == rank,
            format!("{} strides of {rank} dimensions", self.strides.len()),
        )?;
        let elements = matches!(self.element_bytes, 1 | 2 | 4 | 8);
        require(elements, format!("elements of {} bytes; 1, 2, 4 and 8 are possible", self.element_bytes))?;
        let address = self.address;
        require(address.is_multiple_of(16), format!("address {address:#x} is no multiple of 16"))?;
        for &stride in &self.strides {
            let fits = stride.is_multiple_of(16) && stride < 1 << 40;
            require(fits, format!("a stride of {stride} bytes; it is a multiple of 16 below 2^40"))?;
        }
        for &size in &self.sizes {
            let fits = (1..=1 << 32).contains(&size);
            require(fits, format!("a dimension of {size} elements; 1 to 2^32 are possible"))?;
        }
        for &size in &self.tile {
            let fits = (1..=256).contains(&size);
            require(fits, format!("a box of {size} elements in a dimension; 1 to 256 are possible"))?;
        }
        require(inner.is_multiple_of(16), format!("rows of {inner} bytes in the box are no multiple of 16"))?;
        let span = self.swizzle.span();
        let whole = self.swizzle == Swizzle::None || inner == span;
        require(whole, format!("rows of {inner} bytes with a swizzle within {span} are not simulated"))
    }

    /// The rows of the box whose first element has these coordinates.
    pub(crate) fn rows(&self, coordinates: &[i32]) -> Vec<Row> {
        let bytes = self.tile[0] as usize * self.element_bytes;
        let count = self.bytes() / bytes;
        (0..count).map(|at| self.row(coordinates, at, bytes)).collect()
    }

    fn row(&self, coordinates: &[i32], number: usize, bytes: usize) -> Row {
        let (mut left, mut address, mut inside) = (number, self.address, true);
        for (at, coordinate) in coordinates.iter().enumerate().skip(1) {
            let index = i64::from(*coordinate) + (left % self.tile[at] as usize) as i64;
            left /= self.tile[at] as usize;
            inside &= (0..self.sizes[at] as i64).contains(&index);
            // What overflows is beyond every tensor.
            address = address.wrapping_add_signed(index.wrapping_mul(self.strides[at - 1] as i64));
        }
        let first = i64::from(coordinates[0]);
        let begin = first.max(0);
        let end = (first + i64::from(self.tile[0])).min(self.sizes[0] as i64);
        let element = self.element_bytes as i64;
        let part = (address.wrapping_add_signed(begin * element), ((end - begin) * element) as usize);
        Row {
            offset: number * bytes,
            bytes,
            before: ((begin - first) * element) as usize,
            inside: (inside && end > begin).then_some(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            address: 0x1000,
            element_bytes: 2,
            sizes: vec![100, 7, 3],
            strides: vec![208, 2080],
            tile: vec![64, 8, 1],
            swizzle: Swizzle::Bytes128,
        }
    }

    #[test]
    fn a_map_comes_back_from_its_encoding() {
        let flat = TensorMap {
            address: 1 << 40,
            element_bytes: 4,
            sizes: vec![1 << 32],
            strides: vec![],
            tile: vec![256],
            swizzle: Swizzle::None,
        };
        for map in [map(), flat] {
            assert_eq!(TensorMap::decode(&map.encode().unwrap()), Some(map));
        }
        assert_eq!(TensorMap::decode(&[0; TENSOR_MAP_BYTES]), None);
    }

    #[test]
    fn rows_end_where_the_tensor_does() {
        // Columns 60 to 123 of 100, rows 5 to 12 of 7.
        let rows = map().rows(&[60, 5, 2]);
        assert_eq!(rows.len(), 8);
        for (at, row) in rows.iter().enumerate() {
            let address = 0x1000 + 2 * 2080 + (5 + at as u64) * 208 + 120;
            let inside = (at < 2).then_some((address, 80));
            assert_eq!((row.offset, row.bytes, row.before, row.inside), (at * 128, 128, 0, inside));
        }
        // Columns -4 to 59, rows -1 to 6.
        let rows = map().rows(&[-4, -1, 0]);
        assert!(rows[0].inside.is_none());
        assert_eq!((rows[1].before, rows[1].inside), (8, Some((0x1000, 120))));
    }

    #[test]
    fn what_the_driver_refuses_is_refused() {
        let refused: [fn(&mut TensorMap); 8] = [
            |map| map.address += 8,
            |map| map.strides[0] = 200,
            |map| map.tile[1] = 257,
            |map| map.tile[0] = 32,
            |map| map.sizes[2] = 0,
            |map| map.element_bytes = 3,
            |map| map.strides.clear(),
            |map| map.swizzle = Swizzle::Bytes64,
        ];
        for change in refused {
            let mut map = map();
            change(&mut map);
            assert!(map.encode().is_err(), "{map:?}");
        }
    }
}
