//! An opened prefab as a [`TensorSource`]. Start at [`PrefabFile::open`].
//!
//! Tensors are listed as web-rwkv stores them, in PyTorch's order of dimensions, without the rows that only pad. Codes and
//! scales of quantized matrices lie apart in the file; reading puts them together to the blocks that the encodings name.

use std::path::{Path, PathBuf};

use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_model::{MappedTensor, ModelFile, Plane, Recover, ValueForm};
use rwkv_forge_quant::{BlockFormat, Int8, NF4, SF4};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};

use super::fields::{Fields, Raw};
use super::layout::table_of;
use super::schema::{self, Field, Kind, SCHEMAS, Schema};
use super::{FLOAT4_PARTS, INT8_PARTS, MAGIC_BYTES, Parts, is_prefab};
use crate::cbor;
use crate::error::WebRwkvError;

/// A validated prefab. Every listed tensor is there in full.
///
/// ```
/// use rwkv_forge_model::{ModelFile, describe_mapped};
/// use rwkv_forge_tensor::{Encoding, TensorSource};
/// use rwkv_forge_web_rwkv::PrefabFile;
///
/// # use rwkv_forge_model::{Choice, Constraint, Version, describe};
/// # use rwkv_forge_testkit::models::{Sizes, random_model};
/// # use rwkv_forge_web_rwkv::prefab::{constraint, layout};
/// # let model = describe(random_model(Version::V7, &Sizes::TINY, 1).tensors())?;
/// # let choice = |spec: &_| match constraint(model.version, spec) {
/// #     Constraint::F32Only(_) => Choice { encoding: Encoding::F32, reason: String::new() },
/// #     _ => Choice { encoding: Encoding::F16, reason: String::new() },
/// # };
/// # let layout = layout(&model, &model.tensors.iter().map(choice).collect::<Vec<_>>())?;
/// # let mut bytes = layout.header;
/// # bytes.resize(layout.total_bytes as usize, 0);
/// # layout.literals.iter().for_each(|(at, part)| bytes[*at as usize..][..part.len()].copy_from_slice(part));
/// # let path = std::env::temp_dir().join(format!("rwkv-forge-reader-{}.prefab", std::process::id()));
/// # std::fs::write(&path, bytes).unwrap();
/// let file = PrefabFile::open(&path)?;
/// let head = file.tensors().iter().find(|info| info.name.contains("head")).expect("a head");
/// assert_eq!(head.encoding, Encoding::F16);
///
/// // Fields of the CBOR map to the names of checkpoints: the model goes through the same checks as any other.
/// let model = describe_mapped(file.tensors(), file.mapped()?)?;
/// assert_eq!((model.version.to_string().as_str(), model.hyperparameters.layers), ("RWKV-7", 2));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub struct PrefabFile {
    path: PathBuf,
    input: InputFile,
    contents: Contents,
}

/// What the CBOR says.
struct Contents {
    sizes: Sizes,
    infos: Vec<TensorInfo>,
    /// Where the parts of each tensor's blocks lie; whole blocks in one place for dense tensors.
    places: Vec<Vec<Plane>>,
    mapped: Vec<MappedTensor>,
}

/// `info`, `rescale` and `sep`.
struct Sizes {
    schema: &'static Schema,
    layers: u64,
    channels: u64,
    hidden: u64,
    vocabulary: u64,
    heads: u64,
    ranks: Vec<u64>,
    rescale: u64,
    sep: u64,
}

/// Bytes of blocks looked at in one step: a multiple of no block, so rounded up for each.
const STEP: u64 = 1 << 20;

/// f16 has nothing left that could have been halved more often.
const MOST_HALVINGS: u8 = 40;

impl PrefabFile {
    /// Opens and validates a file with positioned reads.
    ///
    /// # Errors
    /// The first rule of the format that the file breaks, or a failure to read it.
    pub fn open(path: &Path) -> Result<Self, WebRwkvError> {
        Self::open_with(path, Backend::default())
    }

    /// Opens and validates a file.
    ///
    /// # Errors
    /// As [`PrefabFile::open`].
    pub fn open_with(path: &Path, backend: Backend) -> Result<Self, WebRwkvError> {
        let input = InputFile::open_with(path, backend).map_err(|error| WebRwkvError::Input(Box::new(error)))?;
        let contents = Contents::parse(&input).map_err(|error| error.at(path))?;
        Ok(Self { path: path.to_path_buf(), input, contents })
    }

