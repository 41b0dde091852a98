//! LoRA files merged while converting: W + (alpha / rank) B A, computed when a piece of W is read. Start at [`merge`].
//!
//! Two kinds of files are read. Those of RWKV-LM-LoRA and RWKV-PEFT: `blocks.i.att.key.lora_A` `[rank, in]` with
//! `blocks.i.att.key.lora_B` `[out, rank]` belongs to `blocks.i.att.key.weight` `[out, in]`, whatever was trained in full stands under its
//! own name and replaces the model's tensor, and alpha is in no file. Relatives of LoRA (PiSSA, Bone, DiSHA, MiSS) use the same names for
//! other formulas there and cannot be told apart: their own tools must merge them.
//!
//! And adapters of Hugging Face's PEFT: a directory whose `adapter_config.json` says the formula, alpha and rank, which is honoured or
//! refused by name; names are those of any convention that models are read with.
//!
//! A third case is a model that was saved with its own pairs beside all weights: [`open_with_own`].

mod assign;
mod config;
mod error;
mod merged;
mod own;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_checkpoint::{CheckpointError, Limits, Purpose, Refusal};
use rwkv_forge_container::{OpenOptions, Opened, Place};
use rwkv_forge_io::Backend;
use rwkv_forge_model::{ModelDescription, ModelError, TensorSpec, names};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, shorten};
use rwkv_forge_weights::{Bytes, Model, Replacement, Replacements, View};

use crate::error::ConvertError;
use crate::open::{Merge, OpenFile, OpenModel, open_file_at};

use assign::{Assignment, Pair, Whole};
use config::{Config, is_within};
use merged::Merged;
use own::Selection;

pub(crate) use config::ADAPTER_CONFIG;
pub use error::LoraError;

/// Names that PEFT gives to the tensors of an adapter.
const TENSORS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
/// Names listed in one note.
const LISTED: usize = 4;

/// The model with a LoRA merged into it: affected tensors read as f32. Nothing is merged yet; each piece is computed
/// when it is read, in f64 and one fixed order, so that the bits depend neither on pieces nor on threads.
///
/// `lora` is a file of RWKV's trainers, a directory of PEFT's, or the file of tensors in one. `requantize` accepts a model whose affected
/// matrices are stored in blocks of few bits.
///
/// # Errors
/// [`LoraError`], [`ConvertError::Requantize`], and those of opening the file.
pub fn merge(base: OpenModel, lora: &Path, alpha: Option<f64>, requantize: bool) -> Result<OpenModel, BoxError> {
    Adapter::open(&Place::of(lora))?.merge_into(base, alpha, requantize)
}

