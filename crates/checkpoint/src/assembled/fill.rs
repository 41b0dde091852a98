//! Fills blocks with what their pieces say. Start at [`blocks`].

use rwkv_forge_tensor::{BoxError, Encoding, TensorSource};

use super::{Piece, Rule};

/// Blocks of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) encoding: Encoding,
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Range {
    /// Index of the first weight of a block.
    fn weight(&self, block: u64) -> u64 {
        block.saturating_mul(u64::from(self.encoding.block_len))
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// Bytes of one tensor.
struct Buffer<'a> {
    source: &'a dyn TensorSource,
    tensor: usize,
}

impl Buffer<'_> {
    /// `count` entries of `bytes` from entry `first`.
    fn read(&self, first: u64, count: u64, bytes: u64) -> Result<Vec<u8>, BoxError> {
        let mut out = vec![0; size(count.saturating_mul(bytes))];
        if !out.is_empty() {
            self.source.read_at(self.tensor, first.saturating_mul(bytes), &mut out)?;
        }
        Ok(out)
    }
}

/// What a caller holds, or a file has: it fits.
pub(super) fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Whole blocks, one after the other.
///
/// # Errors
/// Those of reading.
pub(super) fn blocks(source: &dyn TensorSource, pieces: &[Piece], range: Range) -> Result<Vec<u8>, BoxError> {
    let block = range.encoding.block_bytes as usize;
    let mut out = vec![0; size(range.count).saturating_mul(block)];
    let mut at = 0;
    for piece in pieces {
        let parts = out.chunks_exact_mut(block.max(1)).filter_map(|block| block.get_mut(at..));
        let buffer = |tensor: usize| Buffer { source, tensor };
        at = at.saturating_add(match piece {
            Piece::Each { tensor, bytes, rule } => {
                let stored = buffer(*tensor).read(range.first, range.count, *bytes)?;
                rule.check(source, *tensor, range.first.saturating_mul(*bytes), &stored)?;
                parts.zip(stored.chunks_exact(size(*bytes).max(1))).for_each(|(to, from)| copy(to, from));
                size(*bytes)
            }
            Piece::Shared { tensor, bytes, row, group, groups, rule } => {
                let number = |block: u64| {
                    let weight = range.weight(block);
                    let (before, column) = (weight.checked_div(*row).unwrap_or(0), weight.checked_rem(*row).unwrap_or(0));
                    before.saturating_mul(*groups).saturating_add(column.checked_div(*group).unwrap_or(0))
                };
                let (first, last) = (number(range.first), number(range.end().saturating_sub(1)));
                let stored = buffer(*tensor).read(first, last.saturating_sub(first).saturating_add(1), *bytes)?;
                rule.check(source, *tensor, first.saturating_mul(*bytes), &stored)?;
                for (to, block) in parts.zip(range.first..) {
                    let from = size(number(block).saturating_sub(first).saturating_mul(*bytes));
                    copy(to, stored.get(from..from.saturating_add(size(*bytes))).unwrap_or_default());
                }
                size(*bytes)
            }
            Piece::Halves { tensor, row, alone, bits } => halves(&buffer(*tensor), *row, (*alone, *bits), range, parts)?,
            Piece::Outliers { places, values, count, row } => {
                outliers(&buffer(*places), &buffer(*values), *count, *row, range, parts)?;
                17
            }
        });
    }
    Ok(out)
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Codes of rows whose two halves share bytes; how many bytes a block takes of them. What is read are two runs a row.
fn halves<'a>(
    buffer: &Buffer<'_>,
    row: u64,
    (alone, bits): (bool, u64),
    range: Range,
    mut parts: impl Iterator<Item = &'a mut [u8]>,
) -> Result<usize, BoxError> {
    let length = u64::from(range.encoding.block_len).max(1);
    let (in_row, half) = (row.checked_div(length).unwrap_or(1).max(1), row.div_ceil(2));
    let mut block = range.first;
    while block < range.end() {
        let number = block.checked_div(in_row).unwrap_or(0);
        let end = number.saturating_add(1).saturating_mul(in_row).min(range.end());
        let column = |block: u64| range.weight(block.saturating_sub(number.saturating_mul(in_row)));
        let (from, until) = (column(block), column(end));
        let run = |from: u64, until: u64| buffer.read(number.saturating_mul(half).saturating_add(from), until.saturating_sub(from), 1);
        let below = run(from.min(half), until.min(half))?;
        let above = run(from.max(half).saturating_sub(half), until.max(half).saturating_sub(half))?;
        let codes: Vec<u8> = below.iter().map(|byte| byte & 15).chain(above.iter().map(|byte| byte >> 4)).collect();
        if bits < 4 {
            // Where in a byte is of no interest to anybody: the byte is named.
            for (bytes, first, shift) in [(&below, from.min(half), 0u32), (&above, from.max(half).saturating_sub(half), 4)] {
                let codes: Vec<u8> = bytes.iter().map(|byte| (byte.wrapping_shr(shift) & 15).wrapping_sub(8)).collect();
                let first = number.saturating_mul(half).saturating_add(first);
                Rule::Signed(bits).check(buffer.source, buffer.tensor, first, &codes)?;
            }
        }
        for (codes, to) in codes.chunks_exact(size(length)).zip(&mut parts) {
            if alone {
                to.iter_mut().zip(codes).for_each(|(to, code)| *to = code.wrapping_sub(8));
            } else {
                let pairs = codes.as_chunks::<2>().0;
                to.iter_mut().zip(pairs).for_each(|(to, [first, second])| *to = first | second << 4);
            }
        }
        block = end;
    }
    Ok(size(if alone { length } else { length.div_ceil(2) }))
}

