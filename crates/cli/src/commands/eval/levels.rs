//! A model against itself in several types, quantized in memory: what each costs, and which to take.

use std::cell::Cell;
use std::num::NonZeroUsize;

use rwkv_forge_bench::{Machine, Settings};
use rwkv_forge_convert::container::{Container, by_name};
use rwkv_forge_convert::preset::{preset_by_name, type_names};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{ConvertOptions, Plan, Vocabulary};
use rwkv_forge_engine::EngineOptions;
use rwkv_forge_eval::Model;
use rwkv_forge_model::{ValueForm, Version};
use rwkv_forge_overlay::{Overlay, Weight};
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_report::pareto_front;
use rwkv_forge_tensor::{Encoding, TensorSource};
use serde_json::{Value, json};

use super::super::cache::{Cache, key};
use super::super::{open_options, shown, vocabulary};
use super::cache::Speed;
use super::choice::{Choosable, Wish};
use super::measure::{Candidate, Measured, Reference, Results};
use super::prediction::Predictions;
use super::{Outputs, Setting, Subject, merged, page, tables, to_value};
use crate::args::Global;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Tokens decoded a round, and rounds, to measure the speed of a level.
const SPEED: (usize, usize) = (32, 5);
/// Bytes of the buffer whose reading bench times, of which nothing is shown here.
const BUFFER: usize = 8 << 20;

/// More levels than this have no tables side by side on the terminal; the page has those of the best ones.
const DETAILED: usize = 4;

/// A type, and what becomes of the model in it.
pub(crate) struct Level<'a> {
    /// Its name, then other names that mean the same for this model.
    pub names: Vec<String>,
    /// Exact size of the file.
    pub bytes: u64,
    /// Bits a weight, everything in the file included.
    pub bits_per_weight: f64,
    source: &'a Subject,
    recipe: Recipe,
    plan: Plan,
    identity: String,
    speed: &'a SpeedOf<'a>,
    found: Cell<Option<Speed>>,
    /// Blocks that became zero although their weights are not, once the level was made.
    zeroed: Cell<u64>,
}

/// What was found of all levels.
pub(crate) struct LevelFindings<'a> {
    /// What the run has in common.
    pub setting: &'a Setting<'a>,
    /// The model.
    pub source: &'a Subject,
    /// Its container.
    pub container: &'static dyn Container,
    /// Levels, in the order of the command line.
    pub levels: &'a [Level<'a>],
    /// Numbers, in the same order.
    pub results: &'a Results,
    /// Whether the model predicts the text.
    pub predictions: Predictions,
    /// Speed of the model as it is.
    pub source_speed: Option<Speed>,
    /// Which levels no other one beats in size and loss.
    pub front: Vec<bool>,
    /// What was asked for.
    pub wish: Wish,
    /// What to take.
    pub recommended: Option<usize>,
}

/// Measures speeds, or does not.
pub(crate) struct SpeedOf<'a> {
    wanted: bool,
    cache: &'a Cache<'a>,
    machine: Machine,
}

/// Runs `eval --levels`.
pub(crate) fn run(
    setting: &Setting<'_>,
    source: &Subject,
    outputs: Outputs<'_>,
    global: &Global,
    terminal: &Terminal,
) -> Result<u8, Failure> {
    let version = source.open.description.version;
    if source.open.source().tensors().iter().any(|info| !info.encoding.is_dense()) {
        terminal.note("the source is quantized: levels are measured against it, so its own losses are in none of the numbers");
    }
    let container = container(setting, version)?;
    let wanted = !setting.args.quantizing.no_speed && !version.is_hybrid();
    let speed = SpeedOf { wanted, cache: setting.job.cache, machine: Machine::this() };
    let levels = levels(setting, source, container, &speed, global, terminal)?;
    let candidates: Vec<&dyn Candidate> = levels.iter().map(|level| level as &dyn Candidate).collect();
    let reference = Reference { model: source.model(), identity: source.identity() };
    let results = setting.job.run(Some(reference), &candidates, None, terminal)?;
    for level in levels.iter().filter(|level| speed.wanted && level.found.get().is_none()) {
        level.with(&mut |model| level.measured(model))?;
    }
    for level in levels.iter().filter(|level| level.zeroed.get() > 0) {
        let (name, count) = (level.name(), level.zeroed.get());
        terminal.warn(&format!("{name}: {count} blocks became zero although their weights are not"));
    }
    let source_speed = speed.of(source.name(), source.identity(), source.model(), source.bytes)?;
    let costs: Vec<(f64, f64)> = levels.iter().zip(&results.models).map(|(level, found)| (level.bytes as f64, kl(found))).collect();
    let wish = Wish { limits: setting.args.limits, max_size: setting.args.quantizing.max_size };
    let files: Vec<Choosable> = levels.iter().zip(&results.models).map(|(level, found)| choosable(level, found)).collect();
    let recommended = wish.choose(&files);
    let front = pareto_front(&costs);
    let (levels, results) = (levels.as_slice(), &results);
    let rows = source.open.description.hyperparameters.vocabulary;
    let predictions = Predictions::of(&setting.job.texts.plan, rows, Some(source.name()), results)?;
    predictions.warnings.iter().for_each(|warning| terminal.warn(warning));
    let findings = LevelFindings { setting, source, container, levels, results, predictions, source_speed, front, wish, recommended };
    terminal.print(&findings.text()?);
    terminal.print_json("eval", &findings.to_json()?)?;
    outputs.write(|| page::of_levels(&findings), || Ok(findings.csv()))?;
    Ok(u8::from(wish.is_there() && recommended.is_none()))
}

