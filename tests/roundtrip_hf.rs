//! Directories for Hugging Face's libraries and for candle: version x type, written, read back, compared; and what f16
//! loses.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use crate::support;

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, json, run, sha256, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::{
    MemorySource, MemoryTensor, Options, Sizes, random_model, random_model_with, to_candle_6, to_hugging_face, to_layers,
};

const FLOATS: [&str; 3] = ["f32", "f16", "bf16"];
/// Sizes that every program takes.
const WIDE: Sizes = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 96, vocabulary: 40, ranks: [32, 64, 3, 9] };
/// RWKV-6 ranks as candle computes them for two heads.
const CANDLE: Sizes = Sizes { ranks: [2, 4, 3, 9], ..WIDE };

fn write(dir: &Dir, name: &str, source: &MemorySource) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, source.to_safetensors()).unwrap();
    path
}

/// A model of random weights as trainers save it, in bf16.
fn trained(dir: &Dir, version: Version, sizes: &Sizes) -> PathBuf {
    let options = Options { encoding: Encoding::BF16, ..Options::default() };
    write(dir, &format!("{}.safetensors", version.name()), &random_model_with(version, sizes, &options, 3))
}

fn args(source: &Path, container: &str, encoding: &str, output: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    ["convert", &text(source), "--to", container, "--type", encoding, "-o", &text(output)].map(str::to_owned).to_vec()
}

fn verify(reference: &Path, candidate: &Path) -> bool {
    let answer = json(&["verify", reference.to_str().unwrap(), candidate.to_str().unwrap()], 0);
    answer["agreement"]["identical"].as_bool().unwrap()
}

#[test]
fn every_version_and_float_type_reads_back() {
    let dir = Dir::new();
    let cases = [
        ("hf", vec![Version::V4, Version::V5_1, Version::V5_2, Version::V6, Version::V7], WIDE),
        ("candle", vec![Version::V5_1, Version::V5_2, Version::V6, Version::V7], CANDLE),
    ];
    for (container, versions, sizes) in cases {
        for version in versions {
            let source = trained(&dir, version, &sizes);
            for encoding in FLOATS {
                let output = dir.join(&format!("{}-{encoding}.{container}", version.name()));
                let record = json(&args(&source, container, encoding, &output), 0);
                // bf16 and f32 hold all of a bf16 checkpoint; f16 has a shorter range.
                let exact = encoding != "f16";
                assert_eq!(record["record"]["agreement"]["identical"].as_bool(), Some(exact), "{container} {version} {encoding}");
                assert_eq!(record["record"]["lossless"].as_bool(), Some(exact), "{container} {version} {encoding}");
                assert!(record["record"]["agreement"]["kl"]["mean"].as_f64().unwrap() < 1e-5, "{container} {version} {encoding}");
                assert_eq!(verify(&source, &output), exact, "{container} {version} {encoding}");
            }
        }
    }
}

#[test]
fn the_tiny_trained_models_survive_and_come_back() {
    let dir = Dir::new();
    for version in ["4", "5", "6", "7"] {
        let output = dir.join(&format!("{version}.hf"));
        let record = json(&convert_args(checkpoint(version), "hf", "bf16", &output), 0);
        assert_eq!(record["record"]["agreement"]["identical"], true, "RWKV-{version}");
        let back = dir.join(&format!("{version}.safetensors"));
        json(&convert_args(&output, "safetensors", "bf16", &back), 0);
        let direct = dir.join(&format!("{version}-direct.safetensors"));
        json(&convert_args(checkpoint(version), "safetensors", "bf16", &direct), 0);
        // Both hold the same tensors; only the digest of the source in the metadata differs.
        let tensors = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
            bytes[header..].to_vec()
        };
        assert_eq!(tensors(&back), tensors(&direct), "RWKV-{version}");
    }
}

