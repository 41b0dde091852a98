//! The layout of a new prefab. Start at [`layout`].

use std::collections::BTreeMap;

use rwkv_forge_model::{
    Assembly, Choice, Constraint, FileLayout, ModelDescription, OutputTensor, Plane, TensorRole, TensorSpec, TensorUse, TimeMix, ValueForm,
    Version,
};
use rwkv_forge_quant::{Int8, NF4, NF4_TABLE, SF4, SF4_TABLE};
use rwkv_forge_tensor::Encoding;

use super::schema::{self, Field, Kind, Schema};
use super::{FLOAT4_PARTS, INT8_PARTS, Parts};
use crate::cbor;
use crate::check_sizes;
use crate::error::WebRwkvError;
use crate::st::bonus_form;

/// Layers after which web-rwkv sends its commands to the GPU: its own default.
const SEP: u64 = 1024;

/// Rows of embedding and head are padded to a multiple of this.
const ROWS: u64 = 8;

/// Whether a prefab has a place for matrices of this encoding.
#[must_use]
pub fn holds(encoding: Encoding) -> bool {
    super::TYPES.contains(&encoding.name)
}

/// What a prefab can hold for one tensor.
#[must_use]
pub fn constraint(version: Version, spec: &TensorSpec) -> Constraint {
    let field = schema::row(version).ok().and_then(|row| row.schema.field(spec.suffix()));
    let wide = field.is_some_and(|field| matches!(field.kind, Kind::Wide(_)));
    if wide {
        return Constraint::F32Only("web-rwkv holds it in f32");
    }
    match spec.role.tensor_use() {
        TensorUse::RowByToken | TensorUse::Linear if [TensorRole::Embedding, TensorRole::Head].contains(&spec.role) => {
            Constraint::Float("web-rwkv holds embedding and head in f16")
        }
        TensorUse::RowByToken | TensorUse::Linear => Constraint::Any,
        TensorUse::Factor | TensorUse::Vector => Constraint::Float("web-rwkv holds vectors and low-rank factors in f16"),
    }
}

/// Lays out a prefab.
///
/// ```
/// use rwkv_forge_model::{Choice, Constraint};
/// use rwkv_forge_tensor::Encoding;
/// use rwkv_forge_web_rwkv::{is_prefab, prefab};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = rwkv_forge_model::describe(rwkv_forge_tensor::TensorSource::tensors(&checkpoint))?;
/// let choices = model.tensors.iter().map(|spec| match prefab::constraint(model.version, spec) {
///     Constraint::F32Only(why) => Choice { encoding: Encoding::F32, reason: why.to_owned() },
///     _ => Choice { encoding: Encoding::F16, reason: "a wish".to_owned() },
/// });
/// let file = prefab::layout(&model, &choices.collect::<Vec<_>>())?;
///
/// // The whole file is known, and no tensor was read.
/// assert!(is_prefab(&file.header));
/// let parts: u64 = file.tensors.iter().map(|tensor| tensor.bytes).sum();
/// let between: usize = file.literals.iter().map(|(_, bytes)| bytes.len()).sum();
/// assert_eq!(file.total_bytes, parts + (file.header.len() + between) as u64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`WebRwkvError::CannotCarry`] for models that web-rwkv does not compute, [`WebRwkvError::EncodingNotAllowed`] for encodings
/// that it does not know, or not for this tensor.
pub fn layout(model: &ModelDescription, choices: &[Choice]) -> Result<FileLayout, WebRwkvError> {
    let schema = schema::row(model.version)?.schema;
    check_sizes(model.version, &model.hyperparameters)?;
    let index = model.tensors.iter().enumerate().map(|(index, spec)| (spec.name.as_str(), index)).collect();
    let mut writer = Writer {
        model,
        choices,
        schema,
        index,
        rescale: rescale(schema, model),
        chunks: Vec::new(),
        chunk: Vec::new(),
        start: 0,
        tensors: Vec::new(),
    };
    writer.model()?;
    writer.finish()
}

