//! How long a training step would take on a GPU that is not at hand.
//!
//! ```console
//! $ export HALFSTEP_NVRTC=$(scripts/fetch_nvrtc.sh) HALFSTEP_PTXAS=$(scripts/fetch_ptxas.sh)
//! $ cargo run --release -p halfstep-gpu --features simulator --example predict -- h100 gpt bf16
//! ```
//!
//! Prints a line for each kernel. With a file of lines of `halfstep bench step --json --groups` as
//! fourth argument, it says how far estimates lie from what was measured.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/models.rs"]
mod models;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use common::ptxas;
use halfstep_gpu::predict::card::{Card, H100, H200};
use halfstep_gpu::predict::{Bound, CommandTime, Resources, StepTime, step};
use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::precision::Policy;
use halfstep_ptx::{Checks, Options};
use halfstep_train::session::Session;

type Failure = Box<dyn Error>;

#[expect(clippy::disallowed_methods, reason = "an example prints")]
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [card, model, precision] = [0, 1, 2].map(|i| arguments.get(i).map(String::as_str));
    let card = match card {
        Some("h200") => H200,
        _ => H100,
    };
    let (model, precision) = (model.unwrap_or("gpt"), precision.unwrap_or("bf16"));
    let checks = Checks { races: false, never_written: false };
    let device = common::device(Architecture::of_device(9, 0), Options { checks, ..Options::default() });
    let device = std::sync::Arc::new(device);
    let engine = GpuEngine::new(device.clone());
    let case = models::measured(model)?;
    let policy = Policy::named(precision)?;
    let session = Session::new(&engine, &*case.model, &case.input, &policy, &case.spec(&policy))?;
    let resources = resources(&device)?;
    let of = |module: usize, kernel: &str| resources[module][kernel];
    let step = step(&device, &card, case.classes, &of)?;
    let mut text = table(&step, &card);
    text += &format!(
        "\n{model} {precision}, {}: {} commands, predicted {:.2} ms one after another, {:.2} ms on the \
         critical path\n",
        card.name,
        step.commands.len(),
        step.sum_us / 1e3,
        step.critical_us / 1e3
    );
    if let Some(measured) = arguments.get(3) {
        let predicted = groups(&session, &step, &card);
        for line in std::fs::read_to_string(measured)?.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            if line["model"] == model && line["precision"] == precision && line["groups"].is_array() {
                text += &against(&predicted, &line);
            }
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// What ptxas says of each module of what was recorded.
fn resources(device: &halfstep_gpu::SimulatedDevice) -> Result<Vec<BTreeMap<String, Resources>>, Failure> {
    let ptx = device.ptx()?;
    Ok(ptx.iter().map(|ptx| ptxas::assemble(ptx, "sm_90a")).collect::<Result<_, _>>()?)
}

/// Commands of one kernel with as many blocks: where they are, how many, and their time.
fn table(step: &StepTime, card: &Card) -> String {
    let mut rows: BTreeMap<(String, u64, u32), (Vec<&CommandTime>, f64)> = BTreeMap::new();
    for command in &step.commands {
        let row = rows.entry((command.kernel.clone(), command.blocks, command.threads)).or_default();
        row.0.push(command);
        row.1 += command.work_us.max(card.least_us);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let mut text = "| kernel | first at | commands | blocks × threads | of a multiprocessor | bound by | µs each | µs |\n\
         |---|---|--:|--:|--:|---|--:|--:|\n"
        .to_string();
    for ((kernel, blocks, threads), (commands, us)) in rows {
        let first = commands[0];
        let bound = match first.bound {
            Bound::Dram => "DRAM",
            Bound::L2 => "L2",
            Bound::Rate(busiest) => busiest,
            Bound::Latency => "latency",
            Bound::Command => "command",
        };
        text += &format!(
            "| `{kernel}` | {} | {} | {blocks} × {threads} | {} | {bound} | {:.1} | {us:.0} |\n",
            first.at,
            commands.len(),
            first.resident,
            us / commands.len() as f64
        );
    }
    text
}

/// A group as `bench step` prints it: name, operations, bytes. Groups alike are one.
type Key = (String, u64, u64);

/// Predicted microseconds of groups, as they are measured: a launch at a time.
fn groups(session: &Session<'_>, step: &StepTime, card: &Card) -> BTreeMap<Key, f64> {
    let graph = &session.plan().graph;
    let mut groups = BTreeMap::new();
    for (i, group) in session.plan().groups.steps.iter().enumerate() {
        // The first command waits for the inputs, which come from the host.
        if step.commands.first().is_some_and(|command| command.step == Some(i)) {
            continue;
        }
        let operations: Vec<String> = group.nodes.iter().map(|&n| graph.node(n).op.name()).collect();
        let name = format!("{} {}", graph.node(group.root(graph)).name, operations.join("+"));
        let traffic = session.plan().groups.traffic(graph, group);
        let commands = step.commands.iter().filter(|command| command.step == Some(i));
        let us: f64 = commands.map(|command| command.work_us + card.least_measured_us).sum();
        let key = (name, traffic.flops, (traffic.read + traffic.written) as u64);
        *groups.entry(key).or_default() += us;
    }
    groups
}

/// Measured microseconds of groups.
fn measured_groups(line: &serde_json::Value) -> BTreeMap<Key, f64> {
    let mut groups = BTreeMap::new();
    for group in line["groups"].as_array().into_iter().flatten() {
        let number = |key: &str| group[key].as_f64().unwrap_or(0.0);
        let name = group["name"].as_str().unwrap_or_default().to_string();
        let key = (name, number("flops") as u64, number("bytes") as u64);
        *groups.entry(key).or_default() += 1e3 * number("ms");
    }
    groups
}

/// Predicted over measured times of groups: the middle, the tenths at both ends and the farthest.
fn against(predicted: &BTreeMap<Key, f64>, line: &serde_json::Value) -> String {
    let measured = measured_groups(line);
    // A group without time has no command of its own.
    let both = measured.into_iter().filter(|(_, us)| *us > 0.0);
    let both = both.filter_map(|(key, us)| Some((*predicted.get(&key)?, us, key.0)));
    let mut ratios: Vec<(f64, f64, String)> = both.collect();
    ratios.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let at = |share: f64| {
        let (predicted, measured, name) = &ratios[(share * (ratios.len() - 1) as f64) as usize];
        format!("{:.2} (`{name}`: {predicted:.1} of {measured:.1} µs)", predicted / measured)
    };
    let all = ratios.iter().fold((0.0, 0.0), |all, (p, m, _)| (all.0 + p, all.1 + m));
    format!(
        "predicted ÷ measured of {} groups: median {}, least {}, tenth {}, nine tenths {}, most {}; together \
         {:.2} of {:.2} ms\n",
        ratios.len(),
        at(0.5),
        at(0.0),
        at(0.1),
        at(0.9),
        at(1.0),
        all.0 / 1e3,
        all.1 / 1e3
    )
}
