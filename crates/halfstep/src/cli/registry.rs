//! `halfstep registry`: versions of models, and the aliases that say which of them is used.

mod add;
mod archive;
mod diff;
mod evidence;
mod moving;
mod shown;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use halfstep_registry::actor::{Act, Actor, Vouching};
use halfstep_registry::gc::Sweep;
use halfstep_registry::{Registry, RegistryError};
use serde_json::json;

use super::args::{CollectVersions, RegistryArgs, RegistryCommand};
use super::failure::Failure;
use super::{output, trust};

/// The environment's name for the folder.
const PLACE: &str = "HALFSTEP_REGISTRY";
const DAY: u64 = 24 * 60 * 60;

/// What all commands are given.
pub(super) struct Asked {
    pub folder: PathBuf,
    pub trust: Option<PathBuf>,
    /// Why an older state of the registry is accepted, where it is.
    pub accept_older: Option<String>,
    pub json: bool,
}

/// The folder that is named, or that the environment names.
pub(super) fn folder(named: Option<PathBuf>, missing: &str) -> Result<PathBuf, Failure> {
    let set = || std::env::var_os(PLACE).filter(|v| !v.is_empty()).map(PathBuf::from);
    named
        .or_else(set)
        .ok_or_else(|| Failure::asked(missing, format!("give its folder with --registry, or set {PLACE}")))
}

/// Runs the command. Exit codes: 0 done, 1 refused or something is wrong with the registry, 2
/// wrong arguments.
pub fn run(args: RegistryArgs) -> Result<ExitCode, Failure> {
    let folder = folder(args.registry, "no registry is named")?;
    let asked = Asked { folder, trust: args.trust, accept_older: args.accept_older, json: args.json };
    match args.command {
        RegistryCommand::Add(args) => add::run(args, &asked),
        RegistryCommand::Attach(args) => evidence::attach(args, &asked),
        RegistryCommand::List { model } => shown::list(model.as_ref(), &asked),
        RegistryCommand::Show { version } => shown::show(&version, &asked),
        RegistryCommand::Diff(args) => diff::run(&args, &asked),
        RegistryCommand::Promote(args) => moving::promote(args, &asked),
        RegistryCommand::Rollback(args) => moving::roll_back(args, &asked),
        RegistryCommand::Export(args) => archive::export(&args, &asked),
        RegistryCommand::Import { file } => archive::import(&file, &asked),
        RegistryCommand::Verify => verify(&asked),
        RegistryCommand::Gc(args) => collect(&args, &asked),
    }
}

impl Asked {
    /// The registry, which is no older than it was seen.
    pub fn open(&self) -> Result<Registry, Failure> {
        let registry = Registry::open(&self.folder).map_err(failure)?;
        self.remember(&registry)?;
        Ok(registry)
    }

    /// Checks the registry against what was seen of it, and remembers what it has now.
    pub fn remember(&self, registry: &Registry) -> Result<(), Failure> {
        let accepted = self.accepted()?;
        registry.remember(&seen()?, accepted.as_ref().into()).map_err(rewound)
    }

    /// By whom, when and why an older state is accepted, if it is.
    fn accepted(&self) -> Result<Option<Act>, Failure> {
        let Some(reason) = self.accept_older.clone() else { return Ok(None) };
        if reason.trim().is_empty() {
            return Err(Failure::asked(
                "--accept-older: there is no reason",
                "say why, for those who look later",
            ));
        }
        act(Some(reason)).map(Some)
    }
}

/// An error of what was seen of a registry.
fn rewound(e: RegistryError) -> Failure {
    match e {
        e @ RegistryError::Rewound(_) => failure(e).with_help(
            "if you brought it back yourself, say why with --accept-older, once: `halfstep registry list --accept-older REASON`, and of a file `halfstep registry import FILE --accept-older REASON`",
        ),
        e @ RegistryError::Unremembered { .. } => {
            failure(e).with_help("set XDG_STATE_HOME to a folder that can be written and stays")
        }
        e => failure(e),
    }
}

/// The folder for what was seen of registries.
fn seen() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let xdg = set("XDG_STATE_HOME").filter(|p| p.is_absolute());
    let home = || set("HOME").map(|home| home.join(".local").join("state"));
    let state = xdg.or_else(home).ok_or_else(|| {
        Failure::asked("there is no folder to remember in what was seen of registries", "set XDG_STATE_HOME")
    })?;
    Ok(state.join("halfstep").join("registries"))
}

/// The user as the system names them, now.
fn act(reason: Option<String>) -> Result<Act, Failure> {
    let unnamed = |_| "unknown".to_string();
    let user = whoami::username().unwrap_or_else(unnamed);
    let machine = whoami::hostname().unwrap_or_else(unnamed);
    let who = Actor { name: format!("{user} on {machine}"), said_by: Vouching::System };
    Ok(Act { who, at: trust::now()?, reason: reason.filter(|text| !text.trim().is_empty()) })
}

/// An error of a registry, with its exit code.
pub(super) fn failure(e: RegistryError) -> Failure {
    match e {
        RegistryError::Absent(_)
        | RegistryError::Occupied(_)
        | RegistryError::Name(_)
        | RegistryError::Unknown { .. }
        | RegistryError::Ambiguous { .. } => Failure::asked(e.to_string(), ""),
        e => Failure::failed(e.to_string()),
    }
}

fn verify(asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let trust = trust::of_file(asked.trust.as_deref())?;
    let audit = registry.audit(&trust, act(None)?.at).map_err(failure)?;
    if trust.is_empty() {
        output::note("nobody is trusted, so no signature was checked");
    }
    let found = json!({
        "versions": audit.versions, "files": audit.files, "moves": audit.moves,
        "signatures": audit.signatures, "faults": audit.faults,
    });
    let mut lines = vec![
        ("versions", audit.versions.to_string()),
        ("files", audit.files.to_string()),
        ("moves", audit.moves.to_string()),
        ("signatures", audit.signatures.to_string()),
    ];
    lines.extend(audit.faults.iter().map(|fault| ("wrong", fault.clone())));
    said(asked, &found, &lines)?;
    Ok(if audit.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn collect(args: &CollectVersions, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let sweep = Sweep {
        now: act(None)?.at,
        keep: Duration::from_secs(u64::from(args.keep_days) * DAY),
        grace: Duration::from_secs(u64::from(args.grace_hours) * 3600),
    };
    let done = if args.dry_run { registry.collectable(&sweep) } else { registry.collect(&sweep) };
    let done = done.map_err(failure)?;
    let found = json!({
        "marked": done.marked, "waiting": done.waiting, "removed": done.removed,
        "files": done.files, "bytes": done.bytes, "dry_run": args.dry_run,
    });
    let would = if args.dry_run { "would be " } else { "" };
    let mut lines = Vec::new();
    for (what, keys) in [("marked", &done.marked), ("waiting", &done.waiting), ("removed", &done.removed)] {
        lines.extend(keys.iter().map(|key| (what, format!("{}@{}", key.model, key.digest))));
    }
    lines.push(("files", format!("{} of {} bytes {would}removed", done.files, done.bytes)));
    said(asked, &found, &lines)
}

/// Prints for programs or for people.
fn said(asked: &Asked, found: &serde_json::Value, lines: &[(&str, String)]) -> Result<ExitCode, Failure> {
    if asked.json {
        output::json(found)?;
    } else {
        output::raw(&output::fields(lines));
    }
    Ok(ExitCode::SUCCESS)
}
