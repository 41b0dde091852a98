//! What is opened for reading is exactly what docs/security.md says, for each container and command.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, fixture, forge, vocab};
use rwkv_forge_convert::COMPANIONS;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model, random_model_with, to_candle_6};

/// First cell of a row of the documentation -> names in backticks in its second cell.
fn documented(heading: &str) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md")).unwrap();
    let table = text.split(heading).nth(1).unwrap_or_else(|| panic!("{heading} is in docs/security.md"));
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[1].to_owned(), names)
    })
    .collect()
}

/// Files that a command opened, which must succeed.
fn opened(args: &[&str]) -> Vec<PathBuf> {
    let output = forge().args(["-v"]).args(args).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    // What `inspect --lint` has to say about a file does not matter here.
    assert!(output.status.success() || args.contains(&"--lint") && output.status.code() == Some(1), "{args:?}: {text}");
    text.lines().filter_map(|line| line.strip_prefix("read ")).map(PathBuf::from).collect()
}

/// Every file opened is one of the patterns (`*` stands for anything), and every pattern is met.
fn agrees(what: &str, found: &[PathBuf], patterns: &[String]) {
    let fits = |path: &PathBuf, pattern: &str| {
        // A pattern with a folder is of a file in one.
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_str().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let inner = format!("{folder}/{name}");
        let name = if pattern.contains('/') { inner.as_str() } else { name };
        match pattern.split_once('*') {
            Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            None => name == pattern,
        }
    };
    for path in found {
        assert!(patterns.iter().any(|pattern| fits(path, pattern)), "{what}: {} is read, but not documented: {patterns:?}", path.display());
    }
    for pattern in patterns {
        assert!(found.iter().any(|path| fits(path, pattern)), "{what}: {pattern} is documented, but not read: {found:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn converted(dir: &Dir, source: &Path, container: &str, name: &str) -> PathBuf {
    let output = dir.join(name);
    let encoding = if container == "prefab" { "int8" } else { "f16" };
    opened(&["convert", text(source), "--to", container, "--type", encoding, "--vocab", text(vocab()), "-o", text(&output)]);
    output
}

/// The model in two files with an index.
fn sharded(folder: &Path, model: MemorySource) {
    let mut tensors = model.into_tensors();
    let rest = tensors.split_off(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("model-00001-of-00002.safetensors", tensors), ("model-00002-of-00002.safetensors", rest)] {
        let source = MemorySource::from_tensors(part);
        source.tensors().iter().for_each(|info| drop(map.insert(info.name.clone(), name.into())));
        std::fs::write(folder.join(name), source.to_safetensors()).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A model of torch's with an index that names one shard, which has all of it.
fn torch_sharded(folder: &Path, source: &Path, dir: &Dir) {
    let name = "pytorch_model-00001-of-00001.bin";
    converted(dir, source, "pth", &folder.join(name).display().to_string());
    let model = rwkv_forge_convert::open(source, rwkv_forge_convert::OpenOptions::default()).unwrap();
    let map: serde_json::Map<String, serde_json::Value> =
        model.source().tensors().iter().map(|info| (info.name.clone(), name.into())).collect();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
}

/// Files that would be read if anything looked for them.
fn bait(folder: &Path, is_own: bool) {
    // In a folder of the model's own a tokenizer.json is its vocabulary, which must be one: tests/tokenizers.rs has such.
    let tokenizer = if is_own { "tokenizer.jsn" } else { "tokenizer.json" };
    for name in [
        "config.json",
        tokenizer,
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "fake_think_generation_config.json",
        "tools_generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "README.md",
        "vocab.txt",
        "adapter_config.json",
    ] {
        if !folder.join(name).exists() {
            std::fs::write(folder.join(name), "{}").unwrap();
        }
    }
    std::fs::create_dir_all(folder.join("additional_chat_templates")).unwrap();
    std::fs::write(folder.join("additional_chat_templates/other.jinja"), "x").unwrap();
}

#[test]
fn each_container_reads_what_is_documented() {
    let dir = Dir::new();
    let table = documented("## What is read of a model");
    let folder = |name: &str| {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        dir.join(name)
    };
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let mut sources: Vec<(&str, PathBuf)> = Vec::new();
    let pth = folder("pth").join("model.pth");
    std::fs::copy(checkpoint("6"), &pth).unwrap();
    for (row, container, name) in [
        ("GGUF", "gguf", "gguf/model.gguf"),
        ("rwkv.cpp", "rwkv-cpp", "bin/model.bin"),
        ("safetensors, .st, .rwkvq", "safetensors", "safetensors/model.safetensors"),
        ("safetensors, .st, .rwkvq", "web-rwkv", "st/model.st"),
        (".prefab", "prefab", "prefab/model.prefab"),
    ] {
        let (place, _) = name.split_once('/').unwrap();
        folder(place);
        sources.push((row, converted(&dir, &pth, container, name)));
    }
    sources.push((".pth", pth.clone()));
    for (row, name) in [("a part of a split GGUF", "parts"), ("a directory with a split GGUF", "parts-directory")] {
        let output = folder(name).join("model.gguf");
        let line = ["convert", text(&pth), "--to", "gguf", "--type", "f16", "--vocab", text(vocab()), "--split-size", "300K"];
        opened(&[&line[..], &["-o", text(&output)]].concat());
        let part = std::fs::read_dir(dir.join(name)).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
        sources.push((row, if row.starts_with("a part") { part } else { dir.join(name) }));
    }
    sharded(&folder("sharded"), random_model(Version::V7, &Sizes::TINY, 3));
    sources.push(("an index of shards", dir.join("sharded/model.safetensors.index.json")));
    sharded(&folder("sharded-directory"), random_model(Version::V7, &Sizes::TINY, 3));
    sources.push(("a directory with an index", dir.join("sharded-directory")));
    std::fs::write(folder("directory").join("model.safetensors"), random_model(Version::V7, &Sizes::TINY, 3).to_safetensors()).unwrap();
    sources.push(("a directory", dir.join("directory")));
    converted(&dir, &pth, "pth", &folder("torch").join("pytorch_model.bin").display().to_string());
    sources.push(("a directory of torch's", dir.join("torch")));
    torch_sharded(&folder("torch-sharded"), &pth, &dir);
    sources.push(("a directory of torch's with an index", dir.join("torch-sharded")));
    std::fs::copy(&pth, folder("one").join("tiny.pth")).unwrap();
    sources.push(("a directory of another kind with one file that by its name and its bytes may be a model", dir.join("one")));
    // Ranks as candle computes them for two heads.
    let wide = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 96, vocabulary: 40, ranks: [2, 4, 3, 9] };
    let six = to_candle_6(random_model_with(Version::V6, &wide, &Options::default(), 3));
    std::fs::write(dir.join("six.safetensors"), six.to_safetensors()).unwrap();
    let output = dir.join("candle");
    opened(&["convert", text(&dir.join("six.safetensors")), "--to", "candle-gguf", "--type", "q8_0", "-o", text(&output)]);
    sources.push(("a directory of candle's", output));
    let hybrid = folder("hybrid");
    std::fs::write(hybrid.join("model.safetensors"), random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21).to_safetensors()).unwrap();
    std::fs::write(hybrid.join("config.json"), config_json(Version::ARwkv7, &sizes, &Variant::FULL).to_string()).unwrap();
    std::fs::write(hybrid.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    std::fs::write(hybrid.join("tokenizer_config.json"), "{}").unwrap();
    sources.push(("a hybrid with Qwen", hybrid.join("model.safetensors")));

    // What a directory says besides its tensors. A vocabulary that is none of the model's would be refused: tests/said.rs and tests/tokenizers.rs have some.
    const WORDS: &str =
        "a directory or an index, for what needs a vocabulary, compares files, looks for faults (`inspect --lint`), or writes one";
    let beside: Vec<String> =
        table[WORDS].iter().filter(|name| !name.starts_with("rwkv_vocab") && *name != "tokenizer.json").cloned().collect();
    let is_own = |path: &Path| path.is_dir() || path.extension().is_some_and(|extension| extension == "json");
    let mut met: Vec<&str> = sources.iter().map(|(row, _)| *row).collect();
    met.push(WORDS);
    for (row, path) in &sources {
        let names = table.get(*row).unwrap_or_else(|| panic!("{row} is no row of docs/security.md"));
        let names: Vec<String> = match names.as_slice() {
            // The row says that it is the file itself.
            [] => vec![path.file_name().unwrap().to_str().unwrap().to_owned()],
            names => names.to_vec(),
        };
        bait(if path.is_dir() { path } else { path.parent().unwrap() }, is_own(path));
        agrees(row, &opened(&["inspect", "--tensors", "--hashes", text(path)]), &names);
        let said: Vec<String> = if is_own(path) { [names.as_slice(), &beside].concat() } else { names };
        agrees(row, &opened(&["inspect", "--tensors", "--hashes", "--lint", text(path)]), &said);
        agrees(row, &opened(&["verify", text(path), text(path), "--probe-tokens", "4"]), &said);
    }
    // Its vocabulary is read where a file gets it.
    let all = &table["a hybrid with Qwen, into a file with a vocabulary"];
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let known = |name: &&str| names.contains(name) || table[WORDS].iter().any(|other| other == name);
    assert!(COMPANIONS.iter().all(known), "{names:?}");
    let path = hybrid.join("model.safetensors");
    agrees("into GGUF", &opened(&["convert", text(&path), "--to", "gguf", "--type", "q8_0", "-o", text(&dir.join("h.gguf"))]), all);
    met.push("a hybrid with Qwen, into a file with a vocabulary");
    assert!(table.keys().all(|row| met.contains(&row.as_str())), "a row that nothing checks: {:?}", table.keys());
}

#[test]
fn commands_read_what_they_are_told_to() {
    let dir = Dir::new();
    let copy = |from: &Path, name: &str| {
        std::fs::copy(from, dir.join(name)).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let (model, vocabulary) = (copy(checkpoint("7"), "model.pth"), copy(vocab(), "vocab.txt"));
    let (words, imatrix) =
        (copy(&fixture("text").join("public-domain-100k.txt"), "words.txt"), copy(fixture("imatrix/tiny-rwkv7.gguf"), "i.gguf"));
    std::fs::create_dir(dir.join("texts")).unwrap();
    for name in ["part.txt", "passed-over.bin", ".hidden.txt"] {
        std::fs::write(dir.join("texts").join(name), "words and words").unwrap();
    }
    std::fs::write(dir.join("recipe.toml"), "type = \"q4_0\"\n").unwrap();
    bait(dir.path(), false);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (texts, recipe, output, cache) = (path("texts"), path("recipe.toml"), path("out.gguf"), path("cache"));
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let line = ["convert", &model, "--to", "gguf", "--vocab", &vocabulary, "--text", &words, "--recipe", &recipe, "--imatrix", &imatrix];
    let all = named(&["model.pth", "vocab.txt", "words.txt", "recipe.toml", "i.gguf"]);
    agrees("convert", &opened(&[&line[..], &["-o", &output]].concat()), &all);
    // Of an adapter of PEFT's, what says how it is merged and what is merged; beside any other LoRA nothing.
    let rank = |half: &str| if half == "A" { vec![2, 128] } else { vec![128, 2] };
    let pair = |name: &dyn Fn(&str) -> String| {
        MemorySource::from_f32(["A", "B"].map(|half| (name(half), rank(half), vec![0.01; 256])).to_vec()).to_safetensors()
    };
    std::fs::write(dir.join("lora.safetensors"), pair(&|half| format!("blocks.0.att.key.lora_{half}"))).unwrap();
    std::fs::create_dir(dir.join("adapter")).unwrap();
    let peft = pair(&|half| format!("base_model.model.blocks.0.att.key.lora_{half}.weight"));
    std::fs::write(dir.join("adapter/adapter_model.safetensors"), peft).unwrap();
    std::fs::write(dir.join("adapter/adapter_config.json"), r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4}"#).unwrap();
    bait(&dir.join("adapter"), false);
    let merged = path("merged.pth");
    let line = ["convert", &model, "--to", "pth", "--vocab", &vocabulary, "--type", "f32", "--force", "-o", &merged, "--lora"];
    let (plain, adapter, inside) = (path("lora.safetensors"), path("adapter"), path("adapter/adapter_model.safetensors"));
    let all = named(&["model.pth", "vocab.txt", "lora.safetensors"]);
    agrees("a LoRA", &opened(&[&line[..], &[&plain, "--lora-alpha", "4"]].concat()), &all);
    let all = named(&["model.pth", "vocab.txt", "adapter_model.safetensors", "adapter_config.json"]);
    for adapter in [&adapter, &inside] {
        agrees("an adapter", &opened(&[&line[..], &[adapter]].concat()), &all);
    }
    let line = ["eval", &model, "--vocab", &vocabulary, "--text", &texts, "--cache", &cache];
    agrees("eval", &opened(&line), &named(&["model.pth", "vocab.txt", "part.txt"]));
    agrees("generate", &opened(&["generate", &model, "--vocab", &vocabulary, "-n", "2"]), &named(&["model.pth", "vocab.txt"]));
    let quick = ["--tokens", "1", "--repeat", "1", "--loads", "1", "--prompt", "0", "--read-mib", "1"];
    agrees("bench", &opened(&[&["bench", &model][..], &quick].concat()), &named(&["model.pth"]));
}

#[test]
fn nothing_but_io_opens_files_and_nothing_but_what_is_documented_asks_the_system() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let documented = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (mut folders, mut seen) = (vec![root.join("crates")], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root.join("crates")).unwrap().to_str().unwrap().to_owned();
            let parts: Vec<&str> = name.split('/').collect();
            if path.is_dir() {
                if parts.len() == 1 && parts[0] != "testkit" || parts.get(1) == Some(&"src") {
                    folders.push(path);
                }
                continue;
            }
            if !name.ends_with(".rs") {
                continue;
            }
            seen += 1;
            let source = std::fs::read_to_string(&path).unwrap();
            let product = source.split("#[cfg(test)]").next().unwrap();
            for line in product.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let opens = ["fs::read(", "fs::read_to_string(", "fs::write(", "OpenOptions::new(", "File::open(", "File::create("];
                // `InputFile::open` and the like are io's.
                let whole = |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
                let asks = opens.iter().any(|call| line.match_indices(call).any(|(at, _)| whole(at)));
                let system = ["crates/bench/src/system.rs", "crates/io/"].iter().any(|place| format!("crates/{name}").starts_with(place));
                assert!(!asks || system, "{name} opens a file by itself: {line}");
                for place in line.split('"').skip(1).step_by(2).filter(|word| word.starts_with("/proc") || word.starts_with("/sys")) {
                    let place = place.split(['{', ' ']).next().unwrap();
                    assert!(documented.contains(place), "{name}: {place} is not in docs/security.md");
                }
            }
        }
    }
    assert!(seen > 100, "the sources are there");
}
