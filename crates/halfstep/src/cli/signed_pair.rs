//! What a converted model came to against the one that it was made of, as a statement to be
//! signed.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use halfstep::evidence::assessment::MetricRow;
use halfstep::evidence::{Assessment, Verdict};
use halfstep::train::run_dir::write_whole;
use halfstep_attest::bundle;
use halfstep_attest::digest::Digest;
use halfstep_attest::pair::{PairVerdict, Side};
use halfstep_attest::statement::Statement;
use halfstep_attest::subject::Subject;
use halfstep_attest::verdict::Conclusion;
use serde_json::{Value, json};

use super::args::{ClaimName, Verdict as Asked};
use super::failure::Failure;
use super::{key, output, trust};

/// What is to be signed: files by their paths.
pub struct Signing<'a> {
    to: &'a Path,
    key: Option<PathBuf>,
    converted: [&'a Path; 2],
    parent: [&'a Path; 2],
}

impl<'a> Signing<'a> {
    /// What the arguments ask for, before anything is measured; none where nothing is to be signed.
    ///
    /// # Errors
    /// They name other than one pair, ask for more than one pair can show, or for a file that is
    /// there.
    pub fn asked(args: &'a Asked) -> Result<Option<Signing<'a>>, Failure> {
        let signed = &args.signed;
        let (Some(to), Some(weights), Some(parent)) = (&signed.sign, &signed.weights, &signed.parent) else {
            return Ok(None);
        };
        let ([baseline], [candidate]) = (args.baseline.as_slice(), args.candidate.as_slice()) else {
            return Err(Failure::asked(
                "--sign signs the verdict of one pair, and several files are given",
                "give one file of logits for each model; a comparison of several seeds is signed by `halfstep sign --verdict`",
            ));
        };
        if matches!(args.claim, ClaimName::Samples) {
            return Err(Failure::asked(
                "--claim samples speaks of other seeds, and of one pair there are none",
                "leave --claim out: one pair is judged on examples like these",
            ));
        }
        if args.looks > NonZeroU32::MIN || args.diverged > 0 || args.baseline_diverged > 0 {
            return Err(Failure::asked(
                "--looks, --diverged and --baseline-diverged are about several runs, and one pair is signed",
                "leave them out",
            ));
        }
        if to.exists() && !signed.force {
            return Err(Failure::asked(
                format!("{} exists already", to.display()),
                "choose another file with --sign, or overwrite it with --force",
            ));
        }
        let (converted, parent) = ([weights, candidate], [parent, baseline]);
        let signing = Signing {
            to,
            key: signed.key.clone(),
            converted: converted.map(PathBuf::as_path),
            parent: parent.map(PathBuf::as_path),
        };
        Ok(Some(signing))
    }

    /// Signs. Returns lines that say so.
    ///
    /// # Errors
    /// A file cannot be read or written; weights are compared with themselves; there is no key.
    pub fn sign(self, assessment: &Assessment) -> Result<String, Failure> {
        let made = trust::now()?;
        let (converted, parent) = (side(self.converted)?, side(self.parent)?);
        if converted.weights.digest == parent.weights.digest {
            return Err(Failure::asked(
                "--weights and --parent are the same weights, so that there is nothing to compare",
                "name the converted model with --weights, and the one that it was made of with --parent",
            ));
        }
        let pair = PairVerdict {
            made: made.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            converted,
            parent,
            samples: assessment.seeds.iter().map(|pair| pair.samples).sum(),
            verdict: match assessment.verdict {
                Verdict::Pass => Conclusion::Pass,
                Verdict::Fail => Conclusion::Fail,
                Verdict::Inconclusive => Conclusion::Inconclusive,
            },
            protocol: serde_json::to_value(&assessment.protocol)?,
            metrics: metrics(assessment),
        };
        let statement = Statement::of_pair(pair);
        // Last, so that nobody types a passphrase for what cannot be signed.
        let key = key::read(self.key)?;
        write_whole(self.to, bundle::sign(statement.to_json().as_bytes(), &key).as_bytes())?;
        let lines = [
            ("signed", "this verdict, of these two models".to_string()),
            ("key", key.public().fingerprint()),
            ("signature", self.to.display().to_string()),
        ];
        Ok(format!("\n{}", output::fields(&lines)))
    }
}

/// Weights and logits of a model.
fn side([weights, logits]: [&Path; 2]) -> Result<Side, Failure> {
    let subject = |path: &Path| {
        let unreadable = |e| Failure::of_file(path, &e);
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok::<_, Failure>(Subject::new(name, Digest::of_file(path).map_err(unreadable)?))
    };
    Ok(Side { weights: subject(weights)?, logits: subject(logits)? })
}

/// What each metric that gates came to, as statements have it.
pub fn metrics(assessment: &Assessment) -> Vec<Value> {
    let metric = |row: &MetricRow| {
        json!({
            "metric": row.label(),
            "reference": row.reference,
            "candidate": row.candidate,
            "unit": row.unit,
            "test": row.test,
        })
    };
    assessment.rows.iter().filter(|row| row.gates).map(metric).collect()
}
