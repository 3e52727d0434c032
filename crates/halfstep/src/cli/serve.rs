//! `halfstep serve`: a trained model behind the Open Inference Protocol.

mod inputs;
mod model;
mod registry;
mod run;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep_registry::names::Reference;
use halfstep_serve::access::KeyFile;
use halfstep_serve::limits::Limits;
use halfstep_serve::log::Log;
use halfstep_serve::model::{ModelInfo, TensorSpec};
use halfstep_serve::server::{AccessLog, Ended, Server, ServerOptions};
use halfstep_serve::tensor::Datatype;
use halfstep_serve::tls::Tls;
use serde_json::json;

use super::args::Serve;
use super::failure::{FAILED, Failure, INTERRUPTED};
use super::registry::Asked;
use super::{output, stdio};
use model::{Batches, Facts, Manner};
use registry::{Loading, RegistrySource, Signatures, Verdicts};
use run::RunSource;

/// Runs the command.
pub fn run(args: Serve, request: EngineRequest) -> Result<ExitCode, Failure> {
    let asked = |e: &dyn std::fmt::Display| Failure::asked(e.to_string(), "");
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key).map_err(|e| asked(&e))?),
        _ => None,
    };
    let keys = args.api_keys.as_deref().map(KeyFile::open).transpose().map_err(|e| asked(&e))?;
    let access = Access { tls: tls.is_some(), keys: keys.is_some() };
    let manner = Manner {
        most: args.max_batch,
        batches: if args.batch_invariant { Batches::Invariant } else { Batches::Fast },
    };
    let options = ServerOptions {
        address: args.listen,
        tls,
        keys,
        limits: limits(&args),
        batch_wait: std::time::Duration::from_millis(args.batch_wait),
        drain: args.drain,
        log: Log::new(Stderr),
        access_log: if args.access_log { AccessLog::Each } else { AccessLog::None },
    };
    let engine = Arc::from(halfstep::engine(request)?);
    let json = args.json;
    let (running, Facts { info, precision, warning }) = match registered(&args)? {
        None => {
            let (source, facts) = RunSource::open(&args.chosen, args.name, engine, manner)?;
            (Server::start(source, options), facts)
        }
        Some((from, reference)) => {
            let name = args.name.unwrap_or_else(|| reference.model.to_string());
            let demanded = |is: bool| if is { Signatures::Demanded } else { Signatures::NotLookedAt };
            let (signatures, moves) = (demanded(!args.unsigned), demanded(args.signed_moves));
            let verdicts = if args.unjudged { Verdicts::NotLookedAt } else { Verdicts::Demanded };
            let precision = args.chosen.precision;
            let loading = Loading { name, precision, engine, manner, signatures, moves, verdicts };
            let (source, facts) = RegistrySource::open(from, reference, loading)?;
            (Server::start(source, options), facts)
        }
    };
    if let Some(warning) = warning {
        output::message(&format!("warning: {warning}"));
    }
    let running = running.map_err(|e| asked(&e))?;
    let address = running.address();
    if json {
        output::json(&printed(&info, address, &precision))?;
    } else {
        show(&info, address, &precision, &access);
    }
    let ended = running.until_signal().map_err(|e| Failure::failed(e.to_string()))?;
    Ok(match ended {
        Ended::Drained { refused: 0 } => ExitCode::SUCCESS,
        Ended::Drained { .. } => ExitCode::from(FAILED),
        Ended::AtOnce => ExitCode::from(INTERRUPTED),
    })
}

