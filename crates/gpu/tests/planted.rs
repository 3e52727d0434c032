//! Faults planted in kernels and in what is launched: each is found on the simulated GPU. As they
//! are, the same programs have no fault and equal bits under every schedule.

mod common;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/sample.rs"]
mod sample;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::command::{Action, Commands, Launch};
use halfstep_gpu::{Architecture, Module, SimulatedDevice};
use halfstep_ptx::{Arrival, Options};

use common::edited::Edited;
use sample::{
    Bits, Sample, attention, column_sums, column_sums_without_room, commands, matmul, softmax, steps,
};

/// Ascending order and three drawn ones, with copies late and early.
fn schedules() -> impl Iterator<Item = Options> {
    let seeds = [None, Some(1), Some(2), Some(3)];
    seeds.into_iter().flat_map(|seed| {
        [Arrival::Late, Arrival::Early].map(|arrival| Options { seed, arrival, ..Options::default() })
    })
}

fn device() -> Arc<SimulatedDevice> {
    Arc::new(common::device(Architecture::of_device(9, 0), Options::default()))
}

/// The results of a program as it is, which are the same under every schedule.
fn clean(device: &Arc<SimulatedDevice>, sample: &Sample) -> Bits {
    let mut first: Option<Bits> = None;
    for options in schedules() {
        device.run_as(options);
        let found = sample(device.clone()).unwrap_or_else(|fault| panic!("{options:?}: {fault}"));
        let first = first.get_or_insert_with(|| found.clone());
        assert!(*first == found, "other bits under {options:?}");
    }
    first.unwrap()
}

/// How a fault shows.
#[derive(Clone, Copy)]
enum Shows {
    /// The simulator reports something that contains one of these.
    As(&'static [&'static str]),
    /// Results are others than those of the kernel as it is.
    InResults,
    /// Results depend on the schedule.
    FromRunToRun,
}

const RACE: &[&str] = &["is in no order with", "were never written"];
const OUTSIDE: &[&str] =
    &["the launch does not declare it", "for the other direction only", "runs over the end"];

/// Runs what `edit` makes of the commands of a sample under every schedule.
fn found(sample: &Sample, edit: impl Fn(&mut Commands) + Clone + Send + Sync + 'static, shows: Shows) {
    let device = device();
    let expected = sample(device.clone()).unwrap();
    let (mut faults, mut results) = (Vec::new(), BTreeSet::new());
    for options in schedules() {
        device.run_as(Options { limit: 1 << 22, ..options });
        match sample(Edited::new(&device, edit.clone())) {
            Ok(bits) => drop(results.insert(bits)),
            Err(fault) => faults.push(fault),
        }
    }
    match shows {
        Shows::As(words) => {
            assert!(!faults.is_empty(), "nothing was found");
            let said = |fault: &&String| !words.iter().any(|words| fault.contains(words));
            let other = faults.iter().find(said);
            assert!(other.is_none(), "another fault: {other:?}");
        }
        Shows::InResults => assert!(!results.contains(&expected), "the same results; {faults:?}"),
        Shows::FromRunToRun => assert!(results.len() > 1, "one result; {faults:?}"),
    }
}

/// A fault in a source: what stands in place of a text in a file.
struct InSource {
    name: &'static str,
    sample: fn() -> Sample,
    file: &'static str,
    changes: &'static [(&'static str, &'static str)],
    shows: Shows,
}

impl InSource {
    fn plant(&self, module: &mut Module) -> bool {
        let replaced = |text: &str| {
            let known = self.changes.iter().all(|(from, _)| text.contains(from));
            known.then(|| {
                self.changes.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
            })
        };
        let mut planted = false;
        if module.name == self.file
            && let Some(text) = replaced(&module.source)
        {
            (module.source, planted) = (text, true);
        }
        for (name, text) in &mut module.headers {
            if *name == self.file
                && let Some(with) = replaced(text)
            {
                (*text, planted) = (with.leak(), true);
            }
        }
        planted
    }

    fn test(&'static self) {
        let edit = |commands: &mut Commands| {
            let planted = commands.modules.iter_mut().map(|module| self.plant(module));
            assert!(planted.fold(false, |any, one| any | one), "{} has not these lines", self.file);
        };
        found(&(self.sample)(), edit, self.shows);
    }
}

fn tensor_attention() -> Sample {
    attention("bf16", 130, 2, 24, true)
}

fn product() -> Sample {
    matmul("bf16", [72, 80, 136], [false, true])
}

