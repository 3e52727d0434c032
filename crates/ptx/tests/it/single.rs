//! Kernels of one instruction.

use halfstep_ptx::{Launch, Module, Options, Simulator};

/// Loads inputs of so many bits into `%a0`, `%a1`, … of each thread, executes `code`, and stores
/// `%d`, of `result` bits, for each row of inputs. `code` may use the predicates `%p` and `%q`.
pub fn compute(code: &str, bits: &[u32], result: u32, rows: &[Vec<u64>]) -> Vec<u64> {
    let text = kernel(code, bits, result);
    let module = Module::load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut gpu = Simulator::new(Options::default());
    let threads = rows.len().next_multiple_of(32);
    let mut launch = Launch::new("one", [threads as u32 / 32, 1, 1], [32, 1, 1]);
    for (at, bits) in bits.iter().enumerate() {
        let row = |thread: usize| rows[thread.min(rows.len() - 1)][at];
        let bytes: Vec<u8> = (0..threads)
            .flat_map(|thread| row(thread).to_le_bytes()[..*bits as usize / 8].to_vec())
            .collect();
        launch = launch.input(gpu.allocate_from(&bytes).unwrap());
    }
    let size = result as usize / 8;
    let out = gpu.allocate(threads * size).unwrap();
    gpu.launch(&module, &launch.output(out)).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let bytes = gpu.bytes(out).unwrap();
    let value = |b: &[u8]| b.iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    bytes.chunks_exact(size).take(rows.len()).map(value).collect()
}

fn kernel(code: &str, bits: &[u32], result: u32) -> String {
    let mut params: Vec<String> = (0..bits.len()).map(|at| format!(".param .u64 in{at}")).collect();
    params.push(".param .u64 out".to_string());
    let mut text = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry one({})\n{{\n\
         .reg .b32 %i;\n.reg .b64 %x<4>;\n.reg .pred %p, %q;\n.reg .b{result} %d;\n\
         mov.u32 %i, %ctaid.x;\nshl.b32 %i, %i, 5;\n.reg .b32 %t;\nmov.u32 %t, %tid.x;\nadd.s32 %i, %i, %t;\n",
        params.join(", ")
    );
    for (at, bits) in bits.iter().enumerate() {
        text += &format!(
            ".reg .b{bits} %a{at};\nld.param.u64 %x0, [in{at}];\nmul.wide.u32 %x1, %i, {};\n\
             add.s64 %x0, %x0, %x1;\nld.global.b{bits} %a{at}, [%x0];\n",
            bits / 8
        );
    }
    text + &format!(
        "{code}\nld.param.u64 %x0, [out];\nmul.wide.u32 %x1, %i, {};\nadd.s64 %x0, %x0, %x1;\n\
         st.global.b{result} [%x0], %d;\nret;\n}}\n",
        result / 8
    )
}

/// All combinations of values.
pub fn grid(values: &[&[u64]]) -> Vec<Vec<u64>> {
    let mut rows = vec![Vec::new()];
    for column in values {
        rows = rows
            .iter()
            .flat_map(|row: &Vec<u64>| column.iter().map(move |value| [&row[..], &[*value]].concat()))
            .collect();
    }
    rows
}

/// Checks an instruction against a function, on all combinations of values.
pub fn check(code: &str, bits: &[u32], result: u32, values: &[&[u64]], f: impl Fn(&[u64]) -> u64) {
    let rows = grid(values);
    let mask = u64::MAX >> (64 - result);
    for (row, got) in rows.iter().zip(compute(code, bits, result, &rows)) {
        let expected = f(row) & mask;
        assert_eq!(got, expected, "`{code}` of {row:x?}: {got:#x} instead of {expected:#x}");
    }
}
