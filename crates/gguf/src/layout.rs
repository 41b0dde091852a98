//! Lays out a GGUF file before a byte is written. Start at [`layout`].

use std::collections::BTreeMap;

use rwkv_forge_container::{Value, Words};
use rwkv_forge_model::{
    Assembly, Choice, Constraint, FileLayout, ModelDescription, Norm, OutputTensor, TensorRole, TensorSpec, TensorUse, TimeMix, Version,
};
use rwkv_forge_tensor::{Encoding, TensorInfo};

use crate::error::GgufError;
use crate::header::{NAME_BYTES, byte_len, padded};
use crate::map::{self, Arrangement, Entry, Row};
use crate::split::{self, MAX_PARTS, part_suffix};
use crate::types;
use crate::words;
use crate::write::HeaderWriter;

/// Bytes to which tensors are aligned; the format's default, so that no key is needed.
pub(crate) const ALIGNMENT: u64 = 32;

/// Whether GGUF has a place for models of this version.
///
/// # Errors
/// [`GgufError::CannotCarry`] for RWKV-4 and RWKV-5.
pub fn can_carry(version: Version) -> Result<(), GgufError> {
    map::row(version).map(|_| ())
}

/// What a GGUF file can hold for one canonical tensor of a model.
#[must_use]
pub fn constraint(version: Version, spec: &TensorSpec) -> Constraint {
    let row = map::row(version);
    match spec.role.tensor_use() {
        TensorUse::RowByToken | TensorUse::Linear => Constraint::Any,
        TensorUse::Factor if [TensorRole::DecayLora, TensorRole::TokenShiftLora].contains(&spec.role) => {
            Constraint::F32UnlessAsked(row.map_or("no gguf file holds this architecture", |row| row.decay_factors))
        }
        TensorUse::Factor => Constraint::FloatUnlessAsked("low-rank factors of gguf files are f32, f16 or bf16"),
        TensorUse::Vector => Constraint::F32Only("gguf files hold norms, mixes and other vectors in f32"),
    }
}

