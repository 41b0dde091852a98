//! rwkv.cpp's buffer: everything about it must be known from elsewhere.

use std::path::Path;

use rwkv_forge_io::InputFile;
use rwkv_forge_tensor::{BoxError, Encoding, decode_dense};
use rwkv_forge_weights::turned;

use super::{F32_BYTES, InitState, LARGEST, StateError, StateFormat, StateHints, StateSizes, in_rwkv_cpp};

pub(super) fn read(path: &Path, hints: &StateHints) -> Result<InitState, BoxError> {
    // All that is missing is said at once.
    let of_sizes = |given: Option<usize>| hints.sizes.is_none() && given.is_none();
    let asked = [("--model-version", hints.version.is_none()), ("--layers", of_sizes(hints.layers)), ("--heads", of_sizes(hints.heads))];
    let asked: Vec<&str> = asked.into_iter().filter(|(_, is_missing)| *is_missing).map(|(option, _)| option).collect();
    let missing = || StateError::Unknowable { format: StateFormat::RwkvCpp.name(), missing: asked.join(" and ") };
    let row = in_rwkv_cpp(hints.version.filter(|_| asked.is_empty()).ok_or_else(missing)?)?;
    let file = InputFile::open(path)?;
    let sizes = match (hints.sizes, hints.layers, hints.heads) {
        (Some(sizes), ..) => sizes,
        (None, Some(layers), Some(heads)) => sizes_of_buffer(path, file.len(), layers, heads)?,
        (None, ..) => return Err(missing().into()),
    };
    let channels = sizes.channels();
    let expected = sizes.layers.saturating_mul(sizes.layer().saturating_add(channels.saturating_mul(2)));
    if (expected as u64).saturating_mul(F32_BYTES) != file.len() {
        let detail = format!(
            "it has {} bytes, but the state of a model of {sizes} has {} in rwkv.cpp",
            file.len(),
            (expected as u64).saturating_mul(F32_BYTES)
        );
        return Err(StateError::SizeMismatch { file: path.to_owned(), detail }.into());
    }
    let mut values = Vec::new();
    decode_dense(Encoding::F32, &file.read_vec(0, file.len(), LARGEST)?, &mut values);
    let mut layers = Vec::with_capacity(sizes.layers);
    for (layer, chunk) in values.chunks_exact((sizes.layer() + 2 * channels).max(1)).enumerate() {
        let (shifts, matrix) = chunk.split_at(2 * channels);
        if shifts.iter().any(|value| *value != 0.0) {
            return Err(StateError::HasTokens { file: path.to_owned(), layer }.into());
        }
        let mut matrix = if row.key_first { turned(matrix, sizes.head_size) } else { matrix.to_vec() };
        if row.divided {
            matrix.iter_mut().for_each(|value| *value *= 8.0);
        }
        layers.push(matrix);
    }
    Ok(InitState { sizes, layers, shifts: Vec::new() })
}

/// Head size from the number of values a head: two token shifts of N, and N x N.
fn sizes_of_buffer(path: &Path, bytes: u64, layers: usize, heads: usize) -> Result<StateSizes, StateError> {
    let per_head = (layers as u64).checked_mul(heads as u64).and_then(|all| all.checked_mul(F32_BYTES)).filter(|all| *all > 0);
    let values = per_head.filter(|all| bytes.is_multiple_of(*all)).map_or(0, |all| bytes / all);
    // n (n + 2) = values has the solution n = sqrt(values + 1) - 1.
    let n = values.saturating_add(1).isqrt().saturating_sub(1);
    if n == 0 || n.checked_mul(n.saturating_add(2)) != Some(values) {
        let detail = format!("its {bytes} bytes cannot be a state of {layers} layers with {heads} heads");
        return Err(StateError::SizeMismatch { file: path.to_owned(), detail });
    }
    Ok(StateSizes { layers, heads, head_size: usize::try_from(n).unwrap_or(0) })
}
