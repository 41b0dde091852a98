//! What a command writes never takes the place of what it reads, nor of what else it writes, whatever `--force` says.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::{Dir, checkpoint, error_kind, fixture, json, sha256, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};

/// A folder with everything that commands read, and what is in each file.
struct Place {
    dir: Dir,
    before: BTreeMap<String, String>,
}

/// Texts that are read from a directory.
const TEXTS: &str = "texts/part.txt";

impl Place {
    fn new() -> Self {
        let dir = Dir::new();
        let copy = |from: &std::path::Path, name: &str| std::fs::copy(from, dir.join(name)).map(drop).unwrap();
        copy(checkpoint("7"), "model.pth");
        copy(checkpoint("7"), "second.pth");
        copy(vocab(), "vocab.txt");
        copy(fixture("imatrix/tiny-rwkv7.gguf"), "known.gguf");
        std::fs::create_dir(dir.join("texts")).unwrap();
        let words = "It was a bright day, and everybody who had a garden sat in it. ".repeat(40);
        std::fs::write(dir.join("words.txt"), &words).unwrap();
        std::fs::write(dir.join(TEXTS), words.to_uppercase()).unwrap();
        std::fs::write(dir.join("recipe.toml"), "type = \"q8_0\"\n").unwrap();
        std::fs::write(dir.join("ids.json"), "[1, 2, 3]").unwrap();
        std::fs::write(dir.join("pairs.jsonl"), "{\"context\": \"a b\", \"continuation\": \"c d\"}\n").unwrap();
        let mut place = Self { dir, before: BTreeMap::new() };
        place.before = place.content();
        place
    }

