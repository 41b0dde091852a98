//! `forms` and `verify --against-parallel`, as users and continuous integration see them.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::path::Path;

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, run, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid};
use rwkv_forge_testkit::models::{Sizes, random_model};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `forms --quick` on one sequence of 24 tokens.
fn quick(model: &Path) -> Vec<String> {
    ["forms", &text(model), "--quick", "--tokens", "24"].map(str::to_owned).to_vec()
}

/// An RWKV-7 model that fits in f64, and overflows in f32 in layer 1.
fn overflowing(dir: &Dir) -> std::path::PathBuf {
    let mut tensors = random_model(Version::V7, &Sizes::TINY, 5).into_tensors();
    let huge = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.1.ffn.value.weight").unwrap();
    for value in huge.bytes.as_chunks_mut::<4>().0.iter_mut().take(48) {
        *value = 3e38f32.to_le_bytes();
    }
    let path = dir.join("huge.safetensors");
    std::fs::write(&path, rwkv_forge_testkit::models::MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    path
}

#[test]
fn the_forms_of_every_trained_version_agree() {
    for (version, name) in [("4", "RWKV-4"), ("5", "RWKV-5.2"), ("6", "RWKV-6"), ("7", "RWKV-7")] {
        let mut args = quick(checkpoint(version));
        args.extend(["--vocab".to_owned(), text(vocab())]);
        let seen = json(&args, 0);
        assert_eq!((seen["version"].as_str(), seen["agrees"].as_bool(), seen["beyond"].as_u64()), (Some(name), Some(true), Some(0)));
        assert_eq!(seen["lengths"], serde_json::json!([1, 17, 24]), "a sequence of 64 is cut to the tokens asked for");
        let worst = seen["worst"].as_array().unwrap();
        for (tier, bound) in [("f64", 1e-10), ("f32", 3.2e-4)] {
            let rows: Vec<_> = worst.iter().filter(|row| row["case"]["tier"] == tier).collect();
            assert!(rows.iter().any(|row| row["quantity"] == "logits") && rows.iter().any(|row| row["quantity"] == "output"));
            assert!(rows.iter().all(|row| row["measure"]["ratio"].as_f64().unwrap() < bound), "{version} {tier}");
        }
    }
}

#[test]
fn quantized_files_have_both_forms() {
    let dir = Dir::new();
    for (version, container, encoding) in [("7", "gguf", "q4_0"), ("6", "gguf", "q8_0"), ("4", "rwkv-cpp", "q5_1")] {
        let output = dir.join(&format!("{version}.out"));
        json(&convert_args(checkpoint(version), container, encoding, &output), 0);
        let mut args = quick(&output);
        args.extend(["--tier", "f64"].map(str::to_owned));
        assert_eq!(json(&args, 0)["agrees"], true, "{version} {container} {encoding}");
    }
}

#[test]
fn a_difference_is_reported_in_every_form_and_exits_with_1() {
    let dir = Dir::new();
    let model = overflowing(&dir);
    let junit = dir.join("forms.xml");
    let mut args = quick(&model);
    args.extend(["--junit".to_owned(), text(&junit)]);
    let seen = json(&args, 1);
    let first = seen["first_beyond"].as_array().unwrap();
    assert!(first.iter().all(|finding| finding["case"]["tier"] == "f32"), "f64 can hold these values");
    for finding in first {
        assert_eq!(
            (finding["layer"].as_u64(), finding["quantity"].as_str(), finding["position"].as_u64()),
            (Some(1), Some("output"), Some(0))
        );
        assert_eq!(finding["measure"]["non_finite"]["element"], 0);
    }
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("<failure") && xml.contains("forms.f32.parallel.zero") && xml.contains("NaN or infinite"), "{xml}");
    assert!(!xml.split("<testcase").any(|case| case.contains("forms.f64") && case.contains("<failure")));
    args.push("--quiet".to_owned());
    assert_eq!(run(&args).status.code(), Some(2), "the file is there already");
    args.push("--force".to_owned());

    // People read a table and a sentence; a workflow also gets annotations.
    let plain = forge().args(&args).env_remove("GITHUB_ACTIONS").output().unwrap();
    let plain_text = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(plain.status.code(), Some(1));
    assert!(
        plain_text.contains("| f32") && plain_text.contains("not met: parallel form in f32: layer 1, position 0, output"),
        "{plain_text}"
    );
    assert!(!plain_text.contains("::error"), "{plain_text}");
    let in_workflow = forge().args(&args).env("GITHUB_ACTIONS", "true").output().unwrap();
    let text = String::from_utf8(in_workflow.stdout).unwrap();
    let annotations: Vec<&str> = text.lines().filter(|line| line.starts_with("::error file=")).collect();
    assert_eq!(annotations.len(), 2, "the recurrent and the parallel form in f32: {text}");
    let with_json = forge().args(&args).args(["--json", "--github"]).env_remove("GITHUB_ACTIONS").output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&with_json.stdout).is_ok(), "the document stays a document");
    assert_eq!(String::from_utf8(with_json.stderr).unwrap().matches("::error file=").count(), 2);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let dir = Dir::new();
    let folder = dir.join("hybrid");
    std::fs::create_dir_all(&folder).unwrap();
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let hybrid = random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21);
    std::fs::write(folder.join("model.safetensors"), hybrid.to_safetensors()).unwrap();
    let config = serde_json::to_vec(&config_json(Version::ARwkv7, &sizes, &Variant::FULL)).unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
    let refused = json(&quick(&folder), 3);
    assert_eq!(refused["error"]["kind"], "UnsupportedVersion");
    assert!(refused["error"]["message"].as_str().unwrap().contains("ARWKV"), "{refused}");
    let against = ["verify".to_owned(), text(&folder), text(&folder), "--against-parallel".to_owned()];
    assert_eq!(error_kind(&against, 3), "UnsupportedVersion");

    let model = text(checkpoint("7"));
    for wrong in [["--lengths", "0"], ["--chunk", "1,,2"], ["--tier", "f16"], ["--tokens", "0"]] {
        assert_eq!(run(&[&["forms", model.as_str()], &wrong[..]].concat()).status.code(), Some(2), "{wrong:?}");
    }
    // Nothing may take the model's place.
    let copy = dir.join("model.pth");
    std::fs::copy(checkpoint("7"), &copy).unwrap();
    let mut args = quick(&copy);
    args.extend(["--junit".to_owned(), text(&copy), "--force".to_owned()]);
    assert_ne!(run(&args).status.code(), Some(0));
    assert_eq!(support::sha256(&copy), support::sha256(checkpoint("7")));
}

