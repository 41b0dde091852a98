//! No source outside of this crate asks for a version by name, except the tables of what only one container or the planner needs.
//!
//! A version that is asked for by name somewhere gets another one's behaviour there when it is new. Mechanisms are matched without
//! wildcard arms instead, which the compiler sees to; what it cannot see (comparisons, names in strings) is looked for here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files and folders, from the root of the repository, that may name versions, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/model/", "the architectures themselves"),
    ("crates/testkit/", "makes models of each version for tests, and is never shipped"),
    ("crates/gguf/src/map.rs", "the table of GGUF"),
    ("crates/gguf/src/error.rs", "a message that lists the architectures of GGUF"),
    ("crates/ggml/src/map.rs", "the table of rwkv.cpp"),
    ("crates/hf/src/table.rs", "the tables of Hugging Face's libraries and of candle"),
    ("crates/web_rwkv/src/prefab/schema.rs", "the table of web-rwkv"),
    ("crates/container/src/words/chat.rs", "names of released files, which speak for conversation formats"),
    ("crates/convert/src/published.rs", "the table of published layouts"),
    ("crates/convert/src/state/mod.rs", "the table of rwkv.cpp's states"),
    ("crates/report/examples/page/sample.rs", "names of files on a page of made-up results"),
    ("crates/forms/examples/figures.rs", "makes models of each version at random"),
];

/// Where the question for a version stands in code, per line.
fn findings(source: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(code(source)) {
        let mut add = |what| found.push((number, what));
        if has_word(&line.code, "Version::") {
            add("a version by name");
        }
        if has_word(&line.code, "Ranks::") {
            add("ranks by version");
        }
        if line.code.contains("is_hybrid") {
            add("is_hybrid");
        }
        if ["==", "!="].iter().any(|operator| line.code.split(operator).skip(1).any(|rest| is_variant(rest.trim_start()))) {
            add("a comparison with a version");
        }
        if ["version.name() ", "version.to_string() "]
            .iter()
            .any(|call| line.code.split(call).skip(1).any(|rest| rest.starts_with("==") || rest.starts_with("!=")))
        {
            add("a comparison with the name of a version");
        }
        if line.strings.iter().any(|text| names_a_version(text)) {
            add("the name of a version in a string");
        }
    }
    found
}

/// `V7` and such at the beginning, as a word.
fn is_variant(rest: &str) -> bool {
    let mut chars = rest.chars();
    (chars.next(), chars.next().is_some_and(|digit| digit.is_ascii_digit())) == (Some('V'), true)
}

/// `rwkv` and the digit of a version, with or without something between them: what containers call architectures.
fn names_a_version(text: &str) -> bool {
    text.match_indices("rwkv").any(|(at, word)| {
        let rest = text[at + word.len()..].trim_start_matches(['-', '_']);
        rest.starts_with(|digit: char| ('4'..='9').contains(&digit))
    })
}

/// True where `word` is no end of a longer word.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// A line without comments, its string literals apart.
struct Line {
    code: String,
    strings: Vec<String>,
}

/// The lines of a source up to its own tests, which may name what they like.
fn code(source: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    // A string literal may go on in the next line.
    let mut open: Option<String> = None;
    for text in without_tests(source) {
        let mut line = Line { code: String::new(), strings: Vec::new() };
        let mut chars = text.chars().peekable();
        while let Some(next) = chars.next() {
            match (&mut open, next) {
                (Some(string), '\\') => string.extend(chars.next()),
                (Some(_), '"') => line.strings.extend(open.take()),
                (Some(string), other) => string.push(other),
                (None, '"') => open = Some(String::new()),
                (None, '/') if chars.peek() == Some(&'/') => break,
                (None, '\'') if chars.peek() == Some(&'"') => drop(chars.next()),
                (None, other) => line.code.push(other),
            }
        }
        line.strings.extend(open.clone());
        lines.push(line);
    }
    lines
}

/// The lines in front of a module of tests in the same file.
fn without_tests(source: &str) -> Vec<&str> {
    let lines: Vec<&str> = source.lines().collect();
    let begins = |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(begins).unwrap_or(lines.len());
    lines[..end].to_vec()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All sources of crates, tests left out, with their paths from the root.
fn sources() -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        folders.extend(["src", "examples", "benches"].map(|name| path.join(name)).into_iter().filter(|folder| folder.is_dir()));
    }
    let mut out = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && path.file_name() != Some("tests.rs".as_ref()) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                out.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    out.sort();
    out
}

#[test]
fn versions_are_named_in_tables_alone() {
    let sources = sources();
    assert!(sources.len() > 200, "only {} sources were found", sources.len());
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for (name, source) in &sources {
        let found = findings(source);
        if let Some((exception, _)) = EXCEPTIONS.iter().find(|(exception, _)| name.starts_with(exception)) {
            used.extend((!found.is_empty()).then_some(*exception));
            continue;
        }
        problems.extend(found.into_iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    assert!(problems.is_empty(), "ask for a mechanism, or put a row into a table:\n{}", problems.join("\n"));
    let stale: Vec<&str> = EXCEPTIONS.iter().map(|(exception, _)| *exception).filter(|exception| !used.contains(exception)).collect();
    assert!(stale.is_empty(), "exceptions that nothing needs: {stale:?}");
}

#[test]
fn planted_questions_are_found() {
    let planted = [
        "if model.version == Version::V7 { 1 } else { 2 }",
        "match x { rwkv_forge_model::Version::V4 => 1, _ => 2 }",
        "use Version::*; let seven = version == V7;",
        "let other = version != V5_2;",
        "if description.version.is_hybrid() {",
        "let Ranks::V6 { mix, .. } = ranks else { return };",
        "match architecture { \"rwkv7\" => 1, _ => 2 }",
        "let name = \"arwkv7\".to_owned();",
        "let name = \"file-rwkv-6\";",
        "if version.name() == \"7\" {",
    ];
    for line in planted {
        let source = format!("fn f() {{\n    {line}\n}}\n");
        assert_eq!(findings(&source).first().map(|(number, _)| *number), Some(2), "{line}");
    }
}

#[test]
fn what_is_no_question_is_left_alone() {
    let innocent = [
        "/// For rwkv7 and `Version::V7`.",
        "// version == V7",
        "let kind = Self::UnsupportedVersion { found };",
        "fn f(version: Version) -> FormatVersion { FormatVersion::One }",
        "let prefix = \"rwkv_forge.verify\"; let cpp = \"rwkv.cpp\"; let v = \"rwkv_vocab_v2023\";",
        "let quote = '\"'; // rwkv7",
        "let same = version == other.version && x != VERSION;",
    ];
    for line in innocent {
        assert_eq!(findings(line), [], "{line}");
    }
    assert_eq!(findings("fn f() {}\n#[cfg(test)]\nmod tests {\nfn f() { Version::V7; }\n}\n"), [], "tests name what they like");
    assert_eq!(findings("#[cfg(test)]\nmod tests;\nfn f() { Version::V7; }\n").len(), 1, "tests elsewhere end nothing");
}
