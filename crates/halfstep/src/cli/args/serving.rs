//! Arguments of `serve`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use halfstep::graph::ByteSize;
use halfstep::train::recipe::folder_name;

use super::Chosen;

/// `serve`
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("run", |arg| arg.help("Run directory, or a version of a registry, MODEL@ALIAS or MODEL@ and at least four digits of its SHA-256")),
    after_help = "Ctrl-C or SIGTERM ends the server when it has answered the requests that have begun; a second signal ends it at once."
)]
pub struct Serve {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Folder of a registry, whose alias is served and followed as it moves [default:
    /// HALFSTEP_REGISTRY, where RUN is MODEL@ALIAS and no folder]
    #[arg(long, value_name = "DIR")]
    pub registry: Option<PathBuf>,
    /// Who may have signed what is served [default: trust.toml beside the default key]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Serve versions of the registry whoever made them
    #[arg(long, conflicts_with = "trust")]
    pub unsigned: bool,
    /// Follow an alias by signed moves alone
    #[arg(long, conflicts_with = "unsigned")]
    pub signed_moves: bool,
    /// Compute versions of the registry in the precision of --precision though no signed verdict
    /// judged them in it
    #[arg(long, requires = "precision")]
    pub unjudged: bool,
    /// What clients call the model [default: the name of the recipe, or in the registry]
    #[arg(long, value_name = "NAME", value_parser = model_name)]
    pub name: Option<String>,
    /// Address to listen at. One beyond this machine needs TLS and API keys; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Certificate of the server in PEM, with those that lead to its authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// File of API keys, of which each request then needs one; `halfstep key api` makes them
    #[arg(long, value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// Samples to compute together, at most
    #[arg(long, value_name = "N", default_value = "32", value_parser = batch)]
    pub max_batch: NonZeroUsize,
    /// Milliseconds that a request may wait for others to be computed with it
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub batch_wait: u64,
    /// Give each sample the same bits whatever it is computed together with: one by one where that
    /// takes it
    #[arg(long)]
    pub batch_invariant: bool,
    /// Largest body of a request, decoded [default: 32 MiB]
    #[arg(long, value_name = "BYTES", value_parser = body)]
    pub max_body: Option<ByteSize>,
    /// Requests that may wait [default: 4096]
    #[arg(long, value_name = "N")]
    pub queue: Option<NonZeroUsize>,
    /// Time for a request, such as 10s [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = super::super::duration::parse)]
    pub timeout: Option<Duration>,
    /// Time for requests that have begun when the server is asked to end
    #[arg(long, value_name = "DURATION", value_parser = super::super::duration::parse, default_value = "30s")]
    pub drain: Duration,
    /// Log each answer: its route, code, version and time
    #[arg(long)]
    pub access_log: bool,
    /// Print one JSON object when the server answers
    #[arg(long)]
    pub json: bool,
}

/// Most samples that are computed together: memory is taken for so many when a model is loaded.
const MOST_SAMPLES: usize = 4096;
/// What the largest body may be: a request fits, and all requests together are a number of bytes.
const BODIES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 36;

/// A name that an address can have as it is, like those of recipes and in registries.
fn model_name(text: &str) -> Result<String, String> {
    match folder_name(text) {
        plain if plain.is_empty() => Err("there is no letter or digit in it".into()),
        plain if plain != text => Err(format!("addresses cannot have it as it is; `{plain}` would do")),
        plain => Ok(plain),
    }
}

fn batch(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse::<NonZeroUsize>().ok().filter(|n| n.get() <= MOST_SAMPLES);
    number.ok_or_else(|| format!("it has to be a whole number from 1 to {MOST_SAMPLES}"))
}

fn body(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|e| format!("{e}"))?;
    match BODIES.contains(&(size.0 as u64)) {
        true => Ok(size),
        false => Err("it has to be from 1 KiB to 64 GiB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_can_do_is_refused() {
        for name in ["digits", "digits-v2.1", "ziffern_größe"] {
            assert_eq!(model_name(name).as_deref(), Ok(name));
        }
        for name in ["", "..", "../x", "a/b", "a b", "a?b", "a\nb", "%2e%2e"] {
            assert!(model_name(name).is_err(), "{name}");
        }
        assert_eq!(batch("4096").map(NonZeroUsize::get), Ok(4096));
        for number in ["0", "4097", "-1", "x", "99999999999999999999"] {
            assert!(batch(number).is_err(), "{number}");
        }
        assert_eq!(body("1 KiB").unwrap().0, 1024);
        for size in ["0", "1023", "65 GiB", "18446744073709551615"] {
            assert!(body(size).is_err(), "{size}");
        }
    }
}
