//! Directories for Transformers' own RWKV-7 through the program: written, read back, converted back, and what they say of themselves.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, sha256};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, Sizes, random_model};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let dir = Dir::new();
    // The tiny models are trained in bf16; f32 holds that too.
    for encoding in ["bf16", "f32"] {
        let (native, back, direct) = (dir.join(&format!("{encoding}.n")), dir.join("back.pth"), dir.join("direct.pth"));
        let record = json(&convert_args(checkpoint("7"), "hf-native", encoding, &native), 0);
        assert_eq!(record["record"]["agreement"]["identical"], true);
        assert_eq!(record["record"]["lossless"], true);
        json(&[convert_args(&native, "pth", encoding, &back), vec!["--force".to_owned()]].concat(), 0);
        json(&[convert_args(checkpoint("7"), "pth", encoding, &direct), vec!["--force".to_owned()]].concat(), 0);
        let hashes = |path: &Path| json(&["inspect", "--hashes", text(path)], 0)["tensors"].clone();
        assert_eq!(hashes(&back), hashes(&direct), "{encoding}");
    }
}

#[test]
fn provenance_says_what_can_be_checked() {
    let dir = Dir::new();
    for (name, more) in [("verified", vec![]), ("skipped", vec!["--no-verify".to_owned()])] {
        let output = dir.join(name);
        let args = [convert_args(checkpoint("7"), "hf-native", "bf16", &output), more].concat();
        let record = json(&args, 0);
        let page = std::fs::read_to_string(output.join("PROVENANCE.md")).unwrap();
        assert!(page.contains(&format!("{}  tiny-rwkv7.pth\n", sha256(checkpoint("7")))), "{page}");
        assert!(page.contains(&format!("{}  model.safetensors\n", sha256(&output.join("model.safetensors")))), "{page}");
        assert!(page.contains("holds the values of the source: yes  "), "{page}");
        assert!(page.contains(&format!("compared with those of the source: {name}")), "{page}");
        assert!(page.contains("source revision: not known"), "{page}");
        assert_eq!(record["outputs"], serde_json::json!([text(&output)]));
    }
    let output = dir.join("rounded");
    json(&[convert_args(checkpoint("7"), "hf-native", "f16", &output), vec!["--allow-f16-loss".to_owned()]].concat(), 0);
    let page = std::fs::read_to_string(output.join("PROVENANCE.md")).unwrap();
    assert!(page.contains("holds the values of the source: no, some were rounded"), "{page}");
    // From the cache of the Hub, whose paths say what was published where.
    let revision = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = dir.join(&format!("models--org--name/snapshots/{revision}"));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::copy(checkpoint("7"), snapshot.join("m.pth")).unwrap();
    let output = dir.join("published");
    json(&convert_args(&snapshot.join("m.pth"), "hf-native", "bf16", &output), 0);
    let page = std::fs::read_to_string(output.join("PROVENANCE.md")).unwrap();
    assert!(page.contains(&format!("source revision: `org/name@{revision}`")), "{page}");
}

