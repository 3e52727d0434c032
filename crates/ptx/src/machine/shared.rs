//! Shared memory of a block.

use super::proxy::Proxy;
use crate::memory::{Bits, Bytes, Shadow};

/// Shared memory, and what is known of its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub bytes: Bytes,
    /// Bytes that a copy is on its way to.
    pub in_flight: Bits,
    /// Whether `in_flight` may have any byte.
    pub copying: bool,
    /// Where races are looked for.
    pub shadow: Option<Shadow>,
    /// What is not fenced for bulk copies and `wgmma`, where a kernel has those.
    pub proxy: Option<Proxy>,
}

impl Shared {
    /// `bytes` bytes; with a `granule`, the bytes of an access at least, races are looked for.
    pub fn new(bytes: usize, granule: Option<usize>) -> Shared {
        Shared {
            bytes: Bytes::new(bytes),
            in_flight: Bits::new(bytes),
            copying: false,
            shadow: granule.map(|granule| Shadow::new(bytes, granule)),
            proxy: None,
        }
    }

    /// As at the start of a block.
    pub fn reset(&mut self) {
        self.bytes.reset();
        self.in_flight.clear();
        self.copying = false;
        if let Some(shadow) = &mut self.shadow {
            shadow.clear();
        }
        if let Some(proxy) = &mut self.proxy {
            proxy.reset();
        }
    }
}
