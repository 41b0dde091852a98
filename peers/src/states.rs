//! Tuned initial states in llama.cpp: it loads the sessions and sequences that `state` writes, and what it computes from there is what
//! `logits --state` computes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agreement::BOUNDS;
use crate::llama::{build_llama, compile};
use crate::npy::Matrix;
use crate::table::{Fact, Report, Row};
use crate::tools::{Workshop, capture};

/// Tokens that both read.
const TOKENS: usize = 256;

/// The fixtures that llama.cpp runs, and the version whose order is the other one.
const MODELS: [(u8, &str, &str); 2] = [(6, "6", "7"), (7, "7", "6")];

/// Formats, and how `llama/logits.cpp` calls them.
const FORMATS: [(&str, &str); 2] = [("llama-session", "session"), ("llama-seq", "sequence")];

struct Setup {
    shop: Workshop,
    dumper: PathBuf,
    state: PathBuf,
}

/// Converts the fixtures and the state, starts both runtimes from it, and compares.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("states", TOKENS)?;
    let llama = build_llama(&shop.root, &[])?;
    let dumper = compile(&shop.root, &shop.work, &llama, "logits", &[])?;
    let state = shop.root.join("fixtures/states/tiny-state.pth");
    let setup = Setup { shop, dumper, state };
    let (mut rows, mut facts) = (Vec::new(), Vec::new());
    for (number, version, other) in MODELS {
        setup.compare(number, version, other, &mut rows, &mut facts)?;
    }
    Ok(Report {
        peer: "llama.cpp".to_owned(),
        about: format!("{TOKENS} tokens from a random initial state, one at a time, 1 thread; both runtimes read the same GGUF file."),
        rows,
        facts,
        bounds: BOUNDS.first().into_iter().collect(),
        remarks: Vec::new(),
    })
}

impl Setup {
    fn compare(&self, number: u8, version: &str, other: &str, rows: &mut Vec<Row>, facts: &mut Vec<Fact>) -> Result<(), String> {
        let bound = BOUNDS.first().ok_or("no bounds for f32")?;
        let name = format!("tiny-rwkv{version}");
        let gguf = self.gguf(number, &name)?;
        let ours = self.ours(&gguf)?;
        let row = |encoding: &str, theirs: &Matrix| Row::new([&name, encoding, "plain"], "gguf", bound, &ours, theirs);
        for (format, kind) in FORMATS {
            let theirs = self.theirs(&gguf, Some((kind, &self.written(format, version)?)))?;
            rows.push(row(format, &theirs)?);
        }
        rows.push(row("no state", &self.theirs(&gguf, None)?)?.planted("llama.cpp starts from zeros"));
        let swapped = self.written("llama-seq", other)?;
        rows.push(row("llama-seq", &self.theirs(&gguf, Some(("sequence", &swapped)))?)?.planted("the order of the other version"));
        let session = self.written("llama-session", other)?;
        let refused = self.theirs(&gguf, Some(("session", &session))).is_err();
        facts.push(Fact {
            what: format!("{name}: a session of RWKV-{other}"),
            found: if refused { "llama.cpp refuses it" } else { "llama.cpp loads it" }.to_owned(),
            passed: refused,
        });
        Ok(())
    }

    fn gguf(&self, number: u8, name: &str) -> Result<PathBuf, String> {
        let (gguf, vocabulary) = (self.shop.work.join(format!("{name}.gguf")), self.shop.root.join("fixtures/checkpoints/vocab-320.txt"));
        let mut convert = Command::new(&self.shop.forge);
        convert.args(["--quiet", "convert"]).arg(self.shop.fixture(number)).args(["--to", "gguf", "--type", "f32", "--force"]);
        capture(convert.args(["--no-verify", "--vocab"]).arg(vocabulary).arg("-o").arg(&gguf))?;
        Ok(gguf)
    }

    /// The state in a format of llama.cpp, in the order of a version.
    fn written(&self, format: &str, version: &str) -> Result<PathBuf, String> {
        let out = self.shop.work.join(format!("{format}-{version}.bin"));
        let mut state = Command::new(&self.shop.forge);
        state.args(["--quiet", "state"]).arg(&self.state).args(["--to", format, "--model-version", version, "--force", "-o"]);
        capture(state.arg(&out))?;
        Ok(out)
    }

    fn ours(&self, gguf: &Path) -> Result<Matrix, String> {
        let out = self.shop.work.join("ours.npy");
        let mut logits = Command::new(&self.shop.forge);
        logits.args(["--quiet", "logits"]).arg(gguf).arg("--state").arg(&self.state).arg("--tokens").arg(&self.shop.tokens);
        capture(logits.args(["--force", "-o"]).arg(&out))?;
        Matrix::from_npy(&out)
    }

    fn theirs(&self, gguf: &Path, state: Option<(&str, &Path)>) -> Result<Matrix, String> {
        let out = self.shop.work.join("theirs.f32");
        let mut dump = Command::new(&self.dumper);
        dump.arg(gguf).arg(&self.shop.tokens).arg(&out).arg("plain");
        if let Some((kind, path)) = state {
            dump.arg(kind).arg(path);
        }
        capture(&mut dump)?;
        Matrix::from_raw(&out, TOKENS)
    }
}
