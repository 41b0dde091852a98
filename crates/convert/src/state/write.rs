//! From a state to a file. Start at [`write`].

use std::path::Path;

use rwkv_forge_checkpoint::safetensors::NewTensor;
use rwkv_forge_io::{OutputFile, OutputOptions};
use rwkv_forge_model::{Assembly, FileLayout, TIME_STATE, Version};
use rwkv_forge_tensor::{BoxError, Encoding, F16Loss, decode_dense, f32_to_bf16, f32_to_f16};
use rwkv_forge_weights::turned;
use serde::Serialize;

use super::{InitState, StateError, StateFormat, StateSizes, in_rwkv_cpp, llama, rmpack, runtime_of};
use crate::convert::loses_too_much;
use crate::execute::write_checksums;

/// How a state is to be written.
#[derive(Clone, Copy, Debug)]
pub struct StateTarget<'a> {
    /// The format.
    pub format: StateFormat,
    /// The version; needed for layouts that depend on it.
    pub version: Option<Version>,
    /// Type of the values; the format's own when `None` (`.pth`: f32).
    pub encoding: Option<Encoding>,
    /// Accept a layer of which more than [`crate::MAX_FLUSHED_PERCENT`] become zero because they are too small for their type.
    pub allow_loss: bool,
    /// What a package says besides, as [`super::FoundState::package`] has it; of no use to other formats.
    pub package: &'a [(String, String)],
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateRecord {
    /// Sizes of the state.
    pub sizes: StateSizes,
    /// Type of the values.
    #[serde(rename = "type")]
    pub encoding: &'static str,
    /// Values that were rounded.
    pub rounded: u64,
    /// Non-zero values that became zero.
    pub flushed: u64,
    /// Non-zero values that lost digits at the small end of their type.
    pub subnormal: u64,
    /// Bytes of the file.
    pub output_bytes: u64,
}

/// A state that is written, under a temporary name.
pub(crate) struct Staged {
    pub(crate) file: OutputFile,
    pub(crate) record: StateRecord,
}

/// Writes a state into a new file.
///
/// # Errors
/// [`StateError::Unknowable`] without a version where the layout depends on it, [`StateError::TypeNotCarried`],
/// [`StateError::ShiftsNotCarried`], [`StateError::NotInLlama`], [`StateError::NotInRuntime`], [`StateError::Overflow`], [`StateError::Loss`], and failures to write.
/// No partial output is left behind.
pub fn write(state: &InitState, target: &StateTarget<'_>, path: &Path, options: &OutputOptions<'_>) -> Result<StateRecord, BoxError> {
    let Staged { file, record } = Staged::write(state, target, path, options)?;
    file.commit()?;
    Ok(record)
}

impl Staged {
    /// As [`write`], but for the last step.
    pub(crate) fn write(state: &InitState, target: &StateTarget<'_>, path: &Path, options: &OutputOptions<'_>) -> Result<Self, BoxError> {
        let encoding = encoding(target)?;
        // Whatever the format, a version that has no such state has none.
        if let Some(version) = target.version {
            let row = runtime_of(version)?;
            let runtime = target.format.runtime_by_version();
            if let Some(runtime) = runtime.filter(|_| !row.others) {
                return Err(StateError::NotInRuntime { runtime, version }.into());
            }
        }
        if !state.shifts.is_empty() && !target.format.has_shifts() {
            return Err(StateError::ShiftsNotCarried { format: target.format.name() }.into());
        }
        let version =
            || target.version.ok_or(StateError::Unknowable { format: target.format.name(), missing: "--model-version".to_owned() });
        let mut encoder = Encoder { encoding, loss: F16Loss::default(), rounded: 0, beyond: None };
        let (layout, data) = match target.format {
            StateFormat::RwkvCpp => encoder.buffer(state, version()?)?,
            format @ (StateFormat::Pth | StateFormat::WebRwkv) => encoder.tensors(state, format)?,
            format @ (StateFormat::LlamaSession | StateFormat::LlamaSequence) => whole(llama::bytes(state, format, version()?)?),
            StateFormat::Rmpack => encoder.package(state, target.package),
        };
        encoder.judge(target)?;
        let options = OutputOptions { expected_bytes: layout.total_bytes, ..*options };
        let file = OutputFile::create(path, &options)?;
        file.set_len(layout.total_bytes)?;
        file.write_all_at(0, &layout.header)?;
        for (offset, bytes) in &layout.literals {
            file.write_all_at(*offset, bytes)?;
        }
        for (offset, bytes) in &data {
            file.write_all_at(*offset, bytes)?;
        }
        write_checksums(&layout, file.temp_path(), &file)?;
        let record = StateRecord {
            sizes: state.sizes,
            encoding: encoding.name,
            rounded: encoder.rounded,
            flushed: encoder.loss.flushed,
            subnormal: encoder.loss.subnormal,
            output_bytes: layout.total_bytes,
        };
        Ok(Self { file, record })
    }
}

fn encoding(target: &StateTarget<'_>) -> Result<Encoding, StateError> {
    let (own, others, held) = target.format.types();
    match target.encoding {
        None => Ok(own),
        Some(wanted) if wanted == own || others.contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(StateError::TypeNotCarried { format: target.format.name(), held, encoding: wanted.name }),
    }
}

/// Bytes with their offsets in the file.
type Placed = Vec<(u64, Vec<u8>)>;

/// A file that is these bytes.
fn whole(bytes: Vec<u8>) -> (FileLayout, Placed) {
    (FileLayout { total_bytes: bytes.len() as u64, ..FileLayout::default() }, vec![(0, bytes)])
}

