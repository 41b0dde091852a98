//! Words from files, names of files among them, do nothing to a terminal, a page, a spreadsheet or a log.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, fixture, forge, vocab};
use rwkv_forge_report::sink::is_unsafe;
use rwkv_forge_testkit::models::MemorySource;
use rwkv_forge_testkit::pickle::{Tensor, state_dict};
use rwkv_forge_testkit::zip::Archive;

/// Begins as a formula; clears the screen in 7 and 8 bits, sets a title, turns the direction, hides, and forges a line.
const HOSTILE: &str = "=e\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{7f}\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{2029}\u{200b}\u{feff}\t\r\nFORGED";

/// Nothing but letters and our own line ends.
fn tame(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let found: String = text.chars().filter(|c| is_unsafe(*c) && *c != '\n').collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{what}: a line is forged: {text}");
}

/// Runs a command, looks at both streams, and returns whether one of them showed the name in its visible form.
fn run(args: &[&str], code: i32) -> bool {
    let output = forge().env("GITHUB_ACTIONS", "true").args(args).output().unwrap();
    let what = args.join(" ");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    tame(&what, &output.stdout);
    tame(&what, &output.stderr);
    [output.stdout, output.stderr].iter().any(|stream| String::from_utf8_lossy(stream).contains("\\x1b[2J"))
}

/// The same as people and as programs see it.
fn both(args: &[&str], code: i32) {
    assert!(run(args, code), "the name is shown: {args:?}");
    run(&[&["--json"], args].concat(), code);
}

