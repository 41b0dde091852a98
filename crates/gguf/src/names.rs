//! From the names of a GGUF file to canonical ones, and the comparison of its metadata with its tensors.
//! Start at [`mapped`].

use std::collections::BTreeSet;

use forge_model::{MappedTensor, Recover, Version};
use forge_tensor::{TensorInfo, TensorSource, format_shape};

use crate::error::GgufError;
use crate::map::{self, Entry, Form};
use crate::reader::GgufFile;
use crate::value::{Metadata, Value};

/// Every tensor of an RWKV-6 or RWKV-7 file under its canonical name, in the file's order.
///
/// Layer 0 of RWKV-7 has stand-ins for v0, v1, v2 that no runtime uses; they come under these names too, and a
/// description lists them as unused.
///
/// # Errors
/// [`GgufError::UnsupportedArchitecture`], [`GgufError::UnsupportedType`], [`GgufError::UnknownTensor`],
/// [`GgufError::DuplicateTensor`], [`GgufError::BadShape`] for the names; [`GgufError::MissingKey`],
/// [`GgufError::Contradiction`], [`GgufError::UnsupportedRescale`] for the metadata (rule G9).
pub fn mapped(file: &GgufFile) -> Result<Vec<MappedTensor>, GgufError> {
    map_file(file).map_err(|error| error.at(file.path()))
}

fn map_file(file: &GgufFile) -> Result<Vec<MappedTensor>, GgufError> {
    let architecture = file.architecture();
    let unsupported = || GgufError::UnsupportedArchitecture(architecture.to_owned());
    let version = map::version(architecture).ok_or_else(unsupported)?;
    let (_, table) = map::architecture(version).ok_or_else(unsupported)?;
    file.require_decodable()?;
    let mut names = NameMap { version, table, seen: BTreeSet::new(), out: Vec::new(), layers: 0 };
    for (index, info) in file.tensors().iter().enumerate() {
        names.add(index, info, architecture)?;
    }
    Check { metadata: file.metadata(), tensors: file.tensors(), architecture }.all(version, names.layers)?;
    Ok(names.out)
}

/// Collects canonical names.
struct NameMap {
    version: Version,
    table: &'static [Entry],
    seen: BTreeSet<String>,
    out: Vec<MappedTensor>,
    layers: u64,
}

impl NameMap {
    fn add(&mut self, index: usize, info: &TensorInfo, architecture: &str) -> Result<(), GgufError> {
        let unknown = || GgufError::UnknownTensor { name: info.name.clone(), architecture: architecture.into() };
        if let Some(entry) = map::GLOBAL.iter().find(|entry| entry.stored == info.name) {
            return self.push(index, info, entry, "");
        }
        let (layer, rest) = split_layer(&info.name).ok_or_else(unknown)?;
        let older: &[Entry] = if self.version == Version::V6 { map::V6_OLDER } else { &[] };
        let entry = self.table.iter().chain(older).find(|entry| entry.stored == rest).ok_or_else(unknown)?;
        self.layers = self.layers.max(layer.saturating_add(1));
        self.push(index, info, entry, &format!("blocks.{layer}."))
    }

    fn push(&mut self, index: usize, info: &TensorInfo, entry: &Entry, prefix: &str) -> Result<(), GgufError> {
        let of = u32::try_from(entry.canonical.len()).unwrap_or(u32::MAX);
        if entry.form == Form::Stack && info.shape.first() != Some(&u64::from(of)) {
            let problem = format!("has shape {}, expected a stack of {of}", format_shape(&info.shape));
            return Err(GgufError::BadShape { tensor: info.name.clone(), problem });
        }
        for (part, canonical) in (0u32..).zip(entry.canonical) {
            let name = format!("{prefix}{canonical}");
            if !self.seen.insert(name.clone()) {
                return Err(GgufError::DuplicateTensor(format!("{} ({name})", info.name)));
            }
            let recover = Recover { part: (part, of), transposed: entry.form == Form::Transposed, ..Recover::AS_IS };
            self.out.push(MappedTensor { name, source_index: index, recover });
        }
        Ok(())
    }
}

/// `blk.3.attn_norm.weight` to `(3, "attn_norm.weight")`; only numbers in their shortest form count.
fn split_layer(name: &str) -> Option<(u64, &str)> {
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: u64 = number.parse().ok()?;
    (layer.to_string() == number && layer < u64::from(u32::MAX)).then_some((layer, rest))
}

/// Compares metadata with tensors.
struct Check<'a> {
    metadata: &'a Metadata,
    tensors: &'a [TensorInfo],
    architecture: &'a str,
}

