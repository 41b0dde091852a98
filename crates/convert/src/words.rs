//! What is said of a model in the file that is made of it: by the user, by what the model was read from, and by what models of its kind
//! have. Start at [`words`].

use std::path::Path;

use rwkv_forge_container::{CONFIG, Container, Sourced, TOKENIZER, TOKENIZER_CONFIG, Word, Words, words_beside};
use rwkv_forge_model::VocabularyFamily;
use rwkv_forge_tensor::BoxError;

use crate::error::ConvertError;
use crate::open::OpenModel;
use crate::options::ConvertOptions;
use crate::probe::{Vocabulary, known_vocabulary, vocabulary_for};

/// Names of all files that are ever read because they lie beside a checkpoint.
pub const COMPANIONS: [&str; 3] = [CONFIG, TOKENIZER, TOKENIZER_CONFIG];

/// The name of a model for whose name nobody is asked: that of the file.
#[must_use]
pub fn named_after(source: &Path) -> Words {
    let name = source.file_stem().map(|stem| Sourced::default_of("the source's file name", stem.to_string_lossy().into_owned()));
    Words { name, ..Words::default() }
}

/// What is said of a model, in this order: by the caller, by the files beside it and the source itself, and what models of its kind have.
/// Nothing is said yet of the making of the file.
///
/// # Errors
/// Refusals of the vocabulary, [`ConvertError::QwenVocabularyNeeded`] when there is none for a hybrid, and what is wrong with one that
/// is there.
pub(crate) fn words(model: &OpenModel, options: &ConvertOptions<'_>) -> Result<Words, BoxError> {
    let said = match model.description().mechanisms.vocabulary {
        VocabularyFamily::Qwen => of_hybrid(model, options.vocabulary)?,
        VocabularyFamily::World => of_world(model, options.vocabulary, options.container)?,
    };
    Ok(options.words.cloned().unwrap_or_default().or(said))
}

/// The vocabulary that the caller gives, or World where the model has its rows, with what belongs to it.
fn of_world(model: &OpenModel, choice: &Vocabulary, container: &dyn Container) -> Result<Words, BoxError> {
    let rows = model.description().hyperparameters.vocabulary;
    let known = if container.needs_vocabulary() {
        Some(vocabulary_for(choice, rows, &format!("container {}", container.name()))?)
    } else {
        // Without a place for a tokenizer an unknown vocabulary does no harm; a wrong one is still an error.
        known_vocabulary(choice, rows)?
    };
    let sourced = |value| match choice {
        Vocabulary::Auto => Sourced::default_of("the vocabulary of models with 65,536 rows", value),
        Vocabulary::World | Vocabulary::Bytes | Vocabulary::File(..) => Sourced::option("--vocab", value),
    };
    Ok(known.map(|tokenizer| Words::world(sourced(tokenizer))).unwrap_or_default())
}

/// The `tokenizer.json` that the user gives with `--vocab`, else the one beside the checkpoint, else the vocabulary in the source, each
/// with what stands around it.
fn of_hybrid(model: &OpenModel, choice: &Vocabulary) -> Result<Words, BoxError> {
    let given = match choice {
        Vocabulary::Auto => None,
        Vocabulary::File(name, bytes) => Some(Sourced::option("--vocab", (name.clone(), bytes.clone()))),
        Vocabulary::World | Vocabulary::Bytes => return Err(needed("RWKV's vocabularies do not belong to it").into()),
    };
    let beside = words_beside(&model.beside, model.description(), given.as_ref())?;
    if beside.has(Word::Tokens) {
        return Ok(beside);
    }
    let Words { tokens, special, template, .. } = model.file.opened().words(model.description())?;
    match tokens {
        Some(_) => Ok(Words { tokens, special, template, ..Words::default() }),
        None => Err(needed("there is none beside the checkpoint").into()),
    }
}

fn needed(why: &str) -> ConvertError {
    ConvertError::QwenVocabularyNeeded { why: why.to_owned() }
}