#[test]
fn logarithmic_bonuses_become_what_the_class_reads() {
    let dir = Dir::new();
    for version in [Version::V5_1, Version::V5_2] {
        let options = Options { bonus_as_logarithm: true, encoding: Encoding::BF16, ..Options::default() };
        let source = write(&dir, "log.safetensors", &random_model_with(version, &WIDE, &options, 3));
        for container in ["hf", "candle"] {
            let output = dir.join(&format!("{}.{container}", version.name()));
            // exp(u) is kept in f32, as which the reference computes it, so that nothing is lost in bf16 either.
            let record = json(&args(&source, container, "bf16", &output), 0);
            assert_eq!(record["record"]["agreement"]["identical"], true, "{version} {container}");
            let mut rule = args(&source, container, "bf16", &dir.join("never"));
            rule.extend(["--set".to_owned(), "time_first=bf16".to_owned()]);
            assert_eq!(error_kind(&rule, 2), "RuleViolatesContainer");
        }
        std::fs::remove_dir_all(dir.join(&format!("{}.candle", version.name()))).unwrap();
    }
}

#[test]
fn quantized_candle_files_read_back_and_know_their_remedy() {
    let dir = Dir::new();
    for version in [Version::V5_1, Version::V5_2, Version::V6] {
        let source = trained(&dir, version, &Sizes { vocabulary: 320, ..CANDLE });
        let mut loss = std::collections::BTreeMap::new();
        for encoding in ["f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] {
            let output = dir.join(&format!("{}-{encoding}.candle-gguf", version.name()));
            let record = json(&args(&source, "candle-gguf", encoding, &output), 0);
            let agreement = &record["record"]["agreement"];
            assert_eq!(agreement["identical"].as_bool(), Some(encoding.ends_with("f32") || encoding == "bf16"), "{version} {encoding}");
            loss.insert(encoding, agreement["kl"]["mean"].as_f64().unwrap());
            // The file within the directory is as good as the directory.
            assert!(verify(&output, &output.join("model.gguf")));
        }
        assert!(loss["q8_0"] > 0.0 && loss["q8_0"] < loss["q4_0"], "{version}: {loss:?}");
        // Blocks go over as they are; only the value matrices, whose scale is another, would be quantized anew.
        let q8 = dir.join(&format!("{}-q8_0.candle-gguf", version.name()));
        if version == Version::V6 {
            let answer = json(&with_vocab(args(&q8, "gguf", "q8_0", &dir.join("out.gguf"))), 2);
            let message = answer["error"]["message"].as_str().unwrap().to_owned();
            assert!(answer["error"]["kind"] == "Requantize" && message.contains("att.value.weight"), "{message}");
            let mut again = with_vocab(args(&q8, "gguf", "q8_0", &dir.join("out.gguf")));
            again.push("--requantize".to_owned());
            json(&again, 0);
        }
        let copy = dir.join(&format!("{}-copy.candle-gguf", version.name()));
        let record = json(&args(&q8, "candle-gguf", "q8_0", &copy), 0);
        assert_eq!(record["record"]["agreement"]["identical"], true, "a copy of blocks");
    }
}

fn with_vocab(mut args: Vec<String>) -> Vec<String> {
    args.extend(["--vocab".to_owned(), vocab().to_str().unwrap().to_owned()]);
    args
}

#[test]
fn without_the_remedy_the_values_would_be_eight_times_too_large() {
    // The planted fault: a candle file whose key says nothing must read as another model.
    let dir = Dir::new();
    let source = trained(&dir, Version::V5_2, &CANDLE);
    let output = dir.join("out");
    json(&args(&source, "candle", "f32", &output), 0);
    let file = output.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let key = b"rwkv_forge.att_value_scale";
    let place = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut damaged = bytes.clone();
    damaged[place + key.len() - 1] = b'f';
    let plain = dir.join("plain.safetensors");
    std::fs::write(&plain, damaged).unwrap();
    assert!(verify(&source, &file));
    assert!(!verify(&source, &plain));
}

