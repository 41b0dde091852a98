//! The measuring itself.
//!
//! All models that fit into memory together are loaded, and every round measures each of them once, in changing order, with
//! the bandwidth of the machine between them: whatever else the machine does meets all alike. The first round does not count.

use std::num::NonZeroUsize;
use std::time::Instant;

use rwkv_forge_engine::{Engine, Logits, Memory, State};
use rwkv_forge_matrix::Arithmetic;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_weights::{Model, check_logits};

use crate::bandwidth::{Bandwidth, Buffer, Reader};
use crate::error::BenchError;
use crate::noise::{Listener, WIDE_SPREAD, doubts};
use crate::report::{Decode, Load, MemoryReport, ModelReport, Position, Prompt, Report};
use crate::settings::{Settings, Subject, Tokens};
use crate::statistics::Spread;
use crate::system::{Machine, available_memory, resident_memory};

/// Tokens whose time is taken at one position in one round, at most.
const AT_POSITION: usize = 16;

/// Hears of every step before it is made: steps that are done, all of them, and what comes; at the end, nothing.
pub type OnStep<'a> = &'a dyn Fn(usize, usize, &str);

/// Measures all subjects.
///
/// ```
/// use rwkv_forge_bench::{Settings, Subject, run};
/// use rwkv_forge_engine::EngineOptions;
/// # use rwkv_forge_weights::Model;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let subject = Subject { name: "tiny".to_owned(), model, file_bytes: 1 << 17, options: EngineOptions::default() };
/// let few = Settings { tokens: 4, repeat: 2, prompts: vec![8], loads: 1, position: 0, buffer_bytes: Some(1 << 20) };
/// let report = run(&[subject], &few, &|_done, _total, _what| ())?;
/// let decode = &report.models[0].decode.tokens_per_second;
/// println!("{:.0} tokens a second", decode.median);
/// assert_eq!(decode.count, 2);
/// assert!(0.0 < decode.min && decode.min <= decode.max);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the settings measure nothing, the engine refuses a model, or memory is short.
pub fn run(subjects: &[Subject], settings: &Settings, progress: OnStep<'_>) -> Result<Report, BenchError> {
    settings.check()?;
    let machine = Machine::this();
    let groups = groups(subjects)?;
    let mut notes = Vec::new();
    if groups.len() > 1 {
        notes.push(format!("the models do not fit into memory together: measured in {} groups, one after the other", groups.len()));
    }
    let steps = Steps::new(subjects.len(), groups.len(), settings, progress);
    let listener = Listener::begin();
    let (mut bandwidth, mut models, mut resident) = (Vec::new(), Vec::new(), None);
    for group in groups {
        let mut loaded = Vec::with_capacity(group.len());
        for subject in group {
            loaded.push(Loaded::new(subject, settings, &steps)?);
        }
        resident = resident_memory();
        let measured = measure(&mut loaded, settings, &machine, &steps)?;
        models.extend(loaded.iter().filter_map(|model| model.report(&measured)));
        bandwidth = measured;
    }
    steps.step("");
    let quiet = listener.heard();
    for Bandwidth { threads, bytes_per_second, .. } in bandwidth.iter().filter(|found| found.bytes_per_second.relative() > WIDE_SPREAD) {
        let (spread, bound) = (bytes_per_second.relative() * 100.0, WIDE_SPREAD * 100.0);
        notes.push(format!(
            "To be distrusted (?): the bandwidth with {threads} threads, half of whose passes spread over {spread:.0} % of the median, more than \
             {bound:.0} %"
        ));
    }
    models.iter_mut().for_each(|model: &mut ModelReport| model.doubts = doubts(&model.decode, &quiet, machine.last_level_cache_bytes));
    Ok(Report { machine, bandwidth, models, process_resident_bytes: resident, quiet, notes })
}

/// How far the work is.
struct Steps<'a> {
    done: std::cell::Cell<usize>,
    total: usize,
    progress: OnStep<'a>,
}

impl<'a> Steps<'a> {
    fn new(subjects: usize, groups: usize, settings: &Settings, progress: OnStep<'a>) -> Self {
        let rounds = settings.repeat + 1;
        let prompts = subjects * settings.prompts.len() * rounds;
        let positions = subjects * settings.positions().len() * (rounds + 1);
        let total = subjects * settings.loads + (subjects + groups) * rounds + prompts + positions;
        Self { done: std::cell::Cell::new(0), total, progress }
    }

