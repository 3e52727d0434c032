//! What a registry holds, for people and for programs.

use std::process::ExitCode;

use halfstep_registry::moves::Recorded;
use halfstep_registry::names::{Reference, RegisteredName};
use halfstep_registry::version::Version;
use halfstep_registry::{Registry, RegistryError};
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::trust;
use super::{Asked, failure, said};

/// A move for programs: its record, the digest of that, and the signature's text.
pub fn in_json(made: &Recorded) -> Value {
    let mut value = json!(made.record);
    value["sha256"] = json!(made.sha256);
    value["signature"] = json!(made.signature);
    value
}

/// A move in a line.
fn in_words(made: &Recorded) -> String {
    let record = &made.record;
    let from = record.from.map_or_else(|| "nothing".to_string(), |from| from.to_string());
    let reason = record.reason.as_deref().unwrap_or("no reason given");
    let unmet = record.grounds.unmet.join("; ");
    let although = if unmet.is_empty() { String::new() } else { format!(", although {unmet}") };
    let forced = record.grounds.forced.as_ref();
    let forced = forced.map(|why| format!("; forced: {why}{although}")).unwrap_or_default();
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

/// A move in a line, as it was made just now.
pub fn as_made(made: &Recorded) -> String {
    in_words(made) + if made.signature.is_some() { "; signed" } else { "" }
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
        let state =
            version.removed.as_ref().map(|when| format!(", without files since {when}")).unwrap_or_default();
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
    let (trust, at) = (trust::of_file(asked.trust.as_deref())?, trust::now()?);
    let mut records = Vec::new();
    let mut told = Vec::new();
    for made in &moves {
        let mut record = in_json(made);
        let signed = match (&made.signature, registry.mover(made, &trust, at)) {
            (None, _) => "not signed".to_string(),
            (Some(_), _) if trust.is_empty() => "nobody is trusted, so its signature was not checked".into(),
            (_, Ok(signer)) => {
                record["signed_by"] = json!(signer);
                signer.map_or_else(String::new, |signer| format!("signed by {signer}"))
            }
            (_, Err(e @ RegistryError::SignedMove { .. })) => e.to_string(),
            (_, Err(e)) => return Err(failure(e)),
        };
        record["signed"] = json!(signed);
        records.push(record);
        told.push(("move", format!("{}; {signed}", in_words(made))));
    }
    let mut lines = vec![
        ("model", version.model.to_string()),
        ("version", version.digest.to_string()),
        ("added", format!("{} by {}", version.added, version.who)),
    ];
    lines.extend(version.removed.iter().map(|when| ("without files", format!("since {when}"))));
    if !names.is_empty() {
        lines.push(("aliases", names.join(", ")));
    }
    lines.extend(
        version.files.iter().map(|f| ("file", format!("{}, {} bytes, {}", f.name, f.bytes, f.sha256))),
    );
    lines.extend(version.attachments.iter().map(|a| {
        (a.kind.name(), format!("{}, {} bytes, attached {} by {}", a.sha256, a.bytes, a.added, a.who))
    }));
    lines.extend(told);
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
