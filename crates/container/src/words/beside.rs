//! What the files beside a model say. Start at [`words_beside`].

use std::sync::Arc;

use rwkv_forge_model::{ModelDescription, VocabularyFamily};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::{SpecialIds, Tokenizer, TokenizerFiles};

use crate::beside::{Beside, CONFIG, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::ContainerError;
use crate::words::folder::{words_of_folder, words_of_hybrid};
use crate::words::{Origin, Sourced, TokenTable, Words};

/// What a caller gives that takes the place of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// For a hybrid: name and content of a `tokenizer.json`.
    pub tokenizer_json: Option<&'a Sourced<(String, Vec<u8>)>>,
    /// For other models: a vocabulary.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// What lies beside a model: for hybrids with Qwen, whose vocabulary nobody knows by heart, `tokenizer.json` and what the files around
/// it say of special ids and of the conversation format, `generation_config.json` and `chat_template.jinja` among them; for others what the
/// files of a folder say that is the model's own. What is `given` takes the place of the file that lies there, which then need not be a usable one.
///
/// # Errors
/// [`ContainerError::BadBeside`], and failures to read.
pub fn words_beside(beside: &Beside, model: &ModelDescription, given: Given<'_>) -> Result<Words, BoxError> {
    match model.mechanisms.vocabulary {
        // Beside a single file may lie anybody's.
        VocabularyFamily::World if beside.is_own() => return words_of_folder(beside, given.tokenizer, model.hyperparameters.vocabulary),
        VocabularyFamily::World => return Ok(Words::default()),
        VocabularyFamily::Qwen => {}
    }
    let (path, bytes, origin) = match given.tokenizer_json {
        // The one that lies there is not looked at.
        Some(Sourced { value: (name, bytes), origin }) => (name.into(), bytes.clone(), origin.clone()),
        None => match beside.bytes(TOKENIZER)? {
            Some((path, bytes)) => (path.clone(), bytes, Origin::Beside(path)),
            None => return Ok(Words::default()),
        },
    };
    let tokenizer_config = beside.bytes(TOKENIZER_CONFIG)?;
    let config = beside.bytes(CONFIG)?;
    let content = |file: &Option<(_, Vec<u8>)>| file.as_ref().map(|(_, bytes)| bytes.clone());
    let rows = model.hyperparameters.vocabulary;
    let read = TokenizerFiles::from_json(&bytes, content(&tokenizer_config).as_deref(), content(&config).as_deref(), rows)
        .map_err(|error| ContainerError::BadBeside { path, problem: error.to_string() })?;
    let stated_in = |name: &str| match (name, &tokenizer_config, &config) {
        (TOKENIZER_CONFIG, Some((path, _)), _) | (CONFIG, _, Some((path, _))) => Origin::Beside(path.clone()),
        _ => origin.clone(),
    };
    let special: SpecialIds<_> = read.special.map(|(value, file)| Sourced { value, origin: stated_in(file) });
    let around = words_of_hybrid(beside, special, &read.vocabulary)?;
    Ok(Words { tokens: Some(Sourced { value: TokenTable::BytePairs(Arc::new(read.vocabulary)), origin }), ..around })
}
