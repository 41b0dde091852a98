//! Every version x container x type: write, read back, compare.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Dir, checkpoint, convert_args, json, run, vocab};
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};

const CONTAINERS: [&str; 2] = ["gguf", "safetensors"];
const FLOATS: [&str; 3] = ["f32", "f16", "bf16"];
const BLOCKS: [&str; 5] = ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"];

fn carries(container: &str, version: &str) -> bool {
    container == "safetensors" || matches!(version, "6" | "7")
}

#[test]
fn float_files_reproduce_the_logits_of_the_source() {
    let dir = Dir::new();
    for version in ["4", "5", "6", "7"] {
        for container in CONTAINERS.iter().filter(|container| carries(container, version)) {
            for encoding in FLOATS {
                let output = dir.join(&format!("{version}-{encoding}.{container}"));
                let record = json(&convert_args(checkpoint(version), container, encoding, &output), 0);
                let agreement = &record["record"]["agreement"];
                // The sources are bf16: bf16 and f32 hold all of it, f16 has three bits more but a shorter range.
                let exact = encoding != "f16";
                assert_eq!(record["record"]["lossless"].as_bool(), Some(exact), "{version} {container} {encoding}");
                if exact {
                    assert_eq!(agreement["identical"], true, "{version} {container} {encoding}");
                }
                assert!(agreement["kl"]["mean"].as_f64().unwrap() < 1e-6, "{version} {container} {encoding}: {}", agreement["kl"]);
                // The same again through the command that users have.
                let verdict = json(
                    &["verify", checkpoint(version).to_str().unwrap(), output.to_str().unwrap(), "--vocab", vocab().to_str().unwrap()],
                    0,
                );
                assert_eq!(verdict["agreement"]["identical"].as_bool(), Some(exact || agreement["identical"] == true));
            }
        }
    }
}

#[test]
fn quantized_files_lose_what_their_bits_lose() {
    let dir = Dir::new();
    for version in ["6", "7"] {
        let mut loss = std::collections::BTreeMap::new();
        for encoding in BLOCKS {
            let output = dir.join(&format!("{version}-{encoding}.gguf"));
            let record = json(&convert_args(checkpoint(version), "gguf", encoding, &output), 0);
            assert_eq!(record["record"]["output_bytes"].as_u64().unwrap(), output.metadata().unwrap().len());
            loss.insert(encoding, record["record"]["agreement"]["kl"]["mean"].as_f64().unwrap());
        }
        // More bits, less loss (BAD_INPUTS V4); the gaps are a factor of three and more on these models.
        assert!(loss["q8_0"] > 0.0, "8 bits lose something: {loss:?}");
        assert!(loss["q8_0"] < loss["q5_1"] && loss["q5_1"] < loss["q4_0"] && loss["q5_0"] < loss["q4_0"], "RWKV-{version}: {loss:?}");
        assert!(loss["q4_0"] < 0.5, "4 bits keep the model recognisable: {loss:?}");
    }
}

#[test]
fn versions_without_a_graph_in_llama_cpp_are_refused_with_the_way_out() {
    let dir = Dir::new();
    for version in ["4", "5"] {
        let output = dir.join("never.gguf");
        let answer = json(&convert_args(checkpoint(version), "gguf", "q8_0", &output), 2);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("safetensors"), "names a container that can carry it: {message}");
        assert_eq!(dir.names(), Vec::<String>::new());
    }
}

#[test]
fn gguf_is_a_source_too() {
    let dir = Dir::new();
    let (gguf, back, again) = (dir.join("a.gguf"), dir.join("back.safetensors"), dir.join("again.gguf"));
    json(&convert_args(checkpoint("7"), "gguf", "f32", &gguf), 0);
    let record = json(&convert_args(&gguf, "safetensors", "f32", &back), 0);
    assert_eq!(record["record"]["agreement"]["identical"], true);
    // And the original checkpoint agrees bit for bit with what came back.
    let verdict = json(&["verify", checkpoint("7").to_str().unwrap(), back.to_str().unwrap(), "--vocab", vocab().to_str().unwrap()], 0);
    assert_eq!(verdict["agreement"]["identical"], true);
    // Quantized tensors are copied as they are, or quantized anew only on request.
    let q8 = dir.join("q8.gguf");
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &q8), 0);
    let record = json(&convert_args(&q8, "gguf", "q8_0", &again), 0);
    assert_eq!(record["record"]["agreement"]["identical"], true);
    let mut args = convert_args(&q8, "gguf", "q4_0", &dir.join("q4.gguf"));
    assert_eq!(json(&args, 2)["error"]["kind"], "Requantize");
    args.push("--requantize".to_owned());
    json(&args, 0);
}

