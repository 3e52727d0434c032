//! Names from files, as a terminal may be given them.

use std::borrow::Cow;

/// Whether a character shows as itself. Control characters do not, nor do those that turn the
/// direction of writing or cannot be seen at all; the joiners of Persian, Hindi and emoji do.
pub fn is_printable(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !hidden
}

/// Text in one line, with escapes such as `\n` and `\u{1b}` for what is not printable.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let escaped =
        text.chars().map(|c| if is_printable(c) { c.to_string() } else { c.escape_default().to_string() });
    Cow::Owned(escaped.collect())
}

/// Most characters of a message: what is longer quotes a file.
const LONGEST: usize = 2000;

/// The beginning of a message that is too long to be read, each line of it as [`printable`] gives
/// it.
pub fn readable(text: &str) -> String {
    let most = text.char_indices().nth(LONGEST).map(|(at, _)| at);
    let (shown, rest) = text.split_at(most.unwrap_or(text.len()));
    let shown = shown.split('\n').map(printable).collect::<Vec<_>>().join("\n");
    match rest.chars().count() {
        0 => shown,
        more => format!("{shown} … and {more} more characters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped_and_alphabets_are_not() {
        for plain in ["it's \"a\" \\ b", "日本", "öl", "e\u{301}", "हिन्दी", "می\u{200c}خواهم", "👩\u{200d}🔬"]
        {
            assert_eq!(printable(plain), plain);
        }
        assert_eq!(printable("a\x1b[2Jb\nPASS\r\u{9b}"), "a\\u{1b}[2Jb\\nPASS\\r\\u{9b}");
        assert_eq!(printable("\u{202e}gnp.exe"), "\\u{202e}gnp.exe");
    }

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(readable("two\nlines\x07"), "two\nlines\\u{7}");
        let cut = readable(&"ü".repeat(400_000));
        assert!(cut.starts_with("üü") && cut.ends_with(" … and 398000 more characters"), "{cut}");
    }
}
