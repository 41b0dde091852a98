//! What was measured, in the shape of the JSON document.

use rwkv_forge_engine::Memory;
use serde::Serialize;

use crate::bandwidth::Bandwidth;
use crate::noise::{Doubt, Quiet};
use crate::statistics::Spread;
use crate::system::Machine;

/// All results of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was measured on.
    pub machine: Machine,
    /// Read bandwidth, for each number of threads.
    pub bandwidth: Vec<Bandwidth>,
    /// One entry for each model and way of running it.
    pub models: Vec<ModelReport>,
    /// Resident bytes of the whole process with all models of the last group loaded and used, before bandwidth is measured.
    pub process_resident_bytes: Option<u64>,
    /// What else the machine did meanwhile.
    pub quiet: Quiet,
    /// What a reader should know about how it was measured.
    pub notes: Vec<String>,
}

/// The results of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// The file.
    pub file: String,
    /// Its container.
    pub format: String,
    /// Version of RWKV.
    pub version: String,
    /// Type of the stored matrices that take the most bytes, without the embedding.
    #[serde(rename = "type")]
    pub encoding: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// `int8` or `float`: what activations are rounded to before products with integer formats.
    #[serde(rename = "form")]
    pub arithmetic: &'static str,
    /// Loading.
    pub load: Load,
    /// Memory.
    pub memory: MemoryReport,
    /// One token at a time.
    pub decode: Decode,
    /// Many tokens at a time.
    pub prompt: Vec<Prompt>,
    /// Decoding at several positions.
    pub positions: Vec<Position>,
    /// The largest difference of two medians in `positions`, over the largest.
    pub position_spread: Option<f64>,
    /// The type in which the engine holds the matrices of that type: another one where it has no kernel for it.
    pub held: String,
    /// The types of its matrices and how many hundredths of their bytes each has, the largest first.
    #[serde(skip)]
    pub shares: Vec<(String, u64)>,
    /// What the engine says about how tensors are held.
    pub notes: Vec<String>,
    /// Why its speed, or what it is compared with, is to be distrusted; empty where it is not.
    pub doubts: Vec<Doubt>,
}

/// Loading: from opened file to ready engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Load {
    /// Seconds. The first load may have read from the disk, later ones find the file in the system's cache.
    pub seconds: Spread,
    /// Seconds of the first one.
    pub first_seconds: f64,
}

/// Memory of one model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MemoryReport {
    /// Known before loading, from the file's header.
    pub predicted: Memory,
    /// In use after loading and all measurements.
    pub used: Memory,
    /// By how much the process's resident memory grew by loading and first use; `None` where the system does not say.
    pub resident_growth_bytes: Option<u64>,
}

/// Decoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decode {
    /// Tokens a second, over the rounds.
    pub tokens_per_second: Spread,
    /// Seconds of single tokens, over all of them.
    pub token_seconds: Spread,
    /// Bytes of weights that a token reads.
    pub read_bytes_per_token: u64,
    /// Median tokens a second times bytes a token.
    pub read_bytes_per_second: f64,
    /// That over the machine's median read bandwidth with as many threads.
    pub bandwidth_share: f64,
}

/// A prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prompt {
    /// Its length.
    pub tokens: usize,
    /// Tokens a second, over the rounds.
    pub tokens_per_second: Spread,
}

/// Decoding after a number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Position {
    /// The number of the first token that was timed, from 1.
    pub position: usize,
    /// Tokens a second, over the rounds.
    pub tokens_per_second: Spread,
}