/// The runtime's own default, unless that would halve something in a model for which it means never.
fn rescale(schema: &Schema, model: &ModelDescription) -> u64 {
    let layers = model.hyperparameters.layers as u64;
    if schema.rescales_never { schema.rescale.max(layers.saturating_add(1)) } else { schema.rescale }
}

fn int8() -> Encoding {
    rwkv_forge_quant::BlockFormat::encoding(&Int8)
}

/// The table of a four-bit encoding.
pub(crate) fn table_of(encoding: Encoding) -> Option<&'static [f32; 16]> {
    if encoding == rwkv_forge_quant::BlockFormat::encoding(&NF4) {
        Some(&NF4_TABLE)
    } else if encoding == rwkv_forge_quant::BlockFormat::encoding(&SF4) {
        Some(&SF4_TABLE)
    } else {
        None
    }
}

struct Writer<'a> {
    model: &'a ModelDescription,
    choices: &'a [Choice],
    schema: &'static Schema,
    index: BTreeMap<&'a str, usize>,
    rescale: u64,
    /// Bytes between tensors, with their offsets.
    chunks: Vec<(u64, Vec<u8>)>,
    /// The bytes after the last tensor.
    chunk: Vec<u8>,
    /// Offset of `chunk`.
    start: u64,
    tensors: Vec<OutputTensor>,
}

/// A tensor on its way: what it is made of, and how it is stored.
struct Item {
    name: String,
    /// PyTorch's order.
    shape: Vec<u64>,
    /// Fastest first.
    dims: [u64; 4],
    encoding: Encoding,
    reason: String,
    assembly: Assembly,
}

