//! Stdout and stderr. What cannot be written to them ends nothing: the work goes on, and the exit
//! code says that output was lost. Nothing else in the program writes to them.
#![allow(clippy::disallowed_methods)] // those that give the two streams

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use halfstep::data::{is_printable, printable};

/// Why stdout takes no more, once that is so.
static LOST: OnceLock<ErrorKind> = OnceLock::new();
/// Time until a stream that others have made non-blocking is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// Prints text to stdout, without what would control the terminal.
pub fn out(text: &str) {
    out_as_it_is(&safe(text, colours_on_stdout()));
}

/// Prints text to stdout as it is. What cannot be written is lost: of a reader that has gone away,
/// as `head` does, nothing is said; every other reason is said once.
pub fn out_as_it_is(text: &str) {
    if LOST.get().is_some() {
        return;
    }
    let Err(e) = write(&mut io::stdout().lock(), text) else { return };
    if LOST.set(e.kind()).is_ok() && !is_quiet(e.kind()) {
        err(&format!(
            "error: stdout cannot be written: {e}; the work goes on, and what it would print is lost\n"
        ));
    }
}

/// Prints text to stderr, without what would control the terminal. What cannot be written is
/// lost.
pub fn err(text: &str) {
    let _ = write(&mut io::stderr().lock(), &safe(text, colours_on_stderr()));
}

/// Text with escapes for all that is not printable, but for line ends and tabs, and for styles
/// where there are any: names in it come from files.
fn safe(text: &str, styled: bool) -> Cow<'_, str> {
    let plain = |c: char| matches!(c, '\n' | '\t') || is_printable(c);
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let (mut safe, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let style = Some(rest).filter(|_| styled).and_then(style);
        let (taken, shown) = match style {
            Some(style) => (style.len(), Cow::Borrowed(style)),
            None if plain(c) => (c.len_utf8(), Cow::Borrowed(&rest[..c.len_utf8()])),
            None => (c.len_utf8(), printable(&rest[..c.len_utf8()])),
        };
        safe += &shown;
        rest = &rest[taken..];
    }
    Cow::Owned(safe)
}

/// The style that a text begins with, as ANSI writes it: `ESC [ 1 ; 31 m`.
fn style(text: &str) -> Option<&str> {
    let codes = text.strip_prefix("\x1b[")?;
    let end = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    codes[end..].starts_with('m').then(|| &text[..end + 3])
}

fn write(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut left = text.as_bytes();
    loop {
        let written = if left.is_empty() { stream.flush().map(|()| 0) } else { stream.write(left) };
        match written {
            Ok(_) if left.is_empty() => return Ok(()),
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => left = &left[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(e) => return Err(e),
        }
    }
}

/// A reader that went away has seen what it wanted.
fn is_quiet(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Whether nobody reads stdout any more, so that work for it alone may end.
pub fn is_lost() -> bool {
    LOST.get().is_some()
}

/// The exit code of a command that ended with `code`: `failure` where all went well but what it
/// printed could not be written.
pub fn exit_code(code: ExitCode, failure: u8) -> ExitCode {
    match LOST.get() {
        Some(&kind) if !is_quiet(kind) && code == ExitCode::SUCCESS => ExitCode::from(failure),
        _ => code,
    }
}

/// Whether stdout takes colours.
pub fn colours_on_stdout() -> bool {
    takes_colours(&io::stdout())
}

/// Whether stderr takes colours.
pub fn colours_on_stderr() -> bool {
    takes_colours(&io::stderr())
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A terminal does, unless `NO_COLOR` is set.
fn takes_colours(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one byte at a time, and after each wants to be asked again.
    #[derive(Default)]
    struct Slow {
        taken: Vec<u8>,
        calls: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            match self.calls % 3 {
                0 => Err(ErrorKind::WouldBlock.into()),
                1 => Err(ErrorKind::Interrupted.into()),
                _ => {
                    self.taken.push(bytes[0]);
                    Ok(1)
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn names_do_not_control_the_terminal() {
        let text = "\x1b[1mPASS\x1b[0m: `a\x1b[2Jb\r`\n\tc";
        assert_eq!(safe(text, true), "\x1b[1mPASS\x1b[0m: `a\\u{1b}[2Jb\\r`\n\tc");
        assert_eq!(safe(text, false), "\\u{1b}[1mPASS\\u{1b}[0m: `a\\u{1b}[2Jb\\r`\n\tc");
        assert!(matches!(safe("plain\n", false), Cow::Borrowed(_)));
    }

    #[test]
    fn a_stream_that_does_not_block_is_given_time() {
        let mut slow = Slow::default();
        write(&mut slow, "text\n").unwrap();
        assert_eq!(slow.taken, b"text\n");
        assert!(write(&mut slow, "").is_ok());
    }
}
