//! GGUF in parts through the program: written together or not at all, read by any part, the same model for every command.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, npy, sha256, vocab};

/// Arguments of a conversion to parts of so many bytes.
fn split_args(output: &Path, size: &str) -> Vec<String> {
    let mut args = convert_args(checkpoint("7"), "gguf", "q8_0", output);
    args.extend(["--split-size", size].map(str::to_owned));
    args
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn parts(dir: &Dir, stem: &str) -> Vec<PathBuf> {
    let names = dir.names();
    let names = names.into_iter().filter(|name| name.starts_with(&format!("{stem}-0")) && name.ends_with(".gguf"));
    names.map(|name| dir.join(&name)).collect()
}

#[test]
fn parts_are_written_named_and_recorded() {
    let dir = Dir::new();
    let record = dir.join("record.json");
    let args = [split_args(&dir.join("m.gguf"), "300K"), vec!["--record".to_owned(), text(&record).to_owned()]].concat();
    let dry = json(&[args.clone(), vec!["--dry-run".to_owned()]].concat(), 0);
    assert_eq!(dir.names(), Vec::<String>::new());
    let output = forge().args(&args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stderr}");
    let files = parts(&dir, "m");
    assert!(files.len() > 2, "{files:?}");
    assert_eq!(dir.names().len(), files.len() + 1, "parts, the record, and nothing else: {:?}", dir.names());
    // Everything that names the output names all of it.
    let wrote = stdout.lines().find(|line| line.starts_with("wrote ")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    for (index, path) in files.iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("m-{:05}-of-{:05}.gguf", index + 1, files.len()));
        assert!(wrote.contains(name), "{wrote}");
        assert_eq!(record["outputs"][index], text(path));
        assert_eq!(dry["outputs"][index], text(path));
        assert_eq!(record["record"]["output_sha256"][index], serde_json::json!([name, sha256(path)]));
    }
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!((record["record"]["output_bytes"].as_u64(), dry["total_bytes"].as_u64()), (Some(bytes), Some(bytes)));
    // The measured values stand in the first part, which any part leads to.
    let inspected = json(&["inspect", text(&files[1])], 0);
    assert_eq!(inspected["metadata"]["rwkv_forge.verify.status"], "verified");
    assert_eq!(inspected["part"], serde_json::json!({ "number": 2, "count": files.len() }));
    let shown = String::from_utf8(forge().args(["inspect", text(&files[1])]).output().unwrap().stdout).unwrap();
    assert!(shown.contains(&format!("GGUF v3 (split), part 2 of {},", files.len())), "{shown}");
}

#[test]
fn parts_are_the_model_of_the_whole_file_for_every_command() {
    let dir = Dir::new();
    let whole = dir.join("w.gguf");
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &whole), 0);
    json(&split_args(&dir.join("m.gguf"), "256K"), 0);
    let files = parts(&dir, "m");
    let last = files.last().unwrap();
    let hashes = |path: &Path| json(&["inspect", "--hashes", text(path)], 0)["tensors"].clone();
    assert_eq!(hashes(&whole), hashes(last), "every tensor, byte for byte");
    let lints = |path: &Path| json(&["inspect", "--lint", text(path)], 0)["lints"].clone();
    assert_eq!(lints(&whole), lints(last));
    for part in &files {
        let verified = json(&["verify", text(&whole), text(part), "--probe-tokens", "16"], 0);
        assert_eq!(verified["agreement"]["identical"], true, "{verified}");
    }
    let generated = |path: &Path| forge().args(["generate", text(path), "-n", "8", "-p", "the "]).output().unwrap().stdout;
    assert_eq!(generated(&whole), generated(last));
    let rows = |path: &Path, name: &str| {
        let (words, output) = (dir.join("words.txt"), dir.join(name));
        std::fs::write(&words, "a few words").unwrap();
        json(&["logits", text(path), "--text", text(&words), "-o", text(&output)], 0);
        npy(&output)
    };
    assert_eq!(rows(&whole, "w.npy"), rows(last, "m.npy"));
    let loss = |path: &Path| {
        let document = json(&["eval", text(path), "--text", text(&dir.join("words.txt"))], 0);
        document["models"][0]["nll"].clone()
    };
    assert_eq!(loss(&whole), loss(last));
    // Back into one file: the very file that was never cut. The digest of the source is another one.
    let back = dir.join("back.gguf");
    json(&["convert", text(&files[0]), "--to", "gguf", "--type", "q8_0", "-o", text(&back)], 0);
    assert_eq!(hashes(&whole), hashes(&back));
    let keys = |path: &Path| json(&["inspect", text(path)], 0)["metadata"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&whole), keys(&back), "nothing of the parts is left");
}