/// Encodes values and counts what that costs.
struct Encoder {
    encoding: Encoding,
    loss: F16Loss,
    rounded: u64,
    /// The first layer that loses too much, its values that become zero, and those that were not.
    beyond: Option<(usize, u64, u64)>,
}

impl Encoder {
    /// A file of named tensors.
    fn tensors(&mut self, state: &InitState, format: StateFormat) -> Result<(FileLayout, Placed), BoxError> {
        let n = state.sizes.head_size;
        let shape = vec![state.sizes.heads as u64, n as u64, n as u64];
        let tensors = (0..state.layers.len())
            .map(|layer| NewTensor {
                name: format!("blocks.{layer}.{TIME_STATE}"),
                shape: shape.clone(),
                encoding: self.encoding,
                reason: String::new(),
                assembly: Assembly::of(layer),
            })
            .collect();
        let layout = if format == StateFormat::Pth {
            rwkv_forge_checkpoint::torch_write::layout(tensors, &[], &[])?
        } else {
            rwkv_forge_checkpoint::safetensors::layout(tensors, &[("format".to_owned(), "pt".to_owned())], &[])?
        };
        let mut data = Vec::with_capacity(layout.tensors.len());
        for tensor in &layout.tensors {
            // The order of tensors in the file is the container's; the assembly says which layer each is.
            let layer = tensor.assembly.parts[0];
            let values = &state.layers[layer];
            let bytes = if format == StateFormat::WebRwkv { self.layer(layer, &turned(values, n)) } else { self.layer(layer, values) };
            data.push((tensor.offset, bytes));
        }
        Ok((layout, data))
    }

    /// rwkv-mobile's package.
    fn package(&mut self, state: &InitState, said: &[(String, String)]) -> (FileLayout, Placed) {
        let (header, offsets) = rmpack::header(state.sizes, said);
        let placed = offsets.into_iter().zip(state.layers.iter().enumerate());
        let data: Placed = placed.map(|(offset, (layer, values))| (offset, self.layer(layer, values))).collect();
        let total_bytes = data.last().map_or(header.len() as u64, |(offset, bytes)| offset + bytes.len() as u64);
        (FileLayout { header, total_bytes, ..FileLayout::default() }, data)
    }

    /// rwkv.cpp's buffer.
    fn buffer(&mut self, state: &InitState, version: Version) -> Result<(FileLayout, Placed), StateError> {
        let row = in_rwkv_cpp(version)?;
        let zeros = vec![0.0; state.sizes.channels()];
        let mut bytes = Vec::new();
        for (layer, values) in state.layers.iter().enumerate() {
            let mut matrix = if row.key_first { turned(values, state.sizes.head_size) } else { values.clone() };
            if row.divided {
                self.divide(layer, &mut matrix);
            }
            let shifts = state.shifts.get(layer);
            bytes.extend(self.encode(shifts.map_or(&zeros, |shifts| &shifts.ffn)));
            bytes.extend(self.encode(shifts.map_or(&zeros, |shifts| &shifts.att)));
            bytes.extend(self.encode(&matrix));
        }
        Ok(whole(bytes))
    }

    /// Divides by 8, which is exact but for the smallest numbers of all.
    fn divide(&mut self, layer: usize, values: &mut [f32]) {
        let (mut flushed, non_zero) = (0, count(values));
        for value in values {
            let divided = *value * 0.125;
            if divided * 8.0 != *value {
                let lost = if divided == 0.0 { &mut flushed } else { &mut self.loss.subnormal };
                *lost += 1;
            }
            *value = divided;
        }
        self.loss.flushed += flushed;
        self.note(layer, flushed, non_zero);
    }

    /// The matrices of a layer.
    fn layer(&mut self, layer: usize, values: &[f32]) -> Vec<u8> {
        let before = self.loss.flushed;
        let bytes = self.encode(values);
        self.note(layer, self.loss.flushed - before, count(values));
        bytes
    }

    fn note(&mut self, layer: usize, flushed: u64, non_zero: u64) {
        if self.beyond.is_none() && loses_too_much(flushed, non_zero) {
            self.beyond = Some((layer, flushed, non_zero));
        }
    }

    fn encode(&mut self, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(values.len() * self.encoding.block_bytes as usize);
        let mut back = Vec::new();
        for value in values {
            match self.encoding {
                Encoding::F16 => {
                    let bits = f32_to_f16(*value);
                    self.loss.count(*value, bits);
                    bytes.extend(bits.to_le_bytes());
                }
                Encoding::BF16 => bytes.extend(f32_to_bf16(*value).to_le_bytes()),
                _ => bytes.extend(value.to_le_bytes()),
            }
        }
        decode_dense(self.encoding, &bytes, &mut back);
        if self.encoding == Encoding::BF16 {
            self.loss.overflowed += back.iter().filter(|value| !value.is_finite()).count() as u64;
        }
        self.rounded += back.iter().zip(values).filter(|(back, value)| back != value).count() as u64;
        bytes
    }

    fn judge(&self, target: &StateTarget<'_>) -> Result<(), StateError> {
        if self.loss.overflowed > 0 {
            return Err(StateError::Overflow { count: self.loss.overflowed, encoding: self.encoding.name, format: target.format.name() });
        }
        match self.beyond {
            Some((layer, flushed, non_zero)) if !target.allow_loss => {
                Err(StateError::Loss { layer, flushed, non_zero, encoding: self.encoding.name })
            }
            _ => Ok(()),
        }
    }
}

/// Values other than zero.
fn count(values: &[f32]) -> u64 {
    values.iter().filter(|value| **value != 0.0).count() as u64
}
