//! Hostile and broken input through the built binary: the error's kind, the exit code, and nothing left behind. The readers' own
//! tests (in their crates) go through every case of the list; here it is shown that the program reports them.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Dir, checkpoint, error_kind, forge, json, run};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, Sizes, random_model};

/// Converts `bytes`, stored under `name`, and returns the kind of the refusal (exit code 3).
fn refusal(dir: &Dir, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    let before = dir.names();
    let output = dir.join("out.safetensors");
    let args = ["convert", path.to_str().unwrap(), "--to", "safetensors", "--type", "f32", "-o", output.to_str().unwrap()];
    let kind = error_kind(&args, 3);
    assert_eq!(dir.names(), before, "{kind}: nothing is left behind");
    kind
}

#[test]
fn z1_z3_files_that_are_no_checkpoints_are_named_for_what_they_are() {
    let dir = Dir::new();
    for (name, bytes) in [
        ("empty.pth", &b""[..]),
        ("three.pth", b"abc"),
        ("ff.pth", &[0xff; 1 << 20]),
        ("x.gz.pth", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abcdefgh"),
        ("page.pth", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"),
    ] {
        assert_eq!(refusal(&dir, name, bytes), "NotACheckpoint", "{name}");
    }
}

#[test]
fn z4_z5_z6_cut_and_glued_archives() {
    let dir = Dir::new();
    let good = std::fs::read(checkpoint("7")).unwrap();
    assert_eq!(refusal(&dir, "cut.pth", &good[..good.len() - 1000]), "Truncated");
    assert_eq!(refusal(&dir, "half.pth", &good[..good.len() / 2]), "Truncated");
    let prefixed = [&b"#!/bin/sh\n"[..], &good].concat();
    assert_eq!(refusal(&dir, "prefixed.pth", &prefixed), "PrefixData");
    let trailing = [&good[..], b"more"].concat();
    assert_eq!(refusal(&dir, "trailing.pth", &trailing), "TrailingData");
}

#[test]
fn z16_a_flipped_bit_in_the_weights_is_found() {
    let dir = Dir::new();
    let mut bytes = std::fs::read(checkpoint("7")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert_eq!(refusal(&dir, "flipped.pth", &bytes), "Crc");
}

#[test]
fn t8_values_that_are_no_numbers_are_named_and_counted() {
    let dir = Dir::new();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let tensors: Vec<MemoryTensor> = random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 3)
            .into_tensors()
            .into_iter()
            .map(|mut tensor| {
                if tensor.info.name == "blocks.1.att.key.weight" {
                    tensor.bytes[40..44].copy_from_slice(&bad.to_le_bytes());
                    tensor.bytes[400..404].copy_from_slice(&bad.to_le_bytes());
                }
                tensor
            })
            .collect();
        let path = dir.join("bad.safetensors");
        std::fs::write(&path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
        let output = dir.join("out");
        for encoding in ["f32", "f16"] {
            let args = ["convert", path.to_str().unwrap(), "--to", "safetensors", "--type", encoding, "-o", output.to_str().unwrap()];
            let error = json(&args, 3)["error"].clone();
            assert_eq!(error["kind"], "NonFinite");
            let message = error["message"].as_str().unwrap();
            assert!(
                message.contains("blocks.1.att.key.weight") && message.contains("2 value(s)") && message.contains("element 10"),
                "{message}"
            );
        }
    }
}

#[test]
fn w15_what_f16_cannot_hold_is_never_infinity() {
    let dir = Dir::new();
    let tensors: Vec<MemoryTensor> = random_model(rwkv_forge_model::Version::V6, &Sizes::TINY, 3)
        .into_tensors()
        .into_iter()
        .map(|mut tensor| {
            if tensor.info.name == "blocks.0.ffn.key.weight" {
                tensor.bytes[0..4].copy_from_slice(&1e5f32.to_le_bytes());
            }
            tensor
        })
        .collect();
    let path = dir.join("large.safetensors");
    std::fs::write(&path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    let output = dir.join("out");
    let mut args = vec!["convert", path.to_str().unwrap(), "--to", "safetensors", "--type", "f16", "-o", output.to_str().unwrap()];
    let error = json(&args, 3)["error"].clone();
    assert_eq!(error["kind"], "Overflow");
    assert!(error["message"].as_str().unwrap().contains("--set"), "{error}");
    args.extend(["--set", "^blocks\\.0\\.ffn\\.key\\.weight$=f32"]);
    json(&args, 0);
}

#[test]
fn m1_m2_m3_models_that_are_not_whole() {
    let dir = Dir::new();
    let model = || random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 5).into_tensors();
    let file = |tensors: Vec<MemoryTensor>| MemorySource::from_tensors(tensors).to_safetensors();
    let missing = model().into_iter().filter(|tensor| tensor.info.name != "blocks.1.ffn.value.weight").collect();
    assert_eq!(refusal(&dir, "missing.safetensors", &file(missing)), "MissingTensor");
    let mut extra = model();
    let mut copy = extra[0].clone();
    copy.info.name = "blocks.0.att.mystery".to_owned();
    extra.push(copy);
    assert_eq!(refusal(&dir, "extra.safetensors", &file(extra)), "UnknownTensor");
    let mut bent = model();
    let tensor = bent.iter_mut().find(|tensor| tensor.info.name == "blocks.1.att.key.weight").unwrap();
    tensor.info.shape = vec![tensor.info.shape[0] / 2, tensor.info.shape[1] * 2];
    assert_eq!(refusal(&dir, "bent.safetensors", &file(bent)), "ShapeMismatch");
}

#[test]
fn s1_and_g1_headers_of_nonsense() {
    let dir = Dir::new();
    assert_eq!(refusal(&dir, "s.safetensors", &[&100u64.to_le_bytes()[..], b"{\"a\":"].concat()), "BadHeader");
    assert_eq!(refusal(&dir, "g.gguf", b"GGUF\x01\x00\x00\x00"), "UnsupportedVersion");
    let huge = [&b"GGUF\x03\x00\x00\x00"[..], &u64::MAX.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    assert_eq!(refusal(&dir, "huge.gguf", &huge), "CountTooLarge");
}

#[test]
fn f1_things_that_are_no_files() {
    let dir = Dir::new();
    let fifo = dir.join("fifo.pth");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Nobody writes to it: waiting for a writer would never end.
    assert_eq!(error_kind(&["inspect", fifo.to_str().unwrap()], 4), "NotARegularFile");
    assert_eq!(error_kind(&["inspect", "/dev/zero"], 4), "NotARegularFile");
    assert_eq!(error_kind(&["inspect", dir.join("none.pth").to_str().unwrap()], 4), "NotFound");
    let dangling = dir.join("dangling.pth");
    std::os::unix::fs::symlink(dir.join("nowhere"), &dangling).unwrap();
    assert_eq!(error_kind(&["inspect", dangling.to_str().unwrap()], 4), "NotFound");
    let result = run(&["inspect", dir.path().to_str().unwrap()]);
    assert!(matches!(result.status.code(), Some(3 | 4)), "a directory without safetensors files");
}

#[test]
fn f2_a_source_that_changes_while_it_is_converted() {
    let dir = Dir::new();
    let source = dir.join("model.pth");
    std::fs::copy(checkpoint("7"), &source).unwrap();
    let output = dir.join("out.gguf");
    let mut args = support::convert_args(&source, "gguf", "q8_0", &output);
    args.extend(["--probe-tokens".to_owned(), "100000".to_owned(), "--text".to_owned()]);
    args.push(support::fixture("text/public-domain-100k.txt").to_str().unwrap().to_owned());
    let mut child = forge().args(&args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // As soon as the temporary exists the file is open; its weights are read again for the comparison.
    let started = Instant::now();
    while dir.names().len() < 2 && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    touch_one_byte(&source);
    let status = child.wait().unwrap();
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("InputChanged"), "{stderr}");
    assert_eq!(dir.names(), ["model.pth"]);
}

fn touch_one_byte(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 5000).unwrap();
}

#[test]
fn errors_name_the_file_and_say_what_to_do() {
    let dir = Dir::new();
    let path = dir.join("page.pth");
    std::fs::write(&path, "<html>not found</html>").unwrap();
    let result = run(&["inspect", path.to_str().unwrap()]);
    let stderr = String::from_utf8(result.stderr).unwrap();
    assert!(result.stdout.is_empty(), "errors go to stderr");
    assert!(stderr.starts_with("error[NotACheckpoint]: "), "{stderr}");
    assert!(stderr.contains("page.pth"), "{stderr}");
    let source = random_model(rwkv_forge_model::Version::V4, &Sizes::TINY, 1);
    assert!(source.tensors().len() > 10, "the generator makes models");
}
