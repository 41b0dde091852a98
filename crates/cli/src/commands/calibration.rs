//! Statistics of the inputs of weights, for the commands that quantize.

use std::path::{Path, PathBuf};

use rwkv_forge_calibrate::{Hessians, ImatrixForm, Options, Place, Statistics, calibrate_to_file};
use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::CalibrationRecord;
use rwkv_forge_convert::{
    CALIBRATION_WINDOW, Calibrated, Calibration, FromImatrix, OpenModel, Vocabulary, calibration_windows, vocabulary_for,
};
use rwkv_forge_corpus::{Collection, Document, ReadOptions};
use rwkv_forge_io::OutputFile;

use super::cache::{Cache, key};
use crate::args;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// What is known of the inputs.
pub(crate) enum Known {
    /// Statistics of our own.
    Calibrated(Box<Calibrated>),
    /// llama.cpp's.
    Imatrix(FromImatrix),
}

impl Known {
    /// As quantizers ask for it.
    pub(crate) fn calibration(&self) -> &dyn Calibration {
        match self {
            Self::Calibrated(calibrated) => calibrated.as_ref(),
            Self::Imatrix(imatrix) => imatrix,
        }
    }
}

/// Reads texts.
pub(crate) fn collections(paths: &[PathBuf], options: &ReadOptions) -> Result<Vec<Collection>, Failure> {
    let mut out = Vec::new();
    for path in paths {
        out.extend(rwkv_forge_corpus::read(path, options)?);
    }
    Ok(out)
}

/// All documents of some collections.
pub(crate) fn documents(collections: &[Collection]) -> Vec<&Document> {
    collections.iter().flat_map(|collection| &collection.documents).collect()
}

/// The tokens of a calibration text, all documents one after the other. That a vocabulary is too small is said by whoever calls this.
pub(crate) fn tokens(model: &OpenModel, vocabulary: &Vocabulary, collections: &[Collection]) -> Result<Vec<u32>, Failure> {
    let tokenizer = vocabulary_for(vocabulary, model.description().hyperparameters.vocabulary, "reading the calibration text")?;
    let mut tokens = Vec::new();
    for document in documents(collections) {
        tokens.extend(tokenizer.encode(&document.text)?);
    }
    Ok(tokens)
}

/// What decides every number of the model, as one text.
pub(crate) fn source_digest(model: &OpenModel) -> Result<String, Failure> {
    Ok(model.identity(&|_| ())?.text(model))
}

/// What is gathered, and how.
fn options(args: &args::Calibration, hessians: Hessians, global: &args::Global) -> Options {
    let mut options = Options { hessians, memory: args.calibration_memory, ..Options::default() };
    if let Some(threads) = global.threads {
        options.engine.threads = threads;
    }
    options
}

/// The windows of the calibration text.
fn windows<'t>(args: &args::Calibration, tokens: &'t [u32]) -> Result<Vec<&'t [u32]>, Failure> {
    let windows = calibration_windows(tokens, args.calibration_windows.get());
    if windows.is_empty() {
        let message = format!("the calibration text has {} tokens, fewer than one window of 512: give more text", tokens.len());
        return Err(Failure::usage("TooLittleText", message));
    }
    Ok(windows)
}

/// What a recipe says of the statistics that `--calibrate` will give.
pub(crate) fn record(args: &args::Calibration, model: &OpenModel, tokens: &[u32]) -> Result<CalibrationRecord, Failure> {
    // Source, threads and the kind of statistics are no part of it.
    let options = Options { memory: args.calibration_memory, ..Options::default() };
    Ok(CalibrationRecord::of(&rwkv_forge_calibrate::Key::new("", model.description(), &windows(args, tokens)?, &options)))
}

/// Computes the statistics that `--calibrate` asks for, or takes them from where they are kept. `force` replaces the file of
/// `--save-imatrix`.
pub(crate) fn calibrated(
    args: &args::Calibration,
    model: &OpenModel,
    tokens: &[u32],
    hessians: Hessians,
    force: bool,
    global: &args::Global,
    terminal: &Terminal,
) -> Result<Calibrated, Failure> {
    let windows = windows(args, tokens)?;
    let options = options(args, hessians, global);
    let saved = SavedImatrix::create(args, model, force, global)?;
    if let Some(path) = &args.statistics {
        global.claims.output("--statistics", path)?;
    }
    let digest = source_digest(model)?;
    let key = rwkv_forge_calibrate::Key::new(&digest, model.description(), &windows, &options);
    let place = place(args, &key, terminal);
    if let Some(path) = place.path() {
        terminal.detail(&format!("statistics of {} windows in {}", windows.len(), path.display()));
    }
    let progress = Progress::new(terminal, "calibrating", false);
    let set = |step: rwkv_forge_calibrate::Progress| progress.set(step.layers_done as u64, step.layers as u64);
    let found = calibrate_to_file(&place, &digest, &model.model, &windows, &options, &set)?;
    for warning in found.warnings() {
        terminal.warn(warning);
    }
    if let Some(saved) = saved {
        saved.write(args, model, &found)?;
    }
    Ok(Calibrated::new(found))
}

/// Where the statistics lie: in the file that the user names, or among what is kept.
fn place(args: &args::Calibration, of: &rwkv_forge_calibrate::Key, terminal: &Terminal) -> Place {
    if let Some(path) = &args.statistics {
        return Place::Named(path.clone());
    }
    let kept = key("statistics").with(&of.source).with(&of.sequences).with(format!("{:?}", of.hessians)).with_numbers([of.block as u64]);
    Cache::usual(terminal).path(&format!("{}.safetensors", kept.name())).map_or(Place::Nowhere, Place::Kept)
}

/// The file of `--save-imatrix`, begun before the work, so that a name that cannot be fails early.
struct SavedImatrix {
    file: OutputFile,
    form: ImatrixForm,
}

impl SavedImatrix {
    fn create(args: &args::Calibration, model: &OpenModel, force: bool, global: &args::Global) -> Result<Option<Self>, Failure> {
        let Some(path) = &args.save_imatrix else { return Ok(None) };
        // The file names tensors as GGUF does.
        by_name("gguf")?.carries(model.description().version)?;
        let legacy = path.extension().is_some_and(|extension| extension == "dat");
        let form = if legacy { ImatrixForm::Legacy } else { ImatrixForm::Gguf };
        Ok(Some(Self { file: OutputFile::create(path, &global.output("--save-imatrix", force))?, form }))
    }

    fn write(self, args: &args::Calibration, model: &OpenModel, statistics: &Statistics) -> Result<(), Failure> {
        let chunk = u32::try_from(CALIBRATION_WINDOW).unwrap_or(u32::MAX);
        let mut imatrix = statistics.imatrix(model.description().version, "", chunk, true)?;
        imatrix.datasets = args.calibrate.iter().map(|path| path.display().to_string()).collect();
        self.file.write_all_at(0, &imatrix.to_bytes(self.form))?;
        Ok(self.file.commit()?)
    }
}

/// The importance of an imatrix file.
pub(crate) fn imatrix(path: &Path, model: &OpenModel) -> Result<Known, Failure> {
    Ok(Known::Imatrix(FromImatrix::read(path, model.description())?))
}
