//! The vocabulary of a hybrid with Qwen, which is in no tensor: it lies beside the checkpoint or in the metadata of a file.

use std::path::PathBuf;

use rwkv_forge_container::{Beside, CONFIG, ContainerError, Opened, TOKENIZER, TOKENIZER_CONFIG};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::BpeVocabulary;

use crate::error::ConvertError;
use crate::probe::Vocabulary;

/// Names of all files that are ever read because they lie beside a checkpoint.
pub const COMPANIONS: [&str; 3] = [CONFIG, TOKENIZER, TOKENIZER_CONFIG];

/// The vocabulary of a hybrid of `rows` rows: the `tokenizer.json` that the user gives with `--vocab`, else the one beside
/// the checkpoint, else the one in the metadata of the source.
///
/// # Errors
/// [`ConvertError::QwenVocabularyNeeded`] when there is none, and what is wrong with one that is there.
pub(crate) fn vocabulary(file: &dyn Opened, beside: &Beside, choice: &Vocabulary, rows: usize) -> Result<BpeVocabulary, BoxError> {
    let (given, from) = match choice {
        Vocabulary::Auto => match beside.bytes(TOKENIZER)? {
            Some((path, bytes)) => (Some(bytes), path),
            None => (None, file.path().to_path_buf()),
        },
        Vocabulary::File(name, bytes) => (Some(bytes.clone()), PathBuf::from(name)),
        Vocabulary::World | Vocabulary::Bytes => return Err(needed("RWKV's vocabularies do not belong to it").into()),
    };
    let Some(bytes) = given else {
        return file.qwen_vocabulary()?.ok_or_else(|| needed("there is none beside the checkpoint").into());
    };
    let tokenizer_config = beside.bytes(TOKENIZER_CONFIG)?.map(|(_, bytes)| bytes);
    let config = beside.bytes(CONFIG)?.map(|(_, bytes)| bytes);
    BpeVocabulary::from_json(&bytes, tokenizer_config.as_deref(), config.as_deref(), rows).map_err(|error| {
        let problem = error.to_string();
        ContainerError::BadBeside { path: from, problem }.into()
    })
}

fn needed(why: &str) -> ConvertError {
    ConvertError::QwenVocabularyNeeded { why: why.to_owned() }
}