#[test]
fn foreign_names_are_sources_too() {
    let dir = Dir::new();
    let six = random_model(Version::V6, &CANDLE, 3);
    let seven = random_model(Version::V7, &WIDE, 3);
    let five = random_model(Version::V5_2, &WIDE, 3);
    let pairs = [
        (five.clone(), to_hugging_face(five)),
        (six.clone(), to_candle_6(six)),
        (seven.clone(), to_layers(seven.clone(), "")),
        (seven.clone(), to_layers(seven, "time_mixer.")),
    ];
    for (index, (plain, foreign)) in pairs.into_iter().enumerate() {
        let (plain, foreign) = (write(&dir, &format!("{index}-plain"), &plain), write(&dir, &format!("{index}-foreign"), &foreign));
        assert!(verify(&plain, &foreign), "{index}");
    }
}

#[test]
fn outputs_are_reproducible_and_replaced_only_on_request() {
    let dir = Dir::new();
    let source = trained(&dir, Version::V7, &WIDE);
    let (one, two) = (dir.join("one"), dir.join("two"));
    json(&args(&source, "hf", "bf16", &one), 0);
    let mut single = args(&source, "hf", "bf16", &two);
    single.extend(["--threads".to_owned(), "1".to_owned()]);
    json(&single, 0);
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        assert_eq!(sha256(&one.join(name)), sha256(&two.join(name)), "{name}");
    }
    assert_eq!(error_kind(&args(&source, "hf", "f32", &one), 2), "OutputExists");
    let mut force = args(&source, "hf", "f32", &one);
    force.push("--force".to_owned());
    json(&force, 0);
    assert!(verify(&source, &one));
    // The directory that is read is not replaced, whatever is said.
    let mut onto_itself = args(&one, "hf", "bf16", &one);
    onto_itself.push("--force".to_owned());
    assert_eq!(error_kind(&onto_itself, 2), "OutputIsInput");
    assert!(dir.names().iter().all(|name| !name.starts_with('.')), "{:?}", dir.names());
}

#[test]
fn a_directory_is_replaced_only_when_all_of_it_is_ours() {
    let dir = Dir::new();
    let source = trained(&dir, Version::V7, &WIDE);
    let output = dir.join("out");
    json(&args(&source, "hf", "bf16", &output), 0);
    let forced = |container: &str| [args(&source, container, "f32", &output), vec!["--force".to_owned()]].concat();
    let refused = |container: &str, name: &str| {
        let error = &json(&forced(container), 2)["error"];
        assert_eq!(error["kind"], "ForeignFiles", "{container} {name}");
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    };
    // The list names every file, itself left out; readers do not mind it.
    let list = std::fs::read_to_string(output.join(rwkv_forge_io::MANIFEST)).unwrap();
    let mut listed: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    listed.push(rwkv_forge_io::MANIFEST);
    listed.sort_unstable();
    let mut names: Vec<String> =
        std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(listed, names);
    // Somebody's notes keep the directory, whatever else is in it.
    std::fs::write(output.join("README.md"), "mine").unwrap();
    refused("hf", "README.md");
    assert_eq!(std::fs::read_to_string(output.join("README.md")).unwrap(), "mine");
    std::fs::remove_file(output.join("README.md")).unwrap();
    json(&forced("hf"), 0);
    // Another container's directory of ours is ours, too.
    json(&forced("candle"), 0);
    json(&forced("hf"), 0);
    // One without a list may be anybody's, whatever its files are called: they are named, and stay.
    let list = output.join(rwkv_forge_io::MANIFEST);
    let saved = std::fs::read(&list).unwrap();
    std::fs::remove_file(&list).unwrap();
    std::fs::write(output.join("tokenizer.json"), "mine").unwrap();
    refused("hf", "config.json");
    refused("candle", "generation_config.json");
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::remove_file(output.join(name)).unwrap();
    }
    refused("hf", "tokenizer.json");
    assert_eq!(std::fs::read_to_string(output.join("tokenizer.json")).unwrap(), "mine");
    // With the list it is ours but for that file.
    std::fs::write(&list, saved).unwrap();
    refused("hf", "tokenizer.json");
    std::fs::remove_file(output.join("tokenizer.json")).unwrap();
    json(&forced("hf"), 0);
    assert!(verify(&source, &output));
}

