//! Protocols of evaluation, numbers from rows of logits, and their summaries. Knows no model and reads no texts.
//!
//! Start at [`Protocol`]: it turns the tokens of texts into a [`Schedule`] of what to feed and what to score. A [`Scorer`] turns rows of
//! logits into numbers, [`Scores`] keeps them, one per scored token, and [`evaluate`] sums them up. [`llama`] prints as
//! llama-perplexity does and [`kl_base`] writes and reads its file of logits; [`uncheatable`] has the score of that evaluation. A
//! [`Unigram`] is what every trained model must beat.
#![forbid(unsafe_code)]

mod bootstrap;
mod distance;
mod divergence;
mod error;
mod exponential;
pub mod kl_base;
pub mod llama;
mod pairs;
mod protocol;
mod quantile;
mod row;
mod schedule;
mod scheduler;
mod scores;
mod slices;
mod summary;
mod tokens;
pub mod uncheatable;
mod unigram;

pub use bootstrap::{Interval, MIN_WINDOWS, RESAMPLES, SHORT_RUN, TooFew};
pub use distance::Distance;
pub use divergence::FirstDivergence;
pub use error::ScoreError;
pub use pairs::{PairScore, PairScores};
pub use protocol::{GROWING_CONTEXT, LLAMA_CONTEXT, Protocol, RUN, UNCHEATABLE_2024_CHUNK, UNCHEATABLE_CHUNK};
pub use row::{Compared, Precision, Reference, Row, Scorer};
pub use rwkv_forge_simd::Isa;
pub use schedule::{Document, DocumentInfo, Pair, Schedule, Sequence, Window};
pub use scores::{ComparedScores, Scores};
pub use slices::Slice;
pub use summary::{DeltaP, Evaluation, KlSummary, PerplexityRatio, Quantile, evaluate};
pub use tokens::{TokenStore, Tokens};
pub use unigram::{AgainstUnigram, Unigram, UnigramLoss};
