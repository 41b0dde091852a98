//! What quantization costs on a text: `cargo run --example loss -- REFERENCE CANDIDATE VOCABULARY TEXT`.
#![allow(clippy::print_stdout, reason = "an example")]

use rwkv_forge::{Evaluated, Vocabulary};

/// Prints perplexities and the divergence of a candidate, and returns the latter's mean in nats.
pub(crate) fn run(reference: &str, candidate: &str, vocabulary: &str, text: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let (reference, candidate) = (rwkv_forge::open(reference)?, rwkv_forge::open(candidate)?);
    let vocabulary = Vocabulary::File(vocabulary.to_owned(), std::fs::read(vocabulary)?);
    let text = Evaluated::on(&reference, &vocabulary, &std::fs::read_to_string(text)?)?;
    let alone = text.loss(&reference)?;
    let found = text.compare(&reference, &candidate)?;
    println!("perplexity {:.4} -> {:.4}", alone.perplexity, found.perplexity);
    let kl = found.kl.ok_or("no divergence was measured")?;
    match kl.interval {
        Some([low, high]) => println!("KL {:.3e} nats [{low:.3e}, {high:.3e}]", kl.mean),
        None => println!("KL {:.3e} nats; the text is too short for an interval", kl.mean),
    }
    Ok(kl.mean)
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [reference, candidate, vocabulary, text] = args.as_slice() else { return Err("REFERENCE CANDIDATE VOCABULARY TEXT".into()) };
    run(reference, candidate, vocabulary, text).map(drop)
}
