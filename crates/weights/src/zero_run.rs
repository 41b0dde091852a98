//! Matrices of which a part is zero, as a download with a hole within one leaves it. Start at [`Model::zero_run`].

use std::fmt;

use rwkv_forge_model::{TensorRole, TensorSpec, TensorUse};
use rwkv_forge_tensor::{format_shape, shorten};

use crate::error::WeightsError;
use crate::model::Model;

/// The part of a matrix that has to be zero in one run: one of so many.
const PART: usize = 8;
/// Elements that are looked at in one place, a whole number of blocks of every type.
const PROBE: usize = 256;
/// Smaller matrices are read whole.
const SMALL: usize = 1 << 14;
/// Elements that are read in one step.
const STEP: usize = 1 << 17;

/// A run of zeros within a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroRun {
    /// Name of the matrix in the file.
    pub tensor: String,
    /// Its canonical shape.
    pub shape: Vec<u64>,
    /// The first of the zeros, counted in the order of the file.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Elements of the matrix.
    pub elements: usize,
}

impl fmt::Display for ZeroRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, shape, first, count, elements } = self;
        write!(f, "{} {}: {count} of {elements} values are zero in one run, from number {first} on", shorten(tensor), format_shape(shape))
    }
}

impl Model {
    /// The longest run of zeros of a matrix that activations are multiplied with, where it is an eighth of the matrix or more and not all of it
    /// ([`Model::constants`] has those). The embedding and the head, in which the rows of tokens that nobody uses may be zero, and all that is no
    /// matrix have none. Of a large matrix without one only a few places are read.
    ///
    /// ```
    /// use rwkv_forge_weights::Model;
    ///
    /// # use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
    /// # let mut tensors = random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 1).into_tensors();
    /// # let tensor = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.1.att.key.weight").expect("it is there");
    /// # let half = tensor.bytes.len() / 2;
    /// # tensor.bytes[half..].fill(0);
    /// # let checkpoint = MemorySource::from_tensors(tensors);
    /// // The second half of a matrix is missing.
    /// let model = Model::describe(checkpoint)?;
    /// let mut found = Vec::new();
    /// for spec in &model.description().tensors {
    ///     found.extend(model.zero_run(spec)?);
    /// }
    /// assert_eq!(found.len(), 1);
    /// assert!(found[0].to_string().starts_with("blocks.1.att.key.weight [32, 32]: 512 of 1024 values are zero"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub fn zero_run(&self, spec: &TensorSpec) -> Result<Option<ZeroRun>, WeightsError> {
        let stored = self.stored(spec)?;
        let known = stored.encoding.is_float() || rwkv_forge_quant::by_encoding(stored.encoding).is_some();
        let is_matrix = spec.role.tensor_use() == TensorUse::Linear && spec.role != TensorRole::Head;
        let elements = usize::try_from(spec.elements()).unwrap_or(usize::MAX);
        if !known || !is_matrix || stored.order.is_none() || elements < PART || !self.may_have_run(spec, elements)? {
            return Ok(None);
        }
        let (mut longest, mut run) = ((0, 0), (0, 0));
        let mut values = Vec::new();
        for start in (0..elements).step_by(STEP) {
            values.resize(STEP.min(elements - start), 0.0);
            self.decode_stored(spec, start, &mut values)?;
            for (index, value) in values.iter().enumerate() {
                run = match (*value == 0.0, run) {
                    (true, (_, 0)) => (start + index, 1),
                    (true, (first, count)) => (first, count + 1),
                    (false, _) => (0, 0),
                };
                if run.1 > longest.1 {
                    longest = run;
                }
            }
        }
        let (first, count) = longest;
        let tensor = || self.source().tensors()[spec.source_index].name.clone();
        let is_run = count >= elements.div_ceil(PART) && count < elements;
        Ok(is_run.then(|| ZeroRun { tensor: tensor(), shape: spec.shape.clone(), first, count, elements }))
    }

    /// Whether one of the places is zero that a run of that length cannot miss.
    fn may_have_run(&self, spec: &TensorSpec, elements: usize) -> Result<bool, WeightsError> {
        if elements <= SMALL {
            return Ok(true);
        }
        let mut values = [0.0; PROBE];
        for start in (0..elements - PROBE).step_by((elements / PART / 2).next_multiple_of(PROBE)) {
            self.decode_stored(spec, start, &mut values)?;
            if values.iter().all(|value| *value == 0.0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
