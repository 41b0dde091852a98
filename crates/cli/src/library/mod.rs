//! What the library adds to the crates below: the few steps from one of them to the next that everybody would write.

mod conversion;
mod error;
mod evaluated;
mod inputs;
mod session;

use std::path::Path;

use rwkv_forge_convert::{OpenModel, OpenOptions, Place, Vocabulary, starting_like, vocabulary_for};
use rwkv_forge_eval::{Agreement, CompareOptions, Kernel, Runnable};

pub use conversion::Conversion;
pub use error::Error;
pub use evaluated::Evaluated;
pub use inputs::Inputs;
pub use session::Session;

/// Opens a file, or a directory of files, by its content and recognises the model in it. Tensors stay in the file until they are read.
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// # let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints");
/// let model = rwkv_forge::open(format!("{root}/tiny-rwkv7.pth"))?;
/// assert_eq!(model.description().version.to_string(), "RWKV-7");
///
/// // A text is no model.
/// let error = rwkv_forge::open(format!("{root}/vocab-320.txt")).err().expect("nobody claims it");
/// assert_eq!(error.kind(), "NotACheckpoint");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the file is damaged, hostile, of no supported format, or holds no RWKV model.
pub fn open(path: impl AsRef<Path>) -> Result<OpenModel, Error> {
    rwkv_forge_convert::open(path.as_ref(), OpenOptions::default()).map_err(Error::of)
}

/// As [`open`], of what stands under a key of a file that holds several state dicts, or of a model as no trained one is.
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// use rwkv_forge::{OpenOptions, Place};
/// # let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/tiny-rwkv7.pth"));
/// // A file of torch.save with the weights alone has no keys.
/// let error = rwkv_forge::open_at(&Place::of(path).under("ema"), OpenOptions::default()).err().expect("it has none");
/// assert_eq!(error.kind(), "NoSuchKey");
/// // Norms of zeros are an error unless they are allowed.
/// let options = OpenOptions { allow_zero_tensors: true, ..OpenOptions::default() };
/// assert_eq!(rwkv_forge::open_at(&Place::of(path), options)?.holes().count(), 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`open`], and when nothing stands under the key.
pub fn open_at(place: &Place, options: OpenOptions) -> Result<OpenModel, Error> {
    rwkv_forge_convert::open_at(place, options).map_err(Error::of)
}

/// The tokens of a text in the vocabulary of a model. [`Vocabulary::Auto`] is the one that the model's file has, else World for World models.
///
/// # Errors
/// When the vocabulary is not known or does not belong to the model.
pub fn tokens(model: &OpenModel, vocabulary: &Vocabulary, text: &str) -> Result<Vec<u32>, Error> {
    let tokenizer = vocabulary_for(model, vocabulary, "reading a text").map_err(Error::of)?;
    Ok(tokenizer.encode(text.as_bytes())?)
}

/// Sends the same tokens through two models, layer after layer, by the reference kernel, with one layer of each in memory. What the
/// numbers must be is for the caller to say; where one of them has a tuned initial state, both start from it: [`Thresholds::violations`](rwkv_forge_eval::Thresholds::violations).
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/tiny-rwkv7.pth");
/// let (reference, candidate) = (rwkv_forge::open(path)?, rwkv_forge::open(path)?);
/// let agreement = rwkv_forge::verify(&reference, &candidate, &[72, 101, 108, 108, 111])?;
/// assert!(agreement.identical);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the vocabularies or layers differ, a token is outside the vocabulary, reading fails, or a number is not finite.
pub fn verify(reference: &OpenModel, candidate: &OpenModel, tokens: &[u32]) -> Result<Agreement, Error> {
    let [reference, candidate] = alike(reference, candidate)?;
    Ok(rwkv_forge_eval::compare(&reference, &candidate, &CompareOptions::new(tokens, Kernel::Reference), &mut |_| ())?)
}

/// Two models that start from the same state, unless each has one of its own.
fn alike(reference: &OpenModel, candidate: &OpenModel) -> Result<[Runnable; 2], Error> {
    let started = |model: &OpenModel, other: &OpenModel| {
        let started = starting_like(&model.model, &other.model).map_err(Error::of)?;
        Ok::<_, Error>(Runnable::new(started.as_ref().unwrap_or(&model.model)))
    };
    Ok([started(reference, candidate)?, started(candidate, reference)?])
}
