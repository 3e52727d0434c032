//! The history of aliases: numbered moves, each with the digest of the one before it.

use std::collections::BTreeMap;

use halfstep_attest::DateTime;
use halfstep_attest::bundle;
use halfstep_attest::digest::Digest;
use halfstep_attest::movement::{Move, MoveLink};
use halfstep_attest::private_key::PrivateKey;
use halfstep_attest::statement::Statement;
use rusqlite::{OptionalExtension, Transaction};
use serde::{Deserialize, Serialize};

use crate::actor::{Act, Actor};
use crate::database::{digest, from_json, json};
use crate::error::RegistryError;
use crate::moment;
use crate::names::{Alias, Reference, RegisteredName, Selector};
use crate::registry::Registry;
use crate::version::{self, Version};

/// Why an alias was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveKind {
    /// A version was added.
    Addition,
    /// A version was promoted.
    Promotion,
    /// Another alias was promoted, and this one keeps what it left.
    Keeping,
    /// The alias went back to a version that it had before.
    Rollback,
}

impl MoveKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            MoveKind::Addition => "addition",
            MoveKind::Promotion => "promotion",
            MoveKind::Keeping => "keeping",
            MoveKind::Rollback => "rollback",
        }
    }
}

/// What a promotion rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grounds {
    /// Why it was made though its evidence does not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<String>,
    /// SHA-256 of the signature of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Digest>,
    /// SHA-256 of the signed verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Digest>,
    /// SHA-256 of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Digest>,
    /// Of a promotion that was forced: SHA-256 of every signed verdict that was attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached_verdicts: Vec<Digest>,
    /// Of a promotion that was forced: what was not met, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
}

/// The registry's record of a move. Its digest is over its text in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRecord {
    /// The registry's identity.
    pub registry: String,
    /// The number, from 1, without gaps over all aliases.
    pub number: u64,
    /// The digest of the record with the number before it; none of the first.
    pub after: Option<Digest>,
    /// The model.
    pub model: RegisteredName,
    /// The alias.
    pub alias: Alias,
    /// The number of this alias's move before it.
    pub previous: Option<u64>,
    /// The version that the alias leaves.
    pub from: Option<Digest>,
    /// The version that it moves to.
    pub to: Digest,
    /// Why it is made.
    pub kind: MoveKind,
    /// By whom.
    pub who: Actor,
    /// When.
    #[serde(with = "moment")]
    pub at: DateTime,
    /// The reason that was given, if one was.
    pub reason: Option<String>,
    /// What it rests on.
    pub grounds: Grounds,
}

/// A move that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What is recorded of it.
    pub record: MoveRecord,
    /// The digest of the record.
    pub sha256: Digest,
    /// Its signature, where it was signed.
    pub signature: Option<String>,
}

impl Recorded {
    /// The move by its number and record.
    pub fn link(&self) -> MoveLink {
        MoveLink { number: self.record.number, record: self.sha256 }
    }
}

/// A move to be recorded.
pub(crate) struct NewMove<'a> {
    pub model: &'a RegisteredName,
    pub alias: &'a Alias,
    pub to: Digest,
    pub kind: MoveKind,
    pub grounds: Grounds,
}

impl Registry {
    /// The latest move of an alias: what is current. One query, which may be asked often.
    ///
    /// # Errors
    /// The alias was never moved; the registry cannot be read.
    pub fn head(&self, model: &RegisteredName, alias: &Alias) -> Result<Recorded, RegistryError> {
        self.database.read(|tx| match head(tx, model, alias)? {
            Some(head) => Ok(head),
            None => Err(unknown_alias(tx, model, alias)?),
        })
    }