/// Opens a model that has the pairs of a LoRA beside all of its weights, merged into them.
///
/// # Errors
/// [`LoraError::NothingToScale`] for a file without pairs, and as [`merge`].
pub fn open_with_own(place: &Place, options: OpenOptions, alpha: f64, requantize: bool) -> Result<OpenModel, BoxError> {
    let (file, path) = (open_file_at(place, options)?, place.path());
    let Some((weights, pairs)) = Selection::divided(file.shared()) else {
        return Err(LoraError::NothingToScale { file: path.to_owned() }.into());
    };
    // Pairs without a model are no model, which is said as it is said of every adapter.
    match rwkv_forge_model::map_by_convention(file.source().tensors()) {
        Ok(_) | Err(ModelError::UnmergedLora { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let base = file.seen_as(Arc::new(weights) as Arc<dyn Opened>).into_model(place, options)?;
    let adapter = Adapter { path: path.to_owned(), key: None, source: Arc::new(pairs), config: None, is_own: true };
    adapter.merge_into(base, Some(alpha), requantize)
}

/// A LoRA, opened.
pub struct Adapter {
    /// As the user gave it.
    path: PathBuf,
    key: Option<String>,
    source: Arc<dyn TensorSource>,
    config: Option<Config>,
    /// Its file is the model's.
    is_own: bool,
}

/// Where alpha comes from.
enum Alpha<'c> {
    Given(f64),
    Stated(&'c Config),
}

impl Alpha<'_> {
    /// What a pair is multiplied with.
    fn scale(&self, pair: &Pair) -> Result<f64, LoraError> {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
            Self::Given(alpha) => Ok(alpha / pair.rank as f64),
            Self::Stated(config) => Ok(config.strength(&pair.module)?.scale),
        }
    }
}

impl Adapter {
    /// Opens a file of RWKV's trainers, a directory of PEFT's, or the file of tensors in one. Of several state dicts in a file of torch.save it
    /// is the one under the key of the place, or the only one with pairs.
    ///
    /// # Errors
    /// [`LoraError`] for what is no adapter or one of another formula, and those of opening the file.
    pub fn open(place: &Place) -> Result<Self, BoxError> {
        let path = place.path();
        let is_config = path.file_name().is_some_and(|name| name == ADAPTER_CONFIG);
        let folder = if is_config { path.parent().map(Path::to_path_buf) } else { path.is_dir().then(|| path.to_path_buf()) };
        // What it is decides whether its tensors are of any use.
        let config = match folder.clone().or_else(|| config::folder_of(path)) {
            Some(folder) => Config::read(&folder)?,
            None => None,
        };
        let file = match folder {
            Some(folder) => tensors_in(folder)?,
            None => path.to_owned(),
        };
        let opened = rwkv_forge_checkpoint::open_for(&file, place.key(), Purpose::Adapter, &Limits::default(), Backend::default());
        let (_, source) = opened.map_err(|error| not_tensors(&file, error))?;
        Ok(Self { path: path.to_owned(), key: place.key().map(str::to_owned), source: source.into(), config, is_own: false })
    }

    /// The model with the matrices that lie beside their pairs in the file of an adapter, as PEFT saves a model that it has wrapped.
    fn on_own_base(&self, model: Model, assignment: &Assignment) -> Result<Model, BoxError> {
        if assignment.bases.is_empty() {
            return Ok(model);
        }
        let mut changes = Replacements::new();
        for (tensor, whole) in &assignment.bases {
            self.put(&mut changes, &model.description().tensors[*tensor], whole);
        }
        Ok(model.with(changes)?)
    }

    /// Puts a tensor that is given in full in the place of the model's.
    fn put(&self, changes: &mut Replacements, spec: &TensorSpec, whole: &Whole) {
        let view = if whole.turned { View::TURNED } else { View::CANONICAL };
        let bytes = Bytes::Tensor(Arc::clone(&self.source), whole.index);
        changes.put(&spec.name, Replacement::new(self.source.tensors()[whole.index].encoding, view, bytes));
    }

    /// What pairs are scaled by. Without a pair there is nothing to scale.
    fn alpha(&self, given: Option<f64>, assignment: &Assignment) -> Result<Alpha<'_>, LoraError> {
        match (given, &self.config) {
            (Some(alpha), _) if !alpha.is_finite() => Err(LoraError::BadAlpha { alpha }),
            (Some(given), Some(config)) => match config.alpha {
                #[allow(clippy::float_cmp, reason = "the same number, or another one")]
                Some(stated) if given != stated => Err(LoraError::OtherAlpha { given, stated, config: config.file.path.clone() }),
                Some(_) | None => Ok(Alpha::Stated(config)),
            },
            (None, Some(config)) => Ok(Alpha::Stated(config)),
            (Some(alpha), None) => Ok(Alpha::Given(alpha)),
            (None, None) if assignment.pairs.is_empty() => Ok(Alpha::Given(1.0)),
            (None, None) => Err(LoraError::AlphaMissing { file: self.path.clone(), rank: assignment.rank() }),
        }
    }

    /// The model with it merged: as [`merge`].
    ///
    /// # Errors
    /// As [`merge`], but for those of opening.
    pub fn merge_into(mut self, base: OpenModel, alpha: Option<f64>, requantize: bool) -> Result<OpenModel, BoxError> {
        if let Some(config) = &mut self.config {
            config.given = alpha;
        }
        let assignment = Assignment::new(self.source.as_ref(), base.description())?;
        if assignment.pairs.is_empty() && assignment.replaced.len() >= base.description().tensors.len() {
            return Err(LoraError::WholeModel { file: self.path }.into());
        }
        let alpha = self.alpha(alpha, &assignment)?;
        let mut notes = match &self.config {
            Some(config) => compared(config, &assignment, base.description(), self.source.as_ref())?,
            None => Vec::new(),
        };
        let words = base.words()?.clone();
        let OpenModel { file, model, key, constants, beside, .. } = base;
        let model = self.on_own_base(model, &assignment)?;
        let specs = &model.description().tensors;
        let mut changes = Replacements::new();
        for (tensor, pair) in &assignment.pairs {
            let spec = &specs[*tensor];
            let stored = model.stored(spec)?.encoding;
            if !stored.is_dense() && !requantize {
                return Err(
                    ConvertError::Requantize { tensor: spec.name.clone(), from: stored.name, to: "the merged weights", why: None }.into()
                );
            }
            let merged = Merged::new(self.source.as_ref(), spec, (pair.a, pair.b), alpha.scale(pair)?, pair.turned)?;
            changes.put(&spec.name, Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Made(Arc::new(merged))));
        }
        for (tensor, whole) in &assignment.replaced {
            self.put(&mut changes, &specs[*tensor], whole);
        }
        let (how, record) = match alpha {
            Alpha::Given(alpha) => (format!("alpha {alpha}"), format!("alpha={alpha}")),
            Alpha::Stated(config) => (config.summary(), config.record()),
        };
        let (merged, replaced) = (assignment.pairs.len(), assignment.replaced.len());
        let whose = if self.is_own { "the file's own LoRA" } else { "LoRA" };
        notes.insert(0, format!("{whose} with {how}: {merged} matrices merged, {replaced} tensors replaced"));
        if !assignment.bases.is_empty() {
            let count = assignment.bases.len();
            notes.push(format!("{count} of the pairs lie beside the matrices that they adapt (base_layer), which are merged with them instead of the model's"));
        }
        if assignment.originals > 0 {
            notes.push(format!("{} tensors of modules before their training (original_module) are not used", assignment.originals));
        }
        if assignment.unused > 0 {
            notes.push(format!("{} tensors of layer 0 that no model of this kind uses are not used", assignment.unused));
        }
        if !self.is_own {
            notes.extend(assignment.wrapping.note().map(|note| format!("of the LoRA, {note}")));
            notes.extend(names::untrained(self.source.tensors()).into_iter().map(|note| format!("of the LoRA, {note}")));
            changes.files_of(self.source);
        }
        notes.into_iter().for_each(|note| changes.note(note));
        changes.call("model with a LoRA");
        let name = if self.is_own { "own".into() } else { self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy() };
        let key_of = self.key.as_ref().map(|key| format!("key={key} ")).unwrap_or_default();
        let merge =
            Merge { record: format!("lora={name} {key_of}{record}"), files: self.config.into_iter().map(|config| config.file).collect() };
        let model = model.with(changes)?;
        let file = OpenFile::of(Box::new(model.clone())).in_place_of(&file);
        Ok(OpenModel { file, model, key, constants, beside, words: words.into(), merge: Some(merge) })
    }
}

