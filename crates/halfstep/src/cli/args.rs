//! What can be written on the command line.

#[cfg(feature = "serve")]
mod registry;
#[cfg(feature = "serve")]
mod serving;
#[cfg(feature = "serve")]
mod signing;
mod trained;
mod tune;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use halfstep::graph::ByteSize;
use halfstep::{DeviceRequest, MemoryLimit};
#[cfg(feature = "serve")]
pub use registry::{
    AddVersion, Attach, CollectVersions, DiffVersions, Evidence, ExportRegistry, Promote, RegistryArgs,
    RegistryCommand, RollBack, SignMove,
};
#[cfg(feature = "serve")]
pub use serving::Serve;
#[cfg(feature = "serve")]
pub use signing::{ApiKey, Card, Key, NewKey, Sign, SignedPair, Verify};
#[cfg(feature = "onnx")]
pub use trained::Export;
pub use trained::{Chosen, Eval, Generate, Predict};
pub use tune::{Save, Tune};

/// Train neural nets in half the bits, and see whether they are as good.
#[derive(Debug, Parser)]
#[command(name = "halfstep", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    /// Threads to compute with [default: all cores]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Device to compute on: auto, cpu, cuda, cuda:N or the UUID of a GPU
    #[arg(long, global = true, value_name = "DEVICE", default_value_t)]
    pub device: DeviceRequest,
    /// Most memory to take of a GPU, in bytes, such as "20 GB", or as a share, such as 80%
    /// [default: all that is free]
    #[arg(long, global = true, value_name = "BYTES|%")]
    pub device_memory: Option<MemoryLimit>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train in several precisions over paired seeds, and judge whether they are as good
    Compare(Compare),
    /// Show or empty the cache: runs that `compare` has made, and compiled kernels for GPUs
    Cache(CacheArgs),
    /// Train in one precision
    Train(Train),
    /// Import the weights of a safetensors file as a trained model
    Import(Import),
    /// Send to trackers what they have not received of a run
    Track(TrackRun),
    /// Measure a trained model on its test data
    Eval(Eval),
    /// Predict classes of images or table rows, or score texts, with a trained model
    Predict(Predict),
    /// Continue a text with a trained model
    Generate(Generate),
    /// Write a trained model as a file that other programs run
    #[cfg(feature = "onnx")]
    Export(Export),
    /// Show what a recipe becomes: program, precision plan, memory plan
    Explain(Explain),
    /// Show how much memory a step needs in each precision, and what fits a number of bytes
    Plan(Plan),
    /// Find out why a recipe or a run does not train: which value or setting is to blame, and what
    /// helps
    Doctor(Doctor),
    /// Warn of numerical problems that a recipe will have in its formats, before any step
    Lint(Lint),
    /// Show the processor, its instruction sets, memory, and what each precision runs on
    Info(Info),
    /// Show how formats store numbers, sums and blocks, in digits and pictures
    Numbers(super::numbers::args::Numbers),
    /// Inspect a folder of images, a CSV file or a text file, and write a recipe for it
    New(New),
    /// Judge whether a candidate is as good as a baseline, from logits of any framework
    Verdict(Verdict),
    /// Put trained models under stress: other precisions, smaller weights, foreign, corrupted and
    /// attacked inputs, groups
    Stress(Stress),
    /// Find which parts of a model to lower: most time or memory saved within a rise of the loss
    Tune(Tune),
    /// Write a model card and a bill of materials for a model of a comparison
    #[cfg(feature = "serve")]
    Card(Card),
    /// Make keys to sign with
    #[cfg(feature = "serve")]
    #[command(subcommand)]
    Key(Key),
    /// Sign a folder of a model, or the verdict of a comparison
    #[cfg(feature = "serve")]
    Sign(Sign),
    /// Keep versions of models, and move the aliases that say which of them is used
    #[cfg(feature = "serve")]
    Registry(RegistryArgs),
    /// Verify who signed a model, and whether a signed verdict names it
    #[cfg(feature = "serve")]
    Verify(Verify),
    /// Serve a trained model by the Open Inference Protocol
    #[cfg(feature = "serve")]
    Serve(Serve),
    /// Measure speed
    #[command(subcommand)]
    Bench(Bench),
}

