//! A type for each tensor, within a budget, and the file of it: `cargo run --example plan -- MODEL VOCABULARY CALIBRATION TEXT OUTPUT`.
#![allow(clippy::print_stdout, reason = "an example")]

use rwkv_forge::{Conversion, Evaluated, Goal, Inputs, Vocabulary};

/// Plans a GGUF of at most `bits` bits a weight with one text, measures it on another, writes it, and returns the bytes that were planned
/// and those that were written.
pub(crate) fn run(
    path: &str,
    vocabulary: &str,
    [calibration, text]: [&str; 2],
    bits: f64,
    output: &str,
) -> Result<[u64; 2], Box<dyn std::error::Error>> {
    let model = rwkv_forge::open(path)?;
    let vocabulary = Vocabulary::File(vocabulary.to_owned(), std::fs::read(vocabulary)?);
    let inputs = Inputs::on(&model, &vocabulary, &std::fs::read_to_string(calibration)?)?;
    let text = Evaluated::on(&model, &vocabulary, &std::fs::read_to_string(text)?)?;
    let conversion = Conversion::of(&model).to("gguf").vocabulary(vocabulary);
    let plan = conversion.plan(Goal::BitsPerWeight(bits), &inputs, &text)?;
    println!("{} tensors with types of their own, {} bytes", plan.planned.types.len(), plan.planned.bytes);
    let record = conversion.recipe(plan.recipe).inputs(&inputs).write(output)?;
    Ok([plan.planned.bytes, record.output_bytes])
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, vocabulary, calibration, text, output] = args.as_slice() else {
        return Err("MODEL VOCABULARY CALIBRATION TEXT OUTPUT".into());
    };
    run(path, vocabulary, [calibration, text], 5.0, output).map(drop)
}
