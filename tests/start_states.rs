//! Tuned initial states: inside models, beside outputs, and given with `--state`, through the built binary.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, fixture, json, run, sha256, vocab};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::{MemorySource, SplitMix64, encode};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The tensors of a checkpoint.
fn tensors(path: &Path) -> Vec<(String, Vec<u64>, Encoding, Vec<u8>)> {
    let source = rwkv_forge_checkpoint::open(path, &rwkv_forge_checkpoint::Limits::default()).unwrap();
    let tensor = |index: usize| {
        let info = &source.tensors()[index];
        let mut bytes = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
        source.read_at(index, 0, &mut bytes).unwrap();
        (info.name.clone(), info.shape.clone(), info.encoding, bytes)
    };
    (0..source.tensors().len()).map(tensor).collect()
}

/// Three layers of states for the tiny models, under a prefix; all values are exact in every type.
fn states(prefix: &str, encoding: Encoding) -> Vec<(String, Vec<u64>, Encoding, Vec<u8>)> {
    let mut random = SplitMix64::new(11);
    let mut values = || (0..2 * 64 * 64).map(|_| (random.normal() * 64.0).round() / 8.0).collect::<Vec<f32>>();
    (0..3).map(|layer| (format!("{prefix}blocks.{layer}.att.time_state"), vec![2, 64, 64], encoding, encode(encoding, &values()))).collect()
}

/// A tiny model with states among its weights.
fn with_states(dir: &Dir, version: &str, encoding: Encoding) -> PathBuf {
    let mut all = tensors(checkpoint(version));
    all.extend(states("", encoding));
    let path = dir.join(&format!("tuned-{version}.safetensors"));
    std::fs::write(&path, MemorySource::new(all).to_safetensors()).unwrap();
    path
}

/// What a command says on stderr while it succeeds.
fn said(args: &[&str]) -> String {
    let output = run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    said
}

#[test]
fn a_state_in_a_model_goes_wherever_the_model_goes() {
    let dir = Dir::new();
    for (version, encoding) in [("5", Encoding::F32), ("6", Encoding::BF16), ("7", Encoding::F32)] {
        let model = with_states(&dir, version, encoding);
        let state = dir.join(&format!("{version}-state.pth"));
        let taken = json(&["state", text(&model), "--to", "pth", "-o", text(&state)], 0);
        assert_eq!([&taken["from"], &taken["record"]["sizes"]["heads"]], [&"model".into(), &serde_json::json!(2)]);
        // Among the weights: the same model, bit for bit, which starts from the same state.
        let kept = dir.join(&format!("{version}-kept.pth"));
        let record = json(&convert_args(&model, "pth", "f32", &kept), 0);
        assert_eq!(record["record"]["agreement"]["identical"], true, "RWKV-{version}");
        assert!(record["record"]["start_state"].is_null());
        let again = dir.join(&format!("{version}-again.pth"));
        json(&["state", text(&kept), "--to", "pth", "-o", text(&again)], 0);
        assert_eq!(sha256(&state), sha256(&again), "RWKV-{version}");
        // The plain model from that state is the same, and the plain model from zeros is not.
        let verify = |args: &[&str]| {
            let all =
                [&["verify", text(&model), text(checkpoint(version)), "--vocab", text(vocab()), "--probe-tokens", "40"], args].concat();
            json(&all, 0)["agreement"]["identical"] == true
        };
        assert!(verify(&[]) && verify(&["--state", text(&state)]), "RWKV-{version}");
        assert!(!verify(&["--against-parallel", "--max-abs", "1e-3"]), "another order of sums, from the same state");
        let logits = |name: &str, args: &[&str]| {
            let out = dir.join(&format!("{version}-{name}.npy"));
            let tokens = dir.join("tokens.json");
            std::fs::write(&tokens, "[5, 99, 300, 7, 1]").unwrap();
            json(&[&["logits", "--tokens", text(&tokens), "-o", text(&out)], args].concat(), 0);
            sha256(&out)
        };
        let own = logits("own", &[text(&model)]);
        assert_eq!(own, logits("given", &[text(checkpoint(version)), "--state", text(&state)]), "RWKV-{version}");
        assert_ne!(own, logits("zeros", &[text(checkpoint(version))]), "RWKV-{version}");
        let generated = |args: &[&str]| {
            let line = ["generate", "--vocab", text(vocab()), "--prompt", "The ", "-n", "24", "--temperature", "1"];
            json(&[&line, args].concat(), 0)["tokens"].clone()
        };
        assert_eq!(generated(&[text(&model)]), generated(&[text(checkpoint(version)), "--state", text(&model)]), "a model as --state");
        let notes = said(&["logits", text(&model), "--tokens", text(&dir.join("tokens.json")), "-o", text(&dir.join(version))]);
        assert!(notes.contains("holds a tuned initial state"), "{notes}");
    }
}