    /// The latest move of every alias of every model, in the order of models and aliases.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn heads(&self) -> Result<Vec<Recorded>, RegistryError> {
        self.database.read(heads)
    }

    /// Every move with a number of `from` or more, in order.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn history(&self, from: u64) -> Result<Vec<Recorded>, RegistryError> {
        self.database.read(|tx| history(tx, from))
    }

    /// The version that a reference names.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn resolve(&self, reference: &Reference) -> Result<Version, RegistryError> {
        let Reference { model, selector } = reference;
        self.database.read(|tx| match selector {
            Selector::Alias(alias) => match head(tx, model, alias)? {
                Some(head) => version::read(tx, model, head.record.to),
                None => Err(unknown_alias(tx, model, alias)?),
            },
            Selector::Prefix(prefix) => {
                let all = digests(tx, model)?;
                let those: Vec<&String> = all.iter().filter(|digest| digest.starts_with(prefix)).collect();
                match those.as_slice() {
                    [one] => version::read(tx, model, digest((*one).clone())?),
                    [] => Err(RegistryError::Unknown { what: format!("`{reference}`"), there: all }),
                    _ => Err(RegistryError::Ambiguous {
                        prefix: prefix.clone(),
                        model: model.to_string(),
                        versions: those.into_iter().cloned().collect(),
                    }),
                }
            }
        })
    }

    /// Moves the alias `candidate` to a version, unless it is there.
    ///
    /// # Errors
    /// The version is not in the registry; the registry cannot be written.
    pub fn make_candidate(
        &self,
        model: &RegisteredName,
        to: Digest,
        act: &Act,
        key: Option<&PrivateKey>,
    ) -> Result<Recorded, RegistryError> {
        let alias = Alias::candidate();
        self.database.write(|tx| match head(tx, model, &alias)? {
            Some(head) if head.record.to == to => Ok(head),
            _ => {
                let kind = MoveKind::Addition;
                let new = NewMove { model, alias: &alias, to, kind, grounds: Grounds::default() };
                append(tx, self.id(), new, act, key)
            }
        })
    }
}

/// The latest move of an alias.
pub(crate) fn head(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    alias: &Alias,
) -> Result<Option<Recorded>, RegistryError> {
    let mut select =
        tx.prepare("SELECT * FROM move WHERE model = ? AND alias = ? ORDER BY number DESC LIMIT 1")?;
    let row = select.query_row((model.as_str(), alias.as_str()), of_row).optional()?;
    row.map(recorded).transpose()
}

/// The latest move of all.
pub(crate) fn last(tx: &Transaction<'_>) -> Result<Option<Recorded>, RegistryError> {
    let mut select = tx.prepare("SELECT * FROM move ORDER BY number DESC LIMIT 1")?;
    let row = select.query_row([], of_row).optional()?;
    row.map(recorded).transpose()
}

/// The latest move of each alias.
pub(crate) fn heads(tx: &Transaction<'_>) -> Result<Vec<Recorded>, RegistryError> {
    let mut select = tx.prepare(
        "SELECT * FROM move WHERE number IN
         (SELECT max(number) FROM move GROUP BY model, alias) ORDER BY model, alias",
    )?;
    let rows: Vec<Row> = select.query_map([], of_row)?.collect::<Result<_, _>>()?;
    rows.into_iter().map(recorded).collect()
}

/// Every move of an alias, in order.
pub(crate) fn of_alias(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    alias: &Alias,
) -> Result<Vec<MoveRecord>, RegistryError> {
    let mut select = tx.prepare("SELECT * FROM move WHERE model = ? AND alias = ? ORDER BY number")?;
    let rows: Vec<Row> =
        select.query_map((model.as_str(), alias.as_str()), of_row)?.collect::<Result<_, _>>()?;
    rows.into_iter().map(|row| Ok(recorded(row)?.record)).collect()
}

/// A move of an alias by its number.
pub(crate) fn link(tx: &Transaction<'_>, number: u64) -> Result<Option<MoveLink>, RegistryError> {
    let mut select = tx.prepare("SELECT sha256 FROM move WHERE number = ?")?;
    let row = select.query_row([i64::try_from(number).unwrap_or(i64::MAX)], |row| row.get(0)).optional()?;
    row.map(|sha256| Ok(MoveLink { number, record: digest(sha256)? })).transpose()
}

/// Every move from a number on.
pub(crate) fn history(tx: &Transaction<'_>, from: u64) -> Result<Vec<Recorded>, RegistryError> {
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let mut select = tx.prepare("SELECT * FROM move WHERE number >= ? ORDER BY number")?;
    let rows: Vec<Row> = select.query_map([from], of_row)?.collect::<Result<_, _>>()?;
    rows.into_iter().map(recorded).collect()
}

/// A row of the table. What moves are found by stands in it beside the record.
struct Row {
    number: i64,
    model: String,
    alias: String,
    sha256: String,
    record: String,
    signature: Option<String>,
}

fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        number: row.get("number")?,
        model: row.get("model")?,
        alias: row.get("alias")?,
        sha256: row.get("sha256")?,
        record: row.get("record")?,
        signature: row.get("signature")?,
    })
}

