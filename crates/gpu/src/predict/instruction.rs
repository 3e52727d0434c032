//! What an instruction of PTX costs, read from its text.
//!
//! PTX is not what runs, and some of its instructions become several: division, square root and
//! remainder do, and arithmetic on 64 bits; moves and loads of arguments become none. Throughput is
//! that of the CUDA C++ Programming Guide, table of arithmetic instructions, compute capability
//! 9.0.

use std::collections::HashMap;

use super::card::Card;

/// A part of a multiprocessor that instructions wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pipe {
    /// f32 and f16 arithmetic.
    Single,
    /// Integers, logic, comparisons, conversions.
    Integer,
    /// Approximate functions.
    Function,
    /// f64 arithmetic.
    Double,
    /// Loads, stores and shuffles.
    Memory,
    /// Tensor Cores.
    Tensor,
}

impl Pipe {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Pipe::Single => "f32",
            Pipe::Integer => "integers",
            Pipe::Function => "functions",
            Pipe::Double => "f64",
            Pipe::Memory => "shared memory",
            Pipe::Tensor => "Tensor Cores",
        }
    }
}

/// Pipes there are.
pub(super) const PIPES: usize = 6;

/// What an instruction does to the order of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    Branch,
    Barrier,
    /// `cp.async`.
    Copy,
    /// `cp.async.commit_group`.
    Commit,
    /// `cp.async.wait_group`: so many groups may be on their way.
    Wait(usize),
}

/// An instruction.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub role: Role,
    /// Cycles of a scheduler.
    pub slots: f64,
    pub pipe: Pipe,
    /// Cycles of the pipe: of one of four, and of the only one for memory.
    pub busy: f64,
    pub latency: f64,
    /// Whether it waits for global memory instead.
    pub loads: bool,
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
}

/// The costs of a kernel's instructions.
pub(super) struct Costs {
    pub list: Vec<Cost>,
    pub registers: usize,
}

impl Costs {
    /// Of the texts of a kernel's instructions.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>, card: &Card) -> Costs {
        let mut names = HashMap::new();
        let list = texts.map(|text| cost(text, card, &mut names)).collect();
        Costs { list, registers: names.len() }
    }
}

/// The registers that a text names.
fn registers<'a>(text: &'a str, names: &mut HashMap<&'a str, usize>) -> Vec<usize> {
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$');
    let found = text.split('%').skip(1).map(|rest| rest.split(end).next().unwrap_or_default());
    found
        .map(|name| {
            let next = names.len();
            *names.entry(name).or_insert(next)
        })
        .collect()
}

/// The end of the first operand: at the first comma outside braces.
fn first_operand(operands: &str) -> usize {
    let mut depth = 0;
    for (at, c) in operands.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    operands.len()
}

fn cost<'a>(text: &'a str, card: &Card, names: &mut HashMap<&'a str, usize>) -> Cost {
    let text = text.trim().trim_end_matches(';');
    let (guard, rest) = match text.strip_prefix('@') {
        Some(guarded) => guarded.split_once(char::is_whitespace).unwrap_or((guarded, "")),
        None => ("", text),
    };
    let (opcode, operands) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let parts: Vec<&str> = opcode.split('.').collect();
    let has = |part: &str| parts.contains(&part);
    let results = match parts[0] {
        "st" | "red" | "bar" | "barrier" | "bra" | "brx" | "ret" | "exit" | "membar" | "fence" | "cp"
        | "prefetch" | "trap" | "griddepcontrol" | "nanosleep" | "stmatrix" => 0,
        _ => first_operand(operands),
    };
    let writes = registers(&operands[..results], names);
    let mut reads = registers(&operands[results..], names);
    reads.extend(registers(guard, names));
    let (role, slots, pipe, busy, latency) = class(&parts, has, operands, card);
    let loads = matches!(parts[0], "atom" | "cp") || parts[0] == "ld" && has("global");
    Cost { role, slots, pipe, busy, latency, loads, reads, writes }
}

