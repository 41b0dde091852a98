//! `.rwkvq`, the quantized checkpoints of the rwkv-quant package: a safetensors file whose metadata key `rwkvq` says how each tensor is stored,
//! in buffers called `NAME::FIELD`. Names are those of BlinkDL's checkpoints. What was pickled, before the format had a version, is refused by
//! the reader of torch's files. Start at [`open`].
//!
//! The values are those that the package computes in f32. Whoever computes with f16, as its readers for GPUs do, rounds them once more.

mod kinds;
mod manifest;

use rwkv_forge_container::lint::Lint;
use rwkv_forge_container::{Opened, Words};
use rwkv_forge_model::{Configuration, MappedTensor, ModelDescription, ModelFile, Recover};
use rwkv_forge_quant::{ASYM_8, BlockFormat, RTN};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource, Wrapper, format_shape, shorten};

use crate::assembled::{self, Assembled, Parts};
use crate::container::TensorFile;
use crate::error::{CheckpointError, Refusal, Result, refuse};
use crate::safetensors::SafetensorsSource;
use kinds::Buffers;
use manifest::Manifest;

/// The key of the manifest.
const KEY: &str = "rwkvq";

/// What is said of files that rwkv-quant wrote before its format had a version: pickles of dictionaries, or of objects of its own classes.
pub(crate) const PICKLED: &str = "this is a .rwkvq file of the old kind, which is a pickle of the rwkv_quant package's objects; nothing was executed. If \
                                  you trust the file, rewrite it with rwkv-quant 0.3.0: `from rwkv_quant.formats import reader, writer`, then \
                                  `writer.save_rwkvq(reader.load_raw(OLD), NEW)`; or quantize the model anew with that";

/// Names a note has room for.
const SHOWN: usize = 4;

/// A file, and which way its low-rank factors lie.
struct RwkvqFile {
    file: TensorFile,
    channels: Option<u64>,
    /// What is said of each tensor: true for BlinkDL's orientation, `[inputs, outputs]`.
    raw: Vec<Option<bool>>,
}

/// Whether a safetensors file is one of these.
pub(crate) fn is_one(source: &SafetensorsSource) -> bool {
    source.metadata().contains_key(KEY)
}

/// Understands a file of which [`is_one`] is true. `file` makes one of tensors and texts.
///
/// # Errors
/// `BadManifest`, `UnsupportedVersion`, `UnsupportedKind`, `MissingBuffer`, `ExtraBuffer`, `BadBuffer`, `BadOutlier`; those of reading the
/// places of outliers.
pub(crate) fn open(
    source: SafetensorsSource,
    file: impl FnOnce(Box<dyn TensorSource>, Vec<(String, String)>) -> TensorFile,
) -> std::result::Result<Box<dyn Opened>, BoxError> {
    let contents = Contents::of(&source).map_err(|error| error.in_file(source.path()))?;
    for (info, parts) in contents.tensors.iter().zip(&contents.parts) {
        assembled::check_outliers(&source, info, parts)?;
    }
    let Contents { manifest, tensors, parts } = contents;
    let texts = manifest.texts(&source);
    let own = [("rwkvq.format_version", manifest.format_version.to_string()), ("rwkvq.naming", shorten(&manifest.naming))];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    let metadata = own.chain(texts.iter().map(|(key, value)| (shorten(key), shorten(value.trim_end())))).collect();
    let mut notes = source.notes().to_vec();
    notes.extend(note(&tensors));
    let raw = manifest.tensors.0.iter().map(|(_, entry)| entry.transposed).collect();
    let channels = tensors.iter().find(|info| info.name == "emb.weight").and_then(|info| info.shape.last().copied());
    let format = if manifest.format_version == 1 { "rwkvq v1" } else { "rwkvq v2" };
    let assembled = Assembled { source: Box::new(source), format, tensors, parts, metadata, notes };
    Ok(Box::new(RwkvqFile { file: file(Box::new(assembled), texts), channels, raw }))
}

/// What the manifest says, held against the buffers.
struct Contents {
    manifest: Manifest,
    tensors: Vec<TensorInfo>,
    parts: Vec<Parts>,
}

impl Contents {
    fn of(source: &SafetensorsSource) -> Result<Self> {
        let manifest = manifest::parse(source.metadata().get(KEY).map(String::as_str).unwrap_or_default())?;
        let (mut tensors, mut parts) = (Vec::new(), Vec::new());
        let mut buffers = Buffers::new(source);
        for (name, entry) in &manifest.tensors.0 {
            let (info, of) = buffers.tensor(name, entry)?;
            tensors.push(info);
            parts.push(of);
        }
        buffers.finish()?;
        manifest.check_sizes(&tensors)?;
        Ok(Self { manifest, tensors, parts })
    }
}

