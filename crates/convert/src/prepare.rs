//! Quantizers that see a whole matrix, or what its inputs were: their blocks are made before the file is laid out, and the
//! executor copies them.

use std::collections::HashMap;
use std::sync::Arc;

use rwkv_forge_model::{OutputLayout, OutputTensor, TensorSpec};
use rwkv_forge_quantizer::{Degenerate, Factor, Fault, Quantizer, QuantizerError, Target};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_weights::{Model, Overlay, Weight};
use serde::Serialize;

use crate::error::ConvertError;
use crate::open::OpenModel;
use crate::recipe::Recipe;

/// What is known of the inputs that weights were multiplied with on a text.
pub trait Calibration: Sync {
    /// Mean squared input of each column of a weight, `[columns]`; `None` for what has no inputs, as the embedding.
    ///
    /// # Errors
    /// When the statistics cannot be read.
    fn importance(&self, tensor: &str) -> Result<Option<Arc<[f32]>>, BoxError>;

    /// True for a weight whose importance is made up, since the text met none of its inputs.
    fn is_unseen(&self, _tensor: &str) -> bool {
        false
    }

    /// False where importance is all that is known, so that no weight has a factor.
    fn has_factors(&self) -> bool {
        true
    }

    /// The factorized second moments of a weight's inputs; `None` where they were not gathered.
    ///
    /// # Errors
    /// When the statistics cannot be read or factorized.
    fn factor(&self, tensor: &str) -> Result<Option<Arc<Factor>>, BoxError>;
}

/// How one tensor was quantized.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prepared {
    /// Canonical name.
    pub tensor: String,
    /// Name of its type.
    pub encoding: &'static str,
    /// What chose the codes.
    pub quantizer: &'static str,
    /// Weighted squared error of the weights.
    pub weighted_error: f64,
    /// Mean squared error of the outputs on the calibration's inputs, summed over rows.
    pub output_error: Option<f64>,
    /// Blocks.
    pub blocks: u64,
    /// Of these, how many became zero although their weights are not.
    pub zeroed_blocks: u64,
    /// Columns whose importance is of no use.
    pub degenerate: Vec<Degenerate>,
    /// Whether the importance was used nevertheless.
    pub kept_importance: bool,
    /// Whether nothing was left of the importance, so that the tensor is quantized as without any.
    pub without_importance: bool,
    /// Whether the text met no input of this weight.
    pub unseen: bool,
}

/// Ranges of columns that a sentence lists.
const RANGES: usize = 4;

impl Prepared {
    /// What a user should know of the importance of this tensor; `None` where it is sound.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let found =
            if self.unseen { "was gathered from no input at all (its count is zero)".to_owned() } else { degenerate(&self.degenerate)? };
        let done = match (self.kept_importance, self.without_importance) {
            (false, true) => "the tensor is quantized as without importance",
            (false, false) => "these columns weigh alike instead",
            (true, _) => "it is used as it is (--compat strict), and blocks may become zero by it",
        };
        Some(format!("the importance of {} {found}: {done}", self.tensor))
    }
}

/// What is wrong with the importance of some columns, as the end of a sentence.
fn degenerate(found: &[Degenerate]) -> Option<String> {
    let of = |fault: Fault, what: &str| {
        let ranges: Vec<String> = found
            .iter()
            .filter(|found| found.fault == fault)
            .map(|found| format!("{} to {}", found.columns.start, found.columns.end.saturating_sub(1)))
            .collect();
        let more = match ranges.len().saturating_sub(RANGES) {
            0 => String::new(),
            more => format!(" and {more} more ranges"),
        };
        (!ranges.is_empty()).then(|| format!("{what} in columns {}{more}", ranges[..ranges.len().min(RANGES)].join(", ")))
    };
    let zero = of(Fault::Zero, "is zero or subnormal");
    let absurd = of(Fault::Absurd, "is more than 1e12 times its median");
    let parts: Vec<String> = zero.into_iter().chain(absurd).collect();
    (!parts.is_empty()).then(|| parts.join(", and "))
}

/// Tensors that were quantized before a conversion: what [`crate::Rendering::prepared`] made.
#[derive(Clone, Copy)]
pub struct Preparation<'a> {
    /// The model with them in place. The source is then read for its digest and for the comparison alone.
    pub model: &'a Model,
    /// What was done.
    pub tensors: &'a [Prepared],
    /// Where importance came from, for messages: `the imatrix NAME`.
    pub importance: Option<&'a str>,
}

