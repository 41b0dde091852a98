//! From stored bytes to tensors on the device: decoding, and undoing what a container did to a canonical tensor.

use std::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use rwkv_forge_model::{ModelDescription, TensorSpec, ValueForm};
use rwkv_forge_tensor::{Encoding, TensorInfo, TensorSource, decode_dense};

use crate::error::ParallelError;
use crate::real::Real;

/// Elements that one task decodes: bounds the raw bytes in memory, and hides the cost of a read call.
const PIECE: usize = 1 << 18;

/// Below this a decay is 0 in f64 as in f32, and sums of logarithms stay finite.
const LOG_OF_ZERO: f64 = -2000.0;

/// Which function of the canonical values x a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// x.
    Plain,
    /// -exp(x), at least [`LOG_OF_ZERO`]: the logarithm of a decay.
    LogDecay,
    /// -exp(-x), the planted sign.
    LogDecayOfNegative,
    /// exp(x): a bonus stored as a logarithm.
    Exp,
}

impl Wanted {
    /// The wanted function of x where the container stores `stored = form(x)`. In double precision: weights that need it
    /// are few.
    fn of_stored(self, form: ValueForm, stored: f64) -> f64 {
        // Functions of x that are stored already are taken as they are, without going through x.
        match (self, form) {
            (Self::LogDecay, ValueForm::NegExp) => return stored.max(LOG_OF_ZERO),
            (Self::LogDecay, ValueForm::ExpNegExp) => return stored.ln().max(LOG_OF_ZERO),
            (Self::Exp, ValueForm::Exp) => return stored,
            _ => {}
        }
        let x = match form {
            ValueForm::Canonical => stored,
            ValueForm::NegExp => (-stored).ln(),
            ValueForm::ExpNegExp => (-stored.ln()).ln(),
            ValueForm::Exp => stored.ln(),
            ValueForm::Eighth => stored * 8.0,
            ValueForm::Halved(times) => stored * 2f64.powi(i32::from(times)),
        };
        match self {
            Self::Plain => x,
            Self::LogDecay => (-x.exp()).max(LOG_OF_ZERO),
            Self::LogDecayOfNegative => (-(-x).exp()).max(LOG_OF_ZERO),
            Self::Exp => x.exp(),
        }
    }
}

/// The tensors of one layer, or those outside of the layers.
pub(crate) struct Weights<'a> {
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) description: &'a ModelDescription,
    pub(crate) layer: Option<usize>,
    pub(crate) device: &'a Device,
}

impl Weights<'_> {
    fn name(&self, suffix: &str) -> String {
        match self.layer {
            Some(layer) => format!("blocks.{layer}.{suffix}"),
            None => suffix.to_owned(),
        }
    }

    pub(crate) fn spec(&self, suffix: &str) -> Result<&TensorSpec, ParallelError> {
        let name = self.name(suffix);
        self.description.find(&name).ok_or(ParallelError::MissingTensor { tensor: name })
    }

    /// A tensor of the canonical values in `shape`, which may leave out or add dimensions of size 1.
    pub(crate) fn tensor<F: Real>(&self, suffix: &str, shape: &[usize]) -> Result<Tensor, ParallelError> {
        self.function::<F>(suffix, shape, Wanted::Plain)
    }

    /// A function of the canonical values.
    pub(crate) fn function<F: Real>(&self, suffix: &str, shape: &[usize], wanted: Wanted) -> Result<Tensor, ParallelError> {
        let spec = self.spec(suffix)?;
        let expected = shape.iter().map(|dim| *dim as u64).product();
        if spec.elements() != expected {
            return Err(ParallelError::ShapeMismatch { tensor: spec.name.clone(), found: spec.elements(), expected });
        }
        let values = Stored::find(self.source, spec)?.read::<F>(wanted)?;
        Ok(Tensor::from_vec(values, shape, self.device)?)
    }

    /// A vector as a row `[1, len]`, ready to meet `[tokens, len]`.
    pub(crate) fn row<F: Real>(&self, suffix: &str, len: usize) -> Result<Tensor, ParallelError> {
        self.tensor::<F>(suffix, &[1, len])
    }

    /// The weight of a linear layer `[outputs, inputs]`, seen as `[inputs, outputs]`, what rows of tokens multiply.
    pub(crate) fn linear<F: Real>(&self, suffix: &str, outputs: usize, inputs: usize) -> Result<Tensor, ParallelError> {
        Ok(self.tensor::<F>(suffix, &[outputs, inputs])?.t()?)
    }

    /// Rows `rows` of a tensor `[total, columns]`.
    pub(crate) fn rows<F: Real>(&self, suffix: &str, rows: Range<usize>, columns: usize) -> Result<Vec<F>, ParallelError> {
        rows_of(self.source, self.spec(suffix)?, rows, columns)
    }
}