/// Lays out the whole file: header bytes, place of every tensor, and the places of values that are known only when the
/// data has been written. `choices` has one encoding for each of `model.tensors`; `words` have the vocabulary of the model's family.
///
/// Late values, where the words have a provenance, all under the prefix `rwkv_forge.` in the file: `source.sha256` and `verify.text_sha256` (texts of 64
/// bytes), `verify.status` (8 bytes: `pending`, `verified` or `skipped`, filled up with spaces), `verify.positions`
/// (u32), `verify.kl_mean`, `verify.kl_max`, `verify.top1`, `verify.max_abs`, `verify.rms_ratio` (f64), `verify.kl_interval` (96 bytes, filled up
/// with spaces: both ends, or why there are none).
///
/// ```
/// use rwkv_forge_container::{Sourced, Words};
/// use rwkv_forge_gguf::{constraint, layout};
/// use rwkv_forge_model::{Choice, Constraint};
/// use rwkv_forge_tensor::Encoding;
/// use rwkv_forge_tokenizer::Tokenizer;
///
/// # use rwkv_forge_testkit::models::{Sizes, random_model};
/// # let checkpoint = random_model(rwkv_forge_model::Version::V7, &Sizes { vocabulary: 300, ..Sizes::TINY }, 1);
/// # let model = rwkv_forge_model::describe(rwkv_forge_tensor::TensorSource::tensors(&checkpoint))?;
/// // 16 bits wherever the runtime reads them.
/// let choices = model.tensors.iter().map(|spec| match constraint(model.version, spec) {
///     Constraint::F32Only(why) | Constraint::F32UnlessAsked(why) => Choice { encoding: Encoding::F32, reason: why.to_owned() },
///     _ => Choice { encoding: Encoding::F16, reason: "a wish".to_owned() },
/// });
/// let words = Words::world(Sourced::option("--vocab", Tokenizer::raw_bytes()));
/// let file = layout(&model, &choices.collect::<Vec<_>>(), &words)?;
///
/// // The whole file is known, and no tensor was read.
/// assert!(file.header.starts_with(b"GGUF"));
/// let head = file.tensors.iter().find(|tensor| tensor.name == "output.weight").expect("a head");
/// assert_eq!((head.encoding, head.bytes), (Encoding::F16, 300 * 32 * 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`GgufError::CannotCarry`], [`GgufError::EncodingNotAllowed`], [`GgufError::BlockLength`],
/// [`GgufError::VocabularyMismatch`], [`GgufError::NameTooLong`].
pub fn layout(model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<FileLayout, GgufError> {
    let (header, tensors) = composed(model, choices, words)?;
    placed(header, tensors)
}

/// Lays the same out in several files, each with the end of its name ([`part_suffix`]): as many tensors a part as fit into `bytes`, padding
/// counted, headers not; a tensor that is larger stands alone. The first part has the metadata and all late values. The parts are those of
/// llama.cpp's gguf-split.
///
/// # Errors
/// As [`layout`], and [`GgufError::PartsTooSmall`].
pub fn layout_in_parts(
    model: &ModelDescription,
    choices: &[Choice],
    words: &Words,
    bytes: u64,
) -> Result<Vec<(String, FileLayout)>, GgufError> {
    let (header, tensors) = composed(model, choices, words)?;
    let all = i32::try_from(tensors.len()).map_err(|_| too_large())?;
    let parts = grouped(tensors, bytes)?;
    let count = u16::try_from(parts.len()).ok().filter(|count| u64::from(*count) <= MAX_PARTS);
    let Some(count) = count else {
        let total = parts.iter().flatten().map(|tensor| tensor.bytes.saturating_add(ALIGNMENT)).fold(0, u64::saturating_add);
        // Two parts that follow each other have more than `bytes` together.
        let least = total.div_ceil(MAX_PARTS).saturating_mul(2);
        return Err(GgufError::PartsTooSmall { bytes, parts: parts.len(), most: MAX_PARTS, least });
    };
    let mut header = Some(header);
    let part = |(number, tensors): (u16, Vec<OutputTensor>)| {
        let mut header = header.take().unwrap_or_default();
        // In gguf-split's order.
        header.value(split::NUMBER, &Value::U16(number));
        header.value(split::TENSORS, &Value::I32(all));
        header.value(split::COUNT, &Value::U16(count));
        Ok((part_suffix(u64::from(number).saturating_add(1), u64::from(count)), placed(header, tensors)?))
    };
    (0..count).zip(parts).map(part).collect()
}

/// The tensors of each part.
fn grouped(tensors: Vec<OutputTensor>, bytes: u64) -> Result<Vec<Vec<OutputTensor>>, GgufError> {
    let mut parts: Vec<Vec<OutputTensor>> = Vec::new();
    let mut filled = 0u64;
    for tensor in tensors {
        let size = padded(tensor.bytes, ALIGNMENT, &tensor.name)?;
        filled = add(filled, size)?;
        match parts.last_mut() {
            Some(part) if filled <= bytes => part.push(tensor),
            _ => {
                filled = size;
                parts.push(vec![tensor]);
            }
        }
    }
    Ok(parts)
}

/// The header but for the list of tensors, and the tensors without their places.
fn composed(model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<(HeaderWriter, Vec<OutputTensor>), GgufError> {
    can_carry(model.version)?;
    if choices.len() != model.tensors.len() {
        return Err(GgufError::Internal(format!("{} encodings were chosen for {} tensors", choices.len(), model.tensors.len())));
    }
    for (spec, choice) in model.tensors.iter().zip(choices) {
        check_choice(model.version, spec, choice)?;
    }
    let row = map::row(model.version)?;
    let tensors = Assembler::new(row, model, choices).all()?;
    let mut header = HeaderWriter::default();
    write_general(&mut header, row, model, choices, words);
    write_architecture(&mut header, row, model, words)?;
    words::write(&mut header, model, row.name, words)?;
    Ok((header, tensors))
}

/// Gives every tensor its place, and the header the list of them.
fn placed(mut header: HeaderWriter, mut tensors: Vec<OutputTensor>) -> Result<FileLayout, GgufError> {
    let mut relative = 0u64;
    for tensor in &mut tensors {
        let info = TensorInfo { name: tensor.name.clone(), shape: tensor.shape.clone(), encoding: tensor.encoding };
        let number = types::number(tensor.encoding).ok_or_else(|| not_allowed(&tensor.name, tensor.encoding, "it has no type number"))?;
        header.tensor(&info, number, relative);
        tensor.offset = relative;
        relative = add(relative, padded(tensor.bytes, ALIGNMENT, &tensor.name)?)?;
    }
    let (header, patches) = header.finish(usize::try_from(ALIGNMENT).unwrap_or(32));
    let data_start = u64::try_from(header.len()).map_err(|_| too_large())?;
    for tensor in &mut tensors {
        tensor.offset = add(tensor.offset, data_start)?;
    }
    Ok(FileLayout { header, tensors, total_bytes: add(data_start, relative)?, patches, ..FileLayout::default() })
}

fn too_large() -> GgufError {
    GgufError::Internal("the file would exceed 64 bits".into())
}

pub(crate) fn add(a: u64, b: u64) -> Result<u64, GgufError> {
    a.checked_add(b).ok_or_else(too_large)
}

fn not_allowed(tensor: &str, encoding: Encoding, why: &str) -> GgufError {
    GgufError::EncodingNotAllowed { tensor: tensor.into(), encoding: encoding.name, why: why.into() }
}

fn check_choice(version: Version, spec: &TensorSpec, choice: &Choice) -> Result<(), GgufError> {
    let encoding = choice.encoding;
    match constraint(version, spec).refuses(encoding) {
        Some(why) => Err(not_allowed(&spec.name, encoding, why)),
        None if !types::holds(encoding) => Err(not_allowed(&spec.name, encoding, "GGUF has no such type")),
        None => Ok(()),
    }
}

/// Makes the list of stored tensors.
struct Assembler<'a> {
    row: &'static Row,
    model: &'a ModelDescription,
    choices: &'a [Choice],
    by_name: BTreeMap<&'a str, usize>,
}

impl<'a> Assembler<'a> {
    fn new(row: &'static Row, model: &'a ModelDescription, choices: &'a [Choice]) -> Self {
        let by_name = model.tensors.iter().enumerate().map(|(index, spec)| (spec.name.as_str(), index)).collect();
        Self { row, model, choices, by_name }
    }

    /// Tensors outside of layers first, then the layers, each in the order of the table.
    fn all(&self) -> Result<Vec<OutputTensor>, GgufError> {
        let mut out = Vec::new();
        for entry in self.row.global {
            out.push(self.one(entry, entry.stored.to_owned(), |name| name.to_owned())?);
        }
        for layer in 0..self.model.hyperparameters.layers {
            for entry in self.row.layer.iter().filter(|entry| self.is_there(layer, entry)) {
                let stored = format!("blk.{layer}.{}", entry.stored);
                out.push(self.one(entry, stored, |name| format!("blocks.{layer}.{}", self.stand_in(layer, name)))?);
            }
        }
        self.check_complete(&out)?;
        Ok(out)
    }

    /// False for what this model does not have, as it may; where models have it all, everything is asked for.
    fn is_there(&self, layer: usize, entry: &Entry) -> bool {
        let has = |name: &&str| self.by_name.contains_key(format!("blocks.{layer}.{}", self.stand_in(layer, name)).as_str());
        !self.row.optional || entry.canonical.iter().any(has)
    }

    fn stand_in<'n>(&self, layer: usize, name: &'n str) -> &'n str {
        if layer > 0 {
            return name;
        }
        self.row.stand_ins.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| *to)
    }

    fn one(&self, entry: &Entry, stored: String, canonical: impl Fn(&str) -> String) -> Result<OutputTensor, GgufError> {
        let name_bytes = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        if name_bytes > NAME_BYTES {
            return Err(GgufError::NameTooLong { bytes: name_bytes, name: stored });
        }
        let mut parts = Vec::new();
        for (position, name) in entry.canonical.iter().enumerate() {
            let name = canonical(name);
            let is_last = position.saturating_add(1) == entry.canonical.len();
            if entry.arrangement == Arrangement::StackOrLess && is_last && !self.by_name.contains_key(name.as_str()) {
                continue;
            }
            parts.push(*self.by_name.get(name.as_str()).ok_or(GgufError::MissingTensor { name })?);
        }
        let missing = || GgufError::Internal(format!("{stored} is made of nothing"));
        let first = *parts.first().ok_or_else(missing)?;
        let spec = self.model.tensors.get(first).ok_or_else(missing)?;
        let choice = self.choices.get(first).ok_or_else(missing)?;
        let differs = |part: &usize| self.choices.get(*part).map(|other| other.encoding) != Some(choice.encoding);
        if parts.iter().any(differs) {
            return Err(not_allowed(&spec.name, choice.encoding, "the tensors stored together in one must have one type"));
        }
        let shape = stored_shape(entry.arrangement, &spec.shape, parts.len())?;
        let info = TensorInfo { name: stored.clone(), shape: shape.clone(), encoding: choice.encoding };
        let bytes = byte_len(&info)?;
        Ok(OutputTensor {
            name: stored,
            shape,
            encoding: choice.encoding,
            reason: choice.reason.clone(),
            offset: 0,
            bytes,
            assembly: Assembly { transposed: entry.arrangement.is_transposed(), ..Assembly::stack(parts) },
            planes: Vec::new(),
        })
    }

    /// Nothing of the model may be left out.
    fn check_complete(&self, out: &[OutputTensor]) -> Result<(), GgufError> {
        let mut used = vec![false; self.model.tensors.len()];
        for part in out.iter().flat_map(|tensor| &tensor.assembly.parts) {
            if let Some(flag) = used.get_mut(*part) {
                *flag = true;
            }
        }
        match self.model.tensors.iter().zip(used).find(|(_, used)| !used) {
            None => Ok(()),
            Some((spec, _)) => Err(GgufError::UnknownTensor { name: spec.name.clone(), architecture: self.model.version.to_string() }),
        }
    }
}

