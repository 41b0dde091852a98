//! `inspect` on terminals of any width, and lists of a few tensors.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use unicode_width::UnicodeWidthStr;

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json};

fn text(args: &[&str], columns: Option<&str>) -> String {
    let mut command = forge();
    match columns {
        Some(columns) => command.env("COLUMNS", columns),
        None => command.env_remove("COLUMNS"),
    };
    let done = command.arg("inspect").args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn tables_fit_the_terminal_and_documents_are_whole() {
    let dir = Dir::new();
    let output = dir.join("a.gguf");
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &output), 0);
    let file = output.to_str().unwrap();
    let rows = |text: &str| text.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect::<Vec<_>>();
    let whole = rows(&text(&[file, "--tensors"], None));
    for (columns, most) in [("60", 60), ("80", 80), ("137", 137), ("200", 200), ("1", 60), ("9999", 200)] {
        let all = text(&[file, "--tensors"], Some(columns));
        let head: Vec<&str> = all.lines().take_while(|line| !line.starts_with("  f16:") && !line.is_empty()).collect();
        assert!(head.len() >= 2 && head.iter().all(|line| line.width() <= most), "{columns}: {head:?}");
        let words = head.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("bytes of data") && words.contains("794,112 parameters"), "{head:?}");
        let seen = rows(&all);
        let widest = seen.iter().map(|row| row.width()).max().unwrap();
        assert!(widest <= most, "{columns}: {widest}");
        assert_eq!(seen.len(), whole.len());
        // The template is long at any width, and the mark says how much of it is missing.
        let cut = seen.iter().find(|row| row.contains("tokenizer.chat_template")).unwrap();
        assert!(cut.contains("… +"), "{cut}");
    }
    // Into a file or a pipe without a width only what is very long is cut, and in a document nothing.
    assert!(whole.iter().all(|row| row.width() > 150 || !row.contains("… +")));
    let template = json(&["inspect", file], 0)["metadata"]["tokenizer.chat_template"].as_str().unwrap().to_owned();
    assert!(template.len() > 200 && template.contains("messages"), "{template}");
}

#[test]
fn sentences_fit_the_terminal() {
    let dir = Dir::new();
    let output = dir.join("a-name-that-is-long-enough-for-some-terminals.gguf");
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &output), 0);
    let args = [output.to_str().unwrap(), "--lint"];
    let whole = text(&args, None);
    assert!(whole.lines().any(|line| !line.starts_with('|') && line.width() > 100), "{whole}");
    let words = |text: &str| text.split_whitespace().filter(|word| !word.contains(['|', '-'])).map(str::to_owned).collect::<Vec<_>>();
    let sentences = |text: &str| text.lines().filter(|line| !line.starts_with('|')).collect::<Vec<_>>().join("\n");
    for columns in ["60", "80", "120", "200"] {
        let seen = text(&args, Some(columns));
        let most: usize = columns.parse().unwrap();
        let wide = |line: &&str| line.width() > most && line.trim().contains(' ');
        assert_eq!(seen.lines().find(wide), None, "{columns}");
        assert_eq!(words(&sentences(&seen)), words(&sentences(&whole)), "nothing is cut");
    }
}

#[test]
fn some_tensors_are_listed() {
    let file = checkpoint("7").to_str().unwrap();
    let names = |args: &[&str]| -> Vec<String> {
        let all = text(&[&[file], args].concat(), None);
        let rows = all.lines().skip_while(|line| !line.starts_with("| tensor")).skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
    };
    let all = names(&["--tensors"]);
    assert!(all.len() > 60 && names(&[]).is_empty());
    let keys = names(&["--match", r"ffn\.key"]);
    assert_eq!(keys, ["blocks.0.ffn.key.weight", "blocks.1.ffn.key.weight", "blocks.2.ffn.key.weight"]);
    assert_eq!(names(&["--match", r"ffn\.key", "--limit", "2"]), keys[..2]);
    assert_eq!(names(&["--limit", "5"]), all[..5]);
    assert!(text(&[file, "--match", r"ffn\.key", "--limit", "2"], None).contains("and 1 more\n"));
    assert!(text(&[file, "--match", "nothing"], None).contains(&format!("none of {} tensors matches\n", all.len())));
    assert_eq!(error_kind(&["inspect", file, "--match", "("], 2), "BadPattern");
    // A document has the same.
    let listed = |args: &[&str]| json(&[&["inspect", file], args].concat(), 0);
    assert_eq!(listed(&[])["tensors"].as_array().unwrap().len(), all.len());
    let some = listed(&["--match", r"ffn\.key", "--limit", "2"]);
    assert_eq!(some["tensors"].as_array().unwrap().len(), 2);
    assert_eq!(some["tensors_in_file"], all.len());
}
