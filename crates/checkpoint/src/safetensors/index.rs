//! The index of a sharded model: which tensor is in which file. Start at [`parse`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rwkv_forge_io::lfs_pointer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;

use super::header::{json_object, shorten};
use super::{MAX_TENSORS, SafetensorsError};

/// Deepest nesting accepted in an index; real ones are two deep.
const MAX_DEPTH: usize = 16;
/// Largest index of shards in bytes.
pub(crate) const MAX_BYTES: u64 = 64 << 20;
/// Most shards of a model.
const MAX_SHARDS: usize = 1000;

/// Tensor name to shard name, from the `weight_map` of an index. `file` is for messages.
pub(crate) fn parse(file: &str, json: &[u8]) -> Result<BTreeMap<String, String>, SafetensorsError> {
    let bad = |reason: String| SafetensorsError::BadIndex { file: file.to_owned(), reason };
    if let Some(what) = lfs_pointer(json) {
        return Err(bad(format!("this is {what}")));
    }
    // Editors put a byte order mark before it.
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let text = json_object(file, json, MAX_DEPTH).map_err(|error| match error {
        SafetensorsError::BadHeader { reason, .. } => bad(reason),
        other => other,
    })?;
    let mut collector = Collector::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    if let Err(error) = (&mut collector).deserialize(&mut parser).and_then(|()| parser.end()) {
        return Err(collector.explain(file, &error));
    }
    match collector.weight_map {
        None => Err(bad("it has no \"weight_map\"".to_owned())),
        Some(map) if map.is_empty() => Err(bad("its \"weight_map\" is empty".to_owned())),
        Some(map) => Ok(map),
    }
}

/// The distinct shards of a weight map in order of name, which end in `ending`, each a plain file beside the index, or a link to one.
pub(crate) fn shards(
    file: &str,
    folder: &Path,
    map: &BTreeMap<String, String>,
    ending: &'static str,
) -> Result<Vec<(String, PathBuf)>, SafetensorsError> {
    let mut names: Vec<&str> = map.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_SHARDS {
        let reason = format!("the index names {} shards, at most {MAX_SHARDS} are accepted", names.len());
        return Err(SafetensorsError::BadIndex { file: file.to_owned(), reason });
    }
    names.into_iter().map(|name| Ok((name.to_owned(), shard_path(file, folder, name, ending)?))).collect()
}

/// Index and shards must list the same tensors at the same places.
pub(crate) fn check_map(file: &str, map: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Result<(), SafetensorsError> {
    for (name, shard) in map {
        if found.get(name) != Some(shard) {
            return Err(SafetensorsError::MissingTensor { file: file.to_owned(), name: name.clone(), shard: shard.clone() });
        }
    }
    match found.iter().find(|(name, _)| !map.contains_key(*name)) {
        None => Ok(()),
        Some((name, shard)) => {
            let reason =
                format!("shard {shard:?} has this tensor, but the index does not list it; index and shards belong to different models");
            Err(SafetensorsError::BadEntry { file: file.to_owned(), name: name.clone(), reason })
        }
    }
}

fn shard_path(file: &str, folder: &Path, name: &str, ending: &'static str) -> Result<PathBuf, SafetensorsError> {
    let bad = |reason| SafetensorsError::BadShardName { file: file.to_owned(), name: shorten(name), reason };
    if name.is_empty() || name.len() > 255 || name.starts_with('.') {
        return Err(bad("is no usable file name"));
    }
    if name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control()) {
        return Err(bad("leads out of the folder or contains control characters"));
    }
    if !name.ends_with(ending) {
        return Err(bad(if ending == ".bin" { "does not end in .bin" } else { "does not end in .safetensors" }));
    }
    let path = folder.join(name);
    // The name is the content's, and stays in the folder. A link of that name is the user's, as those in the cache of the Hub are, and is
    // followed as it would be if it were given by itself.
    match path.metadata() {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(_) => Err(bad("is no plain file")),
        Err(_) => Err(SafetensorsError::MissingShard { file: file.to_owned(), name: name.to_owned() }),
    }
}

#[derive(Default)]
struct Collector {
    weight_map: Option<BTreeMap<String, String>>,
    /// The tensor whose shard is being read.
    current: Option<String>,
    duplicate: bool,
    too_many: bool,
}

impl Collector {
    fn explain(self, file: &str, error: &serde_json::Error) -> SafetensorsError {
        let file = file.to_owned();
        let reason = shorten(&error.to_string());
        match self.current {
            _ if self.too_many => SafetensorsError::TooManyTensors { file, limit: MAX_TENSORS },
            Some(name) if self.duplicate => SafetensorsError::DuplicateTensor { file, name: shorten(&name), also: String::new() },
            Some(name) if error.classify() == Category::Data => SafetensorsError::BadEntry { file, name: shorten(&name), reason },
            _ => SafetensorsError::BadIndex { file, reason },
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Collector {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Collector {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a \"weight_map\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                // "metadata": remarks about the whole, which nothing here depends on.
                map.next_value::<IgnoredAny>()?;
            } else if self.weight_map.is_some() {
                return Err(A::Error::custom("\"weight_map\" appears twice"));
            } else {
                self.weight_map = Some(BTreeMap::new());
                map.next_value_seed(WeightMap(&mut *self))?;
            }
        }
        Ok(())
    }
}

struct WeightMap<'a>(&'a mut Collector);

impl<'de> DeserializeSeed<'de> for WeightMap<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMap<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let collector = self.0;
        while let Some(tensor) = map.next_key::<String>()? {
            collector.current = Some(tensor.clone());
            let shard = map.next_value::<String>()?;
            let entries = collector.weight_map.get_or_insert_default();
            if entries.contains_key(&tensor) {
                collector.duplicate = true;
                return Err(A::Error::custom("duplicate"));
            }
            if entries.len() >= MAX_TENSORS {
                collector.too_many = true;
                return Err(A::Error::custom("too many"));
            }
            entries.insert(tensor, shard);
            collector.current = None;
        }
        Ok(())
    }
}
