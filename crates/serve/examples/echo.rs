//! A server that gives back what it is sent, for clients that check their own bytes against it:
//! `scripts/check_serving.py` does. It prints its address and ends when its input does.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use halfstep_serve::grpc;
use halfstep_serve::limits::{Budget, Limits};
use halfstep_serve::listener::Listener;
use halfstep_serve::rest::router;

#[path = "../tests/it/direct.rs"]
mod direct;
#[path = "../tests/it/echo.rs"]
mod echo;

#[expect(clippy::disallowed_methods, reason = "an example prints")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::default();
    let (echo, budget) = (Arc::new(direct::Direct(echo::Echo::new())), Budget::new(&limits));
    let routes = router(echo.clone(), limits.clone(), budget.clone()).merge(grpc::router(
        echo,
        limits.clone(),
        budget,
    ));
    let listener = Listener::bind("127.0.0.1:0".parse()?, None, None, limits).await?;
    writeln!(std::io::stdout(), "{}", listener.address())?;
    let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let ended = async { drop(input.await) };
    let report = |e: &std::io::Error| drop(writeln!(std::io::stderr(), "{e}"));
    listener.serve(routes, ended, Duration::from_secs(1), report).await;
    Ok(())
}
