//! What moves `champion`: promotions, and the way back.

use halfstep_attest::DateTime;
use halfstep_attest::bundle::Bundle;
use halfstep_attest::digest::Digest;
use halfstep_attest::policy::Policy;
use halfstep_attest::private_key::PrivateKey;
use halfstep_attest::statement::Predicate;
use halfstep_attest::trust::{Trust, Verified};
use halfstep_attest::verdict::{Conclusion, Naming};
use rusqlite::Transaction;

use crate::actor::Act;
use crate::error::RegistryError;
use crate::moves::{self, Grounds, MoveKind, MoveRecord, NewMove, Recorded};
use crate::names::{Alias, RegisteredName};
use crate::registry::Registry;
use crate::version::{self, Attachment, AttachmentKind, Version};

/// The folder of a version's weights.
const WEIGHTS: &str = "checkpoints/";
/// Most characters of a sentence that a move keeps: it may quote what strangers wrote.
const LONGEST: usize = 500;

impl Version {
    /// The digest of its weights: its only file of a checkpoint.
    ///
    /// # Errors
    /// It has none, or several.
    pub fn weights(&self) -> Result<Digest, RegistryError> {
        let mut files = self.files.iter().filter(|file| file.name.starts_with(WEIGHTS));
        match (files.next(), files.next()) {
            (Some(file), None) => Ok(file.sha256),
            _ => Err(RegistryError::NoVersion(format!("there is not one file in `{WEIGHTS}`"))),
        }
    }
}

/// By what a version's evidence is judged.
pub struct Judge<'a> {
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// What is demanded, with the digest of its text; none where there is no policy.
    pub policy: Option<(&'a Policy, Digest)>,
    /// The time at which keys and certificates are judged.
    pub at: DateTime,
}

/// Evidence that is not enough to promote a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insufficient {
    /// What there is, with everything that is not met.
    grounds: Grounds,
}

impl Insufficient {
    /// Everything that is not met, in sentences.
    pub fn unmet(&self) -> &[String] {
        &self.grounds.unmet
    }

    /// What a promotion rests on that is made all the same, for a reason.
    pub fn forced(self, reason: String) -> Grounds {
        let unmet = self.unmet().iter().map(|why| why.chars().take(LONGEST).collect()).collect();
        Grounds { forced: Some(reason), unmet, ..self.grounds }
    }
}

/// An attachment, and what its signature proves or why it proves nothing.
type Checked<'a> = (&'a Attachment, Result<Verified, String>);

impl Registry {
    /// Looks for a signature over all files of a version by somebody who is trusted. Returns its
    /// digest and who signed, or why each signature there is does not do.
    ///
    /// # Errors
    /// A file of the registry is missing or damaged.
    pub fn signed(
        &self,
        version: &Version,
        trust: &Trust,
        at: DateTime,
    ) -> Result<Result<(Digest, String), Vec<String>>, RegistryError> {
        let files = version.manifest()?.files();
        let mut faults = Vec::new();
        for (attachment, verified) in self.verified(version, AttachmentKind::Signature, trust, at)? {
            match verified {
                Ok(Verified { statement, signer, .. }) => match statement.predicate {
                    Predicate::Model(manifest) if manifest.files() == files => {
                        return Ok(Ok((attachment.sha256, signer)));
                    }
                    _ => faults.push(format!("the signature {} is of other files", attachment.sha256)),
                },
                Err(why) => faults.push(why),
            }
        }
        if faults.is_empty() {
            faults.push("the version has no signature".into());
        }
        Ok(Err(faults))
    }

