//! Statistics of the inputs of weights, for the commands that quantize.

use std::path::{Path, PathBuf};

use forge_calibrate::{Hessians, Options, calibrate_to_file};
use forge_convert::{Calibrated, Calibration, FromImatrix, OpenModel, Vocabulary, calibration_windows, vocabulary_for};
use forge_corpus::{Collection, Document, ReadOptions};

use super::eval::usual_cache;
use crate::args;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// What is known of the inputs.
pub(crate) enum Known {
    /// Statistics of our own.
    Calibrated(Calibrated),
    /// llama.cpp's.
    Imatrix(FromImatrix),
}

impl Known {
    /// As quantizers ask for it.
    pub(crate) fn calibration(&self) -> &dyn Calibration {
        match self {
            Self::Calibrated(calibrated) => calibrated,
            Self::Imatrix(imatrix) => imatrix,
        }
    }
}

/// Reads texts.
pub(crate) fn collections(paths: &[PathBuf], options: &ReadOptions) -> Result<Vec<Collection>, Failure> {
    let mut out = Vec::new();
    for path in paths {
        out.extend(forge_corpus::read(path, options)?);
    }
    Ok(out)
}

/// All documents of some collections.
pub(crate) fn documents(collections: &[Collection]) -> Vec<&Document> {
    collections.iter().flat_map(|collection| &collection.documents).collect()
}

/// The tokens of a calibration text, all documents one after the other.
pub(crate) fn tokens(model: &OpenModel, vocabulary: &Vocabulary, collections: &[Collection]) -> Result<Vec<u32>, Failure> {
    let tokenizer = vocabulary_for(vocabulary, model.description.hyperparameters.vocabulary, "reading the calibration text")?;
    let mut tokens = Vec::new();
    for document in documents(collections) {
        tokens.extend(tokenizer.encode(&document.text)?);
    }
    Ok(tokens)
}

/// SHA-256 of the model's files, joined.
pub(crate) fn source_digest(model: &OpenModel) -> Result<String, Failure> {
    Ok(model.source().check_integrity(&|_| ())?.join(","))
}

/// Computes the statistics that `--calibrate` asks for, or takes them from where they are kept.
pub(crate) fn calibrated(
    args: &args::Calibration,
    model: &OpenModel,
    tokens: &[u32],
    hessians: Hessians,
    global: &args::Global,
    terminal: &Terminal,
) -> Result<Calibrated, Failure> {
    let windows = calibration_windows(tokens, args.calibration_windows.get());
    if windows.is_empty() {
        let message = format!("the calibration text has {} tokens, fewer than one window of 512: give more text", tokens.len());
        return Err(Failure::usage("TooLittleText", message));
    }
    let mut options = Options { hessians, memory: args.calibration_memory, ..Options::default() };
    if let Some(threads) = global.threads {
        options.engine.threads = threads;
    }
    let digest = source_digest(model)?;
    let key = forge_calibrate::Key::new(&digest, &model.description, &windows, &options);
    let path = match &args.statistics {
        Some(path) => path.clone(),
        None => {
            let directory = usual_cache()?;
            let name = format!("{}|{}|{:?}|{}", key.source, key.sequences, key.hessians, key.block);
            let digest = forge_io::sha256_hex(name.as_bytes());
            directory.join(format!("statistics-{}.safetensors", digest.get(..16).unwrap_or(&digest)))
        }
    };
    terminal.detail(&format!("statistics of {} windows in {}", windows.len(), path.display()));
    let progress = Progress::new(terminal, "calibrating", false);
    let set = |step: forge_calibrate::Progress| progress.set(step.layers_done as u64, step.layers as u64);
    let found = calibrate_to_file(&path, &digest, model.source(), &model.description, &windows, &options, &set)?;
    Ok(Calibrated::new(found))
}

/// The importance of an imatrix file.
pub(crate) fn imatrix(path: &Path, model: &OpenModel) -> Result<Known, Failure> {
    Ok(Known::Imatrix(FromImatrix::read(path, &model.description)?))
}
