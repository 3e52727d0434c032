//! `halfstep registry add`: what of a run directory becomes a version.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfstep::train::checkpoint;
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::{CHECKPOINTS, LOCK, PLAN, PREPROCESSING, RECIPE, RUN, RunDir, SAMPLES};
use halfstep_attest::bundle::{self, Bundle};
use halfstep_attest::statement::Statement;
use halfstep_registry::Registry;
use halfstep_registry::version::{AttachmentKind, NewVersion, Outcome};
use serde_json::json;

use super::super::args::AddVersion;
use super::super::failure::Failure;
use super::super::open::checkpoint_name;
use super::super::{key, sign};
use super::{Asked, act, failure, said};

/// Runs the command.
pub fn run(args: AddVersion, asked: &Asked) -> Result<ExitCode, Failure> {
    let (files, left_out) = files(&args.run, args.checkpoint.as_deref())?;
    let own = args.run.join(sign::VERDICT);
    let verdict = args.verdict.or_else(|| own.is_file().then_some(own));
    let verdict = verdict.as_deref().map(bundle_of).transpose()?;
    let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
    let mut lines: Vec<(&str, String)> = names.iter().map(|name| ("file", (*name).clone())).collect();
    if !left_out.is_empty() {
        lines.push(("left out", left_out.join(", ")));
    }
    if args.dry_run {
        let found = json!({ "model": args.model, "files": names, "left_out": left_out });
        return said(asked, &found, &lines);
    }
    // Before anything is added, so that a wrong passphrase leaves nothing half done.
    let key = if args.sign { Some(key::read(args.key)?) } else { None };
    let act = act(args.reason)?;
    let registry = Registry::open_or_create(&asked.folder, &act).map_err(failure)?;
    asked.remember(&registry)?;
    let new = NewVersion { model: args.model, files: &files };
    let (version, outcome) = registry.add(&new, &act).map_err(failure)?;
    let attach = |kind, bytes: &[u8]| {
        registry
            .attach(&version.model, version.digest, kind, bytes, &act)
            .map_err(failure)
            .map(|(digest, _)| digest)
    };
    let mut attached = Vec::new();
    if let Some(bytes) = verdict {
        attached.push(("verdict", attach(AttachmentKind::Verdict, &bytes)?));
    }
    if let Some(key) = key {
        let statement = Statement::of_model(version.model.as_str(), version.manifest().map_err(failure)?);
        let text = bundle::sign(statement.to_json().as_bytes(), &key);
        attached.push(("signature", attach(AttachmentKind::Signature, text.as_bytes())?));
    }
    let head = registry.make_candidate(&version.model, version.digest, &act).map_err(failure)?;
    asked.remember(&registry)?;
    let known = outcome == Outcome::Known;
    let what = if known { "there already" } else { "added" };
    lines.insert(0, ("version", format!("{}@{}, {what}", version.model, version.digest)));
    lines.extend(attached.iter().map(|(kind, digest)| (*kind, digest.to_string())));
    lines.push(("candidate", super::shown::in_words(&head)));
    let attached: Vec<_> =
        attached.iter().map(|(kind, sha256)| json!({ "kind": kind, "sha256": sha256 })).collect();
    let found = json!({
        "model": version.model, "digest": version.digest, "known": known, "files": names,
        "left_out": left_out, "attached": attached, "candidate": head.record,
    });
    said(asked, &found, &lines)
}

/// A signed verdict's bytes, if it is a bundle.
fn bundle_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::asked(format!("{}: {e}", path.display()), "");
    let bytes = std::fs::read(path).map_err(|e| wrong(&e))?;
    Bundle::parse(&bytes).map_err(|e| wrong(&e))?;
    Ok(bytes)
}

/// Files of a version, by their names in it.
type Files = Vec<(String, PathBuf)>;

/// What of a run directory `predict` and `serve` need, and what is left out.
fn files(run: &Path, asked: Option<&str>) -> Result<(Files, Vec<String>), Failure> {
    let dir = RunDir::open(run)?;
    let recipe = Recipe::read(&dir.file(RECIPE))?;
    let chosen = checkpoint_name(&dir, &recipe, asked)?;
    let weights = dir.checkpoint(&chosen);
    checkpoint::manifest(&weights)?;
    let mut files: Files = vec![(format!("{CHECKPOINTS}/{chosen}.safetensors"), weights)];
    let there = [RECIPE, PREPROCESSING, PLAN, RUN, SAMPLES].into_iter().map(|name| (name, dir.file(name)));
    files.extend(there.filter(|(_, path)| path.is_file()).map(|(name, path)| (name.to_string(), path)));
    let mut left_out: Vec<String> = dir
        .checkpoints()
        .into_iter()
        .filter(|name| *name != chosen)
        .map(|name| format!("{CHECKPOINTS}/{name}"))
        .collect();
    let unreadable = |e: std::io::Error| Failure::asked(format!("{}: {e}", run.display()), "");
    for entry in std::fs::read_dir(run).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        let ours = [LOCK, CHECKPOINTS, sign::VERDICT].contains(&name.as_str());
        if !ours && !files.iter().any(|(file, _)| *file == name) {
            left_out.push(name);
        }
    }
    left_out.sort();
    Ok((files, left_out))
}
