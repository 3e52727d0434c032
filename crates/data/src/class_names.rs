//! Which spellings are the name of one class.

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::UnicodeNormalization;

use crate::printable::{is_printable, printable};

/// The name in Unicode's composed form (NFC, Unicode Standard Annex 15): `é` can be one character
/// or two, and macOS writes two into the names of files.
pub(crate) fn normal(name: &str) -> String {
    name.nfc().collect()
}

/// A sentence for each set of names that look alike: they may be one or several. `what` they are
/// names of begins it.
pub(crate) fn remarks<'n>(what: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut spellings: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    names.into_iter().for_each(|name| spellings.entry(look(name)).or_default().push(name));
    let alike = spellings.into_values().filter(|names| names.len() > 1);
    alike
        .map(|names| {
            let lower: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
            let how = match lower.len() {
                1 => "differ only in case",
                _ => "look alike (they differ in spaces, full stops, hidden characters or signs of one look)",
            };
            let names: Vec<String> = names.iter().map(|name| format!("`{}`", shown(name))).collect();
            format!(
                "{what} {} {how} and are kept apart; give them one name if they are one.",
                names.join(", ")
            )
        })
        .collect()
}

/// What names that look alike have in common: compatible characters (NFKC), no case, no hidden
/// characters, one kind of dash, quote and space, no full stop at the end.
fn look(name: &str) -> String {
    let alike = |c: char| match c {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{2018}' | '\u{2019}' | '`' | '\u{b4}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' => '"',
        c if c.is_whitespace() || c == '_' => ' ',
        c => c,
    };
    let text: String = name.nfkc().map(alike).filter(|c| is_printable(*c)).collect();
    let text = text.to_lowercase();
    text.split(' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches('.')
        .to_owned()
}

/// A name as a line of text may hold it: hidden characters as escapes, and no more of it than tells
/// it from others.
pub fn shown(name: &str) -> String {
    const SHOWN: usize = 60;
    let name = printable(name);
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_decomposed_names_are_one() {
        assert_eq!(normal("cafe\u{301}"), "caf\u{e9}");
        assert_eq!(normal("\u{1112}\u{1161}\u{11ab}"), "\u{d55c}", "a Hangul syllable");
        // Compatibility forms are other characters: `ﬁ` is not `fi`, nor `²` the digit.
        assert_eq!((normal("\u{fb01}").as_str(), normal("m²").as_str()), ("\u{fb01}", "m²"));
        assert_eq!(normal(" a"), " a");
    }

    #[test]
    fn names_that_differ_in_case_are_remarked_upon() {
        assert!(remarks("The classes", ["a", "b"]).is_empty());
        let said = remarks("The classes", ["Cat", "CAT", "dog", "Ünder", "ünder"]);
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("The classes `Cat`, `CAT` differ only in case"), "{said:?}");
    }

    #[test]
    fn names_that_look_alike_are_remarked_upon() {
        for pair in [
            ["New York", "New  York"],
            ["pre-war", "pre\u{2013}war"],
            ["it's", "it\u{2019}s"],
            ["a", "\u{ff41}"],
            ["a", "a\u{200b}"],
            ["fish", "\u{fb01}sh"],
            [">50K", ">50K."],
            ["cat", "cat "],
            ["new_york", "New York"],
        ] {
            let said = remarks("The classes", pair);
            assert!(said.len() == 1 && said[0].contains("look alike"), "{pair:?}: {said:?}");
        }
        for pair in [["<=50K", ">50K"], ["1", "11"], ["a+", "a-"], ["m²", "m"], ["*", "**"]] {
            assert!(remarks("The classes", pair).is_empty(), "{pair:?}");
        }
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"ü".repeat(100)), "ü".repeat(60) + "…");
    }
}
