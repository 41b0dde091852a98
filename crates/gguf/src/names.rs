//! From the names of a GGUF file to canonical ones, and the comparison of its metadata with its tensors.
//! Start at [`mapped`].

use std::collections::BTreeSet;

use rwkv_forge_container::Value;
use rwkv_forge_model::{Configuration, Epsilon, MappedTensor, ModelFile, NormKind, Recover, ValueForm, Version};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource, format_shape};

use crate::content::other_than_model;
use crate::error::GgufError;
use crate::map::{self, Arrangement, Entry, RankKeys, Row};
use crate::reader::GgufFile;
use crate::value::Metadata;

impl ModelFile for GgufFile {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        Ok(mapped(self)?)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(configuration(self)?)
    }
}

/// Every tensor of a file of an RWKV architecture under its canonical name, in the file's order.
///
/// Layer 0 of RWKV-7 and ARWKV has stand-ins for v0, v1, v2 that no runtime uses; they come under these names too, and a
/// description lists them as unused.
///
/// # Errors
/// [`GgufError::NoModel`], [`GgufError::UnsupportedArchitecture`], [`GgufError::UnsupportedType`], [`GgufError::UnknownTensor`],
/// [`GgufError::ScaleBeside`], [`GgufError::DuplicateTensor`], [`GgufError::BadShape`] for the names; [`GgufError::MissingKey`],
/// [`GgufError::Contradiction`], [`GgufError::UnsupportedRescale`] for the metadata (G9 in `docs/bad-inputs.md`).
pub fn mapped(file: &GgufFile) -> Result<Vec<MappedTensor>, GgufError> {
    map_file(file).map_err(|error| error.at(file.path()))
}

fn map_file(file: &GgufFile) -> Result<Vec<MappedTensor>, GgufError> {
    if let Some(what) = other_than_model(file.metadata()) {
        return Err(GgufError::NoModel { what });
    }
    let architecture = file.architecture();
    let unsupported = || GgufError::UnsupportedArchitecture(architecture.to_owned());
    let row = map::row_named(architecture).ok_or_else(unsupported)?;
    file.require_decodable()?;
    let mut names = NameMap { row, seen: BTreeSet::new(), out: Vec::new(), layers: 0 };
    for (index, info) in file.tensors().iter().enumerate() {
        names.add(index, info, architecture).map_err(|error| scale_beside(file.tensors(), info).unwrap_or(error))?;
    }
    let check = Check { metadata: file.metadata(), tensors: file.tensors(), architecture };
    check.all(row, names.layers)?;
    if let Some(every) = check.rescaled()? {
        // Nobody halves the stream of a hybrid, whose channel mix has other matrices, or of RWKV-7.
        if norm(row) == NormKind::Rms || !matches!(row.rank_keys, RankKeys::Mix { .. }) {
            return Err(GgufError::UnsupportedRescale { key: check.key(RESCALE), every });
        }
        for tensor in &mut names.out {
            if let Some(halvings) = halvings(&tensor.name, every) {
                let halvings = u8::try_from(halvings).ok().filter(|halvings| *halvings <= MAX_HALVINGS);
                let form =
                    halvings.map(ValueForm::Halved).ok_or_else(|| GgufError::UnsupportedRescale { key: check.key(RESCALE), every })?;
                tensor.recover = tensor.recover.with_form(form);
            }
        }
    }
    Ok(names.out)
}

/// After so many layers runtimes halve the residual stream, and the matrices that add to it are stored divided by as much.
const RESCALE: &str = "rescale_every_n_layers";
/// Most halvings that [`ValueForm::Halved`] has.
const MAX_HALVINGS: u8 = 40;

/// How often the values of a tensor were halved in a file whose stream is halved after `every` layers; `None` for one that adds nothing
/// to it, and for one that was not halved.
fn halvings(canonical: &str, every: u64) -> Option<u64> {
    let (layer, rest) = split_number(canonical.strip_prefix("blocks.")?)?;
    let adds = ["att.output.weight", "ffn.value.weight"].contains(&rest);
    layer.checked_div(every).filter(|halvings| adds && *halvings > 0)
}

/// Collects canonical names.
struct NameMap {
    row: &'static Row,
    seen: BTreeSet<String>,
    out: Vec<MappedTensor>,
    layers: u64,
}

impl NameMap {
    fn add(&mut self, index: usize, info: &TensorInfo, architecture: &str) -> Result<(), GgufError> {
        let unknown = || GgufError::UnknownTensor { name: info.name.clone(), architecture: architecture.into() };
        if let Some(entry) = self.row.global.iter().find(|entry| entry.stored == info.name) {
            return self.push(index, info, entry, "");
        }
        let (layer, rest) = split_layer(&info.name).ok_or_else(unknown)?;
        let entry = self.row.layer.iter().chain(self.row.older).find(|entry| entry.stored == rest).ok_or_else(unknown)?;
        self.layers = self.layers.max(layer.saturating_add(1));
        self.push(index, info, entry, &format!("blocks.{layer}."))
    }

