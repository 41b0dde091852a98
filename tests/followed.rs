//! A refusal of `convert` that names an option, a type or a container is followed, for every container there is: what it names must be
//! something that the container has, and must lead to a file.
//!
//! Start at [`Line::leads_on`]: it runs a line, reads the steps out of the refusal, and runs the line again with each of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, checkpoint, forge, json, vocab};
use rwkv_forge_convert::container::{CONTAINERS, Container};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{MemorySource, Sizes, SplitMix64, random_model};

const SIZES: Sizes = Sizes { vocabulary: 256, channels: 128, head_size: 64, ffn: 256, ..Sizes::TINY };
/// Refusals that may follow one another: a way out of one may need that of the next.
const DEPTH: usize = 3;
/// Options that have a value.
const VALUED: [&str; 8] = ["--type", "--set", "--to", "--vocab", "--quantizer", "--lora", "--lora-alpha", "--key"];
/// Options that have none, or may have none.
const FLAGS: [&str; 6] = ["--allow-f16-loss", "--allow-zero-tensors", "--requantize", "--pad-vocabulary", "--force", "--calibrate"];
/// Types that some container has and others have not.
const TYPES: [&str; 6] = ["q5_1", "int8", "q4_0", "bf16", "f32", "nf4"];

/// A change of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Options with their values, in place of those of the same name.
    Give(Vec<(String, Option<String>)>),
    /// An option that goes.
    Leave(String),
    /// A directory that is made.
    Make(String),
}

/// A word as a shell divides a text, without what stands around it.
struct Word {
    text: String,
    /// A parenthesis is before it.
    begins: bool,
    /// A comma or another mark is behind it.
    ends: bool,
}

fn words(message: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut rest = message.trim_start();
    while !rest.is_empty() {
        let (mut word, mut quoted) = (String::new(), false);
        let mut end = rest.len();
        for (at, letter) in rest.char_indices() {
            match letter {
                '\'' => quoted = !quoted,
                letter if letter.is_whitespace() && !quoted => {
                    end = at;
                    break;
                }
                letter => word.push(letter),
            }
        }
        let open = word.trim_start_matches(['(', '`']);
        let text = open.trim_end_matches([',', ';', ':', ')', '.', '`', '?']);
        found.push(Word { text: text.to_owned(), begins: word.starts_with('('), ends: text.len() < open.len() });
        rest = rest[end..].trim_start();
    }
    found
}

/// The steps that a refusal of this line names.
fn steps(message: &str, line: &Line) -> Vec<Step> {
    let words = words(message);
    let give = |option: &str, value: &str| Step::Give(vec![(option.to_owned(), Some(value.to_owned()))]);
    let mut found: Vec<Step> = Vec::new();
    // What a message begins with is what it is about.
    let mut at = 1;
    while at < words.len() {
        let is_left = ["leave", "drop"].contains(&words[at - 1].text.as_str());
        let mut options = Vec::new();
        // Options that stand beside each other are one step.
        while let Some(option) = words.get(at).filter(|word| word.text.starts_with("--")) {
            let name = option.text.clone();
            let value = words.get(at + 1).filter(|value| !option.ends && !value.begins && !value.text.starts_with("--"));
            at += 1;
            if is_left {
                found.push(Step::Leave(name));
            } else if FLAGS.contains(&name.as_str()) {
                options.push((name, None));
            } else if let (true, Some(value)) = (VALUED.contains(&name.as_str()), value) {
                at += 1;
                match value.text.as_str() {
                    "FILE" => options.push((name, Some(line.vocabulary.clone()))),
                    "ALPHA" => options.push((name, Some("4".to_owned()))),
                    text if text.contains("REGEX") || text == "with" => {}
                    text => options.push((name, Some(text.to_owned()))),
                }
                if value.ends {
                    break;
                }
            }
        }
        if !options.is_empty() {
            found.push(Step::Give(options));
        }
        at += 1;
    }
    let after = |mark: &str| message.split(mark).nth(1).map(words_of);
    if let Some(meant) = after("did you mean ") {
        found.push(give("--type", &meant));
    }
    // What a container has, and containers that have a place.
    for (mark, option) in [("bits it has ", "--type"), (": it carries ", "--type"), ("containers that carry it: ", "--to")] {
        found.extend(after(mark).map(|first| give(option, &first)));
    }
    if let Some(name) = after("names look like '") {
        found.push(give("--set", &format!("{}=f16", name.trim_end_matches('\''))));
    }
    if let Some(folder) = message.split("mkdir -p '").nth(1) {
        found.push(Step::Make(folder.split('\'').next().unwrap().to_owned()));
    }
    found.dedup();
    found
}

