//! What a file holds: `cargo run --example describe -- MODEL`.
#![allow(clippy::print_stdout, reason = "an example")]

/// Prints the version, the sizes and the largest tensor.
pub(crate) fn run(path: &str) -> Result<(), rwkv_forge::Error> {
    let model = rwkv_forge::open(path)?;
    let description = model.description();
    let sizes = &description.hyperparameters;
    println!("{}: {} layers of {} channels, {} parameters", description.version, sizes.layers, sizes.channels, description.parameters());
    if let Some(largest) = description.tensors.iter().max_by_key(|tensor| tensor.elements()) {
        println!("largest tensor: {} {:?}", largest.name, largest.shape);
    }
    Ok(())
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), rwkv_forge::Error> {
    run(&std::env::args().nth(1).expect("the path of a model"))
}