/// The registry and its version that are asked for; none where a run directory is.
fn registered(args: &Serve) -> Result<Option<(Asked, Reference)>, Failure> {
    let run = &args.chosen.run;
    let reference = run.display().to_string().parse::<Reference>();
    let folder = match args.registry.clone() {
        // A run directory may be called as versions are.
        None if reference.is_err() || run.exists() => {
            if args.trust.is_some() || args.unsigned || args.signed_moves || args.unjudged {
                let message =
                    "--trust, --unsigned, --signed-moves and --unjudged are of versions of a registry";
                return Err(Failure::asked(message, "leave them out, or name the registry with --registry"));
            }
            return Ok(None);
        }
        named => {
            let missing =
                format!("{}: there is no such run directory, and no registry is named", run.display());
            super::registry::folder(named, &missing)?
        }
    };
    if args.chosen.checkpoint.is_some() {
        let help = "leave out --checkpoint: a version of a registry has one";
        return Err(Failure::asked("--checkpoint is of run directories, and --registry is given", help));
    }
    let reference = reference.map_err(|e| Failure::asked(e.to_string(), ""))?;
    Ok(Some((Asked { folder, trust: args.trust.clone(), accept_older: None, json: args.json }, reference)))
}

fn limits(args: &Serve) -> Limits {
    let mut limits = Limits::default();
    limits.body = args.max_body.map_or(limits.body, |bytes| bytes.0);
    limits.queue = args.queue.map_or(limits.queue, |n| n.get());
    limits.request = args.timeout.unwrap_or(limits.request);
    limits
}

/// What a client has to do to be let in.
struct Access {
    tls: bool,
    keys: bool,
}

impl Access {
    fn url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.tls { "https" } else { "http" })
    }
}

fn printed(info: &ModelInfo, address: SocketAddr, precision: &str) -> serde_json::Value {
    json!({
        "address": address.to_string(),
        "model": info.name,
        "version": info.digest,
        "precision": precision,
        "max_batch": info.max_batch,
        "memory": info.memory,
    })
}

fn show(info: &ModelInfo, address: SocketAddr, precision: &str, access: &Access) {
    let batches = match info.max_batch {
        1 => "samples one by one".into(),
        most => format!("up to {most} samples together"),
    };
    output::raw(&output::fields(&[
        ("model", info.name.clone()),
        ("version", info.digest.clone()),
        ("address", access.url(address)),
        ("precision", format!("{precision}, {batches}")),
        ("memory", units::bytes(info.memory as usize)),
        ("inputs", tensors(&info.inputs, " or ")),
        ("outputs", tensors(&info.outputs, ", ")),
    ]));
    output::line(&format!("\n{}", curl(info, address, access)));
}

fn tensors(specs: &[TensorSpec], between: &str) -> String {
    let one = |spec: &TensorSpec| {
        let extents = spec.shape.iter().map(|n| n.map_or("n".into(), |n: usize| n.to_string()));
        let shape = extents.collect::<Vec<_>>().join(", ");
        format!("{} {} [{shape}]", spec.name, spec.datatype.name())
    };
    specs.iter().map(one).collect::<Vec<_>>().join(between)
}

/// A request that this model answers, for a shell.
fn curl(info: &ModelInfo, address: SocketAddr, access: &Access) -> String {
    let key = if access.keys { " -H \"Authorization: Bearer $KEY\"" } else { "" };
    let url = format!("{}/v2/models/{}/infer", access.url(address), info.name);
    // Of numbers and pixels zeros are sent, in binary, since in JSON they would fill the terminal.
    let zeros = info.inputs.iter().find(|input| [inputs::PIXELS, inputs::X].contains(&input.name.as_str()));
    let Some(input) = zeros else {
        let request = json!({"inputs": [
            {"name": inputs::TEXT, "datatype": Datatype::Bytes.name(), "shape": [1], "data": ["Once upon"]},
        ]});
        return format!("curl -s{key} {url} -d '{request}'");
    };
    let shape: Vec<usize> = input.shape.iter().map(|extent| extent.unwrap_or(1)).collect();
    let bytes = shape.iter().product::<usize>() * input.datatype.size().unwrap_or(1);
    let request = json!({"inputs": [{
        "name": input.name, "datatype": input.datatype.name(), "shape": shape,
        "parameters": {"binary_data_size": bytes},
    }]})
    .to_string();
    format!(
        "{{ printf '%s' '{request}'; head -c {bytes} /dev/zero; }} | curl -s{key} {url} --data-binary @- \
         -H 'Inference-Header-Content-Length: {}'",
        request.len()
    )
}

/// The server's log.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stdio::err(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