/// The first word.
fn words_of(text: &str) -> String {
    words(text).into_iter().next().unwrap().text
}

/// A command line of `convert`, with what stands for the files that a hint cannot know.
#[derive(Clone, Debug)]
struct Line {
    args: Vec<String>,
    vocabulary: String,
}

impl Line {
    fn new(source: &str, container: &str, output: &Path, more: &[&str]) -> Self {
        let output = output.to_str().unwrap();
        let args = ["convert", source, "--to", container, "-o", output, "--no-verify"];
        Self { args: args.iter().chain(more).map(|arg| (*arg).to_owned()).collect(), vocabulary: "bytes".to_owned() }
    }

    /// Kind and message of the refusal; `None` for a file.
    fn refusal(&self) -> Option<(String, String)> {
        let output = forge().arg("--json").args(&self.args).output().unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {self:?}: {}", String::from_utf8_lossy(&output.stderr)));
        let error = seen.get("error")?;
        Some((error["kind"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned()))
    }

    fn without(&self, option: &str) -> Self {
        let mut args = Vec::new();
        let mut rest = self.args.iter().peekable();
        while let Some(arg) = rest.next() {
            if arg != option {
                args.push(arg.clone());
            } else if rest.peek().is_some_and(|value| !value.starts_with("--")) {
                rest.next();
            }
        }
        Self { args, ..self.clone() }
    }

    fn after(&self, step: &Step) -> Self {
        match step {
            Step::Leave(option) => self.without(option),
            Step::Make(folder) => {
                std::fs::create_dir_all(folder).unwrap();
                self.clone()
            }
            Step::Give(options) => options.iter().fold(self.clone(), |line, (option, value)| {
                let mut line = line.without(option);
                line.args.push(option.clone());
                line.args.extend(value.clone());
                if option == "--calibrate" {
                    line.args.extend(["--calibration-windows", "1"].map(str::to_owned));
                }
                line
            }),
        }
    }

    /// Follows each step of the refusal, which must be of this kind, to a file: by itself, or by what the next refusal says.
    fn leads_on(&self, kind: &str) {
        let (found, message) = self.refusal().unwrap_or_else(|| panic!("{:?} should be refused as {kind}", self.args));
        assert_eq!(found, kind, "{:?}: {message}", self.args);
        let steps = steps(&message, self);
        assert!(!steps.is_empty(), "{:?}: no step in: {message}", self.args);
        for step in steps {
            self.after(&step).arrives(DEPTH).unwrap_or_else(|why| panic!("{:?}\n{message}\n{step:?} leads nowhere: {why}", self.args));
        }
    }

    /// Whether the line gives a file, or some step of its refusal does.
    fn arrives(&self, depth: usize) -> Result<(), String> {
        let Some((kind, message)) = self.refusal() else { return Ok(()) };
        let mut why = format!("{kind}: {message}");
        for step in steps(&message, self).iter().filter(|_| depth > 0) {
            match self.after(step).arrives(depth - 1) {
                Ok(()) => return Ok(()),
                Err(deeper) => why = format!("{why}\n  {step:?}: {deeper}"),
            }
        }
        Err(why)
    }
}

/// Sources and outputs.
struct Place(Dir);

impl Place {
    fn new() -> Self {
        Self(Dir::new())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A random model, changed.
    fn model(&self, name: &str, version: Version, sizes: &Sizes, change: impl Fn(&str, &mut Vec<f32>)) -> String {
        let tensors = random_model(version, sizes, 7).into_tensors().into_iter().map(|mut tensor| {
            let mut values: Vec<f32> = tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            change(&tensor.info.name, &mut values);
            tensor.bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensor
        });
        let path = self.path(&format!("{name}-{version:?}.safetensors"));
        std::fs::write(&path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
        path
    }

    fn line(&self, source: &str, container: &dyn Container, more: &[&str]) -> Line {
        let name = format!("out-{}-{}", container.name(), self.0.names().len());
        Line::new(source, container.name(), &self.0.join(&name), more)
    }
}

/// RWKV-7 where it has a place, else RWKV-5, of which candle's blocks take any size.
fn version_of(container: &dyn Container) -> Version {
    [Version::V7, Version::V5_2].into_iter().find(|version| container.carries(*version).is_ok()).unwrap()
}

fn has(container: &dyn Container, name: &str) -> bool {
    container.types().contains(&name)
}

/// The first type of blocks that a container has.
fn blocks(container: &dyn Container) -> Option<&'static str> {
    TYPES.into_iter().find(|name| ![&"bf16", &"f32"].contains(&name) && has(container, name))
}

/// Every container, with a plain model of the version that it carries.
fn each(mut run: impl FnMut(&Place, &'static dyn Container, Version)) {
    for container in CONTAINERS.iter().copied() {
        run(&Place::new(), container, version_of(container));
    }
}

#[test]
fn steps_are_read_out_of_messages() {
    let line = Line::new("model", "gguf", Path::new("out"), &[]);
    let give = |options: &[(&str, Option<&str>)]| {
        Step::Give(options.iter().map(|(option, value)| ((*option).to_owned(), value.map(str::to_owned))).collect())
    };
    for (message, want) in [
        (
            "for example --type bf16 or --set '^a$=f32', or say --allow-f16-loss",
            vec![give(&[("--type", Some("bf16"))]), give(&[("--set", Some("^a$=f32"))]), give(&[("--allow-f16-loss", None)])],
        ),
        ("to another container, for example --to pth --type f32", vec![give(&[("--to", Some("pth")), ("--type", Some("f32"))])]),
        ("give --vocab FILE, or --vocab bytes for models", vec![give(&[("--vocab", Some("bytes"))])]),
        ("give --to with one of a, b", vec![]),
        (
            "give the LoRA with --lora FILE, or leave --lora-alpha away",
            vec![give(&[("--lora", Some("bytes"))]), Step::Leave("--lora-alpha".to_owned())],
        ),
        ("no type: did you mean q4_0? of 4 bits", vec![give(&[("--type", Some("q4_0"))])]),
        ("matches no tensor: names look like 'a.b'", vec![give(&[("--set", Some("a.b=f16"))])]),
        ("give a text with --calibrate, or use the quantizer search", vec![give(&[("--calibrate", None)])]),
    ] {
        assert_eq!(steps(message, &line), want, "{message}");
    }
    let words: Vec<&str> = ["convert", "model", "--to", "gguf", "-o", "out", "--no-verify"].to_vec();
    assert_eq!(line.args, words);
    assert_eq!(line.without("--to").args.len(), words.len() - 2);
    assert_eq!(line.without("--no-verify").args.len(), words.len() - 1);
}

#[test]
fn of_values_that_f16_cannot_hold() {
    let mut refused = 0;
    each(|place, container, version| {
        for (kind, factor, of) in [("F16Loss", 1e-9, "emb.weight"), ("Overflow", 1e9, "head.weight")] {
            let source = place.model(kind, version, &SIZES, |name, values| {
                if name == of {
                    values.iter_mut().for_each(|value| *value *= factor);
                }
            });
            place.line(&source, container, &["--type", "f16", "--vocab", "bytes"]).leads_on(kind);
            // Where the others are blocks, the way out leaves them so.
            for encoding in TYPES.into_iter().filter(|name| has(container, name) && ![&"bf16", &"f32"].contains(&name)) {
                let line = place.line(&source, container, &["--type", encoding, "--vocab", "bytes"]);
                let Some((found, message)) = line.refusal() else { continue };
                refused += 1;
                assert!(found == kind && (!message.contains("--type") || message.contains("--to safetensors --type f32")), "{message}");
                line.leads_on(kind);
            }
        }
    });
    assert!(refused > 3, "{refused} files of blocks were refused: rwkv.cpp's embedding is in f16, and prefab's is");
}

#[test]
fn of_tensors_of_zeros_and_of_files_that_are_there() {
    each(|place, container, version| {
        let holes = place.model("holes", version, &SIZES, |name, values| {
            if name == "blocks.1.ln1.weight" {
                values.fill(0.0);
            }
        });
        place.line(&holes, container, &["--type", "f16", "--vocab", "bytes"]).leads_on("ZeroTensor");
        let good = place.model("good", version, &SIZES, |_, _| ());
        let line = place.line(&good, container, &["--type", "f16", "--vocab", "bytes"]);
        assert_eq!(line.refusal(), None);
        line.leads_on("OutputExists");
        let deep = Line::new(&good, container.name(), &place.0.join("not/there/out"), &["--type", "f16", "--vocab", "bytes"]);
        deep.leads_on("OutputDirectory");
    });
}

#[test]
fn of_types_and_rules() {
    each(|place, container, version| {
        let good = place.model("good", version, &SIZES, |_, _| ());
        let line = |more: &[&str]| place.line(&good, container, &[more, &["--vocab", "bytes"]].concat());
        line(&["--type", "f61"]).leads_on("UnknownType");
        let stranger = TYPES.into_iter().find(|name| !has(container, name)).unwrap();
        line(&["--type", stranger]).leads_on("TypeNotCarried");
        line(&["--type", "f16", "--set", &format!("head={stranger}")]).refusal().unwrap();
        line(&["--type", "f16", "--set", "nothing=f16"]).leads_on("RuleMatchesNothing");
        if container.in_parts().is_none() {
            line(&["--type", "f16", "--split-size", "1M"]).leads_on("NotInParts");
        }
    });
}

#[test]
fn of_blocks() {
    each(|place, container, version| {
        let Some(encoding) = blocks(container) else { return };
        let odd = place.model("odd", version, &Sizes { ffn: 48, ..SIZES }, |_, _| ());
        place.line(&odd, container, &["--type", encoding, "--strict", "--vocab", "bytes"]).leads_on("BlockLength");
        let good = place.model("good", version, &SIZES, |_, _| ());
        let line = place.line(&good, container, &["--type", encoding, "--quantizer", "gptq", "--vocab", "bytes"]);
        match line.refusal() {
            Some(_) => line.leads_on("CalibrationNeeded"),
            None => assert!(container.name() != "gguf", "gptq needs a text"),
        }
        // Blocks of another kind than those of the source.
        let quantized = place.path("quantized.bin");
        json(&["convert", &good, "--to", "rwkv-cpp", "--type", "q8_0", "--no-verify", "-o", &quantized], 0);
        place.line(&quantized, container, &["--type", encoding, "--vocab", "bytes"]).leads_on("Requantize");
    });
}

#[test]
fn of_what_a_container_has_no_place_for() {
    each(|place, container, version| {
        let versions = [Version::V4, Version::V5_0, Version::V5_2, Version::V6, Version::V7];
        for other in versions.into_iter().filter(|version| container.carries(*version).is_err()) {
            let sizes = if other == Version::V4 { Sizes { head_size: SIZES.channels, ..SIZES } } else { SIZES };
            let source = place.model("other", other, &sizes, |_, _| ());
            place.line(&source, container, &["--type", "f16", "--vocab", "bytes"]).leads_on("CannotCarry");
        }
        if container.needs_head() {
            let tensors = random_model(version, &SIZES, 7).into_tensors().into_iter().filter(|tensor| tensor.info.name != "head.weight");
            let bare = place.path("bare.safetensors");
            std::fs::write(&bare, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
            place.line(&bare, container, &["--type", "f16", "--vocab", "bytes"]).leads_on("HeadMissing");
        }
    });
}

#[test]
fn of_vocabularies() {
    each(|place, container, version| {
        let good = place.model("good", version, &SIZES, |_, _| ());
        let mut line = place.line(&good, container, &["--type", "f16"]);
        if container.needs_vocabulary() {
            // The file is one that fits the model.
            let list: String = (1..256u32).map(|id| format!("{id} b'\\x{id:02x}' 1\n")).collect();
            line.vocabulary = place.path("bytes.txt");
            std::fs::write(&line.vocabulary, list).unwrap();
            line.leads_on("VocabularyNeeded");
        }
        let wide = place.model("wide", version, &Sizes { vocabulary: 1024, ..SIZES }, |_, _| ());
        let line = place.line(&wide, container, &["--type", "f16", "--vocab", "bytes"]);
        match line.refusal() {
            Some(_) => {
                let (kind, message) = line.refusal().unwrap();
                assert_eq!(kind, "VocabularyTooSmall", "{message}");
                line.after(&Step::Give(vec![("--pad-vocabulary".to_owned(), None)])).arrives(0).unwrap();
            }
            None => assert!(!container.needs_vocabulary(), "{} carries tokens", container.name()),
        }
    });
    assert!(vocab().exists());
}

#[test]
fn of_adapters() {
    each(|place, container, version| {
        let mut random = SplitMix64::new(9);
        let mut half = |name: &str, shape: [u64; 2]| {
            (format!("blocks.0.att.key.lora_{name}"), shape.to_vec(), (0..512).map(|_| 0.01 * random.normal()).collect())
        };
        let pairs = vec![half("A", [4, 128]), half("B", [128, 4])];
        let (lora, own) = (place.path("lora.safetensors"), place.path("own.safetensors"));
        std::fs::write(&lora, MemorySource::from_f32(pairs.clone()).to_safetensors()).unwrap();
        let all = random_model(version, &SIZES, 7).into_tensors().into_iter().chain(MemorySource::from_f32(pairs).into_tensors());
        std::fs::write(&own, MemorySource::from_tensors(all).to_safetensors()).unwrap();
        let good = place.model("good", version, &SIZES, |_, _| ());
        let plain = ["--type", "f16", "--vocab", "bytes"];
        place.line(&good, container, &[&plain[..], &["--lora", &lora]].concat()).leads_on("LoraAlphaMissing");
        place.line(&own, container, &plain).leads_on("UnmergedLora");
        let mut unused = place.line(&good, container, &[&plain[..], &["--lora-alpha", "4"]].concat());
        unused.vocabulary.clone_from(&lora);
        unused.leads_on("LoraAlphaUnused");
    });
}

/// A plan names no option that it has not: the file that it asks for is made as it says, and planned.
#[test]
fn of_a_plan_of_what_is_quantized() {
    let place = Place::new();
    let (quantized, dense) = (place.path("quantized.bin"), place.path("dense.safetensors"));
    let vocabulary = vocab().to_str().unwrap().to_owned();
    json(&["convert", checkpoint("7").to_str().unwrap(), "--to", "rwkv-cpp", "--type", "q8_0", "--no-verify", "-o", &quantized], 0);
    let plan =
        |source: &str, code| json(&["plan", source, "--max-kl", "1", "--vocab", &vocabulary, "--probe-windows", "1", "--dry-run"], code);
    let refused = plan(&quantized, 2);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(refused["error"]["kind"] == "Requantize" && !message.contains("--requantize"), "{message}");
    let command = message.split('`').nth(1).unwrap().replace("SOURCE", &quantized).replace("FILE", &dense);
    let args: Vec<&str> = command.split(' ').skip(1).collect();
    json(&args, 0);
    plan(&dense, 0);
}