    /// Judges whether the evidence that is attached to a version is enough to promote it. Returns
    /// what the promotion rests on, or everything that is missing.
    ///
    /// # Errors
    /// A file of the registry is missing or damaged.
    pub fn judge(
        &self,
        version: &Version,
        judge: &Judge<'_>,
    ) -> Result<Result<Grounds, Insufficient>, RegistryError> {
        let mut grounds = Grounds::default();
        match self.signed(version, judge.trust, judge.at)? {
            Ok((signature, _)) => grounds.signature = Some(signature),
            Err(why) => grounds.unmet.extend(why),
        }
        let verdicts = version.attachments.iter().filter(|a| a.kind == AttachmentKind::Verdict);
        let verdicts: Vec<Digest> = verdicts.map(|a| a.sha256).collect();
        let Some((policy, digest)) = judge.policy else {
            grounds.unmet.push(format!("there is no policy, {}", self.policy_file().display()));
            grounds.attached_verdicts = verdicts;
            return Ok(Err(Insufficient { grounds }));
        };
        grounds.policy = Some(digest);
        let weights = version.weights()?;
        let mut unmet = Vec::new();
        for (attachment, verified) in
            self.verified(version, AttachmentKind::Verdict, judge.trust, judge.at)?
        {
            let judged = match &verified {
                Ok(verified) => policy.judge(verified, weights).map(|_| ()).map_err(|unmet| {
                    unmet.iter().map(|u| format!("verdict {}: {u}", attachment.sha256)).collect()
                }),
                Err(why) => Err::<(), Vec<_>>(vec![why.clone()]),
            };
            match judged {
                Ok(()) => grounds.verdict = Some(attachment.sha256),
                Err(why) => unmet.extend(why),
            }
        }
        if grounds.verdict.is_none() {
            if unmet.is_empty() {
                unmet.push("the version has no signed verdict".into());
            }
            grounds.unmet.extend(unmet);
        }
        if grounds.unmet.is_empty() {
            return Ok(Ok(grounds));
        }
        grounds.attached_verdicts = verdicts;
        Ok(Err(Insufficient { grounds }))
    }

    /// Looks for a signed verdict that judged the weights of a version in a precision, and passed.
    /// Returns its digest, or why each verdict there is does not do. One of a pair states no
    /// precision, and so covers none.
    ///
    /// # Errors
    /// A file of the registry is missing or damaged; the version has no weights.
    pub fn covers(
        &self,
        version: &Version,
        precision: &str,
        trust: &Trust,
        at: DateTime,
    ) -> Result<Result<Digest, Vec<String>>, RegistryError> {
        let weights = version.weights()?;
        let mut faults = Vec::new();
        for (attachment, verified) in self.verified(version, AttachmentKind::Verdict, trust, at)? {
            let verified = match verified {
                Ok(verified) => verified,
                Err(why) => {
                    faults.push(why);
                    continue;
                }
            };
            let naming = match &verified.statement.predicate {
                Predicate::Verdict(verdict) => verdict.naming(weights),
                _ => None,
            };
            let what = match naming {
                Some(Naming::Judged(_, _, candidate)) if candidate.policy != precision => {
                    format!("judges these weights in {}", candidate.policy)
                }
                Some(Naming::Judged(_, _, candidate)) if candidate.verdict == Conclusion::Pass => {
                    return Ok(Ok(attachment.sha256));
                }
                Some(Naming::Judged(_, _, candidate)) => {
                    format!("comes to `{}` for these weights", candidate.verdict.name())
                }
                _ => "does not judge these weights in a precision".into(),
            };
            faults.push(format!("the verdict {} {what}", attachment.sha256));
        }
        if faults.is_empty() {
            faults.push("the version has no signed verdict".into());
        }
        Ok(Err(faults))
    }

