//! `wgmma`: products by groups of four warps, which go on while they are computed.
//!
//! Operands in shared memory are checked, and read, when a product is asked for and when it is
//! waited for; it is computed at the one or the other. Until then the registers of its result count
//! as not written. See the PTX ISA 9.0, section "Asynchronous warpgroup level matrix instructions".

use super::bulk::fenced;
use super::operand::{Role, operand, registers, undefined, uniform, unknown, whole_warp};
use crate::fault::{Access, LoadProblem};
use crate::machine::{Agreed, Block, Flow, Lanes32, Left, Product, Products, R32, R64, RP, Trap, Warp, Who};
use crate::products::{Accumulator, Descriptor, GroupMma, Major, Multiplicand, Types};
use crate::resolve::Resolver;
use crate::syntax::{Instruction, Operand};

/// An operation of this file.
#[derive(Clone, Debug)]
pub(crate) enum GroupOp {
    Fence,
    Commit,
    Wait { pending: u32 },
    Multiply(Box<GroupMultiply>),
}

/// `wgmma.mma_async`
#[derive(Clone, Debug)]
pub(crate) struct GroupMultiply {
    shape: GroupMma,
    d: Vec<R32>,
    a: LeftOperand,
    b: R64,
    /// Whether B, and A where it has a descriptor, run along K or not.
    majors: [Major; 2],
    /// D is added to where this is true.
    scale_d: RP,
}

#[derive(Clone, Debug)]
enum LeftOperand {
    Registers(Vec<R32>),
    Descriptor(R64),
}

/// Warps of a group.
const WARPS: usize = 4;
/// Rows of A that each of them has.
const ROWS: usize = 16;
/// Bytes that lie together in every layout.
const PIECE: usize = 16;

/// Whether an opcode is decoded here.
pub(super) fn claims(instruction: &Instruction) -> bool {
    instruction.stem() == "wgmma"
}

/// The operation of an instruction that `claims` has taken.
pub(super) fn decode(instruction: &Instruction, names: &mut Resolver) -> Result<GroupOp, LoadProblem> {
    let modifiers: Vec<&str> = instruction.modifiers().iter().map(String::as_str).collect();
    match modifiers.as_slice() {
        ["fence", "sync", "aligned"] => Ok(GroupOp::Fence),
        ["commit_group", "sync", "aligned"] => Ok(GroupOp::Commit),
        ["wait_group", "sync", "aligned"] => {
            Ok(GroupOp::Wait { pending: names.immediate(operand(instruction, 0)?)? as u32 })
        }
        ["mma_async", "sync", "aligned", size, types @ ..] => {
            let shape = shape(instruction, size, types)?;
            multiply(instruction, names, shape).map(|multiply| GroupOp::Multiply(Box::new(multiply)))
        }
        _ => Err(unknown(instruction, "")),
    }
}

fn shape(instruction: &Instruction, size: &str, types: &[&str]) -> Result<GroupMma, LoadProblem> {
    let (saturated, types) = match types {
        ["satfinite", types @ ..] => (true, types),
        types => (false, types),
    };
    let [d, a, b] = types else { return Err(unknown(instruction, "")) };
    let accumulator = match (*d, saturated) {
        ("f32", false) => Accumulator::F32,
        ("f16", false) => Accumulator::F16,
        ("s32", false) => Accumulator::S32,
        ("s32", true) => Accumulator::S32Saturated,
        _ => return Err(unknown(instruction, "D is f32, f16 or s32")),
    };
    let (Some(a), Some(b)) = (Multiplicand::parse(a), Multiplicand::parse(b)) else {
        return Err(unknown(instruction, "the types of A and B are f16, bf16, tf32, e4m3, e5m2, s8 or u8"));
    };
    let shape = GroupMma { n: 0, types: Types { a, b, accumulator }, negated: [false; 2] };
    let n = size.strip_prefix("m64n").and_then(|rest| rest.strip_suffix(&format!("k{}", shape.k())));
    let n = n.and_then(|n| n.parse::<usize>().ok());
    let fits = |n: &usize| (8..=256).contains(n) && n.is_multiple_of(8);
    let Some(n) = n.filter(fits) else {
        return Err(unknown(instruction, "the shape is m64nNk with N from 8 to 256 and 32 bytes of K"));
    };
    if !shape.types.exist() {
        return Err(unknown(instruction, "PTX has no such combination of types"));
    }
    Ok(GroupMma { n, ..shape })
}

