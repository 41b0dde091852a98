//! A planted fault for the comparisons: a copy of a safetensors file in which two rows of one matrix have changed places.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What [`swap_rows`] does, for tables.
pub const ROWS_SWAPPED: &str = "two rows swapped";

/// Copies `file`, or the directory around one safetensors file, to `copy`, and swaps the first two rows of the first tensor
/// whose name ends with `suffix`.
pub fn swap_rows(file: &Path, copy: &Path, suffix: &str) -> Result<(), String> {
    if !file.is_dir() {
        return std::fs::write(copy, swapped(file, suffix)?).map_err(failed(copy));
    }
    std::fs::create_dir_all(copy).map_err(failed(copy))?;
    for entry in std::fs::read_dir(file).map_err(failed(file))? {
        let from: PathBuf = entry.map_err(failed(file))?.path();
        let to = copy.join(from.file_name().unwrap_or_default());
        if from.extension().is_some_and(|end| end == "safetensors") {
            swap_rows(&from, &to, suffix)?;
        } else {
            std::fs::copy(&from, &to).map_err(failed(&from))?;
        }
    }
    Ok(())
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn swapped(file: &Path, suffix: &str) -> Result<Vec<u8>, String> {
    let mut bytes = std::fs::read(file).map_err(failed(file))?;
    let (row, start) = place(&bytes, suffix).ok_or_else(|| format!("{}: no matrix named *{suffix}", file.display()))?;
    let (first, second) = bytes[start..start + 2 * row].split_at_mut(row);
    first.swap_with_slice(second);
    Ok(bytes)
}

/// Bytes of a row, and where the first one begins.
fn place(bytes: &[u8], suffix: &str) -> Option<(usize, usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Value = serde_json::from_slice(rest.get(..length)?).ok()?;
    let (_, tensor) = header.as_object()?.iter().find(|(name, _)| name.ends_with(suffix))?;
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let (begin, end) = (number(&tensor["data_offsets"][0])?, number(&tensor["data_offsets"][1])?);
    let rows = number(&tensor["shape"][0])?;
    Some(((end - begin).checked_div(rows)?, 8 + length + begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_change_places_and_nothing_else_does() {
        let header = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b.w":{"dtype":"F16","shape":[3,2],"data_offsets":[2,14]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend(0..14u8);
        assert_eq!(place(&file, ".w"), Some((4, 8 + header.len() + 2)));
        let path = std::env::temp_dir().join(format!("rwkv-forge-peers-{}.safetensors", std::process::id()));
        std::fs::write(&path, &file).unwrap();
        let swapped = swapped(&path, ".w").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(swapped[8 + header.len()..], [0, 1, 6, 7, 8, 9, 2, 3, 4, 5, 10, 11, 12, 13]);
        assert_eq!(swapped[..8 + header.len()], file[..8 + header.len()]);
    }
}