static IN_SOURCES: [InSource; 17] = [
    InSource {
        name: "product_without_wait",
        sample: product,
        file: "tensor_product.cuh",
        changes: &[("        wait_for_copies<STAGES - 2>();\n", "")],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "product_without_barrier",
        sample: product,
        file: "tensor_product.cuh",
        changes: &[(
            "        // The tiles of this turn are there for all threads, and all have done with the last ones.\n        __syncthreads();",
            "        // The tiles of this turn are there for all threads, and all have done with the last ones.\n",
        )],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "product_beyond_the_edge",
        sample: product,
        file: "operand.cuh",
        changes: &[("bool there = i < count && at < end;", "bool there = at < end;")],
        shows: Shows::As(OUTSIDE),
    },
    InSource {
        name: "product_with_another_swizzle",
        sample: product,
        file: "tensor_product.cuh",
        changes: &[(
            "place<DEPTH, true>(row + lane % 16, k + lane / 16 * CHUNK)",
            "place<DEPTH, true>(row + lane % 16, (k + lane / 16 * CHUNK) ^ CHUNK)",
        )],
        shows: Shows::InResults,
    },
    InSource {
        name: "product_with_another_stride",
        sample: product,
        file: "operand.cuh",
        changes: &[("ALONG ? i * width : i)", "ALONG ? i * (width + 8) : i)")],
        shows: Shows::As(OUTSIDE),
    },
    InSource {
        name: "product_of_narrow_rows_copied_in_chunks",
        sample: || matmul("bf16", [70, 67, 83], [false, true]),
        file: "tensor_product.cuh",
        changes: &[("COPIED = WHOLE && PLANES", "COPIED = PLANES")],
        shows: Shows::As(&["which is no multiple of"]),
    },
    InSource {
        name: "simt_product_without_barrier",
        sample: || matmul("fp32", [70, 67, 37], [false, true]),
        file: "product.cuh",
        changes: &[(
            "        right.finish(bs[turn]);\n        __syncthreads();",
            "        right.finish(bs[turn]);",
        )],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "attention_without_wait",
        sample: tensor_attention,
        file: "attention_tensor.cu",
        changes: &[("        wait_for_copies<0>();\n", "")],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "attention_without_barrier",
        sample: tensor_attention,
        file: "attention_tensor.cu",
        changes: &[("        __syncthreads();\n", "")],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "attention_beyond_the_edge",
        sample: tensor_attention,
        file: "attention_tiles.cuh",
        changes: &[("row + r < s.time && chunk * 8 < s.dim;", "chunk * 8 < s.dim;")],
        shows: Shows::As(OUTSIDE),
    },
    InSource {
        name: "attention_with_another_swizzle",
        sample: tensor_attention,
        file: "attention_tiles.cuh",
        changes: &[("element / 8 + lane / 8 % 2)", "(element / 8 + lane / 8 % 2) ^ 1)")],
        shows: Shows::InResults,
    },
    InSource {
        name: "f32_attention_without_barrier",
        sample: || attention("fp32", 70, 2, 20, false),
        file: "attention_squares.cuh",
        changes: &[(
            "squares[1].load(b, across, d, s);\n        __syncthreads();",
            "squares[1].load(b, across, d, s);",
        )],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "rows_without_barrier",
        sample: || softmax(2, 2400),
        file: "block.cuh",
        changes: &[(
            "shared[threadIdx.x / 32] = x;\n        __syncthreads();",
            "shared[threadIdx.x / 32] = x;",
        )],
        shows: Shows::As(RACE),
    },
    InSource {
        name: "rows_whose_lanes_are_absent",
        sample: || softmax(2, 2400),
        file: "block.cuh",
        changes: &[("        x = combine(x,", "        if (threadIdx.x < 48) x = combine(x,")],
        // Or in a warp that none of them is of, which would store one value.
        shows: Shows::As(&["take part by the mask", "by lane 0, of another value"]),
    },
    InSource {
        name: "sums_by_atomics",
        sample: column_sums,
        file: "columns.cuh",
        changes: &[
            (
                "        if (lane < LANES) shared[warp * COLUMNS + lane * WIDE + k] = x[k];",
                "        if (warp == 0 && lane < LANES) shared[lane * WIDE + k] = 0.0f;\n\
                 \x20       __syncthreads();\n\
                 \x20       if (lane < LANES) atomicAdd(&shared[lane * WIDE + k], x[k]);",
            ),
            ("        for (u32 w = 1; w < 8; ++w) y = combine(y, shared[w * COLUMNS + threadIdx.x]);\n", ""),
        ],
        shows: Shows::FromRunToRun,
    },
    InSource {
        name: "update_beyond_the_edge",
        sample: || steps("fp32"),
        file: "update.cu",
        changes: &[("bool mine = i < end;", "bool mine = true;")],
        // Behind a tensor lies another one's.
        shows: Shows::As(&["the launch does not declare it", "is in no order with"]),
    },
    InSource {
        name: "norm_without_barrier",
        sample: || steps("fp32"),
        file: "norm.cu",
        changes: &[("shared[threadIdx.x + half];\n        __syncthreads();", "shared[threadIdx.x + half];")],
        shows: Shows::As(RACE),
    },
];