impl Check<'_> {
    fn all(&self, version: Version, layers: u64) -> Result<(), GgufError> {
        let (rows, channels) = self.matrix("token_embd.weight")?;
        self.equal("embedding_length", channels, "the width of token_embd.weight")?;
        self.equal("block_count", layers, "the number of layers that the tensors make up")?;
        let (ffn, _) = self.matrix("blk.0.channel_mix_key.weight")?;
        self.equal("feed_forward_length", ffn, "the height of channel_mix_key.weight")?;
        self.head_size(channels)?;
        self.epsilon()?;
        self.optional("token_shift_count", 2, "the number of token shifts in a layer")?;
        if let Some(Value::Array(tokens)) = self.metadata.get("tokenizer.ggml.tokens") {
            let count = u64::try_from(tokens.len()).unwrap_or(u64::MAX);
            self.compare("tokenizer.ggml.tokens", &format!("a list of {count}"), count == rows, "the height of token_embd.weight", rows)?;
        }
        if version == Version::V7 { self.v7() } else { self.v6() }
    }

    fn v7(&self) -> Result<(), GgufError> {
        let rank = |name: &str| self.matrix(name).map(|(rank, _)| rank);
        self.equal("attention.decay_lora_rank", rank("blk.0.time_mix_w1.weight")?, "the height of time_mix_w1.weight")?;
        self.equal("attention.iclr_lora_rank", rank("blk.0.time_mix_a1.weight")?, "the height of time_mix_a1.weight")?;
        self.optional("attention.gate_lora_rank", rank("blk.0.time_mix_g1.weight")?, "the height of time_mix_g1.weight")?;
        // A model of one layer has no value residual at all.
        if self.find("blk.1.time_mix_v1.weight").is_some() {
            let found = rank("blk.1.time_mix_v1.weight")?;
            self.equal("attention.value_residual_mix_lora_rank", found, "the height of time_mix_v1.weight in layer 1")?;
        }
        Ok(())
    }

    fn v6(&self) -> Result<(), GgufError> {
        let key = self.key("rescale_every_n_layers");
        match self.metadata.u64(&key)? {
            None | Some(0) => {}
            Some(every) => return Err(GgufError::UnsupportedRescale { key, every }),
        }
        let mix = self.required("blk.0.time_mix_w2.weight")?.shape.last().copied().unwrap_or(0);
        self.equal("time_mix_extra_dim", mix, "the width of time_mix_w2.weight")?;
        let (decay, _) = self.matrix("blk.0.time_mix_decay_w1.weight")?;
        self.equal("time_decay_extra_dim", decay, "the height of time_mix_decay_w1.weight")?;
        let (_, head_size) = self.matrix("blk.0.time_mix_first.weight")?;
        self.equal("wkv.head_size", head_size, "the width of time_mix_first.weight")
    }

    fn head_size(&self, channels: u64) -> Result<(), GgufError> {
        let key = self.key("wkv.head_size");
        let size = self.metadata.require_u64(&key, "it gives the size of the state")?;
        let fits = channels.checked_rem(size) == Some(0);
        self.compare(&key, &size.to_string(), fits, "it must divide the width of token_embd.weight, which", channels)
    }

    fn epsilon(&self) -> Result<(), GgufError> {
        let key = self.key("attention.layer_norm_epsilon");
        let Some(found) = self.metadata.f64(&key)? else {
            return Err(GgufError::MissingKey { key, why: "runtimes need it for every layer norm".into() });
        };
        let is_released = (found - 1e-5).abs() < 1e-11;
        self.compare(&key, &found.to_string(), is_released, "the epsilon of every released RWKV", "1e-5")
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|info| info.name == name)
    }

    fn required(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.find(name).ok_or_else(|| GgufError::MissingTensor { name: name.into() })
    }

    /// Rows and columns of a tensor of two dimensions.
    fn matrix(&self, name: &str) -> Result<(u64, u64), GgufError> {
        let info = self.required(name)?;
        match info.shape.as_slice() {
            [rows, columns] => Ok((*rows, *columns)),
            other => Err(GgufError::BadShape {
                tensor: name.into(),
                problem: format!("has shape {}, expected two dimensions", format_shape(other)),
            }),
        }
    }

    fn equal(&self, name: &str, expected: u64, what: &str) -> Result<(), GgufError> {
        let key = self.key(name);
        let found = self.metadata.require_u64(&key, &format!("it must say {expected}, {what}"))?;
        self.compare(&key, &found.to_string(), found == expected, what, expected)
    }

    fn optional(&self, name: &str, expected: u64, what: &str) -> Result<(), GgufError> {
        if self.metadata.get(&self.key(name)).is_some() { self.equal(name, expected, what) } else { Ok(()) }
    }

    fn compare(&self, key: &str, found: &str, good: bool, what: &str, expected: impl ToString) -> Result<(), GgufError> {
        if good {
            return Ok(());
        }
        Err(GgufError::Contradiction { key: key.into(), found: found.into(), what: what.into(), expected: expected.to_string() })
    }
}
