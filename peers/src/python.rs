//! Python: AutoTokenizer on our `hf` and `hf-native` directories, Transformers' RWKV-4 and rwkv7-hf on our `hf` directories, the rwkv package on our `pth` files, and what `torch.load` and the safetensors package read from our files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::agreement::Bound;
use crate::plant::{ROWS_SWAPPED, swap_rows};
use crate::table::{Fact, Report, Row};
use crate::tools::{Workshop, capture};

const TOKENS: usize = 256;

/// All of these compute in float32 whatever the file holds, and so do we.
static BOUND: Bound = Bound {
    encoding: "f32, f16, bf16",
    max_abs: 1e-4,
    rms_ratio: 2e-6,
    top1: 1.0,
    kl_mean: 1e-11,
    why: "both turn the weights into float32, compute in it, and differ in the order of sums and in exp alone",
    planted: ROWS_SWAPPED,
};

/// What computes logits, as `check.py` calls it: container, version.
const PROGRAMS: &[(&str, &str, u8)] =
    &[("transformers", "hf", 4), ("rwkv7-hf", "hf", 7), ("rwkv4", "pth", 4), ("rwkv5", "pth", 5), ("rwkv6", "pth", 6), ("rwkv7", "pth", 7)];

/// A container that Python's libraries read.
struct Container {
    name: &'static str,
    /// For RWKV-4 to RWKV-7 the name of the form in `check.py`.
    forms: [&'static str; 4],
    encodings: &'static [&'static str],
}

const FLOATS: &[&str] = &["f32", "f16", "bf16"];
const CONTAINERS: &[Container] = &[
    Container { name: "pth", forms: ["blinkdl-pth"; 4], encodings: FLOATS },
    Container { name: "safetensors", forms: ["blinkdl"; 4], encodings: FLOATS },
    Container { name: "web-rwkv", forms: ["st"; 4], encodings: &["f16"] },
    Container { name: "hf", forms: ["hf4", "hf5", "hf6", "hf7"], encodings: FLOATS },
];

/// Of the published RWKV-7 files' tensors three are used by no runtime, and we leave them out.
const UNUSED: [&str; 3] = ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"];

/// Runs all comparisons.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("python", TOKENS)?;
    let folder = shop.root.join("peers/python");
    let python = PathBuf::from(capture(Command::new(folder.join("setup.sh")).stderr(Stdio::inherit()))?.trim());
    let peer = Peer { shop, python, script: folder.join("check.py") };
    let versions = capture(Command::new(&peer.python).arg(&peer.script).arg("versions"))?;
    let versions: Value = serde_json::from_str(&versions).map_err(|error| format!("versions: {error}"))?;
    let mut report = Report {
        peer: format!("Python: {}", versions.to_string().replace(['{', '}', '"'], "").replace(':', " ").replace(',', ", ")),
        about: format!("Token by token, {TOKENS} tokens, 1 thread; `torch.load(weights_only=True)` and safetensors tensor by tensor."),
        rows: Vec::new(),
        facts: Vec::new(),
        bounds: vec![&BOUND],
        remarks: vec![],
    };
    for container in ["hf", "hf-native"] {
        peer.tokenizers(container, &mut report.facts)?;
    }
    for (program, container, version) in PROGRAMS {
        peer.logits(program, container, *version, &mut report.rows)?;
    }
    for Container { name, forms, encodings } in CONTAINERS {
        for (version, form) in (4..).zip(forms) {
            for encoding in *encodings {
                peer.tensors(name, version, form, encoding, &mut report.facts)?;
            }
        }
    }
    Ok(report)
}

struct Peer {
    shop: Workshop,
    python: PathBuf,
    script: PathBuf,
}

impl Peer {
    fn script(&self) -> Command {
        let mut command = Command::new("nice");
        command.arg(&self.python).arg(&self.script);
        command
    }

    /// One program on files of each float type, and the same with a planted fault where a copy can have one.
    fn logits(&self, program: &str, container: &'static str, version: u8, rows: &mut Vec<Row>) -> Result<(), String> {
        let model = format!("tiny-rwkv{version}");
        let path = if container == "pth" { "the rwkv package, float32" } else { program };
        // The package normalises embeddings in the type of the file, all but RWKV-7's.
        let encodings = if container == "pth" && version < 7 { &["f32"] } else { FLOATS };
        for encoding in encodings {
            let file = self.shop.convert(&self.shop.fixture(version), container, encoding, &format!("{model}-{encoding}.{container}"))?;
            let ours = self.shop.logits(&file)?;
            let row = |file: &Path| -> Result<Row, String> {
                let theirs = self.shop.theirs(self.script().args(["logits", program]).arg(file).arg(&self.shop.tokens))?.0;
                Row::new([&model, encoding, path], container, &BOUND, &ours, &theirs)
            };
            rows.push(row(&file)?);
            if container == "hf" {
                let wrong = self.shop.work.join("planted.hf");
                let matrix = if version == 4 { "blocks.1.attention.output.weight" } else { "layers.1.attn.o_proj.weight" };
                swap_rows(&file, &wrong, matrix)?;
                rows.push(row(&wrong)?.planted(ROWS_SWAPPED));
            }
        }
        Ok(())
    }