    fn validate_blocks(&self, index: usize, info: &TensorInfo) -> Result<(), BoxError> {
        let Some(format) = rwkv_forge_quant::by_encoding(info.encoding).filter(|_| !info.encoding.is_dense()) else { return Ok(()) };
        let block = u64::from(info.encoding.block_bytes).max(1);
        let step = STEP.checked_next_multiple_of(block).unwrap_or(block);
        let total = info.byte_len().map_err(|_| WebRwkvError::SizeOverflow { tensor: info.name.clone() })?;
        let (mut done, mut buffer) = (0u64, Vec::new());
        while done < total {
            let size = step.min(total.saturating_sub(done));
            buffer.resize(usize::try_from(size).unwrap_or(0), 0);
            self.read_at(index, done, &mut buffer)?;
            if let Err(bad) = format.validate(&buffer) {
                let before = done.checked_div(block).unwrap_or(0);
                let error = WebRwkvError::BadBlock {
                    tensor: info.name.clone(),
                    block: before.saturating_add(bad as u64),
                    encoding: info.encoding.name,
                };
                return Err(error.at(&self.path).into());
            }
            done = done.saturating_add(size);
        }
        Ok(())
    }
}

impl Contents {
    fn parse(input: &InputFile) -> Result<Self, WebRwkvError> {
        let start = input.len().min(MAGIC_BYTES as u64);
        let start = input.read_vec(0, start, MAGIC_BYTES as u64).map_err(|error| WebRwkvError::Input(Box::new(error)))?;
        if !is_prefab(&start) {
            return Err(WebRwkvError::BadMagic);
        }
        let mut fields = Fields::new(cbor::leaves(input)?);
        fields.empty("context")?;
        let sizes = Sizes::take(&mut fields)?;
        let mut contents = Self { sizes, infos: Vec::new(), places: Vec::new(), mapped: Vec::new() };
        for field in contents.sizes.schema.outer {
            contents.field(&mut fields, input, field, None)?;
        }
        for layer in 0..contents.sizes.layers {
            for field in contents.sizes.schema.layer {
                contents.field(&mut fields, input, field, Some(layer))?;
            }
        }
        if let Some(at) = fields.left_over() {
            return Err(WebRwkvError::UnknownEntry { at: at.to_owned(), version: contents.sizes.schema.version.to_string() });
        }
        contents.check_sizes()?;
        Ok(contents)
    }

    /// Takes one tensor.
    fn field(&mut self, fields: &mut Fields, input: &InputFile, field: &Field, layer: Option<u64>) -> Result<(), WebRwkvError> {
        let name = layer.map_or_else(|| field.path.to_owned(), |layer| format!("layers.{layer}.{}", field.path));
        let path = layer.map_or_else(|| format!("tensor.{}", field.path), |layer| format!("tensor.layers.#{layer}.{}", field.path));
        let place = |raw: Raw, encoding: Encoding| vec![Plane { offset: raw.offset, start: 0, bytes: encoding.block_bytes }];
        let (dims, encoding, places) = match field.kind {
            Kind::Vector | Kind::Heads | Kind::Stack | Kind::Embedding => {
                let raw = fields.tensor(&path, 2)?;
                (raw.dims, Encoding::F16, place(raw, Encoding::F16))
            }
            Kind::Wide(_) => {
                let raw = fields.tensor(&path, 4)?;
                (raw.dims, Encoding::F32, place(raw, Encoding::F32))
            }
            Kind::Factor | Kind::Matrix | Kind::Rescaled | Kind::Head => matrix(fields, input, &path)?,
        };
        let shape =
            self.sizes.shape(field, dims).map_err(|expected| WebRwkvError::BadShape { tensor: name.clone(), found: dims, expected })?;
        let row = shape.last().copied().unwrap_or(0);
        if encoding.row_bytes(row).is_err() {
            return Err(WebRwkvError::BlockLength { tensor: name, row, block: encoding.block_len, encoding: encoding.name });
        }
        self.map(field, layer, &name)?;
        self.infos.push(TensorInfo { name, shape, encoding });
        self.places.push(places);
        Ok(())
    }

