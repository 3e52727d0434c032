//! Launches of some of the blocks, and those that are watched.

use halfstep_ptx::{Checks, Launch, Module, Options, Simulator, Watch};

const TEXT: &str = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry marks(.param .u64 out)\n{\n\
    .reg .b32 %i;\n.reg .b64 %x, %y;\nmov.u32 %i, %ctaid.x;\nld.param.u64 %x, [out];\n\
    mul.wide.u32 %y, %i, 4;\nadd.s64 %x, %x, %y;\nst.global.u32 [%x], %i;\nret;\n}\n";

#[derive(Debug, Default)]
struct Seen {
    blocks: Vec<usize>,
    instructions: Vec<(usize, usize)>,
}

impl Watch for Seen {
    fn block(&mut self, warps: usize) {
        self.blocks.push(warps);
    }

    fn instruction(&mut self, warp: usize, instruction: usize) {
        self.instructions.push((warp, instruction));
    }
}

#[test]
fn a_launch_of_some_blocks_runs_those_and_tells_each_instruction() {
    let module = Module::load(TEXT).unwrap();
    // Both warps of a block store the same number.
    let checks = Checks { races: false, never_written: true };
    let mut gpu = Simulator::new(Options { checks, ..Options::default() });
    let out = gpu.allocate_from(&[0; 32]).unwrap();
    let launch = Launch::new("marks", [8, 1, 1], [64, 1, 1]).output(out).only(vec![5, 3, 9]);
    let mut seen = Seen::default();
    let counts = gpu.launch_watched(&module, &launch, &mut seen).unwrap();
    let words: Vec<u8> = gpu.bytes(out).unwrap().chunks_exact(4).map(|word| word[0]).collect();
    assert_eq!(words, [0, 0, 0, 3, 0, 5, 0, 0]);
    assert_eq!(seen.blocks, [2, 2]);
    let texts: Vec<&str> = module.texts("marks").unwrap().collect();
    assert!(texts[4].starts_with("st.global.u32"), "{texts:?}");
    // Each warp of both blocks executes all in order, up to the end that stands behind every text.
    let of = |warp| (0..texts.len() - 1).map(move |at| (warp, at));
    let block: Vec<(usize, usize)> = of(0).chain(of(1)).collect();
    assert_eq!(seen.instructions, block.repeat(2));
    assert_eq!(counts.instructions() as usize, seen.instructions.len());
}
