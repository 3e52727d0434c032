//! Whether output takes colours.

use std::io::IsTerminal;

/// Whether stderr takes colours: a terminal, unless `NO_COLOR` is set.
pub fn on_stderr() -> bool {
    wanted(std::io::stderr().is_terminal())
}

/// Whether stdout takes colours.
pub fn on_stdout() -> bool {
    wanted(std::io::stdout().is_terminal())
}

fn wanted(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}