#[test]
fn a_converted_file_is_held_against_the_parallel_form() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &output), 0);
    let verify = |candidate: &Path, extra: &[&str], code: i32| {
        let base = ["verify".to_owned(), text(checkpoint("7")), text(candidate), "--vocab".to_owned(), text(vocab())];
        let args: Vec<String> = base.into_iter().chain(extra.iter().map(|arg| (*arg).to_owned())).collect();
        json(&args, code)
    };
    let usual = verify(&output, &[], 0);
    let parallel = verify(&output, &["--against-parallel"], 0);
    assert_eq!((usual["reference_form"].as_str(), parallel["reference_form"].as_str()), (Some("recurrent"), Some("parallel")));
    let kl = |seen: &serde_json::Value| seen["agreement"]["kl"]["mean"].as_f64().unwrap();
    // Rounding moves logits by some 1e-6; quantizing to eight bits moves them by 1e-2, which KL sees squared.
    assert!((kl(&usual) / kl(&parallel) - 1.0).abs() < 1e-2, "{} {}", kl(&usual), kl(&parallel));
    // The two forms of one file differ, and by rounding only.
    let same = verify(checkpoint("7"), &["--against-parallel"], 0);
    assert_eq!(same["agreement"]["identical"], false);
    let ratio = same["agreement"]["rms_ratio"].as_f64().unwrap();
    assert!(ratio > 0.0 && ratio < 1e-5, "{ratio}");
    assert_eq!(same["agreement"]["layers"].as_array().unwrap().len(), 3);
    verify(&output, &["--against-parallel", "--max-kl", "1e-12"], 1);
}
