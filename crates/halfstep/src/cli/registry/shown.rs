//! What a registry holds, for people and for programs.

use std::process::ExitCode;

use halfstep_registry::Registry;
use halfstep_registry::moves::Recorded;
use halfstep_registry::names::{Reference, RegisteredName};
use halfstep_registry::version::Version;
use serde_json::json;

use super::super::args::DiffVersions;
use super::super::failure::Failure;
use super::{Asked, failure, said};

/// A move in a line.
pub fn in_words(made: &Recorded) -> String {
    let record = &made.record;
    let from = record.from.map_or_else(|| "nothing".to_string(), |from| from.to_string());
    let reason = record.reason.as_deref().unwrap_or("no reason given");
    let forced = record.grounds.forced.as_ref().map(|why| format!("; forced: {why}")).unwrap_or_default();
    format!(
        "{}@{} from {from} to {}: {} {}, {}, by {}, {reason}{forced}",
        record.model,
        record.alias,
        record.to,
        record.kind.name(),
        record.number,
        record.at,
        record.who
    )
}

/// Aliases that point to a version.
fn aliases(heads: &[Recorded], version: &Version) -> Vec<String> {
    let here = |h: &&Recorded| h.record.model == version.model && h.record.to == version.digest;
    heads.iter().filter(here).map(|h| h.record.alias.to_string()).collect()
}

/// `registry list`.
pub fn list(model: Option<&RegisteredName>, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let versions = registry.versions(model).map_err(failure)?;
    let heads = registry.heads().map_err(failure)?;
    let mut found = Vec::new();
    let mut lines = Vec::new();
    for version in &versions {
        let aliases = aliases(&heads, version);
        found.push(json!({
            "model": version.model, "digest": version.digest, "added": version.added.to_string(),
            "bytes": version.bytes(), "aliases": aliases, "removed": version.removed,
        }));
        let state = version.removed.as_ref().map(|when| format!(", removed {when}")).unwrap_or_default();
        let named = if aliases.is_empty() { String::new() } else { format!(", {}", aliases.join(", ")) };
        let text =
            format!("{}, {} bytes, added {}{state}{named}", version.digest, version.bytes(), version.added);
        lines.push((version.model.as_str(), text));
    }
    said(asked, &json!({ "registry": registry.id(), "versions": found }), &lines)
}

/// `registry show`.
pub fn show(reference: &Reference, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let version = registry.resolve(reference).map_err(failure)?;
    let names = aliases(&registry.heads().map_err(failure)?, &version);
    let moves: Vec<Recorded> = history(&registry, &version)?;
    let records: Vec<_> = moves.iter().map(|made| &made.record).collect();
    let mut lines = vec![
        ("model", version.model.to_string()),
        ("version", version.digest.to_string()),
        ("added", format!("{} by {}", version.added, version.who)),
    ];
    lines.extend(version.removed.iter().map(|when| ("removed", when.clone())));
    if !names.is_empty() {
        lines.push(("aliases", names.join(", ")));
    }
    lines.extend(
        version.files.iter().map(|f| ("file", format!("{}, {} bytes, {}", f.name, f.bytes, f.sha256))),
    );
    lines.extend(version.attachments.iter().map(|a| {
        (a.kind.name(), format!("{}, {} bytes, attached {} by {}", a.sha256, a.bytes, a.added, a.who))
    }));
    lines.extend(moves.iter().map(|made| ("move", in_words(made))));
    said(asked, &json!({ "version": version, "aliases": names, "moves": records }), &lines)
}

/// The moves to and from a version.
fn history(registry: &Registry, version: &Version) -> Result<Vec<Recorded>, Failure> {
    let digest = Some(version.digest);
    let of = |m: &Recorded| {
        m.record.model == version.model && (Some(m.record.to) == digest || m.record.from == digest)
    };
    Ok(registry.history(0).map_err(failure)?.into_iter().filter(of).collect())
}

/// `registry diff`.
pub fn diff(args: &DiffVersions, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let [before, after] =
        [&args.before, &args.after].map(|reference| registry.resolve(reference).map_err(failure));
    let (before, after) = (before?, after?);
    let digest = |version: &Version, name: &str| {
        version.files.iter().find(|f| f.name == name).map(|f| f.sha256.to_string())
    };
    let mut names: Vec<&String> = before.files.iter().chain(&after.files).map(|f| &f.name).collect();
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    let mut lines = Vec::new();
    for name in names {
        let (was, is) = (digest(&before, name), digest(&after, name));
        let what = match (&was, &is) {
            (Some(was), Some(is)) if was == is => "same",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "gone",
            (None, _) => "new",
        };
        lines.push((what, name.clone()));
        found.push(json!({ "name": name, "is": what, "before": was, "after": is }));
    }
    said(asked, &json!({ "before": before.digest, "after": after.digest, "files": found }), &lines)
}
