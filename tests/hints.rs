//! A refusal of a source names the next step. Here each is taken, and leads on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, fixture, forge, json, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{MemorySource, Sizes, SplitMix64, random_model};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a refusal says, which must be of this kind and have these words.
fn refused(args: &[&str], code: i32, kind: &str, hints: &[&str]) {
    let error = json(args, code);
    assert_eq!(error["error"]["kind"], kind, "{args:?}: {error}");
    let message = error["error"]["message"].as_str().unwrap();
    for hint in hints {
        assert!(message.contains(hint), "{args:?} should say {hint}: {message}");
    }
}

fn works(args: &[&str]) {
    json(args, 0);
}

struct Place {
    dir: Dir,
    output: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = Dir::new();
        let output = dir.join("out");
        Self { dir, output }
    }

    fn path(&self, name: &str) -> String {
        text(&self.dir.join(name)).to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::create_dir_all(self.dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(self.dir.join(name), bytes).unwrap();
        self.path(name)
    }

    fn copy(&self, name: &str, from: &Path) -> String {
        self.write(name, &std::fs::read(from).unwrap())
    }

    /// The arguments of a conversion to a .pth, and more.
    fn convert<'a>(&'a self, source: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["convert", source, "--to", "pth", "--type", "f32", "--force", "-o", text(&self.output)], more].concat()
    }
}

fn pairs(name: impl Fn(&str) -> String) -> Vec<u8> {
    let mut random = SplitMix64::new(9);
    let mut of = |half: &str| {
        (name(half), if half == "A" { vec![4, 128] } else { vec![128, 4] }, (0..512).map(|_| 0.01 * random.normal()).collect())
    };
    MemorySource::from_f32(vec![of("A"), of("B")]).to_safetensors()
}

