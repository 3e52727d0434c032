//! `halfstep registry promote` and `rollback`: what moves an alias.

use std::process::ExitCode;

use halfstep_attest::digest::Digest;
use halfstep_attest::policy::{Permission, Policy};
use halfstep_attest::private_key::PrivateKey;
use halfstep_registry::Registry;
use halfstep_registry::moves::{Grounds, Recorded};
use halfstep_registry::names::{Reference, Selector};
use halfstep_registry::promotion::Judge;
use halfstep_registry::version::Version;
use serde_json::json;

use super::super::args::{Promote, RollBack, SignMove};
use super::super::failure::Failure;
use super::super::{key, output, trust};
use super::{Asked, act, failure, said, shown};

/// A policy to start from, where a registry has none: `compare`'s own claim, and its own margin of
/// accuracy.
const TO_START_FROM: &str = r#"claim = "examples"
samples = 1000
pairs = 5

[margins]
accuracy = "1.0pt"
"#;

/// The key that moves are signed with, if they are to be.
fn signing_key(signing: SignMove) -> Result<Option<PrivateKey>, Failure> {
    if signing.sign { key::read(signing.key).map(Some) } else { Ok(None) }
}

/// Refuses a move that is not to be signed where the policy asks for a signature. There is no
/// reason that does in its place: `--force` is for want of evidence.
fn check_signing(signing: &SignMove, registry: &Registry, policy: Option<&Policy>) -> Result<(), Failure> {
    let demanded = policy.is_some_and(|policy| policy.unsigned_moves == Permission::Refused);
    if !demanded || signing.sign {
        return Ok(());
    }
    let file = registry.policy_file();
    let message =
        format!("the move is not made: it is not signed, and {} refuses unsigned moves", file.display());
    Err(Failure::failed(message).with_help("sign it with --sign"))
}

/// `registry promote`.
pub fn promote(args: Promote, asked: &Asked) -> Result<ExitCode, Failure> {
    let registry = asked.open()?;
    let act = act(args.reason)?;
    let version = registry.resolve(&args.version).and_then(|v| v.present()).map_err(failure)?;
    let trust = trust::of_file(asked.trust.as_deref())?;
    let policy = policy(&registry)?;
    check_signing(&args.signing, &registry, policy.as_ref().map(|(p, _)| p))?;
    let judge = Judge { trust: &trust, policy: policy.as_ref().map(|(p, digest)| (p, *digest)), at: act.at };
    let forced = args.force.filter(|reason| !reason.trim().is_empty());
    let grounds: Grounds = match (registry.judge(&version, &judge).map_err(failure)?, forced) {
        (Ok(grounds), _) => grounds,
        (Err(lacking), Some(reason)) => {
            lacking.unmet().iter().for_each(|why| output::warning(format!("forced although {why}")));
            lacking.forced(reason)
        }
        (Err(lacking), None) => {
            return Err(refused(&registry, &version, lacking.unmet(), policy.is_none()));
        }
    };
    if args.dry_run {
        let found = json!({ "promotes": version.digest, "alias": args.to, "grounds": grounds });
        return said(
            asked,
            &found,
            &[("would move", format!("{}@{} to {}", version.model, args.to, version.digest))],
        );
    }
    let key = signing_key(args.signing)?;
    let moves = registry.promote(&version, &args.to, &grounds, &act, key.as_ref()).map_err(failure)?;
    moved(asked, &registry, &moves)
}

/// `registry rollback`.
pub fn roll_back(args: RollBack, asked: &Asked) -> Result<ExitCode, Failure> {
    let Selector::Alias(alias) = &args.alias.selector else {
        let help = "write MODEL@ALIAS, and the version with --to";
        return Err(Failure::asked(format!("{}: this is no alias", args.alias), help));
    };
    let registry = asked.open()?;
    // A policy that cannot be read keeps nobody from going back by a move that is signed.
    if !args.signing.sign {
        let policy = policy(&registry)?;
        check_signing(&args.signing, &registry, policy.as_ref().map(|(p, _)| p))?;
    }
    let model = &args.alias.model;
    let to = match args.to {
        None => None,
        Some(prefix) => {
            let reference: Result<Reference, _> = format!("{model}@{prefix}").parse();
            let reference = reference.map_err(|e| Failure::asked(e.to_string(), ""))?;
            Some(registry.resolve(&reference).map_err(failure)?.digest)
        }
    };
    if args.dry_run {
        let to = registry.way_back(model, alias, to).map_err(failure)?;
        return said(asked, &json!({ "to": to }), &[("would move", format!("{model}@{alias} to {to}"))]);
    }
    let (key, act) = (signing_key(args.signing)?, act(args.reason)?);
    let made = registry.roll_back(model, alias, to, &act, key.as_ref()).map_err(failure)?;
    moved(asked, &registry, &[made])
}

/// What a promotion demands, with the digest of its text, where the file is there.
fn policy(registry: &Registry) -> Result<Option<(Policy, Digest)>, Failure> {
    let file = registry.policy_file();
    let Some(text) = registry.policy().map_err(|e| Failure::of_file(&file, &e))? else { return Ok(None) };
    let policy = Policy::parse(&text).map_err(|e| Failure::of_file(&file, &e))?;
    Ok(Some((policy, Digest::of(text.as_bytes()))))
}

/// Why a version is not promoted, and what to do.
fn refused(registry: &Registry, version: &Version, why: &[String], without_policy: bool) -> Failure {
    let Version { digest, model, .. } = version;
    let mut help = "attach what is missing with `halfstep registry attach`, or give a reason with --force, which the history keeps".to_string();
    if without_policy {
        let file = registry.policy_file();
        help = format!(
            "say in {} what a promotion needs, starting from this:\n\n{TO_START_FROM}\nor give a reason with --force, which the history keeps",
            file.display()
        );
    }
    let why = why.join("; ");
    Failure::failed(format!("version {digest} of {model} is not promoted: {why}")).with_help(&help)
}

/// Says which moves were made, and remembers them.
fn moved(asked: &Asked, registry: &Registry, moves: &[Recorded]) -> Result<ExitCode, Failure> {
    asked.remember(registry)?;
    let lines: Vec<(&str, String)> = moves.iter().map(|made| ("moved", shown::as_made(made))).collect();
    let records: Vec<_> = moves.iter().map(shown::in_json).collect();
    said(asked, &json!({ "moves": records }), &lines)
}
