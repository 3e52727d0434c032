//! Whether output takes colours.

use std::io::IsTerminal;

/// Whether a stream takes colours: a terminal, unless `NO_COLOR` is set.
pub fn on(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}
