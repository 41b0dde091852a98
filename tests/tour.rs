//! docs/tour.md is a transcript: its commands are run in their order, and what they print must be what stands there. After a change:
//! `UPDATE_DOCS=1 cargo test -p rwkv-forge --test tests tour`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Dir, checkpoint, fixture, vocab};

/// The fence of a block that is run.
const FENCE: &str = "```console";

/// What a newcomer has: a checkpoint, its vocabulary, and a folder as a download from the Hub leaves it.
fn scene() -> Dir {
    let dir = Dir::new();
    std::fs::copy(checkpoint("7"), dir.join("tiny-rwkv7.pth")).unwrap();
    std::fs::copy(vocab(), dir.join("vocab-320.txt")).unwrap();
    let folder = dir.join("downloaded");
    std::fs::create_dir_all(folder.join(".cache/huggingface/download")).unwrap();
    std::fs::copy(checkpoint("6"), folder.join("tiny-rwkv6.pth")).unwrap();
    std::fs::copy(vocab(), folder.join("rwkv_vocab_320.txt")).unwrap();
    std::fs::write(folder.join("README.md"), "---\nlicense: apache-2.0\n---\n\n# Tiny\n").unwrap();
    std::fs::write(folder.join(".gitattributes"), "*.pth filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    std::fs::write(folder.join(".cache/huggingface/download/tiny-rwkv6.pth.metadata"), "0123456789abcdef\n").unwrap();
    dir
}

/// What a command says on both streams, as a terminal has it, and its exit code where it is not 0.
fn shown(dir: &Dir, command: &str) -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_rwkv-forge"));
    let path = std::env::join_paths([program.parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    // The vocabulary stands for World's own, which the tiny models are too small for.
    let mut shell = Command::new("sh");
    shell.current_dir(dir.path()).args(["-c", &format!("{{ {command}\n}} 2>&1")]);
    let done = shell.env_clear().env("PATH", path).env("HOME", dir.path()).env("COLUMNS", "110").output().unwrap();
    let mut text = String::from_utf8(done.stdout).unwrap();
    if let Some(code) = done.status.code().filter(|&code| code != 0) {
        writeln!(text, "[exit code {code}]").unwrap();
    }
    text
}

/// A line without what another machine or another minute says differently: times, and with them speeds and memory.
fn lasting(line: &str, is_timed: bool) -> String {
    let is_timed = is_timed
        || line.contains("MB/s")
        || line.contains(" s)")
        || line.ends_with(" s")
        || line.contains(" s of ")
        || line.contains("tokens/s");
    if !is_timed {
        return line.trim_end().to_owned();
    }
    // Widths of columns follow the numbers.
    let mut out = String::new();
    for word in line.split_whitespace() {
        let is_number = word.trim_matches(|c: char| !c.is_ascii_digit()).parse::<f64>().is_ok() || word.starts_with("--");
        write!(out, "{} ", if is_number { "#" } else { word }).unwrap();
    }
    out.trim_end().to_owned()
}

/// What of an output is the same everywhere.
fn same(text: &str) -> Vec<String> {
    let is_timed = |text: &str| text.starts_with('|') && (text.contains("tokens/s") || text.contains("memory"));
    let mut in_timed = false;
    let mut out = Vec::new();
    for line in text.lines() {
        in_timed = line.starts_with('|') && (in_timed || is_timed(line));
        out.push(lasting(line, in_timed));
    }
    out
}

/// The page with what its commands print now, and the commands whose output has changed.
fn again(page: &str) -> (String, Vec<String>, usize) {
    let dir = scene();
    let (mut out, mut changed, mut count) = (String::new(), Vec::new(), 0);
    let mut rest = page;
    while let Some((before, block)) = rest.split_once(FENCE) {
        let (block, after) = block.split_once("\n```").unwrap();
        write!(out, "{before}{FENCE}").unwrap();
        for part in block.split("\n$ ").skip(1) {
            let (command, printed) = part.split_once('\n').unwrap_or((part, ""));
            let now = shown(&dir, command);
            count += 1;
            if same(&now) != same(printed) {
                changed.push(format!("$ {command}\n--- the page has\n{printed}\n--- it prints\n{now}"));
            }
            write!(out, "\n$ {command}\n{}", now.trim_end()).unwrap();
            out.truncate(out.trim_end().len());
        }
        out.push_str("\n```");
        rest = after;
    }
    out.push_str(rest);
    (out, changed, count)
}

#[test]
fn the_tour_prints_what_it_says() {
    let path = fixture("../docs/tour.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (now, changed, count) = again(&page);
    assert!(count >= 10, "{count} commands");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, now).unwrap();
        return;
    }
    assert!(changed.is_empty(), "UPDATE_DOCS=1 cargo test -p rwkv-forge --test tests tour\n{}", changed.join("\n"));
}

/// The planted fault: another word, another number of a table, another exit code.
#[test]
fn another_output_is_noticed() {
    let page = |printed: &str| format!("text\n\n{FENCE}\n$ printf 'in 0.5 s (3 MB/s)\\nloss 0.25\\n'; exit 3\n{printed}\n```\n");
    assert!(again(&page("in 7 s (12 MB/s)\nloss 0.25\n[exit code 3]")).1.is_empty());
    for wrong in
        ["in 7 s (12 MB/s)\nloss 0.26\n[exit code 3]", "in 7 s (12 MB/s)\nloss 0.25", "within 7 s (12 MB/s)\nloss 0.25\n[exit code 3]"]
    {
        assert_eq!(again(&page(wrong)).1.len(), 1, "{wrong}");
    }
}
