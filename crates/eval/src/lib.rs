//! Agreement of two models, token by token and layer by layer, and the logits of one model: all with one layer in
//! memory at a time.
//!
//! Start at [`compare`]; [`compare_runners`] does the same for models that something else than the reference kernel
//! computes. [`loss`] and [`Baseline`] measure models over a plan of many sequences, through [`Pass`], which keeps activations on the disk
//! where they need more memory than they may. [`logits`] runs a single model; [`npy`] reads and writes the NumPy files that logits travel in.
//! Nothing here prints, and no result depends on the number of threads.
#![forbid(unsafe_code)]

mod agreement;
mod compare;
mod engine;
mod error;
mod layers;
mod logits;
mod loss;
pub mod npy;
mod pass;
mod run;
mod tokens;

pub use agreement::{Agreement, Difference, LayerAgreement, PerPosition, Perplexity, Thresholds, Top1, WorstLogit};
pub use compare::{CompareOptions, Progress, compare, compare_runners};
pub use engine::Kernel;
pub use error::EvalError;
pub use layers::LayerError;
pub use logits::{LogitsSink, logits};
pub use loss::{Baseline, LogitsRow, Loss, LossOptions, Step, loss};
pub use pass::{LayerSink, Pass, PassOptions, Piece, Residuals, Rows};
pub use run::{Model, Runner};
pub use rwkv_forge_score::AgainstUnigram;
pub use tokens::TokenWriter;
