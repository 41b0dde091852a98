//! A GGUF file with names of the caller's choice, for programs that take the container and not its conventions.

use rwkv_forge_model::{Assembly, FileLayout, OutputTensor};
use rwkv_forge_tensor::{Encoding, TensorInfo};

use crate::error::GgufError;
use crate::header::{NAME_BYTES, byte_len, padded};
use crate::layout::{ALIGNMENT, add};
use crate::types;
use crate::write::HeaderWriter;

/// Bytes reserved for the result of the comparison, as one line of text.
const VERIFY_BYTES: usize = 400;

/// A tensor that shall be in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeTensor {
    /// Name in the file, at most 63 bytes.
    pub name: String,
    /// Shape in PyTorch's order; the file has it reversed.
    pub shape: Vec<u64>,
    /// Any encoding with a ggml type.
    pub encoding: Encoding,
    /// Where the encoding comes from, for records.
    pub reason: String,
    /// What it is made of.
    pub assembly: Assembly,
}

/// Lays out the tensors in their order under their names. `texts` are metadata; `general.architecture` must be among
/// them. Late values: `rwkv_forge.source.sha256` (64 bytes) and `rwkv_forge.verify` (400 bytes, filled up with spaces).
///
/// # Errors
/// [`GgufError::NameTooLong`], [`GgufError::EncodingNotAllowed`], [`GgufError::BlockLength`], [`GgufError::SizeOverflow`].
pub fn free_layout(tensors: Vec<FreeTensor>, texts: &[(&str, &str)]) -> Result<FileLayout, GgufError> {
    let mut header = HeaderWriter::default();
    for (key, value) in texts {
        header.text(key, value);
    }
    header.u32("general.quantization_version", 2);
    header.late_text("rwkv_forge", "source.sha256", &"0".repeat(64));
    header.late_text("rwkv_forge", "verify", &" ".repeat(VERIFY_BYTES));
    let mut placed = Vec::with_capacity(tensors.len());
    let mut relative = 0u64;
    for tensor in tensors {
        let info = TensorInfo { name: tensor.name, shape: tensor.shape, encoding: tensor.encoding };
        let name_bytes = u64::try_from(info.name.len()).unwrap_or(u64::MAX);
        if name_bytes > NAME_BYTES {
            return Err(GgufError::NameTooLong { bytes: name_bytes, name: info.name });
        }
        let number = types::number(info.encoding).ok_or_else(|| GgufError::EncodingNotAllowed {
            tensor: info.name.clone(),
            encoding: info.encoding.name,
            why: "GGUF has no such type".into(),
        })?;
        header.tensor(&info, number, relative);
        let bytes = byte_len(&info)?;
        let next = add(relative, padded(bytes, ALIGNMENT, &info.name)?)?;
        let TensorInfo { name, shape, encoding } = info;
        let (reason, assembly) = (tensor.reason, tensor.assembly);
        placed.push(OutputTensor { name, shape, encoding, reason, offset: relative, bytes, assembly, planes: Vec::new() });
        relative = next;
    }
    let (header, patches) = header.finish(usize::try_from(ALIGNMENT).unwrap_or(32));
    let data_start = u64::try_from(header.len()).unwrap_or(u64::MAX);
    for tensor in &mut placed {
        tensor.offset = add(tensor.offset, data_start)?;
    }
    Ok(FileLayout { header, tensors: placed, total_bytes: add(data_start, relative)?, patches, ..FileLayout::default() })
}
