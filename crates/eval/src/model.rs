//! A model to run.

use rwkv_forge_kernel::KernelOptions;
use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::Model as Weights;

/// A model to run, and how.
#[derive(Clone, Debug)]
pub struct Model {
    /// The weights.
    pub weights: Weights,
    /// How to compute.
    pub options: KernelOptions,
}

impl Model {
    /// A model with the kernel's default options.
    #[must_use]
    pub fn new(weights: &Weights) -> Self {
        Self { weights: weights.clone(), options: KernelOptions::default() }
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.weights.description()
    }
}
