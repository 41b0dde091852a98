//! Rules of this repository that a reader of its sources can check: names of kinds of errors that never change, tests that never pass
//! without having tested, pages that comments and names of tests speak of, main types that show how they are used.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust source below a folder of the repository, with its path.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The word that `text` begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Variants of an enum and the kind that each has: its name, or what `strum` is told.
fn variants<'a>(text: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let body = text.split_once(&format!("enum {name} {{\n")).unwrap().1;
    let body = body.split("\n}\n").next().unwrap();
    let (mut found, mut told) = (Vec::new(), None);
    for line in body.lines().filter_map(|line| line.strip_prefix("    ")) {
        if let Some(kind) = line.strip_prefix("#[strum(serialize = \"") {
            told = kind.split('"').next();
        } else if line.starts_with(char::is_uppercase) {
            found.push((word(line), told.take().unwrap_or(word(line))));
        }
    }
    found
}

/// `Enum::Variant Kind` of all errors; `->` is the kind of the error inside.
fn kinds(text: &str) -> Vec<String> {
    let derived = text.match_indices("IntoStaticStr)]").filter_map(|(at, _)| Some(word(text[at..].split_once("enum ")?.1)));
    let told = text.split("impl Diagnostic for ").skip(1).map(word).filter(|name| text.contains(&format!("enum {name} {{")));
    let mut found = Vec::new();
    for name in derived.chain(told).collect::<BTreeSet<_>>() {
        let kind =
            text.split_once(&format!("impl Diagnostic for {name} {{")).map_or("", |(_, body)| body.split("\n    }\n").next().unwrap());
        let arms = kind.lines().filter(|line| !line.contains("=> self.into()"));
        let forwarded: Vec<&str> = arms.flat_map(|line| line.split("Self::").skip(1).map(word)).collect();
        for (variant, kind) in variants(text, name) {
            let kind = if forwarded.contains(&variant) { "->" } else { kind };
            found.push(format!("{name}::{variant} {kind}"));
        }
    }
    found
}

/// Scripts and users' programs compare kinds: none is renamed. A new error is a new line of `tests/golden/kinds.txt`.
#[test]
fn kinds_of_errors_are_the_recorded_ones() {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    let found: BTreeSet<String> = files.iter().flat_map(|(_, text)| kinds(text)).collect();
    let recorded = std::fs::read_to_string(root().join("tests/golden/kinds.txt")).unwrap();
    let recorded: BTreeSet<String> = recorded.lines().map(str::to_owned).collect();
    assert!(found.len() > 300, "{} kinds", found.len());
    let (new, gone): (Vec<_>, Vec<_>) = (found.difference(&recorded).collect(), recorded.difference(&found).collect());
    assert!(new.is_empty() && gone.is_empty(), "not in tests/golden/kinds.txt: {new:#?}; only there: {gone:#?}");
}

#[test]
fn a_kind_is_read_as_it_is_told() {
    let text = "#[derive(Debug, Error, IntoStaticStr)]\npub enum E {\n    /// One.\n    #[strum(serialize = \"Other\")]\n    #[error(\"x\")]\n    \
                A {\n        b: u8,\n    },\n    /// Two.\n    B(Inner),\n    C,\n}\n\nimpl Diagnostic for E {\n    fn kind(&self) -> &'static str {\n        \
                match self {\n            Self::B(inner) => inner.kind(),\n            _ => self.into(),\n        }\n    }\n}\n";
    assert_eq!(kinds(text), ["E::A Other", "E::B ->", "E::C C"]);
}

/// What a test needs beyond the repository is its reason for being ignored (`.ci/needs.py` runs it where it is there).
#[test]
fn no_test_says_that_it_was_skipped() {
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let silent = ["skip", "partly skip"].map(|word| format!("eprintln!(\"{word}"));
    for (path, text) in files {
        assert!(!silent.iter().any(|words| text.contains(words)), "{}: mark the test as ignored instead", path.display());
    }
}

/// Names of cases as names of tests have them: `fn z4_z5_cut_…` is a test of Z4 and Z5.
fn cases(text: &str) -> BTreeSet<String> {
    let is_case = |word: &&str| {
        let number = word.strip_prefix(['a', 'z', 'p', 't', 'm', 's', 'g', 'f', 'w', 'r']).unwrap_or_default();
        !number.is_empty()
            && number.len() < 3
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && *word != "f16"
            && *word != "f32"
            && *word != "f64"
    };
    let names = text.split("    fn ").flat_map(|text| text.split("\nfn ")).skip(1).map(word);
    names.flat_map(|name| name.split('_').filter(|part| *part != "and").take_while(is_case)).map(str::to_uppercase).collect()
}