impl Manifest {
    /// The sizes that are said must be those of the tensors that show them.
    fn check_sizes(&self, tensors: &[TensorInfo]) -> Result<()> {
        let shape = |name: &str| tensors.iter().find(|info| info.name == name).map(|info| info.shape.as_slice());
        let (embedding, bonus) = (shape("emb.weight"), shape("blocks.0.att.r_k"));
        let layer = |info: &TensorInfo| info.name.strip_prefix("blocks.")?.split_once('.')?.0.parse::<u64>().ok();
        let layers = tensors.iter().filter_map(layer).max().map(|last| last.saturating_add(1));
        let found = [
            ("n_layer", self.n_layer, layers),
            ("vocab_size", self.vocab_size, embedding.and_then(|shape| shape.first().copied())),
            ("n_embd", self.n_embd, embedding.and_then(|shape| shape.last().copied())),
            ("head_size", self.head_size, bonus.and_then(|shape| shape.last().copied())),
        ];
        match found.into_iter().find_map(|(key, said, found)| Some((key, said, found.filter(|found| *found != said)?))) {
            None => Ok(()),
            Some((key, said, found)) => {
                refuse(Refusal::BadManifest, format!("the manifest says that {key} is {said}; by its tensors it is {found}"))
            }
        }
    }

    /// What the file says besides tensors.
    fn texts(&self, source: &SafetensorsSource) -> Vec<(String, String)> {
        let own = [("rwkvq.tokenizer", &self.tokenizer), ("rwkvq.config_repr", &self.config_repr)];
        let own = own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone().filter(|value| !value.is_empty())?)));
        let others = source.metadata().iter().filter(|(key, _)| *key != KEY).map(|(key, value)| (key.clone(), value.clone()));
        own.chain(others).collect()
    }
}

/// Sizes of what is read in short pieces are no sizes of the file.
fn note(tensors: &[TensorInfo]) -> Option<String> {
    let short = [ASYM_8.encoding(), RTN.encoding()];
    let names: Vec<&str> = tensors.iter().filter(|info| short.contains(&info.encoding)).map(|info| info.name.as_str()).collect();
    let more = names.len().saturating_sub(SHOWN);
    let listed = names.iter().take(SHOWN).map(|name| format!("`{}`", shorten(name))).collect::<Vec<_>>().join(", ");
    let listed = if more > 0 { format!("{listed} and {more} more") } else { listed };
    (!names.is_empty()).then(|| {
        format!(
            "{listed}: rows that end within a group, or outliers; read in pieces of 8 weights, with sizes that are larger than those in the file"
        )
    })
}

impl Wrapper for RwkvqFile {
    fn wrapped(&self) -> &dyn TensorSource {
        &self.file
    }
}

impl ModelFile for RwkvqFile {
    fn mapped(&self) -> std::result::Result<Vec<MappedTensor>, BoxError> {
        let mut mapped = self.file.mapped()?;
        for tensor in &mut mapped {
            let Some(inputs_first) = factor(&tensor.name) else { continue };
            let info = self.tensors().get(tensor.source_index);
            let raw = self.raw.get(tensor.source_index).copied().flatten();
            let Some((info, channels)) = info.zip(self.channels) else { continue };
            let [rows, columns] = info.shape.as_slice() else { continue };
            // Inputs of the first factor and outputs of the second are the channels. Where both sides are, only the file knows.
            let (channels_first, channels_last) = (*rows == channels, *columns == channels);
            let turned = match (channels_first, channels_last) {
                (true, true) | (false, false) => raw == Some(false),
                (true, false) => !inputs_first,
                (false, true) => inputs_first,
            };
            if raw == Some(true) && turned {
                let what = format!(
                    "tensor `{}` {} is said to be transposed, that is [inputs, outputs]; its shape says that it is not",
                    info.name,
                    format_shape(&info.shape)
                );
                return Err(CheckpointError::refused(Refusal::BadManifest, what).in_file(self.path()).into());
            }
            tensor.recover = if turned { Recover::TRANSPOSED } else { Recover::AS_IS };
        }
        Ok(mapped)
    }
    fn configuration(&self) -> std::result::Result<Configuration, BoxError> {
        self.file.configuration()
    }
}

impl Opened for RwkvqFile {
    fn words(&self, model: &ModelDescription) -> std::result::Result<Words, BoxError> {
        self.file.words(model)
    }
    fn lints(&self) -> Vec<Lint> {
        self.file.lints()
    }
}

/// Whether a tensor of this name is the first factor of a low-rank pair of RWKV-7, or the second.
fn factor(name: &str) -> Option<bool> {
    let (_, suffix) = name.strip_prefix("blocks.")?.split_once('.')?;
    match suffix {
        "att.w1" | "att.a1" | "att.v1" | "att.g1" => Some(true),
        "att.w2" | "att.a2" | "att.v2" | "att.g2" => Some(false),
        _ => None,
    }
}
