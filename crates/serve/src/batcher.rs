//! Dynamic batching: requests that wait are computed together, in their order.
//!
//! Each loaded version has a thread that computes: the engine has threads of its own, so a second
//! one would only compete with it. While a batch is computed, the next one gathers.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::infer::Refusal;
use crate::limits::Reservation;
use crate::metrics::Metrics;
use crate::model::{ComputeError, Prepared, ServedModel};
use crate::tensor::Tensor;

/// The places of the requests that wait, of all versions together.
pub struct Room {
    taken: AtomicUsize,
    places: usize,
}

/// The place of one request. It is free again when this is dropped.
struct Place(Arc<Room>);

impl Room {
    /// Room for so many requests.
    pub fn new(places: usize) -> Arc<Room> {
        Arc::new(Room { taken: AtomicUsize::new(0), places })
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken| (taken < self.places).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A model and the requests that wait for it.
pub struct Batcher<M: ServedModel>(Arc<Queue<M>>);

struct Queue<M: ServedModel> {
    model: M,
    /// How long a request may wait for others to be computed with it.
    wait: Duration,
    room: Arc<Room>,
    metrics: Arc<Metrics>,
    state: Mutex<State<M::Samples>>,
    changed: Condvar,
}

struct State<S> {
    requests: VecDeque<Request<S>>,
    /// No request will come any more.
    closed: bool,
}

struct Request<S> {
    prepared: Prepared<S>,
    since: Instant,
    deadline: Instant,
    answer: oneshot::Sender<Computed>,
    /// Held as long as there is anything of the request.
    held: Reservation,
    /// Held while the request waits.
    _place: Place,
}

/// The outputs of a request, and its memory.
type Computed = Result<(Vec<Tensor>, Reservation), Refusal>;

impl<M: ServedModel> Batcher<M> {
    /// Starts the thread that computes. A request waits for others for `wait` at most: with zero it
    /// is computed as soon as the model is free.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(model: M, wait: Duration, room: Arc<Room>, metrics: Arc<Metrics>) -> io::Result<Batcher<M>> {
        let state = Mutex::new(State { requests: VecDeque::new(), closed: false });
        let queue = Arc::new(Queue { model, wait, room, metrics, state, changed: Condvar::new() });
        let computing = queue.clone();
        std::thread::Builder::new().name("halfstep-compute".into()).spawn(move || computing.run())?;
        Ok(Batcher(queue))
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.0.model
    }

    /// The answer to a request, which has to begin to be computed before `deadline`, and the memory
    /// that it holds. If the future is dropped before that, the request is not computed.
    ///
    /// # Errors
    /// As many requests wait as may, the time is over, or the model failed.
    pub async fn answer(
        &self,
        prepared: Prepared<M::Samples>,
        held: Reservation,
        deadline: Instant,
    ) -> Result<(Vec<Tensor>, Reservation), Refusal> {
        let answer = self.0.submit(prepared, held, deadline)?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Err(_) => Err(Refusal::TimedOut),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ComputeError("the model's thread ended before its answer".into()).into()),
        }
    }
}

impl<M: ServedModel> Drop for Batcher<M> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_all();
    }
}

type Answer = oneshot::Receiver<Computed>;

impl<M: ServedModel> Queue<M> {
    fn state(&self) -> MutexGuard<'_, State<M::Samples>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(
        &self,
        prepared: Prepared<M::Samples>,
        held: Reservation,
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let mut state = self.state();
        let mut place = self.room.take();
        if place.is_none() {
            // Requests whose clients went away leave their places to others.
            state.requests.retain(|request| !request.answer.is_closed());
            place = self.room.take();
        }
        let place = place.ok_or(Refusal::Full)?;
        let (answer, answered) = oneshot::channel();
        let since = Instant::now();
        state.requests.push_back(Request { prepared, since, deadline, answer, held, _place: place });
        drop(state);
        self.changed.notify_one();
        Ok(answered)
    }

    fn run(&self) {
        while let Some(batch) = self.next() {
            self.compute(batch);
        }
    }

    /// The requests to compute next; none when no more will come.
    fn next(&self) -> Option<Vec<Request<M::Samples>>> {
        let mut state = self.state();
        loop {
            let batch = self.ready(&mut state);
            match batch {
                Ready::Batch(batch) => return Some(batch),
                Ready::In(time) => {
                    let waited = self.changed.wait_timeout(state, time);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Ready::Nothing if state.closed => return None,
                Ready::Nothing => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Takes as many requests from the front as may be computed together: those behind one that
    /// does not fit wait, however few samples they have, so that none starves.
    fn ready(&self, state: &mut State<M::Samples>) -> Ready<M::Samples> {
        let now = Instant::now();
        while let Some(request) = state.requests.pop_front_if(|r| r.deadline <= now || r.answer.is_closed()) {
            let _ = request.answer.send(Err(Refusal::TimedOut));
        }
        let Some(first) = state.requests.front() else { return Ready::Nothing };
        let most = self.model.info().max_batch;
        let until = first.since + self.wait;
        if until > now && !state.closed {
            let waiting: usize = state.requests.iter().map(|r| r.prepared.count).sum();
            if waiting < most {
                return Ready::In(until - now);
            }
        }
        let (mut batch, mut samples) = (Vec::new(), 0usize);
        let fits =
            |samples: usize, r: &Request<_>| samples == 0 || samples.saturating_add(r.prepared.count) <= most;
        while let Some(request) = state.requests.pop_front_if(|r| fits(samples, r)) {
            if request.deadline <= now {
                let _ = request.answer.send(Err(Refusal::TimedOut));
            } else if !request.answer.is_closed() {
                samples += request.prepared.count.max(1);
                batch.push(request);
            }
        }
        Ready::Batch(batch)
    }

    fn compute(&self, batch: Vec<Request<M::Samples>>) {
        let begun = Instant::now();
        let (mut requests, mut answers) = (Vec::new(), Vec::new());
        for request in batch {
            self.metrics.queued(begun - request.since);
            requests.push(request.prepared);
            answers.push((request.answer, request.held));
        }
        let samples = requests.iter().map(|prepared| prepared.count).sum();
        // What the model leaves behind when it panics is a batch that nobody reads: weights do not
        // change when it computes. So the server goes on, and this batch alone fails.
        let outputs = catch_unwind(AssertUnwindSafe(|| self.model.compute(requests)))
            .unwrap_or_else(|panic| Err(panicked(&*panic)))
            .and_then(|outputs| match outputs.len() == answers.len() {
                true => Ok(outputs),
                false => Err(ComputeError(format!(
                    "the model gave {} answers to {} requests",
                    outputs.len(),
                    answers.len()
                ))),
            });
        self.metrics.computed(samples, begun.elapsed(), outputs.is_ok());
        match outputs {
            Ok(outputs) => {
                for ((answer, held), outputs) in answers.into_iter().zip(outputs) {
                    // A client that went away has no use for it.
                    let _ = answer.send(Ok((outputs, held)));
                }
            }
            Err(error) => {
                for (answer, _) in answers {
                    let _ = answer.send(Err(error.clone().into()));
                }
            }
        }
    }
}

enum Ready<S> {
    Batch(Vec<Request<S>>),
    /// Others may join before this time is over.
    In(Duration),
    Nothing,
}

/// What a panic says, as an error.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> ComputeError {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    ComputeError(format!("the model panicked: {}", text.as_deref().unwrap_or("it does not say why")))
}

#[cfg(test)]
mod tests;