fn stored_shape(arrangement: Arrangement, shape: &[u64], parts: usize) -> Result<Vec<u64>, GgufError> {
    let elements = rwkv_forge_tensor::element_count(shape).map_err(|_| too_large())?;
    Ok(match (arrangement, shape) {
        (Arrangement::Same, _) => shape.to_vec(),
        (Arrangement::Flat, _) => vec![elements],
        (Arrangement::Stack | Arrangement::StackOrLess, _) => vec![u64::try_from(parts).map_err(|_| too_large())?, 1, 1, elements],
        (Arrangement::Below, [rows, columns]) => {
            let parts = u64::try_from(parts).map_err(|_| too_large())?;
            vec![columns.checked_mul(parts).ok_or_else(too_large)?, *rows]
        }
        (Arrangement::Planes, [rows, columns]) => vec![u64::try_from(parts).map_err(|_| too_large())?, *columns, *rows],
        (Arrangement::Transposed, [outer @ .., rows, columns]) => [outer, &[*columns, *rows]].concat(),
        (Arrangement::Transposed | Arrangement::Below | Arrangement::Planes, _) => {
            return Err(GgufError::Internal("only matrices can be transposed".into()));
        }
    })
}

/// The encoding of most elements of the layers' matrices; the first of equals.
fn main_encoding(model: &ModelDescription, choices: &[Choice]) -> Encoding {
    let mut totals: Vec<(Encoding, u64)> = Vec::new();
    for (spec, choice) in model.tensors.iter().zip(choices).filter(|(spec, _)| spec.role.is_matrix() && spec.layer.is_some()) {
        let elements = rwkv_forge_tensor::element_count(&spec.shape).unwrap_or(0);
        match totals.iter_mut().find(|(encoding, _)| *encoding == choice.encoding) {
            Some((_, total)) => *total = total.saturating_add(elements),
            None => totals.push((choice.encoding, elements)),
        }
    }
    let most = totals.iter().map(|(_, total)| *total).max();
    totals.iter().find(|(_, total)| Some(*total) == most).map_or(Encoding::F32, |(encoding, _)| *encoding)
}

