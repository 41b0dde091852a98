//! Whether two files are the same model: `cargo run --example verify -- REFERENCE CANDIDATE`.
#![allow(clippy::print_stdout, reason = "an example")]

use rwkv_forge::Thresholds;

/// Prints how far apart two files are, and what of the limits is not met; true if all of it is.
pub(crate) fn run(reference: &str, candidate: &str) -> Result<bool, rwkv_forge::Error> {
    let (reference, candidate) = (rwkv_forge::open(reference)?, rwkv_forge::open(candidate)?);
    let tokens: Vec<u32> = (1..100).collect();
    let agreement = rwkv_forge::verify(&reference, &candidate, &tokens)?;
    println!("mean KL {:.3e} nats over {} positions", agreement.kl.mean, tokens.len());
    let violations = Thresholds { max_kl: Some(0.1), min_top1: Some(0.9), ..Thresholds::default() }.violations(&agreement);
    violations.iter().for_each(|violation| println!("{violation}"));
    Ok(violations.is_empty())
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [reference, candidate] = args.as_slice() else { return Err("REFERENCE CANDIDATE".into()) };
    if run(reference, candidate)? { Ok(()) } else { Err("the files are not the same model".into()) }
}
