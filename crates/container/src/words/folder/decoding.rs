//! How a folder says that tokens are chosen: `generation_config.json` and its kin. Start at [`read`].

use std::path::Path;

use rwkv_forge_tensor::{BoxError, shorten};
use serde_json::Value as Json;

use super::{GENERATION_CONFIG, Numbers, older, special};
use crate::beside::Beside;
use crate::words::{Decoding, Origin, Sourced, Words};

/// Decoding with few steps of thought, beside [`GENERATION_CONFIG`].
pub const FAKE_THINK: &str = "fake_think_generation_config.json";
/// Decoding for calls of tools, likewise.
pub const TOOLS: &str = "tools_generation_config.json";

/// What the three files say of decoding. Special ids are those of [`GENERATION_CONFIG`]: others in the other two are named.
pub(super) fn read(beside: &Beside, numbers: &Option<Numbers>) -> Result<Words, BoxError> {
    let mut words = Words::default();
    let first = numbers.as_ref().and_then(|numbers| numbers.as_ref().ok());
    if let Some((path, config)) = first {
        take(&mut words, GENERATION_CONFIG, path, config);
    }
    for name in [FAKE_THINK, TOOLS] {
        let Some((path, config)) = older(beside, name, &mut words.notes)? else { continue };
        for (key, said) in config.as_object().into_iter().flatten().filter(|(key, _)| special::is_id(key)) {
            if first.and_then(|(_, first)| first.get(key)) != Some(said) {
                let (path, said) = (path.display(), shorten(&said.to_string()));
                words.notes.push(format!("{key} of {path} is {said}, and not kept: special ids are those of {GENERATION_CONFIG}"));
            }
        }
        take(&mut words, name, &path, &config);
    }
    Ok(words)
}

/// What a configuration says besides ids and of the program that wrote it.
fn take(words: &mut Words, name: &str, path: &Path, config: &Json) {
    let is_decoding = |key: &str| !special::is_id(key) && !key.starts_with('_') && key != "transformers_version";
    let entries = config.as_object().into_iter().flatten().filter(|(key, _)| is_decoding(key));
    let value: Decoding = entries.map(|(key, value)| (key.clone(), value.clone())).collect();
    if !value.is_empty() {
        words.decoding.push((name.to_owned(), Sourced { value, origin: Origin::Beside(path.to_path_buf()) }));
    }
}
