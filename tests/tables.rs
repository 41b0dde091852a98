//! Every table that is printed or written is Markdown: what people paste into a model card looks as it does on the terminal.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;

use pulldown_cmark::{Event, Options, Parser, Tag};

use crate::support::{Dir, checkpoint, fixture, run, vocab};

/// Cells of a line of a table as Markdown divides it: a bar after a backslash divides nothing.
fn cells(line: &str) -> usize {
    let (mut bars, mut is_escaped) = (0, false);
    for c in line.chars() {
        match c {
            '|' if !is_escaped => bars += 1,
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            _ => {}
        }
        is_escaped = false;
    }
    bars - 1
}

/// The lines of each table, by their first character.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    lines.split(|line| !line.starts_with('|')).filter(|block| !block.is_empty()).map(<[&str]>::to_vec).collect()
}

/// What is wrong with the tables of a text.
fn faults(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let blocks = blocks(text);
    for block in &blocks {
        let columns = cells(block[0]);
        out.extend(block.iter().filter(|line| cells(line) != columns).map(|line| format!("not {columns} cells: {line}")));
    }
    // Rows that a reader of Markdown finds, table by table; a table runs on until an empty line ends it.
    let mut found: Vec<usize> = Vec::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Table(_)) => found.push(1),
            Event::Start(Tag::TableRow) => *found.last_mut().unwrap() += 1,
            _ => {}
        }
    }
    // The rule below the headings is no row.
    let printed: Vec<usize> = blocks.iter().map(|block| block.len() - 1).collect();
    if printed != found {
        out.push(format!("tables of {printed:?} rows were printed, Markdown has {found:?}"));
    }
    out
}

fn assert_tables(what: &str, text: &str, least: usize) {
    assert_eq!(faults(text), Vec::<String>::new(), "{what}:\n{text}");
    assert!(blocks(text).len() >= least, "{what} shows fewer than {least} tables:\n{text}");
}

/// What a command prints.
fn printed(args: &[&str], code: i32) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_check_finds_what_breaks_a_table() {
    let good = "line\n\n| a | b |\n| - | - |\n| x\\|y | 2 |\n\nafter\n";
    assert_eq!(faults(good), Vec::<String>::new());
    for bad in [good.replace("\\|", "|"), good.replace("\n\nafter", "\nafter"), good.replace("| - | - |\n", "")] {
        assert!(!faults(&bad).is_empty(), "{bad}");
    }
}

#[test]
fn tables_of_conversions_are_markdown() {
    let dir = Dir::new();
    let (source, tokens) = (word(checkpoint("7")).to_owned(), word(vocab()).to_owned());
    let gguf = dir.join("a.gguf");
    let base = ["convert", &source, "--to", "gguf", "--type", "q8_0", "--vocab", &tokens, "-o", word(&gguf)];
    assert_tables("convert --dry-run", &printed(&[&base[..], &["--dry-run"]].concat(), 0), 2);
    assert_tables("convert", &printed(&base, 0), 1);
    // Other words of the same tensors: a template and an author with bars in them.
    let other = dir.join("b.gguf");
    let template = dir.join("t.jinja");
    std::fs::write(&template, "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}").unwrap();
    let words = ["--author", "a|b \\", "--chat", word(&template)];
    let base = ["convert", &source, "--to", "gguf", "--type", "q8_0", "--vocab", &tokens, "-o", word(&other)];
    assert_tables("convert with words", &printed(&[&base[..], &words, &["--dry-run"]].concat(), 0), 2);
    printed(&[&base[..], &words].concat(), 0);
    assert_tables("verify", &printed(&["verify", word(&gguf), word(&other)], 0), 2);
    assert_tables("inspect", &printed(&["inspect", word(&other), "--tensors", "--memory", "--lint"], 0), 3);
    assert_tables("inspect --globals", &printed(&["inspect", &source, "--globals"], 0), 1);
}

#[test]
fn names_cannot_break_a_table() {
    let dir = Dir::new();
    let path = dir.join("names.safetensors");
    let long = "l".repeat(30_000);
    let names = ["a|b", "ends with \\\\", "\\u001b[31m|", "模型|", &long[..1_000]];
    let entries = names
        .iter()
        .enumerate()
        .map(|(index, name)| format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[{},{}]}}", index * 4, index * 4 + 4));
    let keys: Vec<String> = (0..200).map(|index| format!("\"{index}\":\"v\"")).collect();
    let metadata = format!("\"__metadata__\":{{\"{long}|\":\"x|y\",{}}}", keys.join(","));
    let header = format!("{{{},{metadata}}}", entries.collect::<Vec<_>>().join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 20]);
    std::fs::write(&path, bytes).unwrap();
    let text = printed(&["inspect", word(&path), "--tensors"], 0);
    assert_tables("inspect", &text, 2);
    // No other row grows with the longest name.
    assert!(text.len() < 250_000, "{} bytes", text.len());
}

#[test]
fn tables_of_measurements_are_markdown() {
    let dir = Dir::new();
    let (source, tokens) = (word(checkpoint("7")).to_owned(), word(vocab()).to_owned());
    let passage = dir.join("text.txt");
    let text = std::fs::read_to_string(fixture("text/public-domain-100k.txt")).unwrap();
    std::fs::write(&passage, text.chars().take(2_000).collect::<String>()).unwrap();
    let calibration = dir.join("calibration.txt");
    std::fs::write(&calibration, text.chars().skip(50_000).take(2_000).collect::<String>()).unwrap();
    let page = dir.join("page|.md");
    let eval = ["eval", &source, "--text", word(&passage), "--vocab", &tokens, "--no-cache"];
    let against = ["--baseline", &source, "--markdown", word(&page)];
    assert_tables("eval", &printed(&[&eval[..], &against].concat(), 0), 3);
    assert_tables("eval --markdown", &std::fs::read_to_string(&page).unwrap(), 4);
    let page = dir.join("levels.md");
    let levels = ["--levels", "q8_0,q4_0", "--to", "gguf", "--markdown", word(&page)];
    assert_tables("eval --levels", &printed(&[&eval[..], &levels].concat(), 0), 1);
    assert_tables("eval --levels --markdown", &std::fs::read_to_string(&page).unwrap(), 2);
    let recipe = dir.join("r.toml");
    let plan = ["plan", &source, "--to", "gguf", "--bpw", "12", "--text", word(&passage), "--calibrate", word(&calibration)];
    let more = ["--probe-windows", "1", "--vocab", &tokens, "-o", word(&recipe)];
    assert_tables("plan", &printed(&[&plan[..], &more].concat(), 0), 1);
    assert_tables("forms", &printed(&["forms", &source, "--quick", "-v"], 0), 1);
}

#[test]
fn tables_of_speed_are_markdown() {
    let dir = Dir::new();
    let (source, page) = (word(checkpoint("7")).to_owned(), dir.join("page.md"));
    let bench =
        ["bench", &source, "--tokens", "4", "--prompt", "8", "--repeat", "1", "--loads", "1", "--read-mib", "1", "--markdown", word(&page)];
    assert_tables("bench", &printed(&bench, 0), 1);
    assert_tables("bench --markdown", &std::fs::read_to_string(&page).unwrap(), 1);
    assert_tables(
        "bench curve",
        &printed(&["bench", "curve", &source, "--positions", "16", "--seconds", "1", "-o", word(&dir.join("curve"))], 0),
        2,
    );
}