    /// Attachments of a kind, each with what its signature proves.
    fn verified<'a>(
        &self,
        version: &'a Version,
        kind: AttachmentKind,
        trust: &Trust,
        at: DateTime,
    ) -> Result<Vec<Checked<'a>>, RegistryError> {
        let mut all = Vec::new();
        for attachment in version.attachments.iter().filter(|a| a.kind == kind) {
            let verified = Bundle::parse(&self.attached(attachment)?)
                .map_err(|e| e.to_string())
                .and_then(|bundle| trust.verify(&bundle, at).map_err(|e| e.to_string()))
                .map_err(|e| format!("{} {}: {e}", kind.name(), attachment.sha256));
            all.push((attachment, verified));
        }
        Ok(all)
    }

    /// Moves an alias to a version that [`Registry::judge`] found to have its evidence, or that is
    /// forced. `last-good` keeps the version that `champion` leaves. Returns the moves.
    ///
    /// # Errors
    /// The alias is there already and the move is not signed; the version was removed; the registry
    /// cannot be written.
    pub fn promote(
        &self,
        version: &Version,
        alias: &Alias,
        grounds: &Grounds,
        act: &Act,
        key: Option<&PrivateKey>,
    ) -> Result<Vec<Recorded>, RegistryError> {
        let model = &version.model;
        self.database.write(|tx| {
            let before = moves::head(tx, model, alias)?;
            let already = before.as_ref().is_some_and(|before| before.record.to == version.digest);
            // A move that is signed anew, by another key for example, is a move.
            if already && key.is_none() {
                let why = format!("{model}@{alias} is version {} already", version.digest);
                return Err(RegistryError::NoWayBack(why));
            }
            let (to, kind, grounds) = (version.digest, MoveKind::Promotion, grounds.clone());
            let mut made =
                vec![moves::append(tx, self.id(), NewMove { model, alias, to, kind, grounds }, act, key)?];
            if let Some(before) = before.filter(|_| !already && *alias == Alias::champion()) {
                made.extend(self.keep(tx, model, before.record.to, act, key)?);
            }
            Ok(made)
        })
    }

    /// Moves `last-good` to the version that `champion` left, where its files are still there.
    fn keep(
        &self,
        tx: &Transaction<'_>,
        model: &RegisteredName,
        to: Digest,
        act: &Act,
        key: Option<&PrivateKey>,
    ) -> Result<Option<Recorded>, RegistryError> {
        let alias = Alias::last_good();
        let there = moves::head(tx, model, &alias)?.is_some_and(|head| head.record.to == to);
        if there || version::read(tx, model, to)?.removed.is_some() {
            return Ok(None);
        }
        let new = NewMove { model, alias: &alias, to, kind: MoveKind::Keeping, grounds: Grounds::default() };
        moves::append(tx, self.id(), new, act, key).map(Some)
    }

    /// The version that an alias goes back to: `to` where one is named, which the alias must have
    /// had before, and else the one that it left when it was last moved forward to where it is.
    ///
    /// # Errors
    /// There is none, or the alias never had it.
    pub fn way_back(
        &self,
        model: &RegisteredName,
        alias: &Alias,
        to: Option<Digest>,
    ) -> Result<Digest, RegistryError> {
        let current = self.head(model, alias)?.record.to;
        self.database.read(|tx| way_back(tx, model, alias, current, to))
    }

    /// The version that is most likely wanted after the one that an alias has: the one that it goes
    /// back to or, where there is none, the one that it left last. None where that is not there or
    /// was removed.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn fallback(&self, model: &RegisteredName, alias: &Alias) -> Result<Option<Digest>, RegistryError> {
        self.database.read(|tx| {
            let Some(MoveRecord { to: current, from, .. }) = moves::head(tx, model, alias)?.map(|h| h.record)
            else {
                return Ok(None);
            };
            let fallback = match way_back(tx, model, alias, current, None) {
                Ok(to) => Some(to),
                Err(RegistryError::NoWayBack(_)) => from,
                Err(e) => return Err(e),
            };
            let Some(fallback) = fallback.filter(|to| *to != current) else { return Ok(None) };
            Ok(version::read(tx, model, fallback)?.removed.is_none().then_some(fallback))
        })
    }

    /// Moves an alias back to a version that it had before.
    ///
    /// # Errors
    /// As [`Registry::way_back`]; the version was removed; the registry cannot be written.
    pub fn roll_back(
        &self,
        model: &RegisteredName,
        alias: &Alias,
        to: Option<Digest>,
        act: &Act,
        key: Option<&PrivateKey>,
    ) -> Result<Recorded, RegistryError> {
        let current = self.head(model, alias)?.record;
        self.database.write(|tx| {
            // As it is now that nobody else moves it.
            let current = moves::head(tx, model, alias)?.map_or(current.to, |head| head.record.to);
            let to = way_back(tx, model, alias, current, to)?;
            let kind = MoveKind::Rollback;
            moves::append(
                tx,
                self.id(),
                NewMove { model, alias, to, kind, grounds: Grounds::default() },
                act,
                key,
            )
        })
    }
}

fn way_back(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    alias: &Alias,
    current: Digest,
    to: Option<Digest>,
) -> Result<Digest, RegistryError> {
    let moves: Vec<MoveRecord> = moves::of_alias(tx, model, alias)?;
    if let Some(to) = to {
        return match moves.iter().any(|m| m.to == to) {
            _ if to == current => {
                Err(RegistryError::NoWayBack(format!("{model}@{alias} is version {to} already")))
            }
            true => Ok(to),
            false => Err(RegistryError::NoWayBack(format!(
                "{model}@{alias} never was version {to}: `promote` moves it to a version that it did not have"
            ))),
        };
    }
    let moved_here = |m: &&MoveRecord| m.to == current && m.from != Some(current);
    let forward = moves.iter().rev().filter(moved_here).find(|m| m.kind != MoveKind::Rollback);
    let before = forward.and_then(|m| m.from);
    before.ok_or_else(|| {
        RegistryError::NoWayBack(format!(
            "{model}@{alias} had no version before {current}: there is nothing to go back to"
        ))
    })
}
