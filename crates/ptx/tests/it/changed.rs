//! Kernels whose instructions were changed at random run to an end or to a fault, and never end the
//! program: wild addresses, counts, coordinates and descriptors among them.

use halfstep_ptx::{
    Argument, Arrival, Launch, Module, Options, Region, Simulator, Summation, Swizzle, TensorMap,
};
use proptest::prelude::*;

/// What an operand is replaced by.
const OPERANDS: &[&str] =
    &["0", "1", "-1", "7", "16", "4294967295", "9223372036854775807", "-16", "%r1", "%rd1", "%p1", "%rs1"];

/// What the type of an opcode is replaced by.
const TYPES: &[&str] =
    &["pred", "b8", "s8", "u16", "b16", "u32", "s32", "b32", "f32", "b64", "s64", "b128", "f16x2", "bf16"];

#[derive(Clone, Debug)]
enum Change {
    /// A line goes.
    Drop(usize),
    /// A line comes in the place of another.
    Copy(usize, usize),
    /// A word of a line is replaced.
    Replace(usize, usize, &'static str),
    /// The type of an opcode is replaced.
    Retype(usize, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<usize>().prop_map(Change::Drop),
        any::<(usize, usize)>().prop_map(|(to, from)| Change::Copy(to, from)),
        (any::<usize>(), any::<usize>(), prop::sample::select(OPERANDS))
            .prop_map(|(line, word, by)| Change::Replace(line, word, by)),
        (any::<usize>(), prop::sample::select(TYPES)).prop_map(|(line, by)| Change::Retype(line, by)),
    ]
}

/// The text with a changed instruction; declarations stay.
fn changed(text: &str, change: &Change) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    let instruction =
        |line: &String| line.ends_with(';') && !line.contains(".reg") && !line.contains(".param .");
    let body: Vec<usize> = (0..lines.len()).filter(|&at| instruction(&lines[at])).collect();
    let pick = |number: usize| body[number % body.len()];
    match *change {
        Change::Drop(line) => lines[pick(line)].clear(),
        Change::Copy(to, from) => lines[pick(to)] = lines[pick(from)].clone(),
        Change::Retype(line, by) => {
            let line = &mut lines[pick(line)];
            let opcode = line.find('.').unwrap_or(0);
            let end = line[opcode..].find(char::is_whitespace).map_or(line.len(), |length| opcode + length);
            if let Some(dot) = line[..end].rfind('.') {
                line.replace_range(dot + 1..end, by);
            }
        }
        Change::Replace(line, word, by) => {
            let line = &mut lines[pick(line)];
            let of_word = |c: char| c.is_ascii_alphanumeric() || c == '%' || c == '_';
            // The opcode is the first word, and stays.
            let starts: Vec<usize> = (1..line.len())
                .filter(|&at| line[at..].starts_with(of_word) && line[..at].ends_with([' ', '[', '{', '\t']))
                .skip(1)
                .collect();
            if let Some(&start) = starts.get(word % starts.len().max(1)) {
                let end = line[start..].find(|c| !of_word(c)).map_or(line.len(), |length| start + length);
                line.replace_range(start..end, by);
            }
        }
    }
    lines.join("\n")
}

/// A launch of a kernel with 64 × 136 elements of bf16 in each of two inputs.
fn launch(kernel: &str, inputs: [Region; 2], output: Region) -> Launch {
    let [a, b] = inputs;
    let map = |region: Region| {
        let (sizes, strides, tile) = (vec![136, 64], vec![272], vec![64, 64]);
        let address = region.address;
        let map = TensorMap { address, element_bytes: 2, sizes, strides, tile, swizzle: Swizzle::Bytes128 };
        Argument::Bytes(map.encode().unwrap().to_vec())
    };
    let sizes = |launch: Launch, sizes: [i32; 3]| {
        sizes.into_iter().fold(launch, |launch, size| launch.argument(Argument::I32(size)))
    };
    let new = |threads| Launch::new(kernel, [1; 3], [threads, 1, 1]);
    match kernel {
        "gemm_wgmma" => {
            let launch = new(160).argument(map(a)).argument(map(b)).reads(a).reads(b);
            sizes(launch.output(output), [64, 64, 136])
        }
        "gemm_mma" => sizes(new(128).shared(24_576).input(a).input(b).output(output), [64, 64, 272]),
        "bulk_copy" => new(64).input(a).output(output),
        _ => new(32).input(a).input(b).output(output).output(output).argument(Argument::I32(32)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn changed_instructions_end_nothing(
        kernel in prop::sample::select(vec!["gemm_wgmma", "gemm_mma", "bulk_copy", "transposed"]),
        changes in prop::collection::vec(change(), 1..3),
        late: bool,
        exact: bool,
        seed: u64,
    ) {
        let path = format!("{}/tests/kernels/{kernel}.ptx", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let text = changes.iter().fold(text, |text, change| changed(&text, change));
        let arrival = if late { Arrival::Late } else { Arrival::Early };
        let summation = if exact { Summation::Exact } else { Summation::Truncated };
        let options = Options { arrival, seed: Some(seed), summation, limit: 20_000, ..Options::default() };
        if let Ok(module) = Module::load(&text) {
            let mut device = Simulator::new(options);
            let mut bytes = |count: usize| {
                let bytes: Vec<u8> = (0..count).map(|at| (at * 37 % 64) as u8).collect();
                device.allocate_from(&bytes).unwrap()
            };
            let (inputs, output) = ([bytes(64 * 272), bytes(64 * 272)], bytes(64 * 64 * 4));
            let _ = device.launch(&module, &launch(kernel, inputs, output));
        }
    }
}