#[test]
fn every_file_of_a_directory_has_a_name_that_its_container_gives() {
    let dir = Dir::new();
    let mut seen = 0;
    for container in rwkv_forge_convert::container::CONTAINERS {
        for (version, sizes) in [(Version::V5_2, WIDE), (Version::V6, WIDE), (Version::V6, CANDLE), (Version::V7, WIDE)] {
            let source = trained(&dir, version, &sizes);
            let output = dir.join(&format!("{}-{}-{}", container.name(), version.name(), sizes.ranks[0]));
            let line = args(&source, container.name(), "f16", &output);
            if !run(&line).status.success() || !output.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(&output).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(name == rwkv_forge_io::MANIFEST || container.writes(&name), "{}: {name}", container.name());
                seen += 1;
            }
        }
    }
    assert!(seen > 12, "directories were written");
}

#[test]
fn what_no_reader_takes_is_refused_before_anything_is_written() {
    let dir = Dir::new();
    let never = dir.join("never");
    let refused = |version, sizes: &Sizes, container: &str, encoding: &str| {
        let source = trained(&dir, version, sizes);
        let kind = error_kind(&args(&source, container, encoding, &never), 2);
        std::fs::remove_file(source).unwrap();
        assert_eq!(dir.names(), Vec::<String>::new());
        kind
    };
    assert_eq!(refused(Version::V5_0, &WIDE, "hf", "f32"), "CannotCarry");
    assert_eq!(refused(Version::V4, &WIDE, "candle", "f32"), "CannotCarry");
    assert_eq!(refused(Version::V7, &WIDE, "candle-gguf", "q8_0"), "CannotCarry");
    assert_eq!(refused(Version::V6, &WIDE, "candle", "f32"), "FixedSize");
    assert_eq!(refused(Version::V7, &Sizes::TINY, "hf", "f32"), "FixedSize");
    assert_eq!(refused(Version::V7, &WIDE, "hf", "q8_0"), "TypeNotCarried");
}

/// A model in f32, one matrix of which is scaled down so far that f16 holds a given part of it no more.
fn with_small_values(part: usize, scale: f32) -> MemorySource {
    let tensors = random_model(Version::V7, &WIDE, 3).into_tensors().into_iter().map(|mut tensor: MemoryTensor| {
        if tensor.info.name == "blocks.1.ffn.value.weight" {
            let count = tensor.bytes.len() / 4;
            for value in tensor.bytes.as_chunks_mut::<4>().0.iter_mut().take(count / part) {
                *value = (f32::from_le_bytes(*value) * scale).to_le_bytes();
            }
        }
        tensor
    });
    MemorySource::from_tensors(tensors)
}

#[test]
fn f16_losses_are_counted_and_refused_above_a_hundredth() {
    let dir = Dir::new();
    let output = dir.join("out.safetensors");
    let convert = |source: &Path, more: &[&str]| {
        let mut args = args(source, "safetensors", "f16", &output);
        args.extend(more.iter().map(|text| (*text).to_owned()));
        args
    };
    let loss = |record: &serde_json::Value| {
        let losses = record["record"]["f16_losses"].as_array().unwrap().clone();
        losses.into_iter().find(|loss| loss["tensor"] == "blocks.1.ffn.value.weight").unwrap()
    };
    // 12,288 values; a fiftieth of them is 245, all below half of the smallest number of f16.
    let much = write(&dir, "much", &with_small_values(50, 1e-9));
    let answer = json(&convert(&much, &[]), 3);
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(answer["error"]["kind"], "F16Loss");
    assert!(message.contains("blocks.1.ffn.value.weight") && message.contains("245") && message.contains("--allow-f16-loss"), "{message}");
    assert!(!output.exists(), "nothing is left behind");
    let record = json(&convert(&much, &["--allow-f16-loss"]), 0);
    assert_eq!((loss(&record)["flushed"].as_u64(), loss(&record)["non_zero"].as_u64()), (Some(245), Some(12_288)));
    // A wider type for the tensor is the other way out.
    json(&convert(&much, &["--force", "--set", r"^blocks\.1\.ffn\.value=f32"]), 0);
    // Half a hundredth is reported and kept, and so are digits lost to subnormal numbers.
    let little = write(&dir, "little", &with_small_values(200, 1e-9));
    let record = json(&convert(&little, &["--force"]), 0);
    assert_eq!(loss(&record)["flushed"].as_u64(), Some(61));
    let subnormal = write(&dir, "subnormal", &with_small_values(1, 1e-4));
    let record = json(&convert(&subnormal, &["--force"]), 0);
    assert!(loss(&record)["subnormal"].as_u64().unwrap() > 10_000, "{}", loss(&record));
    // Overflow stays an error, allowed or not: no file carries infinities.
    let huge = write(&dir, "huge", &with_small_values(50, 1e9));
    assert_eq!(error_kind(&convert(&huge, &["--force", "--allow-f16-loss"]), 3), "Overflow");
    // bf16 has the range of f32: nothing to count.
    let record = json(&args(&much, "safetensors", "bf16", &dir.join("bf16")), 0);
    assert_eq!(record["record"]["f16_losses"].as_array().unwrap().len(), 0);
}

