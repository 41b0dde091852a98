//! Statistics of the inputs of weights: gathered on a text, or taken from an earlier run.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rwkv_forge_calibrate::{Hessians, Options, Place, calibrate_to_file};
use rwkv_forge_convert::recipe::{CalibrationRecord, Recipe};
use rwkv_forge_convert::{CALIBRATION_WINDOW, CALIBRATION_WINDOWS, Calibrated, OpenModel, Vocabulary, calibration_windows, vocabulary_for};
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_tensor::BoxError;

use crate::cache::{Cache, Key, Kind};
use crate::error::ChooseError;
use crate::observer::{Observer, Work};

/// What is gathered, and where it is kept.
#[derive(Clone, Debug)]
pub struct CalibrationOptions {
    /// Windows of the text that are used.
    pub windows: NonZeroUsize,
    /// Bytes for the statistics of one layer; with less, products of distant channels are left out.
    pub memory: u64,
    /// Of which inputs products are gathered.
    pub hessians: Hessians,
    /// Threads; all if nobody says.
    pub threads: Option<NonZeroUsize>,
    /// The file that the user names, which is there for nothing else; without one, statistics are kept in the cache.
    pub file: Option<PathBuf>,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        let windows = NonZeroUsize::new(CALIBRATION_WINDOWS).unwrap_or(NonZeroUsize::MIN);
        Self { windows, memory: 1 << 30, hessians: Hessians::All, threads: None, file: None }
    }
}

/// The products that must be gathered for what a recipe asks for.
#[must_use]
pub fn products_for(recipe: &Recipe) -> Hessians {
    if recipe.uses(Quantizer::Gptq) { Hessians::All } else { Hessians::None }
}

impl CalibrationOptions {
    fn options(&self) -> Options {
        let mut options = Options { hessians: self.hessians, memory: self.memory, ..Options::default() };
        if let Some(threads) = self.threads {
            options.engine.threads = threads;
        }
        options
    }

    fn windows<'t>(&self, tokens: &'t [u32]) -> Result<Vec<&'t [u32]>, ChooseError> {
        let windows = calibration_windows(tokens, self.windows.get());
        if windows.is_empty() {
            return Err(ChooseError::CalibrationTooShort { found: tokens.len(), window: CALIBRATION_WINDOW });
        }
        Ok(windows)
    }

    /// What a recipe says of the statistics that these tokens will give.
    ///
    /// # Errors
    /// [`ChooseError::CalibrationTooShort`].
    pub fn record(&self, model: &OpenModel, tokens: &[u32]) -> Result<CalibrationRecord, ChooseError> {
        // Source, threads and the kind of statistics are no part of it.
        let options = Options { memory: self.memory, ..Options::default() };
        Ok(CalibrationRecord::of(&rwkv_forge_calibrate::Key::new("", model.description(), &self.windows(tokens)?, &options)))
    }

    /// The statistics of these tokens, from where they are kept if they are there.
    ///
    /// # Errors
    /// [`ChooseError::CalibrationTooShort`], those of the engine, and those of a file that the user names.
    pub fn gather(&self, model: &OpenModel, tokens: &[u32], cache: &Cache<'_>, observer: &dyn Observer) -> Result<Calibrated, ChooseError> {
        let windows = self.windows(tokens)?;
        let options = self.options();
        let digest = checked(model, observer)?;
        let place = self.place(&rwkv_forge_calibrate::Key::new(&digest, model.description(), &windows, &options), cache);
        if let Some(path) = place.path() {
            observer.detail(&format!("statistics of {} windows in {}", windows.len(), path.display()));
        }
        let steps = observer.begin(Work::Calibrating);
        let set = |step: rwkv_forge_calibrate::Progress| {
            steps.set(step.through(), step.tokens);
            let layer = || format!("layer {} of {}", step.layers_done + 1, step.layers);
            steps.at(&if step.layers_done < step.layers { layer() } else { "the head".to_owned() });
        };
        let found = calibrate_to_file(&place, &digest, &model.model, &windows, &options, &set)?;
        drop(steps);
        found.warnings().iter().for_each(|warning| observer.warn(warning));
        Ok(Calibrated::new(found))
    }

    fn place(&self, of: &rwkv_forge_calibrate::Key, cache: &Cache<'_>) -> Place {
        if let Some(path) = &self.file {
            return Place::Named(path.clone());
        }
        let hessians = match of.hessians {
            Hessians::None => "none",
            Hessians::Matrices => "matrices",
            Hessians::All => "all",
        };
        let how: [(&str, &dyn std::fmt::Display); 2] = [("hessians", &hessians), ("block", &of.block)];
        let key = Key { kind: Kind::Statistics, model: &of.source, against: None, text: Some(&of.sequences), how: &how };
        cache.path(&format!("{}.safetensors", key.name())).map_or(Place::Nowhere, Place::Kept)
    }
}

/// The tokens of a calibration text, all documents one after the other. That a vocabulary is too small is said by whoever calls this.
///
/// # Errors
/// Those of the vocabulary.
pub fn calibration_tokens<'t>(
    model: &OpenModel,
    vocabulary: &Vocabulary,
    documents: impl IntoIterator<Item = &'t [u8]>,
) -> Result<Vec<u32>, BoxError> {
    let tokenizer = vocabulary_for(model, vocabulary, "reading the calibration text")?;
    let mut tokens = Vec::new();
    for document in documents {
        tokens.extend(tokenizer.encode(document)?);
    }
    Ok(tokens)
}

/// As [`model_identity`], with how far it is.
pub(crate) fn checked(model: &OpenModel, observer: &dyn Observer) -> Result<String, BoxError> {
    let (steps, total, read) = (observer.begin(Work::Checking), model.source_bytes()?, AtomicU64::new(0));
    let identity = model.identity(&|bytes| steps.set(read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes), total))?;
    Ok(identity.text(model))
}

/// What decides every number of the model, as one text; every byte of its files is read for it.
///
/// # Errors
/// Those of reading, and for values that are none.
pub fn model_identity(model: &OpenModel) -> Result<String, BoxError> {
    Ok(model.identity(&|_| ())?.text(model))
}
