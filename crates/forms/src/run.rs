//! All cases of all start states, with one layer of one form in memory at a time.

use rwkv_forge_kernel::{HeadStream, KernelOptions, embed};
use rwkv_forge_parallel::{self as parallel, Head};
use rwkv_forge_weights::{LayerState, Model, State};

use crate::bounds::Quantity;
use crate::cases::{Case, FormsOptions, Start, Tier};
use crate::error::FormsError;
use crate::measure::Meter;
use crate::report::{FormsReport, Ledger};
use crate::runner::check;
use crate::start::{Number, for_kernel, parts, state};
use crate::streams::{Parallel, Recurrent};

/// Vocabulary entries whose logits are in memory at once.
const HEAD_ROWS: usize = 2048;

/// How far a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The state that the sequences start from.
    pub start: Start,
    /// The layer that was just passed, from 0; `None` for the head.
    pub layer: Option<usize>,
    /// Sequences through layers and heads that are done.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// Compares the recurrent form of one model with the parallel form of another, which for most purposes is the same.
///
/// Memory: one layer of one form in f64, the streams of all sequences of one start state, the states of all layers, and the
/// logits of a range of the vocabulary.
///
/// ```
/// use rwkv_forge_forms::{FormsOptions, Tier, compare};
/// # use rwkv_forge_weights::Model;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let tokens: Vec<u32> = (0..20).collect();
/// let options = FormsOptions { lengths: vec![1, 20], chunks: vec![7], ..FormsOptions::default() };
/// let report = compare(&model, &model, &tokens, &options, &mut |_progress| ())?;
/// assert!(report.agrees(), "{}", report.to_markdown()?);
/// // How near the worst number came to its bound.
/// assert!(report.excess(Tier::F64) < 1.0 && report.comparisons > 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// For hybrids, for models of different shapes, when a token is outside the vocabulary, when reading or computing fails, and
/// when the recurrent form in f64 gives NaN or infinities. A parallel form that does is a finding.
pub fn compare(
    recurrent: &Model,
    parallel: &Model,
    tokens: &[u32],
    options: &FormsOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<FormsReport, FormsError> {
    let options = &checked(recurrent, parallel, tokens, options)?;
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    let mut run = Run {
        recurrent,
        parallel,
        tokens: &tokens[..longest],
        options,
        half: None,
        ledger: Ledger::default(),
        place: (Start::Zero, None),
        done: 0,
        total: 0,
        progress,
    };
    let starts = run.starts();
    run.total = run.steps(&starts);
    for (start, judged) in starts {
        run.start(start, judged)?;
    }
    let description = recurrent.description();
    Ok(run.ledger.finish(description.version.to_string(), description.hyperparameters.layers, options))
}

/// The options with lengths and chunks in ascending order, each once.
fn checked(recurrent: &Model, parallel: &Model, tokens: &[u32], options: &FormsOptions) -> Result<FormsOptions, FormsError> {
    let (a, b) = (recurrent.description(), parallel.description());
    for description in [a, b] {
        check(description)?;
    }
    if a.version != b.version || a.hyperparameters != b.hyperparameters {
        let name = |d: &rwkv_forge_model::ModelDescription| format!("{} {:?}", d.version, d.hyperparameters);
        return Err(FormsError::DifferentModels { recurrent: name(a), parallel: name(b) });
    }
    let mut out = options.clone();
    for numbers in [&mut out.lengths, &mut out.chunks] {
        numbers.sort_unstable();
        numbers.dedup();
    }
    for (missing, what) in [
        (out.lengths.first().is_none_or(|length| *length == 0), "no length, or one of 0 tokens"),
        (out.chunks.first().is_none_or(|chunk| *chunk == 0), "no chunk length, or one of 0 tokens"),
        (out.starts.is_empty(), "no start state"),
        (out.tiers.is_empty(), "no precision"),
    ] {
        if missing {
            return Err(FormsError::Nothing { what });
        }
    }
    match out.lengths.last() {
        Some(length) if *length > tokens.len() => Err(FormsError::TooLong { length: *length, tokens: tokens.len() }),
        _ => Ok(out),
    }
}

struct Run<'a> {
    recurrent: &'a Model,
    parallel: &'a Model,
    tokens: &'a [u32],
    options: &'a FormsOptions,
    /// The states after the first half of the tokens, once the zero state has been run.
    half: Option<State<f64>>,
    ledger: Ledger,
    place: (Start, Option<usize>),
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(Progress),
}

