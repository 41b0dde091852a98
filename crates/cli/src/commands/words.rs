//! What a file will say besides its tensors, as a table.

use rwkv_forge_convert::{Blueprint, Entry};
use rwkv_forge_tensor::shorten;
use serde_json::{Value, json};

/// Each word as JSON, and as a row: what, value, where from, whether the file has it.
pub(super) fn rows(blueprint: &Blueprint) -> (Vec<Value>, Vec<Vec<String>>) {
    let row = |entry: &Entry| {
        let held = blueprint.holds(entry.word);
        let document = json!({
            "word": entry.word.name(), "key": entry.key, "value": entry.value,
            "origin": entry.origin.kind(), "from": entry.origin.to_string(), "held": held,
        });
        let shown =
            [shorten(&entry.key), shorten(&entry.value), shorten(&entry.origin.to_string()), if held { "yes" } else { "no" }.to_owned()];
        (document, shown.to_vec())
    };
    blueprint.words.entries().iter().map(row).unzip()
}
