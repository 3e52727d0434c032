//! The text of a recipe, and where its keys stand.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::error::RecipeError;

/// Where a key and its value stand in the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySpan {
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// The text a recipe was read from, kept so that a later mistake can point at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecipeText {
    name: String,
    text: String,
    /// By path, such as `model.heads`; sections by their name.
    places: BTreeMap<String, KeySpan>,
}

impl RecipeText {
    /// The text of a recipe that is read under a name.
    pub(super) fn new(name: &str, text: &str) -> RecipeText {
        RecipeText { name: name.to_string(), text: text.to_string(), places: BTreeMap::new() }
    }

    /// Where a key or section stands, by its path.
    pub(super) fn place(&self, path: &str) -> Option<&KeySpan> {
        self.places.get(path)
    }

    /// Adds the text to an error.
    pub fn own(&self, error: RecipeError) -> RecipeError {
        error.in_text(&self.name, &self.text)
    }

    /// An error at the value of `section.key`, or at the section if the key is not written.
    pub fn wrong(&self, section: &str, key: Option<&str>, message: &str, label: &str) -> RecipeError {
        let error = RecipeError::new(message);
        let path = key.map(|k| format!("{section}.{k}"));
        let value = path.and_then(|p| self.places.get(&p)).map(|p| p.value.clone());
        let place = value.or_else(|| self.places.get(section).map(|p| p.key.clone()));
        self.own(match place {
            Some(span) => error.at(span, label),
            None => error,
        })
    }

    /// The key of `section` whose text contains `needle`.
    pub fn key_holding(&self, section: &str, needle: &str) -> Option<&str> {
        let prefix = format!("{section}.");
        let holds = |place: &KeySpan| self.text.get(place.value.clone()).is_some_and(|t| t.contains(needle));
        let found = self.places.iter().find(|(path, place)| path.starts_with(&prefix) && holds(place));
        found.map(|(path, _)| &path[prefix.len()..])
    }

    /// The name the text was read under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line, counted from 1, of `key` in `section`, or of the section where the key is not
    /// written; none where neither is. Of a list, the line of the entry that holds `entry`.
    pub fn line_of(&self, section: &str, key: &str, entry: Option<&str>) -> Option<usize> {
        let place = self.places.get(&format!("{section}.{key}"));
        let inside = place.zip(entry).and_then(|(place, entry)| {
            Some(place.value.start + self.text.get(place.value.clone())?.find(entry)?)
        });
        let start = inside.or_else(|| place.or_else(|| self.places.get(section)).map(|p| p.key.start))?;
        Some(self.text.get(..start)?.matches('\n').count() + 1)
    }

    /// Forgets where a section stands and what is in it.
    pub(super) fn forget(&mut self, section: &str) {
        let prefix = format!("{section}.");
        self.places.retain(|path, _| path != section && !path.starts_with(&prefix));
    }

    /// Notes where the keys of a table stand.
    pub(super) fn record(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let path =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            if let Some(inner) = value.get_ref().as_table() {
                self.record(&path, inner);
            }
            self.places.insert(path, KeySpan { key: key.span(), value: value.span() });
        }
    }
}