    fn push(&mut self, index: usize, info: &TensorInfo, entry: &Entry, prefix: &str) -> Result<(), GgufError> {
        let canonical = stacked(info, entry);
        let of = u32::try_from(canonical.len()).unwrap_or(u32::MAX);
        if matches!(entry.arrangement, Arrangement::Stack | Arrangement::StackOrLess | Arrangement::Planes)
            && info.shape.first() != Some(&u64::from(of))
        {
            let problem = format!("has shape {}, expected a stack of {of}", format_shape(&info.shape));
            return Err(GgufError::BadShape { tensor: info.name.clone(), problem });
        }
        for (part, canonical) in (0u32..).zip(canonical) {
            let name = format!("{prefix}{canonical}");
            if !self.seen.insert(name.clone()) {
                return Err(GgufError::DuplicateTensor(format!("{} ({name})", info.name)));
            }
            let recover = Recover { part: (part, of), transposed: entry.arrangement.is_transposed(), ..Recover::AS_IS };
            self.out.push(MappedTensor { name, source_index: index, recover });
        }
        Ok(())
    }
}

/// What is wrong with a tensor that is the scale of another one. Runtimes multiply what comes out of `NAME.weight` by the number in
/// `NAME.scale`, which files of NVFP4 may have, and what goes in by that in `NAME.input_scale`.
fn scale_beside(tensors: &[TensorInfo], info: &TensorInfo) -> Option<GgufError> {
    let stem = info.name.strip_suffix(".input_scale").or_else(|| info.name.strip_suffix(".scale"))?;
    let weight = tensors.iter().find(|other| other.name.strip_suffix(".weight") == Some(stem))?;
    Some(GgufError::ScaleBeside { scale: info.name.clone(), weight: weight.name.clone(), encoding: weight.encoding.name })
}

/// The canonical tensors in a stored one: a stack may lack its last part.
fn stacked(info: &TensorInfo, entry: &Entry) -> &'static [&'static str] {
    match (entry.arrangement, entry.canonical.split_last()) {
        (Arrangement::StackOrLess, Some((_, less))) if info.shape.first() == u64::try_from(less.len()).ok().as_ref() => less,
        _ => entry.canonical,
    }
}

/// Name in a file of the tensor that holds the canonical tensor `name`, alone or with others; `None` for what such files do not have.
#[must_use]
pub fn stored_name(version: Version, name: &str) -> Option<String> {
    let row = map::row(version).ok()?;
    if let Some(entry) = row.global.iter().find(|entry| entry.canonical.contains(&name)) {
        return Some(entry.stored.to_owned());
    }
    let (layer, rest) = split_number(name.strip_prefix("blocks.")?)?;
    let entry = row.layer.iter().find(|entry| entry.canonical.contains(&rest))?;
    Some(format!("blk.{layer}.{}", entry.stored))
}

/// The canonical tensors that a file has under the name `stored`; empty for an unknown name, and for an architecture without files.
#[must_use]
pub fn canonical_names(version: Version, stored: &str) -> Vec<String> {
    let names = |prefix: &str, entry: &Entry| entry.canonical.iter().map(|name| format!("{prefix}{name}")).collect();
    let Ok(row) = map::row(version) else { return Vec::new() };
    if let Some(entry) = row.global.iter().find(|entry| entry.stored == stored) {
        return names("", entry);
    }
    let found = split_layer(stored).and_then(|(layer, rest)| Some((layer, row.layer.iter().find(|entry| entry.stored == rest)?)));
    found.map_or(Vec::new(), |(layer, entry)| names(&format!("blocks.{layer}."), entry))
}

/// What a file of a hybrid says beyond its tensors.
///
/// # Errors
/// [`GgufError::MissingKey`], [`GgufError::BadValue`], [`GgufError::Contradiction`].
pub fn configuration(file: &GgufFile) -> Result<Configuration, GgufError> {
    match map::row_named(file.architecture()) {
        Some(row) if norm(row) == NormKind::Rms => read_configuration(file, row).map_err(|error| error.at(file.path())),
        // RWKV itself needs none, and other architectures are refused when their names are mapped.
        Some(_) | None => Ok(Configuration::default()),
    }
}

/// The norms of an architecture.
fn norm(row: &Row) -> NormKind {
    row.version.architecture().norm
}

fn read_configuration(file: &GgufFile, row: &Row) -> Result<Configuration, GgufError> {
    let check = Check { metadata: file.metadata(), tensors: file.tensors(), architecture: file.architecture() };
    let mut configuration = Configuration { rms_epsilon: Some(check.rms_epsilon()?), ..Configuration::default() };
    if row.kv_heads {
        let (_, channels) = check.matrix("token_embd.weight")?;
        let size = check.metadata.require_u64(&check.key("wkv.head_size"), "it gives the size of the state")?;
        check.head_size(channels)?;
        let heads = channels.checked_div(size).unwrap_or(0);
        let stated = check.metadata.u64(&check.key("attention.head_count_kv"))?;
        // Without the key, or with 0, runtimes take as many heads of keys as there are heads.
        configuration.kv_heads = Some(stated.filter(|heads| *heads != 0).unwrap_or(heads));
        configuration.heads = Some(heads);
    }
    Ok(configuration)
}

