//! The model as a file will hold it, before there is a file: what `convert` copies into it, and what is measured of files that nobody
//! writes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use rwkv_forge_model::{OutputTensor, TensorSpec};
use rwkv_forge_quant::{BlockFormat, EncodeError};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_weights::{Model, Overlay, Weight};

use crate::blocks::copies_blocks;
use crate::draft::Blueprint;
use crate::error::ConvertError;
use crate::open::OpenModel;
use crate::prepare::{Calibration, OnTensor, Prepared, prepare};
use crate::recipe::Recipe;

/// Rows that a thread encodes at a time.
const ROWS: usize = 16;

/// What a model becomes in a file.
///
/// ```
/// use std::path::Path;
///
/// use rwkv_forge_convert::container::by_name;
/// use rwkv_forge_convert::recipe::Recipe;
/// use rwkv_forge_convert::{ConvertOptions, OpenOptions, Rendering, Vocabulary, blueprint, open};
///
/// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// let recipe = Recipe::new(None, Some("q8_0"), &[])?;
/// let decided = blueprint(&model, &ConvertOptions::new(by_name("rwkv-cpp")?, &recipe, &Vocabulary::Auto))?;
///
/// // What the file would hold, without the file.
/// let rendered = Rendering { model: &model, blueprint: &decided, recipe: &recipe, calibration: None, directory: None }.whole(&|_done, _total, _tensor| ())?;
/// let key = rendered.model.spec("blocks.0.att.key.weight")?;
/// assert_eq!(rendered.model.stored(key)?.encoding.name, "q8_0");
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Rendering<'a> {
    /// The source.
    pub model: &'a OpenModel,
    /// What was decided for it.
    pub blueprint: &'a Blueprint,
    /// The recipe that it was decided by.
    pub recipe: &'a Recipe,
    /// What is known of the inputs of its weights.
    pub calibration: Option<&'a dyn Calibration>,
    /// Where tensors are kept, in a nameless file; where the system keeps temporary files when there is none.
    pub directory: Option<&'a Path>,
}

/// A model that was rendered.
pub struct Rendered {
    /// It.
    pub model: Model,
    /// Tensors whose codes were chosen by more than their format's own rule.
    pub prepared: Vec<Prepared>,
    /// Blocks of all tensors that became zero although their weights are not.
    pub zeroed_blocks: u64,
}