/// Rows `rows` of a tensor `[total, columns]` of a source.
pub(crate) fn rows_of<F: Real>(
    source: &dyn TensorSource,
    spec: &TensorSpec,
    rows: Range<usize>,
    columns: usize,
) -> Result<Vec<F>, ParallelError> {
    Stored::find(source, spec)?.read_rows(rows, columns)
}

/// A size of a tensor that a file of this machine really holds.
fn size(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A canonical tensor as it lies in the source.
struct Stored<'a> {
    source: &'a dyn TensorSource,
    spec: &'a TensorSpec,
    info: &'a TensorInfo,
}

impl<'a> Stored<'a> {
    fn find(source: &'a dyn TensorSource, spec: &'a TensorSpec) -> Result<Self, ParallelError> {
        let info = source.tensors().get(spec.source_index).ok_or_else(|| ParallelError::MissingTensor { tensor: spec.name.clone() })?;
        let stored = Self { source, spec, info };
        let shares = u64::from(spec.recover.part.1.max(1)) * u64::from(spec.recover.columns.1.max(1));
        let (found, expected) = (info.elements().unwrap_or(u64::MAX), spec.elements().saturating_mul(shares));
        if found == expected { Ok(stored) } else { Err(ParallelError::ShapeMismatch { tensor: spec.name.clone(), found, expected }) }
    }

    /// The whole canonical tensor, row-major.
    fn read<F: Real>(&self, wanted: Wanted) -> Result<Vec<F>, ParallelError> {
        let recover = &self.spec.recover;
        let len = size(self.spec.elements()) * recover.columns.1.max(1) as usize;
        let first = len * recover.part.0 as usize;
        let mut values = vec![F::default(); len];
        values.par_chunks_mut(PIECE).enumerate().try_for_each(|(index, piece)| self.decode(first + index * PIECE, piece))?;
        if recover.columns.1 > 1 {
            values = self.take_columns(&values);
        }
        if recover.transposed {
            values = self.transpose_back(&values);
        }
        if wanted != Wanted::Plain || recover.form != ValueForm::Canonical {
            let function = |value: &mut F| *value = F::from_f64(wanted.of_stored(recover.form, value.to_f64()));
            values.par_iter_mut().for_each(function);
        }
        Ok(values)
    }

    /// As [`Stored::read`], but only some rows; the others are not touched where the rows lie together in the file.
    fn read_rows<F: Real>(&self, rows: Range<usize>, columns: usize) -> Result<Vec<F>, ParallelError> {
        let recover = &self.spec.recover;
        let expected = (rows.end * columns) as u64;
        if self.spec.elements() < expected {
            return Err(ParallelError::ShapeMismatch { tensor: self.spec.name.clone(), found: self.spec.elements(), expected });
        }
        if recover.transposed || recover.columns.1 > 1 || recover.form != ValueForm::Canonical {
            let all = self.read::<F>(Wanted::Plain)?;
            return Ok(all[rows.start * columns..rows.end * columns].to_vec());
        }
        let first = size(self.spec.elements()) * recover.part.0 as usize + rows.start * columns;
        let mut values = vec![F::default(); rows.len() * columns];
        values.par_chunks_mut(PIECE).enumerate().try_for_each(|(index, piece)| self.decode(first + index * PIECE, piece))?;
        Ok(values)
    }

    /// Of each stored row only the piece that is this tensor's.
    fn take_columns<F: Real>(&self, values: &[F]) -> Vec<F> {
        let (piece, of) = (self.spec.recover.columns.0 as usize, self.spec.recover.columns.1 as usize);
        let row = self.info.shape.last().map_or(1, |dim| size(*dim));
        let width = row / of;
        values.chunks_exact(row).flat_map(|row| &row[piece * width..][..width]).copied().collect()
    }

    /// From `[.., columns, rows]` to `[.., rows, columns]`.
    fn transpose_back<F: Real>(&self, values: &[F]) -> Vec<F> {
        let [.., rows, columns] = *self.spec.shape.as_slice() else { return values.to_vec() };
        let (rows, columns) = (size(rows), size(columns));
        let swap = |matrix: &[F]| (0..rows * columns).map(|at| matrix[at % columns * rows + at / columns]).collect::<Vec<F>>();
        values.chunks_exact((rows * columns).max(1)).flat_map(swap).collect()
    }