fn copied(dir: &Dir, from: &Path, extension: &str) -> PathBuf {
    let path = dir.join(&format!("{HOSTILE}.{extension}"));
    std::fs::copy(from, &path).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn names_of_files_are_shown_and_not_obeyed() {
    let dir = Dir::new();
    let model = copied(&dir, checkpoint("7"), "pth");
    let tokens = copied(&dir, vocab(), "txt");
    let (model, tokens) = (text(&model), text(&tokens));
    let named = |end: &str| dir.join(&format!("{HOSTILE}{end}"));
    let output = named(".gguf");
    both(&["inspect", model, "--lint", "--hashes"], 0);
    both(&["convert", model, "--to", "gguf", "--type", "q4_0", "--vocab", tokens, "--record", text(&named(".json")), "--force"], 0);
    tame("record", &std::fs::read(named(".json")).unwrap());
    both(&["convert", model, "--to", "gguf", "--type", "q4_0", "--vocab", tokens, "--dry-run"], 0);
    both(&["convert", model, "--to", "gguf", "--type", "q4_0", "--vocab", tokens, "-o", model, "--force"], 2);
    std::fs::rename(named("-q4_0.gguf"), &output).unwrap();
    run(&["verify", model, text(&output), "--vocab", tokens, "--max-kl", "0"], 1);
    both(&["verify", model, text(&named(".missing"))], 4);
    both(&["logits", model, "--text", tokens, "--vocab", "bytes", "-o", text(&named(".npy")), "--force"], 0);
    both(&["plan", model, "--bpw", "8", "--vocab", "bytes", "--calibrate", text(&named(".absent"))], 4);
    let state = copied(&dir, &fixture("states").join("tiny-state.pth"), "state");
    both(&["state", text(&state), "--to", "pth", "-o", text(&named(".out")), "--force"], 0);
    both(&["generate", text(&named(".missing"))], 4);
    run(&["--json", "generate", model, "--vocab", tokens, "-n", "2"], 0);
    // What a shell fills in may be no word that the parser knows.
    run(&["inspect", model, HOSTILE], 2);
    run(&[HOSTILE], 2);
}

#[test]
fn measurements_show_names_and_do_not_obey_them() {
    let dir = Dir::new();
    let model = copied(&dir, checkpoint("7"), "pth");
    let model = text(&model);
    let named = |end: &str| dir.join(&format!("{HOSTILE}{end}"));
    let path = |name: &str| text(&dir.join(name)).to_owned();
    let words = "It was a bright day, and everybody who had a garden sat in it. ".repeat(8);
    let lines = [("one", HOSTILE), ("two", "plain")]
        .map(|(text, category)| serde_json::json!({ "text": format!("{text} {words}"), "category": category, "id": HOSTILE }).to_string());
    std::fs::write(named(".jsonl"), lines.join("\n")).unwrap();
    std::fs::write(named(".md"), &words).unwrap();
    let (html, markdown, csv) = (path("page.html"), path("page.md"), path("page.csv"));
    let outputs = ["--html", &html, "--markdown", &markdown, "--csv", &csv, "--force", "--no-cache"];
    let (lines, second) = (named(".jsonl"), named(".md"));
    let eval =
        ["eval", model, "--baseline", text(checkpoint("7")), "--vocab", text(vocab()), "--text", text(&lines), "--text", text(&second)];
    both(&[&eval[..], &outputs].concat(), 0);
    both(&[&eval[..], &["--max-ppl-ratio", "0.5", "--no-cache"]].concat(), 1);
    let pair = serde_json::json!({ "id": HOSTILE, "context": "a b", "continuation": "c d" }).to_string();
    std::fs::write(named(".pairs"), pair).unwrap();
    both(&["eval", model, "--vocab", text(vocab()), "--pairs", text(&named(".pairs")), "--no-cache"], 0);
    let junit = path("forms.xml");
    both(&["forms", text(&named(".absent")), "--quick"], 4);
    run(&["forms", model, "--quick", "--eps", "64e-5", "--vocab", text(vocab()), "--junit", &junit, "--force"], 0);
    let (table, plot, page) = (path("bench.csv"), path("bench.svg"), path("bench.md"));
    let quick = ["--tokens", "1", "--repeat", "1", "--loads", "1", "--prompt", "0", "--read-mib", "1"];
    both(&[&["bench", model][..], &quick, &["--csv", &table, "--svg", &plot, "--markdown", &page, "--force"]].concat(), 0);
    for file in [&html, &markdown, &csv, &junit, &table, &plot, &page] {
        let bytes = std::fs::read(file).unwrap();
        tame(file, &bytes);
        let content = String::from_utf8(bytes).unwrap();
        let formula = ["\n=", ",=", "\"="].iter().any(|start| content.contains(start));
        assert!(!file.ends_with(".csv") || !formula && content.contains("'=e\\x1b"), "{file}: {content}");
    }
}

#[test]
fn names_inside_of_files_are_shown_and_not_obeyed() {
    let dir = Dir::new();
    // As safetensors, where the metadata are words too, and as a checkpoint of PyTorch.
    let source = MemorySource::from_f32(vec![(HOSTILE.to_owned(), vec![2], vec![1.0, 2.0]), ("ok".to_owned(), vec![1], vec![0.5])]);
    let mut header = serde_json::json!({ "__metadata__": { HOSTILE: HOSTILE, "format": "pt" } });
    header[HOSTILE] = serde_json::json!({ "dtype": "F32", "shape": [2], "data_offsets": [0, 8] });
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
    std::fs::write(dir.join("words.safetensors"), file).unwrap();
    std::fs::write(dir.join("plain.safetensors"), source.to_safetensors()).unwrap();
    let pickle = state_dict(&[Tensor::dense(HOSTILE, "FloatStorage", 0, &[2])]);
    std::fs::write(dir.join("words.pth"), Archive::torch(&pickle, &[&[0; 8]]).build().bytes).unwrap();
    for name in ["words.safetensors", "plain.safetensors", "words.pth"] {
        let path = dir.join(name);
        both(&["inspect", "--tensors", "--hashes", "--lint", text(&path)], 0);
        for args in [
            vec!["convert", text(&path), "--to", "safetensors", "--type", "f32"],
            vec!["verify", text(&path), text(&path)],
            vec!["eval", text(&path), "--vocab", "bytes"],
            vec!["bench", text(&path)],
            vec!["forms", text(&path)],
            vec!["logits", text(&path), "--text", text(&path), "-o", "never.npy"],
            vec!["generate", text(&path), "--vocab", "bytes"],
            vec!["plan", text(&path), "--bpw", "8", "--calibrate", text(&path)],
        ] {
            run(&args, 3);
        }
    }
    std::fs::write(dir.join("vocab.txt"), format!("1 '{HOSTILE}' 5\n")).unwrap();
    run(&["generate", text(checkpoint("7")), "--vocab", text(&dir.join("vocab.txt"))], 3);
    std::fs::write(dir.join("recipe.toml"), format!("type = \"q8_0\"\n{HOSTILE}\n")).unwrap();
    run(&["convert", text(checkpoint("7")), "--to", "gguf", "--recipe", text(&dir.join("recipe.toml"))], 2);
}
