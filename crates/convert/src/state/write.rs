//! From a state to a file. Start at [`write`].

use std::path::Path;

use rwkv_forge_checkpoint::safetensors::NewTensor;
use rwkv_forge_io::{OutputFile, OutputOptions};
use rwkv_forge_model::{Assembly, FileLayout, Version};
use rwkv_forge_tensor::{BoxError, Encoding, F16Loss, decode_dense, f32_to_bf16, f32_to_f16};
use serde::Serialize;

use super::{InitState, StateError, StateFormat, StateSizes, buffer_in_rwkv_cpp, transposed};
use crate::execute::write_checksums;

/// How a state is to be written.
#[derive(Clone, Copy, Debug)]
pub struct StateTarget {
    /// The format.
    pub format: StateFormat,
    /// The version; needed for rwkv.cpp's layout alone.
    pub version: Option<Version>,
    /// Type of the values; the format's own when `None` (`.pth`: f32).
    pub encoding: Option<Encoding>,
    /// Accept values that vanish or lose digits because they are too small for their type.
    pub allow_loss: bool,
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

/// Writes a state into a new file.
///
/// # Errors
/// [`StateError::Unknowable`] without a version for rwkv.cpp, [`StateError::TypeNotCarried`], [`StateError::Overflow`],
/// [`StateError::Loss`], and failures to write. No partial output is left behind.
pub fn write(state: &InitState, target: &StateTarget, path: &Path, options: &OutputOptions<'_>) -> Result<StateRecord, BoxError> {
    let encoding = encoding(target)?;
    let mut encoder = Encoder { encoding, loss: F16Loss::default(), rounded: 0 };
    let (layout, data) = match target.format {
        StateFormat::RwkvCpp => encoder.buffer(state, target.version.ok_or(StateError::Unknowable { missing: "--model-version" })?)?,
        format @ (StateFormat::Pth | StateFormat::WebRwkv) => encoder.tensors(state, format)?,
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
    file.commit()?;
    Ok(StateRecord {
        sizes: state.sizes,
        encoding: encoding.name,
        rounded: encoder.rounded,
        flushed: encoder.loss.flushed,
        subnormal: encoder.loss.subnormal,
        output_bytes: layout.total_bytes,
    })
}

fn encoding(target: &StateTarget) -> Result<Encoding, StateError> {
    let (own, others, held): (Encoding, &[Encoding], &'static str) = match target.format {
        StateFormat::Pth => (Encoding::F32, &[Encoding::F16, Encoding::BF16], "f32, f16 or bf16"),
        StateFormat::WebRwkv => (Encoding::F16, &[], "f16"),
        StateFormat::RwkvCpp => (Encoding::F32, &[], "f32"),
    };
    match target.encoding {
        None => Ok(own),
        Some(wanted) if wanted == own || others.contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(StateError::TypeNotCarried { format: target.format.name(), held, encoding: wanted.name }),
    }
}

/// Bytes with their offsets in the file.
type Placed = Vec<(u64, Vec<u8>)>;

/// Encodes values and counts what that costs.
struct Encoder {
    encoding: Encoding,
    loss: F16Loss,
    rounded: u64,
}

impl Encoder {
    /// A file of named tensors.
    fn tensors(&mut self, state: &InitState, format: StateFormat) -> Result<(FileLayout, Placed), BoxError> {
        let n = state.sizes.head_size;
        let shape = vec![state.sizes.heads as u64, n as u64, n as u64];
        let tensors = (0..state.layers.len())
            .map(|layer| NewTensor {
                name: format!("blocks.{layer}.att.time_state"),
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
            let values = &state.layers[tensor.assembly.parts[0]];
            let bytes = if format == StateFormat::WebRwkv { self.encode(&transposed(values, n)) } else { self.encode(values) };
            data.push((tensor.offset, bytes));
        }
        Ok((layout, data))
    }

    /// rwkv.cpp's buffer.
    fn buffer(&mut self, state: &InitState, version: Version) -> Result<(FileLayout, Placed), StateError> {
        let buffer = buffer_in_rwkv_cpp(version)?;
        let shifts = 2 * state.sizes.heads * state.sizes.head_size;
        let mut bytes = Vec::new();
        for values in &state.layers {
            let mut matrix = if buffer.key_first { transposed(values, state.sizes.head_size) } else { values.clone() };
            if buffer.divided {
                self.divide(&mut matrix);
            }
            bytes.extend(self.encode(&vec![0.0; shifts]));
            bytes.extend(self.encode(&matrix));
        }
        Ok((FileLayout { total_bytes: bytes.len() as u64, ..FileLayout::default() }, vec![(0, bytes)]))
    }

    /// Divides by 8, which is exact but for the smallest numbers of all.
    fn divide(&mut self, values: &mut [f32]) {
        for value in values {
            let divided = *value * 0.125;
            if divided * 8.0 != *value {
                let lost = if divided == 0.0 { &mut self.loss.flushed } else { &mut self.loss.subnormal };
                *lost += 1;
            }
            *value = divided;
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

    fn judge(&self, target: &StateTarget) -> Result<(), StateError> {
        let F16Loss { overflowed, flushed, subnormal } = self.loss;
        if overflowed > 0 {
            return Err(StateError::Overflow { count: overflowed, encoding: self.encoding.name, format: target.format.name() });
        }
        if flushed + subnormal > 0 && !target.allow_loss {
            return Err(StateError::Loss { flushed, subnormal, encoding: self.encoding.name });
        }
        Ok(())
    }
}
