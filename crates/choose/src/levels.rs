//! A model in several types, quantized in memory: how large files of them would be, what each loses, and which to take.

use std::cell::{Cell, OnceCell};

use rwkv_forge_convert::container::{CONTAINERS, Container, by_name, usual_for};
use rwkv_forge_convert::preset::{preset_by_name, type_names};
use rwkv_forge_convert::recipe::{Recipe, Wanted};
use rwkv_forge_convert::{Blueprint, ConvertOptions, OpenModel, OpenOptions, Rendered, Rendering, Vocabulary, Words};
use rwkv_forge_eval::Runnable;
use rwkv_forge_model::{ModelDescription, VocabularyFamily};
use rwkv_forge_report::pareto_front;

use crate::error::ChooseError;
use crate::measure::{Candidate, Job, Measured, Reference, Results};
use crate::observer::{Observer, Work};
use crate::ready::decide;
use crate::speed::{Speed, measure};
use crate::wish::{Choosable, Wish};

/// The name that stands for every type of a container.
pub const ALL_TYPES: &str = "all";

/// Which levels there are to be.
pub struct LevelOptions<'a> {
    /// Names of types, or [`ALL_TYPES`].
    pub types: &'a [String],
    /// Whose rules and sizes apply.
    pub container: &'static dyn Container,
    /// Vocabulary of the model.
    pub vocabulary: &'a Vocabulary,
    /// What is said of the model in the file, its name among it.
    pub words: &'a Words,
    /// How input files are read.
    pub open: OpenOptions,
}

/// A model in a type: a file that has been decided and is not written.
pub struct Level {
    /// The type's name, then other names that mean the same for this model.
    pub names: Vec<String>,
    /// Exact size of the file.
    pub bytes: u64,
    /// Bits a weight, everything in the file included.
    pub bits_per_weight: f64,
    recipe: Recipe,
    blueprint: Blueprint,
    /// The container, and type and quantizer of each tensor: where these are equal, the files are.
    types: String,
}

/// The container that is named, or the usual one for the model.
///
/// # Errors
/// For a name that no container has.
pub fn container_for(model: &ModelDescription, named: Option<&str>) -> Result<&'static dyn Container, ChooseError> {
    Ok(named.map_or_else(|| Ok(usual_for(model.version)), by_name)?)
}

/// The levels that are asked for, in order, or all of them from the largest on; names that mean the same for this model are one level.
///
/// ```
/// use std::path::Path;
///
/// use rwkv_forge_choose::{LevelOptions, Silent, container_for, levels};
/// use rwkv_forge_convert::{OpenOptions, Vocabulary, Words, open};
///
/// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// let options = LevelOptions {
///     types: &["q8_0", "q4_0"].map(str::to_owned),
///     container: container_for(model.description(), Some("rwkv-cpp"))?,
///     vocabulary: &Vocabulary::Auto,
///     words: &Words::default(),
///     open: OpenOptions::default(),
/// };
/// let levels = levels(&model, &options, &Silent)?;
/// assert_eq!(levels[1].names, ["q4_0"]);
/// assert!(levels[1].bytes < levels[0].bytes && levels[1].bits_per_weight > 4.5);
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
///
/// # Errors
/// For unknown types, and what `convert` refuses.
pub fn levels(model: &OpenModel, options: &LevelOptions<'_>, observer: &dyn Observer) -> Result<Vec<Level>, ChooseError> {
    let all = options.types.iter().any(|name| name.trim().eq_ignore_ascii_case(ALL_TYPES));
    let names: Vec<String> = if all { all_types(options.container)? } else { options.types.to_vec() };
    let mut out: Vec<Level> = Vec::new();
    for name in names {
        let level = Level::new(&name, model, options)?;
        match out.iter_mut().find(|other| other.types == level.types) {
            Some(other) => {
                if !all {
                    observer.note(&format!("for this model {name} is the same as {}", other.names[0]));
                }
                other.names.push(name);
            }
            None => out.push(level),
        }
    }
    if all {
        // The best known name first: `q4_k_m`, not `q4_k`.
        out.iter_mut().for_each(|level| level.names.sort_by_key(|name| !name.ends_with("_m")));
        out.sort_by_key(|level| std::cmp::Reverse(level.bytes));
    }
    Ok(out)
}

/// Every type of a container that rounds matrices to fewer than 16 bits.
///
/// # Errors
/// [`ChooseError::NoTypes`] when there is none.
pub(crate) fn all_types(container: &dyn Container) -> Result<Vec<String>, ChooseError> {
    let small = |container: &dyn Container| -> Vec<String> {
        let held = |name: &&str| {
            let preset = preset_by_name(name);
            preset.is_ok_and(|preset| container.holds(preset.base) && !preset.base.is_dense() && preset.name == *name)
        };
        type_names().into_iter().filter(held).map(str::to_owned).collect()
    };
    let found = small(container);
    if !found.is_empty() {
        return Ok(found);
    }
    let others: Vec<&str> = CONTAINERS.iter().filter(|other| !small(**other).is_empty()).map(|other| other.name()).collect();
    Err(ChooseError::NoTypes { container: container.name(), others: others.join(", ") })
}

