//! What is kept between runs: used only for exactly what it was computed from, and only where it is as it was written. A cache never
//! costs a result.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Dir, checkpoint, fixture, forge, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
use serde_json::{Value, json};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Runs the program with `--json` and this cache directory.
fn run(cache: &Path, args: &[&str]) -> (Value, Output) {
    let output = forge().env("XDG_CACHE_HOME", cache).arg("--json").args(args).output().unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (document, output)
}

fn good(cache: &Path, args: &[&str]) -> (Value, String) {
    let (document, output) = run(cache, args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    (document, errors)
}

/// Some kilobytes of prose, from a place of the book.
fn passage(dir: &Dir, name: &str, range: std::ops::Range<usize>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, &std::fs::read(fixture("text/public-domain-100k.txt")).unwrap()[range]).unwrap();
    path
}

/// Whether a result comes from an earlier run, and what it is.
fn kept(dir: &Dir, args: &[&str]) -> (bool, Value) {
    let (seen, _) = good(&dir.join("cache"), args);
    let model = &seen["models"][0];
    (model["kept_parts"].as_u64().unwrap() > 0, model["nll"].clone())
}

/// Changes a file while `args` are evaluated again and again: a change is a miss, and the file as it was is a hit.
fn every_change_is_a_miss(dir: &Dir, args: &[&str], path: &Path, changed: &[u8]) {
    let before = std::fs::read(path).unwrap();
    assert_ne!(before, changed);
    let first = kept(dir, args);
    assert_eq!(kept(dir, args), (true, first.1.clone()), "{}: the second run is a hit", path.display());
    std::fs::write(path, changed).unwrap();
    assert!(!kept(dir, args).0, "{} was changed", path.display());
    std::fs::write(path, before).unwrap();
    assert_eq!(kept(dir, args), (true, first.1), "{} is as before", path.display());
}

/// A hybrid with the files that lie beside it.
fn hybrid(dir: &Dir) -> PathBuf {
    let folder = dir.join("hybrid");
    std::fs::create_dir_all(&folder).unwrap();
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let path = folder.join("model.safetensors");
    std::fs::write(&path, random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21).to_safetensors()).unwrap();
    std::fs::write(folder.join("config.json"), config_json(Version::ARwkv7, &sizes, &Variant::FULL).to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), json!({ "eos_token": "<|im_end|>" }).to_string()).unwrap();
    folder
}

#[test]
fn a_configuration_beside_a_hybrid_decides_its_results() {
    let dir = Dir::new();
    let (folder, passage) = (hybrid(&dir), passage(&dir, "text.txt", 0..400));
    let (folder_text, passage, cache) = (text(&folder), text(&passage), text(&dir.join("scores")));
    let args = ["eval", &folder_text, "--vocab", "bytes", "--text", &passage, "--cache", &cache];
    let config = folder.join("config.json");
    let mut other: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    other["rms_norm_eps"] = json!(0.5);
    let first = kept(&dir, &args).1;
    every_change_is_a_miss(&dir, &args, &config, other.to_string().as_bytes());
    std::fs::write(&config, other.to_string()).unwrap();
    assert_ne!(kept(&dir, &args).1, first, "another epsilon is another model");
    // A level is measured as its file would be, which has the vocabulary in it.
    let levels = ["--levels", "q8_0", "--no-speed", "--to", "gguf"];
    let args = [&args[..], &levels].concat();
    every_change_is_a_miss(&dir, &args, &config, other.to_string().replace("0.5", "0.25").as_bytes());
    let tokenizer = folder.join("tokenizer.json");
    let spaced = [&std::fs::read(&tokenizer).unwrap()[..], b" "].concat();
    every_change_is_a_miss(&dir, &args, &tokenizer, &spaced);
}

