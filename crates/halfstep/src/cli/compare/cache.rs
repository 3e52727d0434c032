//! Runs that were made before, found again by what decided them: recipe, data, program, engine,
//! precision and seed.
//!
//! An entry is a run directory of its own. It is finished once it has `record.json`, which is
//! written last and has the checksum of every other file; until then it can be resumed from its
//! checkpoints. Nothing is trained twice, and what is damaged is trained again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use halfstep::data::{DataSpec, Preprocessing};
use halfstep::evidence::RunResult;
use halfstep::graph::engine_info::EngineIdentity;
use halfstep::graph::precision::Policy;
use halfstep::nn::ModelSpec;
use halfstep::train::optimiser::Optimiser;
use halfstep::train::recipe::{BestBy, Experiment, TrainSettings};
use halfstep::train::run_dir::METRICS;
use halfstep::train::run_log::{LogPosition, events};
use halfstep::train::scaler::LossScale;
use halfstep::train::schedule::Schedule;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::failure::Failure;
use crate::cli::output;

/// The file that says that a run is finished, and what it measured.
pub const RECORD: &str = "record.json";
/// The trained model.
pub const MODEL: &str = "model.safetensors";
/// Its logits of the test data.
pub const LOGITS: &str = "logits.safetensors";
/// Bytes of an entry's name.
const ID_BYTES: usize = 16;
/// Of entries; another one is not read.
pub const FORMAT: u32 = 2;

/// A folder of runs.
pub struct Cache {
    folder: PathBuf,
    /// Where runs are made that cannot be written to the folder.
    spare: Option<Box<Cache>>,
    /// Whether writing to the folder has failed.
    given_up: AtomicBool,
    /// SHA-256 of this program: another build may compute other bits.
    program: String,
    engine: EngineIdentity,
}

/// Everything that decides a run's results. The number of threads is not in it: results do not
/// depend on it.
#[derive(Serialize)]
struct Identity<'a> {
    format: u32,
    program: &'a str,
    /// None in the name of what runs have in common that differ in their engine alone.
    engine: Option<&'a EngineIdentity>,
    fingerprint: &'a str,
    /// Without paths: the fingerprint stands for what is there.
    data: DataSpec,
    preprocessing: &'a Preprocessing,
    model: &'a ModelSpec,
    optimiser: &'a Optimiser,
    schedule: &'a Schedule,
    train: &'a TrainSettings,
    best_by: BestBy,
    policy: &'a Policy,
    scaling: &'a LossScale,
    seed: u64,
}

/// `record.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedRun {
    /// Of the entry.
    pub format: u32,
    /// The run, without what its log tells.
    #[serde(flatten)]
    pub run: RunResult,
    /// The engine it was made by.
    #[serde(default)]
    pub engine: Option<EngineIdentity>,
    /// [`Cache::on_any_engine`] of the run.
    #[serde(default)]
    pub on_any_engine: String,
    /// Checksums of the other files.
    pub files: BTreeMap<String, Checksum>,
}

/// What `record.json` says of the engine.
#[derive(Deserialize)]
struct MadeBy {
    engine: Option<EngineIdentity>,
    #[serde(default)]
    on_any_engine: String,
}

