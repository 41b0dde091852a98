//! Models some of whose tensors are others: the one mechanism behind quantized overlays, merged LoRAs and whatever else changes a model
//! without a file.

mod error;
mod overlay;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use rwkv_forge_io::Spill;
use rwkv_forge_model::{Recover, TensorSpec, ValueForm};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource, format_shape};

use crate::model::Model;
use crate::stored::{Order, View};
use source::{Changed, Origin};

pub use error::ReplaceError;
pub use overlay::Overlay;

/// Computes a tensor from the values of the one whose place it takes, whenever it is read.
pub trait Make: Send + Sync {
    /// How many elements are made together, whole blocks: pieces begin and end at multiples of it.
    fn unit(&self) -> usize;

    /// Writes the stored bytes of the elements from `first` on. `values` are those of the tensor below, canonical ones, in the order in
    /// which the new one is stored; they may be overwritten.
    ///
    /// # Errors
    /// When values cannot be stored in this type.
    fn make(&self, first: usize, values: &mut [f32], out: &mut [u8]) -> Result<(), BoxError>;
}

/// Where the bytes of a replaced tensor are.
pub enum Bytes {
    /// In memory.
    Memory(Vec<u8>),
    /// In a nameless file, from this offset on.
    File(Arc<Spill>, u64),
    /// They are those of a tensor of another source, which is found at this index.
    Tensor(Arc<dyn TensorSource>, usize),
    /// Nowhere: made whenever they are read.
    Made(Arc<dyn Make>),
}

/// A tensor that takes the place of another.
pub struct Replacement {
    /// Type of its elements.
    pub encoding: Encoding,
    /// Their order.
    pub order: Order,
    /// Which function of the canonical values they are.
    pub form: ValueForm,
    /// Where its bytes are.
    pub bytes: Bytes,
}

impl Replacement {
    /// Stored as `view` says.
    #[must_use]
    pub fn new(encoding: Encoding, view: View, bytes: Bytes) -> Self {
        Self { encoding, order: view.order, form: view.form, bytes }
    }

    /// The stored tensor that holds `spec` alone.
    fn info(&self, spec: &TensorSpec) -> Result<TensorInfo, ReplaceError> {
        let mut shape = spec.shape.clone();
        if self.order == Order::Turned {
            let [.., rows, columns] = shape.as_mut_slice() else {
                return Err(ReplaceError::NotAMatrix { tensor: spec.name.clone(), shape: format_shape(&spec.shape) });
            };
            std::mem::swap(rows, columns);
        }
        Ok(TensorInfo { name: spec.name.clone(), shape, encoding: self.encoding })
    }

    /// Refuses what is no tensor of the elements of `spec`.
    fn check(&self, spec: &TensorSpec) -> Result<(), ReplaceError> {
        let info = self.info(spec)?;
        let (tensor, encoding) = (spec.name.clone(), self.encoding.name);
        let columns = info.shape.last().and_then(|columns| usize::try_from(*columns).ok()).unwrap_or(0);
        let Some(expected) = info.byte_len().ok().and_then(|bytes| usize::try_from(bytes).ok()) else {
            return Err(ReplaceError::Encoding { tensor, columns, encoding });
        };
        let found = match &self.bytes {
            Bytes::Memory(bytes) => bytes.len(),
            Bytes::Tensor(source, index) => {
                let found = source.tensors().get(*index).and_then(|info| info.byte_len().ok());
                found.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
            }
            Bytes::Made(make) if make.unit() == 0 || !make.unit().is_multiple_of(self.encoding.block_len as usize) => {
                return Err(ReplaceError::Encoding { tensor, columns, encoding });
            }
            Bytes::Made(_) | Bytes::File(..) => expected,
        };
        if found == expected { Ok(()) } else { Err(ReplaceError::Length { tensor, found, expected }) }
    }
}

/// Tensors that take the place of a model's, and what is to be said of the model then; [`Model::with`] makes it.
#[derive(Default)]
pub struct Replacements {
    tensors: BTreeMap<String, Replacement>,
    beside: Vec<Arc<dyn TensorSource>>,
    notes: Vec<String>,
    format: Option<&'static str>,
}