    /// What AutoTokenizer makes of World and of the vocabulary of the fixtures, and whether an exchange of two tokens is found.
    fn tokenizers(&self, container: &str, facts: &mut Vec<Fact>) -> Result<(), String> {
        let root = &self.shop.root;
        let large = self.shop.work.join("world.safetensors");
        let sizes = ["--layers", "1", "--width", "256"];
        capture(Command::new(&self.python).arg(root.join("tools/synthetic.py")).arg(&large).args(sizes))?;
        let world = root.join("crates/tokenizer/data/rwkv_vocab_v20230424.txt");
        let tiny = root.join("fixtures/checkpoints/vocab-320.txt");
        for (name, source, vocabulary) in [("World", large, world), ("320 tokens", self.shop.fixture(7), tiny)] {
            let out = self.shop.work.join(format!("tokenizer.{container}"));
            let mut command = Command::new(&self.shop.forge);
            command.args(["--quiet", "convert"]).arg(source).args([
                "--to",
                container,
                "--type",
                "bf16",
                "--force",
                "--no-verify",
                "--vocab",
            ]);
            capture(command.arg(&vocabulary).args(["--chat", "world", "-o"]).arg(&out))?;
            let run = |plant: bool| -> Result<Value, String> {
                let mut command = Command::new("nice");
                command.arg(&self.python).arg(root.join("peers/python/tokenizer.py")).arg(&out).arg(&vocabulary);
                command.args(plant.then_some("--plant")).arg(root.join("crates/corpus/data/public-domain-100k.txt"));
                let texts = std::fs::read_dir(root.join("crates/corpus/data/calibration")).map_err(|error| error.to_string())?;
                let texts = texts.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "txt"));
                let output = capture(command.args(texts))?;
                let last = output.lines().last().unwrap_or_default();
                serde_json::from_str(last).map_err(|error| format!("{container}, {name}: {error}"))
            };
            let found = run(false)?;
            let is = |key: &str| found[key] == true;
            let same = found["different"].as_array().is_some_and(Vec::is_empty);
            let passed = same && is("back") && is("chat_ids") && is("stops") && is("saved");
            facts.push(Fact { what: format!("AutoTokenizer, {name}, {container}"), found: found.to_string(), passed });
            let planted = &run(true)?["different"];
            let passed = planted.as_array().is_some_and(|found| !found.is_empty());
            let what = format!("AutoTokenizer, {name}, {container}, two tokens of the list exchanged");
            facts.push(Fact { what, found: format!("different: {planted}"), passed });
        }
        Ok(())
    }

    /// Whether Python reads the very values of the source from a written file.
    fn tensors(&self, container: &str, version: u8, form: &str, encoding: &str, facts: &mut Vec<Fact>) -> Result<(), String> {
        let source = self.shop.fixture(version);
        let written = self.shop.convert(&source, container, encoding, &format!("tiny-rwkv{version}-{encoding}.{container}"))?;
        let compare = |plant: bool| -> Result<Value, String> {
            let mut command = self.script();
            command.arg("tensors").arg(&source).arg(form).arg(&written).args(plant.then_some("--plant"));
            let output = capture(&mut command)?;
            serde_json::from_str(&output).map_err(|error| format!("{container} {encoding}: {error}"))
        };
        let names = |found: &Value, key: &str| -> Vec<String> {
            found[key].as_array().into_iter().flatten().map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
        };
        let found = compare(false)?;
        let mut missing = names(&found, "missing");
        missing.retain(|name| !is_unused(name));
        let (different, extra, equal) = (names(&found, "different"), names(&found, "extra"), found["equal"].as_u64().unwrap_or(0));
        let types = names(&found, "types");
        let passed =
            different.is_empty() && missing.is_empty() && extra.is_empty() && equal > 0 && types.iter().any(|name| is_type(name, encoding));
        let reader = if container == "pth" { "torch.load" } else { "safetensors" };
        let mut text = format!("{equal} tensors equal bit for bit ({})", types.join(", "));
        for (what, list) in [("different", &different), ("missing", &missing), ("unknown", &extra)] {
            if let Some(first) = list.first() {
                text += &format!("; {} {what}, the first {first}", list.len());
            }
        }
        facts.push(Fact { what: format!("{reader}, tiny-rwkv{version}, {container} {encoding}"), found: text, passed });
        if encoding == "f16" {
            let planted = names(&compare(true)?, "different");
            let what = format!("{reader}, tiny-rwkv{version}, {container} {encoding}, one bit of the source turned");
            facts.push(Fact { what, found: format!("{} different", planted.len()), passed: planted.len() == 1 });
        }
        Ok(())
    }
}

/// Under BlinkDL's names or web-rwkv's, and under those of flash-linear-attention.
fn is_unused(name: &str) -> bool {
    UNUSED.contains(&name) || name.starts_with("model.layers.0.attn.v_lora.")
}

/// PyTorch's name of one of our types.
fn is_type(name: &str, encoding: &str) -> bool {
    matches!((name, encoding), ("float32", "f32") | ("float16", "f16") | ("bfloat16", "bf16"))
}
