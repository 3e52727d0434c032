use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::limits::{Budget, Limits};
use crate::model::{InputError, ModelInfo};
use crate::tensor::Datatype;

const MOST: usize = 8;
/// A sample at which the model waits until the test lets it go on.
const WAITS: u64 = u64::MAX;
/// A sample at which it panics.
const PANICS: u64 = u64::MAX - 1;
/// A sample for which it gives no answer.
const SILENT: u64 = u64::MAX - 2;

/// Gives back its samples, and remembers which it computed together.
struct Echo {
    info: ModelInfo,
    batches: Arc<Mutex<Vec<Vec<Vec<u64>>>>>,
    go_on: Mutex<Receiver<()>>,
}

impl ServedModel for Echo {
    type Samples = Vec<u64>;

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self, _: &[Tensor]) -> usize {
        0
    }

    fn prepare(&self, _: &[Tensor]) -> Result<Prepared<Vec<u64>>, InputError> {
        Err(InputError("the tests prepare by themselves".into()))
    }

    fn compute(&self, requests: Vec<Prepared<Vec<u64>>>) -> Result<Vec<Vec<Tensor>>, ComputeError> {
        let requests: Vec<Vec<u64>> = requests.into_iter().map(|request| request.samples).collect();
        self.batches.lock().unwrap().push(requests.clone());
        let has = |sample| requests.iter().flatten().any(|&s| s == sample);
        if has(WAITS) {
            let _ = self.go_on.lock().unwrap().recv();
        }
        assert!(!has(PANICS), "a sample that is too much");
        let answered = requests.iter().filter(|samples| !samples.contains(&SILENT));
        Ok(answered.map(|samples| vec![tensor(samples)]).collect())
    }
}

fn tensor(samples: &[u64]) -> Tensor {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Tensor::new("y", Datatype::Uint64, vec![samples.len()], Bytes::from(bytes)).unwrap()
}

fn prepared(samples: &[u64]) -> Prepared<Vec<u64>> {
    Prepared { count: samples.len(), samples: samples.to_vec() }
}

struct Bench {
    batcher: Arc<Batcher<Echo>>,
    room: Arc<Room>,
    batches: Arc<Mutex<Vec<Vec<Vec<u64>>>>>,
    go_on: Sender<()>,
}

impl Bench {
    fn new(wait: Duration, places: usize) -> Bench {
        let info = ModelInfo {
            name: "echo".into(),
            digest: "ab".into(),
            platform: "test".into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            memory: 0,
            max_batch: MOST,
        };
        let (batches, room) = (Arc::default(), Room::new(places));
        let (go_on, waits) = channel();
        let echo = Echo { info, batches: Arc::clone(&batches), go_on: Mutex::new(waits) };
        let batcher = Batcher::start(echo, wait, room.clone(), Arc::default()).unwrap();
        Bench { batcher: Arc::new(batcher), room, batches, go_on }
    }

    fn ask(
        &self,
        samples: &[u64],
        within: Duration,
    ) -> tokio::task::JoinHandle<Result<Vec<Tensor>, Refusal>> {
        let (batcher, prepared) = (self.batcher.clone(), prepared(samples));
        let deadline = Instant::now() + within;
        tokio::spawn(async move {
            let held = Budget::new(&Limits::default()).reserve(0).await;
            batcher.answer(prepared, held, deadline).await.map(|(outputs, _)| outputs)
        })
    }

    /// Lets the model wait in a batch, so that what comes now has to queue.
    async fn busy(&self) -> tokio::task::JoinHandle<Result<Vec<Tensor>, Refusal>> {
        let first = self.ask(&[WAITS], LONG);
        while self.batches.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first
    }

    async fn waiting(&self, count: usize) {
        while self.room.waiting() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes and when: each request has its own answer, once; batches are in the order of
    /// the requests and never above the limit, but for a request that alone is.
    #[test]
    fn every_request_is_answered_once_and_in_order(
        arrivals in prop::collection::vec((1usize..=MOST + 3, prop::bool::weighted(0.2)), 1..80),
        wait in prop::sample::select(vec![0u64, 300]),
    ) {
        let bench = Bench::new(Duration::from_micros(wait), 4096);
        let mut next = 0;
        let mut asked = Vec::new();
        run(async {
            let mut answers = Vec::new();
            for (count, pause) in arrivals {
                let samples: Vec<u64> = (next..next + count as u64).collect();
                next += count as u64;
                answers.push(bench.ask(&samples, LONG));
                asked.push(samples);
                if pause {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            for (answer, samples) in answers.into_iter().zip(&asked) {
                assert_eq!(answer.await.unwrap(), Ok(vec![tensor(samples)]));
            }
        });
        let batches = bench.batches.lock().unwrap();
        prop_assert_eq!(batches.concat(), asked);
        for batch in batches.iter() {
            prop_assert!(batch.len() == 1 || batch.concat().len() <= MOST, "{batch:?}");
        }
        prop_assert_eq!(bench.room.waiting(), 0);
    }
}

#[test]
fn what_waits_is_computed_together() {
    run(async {
        let bench = Bench::new(Duration::ZERO, 16);
        let first = bench.busy().await;
        let others: Vec<_> = (0..5).map(|i| bench.ask(&[2 * i, 2 * i + 1], LONG)).collect();
        bench.waiting(5).await;
        bench.go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        let sizes: Vec<usize> = bench.batches.lock().unwrap().iter().map(|b| b.concat().len()).collect();
        assert_eq!(sizes, [1, 8, 2]);
    });
}

#[test]
fn who_is_late_or_gone_is_not_computed() {
    run(async {
        let bench = Bench::new(Duration::ZERO, 16);
        let first = bench.busy().await;
        let late = bench.ask(&[1], Duration::from_millis(20));
        let gone = bench.ask(&[2], LONG);
        let kept = bench.ask(&[3], LONG);
        bench.waiting(3).await;
        // Its answer comes though the model is still busy.
        assert_eq!(late.await.unwrap(), Err(Refusal::TimedOut));
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        bench.go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        kept.await.unwrap().unwrap();
        assert_eq!(*bench.batches.lock().unwrap(), [vec![vec![WAITS]], vec![vec![3]]]);
    });
}

#[test]
fn a_full_queue_refuses_and_those_who_left_make_room() {
    run(async {
        let bench = Bench::new(Duration::ZERO, 3);
        let first = bench.busy().await;
        let waiting: Vec<_> = (0..3).map(|i| bench.ask(&[i], LONG)).collect();
        bench.waiting(3).await;
        assert_eq!(bench.ask(&[9], LONG).await.unwrap(), Err(Refusal::Full));
        waiting[1].abort();
        tokio::task::yield_now().await;
        let last = bench.ask(&[10], LONG);
        tokio::task::yield_now().await;
        assert_eq!(bench.ask(&[11], LONG).await.unwrap(), Err(Refusal::Full));
        bench.go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        assert_eq!(bench.batches.lock().unwrap()[1].concat(), [0, 2, 10]);
    });
}

#[test]
fn a_model_that_fails_fails_one_batch() {
    run(async {
        let bench = Bench::new(Duration::ZERO, 16);
        for (sample, why) in [(PANICS, "a sample that is too much"), (SILENT, "0 answers to 1 requests")] {
            let Err(Refusal::Failed(error)) = bench.ask(&[sample], LONG).await.unwrap() else {
                panic!("it answered");
            };
            assert!(error.0.contains(why), "{error}");
            bench.ask(&[1], LONG).await.unwrap().unwrap();
        }
    });
}
