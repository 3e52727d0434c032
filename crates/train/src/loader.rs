//! Training batches, drawn by a thread while the step before runs.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use halfstep_data::{Batch, DataError, InputShape, Part, Sampler};

/// Batches that are filled ahead of the step, this one's among them: one that is read and one that
/// is being filled would do, a third evens out batches that take longer.
const BATCHES: usize = 3;

/// Batches of training data in order.
pub(crate) struct Loader {
    filled: Receiver<Result<Batch, DataError>>,
    empty: SyncSender<Batch>,
    /// What [`Loader::peek`] has seen.
    ahead: Option<Result<Batch, DataError>>,
    /// Time spent waiting in [`Loader::next`].
    pub waited: Duration,
}

impl Loader {
    /// Starts to draw the batches `numbers` with the order of `seed`: of each batch of so many
    /// samples, those at the places of `share`.
    ///
    /// # Errors
    /// The batch is larger than the data.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        part: &'scope Part,
        input: InputShape,
        (batch, share): (usize, Range<usize>),
        seed: u64,
        numbers: Range<u64>,
    ) -> Result<Loader, DataError> {
        let mut sampler = Sampler::new(part.len(), batch, seed)?;
        let (fill, filled) = sync_channel(BATCHES);
        let (empty, to_fill) = sync_channel(BATCHES);
        for _ in 0..BATCHES {
            // There is room for all of them.
            let _ = empty.send(Batch::new(input, share.len()));
        }
        scope.spawn(move || {
            for number in numbers {
                // A loop that has ended early has let go of its side.
                let Ok(mut batch) = to_fill.recv() else { return };
                let (draw, indices) = sampler.batch(number);
                let result = part.fill_batch(&indices[share.clone()], draw, &mut batch).map(|()| batch);
                if fill.send(result).is_err() {
                    return;
                }
            }
        });
        Ok(Loader { filled, empty, ahead: None, waited: Duration::ZERO })
    }

    /// The next batch; none after the last.
    ///
    /// # Errors
    /// It could not be drawn.
    pub fn next(&mut self) -> Option<Result<Batch, DataError>> {
        let begun = Instant::now();
        let batch = self.ahead.take().or_else(|| self.filled.recv().ok());
        self.waited += begun.elapsed();
        batch
    }

    /// The batch that [`Loader::next`] will give, if it is drawn already.
    pub fn peek(&mut self) -> Option<&Batch> {
        if self.ahead.is_none() {
            self.ahead = self.filled.try_recv().ok();
        }
        self.ahead.as_ref()?.as_ref().ok()
    }

    /// Gives a batch back to be filled again.
    pub fn give_back(&self, batch: Batch) {
        // After the last batch nobody needs it.
        let _ = self.empty.try_send(batch);
    }
}