/// The move of a row, whose number, model and alias have to be those of its record: else a signed
/// move of one alias could be presented as one of another.
fn recorded(row: Row) -> Result<Recorded, RegistryError> {
    let sha256 = digest(row.sha256)?;
    let record: MoveRecord = from_json(&row.record)?;
    let wrong = |why: &str| Err(RegistryError::History { number: record.number, why: why.into() });
    if Digest::of(row.record.as_bytes()) != sha256 {
        return wrong("its record is not the one that was written");
    }
    let place = (i64::try_from(record.number).ok(), record.model.as_str(), record.alias.as_str());
    if place != (Some(row.number), &row.model, &row.alias) {
        return wrong("the database lists it under another number, model or alias than its record has");
    }
    Ok(Recorded { record, sha256, signature: row.signature })
}

/// Records the next move, under the write lock, and signs it where there is a key.
pub(crate) fn append(
    tx: &Transaction<'_>,
    registry: &str,
    new: NewMove<'_>,
    act: &Act,
    key: Option<&PrivateKey>,
) -> Result<Recorded, RegistryError> {
    let NewMove { model, alias, to, kind, grounds } = new;
    version::read(tx, model, to)?.present()?;
    let last = last(tx)?;
    let before = head(tx, model, alias)?;
    let record = MoveRecord {
        registry: registry.into(),
        number: last.as_ref().map_or(0, |last| last.record.number) + 1,
        after: last.map(|last| last.sha256),
        model: model.clone(),
        alias: alias.clone(),
        previous: before.as_ref().map(|before| before.record.number),
        from: before.as_ref().map(|before| before.record.to),
        to,
        kind,
        who: act.who.clone(),
        at: act.at,
        reason: act.reason.clone(),
        grounds,
    };
    let sha256 = Digest::of(json(&record).as_bytes());
    let statement = Move {
        registry: registry.into(),
        model: model.to_string(),
        alias: alias.to_string(),
        number: record.number,
        record: sha256,
        previous: before.as_ref().map(Recorded::link),
        from: record.from,
        to,
        when: act.at.to_string(),
        who: act.who.to_string(),
        reason: act.reason.clone(),
    };
    let sign = |key| bundle::sign(Statement::of_move(statement).to_json().as_bytes(), key);
    let signature = key.map(sign);
    let recorded = Recorded { record, sha256, signature };
    insert(tx, &recorded)?;
    Ok(recorded)
}

/// Writes a move as it is.
pub(crate) fn insert(tx: &Transaction<'_>, recorded: &Recorded) -> Result<(), RegistryError> {
    let Recorded { record, sha256, signature } = recorded;
    let number = i64::try_from(record.number).unwrap_or(i64::MAX);
    let row =
        (number, record.model.as_str(), record.alias.as_str(), sha256.to_string(), json(record), signature);
    tx.execute("INSERT INTO move VALUES (?, ?, ?, ?, ?, ?)", row)?;
    Ok(())
}

/// Checks that moves follow each other and what came before them.
pub(crate) fn check_chain(
    registry: &str,
    mut last: Option<MoveLink>,
    moves: &[Recorded],
) -> Result<(), RegistryError> {
    for recorded in moves {
        let MoveRecord { number, after, registry: of, .. } = &recorded.record;
        let wrong = |why: &str| Err(RegistryError::History { number: *number, why: why.into() });
        if *number != last.map_or(0, |link| link.number) + 1 {
            return wrong("its number is not the next");
        }
        if *after != last.map(|link| link.record) {
            return wrong("it does not name the move before it");
        }
        if of != registry {
            return wrong("it is of another registry");
        }
        last = Some(recorded.link());
    }
    Ok(())
}

/// Checks that the moves of each alias, in a history from its first move on, follow each other:
/// each names the one before it, and leaves the version that this one moved to.
pub(crate) fn check_aliases(history: &[Recorded]) -> Result<(), RegistryError> {
    let mut latest: BTreeMap<(&RegisteredName, &Alias), &MoveRecord> = BTreeMap::new();
    for record in history.iter().map(|recorded| &recorded.record) {
        let before = latest.insert((&record.model, &record.alias), record);
        if record.previous != before.map(|before| before.number) || record.from != before.map(|m| m.to) {
            let why = "it does not follow the move of its alias before it".to_string();
            return Err(RegistryError::History { number: record.number, why });
        }
    }
    Ok(())
}

fn digests(tx: &Transaction<'_>, model: &RegisteredName) -> Result<Vec<String>, RegistryError> {
    let mut select = tx.prepare("SELECT digest FROM version WHERE model = ? ORDER BY digest")?;
    Ok(select.query_map([model.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn unknown_alias(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    alias: &Alias,
) -> Result<RegistryError, RegistryError> {
    let there = heads(tx)?.into_iter().map(|h| format!("{}@{}", h.record.model, h.record.alias)).collect();
    Ok(RegistryError::Unknown { what: format!("`{model}@{alias}`"), there })
}