/// `191M`, `1.5B`: at least two digits, as the naming convention of GGUF files has it.
fn size_label(parameters: u64) -> String {
    let scales = [(1_000_000_000_000u64, 'T'), (1_000_000_000, 'B'), (1_000_000, 'M')];
    let (unit, letter) = scales.into_iter().find(|(unit, _)| parameters >= *unit).unwrap_or((1_000, 'K'));
    let tenth = unit.checked_div(10).unwrap_or(1);
    let half = tenth.checked_div(2).unwrap_or(0);
    let tenths = parameters.saturating_add(half).checked_div(tenth).unwrap_or(0);
    if tenths >= 100 {
        let half = unit.checked_div(2).unwrap_or(0);
        return format!("{}{letter}", parameters.saturating_add(half).checked_div(unit).unwrap_or(0));
    }
    format!("{}.{}{letter}", tenths.checked_div(10).unwrap_or(0), tenths.checked_rem(10).unwrap_or(0))
}

fn write_general(header: &mut HeaderWriter, row: &Row, model: &ModelDescription, choices: &[Choice], words: &Words) {
    let label = size_label(model.parameters());
    header.text("general.architecture", row.name);
    header.text("general.type", "model");
    let name = words.name.as_ref().map_or_else(|| format!("{} {label}", model.version), |name| name.value.clone());
    header.text(words::NAME, &name);
    for (key, word) in [(words::AUTHOR, &words.author), (words::LICENCE, &words.licence)] {
        if let Some(word) = word {
            header.text(key, &word.value);
        }
    }
    if !words.other.iter().any(|(key, _)| key == words::SIZE_LABEL) {
        header.text(words::SIZE_LABEL, &label);
    }
    let preset = words.provenance.as_ref().and_then(|provenance| provenance.file_type);
    if let Some(number) = preset.or_else(|| types::file_type(main_encoding(model, choices))) {
        header.u32("general.file_type", number);
    }
    header.u32("general.quantization_version", 2);
}

