//! Presets: what `convert --type NAME` writes against what llama.cpp's own quantizer writes from the same f16 file, tensor by
//! tensor, byte for byte; and the time that both take.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::llama::{build_llama, compile};
use crate::tools::{self, capture, forge};

/// Names of our presets with llama.cpp's numbers of file types.
const PRESETS: &[(&str, u32)] = &[
    ("f16", 1),
    ("q4_0", 2),
    ("q4_1", 3),
    ("q8_0", 7),
    ("q5_0", 8),
    ("q5_1", 9),
    ("q2_k", 10),
    ("q3_k_s", 11),
    ("q3_k_m", 12),
    ("q3_k_l", 13),
    ("q4_k_s", 14),
    ("q4_k_m", 15),
    ("q5_k_s", 16),
    ("q5_k_m", 17),
    ("q6_k", 18),
    ("iq4_nl", 25),
    ("iq4_xs", 30),
];

/// A source model for the comparison.
struct Source {
    name: String,
    path: PathBuf,
    vocabulary: Option<PathBuf>,
}

struct Row {
    model: String,
    preset: &'static str,
    tensors: usize,
    /// Names of tensors that differ in type or content.
    different: Vec<String>,
    /// Seconds of reading, quantizing and writing, digest of the source included.
    working: f64,
    /// Seconds of the whole process, flush to disk included.
    whole: f64,
    /// Seconds of llama.cpp's call, which does not flush.
    theirs: f64,
}

/// The comparison of all presets.
pub struct Report {
    threads: usize,
    rows: Vec<Row>,
}

/// Runs the comparison: on the fixtures (whose rows are too short for 256-element blocks, so that the stand-ins are
/// seen), and on `model` if one is given (rows of whole blocks; the speeds mean something when it is large).
pub fn run(model: Option<&Path>, vocabulary: Option<&Path>) -> Result<Report, String> {
    let root = tools::root()?;
    let work = root.join("peers/.work/presets");
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let llama = build_llama(&root, &[])?;
    let quantize = compile(&root, &work, &llama, "quantize", &[])?;
    let forge = forge(&root)?;
    let fixtures = root.join("fixtures/checkpoints");
    let mut sources: Vec<Source> = ["tiny-rwkv6", "tiny-rwkv7"]
        .iter()
        .map(|name| Source {
            name: (*name).to_owned(),
            path: fixtures.join(format!("{name}.pth")),
            vocabulary: Some(fixtures.join("vocab-320.txt")),
        })
        .collect();
    if let Some(path) = model {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sources.push(Source { name, path: path.to_owned(), vocabulary: vocabulary.map(Path::to_owned) });
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = Vec::new();
    for source in &sources {
        let float = work.join(format!("{}-f16.gguf", source.name));
        convert(&forge, &source.path, source.vocabulary.as_deref(), "f16", &float)?;
        for (preset, number) in PRESETS {
            rows.push(compare(&forge, &quantize, source, &float, preset, *number, threads, &work)?);
        }
    }
    Ok(Report { threads, rows })
}

/// Converts, and returns the seconds of reading, quantizing and writing.
fn convert(forge: &Path, source: &Path, vocabulary: Option<&Path>, encoding: &str, out: &Path) -> Result<f64, String> {
    let mut command = Command::new(forge);
    command
        .args(["--quiet", "--json", "convert"])
        .arg(source)
        .args(["--to", "gguf", "--type", encoding, "--force", "--no-verify", "-o"])
        .arg(out);
    if let Some(vocabulary) = vocabulary {
        command.arg("--vocab").arg(vocabulary);
    }
    let document: Value = serde_json::from_str(&capture(&mut command)?).map_err(|error| format!("the record: {error}"))?;
    document["record"]["write_seconds"].as_f64().ok_or_else(|| "the record has no write_seconds".to_owned())
}

#[allow(clippy::too_many_arguments, reason = "one call site; a struct would only repeat the names")]
fn compare(
    forge: &Path,
    quantize: &Path,
    source: &Source,
    float: &Path,
    preset: &'static str,
    number: u32,
    threads: usize,
    work: &Path,
) -> Result<Row, String> {
    let (ours, theirs) = (work.join("ours.gguf"), work.join("theirs.gguf"));
    let seconds = capture(Command::new(quantize).arg(float).arg(&theirs).args([number.to_string(), threads.to_string()]))?;
    let started = Instant::now();
    let working = convert(forge, float, source.vocabulary.as_deref(), preset, &ours)?;
    let whole = started.elapsed().as_secs_f64();
    let (ours, theirs) = (tensors(forge, &ours)?, tensors(forge, &theirs)?);
    let mut different: Vec<String> = Vec::new();
    for (name, content) in &theirs {
        if !ours.iter().any(|(other, same)| other == name && same == content) {
            different.push(name.clone());
        }
    }
    different.extend(ours.iter().filter(|(name, _)| !theirs.iter().any(|(other, _)| other == name)).map(|(name, _)| name.clone()));
    let theirs_seconds = seconds.trim().parse().map_err(|error| format!("seconds of the quantizer: {error}"))?;
    Ok(Row { model: source.name.clone(), preset, tensors: theirs.len(), different, working, whole, theirs: theirs_seconds })
}

/// Name, and type, shape and digest of each tensor of a file.
fn tensors(forge: &Path, file: &Path) -> Result<Vec<(String, String)>, String> {
    let output = capture(Command::new(forge).args(["--json", "inspect", "--hashes"]).arg(file))?;
    let document: Value = serde_json::from_str(&output).map_err(|error| format!("{}: {error}", file.display()))?;
    let list = document["tensors"].as_array().ok_or("inspect printed no tensors")?;
    Ok(list
        .iter()
        .map(|tensor| (tensor["name"].to_string(), format!("{} {} {}", tensor["type"], tensor["shape"], tensor["sha256"])))
        .collect())
}

impl Report {
    /// Whether all tensors of all files are equal.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.different.is_empty() && row.tensors > 0)
    }

    /// A table for people.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Our presets against llama.cpp's quantizer, both from the same f16 GGUF, {} threads. Seconds are of reading, quantizing\n\
             and writing (with ours the digest of the source too); \"flushed\" is our whole process until the data is on the disk.\n\n\
             | model | preset | tensors | different | llama.cpp, s | ours, s | ratio | flushed, s |\n|---|---|---|---|---|---|---|---|\n",
            self.threads
        );
        for row in &self.rows {
            let different =
                if row.different.is_empty() { "none".to_owned() } else { format!("{}: {}", row.different.len(), row.different[0]) };
            text += &format!(
                "| {} | {} | {} | {different} | {:.2} | {:.2} | {:.1} | {:.2} |\n",
                row.model,
                row.preset,
                row.tensors,
                row.theirs,
                row.working,
                row.theirs / row.working,
                row.whole
            );
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> String {
        let row = |row: &Row| {
            json!({ "model": row.model, "preset": row.preset, "tensors": row.tensors, "different": row.different,
                    "llama_seconds": row.theirs, "our_seconds": row.working, "our_seconds_flushed": row.whole })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        format!(
            "{:#}\n",
            json!({ "schema_version": 1, "peer": "llama.cpp quantizer", "passed": self.passed(), "threads": self.threads, "rows": rows })
        )
    }
}