/// Hears of every tensor before it is quantized: elements that are done, all elements, its name.
pub type OnTensor<'a> = &'a dyn Fn(u64, u64, &str);

/// Elements of a matrix that are quantized at a time.
const PIECE: usize = 1 << 25;

/// Quantizes every tensor for which the recipe names a quantizer, or has calibration's weights, and puts it into `overlay`.
///
/// # Errors
/// When a tensor cannot be read or quantized, or a quantizer is asked for that needs a calibration and there is none.
pub(crate) fn prepare(
    model: &OpenModel,
    layout: &OutputLayout,
    recipe: &Recipe,
    calibration: Option<&dyn Calibration>,
    overlay: &mut Overlay,
    progress: OnTensor<'_>,
) -> Result<Vec<Prepared>, BoxError> {
    let outputs: Vec<&OutputTensor> = layout.files().flat_map(|(_, layout)| &layout.tensors).collect();
    // The output that holds each canonical tensor alone; where several do, the first.
    let mut alone: HashMap<usize, &OutputTensor> = HashMap::new();
    for out in outputs.into_iter().filter(|out| !out.encoding.is_dense()) {
        if let [part] = out.assembly.parts.as_slice() {
            alone.entry(*part).or_insert(out);
        }
    }
    // All refusals come before the work on the first tensor.
    let mut wanted = Vec::with_capacity(model.description().tensors.len());
    for (index, spec) in model.description().tensors.iter().enumerate() {
        let stored = model.source().tensors()[spec.source_index].encoding;
        let out = alone.get(&index).filter(|out| out.encoding != stored);
        wanted.push(match out {
            Some(out) => Wanted::new(spec, out, recipe, calibration)?,
            None => None,
        });
    }
    let mut total = wanted.iter().flatten().map(|wanted| wanted.spec.elements()).sum();
    let (mut prepared, mut done) = (Vec::new(), 0);
    for wanted in wanted.into_iter().flatten() {
        let elements = wanted.spec.elements();
        let Some(job) = Job::new(&wanted, recipe, calibration)? else {
            total -= elements;
            continue;
        };
        progress(done, total, &wanted.spec.name);
        prepared.push(job.run(model, wanted.out, overlay)?);
        done += elements;
    }
    Ok(prepared)
}

/// A tensor that is to be quantized, and what is asked to choose its codes.
struct Wanted<'a> {
    spec: &'a TensorSpec,
    out: &'a OutputTensor,
    weight: Weight,
    quantizer: Quantizer,
}

impl<'a> Wanted<'a> {
    /// `None` for what is no matrix in rows of inputs.
    fn new(
        spec: &'a TensorSpec,
        out: &'a OutputTensor,
        recipe: &Recipe,
        calibration: Option<&dyn Calibration>,
    ) -> Result<Option<Self>, BoxError> {
        let Ok(weight) = Weight::of(spec) else { return Ok(None) };
        // Rows in the file must be rows of inputs.
        if out.shape.last() != Some(&(weight.columns as u64)) || spec.role.is_lora() != out.assembly.transposed {
            return Ok(None);
        }
        let wanted = Self { spec, out, weight, quantizer: recipe.quantizer_of(&spec.name, out.encoding) };
        if wanted.quantizer == Quantizer::Gptq {
            // An imatrix knows the inputs' squares and not their products. What has no inputs needs neither.
            let lacks = match calibration {
                None => true,
                Some(calibration) => !calibration.has_factors() && wanted.importance(calibration)?.is_some(),
            };
            if lacks {
                return Err(ConvertError::CalibrationNeeded { tensor: spec.name.clone() }.into());
            }
        }
        Ok(Some(wanted))
    }

    /// One weight a column, where there is one for each.
    fn importance(&self, calibration: &dyn Calibration) -> Result<Option<Arc<[f32]>>, BoxError> {
        Ok(calibration.importance(&self.spec.name)?.filter(|importance| importance.len() == self.weight.columns))
    }
}

/// A tensor, and how its codes are chosen.
struct Job<'a> {
    spec: &'a TensorSpec,
    weight: Weight,
    quantizer: Quantizer,
    importance: Option<Arc<[f32]>>,
    factor: Option<Arc<Factor>>,
    degenerate: Vec<Degenerate>,
    kept_importance: bool,
    unseen: bool,
}