/// `d, a, b, scale-d{, imm-scale-a, imm-scale-b{, imm-trans-a}{, imm-trans-b}}`
fn multiply(
    instruction: &Instruction,
    names: &mut Resolver,
    mut shape: GroupMma,
) -> Result<GroupMultiply, LoadProblem> {
    let a = match operand(instruction, 1)? {
        Operand::Vector(_) => {
            LeftOperand::Registers(registers(instruction, names, 1, ROWS * 32 / 128, Role::Source)?)
        }
        one => LeftOperand::Descriptor(names.r64(one)?),
    };
    let mut immediates = Vec::new();
    for operand in instruction.operands.iter().skip(4) {
        immediates.push(names.immediate(operand)? as i64);
    }
    if let [a, b, ..] = immediates[..] {
        shape.negated = [a == -1, b == -1];
    }
    let (scales, turns) = immediates.split_at(immediates.len().min(2));
    if !scales.iter().all(|scale| matches!(scale, 1 | -1)) || !turns.iter().all(|turn| matches!(turn, 0 | 1))
    {
        return Err(unknown(instruction, "A and B are scaled by 1 or -1, and transposed by 0 or 1"));
    }
    let major = |transposed: Option<&i64>| match transposed {
        Some(1) => Major::Outer,
        _ => Major::K,
    };
    let behind = immediates.get(2..).unwrap_or_default();
    let majors = match a {
        LeftOperand::Registers(_) => [Major::K, major(behind.first())],
        LeftOperand::Descriptor(_) => [major(behind.first()), major(behind.get(1))],
    };
    if majors.contains(&Major::Outer) && shape.types.a.bits() != 16 {
        return Err(unknown(instruction, "operands of 16 bits only can be transposed"));
    }
    let scale_d = names.predicate(operand(instruction, 3)?)?;
    Ok(GroupMultiply {
        d: registers(instruction, names, 0, shape.accumulators(), Role::Result)?,
        b: names.r64(operand(instruction, 2)?)?,
        shape,
        a,
        majors,
        scale_d,
    })
}

/// Executes an operation of a warp.
pub(super) fn execute(
    operation: &GroupOp,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    whole_warp(active)?;
    if block.products.len() <= warp.id {
        block.products.resize(warp.id + 1, Products::default());
    }
    match operation {
        GroupOp::Fence => {
            block.products[warp.id].fenced = Some(warp.registers.all32().to_vec());
        }
        GroupOp::Commit => block.products[warp.id].committed += 1,
        GroupOp::Wait { pending } => {
            let mut due = block.products[warp.id].due(*pending);
            while !due.is_empty() {
                let product = due.remove(0);
                finish(product, &due, warp, block)?;
            }
        }
        GroupOp::Multiply(multiply) => ask(multiply, warp, block)?,
    }
    Ok(Flow::Next)
}

/// Asks for a product.
fn ask(multiply: &GroupMultiply, warp: &mut Warp, block: &mut Block) -> Result<(), Box<Trap>> {
    let right = uniform(warp, multiply.b, "the descriptor of B")?;
    let (left, left_bits) = match &multiply.a {
        LeftOperand::Registers(registers) => {
            let held = registers.iter().map(|&r| Ok((r, *warp.registers.get32(r, u32::MAX)?)));
            (Left::Registers(held.collect::<Result<_, Box<Trap>>>()?), None)
        }
        LeftOperand::Descriptor(register) => {
            let bits = uniform(warp, *register, "the descriptor of A")?;
            (Left::Shared(Descriptor::parse(bits).map_err(undefined)?, multiply.majors[0]), Some(bits))
        }
    };
    let scale = warp.registers.get_predicate(multiply.scale_d, u32::MAX)?;
    if scale != 0 && scale != u32::MAX {
        return Err(undefined("scale-d differs between lanes of the warp".to_string()));
    }
    let accumulates = scale != 0;
    agree(block, warp.id, Agreed { shape: multiply.shape, left: left_bits, right, accumulates })?;
    fenced_registers(multiply, warp, block)?;
    let mut product = Product {
        shape: multiply.shape,
        left,
        right: (Descriptor::parse(right).map_err(undefined)?, multiply.majors[1]),
        d: multiply.d.clone(),
        accumulates,
        group: block.products[warp.id].committed,
        computed: false,
    };
    if block.settings.late {
        operands(&product, warp, block)?;
    } else {
        compute(&mut product, warp, block)?;
    }
    for register in &product.d {
        warp.registers.forget32(*register);
    }
    block.counts.tensor_operations += product.shape.operations();
    block.products[warp.id].in_flight.push(product);
    Ok(())
}

/// The four warps of a group ask for the same products in the same order.
fn agree(block: &mut Block, warp: usize, asked: Agreed) -> Result<(), Box<Trap>> {
    let group = warp / WARPS;
    let [x, y, z] = block.threads;
    if (x * y * z) < (group as u32 + 1) * 128 {
        let what = "wgmma by a warp whose group of four is not complete in this block";
        return Err(undefined(what.to_string()));
    }
    if block.agreed.len() <= group {
        block.agreed.resize(group + 1, Vec::new());
    }
    let at = block.products[warp].issued;
    block.products[warp].issued += 1;
    match block.agreed[group].get(at) {
        None => block.agreed[group].push(asked),
        Some(first) if *first == asked => {}
        Some(first) => {
            return Err(undefined(format!(
                "the warps of a group ask for different products: {asked:?} here, {first:?} by another warp"
            )));
        }
    }
    Ok(())
}

