//! The nearest valid name, for error messages.

/// The candidate that `name` was most likely meant to be, if any is near: a Damerau–Levenshtein
/// distance of at most a third of the longer name, letter case ignored.
///
/// ```
/// assert_eq!(halfstep_data::nearest("tagret", ["path", "target"]), Some("target"));
/// assert_eq!(halfstep_data::nearest("zebra", ["path", "target"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.chars().count().max(lower.chars().count()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean `x`?)` or nothing.
pub(crate) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}
