//! `bench` and `inspect --memory` through the binary.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::ffi::OsString;
use std::path::Path;

use crate::support::{Dir, checkpoint, error_kind, json};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{Sizes, random_model};

const QUICK: &str = "--tokens 4 --repeat 2 --loads 1 --read-mib 4 --threads 2";

fn args(models: &[&Path], more: &str) -> Vec<OsString> {
    let models = models.iter().map(|path| path.as_os_str().to_owned());
    [OsString::from("bench")].into_iter().chain(models).chain(more.split_whitespace().map(OsString::from)).collect()
}

#[test]
fn several_models_in_one_document() {
    let dir = Dir::new();
    let files = ["out.csv", "out.md", "out.svg"].map(|name| dir.join(name));
    let mut args = args(&[checkpoint("4"), checkpoint("7")], &format!("{QUICK} --compare --prompt 3,5"));
    for (option, file) in ["--csv", "--markdown", "--svg"].into_iter().zip(&files) {
        args.extend([option.into(), file.into()]);
    }
    let report = json(&args, 0);
    assert_eq!(report["models"].as_array().unwrap().len(), 2);
    for (model, version) in report["models"].as_array().unwrap().iter().zip(["RWKV-4", "RWKV-7"]) {
        assert_eq!(model["version"], version);
        assert!(model["decode"]["tokens_per_second"]["median"].as_f64().unwrap() > 0.0);
        assert_eq!(model["prompt"][1]["tokens"], 5);
        assert_eq!(model["threads"], 2);
    }
    assert_eq!(report["settings"]["tokens"], 4);
    let [csv, markdown, svg] = files.each_ref().map(|file| std::fs::read_to_string(file).unwrap());
    assert_eq!(csv.lines().count(), 3);
    assert!(markdown.contains("tiny-rwkv7.pth") && svg.starts_with("<svg"), "{markdown}");
    assert_eq!(error_kind(&args, 2), "OutputExists", "results are not overwritten unasked");
}

#[test]
fn wrong_usage_says_what_there_is() {
    let model = checkpoint("7");
    assert_eq!(error_kind(&args(&[model], &format!("{QUICK} --isa sse9")), 2), "UnknownIsa");
    assert_eq!(support::run(&args(&[model], "--form int4")).status.code(), Some(2));
    assert_eq!(support::run(&args(&[model], "--threads 2 --scaling 1,2")).status.code(), Some(2));
    assert_eq!(support::run(&["bench"]).status.code(), Some(2));
}

#[test]
fn memory_is_known_before_loading() {
    let dir = Dir::new();
    let file = dir.join("model.safetensors");
    let sizes = Sizes { layers: 4, channels: 768, head_size: 64, ffn: 3072, vocabulary: 500, ..Sizes::TINY };
    std::fs::write(&file, random_model(Version::V7, &sizes, 3).to_safetensors()).unwrap();
    let predicted = json(&["inspect", "--memory", "--threads", "2", file.to_str().unwrap()], 0)["engine_memory"].clone();
    let report = json(&args(&[&file], "--tokens 4 --repeat 1 --loads 1 --read-mib 1 --threads 2 --prompt 0"), 0);
    assert_eq!(report["models"][0]["memory"]["predicted"], predicted);
    let sum: u64 = ["weights", "state", "scratch"].iter().map(|part| predicted[part].as_u64().unwrap()).sum();
    assert!(sum > 80_000_000, "too small a model to tell: {sum}");
    if let Some(resident) = report["process_resident_bytes"].as_u64() {
        // 20 MB are the program itself; 5 % are pages that are in use in part.
        let limit = sum + sum / 20 + 20_000_000;
        assert!(resident < limit && resident > sum, "{resident} bytes are resident, expected {sum} to {limit}");
    }
}
