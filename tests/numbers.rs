//! Weights and logits that are no numbers, as users see them: an error by name and place, from every command.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, json};
use rwkv_forge_gguf::GgufFile;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Encoding, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, Options, Sizes, encode, random_model_with};
use serde_json::Value;

/// Tokens are bytes; the last one is in no text.
const SIZES: Sizes = Sizes { vocabulary: 256, ..Sizes::TINY };

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Writes a model that `change` has gone through.
fn model(dir: &Dir, name: &str, encoding: Encoding, change: impl Fn(&mut MemoryTensor)) -> PathBuf {
    let options = Options { encoding, value_in_layer_0: true, ..Options::default() };
    let mut tensors = random_model_with(Version::V7, &SIZES, &options, 3).into_tensors();
    tensors.iter_mut().for_each(change);
    let path = dir.join(name);
    std::fs::write(&path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    path
}

/// Puts a value into one tensor.
fn with(dir: &Dir, name: &str, encoding: Encoding, tensor: &str, element: usize, value: f32) -> PathBuf {
    let bytes = encode(encoding, &[value]);
    let changed = std::cell::Cell::new(false);
    let path = model(dir, name, encoding, |found| {
        if found.info.name == tensor {
            found.bytes[element * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
            changed.set(true);
        }
    });
    assert!(changed.get(), "there is no {tensor}");
    path
}

/// A command that reads the model at `path`.
fn command(dir: &Dir, name: &str, good: &Path, path: &Path) -> Vec<String> {
    let tokens = dir.join("tokens.json");
    std::fs::write(&tokens, "[1, 2, 3]").unwrap();
    std::fs::write(dir.join("text.txt"), "some words to read").unwrap();
    let out = dir.join(&format!("out-{}", dir.names().len()));
    let words = match name {
        "convert" => format!("convert MODEL --to safetensors --type f32 -o {} --vocab bytes", text(&out)),
        "verify" => format!("verify {} MODEL --vocab bytes", text(good)),
        "verify reversed" => format!("verify MODEL {} --vocab bytes", text(good)),
        "eval" => format!("eval MODEL --vocab bytes --no-cache --text {}", text(&dir.join("text.txt"))),
        "hashes" => "inspect --hashes MODEL".to_owned(),
        "generate" => "generate MODEL --vocab bytes --prompt ab -n 3".to_owned(),
        "generate by the reference" => "generate MODEL --vocab bytes --prompt ab -n 3 --kernel reference".to_owned(),
        "bench" => "bench MODEL --tokens 2 --repeat 1 --loads 1 --prompt 4 --read-mib 1".to_owned(),
        "logits" => format!("logits MODEL --tokens {} -o {}", text(&tokens), text(&out)),
        "logits by the engine" => format!("logits MODEL --tokens {} -o {} --kernel engine", text(&tokens), text(&out)),
        other => panic!("{other}"),
    };
    words.split(' ').map(|word| if word == "MODEL" { text(path) } else { word.to_owned() }).collect()
}

/// Commands that look at every value of a file.
const THOROUGH: [&str; 5] = ["convert", "verify", "verify reversed", "eval", "hashes"];

/// Commands that look at what they load.
const RUNNING: [&str; 5] = ["generate", "generate by the reference", "bench", "logits", "logits by the engine"];

/// Runs a command that must refuse; returns the message.
fn refused(dir: &Dir, name: &str, good: &Path, bad: &Path, kinds: &[&str]) -> String {
    let before = dir.names();
    let error = json(&command(dir, name, good, bad), 3)["error"].clone();
    let message = error["message"].as_str().unwrap().to_owned();
    assert!(kinds.contains(&error["kind"].as_str().unwrap()), "{name}: {error}");
    let outputs = |names: &[String]| names.iter().filter(|name| name.starts_with("out-")).count();
    assert_eq!(outputs(&before), outputs(&dir.names()), "{name} leaves nothing behind");
    message
}

/// What `inspect --lint` finds.
fn lints(path: &Path, code: i32) -> Vec<Value> {
    json(&["inspect", "--lint", &text(path)], code)["lints"].as_array().unwrap().clone()
}

#[test]
fn every_value_of_every_tensor_is_looked_at() {
    let dir = Dir::new();
    let good = model(&dir, "good.safetensors", Encoding::F32, |_| ());
    assert!(lints(&good, 0).iter().all(|lint| lint["id"] != "non-finite"));
    let (f32, f16, bf16) = (Encoding::F32, Encoding::F16, Encoding::BF16);
    let cases = [
        // A row that no text needs, a vector, a matrix, and what no layer of the model uses.
        (with(&dir, "row.safetensors", f32, "emb.weight", 255 * 32 + 5, f32::NAN), "emb.weight", "element 8165 (row 255, column 5)"),
        (with(&dir, "vector.safetensors", f32, "blocks.1.ln1.bias", 3, f32::NAN), "blocks.1.ln1.bias", "element 3:"),
        (
            with(&dir, "matrix.safetensors", bf16, "blocks.1.att.key.weight", 70, f32::INFINITY),
            "blocks.1.att.key.weight",
            "(row 2, column 6)",
        ),
        (with(&dir, "half.safetensors", f16, "blocks.0.ffn.value.weight", 0, f32::NEG_INFINITY), "blocks.0.ffn.value.weight", "element 0 "),
        (with(&dir, "unused.safetensors", f32, "blocks.0.att.v1", 1, f32::NAN), "blocks.0.att.v1", "element 1 "),
        // Finite as f64, and infinite wherever it is used.
        (
            model(&dir, "double.safetensors", Encoding::F64, |tensor| {
                if tensor.info.name == "head.weight" {
                    tensor.bytes[64..72].copy_from_slice(&1e300f64.to_le_bytes());
                }
            }),
            "head.weight",
            "element 8 ",
        ),
    ];
    for (bad, tensor, place) in &cases {
        for name in THOROUGH {
            let message = refused(&dir, name, &good, bad, &["NonFinite"]);
            let file = bad.file_name().unwrap().to_str().unwrap();
            assert!(message.contains(tensor) && message.contains(place) && message.contains(file), "{name}: {message}");
            assert!(message.contains("1 value(s)"), "{name}: {message}");
        }
        let found = lints(bad, 1);
        let lint = found.iter().find(|lint| lint["id"] == "non-finite").unwrap();
        assert!(lint["message"].as_str().unwrap().contains(tensor), "{lint}");
    }
    for (bad, tensor, _) in &cases[1..4] {
        for name in RUNNING {
            let message = refused(&dir, name, &good, bad, &["NonFinite"]);
            assert!(message.contains(tensor), "{name}: {message}");
        }
    }
    // What is neither loaded nor read stops nobody.
    for name in ["generate", "logits", "logits by the engine"] {
        json(&command(&dir, name, &good, &cases[0].0), 0);
    }
    for name in RUNNING {
        json(&command(&dir, name, &good, &cases[4].0), 0);
    }
    // But a row of the embedding that is read.
    let read = with(&dir, "read.safetensors", f32, "emb.weight", usize::from(b'b') * 32, f32::NAN);
    assert!(refused(&dir, "generate", &good, &read, &["NonFinite"]).contains("(row 98, column 0)"));
    let read = with(&dir, "token.safetensors", f32, "emb.weight", 2 * 32 + 31, f32::INFINITY);
    for name in ["logits", "logits by the engine"] {
        assert!(refused(&dir, name, &good, &read, &["NonFinite"]).contains("(row 2, column 31)"));
    }
    let all = model(&dir, "all.safetensors", f32, |tensor| {
        if tensor.info.name == "emb.weight" {
            tensor.bytes.chunks_exact_mut(32 * 4).for_each(|row| row[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
        }
    });
    assert!(refused(&dir, "bench", &good, &all, &["NonFinite"]).contains("emb.weight"));
}

#[test]
fn a_scale_that_is_no_number_spoils_its_block() {
    let dir = Dir::new();
    let source = model(&dir, "source.safetensors", Encoding::F32, |_| ());
    let (gguf, bin) = (dir.join("good.gguf"), dir.join("good.bin"));
    for (path, container) in [(&gguf, "gguf"), (&bin, "rwkv-cpp")] {
        json(&["convert", &text(&source), "--to", container, "--type", "q8_0", "-o", &text(path), "--vocab", "bytes"], 0);
    }
    let file = GgufFile::open(&gguf).unwrap();
    let name = "blk.1.channel_mix_key.weight";
    let index = file.tensors().iter().position(|info| info.name == name).unwrap();
    assert_eq!(file.tensors()[index].encoding.name, "q8_0");
    let offset = usize::try_from(file.header().offsets[index]).unwrap();
    // The data of a tensor of rwkv.cpp's files follow its name.
    let own = "blocks.1.ffn.key.weight";
    let bytes = std::fs::read(&bin).unwrap();
    let follows = bytes.windows(own.len()).position(|window| window == own.as_bytes()).unwrap() + own.len();
    for (path, offset, name) in [(&gguf, offset, name), (&bin, follows, own)] {
        for scale in [0x7e00u16, 0xfc00] {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[offset..offset + 2].copy_from_slice(&scale.to_le_bytes());
            let bad = dir.join(if path == &gguf { "bad.gguf" } else { "bad.bin" });
            std::fs::write(&bad, bytes).unwrap();
            for command in THOROUGH.into_iter().chain(RUNNING) {
                let message = refused(&dir, command, &source, &bad, &["NonFinite", "BadBlock"]);
                assert!(message.contains(name), "{command}: {message}");
            }
            assert!(lints(&bad, 1).iter().any(|lint| lint["id"] == "non-finite" && lint["message"].as_str().unwrap().contains(name)));
        }
    }
}

#[test]
fn logits_that_overflow_are_refused_with_their_position() {
    let dir = Dir::new();
    let good = model(&dir, "good.safetensors", Encoding::F32, |_| ());
    let bad = model(&dir, "overflow.safetensors", Encoding::F32, |tensor| {
        if ["head.weight", "ln_out.weight"].contains(&tensor.info.name.as_str()) {
            for value in tensor.bytes.as_chunks_mut::<4>().0 {
                // Finite: the products are not.
                *value = (f32::from_le_bytes(*value) * 1e30).to_le_bytes();
            }
        }
    });
    for name in RUNNING {
        let message = refused(&dir, name, &good, &bad, &["NonFinite"]);
        assert!(message.contains("position") && (message.contains("token") || message.contains("element")), "{name}: {message}");
    }
    for name in ["convert", "verify", "verify reversed", "eval"] {
        refused(&dir, name, &good, &bad, &["NonFinite"]);
    }
    // The file itself is sound.
    json(&command(&dir, "hashes", &good, &bad), 0);
    assert!(lints(&bad, 0).iter().all(|lint| lint["id"] != "non-finite"));
}