/// The recurrent form, whose one sequence is the case of every length.
struct Lengths<F> {
    stream: Recurrent<F>,
    /// Each with its number in the ledger.
    cases: Vec<(Case, usize)>,
}

/// The sequences of one start state in one precision.
struct Group<F> {
    /// In f32: the recurrent form.
    recurrent: Option<Lengths<F>>,
    parallel: Vec<Parallel<F>>,
}

impl<F> Group<F> {
    /// Sequences on their way.
    fn streams(&self) -> usize {
        self.parallel.len() + usize::from(self.recurrent.is_some())
    }
}

impl Run<'_> {
    /// The start states to run, each with whether it is judged: others need the state that the zero state leads to.
    fn starts(&self) -> Vec<(Start, bool)> {
        let wanted = |start: &Start| self.options.starts.contains(start);
        let mut out: Vec<(Start, bool)> = Start::ALL.into_iter().filter(wanted).map(|start| (start, true)).collect();
        if !wanted(&Start::Zero) {
            out.insert(0, (Start::Zero, false));
        }
        out
    }

    fn steps(&self, starts: &[(Start, bool)]) -> usize {
        let cases = |start: Start, tier: &Tier| self.options.parallel_cases(start, *tier).len() + usize::from(*tier == Tier::F32);
        let each = |(start, judged): &(Start, bool)| {
            let judged: usize = if *judged { self.options.tiers.iter().map(|tier| cases(*start, tier)).sum() } else { 0 };
            1 + judged
        };
        let layers = self.recurrent.description().hyperparameters.layers;
        starts.iter().map(|start| each(start) * (layers + usize::from(start.1))).sum()
    }

    fn step(&mut self) {
        self.done += 1;
        let (start, layer) = self.place;
        (self.progress)(Progress { start, layer, done: self.done, total: self.total });
    }

    fn kernel_options(&self) -> KernelOptions {
        KernelOptions { group_norm_eps: self.options.parallel.group_norm_eps }
    }

    fn start(&mut self, start: Start, judged: bool) -> Result<(), FormsError> {
        let model = self.recurrent;
        let description = model.description();
        let channels = description.hyperparameters.channels;
        let tokens = self.tokens;
        let middle = (tokens.len() / 2).max(1);
        let mut ends = self.options.lengths.clone();
        if start == Start::Zero {
            ends.push(middle);
            ends.sort_unstable();
            ends.dedup();
        }
        let states = state(start, description, self.half.as_ref(), self.options.seed);
        let mut truth = Recurrent::new(description, tokens, embed::<f64>(model, tokens)?, ends.clone());
        let mut f64s = self.group::<f64>(start, Tier::F64, judged)?;
        let mut f32s = self.group::<f32>(start, Tier::F32, judged)?;
        let mut half = Vec::new();
        for (index, state) in states.layers.iter().enumerate() {
            self.place = (start, Some(index));
            let layer = rwkv_forge_kernel::Layer::load(model, index, &self.kernel_options())?;
            let snapshots = truth.advance(&layer, state.clone())?;
            drop(layer);
            finite(&truth.x, channels, &format!("the output of layer {index}"))?;
            for (end, state) in &snapshots {
                let values: Vec<f64> = state.values().collect();
                finite(&values, values.len(), &format!("the state of layer {index} after {end} tokens"))?;
            }
            half.extend(snapshots.iter().filter(|(end, _)| start == Start::Zero && *end == middle).map(|(_, state)| state.clone()));
            self.step();
            let truth = Truth { x: &truth.x, channels, snapshots: &snapshots };
            if let Some(group) = &mut f64s {
                self.layer(group, index, state, &truth)?;
            }
            if let Some(group) = &mut f32s {
                self.layer(group, index, state, &truth)?;
            }
        }
        if start == Start::Zero {
            self.half = Some(State { layers: half });
        }
        self.place = (start, None);
        if judged {
            self.heads(&truth.x, f64s.as_ref(), f32s.as_ref())?;
        }
        Ok(())
    }

    /// The sequences of one precision, before layer 0.
    fn group<F: Number>(&mut self, start: Start, tier: Tier, judged: bool) -> Result<Option<Group<F>>, FormsError> {
        if !judged || !self.options.tiers.contains(&tier) {
            return Ok(None);
        }
        let channels = self.recurrent.description().hyperparameters.channels;
        let mut recurrent = None;
        if tier == Tier::F32 {
            let x = embed::<F>(self.recurrent, self.tokens)?;
            let cases = self.options.recurrent_cases(start, tier).into_iter().map(|case| (case.clone(), self.ledger.case(case)));
            recurrent = Some(Lengths {
                stream: Recurrent::new(self.recurrent.description(), self.tokens, x, self.options.lengths.clone()),
                cases: cases.collect(),
            });
        }
        let x = parallel::embed::<F>(self.parallel, self.tokens, &self.options.parallel)?;
        let cases = self.options.parallel_cases(start, tier).into_iter();
        let parallel = cases.map(|case| Parallel::new(case.clone(), self.ledger.case(case), self.tokens, &x, channels)).collect();
        Ok(Some(Group { recurrent, parallel }))
    }

    /// Sends all sequences of a group through a layer and compares.
    fn layer<F: Number>(
        &mut self,
        group: &mut Group<F>,
        index: usize,
        start: &LayerState<f64>,
        truth: &Truth<'_>,
    ) -> Result<(), FormsError> {
        if let Some(Lengths { stream, cases }) = &mut group.recurrent {
            let model = self.recurrent;
            let layer = rwkv_forge_kernel::Layer::<F>::load(model, index, &self.kernel_options())?;
            let snapshots = stream.advance(&layer, for_kernel::<F>(start))?;
            for (case, number) in cases {
                if let Some((_, state)) = snapshots.iter().find(|(end, _)| *end == case.length) {
                    truth.compare(&mut self.ledger, *number, index, case.length, &stream.x, state);
                }
            }
            self.step();
        }
        let model = self.parallel;
        for chunk in &self.options.chunks {
            if !group.parallel.iter().any(|stream| stream.case.chunk == Some(*chunk)) {
                continue;
            }
            let options = self.options.parallel.clone().with_chunk(*chunk);
            let layer = parallel::Layer::<F>::load(model, index, &options)?;
            for stream in group.parallel.iter_mut().filter(|stream| stream.case.chunk == Some(*chunk)) {
                let state = stream.advance(&layer, start)?;
                truth.compare(&mut self.ledger, stream.number, index, stream.case.length, &stream.x, &state);
                self.step();
            }
        }
        Ok(())
    }

    /// Compares the logits of all sequences, a range of the vocabulary at a time.
    fn heads(&mut self, truth: &[f64], f64s: Option<&Group<f64>>, f32s: Option<&Group<f32>>) -> Result<(), FormsError> {
        let model = self.recurrent;
        let vocabulary = model.description().hyperparameters.vocabulary;
        let head = HeadStream::new(model, truth)?;
        let (mut f64_meters, mut f32_meters) = (meters(f64s), meters(f32s));
        let (before, streams) = (self.done, 1 + f64s.map_or(0, Group::streams) + f32s.map_or(0, Group::streams));
        for first in (0..vocabulary).step_by(HEAD_ROWS) {
            let rows = first..vocabulary.min(first + HEAD_ROWS);
            let wanted = head.logits(first, rows.len())?;
            finite(&wanted, rows.len(), "the logits")?;
            self.head(f64s, &wanted, rows.clone(), &mut f64_meters)?;
            self.head(f32s, &wanted, rows.clone(), &mut f32_meters)?;
            self.done = before + streams * rows.end / vocabulary;
            let (start, layer) = self.place;
            (self.progress)(Progress { start, layer, done: self.done, total: self.total });
        }
        for (number, meter) in f64_meters.into_iter().chain(f32_meters) {
            self.ledger.add(number, None, Quantity::Logits, &meter);
        }
        Ok(())
    }

    fn head<F: Number>(
        &self,
        group: Option<&Group<F>>,
        wanted: &[f64],
        rows: std::ops::Range<usize>,
        meters: &mut [(usize, Meter)],
    ) -> Result<(), FormsError> {
        let Some(group) = group else { return Ok(()) };
        let mut meters = meters.iter_mut();
        let mut add = |found: &[F], length: usize| {
            let Some((_, meter)) = meters.next() else { return };
            for (position, (want, got)) in wanted.chunks_exact(rows.len()).zip(found.chunks_exact(rows.len())).take(length).enumerate() {
                meter.add(position, rows.start, want, got.iter().map(|v| rwkv_forge_weights::Float::to_f64(*v)));
            }
        };
        if let Some(Lengths { stream, cases }) = &group.recurrent {
            let model = self.recurrent;
            let found = HeadStream::new(model, &stream.x)?.logits(rows.start, rows.len())?;
            cases.iter().for_each(|(case, _)| add(&found, case.length));
        }
        let model = self.parallel;
        let head = Head::<F>::load(model, rows.clone(), &self.options.parallel)?;
        for stream in &group.parallel {
            add(&head.logits(&stream.x)?, stream.case.length);
        }
        Ok(())
    }
}

