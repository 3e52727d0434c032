//! Arguments of `registry`.

use std::path::PathBuf;

use clap::Subcommand;
use halfstep_registry::names::{Alias, Reference, RegisteredName};

/// `registry`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A version is written MODEL@ALIAS, or MODEL@ and at least four digits of its SHA-256. The folder of the registry is --registry or HALFSTEP_REGISTRY."
)]
pub struct RegistryArgs {
    /// Folder of the registry [default: HALFSTEP_REGISTRY]
    #[arg(long, global = true, value_name = "DIR")]
    pub registry: Option<PathBuf>,
    /// Trust file [default: trust.toml beside the default key]
    #[arg(long, global = true, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Accept a registry that was brought back to an older state, for a reason that is noted, and
    /// forget what was seen of it
    #[arg(long, global = true, value_name = "REASON")]
    pub accept_older: Option<String>,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: RegistryCommand,
}

/// What to do with a registry.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Add a trained model as a version, and make it the candidate
    Add(AddVersion),
    /// Attach a signature, verdicts or cards to a version that is there
    Attach(Attach),
    /// List versions and where aliases point
    List {
        /// Model [default: all]
        model: Option<RegisteredName>,
    },
    /// Show a version: its files, what is attached, and its moves
    Show {
        /// Version
        version: Reference,
    },
    /// Show what two versions differ in: files, precision, recipe, verdicts
    Diff(DiffVersions),
    /// Move an alias to a version whose evidence satisfies the registry's policy
    Promote(Promote),
    /// Move an alias back to a version that it had before
    Rollback(RollBack),
    /// Write the registry to one file, for a machine without a network
    Export(ExportRegistry),
    /// Read an exported file into the registry, or make one of it
    Import {
        /// File of `registry export`
        file: PathBuf,
    },
    /// Hash every file and check versions, history and signatures
    Verify,
    /// Remove versions that nobody uses
    Gc(CollectVersions),
}

/// `registry add`
#[derive(Debug, clap::Args)]
pub struct AddVersion {
    /// Run directory of `train` or `compare`
    pub run: PathBuf,
    /// Name of the model in the registry
    #[arg(long = "as", value_name = "MODEL")]
    pub model: RegisteredName,
    /// Checkpoint to add [default: as `predict` chooses]
    #[arg(long, value_name = "NAME")]
    pub checkpoint: Option<String>,
    #[command(flatten)]
    pub evidence: Evidence,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Say what would be added, and add nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What is attached to a version.
#[derive(Debug, clap::Args)]
pub struct Evidence {
    /// Signed verdict to attach; may be repeated [default of `add`: that of the run directory]
    #[arg(long, value_name = "FILE")]
    pub verdict: Vec<PathBuf>,
    /// Model card or bill of materials to attach, as `halfstep card` writes them; may be repeated
    #[arg(long, value_name = "FILE")]
    pub card: Vec<PathBuf>,
    /// Sign the version's files; `add` signs the move of `candidate` besides
    #[arg(long)]
    pub sign: bool,
    /// Private key to sign with [default: the one that `halfstep key new` makes]
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub key: Option<PathBuf>,
}

/// `registry attach`
#[derive(Debug, clap::Args)]
pub struct Attach {
    /// Version
    pub version: Reference,
    #[command(flatten)]
    pub evidence: Evidence,
}

/// `registry diff`
#[derive(Debug, clap::Args)]
pub struct DiffVersions {
    /// Version
    pub before: Reference,
    /// Version to compare it with
    pub after: Reference,
}

/// Whether a move is signed.
#[derive(Debug, clap::Args)]
pub struct SignMove {
    /// Sign the move
    #[arg(long)]
    pub sign: bool,
    /// Private key to sign with [default: the one that `halfstep key new` makes]
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub key: Option<PathBuf>,
}

/// `registry promote`
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// Version to promote
    pub version: Reference,
    /// Alias to move
    #[arg(long, value_name = "ALIAS", default_value = "champion")]
    pub to: Alias,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Promote though the evidence is not enough, with this reason in the history
    #[arg(long, value_name = "REASON")]
    pub force: Option<String>,
    #[command(flatten)]
    pub signing: SignMove,
    /// Say whether it would be promoted, and move nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `registry rollback`
#[derive(Debug, clap::Args)]
pub struct RollBack {
    /// Model and alias, MODEL@ALIAS
    pub alias: Reference,
    /// Digits of the version to go back to [default: the one before]
    #[arg(long, value_name = "SHA-256")]
    pub to: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub signing: SignMove,
    /// Say where it would go, and move nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `registry export`
#[derive(Debug, clap::Args)]
pub struct ExportRegistry {
    /// File to write
    pub file: PathBuf,
    /// Leave out the files of all models but this one
    #[arg(long, value_name = "MODEL")]
    pub model: Option<RegisteredName>,
}

/// `registry gc`
#[derive(Debug, clap::Args)]
pub struct CollectVersions {
    /// Keep what was added, or was where an alias pointed, in so many days
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub keep_days: u32,
    /// Hours between the marking of a version and its removal by a later call
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub grace_hours: u32,
    /// Say what would be marked and removed, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
