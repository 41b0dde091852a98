//! `generate`: text from a prompt, through the engine or the reference kernel.

use std::num::NonZeroUsize;
use std::path::Path;

use rwkv_forge_choose::Unit;
use rwkv_forge_convert::OpenModel;
use rwkv_forge_engine::{Engine, EngineOptions, Logits};
use rwkv_forge_eval::Kernel;
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_tensor::SplitMix64;
use rwkv_forge_tokenizer::SpecialId;
use rwkv_forge_weights::{State, check_logits};
use serde_json::json;

use super::models::Models;
use super::start::started;
use super::{check_integrity, kernel, needs_head, read_text, tokenizer, vocabulary};
use crate::args::{Generate, Global};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::stdio::DASH;
use crate::terminal::Terminal;

/// Runs the command.
pub(crate) fn run(args: &Generate, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    check(args)?;
    let mut models = Models::new(&args.source_args, global);
    let model = models.open(&args.model, terminal)?;
    needs_head(&model)?;
    let model = started(model, &args.state, &mut models, terminal)?;
    models.finish()?;
    let tokenizer = tokenizer(&model, &vocabulary(&args.vocabulary)?, "generating text", terminal)?;
    let text = if args.prompt == DASH { read_text(Path::new(DASH))? } else { args.prompt.clone() };
    let prompt = tokenizer.encode(text.as_bytes())?;
    if prompt.is_empty() {
        return Err(Failure::usage("EmptyPrompt", "the prompt is empty: give at least one character with --prompt".to_owned()));
    }
    let state = model.model.start_state()?;
    check_integrity(&model, terminal)?;
    let by = choose(args, &model, terminal);
    let mut loaded = Loaded::load(&model, by, state, terminal)?;
    let mut logits = vec![0.0; model.description().hyperparameters.vocabulary];
    loaded.prompt(&prompt, &mut logits)?;
    // What the file itself says of it, if that can be read: a damaged vocabulary was refused above, unless another one is given.
    let said = model.words().ok();
    let end = said.and_then(|words| Some(words.special.get(SpecialId::Eos)?.value));
    for fault in said.iter().flat_map(|words| &words.faults).filter(|fault| fault.key == SpecialId::Eos.name()) {
        terminal.note(&format!("where a text ends is not known from all files: {}", fault.error()));
    }
    let mut screen = Screen::of_stdout();
    // Text that nobody reads is not worth computing; a document comes at the end.
    let mut is_read = terminal.json() || terminal.print_bytes(&screen.shown(text.as_bytes()));
    let mut random = SplitMix64::new(args.seed);
    let mut ids = Vec::new();
    for _ in 0..args.tokens {
        if !is_read {
            return Ok(0);
        }
        let token = sample(&logits, args.temperature, args.top_p, &mut random);
        if Some(token) == tokenizer.end_of_text() || Some(token) == end {
            break;
        }
        ids.push(token);
        if !terminal.json() {
            // Bytes, not characters: a token may end inside one.
            is_read = terminal.print_bytes(&screen.shown(tokenizer.token_bytes(token).unwrap_or_default()));
        }
        loaded.step(token, &mut logits)?;
        check_logits(prompt.len() + ids.len() - 1, &logits)?;
    }
    terminal.print(&format!("{}\n", String::from_utf8_lossy(&screen.rest())));
    let continuation = String::from_utf8_lossy(&tokenizer.decode(&ids)?).into_owned();
    terminal
        .print_json("generate", &json!({ "prompt": text, "text": continuation, "tokens": ids, "seed": args.seed, "kernel": by.name() }))?;
    Ok(0)
}

/// The kernel that is asked for, or the reference where the engine cannot run the model.
fn choose(args: &Generate, model: &OpenModel, terminal: &Terminal) -> Kernel {
    let by = kernel(&args.kernel);
    match rwkv_forge_engine::supports(&model.description().mechanisms) {
        Err(mechanism) if by == Kernel::Engine => {
            let version = model.description().version;
            terminal.note(&format!("the engine does not run {version}, for want of {mechanism}: using the reference kernel"));
            Kernel::Reference
        }
        Ok(()) | Err(_) => by,
    }
}

/// A model in memory with the state of the text so far.
enum Loaded {
    Reference(Box<RecurrentModel<f32>>, State<f32>),
    Engine(Box<Engine>, rwkv_forge_engine::State),
}

impl Loaded {
    fn load(model: &OpenModel, by: Kernel, state: State<f32>, terminal: &Terminal) -> Result<Self, Failure> {
        let model = &model.model;
        if by == Kernel::Reference {
            let loaded = RecurrentModel::<f32>::load(model, &KernelOptions::default())?;
            return Ok(Self::Reference(Box::new(loaded), state));
        }
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        let options = EngineOptions { threads, ..EngineOptions::default() };
        let progress = Progress::new(terminal, "loading", Unit::Layers);
        let engine = Engine::load(model, &options, &mut |done, total| progress.set(done as u64, total as u64))?;
        drop(progress);
        for note in engine.notes() {
            terminal.detail(note);
        }
        let state = rwkv_forge_engine::State::from_kernel(&state, model.description())?;
        Ok(Self::Engine(Box::new(engine), state))
    }

    /// Feeds the prompt; logits of its last token.
    fn prompt(&mut self, tokens: &[u32], logits: &mut [f32]) -> Result<(), Failure> {
        match self {
            Self::Reference(model, state) => tokens.iter().enumerate().try_for_each(|(position, token)| {
                model.step(*token, state, logits)?;
                Ok(check_logits(position, logits)?)
            }),
            Self::Engine(engine, state) => {
                let sink = |_: usize, _: usize, row: &[f32]| logits.copy_from_slice(row);
                engine.forward(&[tokens], std::slice::from_mut(state), Logits::Last, sink)?;
                Ok(check_logits(tokens.len() - 1, logits)?)
            }
        }
    }

    fn step(&mut self, token: u32, logits: &mut [f32]) -> Result<(), Failure> {
        match self {
            Self::Reference(model, state) => Ok(model.step(token, state, logits)?),
            Self::Engine(engine, state) => Ok(engine.step(token, state, logits)?),
        }
    }
}

fn check(args: &Generate) -> Result<(), Failure> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        return Err(Failure::usage("Temperature", format!("--temperature {} is not a number of 0 or more", args.temperature)));
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return Err(Failure::usage("TopP", format!("--top-p {} is not in (0, 1]", args.top_p)));
    }
    Ok(())
}

/// Draws a token. Ties and the greedy choice go to the smallest id, so that results do not depend on anything else.
fn sample(logits: &[f32], temperature: f32, top_p: f32, random: &mut SplitMix64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let id = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let best = order[0];
    if temperature == 0.0 {
        return id(best);
    }
    let weight = |index: usize| (f64::from(logits[index] - logits[best]) / f64::from(temperature)).exp();
    let total: f64 = order.iter().map(|index| weight(*index)).sum();
    let mut kept = 0.0;
    let mut count = 0;
    while count < order.len() && (count == 0 || kept < f64::from(top_p) * total) {
        kept += weight(order[count]);
        count += 1;
    }
    let mut point = random.uniform_f64() * kept;
    for index in &order[..count] {
        point -= weight(*index);
        if point < 0.0 {
            return id(*index);
        }
    }
    id(order[count - 1])
}
