//! The GPU engine passes what every engine must, on a simulated GPU that checks every access of its
//! kernels.

mod common;

use std::process::ExitCode;

use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::conformance;
use halfstep_ptx::{Arrival, Options};

fn late() -> Options {
    Options::default()
}

fn shuffled() -> Options {
    Options { arrival: Arrival::Early, seed: Some(7), ..Options::default() }
}

fn nothing_is_left_out(left_out: Vec<String>) {
    assert!(left_out.is_empty(), "not tested: {left_out:?}");
}

fn main() -> ExitCode {
    type Part = fn(&GpuEngine);
    let parts: [(&str, Part); 4] = [
        ("operations", |engine| nothing_is_left_out(conformance::operations(engine))),
        ("step", |engine| nothing_is_left_out(conformance::step(engine))),
        ("state", |engine| conformance::state(engine)),
        ("fusion", |engine| nothing_is_left_out(conformance::fusion(engine))),
    ];
    let devices =
        [(Architecture::MINIMUM, late as fn() -> Options), (Architecture::of_device(9, 0), shuffled)];
    let tests = devices.into_iter().flat_map(|(architecture, options)| {
        parts.map(|(part, check)| -> (String, Box<dyn FnOnce() + Send>) {
            let test = move || check(&common::engine(architecture, options()));
            (format!("{architecture}::{part}"), Box::new(test))
        })
    });
    common::run(tests.collect())
}
