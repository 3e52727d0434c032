//! `halfstep sign`: a model's files, or the verdict of a comparison.

mod judged;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfstep::train::run_dir::{LOCK, write_whole};
use halfstep_attest::bundle;
use halfstep_attest::model::{Manifest, ModelError};
use halfstep_attest::statement::Statement;
use serde_json::json;

use super::args::Sign;
use super::failure::Failure;
use super::{key, output};

/// The signature of a folder, in it.
pub const MODEL: &str = "model.sig";
/// The signed verdict of a comparison, in its folder.
pub const VERDICT: &str = "verdict.sig";

/// Runs the command.
pub fn run(args: Sign, threads: NonZeroUsize) -> Result<ExitCode, Failure> {
    let to = args.signature.unwrap_or_else(|| args.folder.join(if args.verdict { VERDICT } else { MODEL }));
    if to.exists() && !args.force {
        return Err(Failure::asked(
            format!("{} exists already", to.display()),
            "choose another file with --signature, or overwrite it with --force",
        ));
    }
    let (statement, what) = match args.verdict {
        true => {
            let verdict = judged::verdict(&args.folder, threads)?;
            let what = format!("{} files that were judged", verdict.subject().len());
            (Statement::of_verdict(verdict), what)
        }
        false => {
            let manifest = manifest(&args.folder, &to, args.ignore)?;
            let what = format!("{} files, SHA-256 over their digests {}", manifest.len(), manifest.root());
            (Statement::of_model(&name(&args.folder)?, manifest), what)
        }
    };
    // Last, so that nobody types a passphrase for what cannot be signed.
    let key = key::read(args.key)?;
    let text = bundle::sign(statement.to_json().as_bytes(), &key);
    write_whole(&to, text.as_bytes())?;
    let fingerprint = key.public().fingerprint();
    if args.json {
        output::json(&json!({
            "signature": to.display().to_string(),
            "fingerprint": fingerprint,
            "subject": statement.subject,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::raw(&output::fields(&[
        ("signed", format!("{}: {what}", args.folder.display())),
        ("key", fingerprint),
        ("signature", to.display().to_string()),
    ]));
    Ok(ExitCode::SUCCESS)
}

/// The files of a folder, less its signature and what a run that is under way locks it by.
fn manifest(folder: &Path, signature: &Path, mut ignored: Vec<String>) -> Result<Manifest, Failure> {
    if folder.join(LOCK).is_file() {
        ignored.push(LOCK.into());
    }
    let parent = signature.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unreadable = |path: &Path, e| Failure::of_file(path, &e);
    let top = folder.canonicalize().map_err(|e| unreadable(folder, e))?;
    let parent = parent.canonicalize().map_err(|e| unreadable(parent, e))?;
    if let (Ok(inside), Some(file)) = (parent.strip_prefix(&top), signature.file_name()) {
        ignored.push(inside.join(file).display().to_string());
    }
    Manifest::of_folder(folder, &ignored).map_err(|e| match e {
        ModelError::File { .. } => Failure::failed(e.to_string()),
        e => Failure::asked(e.to_string(), ""),
    })
}

/// A folder's own name, also of `.` and what ends in `..`.
fn name(folder: &Path) -> Result<String, Failure> {
    let whole: PathBuf = folder.canonicalize().map_err(|e| Failure::of_file(folder, &e))?;
    Ok(whole.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned()))
}
