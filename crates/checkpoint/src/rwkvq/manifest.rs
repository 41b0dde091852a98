//! The JSON that says how the tensors of a .rwkvq file are stored. Start at [`parse`].
//!
//! Its text is a value of the header's `__metadata__`, whose size is limited; lists are limited while they are read, and keys that no rule
//! here is about are passed over.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Refusal, Result, refuse};

/// What `format` must be.
const FORMAT: &str = "rwkvq";
/// Versions that are read. The first one says less of each tensor.
const VERSIONS: [u64; 2] = [1, 2];

/// What the file says of itself.
#[derive(Deserialize)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) format_version: u64,
    #[serde(default)]
    pub(super) naming: String,
    pub(super) n_layer: u64,
    pub(super) n_embd: u64,
    pub(super) head_size: u64,
    pub(super) vocab_size: u64,
    #[serde(default)]
    pub(super) config_repr: Option<String>,
    #[serde(default)]
    pub(super) tokenizer: Option<String>,
    pub(super) tensors: Tensors,
}

/// Names and what is said of them, in the file's order.
pub(super) struct Tensors(pub(super) Vec<(String, Entry)>);

/// How a tensor is stored.
#[derive(Deserialize)]
pub(super) struct Entry {
    pub(super) kind: String,
    pub(super) shape: Few<u64, 8>,
    pub(super) bits: u64,
    #[serde(default)]
    pub(super) gw_gs: u64,
    #[serde(default)]
    pub(super) gw_sb: u64,
    #[serde(default)]
    pub(super) n_blocks: Option<u64>,
    #[serde(default)]
    pub(super) transposed: Option<bool>,
    pub(super) fields: Few<String, 16>,
}

/// At most `N` values.
pub(super) struct Few<T, const N: usize>(pub(super) Vec<T>);

/// The manifest in this text.
///
/// # Errors
/// `BadManifest`; `UnsupportedVersion`.
pub(super) fn parse(text: &str) -> Result<Manifest> {
    let bad = |what: String| {
        refuse(Refusal::BadManifest, format!("the metadata key \"rwkvq\" {what}; download the file again, or make it anew with rwkv-quant"))
    };
    let manifest: Manifest = match serde_json::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return bad(format!("is not what .rwkvq files have: {}", rwkv_forge_tensor::shorten(&error.to_string()))),
    };
    if manifest.format != FORMAT {
        return bad(format!("says that the format is \"{}\", expected \"{FORMAT}\"", rwkv_forge_tensor::shorten(&manifest.format)));
    }
    if !VERSIONS.contains(&manifest.format_version) {
        let what = format!(
            "this is version {} of .rwkvq; read here are 1 and 2, which rwkv-quant 0.3.0 writes: quantize the model with that",
            manifest.format_version
        );
        return refuse(Refusal::UnsupportedVersion, what);
    }
    Ok(manifest)
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Tensors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry a tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Tensors, A::Error> {
                let (mut tensors, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("tensor {name:?} is described twice")));
                    }
                    if names.len() > crate::safetensors::MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {} tensors", crate::safetensors::MAX_TENSORS)));
                    }
                    let entry = map.next_value().map_err(|error| A::Error::custom(format!("tensor {name:?}: {error}")))?;
                    tensors.push((name, entry));
                }
                Ok(Tensors(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Values<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Values<T, N> {
            type Value = Few<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N} values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Few<T, N>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    if values.len() == N {
                        return Err(A::Error::custom(format!("a list of more than {N} values")));
                    }
                    values.push(value);
                }
                Ok(Few(values))
            }
        }
        deserializer.deserialize_seq(Values(PhantomData))
    }
}
