//! Arguments of `card`, `key`, `sign` and `verify`.

use std::path::PathBuf;

use clap::Subcommand;
use halfstep_attest::DateTime;
use halfstep_serve::access::Scope;

/// `card`
#[derive(Debug, clap::Args)]
pub struct Card {
    /// Run directory of the comparison
    pub comparison: PathBuf,
    /// Precision of the model
    #[arg(long, value_name = "NAME")]
    pub precision: String,
    /// Seed of the model [default: the first]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Arm of an ablation
    #[arg(long, value_name = "NAME")]
    pub arm: Option<String>,
    /// Licence of the model, such as apache-2.0; without it the card says that none is stated
    #[arg(long = "license", value_name = "NAME")]
    pub licence: Option<String>,
    /// Also write CONTROLS.md: controls of NIST AI RMF, ISO/IEC 42001 and the EU AI Act, and which
    /// file is evidence for each
    #[arg(long)]
    pub controls: bool,
    /// Folder for the files [default: that of the comparison]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `key`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a private key (P-256) and the public key that belongs to it
    New(NewKey),
    /// Make an API key for a server, which is shown once
    Api(ApiKey),
}

/// `key api`
#[derive(Debug, clap::Args)]
pub struct ApiKey {
    /// Name of the key, by which the server's messages call it
    pub name: String,
    /// What it may be used for: read (what is served), infer, metrics
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "read,infer", value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// When it ends to be valid, such as 2027-06-30T00:00:00Z [default: never]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<toml::value::Datetime>,
    /// File of keys to add it to; a new one is made [default: the entry for the file is printed]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn scope(name: &str) -> Result<Scope, String> {
    let all = [Scope::Read, Scope::Infer, Scope::Metrics];
    all.into_iter().find(|s| s.name() == name).ok_or_else(|| "there are read, infer and metrics".into())
}

/// `key new`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The passphrase is read from HALFSTEP_PASSPHRASE where that is set, and else asked for on the terminal."
)]
pub struct NewKey {
    /// File of the private key; the public key is written beside it, with the ending .pub.pem
    /// [default: signing-key.pem in HALFSTEP_KEYS, or in halfstep in the folder of configuration]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Do not encrypt the private key: whoever can read the file can sign
    #[arg(long)]
    pub no_passphrase: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `sign`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The passphrase of the key is read from HALFSTEP_PASSPHRASE where that is set, and else asked for on the terminal."
)]
pub struct Sign {
    /// Folder of the model, or, with --verdict, of the comparison
    pub folder: PathBuf,
    /// Sign what the comparison came to, with the digests of all that it judged
    #[arg(long, conflicts_with = "ignore")]
    pub verdict: bool,
    /// Private key [default: the one that `halfstep key new` makes]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// File of the signature [default: model.sig, or verdict.sig, in the folder]
    #[arg(short, long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Leave out what lies at or below this path, which is taken from the folder's top
    #[arg(long, value_name = "PATH")]
    pub ignore: Vec<String>,
    /// Overwrite a signature that is there
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `verdict`: what is signed of a pair.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Signing the verdict of one pair")]
pub struct SignedPair {
    /// Sign into this file what a converted model came to against the one that it was made of
    #[arg(long, value_name = "FILE", requires_all = ["weights", "parent"])]
    pub sign: Option<PathBuf>,
    /// Weights of the converted model, whose logits are the candidate's
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub weights: Option<PathBuf>,
    /// Weights of the model that it was made of, whose logits are the baseline's
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub parent: Option<PathBuf>,
    /// Private key [default: the one that `halfstep key new` makes]
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub key: Option<PathBuf>,
    /// Overwrite a signature that is there
    #[arg(long, requires = "sign")]
    pub force: bool,
}

/// `verify`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 verified, 1 refused, 2 wrong arguments, 3 named by a verdict that is no pass."
)]
pub struct Verify {
    /// Folder of the model; with --verdict, a file of weights
    pub model: PathBuf,
    /// Signature of the folder [default: model.sig in it]
    #[arg(short, long, value_name = "FILE", conflicts_with = "verdict")]
    pub signature: Option<PathBuf>,
    /// Signed verdict: is this file of weights among those that it judged, and did they pass?
    #[arg(long, value_name = "FILE")]
    pub verdict: Option<PathBuf>,
    /// Public key that is trusted; may be given several times
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Certificate of an authority that is trusted; may be given several times
    #[arg(long, value_name = "FILE")]
    pub root: Vec<PathBuf>,
    /// Trust file [default: trust.toml beside the default key, where neither --key nor --root is
    /// given]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Time at which keys and certificates have to be valid, such as 2026-11-27T12:00:00Z
    /// [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<DateTime>,
    /// Leave out what lies at or below this path, for signatures that do not name it
    #[arg(long, value_name = "PATH", conflicts_with = "verdict")]
    pub ignore: Vec<String>,
    /// Accept files that were not signed
    #[arg(long, conflicts_with = "verdict")]
    pub ignore_unsigned: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn time(text: &str) -> Result<DateTime, String> {
    text.parse().map_err(|_| "not a time in UTC; write it as 2026-11-27T12:00:00Z".to_string())
}
