//! Prints the harm of every tensor of a model at every type: `harms MODEL VOCABULARY TEXT WINDOWS`.

use std::time::Duration;

use rwkv_forge_choose::{HarmOptions, Probe, ProbeOptions, Probed, harms};
use rwkv_forge_convert::container::by_name;
use rwkv_forge_tokenizer::Tokenizer;

#[allow(clippy::print_stdout, reason = "an example for the terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, vocabulary, text, windows] = args.as_slice() else { return Err("harms MODEL VOCABULARY TEXT WINDOWS".into()) };
    let model = rwkv_forge_convert::open(model.as_ref(), rwkv_forge_convert::OpenOptions::default()).map_err(|error| error.to_string())?;
    let tokenizer = Tokenizer::from_bytes(vocabulary, &std::fs::read(vocabulary)?)?;
    let tokens = tokenizer.encode(&std::fs::read(text)?)?;
    let options = ProbeOptions { windows: windows.parse()?, ..ProbeOptions::default() };
    let mut probe = Probe::new(&model.model, &tokens, options)?;
    let options =
        HarmOptions { container: by_name("gguf")?, calibration: None, budget: Duration::from_secs(3600), known: Probed::default() };
    let started = std::time::Instant::now();
    let (harms, exponents) = harms(&mut probe, &options, &mut |_step| ())?;
    for harm in &harms {
        let types: Vec<String> = harm
            .types
            .iter()
            .zip(&harm.harms)
            .map(|(kind, harm)| format!("{} {:.2e}/{harm:.2e}", kind.encoding.name, kind.error))
            .collect();
        println!("{:32} {:.3e}  {}", harm.tensor, harm.divergence.unwrap_or(f64::NAN), types.join("  "));
    }
    println!("{exponents:?} {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
