//! Stored weights that are no numbers: which tensor, where in it, and how many. Start at [`examine`].
//!
//! A scale that is NaN or infinite makes its whole block so. Dense f64 counts as it is used, rounded to f32.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::PathBuf;

use rayon::prelude::*;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic, Encoding, TensorInfo, TensorSource};
use thiserror::Error;

use crate::{by_encoding, decode_rows};

/// Bytes that a thread looks at in one step.
const STEP: u64 = 1 << 20;

/// A tensor with values that are NaN or infinite.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{tensor} in {} holds {count} value(s) that are NaN or infinite, the first at element {first}{}: nothing can be computed with such \
     weights; repair the checkpoint",
    file.display(),
    in_row(*first, *columns)
)]
pub struct NonFinite {
    /// The path that the user gave.
    pub file: PathBuf,
    /// The tensor's name in the file.
    pub tensor: String,
    /// Index of the first such element, as stored.
    pub first: u64,
    /// Elements of a row; 0 for tensors of a single row.
    pub columns: u64,
    /// How many elements are so.
    pub count: u64,
}

fn in_row(first: u64, columns: u64) -> String {
    match first.checked_div(columns).zip(first.checked_rem(columns)) {
        Some((row, column)) => format!(" (row {row}, column {column})"),
        None => String::new(),
    }
}

impl Diagnostic for NonFinite {
    fn kind(&self) -> &'static str {
        "NonFinite"
    }

    fn class(&self) -> Class {
        Class::Refused
    }
}

/// Index of the first element of some whole blocks that decodes to NaN or infinity; `None` when there is none, or when `encoding`
/// holds no floating-point numbers that can be decoded.
#[must_use]
pub fn first_non_finite(encoding: Encoding, bytes: &[u8]) -> Option<usize> {
    if encoding.is_dense() {
        return rwkv_forge_tensor::first_non_finite(encoding, bytes);
    }
    let block = by_encoding(encoding)?.validate(bytes).err()?;
    Some(block.saturating_mul(encoding.block_len as usize))
}

/// Elements of some whole blocks that decode to NaN or infinity.
fn count(encoding: Encoding, bytes: &[u8]) -> Result<u64, BoxError> {
    let mut values = Vec::new();
    decode_rows(encoding, bytes, &mut values)?;
    Ok(values.iter().filter(|value| !value.is_finite()).count() as u64)
}

/// The values of one tensor that are NaN or infinite; `None` when all are finite, or when the tensor holds no floating-point numbers
/// that can be decoded. Reads the whole tensor, on all threads, some MiB at a time; `progress` is called with the bytes just read.
///
/// # Errors
/// When the tensor cannot be read.
pub fn non_finite(source: &dyn TensorSource, index: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<NonFinite>, BoxError> {
    let Some(info) = source.tensors().get(index) else { return Ok(None) };
    let encoding = info.encoding;
    if !encoding.is_float() && by_encoding(encoding).is_none() {
        return Ok(None);
    }
    let block = u64::from(encoding.block_bytes).max(1);
    let step = STEP.checked_div(block).unwrap_or(1).max(1).saturating_mul(block);
    let total = info.byte_len().map_err(|error| crate::DecodeError::Shape { name: info.name.clone(), error })?;
    let look = |buffer: &mut Vec<u8>, piece: u64| -> Result<Option<(u64, u64)>, BoxError> {
        let start = piece.saturating_mul(step);
        buffer.resize(usize::try_from(step.min(total.saturating_sub(start))).unwrap_or(0), 0);
        source.read_at(index, start, buffer)?;
        progress(buffer.len() as u64);
        let Some(first) = first_non_finite(encoding, buffer) else { return Ok(None) };
        let before = start.checked_div(block).unwrap_or(0).saturating_mul(u64::from(encoding.block_len));
        // A block may be bad by its scale while some of its codes are zeros.
        Ok(Some((before.saturating_add(first as u64), count(encoding, buffer)?.max(1))))
    };
    let pieces: Vec<_> = (0..total.div_ceil(step)).into_par_iter().map_init(Vec::new, look).collect();
    let mut found: Option<(u64, u64)> = None;
    for (first, count) in pieces.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()? {
        let (earliest, before) = found.unwrap_or((first, 0));
        found = Some((earliest, before.saturating_add(count)));
    }
    Ok(found.map(|(first, count)| NonFinite {
        file: source.path().to_path_buf(),
        tensor: info.name.clone(),
        first,
        columns: columns(info),
        count,
    }))
}

/// Elements of a row of a tensor with several.
fn columns(info: &TensorInfo) -> u64 {
    match (info.shape.split_last(), info.elements()) {
        (Some((columns, _)), Ok(elements)) if elements > *columns => *columns,
        _ => 0,
    }
}

/// All tensors with values that are NaN or infinite, in the file's order, those included that no model uses.
///
/// # Errors
/// When a tensor cannot be read.
pub fn all_non_finite(source: &dyn TensorSource) -> Result<Vec<NonFinite>, BoxError> {
    let found = (0..source.tensors().len()).filter_map(|index| non_finite(source, index, &|_| ()).transpose());
    found.collect()
}

/// Looks at every value of some tensors; tensors that hold no floating-point numbers are passed over. `progress` is called with the
/// bytes just read.
///
/// # Errors
/// [`NonFinite`] for the first tensor with a value that is NaN or infinite; read errors.
pub fn check_values(
    source: &dyn TensorSource,
    tensors: impl IntoIterator<Item = usize>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), BoxError> {
    // Tensor after tensor, each on all threads: readers that must gather a tensor before they can give a part of it do so once.
    tensors.into_iter().try_for_each(|index| match non_finite(source, index, progress)? {
        Some(found) => Err(found.into()),
        None => Ok(()),
    })
}

/// Reads a file for its digests and checksums as [`TensorSource::check_integrity`] does, and beside that looks at every value of every
/// tensor. Both go through the file from its start at the same time, so that what one has read the other need not wait for.
///
/// ```
/// # use rwkv_forge_testkit::models::MemorySource;
/// // `source` is any open file; in this one, a training run went astray.
/// # let source = MemorySource::from_f32(vec![("head.weight".to_owned(), vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0])]);
/// let error = rwkv_forge_quant::examine(&source, &|_bytes| ()).unwrap_err();
/// assert_eq!(error.kind(), "NonFinite");
/// assert!(error.to_string().contains("head.weight"));
/// ```
///
/// # Errors
/// As [`TensorSource::check_integrity`] and [`check_values`]; a wrong checksum explains whatever else is wrong and comes first.
pub fn examine(source: &dyn TensorSource, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
    let (digests, values) = rayon::join(|| source.check_integrity(progress), || check_values(source, 0..source.tensors().len(), &|_| ()));
    let digests = digests?;
    values?;
    Ok(digests)
}
