//! `halfstep verify`: who signed a model, and whether a signed verdict names it.

mod named;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use halfstep_attest::bundle::{Bundle, MOST_BYTES};
use halfstep_attest::certificate::Certificate;
use halfstep_attest::model::Unsigned;
use halfstep_attest::public_key::PublicKey;
use halfstep_attest::statement::Predicate;
use halfstep_attest::trust::{Trust, Verified};
use serde_json::{Value, json};

use super::args::Verify;
use super::failure::Failure;
use super::{output, sign, trust};

/// Runs the command. Exit codes: 0 verified, 1 refused, 2 wrong arguments, 3 named by a verdict
/// that is no pass.
pub fn run(args: Verify) -> Result<ExitCode, Failure> {
    let trust = trusted(&args)?;
    let at = args.at.map_or_else(trust::now, Ok)?;
    let when = if args.at.is_some() { "as stated" } else { "now" };
    let signature = match (&args.verdict, &args.signature) {
        (Some(verdict), _) => verdict.clone(),
        (None, Some(signature)) => signature.clone(),
        (None, None) => args.model.join(sign::MODEL),
    };
    let bundle = Bundle::parse(&read(&signature)?)
        .map_err(|e| Failure::failed(format!("{}: {e}", signature.display())))?;
    let verified =
        trust.verify(&bundle, at).map_err(|e| Failure::failed(format!("{}: {e}", signature.display())))?;
    let (found, fields, code) = match args.verdict {
        Some(_) => named::look_up(&args.model, &verified)?,
        None => files(&args, &signature, &verified)?,
    };
    if args.json {
        let Verified { signer, fingerprint, .. } = &verified;
        output::json(&json!({
            "signature": signature.display().to_string(),
            "signer": signer,
            "fingerprint": fingerprint,
            "judged_at": at.to_string(),
            "found": found,
        }))?;
    } else {
        let mut all = fields;
        all.push(("signed by", verified.signer.clone()));
        all.push(("key", verified.fingerprint.clone()));
        all.push(("judged at", format!("{at} ({when})")));
        output::raw(&output::fields(&all));
    }
    Ok(code)
}

/// What is found of a model or file, for programs and for people, and the exit code.
type Found = (Value, Vec<(&'static str, String)>, ExitCode);

/// Checks the files of a folder against its signature.
fn files(args: &Verify, signature: &Path, verified: &Verified) -> Result<Found, Failure> {
    let manifest = match &verified.statement.predicate {
        Predicate::Model(manifest) => manifest,
        Predicate::Verdict(_) | Predicate::Pair(_) => {
            return Err(Failure::asked(
                format!("{}: this is a signed verdict, not the signature of a model", signature.display()),
                "name it with --verdict, and a file of weights in place of the folder",
            ));
        }
        Predicate::Move(_) => {
            return Err(Failure::asked(
                format!(
                    "{}: this is a signed move of an alias, not the signature of a model",
                    signature.display()
                ),
                "`halfstep registry verify` checks the moves of a registry",
            ));
        }
    };
    let unsigned = if args.ignore_unsigned { Unsigned::Ignored } else { Unsigned::Refused };
    manifest
        .check(&args.model, signature, &args.ignore, unsigned)
        .map_err(|e| Failure::failed(format!("{}: {e}", args.model.display())))?;
    let root = manifest.root();
    let found = json!({ "files": manifest.len(), "sha256": root });
    let mut lines = vec![
        (
            "verified",
            format!("{}: {} files are those that were signed", args.model.display(), manifest.len()),
        ),
        ("SHA-256", format!("{root}, over the digests of all files")),
    ];
    if args.ignore_unsigned {
        lines.push(("not checked", "files that were not signed, if there are any".into()));
    }
    Ok((found, lines, ExitCode::SUCCESS))
}

/// A bundle's file.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |e| Failure::of_file(path, &e);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Failure::asked(
            format!("{}: more than {MOST_BYTES} bytes: no signature", path.display()),
            "",
        ));
    }
    Ok(bytes)
}

/// Who is trusted: by the arguments, or by the trust file.
fn trusted(args: &Verify) -> Result<Trust, Failure> {
    let text = |path: &Path| std::fs::read_to_string(path).map_err(|e| Failure::of_file(path, &e));
    // Keys and roots that are named stand in place of the default file.
    let named = !args.key.is_empty() || !args.root.is_empty();
    let mut trust = match &args.trust {
        None if named => Trust::default(),
        file => trust::of_file(file.as_deref())?,
    };
    for path in &args.key {
        let key = PublicKey::from_pem(&text(path)?).map_err(|e| Failure::of_file(path, &e))?;
        trust.add_key(path.display().to_string(), key);
    }
    for path in &args.root {
        trust.add_root(Certificate::from_pem(&text(path)?).map_err(|e| Failure::of_file(path, &e))?);
    }
    if trust.is_empty() {
        return Err(Failure::asked(
            "nobody is trusted, so no signature proves anything",
            "give a public key with --key, an authority's certificate with --root, or a trust file with --trust",
        ));
    }
    Ok(trust)
}
