//! Every command of ours that README, the pages of docs/ and the help show works as it is written there: each is run on the tiny models,
//! under the names that the page gives its files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::Path;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::support::{Dir, checkpoint, fixture, forge, json, vocab};

/// Pages whose commands are steps of a whole: those of a repository's own checks, which `ci_steps.rs` runs, and the tour, which `tour.rs` runs.
const ELSEWHERE: &[&str] = &["ci.md", "tour.md"];

/// What stands for itself on a page, and what it is here.
const NAMES: &[(&str, &str)] = &[
    ("MODEL", "model.pth"),
    ("SRC", "model.pth"),
    ("FILE", "model-q4_k_m.gguf"),
    ("small-rwkv7.pth", "model.pth"),
    ("calib.txt", "calib.txt"),
    ("im-Q4_K_M.gguf", "model-q4_k_m.gguf"),
    ("4bit.gguf", "model-q8_0.gguf"),
    ("vocab-4096.txt", "vocab.txt"),
    ("random-7b.safetensors", "model.pth"),
    ("fixtures/deep/tiny-rwkv7b.safetensors", "model.pth"),
    ("eval-prose.txt", "other.txt"),
    ("eval-refdocs.txt", "text/one.txt"),
    ("eval-code.txt", "data/one.txt"),
    // Sizes of the models that the pages speak of.
    ("990M", "700K"),
    ("33412704", "700K"),
];

/// So little text, time and threads that a tiny model's answer comes at once; values of a page that would take long.
const SHORTER: &[(&str, &[&str])] = &[
    ("eval", &["--bytes", "1500"]),
    ("plan", &["--probe-windows", "1"]),
    ("bench curve", &["--seconds", "1"]),
    ("bench", &["--repeat", "1", "--loads", "1", "--prompt", "0", "--read-mib", "1"]),
];

/// Lines that begin with the program's name, without what a `#` says of them.
fn commands(code: &str) -> Vec<String> {
    let lines = code.lines().map(str::trim).filter(|line| line.starts_with("rwkv-forge "));
    lines.map(|line| line.split(" #").next().unwrap().trim_end().to_owned()).collect()
}

/// The commands in a page's blocks of code.
fn of_page(page: &str) -> Vec<String> {
    let (mut out, mut is_code) = (Vec::new(), false);
    for event in Parser::new(page) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => is_code = true,
            Event::End(TagEnd::CodeBlock) => is_code = false,
            Event::Text(text) if is_code => out.extend(commands(&text)),
            _ => {}
        }
    }
    out
}

/// Words as a shell divides them; quotes are the only thing that pages use.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => out.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(c),
        }
    }
    out.extend((!word.is_empty()).then_some(word));
    out
}

/// What the pages' files are called, with something in each.
fn scene(dir: &Dir) {
    let prose = "Of all existing things some are in our power, and others are not in our power. In our power are thought, impulse, will. ";
    // No text that is measured on repeats one that calibration saw.
    let seen =
        "A wind had blown the rain away and blown the sky away and all the leaves away, and the trees stood. I think, I too, have known. ";
    std::fs::copy(checkpoint("7"), dir.join("model.pth")).unwrap();
    std::fs::copy(vocab(), dir.join("vocab.txt")).unwrap();
    for folder in ["text", "data"] {
        std::fs::create_dir(dir.join(folder)).unwrap();
    }
    for (name, text) in [("calib.txt", seen), ("other.txt", prose), ("text/one.txt", prose), ("data/one.txt", prose)] {
        std::fs::write(dir.join(name), text.repeat(20)).unwrap();
    }
    let pair = r#"{"context": "Of all existing things some are in our", "continuation": " power"}"#;
    std::fs::write(dir.join("pairs.jsonl"), format!("{pair}\n{pair}\n")).unwrap();
    std::fs::write(dir.join("tokens.json"), "[1, 2, 3, 4]").unwrap();
    std::fs::copy(fixture("states/tiny-state.pth"), dir.join("state.pth")).unwrap();
    for encoding in ["q4_k_m", "q8_0"] {
        let output = dir.join(&format!("model-{encoding}.gguf"));
        let texts = [checkpoint("7"), vocab(), &output].map(|path| path.to_str().unwrap().to_owned());
        json(&["convert", &texts[0], "--vocab", &texts[1], "--to", "gguf", "--type", encoding, "--no-verify", "-o", &texts[2]], 0);
    }
}

