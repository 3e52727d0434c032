//! Which spellings are the name of one class.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

/// The name in Unicode's composed form (NFC, Unicode Standard Annex 15): `é` can be one character
/// or two, and macOS writes two into the names of files.
pub(crate) fn normal(name: &str) -> String {
    name.nfc().collect()
}

/// A sentence for each set of names that differ only in case: they may be one class or several.
pub(crate) fn remarks<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut spellings: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    names.into_iter().for_each(|name| spellings.entry(name.to_lowercase()).or_default().push(name));
    let alike = spellings.into_values().filter(|names| names.len() > 1);
    alike
        .map(|names| {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "The classes {} differ only in case and are kept apart; give them one name if they are one class.",
                names.join(", ")
            )
        })
        .collect()
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
        assert!(remarks(["a", "b"]).is_empty());
        let said = remarks(["Cat", "CAT", "dog", "Ünder", "ünder"]);
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("The classes `Cat`, `CAT` differ only in case"), "{said:?}");
    }
}
