//! A model: tensors of a file, and what they mean.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_model::{ModelDescription, ModelError, TensorSpec};
use rwkv_forge_tensor::{TensorSource, Wrapper};

use crate::error::WeightsError;
use crate::state::State;

/// The tensors of a source and the description of what they are. A copy shares both with the original.
///
/// ```
/// use rwkv_forge_tensor::Encoding;
/// use rwkv_forge_weights::{Bytes, Model, Replacement, Replacements, View};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// // `checkpoint` is any open file with the names that trainers save, as `rwkv_forge_checkpoint::open` returns it.
/// let model = Model::describe(checkpoint)?;
/// println!("{}", model.description().summary());
///
/// // The values as trainers save them, whatever a container made of them.
/// let spec = model.spec("blocks.0.att.key.weight")?;
/// let values: Vec<f32> = model.values(spec)?;
///
/// // The same model with half of that matrix: a model as well, which whatever takes a model takes.
/// let bytes = values.iter().flat_map(|value| (value / 2.0).to_le_bytes()).collect();
/// let mut changes = Replacements::new();
/// changes.put(&spec.name, Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Memory(bytes)));
/// let changed = model.with(changes)?;
/// let halves: Vec<f32> = changed.values(changed.spec(&spec.name)?)?;
/// assert_eq!(halves[0], values[0] / 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Model {
    source: Arc<dyn TensorSource>,
    description: Arc<ModelDescription>,
    /// What it was told to start from.
    pub(crate) start: Option<Arc<State<f32>>>,
}

impl Model {
    /// The tensors of `source`, as `description` says.
    #[must_use]
    pub fn new(source: impl TensorSource + 'static, description: ModelDescription) -> Self {
        Self::over(Arc::new(source), description)
    }

    /// As [`Model::new`], of a source that others hold too.
    #[must_use]
    pub fn over(source: Arc<dyn TensorSource>, description: ModelDescription) -> Self {
        Self { source, description: Arc::new(description), start: None }
    }

    /// The model that tensors with the names of a checkpoint are.
    ///
    /// # Errors
    /// [`rwkv_forge_model::describe`]'s.
    pub fn describe(source: impl TensorSource + 'static) -> Result<Self, ModelError> {
        let description = rwkv_forge_model::describe(source.tensors())?;
        Ok(Self::new(source, description))
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// The tensors as they are stored. Who wants values asks the model itself.
    #[must_use]
    pub fn source(&self) -> &dyn TensorSource {
        &*self.source
    }

    /// The same source, to be held.
    #[must_use]
    pub fn shared_source(&self) -> Arc<dyn TensorSource> {
        Arc::clone(&self.source)
    }

    /// The tensor with this canonical name.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`].
    pub fn spec(&self, name: &str) -> Result<&TensorSpec, WeightsError> {
        self.description.find(name).ok_or_else(|| match name {
            "head.weight" => WeightsError::NoHead,
            _ => WeightsError::MissingTensor { tensor: name.to_owned(), version: self.description.version.to_string() },
        })
    }

    /// True when the model has a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.description.find(name).is_some()
    }

    /// The path that the user gave, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// What kind of file the tensors are in, as people call it.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.source.format()
    }

    /// All files with tensors of the model: those of a base first, then those that change it.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.source.files()
    }

    /// What the container says besides tensors: keys and values in the file's order, long values shortened.
    #[must_use]
    pub fn metadata(&self) -> Vec<(String, String)> {
        self.source.metadata()
    }

    /// Things that a careful user would like to know of the file. One sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.source.notes()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}, {})", self.path().display(), self.description.summary())
    }
}

/// The tensors as they are stored, and all that the source says of itself.
impl Wrapper for Model {
    fn wrapped(&self) -> &dyn TensorSource {
        self.source.as_ref()
    }
}
