//! rwkv-forge as a library: opens RWKV checkpoints of every supported format, converts them, and measures what that costs.
//!
//! The program of the same name is a thin layer over this one. Without the default feature `cli` nothing that only the program needs is
//! built: `rwkv-forge = { version = "0.1", default-features = false }`.
//!
//! | to do | start at |
//! |---|---|
//! | open a file and see what it is | [`open`], [`OpenModel::description`] |
//! | convert it, with the check that the result is the same model | [`Conversion`] |
//! | plan a type for each tensor within bytes or a loss, and convert by it | [`Conversion::plan`], [`Inputs`] |
//! | compare two files token by token and layer by layer | [`verify`] |
//! | logits and states | [`Session`] |
//! | what a model, or its quantization, loses on a text | [`Evaluated`] |
//!
//! The crates below are there for what these do not cover: [`tensor`], [`model`], [`weights`], [`kernel`], [`engine`], [`quant`],
//! [`tokenizer`], [`convert`](mod@convert), [`eval`], [`score`], [`choose`].
//!
//! ```
//! # fn main() -> Result<(), rwkv_forge::Error> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/tiny-rwkv7.pth");
//! let model = rwkv_forge::open(path)?;
//! let description = model.description();
//! println!("{}, {} parameters, from a file of kind {}", description.version, description.parameters(), model.source().format());
//! # assert_eq!(description.parameters(), 794_112);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod library;

pub use library::{Conversion, Error, Evaluated, Inputs, Session, open, open_at, tokens, verify};

pub use rwkv_forge_choose as choose;
pub use rwkv_forge_convert as convert;
pub use rwkv_forge_engine as engine;
pub use rwkv_forge_eval as eval;
pub use rwkv_forge_kernel as kernel;
pub use rwkv_forge_model as model;
pub use rwkv_forge_quant as quant;
pub use rwkv_forge_score as score;
pub use rwkv_forge_tensor as tensor;
pub use rwkv_forge_tokenizer as tokenizer;
pub use rwkv_forge_weights as weights;

pub use rwkv_forge_choose::{Finished, Goal};
pub use rwkv_forge_convert::{OpenModel, OpenOptions, Place, Record, Value, Vocabulary};
pub use rwkv_forge_eval::{Agreement, Thresholds};
pub use rwkv_forge_score::Evaluation;