#[test]
fn every_file_of_a_model_and_of_a_text_decides_the_results() {
    let dir = Dir::new();
    let folder = dir.join("sharded");
    std::fs::create_dir_all(&folder).unwrap();
    shards(&folder);
    let (book, words) = (passage(&dir, "text.txt", 0..2000), dir.join("vocab.txt"));
    std::fs::copy(vocab(), &words).unwrap();
    let (model, book_text, words_text, cache) = (text(&folder), text(&book), text(&words), text(&dir.join("scores")));
    let args = ["eval", &model, "--vocab", &words_text, "--text", &book_text, "--cache", &cache];
    let edited = |path: &Path, from: &str, to: &str| {
        let before = std::fs::read_to_string(path).unwrap();
        assert!(before.contains(from), "{}", path.display());
        before.replacen(from, to, 1).into_bytes()
    };
    let index = folder.join("model.safetensors.index.json");
    every_change_is_a_miss(&dir, &args, &index, &edited(&index, "total_size", "size_total"));
    let shard = folder.join("model-00002-of-00002.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    *bytes.iter_mut().rev().nth(1).unwrap() ^= 1;
    every_change_is_a_miss(&dir, &args, &shard, &bytes);
    // Two tokens that the text does not have change their places: its ids stay the same, and the vocabulary does not.
    let lines = std::fs::read_to_string(&words).unwrap();
    let mut lines: Vec<&str> = lines.lines().collect();
    let swapped: Vec<String> = [1, 2].map(|at| lines[at].split_once(' ').unwrap().1.to_owned()).to_vec();
    let (first, second) = (format!("2 {}", swapped[1]), format!("3 {}", swapped[0]));
    (lines[1], lines[2]) = (&first, &second);
    every_change_is_a_miss(&dir, &args, &words, (lines.join("\n") + "\n").as_bytes());
    every_change_is_a_miss(&dir, &args, &book, &edited(&book, "e", "a"));
}

/// A random model in two files with an index.
fn shards(folder: &Path) {
    let sizes = Sizes { vocabulary: 320, ..Sizes::TINY };
    let tensors = random_model(Version::V7, &sizes, 3).into_tensors();
    let half = tensors.len() / 2;
    let mut map = serde_json::Map::new();
    let mut rest = tensors.into_iter();
    for (number, count) in [(1, half), (2, usize::MAX)] {
        let name = format!("model-{number:05}-of-00002.safetensors");
        let part: Vec<_> = rest.by_ref().take(count).collect();
        map.extend(part.iter().map(|tensor| (tensor.info.name.clone(), json!(name))));
        std::fs::write(folder.join(&name), MemorySource::from_tensors(part).to_safetensors()).unwrap();
    }
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn a_merged_lora_has_statistics_of_its_own() {
    let dir = Dir::new();
    let calibration = text(&passage(&dir, "calibration.txt", 20_000..24_000));
    let (lora, cache) = (dir.join("lora.safetensors"), dir.join("cache"));
    let entries = || std::fs::read_dir(cache.join("rwkv-forge")).map_or(0, Iterator::count);
    let (model, lora_text, words, out) = (text(checkpoint("7")), text(&lora), text(vocab()), text(&dir.join("out.gguf")));
    let convert = |alpha: &str| {
        let lora = ["--lora", &lora_text, "--lora-alpha", alpha, "--calibrate", &calibration, "--calibration-windows", "2"];
        let own = ["convert", &model, "--to", "gguf", "--type", "4bit", "--quantizer", "search", "--vocab", &words, "-f", "-o", &out];
        good(&cache, &[&own[..], &lora].concat());
        entries()
    };
    let pair = |value: f32| {
        let tensor = |name: &str, shape: [usize; 2]| {
            let values: Vec<u8> = std::iter::repeat_n(value, shape[0] * shape[1]).flat_map(f32::to_le_bytes).collect();
            (format!("blocks.0.att.receptance.{name}"), shape, values)
        };
        let mut source = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, shape, bytes) in [tensor("lora_A", [2, 128]), tensor("lora_B", [128, 2])] {
            let offsets = [data.len(), data.len() + bytes.len()];
            source.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
            data.extend(bytes);
        }
        let header = Value::Object(source).to_string();
        std::fs::write(&lora, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
    };
    pair(0.01);
    assert_eq!(convert("2"), 1);
    assert_eq!(convert("2"), 1, "the same again");
    assert_eq!(convert("4"), 2, "another alpha is another model");
    pair(0.02);
    assert_eq!(convert("4"), 3, "and so is another pair");
    pair(0.01);
    assert_eq!(convert("4"), 3);
}

/// The part of an answer that must not depend on what was kept.
type Answer = fn(&Value) -> Value;

/// Commands that keep something.
fn keeping(dir: &Dir) -> Vec<(Vec<String>, Answer)> {
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let small = text(&passage(dir, "small.txt", 0..2000));
    let calibration = text(&passage(dir, "calibration.txt", 20_000..24_000));
    let out = |name: &str| text(&dir.join(name));
    let words_of = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let calibrate = ["--calibrate", &calibration, "--calibration-windows", "2", "--vocab", &words, "-f"];
    let levels: Answer = |seen| seen["models"].as_array().unwrap().iter().map(|level| level["kl"].clone()).collect();
    let plan: Answer = |seen| json!([seen["harms"], seen["planned"]["types"]]);
    let convert: Answer = |seen| seen["record"]["output_sha256"].clone();
    vec![
        (words_of(&["eval", &model, "--levels", "q8_0,q4_0", "--no-speed", "--vocab", &words, "--text", &small]), levels),
        (
            [
                words_of(&["plan", &model, "--probe-windows", "1", "--text", &small, "--bpw", "8", "-o", &out("plan.toml")]),
                words_of(&calibrate),
            ]
            .concat(),
            plan,
        ),
        (
            [words_of(&["convert", &model, "--to", "gguf", "--type", "4bit", "-o", &out("out.gguf")]), words_of(&calibrate)].concat(),
            convert,
        ),
    ]
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(cache.join("rwkv-forge")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn damaged_entries_are_misses_with_a_warning_and_are_replaced() {
    let dir = Dir::new();
    let cache = dir.join("cache");
    for (words, answer) in keeping(&dir) {
        let _fresh = std::fs::remove_dir_all(&cache);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let (first, errors) = good(&cache, &args);
        assert!(!errors.contains("warning:"), "{args:?}: {errors}");
        let files = entries(&cache);
        assert!(!files.is_empty(), "{args:?}");
        let damages: [fn(Vec<u8>) -> Vec<u8>; 4] = [
            // What a crash of the machine leaves: the right length, and zeros.
            |bytes| vec![0; bytes.len()],
            |bytes| bytes[..bytes.len() / 2].to_vec(),
            |_| Vec::new(),
            // The last number is another one.
            |mut bytes| {
                let last = bytes.len() - 2;
                bytes[last] ^= 0x10;
                bytes
            },
        ];
        for damage in damages {
            for file in &files {
                std::fs::write(file, damage(std::fs::read(file).unwrap())).unwrap();
            }
            let (again, errors) = good(&cache, &args);
            assert_eq!(answer(&again), answer(&first), "{args:?}");
            for file in &files {
                let name = file.file_name().unwrap().to_str().unwrap();
                assert!(errors.lines().any(|line| line.starts_with("warning:") && line.contains(name)), "{name}: {errors}");
            }
            let (again, errors) = good(&cache, &args);
            assert!(!errors.contains("warning:"), "it was replaced: {errors}");
            assert_eq!(answer(&again), answer(&first), "{args:?}");
            assert_eq!(entries(&cache), files);
        }
    }
}

#[test]
fn a_directory_that_cannot_be_written_costs_a_warning() {
    let dir = Dir::new();
    let blocked = dir.join("a-file");
    std::fs::write(&blocked, "no directory").unwrap();
    for (words, answer) in keeping(&dir) {
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let (first, _) = good(&dir.join("cache"), &args);
        let (seen, errors) = good(&blocked, &args);
        assert_eq!(answer(&seen), answer(&first), "{args:?}");
        assert!(errors.contains("warning: nothing can be kept for later runs: "), "{args:?}: {errors}");
        // Nor does it matter that nobody knows where a home is.
        let output = forge().env_remove("XDG_CACHE_HOME").env_remove("HOME").arg("--json").args(&args).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
        assert!(errors.contains("warning: nothing can be kept for later runs: there is no HOME"), "{args:?}: {errors}");
    }
    assert_eq!(std::fs::read(&blocked).unwrap(), b"no directory");
    let passage = text(&dir.join("small.txt"));
    let (model, words, place) = (text(checkpoint("7")), text(vocab()), text(&blocked.join("deep")));
    let (_, errors) = good(&dir.join("cache"), &["eval", &model, "--vocab", &words, "--text", &passage, "--cache", &place]);
    assert!(errors.contains("warning: nothing can be kept"), "{errors}");
}

#[test]
fn a_file_of_statistics_that_the_user_names_is_theirs() {
    let dir = Dir::new();
    let cache = dir.join("cache");
    let calibration = text(&passage(&dir, "calibration.txt", 20_000..24_000));
    let (model, words, out, place) = (text(checkpoint("7")), text(vocab()), text(&dir.join("out.gguf")), dir.join("statistics"));
    let named = text(&place);
    let own = ["convert", &model, "--to", "gguf", "--type", "4bit", "--vocab", &words, "-f", "-o", &out];
    let args = [&own[..], &["--calibrate", &calibration, "--calibration-windows", "2", "--statistics", &named]].concat();
    let refused = |args: &[&str], code: i32| {
        let before = std::fs::read(&place).ok();
        let (seen, output) = run(&cache, args);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::read(&place).ok(), before, "it is as it was");
        seen["error"]["kind"].as_str().unwrap().to_owned()
    };
    let bytes = |seen: &Value| seen["record"]["output_sha256"].clone();
    let first = bytes(&good(&cache, &args).0);
    assert_eq!(first[0][0], "out.gguf", "the record names the file, not what it was while it was written");
    let whole = std::fs::read(&place).unwrap();
    // Ours and damaged: replaced.
    for damage in [whole[..whole.len() / 2].to_vec(), whole[..100].to_vec(), [&whole[..whole.len() - 4], &[0; 4]].concat()] {
        std::fs::write(&place, damage).unwrap();
        let (seen, errors) = good(&cache, &args);
        assert!(errors.contains("warning: ") && errors.contains("damaged"), "{errors}");
        assert_eq!((bytes(&seen), std::fs::read(&place).unwrap() == whole), (first.clone(), true));
    }
    // Ours, sound, and of something else: an error that names what.
    let other = passage(&dir, "other.txt", 30_000..34_000);
    let other = text(&other);
    let of_other = [&own[..], &["--calibrate", &other, "--calibration-windows", "2", "--statistics", &named]].concat();
    assert_eq!(refused(&of_other, 3), "OtherStatistics");
    // Importance alone is in statistics with Hessians too.
    let search = [&args[..], &["--quantizer", "search"]].concat();
    let (_, errors) = good(&cache, &search);
    assert!(!errors.contains("warning:"), "{errors}");
    assert_eq!(std::fs::read(&place).unwrap(), whole);
    // Somebody else's.
    for content in ["", "notes", "a longer file that somebody would miss, with numbers: 1234567890"] {
        std::fs::write(&place, content).unwrap();
        assert_eq!(refused(&args, 3), "BadStatistics");
    }
    std::fs::remove_file(&place).unwrap();
    let nowhere = text(&dir.join("no/such/directory"));
    let args = [&own[..], &["--calibrate", &calibration, "--calibration-windows", "2", "--statistics", &nowhere]].concat();
    assert_eq!(refused(&args, 4), "OutputDirectory");
}
