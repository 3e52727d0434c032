//! Load on a server: requests are sent at times that are drawn beforehand, whatever its answers do.
//!
//! A latency is counted from the time at which a request was to be sent. So what waits because the
//! server is slow counts as slow, and is not merely sent later.
//!
//! ```sh
//! load 127.0.0.1:8080 request.http --rate 2000 --seconds 5 --connections 64
//! ```
//!
//! `request.http` is a whole HTTP/1.1 request with its body. One JSON object is printed: requests
//! by status, the latencies' percentiles in milliseconds, and the processor time of this program.
#![allow(clippy::print_stdout)] // of an example

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What was asked for.
struct Load {
    address: String,
    request: Vec<u8>,
    /// Requests a second.
    rate: f64,
    length: Duration,
    connections: usize,
}

/// What became of the requests that one connection sent.
#[derive(Default)]
struct Outcomes {
    /// Milliseconds of those that were answered with 200.
    latencies: Vec<f64>,
    statuses: BTreeMap<u16, u64>,
    /// Those that had no answer.
    failed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let load = Load::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(load.run())?;
    let mut latencies = outcomes.latencies;
    latencies.sort_by(f64::total_cmp);
    let percentile = |p: f64| {
        let last = latencies.len().checked_sub(1)?;
        latencies.get((last as f64 * p).ceil() as usize).copied()
    };
    let report = json!({
        "rate": load.rate,
        "seconds": load.length.as_secs_f64(),
        "statuses": outcomes.statuses,
        "failed": outcomes.failed,
        "p50_ms": percentile(0.5),
        "p99_ms": percentile(0.99),
        "greatest_ms": latencies.last(),
        "processor_s": processor_seconds(),
    });
    println!("{report}");
    Ok(())
}

impl Load {
    fn parse(args: impl Iterator<Item = String>) -> Result<Load, Box<dyn Error>> {
        let (mut plain, mut options) = (Vec::new(), BTreeMap::new());
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--") {
                Some(name) => {
                    options.insert(name.to_string(), args.next().ok_or("an option has no value")?);
                }
                None => plain.push(arg),
            }
        }
        let [address, request] = plain.try_into().map_err(|_| "give an address and a file")?;
        let number = |name: &str, usual: f64| options.get(name).map_or(Ok(usual), |text| text.parse());
        Ok(Load {
            address,
            request: std::fs::read(request)?,
            rate: number("rate", 100.0)?,
            length: Duration::from_secs_f64(number("seconds", 5.0)?),
            connections: number("connections", 64.0)? as usize,
        })
    }

    async fn run(&self) -> Result<Outcomes, Box<dyn Error>> {
        let (sender, receiver) = unbounded_channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let (request, receiver) = (self.request.clone(), receiver.clone());
            connections.push(tokio::spawn(connection(stream, self.address.clone(), request, receiver)));
        }
        let (rate, length) = (self.rate, self.length);
        let clock = std::thread::spawn(move || send_times(rate, length, &sender));
        let mut all = Outcomes::default();
        for connection in connections {
            let one = connection.await?;
            all.latencies.extend(one.latencies);
            all.failed += one.failed;
            one.statuses.into_iter().for_each(|(status, n)| *all.statuses.entry(status).or_default() += n);
        }
        clock.join().map_err(|_| "the clock failed")?;
        Ok(all)
    }
}

/// Gives out times to send at, exponential gaps between them, when they have come.
fn send_times(rate: f64, length: Duration, sender: &UnboundedSender<Instant>) {
    let start = Instant::now();
    let (mut at, mut state) = (0.0, 0x9e37_79b9_7f4a_7c15_u64);
    loop {
        // xorshift64: the same times in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        at -= uniform.ln() / rate;
        if at > length.as_secs_f64() {
            return;
        }
        let due = start + Duration::from_secs_f64(at);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if sender.send(due).is_err() {
            return;
        }
    }
}

/// Sends requests one after another, and connects again after a failure.
async fn connection(
    stream: TcpStream,
    address: String,
    request: Vec<u8>,
    times: Arc<Mutex<UnboundedReceiver<Instant>>>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut stream = Some(stream);
    loop {
        let due = times.lock().await.recv().await;
        let Some(due) = due else { return outcomes };
        if stream.is_none() {
            stream = TcpStream::connect(&address).await.ok();
        }
        let status = match stream.as_mut() {
            Some(open) => exchange(open, &request).await,
            None => Err("no connection".into()),
        };
        match status {
            Ok(status) => {
                *outcomes.statuses.entry(status).or_default() += 1;
                if status == 200 {
                    outcomes.latencies.push(due.elapsed().as_secs_f64() * 1e3);
                }
            }
            Err(_) => {
                outcomes.failed += 1;
                stream = None;
            }
        }
    }
}

/// Sends one request, and reads its answer to the end: its status.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<u16, Box<dyn Error + Send + Sync>> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(4096);
    let head = loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended within an answer".into());
        }
    };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    let status = text.split(' ').nth(1).ok_or("no status")?.parse()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let end = head + length.ok_or("an answer of unknown length")?.trim().parse::<usize>()?;
    while answer.len() < end {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended within an answer".into());
        }
    }
    Ok(status)
}

/// Seconds of processor time that this program has used; none where the system does not say so.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    // User and system time in clock ticks, of which Linux has 100 a second.
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
