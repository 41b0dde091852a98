//! Tensors whose blocks a file keeps in parts: codes in one tensor, scales in another. [`Assembled`] gives them as whole blocks, put together
//! when they are read, in ranges: memory follows what is asked for, never a tensor.

mod fill;
mod rule;

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};

use crate::error::{CheckpointError, Refusal, Result, refuse};

pub(crate) use rule::Rule;

/// Blocks that are put together at once.
const BLOCKS: u64 = 2048;

/// What a tensor is made of; tensors are meant by their index in the source.
#[derive(Clone, Debug)]
pub(crate) enum Parts {
    /// It is stored as it is.
    Whole(usize),
    /// Blocks, whose pieces lie in this order.
    Blocks(Vec<Piece>),
}

/// A run of bytes in every block.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// So many bytes a block, one block after the other.
    Each { tensor: usize, bytes: u64, rule: Rule },
    /// So many bytes for a group of weights of a row, which several blocks may share. A row has `groups` of `group` weights, the last one
    /// perhaps shorter.
    Shared { tensor: usize, bytes: u64, row: u64, group: u64, groups: u64, rule: Rule },
    /// Codes of four bits plus 8. Byte i of a row of `row` codes holds code i below and code i + ceil(row / 2) above; in blocks neighbours
    /// share a byte, or codes stand alone, without the 8. Codes have `bits` bits, four or fewer.
    Halves { tensor: usize, row: u64, alone: bool, bits: u64 },
    /// A bit for each of the eight weights of a block, and eight numbers of two bytes: what stands in place of codes. Places are pairs of
    /// i32, row and column, in ascending order.
    Outliers { places: usize, values: usize, count: u64, row: u64 },
}

/// A source some of whose tensors are put together from several of another one.
pub(crate) struct Assembled {
    pub(crate) source: Box<dyn TensorSource>,
    pub(crate) format: &'static str,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) parts: Vec<Parts>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) notes: Vec<String>,
}

impl Assembled {
    fn read_blocks(&self, info: &TensorInfo, pieces: &[Piece], start: u64, out: &mut [u8]) -> std::result::Result<(), BoxError> {
        let size = u64::from(info.encoding.block_bytes).max(1);
        let (mut block, mut skip) = (start.checked_div(size).unwrap_or(0), start.checked_rem(size).unwrap_or(0));
        let mut rest = out;
        while !rest.is_empty() {
            let count = skip.saturating_add(rest.len() as u64).div_ceil(size).min(BLOCKS);
            let range = fill::Range { encoding: info.encoding, first: block, count };
            let blocks = fill::blocks(self.source.as_ref(), pieces, range)?;
            let ready = blocks.get(fill::size(skip)..).unwrap_or_default();
            let (now, later) = rest.split_at_mut(ready.len().min(rest.len()));
            now.copy_from_slice(ready.get(..now.len()).unwrap_or_default());
            rest = later;
            block = block.saturating_add(count);
            skip = 0;
        }
        Ok(())
    }
}

impl TensorSource for Assembled {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.files()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> std::result::Result<(), BoxError> {
        let found = self.tensors.get(index).zip(self.parts.get(index));
        let inside = |info: &TensorInfo| start.checked_add(out.len() as u64).is_some_and(|end| info.byte_len().is_ok_and(|len| end <= len));
        match found.filter(|(info, _)| inside(info)) {
            Some((_, Parts::Whole(tensor))) => self.source.read_at(*tensor, start, out),
            Some((info, Parts::Blocks(pieces))) => self.read_blocks(info, pieces, start, out),
            None => {
                let what = format!("bytes {start} and {} more of tensor number {index} were asked for, which there are not", out.len());
                Err(CheckpointError::refused(Refusal::OutOfBounds, what).in_file(self.path()).into())
            }
        }
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> std::result::Result<Vec<String>, BoxError> {
        self.source.check_integrity(progress)
    }

    fn metadata(&self) -> Vec<(String, String)> {
        self.metadata.clone()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Every place of an outlier must lie in the matrix, and behind the one before: they are searched for.
///
/// # Errors
/// `BadOutlier`; those of reading.
pub(crate) fn check_outliers(source: &dyn TensorSource, info: &TensorInfo, parts: &Parts) -> std::result::Result<(), BoxError> {
    const STEP: u64 = 8192;
    let Parts::Blocks(pieces) = parts else { return Ok(()) };
    let Some(Piece::Outliers { places, count, row, .. }) = pieces.last() else { return Ok(()) };
    let rows = info.shape.first().copied().unwrap_or(0);
    let mut next = 0;
    for first in (0..*count).step_by(fill::size(STEP)) {
        for [line, column] in fill::places(source, *places, first, count.saturating_sub(first).min(STEP))? {
            let place = line.checked_mul(*row).and_then(|before| before.checked_add(column));
            let Some(place) = place.filter(|place| line < rows && column < *row && *place >= next) else {
                let what = format!(
                    "tensor `{}` of {rows} rows and {row} columns has an outlier in row {line}, column {column}; expected places within it, \
                     row by row and each one once",
                    info.name
                );
                return Err(CheckpointError::refused(Refusal::BadOutlier, what).in_file(source.path()).into());
            };
            next = place.saturating_add(1);
        }
    }
    Ok(())
}

/// The encoding of codes of so many bits with a scale a row, of which `piece` is the scale's and `codes` are bytes.
///
/// # Errors
/// `UnsupportedKind` for rows that are no whole number of blocks.
pub(crate) fn by_row(name: &str, row: u64, scale: Piece, codes: usize, bits: u64) -> Result<(Encoding, Vec<Piece>)> {
    use rwkv_forge_quant::{BlockFormat as _, INT8_ROW, RTN};
    for encoding in [INT8_ROW.encoding(), RTN.encoding()] {
        let length = u64::from(encoding.block_len);
        if row.is_multiple_of(length) {
            return Ok((encoding, vec![scale, Piece::Each { tensor: codes, bytes: length, rule: Rule::Signed(bits) }]));
        }
    }
    odd_rows(name, row)
}

/// Refuses rows that no block divides.
pub(crate) fn odd_rows<T>(name: &str, row: u64) -> Result<T> {
    refuse(
        Refusal::UnsupportedKind,
        format!("tensor `{name}` is quantized in rows of {row} weights; expected a multiple of 8, which those of every RWKV are"),
    )
}