/// Length and SHA-256 of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Its length.
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Checksum {
    /// Of a file.
    pub fn of(path: &Path) -> std::io::Result<Checksum> {
        let mut file = fs::File::open(path)?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
        Ok(Checksum { bytes, sha256: hex(&hash.finalize()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Cache {
    /// The cache in a folder, which need not be there, of runs on engines of this identity.
    ///
    /// # Errors
    /// The program cannot read itself.
    pub fn at(folder: PathBuf, engine: EngineIdentity) -> Result<Cache, Failure> {
        let own = std::env::current_exe().and_then(|path| Checksum::of(&path));
        let program =
            own.map_err(|e| Failure::failed(format!("this program cannot read itself: {e}")))?.sha256;
        let given_up = AtomicBool::new(false);
        Ok(Cache { folder: folder.join("runs"), spare: None, given_up, program, engine })
    }

    /// The cache, with another folder for runs that cannot be written to its own.
    pub fn with_spare(mut self, folder: PathBuf) -> Cache {
        let (program, engine, given_up) = (self.program.clone(), self.engine.clone(), AtomicBool::new(false));
        let spare = Cache { folder: folder.join("runs"), spare: None, given_up, program, engine };
        self.spare = Some(Box::new(spare));
        self
    }

    /// The cache that runs are made in: this one until it was given up, then the spare one.
    pub fn to_write(&self) -> &Cache {
        self.spare.as_deref().filter(|_| self.given_up.load(Ordering::Relaxed)).unwrap_or(self)
    }

    /// Gives up writing to this cache after a failure, and returns the spare one, if there is one.
    pub fn give_up(&self, failure: &Failure) -> Option<&Cache> {
        let spare = self.spare.as_deref()?;
        if !self.given_up.swap(true, Ordering::Relaxed) {
            output::warning(format!(
                "{}; the cache is done without: runs of this comparison are made in its own folder",
                failure.message()
            ));
        }
        Some(spare)
    }

    /// The engine whose runs are in it.
    pub fn engine(&self) -> &EngineIdentity {
        &self.engine
    }

    /// Names a run by what decides it.
    ///
    /// # Errors
    /// No precision has that name.
    pub fn id(&self, experiment: &Experiment, policy: &str, seed: u64) -> Result<String, Failure> {
        self.name(experiment, policy, seed, Some(&self.engine))
    }

    /// Names what it has in common with the same run on other engines.
    ///
    /// # Errors
    /// No precision has that name.
    pub fn on_any_engine(&self, experiment: &Experiment, policy: &str, seed: u64) -> Result<String, Failure> {
        self.name(experiment, policy, seed, None)
    }

    /// How many finished runs there are of those named, by the engines that made them, this one
    /// apart.
    pub fn of_other_engines(&self, on_any_engine: &[&str]) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let Ok(bytes) = fs::read(entry.path().join(RECORD)) else { continue };
            let Ok(run) = serde_json::from_slice::<MadeBy>(&bytes) else { continue };
            if let Some(engine) = run.engine.filter(|engine| *engine != self.engine)
                && on_any_engine.contains(&run.on_any_engine.as_str())
            {
                *found.entry(engine.to_string()).or_default() += 1;
            }
        }
        found
    }

    fn name(
        &self,
        experiment: &Experiment,
        policy: &str,
        seed: u64,
        engine: Option<&EngineIdentity>,
    ) -> Result<String, Failure> {
        let (policy, spec) = experiment.session_spec(policy, seed)?;
        let recipe = &experiment.recipe;
        let mut data = recipe.data.clone();
        data.paths_mut().for_each(|path| *path = PathBuf::new());
        let identity = Identity {
            format: FORMAT,
            program: &self.program,
            engine,
            fingerprint: &experiment.info.fingerprint,
            data,
            preprocessing: &experiment.data.preprocessing,
            model: &recipe.model,
            optimiser: &recipe.optimiser,
            schedule: &recipe.schedule,
            train: &recipe.train,
            best_by: recipe.checkpoint.metric,
            policy: &policy,
            scaling: &spec.scaling,
            seed,
        };
        // Half of the digest: shorter to read, and still without collisions.
        Ok(hex(&Sha256::digest(serde_json::to_vec(&identity)?)[..ID_BYTES]))
    }

    /// The folder of what was judged, beside that of the runs.
    pub fn looks(&self) -> PathBuf {
        self.folder.with_file_name("looks")
    }

    /// The folder of a run.
    pub fn entry(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// A finished run, after comparing every file with its checksum; none where there is none.
    ///
    /// # Errors
    /// What is damaged.
    pub fn read(&self, id: &str) -> Result<Option<CachedRun>, String> {
        let folder = self.entry(id);
        let bytes = match fs::read(folder.join(RECORD)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{RECORD}: {e}")),
        };
        let mut cached: CachedRun = serde_json::from_slice(&bytes).map_err(|e| format!("{RECORD}: {e}"))?;
        if cached.format != FORMAT {
            return Err(format!("{RECORD}: has format {}, expected {FORMAT}", cached.format));
        }
        for (name, sum) in &cached.files {
            let found = Checksum::of(&folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
            if found != *sum {
                return Err(format!("{name}: its checksum is not the one that was written"));
            }
        }
        if let Some(Checksum { bytes, sha256 }) = cached.files.get(METRICS).cloned() {
            let position = LogPosition { bytes, sha256 };
            for event in events(&folder.join(METRICS), &position).map_err(|e| e.to_string())? {
                cached.run.record.add(&event);
            }
        }
        Ok(Some(cached))
    }
}

/// What a cache holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheContents {
    /// Finished runs.
    pub finished: usize,
    /// Runs that were begun.
    pub unfinished: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// The entries of the cache at `place`: folders with the name of one. What else is there is not the
/// cache's, such as the runs of somebody who keeps the cache where they train.
///
/// # Errors
/// The folder is there and cannot be read.
pub fn entries(place: &Path) -> std::io::Result<Vec<PathBuf>> {
    let folder = match fs::read_dir(place.join("runs")) {
        Ok(folder) => folder,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let named = |name: &str| name.len() == 2 * ID_BYTES && name.bytes().all(|b| b.is_ascii_hexdigit());
    let own = |entry: &fs::DirEntry| {
        entry.file_name().to_str().is_some_and(named) && entry.file_type().is_ok_and(|t| t.is_dir())
    };
    Ok(folder.flatten().filter(own).map(|entry| entry.path()).collect())
}

/// What there is in the cache at `place`.
///
/// # Errors
/// As [`entries`].
pub fn contents(place: &Path) -> std::io::Result<CacheContents> {
    let mut contents = CacheContents::default();
    for entry in entries(place)? {
        if entry.join(RECORD).is_file() {
            contents.finished += 1
        } else {
            contents.unfinished += 1
        }
        contents.bytes += size(&entry);
    }
    Ok(contents)
}

fn size(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let of = |e: fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => size(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use halfstep::EngineRequest;
    use halfstep::graph::engine::Engine;
    use halfstep::train::recipe::Recipe;

    use super::*;
    use crate::cli::test_engine::Other;

    const RECIPE: &str = "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 300\nlimit_test = 10\n\
        [model]\nkind = \"mlp\"\nhidden = [8]\n[train]\nsteps = 1\nbatch = 8\n";

    #[test]
    fn engines_share_runs_only_if_they_compute_the_same_bits() {
        let experiment = Recipe::parse("r.toml", RECIPE, Path::new(".")).unwrap().prepare().unwrap();
        let id = |engine: &dyn Engine| {
            let (folder, program) = (PathBuf::from("cache"), "program".to_string());
            let given_up = AtomicBool::new(false);
            let cache = Cache { folder, spare: None, given_up, program, engine: engine.identity() };
            cache.id(&experiment, "fp32", 0).unwrap()
        };
        let on = |threads| {
            let threads = NonZeroUsize::new(threads).unwrap();
            id(halfstep::engine(EngineRequest::default().with_threads(threads)).unwrap().as_ref())
        };
        assert_eq!(on(1), on(2));
        assert_ne!(on(1), id(&Other::new()));
    }
}