/// What a file is that is none of tensors, where that can be told.
#[allow(clippy::wildcard_enum_match_arm, reason = "one refusal is told otherwise")]
fn not_tensors(file: &Path, error: CheckpointError) -> BoxError {
    match error {
        CheckpointError::Refused { kind: Refusal::NotACheckpoint, .. } => match crate::container::described(file) {
            Some(what) => LoraError::OtherFile { file: file.to_owned(), what }.into(),
            None => error.into(),
        },
        other => other.into(),
    }
}

/// The file of tensors in a directory of PEFT's.
fn tensors_in(folder: PathBuf) -> Result<PathBuf, LoraError> {
    let found: Vec<PathBuf> = TENSORS.iter().map(|name| folder.join(name)).filter(|path| path.symlink_metadata().is_ok()).collect();
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(LoraError::NotFound { folder }),
        _ => Err(LoraError::Ambiguous { folder }),
    }
}

/// Holds the tensors against what the configuration says of them. Gives what is worth a note.
fn compared(config: &Config, assignment: &Assignment, model: &ModelDescription, lora: &dyn TensorSource) -> Result<Vec<String>, LoraError> {
    check_pairs(config, assignment, model)?;
    let modules = model.tensors.iter().enumerate().filter_map(|(index, spec)| Some((index, spec, assignment.module_of(spec)?)));
    let modules: Vec<Module<'_>> = modules.collect();
    let in_full: Vec<&str> = assignment.replaced.values().map(|whole| lora.tensors()[whole.index].name.as_str()).collect();
    let mut notes = missing_in_full(config, &modules, &in_full)?;
    if !config.tells_modules() {
        let count = assignment.pairs.len();
        notes.push(format!(
            "{ADAPTER_CONFIG} tells of no single modules ({}): all {count} pairs in the file are merged",
            config.target_words()
        ));
    }
    let mut say = |what: &str, names: &[&str]| {
        if !names.is_empty() {
            notes.push(format!("{ADAPTER_CONFIG} {what}: {}", listed(names)));
        }
    };
    let unannounced: Vec<&str> = in_full.into_iter().filter(|tensor| !config.announces(tensor)).collect();
    say("does not tell of tensors that are there in full and replace the model's", &unannounced);
    if config.tells_modules() {
        let is_left = |(index, spec, module): &&Module<'_>| {
            !assignment.pairs.contains_key(index) && spec.shape.len() == 2 && config.targets(module, spec.layer)
        };
        let left: Vec<&str> = modules.iter().filter(is_left).map(|(.., module)| module.as_str()).collect();
        say(&format!("tells of {} matrices that have no pair and stay as they are", left.len()), &left);
    }
    let ends = |module: &str, name: &str| module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    let strangers = config.target_names().iter().filter(|name| !modules.iter().any(|(.., module)| ends(module, name)));
    say("names modules that the model does not have", &strangers.map(String::as_str).collect::<Vec<_>>());
    let unknown: Vec<&str> = config.unknown.iter().map(String::as_str).collect();
    say("has keys that this program does not know and does without", &unknown);
    if let Some(base) = config.base.as_deref().filter(|base| !base.is_empty()) {
        notes.push(format!("the adapter was trained on {}, as it says", shorten(base)));
    }
    Ok(notes)
}

