//! `generate`: text from a prompt, through the reference kernel.

use std::io::stdout;

use forge_convert::state::{StateHints, StateSizes};
use forge_convert::vocabulary_for;
use forge_kernel::{KernelOptions, RecurrentModel, State};
use serde_json::json;

use super::{open_options, vocabulary};
use crate::args::{Generate, Global};
use crate::failure::Failure;
use crate::terminal::{Terminal, write_bytes_or_exit};

/// Runs the command.
pub(crate) fn run(args: &Generate, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    check(args)?;
    let model = forge_convert::open(&args.model, open_options(global))?;
    let rows = model.description.hyperparameters.vocabulary;
    let tokenizer = vocabulary_for(&vocabulary(&args.vocabulary)?, rows, "generating text")?;
    let prompt = tokenizer.encode(args.prompt.as_bytes())?;
    if prompt.is_empty() {
        return Err(Failure::usage("EmptyPrompt", "the prompt is empty: give at least one character with --prompt".to_owned()));
    }
    let loaded = RecurrentModel::<f32>::load(model.source(), &model.description, &KernelOptions::default())?;
    model.source().check_integrity(&|_| ())?;
    let mut state = State::zero(&model.description);
    if let Some(path) = &args.state {
        let hints = StateHints { sizes: Some(StateSizes::of(&model.description)?), ..StateHints::default() };
        forge_convert::state::read(path, &hints)?.0.put_into_kernel(&mut state, &model.description)?;
    }
    let mut logits = vec![0.0; rows];
    for token in &prompt {
        loaded.step(*token, &mut state, &mut logits)?;
    }
    if !terminal.json() {
        write_bytes_or_exit(&mut stdout(), args.prompt.as_bytes());
    }
    let mut random = args.seed;
    let mut ids = Vec::new();
    for _ in 0..args.tokens {
        let token = sample(&logits, args.temperature, args.top_p, &mut random);
        if Some(token) == tokenizer.end_of_text() {
            break;
        }
        ids.push(token);
        if !terminal.json() {
            // Bytes, not characters: a token may end inside one.
            write_bytes_or_exit(&mut stdout(), tokenizer.token_bytes(token).unwrap_or_default());
        }
        loaded.step(token, &mut state, &mut logits)?;
    }
    terminal.print("\n");
    let text = String::from_utf8_lossy(&tokenizer.decode(&ids)?).into_owned();
    terminal.print_json("generate", &json!({ "prompt": args.prompt, "text": text, "tokens": ids, "seed": args.seed }))?;
    Ok(0)
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
fn sample(logits: &[f32], temperature: f32, top_p: f32, random: &mut u64) -> u32 {
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
    let mut point = uniform(random) * kept;
    for index in &order[..count] {
        point -= weight(*index);
        if point < 0.0 {
            return id(*index);
        }
    }
    id(order[count - 1])
}

/// A number in [0, 1) from the next state of a 64-bit counter generator (Steele, Lea and Flood, 2014).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