/// Row and column of some outliers.
///
/// # Errors
/// Those of reading.
pub(super) fn places(source: &dyn TensorSource, tensor: usize, first: u64, count: u64) -> Result<Vec<[u64; 2]>, BoxError> {
    let stored = Buffer { source, tensor }.read(first, count, 8)?;
    // What is negative is beyond every matrix.
    let number = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    Ok(stored.as_chunks::<4>().0.as_chunks::<2>().0.iter().map(|[row, column]| [number(row), number(column)]).collect())
}

/// Which of the weights of each block are outliers, and their values.
fn outliers<'a>(
    places_of: &Buffer<'_>,
    values_of: &Buffer<'_>,
    count: u64,
    row: u64,
    range: Range,
    parts: impl Iterator<Item = &'a mut [u8]>,
) -> Result<(), BoxError> {
    const STEP: u64 = 512;
    let weight = |[line, column]: &[u64; 2]| line.saturating_mul(row).saturating_add(*column);
    let read = |first: u64, count: u64| places(places_of.source, places_of.tensor, first, count);
    // The first one that is not before the first block.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        match read(middle, 1)?.first() {
            Some(place) if weight(place) < range.weight(range.first) => low = middle.saturating_add(1),
            _ => high = middle,
        }
    }
    let mut parts: Vec<&mut [u8]> = parts.collect();
    while low < count {
        let now = count.saturating_sub(low).min(STEP);
        let values = values_of.read(low, now, 2)?;
        for (place, value) in read(low, now)?.iter().zip(values.as_chunks::<2>().0) {
            let place = weight(place);
            if place >= range.weight(range.end()) {
                return Ok(());
            }
            let within = place.saturating_sub(range.weight(range.first));
            let (block, place) = (size(within >> 3), u32::try_from(within & 7).unwrap_or(0));
            let Some((which, values)) = parts.get_mut(block).and_then(|part| part.split_first_mut()) else { continue };
            *which |= 1u8.wrapping_shl(place);
            copy(values.get_mut(size(u64::from(place).saturating_mul(2))..).unwrap_or_default(), value);
        }
        low = low.saturating_add(now);
    }
    Ok(())
}
