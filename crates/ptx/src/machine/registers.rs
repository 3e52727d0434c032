//! The registers of a warp, in three files.

use super::trap::{File, Trap};

/// One value of 32 bits for each lane; narrower values have zeros above.
pub(crate) type Lanes32 = [u32; 32];
/// One value of 64 bits for each lane.
pub(crate) type Lanes64 = [u64; 32];

/// A register of up to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct R32(pub u16);
/// A register of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct R64(pub u16);
/// A predicate: a bit for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RP(pub u16);

/// The lanes of a mask.
#[inline]
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

/// The registers of a warp, and in which lanes each was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    bits32: Vec<Lanes32>,
    bits64: Vec<Lanes64>,
    predicates: Vec<u32>,
    written32: Vec<u32>,
    written64: Vec<u32>,
    written_predicates: Vec<u32>,
}

impl Registers {
    /// Registers, none of them written: numbers for each file.
    pub fn new(bits32: usize, bits64: usize, predicates: usize) -> Registers {
        Registers {
            bits32: vec![[0; 32]; bits32],
            bits64: vec![[0; 32]; bits64],
            predicates: vec![0; predicates],
            written32: vec![0; bits32],
            written64: vec![0; bits64],
            written_predicates: vec![0; predicates],
        }
    }

    /// Forgets what was written.
    pub fn reset(&mut self) {
        self.written32.fill(0);
        self.written64.fill(0);
        self.written_predicates.fill(0);
    }

    /// The values of a register that was written in the lanes `mask`.
    #[inline(always)]
    pub fn get32(&self, register: R32, mask: u32) -> Result<&Lanes32, Box<Trap>> {
        let at = register.0 as usize;
        match mask & !self.written32[at] {
            0 => Ok(&self.bits32[at]),
            missing => Err(Trap::register(File::Bits32, register.0, missing)),
        }
    }

    /// The values of a register, written or not.
    pub fn raw32(&self, register: R32) -> &Lanes32 {
        &self.bits32[register.0 as usize]
    }

    /// The values of all registers of up to 32 bits, written or not.
    pub fn all32(&self) -> &[Lanes32] {
        &self.bits32
    }

    /// The lanes in which a register was written.
    pub fn written32(&self, register: R32) -> u32 {
        self.written32[register.0 as usize]
    }

    /// A register counts as not written; its values stay.
    pub fn forget32(&mut self, register: R32) {
        self.written32[register.0 as usize] = 0;
    }

    /// The values of a register that was written in the lanes `mask`.
    #[inline(always)]
    pub fn get64(&self, register: R64, mask: u32) -> Result<&Lanes64, Box<Trap>> {
        let at = register.0 as usize;
        match mask & !self.written64[at] {
            0 => Ok(&self.bits64[at]),
            missing => Err(Trap::register(File::Bits64, register.0, missing)),
        }
    }

    /// The bits of a predicate that was written in the lanes `mask`.
    #[inline(always)]
    pub fn get_predicate(&self, register: RP, mask: u32) -> Result<u32, Box<Trap>> {
        let at = register.0 as usize;
        match mask & !self.written_predicates[at] {
            0 => Ok(self.predicates[at]),
            missing => Err(Trap::register(File::Predicate, register.0, missing)),
        }
    }

    /// Writes the lanes `mask` of a register.
    #[inline(always)]
    pub fn set32(&mut self, register: R32, mask: u32, values: &Lanes32) {
        let at = register.0 as usize;
        self.written32[at] |= mask;
        let to = &mut self.bits32[at];
        if mask == u32::MAX {
            *to = *values;
        } else {
            for (lane, to) in to.iter_mut().enumerate() {
                *to = if mask >> lane & 1 == 1 { values[lane] } else { *to };
            }
        }
    }

    /// Writes the lanes `mask` of a register.
    #[inline(always)]
    pub fn set64(&mut self, register: R64, mask: u32, values: &Lanes64) {
        let at = register.0 as usize;
        self.written64[at] |= mask;
        let to = &mut self.bits64[at];
        if mask == u32::MAX {
            *to = *values;
        } else {
            for (lane, to) in to.iter_mut().enumerate() {
                *to = if mask >> lane & 1 == 1 { values[lane] } else { *to };
            }
        }
    }

    /// Writes the lanes `mask` of a predicate.
    #[inline(always)]
    pub fn set_predicate(&mut self, register: RP, mask: u32, values: u32) {
        let at = register.0 as usize;
        self.written_predicates[at] |= mask;
        let to = &mut self.predicates[at];
        *to = *to & !mask | values & mask;
    }

    /// Copies a register in the lanes `mask`, together with whether it was written: a move is no
    /// use of a value yet.
    #[inline(always)]
    pub fn copy32(&mut self, to: R32, from: R32, mask: u32) {
        let values = self.bits32[from.0 as usize];
        let written = self.written32[from.0 as usize];
        self.set32(to, mask, &values);
        let known = &mut self.written32[to.0 as usize];
        *known = *known & !mask | written & mask;
    }

    /// As [`Registers::copy32`].
    #[inline(always)]
    pub fn copy64(&mut self, to: R64, from: R64, mask: u32) {
        let values = self.bits64[from.0 as usize];
        let written = self.written64[from.0 as usize];
        self.set64(to, mask, &values);
        let known = &mut self.written64[to.0 as usize];
        *known = *known & !mask | written & mask;
    }

    /// As [`Registers::copy32`].
    #[inline(always)]
    pub fn copy_predicate(&mut self, to: RP, from: RP, mask: u32) {
        let values = self.predicates[from.0 as usize];
        let written = self.written_predicates[from.0 as usize];
        self.set_predicate(to, mask, values);
        let known = &mut self.written_predicates[to.0 as usize];
        *known = *known & !mask | written & mask;
    }
}
