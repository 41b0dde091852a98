//! How each tensor will be held, decided from names, shapes and encodings alone: loading and the prediction of memory
//! both follow it.

use rwkv_forge_matrix::{Arithmetic, Matrix};
use rwkv_forge_model::{TensorSpec, TensorUse, ValueForm};
use rwkv_forge_tensor::{Encoding, format_shape};
use rwkv_forge_weights::{Model, View, WeightsError};

use crate::error::EngineError;

/// How one canonical tensor is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `elements` numbers in f32.
    Vector {
        /// Of the canonical tensor.
        elements: usize,
    },
    /// `count` matrices `[rows, columns]`, the rows of all of them next to each other in the file.
    Packed(Shape),
    /// The same, but not stored in rows of inputs, or in a type that cannot be packed: decoded, turned, and held in
    /// `encoding`.
    Turned {
        /// Of the matrices.
        shape: Shape,
        /// Loses nothing if the stored type is a dense float.
        encoding: Encoding,
    },
    /// The embedding, read row by row when it is needed.
    InFile {
        /// C.
        columns: usize,
    },
    /// The embedding when rows cannot be read: decoded to f32.
    Table {
        /// V * C.
        elements: usize,
    },
}

/// Some matrices of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) count: usize,
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) columns: usize,
}

impl Place {
    /// Decides for one tensor.
    pub(crate) fn of(model: &Model, spec: &TensorSpec) -> Result<Self, EngineError> {
        let stored = model.stored(spec)?;
        let elements = usize::try_from(spec.elements()).unwrap_or(usize::MAX);
        let encoding = stored.encoding;
        if !encoding.is_float() && rwkv_forge_quant::by_encoding(encoding).is_none() {
            return Err(WeightsError::UnsupportedEncoding { tensor: spec.name.clone(), encoding: encoding.name }.into());
        }
        if !spec.role.is_matrix() && !spec.role.is_lora() {
            return Ok(Self::Vector { elements });
        }
        let shape = Shape::of(spec)?;
        let in_rows = stored.order == Some(as_rows(spec).order);
        if spec.role.tensor_use() == TensorUse::RowByToken {
            let in_file = in_rows && stored.form == ValueForm::Canonical;
            return Ok(if in_file { Self::InFile { columns: shape.columns } } else { Self::Table { elements } });
        }
        let is_multiple = stored.factor().is_some();
        if in_rows && is_multiple && Matrix::packs(encoding, shape.columns) {
            return Ok(Self::Packed(shape));
        }
        let encoding = match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::BF16 if is_multiple => encoding,
            // What f16 would round is held in f32. Loading looks at the values: some formats reach beyond the range of f16.
            _ => match rwkv_forge_quant::by_encoding(encoding) {
                Some(format) if format.facts().exact_in_f16 && is_multiple => Encoding::F16,
                Some(_) | None => Encoding::F32,
            },
        };
        Ok(Self::Turned { shape, encoding })
    }

    /// Bytes in memory.
    pub(crate) fn bytes(self, stored: Encoding) -> usize {
        match self {
            Self::Vector { elements } | Self::Table { elements } => elements * size_of::<f32>(),
            Self::Packed(shape) => shape.count * Matrix::packed_bytes(shape.rows, shape.columns, stored),
            Self::Turned { shape, encoding } => shape.count * Matrix::packed_bytes(shape.rows, shape.columns, encoding),
            Self::InFile { .. } => 0,
        }
    }

    /// What a user should know: that a type could not be kept. `held` is what the weights are held in.
    pub(crate) fn note(self, spec: &TensorSpec, stored: Encoding, held: Encoding) -> Option<String> {
        match self {
            Self::Turned { .. } if stored.is_dense() && stored != held => {
                Some(format!("{} is stored as {stored} and held as {held}", spec.name))
            }
            Self::Turned { .. } if stored != held => {
                let why = if held == Encoding::F32 { ", since f16 does not hold all its values" } else { "" };
                Some(format!("{} is stored as {stored}, which cannot be multiplied as it is: decoded to {held}{why}", spec.name))
            }
            Self::Table { .. } => Some(format!("{} is not stored row by row: decoded to f32 and kept in memory", spec.name)),
            Self::Turned { .. } | Self::Vector { .. } | Self::Packed(_) | Self::InFile { .. } => None,
        }
    }
}

impl Shape {
    /// The matrices that a canonical tensor consists of, as linear layers use them.
    fn of(spec: &TensorSpec) -> Result<Self, EngineError> {
        let size = |dim: u64| usize::try_from(dim).unwrap_or(usize::MAX);
        match spec.shape[..] {
            [first, second] if spec.role.is_lora() => Ok(Self { count: 1, rows: size(second), columns: size(first) }),
            [first, second] => Ok(Self { count: 1, rows: size(first), columns: size(second) }),
            [count, first, second] if spec.role.is_lora() => Ok(Self { count: size(count), rows: size(second), columns: size(first) }),
            _ => {
                let expected = "two dimensions".to_owned();
                Err(WeightsError::ShapeMismatch { tensor: spec.name.clone(), found: format_shape(&spec.shape), expected }.into())
            }
        }
    }
}

/// The values of a weight as rows of inputs: factors of low-rank pairs are canonical in the opposite order.
pub(crate) fn as_rows(spec: &TensorSpec) -> View {
    if spec.role.is_lora() { View::TURNED } else { View::CANONICAL }
}

/// What the input of a weight should be.
pub(crate) fn arithmetic_of(matrix: &Matrix, wanted: Arithmetic) -> Arithmetic {
    if wanted == Arithmetic::Float { Arithmetic::Float } else { matrix.arithmetic() }
}
