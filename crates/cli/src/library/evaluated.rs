//! What a model loses on a text, alone or against another.

use rwkv_forge_convert::{OpenModel, Vocabulary, vocabulary_for};
use rwkv_forge_eval::{Baseline, LossOptions, PassOptions, Runnable};
use rwkv_forge_score::{Document, Evaluation, Protocol, Schedule, Tokens, evaluate};

use super::Error;

/// A text in the tokens of a model, to be measured on by any number of models with the same vocabulary.
///
/// A text is one stream: its tokens come one after the other, the state is carried through, and every token is scored. Of a model that
/// remembers every token (RWKV-7b) it is windows of [`GROWING_CONTEXT`](rwkv_forge_score::GROWING_CONTEXT) tokens.
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/tiny-rwkv7.pth");
/// use rwkv_forge::{Evaluated, Vocabulary};
/// let model = rwkv_forge::open(path)?;
/// let text = Evaluated::on(&model, &Vocabulary::Bytes, "It is a truth universally acknowledged")?;
/// println!("perplexity {:.3}", text.loss(&model)?.perplexity);
/// assert_eq!(text.compare(&model, &model)?.kl.map(|kl| kl.mean), Some(0.0));
/// # Ok(())
/// # }
/// ```
pub struct Evaluated {
    schedule: Schedule,
}

impl Evaluated {
    /// Reads a text with a vocabulary.
    ///
    /// # Errors
    /// When the vocabulary is not known or does not belong to the model, or the text is empty.
    pub fn on(model: &OpenModel, vocabulary: &Vocabulary, text: &str) -> Result<Self, Error> {
        let tokenizer = vocabulary_for(model, vocabulary, "reading the text").map_err(Error::of)?;
        let tokens = Tokens::from(tokenizer.encode(text.as_bytes())?);
        let document = Document { name: "text".to_owned(), category: String::new(), bytes: text.len() as u64, tokens };
        let protocol = if model.description().mechanisms.remembers_tokens() { Protocol::Stream.bounded() } else { Protocol::Stream };
        let schedule = protocol.schedule(&[document], &|id| tokenizer.token_bytes(id).map(<[u8]>::len))?;
        Ok(Self { schedule })
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Loss, perplexity and bits a byte of a model, with intervals where the text is long enough for them.
    ///
    /// # Errors
    /// When the model has fewer tokens than the text, reading fails, or a number is not finite.
    pub fn loss(&self, model: &OpenModel) -> Result<Evaluation, Error> {
        let found = rwkv_forge_eval::loss(Runnable::new(&model.model), &self.schedule, &LossOptions::default(), None, &mut |_| ())?;
        Ok(evaluate(&self.schedule, &found.scores)?)
    }

    /// The same of a candidate, with its divergence from a reference. Where one of them has a tuned initial state, both start from it.
    ///
    /// # Errors
    /// As [`Evaluated::loss`], and when the vocabularies differ.
    pub fn compare(&self, reference: &OpenModel, candidate: &OpenModel) -> Result<Evaluation, Error> {
        let [reference, candidate] = super::alike(reference, candidate)?;
        let mut baseline = Baseline::new(reference, &self.schedule, &LossOptions::default(), &mut |_| ())?;
        let found = baseline.compare(candidate, &PassOptions::default(), &mut |_| ())?;
        Ok(evaluate(&self.schedule, &found.scores)?)
    }
}
