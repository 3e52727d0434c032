//! Kernels written for a test.

use halfstep_ptx::{Fault, Launch, LaunchError, Module, Options, Region, Simulator};

/// A module with one kernel, `k`, of parameters `in` and `out`, whose body is `code`. It has the
/// registers `%r`, `%f`, `%d` (64 bits), `%h` (16 bits) and `%p`, and at the start `%d0` is the
/// address `in`, `%d1` the address `out`, `%r0` the thread's number in its block, and `%d2`, `%d3`
/// are the addresses of its words.
pub fn module(before: &str, code: &str) -> Module {
    let text = text(before, code);
    Module::load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub fn text(before: &str, code: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n{before}\n\
         .visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .reg .b32 %r<20>;\n.reg .f32 %f<8>;\n.reg .b64 %d<10>;\n.reg .b16 %h<4>;\n.reg .pred %p<4>;\n\
         ld.param.u64 %d0, [in];\nld.param.u64 %d1, [out];\nmov.u32 %r0, %tid.x;\n\
         mad.wide.u32 %d2, %r0, 4, %d0;\nmad.wide.u32 %d3, %r0, 4, %d1;\n{code}\n}}\n"
    )
}

/// A launch of it: words of input, and room for as many words of output.
pub struct Run {
    pub gpu: Simulator,
    pub input: Region,
    pub output: Region,
}

impl Run {
    pub fn new(options: Options, input: &[u32], output: usize) -> Run {
        let mut gpu = Simulator::new(options);
        let bytes: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
        let input = gpu.allocate_from(&bytes).unwrap();
        let output = gpu.allocate(4 * output).unwrap();
        Run { gpu, input, output }
    }

    pub fn launch(&mut self, module: &Module, blocks: u32, threads: u32) -> Result<Vec<u32>, LaunchError> {
        let launch = Launch::new("k", [blocks, 1, 1], [threads, 1, 1]).input(self.input).output(self.output);
        self.gpu.launch(module, &launch)?;
        let bytes = self.gpu.bytes(self.output).unwrap();
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
    }
}

/// The words that `threads` threads of one block write, under several schedules, which all give the
/// same.
pub fn words(before: &str, code: &str, threads: u32) -> Vec<u32> {
    let module = module(before, code);
    let run = |seed| {
        let options = Options { seed, ..Options::default() };
        let input: Vec<u32> = (0..threads).map(|i| i * 3 + 1).collect();
        let result = Run::new(options, &input, threads as usize).launch(&module, 1, threads);
        result.unwrap_or_else(|error| panic!("seed {seed:?}: {error}"))
    };
    let first = run(None);
    for seed in 0..6 {
        assert_eq!(run(Some(seed)), first, "seed {seed}");
    }
    first
}

/// The fault of a kernel, which every schedule finds.
pub fn fault(before: &str, code: &str, blocks: u32, threads: u32) -> Fault {
    let module = module(before, code);
    let run = |seed| {
        let options = Options { seed, limit: 100_000, ..Options::default() };
        let input: Vec<u32> = (0..threads).collect();
        match Run::new(options, &input, threads as usize).launch(&module, blocks, threads) {
            Err(LaunchError::Fault(fault)) => *fault,
            other => panic!("seed {seed:?}: no fault, but {other:?}"),
        }
    };
    let first = run(None);
    for seed in 0..6 {
        let other = run(Some(seed));
        let kind = |fault: &Fault| std::mem::discriminant(&fault.cause);
        assert_eq!(kind(&other), kind(&first), "seed {seed}: {other}, and {first}");
    }
    first
}
