//! What lies beside a hybrid's checkpoint and is in no tensor: `config.json` (epsilon, heads) and the vocabulary of Qwen.
//! RWKV itself needs none of these files, and none is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rwkv_forge_gguf::GgufFile;
use rwkv_forge_io::{FileIdentity, InputFile, IoError};
use rwkv_forge_model::{Configuration, Epsilon};
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_tokenizer::BpeVocabulary;
use rwkv_forge_tokenizer::bpe::MAX_JSON_BYTES;
use serde_json::Value;

use crate::error::ConvertError;
use crate::probe::Vocabulary;

/// The vocabulary's file.
const TOKENIZER: &str = "tokenizer.json";
/// Sizes that tensors do not say.
const CONFIG: &str = "config.json";
/// Special tokens and chat template.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Names of all files that are ever read because they lie beside a checkpoint.
pub const COMPANIONS: [&str; 3] = [CONFIG, TOKENIZER, TOKENIZER_CONFIG];

/// A file beside a checkpoint that was read with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Where it lies.
    pub path: PathBuf,
    /// The state in which it was read.
    pub identity: FileIdentity,
    /// SHA-256 of the bytes that were read, in lower-case hex.
    pub sha256: String,
}

/// Reads the files beside a checkpoint, and remembers which of them decided what.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    folder: Option<PathBuf>,
    read: Mutex<BTreeMap<PathBuf, Companion>>,
}

impl Companions {
    /// Those in the folder of the source's first file.
    pub(crate) fn of(source: &dyn TensorSource) -> Self {
        let folder = source.files().first().and_then(|path| path.parent()).map(Path::to_path_buf);
        Self { folder, ..Self::default() }
    }

    /// The files that were read so far, by path.
    pub(crate) fn files(&self) -> Vec<Companion> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A small file. Whoever asks again gets the same bytes or an error.
    fn bytes(&self, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, BoxError> {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists()) else { return Ok(None) };
        let file = InputFile::open(&path)?;
        let bytes = file.read_vec(0, file.len(), MAX_JSON_BYTES as u64)?;
        let found = Companion { path: path.clone(), identity: file.identity(), sha256: rwkv_forge_io::sha256_hex(&bytes) };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.insert(path.clone(), found.clone()) {
            Some(before) if before != found => {
                Err(IoError::InputChanged { path, detail: "it was replaced or written to".to_owned() }.into())
            }
            _ => Ok(Some((path, bytes))),
        }
    }
}

/// What the `config.json` beside a checkpoint says; nothing when there is none.
///
/// # Errors
/// [`ConvertError::BadCompanion`] when it is no JSON or a value in it cannot be.
pub(crate) fn configuration(companions: &Companions) -> Result<Configuration, BoxError> {
    let Some((path, bytes)) = companions.bytes(CONFIG)? else { return Ok(Configuration::default()) };
    let bad = |problem: String| ConvertError::BadCompanion { path: path.display().to_string(), problem };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let rms_epsilon = match value.get("rms_norm_eps") {
        None | Some(Value::Null) => None,
        Some(number) => {
            #[allow(clippy::cast_possible_truncation, reason = "runtimes compute with the nearest f32")]
            let epsilon = number.as_f64().and_then(|eps| Epsilon::new(eps as f32));
            Some(epsilon.ok_or_else(|| bad(format!("rms_norm_eps is {number}, expected a positive number")))?)
        }
    };
    let count = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => match number.as_u64().filter(|count| *count > 0) {
            Some(count) => Ok(Some(count)),
            None => Err(bad(format!("{key} is {number}, expected a positive integer"))),
        },
    };
    Ok(Configuration { rms_epsilon, heads: count("num_attention_heads")?, kv_heads: count("num_key_value_heads")? })
}

/// The vocabulary of a hybrid of `rows` rows: the `tokenizer.json` that the user gives with `--vocab`, else the one beside
/// the checkpoint, else the one in the metadata of a GGUF source.
///
/// # Errors
/// [`ConvertError::QwenVocabularyNeeded`] when there is none, and what is wrong with one that is there.
pub(crate) fn vocabulary(
    source: &dyn TensorSource,
    companions: &Companions,
    choice: &Vocabulary,
    rows: usize,
) -> Result<BpeVocabulary, BoxError> {
    let (given, from) = match choice {
        Vocabulary::Auto => match companions.bytes(TOKENIZER)? {
            Some((path, bytes)) => (Some(bytes), path),
            None => (None, source.path().to_path_buf()),
        },
        Vocabulary::File(name, bytes) => (Some(bytes.clone()), PathBuf::from(name)),
        Vocabulary::World | Vocabulary::Bytes => return Err(needed("RWKV's vocabularies do not belong to it").into()),
    };
    let Some(bytes) = given else {
        return stored(source)?.ok_or_else(|| needed("there is none beside the checkpoint").into());
    };
    let tokenizer_config = companions.bytes(TOKENIZER_CONFIG)?.map(|(_, bytes)| bytes);
    let config = companions.bytes(CONFIG)?.map(|(_, bytes)| bytes);
    BpeVocabulary::from_json(&bytes, tokenizer_config.as_deref(), config.as_deref(), rows).map_err(|error| {
        let problem = error.to_string();
        ConvertError::BadCompanion { path: from.display().to_string(), problem }.into()
    })
}

fn needed(why: &str) -> ConvertError {
    ConvertError::QwenVocabularyNeeded { why: why.to_owned() }
}

/// The vocabulary in a GGUF source.
fn stored(source: &dyn TensorSource) -> Result<Option<BpeVocabulary>, BoxError> {
    if !source.format().starts_with("GGUF") {
        return Ok(None);
    }
    Ok(rwkv_forge_gguf::bpe_vocabulary(&GgufFile::open(source.path())?)?)
}