impl Level {
    fn new(name: &str, model: &OpenModel, options: &LevelOptions<'_>) -> Result<Self, ChooseError> {
        let recipe = Wanted::new(None, Some(name), &[], Some(options.container))?.recipe()?;
        // By its own name, whatever it was called.
        let name = recipe.preset.name;
        // The text may be read as bytes; what a hybrid's file carries is the vocabulary beside it.
        let vocabulary = match model.description().mechanisms.vocabulary {
            VocabularyFamily::Qwen => &Vocabulary::Auto,
            VocabularyFamily::World => options.vocabulary,
        };
        let convert = ConvertOptions {
            words: Some(options.words),
            // Nothing is written: what a short vocabulary means is said where the text is read.
            pad_vocabulary: true,
            requantize: true,
            allow_f16_loss: true,
            open: options.open,
            ..ConvertOptions::new(options.container, &recipe, vocabulary)
        };
        let blueprint = decide(model, &convert)?;
        let bytes = blueprint.layout.total_bytes();
        // What a container holds in another form is quantized in that form.
        let mut types = options.container.name().to_owned();
        for (spec, choice) in model.description().tensors.iter().zip(&blueprint.choices) {
            let quantizer = recipe.quantizer_of(&spec.name, choice.encoding).name();
            types.push_str(&format!(" {}={}:{quantizer}", spec.name, choice.encoding.name));
        }
        let bits_per_weight = bytes as f64 * 8.0 / model.description().parameters().max(1) as f64;
        Ok(Self { names: vec![name.to_owned()], bytes, bits_per_weight, recipe, blueprint, types })
    }

    /// The model in this type. Replaced tensors lie in a file without a name.
    fn rendered(&self, model: &OpenModel, step: &str, observer: &dyn Observer) -> Result<Rendered, ChooseError> {
        let steps = observer.begin(Work::Quantizing);
        let rendering = Rendering { model, blueprint: &self.blueprint, recipe: &self.recipe, calibration: None, directory: None };
        let rendered = rendering.whole(&|done, total, tensor| {
            steps.set(done, total);
            steps.at(&format!("{step}: {tensor}"));
        });
        Ok(rendered?)
    }
}

/// The model that levels are made of.
#[derive(Clone, Copy)]
pub struct LevelSource<'a> {
    /// As results call it.
    pub name: &'a str,
    /// It.
    pub model: &'a OpenModel,
    /// What decides its numbers, read after the levels were decided: what they read of files beside it counts.
    pub identity: &'a str,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What was found of levels.
pub struct Compared {
    /// Numbers, in the order of the levels.
    pub results: Results,
    /// Speeds, in the same order; `None` where none were to be measured.
    pub speeds: Vec<Option<Speed>>,
    /// Speed of the model as it is.
    pub source_speed: Option<Speed>,
    /// Which levels no other one beats in size and loss.
    pub front: Vec<bool>,
    /// Which levels are within the wish.
    pub meets: Vec<bool>,
    /// What to take.
    pub recommended: Option<usize>,
    /// What a little more size buys, where that is much: see [`Wish::best_buy`].
    pub best_buy: Option<usize>,
}

impl Compared {
    /// Indices of the levels that another one beats.
    #[must_use]
    pub fn beaten(&self) -> Vec<usize> {
        self.front.iter().enumerate().filter(|(_, on)| !**on).map(|(index, _)| index).collect()
    }
}

