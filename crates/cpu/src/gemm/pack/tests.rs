//! Packed panels against the layouts that the documentation states.

use halfstep_float::bf16_from_f32;
use proptest::prelude::*;

use super::*;
use crate::gemm::scheme;
use crate::gemm::source::{Gather, Window};

/// The element of a source at (outer, k), by fetching it alone.
fn element(source: &Source<'_>, data: &[u16], outer: usize, k: usize) -> u16 {
    let (line, position) = match source.along {
        Along::K => (outer, k),
        Along::Outer => (k, outer),
    };
    let mut one = [0];
    source.fetch(data, source.line(line), source.position(position), &mut one);
    one[0]
}

/// Packs a block in every form and compares with the layouts that the documentation states.
fn check(source: &Source<'_>, outer: Range<usize>, k: Range<usize>) {
    let Src::Bf16(data) = source.data else { panic!("codes") };
    let code = |o: usize, l: usize| {
        let inside = o < outer.len() && l < k.len();
        if inside { element(source, data, outer.start + o, k.start + l) } else { 0 }
    };
    let mut panels = vec![9.0; outer.len().div_ceil(6) * 6 * k.len()];
    let piece = || Piece { source, outer: outer.clone(), k: k.clone() };
    panels_f32::<6>(piece(), ProductFormat::Bf16, &mut panels);
    for (i, &got) in panels.iter().enumerate() {
        let (panel, l, r) = (i / (6 * k.len()), i / 6 % k.len(), i % 6);
        assert_eq!(got, f32_from_bf16(code(panel * 6 + r, l)), "f32 {i}");
    }
    let steps = k.len().div_ceil(32);
    let mut memory = vec![[9u32; 512]; outer.len().div_ceil(32) * steps];
    let mut tiles = |pack: fn(Piece<'_>, &mut [u16])| -> Vec<u16> {
        // SAFETY: the same bytes; any are valid.
        let to = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), memory.len() * 1024) };
        pack(piece(), to);
        to.to_vec()
    };
    for (i, got) in tiles(tiles_a::<scheme::Bf16>).into_iter().enumerate() {
        let (block, row, l) = (i / 1024, i / 32 % 32, i % 32);
        assert_eq!(got, code(block / steps * 32 + row, block % steps * 32 + l), "A {i}");
    }
    for (i, got) in tiles(tiles_b::<scheme::Bf16>).into_iter().enumerate() {
        let (block, column, l) = (i / 1024, i / 512 % 2 * 16 + i / 2 % 16, i / 32 % 16 * 2 + i % 2);
        assert_eq!(got, code(block / steps * 32 + column, block % steps * 32 + l), "B {i}");
    }
}

fn part(whole: usize, cut: (usize, usize)) -> Range<usize> {
    let start = cut.0 % whole;
    start..start + 1 + cut.1 % (whole - start)
}

proptest! {
    #[test]
    fn windows_pack_as_documented(
        image in [1..=9usize, 1..=9usize],
        channels in prop_oneof![1..=5usize, Just(16usize), Just(33usize), Just(64usize)],
        grid in [1..=5usize, 1..=5usize],
        taps in [1..=3usize, 1..=3usize],
        line_step in 1..=2isize,
        back: bool,
        offset in [-2..=2isize, -2..=2isize],
        cuts: [(usize, usize); 2],
        along_k: bool,
    ) {
        let images = 2;
        let codes: Vec<u16> =
            (0..images * image[0] * image[1] * channels).map(|i| bf16_from_f32(i as f32 + 1.0)).collect();
        let tap_step = if back { -1 } else { 1 };
        let window = Window { image, channels, grid, taps_x: taps[1], line_step, tap_step, offset };
        let (lines, positions) = (images * grid[0] * grid[1], taps[0] * taps[1] * channels);
        let along = if along_k { Along::K } else { Along::Outer };
        let source = Source { data: Src::Bf16(&codes), base: 0, gather: Gather::Window(window), along };
        let (outer, k) = if along_k { (lines, positions) } else { (positions, lines) };
        check(&source, part(outer, cuts[0]), part(k, cuts[1]));
    }

    #[test]
    fn matrices_pack_as_documented(
        line in 1..=80usize,
        position in 1..=3usize,
        cuts: [(usize, usize); 2],
        along_k: bool,
    ) {
        let codes: Vec<u16> = (0..40_000).map(|i| i as u16).collect();
        let along = if along_k { Along::K } else { Along::Outer };
        let source = Source { data: Src::Bf16(&codes), base: 3, gather: Gather::Strided { line, position }, along };
        check(&source, part(110, cuts[0]), part(130, cuts[1]));
    }
}
