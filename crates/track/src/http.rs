//! HTTP requests with a time limit.

use std::time::Duration;

use ureq::Agent;
use ureq::http::{Method, Request, Response};

use crate::exporter::Refusal;

/// How long a server may take for a whole request.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server, and the headers of every request to it.
pub(crate) struct Server {
    agent: Agent,
    /// The URL, without a slash at the end.
    base: String,
    headers: Vec<(String, String)>,
}

/// What a server answered.
pub(crate) struct Answer {
    pub status: u16,
    pub body: String,
}

impl Server {
    pub fn new(base: &str, headers: Vec<(String, String)>) -> Server {
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // The caller judges the status.
            .http_status_as_error(false)
            .user_agent(concat!("halfstep/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Server { agent, base: base.trim_end_matches('/').to_string(), headers }
    }

    /// Sends a request and returns the answer, whatever its status.
    pub fn ask(&self, method: Method, path: &str, kind: &str, body: &[u8]) -> Result<Answer, Refusal> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if !body.is_empty() {
            request = request.header("Content-Type", kind);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let never = |e: String| Refusal::Never(format!("{url}: {e}"));
        let later = |e: ureq::Error| Refusal::Later(format!("{url}: {e}"));
        let answer: Result<Response<_>, _> = if body.is_empty() {
            self.agent.run(request.body(()).map_err(|e| never(e.to_string()))?)
        } else {
            self.agent.run(request.body(body).map_err(|e| never(e.to_string()))?)
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(e @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => return Err(never(e.to_string())),
            Err(e) => return Err(later(e)),
        };
        let body = answer.body_mut().with_config().limit(1 << 22).read_to_string().map_err(later)?;
        Ok(Answer { status: answer.status().as_u16(), body })
    }

    /// [`Server::ask`], where a status that is no success is a [`Refusal`].
    pub fn tell(&self, method: Method, path: &str, kind: &str, body: &[u8]) -> Result<String, Refusal> {
        let answer = self.ask(method, path, kind, body)?;
        if (200..300).contains(&answer.status) { Ok(answer.body) } else { Err(self.refusal(path, &answer)) }
    }

    /// The refusal for an unsuccessful status: [`Refusal::Later`] for server errors and overload.
    pub fn refusal(&self, path: &str, answer: &Answer) -> Refusal {
        let words: String = answer.body.trim().chars().take(200).collect();
        let text = format!("{}{path}: the server answered {} {words}", self.base, answer.status);
        match answer.status {
            408 | 425 | 429 | 500.. => Refusal::Later(text),
            _ => Refusal::Never(text),
        }
    }
}