    /// Digests of all files but the links that a test adds.
    fn content(&self) -> BTreeMap<String, String> {
        let inner = std::fs::read_dir(self.dir.join("texts")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let inner: Vec<String> = inner.map(|name| format!("texts/{name}")).collect();
        let names = self.dir.names().into_iter().filter(|name| self.dir.join(name).is_file() && !name.starts_with("link")).chain(inner);
        names.map(|name| (name.clone(), sha256(&self.dir.join(&name)))).collect()
    }

    /// A command line in which words that are names of files stand for files of the folder.
    fn args(&self, line: &str) -> Vec<String> {
        let word = |word: &str| match self.dir.join(word) {
            path if path.exists() => path.to_str().unwrap().to_owned(),
            _ => word.to_owned(),
        };
        line.split_whitespace().map(word).collect()
    }

    /// Every output at the place of every input, by its name and by a hard link; then every output at the place of every other.
    fn check(&self, line: &str, inputs: &[&str], outputs: &[&str]) {
        let run = |extra: &[String]| error_kind(&[self.args(line), extra.to_vec(), vec!["--force".to_owned()]].concat(), 2);
        for output in outputs {
            for input in inputs {
                // An ending that every option takes.
                let link = self.dir.join("link.gguf");
                let _absent = std::fs::remove_file(&link);
                std::fs::hard_link(self.dir.join(input), &link).unwrap();
                let mut names = vec![link];
                if *output != "--save-imatrix" {
                    names.push(self.dir.join(input));
                }
                for name in names {
                    let found = run(&[(*output).to_owned(), name.to_str().unwrap().to_owned()]);
                    assert_eq!(found, "OutputIsInput", "{line} {output} {}", name.display());
                }
                std::fs::remove_file(self.dir.join("link.gguf")).unwrap();
            }
            for other in outputs.iter().filter(|other| *other != output) {
                let [one, two] = ["x.gguf", "texts/../x.gguf"].map(|name| self.dir.join(name).to_str().unwrap().to_owned());
                let found = run(&[(*output).to_owned(), one, (*other).to_owned(), two]);
                assert_eq!(found, "OutputTwice", "{line} {output} {other}");
            }
        }
        assert_eq!(self.content(), self.before, "{line}");
    }
}

#[test]
fn conversions_keep_their_inputs() {
    let place = Place::new();
    let line = "convert model.pth --to gguf --recipe recipe.toml --vocab vocab.txt --text words.txt --imatrix known.gguf";
    let inputs = ["model.pth", "recipe.toml", "vocab.txt", "words.txt", "known.gguf"];
    place.check(line, &inputs, &["--output", "--record", "--vocab-json"]);
    let line = "convert model.pth --to gguf --type q4_0 --vocab vocab.txt --calibrate texts --calibrate words.txt --calibration-windows 1";
    let outputs = ["--output", "--record", "--vocab-json", "--save-imatrix", "--statistics"];
    place.check(line, &["model.pth", "vocab.txt", "words.txt", TEXTS], &outputs);
    let line = "plan model.pth --bpw 9 --vocab vocab.txt --calibrate texts --text words.txt --allow-leak --calibration-windows 1";
    place.check(line, &["model.pth", "vocab.txt", "words.txt", TEXTS], &["--output", "--save-imatrix", "--statistics"]);
}

#[test]
fn measurements_keep_their_inputs() {
    let place = Place::new();
    let line = "eval model.pth --baseline second.pth --text texts --text words.txt --vocab vocab.txt";
    let inputs = ["model.pth", "second.pth", TEXTS, "words.txt", "vocab.txt"];
    place.check(line, &inputs, &["--html", "--markdown", "--csv"]);
    let line = "eval model.pth --text words.txt --vocab vocab.txt --protocol llama --context 16";
    place.check(line, &["model.pth", "words.txt"], &["--save-logits", "--csv"]);
    place.check("eval model.pth --pairs pairs.jsonl --vocab vocab.txt", &["pairs.jsonl"], &["--csv"]);
    place.check("bench model.pth second.pth", &["model.pth", "second.pth"], &["--csv", "--markdown", "--svg"]);
    place.check("forms model.pth --quick --vocab vocab.txt --text words.txt", &["model.pth", "vocab.txt", "words.txt"], &["--junit"]);
    place.check("logits model.pth --tokens ids.json --eps 64e-5", &["model.pth", "ids.json"], &["--output"]);
    place.check("logits model.pth --text words.txt --vocab vocab.txt", &["vocab.txt", "words.txt"], &["--output"]);
}

#[test]
fn names_that_a_command_makes_up_keep_inputs_too() {
    let place = Place::new();
    let path = |name: &str| place.dir.join(name).to_str().unwrap().to_owned();
    let link = |name: &str| std::fs::hard_link(place.dir.join("model.pth"), place.dir.join(name)).unwrap();
    // The name that convert chooses by itself.
    link("link-q8_0.gguf");
    std::fs::rename(place.dir.join("link-q8_0.gguf"), place.dir.join("model-q8_0.gguf")).unwrap();
    let (model, vocab, ids, words, layers, page) =
        (path("model.pth"), path("vocab.txt"), path("ids.json"), path("words.txt"), path("layers"), path("page.md"));
    let line = ["convert", &model, "--to", "gguf", "--type", "q8_0", "--vocab", &vocab, "--force"];
    assert_eq!(error_kind(&line, 2), "OutputIsInput");
    std::fs::remove_file(place.dir.join("model-q8_0.gguf")).unwrap();
    // Three files with one beginning.
    for end in ["-time.svg", "-memory.svg", ".csv"] {
        link(&format!("link{end}"));
        assert_eq!(error_kind(&["bench", "curve", &path("model.pth"), "-o", &path("link"), "--force"], 2), "OutputIsInput");
        std::fs::remove_file(place.dir.join(&format!("link{end}"))).unwrap();
    }
    // A file for each layer.
    std::fs::create_dir(place.dir.join("layers")).unwrap();
    link("layers/layer-001-wkv.npy");
    let line = ["logits", &model, "--tokens", &ids, "--layers", &layers, "--force", "-o"];
    assert_eq!(error_kind(&[&line[..], &[&path("x.npy")]].concat(), 2), "OutputIsInput");
    assert_eq!(error_kind(&[&line[..], &[&path("layers/layer-000-output.npy")]].concat(), 2), "OutputTwice");
    // The folder of plots.
    std::fs::create_dir(place.dir.join("page-figures")).unwrap();
    let line = ["eval", &model, "--vocab", &vocab, "--text", &words, "--markdown", &page, "--force"];
    assert_eq!(error_kind(&[&line[..], &["--csv", &path("page-figures/table.csv")]].concat(), 2), "OutputTwice");
    assert_eq!(place.content(), place.before);
}

#[test]
fn files_of_others_beside_layers_and_plots_stay() {
    let place = Place::new();
    let path = |name: &str| place.dir.join(name).to_str().unwrap().to_owned();
    for folder in ["layers", "page-figures"] {
        std::fs::create_dir(place.dir.join(folder)).unwrap();
        std::fs::write(place.dir.join(folder).join("thesis.tex"), "mine").unwrap();
    }
    let kept = |folder: &str| std::fs::read_to_string(place.dir.join(folder).join("thesis.tex")).unwrap() == "mine";
    let (model, vocab, words) = (path("model.pth"), path("vocab.txt"), path("words.txt"));
    let (ids, layers, output, page, second) = (path("ids.json"), path("layers"), path("x.npy"), path("page.md"), path("second.pth"));
    let logits = ["logits", &model, "--tokens", &ids, "--layers", &layers, "-o", &output];
    json(&logits, 0);
    std::fs::remove_file(place.dir.join("x.npy")).unwrap();
    assert_eq!(error_kind(&logits, 2), "OutputExists", "found before the work");
    assert!(!place.dir.join("x.npy").exists());
    json(&[&logits[..], &["--force"]].concat(), 0);
    assert!(kept("layers"));
    let eval = ["eval", &model, "--baseline", &second, "--vocab", &vocab, "--markdown", &page, "--no-cache"];
    let eval = [&eval[..], &["--text", &words, "--context", "64"]].concat();
    json(&eval, 0);
    let figures = std::fs::read_dir(place.dir.join("page-figures")).unwrap().count();
    assert!(figures > 1, "there are plots");
    std::fs::remove_file(place.dir.join("page.md")).unwrap();
    assert_eq!(error_kind(&eval, 2), "OutputExists", "found before the work");
    json(&[&eval[..], &["--force"]].concat(), 0);
    assert!(kept("page-figures"));
    assert_eq!(std::fs::read_dir(place.dir.join("page-figures")).unwrap().count(), figures);
}

#[test]
fn files_that_nobody_named_are_kept_too() {
    let dir = Dir::new();
    let refused = |source: &std::path::Path, output: &std::path::Path, more: &[&str]| {
        let before = sha256(output);
        let (source, output_name) = (source.to_str().unwrap(), output.to_str().unwrap());
        let line = ["convert", source, "--to", "safetensors", "--type", "f32", "--force", "-o", output_name];
        assert_eq!(error_kind(&[&line[..], more].concat(), 2), "OutputIsInput", "{output_name}");
        assert_eq!(sha256(output), before);
    };
    // Shards, which the index names.
    let mut tensors = random_model(Version::V7, &Sizes::TINY, 3).into_tensors();
    let rest = tensors.split_off(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("model-00001-of-00002.safetensors", tensors), ("model-00002-of-00002.safetensors", rest)] {
        let source = MemorySource::from_tensors(part);
        source.tensors().iter().for_each(|info| drop(map.insert(info.name.clone(), name.into())));
        std::fs::write(dir.join(name), source.to_safetensors()).unwrap();
    }
    let index = dir.join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    refused(&index, &dir.join("model-00002-of-00002.safetensors"), &[]);
    refused(dir.path(), &dir.join("model-00001-of-00002.safetensors"), &[]);
    // What lies beside a hybrid.
    let folder = dir.join("hybrid");
    std::fs::create_dir(&folder).unwrap();
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let model = folder.join("model.safetensors");
    std::fs::write(&model, random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21).to_safetensors()).unwrap();
    std::fs::write(folder.join("config.json"), config_json(Version::ARwkv7, &sizes, &Variant::FULL).to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        let output = folder.join(name);
        let line = ["convert", model.to_str().unwrap(), "--to", "gguf", "--type", "q8_0", "--force", "-o", output.to_str().unwrap()];
        assert_eq!(error_kind(&line, 2), "OutputIsInput", "{name}");
        let other = dir.join("other.gguf");
        let line = ["convert", model.to_str().unwrap(), "--to", "gguf", "--type", "q8_0", "--force", "-o", other.to_str().unwrap()];
        assert_eq!(error_kind(&[&line[..], &["--record", output.to_str().unwrap()]].concat(), 2), "OutputIsInput", "{name}");
    }
    // A LoRA.
    let base = dir.join("base.safetensors");
    std::fs::write(&base, random_model(Version::V7, &Sizes::TINY, 3).to_safetensors()).unwrap();
    let factor = |name: &str, shape: Vec<u64>| (format!("blocks.0.att.key.{name}"), shape, vec![0.5; 64]);
    let lora = MemorySource::from_f32(vec![factor("lora_A", vec![2, 32]), factor("lora_B", vec![32, 2])]);
    std::fs::write(dir.join("lora.safetensors"), lora.to_safetensors()).unwrap();
    let lora = dir.join("lora.safetensors");
    refused(&base, &lora, &["--lora", lora.to_str().unwrap(), "--lora-alpha", "4"]);
}

#[test]
fn states_keep_their_inputs() {
    let place = Place::new();
    let state = fixture("states");
    let found: Vec<PathBuf> = std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path()).collect();
    let found = found.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "pth")).unwrap();
    let copy = place.dir.join("link.pth");
    std::fs::copy(&found, &copy).unwrap();
    let before = sha256(&copy);
    std::fs::hard_link(&copy, place.dir.join("link2.pth")).unwrap();
    for name in ["link.pth", "link2.pth"] {
        let output = place.dir.join(name);
        let line = ["state", copy.to_str().unwrap(), "--to", "pth", "-o", output.to_str().unwrap(), "--force"];
        assert_eq!(error_kind(&line, 2), "OutputIsInput");
    }
    assert_eq!(sha256(&copy), before);
}