/// Registers that a product uses were not changed since the last `wgmma.fence`, but by products.
fn fenced_registers(multiply: &GroupMultiply, warp: &Warp, block: &Block) -> Result<(), Box<Trap>> {
    let products = &block.products[warp.id];
    let Some(fenced) = &products.fenced else {
        return Err(undefined("no `wgmma.fence` was executed before this product".to_string()));
    };
    let used = |register: &R32| products.in_flight.iter().any(|product| product.d.contains(register));
    let changed = |register: &R32| fenced[register.0 as usize] != *warp.registers.raw32(*register);
    let left: &[R32] = if let LeftOperand::Registers(registers) = &multiply.a { registers } else { &[] };
    if multiply.d.iter().any(|register| !used(register) && changed(register)) || left.iter().any(changed) {
        return Err(undefined(
            "a register that this product uses was written after the last `wgmma.fence`".to_string(),
        ));
    }
    Ok(())
}

/// A product is waited for: it is computed if it was not, and its registers can be read, unless a
/// later one writes them too: one of those that are waited for with it, or that are still in
/// flight.
fn finish(
    mut product: Product,
    due: &[Product],
    warp: &mut Warp,
    block: &mut Block,
) -> Result<(), Box<Trap>> {
    let id = warp.id;
    let later = |register: &R32, block: &Block| {
        let mut products = due.iter().chain(&block.products[id].in_flight);
        products.any(|product| product.d.contains(register))
    };
    if product.d.iter().any(|register| warp.registers.written32(*register) != 0 && !later(register, block)) {
        let what = "a register of D was written while the product that writes it was on its way";
        return Err(undefined(what.to_string()));
    }
    if let Left::Registers(held) = &product.left
        && held.iter().any(|(register, values)| warp.registers.raw32(*register) != values)
    {
        let what = "a register of A was written while the product that reads it was on its way";
        return Err(undefined(what.to_string()));
    }
    if product.computed {
        // What it has read must still be there: nothing may have been told that it can be replaced.
        operands(&product, warp, block)?;
    } else {
        compute(&mut product, warp, block)?;
    }
    for register in &product.d {
        let values = *warp.registers.raw32(*register);
        if !later(register, block) {
            warp.registers.set32(*register, u32::MAX, &values);
        }
    }
    Ok(())
}

/// Computes a product into its registers.
fn compute(product: &mut Product, warp: &mut Warp, block: &mut Block) -> Result<(), Box<Trap>> {
    let [rows, columns] = operands(product, warp, block)?;
    let zero = [0; 32];
    let held = |register: &R32| -> Lanes32 {
        if product.accumulates { *warp.registers.raw32(*register) } else { zero }
    };
    let mut d: Vec<Lanes32> = product.d.iter().map(held).collect();
    product.shape.run(block.settings.arithmetic, rows, columns, &mut d);
    for (register, values) in product.d.iter().zip(&d) {
        warp.registers.set32(*register, u32::MAX, values);
        warp.registers.forget32(*register);
        if let Some(fenced) = &mut block.products[warp.id].fenced {
            fenced[register.0 as usize] = *values;
        }
    }
    product.computed = true;
    Ok(())
}

/// The codes of a warp's rows of A and of all columns of B, with the checks of reading them.
fn operands(product: &Product, warp: &Warp, block: &mut Block) -> Result<[Vec<u32>; 2], Box<Trap>> {
    let shape = &product.shape;
    let first = warp.id % WARPS * ROWS;
    let rows = match &product.left {
        Left::Registers(held) => {
            let values: Vec<Lanes32> = held.iter().map(|(_, values)| *values).collect();
            shape.rows(&values)
        }
        Left::Shared(descriptor, major) => {
            load(block, warp.id, (*descriptor, *major), shape, first..first + ROWS)?
        }
    };
    Ok([rows, load(block, warp.id, product.right, shape, 0..shape.n)?])
}

/// Codes of rows of A or columns of B, one after the other.
fn load(
    block: &mut Block,
    warp: usize,
    (descriptor, major): (Descriptor, Major),
    shape: &GroupMma,
    outers: std::ops::Range<usize>,
) -> Result<Vec<u32>, Box<Trap>> {
    let (k, bytes) = (shape.k(), shape.types.a.bits() as usize / 8);
    let (per, who) = (PIECE / bytes, Who { warp, lane: 0 });
    let mut codes = vec![0; outers.len() * k];
    let (outer_step, k_step) = if major == Major::K { (1, per) } else { (per, 1) };
    for outer in outers.clone().step_by(outer_step) {
        for kk in (0..k).step_by(k_step) {
            let at = descriptor.offset(major, outer, kk, bytes);
            block.shared_at(who, at as u64, PIECE as u32, PIECE, Access::Read)?;
            fenced(block, at, PIECE, who)?;
            for (i, code) in block.shared.bytes.data[at..at + PIECE].chunks_exact(bytes).enumerate() {
                let code = code.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
                let (outer, kk) = if major == Major::K { (outer, kk + i) } else { (outer + i, kk) };
                codes[(outer - outers.start) * k + kk] = code;
            }
        }
    }
    Ok(codes)
}
