//! What a cubin says of itself: for which GPUs it is, and how many bytes of parameters and of
//! shared memory each of its kernels has. It is an ELF file; what NVIDIA adds to the format was
//! read off files that NVRTC 13.0 made.

use std::collections::BTreeMap;

/// `EIATTR_CBANK_PARAM_SIZE`, whose value stands in the entry itself.
const PARAMETER_BYTES: u8 = 0x19;
/// `EIFMT_SVAL`: so many bytes follow the entry.
const FOLLOWED: u8 = 4;
/// Where a kernel's attributes are.
const SECTION: &str = ".nv.info.";
/// The shared memory that it declares itself.
const SHARED: &str = ".nv.shared.";
/// Where its code is.
const CODE: &str = ".text.";

/// A cubin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cubin {
    /// The compute capability that it is for: 90 is 9.0.
    pub(crate) capability: u32,
    /// By name.
    pub(crate) kernels: BTreeMap<String, Kernel>,
}

/// What is known of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) parameter_bytes: usize,
    /// Of shared memory that it declares itself.
    pub(crate) shared_bytes: usize,
}

impl Cubin {
    /// Reads a cubin that begins at this address; none if there is none.
    ///
    /// # Safety
    /// What begins as a cubin is one, whole.
    pub(crate) unsafe fn at(image: *const u8) -> Option<Cubin> {
        // SAFETY: the caller's promise; an ELF file is longer than its header.
        let header = unsafe { std::slice::from_raw_parts(image, 64) };
        if !header.starts_with(b"\x7fELF\x02") {
            return None;
        }
        let at = |offset: usize, bytes: usize| number(header, offset, bytes);
        let sections = at(40, 8)? + at(58, 2)? * at(60, 2)?;
        let programs = at(32, 8)? + at(54, 2)? * at(56, 2)?;
        // SAFETY: the tables of sections and programs are the last that a cubin has.
        let all = unsafe { std::slice::from_raw_parts(image, sections.max(programs)) };
        Cubin::parse(all)
    }

    fn parse(bytes: &[u8]) -> Option<Cubin> {
        let at = |offset: usize, length: usize| number(bytes, offset, length);
        let (first, size, count, names) = (at(40, 8)?, at(58, 2)?, at(60, 2)?, at(62, 2)?);
        let names = at(first + names * size + 24, 8)?;
        let (mut kernels, mut shared) = (BTreeMap::<String, Kernel>::new(), BTreeMap::new());
        for section in 0..count {
            let header = first + section * size;
            let name = text(bytes, names + at(header, 4)?)?;
            if let Some(kernel) = name.strip_prefix(CODE) {
                kernels.entry(kernel.to_string()).or_default();
            } else if let Some(kernel) = name.strip_prefix(SHARED) {
                shared.insert(kernel, at(header + 32, 8)?);
            } else if let Some(kernel) = name.strip_prefix(SECTION) {
                let (offset, length) = (at(header + 24, 8)?, at(header + 32, 8)?);
                let attributes = bytes.get(offset..offset + length)?;
                kernels.entry(kernel.to_string()).or_default().parameter_bytes = parameter_bytes(attributes)?;
            }
        }
        let capability = at(48, 4)? as u32 >> 8 & 0xff;
        // From 9.0 on what the system takes for itself is among it, and counts for no limit.
        let reserved = if capability >= 90 { 1024 } else { 0 };
        for (name, kernel) in &mut kernels {
            kernel.shared_bytes =
                shared.get(&name[..]).map_or(0, |bytes: &usize| bytes.saturating_sub(reserved));
        }
        Some(Cubin { capability, kernels })
    }
}

/// The bytes of parameters among a kernel's attributes; 0 where it has none.
fn parameter_bytes(attributes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < attributes.len() {
        let [format, attribute] = attributes.get(at..at + 2)?.try_into().ok()?;
        let value = number(attributes, at + 2, 2)?;
        if attribute == PARAMETER_BYTES {
            return Some(value);
        }
        at += 4 + if format == FOLLOWED { value } else { 0 };
    }
    Some(0)
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Option<usize> {
    let mut all = [0; 8];
    all[..length].copy_from_slice(bytes.get(offset..offset + length)?);
    Some(usize::from_le_bytes(all))
}

fn text(bytes: &[u8], offset: usize) -> Option<&str> {
    let rest = bytes.get(offset..)?;
    std::str::from_utf8(&rest[..rest.iter().position(|b| *b == 0)?]).ok()
}