    fn step(&self, what: &str) {
        (self.progress)(self.done.get().min(self.total), self.total, what);
        self.done.set(self.done.get() + 1);
    }
}

/// Divides subjects, in their order, into groups that take half of the available memory at most.
fn groups(subjects: &[Subject]) -> Result<Vec<&[Subject]>, BenchError> {
    let limit = available_memory().unwrap_or(u64::MAX) / 2;
    let (mut groups, mut first, mut sum) = (Vec::new(), 0, 0u64);
    for (index, subject) in subjects.iter().enumerate() {
        let Memory { weights, state, scratch, batch, .. } = predicted(subject)?;
        let bytes = weights.saturating_add(state).saturating_add(scratch).saturating_add(batch);
        if index > first && sum.saturating_add(bytes) > limit {
            groups.push(&subjects[first..index]);
            (first, sum) = (index, 0);
        }
        sum = sum.saturating_add(bytes);
    }
    groups.push(&subjects[first..]);
    Ok(groups)
}

fn predicted(subject: &Subject) -> Result<Memory, BenchError> {
    rwkv_forge_engine::memory(&subject.model, &subject.options).map_err(|error| of(subject, error))
}

fn of(subject: &Subject, error: rwkv_forge_engine::EngineError) -> BenchError {
    BenchError::Engine { file: subject.name.clone(), error }
}

/// A model in memory, and what was measured of it.
struct Loaded<'a> {
    subject: &'a Subject,
    engine: Engine,
    state: State,
    logits: Vec<f32>,
    tokens: Tokens,
    loads: Vec<f64>,
    memory: MemoryReport,
    /// Tokens a second of each round.
    decode: Vec<f64>,
    /// Seconds of each token.
    token_seconds: Vec<f64>,
    /// Tokens a second of each round, for each length.
    prompts: Vec<(usize, Vec<f64>)>,
    positions: Vec<Place>,
}

/// A position, the state just before its token, and tokens a second of each round.
struct Place {
    position: usize,
    state: State,
    rates: Vec<f64>,
}

impl<'a> Loaded<'a> {
    fn new(subject: &'a Subject, settings: &Settings, steps: &Steps<'_>) -> Result<Self, BenchError> {
        let before = resident_memory();
        let predicted = predicted(subject)?;
        let mut loads = Vec::new();
        let mut load = || {
            steps.step(&format!("loading {}", subject.name));
            let begun = Instant::now();
            let engine = Engine::load(&subject.model, &subject.options, &mut |_, _| ()).map_err(|error| of(subject, error))?;
            loads.push(begun.elapsed().as_secs_f64());
            Ok::<_, BenchError>(engine)
        };
        for _ in 1..settings.loads {
            drop(load()?);
        }
        let mut engine = load()?;
        let vocabulary = subject.model.description().hyperparameters.vocabulary;
        let (mut state, mut logits, mut tokens) = (engine.new_state(), vec![0.0; vocabulary], Tokens::new(vocabulary));
        engine.step(tokens.next(), &mut state, &mut logits).map_err(|error| of(subject, error))?;
        check_logits(0, &logits).map_err(|error| of(subject, error.into()))?;
        let growth = before.zip(resident_memory()).map(|(before, after)| after.saturating_sub(before));
        let memory = MemoryReport { predicted, used: engine.memory(), resident_growth_bytes: growth };
        Ok(Self {
            subject,
            engine,
            state,
            logits,
            tokens,
            loads,
            memory,
            decode: Vec::new(),
            token_seconds: Vec::new(),
            prompts: settings.prompts.iter().map(|length| (*length, Vec::new())).collect(),
            positions: Vec::new(),
        })
    }

    /// Seconds of each of `count` tokens from `position` on, after the current state. Logits are looked at between the measurements.
    fn generate(&mut self, position: usize, count: usize) -> Result<Vec<f64>, BenchError> {
        let mut seconds = Vec::new();
        for position in position..position.saturating_add(count) {
            let token = self.tokens.next();
            let begun = Instant::now();
            self.engine.step(token, &mut self.state, &mut self.logits).map_err(|error| of(self.subject, error))?;
            seconds.push(begun.elapsed().as_secs_f64());
            check_logits(position, &self.logits).map_err(|error| of(self.subject, error.into()))?;
        }
        Ok(seconds)
    }

