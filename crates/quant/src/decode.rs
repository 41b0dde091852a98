//! Stored bytes of any encoding back to f32.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use rwkv_forge_tensor::{BoxError, Class, Diagnostic, Encoding, ShapeError, TensorSource, decode_dense, memory};
use strum::IntoStaticStr;
use thiserror::Error;

use crate::by_encoding;

/// Bytes read at a time: with the values decoded from it, a piece stays in the second-level cache.
const PIECE: u64 = 256 * 1024;

/// Why bytes could not be decoded.
#[derive(Debug, Error, IntoStaticStr)]
pub enum DecodeError {
    /// No format of this name decodes to f32.
    #[error("encoding {encoding} holds no floating-point numbers that this version can decode")]
    UnsupportedEncoding {
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// The bytes end inside a block.
    #[error("{bytes} bytes are no whole number of {encoding} blocks of {block_bytes} bytes")]
    PartialBlock {
        /// Bytes given.
        bytes: usize,
        /// Bytes a block.
        block_bytes: u32,
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// The tensor or the rows asked for do not exist.
    #[error("rows {first_row}..+{rows} of tensor {index} do not exist: the tensor has {available} rows")]
    NoSuchRows {
        /// Index of the tensor.
        index: usize,
        /// First row asked for.
        first_row: u64,
        /// Rows asked for.
        rows: u64,
        /// Rows of the tensor; 0 when there is no such tensor.
        available: u64,
    },
    /// The tensor's shape does not fit its encoding.
    #[strum(serialize = "BadShape")]
    #[error("tensor {name}: {error}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        error: ShapeError,
    },
    /// There is not enough memory for the result.
    #[error("no memory for {elements} decoded values; decode fewer rows at a time")]
    OutOfMemory {
        /// Elements asked for.
        elements: u64,
    },
    /// The source failed.
    #[error("{0}")]
    Read(BoxError),
}

impl Diagnostic for DecodeError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Read(error) => error.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::NoSuchRows { .. } => Class::Usage,
            Self::OutOfMemory { .. } => Class::Io,
            Self::Read(error) => error.class(),
            _ => Class::Refused,
        }
    }
}

/// Decodes whole blocks of a registered format, or dense f64, appending the values to `out`.
///
/// # Errors
/// [`DecodeError::UnsupportedEncoding`], [`DecodeError::PartialBlock`] and [`DecodeError::OutOfMemory`]; `out` then keeps its
/// content.
pub fn decode_rows(encoding: Encoding, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), DecodeError> {
    let block_bytes = encoding.block_bytes as usize;
    if bytes.len().checked_rem(block_bytes) != Some(0) {
        return Err(DecodeError::PartialBlock { bytes: bytes.len(), block_bytes: encoding.block_bytes, encoding: encoding.name });
    }
    let blocks = bytes.len().checked_div(block_bytes).unwrap_or(0);
    let elements = blocks.saturating_mul(encoding.block_len as usize);
    memory::reserve(out, elements).map_err(|_| DecodeError::OutOfMemory { elements: elements as u64 })?;
    if let Some(format) = by_encoding(encoding) {
        let start = out.len();
        out.resize(start.saturating_add(elements), 0.0);
        format.decode(bytes, out.get_mut(start..).unwrap_or(&mut []));
        return Ok(());
    }
    match decode_dense(encoding, bytes, out) {
        true => Ok(()),
        false => Err(DecodeError::UnsupportedEncoding { encoding: encoding.name }),
    }
}

/// Reads rows `first_row .. first_row + rows` of a tensor and appends their values to `out`, `[rows, last dimension]`.
/// The rows of a tensor are counted over all dimensions but the last; a scalar is one row of one element.
///
/// # Errors
/// As [`decode_rows`]; [`DecodeError::NoSuchRows`] when the rows are not in the tensor, [`DecodeError::Read`] when the source
/// fails. `out` may then have received some of the rows.
pub fn read_rows(source: &dyn TensorSource, index: usize, first_row: u64, rows: u64, out: &mut Vec<f32>) -> Result<(), DecodeError> {
    let missing = |available| DecodeError::NoSuchRows { index, first_row, rows, available };
    let info = source.tensors().get(index).ok_or_else(|| missing(0))?;
    let shape = |error| DecodeError::Shape { name: info.name.clone(), error };
    let columns = info.shape.last().copied().unwrap_or(1);
    let row_bytes = info.encoding.row_bytes(columns).map_err(shape)?;
    let available = rwkv_forge_tensor::element_count(info.shape.get(..info.shape.len().saturating_sub(1)).unwrap_or(&[])).map_err(shape)?;
    if first_row.checked_add(rows).is_none_or(|end| end > available) {
        return Err(missing(available));
    }
    let overflow = || shape(ShapeError::Overflow);
    let start = first_row.checked_mul(row_bytes).ok_or_else(overflow)?;
    let length = rows.checked_mul(row_bytes).ok_or_else(overflow)?;
    let elements = rows.checked_mul(columns).ok_or_else(overflow)?;
    let no_memory = || DecodeError::OutOfMemory { elements };
    memory::reserve(out, usize::try_from(elements).map_err(|_| no_memory())?).map_err(|_| no_memory())?;
    read_pieces(source, index, info.encoding, start, length, out)
}

/// Reads and decodes a range of whole blocks, piece by piece.
fn read_pieces(
    source: &dyn TensorSource,
    index: usize,
    encoding: Encoding,
    start: u64,
    length: u64,
    out: &mut Vec<f32>,
) -> Result<(), DecodeError> {
    let block = u64::from(encoding.block_bytes).max(1);
    let piece = PIECE.checked_div(block).unwrap_or(1).max(1).saturating_mul(block);
    let mut buffer = vec![0; usize::try_from(piece.min(length)).unwrap_or(0)];
    let mut done = 0u64;
    while done < length {
        let count = usize::try_from(length.saturating_sub(done)).unwrap_or(usize::MAX).min(buffer.len());
        let bytes = buffer.get_mut(..count).unwrap_or(&mut []);
        source.read_at(index, start.saturating_add(done), bytes).map_err(DecodeError::Read)?;
        decode_rows(encoding, bytes, out)?;
        done = done.saturating_add(count as u64);
    }
    Ok(())
}
