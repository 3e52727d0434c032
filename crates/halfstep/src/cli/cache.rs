//! `halfstep cache`: what is kept of earlier comparisons, and compiled kernels.

use std::process::ExitCode;

use halfstep::evidence::units;
use halfstep::train::run_dir::{RunDir, RunDirError};
use serde_json::json;

use super::args::CacheArgs;
use super::compare::cache::{contents, entries};
use super::failure::Failure;
use super::output;

/// Runs the command.
pub fn run(args: CacheArgs) -> Result<ExitCode, Failure> {
    let place = halfstep::cache_folder().ok_or_else(|| {
        Failure::asked(
            "no folder for the cache is known",
            "set HALFSTEP_CACHE, XDG_CACHE_HOME or HOME to a folder",
        )
    })?;
    let unreadable =
        |e: std::io::Error| Failure::failed(format!("the cache {} cannot be read: {e}", place.display()));
    let kernels = halfstep::kernel_cache(&place);
    let (mut removed, mut kernels_removed) = (0, 0);
    if args.clear {
        for path in entries(&place).map_err(unreadable)? {
            // Locked while it is removed, so that no process begins to use it.
            let locked = match RunDir::resume(&path) {
                Err(RunDirError::Busy { .. }) => continue,
                other => other,
            };
            let gone = std::fs::remove_dir_all(&path);
            gone.map_err(|e| Failure::failed(format!("{}: cannot be removed: {e}", path.display())))?;
            drop(locked);
            removed += 1;
        }
        kernels_removed = kernels
            .clear()
            .map_err(|e| Failure::failed(format!("a compiled kernel cannot be removed: {e}")))?;
    }
    let (contents, compiled) = (contents(&place).map_err(unreadable)?, kernels.contents());
    if args.json {
        output::json(&json!({
            "place": place.display().to_string(),
            "finished": contents.finished,
            "unfinished": contents.unfinished,
            "bytes": contents.bytes,
            "removed": removed,
            "kernels": {
                "modules": compiled.modules,
                "bytes": compiled.bytes,
                "removed": kernels_removed,
            },
        }))?;
    } else {
        let mut fields = vec![
            ("place", place.display().to_string()),
            ("finished runs", contents.finished.to_string()),
            ("begun runs", contents.unfinished.to_string()),
            ("size", units::bytes(contents.bytes as usize)),
            ("compiled kernels", format!("{}, {}", compiled.modules, units::bytes(compiled.bytes as usize))),
        ];
        if args.clear {
            fields.push(("removed", format!("{removed} runs, {kernels_removed} kernels")));
        }
        output::raw(&output::fields(&fields));
    }
    Ok(ExitCode::SUCCESS)
}
