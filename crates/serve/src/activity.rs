//! What a connection is doing, so that one whose client does nothing is closed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};

use crate::limits::{Limits, Reservation};

/// What a connection is doing.
pub(crate) struct Activity(Mutex<State>);

struct State {
    /// Requests that are being answered.
    answering: usize,
    /// Since when answers wait to be taken.
    answers: BTreeMap<u64, Instant>,
    /// The number of the next answer.
    next: u64,
    /// When something was done last.
    last: Instant,
}

/// A request that is being answered.
pub(crate) struct Answering(Option<Arc<Activity>>);

/// An answer that its client has not taken wholly.
pub(crate) struct Answered {
    activity: Arc<Activity>,
    number: u64,
}

impl Activity {
    pub(crate) fn new() -> Activity {
        let state = State { answering: 0, answers: BTreeMap::new(), next: 0, last: Instant::now() };
        Activity(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Answering {
        self.state().answering += 1;
        Answering(Some(self.clone()))
    }

    /// Ready when the client has let an answer lie, or has asked nothing, for as long as `limits`
    /// allow.
    pub(crate) async fn stale(&self, limits: &Limits) {
        let often = limits.header_read.min(limits.answer_write) / 8;
        while !self.is_stale(limits) {
            sleep(often.clamp(Duration::from_millis(10), Duration::from_secs(1))).await;
        }
    }

    fn is_stale(&self, limits: &Limits) -> bool {
        let state = self.state();
        let idle = state.answering == 0 && state.answers.is_empty();
        idle && state.last.elapsed() > limits.header_read
            || state.answers.values().any(|since| since.elapsed() > limits.answer_write)
    }
}

impl Answering {
    /// The request has its answer, which the client has to take now.
    pub(crate) fn answered(mut self) -> Option<Answered> {
        let activity = self.0.take()?;
        let mut state = activity.state();
        state.answering -= 1;
        let number = state.next;
        state.next += 1;
        state.answers.insert(number, Instant::now());
        drop(state);
        Some(Answered { activity, number })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(activity) = self.0.take() {
            let mut state = activity.state();
            state.answering -= 1;
            state.last = Instant::now();
        }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.answers.remove(&self.number);
        state.last = Instant::now();
    }
}

/// The memory of an answer, which goes with it until its client has taken it.
#[derive(Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "its drop gives the memory back")] Arc<Reservation>);

impl Held {
    /// Makes an answer hold its memory.
    pub(crate) fn by(response: &mut Response, held: Reservation) {
        response.extensions_mut().insert(Held(Arc::new(held)));
    }
}

/// Bytes of an answer that are handed to the connection at a time.
const PIECE: usize = 64 << 10;

/// The body of an answer, in pieces: a connection takes the next one only when its client has taken
/// those before, so that an answer counts until it is on its way.
pub(crate) struct Taken {
    body: Body,
    rest: Bytes,
    answered: Option<Answered>,
    _held: Option<Held>,
}

impl Taken {
    /// The body of `response`.
    pub(crate) fn of(response: Response, answered: Option<Answered>) -> Response<Taken> {
        let (mut parts, body) = response.into_parts();
        let held = parts.extensions.remove();
        Response::from_parts(parts, Taken { body, rest: Bytes::new(), answered, _held: held })
    }
}

impl HttpBody for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => {
                    self.answered = None;
                    return Poll::Ready(end);
                }
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
