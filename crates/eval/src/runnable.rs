//! What a pass runs.

use rwkv_forge_kernel::KernelOptions;
use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::Model;

/// A model to run, and how: what a [`Runner`](crate::Runner) is made of.
#[derive(Clone, Debug)]
pub struct Runnable {
    /// The model; its sequences start from [`Model::start`].
    pub model: Model,
    /// How to compute.
    pub options: KernelOptions,
}

impl Runnable {
    /// A model with the kernel's default options.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        Self { model: model.clone(), options: KernelOptions::default() }
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.model.description()
    }
}
