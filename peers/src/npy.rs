//! Just enough of NumPy's file format: little-endian arrays in C order of two dtypes.

use std::path::Path;

/// A matrix `[rows, columns]`, row after row.
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Matrix {
    /// Row `index`, `[columns]`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }

    /// A bare float32 file of `rows` rows.
    pub fn from_raw(path: &Path, rows: usize) -> Result<Self, String> {
        let values = floats(&read(path)?);
        if rows == 0 || values.is_empty() || !values.len().is_multiple_of(rows) {
            return Err(format!("{}: {} values are not {rows} rows", path.display(), values.len()));
        }
        Ok(Self { rows, columns: values.len() / rows, values })
    }

    /// A float32 .npy file of two dimensions.
    pub fn from_npy(path: &Path) -> Result<Self, String> {
        let file = read(path)?;
        let (shape, data) = open(path, &file, "<f4")?;
        match shape[..] {
            [rows, columns] if data.len() == rows * columns * 4 => Ok(Self { rows, columns, values: floats(data) }),
            _ => Err(format!("{}: shape {shape:?} where [rows, columns] was expected", path.display())),
        }
    }
}

/// The values of a uint16 .npy file of one dimension.
pub fn tokens(path: &Path) -> Result<Vec<u16>, String> {
    let file = read(path)?;
    let (_, data) = open(path, &file, "<u2")?;
    Ok(data.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Shape and data of a version 1 or 2 file of the given dtype.
fn open<'a>(path: &Path, file: &'a [u8], dtype: &str) -> Result<(Vec<usize>, &'a [u8]), String> {
    let parse = || {
        let rest = file.strip_prefix(b"\x93NUMPY")?;
        let (length, rest) = match rest.first()? {
            1 => (usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)), rest.get(4..)?),
            2 => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, rest.get(6..)?),
            _ => return None,
        };
        let header = std::str::from_utf8(rest.get(..length)?).ok()?;
        if !header.contains(&format!("'descr': '{dtype}'")) || !header.contains("'fortran_order': False") {
            return None;
        }
        let shape = header.split_once("'shape': (")?.1.split_once(')')?.0;
        let shape =
            shape.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect::<Result<Vec<usize>, _>>().ok()?;
        Some((shape, rest.get(length..)?))
    };
    parse().ok_or_else(|| format!("{}: no .npy file of dtype {dtype} in C order", path.display()))
}
