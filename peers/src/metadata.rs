//! Metadata: what our GGUF files say against what llama.cpp's quantizer and its converter say in theirs, key by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::llama::{build_llama, compile};
use crate::table::{Fact, Report};
use crate::tools::{Workshop, capture};

/// What says how the tensors are stored, and so is another in a file of another type.
const OF_THE_TYPE: &[&str] = &["general.file_type", "general.quantization_version"];

/// What llama.cpp's converter takes from the name of the folder, and counts in a way of its own. We say a name where the source says one.
const OF_THE_CONVERTER: &[&str] = &["general.name", "general.size_label"];

/// Key and digest of the value.
type Keys = BTreeMap<String, String>;

struct Peer {
    shop: Workshop,
    llama: PathBuf,
    python: PathBuf,
}

/// Runs the comparison.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("metadata", 1)?;
    let llama = build_llama(&shop.root, &[])?;
    let setup = shop.root.join("peers/python/setup.sh");
    let python = PathBuf::from(capture(Command::new(setup).stderr(Stdio::inherit()))?.trim());
    let quantize = compile(&shop.root, &shop.work, &llama, "quantize", &[])?;
    let peer = Peer { shop, llama, python };
    let mut facts = Vec::new();
    for version in [6, 7] {
        peer.quantized(version, &quantize, &mut facts)?;
    }
    peer.converted(&mut facts)?;
    Ok(Report {
        peer: "llama.cpp's quantizer and converter".to_owned(),
        about: "Every key of the metadata, by type and value.".to_owned(),
        rows: Vec::new(),
        facts,
        bounds: Vec::new(),
        remarks: Vec::new(),
    })
}

impl Peer {
    fn script(&self, command: &str, arguments: &[&Path]) -> Result<String, String> {
        let mut python = Command::new(&self.python);
        python.env("PYTHONPATH", self.llama.join("gguf-py"));
        capture(python.arg(self.shop.root.join("peers/llama/metadata.py")).arg(command).args(arguments))
    }

    fn keys(&self, file: &Path) -> Result<Keys, String> {
        let text = self.script("keys", &[file])?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// A published GGUF through the quantizer and through us.
    fn quantized(&self, version: u8, quantize: &Path, facts: &mut Vec<Fact>) -> Result<(), String> {
        let name = format!("tiny-rwkv{version}");
        let work = &self.shop.work;
        let vocabulary = self.shop.root.join("fixtures/checkpoints/vocab-320.txt");
        let plain = work.join(format!("{name}-f16.gguf"));
        self.convert(&self.shop.fixture(version), "f16", &["--vocab".as_ref(), &vocabulary], &plain)?;
        let source = work.join(format!("{name}-published.gguf"));
        self.script("publish", &[&plain, &source])?;
        let said = self.keys(&source)?;
        let theirs = work.join(format!("{name}-theirs.gguf"));
        capture(Command::new(quantize).arg(&source).arg(&theirs).args(["7", "1"]))?;
        let lost = different(&said, &self.keys(&theirs)?, OF_THE_TYPE);
        facts.push(fact(format!("{name}, llama.cpp's quantizer, {} keys", said.len()), lost));
        let ours = work.join(format!("{name}-ours.gguf"));
        self.convert(&source, "q8_0", &[], &ours)?;
        let lost = different(&said, &self.keys(&ours)?, OF_THE_TYPE);
        facts.push(fact(format!("{name}, ours, {} keys", said.len()), lost));
        self.convert(&source, "f16", &[], &ours)?;
        let lost = different(&said, &self.keys(&ours)?, &[]);
        facts.push(fact(format!("{name}, ours of the same type, {} keys", said.len()), lost));
        let planted = work.join(format!("{name}-planted.gguf"));
        self.script("drop", &[&ours, &planted, "general.author".as_ref()])?;
        let lost = different(&said, &self.keys(&planted)?, &[]);
        let passed = lost == ["general.author"];
        facts.push(Fact {
            what: format!("{name}, planted: a file without its author"),
            found: format!("missing: {}", lost.join(", ")),
            passed,
        });
        Ok(())
    }

    /// A directory of Hugging Face's through the converter and through us.
    fn converted(&self, facts: &mut Vec<Fact>) -> Result<(), String> {
        let directory = self.shop.convert(&self.shop.fixture(7), "hf", "f32", "tiny-rwkv7-hf")?;
        let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
        // The converter wants the vocabulary by World's name, and has end of text and of a turn of its own.
        let vocabulary = self.shop.root.join("fixtures/checkpoints/vocab-320.txt");
        std::fs::copy(vocabulary, directory.join("rwkv_vocab_v20230424.txt")).map_err(failed)?;
        let template = "{% for m in messages %}{{ m['content'] }}\n\n{% endfor %}";
        std::fs::write(directory.join("chat_template.jinja"), template).map_err(failed)?;
        // Without this file the converter looks at no template.
        std::fs::write(directory.join("tokenizer_config.json"), "{\"tokenizer_class\": \"RwkvTokenizer\"}").map_err(failed)?;
        let theirs = self.shop.work.join("converter.gguf");
        let mut command = Command::new(&self.python);
        command.arg(self.llama.join("convert_hf_to_gguf.py")).arg(&directory).args(["--outtype", "f32", "--outfile"]).arg(&theirs);
        capture(&mut command)?;
        let ours = self.shop.work.join("ours-of-hf.gguf");
        self.convert(&directory, "f32", &["--meta".as_ref(), "tokenizer.ggml.eot_token_id=261".as_ref()], &ours)?;
        let (theirs, ours) = (self.keys(&theirs)?, self.keys(&ours)?);
        let lost = different(&theirs, &ours, OF_THE_CONVERTER);
        facts.push(fact(format!("a directory, ours against the converter's {} keys", theirs.len()), lost));
        let guessed: Vec<&str> = OF_THE_CONVERTER.iter().copied().filter(|key| theirs.get(*key) != ours.get(*key)).collect();
        let found = guessed.join(", ");
        facts.push(Fact { what: "a directory, what the converter guesses, and we do not".to_owned(), found, passed: true });
        Ok(())
    }

    fn convert(&self, source: &Path, encoding: &str, more: &[&Path], out: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.shop.forge);
        command.args(["--quiet", "--json", "convert"]).arg(source).args([
            "--to",
            "gguf",
            "--type",
            encoding,
            "--no-verify",
            "--force",
            "-o",
        ]);
        let record: Value = serde_json::from_str(&capture(command.arg(out).args(more))?).map_err(|error| format!("the record: {error}"))?;
        if record["output"].is_null() { Err(format!("{}: no output in the record", source.display())) } else { Ok(()) }
    }
}

/// Keys of the first that the second lacks or says differently.
fn different(first: &Keys, second: &Keys, but: &[&str]) -> Vec<String> {
    first
        .iter()
        .filter(|(key, value)| second.get(*key) != Some(*value) && !but.contains(&key.as_str()))
        .map(|(key, _)| key.clone())
        .collect()
}

fn fact(what: String, lost: Vec<String>) -> Fact {
    let passed = lost.is_empty();
    Fact { what, found: if passed { "all kept".to_owned() } else { format!("lost or changed: {}", lost.join(", ")) }, passed }
}
