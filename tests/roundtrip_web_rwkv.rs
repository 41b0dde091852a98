//! web-rwkv's `.st` and `.prefab`: every version x type, written, read back and compared through the binary.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, checkpoint, convert_args, error_kind, json, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::{Options, Sizes, random_model_with};

const CONTAINERS: [&str; 2] = ["web-rwkv", "prefab"];
const VERSIONS: [Version; 5] = [Version::V4, Version::V5_1, Version::V5_2, Version::V6, Version::V7];

/// Seven layers, of which the last is halved in a prefab of RWKV-4 to 6; rows of whole blocks.
const SIZES: Sizes = Sizes { layers: 7, channels: 128, head_size: 32, ffn: 256, vocabulary: 48, ranks: [6, 7, 3, 9] };

/// Writes a random model as safetensors.
fn source(path: &Path, version: Version, options: &Options) {
    std::fs::write(path, random_model_with(version, &SIZES, options, 23).to_safetensors()).unwrap();
}

fn convert(source: &Path, container: &str, encoding: &str, output: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    ["convert", &text(source), "--to", container, "--type", encoding, "-o", &text(output)].map(str::to_owned).to_vec()
}

fn identical(reference: &Path, candidate: &Path) -> bool {
    let verdict = json(&["verify", reference.to_str().unwrap(), candidate.to_str().unwrap(), "--probe-tokens", "64"], 0);
    verdict["agreement"]["identical"].as_bool().unwrap()
}

/// A safetensors file behind its header, in which the digest of the source stands.
fn data(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    bytes[8 + header..].to_vec()
}

/// Values of a model that f16 holds, and that survive halving: whole numbers of 1/1024 below 2.
fn exact(version: Version, options: &Options) -> rwkv_forge_testkit::models::MemorySource {
    use rwkv_forge_testkit::models::{MemorySource, encode};
    let model = random_model_with(version, &SIZES, &Options { encoding: Encoding::F32, ..*options }, 23);
    let coarse = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| (f32::from_le_bytes(*b) * 1024.0).round().clamp(-8192.0, 8192.0) / 1024.0).collect()
    };
    MemorySource::from_tensors(model.into_tensors().into_iter().map(|mut tensor| {
        tensor.bytes = encode(Encoding::F16, &coarse(&tensor.bytes));
        tensor.info.encoding = Encoding::F16;
        tensor
    }))
}

#[test]
fn every_version_reproduces_the_logits_of_a_source_in_f16() {
    let dir = Dir::new();
    for version in VERSIONS {
        let path = dir.join(&format!("{}.safetensors", version.name()));
        std::fs::write(&path, exact(version, &Options::default()).to_safetensors()).unwrap();
        for container in CONTAINERS {
            let output = dir.join(&format!("{}.{container}", version.name()));
            let record = json(&convert(&path, container, "f16", &output), 0);
            assert_eq!(record["record"]["lossless"], true, "{version} {container}");
            assert_eq!(record["record"]["agreement"]["identical"], true, "{version} {container}");
            assert!(identical(&path, &output), "{version} {container}");
            let seen = json(&["inspect", output.to_str().unwrap()], 0);
            let promoted = if version == Version::V5_1 { "5.2" } else { version.name() };
            assert_eq!(seen["model"]["version"], promoted, "{version} {container}");
        }
        // From one to the other and back to the names of trainers.
        let (st, prefab) = (dir.join(&format!("{}.web-rwkv", version.name())), dir.join(&format!("{}.prefab", version.name())));
        let (from_prefab, from_st) = (dir.join("from-prefab.st"), dir.join("from-st.prefab"));
        let back = dir.join("back.safetensors");
        for (from, container, encoding, to) in
            [(&prefab, "web-rwkv", "f16", &from_prefab), (&st, "prefab", "f16", &from_st), (&prefab, "safetensors", "f32", &back)]
        {
            json(&[convert(from, container, encoding, to), vec!["--force".to_owned()]].concat(), 0);
        }
        assert!(std::fs::read(&prefab).unwrap() == std::fs::read(&from_st).unwrap(), "{version}");
        if ![Version::V4, Version::V5_1, Version::V5_2].contains(&version) {
            // The decay of the others is stored as a function that cannot be undone exactly.
            assert!(data(&st) == data(&from_prefab), "{version}");
            assert!(identical(&path, &back), "{version}");
        }
    }
}

#[test]
fn trained_checkpoints_in_bf16_lose_next_to_nothing() {
    let dir = Dir::new();
    for version in ["4", "5", "6", "7"] {
        for container in CONTAINERS {
            let output = dir.join(&format!("{version}.{container}"));
            let record = json(&convert_args(checkpoint(version), container, "f16", &output), 0);
            let kl = record["record"]["agreement"]["kl"]["mean"].as_f64().unwrap();
            // bf16 has fewer digits than f16 but a longer range: some 500 of 700,000 values lose a digit.
            assert!(kl < 1e-9, "{version} {container}: {kl}");
            assert!(record["record"]["subnormal_values"].as_u64().unwrap() > 0, "the loss is counted: {version} {container}");
        }
    }
}