/// Role, slots, pipe, cycles of the pipe, latency.
fn class(
    parts: &[&str],
    has: impl Fn(&str) -> bool,
    operands: &str,
    card: &Card,
) -> (Role, f64, Pipe, f64, f64) {
    use Pipe::{Double, Function, Integer, Memory, Single, Tensor};
    let plain = |slots, pipe, busy, latency| (Role::Plain, slots, pipe, busy, latency);
    let one = card.arithmetic_latency;
    let wide = has("s64") || has("u64") || has("b64");
    // Passes of shared memory or of the first cache, each of 128 bytes.
    let passes = (element_bytes(parts) * vector(parts) / 4.0).max(1.0);
    match parts[0] {
        "mov" | "cvta" => plain(0.0, Single, 0.0, 0.0),
        "ld" if has("param") || has("const") => plain(0.0, Single, 0.0, 0.0),
        "ld" if has("global") => plain(1.0, Memory, passes, 0.0),
        "ld" | "ldmatrix" => plain(1.0, Memory, passes, card.shared_latency),
        "st" | "stmatrix" => plain(1.0, Memory, passes, 0.0),
        "atom" | "red" => plain(1.0, Memory, 2.0, 0.0),
        "shfl" | "vote" | "match" | "redux" | "activemask" => plain(1.0, Memory, 1.0, card.shared_latency),
        "bar" | "barrier" => (Role::Barrier, 1.0, Memory, 0.0, card.barrier_latency),
        "bra" | "brx" | "ret" | "exit" => (Role::Branch, 1.0, Integer, 0.0, card.branch_latency),
        "cp" if has("commit_group") => (Role::Commit, 1.0, Memory, 0.0, 0.0),
        "cp" if has("wait_all") => (Role::Wait(0), 1.0, Memory, 0.0, 0.0),
        "cp" if has("wait_group") => {
            (Role::Wait(operands.trim().parse().unwrap_or(0)), 1.0, Memory, 0.0, 0.0)
        }
        "cp" => (Role::Copy, 1.0, Memory, 4.0, 0.0),
        "mma" => {
            let (operations, bits) = shape(parts);
            let rate = card.tensor_operations / 4.0 * 16.0 / bits;
            plain(1.0, Tensor, operations / rate, card.tensor_latency)
        }
        "div" | "rcp" | "sqrt" | "rsqrt" if has("f64") => plain(30.0, Double, 60.0, 60.0 * one),
        "div" | "rem" if wide => plain(90.0, Integer, 180.0, 90.0 * one),
        "div" | "rem" if !has("f32") => plain(18.0, Integer, 36.0, 18.0 * one),
        "div" | "rcp" | "sqrt" | "rsqrt" if has("rn") || has("rz") => plain(9.0, Function, 8.0, 10.0 * one),
        "div" | "ex2" | "lg2" | "rcp" | "sqrt" | "rsqrt" | "tanh" | "sin" | "cos" => {
            plain(2.0, Function, 8.0, 23.0)
        }
        "cvt" if wide && !has("f32") && !has("f64") => plain(0.0, Integer, 0.0, 0.0),
        "cvt" if has("f64") => plain(1.0, Function, 8.0, 23.0),
        "cvt" => plain(1.0, Integer, 2.0, 2.0 * one),
        "mul" | "mad" if has("wide") => plain(1.0, Integer, 2.0, one + 1.0),
        _ if has("f64") => plain(1.0, Double, 2.0, 2.0 * one),
        "add" | "sub" | "mul" | "fma" | "mad" if has("f32") || has("f16x2") || has("bf16x2") => {
            plain(1.0, Single, 1.0, one)
        }
        _ if wide => plain(2.0, Integer, 4.0, 1.5 * one),
        _ => plain(1.0, Integer, 2.0, one),
    }
}

/// Bytes of a type that an opcode names.
fn element_bytes(parts: &[&str]) -> f64 {
    if parts.contains(&"m8n8") {
        return 4.0;
    }
    let digits = |part: &&str| part.trim_start_matches(char::is_alphabetic).parse::<f64>().ok();
    let last = parts.iter().rev().find(|part| part.len() > 1 && !part.starts_with(['v', 'x']));
    last.and_then(digits).map_or(4.0, |bits| bits / 8.0)
}

/// Elements of a vector.
fn vector(parts: &[&str]) -> f64 {
    let number = |part: &&str| part.strip_prefix(['v', 'x'])?.parse::<f64>().ok();
    parts.iter().find_map(number).unwrap_or(1.0)
}

/// Operations of an `mma`, and bits of its operands.
fn shape(parts: &[&str]) -> (f64, f64) {
    let shape = parts.iter().find(|part| part.starts_with('m') && part.contains('k')).copied().unwrap_or("");
    let sizes = shape.split(['m', 'n', 'k']).filter_map(|size| size.parse::<f64>().ok());
    let bits = match parts.iter().rev().nth(1).copied().unwrap_or("") {
        "tf32" => 32.0,
        "e4m3" | "e5m2" => 8.0,
        _ => 16.0,
    };
    (2.0 * sizes.product::<f64>(), bits)
}

#[cfg(test)]
mod tests {
    use super::super::card::H100;
    use super::{Costs, Pipe, Role};

    fn only(text: &str) -> super::Cost {
        Costs::of([text].into_iter(), &H100).list.remove(0)
    }

    #[test]
    fn registers_are_read_and_written() {
        let texts = [
            "ld.global.v2.f32 {%f1, %f2}, [%rd1+8];",
            "@%p1 st.global.f32 [%rd1], %f2;",
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f3, %f4}, {%r1, %r2}, {%r3}, {%f3, %f4};",
        ];
        let costs = Costs::of(texts.into_iter(), &H100);
        let [load, store, product] = &costs.list[..] else { panic!() };
        // f1, f2, rd1, then p1, then f3, f4, r1, r2, r3.
        assert_eq!((&load.writes[..], &load.reads[..]), (&[0, 1][..], &[2][..]));
        assert_eq!((&store.writes[..], &store.reads[..]), (&[][..], &[2, 1, 3][..]));
        assert_eq!((&product.writes[..], &product.reads[..]), (&[4, 5][..], &[6, 7, 8, 4, 5][..]));
        assert_eq!(costs.registers, 9);
    }

    #[test]
    fn work_is_that_of_the_pipe() {
        let tensor = only("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};");
        assert_eq!((tensor.pipe, tensor.busy), (Pipe::Tensor, 4096.0 / (H100.tensor_operations / 4.0)));
        let codes = only("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f1}, {%r1}, {%r2}, {%f1};");
        assert_eq!(codes.busy, tensor.busy);
        assert_eq!(only("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];").busy, 4.0);
        assert_eq!(only("ld.global.u16 %rs1, [%rd1];").busy, 1.0);
        assert_eq!(only("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r5];").busy, 4.0);
        assert!(only("rem.u32 %r1, %r2, %r3;").slots > only("add.s32 %r1, %r2, %r3;").slots);
        assert_eq!(only("ld.param.u64 %rd1, [p];").slots, 0.0);
        assert!(only("ld.global.f32 %f1, [%rd1];").loads && !only("ld.shared.f32 %f1, [%r1];").loads);
        assert_eq!(only("cp.async.wait_group 2;").role, Role::Wait(2));
    }
}
