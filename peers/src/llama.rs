//! llama.cpp: the converted fixtures, both runtimes on the very same file, token by token.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::agreement::{Agreement, BOUNDS, Bound};
use crate::npy::{self, Matrix};
use crate::synthetic;
use crate::table::Fact;
use crate::tools::{self, capture, forge};

const MODELS: &[&str] = &["tiny-rwkv6", "tiny-rwkv7"];

/// Tokens of the oracles' text that both runtimes read.
const TOKENS: usize = 256;

/// How llama.cpp multiplies: with matrices rearranged for the processor, its default, or kept as the file has them.
const PATHS: [&str; 2] = ["default", "plain"];

/// llama.cpp's logits of one file by one of its paths.
struct Theirs {
    path: &'static str,
    logits: Matrix,
}

/// One file, or one pair of files that must not agree.
struct Row {
    model: &'static str,
    encoding: &'static str,
    /// The type of the file that llama.cpp was given instead, in a row that shows that the bound can fail.
    planted: Option<&'static str>,
    path: &'static str,
    agreement: Agreement,
    failures: Vec<String>,
}

impl Row {
    fn new(
        model: &'static str,
        encoding: &'static str,
        bound: &'static Bound,
        planted: Option<&'static str>,
        ours: &Matrix,
        theirs: &Theirs,
    ) -> Result<Self, String> {
        let agreement = Agreement::between(ours, &theirs.logits).map_err(|error| format!("{model}, {encoding}: {error}"))?;
        Ok(Self { model, encoding, planted, path: theirs.path, failures: agreement.failures(bound), agreement })
    }

    fn passed(&self) -> bool {
        self.failures.is_empty() != self.planted.is_some()
    }

    fn verdict(&self) -> String {
        match (self.planted, self.passed()) {
            (None, true) => "within bounds".to_owned(),
            (None, false) => format!("FAILED: {}", self.failures.join("; ")),
            (Some(_), true) => "refused, as it must be".to_owned(),
            (Some(_), false) => "FAILED: the bounds let a wrong file pass".to_owned(),
        }
    }
}

/// All comparisons with llama.cpp.
pub struct Report {
    llama: String,
    rows: Vec<Row>,
    tokenizers: Vec<Tokenizer>,
    /// What llama.cpp makes of the chat template in the files.
    chats: Vec<Fact>,
}

/// How llama.cpp tokenizes the oracles' text with the vocabulary in one of our files.
struct Tokenizer {
    model: &'static str,
    /// Ids at the beginning of the text that are the official tokenizer's.
    equal: usize,
    /// Ids that the official tokenizer's fixture has.
    all: usize,
}

/// Builds what is missing, converts, runs both runtimes and compares.
pub fn run() -> Result<Report, String> {
    let root = tools::root()?;
    let work = root.join("peers/.work/llama");
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let llama = build_llama(&root, &[])?;
    let dumper = compile(&root, &work, &llama, "logits", &[])?;
    let setup = Setup { forge: forge(&root)?, dumper, tokens: tokens(&root, &work)?, root, work };
    let small = setup.root.join("fixtures/checkpoints/vocab-320.txt");

    let (mut rows, mut tokenizers) = (Vec::new(), Vec::new());
    for model in MODELS {
        let source = setup.root.join(format!("fixtures/checkpoints/{model}.pth"));
        let logits = BOUNDS.iter().map(|bound| setup.logits(model, &source, &small, bound.encoding)).collect::<Result<Vec<_>, _>>()?;
        for (bound, (ours, theirs)) in BOUNDS.iter().zip(&logits) {
            for theirs in theirs {
                rows.push(Row::new(model, bound.encoding, bound, None, ours, theirs)?);
            }
        }
        tokenizers.push(setup.tokenizer(model)?);
        // Each bound must tell a file from another type's, else it would prove nothing about the file.
        for (bound, (ours, _)) in BOUNDS.iter().zip(&logits) {
            let planted = BOUNDS.iter().position(|other| other.encoding == bound.planted).ok_or("a planted type without bounds")?;
            for theirs in &logits[planted].1 {
                rows.push(Row::new(model, bound.encoding, bound, Some(bound.planted), ours, theirs)?);
            }
        }
    }
    let random = setup.work.join("random-rwkv6.safetensors");
    synthetic::rwkv6(&random)?;
    setup.presets("random-rwkv6", [&random, &small], &RANDOM, &mut rows)?;
    let data = setup.root.join("../shared/data/checkpoints");
    let (trained, vocabulary) = (data.join("small-rwkv7.pth"), data.join("vocab-4096.txt"));
    if trained.exists() {
        setup.presets("small-rwkv7", [&trained, &vocabulary], &TRAINED, &mut rows)?;
    } else {
        eprintln!("note: {} is not there, so presets are compared on the random RWKV-6 alone", trained.display());
    }
    let chats = crate::chat::facts(&setup.root, &setup.work, &llama, &setup.work.join(format!("{}-f32.gguf", MODELS[0])))?;
    Ok(Report { llama: version(&llama), rows, tokenizers, chats })
}