/// Mean divergence; not a number if there is none, which is on no front and within no limit.
pub(crate) fn kl(measured: &Measured) -> f64 {
    measured.evaluation.kl.as_ref().map_or(f64::NAN, |kl| kl.mean)
}

fn choosable(level: &Level<'_>, measured: &Measured) -> Choosable {
    let e = &measured.evaluation;
    let ratio = e.perplexity_ratio.as_ref().map_or(f64::NAN, |ratio| ratio.ratio);
    Choosable { bytes: level.bytes, kl: kl(measured), top1: e.top1.unwrap_or(f64::NAN), ratio }
}

/// The container whose rules apply.
fn container(setting: &Setting<'_>, version: Version) -> Result<&'static dyn Container, Failure> {
    if let Some(name) = &setting.args.quantizing.to {
        return Ok(by_name(name)?);
    }
    let gguf = by_name("gguf")?;
    let carries = gguf.carries(version).is_ok();
    Ok(if carries { gguf } else { by_name("rwkv-cpp")? })
}

/// The types asked for, in order; names that mean the same for this model are one level.
fn levels<'a>(
    setting: &Setting<'_>,
    source: &'a Subject,
    container: &'static dyn Container,
    speed: &'a SpeedOf<'a>,
    global: &Global,
    terminal: &Terminal,
) -> Result<Vec<Level<'a>>, Failure> {
    let vocabulary = vocabulary(&setting.args.vocabulary)?;
    let all = setting.args.levels.iter().any(|name| name == "all");
    let names: Vec<String> = if all { all_types(container)? } else { setting.args.levels.clone() };
    let mut out: Vec<Level<'a>> = Vec::new();
    for name in names {
        let level = Level::new(&name, source, container, &vocabulary, speed, global)?;
        match out.iter_mut().find(|other| other.identity == level.identity) {
            Some(other) => {
                if !all {
                    terminal.note(&format!("for this model {name} is the same as {}", other.names[0]));
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
fn all_types(container: &dyn Container) -> Result<Vec<String>, Failure> {
    let mut out = Vec::new();
    for name in type_names() {
        let preset = preset_by_name(name)?;
        if container.holds(preset.base) && !preset.base.is_dense() && preset.name == name {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

impl<'a> Level<'a> {
    fn new(
        name: &str,
        source: &'a Subject,
        container: &'static dyn Container,
        vocabulary: &Vocabulary,
        speed: &'a SpeedOf<'a>,
        global: &Global,
    ) -> Result<Self, Failure> {
        let mut recipe = Recipe::new(None, Some(name), &[])?;
        if recipe.preset.ready.is_some() && recipe.quantizer == Quantizer::Ggml {
            recipe.quantizer = Quantizer::Search;
        }
        // The text may be read as bytes; what a hybrid's file carries is the vocabulary beside it.
        let vocabulary = if source.open.description.version.is_hybrid() { &Vocabulary::Auto } else { vocabulary };
        let stem = source.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let options = ConvertOptions {
            container,
            recipe: &recipe,
            vocabulary,
            treatment: None,
            name: stem.as_deref(),
            // Nothing is written: what a short vocabulary means is said where the text is read.
            pad_vocabulary: true,
            requantize: true,
            allow_f16_loss: true,
            force: false,
            claims: None,
            open: open_options(global),
            verify: None,
            prepared: None,
        };
        let plan = rwkv_forge_convert::plan(&source.open, &options)?;
        let bytes = plan.layout.total_bytes();
        // What a container holds in another form is quantized in that form.
        let mut identity = format!("{} in {}", source.files.text(&source.open), container.name());
        for (spec, choice) in source.open.description.tensors.iter().zip(&plan.choices) {
            let quantizer = recipe.quantizer_of(&spec.name, choice.encoding).name();
            identity.push_str(&format!(" {}={}:{quantizer}", spec.name, choice.encoding.name));
        }
        let key = speed.key(&identity);
        let found = Cell::new(if speed.wanted { speed.cache.speed(&key) } else { None });
        let bits_per_weight = bytes as f64 * 8.0 / source.open.description.parameters().max(1) as f64;
        Ok(Self {
            names: vec![name.to_owned()],
            bytes,
            bits_per_weight,
            source,
            recipe,
            plan,
            identity,
            speed,
            found,
            zeroed: Cell::new(0),
        })
    }

    /// The model in this type: replaced tensors lie in a file without a name.
    fn quantized(&self) -> Result<Overlay<'a>, Failure> {
        let open = &self.source.open;
        let (mut overlay, prepared) = rwkv_forge_convert::prepare(open, &self.plan, &self.recipe, None, None, &|_, _| ())?;
        let mut encoder = Overlay::new(open.source(), &open.description);
        for (spec, choice) in open.description.tensors.iter().zip(&self.plan.choices) {
            let now = overlay.description().find(&spec.name).and_then(|spec| overlay.tensors().get(spec.source_index));
            // What the container keeps in 32 bits is not changed by it.
            let same = now.is_none_or(|info| info.encoding == choice.encoding) || choice.encoding == Encoding::F32;
            if same || Weight::of(spec).is_err() {
                continue;
            }
            encoder.encode(&spec.name, choice.encoding, None)?;
            let Some(index) = encoder.description().find(&spec.name).map(|spec| spec.source_index) else { continue };
            let len = encoder.tensors()[index].byte_len().ok().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
            let mut bytes = vec![0; len];
            encoder.read_at(index, 0, &mut bytes)?;
            overlay.replace(&spec.name, choice.encoding, ValueForm::Canonical, bytes)?;
        }
        self.zeroed.set(encoder.zeroed_blocks() + prepared.iter().map(|tensor| tensor.zeroed_blocks).sum::<u64>());
        Ok(overlay)
    }

    /// Tokens a second and memory, if they were measured.
    pub(crate) fn speed(&self) -> Option<Speed> {
        self.found.get()
    }
}

impl Candidate for Level<'_> {
    fn name(&self) -> &str {
        &self.names[0]
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn with(&self, task: &mut dyn FnMut(Model<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let overlay = self.quantized()?;
        task(Model::new(&overlay, overlay.description()))
    }

    fn measured(&self, model: Model<'_>) -> Result<(), Failure> {
        if self.found.get().is_none() {
            self.found.set(self.speed.of(self.name(), &self.identity, model, self.bytes)?);
        }
        Ok(())
    }
}

impl SpeedOf<'_> {
    fn key(&self, identity: &str) -> String {
        let threads = rayon::current_num_threads().to_string();
        key("speed").with(identity).with(&self.machine.cpu).with(&threads).name()
    }

    /// Of a model that may be known from an earlier run.
    fn of(&self, name: &str, identity: &str, model: Model<'_>, file_bytes: u64) -> Result<Option<Speed>, Failure> {
        if !self.wanted {
            return Ok(None);
        }
        let key = self.key(identity);
        if let Some(speed) = self.cache.speed(&key) {
            return Ok(Some(speed));
        }
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        let options = EngineOptions { threads, ..EngineOptions::default() };
        let Model { source, description, .. } = model;
        let subject = rwkv_forge_bench::Subject { name: name.to_owned(), source, description, file_bytes, options };
        let (tokens, repeat) = SPEED;
        let settings = Settings { tokens, repeat, prompts: Vec::new(), loads: 1, position: 0, buffer_bytes: Some(BUFFER) };
        let report = rwkv_forge_bench::run(&[subject], &settings, &|_, _| ())?;
        let Some(found) = report.models.first() else { return Ok(None) };
        let memory = found.memory.used;
        let speed = Speed {
            tokens_per_second: found.decode.tokens_per_second.median,
            memory_bytes: memory.weights + memory.state + memory.scratch,
        };
        self.cache.keep_speed(&key, &speed)?;
        Ok(Some(speed))
    }
}

impl LevelFindings<'_> {
    /// Indices of the levels that another one beats.
    pub(crate) fn beaten(&self) -> Vec<usize> {
        self.front.iter().enumerate().filter(|(_, on)| !**on).map(|(index, _)| index).collect()
    }

    /// The answer in one sentence; `None` when nothing was asked.
    pub(crate) fn sentence(&self) -> Option<String> {
        if !self.wish.is_there() {
            return None;
        }
        let Some(index) = self.recommended else {
            return Some(format!("no level meets {}", self.wish.text()));
        };
        let (level, found) = (&self.levels[index], &self.results.models[index]);
        let why = if self.wish.max_size.is_some() { "the least loss" } else { "the smallest file" };
        Some(format!(
            "take {}: {why} within {} ({:.1} MB, mean KL {})",
            level.names[0],
            self.wish.text(),
            level.bytes as f64 / 1e6,
            super::super::number(kl(found)),
        ))
    }

    /// What to type to get the recommended file.
    pub(crate) fn command(&self) -> Option<String> {
        let level = &self.levels[self.recommended?];
        let vocabulary = self.setting.args.vocabulary.vocab.as_ref().map_or_else(String::new, |path| format!(" --vocab {}", shown(path)));
        let (source, container) = (shown(&self.source.path), self.container.name());
        Some(format!("rwkv-forge convert {source} --to {container} --type {}{vocabulary}", level.names[0]))
    }

    fn text(&self) -> Result<String, Failure> {
        let mut out = format!("{}\n{}\n", super::super::model_line(&self.source.open.description), self.setting.line());
        let table = tables::levels(self);
        out.push_str(&format!("\n{}:\n\n{}", table.title, table.to_markdown()?));
        out.push_str("* no other level is both as small and as close; the others are beaten by one of these\n\n");
        if self.levels.len() <= DETAILED {
            let models: Vec<&Measured> = self.results.models.iter().collect();
            for table in tables::parts(&models).into_iter().chain(tables::worst_layers(&self.results.models)) {
                out.push_str(&format!("{}:\n\n{}\n", table.title, table.to_markdown()?));
            }
        }
        if let Some(sentence) = self.sentence() {
            out.push_str(&format!("=> {sentence}\n"));
        }
        if let Some(command) = self.command() {
            out.push_str(&format!("   {command}\n"));
        }
        Ok(out)
    }

    fn csv(&self) -> rwkv_forge_report::Table {
        let levels = self.levels.iter().map(|level| (level.bytes, level.bits_per_weight));
        let rows: Vec<_> = self.results.models.iter().zip(levels).map(|(found, (bytes, bits))| (found, bytes, bits)).collect();
        tables::all(self.setting, &rows)
    }

    fn to_json(&self) -> Result<Value, Failure> {
        let mut models = Vec::new();
        for (index, (level, found)) in self.levels.iter().zip(&self.results.models).enumerate() {
            let own = json!({
                "type": level.names[0],
                "same_as": &level.names[1..],
                "file_bytes": level.bytes,
                "bits_per_weight": level.bits_per_weight,
                "on_front": self.front[index],
                "meets_limits": self.wish.is_met(&choosable(level, found)),
                "speed": level.speed(),
                "layers": found.layers,
                "seconds": found.seconds,
                "kept_parts": found.kept_parts,
            });
            models.push(merged([own, to_value(&found.evaluation)?]));
        }
        let baseline = match &self.results.baseline {
            Some(evaluation) => {
                let own = json!({ "speed": self.source_speed, "prediction": self.predictions.baseline });
                merged([self.source.to_json(), own, to_value(evaluation)?])
            }
            None => Value::Null,
        };
        let own = json!({
            "container": self.container.name(),
            "baseline": baseline,
            "models": models,
            "recommended": self.recommended.map(|index| &self.levels[index].names[0]),
            "recommendation": self.sentence(),
            "machine": self.levels.first().map(|level| &level.speed.machine),
        });
        Ok(merged([self.setting.to_json(), own]))
    }
}