/// `blk.3.attn_norm.weight` to `(3, "attn_norm.weight")`.
fn split_layer(name: &str) -> Option<(u64, &str)> {
    split_number(name.strip_prefix("blk.")?)
}

/// `3.attn_norm.weight` to `(3, "attn_norm.weight")`; only numbers in their shortest form count.
fn split_number(name: &str) -> Option<(u64, &str)> {
    let (number, rest) = name.split_once('.')?;
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
    fn all(&self, row: &Row, layers: u64) -> Result<(), GgufError> {
        let (rows, channels) = self.matrix("token_embd.weight")?;
        self.equal("embedding_length", channels, "the width of token_embd.weight")?;
        self.equal("block_count", layers, "the number of layers that the tensors make up")?;
        let (ffn, _) = self.matrix(&format!("blk.0.{}", row.hidden))?;
        self.equal("feed_forward_length", ffn, &format!("the height of {}", row.hidden))?;
        self.head_size(channels)?;
        match norm(row) {
            NormKind::Rms => self.rms_epsilon().map(|_| ())?,
            NormKind::Layer => self.epsilon()?,
        }
        let what = "the number of token shifts in a layer";
        match row.version.architecture().channel_shift.is_there() {
            // Without the key runtimes assume 2 and make a state of the wrong size.
            false => self.equal("token_shift_count", 1, what)?,
            true => self.optional("token_shift_count", 2, what)?,
        }
        if let Some(Value::Array(tokens)) = self.metadata.get("tokenizer.ggml.tokens") {
            let count = u64::try_from(tokens.len()).unwrap_or(u64::MAX);
            self.compare("tokenizer.ggml.tokens", &format!("a list of {count}"), count == rows, "the height of token_embd.weight", rows)?;
        }
        match row.rank_keys {
            RankKeys::Mix { head_size } => self.mix(head_size),
            RankKeys::Delta { gate } => self.delta(gate),
        }
    }

    /// RWKV-7's ranks; `gate` says whether its factors must be there.
    fn delta(&self, gate: bool) -> Result<(), GgufError> {
        let rank = |name: &str| self.matrix(name).map(|(rank, _)| rank);
        self.equal("attention.decay_lora_rank", rank("blk.0.time_mix_w1.weight")?, "the height of time_mix_w1.weight")?;
        self.equal("attention.iclr_lora_rank", rank("blk.0.time_mix_a1.weight")?, "the height of time_mix_a1.weight")?;
        if !gate && self.find("blk.0.time_mix_g1.weight").is_none() {
            self.optional("attention.gate_lora_rank", 0, "the rank of a gate that is not there")?;
        } else {
            self.optional("attention.gate_lora_rank", rank("blk.0.time_mix_g1.weight")?, "the height of time_mix_g1.weight")?;
        }
        // A model of one layer has no value residual at all.
        if self.find("blk.1.time_mix_v1.weight").is_some() {
            let found = rank("blk.1.time_mix_v1.weight")?;
            self.equal("attention.value_residual_mix_lora_rank", found, "the height of time_mix_v1.weight in layer 1")?;
        }
        Ok(())
    }

    /// After how many layers the residual stream is halved; `None` for never.
    fn rescaled(&self) -> Result<Option<u64>, GgufError> {
        Ok(self.metadata.u64(&self.key(RESCALE))?.filter(|every| *every > 0))
    }

    /// RWKV-6's ranks; `bonus` is a tensor whose width is the head size.
    fn mix(&self, bonus: Option<&str>) -> Result<(), GgufError> {
        let mix = self.required("blk.0.time_mix_w2.weight")?.shape.last().copied().unwrap_or(0);
        self.equal("time_mix_extra_dim", mix, "the width of time_mix_w2.weight")?;
        let (decay, _) = self.matrix("blk.0.time_mix_decay_w1.weight")?;
        self.equal("time_decay_extra_dim", decay, "the height of time_mix_decay_w1.weight")?;
        let Some(bonus) = bonus else { return Ok(()) };
        let (_, head_size) = self.matrix(bonus)?;
        self.equal("wkv.head_size", head_size, &format!("the width of {}", bonus.strip_prefix("blk.0.").unwrap_or(bonus)))
    }

    fn rms_epsilon(&self) -> Result<Epsilon, GgufError> {
        let key = self.key("attention.layer_norm_rms_epsilon");
        match self.metadata.get(&key) {
            None => Err(GgufError::MissingKey { key, why: "runtimes need it for every norm".into() }),
            Some(Value::F32(value)) => match Epsilon::new(*value) {
                Some(epsilon) => Ok(epsilon),
                None => Err(GgufError::Contradiction {
                    key,
                    found: value.to_string(),
                    what: "an epsilon".into(),
                    expected: "a positive number".into(),
                }),
            },
            Some(other) => Err(GgufError::WrongType { key, found: other.value_type(), expected: "f32" }),
        }
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