/// Presets whose blocks of 256 values do not fit into the fixtures' rows, and the type whose file is the planted fault.
const PRESETS: &[&str] = &["q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs"];
const PLANTED_PRESET: &str = "q4_0";

/// A random network passes on more of a difference than a trained one.
static RANDOM: Bound = Bound {
    encoding: "presets, random weights",
    // One token of IQ4_XS is off by 3.5, with nothing remarkable about the rest: the other measures have to tell.
    max_abs: 10.0,
    rms_ratio: 7e-2,
    top1: 0.9,
    kl_mean: 1.2e-2,
    why: "ggml rounds activations to 8-bit integers, as above, and the weights are random",
    planted: PLANTED_PRESET,
};

/// The same for a trained RWKV-7 of 12 layers.
static TRAINED: Bound = Bound {
    encoding: "presets, 12 trained layers",
    max_abs: 1.5,
    rms_ratio: 1.8e-2,
    top1: 0.93,
    kl_mean: 2.5e-3,
    why: "ggml rounds activations to 8-bit integers, as above, in four times as many layers",
    planted: PLANTED_PRESET,
};

struct Setup {
    root: PathBuf,
    work: PathBuf,
    forge: PathBuf,
    dumper: PathBuf,
    tokens: PathBuf,
}

impl Setup {
    /// Our logits and llama.cpp's, one for each of [`PATHS`], of one converted file.
    fn logits(&self, model: &str, source: &Path, vocabulary: &Path, encoding: &str) -> Result<(Matrix, Vec<Theirs>), String> {
        let file = |extension: &str| self.work.join(format!("{model}-{encoding}.{extension}"));
        let (gguf, ours) = (file("gguf"), file("npy"));
        let forge = || {
            let mut command = Command::new(&self.forge);
            command.arg("--quiet");
            command
        };
        let convert = ["--to", "gguf", "--type", encoding, "--force", "--no-verify"];
        capture(forge().arg("convert").arg(source).args(convert).arg("--vocab").arg(vocabulary).arg("-o").arg(&gguf))?;
        capture(forge().arg("logits").arg(&gguf).arg("--tokens").arg(&self.tokens).arg("--force").arg("-o").arg(&ours))?;
        let theirs = |path: &'static str| {
            let out = file(&format!("{path}.f32"));
            capture(Command::new(&self.dumper).arg(&gguf).arg(&self.tokens).arg(&out).arg(path))?;
            Ok(Theirs { path, logits: Matrix::from_raw(&out, TOKENS)? })
        };
        Ok((Matrix::from_npy(&ours)?, PATHS.into_iter().map(theirs).collect::<Result<_, String>>()?))
    }

    /// The presets on a checkpoint whose rows have whole blocks, and its vocabulary.
    fn presets(&self, model: &'static str, files: [&Path; 2], bound: &'static Bound, rows: &mut Vec<Row>) -> Result<(), String> {
        let [source, vocabulary] = files;
        let (_, wrong) = self.logits(model, source, vocabulary, PLANTED_PRESET)?;
        for preset in PRESETS {
            let (ours, theirs) = self.logits(model, source, vocabulary, preset)?;
            for theirs in &theirs {
                rows.push(Row::new(model, preset, bound, None, &ours, theirs)?);
            }
            for theirs in &wrong {
                rows.push(Row::new(model, preset, bound, Some(PLANTED_PRESET), &ours, theirs)?);
            }
        }
        Ok(())
    }

    /// llama.cpp's ids of the whole text against the official ones of its beginning.
    fn tokenizer(&self, model: &'static str) -> Result<Tokenizer, String> {
        let gguf = self.work.join(format!("{model}-f32.gguf"));
        let text = self.root.join("fixtures/text/public-domain-100k.txt");
        let output = capture(Command::new(&self.dumper).arg("--tokenize").arg(gguf).arg(text))?;
        let ids: Vec<u16> = serde_json::from_str(&output).map_err(|error| format!("the ids of {model}: {error}"))?;
        let official = npy::tokens(&self.root.join("fixtures/oracles/tokens-320.npy"))?;
        let equal = ids.iter().zip(&official).take_while(|(id, official)| id == official).count();
        Ok(Tokenizer { model, equal, all: official.len() })
    }
}

/// The folder of a built llama.cpp with these of its programs; builds what there is not.
pub fn build_llama(root: &Path, programs: &[&str]) -> Result<PathBuf, String> {
    let mut command = Command::new(root.join("peers/llama/build.sh"));
    Ok(PathBuf::from(capture(command.args(programs).stderr(Stdio::inherit()))?.trim()))
}