impl Rendering<'_> {
    /// The model with the tensors in place whose codes are chosen by more than their format's own rule: those for which the recipe names
    /// a quantizer, and those that the calibration has weights for. A conversion encodes the others by itself.
    ///
    /// # Errors
    /// When a tensor cannot be read or quantized, or a quantizer is asked for that needs a calibration and there is none.
    pub fn prepared(&self, progress: OnTensor<'_>) -> Result<Rendered, BoxError> {
        let (overlay, prepared) = self.begin(progress)?;
        Ok(Rendered::new(overlay, prepared, 0))
    }

    /// As [`Rendering::prepared`] for a file that is to be written; `None` where the conversion encodes all tensors by itself. Without a
    /// directory of their own tensors are kept beside `output`: there is room for them, or there will be none for the output either.
    ///
    /// # Errors
    /// As [`Rendering::prepared`].
    pub fn prepared_for(&self, output: &Path, progress: OnTensor<'_>) -> Result<Option<Rendered>, BoxError> {
        if !self.recipe.needs_preparation() && self.calibration.is_none() {
            return Ok(None);
        }
        let beside = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = self.directory.or(Some(beside));
        Rendering { directory, ..*self }.prepared(progress).map(Some)
    }

    /// The model with every matrix and every factor of a low-rank pair as the file will hold it, the ones in 16 bits included. Vectors
    /// stay as they are.
    ///
    /// # Errors
    /// As [`Rendering::prepared`], and for values that do not fit their type.
    pub fn whole(&self, progress: OnTensor<'_>) -> Result<Rendered, BoxError> {
        let tensors = &self.model.description().tensors;
        let all: u64 = tensors.iter().map(TensorSpec::elements).sum();
        let (mut overlay, prepared) = self.begin(&|done, _, tensor| progress(done, all, tensor))?;
        let done: HashSet<&str> = prepared.iter().map(|prepared| prepared.tensor.as_str()).collect();
        // The output that holds each canonical tensor; where several do, the first.
        let mut outputs: HashMap<usize, &OutputTensor> = HashMap::new();
        for out in self.blueprint.layout.files().flat_map(|(_, layout)| &layout.tensors) {
            for part in &out.assembly.parts {
                outputs.entry(*part).or_insert(out);
            }
        }
        // The others come after those that are prepared.
        let mut passed: u64 = tensors.iter().filter(|spec| done.contains(spec.name.as_str())).map(TensorSpec::elements).sum();
        let mut zeroed = 0;
        for (index, spec) in tensors.iter().enumerate() {
            let Some(out) = outputs.get(&index).filter(|_| !done.contains(spec.name.as_str())) else { continue };
            progress(passed, all, &spec.name);
            if let Ok(weight) = Weight::of(spec)
                && !self.keeps(spec, out)
            {
                zeroed += self.encode(spec, weight, out, &mut overlay)?;
            }
            passed += spec.elements();
        }
        Ok(Rendered::new(overlay, prepared, zeroed))
    }

    fn begin(&self, progress: OnTensor<'_>) -> Result<(Overlay, Vec<Prepared>), BoxError> {
        let mut overlay = Overlay::in_file(&self.model.model, self.directory)?;
        let prepared = prepare(self.model, &self.blueprint.layout, self.recipe, self.calibration, &mut overlay, progress)?;
        Ok((overlay, prepared))
    }

    /// Whether a tensor has the same values in the file as in the source.
    fn keeps(&self, spec: &TensorSpec, out: &OutputTensor) -> bool {
        let stored = self.model.model.stored(spec);
        // What a container keeps in 32 bits is not changed by it.
        let same = stored.is_ok_and(|stored| stored.encoding == out.encoding && stored.form == out.assembly.form);
        out.encoding == Encoding::F32 || same && (out.encoding.is_dense() || copies_blocks(self.model, out))
    }

    /// Encodes a tensor as the executor will; the number of blocks that became zero.
    fn encode(&self, spec: &TensorSpec, weight: Weight, out: &OutputTensor, overlay: &mut Overlay) -> Result<u64, BoxError> {
        let (encoding, form) = (out.encoding, out.assembly.form);
        let unknown = || ConvertError::Internal(format!("no encoder for {encoding}"));
        let format = rwkv_forge_quant::by_encoding(encoding).ok_or_else(unknown)?;
        let row_bytes = encoding.row_bytes(weight.columns as u64).ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        let mut values = Weight::read(&self.model.model, spec)?;
        values.iter_mut().for_each(|value| *value = form.apply(*value));
        let mut bytes = vec![0; weight.all_rows() * row_bytes];
        let zeroed = encode_rows(format, &values, weight.columns, &mut bytes, row_bytes);
        let failed = |error: EncodeError| ConvertError::Quantizer { tensor: spec.name.clone(), reason: error.to_string() };
        let zeroed = zeroed.map_err(failed)?;
        overlay.replace(&spec.name, encoding, form, bytes)?;
        Ok(zeroed)
    }
}

/// Encodes rows by the format's own rule; of several errors the first one's.
fn encode_rows(format: &dyn BlockFormat, values: &[f32], columns: usize, out: &mut [u8], row_bytes: usize) -> Result<u64, EncodeError> {
    let pieces = values.par_chunks((columns * ROWS).max(1)).zip(out.par_chunks_mut((row_bytes * ROWS).max(1)));
    let stats: Vec<_> = pieces.map(|(values, out)| format.encode(values, out)).collect();
    stats.into_iter().map(|stats| stats.map(|stats| stats.zeroed_blocks)).sum()
}

impl Rendered {
    /// With `zeroed` blocks besides those of the prepared tensors.
    fn new(overlay: Overlay, prepared: Vec<Prepared>, zeroed: u64) -> Self {
        let zeroed_blocks = zeroed + prepared.iter().map(|tensor| tensor.zeroed_blocks).sum::<u64>();
        Self { model: overlay.into_model(), prepared, zeroed_blocks }
    }
}
