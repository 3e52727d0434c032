//! Names of recipes and of arms, and of the folders that are called after them.

use halfstep_data::is_printable;

/// Longest name in bytes: a number comes behind it, and most systems end a name at 255.
const LONGEST: usize = 200;

/// Whether it can be read in one line, and a folder can be called after it.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |c: char| is_printable(c) && !matches!(c, '/' | '\\');
    name.len() <= LONGEST && name.chars().all(fits) && !name.starts_with('.') && !folder_name(name).is_empty()
}

/// What a folder of that name is called: as it is, but for characters that some system or shell
/// takes for something else, which become `-`. Empty if nothing else is left.
pub fn folder_name(name: &str) -> String {
    let plain = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
        false => is_printable(c) && !c.is_whitespace() && c != char::REPLACEMENT_CHARACTER,
    };
    let replaced: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let mut kept = replaced.trim_matches(['-', '.']);
    while kept.len() > LONGEST {
        let last = kept.char_indices().next_back().map_or(0, |(at, _)| at);
        kept = &kept[..last];
    }
    kept.to_string()
}

/// The name of a recipe in a file of that name.
pub(super) fn of_file(stem: &str) -> String {
    if is_name(stem) {
        return stem.to_string();
    }
    Some(folder_name(stem)).filter(|name| !name.is_empty()).unwrap_or_else(|| "recipe".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_called_after_any_name() {
        for (name, folder) in [
            ("my data", "my-data"),
            ("日本", "日本"),
            ("öl", "öl"),
            ("it's", "it-s"),
            ("a(1)", "a-1"),
            ("a+b", "a-b"),
            ("-x", "x"),
            ("v1.0", "v1.0"),
            ("UPPER_x-1", "UPPER_x-1"),
            ("50% off: now", "50--off--now"),
        ] {
            assert!(is_name(name), "{name}");
            assert_eq!(folder_name(name), folder);
            assert_eq!(of_file(name), name);
            assert_eq!(folder_name(folder), folder, "it stays what it is");
        }
        for name in ["", ".", "..", "a/b", "a\\b", "a\nb", "\x1b[2J", ".hid", " ", "?"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert_eq!(
            (of_file(".hid"), of_file("a\nb"), of_file("?")),
            ("hid".into(), "a-b".into(), "recipe".into())
        );
        let long = of_file(&"日".repeat(85));
        assert_eq!((long.len(), long.chars().count()), (198, 66), "cut between characters");
    }
}
