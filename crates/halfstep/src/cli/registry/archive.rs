//! `halfstep registry export` and `import`: a registry as one file.

use std::path::Path;
use std::process::ExitCode;

use halfstep_registry::Registry;
use halfstep_registry::import::Import;
use serde_json::json;

use super::super::args::ExportRegistry;
use super::super::failure::Failure;
use super::super::{output, trust};
use super::{Asked, act, failure, rewound, said, seen};

/// `registry export`.
pub fn export(args: &ExportRegistry, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let done = registry.export(&args.file, args.model.as_ref(), act(None)?.at).map_err(failure)?;
    let found = json!({
        "registry": registry.id(), "file": args.file.display().to_string(), "versions": done.versions,
        "moves": done.moves, "files": done.files, "bytes": done.bytes,
    });
    let mut lines = vec![
        ("registry", registry.id().to_string()),
        ("versions", done.versions.to_string()),
        ("moves", done.moves.to_string()),
        ("written", format!("{}: {} files of {} bytes", args.file.display(), done.files, done.bytes)),
    ];
    let policy = registry.policy_file();
    if policy.exists() {
        lines.push(("left out", format!("{}, which each registry has its own of", policy.display())));
    }
    said(asked, &found, &lines)
}

/// `registry import`.
pub fn import(file: &Path, asked: &Asked) -> Result<ExitCode, Failure> {
    let (act, trust, accepted) = (act(None)?, trust::of_file(asked.trust.as_deref())?, asked.accepted()?);
    if trust.is_empty() {
        output::note("nobody is trusted, so no signature of a move was checked");
    }
    let import = Import { file, trust: &trust, act: &act, seen: &seen()?, older: accepted.as_ref().into() };
    let done = import.into_folder(&asked.folder).map_err(rewound)?;
    asked.remember(&Registry::open(&asked.folder).map_err(failure)?)?;
    let found = json!({
        "registry": done.registry, "versions": done.versions, "attachments": done.attachments,
        "moves": done.moves,
    });
    let lines = [
        ("registry", format!("{} in {}", done.registry, asked.folder.display())),
        ("versions", format!("{} new", done.versions)),
        ("attachments", format!("{} new", done.attachments)),
        ("moves", format!("{} new", done.moves)),
    ];
    said(asked, &found, &lines)
}
