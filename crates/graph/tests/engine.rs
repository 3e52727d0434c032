//! The interpreter, as an engine with memory of its own, passes what every engine must.

use halfstep_graph::conformance;
use halfstep_graph::interp::{InterpreterEngine, Rounding};

#[test]
fn the_interpreter_is_an_engine() {
    let left_out = conformance::check(&InterpreterEngine { rounding: Rounding::Stored }, None);
    // It runs all ranks at once, so it is none of several engines.
    assert_eq!(left_out, ["sums over ranks"]);
}
