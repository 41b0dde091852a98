//! `.pth` files written without Python; LoRA files merged on the way; tuned states; what `--lint` says.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Dir, checkpoint, convert_args, json, sha256, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::{MemorySource, Sizes, SplitMix64, encode, random_model};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn float_files_reproduce_the_logits_of_the_source() {
    let dir = Dir::new();
    for version in ["4", "5", "6", "7"] {
        for encoding in ["f32", "f16", "bf16"] {
            let output = dir.join(&format!("{version}-{encoding}.pth"));
            let record = json(&convert_args(checkpoint(version), "pth", encoding, &output), 0);
            // The sources are bf16: bf16 and f32 hold all of it.
            let exact = encoding != "f16";
            assert_eq!(record["record"]["lossless"].as_bool(), Some(exact), "{version} {encoding}");
            assert!(!exact || record["record"]["agreement"]["identical"] == true, "{version} {encoding}");
            let verdict = json(&["verify", text(checkpoint(version)), text(&output), "--vocab", text(vocab())], 0);
            assert!(!exact || verdict["agreement"]["identical"] == true, "{version} {encoding}");
            let seen = json(&["inspect", "--hashes", text(&output)], 0);
            assert_eq!(seen["format"], "torch zip");
            assert_eq!(seen["types"].as_object().unwrap().keys().collect::<Vec<_>>(), [encoding]);
            assert_eq!(seen["metadata"]["rwkv_forge.source.sha256"], sha256(checkpoint(version)).as_str());
            assert!(seen["metadata"]["rwkv_forge.verify"].as_str().unwrap().starts_with("verified positions="));
        }
    }
}

#[test]
fn all_versions_of_random_weights_survive() {
    let dir = Dir::new();
    for version in Version::ALL {
        let path = dir.join(&format!("random-{}.safetensors", version.name()));
        std::fs::write(&path, random_model(version, &Sizes::TINY, 12).to_safetensors()).unwrap();
        let output = dir.join(&format!("out-{}.pth", version.name()));
        let record = json(&["convert", text(&path), "--to", "pth", "--type", "f32", "-o", text(&output)], 0);
        assert_eq!(record["record"]["agreement"]["identical"], true, "{version}");
        assert_eq!(json(&["verify", text(&path), text(&output)], 0)["agreement"]["identical"], true, "{version}");
    }
}

#[test]
fn types_may_differ_from_tensor_to_tensor() {
    let dir = Dir::new();
    let output = dir.join("mixed.pth");
    let mut args = convert_args(checkpoint("7"), "pth", "bf16", &output);
    args.extend(["--set", r"att\.w0$=f32", "--set", "^emb=f16"].map(str::to_owned));
    json(&args, 0);
    let seen = json(&["inspect", text(&output)], 0);
    let type_of = |name: &str| seen["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == name).unwrap()["type"].clone();
    assert_eq!([type_of("blocks.2.att.w0"), type_of("emb.weight"), type_of("head.weight")], ["f32", "f16", "bf16"]);
    let mut args = convert_args(checkpoint("7"), "pth", "q8_0", &output);
    args.push("--force".to_owned());
    assert_eq!(json(&args, 2)["error"]["kind"], "TypeNotCarried");
}

#[test]
fn the_bytes_depend_on_nothing_but_the_source() {
    let dir = Dir::new();
    let digests: Vec<String> = ["1", "2", "5"]
        .iter()
        .map(|threads| {
            let output = dir.join(&format!("{threads}.pth"));
            let mut args = convert_args(checkpoint("6"), "pth", "f16", &output);
            args.extend(["--threads".to_owned(), (*threads).to_owned()]);
            json(&args, 0);
            sha256(&output)
        })
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    // A .pth is a source like any other, and what comes from it has the same tensors.
    let (first, again) = (dir.join("1.pth"), dir.join("again.pth"));
    json(&convert_args(&first, "pth", "f16", &again), 0);
    let tensors = |path: &Path| {
        let verdict = json(&["verify", text(&first), text(path), "--vocab", text(vocab())], 0);
        verdict["agreement"]["identical"].as_bool()
    };
    assert_eq!(tensors(&again), Some(true));
}

/// What torch itself reads: names, order, types, shapes and every value, with and without mapping, and the standard
/// library's own check of all checksums.
const TORCH: &str = r#"
import sys, zipfile, torch
source, ours, dtype = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3])
expected = torch.load(source, weights_only=True, map_location="cpu")
assert zipfile.ZipFile(ours).testzip() is None
for mapped in (False, True):
    found = torch.load(ours, weights_only=True, map_location="cpu", mmap=mapped)
    assert type(found) is dict
    unused = {"blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"}
    assert set(expected) - set(found) <= unused and set(found) <= set(expected)
    for name, tensor in found.items():
        assert tensor.dtype == dtype and tensor.is_contiguous() and not tensor.requires_grad, name
        assert tensor.shape == expected[name].shape and torch.equal(tensor, expected[name].to(dtype)), name
        assert tensor.data_ptr() % 16 == 0, name
"#;