#[test]
fn all_versions_of_random_weights_survive_safetensors() {
    let dir = Dir::new();
    for version in rwkv_forge_model::Version::ALL {
        let source: MemorySource = random_model(version, &Sizes::TINY, 11);
        let path = dir.join(&format!("random-{}.safetensors", version.name()));
        std::fs::write(&path, source.to_safetensors()).unwrap();
        let output = dir.join(&format!("out-{}.safetensors", version.name()));
        let args = ["convert", path.to_str().unwrap(), "--to", "safetensors", "--type", "f32", "-o", output.to_str().unwrap()];
        let record = json(&args, 0);
        assert_eq!(record["record"]["agreement"]["identical"], true, "{version}");
        assert_eq!(record["model"]["version"], version.name());
    }
}

#[test]
fn rules_and_recipe_files_decide_types() {
    let dir = Dir::new();
    let output = dir.join("mixed.gguf");
    let recipe = dir.join("recipe.toml");
    std::fs::write(&recipe, "type = \"q4_0\"\n[[set]]\ntensors = 'ffn\\.value'\ntype = \"q8_0\"\n").unwrap();
    let args: Vec<String> = vec![
        "convert".into(),
        checkpoint("7").to_str().unwrap().into(),
        "--to".into(),
        "gguf".into(),
        "--recipe".into(),
        recipe.to_str().unwrap().into(),
        "--set".into(),
        r"^blocks\.1\.ffn\.value=f16".into(),
        "--vocab".into(),
        vocab().to_str().unwrap().into(),
        "-o".into(),
        output.to_str().unwrap().into(),
    ];
    let record = json(&args, 0);
    let type_of = |name: &str| {
        record["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == name).unwrap()["type"].as_str().unwrap().to_owned()
    };
    assert_eq!(type_of("blk.0.channel_mix_value.weight"), "q8_0");
    assert_eq!(type_of("blk.1.channel_mix_value.weight"), "f16");
    assert_eq!(type_of("blk.2.channel_mix_key.weight"), "q4_0");
    assert_eq!(type_of("blk.0.time_mix_w0.weight"), "f32");
    // What was decided is what the file holds.
    let seen = json(&["inspect", output.to_str().unwrap()], 0);
    for tensor in record["tensors"].as_array().unwrap() {
        let stored = seen["tensors"].as_array().unwrap().iter().find(|t| t["name"] == tensor["name"]).unwrap();
        assert_eq!(stored["type"], tensor["type"], "{}", tensor["name"]);
    }
}

#[test]
fn impossible_wishes_are_refused_by_name() {
    let dir = Dir::new();
    let output = dir.join("never");
    let with_rule = |rule: &str| {
        let mut args = convert_args(checkpoint("7"), "gguf", "q8_0", &output);
        args.extend(["--set".to_owned(), rule.to_owned()]);
        json(&args, 2)["error"]["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(with_rule("ln_out=q8_0"), "RuleViolatesContainer");
    assert_eq!(with_rule("no_such_tensor=f16"), "RuleMatchesNothing");
    assert_eq!(with_rule("(=f16"), "BadRecipe");
    assert_eq!(with_rule("head=q9_9"), "UnknownType");
    assert_eq!(json(&convert_args(checkpoint("7"), "safetensors", "q8_0", &output), 2)["error"]["kind"], "TypeNotCarried");
    assert_eq!(run(&convert_args(checkpoint("7"), "ggml", "q8_0", &output)).status.code(), Some(2));
    assert_eq!(dir.names(), Vec::<String>::new());
}
