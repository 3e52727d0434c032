//! Executes matrix loads, stores and products of one warp.

use super::matrix::{self, ROW_BYTES, Rows};
use super::op::{Fragments, MatrixMove, TensorOp};
use crate::fault::{Cause, Space};
use crate::machine::{Block, Flow, Lanes32, Trap, Warp, Who};
use crate::memory::space_of;
use crate::resolve::{Address, Base};

/// Executes an operation for the lanes `active` of a warp.
pub(crate) fn execute(
    operation: &TensorOp,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    match operation {
        TensorOp::LoadMatrix(load) => load_matrix(load, warp, block, active)?,
        TensorOp::StoreMatrix(store) => store_matrix(store, warp, block, active)?,
        TensorOp::Transpose { to, from } => {
            whole_warp(active)?;
            let turned = matrix::transposed(warp.registers.get32(*from, active)?);
            warp.registers.set32(*to, active, &turned);
        }
        TensorOp::Multiply(fragments) => multiply(fragments, warp, block, active)?,
    }
    Ok(Flow::Next)
}

/// These instructions are for all lanes of a warp.
pub(super) fn whole_warp(active: u32) -> Result<(), Box<Trap>> {
    match !active {
        0 => Ok(()),
        absent => Err(Trap::warp(Cause::AbsentLanes { mask: u32::MAX, absent })),
    }
}

/// The address that a lane's registers give.
pub(super) fn value(address: &Address, warp: &Warp, lane: usize) -> Result<u64, Box<Trap>> {
    let base = match address.base {
        Base::Narrow(register) => u64::from(warp.registers.get32(register, 1 << lane)?[lane]),
        Base::Wide(register) => warp.registers.get64(register, 1 << lane)?[lane],
        Base::Fixed => 0,
    };
    Ok(base.wrapping_add_signed(address.offset))
}

/// The offset in shared memory that an address is.
pub(super) fn shared_offset(at: u64, generic: bool, lane: usize) -> Result<u64, Box<Trap>> {
    match space_of(at) {
        (Space::Shared, offset) if generic => Ok(offset),
        _ if !generic => Ok(at),
        (space, _) => {
            let what = format!("{at:#x} is an address of {space}, where one of shared memory is needed");
            Err(Trap::lane(lane, Cause::Undefined { what }))
        }
    }
}

/// Where the rows of matrix `at` begin: lanes 8·`at` and on give them.
fn row_offsets(matrix: &MatrixMove, at: usize, warp: &Warp) -> Result<[u64; 8], Box<Trap>> {
    let mut offsets = [0; 8];
    for (row, offset) in offsets.iter_mut().enumerate() {
        let lane = at * 8 + row;
        let address = value(&matrix.address, warp, lane)?;
        *offset = shared_offset(address, matrix.generic && matrix.address.names.is_none(), lane)?;
    }
    Ok(offsets)
}

fn load_matrix(load: &MatrixMove, warp: &mut Warp, block: &mut Block, active: u32) -> Result<(), Box<Trap>> {
    whole_warp(active)?;
    let mut loaded = Vec::with_capacity(4);
    for at in 0..load.registers.len() {
        let offsets = row_offsets(load, at, warp)?;
        let mut rows: Rows = [[0; ROW_BYTES]; 8];
        for (row, (offset, to)) in offsets.iter().zip(&mut rows).enumerate() {
            let who = Who { warp: warp.id, lane: at * 8 + row };
            block.shared_load(who, *offset, ROW_BYTES as u32, to)?;
        }
        block.counts.bank_conflicts += conflicts(&offsets);
        let register = matrix::load(&rows);
        loaded.push(if load.transposed { matrix::transposed(&register) } else { register });
    }
    for (to, register) in load.registers.iter().zip(&loaded) {
        warp.registers.set32(*to, active, register);
    }
    Ok(())
}

fn store_matrix(
    store: &MatrixMove,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<(), Box<Trap>> {
    whole_warp(active)?;
    for (at, from) in store.registers.iter().enumerate() {
        let register = warp.registers.get32(*from, active)?;
        let rows = matrix::store(&if store.transposed { matrix::transposed(register) } else { *register });
        let offsets = row_offsets(store, at, warp)?;
        for (row, (offset, from)) in offsets.iter().zip(&rows).enumerate() {
            let who = Who { warp: warp.id, lane: at * 8 + row };
            block.shared_store(who, *offset, ROW_BYTES as u32, from)?;
        }
        block.counts.bank_conflicts += conflicts(&offsets);
    }
    Ok(())
}

/// Passes beyond the first that eight rows of 16 bytes take: of 32 banks of 4 bytes, each row meets
/// four.
fn conflicts(offsets: &[u64; 8]) -> u64 {
    let distinct = |at: usize| !offsets[..at].contains(&offsets[at]);
    let group = |offset: u64| offset / ROW_BYTES as u64 % 8;
    let rows = |banks| (0..8).filter(|&at| distinct(at) && group(offsets[at]) == banks).count() as u64;
    (0..8).map(rows).max().unwrap_or(0).saturating_sub(1)
}

fn multiply(fragments: &Fragments, warp: &mut Warp, block: &mut Block, active: u32) -> Result<(), Box<Trap>> {
    whole_warp(active)?;
    let read = |registers: &[_]| -> Result<Vec<Lanes32>, Box<Trap>> {
        registers.iter().map(|&register| warp.registers.get32(register, active).copied()).collect()
    };
    let (a, b, c) = (read(&fragments.a)?, read(&fragments.b)?, read(&fragments.c)?);
    let d = fragments.shape.run(block.settings.arithmetic, &a, &b, &c);
    for (to, register) in fragments.d.iter().zip(&d) {
        warp.registers.set32(*to, active, register);
    }
    block.counts.tensor_operations += fragments.shape.operations();
    Ok(())
}