    /// The canonical tensors in the one that is listed next.
    fn map(&mut self, field: &Field, layer: Option<u64>, name: &str) -> Result<(), WebRwkvError> {
        let source_index = self.infos.len();
        let of = u32::try_from(field.canonical.len()).unwrap_or(u32::MAX);
        let recover = match field.kind {
            Kind::Factor => Recover::TRANSPOSED,
            Kind::Wide(form) => Recover::AS_IS.with_form(form),
            Kind::Rescaled => match schema::halvings(layer.unwrap_or(0), self.sizes.rescale) {
                0 => Recover::AS_IS,
                times @ 1..=MOST_HALVINGS => Recover::AS_IS.with_form(ValueForm::Halved(times)),
                _ => {
                    let expected = format!("a number of layers that leaves something of {name}");
                    return Err(WebRwkvError::BadValue { at: "rescale".to_owned(), found: self.sizes.rescale.to_string(), expected });
                }
            },
            Kind::Vector | Kind::Heads | Kind::Stack | Kind::Matrix | Kind::Embedding | Kind::Head => Recover::AS_IS,
        };
        for (part, canonical) in (0..of).zip(field.canonical) {
            let name = layer.map_or_else(|| (*canonical).to_owned(), |layer| format!("blocks.{layer}.{canonical}"));
            self.mapped.push(MappedTensor { name, source_index, recover: Recover { part: (part, of), ..recover } });
        }
        Ok(())
    }

    /// Compares the sizes in `info` with those of the tensors: web-rwkv makes its buffers from the former.
    fn check_sizes(&self) -> Result<(), WebRwkvError> {
        let rows = |name: &str| self.infos.iter().find(|info| info.name == name).and_then(|info| info.shape.first().copied());
        let check = |what: &str, said: u64, tensor: &str, times: u64| match rows(tensor) {
            Some(found) if Some(found) != said.checked_mul(times) => Err(WebRwkvError::BadValue {
                at: format!("info.{what}"),
                found: said.to_string(),
                expected: format!("a size that agrees with the {found} rows of {tensor}"),
            }),
            _ => Ok(()),
        };
        check("num_hidden", self.sizes.hidden, "layers.0.ffn.w_k", 1)?;
        let mut ranks = self.sizes.schema.ranks.iter().zip(&self.sizes.ranks);
        ranks.try_for_each(|(named, rank)| check(&format!("custom.{}", named.name), *rank, named.witness.0, named.witness.1))
    }
}

impl Sizes {
    fn take(fields: &mut Fields) -> Result<Self, WebRwkvError> {
        let name = fields.text("info.version")?;
        let Some(schema) = SCHEMAS.into_iter().find(|schema| schema.name == name) else {
            let found = format!("{name:?}");
            return Err(WebRwkvError::BadValue { at: "info.version".to_owned(), found, expected: "V4, V5, V6 or V7".to_owned() });
        };
        let mut number = |name: &str| fields.unsigned(&format!("info.{name}"));
        let (layers, channels, hidden) = (number("num_layer")?, number("num_emb")?, number("num_hidden")?);
        let (vocabulary, heads) = (number("num_vocab")?, number("num_head")?);
        let ranks =
            schema.ranks.iter().map(|rank| fields.unsigned(&format!("info.custom.{name}.{}", rank.name))).collect::<Result<_, _>>()?;
        if schema.ranks.is_empty() {
            let custom = fields.text("info.custom")?;
            if custom != "None" {
                let found = format!("{custom:?}");
                return Err(WebRwkvError::BadValue { at: "info.custom".to_owned(), found, expected: "\"None\"".to_owned() });
            }
        }
        let (rescale, sep) = (fields.unsigned("rescale")?, fields.unsigned("sep")?);
        if rescale == 0 {
            return Err(WebRwkvError::BadValue {
                at: "rescale".to_owned(),
                found: "0".to_owned(),
                expected: "a number of layers".to_owned(),
            });
        }
        Ok(Self { schema, layers, channels, hidden, vocabulary, heads, ranks, rescale, sep })
    }