/// A tensor of the model, with its index in the description and the name of its module as the adapter would have it.
type Module<'m> = (usize, &'m TensorSpec, String);

/// Every pair must be one that the configuration tells of, of the rank that it says.
fn check_pairs(config: &Config, assignment: &Assignment, model: &ModelDescription) -> Result<(), LoraError> {
    for (tensor, pair) in &assignment.pairs {
        if !config.targets(&pair.module, model.tensors[*tensor].layer) {
            let what = format!("there is a pair for {}, which it does not tell of", shorten(&pair.module));
            return Err(config.contradiction(what));
        }
        let rank = config.strength(&pair.module)?.rank;
        if rank != pair.rank {
            let what = format!("the pair of {} has the rank {}, and it says {rank}", shorten(&pair.module), pair.rank);
            return Err(config.contradiction(what));
        }
    }
    Ok(())
}

/// Modules that were trained in full must be there in full. Gives a note for each that no such model has.
fn missing_in_full(config: &Config, modules: &[Module<'_>], in_full: &[&str]) -> Result<Vec<String>, LoraError> {
    let mut notes = Vec::new();
    for module in config.saved.iter().filter(|module| !in_full.iter().any(|tensor| is_within(tensor, module))) {
        if modules.iter().any(|(.., name)| is_within(&format!("{name}."), module)) {
            let what = format!("modules_to_save has {}, of which there is no tensor", shorten(module));
            return Err(config.contradiction(what));
        }
        notes.push(format!("modules_to_save of {ADAPTER_CONFIG} has {}, which the model does not have", shorten(module)));
    }
    Ok(notes)
}

/// The first few names.
fn listed(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(LISTED).map(|name| shorten(name)).collect();
    if names.len() > LISTED {
        shown.push(format!("and {} more", names.len() - LISTED));
    }
    shown.join(", ")
}