#[test]
#[ignore = "needs a Python with torch in RWKV_FORGE_PYTHON"]
fn torch_reads_the_same_values() {
    let python = std::env::var("RWKV_FORGE_PYTHON").unwrap();
    let dir = Dir::new();
    for version in ["4", "5", "6", "7"] {
        for (encoding, dtype) in [("f32", "float32"), ("f16", "float16"), ("bf16", "bfloat16")] {
            let output = dir.join(&format!("{version}-{encoding}.pth"));
            json(&convert_args(checkpoint(version), "pth", encoding, &output), 0);
            let done = Command::new(&python).args(["-c", TORCH, text(checkpoint(version)), text(&output), dtype]).output().unwrap();
            assert!(done.status.success(), "{version} {encoding}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }
}

/// A pair for two matrices of the tiny RWKV-7, and one vector in full.
fn lora(dir: &Dir) -> PathBuf {
    let mut random = SplitMix64::new(9);
    let mut tensors = Vec::new();
    for (stem, rows, columns) in [("blocks.1.att.receptance", 128, 128), ("blocks.2.ffn.value", 128, 512)] {
        tensors.push((format!("{stem}.lora_A"), vec![4, columns], (0..4 * columns).map(|_| 0.05 * random.normal()).collect()));
        tensors.push((format!("{stem}.lora_B"), vec![rows, 4], (0..rows * 4).map(|_| 0.05 * random.normal()).collect()));
    }
    tensors.push(("ln_out.weight".to_owned(), vec![128], (0..128).map(|_| 1.0 + 0.1 * random.normal()).collect()));
    let path = dir.join("tuned.safetensors");
    std::fs::write(&path, MemorySource::from_f32(tensors).to_safetensors()).unwrap();
    path
}

#[test]
fn a_lora_is_merged_while_converting() {
    let dir = Dir::new();
    let lora = lora(&dir);
    let merge = |output: &Path, container: &str, encoding: &str, more: &[&str]| {
        let mut args = convert_args(checkpoint("7"), container, encoding, output);
        args.extend(["--lora", text(&lora)].map(str::to_owned));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let digests: Vec<String> = ["1", "3"]
        .iter()
        .map(|threads| {
            let output = dir.join(&format!("merged-{threads}.pth"));
            let record = json(&merge(&output, "pth", "f32", &["--lora-alpha", "8", "--threads", threads]), 0);
            // f32 holds the merged weights, so that the comparison with the merged source is exact.
            assert_eq!(record["record"]["lossless"], true);
            assert_eq!(record["record"]["agreement"]["identical"], true);
            assert_eq!(record["recipe"], "type=f32; lora=tuned.safetensors alpha=8");
            assert_eq!(record["record"]["source_sha256"].as_array().unwrap().len(), 2);
            sha256(&output)
        })
        .collect();
    assert_eq!(digests[0], digests[1], "1 and 3 threads");
    // Not the base, not another alpha.
    let other = dir.join("other.pth");
    json(&merge(&other, "pth", "f32", &["--lora-alpha", "4"]), 0);
    let differs = |left: &Path, right: &Path| {
        json(&["verify", text(left), text(right), "--vocab", text(vocab())], 0)["agreement"]["identical"] == false
    };
    assert!(differs(checkpoint("7"), &dir.join("merged-1.pth")) && differs(&other, &dir.join("merged-1.pth")));
    // Any container takes the merged model.
    json(&merge(&dir.join("merged.gguf"), "gguf", "q8_0", &["--lora-alpha", "8"]), 0);
    let refused = json(&merge(&dir.join("never"), "pth", "f32", &[]), 2);
    assert_eq!(refused["error"]["kind"], "LoraAlphaMissing");
    assert!(refused["error"]["message"].as_str().unwrap().contains("--lora-alpha 4"), "the rank is named");
    let mut without = convert_args(checkpoint("7"), "pth", "f32", &dir.join("never"));
    without.extend(["--lora-alpha", "8"].map(str::to_owned));
    assert_eq!(json(&without, 2)["error"]["kind"], "LoraAlphaUnused", "alpha without a LoRA");
    // A LoRA of another model fits nowhere.
    let mut args = convert_args(checkpoint("6"), "pth", "f32", &dir.join("never"));
    args.extend(["--lora", text(&lora), "--lora-alpha", "8"].map(str::to_owned));
    assert_eq!(json(&args, 3)["error"]["kind"], "LoraShapeMismatch");
}

/// A tuned state of the tiny models as safetensors in web-rwkv's layout; all values are exact in f16.
fn state(dir: &Dir) -> PathBuf {
    let mut random = SplitMix64::new(4);
    let mut values = || (0..2 * 64 * 64).map(|_| (random.normal() * 64.0).round() / 4.0).collect::<Vec<f32>>();
    // In f16, as web-rwkv's are.
    let mut tensor = |layer| (format!("blocks.{layer}.att.time_state"), vec![2, 64, 64], Encoding::F16, encode(Encoding::F16, &values()));
    let path = dir.join("tuned.st");
    std::fs::write(&path, MemorySource::new((0..3).map(&mut tensor).collect()).to_safetensors()).unwrap();
    path
}

#[test]
fn states_go_around_through_all_formats() {
    let dir = Dir::new();
    let first = state(&dir);
    for version in ["5", "6", "7"] {
        let model = text(checkpoint(version));
        let (pth, buffer, back) =
            (dir.join(&format!("{version}.pth")), dir.join(&format!("{version}.bin")), dir.join(&format!("{version}.st")));
        let answer = json(&["state", text(&first), "--to", "pth", "-o", text(&pth)], 0);
        assert_eq!([&answer["from"], &answer["to"], &answer["record"]["type"]], ["web-rwkv", "pth", "f32"]);
        json(&["state", text(&pth), "--to", "rwkv-cpp", "--model", model, "-o", text(&buffer)], 0);
        assert_eq!(buffer.metadata().unwrap().len(), 3 * (2 * 128 + 2 * 64 * 64) * 4);
        let number = if version == "5" { "5.2" } else { version };
        let known = ["--from", "rwkv-cpp", "--model-version", number, "--layers", "3", "--heads", "2"];
        let mut args = vec!["state", text(&buffer), "--to", "web-rwkv", "-o", text(&back)];
        args.extend(known);
        json(&args, 0);
        // The same text goes on from each of the files that name themselves, and another one from zeros. Sampled, since
        // the likeliest text of such small models is a loop.
        let generate = |state: Option<&Path>| {
            let mut args = vec!["generate", model, "--vocab", text(vocab()), "--prompt", "The ", "-n", "48", "--temperature", "1"];
            args.extend(state.iter().flat_map(|path| ["--state", text(path)]));
            json(&args, 0)["tokens"].clone()
        };
        let tokens = generate(Some(&first));
        assert_eq!([generate(Some(&pth)), generate(Some(&back))], [tokens.clone(), tokens.clone()], "RWKV-{version}");
        assert_ne!(generate(None), tokens, "RWKV-{version}: the state has no effect");
    }
}

#[test]
fn what_a_state_needs_is_asked_for() {
    let dir = Dir::new();
    let first = state(&dir);
    let output = dir.join("out");
    let kind = |args: &[&str], code: i32| {
        let mut all = vec!["state", text(&first), "-o", text(&output)];
        all.extend(args);
        json(&all, code)["error"]["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(&["--to", "rwkv-cpp"], 2), "StateSizesNeeded");
    assert_eq!(kind(&["--to", "rwkv-cpp", "--model-version", "4"], 2), "NoMatrixState");
    assert_eq!(kind(&["--to", "pth", "--model", text(checkpoint("4"))], 2), "NoMatrixState");
    assert_eq!(kind(&["--to", "web-rwkv", "--type", "f32"], 2), "TypeNotCarried");
    assert_eq!(json(&["state", text(checkpoint("6")), "--to", "pth", "-o", text(&output)], 3)["error"]["kind"], "NotAState");
    assert_eq!(json(&["state", text(vocab()), "--to", "pth", "-o", text(&output)], 2)["error"]["kind"], "UnknownStateFormat");
    // Not over the source, not over anything else without --force.
    assert_eq!(json(&["state", text(&first), "--to", "pth", "-o", text(&first), "--force"], 2)["error"]["kind"], "OutputIsInput");
    json(&["state", text(&first), "--to", "pth", "-o", text(&output)], 0);
    assert_eq!(kind(&["--to", "pth"], 2), "OutputExists");
}

#[test]
fn lint_tells_what_breaks_runtimes() {
    let dir = Dir::new();
    let ids = |path: &Path, code: i32| -> Vec<String> {
        let seen = json(&["inspect", "--lint", text(path)], code);
        seen["lints"].as_array().unwrap().iter().map(|lint| lint["id"].as_str().unwrap().to_owned()).collect()
    };
    // Rows of 128 are whole blocks of 32, but not of 256; layer 0 holds what nobody uses.
    assert_eq!(ids(checkpoint("7"), 0), ["block-length", "layer-0-value"]);
    let gguf = dir.join("good.gguf");
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &gguf), 0);
    let found = ids(&gguf, 0);
    assert!(found.iter().all(|id| id == "block-length" || id == "gguf-end-of-turn"), "{found:?}");
    let pth = dir.join("ours.pth");
    json(&convert_args(checkpoint("7"), "pth", "bf16", &pth), 0);
    assert_eq!(ids(&pth, 0), ["block-length"]);
    // A rename of the key that llama.cpp requires and never uses: same length, so that nothing else moves.
    let mut bytes = std::fs::read(&gguf).unwrap();
    let key = b"rwkv7.attention.head_count";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at..at + key.len()].copy_from_slice(b"rwkv7.attention.head_c0unt");
    let broken = dir.join("broken.gguf");
    std::fs::write(&broken, bytes).unwrap();
    assert!(ids(&broken, 1).contains(&"gguf-required-key".to_owned()));
    assert_eq!(json(&["inspect", text(&broken)], 0)["lints"], serde_json::Value::Null, "only on request");
}
