//! `ldmatrix`, `stmatrix`, `movmatrix` and `mma.sync`: matrices and products of one warp.

use super::matrix::{self, ROW_BYTES, Rows};
use super::operand::{Role, SharedAddress, names_shared, only, operand, registers, unknown, whole_warp};
use crate::fault::LoadProblem;
use crate::machine::{Block, Flow, Lanes32, R32, Trap, Warp, Who};
use crate::products::{Accumulator, Mma, Multiplicand, Types};
use crate::resolve::Resolver;
use crate::syntax::Instruction;

/// An operation of this file.
#[derive(Clone, Debug)]
pub(crate) enum WarpOp {
    /// `ldmatrix` of as many matrices as registers.
    LoadMatrix(MatrixMove),
    /// `stmatrix`
    StoreMatrix(MatrixMove),
    /// `movmatrix.trans`
    Transpose { to: R32, from: R32 },
    /// `mma.sync`
    Multiply(Box<Fragments>),
}

/// Matrices between shared memory and registers.
#[derive(Clone, Debug)]
pub(crate) struct MatrixMove {
    registers: Vec<R32>,
    address: SharedAddress,
    transposed: bool,
}

/// `mma.sync` and its registers.
#[derive(Clone, Debug)]
pub(crate) struct Fragments {
    shape: Mma,
    d: Vec<R32>,
    a: Vec<R32>,
    b: Vec<R32>,
    c: Vec<R32>,
}

/// Whether an opcode is decoded here.
pub(super) fn claims(instruction: &Instruction) -> bool {
    matches!(instruction.stem(), "mma" | "ldmatrix" | "stmatrix" | "movmatrix")
}

/// The operation of an instruction that `claims` has taken.
pub(super) fn decode(instruction: &Instruction, names: &mut Resolver) -> Result<WarpOp, LoadProblem> {
    match instruction.stem() {
        "ldmatrix" => matrix_move(instruction, names, Role::Result).map(WarpOp::LoadMatrix),
        "stmatrix" => matrix_move(instruction, names, Role::Source).map(WarpOp::StoreMatrix),
        "movmatrix" => movmatrix(instruction, names),
        _ => mma(instruction, names),
    }
}

/// Executes an operation of a warp.
pub(super) fn execute(
    operation: &WarpOp,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    whole_warp(active)?;
    match operation {
        WarpOp::LoadMatrix(load) => load_matrix(load, warp, block, active)?,
        WarpOp::StoreMatrix(store) => store_matrix(store, warp, block, active)?,
        WarpOp::Transpose { to, from } => {
            let turned = matrix::transposed(warp.registers.get32(*from, active)?);
            warp.registers.set32(*to, active, &turned);
        }
        WarpOp::Multiply(fragments) => multiply(fragments, warp, block, active)?,
    }
    Ok(Flow::Next)
}

fn matrix_move(
    instruction: &Instruction,
    names: &mut Resolver,
    role: Role,
) -> Result<MatrixMove, LoadProblem> {
    let known = ["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta", "b16"];
    only(instruction, &known)?;
    let count = match () {
        () if instruction.has("x4") => 4,
        () if instruction.has("x2") => 2,
        () => 1,
    };
    let (vector, address) = if role == Role::Result { (0, 1) } else { (1, 0) };
    Ok(MatrixMove {
        registers: registers(instruction, names, vector, count, role)?,
        address: SharedAddress::new(instruction, names, address, names_shared(instruction))?,
        transposed: instruction.has("trans"),
    })
}

fn movmatrix(instruction: &Instruction, names: &mut Resolver) -> Result<WarpOp, LoadProblem> {
    only(instruction, &["sync", "aligned", "m8n8", "trans", "b16"])?;
    let to = names.to32(operand(instruction, 0)?)?;
    Ok(WarpOp::Transpose { to, from: names.r32(operand(instruction, 1)?)? })
}

/// `mma.sync.aligned.shape.row.col{.satfinite}.d.a.b.c`
fn mma(instruction: &Instruction, names: &mut Resolver) -> Result<WarpOp, LoadProblem> {
    let shape = shape(instruction)?;
    let accumulators = shape.accumulators();
    Ok(WarpOp::Multiply(Box::new(Fragments {
        d: registers(instruction, names, 0, accumulators, Role::Result)?,
        a: registers(instruction, names, 1, shape.a_registers(), Role::Source)?,
        b: registers(instruction, names, 2, shape.b_registers(), Role::Source)?,
        c: registers(instruction, names, 3, accumulators, Role::Source)?,
        shape,
    })))
}

fn shape(instruction: &Instruction) -> Result<Mma, LoadProblem> {
    let parts: Vec<&str> = instruction.modifiers().iter().map(String::as_str).collect();
    let ["sync", "aligned", size, "row", "col", types @ ..] = parts.as_slice() else {
        return Err(unknown(instruction, "of `mma`, `mma.sync.aligned.….row.col` is"));
    };
    let (saturated, types) = match types {
        ["satfinite", types @ ..] => (true, types),
        types => (false, types),
    };
    let [d, a, b, c] = types else {
        return Err(unknown(instruction, "block scales, sparsity and other kinds are not"));
    };
    let (Some(a), Some(b)) = (Multiplicand::parse(a), Multiplicand::parse(b)) else {
        return Err(unknown(instruction, "the types of A and B are f16, bf16, tf32, e4m3, e5m2, s8 or u8"));
    };
    let accumulator = match (*d, *c, saturated) {
        ("f32", "f32", false) => Accumulator::F32,
        ("f16", "f16", false) => Accumulator::F16,
        ("s32", "s32", false) => Accumulator::S32,
        ("s32", "s32", true) => Accumulator::S32Saturated,
        _ => return Err(unknown(instruction, "C and D are both f32, both f16 or both s32")),
    };
    let k = match *size {
        "m16n8k4" => 4,
        "m16n8k8" => 8,
        "m16n8k16" => 16,
        "m16n8k32" => 32,
        _ => return Err(unknown(instruction, "the shapes are m16n8k4, k8, k16 and k32")),
    };
    let bytes = k * a.bits() as usize / 8;
    let types = Types { a, b, accumulator };
    if !types.exist() || !(bytes == 32 || bytes == 16) {
        return Err(unknown(instruction, "PTX has no such combination of shape and types"));
    }
    Ok(Mma { k, types })
}

/// Where the rows of matrix `at` begin: lanes 8·`at` and on give them.
fn row_offsets(matrix: &MatrixMove, at: usize, warp: &Warp) -> Result<[u64; 8], Box<Trap>> {
    let mut offsets = [0; 8];
    for (row, offset) in offsets.iter_mut().enumerate() {
        let lane = at * 8 + row;
        *offset = matrix.address.offset(warp, lane)?;
    }
    Ok(offsets)
}

fn load_matrix(load: &MatrixMove, warp: &mut Warp, block: &mut Block, active: u32) -> Result<(), Box<Trap>> {
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

#[cfg(test)]
mod tests {
    use super::conflicts;

    #[test]
    fn rows_that_meet_in_banks_take_more_passes() {
        assert_eq!(conflicts(&[0, 16, 32, 48, 64, 80, 96, 112]), 0);
        assert_eq!(conflicts(&[0, 128, 256, 384, 512, 640, 768, 896]), 7);
        // Rows of 64 bytes meet in pairs of two, and the same row is read once.
        assert_eq!(conflicts(&[0, 64, 128, 192, 256, 320, 384, 448]), 3);
        assert_eq!(conflicts(&[32; 8]), 0);
    }
}
