//! Who moved an alias, as the signature of a move proves it.

use halfstep_attest::DateTime;
use halfstep_attest::bundle::Bundle;
use halfstep_attest::movement::{Known, Move, MoveLink};
use halfstep_attest::statement::Predicate;
use halfstep_attest::trust::Trust;

use crate::error::RegistryError;
use crate::moves::{self, MoveRecord, Recorded};
use crate::registry::Registry;

impl Registry {
    /// Who signed a move; none where it has no signature. The latest move of an alias, by which it
    /// is where it is, is judged as of `at`; one that others followed, as of the time that it
    /// states.
    ///
    /// # Errors
    /// [`RegistryError::SignedMove`] where its signature is by nobody who is trusted, or of another
    /// move than this, such as an older one; the database cannot be read.
    pub fn mover(
        &self,
        recorded: &Recorded,
        trust: &Trust,
        at: DateTime,
    ) -> Result<Option<String>, RegistryError> {
        if recorded.signature.is_none() {
            return Ok(None);
        }
        let record = &recorded.record;
        let place = self.database.read(|tx| {
            let before = record.previous.map(|number| moves::link(tx, number)).transpose()?.flatten();
            let head = moves::head(tx, &record.model, &record.alias)?;
            Ok(Place { before, head: head.map_or(record.number, |head| head.record.number) })
        })?;
        check(self.id(), recorded, place, trust, at)
    }
}

/// Where a move is among those of its alias.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The one before it.
    pub before: Option<MoveLink>,
    /// The number of the latest.
    pub head: u64,
}

/// The same of a move of a registry, which has this place.
pub(crate) fn check(
    registry: &str,
    recorded: &Recorded,
    Place { before, head }: Place,
    trust: &Trust,
    at: DateTime,
) -> Result<Option<String>, RegistryError> {
    let Some(signature) = &recorded.signature else { return Ok(None) };
    let MoveRecord { number, model, alias, to, .. } = &recorded.record;
    let known = Known { registry, model: model.as_str(), alias: alias.as_str(), latest: before };
    let at = if *number == head { at } else { recorded.record.at };
    let signer = signed(signature, trust, at).and_then(|(signer, statement)| {
        let link = statement.follows(known, *to).map_err(|e| e.to_string())?;
        let same = link == recorded.link();
        same.then_some(signer).ok_or_else(|| "it is of another record than the registry has".to_string())
    });
    signer.map(Some).map_err(|why| {
        let why = format!("its signature does not hold: {why}");
        RegistryError::SignedMove { number: *number, why }
    })
}

/// Who signed a statement of a move, and what it says.
fn signed(bundle: &str, trust: &Trust, at: DateTime) -> Result<(String, Move), String> {
    let bundle = Bundle::parse(bundle.as_bytes()).map_err(|e| e.to_string())?;
    let verified = trust.verify(&bundle, at).map_err(|e| e.to_string())?;
    match verified.statement.predicate {
        Predicate::Move(statement) => Ok((verified.signer, *statement)),
        _ => Err("what is signed is no move".into()),
    }
}