#[test]
fn a_gguf_has_its_state_beside_it() {
    let dir = Dir::new();
    for (version, to) in [("6", "gguf"), ("7", "gguf"), ("7", "prefab"), ("6", "hf"), ("5", "rwkv-cpp")] {
        let model = with_states(&dir, version, Encoding::BF16);
        let output = dir.join(&format!("{version}.{to}"));
        // Only the container's own extension gives way.
        let ending = if to == "rwkv-cpp" { ".rwkv-cpp" } else { "" };
        let beside = dir.join(&format!("{version}{ending}.state.pth"));
        let args = convert_args(&model, to, "f16", &output);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let planned = json(&[args.as_slice(), &["--dry-run"]].concat(), 0);
        assert_eq!(planned["start_state"], text(&beside));
        assert!(!beside.exists());
        let record = json(&args, 0);
        assert_eq!(record["record"]["start_state"][0], beside.file_name().unwrap().to_str().unwrap(), "{to}");
        assert_eq!(record["record"]["start_state"][1], sha256(&beside));
        assert!(output.exists(), "{to}");
        // What was taken out of the model is what lies beside the output.
        let (taken, own) = (dir.join("taken.pth"), dir.join("own.pth"));
        json(&["state", text(&model), "--to", "pth", "-o", text(&taken), "--force"], 0);
        json(&["state", text(&beside), "--to", "pth", "-o", text(&own), "--force"], 0);
        assert_eq!(sha256(&taken), sha256(&own));
        // Neither file appears over somebody's, and with --force both do.
        std::fs::remove_file(&beside).unwrap();
        std::fs::write(&beside, "somebody's").unwrap();
        let forced = [args.as_slice(), &["--force"]].concat();
        if output.is_file() {
            std::fs::remove_file(&output).unwrap();
            assert_eq!(json(&args, 2)["error"]["kind"], "OutputExists");
            assert!(!output.exists() && std::fs::read(&beside).unwrap() == b"somebody's");
        }
        json(&forced, 0);
        assert_eq!(sha256(&beside), record["record"]["start_state"][1].as_str().unwrap());
        // The two of them are the model.
        let verify = ["verify", text(&model), text(&output), "--vocab", text(vocab()), "--probe-tokens", "40", "--max-kl", "1e-3"];
        json(&verify, 0);
        let given = [&verify[..], &["--state", text(&beside)]].concat();
        let notes = said(&given);
        assert!(notes.contains("is not used, since --state names another"), "{notes}");
        std::fs::remove_file(&beside).unwrap();
    }
    // It takes the place of nothing that is read or written.
    let model = with_states(&dir, "7", Encoding::F32);
    let (output, beside) = (dir.join("clash.gguf"), dir.join("clash.state.pth"));
    let args = convert_args(&model, "gguf", "f16", &output);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(json(&[args.as_slice(), &["--record", text(&beside)]].concat(), 2)["error"]["kind"], "OutputTwice");
    std::fs::rename(&model, &beside).unwrap();
    let args = convert_args(&beside, "gguf", "f16", &output);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--force"]).collect();
    assert_eq!(json(&args, 2)["error"]["kind"], "OutputIsInput");
}