/// The program of `llama/NAME.cpp`, compiled anew when it is older than its source or was linked with another libllama. `more` are
/// sources of llama.cpp's programs, which are in no library.
pub fn compile(root: &Path, work: &Path, llama: &Path, name: &str, more: &[&str]) -> Result<PathBuf, String> {
    let source = root.join(format!("peers/llama/{name}.cpp"));
    let (binary, stamp) = (work.join(name), work.join(format!("{name}.linked-with")));
    let library = llama.join("build/bin");
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let linked_with = std::fs::read_to_string(&stamp).unwrap_or_default();
    if linked_with == library.to_string_lossy() && changed(&binary) > changed(&source) {
        return Ok(binary);
    }
    let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
    compiler.args(["-O2", "-std=c++17", "-Wall", "-Wextra"]).arg(&source).arg("-o").arg(&binary);
    compiler.args(more.iter().map(|source| llama.join(source)));
    for include in ["include", "ggml/include", "common", "vendor"] {
        compiler.arg("-I").arg(llama.join(include));
    }
    compiler.arg("-L").arg(&library).args(["-lllama", "-lggml", "-lggml-base"]).arg(format!("-Wl,-rpath,{}", library.display()));
    capture(&mut compiler)?;
    std::fs::write(&stamp, library.to_string_lossy().as_bytes()).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(binary)
}

/// A JSON file with the first [`TOKENS`] ids of the oracles' text.
fn tokens(root: &Path, work: &Path) -> Result<PathBuf, String> {
    let ids = npy::tokens(&root.join("fixtures/oracles/tokens-320.npy"))?;
    let ids = ids.get(..TOKENS).ok_or("too few tokens in the fixture")?;
    let path = work.join("tokens.json");
    std::fs::write(&path, json!(ids).to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// What the report calls the peer: the package that the source came in, or the folder that was given.
fn version(llama: &Path) -> String {
    let package = llama.components().find_map(|part| part.as_os_str().to_str().filter(|name| name.starts_with("llama_cpp_python-")));
    package.map_or_else(|| "a build given by LLAMA_CPP_DIR".to_owned(), |package| format!("the source in {package}"))
}

impl Report {
    /// Whether every file is within its bounds and every planted fault outside.
    pub fn passed(&self) -> bool {
        let tokenizers = self.tokenizers.iter().all(|tokenizer| tokenizer.equal == tokenizer.all);
        self.rows.iter().all(Row::passed) && tokenizers && self.chats.iter().all(|fact| fact.passed)
    }

    /// A table for people.
    pub fn markdown(&self) -> String {
        let mut text =
            format!("llama.cpp ({}), token by token, {TOKENS} tokens, 1 thread; both runtimes read the same file.\n\n", self.llama);
        text += "| model | file | given to llama.cpp | its path | max abs difference | rms ratio | top-1 | KL mean | KL max | |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let (a, encoding) = (row.agreement, row.encoding);
            let given = row.planted.map_or("the same".to_owned(), |planted| format!("{planted} (planted)"));
            text += &format!("| {} | {encoding} | {given} | {} | {:.2e} | {:.2e} | ", row.model, row.path, a.max_abs, a.rms_ratio);
            text += &format!("{:.4} | {:.2e} | {:.2e} | {} |\n", a.top1, a.kl_mean, a.kl_max, row.verdict());
        }
        for Tokenizer { model, equal, all } in &self.tokenizers {
            text += &format!(
                "\n{model}: llama.cpp's tokenizer with the vocabulary in the file gives {equal} of {all} ids as the official one.\n"
            );
        }
        text += "\n| chat template in the files | found | |\n|---|---|---|\n";
        for Fact { what, found, passed } in &self.chats {
            text += &format!("| {what} | {found} | {} |\n", if *passed { "as it must be" } else { "FAILED" });
        }
        text += "\nBounds:\n\n| file | max abs difference | rms ratio | top-1 | KL mean | because |\n|---|---|---|---|---|---|\n";
        for bound in BOUNDS.iter().chain([&RANDOM, &TRAINED]) {
            text += &format!(
                "| {} | {:.1e} | {:.1e} | {:.2} | {:.1e} | {} |\n",
                bound.encoding, bound.max_abs, bound.rms_ratio, bound.top1, bound.kl_mean, bound.why
            );
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> String {
        let row = |row: &Row| {
            json!({
                "model": row.model, "type": row.encoding, "planted": row.planted, "path": row.path, "tokens": row.agreement.tokens,
                "max_abs": row.agreement.max_abs, "rms_ratio": row.agreement.rms_ratio, "top1": row.agreement.top1,
                "clear_flips": row.agreement.clear_flips, "kl_mean": row.agreement.kl_mean, "kl_max": row.agreement.kl_max,
                "failures": row.failures, "passed": row.passed(),
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let tokenizers: Vec<_> = self.tokenizers.iter().map(|t| json!({ "model": t.model, "equal_ids": t.equal, "ids": t.all })).collect();
        let chats: Vec<_> = self.chats.iter().map(|f| json!({ "what": f.what, "found": f.found, "passed": f.passed })).collect();
        let report = json!({
            "schema_version": 1, "peer": "llama.cpp", "build": self.llama, "passed": self.passed(), "rows": rows, "tokenizers": tokenizers,
            "chats": chats,
        });
        format!("{report:#}\n")
    }
}
