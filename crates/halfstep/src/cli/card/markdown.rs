//! Text of others in Markdown (<https://spec.commonmark.org/0.31.2/>).

/// Text as it is, on one line, whatever it would mean in Markdown.
pub fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '|' | '#' | '~' => {
                escaped.extend(['\\', c])
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The same as code in a cell of a table.
pub fn code(text: &str) -> String {
    let runs = text.split(|c| c != '`').map(str::len);
    let fence = "`".repeat(runs.max().unwrap_or(0) + 1);
    // A space on both sides parts backticks from the fence, and is not shown.
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{fence}{pad}{}{pad}{fence}", line.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markdown() {
        assert_eq!(text("digits: \"small\", 8×8 (gray)"), "digits: \"small\", 8×8 (gray)");
        assert_eq!(
            text("<script>|`a` [l](http:) *b* _i_ &amp; # \\"),
            "\\<script\\>\\|\\`a\\` \\[l\\](http:) \\*b\\* \\_i\\_ \\&amp; \\# \\\\"
        );
        assert_eq!(text("a\n# b\u{1b}[31m"), "a \\# b \\[31m");
        assert_eq!(code("checkpoints/bf16-seed0.safetensors"), "`checkpoints/bf16-seed0.safetensors`");
        assert_eq!(code("a|b\nc"), "`a\\|b c`");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(code("`a"), "`` `a ``");
    }
}
