//! What can be written behind the commands that take a trained model.

use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Which model of a run directory.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// Run directory
    pub run: PathBuf,
    /// Checkpoint, by its name in RUN/checkpoints without the ending [default: final, or the first
    /// seed in the recipe's precision]
    #[arg(long, value_name = "NAME")]
    pub checkpoint: Option<String>,
    /// Precision to compute in [default: the one it was trained in]
    #[arg(long, value_name = "NAME")]
    pub precision: Option<String>,
}

/// `eval`
#[derive(Debug, clap::Args)]
pub struct Eval {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `predict`
#[derive(Debug, clap::Args)]
pub struct Predict {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Images, CSV files or text files, as the model was trained on, or folders of them
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Give so many of the likeliest classes [default: 1; with --json and --csv all]
    #[arg(long, value_name = "K")]
    pub top: Option<NonZeroUsize>,
    /// Column of the table to print beside each prediction; may be given several times
    #[arg(long, value_name = "COLUMN")]
    pub id: Vec<String>,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `generate`
#[derive(Debug, clap::Args)]
pub struct Generate {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Text to continue
    #[arg(long, default_value = "\n")]
    pub prompt: String,
    /// Tokens to add
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub tokens: usize,
    /// 0 always takes the likeliest token; 1 draws from the model's distribution; more flattens it
    #[arg(long, default_value_t = 0.8, value_name = "T")]
    pub temperature: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// `export`
#[cfg(feature = "onnx")]
#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    pub chosen: Chosen,
    /// ONNX file to write
    #[arg(long, value_name = "FILE")]
    pub onnx: PathBuf,
    /// Also write the first test samples and their logits, as ONNX lays out tests of a model
    #[arg(long, value_name = "DIR")]
    pub test_data: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