#[test]
fn documents_of_eval_each_start_from_the_state() {
    let dir = Dir::new();
    let model = with_states(&dir, "7", Encoding::F32);
    let state = dir.join("state.pth");
    json(&["state", text(&model), "--to", "pth", "-o", text(&state)], 0);
    let words = "It is a truth universally acknowledged.";
    let (one, two) = (dir.join("one.txt"), dir.join("two.txt"));
    std::fs::write(&one, words).unwrap();
    std::fs::write(&two, words).unwrap();
    let eval = |args: &[&str]| json(&[&["eval", "--vocab", text(vocab()), "--no-cache"], args].concat(), 0);
    let nll = |found: &serde_json::Value| found["models"][0]["nll_per_token"].as_f64().unwrap_or_else(|| panic!("{found:#}"));
    let single = nll(&eval(&[text(checkpoint("7")), "--state", text(&state), "--text", text(&one)]));
    let both = nll(&eval(&[text(checkpoint("7")), "--state", text(&state), "--text", text(&one), "--text", text(&two)]));
    assert!((single - both).abs() < 1e-9, "{single} and {both}");
    let own = eval(&[text(&model), "--text", text(&one)]);
    assert!((nll(&own) - single).abs() < 1e-9);
    assert!(own["models"][0]["start_state"].is_string());
    let zeros = eval(&[text(checkpoint("7")), "--text", text(&one)]);
    assert!((nll(&zeros) - single).abs() > 1e-4 && zeros["models"][0]["start_state"].is_null());
    // A baseline with a state is compared with a candidate that starts there as well, and the other way round.
    for line in [[text(checkpoint("7")), "--baseline", text(&model)], [text(&model), "--baseline", text(checkpoint("7"))]] {
        let found = eval(&[&line[..], &["--text", text(&one)]].concat());
        assert_eq!(found["models"][0]["kl"]["mean"], 0.0, "{line:?}");
    }
    // Results that are kept belong to the state that they were measured from.
    let cache = dir.join("cache");
    let kept = |args: &[&str]| {
        nll(&json(
            &[&["eval", text(checkpoint("7")), "--vocab", text(vocab()), "--cache", text(&cache), "--text", text(&one)], args].concat(),
            0,
        ))
    };
    let (first, second) = (kept(&[]), kept(&["--state", text(&state)]));
    assert!((first - second).abs() > 1e-4);
    assert_eq!(second, kept(&["--state", text(&state)]));
}

#[test]
fn states_go_around_through_files_of_llama_and_rwkv_mobile() {
    let dir = Dir::new();
    let first = dir.join("first.pth");
    let bare = MemorySource::new(states("module.", Encoding::F16));
    let wrapped = dir.join("wrapped.safetensors");
    std::fs::write(&wrapped, bare.to_safetensors()).unwrap();
    let notes = said(&["state", text(&wrapped), "--from", "pth", "--to", "pth", "-o", text(&first)]);
    assert!(notes.contains("names are read without `module.`"), "{notes}");
    for version in ["6", "7"] {
        let model = text(checkpoint(version));
        let file = |name: &str| dir.join(&format!("{version}-{name}"));
        let steps = [
            (first.clone(), "llama-session", vec!["--model-version", version]),
            // A session says its version itself.
            (file("llama-session"), "llama-seq", vec![]),
            (file("llama-seq"), "rmpack", vec!["--model", model]),
            (file("rmpack"), "web-rwkv", vec![]),
            (file("web-rwkv"), "rwkv-cpp", vec!["--model-version", version]),
            (file("rwkv-cpp"), "pth", vec!["--from", "rwkv-cpp", "--model", model]),
        ];
        for (source, to, args) in &steps {
            json(&[&["state", text(source), "--to", to, "-o", text(&file(to))], args.as_slice()].concat(), 0);
        }
        assert_eq!(sha256(&first), sha256(&file("pth")), "RWKV-{version}");
        // Whatever says what it is goes to --state.
        let generated = |state: &Path| {
            let line = ["generate", model, "--vocab", text(vocab()), "-n", "16", "--temperature", "1", "--state", text(state)];
            json(&line, 0)["tokens"].clone()
        };
        let tokens = generated(&first);
        for name in ["llama-session", "llama-seq", "rmpack", "web-rwkv"] {
            assert_eq!(generated(&file(name)), tokens, "RWKV-{version} {name}");
        }
        let refused = json(&["generate", model, "--vocab", text(vocab()), "--state", text(&file("rwkv-cpp"))], 2);
        assert_eq!(refused["error"]["kind"], "UnknownStateFormat");
        // Its next step makes a file that --state takes.
        assert!(refused["error"]["message"].as_str().unwrap().contains("--from rwkv-cpp --model MODEL --to pth"));
        assert_eq!(generated(&file("pth")), tokens);
        let other = if version == "6" { "7" } else { "6" };
        let session = file("llama-session");
        let wrong = ["generate", text(checkpoint(other)), "--vocab", text(vocab()), "--state", text(&session)];
        assert_eq!(json(&wrong, 3)["error"]["kind"], "StateSizeMismatch");
    }
    let model = text(checkpoint("5"));
    let never = dir.join("never");
    let refused = json(&["state", text(&first), "--to", "llama-seq", "--model", model, "-o", text(&never)], 2);
    assert_eq!(refused["error"]["kind"], "NotInLlama");
    let refused = json(&["state", text(&first), "--to", "llama-seq", "-o", text(&never)], 2);
    assert_eq!(refused["error"]["kind"], "StateSizesNeeded");
    json(&["state", text(&first), "--to", "llama-seq", "--model-version", "7", "-o", text(&never)], 0);
}