/// A meter for the logits of each case, in the order in which [`Run::head`] visits them.
fn meters<F>(group: Option<&Group<F>>) -> Vec<(usize, Meter)> {
    let Some(group) = group else { return Vec::new() };
    let recurrent = group.recurrent.iter().flat_map(|lengths| lengths.cases.iter().map(|(case, number)| (*number, case.length)));
    let parallel = group.parallel.iter().map(|stream| (stream.number, stream.case.length));
    recurrent.chain(parallel).map(|(number, length)| (number, Meter::new(length))).collect()
}

/// What the recurrent form in f64 made of a layer.
struct Truth<'a> {
    x: &'a [f64],
    channels: usize,
    snapshots: &'a [(usize, LayerState<f64>)],
}

impl Truth<'_> {
    fn compare<F: Number>(&self, ledger: &mut Ledger, case: usize, layer: usize, length: usize, x: &[F], state: &LayerState<F>) {
        let elements = length * self.channels;
        let wide = x[..elements].iter().map(|v| rwkv_forge_weights::Float::to_f64(*v));
        ledger.add(case, Some(layer), Quantity::Output, &Meter::of(&self.x[..elements], wide, length));
        let Some((_, wanted)) = self.snapshots.iter().find(|(end, _)| *end == length) else { return };
        for ((quantity, wanted), (_, found)) in parts(wanted).into_iter().zip(parts(state)) {
            ledger.add(case, Some(layer), quantity, &Meter::of(&wanted, found.into_iter(), 1));
        }
    }
}

/// Refuses NaN and infinities in the truth.
fn finite(values: &[f64], width: usize, place: &str) -> Result<(), FormsError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            let (position, element) = (index / width.max(1), index % width.max(1));
            Err(FormsError::NonFinite { value: values[index], place: place.to_owned(), position, element })
        }
    }
}