fn launches(commands: &mut Commands) -> impl Iterator<Item = &mut Launch> {
    commands.list.iter_mut().filter_map(|command| match &mut command.action {
        Action::Launch(launch) => Some(launch),
        Action::Copy { .. } => None,
    })
}

/// The last launch reads what it does not declare.
fn a_span_that_is_not_declared() {
    let edit = |commands: &mut Commands| launches(commands).last().unwrap().reads.truncate(0);
    found(&product(), edit, Shows::As(OUTSIDE));
}

fn a_grid_that_is_too_small() {
    let edit = |commands: &mut Commands| launches(commands).last().unwrap().grid[0] -= 1;
    found(&product(), edit, Shows::InResults);
}

fn a_workspace_that_is_too_small() {
    let device = device();
    let expected = column_sums()(device.clone()).unwrap();
    assert!(column_sums_without_room()(device).map_or(true, |bits| bits != expected));
}

/// An order in which a command comes before one that it waits for.
fn without_edge(dependencies: &[Vec<usize>], from: usize, to: usize) -> Vec<usize> {
    let mut first = vec![false; dependencies.len()];
    first[to] = true;
    for i in (0..=to).rev() {
        if first[i] {
            dependencies[i].iter().filter(|&&j| (j, i) != (from, to)).for_each(|&j| first[j] = true);
        }
    }
    let mut order: Vec<usize> = (0..first.len()).collect();
    order.sort_by_key(|&i| !first[i]);
    order
}

/// Commands run in the order of a permutation.
fn in_order(device: &Arc<SimulatedDevice>, sample: &Sample, order: Vec<usize>) -> Result<Bits, String> {
    sample(Edited::new(device, move |commands| {
        commands.list = order.iter().map(|&i| commands.list[i].clone()).collect();
    }))
}

/// Whichever edge between two commands is removed, an order that is possible then is found to be
/// wrong, or gives other results. With all edges, every order gives the same.
fn an_edge_that_is_removed() {
    let (device, sample) = (device(), attention("fp32", 19, 2, 12, true));
    let expected = sample(device.clone()).unwrap();
    let dependencies = commands(&device, &sample).dependencies();
    let edges: Vec<(usize, usize)> = dependencies
        .iter()
        .enumerate()
        .flat_map(|(to, all)| all.iter().map(move |&from| (from, to)))
        .collect();
    assert!(edges.len() >= 4, "{dependencies:?}");
    for (from, to) in edges {
        let order = without_edge(&dependencies, from, to);
        let said = format!("{from} -> {to} in order {order:?}");
        assert!(order.iter().position(|&i| i == to) < order.iter().position(|&i| i == from), "{said}");
        assert!(in_order(&device, &sample, order).map_or(true, |bits| bits != expected), "{said}");
    }
    // Whoever can go first does, the last command first.
    let (mut order, mut left): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..dependencies.len()).collect());
    while let Some(at) =
        left.iter().rposition(|&i| dependencies[i].iter().all(|before| order.contains(before)))
    {
        order.push(left.remove(at));
    }
    assert_eq!(in_order(&device, &sample, order), Ok(expected));
}

fn main() -> ExitCode {
    let mut tests: Vec<(String, Box<dyn FnOnce() + Send>)> = Vec::new();
    for fault in &IN_SOURCES {
        tests.push((format!("planted::{}", fault.name), Box::new(|| fault.test())));
    }
    let others: [(&str, fn()); 4] = [
        ("a_span_that_is_not_declared", a_span_that_is_not_declared),
        ("a_grid_that_is_too_small", a_grid_that_is_too_small),
        ("a_workspace_that_is_too_small", a_workspace_that_is_too_small),
        ("an_edge_that_is_removed", an_edge_that_is_removed),
    ];
    for (name, test) in others {
        tests.push((format!("planted::{name}"), Box::new(test)));
    }
    type Make = fn() -> Sample;
    let samples: [(&str, Make); 7] = [
        ("product", product),
        ("simt_product", || matmul("fp32", [70, 67, 37], [true, false])),
        ("rows", || softmax(2, 2400)),
        ("columns", column_sums),
        ("attention", tensor_attention),
        ("f32_attention", || attention("fp32", 70, 2, 20, false)),
        ("steps", || steps("bf16")),
    ];
    for (name, sample) in samples {
        tests.push((format!("clean::{name}"), Box::new(move || drop(clean(&device(), &sample())))));
    }
    common::run(tests)
}
