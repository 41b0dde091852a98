//! Rows of tables, read from the file when their token comes.

use rwkv_forge_model::TensorSpec;
use rwkv_forge_quant::{BlockFormat, NonFinite};
use rwkv_forge_tensor::{Encoding, TensorSource, bf16_to_f32, f16_to_f32};
use rwkv_forge_weights::{Model, Stored};

use crate::error::EngineError;
use crate::load::Loader;
use crate::place::Place;

/// A table `[rows, width]` of which one row at a time is wanted.
pub(crate) struct Rows {
    model: Model,
    spec: TensorSpec,
    width: usize,
    held: Held,
}

enum Held {
    /// Read when they are wanted.
    InFile { stored: Stored, format: Option<&'static dyn BlockFormat>, row_bytes: usize },
    /// Decoded, since the file does not have them row by row.
    Decoded(Vec<f32>),
}

impl Rows {
    /// The tensor `name`, which must be `[rows, width]`.
    pub(crate) fn load(loader: &mut Loader<'_>, name: &str, rows: usize, width: usize) -> Result<Self, EngineError> {
        let spec = loader.spec(name)?;
        if spec.shape[..] != [rows as u64, width as u64] {
            return Err(loader.mismatch(spec, format!("[{rows}, {width}]")));
        }
        let place = Place::of(loader.model, spec)?;
        let stored = loader.model.stored(spec)?;
        loader.notes.extend(place.note(spec, stored.encoding, Encoding::F32));
        let held = match place {
            Place::InFile { .. } => {
                let row_bytes = stored.encoding.row_bytes(width as u64).map_err(|error| loader.mismatch(spec, error.to_string()))?;
                let row_bytes = usize::try_from(row_bytes).map_err(|_| loader.mismatch(spec, "rows that fit in memory".to_owned()))?;
                Held::InFile { stored, format: rwkv_forge_quant::by_encoding(stored.encoding), row_bytes }
            }
            Place::Vector { .. } | Place::Packed(_) | Place::Turned { .. } | Place::Table { .. } => {
                Held::Decoded(loader.model.values(spec)?)
            }
        };
        Ok(Self { model: loader.model.clone(), spec: spec.clone(), width, held })
    }

    /// Numbers of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Bytes of a stored row; 0 where none is read.
    pub(crate) fn row_bytes(&self) -> usize {
        match &self.held {
            Held::InFile { row_bytes, .. } => *row_bytes,
            Held::Decoded(_) => 0,
        }
    }

    /// Row `row`, which the table has, into `out [width]`. `bytes` is scratch, at least as long as a stored row. Values that are NaN or
    /// infinite are refused.
    pub(crate) fn read(&self, row: usize, bytes: &mut [u8], out: &mut [f32]) -> Result<(), EngineError> {
        let first = row * self.width;
        match &self.held {
            Held::Decoded(table) => out.copy_from_slice(&table[first..first + self.width]),
            Held::InFile { stored, format, row_bytes } => {
                let bytes = &mut bytes[..*row_bytes];
                let failed = |error| EngineError::Read { tensor: self.spec.name.clone(), error };
                self.model.read_stored(&self.spec, stored, first, bytes).map_err(failed)?;
                decode(stored.encoding, *format, bytes, out);
                if out.iter().fold(false, |found, value| found | !value.is_finite()) {
                    return Err(non_finite_row(&self.model, self.spec.source_index, (stored.first() + first) as u64, out));
                }
            }
        }
        Ok(())
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match &self.held {
            Held::InFile { .. } => 0,
            Held::Decoded(table) => table.len() * size_of::<f32>(),
        }
    }
}

/// What is wrong with the row of a stored tensor that begins at element `first` and has these values.
fn non_finite_row(source: &dyn TensorSource, index: usize, first: u64, values: &[f32]) -> EngineError {
    let columns = values.len() as u64;
    let bad = |value: &f32| !value.is_finite();
    NonFinite {
        file: source.path().to_path_buf(),
        tensor: source.tensors().get(index).map_or_else(String::new, |info| info.name.clone()),
        first: first + values.iter().position(bad).unwrap_or(0) as u64,
        columns,
        count: values.iter().filter(|value| bad(value)).count() as u64,
    }
    .into()
}

/// Decodes a row without allocating.
fn decode(encoding: Encoding, format: Option<&'static dyn BlockFormat>, bytes: &[u8], out: &mut [f32]) {
    match (encoding, format) {
        (Encoding::F16, _) => fill(out, bytes, |b| f16_to_f32(u16::from_le_bytes(b))),
        (Encoding::BF16, _) => fill(out, bytes, |b| bf16_to_f32(u16::from_le_bytes(b))),
        (_, Some(format)) => format.decode(bytes, out),
        #[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is what is wanted")]
        _ => fill(out, bytes, |b| f64::from_le_bytes(b) as f32),
    }
}

fn fill<const N: usize>(out: &mut [f32], bytes: &[u8], decode: impl Fn([u8; N]) -> f32) {
    for (to, from) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *to = decode(*from);
    }
}
