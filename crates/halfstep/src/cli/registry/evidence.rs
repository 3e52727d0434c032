//! `halfstep registry attach`, and what `add` attaches: signatures, verdicts and cards.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use halfstep_attest::bundle::{self, Bundle};
use halfstep_attest::digest::Digest;
use halfstep_attest::private_key::PrivateKey;
use halfstep_attest::statement::Statement;
use halfstep_registry::Registry;
use halfstep_registry::actor::Act;
use halfstep_registry::version::{AttachmentKind, MOST_ATTACHED, Version};
use serde_json::{Value, json};

use super::super::args::{Attach, Evidence};
use super::super::failure::Failure;
use super::super::key;
use super::{Asked, act, failure, said};

/// `registry attach`.
pub fn attach(args: Attach, asked: &Asked) -> Result<ExitCode, Failure> {
    let Evidence { verdict, card, sign, key } = args.evidence;
    let files = files(&verdict, &card)?;
    if files.is_empty() && !sign {
        let help = "name files with --verdict or --card, or sign with --sign";
        return Err(Failure::asked("there is nothing to attach", help));
    }
    let registry = asked.open()?;
    let version = registry.resolve(&args.version).map_err(failure)?;
    let key = if sign { Some(key::read(key)?) } else { None };
    let attached = Attached::to(&registry, &version, &files, key.as_ref(), &act(None)?)?;
    let mut lines = vec![("version", format!("{}@{}", version.model, version.digest))];
    lines.extend(attached.lines());
    let found = json!({ "model": version.model, "digest": version.digest, "attached": attached.json() });
    said(asked, &found, &lines)
}

/// Files to attach, read before anything is changed.
pub fn files(verdicts: &[impl AsRef<Path>], cards: &[impl AsRef<Path>]) -> Result<Vec<Evident>, Failure> {
    let mut files = Vec::new();
    for path in verdicts.iter().map(AsRef::as_ref) {
        let bytes = read(path)?;
        Bundle::parse(&bytes).map_err(|e| Failure::of_file(path, &e))?;
        files.push(Evident { kind: AttachmentKind::Verdict, bytes });
    }
    for path in cards.iter().map(AsRef::as_ref) {
        files.push(Evident { kind: AttachmentKind::Card, bytes: read(path)? });
    }
    Ok(files)
}

/// Something to attach.
pub struct Evident {
    kind: AttachmentKind,
    bytes: Vec<u8>,
}

/// What was attached.
pub struct Attached(Vec<(AttachmentKind, Digest)>);

impl Attached {
    /// Attaches files to a version, and a signature of its files where there is a key.
    pub fn to(
        registry: &Registry,
        version: &Version,
        files: &[Evident],
        key: Option<&PrivateKey>,
        act: &Act,
    ) -> Result<Attached, Failure> {
        let attach = |kind, bytes: &[u8]| {
            let done = registry.attach(&version.model, version.digest, kind, bytes, act);
            done.map(|(digest, _)| (kind, digest)).map_err(failure)
        };
        let mut attached = Vec::new();
        for Evident { kind, bytes } in files {
            attached.push(attach(*kind, bytes)?);
        }
        if let Some(key) = key {
            let manifest = version.manifest().map_err(failure)?;
            let statement = Statement::of_model(version.model.as_str(), manifest);
            let text = bundle::sign(statement.to_json().as_bytes(), key);
            attached.push(attach(AttachmentKind::Signature, text.as_bytes())?);
        }
        Ok(Attached(attached))
    }

    /// For people.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.0.iter().map(|(kind, digest)| (kind.name(), digest.to_string()))
    }

    /// For programs.
    pub fn json(&self) -> Vec<Value> {
        self.0.iter().map(|(kind, sha256)| json!({ "kind": kind.name(), "sha256": sha256 })).collect()
    }
}

/// A file that is not too large to be attached.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Failure::of_file(path, &e))?;
    file.take(MOST_ATTACHED + 1).read_to_end(&mut bytes).map_err(|e| Failure::of_file(path, &e))?;
    if bytes.len() as u64 > MOST_ATTACHED {
        let why = format!("larger than {MOST_ATTACHED} bytes, which is the most that is attached");
        return Err(Failure::of_file(path, &why));
    }
    Ok(bytes)
}