#[test]
fn quantized_prefabs_lose_what_their_bits_lose() {
    let dir = Dir::new();
    for version in ["4", "6", "7"] {
        let mut loss = std::collections::BTreeMap::new();
        for encoding in ["int8", "nf4", "sf4"] {
            let output = dir.join(&format!("{version}-{encoding}.prefab"));
            let record = json(&convert_args(checkpoint(version), "prefab", encoding, &output), 0);
            assert_eq!(record["record"]["output_bytes"].as_u64().unwrap(), output.metadata().unwrap().len());
            loss.insert(encoding, record["record"]["agreement"]["kl"]["mean"].as_f64().unwrap());
            // Blocks are copied from prefab to prefab, and quantized anew only on request.
            let again = dir.join("again.prefab");
            let mut args = convert_args(&output, "prefab", encoding, &again);
            args.push("--force".to_owned());
            assert_eq!(json(&args, 0)["record"]["agreement"]["identical"], true);
            if encoding == "int8" {
                let never = dir.join("never.prefab");
                assert_eq!(error_kind(&convert_args(&output, "prefab", "nf4", &never), 2), "Requantize");
                assert!(!never.exists());
            }
        }
        // Eight bits against four: a factor of a hundred on these models, and neither is exact.
        assert!(loss["int8"] > 0.0 && loss["int8"] * 10.0 < loss["nf4"].min(loss["sf4"]), "RWKV-{version}: {loss:?}");
        assert!(loss["nf4"].max(loss["sf4"]) < 0.5, "4 bits keep the model recognisable: {loss:?}");
    }
}

#[test]
fn logarithms_of_the_bonus_of_version_5_are_undone() {
    let dir = Dir::new();
    for version in [Version::V5_1, Version::V5_2] {
        // In bf16, for f16 with a bonus for each channel would be taken for a .st.
        let options = Options { bonus_as_logarithm: true, encoding: Encoding::BF16, ..Options::default() };
        let path = dir.join(&format!("{}.safetensors", version.name()));
        source(&path, version, &options);
        for container in CONTAINERS {
            let output = dir.join(&format!("{}.{container}", version.name()));
            let record = json(&convert(&path, container, "f16", &output), 0);
            // exp(u) is rounded to f16 in a .st; taking u for exp(u) would cost a nat and more.
            let kl = record["record"]["agreement"]["kl"]["mean"].as_f64().unwrap();
            assert!(kl < 1e-5, "{version} {container}: {kl}");
        }
    }
}

#[test]
fn impossible_wishes_are_refused_by_name() {
    let dir = Dir::new();
    let output = dir.join("never");
    let without_gate = dir.join("5.0.safetensors");
    source(&without_gate, Version::V5_0, &Options::default());
    for container in CONTAINERS {
        assert_eq!(error_kind(&convert(&without_gate, container, "f16", &output), 2), "CannotCarry");
        assert_eq!(error_kind(&convert_args(checkpoint("7"), container, "f32", &output), 2), "TypeNotCarried");
        assert_eq!(error_kind(&convert_args(checkpoint("7"), container, "q8_0", &output), 2), "TypeNotCarried");
    }
    assert_eq!(error_kind(&convert_args(checkpoint("7"), "web-rwkv", "int8", &output), 2), "TypeNotCarried");
    let with_rule = |rule: &str| {
        let mut args = convert_args(checkpoint("7"), "prefab", "int8", &output);
        args.extend(["--set".to_owned(), rule.to_owned()]);
        error_kind(&args, 2)
    };
    assert_eq!(with_rule("head=nf4"), "RuleViolatesContainer");
    assert_eq!(with_rule("att.w1=sf4"), "RuleViolatesContainer");
    assert!(!output.exists());
}

#[test]
fn the_vocabulary_is_written_as_json_on_request() {
    let dir = Dir::new();
    let (output, vocabulary) = (dir.join("7.st"), dir.join("vocab.json"));
    let mut args = convert_args(checkpoint("7"), "web-rwkv", "f16", &output);
    args.extend(["--vocab-json".to_owned(), vocabulary.to_str().unwrap().to_owned()]);
    json(&args, 0);
    let tokens: serde_json::Value = serde_json::from_slice(&std::fs::read(&vocabulary).unwrap()).unwrap();
    assert_eq!(tokens.as_object().unwrap().len(), 319);
    assert_eq!(tokens["1"], "\0");
    assert_eq!(tokens["256"], serde_json::json!([255]));
    assert_eq!(tokens["261"], "\n\n");
    // An existing file is replaced only with --force, and a model of an unknown vocabulary has none to write.
    std::fs::remove_file(&output).unwrap();
    assert_eq!(error_kind(&args, 2), "OutputExists");
    let unknown = dir.join("unknown.json");
    let mut args = convert(checkpoint("7"), "web-rwkv", "f16", &dir.join("again.st"));
    args.extend(["--vocab-json".to_owned(), unknown.to_str().unwrap().to_owned()]);
    assert_eq!(error_kind(&args, 2), "VocabularyNeeded");
    assert!(!unknown.exists() && vocab().exists());
}
