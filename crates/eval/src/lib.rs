//! Agreement of models, token by token and layer by layer, losses over texts, and the logits of one model: all with one layer in
//! memory at a time.
//!
//! Start at [`compare`] or [`Baseline`]. A [`Runner`] computes a model: a kernel, or anything else. A [`Pass`] sends any number of sequences through a runner, in groups whose
//! activations lie on the disk where they need more memory than they may. Everything else looks on: [`compare`] takes a reference and candidates
//! through one sequence in lock step; a [`Baseline`] goes through a schedule first, of which it keeps what candidates that come later are compared with;
//! [`loss`] measures a model alone; [`logits`] hands on what it computes. Numbers of rows of logits and all statistics are those of
//! `rwkv_forge_score`. [`npy`] reads and writes the NumPy files that logits travel in. Nothing here prints, and no result depends on the number
//! of threads.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod agreement;
mod compare;
mod difference;
mod error;
mod layers;
mod logits;
mod loss;
pub mod npy;
mod options;
mod pass;
mod runnable;
mod runner;
mod tokens;
mod verdict;

pub use agreement::{Agreement, LayerAgreement, PerPosition, Perplexity, Thresholds, Top1, WorstLogit};
pub use compare::{CompareOptions, Progress, compare, compare_all, compare_runners};
pub use difference::Difference;
pub use error::EvalError;
pub use layers::LayerError;
pub use logits::{LogitsSink, logits};
pub use loss::{Baseline, LogitsRow, Loss, LossOptions, Step, loss};
pub use options::{Kernel, PassOptions};
pub use pass::{LayerSink, Pass, Piece, Residuals, Rows, Through};
pub use runnable::Runnable;
pub use runner::{Activations, HeadInRanges, Runner, RunnerHead, RunnerLayer};
pub use rwkv_forge_score::AgainstUnigram;
pub use tokens::TokenWriter;
pub use verdict::{BROKEN_KL, Damage, NEGLIGIBLE_KL, SMALL_KL, Verdict};