/// `cache`
#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// Remove every cached run that no other process is making, and all compiled kernels
    #[arg(long)]
    pub clear: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `compare`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 no verdict (wrong arguments or files), 130 interrupted."
)]
pub struct Compare {
    /// Recipe to run [default: a small convolutional net on the bundled Fashion-MNIST images]
    pub recipe: Option<PathBuf>,
    /// Precisions to compare, in place of the recipe's: fp32, bf16, fp16, tf32, bf16x3, bf16x6,
    /// fp8, fp8-current, fp8-block, mxfp8, mxfp4, nvfp4
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub precisions: Option<Vec<String>>,
    /// Number of seeds, in place of the recipe's
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// First of the seeds, in place of the recipe's `seed`
    #[arg(long, value_name = "N")]
    pub first_seed: Option<u64>,
    /// Train nothing: show how many seeds the margins need, and what they will cost
    #[arg(long)]
    pub plan: bool,
    /// With --plan: standard deviation of the paired differences of accuracy to plan for, such as
    /// 0.5pt, in place of that of runs already made
    #[arg(long, value_name = "POINTS", requires = "plan")]
    pub sd: Option<String>,
    /// Runs at a time [default: one after another; one per core, or two on a GPU, if they fit and
    /// are measured to be faster]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Do not use the cache: train every run, and keep none of them there
    #[arg(long)]
    pub no_cache: bool,
    /// Print one JSON object in place of the table
    #[arg(long)]
    pub json: bool,
    /// Run directory to make [default: runs/<name>-<n>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `train`
#[derive(Debug, clap::Args)]
pub struct Train {
    /// Recipe to run
    pub recipe: Option<PathBuf>,
    /// Precision, in place of the recipe's: fp32, bf16, fp16, tf32, bf16x3, bf16x6, fp8,
    /// fp8-current, fp8-block, mxfp8, mxfp4 or nvfp4
    #[arg(long, value_name = "NAME")]
    pub precision: Option<String>,
    /// Precision plan that `halfstep tune` wrote, in place of the recipe's precision and overrides
    #[arg(long, value_name = "FILE", conflicts_with = "precision")]
    pub plan: Option<PathBuf>,
    /// Seed, in place of the recipe's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Resume a run from its latest good checkpoint, as if it had never stopped. Without RUN:
    /// with the latest run of RECIPE, or the one in DIR; if there is none, one is begun
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    pub resume: Option<Option<PathBuf>>,
    /// Stop after this time with a checkpoint, such as 90s, 30m or 1h30m; the exit code is then 75
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse)]
    pub max_time: Option<std::time::Duration>,
    /// Begin with the weights of this run, or of this safetensors file
    #[arg(long, value_name = "RUN|FILE", conflicts_with = "resume")]
    pub from: Option<PathBuf>,
    /// How the tensors of --from FILE are called in the model: a map file, or the name of a
    /// built-in one (gpt2)
    #[arg(long, value_name = "MAP", requires = "from")]
    pub map: Option<String>,
    #[command(flatten)]
    pub track: Track,
    /// Show curves and figures on the whole terminal while it trains; q stops with a checkpoint
    #[cfg(feature = "tui")]
    #[arg(long, conflicts_with = "json")]
    pub tui: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
    /// Run directory to make [default: runs/<name>-<n>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Trackers that a run is sent to.
#[derive(Debug, clap::Args)]
pub struct Track {
    /// MLflow server, such as http://127.0.0.1:5000 [default: the recipe's, or MLFLOW_TRACKING_URI]
    #[arg(long, value_name = "URL")]
    pub mlflow: Option<String>,
    /// Experiment there [default: the recipe's, or MLFLOW_EXPERIMENT_NAME, or the recipe's name]
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
    /// OpenTelemetry collector, such as http://127.0.0.1:4318 [default: the recipe's, or
    /// OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
}