impl<'a> Job<'a> {
    /// `None` when the executor's own encoder does the same.
    fn new(wanted: &Wanted<'a>, recipe: &Recipe, calibration: Option<&dyn Calibration>) -> Result<Option<Self>, BoxError> {
        let Wanted { spec, out, weight, mut quantizer } = *wanted;
        let importance = match calibration {
            Some(calibration) => wanted.importance(calibration)?,
            None => None,
        };
        let mut factor = None;
        if quantizer == Quantizer::Gptq {
            let needed = || ConvertError::CalibrationNeeded { tensor: spec.name.clone() };
            factor = calibration.ok_or_else(needed)?.factor(&spec.name)?;
            // Statistics without this weight's products.
            if factor.is_none() && importance.is_some() {
                return Err(needed().into());
            }
            // Without inputs, as the embedding is, or where five matrices have different ones.
            if factor.is_none() || weight.count > 1 {
                quantizer = Quantizer::Search;
            }
        }
        if quantizer == Quantizer::Ggml && importance.is_none() {
            return Ok(None);
        }
        let unseen = importance.is_some() && calibration.is_some_and(|calibration| calibration.is_unseen(&spec.name));
        let mut job = Self { spec, weight, quantizer, importance, factor, degenerate: Vec::new(), kept_importance: false, unseen };
        job.judge(out.encoding, recipe.keep_importance);
        Ok(Some(job))
    }

    /// Looks for importance that would ruin blocks, and replaces it unless it is to be kept.
    fn judge(&mut self, encoding: Encoding, keep: bool) {
        let Some(importance) = self.importance.take() else { return };
        let judged = rwkv_forge_quantizer::judge(&importance, encoding);
        self.degenerate = judged.degenerate;
        let neutral = judged.neutral.filter(|_| !self.unseen);
        let sound = self.degenerate.is_empty() && !self.unseen;
        self.kept_importance = keep && !sound;
        self.importance = if keep || sound { Some(importance) } else { neutral.map(|values| Arc::from(values.into_owned())) };
    }

    fn run(&self, model: &OpenModel, out: &OutputTensor, overlay: &mut Overlay) -> Result<Prepared, BoxError> {
        let (encoding, form) = (out.encoding, out.assembly.form);
        let columns = self.weight.columns.max(1);
        let mut values = Weight::read(&model.model, self.spec)?;
        values.iter_mut().for_each(|value| *value = form.apply(*value));
        let row_bytes = usize::try_from(encoding.row_bytes(columns as u64).unwrap_or(0)).unwrap_or(0);
        let mut bytes = vec![0; self.weight.all_rows() * row_bytes];
        let mut prepared = Prepared {
            tensor: self.spec.name.clone(),
            encoding: encoding.name,
            quantizer: self.quantizer.name(),
            weighted_error: 0.0,
            output_error: None,
            blocks: bytes.len() as u64 / u64::from(encoding.block_bytes).max(1),
            zeroed_blocks: 0,
            degenerate: self.degenerate.clone(),
            kept_importance: self.kept_importance,
            without_importance: self.importance.is_none() && (self.unseen || !self.degenerate.is_empty()),
            unseen: self.unseen,
        };
        let rows = (PIECE / columns).max(1);
        for (values, bytes) in values.chunks(rows * columns).zip(bytes.chunks_mut(rows * row_bytes)) {
            let loss = self.piece(values, encoding, bytes).map_err(|error| self.failed(&error))?;
            prepared.weighted_error += loss.weighted_error;
            prepared.zeroed_blocks += loss.zeroed_blocks;
            if let Some(error) = loss.hessian_error {
                *prepared.output_error.get_or_insert(0.0) += error;
            }
        }
        overlay.replace(&self.spec.name, encoding, form, bytes)?;
        Ok(prepared)
    }

    fn piece(&self, values: &[f32], encoding: Encoding, bytes: &mut [u8]) -> Result<rwkv_forge_quantizer::Loss, QuantizerError> {
        let columns = self.weight.columns;
        let target = Target { format: encoding, rows: values.len() / columns.max(1), columns, importance: self.importance.as_deref() };
        match (self.quantizer, &self.factor) {
            (Quantizer::Gptq, Some(factor)) => rwkv_forge_quantizer::gptq(values, &target, factor, bytes),
            (Quantizer::Ggml, _) => rwkv_forge_quantizer::ggml(values, &target, bytes),
            _ => rwkv_forge_quantizer::search(values, &target, bytes),
        }
    }

    fn failed(&self, error: &QuantizerError) -> ConvertError {
        ConvertError::Quantizer { tensor: self.spec.name.clone(), reason: error.to_string() }
    }
}