/// What Git leaves of a part that was not downloaded.
#[test]
fn a_pointer_in_place_of_another_part_is_called_one() {
    let dir = Dir::new();
    json(&split_args(&dir.join("m.gguf"), "300K"), 0);
    let files = parts(&dir, "m");
    std::fs::write(&files[1], "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n").unwrap();
    for named in [&files[0], &files[1], &files[2]] {
        let said = json(&["inspect", text(named)], 3);
        assert!(said["error"]["message"].as_str().unwrap().contains("git lfs pull"), "{said}");
    }
    assert_eq!(error_kind(&["inspect", text(&files[0])], 3), "LfsPointer");
}

#[test]
fn a_part_that_exists_is_a_refusal_and_nothing_is_left() {
    let dir = Dir::new();
    json(&split_args(&dir.join("m.gguf"), "300K"), 0);
    let files = parts(&dir, "m");
    let digests: Vec<String> = files.iter().map(|path| sha256(path)).collect();
    for keep in &files {
        for other in files.iter().filter(|other| *other != keep) {
            std::fs::remove_file(other).unwrap();
        }
        assert_eq!(error_kind(&split_args(&dir.join("m.gguf"), "300K"), 2), "OutputExists", "{keep:?}");
        assert_eq!(parts(&dir, "m"), std::slice::from_ref(keep));
        assert_eq!(dir.names().len(), 1, "{:?}", dir.names());
        // The way out that the refusal names.
        json(&[split_args(&dir.join("m.gguf"), "300K"), vec!["--force".to_owned()]].concat(), 0);
        assert_eq!(files.iter().map(|path| sha256(path)).collect::<Vec<_>>(), digests, "the same bytes again");
        assert_eq!(dir.names().len(), files.len());
    }
    // Parts that are the source are not replaced by what is made of them.
    let output = dir.join("m.gguf");
    let args = ["convert", text(&files[0]), "--to", "gguf", "--type", "q8_0", "--split-size", "300K", "--force", "-o", text(&output)];
    assert_eq!(error_kind(&args, 2), "OutputIsInput");
}

#[test]
fn a_conversion_that_is_not_kept_leaves_no_part() {
    let dir = Dir::new();
    let args = [split_args(&dir.join("m.gguf"), "300K"), vec!["--max-kl".to_owned(), "0".to_owned()]].concat();
    assert_eq!(error_kind(&args, 1), "ThresholdNotMet");
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn sizes_and_containers_that_cannot_be_are_refused_by_name() {
    let dir = Dir::new();
    let mut args = convert_args(checkpoint("7"), "hf", "f16", &dir.join("m"));
    args.extend(["--split-size", "1M"].map(str::to_owned));
    let output = forge().args(&args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("leave --split-size out, which is for gguf"), "{stderr}");
    assert_eq!(error_kind(&args, 2), "NotInParts");
    args.truncate(args.len() - 2);
    json(&args, 0);
    // A tensor that is larger stands alone, and that is said.
    let output = forge().args(split_args(&dir.join("t.gguf"), "20K")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains("token_embd.weight has 43,520 bytes, more than --split-size"), "{stderr}");
    // A file that fits is one part, by the name of one.
    json(&split_args(&dir.join("one.gguf"), "1G"), 0);
    assert_eq!(parts(&dir, "one"), [dir.join("one-00001-of-00001.gguf")]);
    json(&["verify", text(&parts(&dir, "one")[0]), text(&parts(&dir, "t")[2]), "--probe-tokens", "8"], 0);
}

#[test]
fn names_of_outputs_and_models_do_without_the_number_of_a_part() {
    let dir = Dir::new();
    json(&split_args(&dir.join("my-model.gguf"), "300K"), 0);
    let source = parts(&dir, "my-model")[0].clone();
    json(&["convert", text(&source), "--to", "gguf", "--type", "q4_0", "--requantize", "--vocab", text(vocab())], 0);
    assert!(dir.join("my-model-q4_0.gguf").exists(), "{:?}", dir.names());
}