/// Numbers of cases are read somewhere: each is a line of `docs/bad-inputs.md`, with kinds that there are, and each line has a test.
#[test]
fn cases_of_bad_input_are_those_of_the_page() {
    let page = std::fs::read_to_string(root().join("docs/bad-inputs.md")).unwrap();
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ")).filter(|(id, _)| id.starts_with(char::is_uppercase));
    let kinds = std::fs::read_to_string(root().join("tests/golden/kinds.txt")).unwrap();
    let kinds: BTreeSet<&str> = kinds.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    let mut listed = BTreeSet::new();
    for (id, row) in rows {
        assert!(listed.insert(id.to_owned()), "{id} twice");
        for kind in row.split('`').skip(1).step_by(2).filter(|code| code.starts_with(char::is_uppercase)) {
            assert!(kinds.contains(kind), "{id}: no error has the kind {kind}");
        }
    }
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut tested: BTreeSet<String> = files.iter().flat_map(|(_, text)| cases(text)).collect();
    // The fallback is convert's; where temporaries lie is asserted in the tests of W1 and W2.
    tested.extend(["M4", "W9"].map(str::to_owned));
    assert!(listed.len() > 80, "{} cases", listed.len());
    assert_eq!(listed.difference(&tested).collect::<Vec<_>>(), Vec::<&String>::new(), "no test has their names");
    assert_eq!(tested.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/bad-inputs.md");
    assert_eq!(cases("#[test]\nfn z4_and_w25_cut() {}\n    fn f16_is() {}\n    fn zip() {}"), ["W25", "Z4"].map(str::to_owned).into());
}

/// "trap T1" told nobody anything: comments name a heading of `docs/traps.md`.
#[test]
fn traps_are_named_by_headings_that_there_are() {
    let page = std::fs::read_to_string(root().join("docs/traps.md")).unwrap();
    let headings: BTreeSet<String> = page.lines().filter_map(|line| Some(line.strip_prefix("## ")?.to_owned())).collect();
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut named = BTreeSet::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("house.rs")) {
        // A reference may go over the end of a line.
        let text: Vec<&str> = text.lines().map(|line| line.trim_start().trim_start_matches('/').trim()).collect();
        let text = text.join(" ");
        named.extend(text.split("`docs/traps.md`, \"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        assert!(!["trap T", "rule G", "Rule G"].iter().any(|words| text.contains(words)), "{}: name the heading or page", path.display());
    }
    assert_eq!(named, headings);
}

/// The names in the column "where to start" of the table of crates, with the crate of each. Names that end in a slash are places in the
/// program.
fn main_types(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| crate")).skip(2).take_while(|line| line.starts_with("| "));
    let mut found = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let names = cells[cells.len() - 1].split('`').skip(1).step_by(2).filter(|name| !name.ends_with('/'));
        found.extend(names.map(|name| (cells[0].to_owned(), name.to_owned())));
    }
    found
}

/// The modules of a `pub use` that end in `name`: `["layer"]` of `pub use layer::{Layer, LayerOutput};`.
fn re_exported(text: &str, name: &str) -> Option<Vec<String>> {
    let uses = text.split("\npub use ").skip(1).map(|rest| rest.split(';').next().unwrap());
    let paths = uses.flat_map(|used| match used.split_once('{') {
        None => vec![used.to_owned()],
        Some((module, names)) => names.trim_end_matches('}').split(',').map(|name| format!("{module}{}", name.trim())).collect(),
    });
    let mut paths = paths.map(|path| path.split("::").map(str::to_owned).collect::<Vec<_>>());
    let mut path = paths.find(|path| path.last().is_some_and(|last| last == name) && !path[0].starts_with("rwkv_forge"))?;
    path.pop();
    Some(path)
}

/// The file of the module `name` beside the file of its parent.
fn module(parent: &Path, name: &str) -> PathBuf {
    let is_root = ["lib.rs", "mod.rs"].iter().any(|root| parent.ends_with(root));
    let folder = if is_root { parent.parent().unwrap().to_path_buf() } else { parent.with_extension("") };
    let nested = folder.join(name).join("mod.rs");
    if nested.exists() { nested } else { folder.join(format!("{name}.rs")) }
}

/// The comment above the first line for which `is_it` holds: its lines without slashes and attributes, `None` without such a line.
fn comment_above(text: &str, is_it: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| is_it(line))?;
    let above = lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut comment: Vec<String> = above.filter_map(|line| Some(line.strip_prefix("///")?.trim().to_owned())).collect();
    comment.reverse();
    Some(comment)
}

