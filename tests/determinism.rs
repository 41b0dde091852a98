//! Same input, same recipe: same bytes.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Dir, checkpoint, convert_args, json, sha256};

#[test]
fn the_number_of_threads_does_not_matter() {
    let dir = Dir::new();
    for (version, container, encoding) in [("7", "gguf", "q4_0"), ("6", "gguf", "q8_0"), ("4", "safetensors", "f16")] {
        let digests: Vec<String> = ["1", "2", "7"]
            .iter()
            .map(|threads| {
                let output = dir.join(&format!("{version}-{threads}"));
                let mut args = convert_args(checkpoint(version), container, encoding, &output);
                args.extend(["--threads".to_owned(), (*threads).to_owned()]);
                json(&args, 0);
                sha256(&output)
            })
            .collect();
        assert_eq!(digests[0], digests[1], "RWKV-{version} {container} {encoding}: 1 and 2 threads");
        assert_eq!(digests[0], digests[2], "RWKV-{version} {container} {encoding}: 1 and 7 threads");
    }
}

#[test]
fn neither_the_clock_nor_the_place_nor_the_way_of_reading_matters() {
    let dir = Dir::new();
    let elsewhere = dir.join("else where");
    std::fs::create_dir(&elsewhere).unwrap();
    let copy = elsewhere.join("tiny-rwkv7.pth");
    std::fs::copy(checkpoint("7"), &copy).unwrap();
    let (first, second) = (dir.join("first.gguf"), elsewhere.join("second.gguf"));
    json(&convert_args(checkpoint("7"), "gguf", "q5_1", &first), 0);
    let mut args = convert_args(&copy, "gguf", "q5_1", &second);
    args.push("--mmap".to_owned());
    json(&args, 0);
    assert_eq!(sha256(&first), sha256(&second));
}

#[test]
fn the_source_container_does_not_matter_to_the_tensors() {
    let dir = Dir::new();
    let (plain, direct, indirect) = (dir.join("plain.safetensors"), dir.join("direct.gguf"), dir.join("indirect.gguf"));
    json(&convert_args(checkpoint("6"), "safetensors", "bf16", &plain), 0);
    let from_pth = json(&convert_args(checkpoint("6"), "gguf", "q4_1", &direct), 0);
    let from_safetensors = json(&convert_args(&plain, "gguf", "q4_1", &indirect), 0);
    assert_eq!(from_pth["record"]["agreement"]["kl"], from_safetensors["record"]["agreement"]["kl"]);
    let data = |path: &std::path::Path, record: &serde_json::Value| {
        let start = record["tensors"][0]["offset"].as_u64().unwrap();
        std::fs::read(path).unwrap().split_off(usize::try_from(start).unwrap())
    };
    assert_eq!(data(&direct, &from_pth), data(&indirect, &from_safetensors));
}