fn write_architecture(header: &mut HeaderWriter, row: &Row, model: &ModelDescription, words: &Words) -> Result<(), GgufError> {
    let architecture = row.name;
    let sizes = &model.hyperparameters;
    let mut number = |name: &str, value: usize| -> Result<(), GgufError> {
        let value = u32::try_from(value).map_err(|_| too_large())?;
        header.u32(&format!("{architecture}.{name}"), value);
        Ok(())
    };
    number("embedding_length", sizes.channels)?;
    number("block_count", sizes.layers)?;
    number("feed_forward_length", sizes.ffn)?;
    number("wkv.head_size", sizes.head_size)?;
    // Loaders ask for the key; there is no attention to count heads of.
    number("attention.head_count", 0)?;
    number("token_shift_count", model.mechanisms.token_shifts())?;
    if let Some(kv_heads) = sizes.kv_heads {
        number("attention.head_count_kv", kv_heads)?;
    }
    match model.mechanisms.time_mix {
        TimeMix::Wkv6 { mix, decay } | TimeMix::Qrwkv6 { mix, decay, .. } => {
            number("time_mix_extra_dim", mix)?;
            number("time_decay_extra_dim", decay)?;
            number("rescale_every_n_layers", 0)?;
        }
        TimeMix::Wkv7 { decay, iclr, value, gate } => {
            number("attention.decay_lora_rank", decay)?;
            number("attention.iclr_lora_rank", iclr)?;
            number("attention.value_residual_mix_lora_rank", value.unwrap_or(0))?;
            number("attention.gate_lora_rank", gate.unwrap_or(0))?;
        }
        TimeMix::Wkv4 | TimeMix::Wkv5 { .. } => return Err(GgufError::CannotCarry { version: model.version.to_string() }),
    }
    let length = u32::try_from(words::context(words).value);
    header.u32(&words::context_key(architecture), length.map_err(|_| GgufError::Internal("a context is longer than a u32".to_owned()))?);
    match model.mechanisms.norms.kind {
        Norm::Rms { epsilon } => header.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), epsilon.value()),
        Norm::Layer => header.f32(&format!("{architecture}.attention.layer_norm_epsilon"), 1e-5),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::size_label;

    #[test]
    fn size_labels_have_two_digits() {
        let cases = [(802_432, "802K"), (7_560_000_000, "7.6B"), (45_600_768, "46M"), (191_084_544, "191M"), (1_527_404_544, "1.5B")];
        for (parameters, label) in cases {
            assert_eq!(size_label(parameters), label);
        }
    }
}