#[test]
fn of_adapters() {
    let place = Place::new();
    let model = text(checkpoint("7"));
    let lora = place.write("lora.safetensors", &pairs(|half| format!("blocks.0.att.key.lora_{half}")));
    // Alpha is asked for, and the alpha that is named is one.
    refused(&place.convert(model, &["--lora", &lora]), 2, "LoraAlphaMissing", &["--lora-alpha 4", "adapter_config.json"]);
    works(&place.convert(model, &["--lora", &lora, "--lora-alpha", "4"]));
    // Or the directory that says it.
    place.write("adapter/adapter_model.safetensors", &pairs(|half| format!("base_model.model.blocks.0.att.key.lora_{half}.weight")));
    place.write("adapter/adapter_config.json", br#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["key"]}"#);
    let adapter = place.path("adapter");
    works(&place.convert(model, &["--lora", &adapter]));
    refused(&place.convert(model, &["--lora", &adapter, "--lora-alpha", "4"]), 2, "LoraAlphaContradiction", &["leave --lora-alpha away"]);
    // An alpha for nothing: both ways out.
    refused(&place.convert(model, &["--lora-alpha", "4"]), 2, "LoraAlphaUnused", &["--lora FILE", "leave --lora-alpha away"]);
    works(&place.convert(model, &[]));
    // An adapter in place of the model, by itself and as a directory.
    refused(&place.convert(&lora, &[]), 3, "UnsupportedArchitecture", &["--lora and this file", "--lora-alpha"]);
    let file = place.path("adapter/adapter_model.safetensors");
    refused(&place.convert(&file, &[]), 3, "UnsupportedArchitecture", &["--lora and this file", "adapter_config.json"]);
    works(&place.convert(model, &["--lora", &file]));
    refused(&place.convert(&adapter, &[]), 3, "NotACheckpoint", &["--lora and this directory"]);
    // Two files of tensors.
    place.write("adapter/adapter_model.bin", b"x");
    refused(&place.convert(model, &["--lora", &adapter]), 2, "AmbiguousFiles", &["give the path of the one to use"]);
    works(&place.convert(model, &["--lora", &file]));
}

#[test]
fn of_directories_and_indices() {
    let place = Place::new();
    let bytes = random_model(Version::V7, &Sizes::TINY, 3).to_safetensors();
    let one = place.write("named/rwkv7-g1.safetensors", &bytes);
    let folder = place.path("named");
    works(&["inspect", &folder]);
    let other = place.write("named/rwkv7-g1b.safetensors", &bytes);
    refused(&["inspect", &folder], 3, "NotACheckpoint", &["give the path of rwkv7-g1.safetensors or rwkv7-g1b.safetensors"]);
    works(&["inspect", &one]);
    works(&["inspect", &other]);
    std::fs::create_dir(place.dir.join("empty")).unwrap();
    refused(&["inspect", &place.path("empty")], 3, "NotACheckpoint", &["model.safetensors", "pytorch_model.bin", "index"]);
    // Both forms of a model in one directory: the message names the files that are there, of torch's too.
    let single = place.write("both/model.safetensors", &bytes);
    place.write("both/model.safetensors.index.json", b"{}");
    refused(&["inspect", &place.path("both")], 2, "AmbiguousFiles", &["model.safetensors and model.safetensors.index.json"]);
    works(&["inspect", &single]);
    let single = place.copy("torch/pytorch_model.bin", checkpoint("7"));
    let index = place.write("torch/pytorch_model.bin.index.json", b"{}");
    refused(&["inspect", &place.path("torch")], 2, "AmbiguousFiles", &["pytorch_model.bin and pytorch_model.bin.index.json"]);
    works(&["inspect", &single]);
    refused(&["inspect", &index], 3, "BadHeader", &["the index of shards cannot be used"]);
    // A file of two kinds of models in one directory.
    place.copy("two/pytorch_model.bin", checkpoint("7"));
    let gguf = place.path("two/model.gguf");
    let mut args = vec!["convert", text(checkpoint("7")), "--to", "gguf", "--type", "f16", "--vocab", text(vocab()), "-o"];
    args.push(&gguf);
    works(&args);
    works(&["inspect", &gguf]);
}

const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

/// What `git lfs pull` does is put the file in the pointer's place.
#[test]
fn of_pointers_in_place_of_files() {
    let place = Place::new();
    let model = text(checkpoint("7"));
    let says = |args: &[&str]| {
        let error = json(args, 3);
        assert!(error["error"]["message"].as_str().unwrap().contains("git lfs pull"), "{args:?}: {error}");
    };
    for name in ["model.pth", "model.safetensors", "model.gguf", "model.bin", "model.st", "model.prefab"] {
        let path = place.write(name, POINTER);
        says(&["inspect", &path]);
    }
    place.copy("model.pth", checkpoint("7"));
    works(&["inspect", &place.path("model.pth")]);
    // In a directory: the one file, a shard, the index.
    let bytes = random_model(Version::V7, &Sizes { vocabulary: 256, ..Sizes::TINY }, 3).to_safetensors();
    for name in ["model.safetensors", "pytorch_model.bin"] {
        place.write(&format!("single-{name}/{name}"), POINTER);
        says(&["inspect", &place.path(&format!("single-{name}"))]);
    }
    place.write("single-model.safetensors/model.safetensors", &bytes);
    works(&["inspect", &place.path("single-model.safetensors")]);
    for (index, shard) in [("model.safetensors.index.json", "a.safetensors"), ("pytorch_model.bin.index.json", "a.bin")] {
        let index = place.write(&format!("sharded/{index}"), POINTER);
        says(&["inspect", &index]);
        place.write(&format!("sharded/{shard}"), POINTER);
        std::fs::write(&index, format!(r#"{{"weight_map": {{"emb.weight": "{shard}"}}}}"#)).unwrap();
        says(&["inspect", &index]);
    }
    // Companions: an adapter's two files, an imatrix, a state, a vocabulary, what a directory says.
    let lora = place.write("adapter/adapter_model.safetensors", POINTER);
    says(&place.convert(model, &["--lora", &lora, "--lora-alpha", "4"]));
    place.write("adapter/adapter_config.json", POINTER);
    says(&place.convert(model, &["--lora", &place.path("adapter")]));
    let pointer = place.write("pointer", POINTER);
    let gguf = ["convert", model, "--to", "gguf", "--type", "q4_0", "--quantizer", "search", "-o", text(&place.output), "--vocab"];
    says(&[&gguf[..], &[text(vocab()), "--imatrix", &pointer]].concat());
    says(&["state", &pointer, "--to", "pth"]);
    says(&["generate", model, "--vocab", text(vocab()), "--state", &pointer]);
    says(&["generate", model, "--vocab", &pointer]);
    let said = place.path("single-model.safetensors");
    for name in ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"] {
        let path = place.write(&format!("single-model.safetensors/{name}"), POINTER);
        says(&["convert", &said, "--to", "gguf", "--type", "f16", "--vocab", "bytes", "--dry-run"]);
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn of_vocabularies_and_types() {
    let place = Place::new();
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let gguf = |source: &str, more: &[&str]| -> Vec<String> {
        let args = ["convert", source, "--to", "gguf", "--force", "-o", text(&place.output)];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    };
    let refuse = |args: Vec<String>, code, kind, hints: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, kind, hints);
    };
    let work = |args: Vec<String>| works(&args.iter().map(String::as_str).collect::<Vec<_>>());
    refuse(gguf(model, &["--type", "f16"]), 2, "VocabularyNeeded", &["--vocab FILE"]);
    work(gguf(model, &["--type", "f16", "--vocab", words]));
    // Too small a vocabulary, and a way to say that it is the one.
    let sizes = Sizes { vocabulary: 512, ..Sizes::TINY };
    let wide = place.write("wide.safetensors", &random_model(Version::V7, &sizes, 3).to_safetensors());
    refuse(gguf(&wide, &["--type", "f16", "--vocab", "bytes"]), 2, "VocabularyTooSmall", &["--pad-vocabulary"]);
    work(gguf(&wide, &["--type", "f16", "--vocab", "bytes", "--pad-vocabulary"]));
    // Quantized weights that are to be quantized anew.
    let quantized = place.path("q8.gguf");
    works(&["convert", model, "--to", "gguf", "--type", "q8_0", "--vocab", words, "-o", &quantized]);
    refuse(gguf(&quantized, &["--type", "q4_0"]), 2, "Requantize", &["--requantize"]);
    work(gguf(&quantized, &["--type", "q4_0", "--requantize"]));
    // Rows that are no whole blocks.
    let odd = Sizes { ffn: 48, vocabulary: 256, ..Sizes::TINY };
    let odd = place.write("odd.safetensors", &random_model(Version::V7, &odd, 3).to_safetensors());
    refuse(gguf(&odd, &["--type", "q8_0", "--vocab", "bytes", "--strict"]), 3, "BlockLength", &["--set", "drop --strict"]);
    work(gguf(&odd, &["--type", "q8_0", "--vocab", "bytes", "--strict", "--set", "ffn\\.value=f16"]));
    work(gguf(&odd, &["--type", "q8_0", "--vocab", "bytes"]));
    // A plan's quantizer without its text.
    let text_file = text(&fixture("text").join("public-domain-100k.txt")).to_owned();
    let gptq = ["--type", "q8_0", "--vocab", words, "--quantizer", "gptq"];
    refuse(gguf(model, &gptq), 2, "CalibrationNeeded", &["--calibrate", "search"]);
    work(gguf(model, &["--type", "q8_0", "--vocab", words, "--quantizer", "search"]));
    work(gguf(model, &[&gptq[..], &["--calibrate", &text_file, "--calibration-windows", "1"]].concat()));
    // Two vocabularies beside one model.
    let sizes = Sizes { vocabulary: 320, ..Sizes::TINY };
    place.write("words/model.safetensors", &random_model(Version::V7, &sizes, 3).to_safetensors());
    let (one, _) = (place.copy("words/rwkv_vocab_a.txt", vocab()), place.copy("words/rwkv_vocab_b.txt", vocab()));
    let folder = place.path("words");
    refuse(gguf(&folder, &["--type", "f16"]), 3, "BadCompanion", &["give the one that is meant with --vocab"]);
    work(gguf(&folder, &["--type", "f16", "--vocab", &one]));
    // No type at all is an answer of its own: one is taken, and the note says how to take another. A container is asked for.
    let taken = gguf(model, &["--vocab", words]);
    let said = String::from_utf8(forge().args(&taken).output().unwrap().stderr).unwrap();
    assert!(said.contains("note: type 4bit, since ") && said.contains("--type takes another"), "{said}");
    work(gguf(model, &["--vocab", words, "--type", "8bit"]));
    refuse(["convert", model].map(str::to_owned).to_vec(), 2, "ContainerNeeded", &["--to", "gguf", "an output whose name ends"]);
    work(["convert", model, "--vocab", words, "--force", "-o", &place.path("named.gguf")].map(str::to_owned).to_vec());
}

/// A directory that is not there is named, and made by what is said.
#[test]
fn of_directories_that_are_missing() {
    let place = Place::new();
    let (model, folder) = (text(checkpoint("7")), place.path("some/where"));
    for (to, name) in [("pth", "out.pth"), ("hf", "out.hf")] {
        let _unmade = std::fs::remove_dir_all(place.path("some"));
        let output = format!("{folder}/{name}");
        let args = ["convert", model, "--to", to, "-o", &output];
        let hints = [format!("the directory {} does not exist", place.path("some")), format!("mkdir -p '{folder}'")];
        refused(&args, 4, "OutputDirectory", &[&hints[0], &hints[1]]);
        std::fs::create_dir_all(&folder).unwrap();
        works(&args);
    }
}

/// A stray layer goes, and the model is one; its file's name is that of the model.
#[test]
fn of_layers_that_belong_to_nothing() {
    let place = Place::new();
    let whole = || random_model(Version::V7, &Sizes::TINY, 3).into_tensors();
    let mut tensors = whole();
    let mut stray = tensors.iter().find(|tensor| tensor.info.name == "blocks.0.att.key.weight").unwrap().clone();
    stray.info.name = "blocks.7.att.key.weight".to_owned();
    tensors.push(stray);
    let source = place.write("stray.safetensors", &MemorySource::from_tensors(tensors).to_safetensors());
    refused(&place.convert(&source, &[]), 3, "StrayLayer", &["layer 7", "remove what lies above layer 1"]);
    std::fs::write(&source, MemorySource::from_tensors(whole()).to_safetensors()).unwrap();
    works(&place.convert(&source, &[]));
}

/// An index of shards is called like the model that it is of.
#[test]
fn a_file_made_from_an_index_is_not_called_after_the_index() {
    let place = Place::new();
    let model = random_model(Version::V7, &Sizes { vocabulary: 256, ..Sizes::TINY }, 3);
    let names: Vec<String> = rwkv_forge_tensor::TensorSource::tensors(&model).iter().map(|info| info.name.clone()).collect();
    place.write("tiny-1.5b/part.safetensors", &model.to_safetensors());
    let map: serde_json::Map<String, serde_json::Value> = names.into_iter().map(|name| (name, "part.safetensors".into())).collect();
    let index = place.write("tiny-1.5b/model.safetensors.index.json", serde_json::json!({ "weight_map": map }).to_string().as_bytes());
    for source in [index, place.path("tiny-1.5b")] {
        let plan = json(&["convert", &source, "--to", "gguf", "--type", "f16", "--vocab", "bytes", "--dry-run"], 0);
        assert!(plan["output"].as_str().unwrap().ends_with("tiny-1.5b-f16.gguf"), "{plan}");
        let name = plan["words"].as_array().unwrap().iter().find(|word| word["word"] == "name").map(|word| word["value"].clone());
        assert_eq!(name, Some("tiny-1.5b".into()), "{plan}");
    }
    // From within the directory, too.
    let output = forge()
        .current_dir(place.dir.join("tiny-1.5b"))
        .args(["--json", "convert", ".", "--to", "pth", "--type", "f16", "--dry-run"])
        .output();
    let plan: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert!(plan["output"].as_str().unwrap().ends_with("tiny-1.5b-f16.pth"), "{plan}");
}

/// One of several files is no model, and what a trainer's processes saved are parts of one.
#[test]
fn of_parts_of_models() {
    let place = Place::new();
    let tensors = random_model(Version::V7, &Sizes::TINY, 3).into_tensors();
    let half = tensors.len() / 2;
    let names = ["shards/model-00001-of-00002.safetensors", "shards/model-00002-of-00002.safetensors"];
    let mut map = serde_json::Map::new();
    for (part, name) in tensors.chunks(half + 1).zip(names) {
        place.write(name, &MemorySource::from_tensors(part.to_vec()).to_safetensors());
        let file = name.trim_start_matches("shards/");
        map.extend(part.iter().map(|tensor| (tensor.info.name.clone(), file.into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    let index = place.write("shards/model.safetensors.index.json", index.as_bytes());
    for name in names {
        refused(&place.convert(&place.path(name), &[]), 3, "OneShard", &["give the directory, or the index"]);
    }
    works(&place.convert(&index, &[]));
    works(&place.convert(&place.path("shards"), &[]));
    for (file, says) in [("zero/zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_to_fp32.py"), ("fsdp/__0_0.distcp", "dcp_to_torch")] {
        place.write(file, b"part");
        let folder = place.path(file.split('/').next().unwrap());
        refused(&["inspect", &folder], 3, "NotACheckpoint", &[says]);
    }
    for name in ["_fsdp_wrapped_module._flat_param", "_fsdp_wrapped_module.flat_param"] {
        let flat = MemorySource::from_f32(vec![(name.to_owned(), vec![4], vec![0.5; 4])]);
        let flat = place.write("flat.safetensors", &flat.to_safetensors());
        refused(&place.convert(&flat, &[]), 3, "UnsupportedArchitecture", &["FSDP", "dcp_to_torch"]);
    }
}

/// What stands where a text belongs is called by its name, and so is a folder of the Hub's cache above that of a revision.
#[test]
fn of_texts_and_folders_of_the_cache() {
    let place = Place::new();
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let letters = place.write("letters.txt", POINTER);
    let eval = ["eval", model, "--vocab", words, "--text"];
    for given in [letters.clone(), text(place.dir.path()).to_owned()] {
        refused(&[&eval[..], &[&given]].concat(), 3, "LfsPointer", &["letters.txt", "git lfs pull"]);
    }
    let long = fixture("text").join("public-domain-100k.txt");
    let calibrated = [&eval[..], &[text(&long), "--calibration", &letters]].concat();
    refused(&calibrated, 3, "LfsPointer", &["letters.txt"]);
    place.write("letters.txt", "It was a bright day, and everybody who had a garden sat in it. ".repeat(4).as_bytes());
    works(&[&eval[..], &[&letters]].concat());
    // Two revisions, each of which is a model.
    let bytes = random_model(Version::V7, &Sizes::TINY, 3).to_safetensors();
    let revisions = ["0123456789abcdef0123456789abcdef01234567", "abc123"];
    for revision in revisions {
        place.write(&format!("models--org--name/snapshots/{revision}/model.safetensors"), &bytes);
    }
    place.write("models--org--name/refs/main", b"abc123");
    for folder in ["models--org--name", "models--org--name/snapshots"] {
        let error = json(&["inspect", &place.path(folder)], 3);
        let message = error["error"]["message"].as_str().unwrap();
        let given = message.split("give that of a revision, ").nth(1).unwrap().split(';').next().unwrap();
        for path in given.split(" or ") {
            assert!(path.starts_with(text(place.dir.path())), "{message}");
            works(&["inspect", path]);
        }
        assert!(revisions.iter().all(|revision| given.contains(revision)), "{message}");
    }
    // What is made of a revision is called like the repository.
    let revision = place.path(&format!("models--org--name/snapshots/{}", revisions[0]));
    for source in [revision.clone(), format!("{revision}/model.safetensors")] {
        let made = json(&["convert", &source, "--to", "safetensors", "--type", "f32", "--dry-run"], 0);
        assert_eq!(made["words"].as_array().unwrap().iter().find(|word| word["key"] == "name").unwrap()["value"], "name", "{source}");
        assert!(made["output"].as_str().unwrap().ends_with("/name-f32.safetensors"), "{}", made["output"]);
    }
    std::fs::create_dir_all(place.dir.join("models--org--none/snapshots")).unwrap();
    refused(&["inspect", &place.path("models--org--none")], 3, "NotACheckpoint", &["no revision of it was downloaded"]);
}

/// A vocabulary in a GGUF that is no vocabulary: another is given.
#[test]
fn of_vocabularies_in_files() {
    let place = Place::new();
    let good = place.path("good.gguf");
    works(&["convert", text(checkpoint("7")), "--to", "gguf", "--type", "f16", "--vocab", text(vocab()), "-o", &good]);
    let bytes = std::fs::read(&good).unwrap();
    // A key under another name of the same length is not there.
    let without = |key: &str| {
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        let mut bytes = bytes.clone();
        bytes[at + key.len() - 1] = b'_';
        place.write("broken.gguf", &bytes)
    };
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.model"] {
        let broken = without(key);
        let error = json(&["generate", &broken, "-n", "1"], 3);
        assert!(error["error"]["message"].as_str().unwrap().contains("give the model's vocabulary with --vocab"), "{error}");
        works(&["generate", &broken, "-n", "1", "--vocab", text(vocab())]);
    }
}

/// A model of few rows is no model of bytes, and what writes no file has no container to go to.
#[test]
fn of_vocabularies_that_do_not_fit() {
    let place = Place::new();
    let sizes = Sizes { vocabulary: 32, ..Sizes::TINY };
    let small = place.write("small.safetensors", &random_model(Version::V7, &sizes, 3).to_safetensors());
    let error = json(&["generate", &small, "-n", "1"], 2);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("give --vocab FILE") && !message.contains("bytes"), "{message}");
    let list: String = (1..32u8).map(|id| format!("{id} '{}' 1\n", char::from(b'/' + id))).collect();
    let list = place.write("small.txt", list.as_bytes());
    works(&["generate", &small, "-n", "1", "--prompt", "AB", "--vocab", &list]);
    let wide = Sizes { vocabulary: 256, ..Sizes::TINY };
    let wide = place.write("wide.safetensors", &random_model(Version::V7, &wide, 3).to_safetensors());
    refused(&["generate", &wide, "-n", "1"], 2, "VocabularyNeeded", &["--vocab bytes"]);
    works(&["generate", &wide, "-n", "1", "--vocab", "bytes"]);
}

#[test]
fn of_conversation_formats() {
    let place = Place::new();
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let chat = |format: &str| -> Vec<String> {
        let args =
            ["convert", model, "--to", "gguf", "--type", "f16", "--vocab", words, "--force", "-o", text(&place.output), "--chat", format];
        args.map(str::to_owned).to_vec()
    };
    for (typed, meant) in [("assistent", "assistant"), ("worlds", "world"), ("bott", "bot")] {
        let error = json(&chat(typed), 2);
        assert_eq!(error["error"]["kind"], "UnknownChatFormat");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("assistant, bot, tools, world") && message.ends_with(&format!("did you mean {meant}?")), "{message}");
        json(&chat(meant), 0);
    }
    // Capitals are no mistake.
    json(&chat("Bot"), 0);
    let error = json(&chat("chatml"), 2);
    assert!(!error["error"]["message"].as_str().unwrap().contains("did you mean"), "{error}");
    // A path that leads nowhere is one.
    json(&chat(&place.path("absent.jinja")), 4);
    let file = place.write("chatml", b"{{ messages[0].content }}");
    json(&chat(&file), 0);
}

/// Blocks of a file whose values are divided are not those of the model.
#[test]
fn of_quantized_files_of_a_runtime_that_rescales() {
    let place = Place::new();
    let quantized = place.path("q8.gguf");
    works(&["convert", text(checkpoint("6")), "--to", "gguf", "--type", "q8_0", "--vocab", text(vocab()), "-o", &quantized]);
    let mut bytes = std::fs::read(&quantized).unwrap();
    let key = b"rwkv6.rescale_every_n_layers";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
    let rescaled = place.write("rescaled.gguf", &bytes);
    let output = place.path("again.gguf");
    let convert = ["convert", &rescaled, "--to", "gguf", "--type", "q8_0", "--vocab", text(vocab()), "-o", &output];
    refused(&convert, 2, "Requantize", &["divided by 2^1", "cannot be copied", "--requantize"]);
    works(&[&convert[..], &["--requantize"]].concat());
}

/// What a container has tensors of its own for is not said to be left out.
#[test]
fn of_tensors_that_nothing_uses() {
    let place = Place::new();
    let notes = |container: &str| {
        let output = place.path(&format!("out-{container}"));
        let args = [
            "-v",
            "convert",
            text(checkpoint("7")),
            "--to",
            container,
            "--type",
            "f16",
            "--vocab",
            text(vocab()),
            "-o",
            &output,
            "--force",
        ];
        let output = forge().args(args).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let (stands_in, left_out) =
        ("are not copied: no model of its kind uses them, and the file has stand-ins", "are left out: the source has them");
    for (container, says, not) in [("gguf", stands_in, left_out), ("prefab", stands_in, left_out), ("hf", left_out, stands_in)] {
        let notes = notes(container);
        assert!(notes.contains("blocks.0.att.v2") && notes.contains(says) && !notes.contains(not), "{container}: {notes}");
    }
}

/// Files of other kinds in the place of an adapter or a state.
#[test]
fn of_files_of_other_kinds() {
    let place = Place::new();
    let model = text(checkpoint("7"));
    let gguf = place.path("model.gguf");
    works(&["convert", model, "--to", "gguf", "--type", "f16", "--vocab", text(vocab()), "-o", &gguf]);
    let bytes = std::fs::read(&gguf).unwrap();
    let at = bytes.windows(12).position(|window| window == b"general.type").unwrap();
    // A text of the type's length: `model` becomes another one.
    let mut other = bytes.clone();
    let value = at + 12 + 4 + 8;
    assert_eq!(&other[value..value + 5], b"model");
    other[value..value + 5].copy_from_slice(b"mmpro");
    let other = place.write("other.gguf", &other);
    refused(&place.convert(&other, &[]), 3, "GgufOfNoModel", &["general.type is mmpro", "give a file with a model"]);
    works(&place.convert(&gguf, &[]));
    let lora = place.write("lora.safetensors", &pairs(|half| format!("blocks.0.att.key.lora_{half}")));
    for file in [&gguf, &other] {
        refused(
            &place.convert(model, &["--lora", file, "--lora-alpha", "4"]),
            3,
            "LoraOtherFile",
            &["is a GGUF file", "give the directory"],
        );
    }
    works(&place.convert(model, &["--lora", &lora, "--lora-alpha", "4"]));
    // The same of a state, of every command that takes one.
    let bin = place.path("model.bin");
    works(&["convert", model, "--to", "rwkv-cpp", "--type", "f16", "-o", &bin]);
    let state = text(&fixture("states").join("tiny-state.pth")).to_owned();
    for (file, what) in [(&gguf, "is a GGUF file: a model"), (&bin, "is a file of the format")] {
        let generate = ["generate", model, "--vocab", text(vocab()), "-n", "1", "--state"];
        refused(&[&generate[..], &[file]].concat(), 3, "StateOtherFile", &[what, "give the file of the state itself"]);
        refused(&["state", file, "--to", "pth"], 3, "StateOtherFile", &[what]);
        works(&[&generate[..], &[&state]].concat());
    }
}

/// States of runtimes are no models, and what makes one of them that can be looked at is said.
#[test]
fn of_states_in_the_place_of_models() {
    let place = Place::new();
    let model = text(checkpoint("7"));
    let state = text(&fixture("states").join("tiny-state.pth")).to_owned();
    for (format, what) in
        [("llama-session", "a session of llama.cpp"), ("llama-seq", "a sequence of llama.cpp"), ("rmpack", "a package of rwkv-mobile")]
    {
        let file = place.path(&format!("{format}.session"));
        works(&["state", &state, "--model", model, "--to", format, "-o", &file]);
        let error = json(&["inspect", &file], 3);
        let said = error["error"]["message"].as_str().unwrap();
        assert!(error["error"]["kind"] == "NotACheckpoint" && said.contains(what) && !said.contains("begins with the bytes"), "{said}");
        // All that is read is listed, other programs' files among it.
        assert!([".pth", ".safetensors", ".st", ".rwkvq", ".gguf", ".bin", ".prefab"].iter().all(|ending| said.contains(ending)), "{said}");
        let made = place.path(&format!("{format}.pth"));
        let command = said.split('`').nth(1).unwrap().replace("FILE", &file).replace("MODEL", model);
        let mut words: Vec<&str> = command.split_whitespace().skip(1).collect();
        words.extend(["-o", &made]);
        works(&words);
        works(&["inspect", &made]);
    }
    // Of a buffer that says nothing all is asked for at once, and what is asked for suffices.
    let buffer = place.path("buffer.bin");
    works(&["state", &state, "--model", model, "--to", "rwkv-cpp", "-o", &buffer]);
    let line = ["state", &buffer, "--from", "rwkv-cpp", "--to", "pth", "-o", text(&place.output), "--force"];
    refused(&line, 2, "StateSizesNeeded", &["give --model-version and --layers and --heads", "--model"]);
    works(&[&line[..], &["--model-version", "7", "--layers", "3", "--heads", "2"]].concat());
    refused(&[&line[..], &["--model-version", "7", "--layers", "3"]].concat(), 2, "StateSizesNeeded", &["give --heads,"]);
    works(&[&line[..], &["--model", model]].concat());
}

/// Shards as trainers leave them: the folder of a run, that of a step, and a shard by itself.
#[test]
fn of_shards_of_trainers() {
    let place = Place::new();
    let shard = "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt";
    for (name, folder) in [("run", "run/global_step1"), ("lightning", "lightning/checkpoint")] {
        place.write(&format!("{folder}/{shard}"), b"part");
        place.write(&format!("{name}/latest"), b"global_step1");
        for folder in [name, folder] {
            refused(&["inspect", &place.path(folder)], 3, "NotACheckpoint", &["DeepSpeed's ZeRO", "zero_to_fp32.py DIRECTORY OUT"]);
        }
    }
    // In the first two stages one of the files has all weights.
    let whole = place.copy("run/global_step1/mp_rank_00_model_states.pt", checkpoint("7"));
    refused(&["inspect", &place.path("run")], 3, "NotACheckpoint", &["zero_to_fp32.py", &format!("or give {whole}")]);
    works(&["inspect", &whole]);
    place.write("run/global_step1/zero_pp_rank_0_mp_rank_00_model_states.pt", b"part");
    let error = json(&["inspect", &place.path("run")], 3);
    assert!(!error["error"]["message"].as_str().unwrap().contains("or give"), "{error}");
    let plain = place.copy("plain/global_step9/mp_rank_00_model_states.pt", checkpoint("7"));
    refused(&["inspect", &place.path("plain")], 3, "NotACheckpoint", &[&format!("give {plain}")]);
    // A folder of steps without shards is a directory like others.
    std::fs::create_dir_all(place.dir.join("bare/global_step1")).unwrap();
    refused(&["inspect", &place.path("bare")], 3, "NotACheckpoint", &["a directory without a model"]);
    // A shard of FSDP by itself, whatever is in it.
    let zip = std::fs::read(checkpoint("7")).unwrap();
    for (name, bytes) in [("a", &zip[..]), ("b", b"\x80\x02}q\x00."), ("c", b"tensors")] {
        let file = place.write(&format!("{name}/__0_0.distcp"), bytes);
        for args in [&["inspect", &file][..], &place.convert(&file, &[])] {
            refused(args, 3, "NotACheckpoint", &["FSDP", "dcp_to_torch"]);
        }
    }
}

/// The id in a list that is none is named, and correcting it is enough.
#[test]
fn of_ids_that_are_none() {
    let place = Place::new();
    let sizes = Sizes { vocabulary: 256, ..Sizes::TINY };
    place.write("model/model.safetensors", &random_model(Version::V7, &sizes, 3).to_safetensors());
    let model = place.path("model");
    let convert = ["convert", &model, "--to", "gguf", "--type", "f16", "--vocab", "bytes", "--dry-run"];
    let config = |said: &str| place.write("model/generation_config.json", format!(r#"{{"eos_token_id": {said}}}"#).as_bytes());
    for (said, named) in [
        ("[-1, 3]", "eos_token_id is a list with -1,"),
        (r#"[3, "a"]"#, r#"eos_token_id is a list with "a","#),
        ("[3, 4.5]", "eos_token_id is a list with 4.5,"),
        ("[]", "eos_token_id is an empty list,"),
        ("-1", "eos_token_id is -1,"),
    ] {
        config(said);
        refused(&convert, 3, "BadCompanion", &[named, "correct it there, or remove the key"]);
    }
    config("[1, 3]");
    works(&convert);
    place.write("model/generation_config.json", b"{}");
    works(&convert);
}
