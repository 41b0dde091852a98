//! Tensors whose values are all the same: holes of a download, or what training never reached. Start at [`Model::constants`].

use std::fmt;

use rwkv_forge_model::{TensorSpec, WhenConstant};
use rwkv_forge_tensor::{format_shape, shorten};

use crate::error::WeightsError;
use crate::model::Model;
use crate::stored::View;

/// Elements that are looked at first. Whole tensors differ within them, so that a sound file is hardly read at all.
const FIRST: usize = 1 << 10;
/// Elements that are looked at in one step after that.
const STEP: usize = 1 << 17;

/// A tensor of several values that are all the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its name in the file.
    pub tensor: String,
    /// Its canonical shape.
    pub shape: Vec<u64>,
    /// The value, in the canonical form.
    pub value: f32,
    /// What that says of the model.
    pub when: WhenConstant,
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} holds nothing but {}", shorten(&self.tensor), format_shape(&self.shape), self.value)
    }
}

impl Model {
    /// The tensors whose values are all the same, but those of which that is [`WhenConstant::Usual`], in canonical order. What the model
    /// does not use is no part of it. Of a tensor whose first values differ only those are read; values that are NaN are no concern here.
    ///
    /// ```
    /// use rwkv_forge_model::WhenConstant;
    /// use rwkv_forge_weights::Model;
    ///
    /// # use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
    /// # let mut tensors = random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 1).into_tensors();
    /// # tensors.iter_mut().filter(|tensor| tensor.info.name == "blocks.1.ln1.weight").for_each(|tensor| tensor.bytes.fill(0));
    /// # let checkpoint = MemorySource::from_tensors(tensors);
    /// // The download of this checkpoint has a hole.
    /// let found = Model::describe(checkpoint)?.constants()?;
    /// assert_eq!((found.len(), found[0].when), (1, WhenConstant::Hole));
    /// assert_eq!(found[0].to_string(), "blocks.1.ln1.weight [32] holds nothing but 0");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn constants(&self) -> Result<Vec<Constant>, WeightsError> {
        let mut found = Vec::new();
        for spec in &self.description().tensors {
            let Some(value) = self.only_value(spec)? else { continue };
            let when = spec.when_constant(value);
            if when != WhenConstant::Usual {
                let tensor = self.source().tensors()[spec.source_index].name.clone();
                found.push(Constant { tensor, shape: spec.shape.clone(), value, when });
            }
        }
        Ok(found)
    }

    /// Refuses a model with holes.
    ///
    /// # Errors
    /// [`WeightsError::ZeroTensor`] for the first of `constants` that is a hole.
    pub fn refuse_holes(&self, constants: &[Constant]) -> Result<(), WeightsError> {
        let mut holes = constants.iter().filter(|constant| constant.when == WhenConstant::Hole);
        let Some(first) = holes.next() else { return Ok(()) };
        Err(WeightsError::ZeroTensor { file: self.path().to_path_buf(), found: first.to_string(), more: holes.count() })
    }

    /// The value that all elements of a tensor have; `None` where they differ, where there is only one, and where nobody can decode them.
    fn only_value(&self, spec: &TensorSpec) -> Result<Option<f32>, WeightsError> {
        let stored = self.stored(spec)?;
        let known = stored.encoding.is_float() || rwkv_forge_quant::by_encoding(stored.encoding).is_some();
        let elements = usize::try_from(spec.elements()).unwrap_or(usize::MAX);
        if elements < 2 || !known {
            return Ok(None);
        }
        if stored.order.is_none() {
            // Vectors alone are stored as pieces of longer rows.
            return Ok(only(&self.read_alone(spec, View::CANONICAL)?));
        }
        let mut values = vec![0.0; FIRST.min(elements)];
        self.decode_stored(spec, 0, &mut values)?;
        let Some(value) = only(&values) else { return Ok(None) };
        let mut start = values.len();
        while start < elements {
            values.resize(STEP.min(elements - start), 0.0);
            self.decode_stored(spec, start, &mut values)?;
            if only(&values) != Some(value) {
                return Ok(None);
            }
            start += values.len();
        }
        Ok(Some(stored.form.undo(value)))
    }
}

/// The value that all of these are. Zeros of both signs are one value, and NaN is none.
fn only(values: &[f32]) -> Option<f32> {
    let (first, rest) = values.split_first()?;
    (!first.is_nan() && rest.iter().all(|value| value == first)).then_some(*first + 0.0)
}
