//! The most likely continuation, token by token: `cargo run --example greedy -- MODEL VOCABULARY PROMPT`.
#![allow(clippy::print_stdout, reason = "an example")]

use rwkv_forge::{Session, Vocabulary};

/// Continues a prompt by some tokens and returns their ids.
pub(crate) fn run(path: &str, vocabulary: &str, prompt: &str, tokens: usize) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let model = rwkv_forge::open(path)?;
    let rows = model.description().hyperparameters.vocabulary;
    let vocabulary = Vocabulary::File(vocabulary.to_owned(), std::fs::read(vocabulary)?);
    let mut session = Session::new(&model)?;
    let mut logits = session.feed(&rwkv_forge::tokens(&model, &vocabulary, prompt)?)?;
    let mut out = Vec::new();
    for _ in 0..tokens {
        let last = &logits[logits.len() - rows..];
        let best = (0u32..).zip(last).max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token);
        out.push(best);
        logits = session.feed(&[best])?;
    }
    println!("{out:?}");
    Ok(out)
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, vocabulary, prompt] = args.as_slice() else { return Err("MODEL VOCABULARY PROMPT".into()) };
    run(path, vocabulary, prompt, 20).map(drop)
}