/// `track`
#[derive(Debug, clap::Args)]
pub struct TrackRun {
    /// Run directory
    pub run: PathBuf,
    #[command(flatten)]
    pub track: Track,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `import`
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Weights
    pub file: PathBuf,
    /// Recipe with the model, and the data it is for
    #[arg(long, value_name = "FILE")]
    pub recipe: PathBuf,
    /// How the file's tensors are called in the model: a map file, or the name of a built-in one
    /// (gpt2) [default: as they are]
    #[arg(long, value_name = "MAP")]
    pub map: Option<String>,
    /// Run directory to make [default: runs/<name>-<n>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A form of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The model and its loss
    Graph,
    /// With gradients and the update
    Diff,
    /// Storage and compute format of every value, with reasons
    Precision,
    /// Operations in the groups that run as one step: bytes moved and saved, and arithmetic
    Fused,
    /// With a place in memory for every value
    Plan,
    /// What a GPU is asked to do: launches of kernels, what they read, write and wait for; of a
    /// GPU that --device names, or of an architecture, such as --device sm_90a
    Device,
}

/// `explain`
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Recipe to explain [default: the one of `compare`]
    pub recipe: Option<PathBuf>,
    /// Form of the program to print [default: a summary]
    #[arg(long)]
    pub stage: Option<Stage>,
    /// Precision, in place of the recipe's: fp32, bf16, fp16, tf32, bf16x3, bf16x6, fp8,
    /// fp8-current, fp8-block, mxfp8, mxfp4 or nvfp4
    #[arg(long, value_name = "NAME")]
    pub precision: Option<String>,
    /// Show the program of one of N ranks that share each step
    #[arg(long, value_name = "N", default_value = "1")]
    pub ranks: NonZeroUsize,
    /// With --stage device: print one JSON object
    #[arg(long, requires = "stage")]
    pub json: bool,
}

/// What to search the largest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Largest {
    /// Samples in a step
    Batch,
    /// Width and depth of the model
    Model,
}

/// `plan`
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// Recipe to plan [default: the one of `compare`]
    pub recipe: Option<PathBuf>,
    /// Precisions, in place of the recipe's: fp32, bf16, fp16
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub precision: Option<Vec<String>>,
    /// Memory that a step may use, such as "512 MiB", in place of the recipe's; activations are
    /// computed again to fit
    #[arg(long, value_name = "BYTES")]
    pub memory_budget: Option<ByteSize>,
    /// Search for the largest batch or model that fits --budget
    #[arg(long, requires = "budget")]
    pub max: Option<Largest>,
    /// Memory that the training step may use, such as "2 GB"
    #[arg(long, value_name = "BYTES", requires = "max")]
    pub budget: Option<ByteSize>,
    /// With --max: let activations be computed again
    #[arg(long, requires = "max")]
    pub recompute: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `doctor`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing found, 1 a step failed or the model does not learn.")]
