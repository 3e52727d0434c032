//! Arguments of `halfstep numbers`.

use std::path::PathBuf;

use clap::ValueEnum;

/// `numbers`
#[derive(Debug, clap::Args)]
pub struct Numbers {
    /// Numbers to look at: 0.1, -1e-8, 2^-24, 1/3, inf, nan, and after `--` also -1/3 and -inf
    /// [default: none, which lists the formats]
    #[arg(value_name = "NUMBER", allow_negative_numbers = true)]
    pub values: Vec<String>,
    /// Formats to store them in
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "f32,bf16,f16,e4m3,e5m2")]
    pub formats: Vec<String>,
    /// Above the largest number of a format, store that number instead of infinity or NaN
    #[arg(long)]
    pub saturate: bool,
    /// Also multiply by S before storing and divide after, as loss scaling does
    #[arg(long, value_name = "S", allow_negative_numbers = true, conflicts_with_all = ["sum", "blocks"])]
    pub scale: Option<String>,
    /// Also round stochastically, N times
    #[arg(long, value_name = "N", conflicts_with_all = ["sum", "blocks"])]
    pub stochastic: Option<u32>,
    /// Add the number (1 if none is given) N times in each format
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub sum: Option<String>,
    /// With --sum: also show the remedies for swamping, stochastic rounding and Kahan summation
    #[arg(long, requires = "sum")]
    pub remedies: bool,
    /// Store the numbers as one row of a block-scaled form
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", conflicts_with = "sum")]
    pub blocks: Vec<BlockForm>,
    /// With --blocks: how MX scales are rounded
    #[arg(long, value_enum, default_value = "floor", value_name = "RULE")]
    pub scale_rule: Rule,
    /// Seed of stochastic rounding
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Draw a picture to FILE: of the formats, of one number and its neighbours, or of the sums
    #[arg(long, value_name = "FILE", conflicts_with = "blocks")]
    pub svg: Option<PathBuf>,
    /// Print one JSON object; numbers that are not finite are null there
    #[arg(long)]
    pub json: bool,
}

/// A block-scaled form by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BlockForm {
    /// 32 e4m3 to a power of two
    Mxfp8,
    /// 32 e5m2 to a power of two
    Mxfp8E5m2,
    /// 32 e3m2 to a power of two
    Mxfp6E3m2,
    /// 32 e2m3 to a power of two
    Mxfp6E2m3,
    /// 32 e2m1 to a power of two
    Mxfp4,
    /// 16 e2m1 to an e4m3 scale, and one f32 scale
    Nvfp4,
    /// 128 e4m3 to an f32 scale
    Fp8Blocks,
}

/// How the power of two of an MX block is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// OCP MX v1.0: the largest numbers may saturate
    Floor,
    /// After rounding the largest magnitude
    Even,
    /// The smallest by which nothing saturates
    NoOverflow,
}