    /// One round of decoding, from an empty state.
    fn decode(&mut self, count: usize) -> Result<(), BenchError> {
        self.state = self.engine.new_state();
        let seconds = self.generate(0, count)?;
        self.decode.push(rate(&seconds));
        self.token_seconds.extend(seconds);
        Ok(())
    }

    /// One prompt, from an empty state to the logits of its last token.
    fn prompt(&mut self, index: usize) -> Result<(), BenchError> {
        let count = self.prompts[index].0;
        let tokens = self.tokens.some(count);
        let mut states = [self.engine.new_state()];
        let mut sound = Ok(());
        let begun = Instant::now();
        // A single row at the end of the whole prompt.
        let sink = |_: usize, position: usize, logits: &[f32]| sound = check_logits(position, std::hint::black_box(logits));
        self.engine.forward(&[&tokens], &mut states, Logits::Last, sink).map_err(|error| of(self.subject, error))?;
        let seconds = begun.elapsed().as_secs_f64();
        sound.map_err(|error| of(self.subject, error.into()))?;
        self.prompts[index].1.push(count as f64 / seconds);
        Ok(())
    }

    /// Feeds tokens until each position and keeps the states there.
    fn seek(&mut self, positions: &[usize], steps: &Steps<'_>) -> Result<(), BenchError> {
        let mut states = [self.engine.new_state()];
        let mut fed = 0;
        for position in positions {
            steps.step(&format!("{}: up to position {position}", self.subject.name));
            let tokens = self.tokens.some(position - 1 - fed);
            let sink = |_: usize, _: usize, _: &[f32]| ();
            self.engine.forward(&[&tokens], &mut states, Logits::None, sink).map_err(|error| of(self.subject, error))?;
            fed = position - 1;
            self.positions.push(Place { position: *position, state: states[0].clone(), rates: Vec::new() });
        }
        Ok(())
    }

    /// A few tokens at one position.
    fn at_position(&mut self, index: usize, count: usize) -> Result<(), BenchError> {
        self.state = self.positions[index].state.clone();
        let seconds = self.generate(self.positions[index].position - 1, count)?;
        self.positions[index].rates.push(rate(&seconds));
        Ok(())
    }

    /// Forgets the round that does not count.
    fn forget(&mut self) {
        self.decode.clear();
        self.token_seconds.clear();
        self.prompts.iter_mut().for_each(|(_, rates)| rates.clear());
        self.positions.iter_mut().for_each(|place| place.rates.clear());
    }

    /// The results; `None` if nothing was measured.
    fn report(&self, bandwidth: &[Bandwidth]) -> Option<ModelReport> {
        let Subject { name, model, file_bytes, options } = self.subject;
        let memory = MemoryReport { used: self.engine.memory(), ..self.memory };
        let tokens_per_second = Spread::of(&self.decode)?;
        let read_bytes_per_second = tokens_per_second.median * memory.predicted.read_per_token as f64;
        let threads = self.engine.threads();
        let bandwidth = bandwidth.iter().find(|bandwidth| bandwidth.threads == threads)?;
        let prompt = |(tokens, rates): &(usize, Vec<f64>)| Some(Prompt { tokens: *tokens, tokens_per_second: Spread::of(rates)? });
        let position = |place: &Place| Some(Position { position: place.position, tokens_per_second: Spread::of(&place.rates)? });
        let positions: Vec<Position> = self.positions.iter().filter_map(position).collect();
        let MainType { encoding, held, shares } = main_type(model, &self.engine);
        Some(ModelReport {
            file: name.clone(),
            format: model.format().to_string(),
            version: model.description().version.to_string(),
            encoding,
            held,
            shares,
            parameters: model.description().parameters(),
            file_bytes: *file_bytes,
            threads,
            isa: self.engine.isa().to_owned(),
            arithmetic: if options.arithmetic == Arithmetic::Int8 { "int8" } else { "float" },
            load: Load { seconds: Spread::of(&self.loads)?, first_seconds: self.loads.first().copied()? },
            memory,
            decode: Decode {
                tokens_per_second,
                token_seconds: Spread::of(&self.token_seconds)?,
                read_bytes_per_token: memory.predicted.read_per_token,
                read_bytes_per_second,
                bandwidth_share: read_bytes_per_second / bandwidth.bytes_per_second.median,
            },
            prompt: self.prompts.iter().filter_map(prompt).collect(),
            position_spread: spread(&positions),
            positions,
            notes: self.engine.notes().to_vec(),
            doubts: Vec::new(),
        })
    }
}