pub struct Doctor {
    /// Recipe, or run directory
    #[arg(value_name = "RECIPE|RUN")]
    pub target: PathBuf,
    /// Precision, in place of the recipe's
    #[arg(long, value_name = "NAME")]
    pub precision: Option<String>,
    /// Seed, in place of the recipe's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Train for at most N steps to find one that fails, and see what the model has learnt by then
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub steps: u64,
    /// Try every fix, for as many steps as --steps says; else a few, for at most twice the steps
    /// that were seen
    #[arg(long)]
    pub thorough: bool,
    /// Repeat the failed step of a run that was diagnosed, from its last checkpoint
    #[arg(long)]
    pub again: bool,
    /// Show the range of every value, in execution order
    #[arg(long)]
    pub all: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Directory to make for the diagnosis, the ranges of all values and their pictures
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `lint`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing found, 1 something found.")]
pub struct Lint {
    /// Recipe to check
    pub recipe: Option<PathBuf>,
    /// Precision to check for, in place of all those of the recipe
    #[arg(long, value_name = "NAME")]
    pub precision: Option<String>,
    /// Print a JSON list
    #[arg(long)]
    pub json: bool,
}

/// `info`
#[derive(Debug, clap::Args)]
pub struct Info {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `new`
#[derive(Debug, clap::Args)]
pub struct New {
    /// Folder of images (one folder per class), folder of IDX files, CSV file or text file
    pub path: PathBuf,
    /// Recipe to write
    #[arg(short, long, default_value = "recipe.toml", value_name = "FILE")]
    pub output: PathBuf,
    /// Column to predict, for a CSV file
    #[arg(long, value_name = "COLUMN")]
    pub target: Option<String>,
    /// Overwrite the recipe if it is there
    #[arg(long)]
    pub force: bool,
}

/// `verdict`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 no verdict (wrong arguments or files)."
)]
pub struct Verdict {
    /// Files of the baseline's logits and labels, one per seed: .npz or .safetensors
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub baseline: Vec<PathBuf>,
    /// Files of the candidate, one per seed, of the same samples
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub candidate: Vec<PathBuf>,
    /// Non-inferiority margin, as METRIC=1.0pt (points), METRIC=2% (of itself),
    /// METRIC=0.02 or METRIC=off [default: accuracy=1.0pt nll=0.02 ece=1.0pt negative-flips=1.0pt
    /// group-accuracy=3.0pt]
    #[arg(long, value_name = "METRIC=VALUE")]
    pub margin: Vec<String>,
    /// Of what the verdict speaks: of examples like these, or of these samples alone
    #[arg(long, value_enum, default_value_t)]
    pub claim: ClaimName,
    /// How often these files, or more of them, are judged before one answer counts: α is divided
    /// over the looks
    #[arg(long, default_value = "1", value_name = "N")]
    pub looks: NonZeroU32,
    /// What changed answers are measured against: what another seed of the baseline changes, or
    /// nothing, for a candidate made of the baseline's own weights
    #[arg(long, value_enum, default_value_t)]
    pub floor: FloorName,
    /// A group that must be judged, as COLUMN=VALUE; other groups are where they are large enough
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub group: Vec<String>,
    /// Require equivalence: a candidate that is better by more than a margin fails too
    #[arg(long)]
    pub equivalence: bool,
    /// Candidate runs that diverged and left no file
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub diverged: u64,
    /// Baseline runs that diverged and left no file
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub baseline_diverged: u64,
    /// Greatest chance that a candidate run diverges; 5% takes 59 clean runs to show
    #[arg(long, value_name = "SHARE")]
    pub max_divergence: Option<String>,
    /// Print one JSON object in place of the table
    #[arg(long)]
    pub json: bool,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    pub signed: SignedPair,
}

/// `--claim`
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum ClaimName {
    /// Other seeds on other examples like these
    #[default]
    Examples,
    /// Other seeds on these samples
    Samples,
}

/// `--floor`
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum FloorName {
    /// What another seed of the baseline changes
    #[default]
    OtherSeed,
    /// Nothing
    None,
}

/// `stress`
#[derive(Debug, clap::Args)]
pub struct Stress {
    /// Run directories: one of `compare`, or some of `train` in several precisions and seeds
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// What to measure: mismatch, groups, ladder, foreign, corruptions, attacks, trigger, backdoor
    /// [default: all but backdoor, which trains twice]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub measures: Vec<String>,
    /// Precision that the others are compared with [default: the recipe's reference]
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// Precisions to compute the same weights in, in place of the recipe's
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub precisions: Option<Vec<String>>,
    /// Foreign images: a folder of IDX files as MNIST has them, or one with a folder per class
    /// [default: bundled digits]
    #[arg(long, value_name = "DIR")]
    pub foreign: Option<PathBuf>,
    /// Images attacked, in place of the recipe's [200]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Greatest change of a pixel in 0 to 1, in place of the recipe's [0.03]
    #[arg(long, value_name = "E")]
    pub epsilon: Option<f64>,
    /// Steps of PGD, in place of the recipe's [10]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Queries of the black-box attack, in place of the recipe's [100]
    #[arg(long, value_name = "N")]
    pub queries: Option<usize>,
    /// Print one JSON object in place of the tables
    #[arg(long)]
    pub json: bool,
    /// File to write [default: robustness.json in the first run directory]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `bench`
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Time one training step of a model on a random batch
    Step(BenchStep),
    /// Time one matrix product
    Gemm(BenchGemm),
    /// Time models in all precisions and numbers of threads, and say what bounds them
    Suite(BenchSuite),
}