    /// Elements `start .. start + out.len()` of the stored tensor.
    fn decode<F: Real>(&self, start: usize, out: &mut [F]) -> Result<(), ParallelError> {
        let encoding = self.info.encoding;
        let (block, bytes) = (encoding.block_len.max(1) as usize, encoding.block_bytes as usize);
        let (first, last) = (start / block, (start + out.len()).div_ceil(block));
        let mut raw = vec![0; (last - first) * bytes];
        let read = self.source.read_at(self.spec.source_index, (first * bytes) as u64, &mut raw);
        read.map_err(|error| ParallelError::Read { tensor: self.spec.name.clone(), error })?;
        if encoding == Encoding::F64 {
            let doubles = raw.as_chunks::<8>().0.iter().map(|bytes| F::from_f64(f64::from_le_bytes(*bytes)));
            out.iter_mut().zip(doubles).for_each(|(out, value)| *out = value);
            return Ok(());
        }
        let mut singles = Vec::new();
        if !decode_dense(encoding, &raw, &mut singles) {
            let Some(format) = rwkv_forge_quant::by_encoding(encoding) else {
                return Err(ParallelError::UnsupportedEncoding { tensor: self.spec.name.clone(), encoding: encoding.name });
            };
            singles.resize((last - first) * block, 0.0);
            format.decode(&raw, &mut singles);
        }
        out.iter_mut().zip(&singles[start - first * block..]).for_each(|(out, value)| *out = F::from_f64(f64::from(*value)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rwkv_forge_model::{ModelDescription, Recover, TensorSpec, ValueForm, Version, describe};
    use rwkv_forge_quant::{BlockFormat, Q8_0};
    use rwkv_forge_tensor::{Encoding, TensorSource};
    use rwkv_forge_testkit::models::{MemorySource, Sizes, encode, random_model};

    use super::{Stored, Wanted, Weights};
    use crate::error::ParallelError;

    /// 48 * 32 values, all different.
    fn matrix() -> Vec<f32> {
        (0..48 * 32).map(|index| 0.01 + index as f32 / 2048.0).collect()
    }

    fn described() -> ModelDescription {
        describe(random_model(Version::V7, &Sizes::TINY, 1).tensors()).unwrap()
    }

    /// The ffn key `[48, 32]` stored like this.
    fn spec(recover: Recover) -> TensorSpec {
        let found = described().find("blocks.0.ffn.key.weight").unwrap().clone();
        TensorSpec { source_index: 0, recover, ..found }
    }

    fn read(shape: &[u64], encoding: Encoding, bytes: Vec<u8>, recover: Recover, wanted: Wanted) -> Result<Vec<f64>, ParallelError> {
        let source = MemorySource::new(vec![("stored".to_owned(), shape.to_vec(), encoding, bytes)]);
        let spec = spec(recover);
        Stored::find(&source, &spec)?.read(wanted)
    }

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().map(|value| f64::from(*value)).collect()
    }

    fn swap(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
    }

    #[test]
    fn stored_layouts_are_undone() {
        let canonical = matrix();
        let as_is = read(&[48, 32], Encoding::F32, encode(Encoding::F32, &canonical), Recover::AS_IS, Wanted::Plain);
        assert_eq!(as_is.unwrap(), wide(&canonical));
        let swapped = encode(Encoding::F32, &swap(&canonical, 48, 32));
        assert_eq!(read(&[32, 48], Encoding::F32, swapped.clone(), Recover::TRANSPOSED, Wanted::Plain).unwrap(), wide(&canonical));
        assert_ne!(read(&[32, 48], Encoding::F32, swapped, Recover::AS_IS, Wanted::Plain).unwrap(), wide(&canonical));
        // The last of three parts, itself transposed.
        let other = vec![9.0; 2 * 48 * 32];
        let stack = encode(Encoding::F32, &[other, swap(&canonical, 48, 32)].concat());
        let recover = Recover { part: (2, 3), ..Recover::TRANSPOSED };
        assert_eq!(read(&[3, 32, 48], Encoding::F32, stack, recover, Wanted::Plain).unwrap(), wide(&canonical));
        // The second of two pieces of each row.
        let rows: Vec<f32> = canonical.chunks(32).flat_map(|row| [vec![7.0; 32], row.to_vec()].concat()).collect();
        let recover = Recover { columns: (1, 2), ..Recover::AS_IS };
        assert_eq!(read(&[48, 64], Encoding::F32, encode(Encoding::F32, &rows), recover, Wanted::Plain).unwrap(), wide(&canonical));
    }

    #[test]
    fn stored_functions_are_undone() {
        let canonical = matrix();
        let forms =
            [ValueForm::NegExp, ValueForm::ExpNegExp, ValueForm::Exp, ValueForm::Eighth, ValueForm::Halved(3), ValueForm::Canonical];
        for form in forms {
            let stored: Vec<f32> = canonical.iter().map(|value| form.apply(*value)).collect();
            let bytes = encode(Encoding::F32, &stored);
            let recover = Recover::AS_IS.with_form(form);
            let plain = read(&[48, 32], Encoding::F32, bytes.clone(), recover, Wanted::Plain).unwrap();
            let log_decay = read(&[48, 32], Encoding::F32, bytes.clone(), recover, Wanted::LogDecay).unwrap();
            let exp = read(&[48, 32], Encoding::F32, bytes, recover, Wanted::Exp).unwrap();
            for (((canonical, plain), log_decay), exp) in wide(&canonical).into_iter().zip(plain).zip(log_decay).zip(exp) {
                // The stored number was rounded to f32, 6e-8 of it, and logarithms of small numbers magnify that.
                assert!((plain - canonical).abs() <= 1e-5 * canonical.max(0.1), "{form:?}: {plain} for {canonical}");
                assert!((log_decay + canonical.exp()).abs() <= 1e-5 * canonical.exp(), "{form:?}: {log_decay}");
                assert!((exp - canonical.exp()).abs() <= 1e-5 * canonical.exp(), "{form:?}: {exp}");
            }
        }
        // A decay that has become 0 stays one that can be summed.
        let zeros = read(&[48, 32], Encoding::F32, vec![0; 48 * 32 * 4], Recover::AS_IS.with_form(ValueForm::ExpNegExp), Wanted::LogDecay);
        assert!(zeros.unwrap().iter().all(|log| log.is_finite() && log.exp() == 0.0));
    }

    #[test]
    fn encodings_are_decoded() {
        let canonical = matrix();
        let doubles: Vec<u8> = canonical.iter().flat_map(|value| (f64::from(*value) + 1e-12).to_le_bytes()).collect();
        let found = read(&[48, 32], Encoding::F64, doubles, Recover::AS_IS, Wanted::Plain).unwrap();
        assert_eq!(found[5], f64::from(canonical[5]) + 1e-12);
        let mut blocks = vec![0; 48 * 34];
        Q8_0.encode(&canonical, &mut blocks).unwrap();
        let mut expected = vec![0.0; 48 * 32];
        Q8_0.decode(&blocks, &mut expected);
        assert_eq!(read(&[48, 32], Q8_0.encoding(), blocks, Recover::AS_IS, Wanted::Plain).unwrap(), wide(&expected));
        let integers = read(&[48, 32], Encoding::I32, vec![0; 48 * 32 * 4], Recover::AS_IS, Wanted::Plain);
        assert!(matches!(integers, Err(ParallelError::UnsupportedEncoding { .. })));
        let short = read(&[48, 31], Encoding::F32, vec![0; 48 * 31 * 4], Recover::AS_IS, Wanted::Plain);
        assert!(matches!(short, Err(ParallelError::ShapeMismatch { .. })));
    }

    #[test]
    fn rows_are_those_of_the_whole() {
        let canonical = matrix();
        for (recover, stored) in [(Recover::AS_IS, canonical.clone()), (Recover::TRANSPOSED, swap(&canonical, 48, 32))] {
            let shape = if recover.transposed { vec![32, 48] } else { vec![48, 32] };
            let source = MemorySource::new(vec![("stored".to_owned(), shape, Encoding::F32, encode(Encoding::F32, &stored))]);
            let mut description = described();
            description.tensors = vec![spec(recover)];
            let weights = Weights { source: &source, description: &description, layer: Some(0), device: &candle_core::Device::Cpu };
            let rows = weights.rows::<f32>("ffn.key.weight", 5..8, 32).unwrap();
            assert_eq!(rows, canonical[5 * 32..8 * 32]);
            assert!(weights.rows::<f32>("ffn.key.weight", 40..49, 32).is_err());
        }
    }
}
