//! A model in another container and type: `cargo run --example quantize -- MODEL VOCABULARY OUTPUT`.
#![allow(clippy::print_stdout, reason = "an example")]

use rwkv_forge::{Conversion, Vocabulary};

/// Writes a GGUF of about 4 bits a weight and prints what that cost.
pub(crate) fn run(path: &str, vocabulary: &str, output: &str) -> Result<(), Box<dyn std::error::Error>> {
    let model = rwkv_forge::open(path)?;
    let vocabulary = Vocabulary::File(vocabulary.to_owned(), std::fs::read(vocabulary)?);
    let record = Conversion::of(&model).to("gguf").types("4bit").set("head.weight=q8_0").vocabulary(vocabulary).write(output)?;
    println!("{} bytes from {}", record.output_bytes, record.source_bytes);
    if let Some(agreement) = &record.agreement {
        println!("the same token is first at {:.1} % of the positions", agreement.top1.fraction * 100.0);
    }
    Ok(())
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, vocabulary, output] = args.as_slice() else { return Err("MODEL VOCABULARY OUTPUT".into()) };
    run(path, vocabulary, output)
}
