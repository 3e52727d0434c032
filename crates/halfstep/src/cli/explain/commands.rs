//! `explain --stage device`: what a GPU is asked to do in one run of a program.

use halfstep::EngineRequest;
use halfstep::gpu::command::{Action, Command, Commands, Input, Launch, Span};
use halfstep::graph::Plan;
use halfstep::graph::engine::Engine;
use halfstep::train::session::TrainError;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output;

/// Prints the commands of a plan for the GPU that is asked for.
///
/// # Errors
/// It is the CPU that is asked for.
pub fn show(plan: &Plan, precision: &str, request: EngineRequest, as_json: bool) -> Result<(), Failure> {
    let Some(gpu) = halfstep::planning_gpu(request)? else {
        return Err(Failure::asked(
            "the CPU is given no commands: it runs the groups of --stage fused, one after another",
            "name a GPU with --device, or an architecture, none of which need be there: --device sm_90a",
        ));
    };
    let commands = gpu.commands(plan).map_err(TrainError::from)?;
    if as_json {
        return output::json(&object(plan, precision, &gpu.name(), &commands));
    }
    let held = plan.footprint;
    output::line(&format!(
        "{precision} on {}: {} commands of {} modules\nbytes: slots {}, arena {}, constants {}, outputs {}, staging {}",
        gpu.name(),
        commands.list.len(),
        commands.modules.len(),
        held.state,
        held.arena,
        held.constants,
        held.outputs,
        held.staging
    ));
    output::raw(&text(&commands, output::width()));
    Ok(())
}

/// Inputs, commands and outputs, each by its number, in lines of so many columns.
fn text(commands: &Commands, columns: usize) -> String {
    let first = commands.inputs.len();
    let mut out = String::new();
    let mut block = |number: usize, lines: &[String]| {
        for (i, line) in lines.iter().enumerate() {
            let head = if i == 0 { format!("{number:>5}  ") } else { " ".repeat(7) };
            let options = output::wrapped(columns).initial_indent(&head).subsequent_indent("         ");
            out += &(textwrap::fill(line, &options) + "\n");
        }
    };
    for (number, input) in commands.inputs.iter().enumerate() {
        let mut lines = vec![format!("input {}", input.name), format!("writes {}", input.to)];
        if let Some([one, other]) = input.ahead {
            lines.insert(1, format!("reads {one} or {other}, by turns"));
        }
        block(number, &lines);
    }
    let edges = commands.edges();
    for (i, command) in commands.list.iter().enumerate() {
        block(first + i, &lines(command, commands, &edges[first + i]));
    }
    out
}

fn lines(command: &Command, commands: &Commands, after: &[usize]) -> Vec<String> {
    let waits = format!("waits for {}", list(after));
    let (what, how) = match &command.action {
        Action::Launch(launch) => (kernel(launch, commands), format!("{}; {waits}", extent(launch))),
        Action::Copy { from, .. } => ("copy".to_string(), format!("{} bytes; {waits}", from.bytes)),
    };
    let step = command.step.map_or_else(String::new, |step| format!(", step {step}"));
    vec![
        format!("{what} for {}{step}", command.at),
        how,
        format!("reads {}", list(command.action.reads())),
        format!("writes {}", list(command.action.writes())),
    ]
}

/// File and name, and what the macros of its module stand for.
fn kernel(launch: &Launch, commands: &Commands) -> String {
    let module = &commands.modules[launch.kernel.module];
    let defines: Vec<String> =
        module.defines.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{} {}{}", module.name, launch.kernel.entry, defines.concat())
}

fn extent(launch: &Launch) -> String {
    let [x, y, z] = launch.grid;
    let shared = match launch.shared {
        0 => String::new(),
        bytes => format!(", {bytes} bytes of shared memory"),
    };
    format!("grid {x}×{y}×{z}, block {}{shared}", launch.block)
}

fn list<T: ToString>(of: &[T]) -> String {
    if of.is_empty() {
        return "nothing".into();
    }
    of.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn object(plan: &Plan, precision: &str, engine: &str, commands: &Commands) -> Value {
    let span = |s: &Span| json!({ "region": s.region.to_string(), "offset": s.offset, "bytes": s.bytes });
    let spans = |all: &[Span]| all.iter().map(span).collect::<Vec<Value>>();
    let first = commands.inputs.len();
    let edges = commands.edges();
    let command = |(i, command): (usize, &Command)| {
        let mut object = json!({
            "number": first + i,
            "node": command.at,
            "step": command.step,
            "reads": spans(command.action.reads()),
            "writes": spans(command.action.writes()),
            "after": edges[first + i],
        });
        if let Action::Launch(launch) = &command.action {
            object["kernel"] = json!(launch.kernel.entry);
            object["module"] = json!(launch.kernel.module);
            object["grid"] = json!(launch.grid);
            object["block"] = json!(launch.block);
            object["shared_bytes"] = json!(launch.shared);
        }
        object
    };
    let input = |(i, x): (usize, &Input)| {
        let ahead = x.ahead.as_ref().map(|places| spans(places));
        json!({ "number": i, "name": x.name, "ahead": ahead, "to": span(&x.to) })
    };
    let inputs = commands.inputs.iter().enumerate();
    json!({
        "precision": precision,
        "engine": engine,
        "footprint": plan.footprint,
        "modules": commands.modules.iter().map(|m| json!({ "name": m.name, "defines": m.defines })).collect::<Vec<_>>(),
        "inputs": inputs.map(input).collect::<Vec<_>>(),
        "commands": commands.list.iter().enumerate().map(command).collect::<Vec<_>>(),
        "outputs": spans(&commands.outputs),
    })
}