#[test]
fn what_has_no_state_says_so() {
    let dir = Dir::new();
    let out = dir.join("out");
    let kind = |args: &[&str], code: i32| json(args, code)["error"]["kind"].as_str().unwrap().to_owned();
    assert_eq!(kind(&["state", text(checkpoint("7")), "--to", "pth", "-o", text(&out)], 3), "NotAState");
    // A state alone is no model: the error says what takes it, and that does.
    let state = fixture("states/tiny-state.pth");
    let refused = json(&["convert", text(state), "--to", "pth", "--type", "f32", "-o", text(&out)], 3);
    let advice = refused["error"]["message"].as_str().unwrap().to_owned();
    assert!(advice.contains("generate MODEL --state FILE") && advice.contains("state FILE --to FORMAT"), "{advice}");
    json(&["state", text(state), "--to", "pth", "-o", text(&out)], 0);
    json(&["generate", text(checkpoint("7")), "--vocab", text(vocab()), "-n", "2", "--state", text(state)], 0);
    let refused = ["generate", text(checkpoint("4")), "--vocab", text(vocab()), "--state", text(state)];
    assert_eq!(kind(&refused, 2), "NoMatrixState");
    // Layers without a state.
    let mut all = tensors(checkpoint("7"));
    all.extend(states("", Encoding::F32).into_iter().take(2));
    let half = dir.join("half.safetensors");
    std::fs::write(&half, MemorySource::new(all).to_safetensors()).unwrap();
    assert_eq!(kind(&["state", text(&half), "--to", "pth", "-o", text(&dir.join("half.pth"))], 3), "MissingStart");
    // What `inspect` says of the two.
    let whole = with_states(&dir, "7", Encoding::F32);
    assert_eq!(json(&["inspect", text(&half)], 0)["model_error"]["kind"], "MissingStart");
    assert_eq!(json(&["inspect", text(&whole)], 0)["model"]["start_state"], true);
    assert_eq!(json(&["inspect", text(checkpoint("7"))], 0)["model"]["start_state"], false);
    assert!(String::from_utf8_lossy(&run(&["inspect", text(&whole)]).stdout).contains("starts from a tuned state in the file"));
}

/// A state that is read for two models is spoken of once.
#[test]
fn a_note_about_a_state_is_said_once() {
    let dir = Dir::new();
    let state = dir.join("state.st");
    let source = fixture("states").join("tiny-state.pth");
    json(&["state", text(&source), "--model", text(checkpoint("7")), "--to", "web-rwkv", "--allow-f16-loss", "-o", text(&state)], 0);
    let model = text(checkpoint("7"));
    let notes = said(&["verify", model, model, "--vocab", text(vocab()), "--probe-tokens", "4", "--state", text(&state)]);
    assert_eq!(notes.matches("do not say how matrices of a state lie").count(), 1, "{notes}");
}
