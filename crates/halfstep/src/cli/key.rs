//! `halfstep key`, and where keys and trust lie.

mod api;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfstep::train::run_dir::write_whole;
use halfstep_attest::private_key::{Passphrase, PrivateKey, PrivateKeyError};
use serde_json::json;
use zeroize::Zeroizing;

pub use api::run as api;

use super::args::NewKey;
use super::failure::Failure;
use super::output;

/// The environment's name for another folder of keys.
const PLACE: &str = "HALFSTEP_KEYS";
/// The environment's passphrase.
const PASSPHRASE: &str = "HALFSTEP_PASSPHRASE";
const PRIVATE: &str = "signing-key.pem";
/// The file that says who is trusted.
pub const TRUST: &str = "trust.toml";
/// Fewest characters of a new passphrase.
const SHORTEST: usize = 8;

/// `$HALFSTEP_KEYS`, or `halfstep` in `$XDG_CONFIG_HOME`, or in `.config` of the home folder.
pub fn folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // A relative XDG_CONFIG_HOME is to be ignored, says its specification.
    let xdg = || set("XDG_CONFIG_HOME").filter(|p| p.is_absolute()).map(|p| p.join("halfstep"));
    let home = || set("HOME").map(|p| p.join(".config").join("halfstep"));
    set(PLACE)
        .or_else(xdg)
        .or_else(home)
        .ok_or_else(|| Failure::asked("no folder for keys is known", "set HALFSTEP_KEYS, or name the file"))
}

/// `halfstep key new`.
pub fn new(args: NewKey) -> Result<ExitCode, Failure> {
    let private = match args.out {
        Some(path) => path,
        None => folder()?.join(PRIVATE),
    };
    let public = private.with_extension("pub.pem");
    for path in [&private, &public] {
        if path.exists() {
            return Err(Failure::asked(
                format!("{} exists already, and keys are not overwritten", path.display()),
                "name another file with --out; to replace a key, keep the old public key in the trust file as long as its signatures count",
            ));
        }
    }
    let passphrase = if args.no_passphrase { None } else { Some(new_passphrase()?) };
    if let Some(parent) = private.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    let key = PrivateKey::generate().map_err(failed)?;
    key.write(&private, passphrase.as_ref()).map_err(failed)?;
    let pem = key.public().to_pem();
    write_whole(&public, pem.as_bytes())?;
    let fingerprint = key.public().fingerprint();
    if args.json {
        output::json(&json!({
            "private": private.display().to_string(),
            "public": public.display().to_string(),
            "encrypted": passphrase.is_some(),
            "curve": key.public().curve(),
            "fingerprint": fingerprint,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let how = if passphrase.is_some() { "encrypted" } else { "not encrypted: whoever can read it can sign" };
    output::raw(&output::fields(&[
        ("private key", format!("{}, {how}", private.display())),
        ("public key", public.display().to_string()),
        ("fingerprint", fingerprint),
    ]));
    output::line("\nWho is to trust it puts this into a trust file, and gives it a name:\n");
    output::raw(&format!("[[key]]\nname = \"…\"\npublic = \"\"\"\n{pem}\"\"\"\n"));
    Ok(ExitCode::SUCCESS)
}

/// A folder that its owner alone can read.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| Failure::failed(format!("{}: cannot be made: {e}", folder.display())))
}

/// Reads a private key, with its passphrase where it is encrypted.
pub fn read(path: Option<PathBuf>) -> Result<PrivateKey, Failure> {
    let (path, named) = match path {
        Some(path) => (path, true),
        None => (folder()?.join(PRIVATE), false),
    };
    if !named && !path.exists() {
        return Err(Failure::asked(
            format!("there is no key to sign with: {} does not exist", path.display()),
            "`halfstep key new` makes one, and --key names another",
        ));
    }
    let prompt = format!("Passphrase of {}: ", path.display());
    PrivateKey::read(&path, || ask(&prompt)).map_err(failed)
}

fn failed(e: PrivateKeyError) -> Failure {
    match e {
        PrivateKeyError::PassphraseNeeded { .. } => Failure::asked(
            e.to_string(),
            format!("set {PASSPHRASE}, or run this where there is a terminal to ask on"),
        ),
        PrivateKeyError::Exposed { .. }
        | PrivateKeyError::Malformed { .. }
        | PrivateKeyError::OtherKind { .. }
        | PrivateKeyError::WrongPassphrase { .. } => Failure::asked(e.to_string(), ""),
        PrivateKeyError::File { .. } | PrivateKeyError::NotMade(_) => Failure::failed(e.to_string()),
    }
}

fn in_environment() -> Option<Passphrase> {
    std::env::var(PASSPHRASE).ok().filter(|text| !text.is_empty()).map(Zeroizing::new)
}

/// The passphrase from the environment or the terminal; none where there is neither.
fn ask(prompt: &str) -> Option<Passphrase> {
    let on_terminal = || {
        std::io::stdin().is_terminal().then(|| rpassword::prompt_password(prompt).ok().map(Zeroizing::new))
    };
    in_environment().or_else(|| on_terminal().flatten())
}

/// A passphrase for a new key, typed twice where it is typed.
fn new_passphrase() -> Result<Passphrase, Failure> {
    let first = ask("Passphrase for the new key: ").ok_or_else(|| {
        Failure::asked(
            "there is no terminal to ask for a passphrase on",
            format!("set {PASSPHRASE}, or leave the key unencrypted with --no-passphrase"),
        )
    })?;
    if first.chars().count() < SHORTEST {
        return Err(Failure::asked(
            format!("the passphrase has fewer than {SHORTEST} characters"),
            "take a longer one: whoever copies the file can try as many as they like",
        ));
    }
    if in_environment().is_none() && ask("The same again: ") != Some(first.clone()) {
        return Err(Failure::asked("the two passphrases differ", ""));
    }
    Ok(first)
}