#[test]
fn the_dry_run_lists_what_the_directory_will_hold() {
    let dir = Dir::new();
    let source = trained(&dir, Version::V7, &WIDE);
    let mut dry = args(&source, "candle", "bf16", &dir.join("out"));
    dry.push("--dry-run".to_owned());
    let blueprint = json(&dry, 0);
    dry.pop();
    json(&dry, 0);
    let written: u64 = std::fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(blueprint["total_bytes"].as_u64(), Some(written));
    let stand_in = blueprint["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == "blocks.0.att.v1").unwrap();
    assert_eq!(stand_in["type"], "bf16");
    assert_eq!(run(&["inspect", dir.join("out").to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn w1_a_full_disk_leaves_the_old_directory() {
    let dir = Dir::new();
    let output = dir.join("out.hf");
    json(&convert_args(checkpoint("7"), "hf", "bf16", &output), 0);
    let before = sha256(&output.join("model.safetensors"));
    // The shell's limit on file sizes (in blocks of 512 bytes) makes the write fail late, as a disk that fills up does.
    let mut line = format!("trap '' XFSZ; ulimit -f 100; exec {}", env!("CARGO_BIN_EXE_rwkv-forge"));
    for arg in convert_args(checkpoint("7"), "hf", "f32", &output) {
        line.push_str(&format!(" '{arg}'"));
    }
    line.push_str(" --force");
    let result = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(result.status.code(), Some(4), "{}", String::from_utf8_lossy(&result.stderr));
    assert_eq!((sha256(&output.join("model.safetensors")), dir.names()), (before, vec!["out.hf".to_owned()]));
}

#[test]
fn w3_signals_remove_the_temporary_directory() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = Dir::new();
        // Many tokens make the comparison long enough to be interrupted.
        let mut long = convert_args(checkpoint("7"), "hf", "bf16", &dir.join("out.hf"));
        long.extend(["--probe-tokens".to_owned(), "100000".to_owned(), "--text".to_owned()]);
        long.push(support::fixture("text/public-domain-100k.txt").to_str().unwrap().to_owned());
        let null = std::process::Stdio::null;
        let mut child = support::forge().args(&long).stdout(null()).stderr(null()).spawn().unwrap();
        let mut waited = 0;
        while dir.names().is_empty() && waited < 500 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            waited += 1;
        }
        assert!(dir.names()[0].starts_with(".out.hf."), "the temporary is a hidden sibling: {:?}", dir.names());
        std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "SIG{signal}");
        assert_eq!(dir.names(), Vec::<String>::new());
    }
}

/// What `AutoTokenizer` reads, of the vocabulary of the fixtures, byte for byte: the `python` check holds its ids against ours.
#[test]
fn a_tokenizer_is_the_golden_file() {
    let dir = Dir::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer-320.json");
    for container in ["hf", "hf-native"] {
        let output = dir.join(container);
        json(&convert_args(checkpoint("7"), container, "bf16", &output), 0);
        let written = std::fs::read_to_string(output.join("tokenizer.json")).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &written).unwrap();
        }
        assert!(written == std::fs::read_to_string(&golden).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
    }
}