impl Replacements {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the tensor with this canonical name. Of several the last one counts.
    pub fn put(&mut self, tensor: impl Into<String>, replacement: Replacement) {
        self.tensors.insert(tensor.into(), replacement);
    }

    /// The replacement of a tensor.
    #[must_use]
    pub fn get(&self, tensor: &str) -> Option<&Replacement> {
        self.tensors.get(tensor)
    }

    /// Files that the model consists of as well from now on: they come after those of the base, and so do their notes and digests.
    pub fn files_of(&mut self, source: Arc<dyn TensorSource>) {
        self.beside.push(source);
    }

    /// A sentence that a careful user would like to know.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What kind of model this is, as people call it, if no longer what the base is.
    pub fn call(&mut self, format: &'static str) {
        self.format = Some(format);
    }

    /// The model with the tensors that it has; all have been checked.
    fn over(mut self, base: &Model) -> Model {
        let mut description = base.description().clone();
        let mut infos = base.source().tensors().to_vec();
        let mut origins: Vec<Origin> = (0..infos.len()).map(Origin::Base).collect();
        // Canonical tensors that each stored one will hold.
        let mut holds = vec![0usize; infos.len()];
        for spec in description.tensors.iter().filter(|spec| !self.tensors.contains_key(&spec.name)) {
            if let Some(holds) = holds.get_mut(spec.source_index) {
                *holds = holds.saturating_add(1);
            }
        }
        for spec in &mut description.tensors {
            let Some(replacement) = self.tensors.remove(&spec.name) else { continue };
            let Ok(info) = replacement.info(spec) else { continue };
            let Replacement { order, form, bytes, .. } = replacement;
            let origin = Origin::replaced(bytes, spec, order);
            match holds.get_mut(spec.source_index).filter(|holds| **holds == 0) {
                Some(holds) => {
                    *holds = 1;
                    infos[spec.source_index] = info;
                    origins[spec.source_index] = origin;
                }
                // Others are parts of the stored tensor as well: this one gets a place of its own.
                None => {
                    spec.source_index = infos.len();
                    infos.push(info);
                    origins.push(origin);
                }
            }
            spec.recover = Recover { transposed: order == Order::Turned, form, ..Recover::AS_IS };
        }
        let notes = base.notes().iter().chain(self.beside.iter().flat_map(|source| source.notes())).chain(&self.notes).cloned();
        let (notes, format) = (notes.collect(), self.format.unwrap_or(base.format()));
        Model::new(Changed::new(base.clone(), self.beside, infos, origins, notes, format), description).starting_as(base)
    }
}

impl Model {
    /// The model with some tensors replaced, each stored alone. What is said of the base is said of it too; files, notes and digests of the
    /// base come first.
    ///
    /// ```
    /// use rwkv_forge_tensor::Encoding;
    /// use rwkv_forge_weights::{Bytes, Model, Replacement, Replacements, View};
    ///
    /// # use rwkv_forge_testkit::models::{Sizes, random_model};
    /// # let checkpoint = random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 1);
    /// # let model = Model::describe(checkpoint)?;
    /// // The head takes the place of the embedding: both are `[vocabulary, channels]`.
    /// let head = model.spec("head.weight")?;
    /// let bytes = Bytes::Tensor(model.shared_source(), head.source_index);
    /// let mut changes = Replacements::new();
    /// changes.put("emb.weight", Replacement::new(Encoding::F32, View::CANONICAL, bytes));
    /// let changed = model.with(changes)?;
    /// assert_eq!(changed.values::<f32>(changed.spec("emb.weight")?)?, model.values::<f32>(head)?);
    ///
    /// // What does not fit is refused.
    /// let mut changes = Replacements::new();
    /// changes.put("head.weight", Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Memory(vec![0; 4])));
    /// assert!(model.with(changes).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When there is no such tensor, or a replacement is no tensor of its elements.
    pub fn with(&self, replacements: Replacements) -> Result<Self, ReplaceError> {
        for (tensor, replacement) in &replacements.tensors {
            let spec = self.description().find(tensor).ok_or_else(|| ReplaceError::NoSuchTensor { tensor: tensor.clone() })?;
            replacement.check(spec)?;
        }
        Ok(replacements.over(self))
    }
}