    /// The shape that a tensor is listed with, in PyTorch's order, or what its dimensions should have been.
    fn shape(&self, field: &Field, dims: [u64; 4]) -> Result<Vec<u64>, String> {
        let channels = self.channels;
        let head_size = channels.checked_div(self.heads).filter(|size| size.checked_mul(self.heads) == Some(channels));
        let count = field.canonical.len() as u64;
        match (field.kind, dims) {
            (Kind::Vector, [found, 1, 1, 1]) if found == channels => Ok(vec![channels]),
            (Kind::Wide(_), [found, 1, 1, 1]) if found == channels => match head_size.filter(|_| self.schema.has_heads) {
                Some(size) => Ok(vec![self.heads, size]),
                None => Ok(vec![channels]),
            },
            (Kind::Heads, [size, heads, 1, 1]) if Some(size) == head_size && heads == self.heads => {
                // The bonus of RWKV-7 is [H, N] in a checkpoint, the group norm is [A].
                if field.canonical == ["att.r_k"] { Ok(vec![heads, size]) } else { Ok(vec![channels]) }
            }
            (Kind::Stack, [found, 1, many, 1]) if found == channels && many == count => Ok(vec![count, channels]),
            (Kind::Factor, [x, y, 1, 1]) => Ok(vec![y, x]),
            (Kind::Factor, [x, y, z, 1]) => Ok(vec![z, y, x]),
            (Kind::Matrix | Kind::Rescaled, [x, y, 1, 1]) => Ok(vec![y, x]),
            (Kind::Embedding | Kind::Head, [x, rows, 1, 1])
                if x == channels && (rows == self.vocabulary || Some(rows) == self.vocabulary.checked_next_multiple_of(8)) =>
            {
                Ok(vec![self.vocabulary, channels])
            }
            _ => Err(self.expected(field.kind, count)),
        }
    }

    fn expected(&self, kind: Kind, count: u64) -> String {
        let Self { channels, heads, vocabulary, .. } = self;
        match kind {
            Kind::Vector | Kind::Wide(_) => format!("[{channels}, 1, 1, 1]"),
            Kind::Heads => format!("[head size, {heads}, 1, 1], {channels} together"),
            Kind::Stack => format!("[{channels}, 1, {count}, 1]"),
            Kind::Factor => "at most three dimensions".to_owned(),
            Kind::Matrix | Kind::Rescaled => "two dimensions".to_owned(),
            Kind::Embedding | Kind::Head => format!("[{channels}, {vocabulary} or the next multiple of 8, 1, 1]"),
        }
    }
}

/// Takes a matrix of any type: its dimensions, its encoding, and where the parts of its blocks lie.
fn matrix(fields: &mut Fields, input: &InputFile, path: &str) -> Result<([u64; 4], Encoding, Vec<Plane>), WebRwkvError> {
    if fields.has(&format!("{path}.Fp16.data")) {
        let raw = fields.tensor(&format!("{path}.Fp16"), 2)?;
        return Ok((raw.dims, Encoding::F16, vec![Plane { offset: raw.offset, start: 0, bytes: 2 }]));
    }
    if fields.has(&format!("{path}.Int8.w.data")) {
        let codes = fields.tensor(&format!("{path}.Int8.w"), 1)?;
        return quantized(fields, &format!("{path}.Int8"), codes, codes.dims, Int8.encoding(), &INT8_PARTS, 2);
    }
    // The name of earlier versions, which web-rwkv still reads.
    for variant in ["Fp4", "Nf4"] {
        if fields.has(&format!("{path}.{variant}.w.data")) {
            let path = format!("{path}.{variant}");
            let encoding = float4(fields, input, &path)?;
            let codes = fields.tensor(&format!("{path}.w"), 1)?;
            let [pairs, rows, depth, more] = codes.dims;
            let width = pairs.checked_mul(2).ok_or_else(|| WebRwkvError::SizeOverflow { tensor: path.clone() })?;
            return quantized(fields, &path, codes, [width, rows, depth, more], encoding, &FLOAT4_PARTS, 1);
        }
    }
    Err(WebRwkvError::MissingEntry { at: format!("{path} as Fp16, Int8 or Fp4") })
}

/// The scales that belong to `codes`: `numbers` f16 for each block.
fn quantized(
    fields: &mut Fields,
    path: &str,
    codes: Raw,
    dims: [u64; 4],
    encoding: Encoding,
    parts: &Parts,
    numbers: u64,
) -> Result<([u64; 4], Encoding, Vec<Plane>), WebRwkvError> {
    let scales = fields.tensor(&format!("{path}.m"), 2)?;
    let elements = dims.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
    let expected = elements.map(|elements| elements.div_ceil(u64::from(encoding.block_len))).and_then(|blocks| blocks.checked_mul(numbers));
    if Some(scales.dims) != expected.map(|expected| [expected, 1, 1, 1]) {
        let expected = expected.map_or_else(|| "fewer elements".to_owned(), |expected| format!("[{expected}, 1, 1, 1]"));
        return Err(WebRwkvError::BadShape { tensor: format!("{path}.m"), found: scales.dims, expected });
    }
    let planes = vec![
        Plane { offset: codes.offset, start: parts.codes.0, bytes: parts.codes.1 },
        Plane { offset: scales.offset, start: parts.scales.0, bytes: parts.scales.1 },
    ];
    Ok((dims, encoding, planes))
}