/// Precision by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// f32 throughout
    Fp32,
    /// bf16 operands
    Bf16,
    /// f16 operands, with loss scaling
    Fp16,
    /// f32 storage, products of operands rounded to tf32
    Tf32,
    /// f32 storage, products of two bf16 terms
    Bf16x3,
    /// f32 storage, products of three bf16 terms
    Bf16x6,
}

/// Model to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchModel {
    /// 784-1024-1024-10
    Mlp,
    /// For 32×32 images
    Resnet18,
    /// Decoder-only transformer
    Gpt,
}

/// `bench step`
#[derive(Debug, clap::Args)]
pub struct BenchStep {
    /// Model
    #[arg(long, default_value = "gpt")]
    pub model: BenchModel,
    /// Precision, by the name that recipes use
    #[arg(long, default_value = "bf16", value_name = "NAME")]
    pub precision: String,
    /// Samples in a step [default: mlp 256, resnet18 64, gpt 8]
    #[arg(long, value_name = "N")]
    pub batch: Option<NonZeroUsize>,
    /// Channels of resnet18 [64] or width of gpt [384]
    #[arg(long, value_name = "N")]
    pub width: Option<NonZeroUsize>,
    /// Blocks of gpt [6]
    #[arg(long, value_name = "N")]
    pub layers: Option<NonZeroUsize>,
    /// Attention heads of gpt [6]
    #[arg(long, value_name = "N")]
    pub heads: Option<NonZeroUsize>,
    /// Tokens of a sequence of gpt [256]
    #[arg(long, value_name = "N")]
    pub seq: Option<NonZeroUsize>,
    /// Vocabulary of gpt [256]
    #[arg(long, value_name = "N")]
    pub vocab: Option<NonZeroUsize>,
    /// Seconds to measure
    #[arg(long, default_value_t = 8.0, value_name = "S")]
    pub seconds: f64,
    /// Also time each group of operations, and show so many of the slowest
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub groups: usize,
    /// Run each operation as a step of its own, to see with --groups which one takes how long
    #[arg(long)]
    pub unfused: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `bench suite`
#[derive(Debug, clap::Args)]
pub struct BenchSuite {
    /// Models
    #[arg(long, value_delimiter = ',', default_value = "mlp,resnet18,gpt", value_name = "LIST")]
    pub models: Vec<BenchModel>,
    /// Precisions
    #[arg(long, value_delimiter = ',', default_value = "fp32,bf16,fp16", value_name = "LIST")]
    pub precisions: Vec<Precision>,
    /// Also time how a step grows with width, depth, sequence, vocabulary and batch
    #[arg(long)]
    pub growth: bool,
    /// Rounds; each measures every case once, so that a disturbance affects all of them
    #[arg(long, default_value = "3", value_name = "N")]
    pub rounds: NonZeroUsize,
    /// Seconds to measure one case in one round
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    pub seconds: f64,
    /// Write everything measured to this JSON file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print one JSON object in place of the tables
    #[arg(long)]
    pub json: bool,
}

/// `bench gemm`
#[derive(Debug, clap::Args)]
pub struct BenchGemm {
    /// Rows of the result
    #[arg(long, default_value = "1024", value_name = "N")]
    pub m: NonZeroUsize,
    /// Columns of the result
    #[arg(long, default_value = "1024", value_name = "N")]
    pub n: NonZeroUsize,
    /// Terms of a sum
    #[arg(long, default_value = "1024", value_name = "N")]
    pub k: NonZeroUsize,
    /// Precision
    #[arg(long, default_value = "bf16")]
    pub precision: Precision,
    /// Seconds to measure
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    pub seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
