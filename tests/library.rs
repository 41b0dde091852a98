//! The examples of the library do what they say.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{self, Dir, checkpoint, fixture, vocab};
use rwkv_forge::{Conversion, Evaluated, Goal, Inputs, Vocabulary};

#[path = "../crates/cli/examples/describe.rs"]
mod describe;
#[path = "../crates/cli/examples/greedy.rs"]
mod greedy;
#[path = "../crates/cli/examples/loss.rs"]
mod loss;
#[path = "../crates/cli/examples/plan.rs"]
mod plan;
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

/// The recipe goes from the plan to the file as data, with the statistics that it demands: what the program does in two commands.
#[test]
fn a_plan_is_converted_as_it_was_promised() {
    let dir = Dir::new();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (model, vocabulary, output) = (text(checkpoint("7")), text(vocab()), text(&dir.join("planned.gguf")));
    let book = std::fs::read(fixture("text/public-domain-100k.txt")).unwrap();
    let (calibration, unseen) = (text(&dir.join("calibration.txt")), text(&dir.join("unseen.txt")));
    std::fs::write(&calibration, &book[..3_000]).unwrap();
    std::fs::write(&unseen, &book[60_000..61_000]).unwrap();
    let [planned, written] = plan::run(&model, &vocabulary, [&calibration, &unseen], 6.5, &output).unwrap();
    assert_eq!(planned, written, "the size that was promised");
    assert!(written as f64 * 8.0 / 794_112.0 <= 6.5, "{written}");
}

/// What the library plans and writes is what the program writes of the same recipe and the same text.
#[test]
fn the_program_makes_the_same_file_of_a_recipe_of_the_library() {
    let dir = Dir::new();
    let book = std::fs::read(fixture("text/public-domain-100k.txt")).unwrap();
    let piece = |range: std::ops::Range<usize>| std::str::from_utf8(&book[range]).unwrap();
    let vocabulary = || Vocabulary::File("vocab-320.txt".to_owned(), std::fs::read(vocab()).unwrap());
    let model = rwkv_forge::open(checkpoint("7")).unwrap();
    let inputs = |text: &str| Inputs::on(&model, &vocabulary(), text).unwrap();
    let (seen, other) = (inputs(piece(0..3_000)), inputs(piece(3_000..6_000)));
    let measured = Evaluated::on(&model, &vocabulary(), piece(60_000..61_000)).unwrap();
    let conversion = || Conversion::of(&model).vocabulary(vocabulary()).named("tiny-rwkv7");
    let found = conversion().plan(Goal::Size(640_000), &seen, &measured).unwrap();
    let (recipe, calibration, statistics) = (dir.join("recipe.toml"), dir.join("calibration.txt"), dir.join("statistics"));
    std::fs::write(&recipe, found.recipe.to_toml().unwrap()).unwrap();
    std::fs::write(&calibration, piece(0..3_000)).unwrap();
    let (by_library, by_program) = (dir.join("library.gguf"), dir.join("program.gguf"));
    conversion().recipe(found.recipe.clone()).inputs(&seen).write(&by_library).unwrap();
    let mut args = support::convert_args(checkpoint("7"), "gguf", "q4_k_m", &by_program);
    args.retain(|word| word != "--type" && word != "q4_k_m");
    for (name, path) in [("--recipe", &recipe), ("--calibrate", &calibration), ("--statistics", &statistics)] {
        args.extend([name.to_owned(), path.to_str().unwrap().to_owned()]);
    }
    // Who says each word is part of the file.
    args.extend(["--name", "tiny-rwkv7"].map(str::to_owned));
    support::json(&args, 0);
    assert_eq!(support::sha256(&by_library), support::sha256(&by_program));
    // Statistics of another text are no substitute, nor are none.
    let kind = |conversion: Conversion<'_>| conversion.recipe(found.recipe.clone()).write(dir.join("other.gguf")).unwrap_err().kind();
    assert_eq!(kind(conversion().inputs(&other)), "OtherCalibration");
    assert_eq!(kind(conversion()), "OtherCalibration");
    // What no plan can be is refused before any work.
    let refused = |conversion: Conversion<'_>, goal| conversion.plan(goal, &seen, &measured).err().unwrap().kind();
    assert_eq!(refused(conversion(), Goal::Size(1000)), "BudgetTooSmall");
    assert_eq!(refused(conversion().to("hf"), Goal::Size(640_000)), "NoTypes");
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
    let conversion = || Conversion::of(&model).to("safetensors").types("f16");
    conversion().write(&output).unwrap();
    let error = conversion().write(&output).unwrap_err();
    assert_eq!(error.kind(), "OutputExists");
    conversion().replacing().write(&output).unwrap();
    let error = Conversion::of(&model).to("gguf").write(dir.join("four.gguf")).unwrap_err();
    assert_eq!(error.class(), rwkv_forge::tensor::Class::Usage, "RWKV-4 in GGUF is refused: {error}");
    assert_eq!(dir.names(), ["out.safetensors"]);
}

/// What the caller says of a model goes before what its source says.
#[test]
fn what_the_caller_says_is_in_the_file() {
    let dir = Dir::new();
    let vocabulary = Vocabulary::File("vocab-320.txt".to_owned(), std::fs::read(vocab()).unwrap());
    let model = rwkv_forge::open(checkpoint("7")).unwrap();
    let output = dir.join("said.gguf");
    let said = Conversion::of(&model).to("gguf").types("q8_0").vocabulary(vocabulary).named("Goose").licence("mit").author("A. Uthor");
    let said = said.meta("general.version", rwkv_forge::Value::U32(1)).meta("general.version", rwkv_forge::Value::String("2".to_owned()));
    said.template("{{ messages }}").write(&output).unwrap();
    let seen = support::json(&["inspect", output.to_str().unwrap()], 0);
    let text = |key: &str| seen["metadata"][key].as_str().unwrap();
    let found = ["general.name", "general.license", "general.author", "general.version", "tokenizer.chat_template"].map(text);
    assert_eq!(found, ["Goose", "mit", "A. Uthor", "2", "{{ messages }}"]);
}

/// Whoever builds without the program's parts compiles nothing that only these need: candle, argument parsers, Parquet.
#[test]
fn the_library_alone_is_small() {
    let packages = |more: &[&str]| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = std::process::Command::new(cargo);
        command.current_dir(fixture("..")).args(["tree", "--offline", "--locked", "-p", "rwkv-forge", "-e", "normal", "--prefix", "none"]);
        let output = command.args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let (all, library) = (packages(&[]), packages(&["--no-default-features"]));
    for name in ["candle-core", "gemm", "rwkv-forge-parallel", "clap", "indicatif", "parquet"] {
        assert!(all.contains(name) && !library.contains(name), "{name}");
    }
    assert!(library.contains("rwkv-forge-choose") && library.len() < all.len());
}
