//! Texts that are changed at random are refused or loaded, and never end the program.

use halfstep_ptx::{Launch, LaunchError, Module, Options, Simulator};
use proptest::prelude::*;

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/kernels/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// What a text is changed to: a piece is removed, doubled, or replaced by one of these.
const PIECES: &[&str] = &[
    "",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ";",
    ":",
    ",",
    "|",
    "@",
    "!",
    "-",
    "\"",
    "//",
    "/*",
    "0",
    "0x",
    "0f",
    "18446744073709551615",
    ".reg",
    ".shared",
    ".param",
    ".align",
    ".b8",
    ".pred",
    "%p1",
    "%rd1",
    "%r1",
    "_",
    "bra",
    "call",
    "mov",
    ".v4",
    "\u{e4}",
    "4294967296",
];

fn changed(text: &str, at: usize, length: usize, piece: &str) -> String {
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let from = boundary(at % text.len());
    let to = boundary((from + length).min(text.len()));
    format!("{}{piece}{}", &text[..from], &text[to..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_texts_end_nothing(
        kernel in prop::sample::select(vec!["softmax", "split_k", "gelu", "histogram", "transposed"]),
        changes in prop::collection::vec((any::<usize>(), 0usize..12, prop::sample::select(PIECES)), 1..4),
    ) {
        let mut text = fixture(kernel);
        for (at, length, piece) in changes {
            text = changed(&text, at, length, piece);
        }
        let _ = Module::load(&text);
    }

    #[test]
    fn texts_of_tokens_end_nothing(tokens in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        let _ = Module::load(&tokens.join(" "));
        let body = format!(".version 9.0\n.target sm_90\n.visible .entry k(.param .u64 a)\n{{\n{}\n}}", tokens.join(" "));
        let _ = Module::load(&body);
    }

    /// A kernel whose registers, numbers and targets were exchanged has a fault, or ends.
    #[test]
    fn changed_kernels_end_nothing(
        at in any::<usize>(),
        digit in prop::sample::select(vec!["0", "1", "2", "3", "7"]),
        seed in any::<u64>(),
    ) {
        let text = fixture("softmax");
        let digits: Vec<usize> = text
            .char_indices()
            .filter(|(at, c)| c.is_ascii_digit() && *at > text.find("ld.param").unwrap())
            .map(|(at, _)| at)
            .collect();
        let text = changed(&text, digits[at % digits.len()], 1, digit);
        let Ok(module) = Module::load(&text) else { return Ok(()) };
        let mut gpu = Simulator::new(Options { seed: Some(seed), limit: 20_000, ..Options::default() });
        let x = gpu.allocate_from(&[1; 200]).unwrap();
        let y = gpu.allocate(400).unwrap();
        let launch = Launch::new("softmax", [1; 3], [128, 1, 1])
            .input(x)
            .output(y)
            .argument(halfstep_ptx::Argument::I32(100));
        match gpu.launch(&module, &launch) {
            Ok(_) | Err(LaunchError::Fault(_)) => {}
            Err(other) => prop_assert!(matches!(other, LaunchError::Shape { .. } | LaunchError::Arguments { .. }), "{other}"),
        }
    }
}

/// Scopes and operands that are nested too deeply are an error, not an overflow of the stack.
#[test]
fn deep_nesting_is_refused() {
    let head = ".version 9.0\n.target sm_90\n.visible .entry k()\n{\n";
    assert!(Module::load(&format!("{head}{}{}ret;}}", "{".repeat(100_000), "}".repeat(100_000))).is_err());
    assert!(Module::load(&format!("{head}mov.b64 %r, {}1;}}", "{".repeat(100_000))).is_err());
    assert!(Module::load(&format!(".global .u32 a[] = {}", "{".repeat(100_000))).is_err());
    // So are calls.
    let call = |depth: usize, twice: bool, scopes: usize| {
        let body = |at: usize| format!("call f{at};").repeat(if twice { 2 } else { 1 });
        let (open, close) = ("{".repeat(scopes), "}".repeat(scopes));
        let function = |at: usize| format!(".func f{at}() {{ {open}{}{close} }}\n", body(at + 1));
        let functions: String = (0..depth).map(function).collect();
        Module::load(&format!("{functions}.func f{depth}() {{ }}\n.entry k() {{ call f0; ret; }}"))
    };
    assert!(call(31, false, 60).is_ok());
    assert!(call(5000, false, 0).is_err());
    // So are 2^30 calls that make no instruction.
    assert!(call(30, true, 0).is_err());
    // So are registers without end.
    assert!(Module::load(&format!("{head}.reg .b32 %r<4000000000>;\nret;\n}}")).is_err());
    assert!(Module::load(&format!("{head}.shared .b8 s[4000000000];\nret;\n}}")).is_err());
    assert!(Module::load(&format!("{head}.local .b8 s[600000];\nret;\n}}")).is_err());
    assert!(Module::load(&format!("{head}.local .b8 s[500000];\nret;\n}}")).is_ok());
}
