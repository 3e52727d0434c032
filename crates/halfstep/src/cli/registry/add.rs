//! `halfstep registry add`: what of a run directory becomes a version.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfstep::train::checkpoint;
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::{CHECKPOINTS, LOCK, PLAN, PREPROCESSING, RECIPE, RUN, RunDir, SAMPLES};
use halfstep_registry::Registry;
use halfstep_registry::version::{NewVersion, Outcome};
use serde_json::json;

use super::super::args::{AddVersion, Evidence};
use super::super::failure::Failure;
use super::super::open::checkpoint_name;
use super::super::{key, sign};
use super::evidence::{self, Attached};
use super::{Asked, act, failure, said};

/// Runs the command.
pub fn run(args: AddVersion, asked: &Asked) -> Result<ExitCode, Failure> {
    let (files, left_out) = files(&args.run, args.checkpoint.as_deref())?;
    let Evidence { mut verdict, card, sign, key } = args.evidence;
    let own = args.run.join(sign::VERDICT);
    if verdict.is_empty() && own.is_file() {
        verdict.push(own);
    }
    let evidence = evidence::files(&verdict, &card)?;
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
    let key = if sign { Some(key::read(key)?) } else { None };
    let act = act(args.reason)?;
    let registry = Registry::open_or_create(&asked.folder, &act).map_err(failure)?;
    asked.remember(&registry)?;
    let new = NewVersion { model: args.model, files: &files };
    let (version, outcome) = registry.add(&new, &act).map_err(failure)?;
    let attached = Attached::to(&registry, &version, &evidence, key.as_ref(), &act)?;
    let head =
        registry.make_candidate(&version.model, version.digest, &act, key.as_ref()).map_err(failure)?;
    asked.remember(&registry)?;
    let known = outcome == Outcome::Known;
    let what = if known { "there already" } else { "added" };
    lines.insert(0, ("version", format!("{}@{}, {what}", version.model, version.digest)));
    lines.extend(attached.lines());
    lines.push(("candidate", super::shown::as_made(&head)));
    let found = json!({
        "model": version.model, "digest": version.digest, "known": known, "files": names,
        "left_out": left_out, "attached": attached.json(), "candidate": head.record,
    });
    said(asked, &found, &lines)
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
    let unreadable = |e: std::io::Error| Failure::of_file(run, &e);
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