/// Which table of four-bit values a matrix has.
fn float4(fields: &mut Fields, input: &InputFile, path: &str) -> Result<Encoding, WebRwkvError> {
    let raw = fields.tensor(&format!("{path}.q"), 4)?;
    if raw.dims != [16, 1, 1, 1] {
        return Err(WebRwkvError::BadShape { tensor: format!("{path}.q"), found: raw.dims, expected: "[16, 1, 1, 1]".to_owned() });
    }
    let bytes = input.read_vec(raw.offset, 64, 64).map_err(|error| WebRwkvError::Input(Box::new(error)))?;
    let is = |encoding: &Encoding| {
        table_of(*encoding)
            .is_some_and(|table| table.iter().zip(bytes.as_chunks::<4>().0).all(|(value, stored)| value.to_le_bytes() == *stored))
    };
    [NF4.encoding(), SF4.encoding()].into_iter().find(is).ok_or_else(|| WebRwkvError::UnsupportedType { tensor: path.to_owned() })
}

impl TensorSource for PrefabFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "web-rwkv prefab"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.contents.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let (Some(info), Some(places)) = (self.contents.infos.get(index), self.contents.places.get(index)) else {
            return Err(WebRwkvError::Internal(format!("there is no tensor number {index}")).into());
        };
        let total = info.byte_len().map_err(|_| WebRwkvError::SizeOverflow { tensor: info.name.clone() })?;
        let end = start.checked_add(out.len() as u64).filter(|end| *end <= total);
        let Some(end) = end else {
            let what = format!("bytes {start} and {} more of tensor {:?} are asked for, which has {total}", out.len(), info.name);
            return Err(WebRwkvError::Internal(what).into());
        };
        if let [place] = places.as_slice() {
            return Ok(self.input.read_exact_at(place.offset.saturating_add(start), out)?);
        }
        let block = u64::from(info.encoding.block_bytes).max(1);
        let (first, last) = (start.checked_div(block).unwrap_or(0), end.div_ceil(block));
        let blocks = gather(&self.input, places, first, last, info.encoding)?;
        let skip = usize::try_from(start.saturating_sub(first.saturating_mul(block))).unwrap_or(usize::MAX);
        for (to, from) in out.iter_mut().zip(blocks.iter().skip(skip)) {
            *to = *from;
        }
        Ok(())
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        let digest = self.input.sha256(progress, &mut |_, _| {})?;
        for (index, info) in self.contents.infos.iter().enumerate() {
            self.validate_blocks(index, info)?;
        }
        Ok(vec![digest])
    }

    fn metadata(&self) -> Vec<(String, String)> {
        let sizes = &self.contents.sizes;
        let numbers = [
            ("info.num_layer", sizes.layers),
            ("info.num_emb", sizes.channels),
            ("info.num_hidden", sizes.hidden),
            ("info.num_vocab", sizes.vocabulary),
            ("info.num_head", sizes.heads),
            ("rescale", sizes.rescale),
            ("sep", sizes.sep),
        ];
        let version = ("info.version".to_owned(), sizes.schema.name.to_owned());
        std::iter::once(version).chain(numbers.map(|(name, value)| (name.to_owned(), value.to_string()))).collect()
    }
}

/// Whole blocks `first .. last` from the places of their parts.
fn gather(input: &InputFile, places: &[Plane], first: u64, last: u64, encoding: Encoding) -> Result<Vec<u8>, BoxError> {
    let count = usize::try_from(last.saturating_sub(first)).unwrap_or(0);
    let block = encoding.block_bytes as usize;
    let mut blocks = vec![0; count.saturating_mul(block)];
    for place in places {
        let (from, bytes) = (place.start as usize, place.bytes as usize);
        let mut part = vec![0; count.saturating_mul(bytes)];
        let offset = first.saturating_mul(u64::from(place.bytes)).saturating_add(place.offset);
        input.read_exact_at(offset, &mut part)?;
        for (to, piece) in blocks.chunks_exact_mut(block.max(1)).zip(part.chunks_exact(bytes.max(1))) {
            if let Some(to) = to.get_mut(from..from.saturating_add(bytes)) {
                to.copy_from_slice(piece);
            }
        }
    }
    Ok(blocks)
}

impl ModelFile for PrefabFile {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        Ok(self.contents.mapped.clone())
    }
}

impl std::fmt::Debug for PrefabFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrefabFile").field("path", &self.path).field("tensors", &self.contents.infos.len()).finish_non_exhaustive()
    }
}
