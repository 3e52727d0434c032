//! A look at everything in a registry: is it what was written?

use std::collections::BTreeSet;

use halfstep_attest::DateTime;
use halfstep_attest::trust::Trust;

use crate::error::RegistryError;
use crate::gc;
use crate::moves::{self, check_chain};
use crate::registry::Registry;
use crate::version::Version;

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Versions whose files were hashed.
    pub versions: u64,
    /// Files, each of which was hashed once.
    pub files: u64,
    /// Moves.
    pub moves: u64,
    /// Signatures of versions and moves that somebody made who is trusted.
    pub signatures: u64,
    /// What is wrong, in sentences.
    pub faults: Vec<String>,
}

impl Registry {
    /// Hashes every file, and checks versions, the chain of moves, and, where somebody is trusted,
    /// signatures at a time. A version that was never signed is no fault; a signature that does
    /// not hold is one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn audit(&self, trust: &Trust, at: DateTime) -> Result<Audit, RegistryError> {
        let mut audit = Audit { faults: self.database.faults()?, ..Audit::default() };
        let mut contents = BTreeSet::new();
        for version in self.versions(None)? {
            let of = format!("version {} of {}", version.digest, version.model);
            match version.manifest() {
                Ok(manifest) if manifest.root() == version.digest => {}
                Ok(_) => audit.faults.push(format!("{of}: its files have another digest")),
                Err(e) => audit.faults.push(format!("{of}: {e}")),
            }
            if version.removed.is_none() {
                audit.versions += 1;
                contents.extend(version.files.iter().map(|f| (f.sha256, f.bytes)));
                if !trust.is_empty() {
                    self.audit_signatures(&version, trust, at, &mut audit)?;
                }
            }
            contents.extend(version.attachments.iter().map(|a| (a.sha256, a.bytes)));
        }
        for (content, bytes) in contents {
            audit.files += 1;
            if let Err(e) = self.blobs.check(content, bytes)
                // Since the versions were read, `gc` may have removed it.
                && self.database.read(|tx| gc::is_used(tx, content))?
            {
                audit.faults.push(e.to_string());
            }
        }
        let history = match self.history(0) {
            Ok(history) => history,
            Err(e @ RegistryError::History { .. }) => {
                audit.faults.push(e.to_string());
                return Ok(audit);
            }
            Err(e) => return Err(e),
        };
        audit.moves = history.len() as u64;
        audit.faults.extend(check_chain(self.id(), None, &history).err().map(|e| e.to_string()));
        audit.faults.extend(moves::check_aliases(&history).err().map(|e| e.to_string()));
        for recorded in history.iter().filter(|_| !trust.is_empty()) {
            match self.mover(recorded, trust, at) {
                Ok(signer) => audit.signatures += u64::from(signer.is_some()),
                Err(e @ RegistryError::SignedMove { .. }) => audit.faults.push(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        Ok(audit)
    }

    fn audit_signatures(
        &self,
        version: &Version,
        trust: &Trust,
        at: DateTime,
        audit: &mut Audit,
    ) -> Result<(), RegistryError> {
        let signed = version.attachments.iter().any(|a| a.kind == crate::version::AttachmentKind::Signature);
        let of = format!("version {} of {}", version.digest, version.model);
        match self.signed(version, trust, at) {
            Ok(Ok(_)) => audit.signatures += 1,
            Ok(Err(why)) if signed => audit.faults.extend(why.iter().map(|why| format!("{of}: {why}"))),
            // Said of the file itself.
            Err(RegistryError::File { .. } | RegistryError::Changed(_)) | Ok(Err(_)) => {}
            // Said of the version.
            Err(RegistryError::NoVersion(_)) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}
