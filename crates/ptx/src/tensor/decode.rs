//! From opcodes to operations.

use super::op::{Fragments, MatrixMove, TensorOp};
use crate::fault::LoadProblem;
use crate::machine::R32;
use crate::products::{Accumulator, Mma, Multiplicand, Types};
use crate::resolve::Resolver;
use crate::syntax::{Instruction, Operand};

/// Whether an opcode is decoded here.
pub(crate) fn claims(instruction: &Instruction) -> bool {
    matches!(instruction.stem(), "mma" | "ldmatrix" | "stmatrix" | "movmatrix")
}

/// The operation of an instruction that `claims` has taken.
pub(crate) fn decode(instruction: &Instruction, names: &mut Resolver) -> Result<TensorOp, LoadProblem> {
    match instruction.stem() {
        "ldmatrix" => matrix_move(instruction, names, 0, 1).map(TensorOp::LoadMatrix),
        "stmatrix" => matrix_move(instruction, names, 1, 0).map(TensorOp::StoreMatrix),
        "movmatrix" => movmatrix(instruction, names),
        _ => mma(instruction, names),
    }
}

/// An opcode with a modifier, or a combination of them, that is not simulated.
pub(super) fn unknown(instruction: &Instruction, because: &str) -> LoadProblem {
    let because = if because.is_empty() { String::new() } else { format!(": {because}") };
    LoadProblem::UnknownOpcode { opcode: instruction.opcode(), because }
}

/// The operand at `at`, which the syntax may lack.
pub(super) fn operand(instruction: &Instruction, at: usize) -> Result<&Operand, LoadProblem> {
    let missing = || unknown(instruction, &format!("it has {} operands", instruction.operands.len()));
    instruction.operands.get(at).ok_or_else(missing)
}

/// Registers of a vector, `count` of them.
pub(super) fn registers(
    instruction: &Instruction,
    names: &mut Resolver,
    at: usize,
    count: usize,
    written: bool,
) -> Result<Vec<R32>, LoadProblem> {
    let vector = operand(instruction, at)?;
    let elements = names.elements(vector);
    if elements.len() != count {
        return Err(names.wrong(vector, &format!("{count} registers of 32 bits")));
    }
    elements.iter().map(|element| if written { names.to32(element) } else { names.r32(element) }).collect()
}

fn only(instruction: &Instruction, known: &[&str]) -> Result<(), LoadProblem> {
    match instruction.modifiers().iter().find(|part| !known.contains(&part.as_str())) {
        Some(part) => Err(unknown(instruction, &format!("`.{part}` is not"))),
        None => Ok(()),
    }
}

fn matrix_move(
    instruction: &Instruction,
    names: &mut Resolver,
    vector: usize,
    address: usize,
) -> Result<MatrixMove, LoadProblem> {
    let known = ["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta", "b16"];
    only(instruction, &known)?;
    let count = match () {
        () if instruction.has("x4") => 4,
        () if instruction.has("x2") => 2,
        () => 1,
    };
    let loads = vector == 0;
    Ok(MatrixMove {
        registers: registers(instruction, names, vector, count, loads)?,
        address: names.address(operand(instruction, address)?)?,
        transposed: instruction.has("trans"),
        generic: !instruction.has("shared") && !instruction.has("shared::cta"),
    })
}

fn movmatrix(instruction: &Instruction, names: &mut Resolver) -> Result<TensorOp, LoadProblem> {
    only(instruction, &["sync", "aligned", "m8n8", "trans", "b16"])?;
    let to = names.to32(operand(instruction, 0)?)?;
    Ok(TensorOp::Transpose { to, from: names.r32(operand(instruction, 1)?)? })
}

/// `mma.sync.aligned.shape.row.col{.satfinite}.d.a.b.c`
fn mma(instruction: &Instruction, names: &mut Resolver) -> Result<TensorOp, LoadProblem> {
    let shape = shape(instruction)?;
    let accumulators = shape.accumulators();
    Ok(TensorOp::Multiply(Box::new(Fragments {
        d: registers(instruction, names, 0, accumulators, true)?,
        a: registers(instruction, names, 1, shape.a_registers(), false)?,
        b: registers(instruction, names, 2, shape.b_registers(), false)?,
        c: registers(instruction, names, 3, accumulators, false)?,
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
    let sizes = a.bits() == b.bits() && (bytes == 32 || bytes == 16);
    if !sizes || a.float() != b.float() || a.float() == accumulator.integer() {
        return Err(unknown(instruction, "PTX has no such combination of shape and types"));
    }
    Ok(Mma { k, types: Types { a, b, accumulator } })
}