/// Runs a line in the scene; an error says what the program said.
fn follow(dir: &Dir, line: &str) -> Result<(), String> {
    let mut args: Vec<String> = words(line)[1..].to_vec();
    for word in &mut args {
        if let Some((_, here)) = NAMES.iter().find(|(there, _)| there == word) {
            (*here).clone_into(word);
        }
    }
    let command = args[0].clone();
    // Pairs are few as they are.
    let is_short = args.iter().any(|word| word == "--pairs");
    let whole = if args.get(1).is_some_and(|word| word == "curve") { "bench curve".to_owned() } else { command.clone() };
    for pair in SHORTER.iter().filter(|_| !is_short).filter(|(name, _)| *name == whole).flat_map(|(_, more)| more.chunks(2)) {
        // A value of the page's own is replaced, since no option may stand twice.
        if let Some(at) = args.iter().position(|word| word == pair[0]) {
            if let Some(value) = pair.get(1) {
                (*value).clone_into(&mut args[at + 1]);
            }
        } else {
            args.extend(pair.iter().map(|word| (*word).to_owned()));
        }
    }
    // The tiny models have a vocabulary of their own; GGUF brings it.
    if ["convert", "eval", "plan", "generate", "verify"].contains(&command.as_str()) && !args.iter().any(|word| word == "--vocab") {
        args.extend(["--vocab".to_owned(), "vocab.txt".to_owned()]);
    }
    let done = forge().current_dir(dir.path()).env("XDG_CACHE_HOME", dir.path()).args(&args).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.code() != Some(0) {
        return Err(format!("{line}\nran as {args:?}\nexit code {:?}\n{said}", done.status.code()));
    }
    for pair in args.windows(2).filter(|pair| ["-o", "--html", "--junit", "--csv", "--markdown"].contains(&pair[0].as_str())) {
        if !dir.join(&pair[1]).exists() {
            return Err(format!("{line}\nleft no {}", pair[1]));
        }
    }
    Ok(())
}

/// Pages with their commands.
fn pages() -> Vec<(String, Vec<String>)> {
    let root = fixture("..");
    let mut files: Vec<_> = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root.join("README.md"));
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let is_page = |path: &Path| path.extension().is_some_and(|extension| extension == "md") && !ELSEWHERE.contains(&name(path).as_str());
    files.retain(|path| is_page(path));
    files.iter().map(|path| (name(path), of_page(&std::fs::read_to_string(path).unwrap()))).collect()
}

/// What a page shows works; a page's commands run in the order in which they stand, in one folder.
fn assert_works(name: &str, lines: &[String]) {
    let dir = Dir::new();
    scene(&dir);
    let failures: Vec<String> = lines.iter().filter_map(|line| follow(&dir, line).err()).collect();
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n\n"));
}

#[test]
fn commands_of_the_pages_work_as_written() {
    let pages = pages();
    let count: usize = pages.iter().map(|(_, lines)| lines.len()).sum();
    assert!(count >= 15, "{count} commands were found: is the pattern still that of the pages?");
    for (name, lines) in pages.iter().filter(|(_, lines)| !lines.is_empty()) {
        assert_works(name, lines);
    }
}

#[test]
fn commands_of_the_help_work_as_written() {
    let top = String::from_utf8(forge().arg("--help").output().unwrap().stdout).unwrap();
    let section = top.split("Commands:").nth(1).unwrap();
    let names: Vec<&str> =
        section.lines().skip(1).take_while(|line| !line.trim().is_empty()).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"convert") && names.contains(&"inspect"), "{names:?}");
    let mut all: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
    all.extend([["meta", "show"], ["meta", "set"], ["meta", "remove"], ["meta", "copy"], ["bench", "curve"]].map(|inner| inner.to_vec()));
    for name in &all {
        let help = String::from_utf8(forge().args(name).arg("--help").output().unwrap().stdout).unwrap();
        // Prose may begin a line with the program's name as well, and so does the usage of commands with commands.
        let mut lines = commands(&help);
        lines.retain(|line| names.contains(&line.split(' ').nth(1).unwrap()) && !line.contains(['<', '[']));
        if !lines.is_empty() {
            assert_works(&format!("{} --help", name.join(" ")), &lines);
        }
    }
}

/// The planted fault: a line that lacks what the command needs, or names what it doesn't have, is found.
#[test]
fn a_wrong_command_is_found() {
    let dir = Dir::new();
    scene(&dir);
    for line in
        ["rwkv-forge convert MODEL --to gguf --type q9_9", "rwkv-forge verify MODEL absent.gguf", "rwkv-forge eval MODEL --levles all"]
    {
        assert!(follow(&dir, line).is_err(), "{line}");
    }
    let page = "rwkv-forge turns this\n\n    rwkv-forge inspect x.pth --lint   # why\n\n```sh\nrwkv-forge man\nrwkv-forger x\n```\n";
    assert_eq!(of_page(page), ["rwkv-forge inspect x.pth --lint", "rwkv-forge man"]);
    assert_eq!(words("a --author \"Jo Doe\"  b"), ["a", "--author", "Jo Doe", "b"]);
}
