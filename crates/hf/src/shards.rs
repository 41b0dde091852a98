//! Tensors in one safetensors file, or in numbered ones with an index. Start at [`files`].

use rwkv_forge_checkpoint::safetensors::{NewTensor, layout};
use rwkv_forge_container::{LATE_TEXTS, Words, provenance};
use rwkv_forge_model::{FileLayout, Version};
use serde_json::{Map, Value, json};

use crate::error::HfError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Whether [`files`] may give a file this name.
pub(crate) fn is_weights(name: &str) -> bool {
    let shard = || name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-");
    let number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    name == SINGLE || name == INDEX || shard().is_some_and(|(number_of, of)| number(number_of) && number(of))
}

/// Lays out `model.safetensors`, or shards of at most `shard_bytes` bytes of tensors and their index. A tensor
/// larger than that has a shard of its own. `extra` are further metadata of each file.
pub(crate) fn files(
    tensors: Vec<NewTensor>,
    version: Version,
    extra: &[(&str, &str)],
    words: &Words,
    shard_bytes: u64,
) -> Result<Vec<(String, FileLayout)>, HfError> {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let mut metadata = vec![text(&("format", "pt"))];
    metadata.extend(provenance(version, words));
    metadata.extend(extra.iter().map(text));
    let shards = split(tensors, shard_bytes);
    if let [_] = shards.as_slice() {
        let all = shards.into_iter().flatten().collect();
        return Ok(vec![(SINGLE.to_owned(), layout(all, &metadata, &LATE_TEXTS)?)]);
    }
    let of = shards.len();
    let mut files = Vec::with_capacity(of.saturating_add(1));
    let (mut map, mut total) = (Map::new(), 0u64);
    for (number, shard) in (1usize..).zip(shards) {
        let name = format!("model-{number:05}-of-{of:05}.safetensors");
        for tensor in &shard {
            total = total.saturating_add(bytes_of(tensor));
            map.insert(tensor.name.clone(), Value::from(name.as_str()));
        }
        files.push((name, layout(shard, &metadata, &LATE_TEXTS)?));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    files.push(text_file(INDEX, format!("{index:#}\n")));
    Ok(files)
}

fn bytes_of(tensor: &NewTensor) -> u64 {
    tensor.encoding.byte_len(&tensor.shape).unwrap_or(u64::MAX)
}

/// In order, each shard as full as the limit allows; never empty.
fn split(tensors: Vec<NewTensor>, limit: u64) -> Vec<Vec<NewTensor>> {
    let mut shards: Vec<Vec<NewTensor>> = Vec::new();
    let mut used = 0u64;
    for tensor in tensors {
        let bytes = bytes_of(&tensor);
        match shards.last_mut() {
            Some(last) if used.saturating_add(bytes) <= limit => {
                used = used.saturating_add(bytes);
                last.push(tensor);
            }
            _ => {
                used = bytes;
                shards.push(vec![tensor]);
            }
        }
    }
    shards
}

/// A file whose content is known from the beginning.
pub(crate) fn text_file(name: &str, text: impl Into<Vec<u8>>) -> (String, FileLayout) {
    let header: Vec<u8> = text.into();
    let total_bytes = u64::try_from(header.len()).unwrap_or(u64::MAX);
    (name.to_owned(), FileLayout { header, total_bytes, ..FileLayout::default() })
}
