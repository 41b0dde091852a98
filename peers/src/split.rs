//! Models in parts: ours against those of llama.cpp's gguf-split, byte for byte, and back into one file by its `--merge`; and whether llama.cpp
//! loads them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::llama::{build_llama, compile};
use crate::table::{Fact, Report};
use crate::tools::{self, Workshop, capture};

/// Bytes of tensors in a part; gguf-split takes whole millions.
const SIZE: (&str, &str) = ("1000000", "1M");
/// Keys by which a merged file differs from one that was never cut.
const SPLIT: &str = "split.";

/// Cuts the fixtures in both programs, and compares.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("split", 64)?;
    let llama = build_llama(&tools::root()?, &[])?;
    let cutter = compile(&shop.root, &shop.work, &llama, "split", &["tools/gguf-split/gguf-split.cpp"])?;
    let runner = compile(&shop.root, &shop.work, &llama, "logits", &[])?;
    let mut facts = Vec::new();
    for version in [6, 7] {
        let name = format!("tiny-rwkv{version}");
        let folder = |what: &str| fresh(&shop.work.join(format!("{name}-{what}")));
        let (ours, theirs) = (folder("ours")?, folder("theirs")?);
        let whole = convert(&shop, version, &shop.work.join(format!("{name}.gguf")), &[])?;
        convert(&shop, version, &ours.join("m.gguf"), &["--split-size", SIZE.0])?;
        capture(Command::new(&cutter).args(["--split", "--split-max-size", SIZE.1]).arg(&whole).arg(theirs.join("m")))?;
        let parts = names(&ours)?;
        let same = parts == names(&theirs)? && parts.len() > 1;
        facts.push(Fact { what: format!("{name}, f32: names of the parts"), found: parts.join(", "), passed: same });
        for part in &parts {
            let (ours, theirs) = (read(&ours.join(part))?, read(&theirs.join(part))?);
            facts.push(Fact::bytes(format!("{name}, {part} against gguf-split's"), &ours, &theirs, |different| different == 0));
        }
        let first = ours.join(&parts[0]);
        facts.push(merged(&shop, &cutter, &name, &first, &whole)?);
        // What llama.cpp computes from the parts and from the whole file.
        let logits =
            |file: &Path| shop.theirs(Command::new(&runner).arg(file).arg(&shop.tokens)).map(|_| read(&shop.work.join("theirs.f32")));
        let (from_parts, from_whole) = (logits(&first)??, logits(&whole)??);
        facts.push(Fact::bytes(format!("{name}: llama.cpp's logits from the parts and from the whole"), &from_parts, &from_whole, |n| {
            n == 0
        }));
        facts.push(planted(&shop, &cutter, &name, &first, &whole)?);
    }
    Ok(Report {
        peer: "llama.cpp's gguf-split".to_owned(),
        about: "The fixtures as f32, in parts of 1,000,000 bytes of tensors: every byte of every part, and what becomes of ours when they are merged"
            .to_owned(),
        rows: Vec::new(),
        facts,
        bounds: Vec::new(),
        remarks: Vec::new(),
    })
}

/// An empty folder.
fn fresh(path: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.exists() {
        std::fs::remove_dir_all(path).map_err(failed)?;
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    Ok(path.to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn convert(shop: &Workshop, version: u8, out: &Path, more: &[&str]) -> Result<PathBuf, String> {
    let mut command = Command::new(&shop.forge);
    command.args(["--quiet", "convert"]).arg(shop.fixture(version)).args(["--to", "gguf", "--type", "f32", "--force", "--no-verify"]);
    command.arg("--vocab").arg(shop.root.join("fixtures/checkpoints/vocab-320.txt")).args(more).arg("-o").arg(out);
    capture(&mut command)?;
    Ok(out.to_owned())
}

/// Metadata but for what a merged file says of parts, and tensors with their digests.
fn content(forge: &Path, file: &Path) -> Result<(Value, Value), String> {
    let output = capture(Command::new(forge).args(["--json", "inspect", "--hashes"]).arg(file))?;
    let mut document: Value = serde_json::from_str(&output).map_err(|error| format!("{}: {error}", file.display()))?;
    if let Some(metadata) = document["metadata"].as_object_mut() {
        metadata.retain(|key, _| !key.starts_with(SPLIT));
    }
    Ok((document["metadata"].take(), document["tensors"].take()))
}

fn merge(shop: &Workshop, cutter: &Path, first: &Path) -> Result<PathBuf, String> {
    let out = shop.work.join("merged.gguf");
    // gguf-split replaces nothing.
    let _gone = std::fs::remove_file(&out);
    capture(Command::new(cutter).arg("--merge").arg(first).arg(&out))?;
    Ok(out)
}

fn merged(shop: &Workshop, cutter: &Path, name: &str, first: &Path, whole: &Path) -> Result<Fact, String> {
    let out = merge(shop, cutter, first)?;
    let same = content(&shop.forge, &out)? == content(&shop.forge, whole)?;
    let found = if same { "every key and every tensor" } else { "another file" };
    Ok(Fact { what: format!("{name}: our parts, merged by gguf-split, are our whole file"), found: found.to_owned(), passed: same })
}

/// A bit that is turned in a part must be seen in the merged file.
fn planted(shop: &Workshop, cutter: &Path, name: &str, first: &Path, whole: &Path) -> Result<Fact, String> {
    let before = read(first)?;
    let mut bytes = before.clone();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    let failed = |error: std::io::Error| format!("{}: {error}", first.display());
    std::fs::write(first, &bytes).map_err(failed)?;
    let out = merge(shop, cutter, first)?;
    let different = content(&shop.forge, &out)? != content(&shop.forge, whole)?;
    std::fs::write(first, &before).map_err(failed)?;
    let found = if different { "refused" } else { "the comparison lets it pass" };
    Ok(Fact { what: format!("{name}: planted (the last bit of the first part turned)"), found: found.to_owned(), passed: different })
}
