//! How a canonical tensor is used as the weight of a linear layer.

use rwkv_forge_model::TensorSpec;
use rwkv_forge_tensor::{BoxError, format_shape};

use crate::model::Model;
use crate::replace::ReplaceError;
use crate::stored::{Order, View};

/// The matrices of a tensor, as linear layers use them: `count` times `[rows, columns]`, rows being outputs and columns inputs.
/// Factors of low-rank pairs are canonical as `[inputs, outputs]`; here they are turned. The embedding has a row a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Number of matrices; 1 but for RWKV-6's `time_maa_w2`.
    pub count: usize,
    /// Outputs of each.
    pub rows: usize,
    /// Inputs of each.
    pub columns: usize,
}

impl Weight {
    /// For a matrix or a factor of a low-rank pair.
    ///
    /// # Errors
    /// [`ReplaceError::NotAMatrix`] for everything else.
    pub fn of(spec: &TensorSpec) -> Result<Self, ReplaceError> {
        let shape: Vec<usize> = spec.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).collect();
        let lora = spec.role.is_lora();
        match shape[..] {
            [inputs, outputs] if lora => Ok(Self { count: 1, rows: outputs, columns: inputs }),
            [rows, columns] if spec.role.is_matrix() => Ok(Self { count: 1, rows, columns }),
            [count, inputs, outputs] if lora => Ok(Self { count, rows: outputs, columns: inputs }),
            _ => Err(ReplaceError::NotAMatrix { tensor: spec.name.clone(), shape: format_shape(&spec.shape) }),
        }
    }

    /// Rows of all matrices.
    #[must_use]
    pub fn all_rows(&self) -> usize {
        self.count * self.rows
    }

    /// Elements of all matrices.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.all_rows() * self.columns
    }

    /// The order of elements in which rows of outputs lie one after the other.
    #[must_use]
    pub fn order(spec: &TensorSpec) -> Order {
        if spec.role.is_lora() { Order::Turned } else { Order::Canonical }
    }

    /// The values, `[count * rows, columns]`, as canonical numbers.
    ///
    /// # Errors
    /// When the tensor cannot be read or is no matrix.
    pub fn read(model: &Model, spec: &TensorSpec) -> Result<Vec<f32>, BoxError> {
        Self::of(spec)?;
        Ok(model.read(spec, View { order: Self::order(spec), ..View::CANONICAL })?)
    }
}