#[test]
fn the_directory_has_the_published_files_and_is_replaced_as_one() {
    let dir = Dir::new();
    let output = dir.join("m");
    let args = convert_args(checkpoint("7"), "hf-native", "bf16", &output);
    json(&args, 0);
    let names: Vec<String> = {
        let mut names: Vec<String> =
            std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // The tiny vocabulary is not World's, so there is no file of it.
    let expected = [
        "PROVENANCE.md",
        "chat_template.jinja",
        "config.json",
        "fake_think_generation_config.json",
        "generation_config.json",
        "model.safetensors",
        "rwkv-forge-files.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "tools_generation_config.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(error_kind(&args, 2), "OutputExists");
    json(&[args, vec!["--force".to_owned()]].concat(), 0);
}

#[test]
fn a_template_and_special_ids_of_the_source_go_over_and_come_back() {
    let dir = Dir::new();
    let (gguf, native, back, template) = (dir.join("a.gguf"), dir.join("n"), dir.join("b.gguf"), dir.join("t.jinja"));
    std::fs::write(&template, "{{ messages[0]['content'] }} rwkv-world").unwrap();
    let said = ["--chat", text(&template), "--meta", "tokenizer.ggml.eos_token_id=7"].map(str::to_owned).to_vec();
    json(&[convert_args(checkpoint("7"), "gguf", "f32", &gguf), said].concat(), 0);
    json(&convert_args(&gguf, "hf-native", "f32", &native), 0);
    json(&convert_args(&native, "gguf", "f32", &back), 0);
    let metadata = |path: &Path| json(&["inspect", text(path)], 0)["metadata"].clone();
    for key in ["tokenizer.chat_template", "tokenizer.ggml.eos_token_id"] {
        assert_eq!(metadata(&gguf)[key], metadata(&back)[key], "{key}");
    }
}

#[test]
fn what_the_class_has_no_place_for_is_said() {
    let dir = Dir::new();
    // Stand-ins that every trainer saves in the first layer and nothing reads.
    let mut tensors = random_model(Version::V7, &Sizes::TINY, 3).into_tensors();
    let like = |name: &str| tensors.iter().find(|tensor| tensor.info.name == name).unwrap().clone();
    let stand_ins: Vec<MemoryTensor> = ["v0", "v1", "v2"]
        .iter()
        .map(|name| {
            let mut tensor = like(&format!("blocks.1.att.{name}"));
            tensor.info.name = format!("blocks.0.att.{name}");
            tensor
        })
        .collect();
    tensors.extend(stand_ins);
    let source = dir.join("m.safetensors");
    std::fs::write(&source, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    let output =
        forge().args(["-v", "convert", text(&source), "--to", "hf-native", "--type", "bf16", "-o", text(&dir.join("n"))]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("blocks.0.att.v0, blocks.0.att.v1, blocks.0.att.v2 are left out"), "{stderr}");
    let page = std::fs::read_to_string(dir.join("n/PROVENANCE.md")).unwrap();
    assert!(page.contains("left out: 3 tensors of the source"), "{page}");
    let file = rwkv_forge_convert::open(&dir.join("n"), rwkv_forge_convert::OpenOptions::default()).unwrap();
    assert!(file.source().tensors().iter().all(|info| !info.name.contains("layers.0.linear_attn.v0")));
    // Other versions have other containers, which the refusal names.
    for version in ["4", "5", "6"] {
        let answer = json(&convert_args(checkpoint(version), "hf-native", "f32", &dir.join("never")), 2);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            answer["error"]["kind"] == "CannotCarry" && message.contains("containers that carry it: ") && message.contains("hf,"),
            "{message}"
        );
    }
}

/// What a directory says of decoding is the model's own: each of the three files is kept, and only what nobody says is what is usual.
#[test]
fn decoding_of_a_directory_is_kept_file_by_file() {
    let dir = Dir::new();
    let (first, second, flash) = (dir.join("first"), dir.join("second"), dir.join("flash"));
    json(&convert_args(checkpoint("7"), "hf-native", "bf16", &first), 0);
    let write = |name: &str, value: &serde_json::Value| std::fs::write(first.join(name), value.to_string()).unwrap();
    let own = serde_json::json!({ "bos_token_id": 0, "eos_token_id": 0, "do_sample": true, "temperature": 0.3, "repetition_penalty": 1.1 });
    write("generation_config.json", &own);
    write("tools_generation_config.json", &serde_json::json!({ "eos_token_id": 5, "do_sample": false }));
    std::fs::remove_file(first.join("fake_think_generation_config.json")).unwrap();

    let dry = json(&[convert_args(&first, "hf-native", "bf16", &second), vec!["--dry-run".to_owned()]].concat(), 0);
    let origins: Vec<(&str, &str, bool)> = dry["words"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|word| word["word"] == "decoding")
        .map(|word| (word["key"].as_str().unwrap(), word["origin"].as_str().unwrap(), word["held"].as_bool().unwrap()))
        .collect();
    let expected = [
        ("generation_config.json", "beside", true),
        ("fake_think_generation_config.json", "default", true),
        ("tools_generation_config.json", "beside", true),
    ];
    assert_eq!(origins, expected);

    let record = json(&convert_args(&first, "hf-native", "bf16", &second), 0);
    let read = |folder: &Path, name: &str| serde_json::from_slice::<serde_json::Value>(&std::fs::read(folder.join(name)).unwrap()).unwrap();
    assert_eq!(read(&second, "generation_config.json"), own);
    // Ids are those of the model, whatever one of the files says; that is said.
    assert_eq!(
        read(&second, "tools_generation_config.json"),
        serde_json::json!({ "bos_token_id": 0, "eos_token_id": 0, "do_sample": false })
    );
    assert_eq!(read(&second, "fake_think_generation_config.json")["top_p"], 0.28);
    let notes = record["notes"].to_string();
    assert!(notes.contains("eos_token_id of") && notes.contains("is 5, and not kept"), "{notes}");

    // The class of another library knows the first of them; the others are named, and so are all where no file says such a thing.
    let record = json(&convert_args(&first, "pth", "bf16", &dir.join("m.pth")), 0);
    let notes = record["notes"].to_string();
    assert!(notes.contains("how ") && notes.contains("says to decode is not kept: do_sample, repetition_penalty, temperature"), "{notes}");
    let source = dir.join("m.safetensors");
    let sizes = Sizes { channels: 64, head_size: 64, vocabulary: 320, ..Sizes::TINY };
    std::fs::write(&source, random_model(Version::V7, &sizes, 3).to_safetensors()).unwrap();
    json(&convert_args(&source, "hf", "f32", &flash), 0);
    assert_eq!(read(&flash, "generation_config.json")["_from_model_config"], true);
    std::fs::write(flash.join("generation_config.json"), own.to_string()).unwrap();
    json(&convert_args(&flash, "hf", "f32", &dir.join("again")), 0);
    let again = read(&dir.join("again"), "generation_config.json");
    assert!(again["temperature"] == 0.3 && again.get("_from_model_config").is_none(), "{again}");
}