/// The largest difference of two medians, over the largest.
fn spread(positions: &[Position]) -> Option<f64> {
    let medians = positions.iter().map(|position| position.tokens_per_second.median);
    let all = Spread::of(&medians.collect::<Vec<_>>())?;
    Some((all.max - all.min) / all.max)
}

fn rate(seconds: &[f64]) -> f64 {
    seconds.len() as f64 / seconds.iter().sum::<f64>()
}

/// The type of the matrices, without the embedding, that takes the most bytes, the widest one in which the engine holds these, and how
/// many hundredths of the bytes each type has, the largest first.
#[derive(Default)]
struct MainType {
    encoding: String,
    held: String,
    shares: Vec<(String, u64)>,
}

fn main_type(model: &Model, engine: &Engine) -> MainType {
    let mut types = std::collections::BTreeMap::<&str, (u64, Option<Encoding>)>::new();
    let tensors = &model.description().tensors;
    for spec in tensors.iter().filter(|spec| spec.role.tensor_use() == rwkv_forge_model::TensorUse::Linear) {
        if let Some(info) = model.source().tensors().get(spec.source_index) {
            let (bytes, held) = types.entry(info.encoding.name).or_default();
            *bytes += info.byte_len().unwrap_or(0);
            *held = (*held).into_iter().chain(engine.held_as(&spec.name)).max_by_key(|encoding| encoding.block_bytes);
        }
    }
    let mut types: Vec<_> = types.into_iter().collect();
    types.sort_by_key(|(name, (bytes, _))| (std::cmp::Reverse(*bytes), *name));
    let all: u64 = types.iter().map(|(_, (bytes, _))| *bytes).sum();
    let hundredths = |bytes: u64| u64::try_from(u128::from(bytes) * 100 / u128::from(all.max(1))).unwrap_or(100);
    let shares = types.iter().map(|(name, (bytes, _))| ((*name).to_owned(), hundredths(*bytes))).collect();
    let Some((name, (_, held))) = types.first() else { return MainType::default() };
    MainType { encoding: (*name).to_owned(), held: held.map_or(*name, |held| held.name).to_owned(), shares }
}

/// All rounds of one group.
fn measure(models: &mut [Loaded<'_>], settings: &Settings, machine: &Machine, steps: &Steps<'_>) -> Result<Vec<Bandwidth>, BenchError> {
    let positions = settings.positions();
    for model in models.iter_mut() {
        model.seek(&positions, steps)?;
    }
    let buffer = settings.buffer_bytes.map_or_else(|| Buffer::new(machine), Buffer::with_bytes)?;
    let mut threads: Vec<usize> = models.iter().map(|model| model.engine.threads()).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut readers: Vec<Reader> = threads.into_iter().filter_map(NonZeroUsize::new).map(Reader::new).collect();
    for round in 0..=settings.repeat {
        if round == 1 {
            models.iter_mut().for_each(Loaded::forget);
            readers.iter_mut().for_each(Reader::forget);
        }
        let rounds = settings.repeat + 1;
        steps.step(&format!("round {} of {rounds}: the memory", round + 1));
        for reader in &mut readers {
            reader.pass(&buffer)?;
        }
        let count = models.len();
        let mut each = |what: &str, work: &mut dyn FnMut(&mut Loaded<'_>) -> Result<(), BenchError>| {
            (0..count).try_for_each(|index| {
                let model = &mut models[(index + round) % count];
                steps.step(&format!("round {} of {rounds}: {what} {}", round + 1, model.subject.name));
                work(model)
            })
        };
        each("decoding", &mut |model| model.decode(settings.tokens))?;
        for (index, length) in settings.prompts.iter().enumerate() {
            each(&format!("a prompt of {length} through"), &mut |model| model.prompt(index))?;
        }
        for (index, position) in positions.iter().enumerate() {
            each(&format!("at position {position}"), &mut |model| model.at_position(index, settings.tokens.min(AT_POSITION)))?;
        }
    }
    Ok(readers.iter().filter_map(|reader| reader.bandwidth(&buffer)).collect())
}
