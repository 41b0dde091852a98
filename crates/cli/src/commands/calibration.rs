//! Statistics of the inputs of weights, for the commands that quantize.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rwkv_forge_calibrate::{Hessians, Imatrix, ImatrixFormat, Statistics};
use rwkv_forge_choose::{Cache, CalibrationOptions, calibration_tokens};
use rwkv_forge_convert::recipe::CalibrationRecord;
use rwkv_forge_convert::{CALIBRATION_WINDOW, Calibrated, OpenModel, Vocabulary};
use rwkv_forge_corpus::{BUILT_IN, Collection, ReadOptions, builtin_calibration};
use rwkv_forge_io::OutputFile;

use super::called;
use crate::args;
use crate::failure::Failure;
use crate::stdio::{STDIN, is_dash, stdin};
use crate::terminal::Terminal;

/// Reads the texts of `--calibrate` or `--calibration`: files, directories, or the built-in one.
pub(crate) fn collections(paths: &[PathBuf]) -> Result<Vec<Collection>, Failure> {
    let mut out = Vec::new();
    for path in paths {
        if path.as_os_str() == BUILT_IN {
            out.push(builtin_calibration());
        } else if is_dash(path) {
            out.extend(from_stdin()?);
        } else {
            out.extend(rwkv_forge_corpus::read(path, &ReadOptions::default())?);
        }
    }
    Ok(out)
}

/// Stdin as a text.
fn from_stdin() -> Result<Vec<Collection>, Failure> {
    let options = ReadOptions::default();
    let mut documents = Vec::new();
    let mut text = stdin(options.limits.file_bytes.saturating_add(1))?;
    let mut out = rwkv_forge_corpus::read_stream(&mut text, STDIN, &options, &mut |_, _, document| {
        documents.push(document);
        Ok(())
    })?;
    out.iter_mut().for_each(|collection| collection.documents.append(&mut documents));
    Ok(out)
}

/// How a command names the texts again, after a blank: `--calibrate` with what came behind it, and the windows that were read.
pub(crate) fn option(args: &args::Calibration, named: impl Fn(&Path) -> String) -> String {
    let texts = args.calibrate.iter().map(|path| match path {
        path if path.as_os_str() == BUILT_IN => " --calibrate".to_owned(),
        path if is_dash(path) => " --calibrate TEXT".to_owned(),
        path => format!(" --calibrate {}", named(path)),
    });
    format!("{} --calibration-windows {}", texts.collect::<String>(), args.calibration_windows)
}

/// The tokens of a calibration text, all documents one after the other. That a vocabulary is too small is said by whoever calls this.
pub(crate) fn tokens(model: &OpenModel, vocabulary: &Vocabulary, collections: &[Collection]) -> Result<Vec<u32>, Failure> {
    let documents = collections.iter().flat_map(|collection| &collection.documents);
    Ok(calibration_tokens(model, vocabulary, documents.map(|document| document.text.as_slice()))?)
}

/// What is gathered, how, and where it is kept.
fn options(args: &args::Calibration, hessians: Hessians, threads: Option<NonZeroUsize>) -> CalibrationOptions {
    CalibrationOptions {
        windows: args.calibration_windows,
        memory: args.calibration_memory,
        hessians,
        threads,
        file: args.statistics.clone(),
    }
}

/// What a recipe says of the statistics that `--calibrate` will give.
pub(crate) fn record(args: &args::Calibration, model: &OpenModel, tokens: &[u32]) -> Result<CalibrationRecord, Failure> {
    Ok(options(args, Hessians::None, None).record(model, tokens)?)
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
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let before = args.statistics.as_deref().and_then(changed);
    let saved = SavedImatrix::create(args, model, force, global)?;
    if let Some(path) = &args.statistics {
        global.claims.output("--statistics", path)?;
    }
    // A file that the user names needs no cache.
    let cache = if args.statistics.is_some() { Cache::new(None, terminal) } else { Cache::usual(terminal) };
    let found = options(args, hessians, global.threads).gather(model, tokens, &cache, terminal)?;
    if let Some(saved) = saved {
        saved.write(args, model, found.statistics())?;
        args.save_imatrix.iter().for_each(|path| terminal.wrote("--save-imatrix", path));
    }
    // It is there already where the same text and model were seen before.
    args.statistics.iter().filter(|path| changed(path) != before).for_each(|path| terminal.wrote("--statistics", path));
    Ok(found)
}

/// The file of `--save-imatrix`, begun before the work, so that a name that cannot be fails early.
struct SavedImatrix {
    file: OutputFile,
    format: ImatrixFormat,
}

impl SavedImatrix {
    fn create(args: &args::Calibration, model: &OpenModel, force: bool, global: &args::Global) -> Result<Option<Self>, Failure> {
        let Some(path) = &args.save_imatrix else { return Ok(None) };
        Imatrix::names(model.description().version)?;
        let legacy = path.extension().is_some_and(|extension| extension == "dat");
        let format = if legacy { ImatrixFormat::Legacy } else { ImatrixFormat::Gguf };
        Ok(Some(Self { file: OutputFile::create(path, &global.output("--save-imatrix", force))?, format }))
    }

    fn write(self, args: &args::Calibration, model: &OpenModel, statistics: &Statistics) -> Result<(), Failure> {
        let chunk = u32::try_from(CALIBRATION_WINDOW).unwrap_or(u32::MAX);
        let mut imatrix = statistics.imatrix(model.description().version, "", chunk, true)?;
        imatrix.datasets = args.calibrate.iter().map(|path| called(path).display().to_string()).collect();
        self.file.write_all_at(0, &imatrix.to_bytes(self.format))?;
        Ok(self.file.commit()?)
    }
}
