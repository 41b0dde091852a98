//! Weights by name, in the shapes that layers need.

use rwkv_forge_model::{ModelDescription, TensorSpec, ValueForm};
use rwkv_forge_tensor::format_shape;
use rwkv_forge_weights::{Model, View, WeightsError};

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::real::Real;

/// Loads tensors by name with a check of their number of elements.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) model: &'a Model,
    pub(crate) description: &'a ModelDescription,
}

/// The canonical name of a tensor of layer `layer`.
pub(crate) fn tensor_name(layer: usize, suffix: &str) -> String {
    format!("blocks.{layer}.{suffix}")
}

impl<'a> Weights<'a> {
    pub(crate) fn of(model: &'a Model) -> Self {
        Self { model, description: model.description() }
    }

    pub(crate) fn spec(&self, name: &str) -> Result<&'a TensorSpec, KernelError> {
        Ok(self.model.spec(name)?)
    }

    /// True when the model has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.model.has(name)
    }

    /// A tensor of `len` elements, whatever its dimensions of size 1 are.
    pub(crate) fn vector<F: Real>(&self, name: &str, len: usize) -> Result<Vec<F>, KernelError> {
        self.vector_in_form(name, len, ValueForm::Canonical)
    }

    /// As [`Weights::vector`], giving a function of the canonical values.
    pub(crate) fn vector_in_form<F: Real>(&self, name: &str, len: usize, form: ValueForm) -> Result<Vec<F>, KernelError> {
        let spec = self.spec(name)?;
        if spec.elements() != len as u64 {
            return Err(shape_error(spec, format!("{len} elements")));
        }
        Ok(self.model.read(spec, View::CANONICAL.in_form(form))?)
    }

    /// Checks that the canonical shape is `[rows, columns]`.
    pub(crate) fn expect_shape(&self, spec: &TensorSpec, rows: usize, columns: usize) -> Result<(), KernelError> {
        match spec.shape[..] {
            [found, width] if found == rows as u64 && width == columns as u64 => Ok(()),
            _ => Err(shape_error(spec, format!("[{rows}, {columns}]"))),
        }
    }

    /// A linear layer's weight `[outputs, inputs]`.
    pub(crate) fn matrix<F: Real>(&self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix<F>, KernelError> {
        let spec = self.spec(name)?;
        self.expect_shape(spec, outputs, inputs)?;
        Ok(Matrix::new(outputs, inputs, self.model.values(spec)?))
    }

    /// A factor of a low-rank pair, canonical as `[inputs, outputs]` because it multiplies a row vector from the right.
    pub(crate) fn factor<F: Real>(&self, name: &str, inputs: usize, outputs: usize) -> Result<Matrix<F>, KernelError> {
        let spec = self.spec(name)?;
        self.expect_shape(spec, inputs, outputs)?;
        Ok(Matrix::new(outputs, inputs, self.model.read(spec, View::TURNED)?))
    }
}

fn shape_error(spec: &TensorSpec, expected: String) -> KernelError {
    WeightsError::ShapeMismatch { tensor: spec.name.clone(), found: format_shape(&spec.shape), expected }.into()
}
