//! `halfstep key api`: a key for clients of a server.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use halfstep::train::run_dir::write_whole;
use halfstep_serve::access::{ApiKeys, NewKey};
use serde_json::json;

use super::super::args::ApiKey;
use super::super::failure::Failure;
use super::super::output;

/// Runs the command.
pub fn run(args: ApiKey) -> Result<ExitCode, Failure> {
    let key = NewKey::generate(&args.name, &args.scopes, args.expires);
    let key = key.map_err(|e| Failure::asked(e.to_string(), ""))?;
    if let Some(path) = &args.file {
        add(path, &key.entry)?;
    }
    if args.json {
        output::json(&json!({ "name": args.name, "key": key.secret, "entry": key.entry }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&key.secret);
    output::message("\nThis is the key. It is kept nowhere: whoever is to use it has to get it now.");
    match &args.file {
        Some(path) => output::message(&format!("Its hash was added to {}.", path.display())),
        None => output::message(&format!("Its entry for a file of keys:\n\n{}", key.entry)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds an entry to a file of keys, if the whole is one.
fn add(path: &Path, entry: &str) -> Result<(), Failure> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Failure::of_file(path, &e)),
    };
    if path.exists() {
        ApiKeys::read(path).map_err(|e| Failure::asked(e.to_string(), ""))?;
    }
    let between = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let all = format!("{before}{between}{entry}");
    ApiKeys::parse(&all).map_err(|e| Failure::of_file(path, &e))?;
    Ok(write_whole(path, all.as_bytes())?)
}
