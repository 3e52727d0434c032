//! What can be written behind `tune`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;

/// What the search saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Save {
    /// Time of a step, as measured on this machine
    Time,
    /// Bytes that a step needs
    Memory,
}

/// `tune`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 a plan was written, 1 none is better than fp32 within the limits.")]
pub struct Tune {
    /// Recipe whose model is to be lowered [default: the one of `compare`]
    pub recipe: Option<PathBuf>,
    /// Precision whose low format may be used, in place of the recipe's
    #[arg(long, value_name = "NAME")]
    pub precision: Option<String>,
    /// What to save
    #[arg(long, default_value = "time")]
    pub objective: Save,
    /// Greatest rise of the validation loss over fp32's in a short training
    #[arg(long, default_value = "1%", value_parser = crate::cli::share::parse, value_name = "SHARE")]
    pub max_loss_increase: f64,
    /// Greatest rise of a step's time over fp32's, with 95 % confidence
    #[arg(long, default_value = "0%", value_parser = crate::cli::share::parse, value_name = "SHARE")]
    pub max_slowdown: f64,
    /// Steps of the short trainings
    #[arg(long, default_value = "100", value_name = "N")]
    pub steps: NonZeroUsize,
    /// Paired seeds of the short trainings
    #[arg(long, default_value = "2", value_name = "N")]
    pub seeds: NonZeroUsize,
    /// Batches to measure each part of the model on
    #[arg(long, default_value = "4", value_name = "N")]
    pub batches: NonZeroUsize,
    /// Plan file to write, for `halfstep train RECIPE --plan FILE`
    #[arg(short, long, default_value = "tuned.toml", value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite the plan file if it is there
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object in place of the tables
    #[arg(long)]
    pub json: bool,
}