/// Measures levels against the model that they were decided for, and chooses by `wish`. With `timed`, speeds are measured too.
///
/// ```
/// use rwkv_forge_choose::{Cache, Job, LevelSource, Limits, Silent, Wish, compare_levels, model_identity};
/// use rwkv_forge_engine::Arithmetic;
/// use rwkv_forge_eval::Kernel;
/// use rwkv_forge_score::{Document, Precision, Protocol, Tokens};
///
/// # use rwkv_forge_choose::{LevelOptions, container_for, levels};
/// # use rwkv_forge_convert::{OpenOptions, Vocabulary, Words, open};
/// # let model = open(std::path::Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// # let container = container_for(model.description(), Some("rwkv-cpp"))?;
/// # let (types, words, open) = (["q8_0", "q4_0"].map(str::to_owned), Words::default(), OpenOptions::default());
/// # let options = LevelOptions { types: &types, container, vocabulary: &Vocabulary::Bytes, words: &words, open };
/// # let levels = levels(&model, &options, &Silent)?;
/// let text = "It is a truth universally acknowledged";
/// let tokens = Tokens::from(text.bytes().map(u32::from).collect::<Vec<_>>());
/// let document = Document { name: "a text".to_owned(), category: String::new(), bytes: text.len() as u64, tokens };
/// let schedule = Protocol::Stream.schedule(&[document], &|_token| Some(1))?;
///
/// let cache = Cache::new(None, &Silent);
/// let job = Job {
///     schedule: &schedule,
///     parts: std::slice::from_ref(&schedule),
///     vocabulary: "bytes",
///     precision: Precision::F32,
///     kernel: Kernel::Engine,
///     arithmetic: Arithmetic::Float,
///     max_memory: 1 << 28,
///     cache: &cache,
///     observer: &Silent,
/// };
/// // `levels` are Q8_0 and Q4_0 of `model`. The smallest of them that loses little is wanted.
/// let identity = model_identity(&model)?;
/// let source = LevelSource { name: "tiny", model: &model, identity: &identity, bytes: model.source_bytes()? };
/// let wish = Wish { limits: Limits { max_kl: Some(1.0), ..Limits::default() }, max_size: None };
/// let compared = compare_levels(&levels, source, &wish, &job, false)?;
/// assert!(compared.results.models[0].kl() < compared.results.models[1].kl());
/// assert_eq!((compared.meets.as_slice(), compared.recommended), ([true, true].as_slice(), Some(1)));
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
///
/// # Errors
/// When a level cannot be made or computed.
pub fn compare_levels(levels: &[Level], source: LevelSource<'_>, wish: &Wish, job: &Job<'_>, timed: bool) -> Result<Compared, ChooseError> {
    if source.model.source().tensors().iter().any(|info| !info.encoding.is_dense()) {
        job.observer.note("the source is quantized: levels are measured against it, so its own losses are in none of the numbers");
    }
    let step = |index: usize| format!("level {} of {}, {}", index + 1, levels.len(), levels[index].names[0]);
    let made = levels.iter().enumerate().map(|(index, level)| Made::new(level, source, step(index), timed, job.observer));
    let made: Vec<Made<'_>> = made.collect();
    let candidates: Vec<&dyn Candidate> = made.iter().map(|made| made as &dyn Candidate).collect();
    let model = Runnable::new(&source.model.model);
    let results = job.run(Some(Reference { model: &model, identity: source.identity }), &candidates, None)?;
    for made in made.iter().filter(|made| timed && made.speed.get().is_none()) {
        made.with(&mut |model| made.measured(model))?;
    }
    for made in made.iter().filter(|made| made.zeroed.get() > 0) {
        let (name, count) = (made.name(), made.zeroed.get());
        job.observer.warn(&format!("{name}: {count} blocks became zero although their weights are not"));
    }
    let source_speed = if timed { measure((source.name, "the source"), &model, source.bytes, job.observer)? } else { None };
    let costs: Vec<(f64, f64)> = levels.iter().zip(&results.models).map(|(level, found)| (level.bytes as f64, found.kl())).collect();
    let files: Vec<Choosable> = levels.iter().zip(&results.models).map(|(level, found)| choosable(level, found)).collect();
    let recommended = wish.choose(&files);
    Ok(Compared {
        speeds: made.iter().map(|made| made.speed.get().cloned()).collect(),
        source_speed,
        front: pareto_front(&costs),
        meets: files.iter().map(|file| wish.is_met(file)).collect(),
        recommended,
        best_buy: recommended.and_then(|taken| wish.best_buy(&files, taken)),
        results,
    })
}

fn choosable(level: &Level, measured: &Measured) -> Choosable {
    let e = &measured.evaluation;
    let ratio = e.perplexity_ratio.as_ref().map_or(f64::NAN, |ratio| ratio.ratio);
    Choosable { bytes: level.bytes, kl: measured.kl(), top1: e.top1.unwrap_or(f64::NAN), ratio }
}

/// A level that is made when it is measured.
struct Made<'a> {
    level: &'a Level,
    model: &'a OpenModel,
    identity: String,
    /// As progress calls it.
    step: String,
    timed: bool,
    observer: &'a dyn Observer,
    speed: OnceCell<Speed>,
    /// Blocks that became zero although their weights are not, once the level was made.
    zeroed: Cell<u64>,
}

impl<'a> Made<'a> {
    fn new(level: &'a Level, source: LevelSource<'a>, step: String, timed: bool, observer: &'a dyn Observer) -> Self {
        let identity = format!("{} in {}", source.identity, level.types);
        Self { level, model: source.model, identity, step, timed, observer, speed: OnceCell::new(), zeroed: Cell::new(0) }
    }
}

impl Candidate for Made<'_> {
    fn name(&self) -> &str {
        &self.level.names[0]
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn step(&self) -> Option<String> {
        Some(self.step.clone())
    }

    fn with(&self, task: &mut dyn FnMut(Runnable) -> Result<(), ChooseError>) -> Result<(), ChooseError> {
        let rendered = self.level.rendered(self.model, &self.step, self.observer)?;
        self.zeroed.set(rendered.zeroed_blocks);
        task(Runnable::new(&rendered.model))
    }

    fn measured(&self, model: Runnable) -> Result<(), ChooseError> {
        if self.timed && self.speed.get().is_none() {
            let found = measure((self.name(), &self.step), &model, self.level.bytes, self.observer)?;
            // Once a level: it is empty, as was just seen.
            found.into_iter().for_each(|speed| drop(self.speed.set(speed)));
        }
        Ok(())
    }
}