/// Whether a line declares `name` for others to use.
fn declares(line: &str, name: &str) -> bool {
    let kinds = ["struct", "enum", "trait", "fn", "const fn", "const", "static"];
    kinds.iter().any(|kind| line.strip_prefix(&format!("pub {kind} ")).is_some_and(|rest| word(rest) == name))
}

/// The comment of `path` as the file has it or re-exports it: of an item, or of a module that is public itself.
fn comment_of(file: &Path, path: &[&str]) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    let (name, rest) = path.split_first()?;
    if text.contains(&format!("\npub mod {name};")) {
        let file = module(file, name);
        if !rest.is_empty() {
            return comment_of(&file, rest);
        }
        let text = std::fs::read_to_string(file).ok()?;
        return Some(text.lines().map_while(|line| Some(line.strip_prefix("//!")?.trim().to_owned())).collect());
    }
    if let Some(modules) = re_exported(&text, name) {
        let file = modules.iter().fold(file.to_path_buf(), |file, name| module(&file, name));
        return comment_of(&file, path);
    }
    match rest {
        [] => comment_above(&text, |line| declares(line, name)),
        _ => None,
    }
}

/// The comment of `Type::method`, in whatever file of the crate it stands.
fn comment_of_method(files: &[(PathBuf, String)], of: &str, method: &str) -> Option<Vec<String>> {
    files.iter().find_map(|(_, text)| {
        let blocks = text.split("\nimpl").skip(1).filter_map(|rest| rest.split("\n}\n").next());
        let mut own = blocks.filter(|block| {
            let head = block.lines().next().unwrap_or_default();
            head.strip_suffix(" {").is_some_and(|head| word(head.rsplit(' ').next().unwrap_or_default()) == of)
        });
        own.find_map(|block| comment_above(block, |line| declares(line.trim(), method)))
    })
}

/// Whether a comment has an example that is compiled, run and expected to end well.
fn has_example(comment: &[String]) -> bool {
    let opening = comment.iter().filter(|line| line.starts_with("```")).step_by(2);
    let mut attributes = opening.map(|line| line.trim_start_matches('`').split(',').map(str::trim));
    attributes.any(|mut attributes| attributes.all(|attribute| ["", "rust"].contains(&attribute)))
}

/// What a crate's page says to start at shows how: an example that runs with the tests.
#[test]
fn main_types_have_examples_that_run() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let named = main_types(&page);
    assert!(named.len() > 60, "{} main types", named.len());
    let mut problems = Vec::new();
    for (directory, name) in &named {
        let src = root().join("crates").join(directory).join("src");
        let path: Vec<&str> = name.split("::").filter(|part| *part != "rwkv_forge").collect();
        let comment = match path[..] {
            [of, method] if of.starts_with(char::is_uppercase) => {
                let mut files = Vec::new();
                sources(&src, &mut files);
                comment_of_method(&files, of, method)
            }
            _ => comment_of(&src.join("lib.rs"), &path),
        };
        match comment {
            None => problems.push(format!("{directory}: {name} is not found")),
            Some(comment) if !has_example(&comment) => problems.push(format!("{directory}: {name} has no example that runs")),
            Some(_) => {}
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn an_example_that_does_not_run_is_none() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(has_example(&lines("What it is.\n\n```\nassert!(true);\n```")));
    assert!(has_example(&lines("```text\na picture\n```\n\n```rust\n```")));
    for none in ["What it is.", "```ignore\n```", "```no_run\n```", "```text\n```", "```compile_fail\n```", "```rust,no_run\n```"] {
        assert!(!has_example(&lines(none)), "{none}");
    }
    let text = "/// Old.\npub struct Formats;\n\n/// A format.\n///\n/// ```\n/// ```\n#[derive(Debug)]\npub struct Format<'a> {\n}\n";
    assert_eq!(comment_above(text, |line| declares(line, "Format")).unwrap(), ["A format.", "", "```", "```"]);
    assert_eq!(comment_above(text, |line| declares(line, "Form")), None);
    assert_eq!(re_exported("mod a;\npub use a::b::{C, D};\npub use rwkv_forge_x::E;\n", "D").unwrap(), ["a", "b"]);
    assert_eq!(re_exported("mod a;\npub use rwkv_forge_x::E;\n", "E"), None);
    assert_eq!(
        main_types("| crate | what | where |\n|---|---|---|\n| x | a \"b\" | `C::d`, `e/` |\n"),
        [("x".to_owned(), "C::d".to_owned())]
    );
}
