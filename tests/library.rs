//! The examples of the library do what they say.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Dir, checkpoint, fixture, vocab};

#[path = "../crates/cli/examples/describe.rs"]
mod describe;
#[path = "../crates/cli/examples/greedy.rs"]
mod greedy;
#[path = "../crates/cli/examples/loss.rs"]
mod loss;
#[path = "../crates/cli/examples/quantize.rs"]
mod quantize;
#[path = "../crates/cli/examples/verify.rs"]
mod verify;

#[test]
fn every_example_runs() {
    let dir = Dir::new();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (model, vocabulary, output) = (text(checkpoint("7")), text(vocab()), text(&dir.join("out.gguf")));
    describe::run(&model).unwrap();
    quantize::run(&model, &vocabulary, &output).unwrap();
    assert!(verify::run(&model, &output).unwrap());
    assert!(verify::run(&model, &model).unwrap());
    assert!(!verify::run(&model, &text(checkpoint("6"))).is_ok_and(|same| same), "another model is no rendering of this one");
    let few = text(&dir.join("few.txt"));
    let book = std::fs::read(fixture("text/public-domain-100k.txt")).unwrap();
    std::fs::write(&few, &book[..2000]).unwrap();
    let kl = loss::run(&model, &output, &vocabulary, &few).unwrap();
    assert!(kl > 0.0 && kl < 0.1, "{kl}");
    assert_eq!(loss::run(&model, &model, &vocabulary, &few).unwrap(), 0.0);
    assert_eq!(greedy::run(&model, &vocabulary, "It is a truth", 8).unwrap().len(), 8);
}

#[test]
fn every_file_of_examples_is_run() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let here = include_str!("library.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap();
        assert!(here.contains(&format!("{module}::run(")), "{name} is not run");
    }
}

#[test]
fn an_output_that_is_there_is_kept() {
    let dir = Dir::new();
    let output = dir.join("out.safetensors");
    let model = rwkv_forge::open(checkpoint("4")).unwrap();
    let conversion = || rwkv_forge::Conversion::of(&model).to("safetensors").types("f16");
    conversion().write(&output).unwrap();
    let error = conversion().write(&output).unwrap_err();
    assert_eq!(error.kind(), "OutputExists");
    conversion().replacing().write(&output).unwrap();
    let error = rwkv_forge::Conversion::of(&model).to("gguf").write(dir.join("four.gguf")).unwrap_err();
    assert_eq!(error.class(), rwkv_forge::tensor::Class::Usage, "RWKV-4 in GGUF is refused: {error}");
    assert_eq!(dir.names(), ["out.safetensors"]);
}
