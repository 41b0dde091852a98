//! What is known of the inputs of weights: statistics of our own, or an imatrix of llama.cpp.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rwkv_forge_calibrate::{CalibrateError, Imatrix, Statistics};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_quantizer::{Factor, Hessian};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::Weight;

use crate::prepare::Calibration;
use crate::recipe::CalibrationRecord;

/// Tokens of a calibration window.
pub const CALIBRATION_WINDOW: usize = 512;
/// Windows that are used when nobody says how many: more change little.
pub const CALIBRATION_WINDOWS: usize = 64;
/// What is added to the diagonal, relative to its mean: less overfits the text.
const DAMPING: f32 = 0.1;

/// The windows of a text, from the front; what is left over is dropped.
#[must_use]
pub fn calibration_windows(tokens: &[u32], windows: usize) -> Vec<&[u32]> {
    tokens.chunks_exact(CALIBRATION_WINDOW).take(windows).collect()
}

/// Statistics of our own.
pub struct Calibrated {
    statistics: Statistics,
    /// The last factor: tensors with the same inputs come one after the other.
    last: Mutex<Option<(String, Arc<Factor>)>>,
}

impl Calibrated {
    /// Takes statistics of the model that is to be quantized.
    #[must_use]
    pub fn new(statistics: Statistics) -> Self {
        Self { statistics, last: Mutex::new(None) }
    }

    /// What a recipe says of them.
    #[must_use]
    pub fn record(&self) -> CalibrationRecord {
        CalibrationRecord::of(self.statistics.key())
    }

    /// The statistics themselves.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}

impl Calibration for Calibrated {
    fn importance(&self, tensor: &str) -> Result<Option<Arc<[f32]>>, BoxError> {
        // Matrices with inputs of their own share no importance.
        if self.statistics.parts(tensor) != 1 {
            return Ok(None);
        }
        Ok(self.statistics.importance(tensor)?.map(Arc::from))
    }

    fn factor(&self, tensor: &str) -> Result<Option<Arc<Factor>>, BoxError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, factor)) = last.as_ref().filter(|(name, _)| name == tensor) {
            return Ok(Some(Arc::clone(factor)));
        }
        *last = None;
        let Some(hessian) = self.statistics.hessian(tensor, 0)? else { return Ok(None) };
        let factor = Factor::new(&Hessian { columns: hessian.size, block: hessian.block, values: &hessian.data }, DAMPING)?;
        let factor = Arc::new(factor);
        *last = Some((tensor.to_owned(), Arc::clone(&factor)));
        Ok(Some(factor))
    }
}

/// An imatrix of llama.cpp: importance alone.
pub struct FromImatrix {
    importance: BTreeMap<String, Arc<[f32]>>,
    /// Tensors without a single input.
    unseen: Vec<String>,
}

impl FromImatrix {
    /// Reads a file of either format.
    ///
    /// # Errors
    /// When the file is no imatrix, or names tensors that the model's version does not have or that have other widths.
    pub fn read(path: &Path, description: &ModelDescription) -> Result<Self, BoxError> {
        let (imatrix, _) = Imatrix::read(path)?;
        let mut importance = imatrix.importance(description.version, path)?;
        // Of tensors with several matrices, whose inputs differ, each would need its own.
        importance.retain(|name, _| weight(description, name).is_some_and(|weight| weight.count == 1));
        for (name, values) in &importance {
            let columns = weight(description, name).map_or(0, |weight| weight.columns);
            if values.len() != columns {
                let problem = format!("{} channels for {name}, which has {columns}: it was computed for another model", values.len());
                return Err(CalibrateError::BadImatrix { path: path.to_path_buf(), problem }.into());
            }
        }
        let importance = importance.into_iter().map(|(name, values)| (name, Arc::from(values))).collect();
        Ok(Self { importance, unseen: imatrix.unseen(description.version) })
    }
}

fn weight(description: &ModelDescription, tensor: &str) -> Option<Weight> {
    description.find(tensor).and_then(|spec| Weight::of(spec).ok())
}

impl Calibration for FromImatrix {
    fn importance(&self, tensor: &str) -> Result<Option<Arc<[f32]>>, BoxError> {
        Ok(self.importance.get(tensor).cloned())
    }

    fn is_unseen(&self, tensor: &str) -> bool {
        self.unseen.iter().any(|name| name == tensor)
    }

    fn has_factors(&self) -> bool {
        false
    }

    fn factor(&self, _: &str) -> Result<Option<Arc<Factor>>, BoxError> {
        Ok(None)
    }
}