impl Writer<'_> {
    fn model(&mut self) -> Result<(), WebRwkvError> {
        let sizes = self.model.hyperparameters;
        let out = &mut self.chunk;
        cbor::map(out, 5);
        cbor::text(out, "context");
        cbor::array(out, 0);
        cbor::text(out, "info");
        info(out, self.schema, self.model)?;
        cbor::text(out, "rescale");
        cbor::unsigned(out, self.rescale);
        cbor::text(out, "sep");
        cbor::unsigned(out, SEP);
        cbor::text(out, "tensor");
        cbor::map(out, 3);
        // `embed` and `head` are entries of the map that the array of layers closes.
        self.entries(&paths(self.schema.outer), None)?;
        cbor::text(&mut self.chunk, "layers");
        cbor::array(&mut self.chunk, sizes.layers as u64);
        for layer in 0..sizes.layers {
            self.group(&paths(self.schema.layer), Some(layer))?;
        }
        Ok(())
    }

    /// A map with these fields.
    fn group(&mut self, fields: &[(&str, &'static Field)], layer: Option<usize>) -> Result<(), WebRwkvError> {
        cbor::map(&mut self.chunk, by_key(fields).len() as u64);
        self.entries(fields, layer)
    }

    /// The entries of a map, without its head.
    fn entries(&mut self, fields: &[(&str, &'static Field)], layer: Option<usize>) -> Result<(), WebRwkvError> {
        for (key, members) in by_key(fields) {
            cbor::text(&mut self.chunk, key);
            match members.as_slice() {
                [("", field)] => self.field(field, layer)?,
                members => self.group(members, layer)?,
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, layer: Option<usize>) -> Result<(), WebRwkvError> {
        let item = self.item(field, layer)?;
        let encoding = item.encoding;
        match field.kind {
            Kind::Vector | Kind::Heads | Kind::Stack | Kind::Embedding if encoding == Encoding::F16 => self.dense(item),
            Kind::Wide(_) if encoding == Encoding::F32 => self.dense(item),
            Kind::Factor | Kind::Head | Kind::Matrix | Kind::Rescaled if encoding == Encoding::F16 => {
                self.variant("Fp16");
                self.dense(item)
            }
            Kind::Matrix | Kind::Rescaled if encoding == int8() => {
                self.variant("Int8");
                cbor::map(&mut self.chunk, 2);
                // A minimum and a maximum each.
                self.blocks(item, &INT8_PARTS, 1, 2)
            }
            Kind::Matrix | Kind::Rescaled => {
                let Some(table) = table_of(encoding) else { return Err(not_allowed(&item, "web-rwkv knows f16, int8, nf4 and sf4")) };
                self.variant("Fp4");
                cbor::map(&mut self.chunk, 3);
                cbor::text(&mut self.chunk, "q");
                tensor_head(&mut self.chunk, [16, 1, 1, 1], 64);
                self.chunk.extend(table.iter().flat_map(|value| value.to_le_bytes()));
                self.blocks(item, &FLOAT4_PARTS, 2, 1)
            }
            Kind::Wide(_) => Err(not_allowed(&item, "web-rwkv holds it in f32")),
            Kind::Vector | Kind::Heads | Kind::Stack | Kind::Embedding | Kind::Factor | Kind::Head => {
                Err(not_allowed(&item, "web-rwkv holds it in f16"))
            }
        }
    }

    /// Which canonical tensors a field is made of, how, and with what shape.
    fn item(&self, field: &Field, layer: Option<usize>) -> Result<Item, WebRwkvError> {
        let parts = field.canonical.iter().map(|name| self.find(name, layer)).collect::<Result<Vec<_>, _>>()?;
        let first = parts.first().copied().unwrap_or(0);
        let (Some(spec), Some(choice)) = (self.model.tensors.get(first), self.choices.get(first)) else {
            return Err(WebRwkvError::Internal(format!("there is no choice for {}", field.path)));
        };
        let sizes = &self.model.hyperparameters;
        let (channels, heads, head_size) = (sizes.channels as u64, sizes.heads as u64, sizes.head_size as u64);
        let mut shape = spec.shape.clone();
        let count = parts.len() as u64;
        let mut assembly = Assembly::stack(parts);
        match field.kind {
            Kind::Vector => shape = vec![channels],
            Kind::Wide(form) => {
                shape = vec![channels];
                let repeat = if self.model.is_per_head(spec) { sizes.head_size } else { 1 };
                let bonus = bonus_form(self.model, spec);
                assembly = assembly.repeated(repeat).with_form(if bonus == ValueForm::Canonical { form } else { bonus });
            }
            Kind::Heads => shape = vec![heads, head_size],
            Kind::Stack => shape = vec![count, 1, channels],
            Kind::Factor => {
                let last = shape.len().saturating_sub(1);
                shape.swap(last.saturating_sub(1), last);
                assembly = assembly.transposed();
            }
            Kind::Matrix => {}
            Kind::Rescaled => assembly = assembly.with_form(halved(layer, self.rescale)),
            Kind::Embedding | Kind::Head => {
                let pad = pad_rows(&mut shape).ok_or_else(|| WebRwkvError::SizeOverflow { tensor: spec.name.clone() })?;
                assembly = assembly.padded(pad);
            }
        }
        let mut dims = [1; 4];
        for (dim, size) in dims.iter_mut().zip(shape.iter().rev()) {
            *dim = *size;
        }
        let name = layer.map_or_else(|| field.path.to_owned(), |layer| format!("layers.{layer}.{}", field.path));
        Ok(Item { name, shape, dims, encoding: choice.encoding, reason: choice.reason.clone(), assembly })
    }

    /// Index of a canonical tensor, or of what stands in for it.
    fn find(&self, canonical: &str, layer: Option<usize>) -> Result<usize, WebRwkvError> {
        let full = |suffix: &str| layer.map_or_else(|| suffix.to_owned(), |layer| format!("blocks.{layer}.{suffix}"));
        let logarithm = (canonical == schema::LOGARITHMIC_BONUS.1).then_some(schema::LOGARITHMIC_BONUS.0);
        let names = [Some(canonical), logarithm, schema::stand_in(canonical).filter(|_| layer == Some(0))];
        let found = names.into_iter().flatten().find_map(|name| self.index.get(full(name).as_str()).copied());
        found.ok_or_else(|| WebRwkvError::Internal(format!("the description has no {}", full(canonical))))
    }

    /// `{variant: ...`; the value follows.
    fn variant(&mut self, name: &str) {
        cbor::map(&mut self.chunk, 1);
        cbor::text(&mut self.chunk, name);
    }

    /// A tensor whose bytes lie in one place.
    fn dense(&mut self, item: Item) -> Result<(), WebRwkvError> {
        let bytes = byte_len(&item)?;
        tensor_head(&mut self.chunk, item.dims, bytes);
        let offset = self.skip(bytes, &item.name)?;
        self.push(item, offset, bytes, Vec::new());
        Ok(())
    }

    /// `w: codes, m: scales`, the entries of a map that is open. `packed` codes lie in a byte, `scales` numbers belong to a
    /// block.
    fn blocks(&mut self, item: Item, parts: &Parts, packed: u64, scales: u64) -> Result<(), WebRwkvError> {
        byte_len(&item)?;
        let overflow = || WebRwkvError::SizeOverflow { tensor: item.name.clone() };
        let elements: u64 = item.shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim)).ok_or_else(overflow)?;
        let blocks = elements.checked_div(u64::from(item.encoding.block_len)).unwrap_or(0);
        let [width, rows, depth, more] = item.dims;
        let code_bytes = blocks.checked_mul(u64::from(parts.codes.1)).ok_or_else(overflow)?;
        let scale_bytes = blocks.checked_mul(u64::from(parts.scales.1)).ok_or_else(overflow)?;
        let bytes = code_bytes.checked_add(scale_bytes).ok_or_else(overflow)?;
        cbor::text(&mut self.chunk, "w");
        tensor_head(&mut self.chunk, [width.checked_div(packed).unwrap_or(0), rows, depth, more], code_bytes);
        let codes = self.skip(code_bytes, &item.name)?;
        cbor::text(&mut self.chunk, "m");
        tensor_head(&mut self.chunk, [blocks.checked_mul(scales).ok_or_else(overflow)?, 1, 1, 1], scale_bytes);
        let scale = self.skip(scale_bytes, &item.name)?;
        let planes = vec![
            Plane { offset: codes, start: parts.codes.0, bytes: parts.codes.1 },
            Plane { offset: scale, start: parts.scales.0, bytes: parts.scales.1 },
        ];
        self.push(item, codes, bytes, planes);
        Ok(())
    }

    fn push(&mut self, item: Item, offset: u64, bytes: u64, planes: Vec<Plane>) {
        let Item { name, shape, encoding, reason, assembly, .. } = item;
        self.tensors.push(OutputTensor { name, shape, encoding, reason, offset, bytes, assembly, planes });
    }

    /// Leaves room for the bytes of a tensor here; gives their offset.
    fn skip(&mut self, bytes: u64, tensor: &str) -> Result<u64, WebRwkvError> {
        let chunk = std::mem::take(&mut self.chunk);
        let offset = self.start.saturating_add(chunk.len() as u64);
        self.chunks.push((self.start, chunk));
        self.start = offset.checked_add(bytes).ok_or_else(|| WebRwkvError::SizeOverflow { tensor: tensor.to_owned() })?;
        Ok(offset)
    }

    fn finish(mut self) -> Result<FileLayout, WebRwkvError> {
        let total_bytes = self.start.saturating_add(self.chunk.len() as u64);
        self.chunks.push((self.start, self.chunk));
        self.chunks.retain(|(_, bytes)| !bytes.is_empty());
        let mut chunks = self.chunks.into_iter();
        let Some((0, header)) = chunks.next() else {
            return Err(WebRwkvError::Internal("a prefab without a header was planned".to_owned()));
        };
        Ok(FileLayout { header, tensors: self.tensors, total_bytes, literals: chunks.collect(), ..FileLayout::default() })
    }
}

/// Fields with their whole paths, as [`Writer::entries`] wants them.
fn paths(fields: &'static [Field]) -> Vec<(&'static str, &'static Field)> {
    fields.iter().map(|field| (field.path, field)).collect()
}

/// Groups neighbours that have the first component of their paths in common; the rest of each path stays.
fn by_key<'a>(fields: &[(&'a str, &'static Field)]) -> Vec<(&'a str, Vec<(&'a str, &'static Field)>)> {
    let mut groups: Vec<(&str, Vec<(&str, &'static Field)>)> = Vec::new();
    for (path, field) in fields {
        let (key, rest) = path.split_once('.').unwrap_or((path, ""));
        match groups.last_mut() {
            Some((last, members)) if *last == key => members.push((rest, field)),
            _ => groups.push((key, vec![(rest, field)])),
        }
    }
    groups
}

fn info(out: &mut Vec<u8>, schema: &Schema, model: &ModelDescription) -> Result<(), WebRwkvError> {
    let sizes = &model.hyperparameters;
    cbor::map(out, 7);
    cbor::text(out, "version");
    cbor::text(out, schema.name);
    let heads = if schema.has_heads { sizes.heads } else { 1 };
    let numbers = [
        ("num_layer", sizes.layers),
        ("num_emb", sizes.channels),
        ("num_hidden", sizes.ffn),
        ("num_vocab", sizes.vocabulary),
        ("num_head", heads),
    ];
    for (name, value) in numbers {
        cbor::text(out, name);
        cbor::unsigned(out, value as u64);
    }
    cbor::text(out, "custom");
    let time_mix = model.mechanisms.time_mix;
    let ranks = match time_mix {
        TimeMix::Wkv4 | TimeMix::Wkv5 { .. } => Vec::new(),
        TimeMix::Wkv6 { mix, decay } => vec![mix, decay],
        // A model of one layer has no value residual: its stand-in has the rank of what it is a copy of.
        TimeMix::Wkv7 { decay, iclr, value, gate: Some(gate) } => vec![decay, iclr, gate, value.unwrap_or(iclr)],
        TimeMix::Wkv7 { gate: None, .. } | TimeMix::Qrwkv6 { .. } => {
            let why = format!("a prefab has no place for the ranks of {} as this model has it", time_mix.name());
            return Err(WebRwkvError::CannotCarry { version: model.version.to_string(), why });
        }
    };
    if ranks.is_empty() {
        cbor::text(out, "None");
        return Ok(());
    }
    cbor::map(out, 1);
    cbor::text(out, schema.name);
    cbor::map(out, ranks.len() as u64);
    for (named, rank) in schema.ranks.iter().zip(ranks) {
        cbor::text(out, named.name);
        cbor::unsigned(out, rank as u64);
    }
    Ok(())
}

/// `{shape: [...], data: ` and the head of the bytes, which follow.
fn tensor_head(out: &mut Vec<u8>, dims: [u64; 4], bytes: u64) {
    cbor::map(out, 2);
    cbor::text(out, "shape");
    cbor::array(out, 4);
    for dim in dims {
        cbor::unsigned(out, dim);
    }
    cbor::text(out, "data");
    cbor::bytes(out, bytes);
}

/// Rounds the rows up; gives the number of elements that are added.
fn pad_rows(shape: &mut [u64]) -> Option<u64> {
    let [rows, columns] = shape else { return None };
    let padded = rows.checked_next_multiple_of(ROWS)?;
    let pad = padded.checked_sub(*rows)?.checked_mul(*columns)?;
    *rows = padded;
    Some(pad)
}

/// How the output matrices of a layer are stored.
fn halved(layer: Option<usize>, rescale: u64) -> ValueForm {
    match schema::halvings(layer.unwrap_or(0) as u64, rescale) {
        0 => ValueForm::Canonical,
        times => ValueForm::Halved(times),
    }
}

fn byte_len(item: &Item) -> Result<u64, WebRwkvError> {
    item.encoding.byte_len(&item.shape).map_err(|error| match error {
        rwkv_forge_tensor::ShapeError::BlockLength { .. } => not_allowed(item, "its rows are no whole blocks"),
        rwkv_forge_tensor::ShapeError::Overflow => WebRwkvError::SizeOverflow { tensor: item.name.clone() },
    })
}

fn not_allowed(item: &Item, why: &'static str) -> WebRwkvError {
    WebRwkvError::EncodingNotAllowed { tensor: item.name.clone(), encoding: item.encoding.name, why }
}
