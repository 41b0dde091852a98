//! `-` as a text and as an output, what was written, how long it took, and the verdict.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Dir, checkpoint, convert_args, error_kind, fixture, forge, json, run, vocab};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the program with these words and this on stdin, with temporary files in `dir`.
fn fed(dir: &Dir, words: &[&str], stdin: &[u8]) -> Output {
    let mut command = forge();
    command.args(words).env("TMPDIR", dir.path()).env("XDG_CACHE_HOME", dir.join("cache"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // Who needs only the beginning may leave.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A piece of the public-domain book.
fn book(range: std::ops::Range<usize>) -> Vec<u8> {
    std::fs::read(fixture("text/public-domain-100k.txt")).unwrap()[range].to_vec()
}

/// What is the same in two documents about the same work: no time, no path of a text, no memory.
fn lasting(document: &[u8]) -> Value {
    fn without(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in
                    ["seconds", "tokens_per_second", "peak_memory_bytes", "write_seconds", "verify_seconds", "texts", "notes", "written"]
                {
                    fields.remove(name);
                }
                fields.values_mut().for_each(without);
            }
            Value::Array(values) => values.iter_mut().for_each(without),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::from_slice(document).unwrap();
    without(&mut value);
    value
}

/// Every command that reads a text says the same of it, whether it lies in a file or comes through stdin.
#[test]
fn a_text_on_stdin_is_the_text_of_a_file() {
    let dir = Dir::new();
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(name), bytes).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let book_text = put("book.txt", &book(0..4000));
    let ids = put("ids.json", b"[1, 2, 3, 4]");
    let pairs = put("pairs.jsonl", b"{\"id\": \"a\", \"context\": \"It was\", \"continuation\": \" a day\"}\n");
    let recipe = put("recipe.toml", b"type = \"q8_0\"\n");
    let template = put("template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}");
    let q8 = dir.join("q8.gguf");
    assert!(run(&convert_args(checkpoint("7"), "gguf", "q8_0", &q8)).status.success());
    let q8 = text(&q8);
    for (words, option, file) in [
        (vec!["eval", q8, "--baseline", model, "--vocab", words], "--text", &book_text),
        (vec!["eval", q8, "--baseline", model, "--vocab", words], "--pairs", &pairs),
        (vec!["eval", q8, "--vocab", words, "--allow-leak"], "--calibration", &book_text),
        (vec!["verify", model, q8, "--vocab", words], "--text", &book_text),
        (vec!["forms", model, "--vocab", words, "--quick", "--tier", "f64", "--tokens", "16"], "--text", &book_text),
        (vec!["convert", model, "--vocab", words, "--to", "gguf", "--type", "q8_0", "--force", "-o", "OUT"], "--text", &book_text),
        (vec!["convert", model, "--vocab", words, "--to", "gguf", "--force", "-o", "OUT"], "--recipe", &recipe),
        (vec!["convert", model, "--vocab", words, "--to", "gguf", "--type", "q8_0", "--force", "-o", "OUT"], "--chat", &template),
        (
            vec!["convert", model, "--vocab", words, "--to", "gguf", "--force", "--calibration-windows", "2", "-o", "OUT"],
            "--calibrate",
            &book_text,
        ),
        (vec!["logits", model, "--vocab", words, "--force", "-o", "OUT"], "--text", &book_text),
        (vec!["logits", model, "--vocab", words, "--force", "-o", "OUT"], "--tokens", &ids),
    ] {
        let out = dir.join("out").to_str().unwrap().to_owned();
        let words: Vec<&str> = words.iter().map(|word| if *word == "OUT" { out.as_str() } else { *word }).collect();
        let content = std::fs::read(file).unwrap();
        let all = |value: &'static str| [&["--json"][..], &words, &[option, value]].concat();
        let from_file = fed(&dir, &[&["--json"][..], &words, &[option, file]].concat(), b"");
        let written = std::fs::read(&out).ok();
        let from_stdin = fed(&dir, &all("-"), &content);
        assert!(from_file.status.success() && from_stdin.status.success(), "{words:?} {option}: {}{}", said(&from_file), said(&from_stdin));
        // Where a pair has no id of its own and where a leak is found, a name would differ.
        let (mut first, second) = (lasting(&from_file.stdout), lasting(&from_stdin.stdout).to_string());
        if option == "--chat" {
            let named = first.to_string();
            assert!(named.contains("--chat"), "{named}");
            first = serde_json::from_str(&named.replace(file.as_str(), "stdin")).unwrap();
        }
        assert_eq!(first.to_string(), second, "{words:?} {option}");
        // Its record has digests alone, so that the very bytes are the same.
        assert_eq!(std::fs::read(&out).ok(), written, "{words:?} {option}");
    }
}

#[test]
fn stdin_is_read_no_further_than_asked_and_its_size_is_bounded() {
    let dir = Dir::new();
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    // An endless text.
    let line = format!(
        "yes 'It was a bright day.' | {} --json eval {model} --vocab {words} --text - --bytes 2000",
        env!("CARGO_BIN_EXE_rwkv-forge")
    );
    let seen = Command::new("bash").args(["-c", &line]).output().unwrap();
    let document: Value = serde_json::from_slice(&seen.stdout).unwrap_or_else(|_| panic!("{}", said(&seen)));
    assert_eq!((&document["texts"][0]["name"], &document["texts"][0]["bytes"]), (&Value::from("stdin"), &Value::from(2000)));
    let line =
        format!("yes | {} --json logits {model} --vocab {words} -o {}/x --text -", env!("CARGO_BIN_EXE_rwkv-forge"), text(dir.path()));
    let seen = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(seen.status.code() == Some(4) && said(&seen).contains("error[TooLarge]: stdin: "), "{}", said(&seen));
    for words in [["eval", "--text"], ["eval", "--pairs"]] {
        let seen = fed(&dir, &[words[0], model, "--vocab", text(vocab()), words[1], "-"], b"");
        assert!(seen.status.code() == Some(3) && said(&seen).contains("EmptyText]: stdin: "), "{words:?}: {}", said(&seen));
    }
}

#[test]
fn a_prompt_on_stdin_is_continued() {
    let dir = Dir::new();
    let generate = |prompt: &str, stdin: &str| {
        fed(&dir, &["generate", text(checkpoint("7")), "--vocab", text(vocab()), "-n", "8", "--prompt", prompt], stdin.as_bytes())
    };
    let (typed, piped) = (generate("It was", ""), generate("-", "It was"));
    assert!(piped.status.success() && piped.stdout.starts_with(b"It was"), "{}", said(&piped));
    assert_eq!(piped.stdout, typed.stdout);
    assert!(said(&generate("-", "")).contains("error[EmptyPrompt]"));
}

#[test]
fn streams_that_cannot_be_are_refused_by_name() {
    let dir = Dir::new();
    let (model, other) = (text(checkpoint("7")), dir.join("out"));
    let other = text(&other);
    for (kind, says, words) in [
        ("NoStdin", "SOURCE -: only texts are read from stdin: a model is read in many places", &["convert", "-", "--to", "gguf"][..]),
        ("NoStdin", "FILE -: only texts", &["inspect", "-"]),
        ("NoStdin", "--baseline -: only texts", &["eval", model, "--baseline", "-"]),
        ("NoStdin", "--state -: only texts", &["generate", model, "--state", "-"]),
        ("NoStdin", "--lora -: only texts", &["convert", model, "--lora", "-", "-o", other]),
        ("NoStdin", "--vocab -: only texts", &["generate", model, "--vocab", "-"]),
        ("StdinTwice", "--text -: stdin is --calibrate - already", &["convert", model, "--to", "gguf", "--text", "-", "--calibrate", "-"]),
        ("StdinTwice", "--text -: stdin is --text - already", &["eval", model, "--text", "-", "--text", "-"]),
        ("NoStdout", "--csv -: stdout is for results", &["eval", model, "--csv", "-"]),
        ("NoStdout", "--record -: stdout is for results", &["convert", model, "--to", "gguf", "--record", "-"]),
        ("NoStdout", "--layers -: stdout is for results", &["logits", model, "--tokens", "-", "--layers", "-", "-o", other]),
        ("NoStdout", "writes several files", &["bench", "curve", model, "-o", "-"]),
        ("NoStdout", "writes several files", &["man", "--output", "-"]),
        ("NoStdout", "hf is a directory of files", &["convert", model, "--to", "hf", "-o", "-", "--type", "f16"]),
        (
            "NoStdout",
            "--split-size makes ",
            &["convert", model, "--to", "gguf", "--vocab", text(vocab()), "--split-size", "200K", "-o", "-"],
        ),
        ("ContainerNeeded", "give --to with one of", &["convert", model, "-o", "-"]),
    ] {
        let seen = fed(&dir, &[&["--json"], words].concat(), b"");
        assert_eq!(seen.status.code(), Some(2), "{words:?}: {}", said(&seen));
        assert!(said(&seen).contains(&format!("error[{kind}]: ")) && said(&seen).contains(says), "{words:?}: {}", said(&seen));
        // What is for stdout is never mixed with a document.
        let delivers = words.windows(2).any(|pair| pair == ["-o", "-"]) && !words.contains(&"curve");
        assert_eq!(seen.stdout.is_empty(), delivers, "{words:?}");
        assert!(dir.names().is_empty(), "{words:?}: {:?}", dir.names());
    }
    // A file of that name has another one.
    std::fs::copy(checkpoint("7"), dir.join("-")).unwrap();
    let seen = forge().current_dir(dir.path()).args(["inspect", "./-"]).output().unwrap();
    assert!(seen.status.success(), "{}", said(&seen));
    // Mistakes that the parser finds, too.
    let seen = fed(&dir, &["--json", "convert", model, "-o", "-", "--no-such-option"], b"");
    assert!(seen.stdout.is_empty() && said(&seen).contains("\"kind\": \"Usage\""), "{}", said(&seen));
}

/// The command, its words, and a `-o` that is left out.
fn deliveries() -> Vec<(&'static str, Vec<&'static str>)> {
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let of =
        |container: &'static str, encoding: &'static str| vec!["convert", model, "--vocab", words, "--to", container, "--type", encoding];
    vec![
        ("gguf", of("gguf", "q4_0")),
        ("safetensors", of("safetensors", "bf16")),
        ("pth", of("pth", "f16")),
        ("bin", of("rwkv-cpp", "q8_0")),
        ("st", of("web-rwkv", "f16")),
        ("prefab", of("prefab", "int8")),
        ("npy", vec!["logits", model, "--tokens", "IDS"]),
        ("st", vec!["state", text(fixture("states/tiny-state.pth")), "--to", "web-rwkv"]),
        (
            "toml",
            vec![
                "plan",
                model,
                "--vocab",
                words,
                "--bpw",
                "8",
                "--probe-windows",
                "1",
                "--calibration-windows",
                "2",
                "--calibrate",
                "TEXT",
                "--text",
                "SMALL",
            ],
        ),
    ]
}

/// The file that would have had a name, byte for byte; all that is said is on stderr, and nothing of it stays.
#[test]
fn an_output_on_stdout_is_the_file() {
    let (dir, temporary) = (Dir::new(), Dir::new());
    std::fs::write(dir.join("ids.json"), "[1, 2, 3]").unwrap();
    std::fs::write(dir.join("text.txt"), book(20_000..29_000)).unwrap();
    std::fs::write(dir.join("small.txt"), book(0..3000)).unwrap();
    for (extension, words) in deliveries() {
        let names = [("IDS", dir.join("ids.json")), ("TEXT", dir.join("text.txt")), ("SMALL", dir.join("small.txt"))];
        let word =
            |word: &&str| names.iter().find(|(name, _)| name == word).map_or_else(|| (*word).to_owned(), |(_, path)| text(path).to_owned());
        let words: Vec<String> = words.iter().map(word).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let file = dir.join(&format!("file.{extension}"));
        let seen = fed(&dir, &[&words[..], &["--force", "-o", text(&file)]].concat(), b"");
        assert!(seen.status.success(), "{words:?}: {}", said(&seen));
        for json in [false, true] {
            let extra: &[&str] = if json { &["-q", "--json"] } else { &[] };
            let seen = fed(&temporary, &[&words[..], &["-o", "-"], extra].concat(), b"");
            assert!(seen.status.success(), "{words:?}: {}", said(&seen));
            assert!(seen.stdout == std::fs::read(&file).unwrap(), "{words:?}: {} bytes", seen.stdout.len());
            if json {
                let document: Value = serde_json::from_str(&said(&seen)).unwrap_or_else(|error| panic!("{error}: {}", said(&seen)));
                let told = serde_json::json!([{ "what": "--output", "path": "-" }]);
                assert_eq!(document["written"], told, "{words:?}");
            } else {
                assert!(said(&seen).contains("stdout"), "{words:?}: {}", said(&seen));
            }
            let left: Vec<String> = temporary.names().into_iter().filter(|name| name != "cache").collect();
            assert!(left.is_empty(), "{words:?}: {left:?}");
        }
    }
}

/// The file is the result: who goes away before it is whole has not got it, and the exit code says so.
#[test]
fn a_reader_that_leaves_is_an_error() {
    let (dir, temporary) = (Dir::new(), Dir::new());
    let program = env!("CARGO_BIN_EXE_rwkv-forge");
    std::fs::write(dir.join("ids.json"), serde_json::json!((0..300).collect::<Vec<_>>()).to_string()).unwrap();
    let convert = format!("{program} convert {} --vocab {} --to gguf --type q8_0 -o -", text(checkpoint("7")), text(vocab()));
    let logits = format!("{program} logits {} --tokens {} -o -", text(checkpoint("7")), text(&dir.join("ids.json")));
    let shell = |line: String| {
        let mut command = Command::new("bash");
        command.env("TMPDIR", temporary.path()).args(["-c", &line]).output().unwrap()
    };
    for line in [&convert, &logits] {
        // Of a stdout that is closed nothing would be left; who sends it to nowhere wants that.
        let seen = shell(format!("{line} >&-"));
        assert!(seen.status.code() == Some(2) && said(&seen).contains("error[NoStdout]: --output -: stdout is closed"), "{}", said(&seen));
        assert!(shell(format!("{line} >/dev/null")).status.success(), "{line}");
        for reader in ["head -c 10 >/dev/null", "true", "(sleep 100 & child=$!; kill -9 $child; exit 0)"] {
            let seen = shell(format!("{line} | {reader}; exit ${{PIPESTATUS[0]}}"));
            assert_eq!(seen.status.code(), Some(4), "{line} | {reader}: {}", said(&seen));
            assert!(said(&seen).contains("error[NotHandedOn]: stdout has taken "), "{line} | {reader}: {}", said(&seen));
            assert!(!said(&seen).contains("wrote "), "{line} | {reader}: {}", said(&seen));
            assert!(temporary.names().is_empty(), "{:?}", temporary.names());
        }
        let seen = shell(format!("{line} >/dev/full"));
        assert!(seen.status.code() == Some(4) && said(&seen).contains("error[NotHandedOn]"), "{line}: {}", said(&seen));
        // A reader that takes its time gets all of it.
        let seen = shell(format!("{line} | (sleep 0.5; wc -c); exit ${{PIPESTATUS[0]}}"));
        assert!(seen.status.success(), "{line}: {}", said(&seen));
    }
}

/// A reader that is killed in the middle.
#[test]
fn a_reader_that_is_killed_is_an_error() {
    let temporary = Dir::new();
    let words = ["convert", text(checkpoint("7")), "--vocab", text(vocab()), "--to", "gguf", "--type", "f16", "-o", "-"];
    let mut child = forge().args(words).env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = Command::new("sleep").arg("1000").stdin(child.stdout.take().unwrap()).spawn().unwrap();
    // The pipe is full, and the program waits for a reader that never reads.
    let mut stderr = child.stderr.take().unwrap();
    for _ in 0..3000 {
        if !temporary.names().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("error[NotHandedOn]"), "{said}");
    assert!(temporary.names().is_empty(), "{:?}", temporary.names());
}

/// A signal while the file is made, and a file that fails its comparison: nothing goes to stdout, and nothing stays.
#[test]
fn nothing_half_made_is_handed_on() {
    let temporary = Dir::new();
    let words = ["convert", text(checkpoint("7")), "--vocab", text(vocab()), "--to", "gguf", "--type", "q2_k", "-o", "-"];
    let seen = fed(&temporary, &[&words[..], &["--max-kl", "1e-9"]].concat(), b"");
    assert_eq!((seen.status.code(), seen.stdout.len()), (Some(1), 0), "{}", said(&seen));
    assert!(temporary.names().is_empty(), "{:?}", temporary.names());
    let book = text(fixture("text/public-domain-100k.txt"));
    let mut child = forge()
        .args(words)
        .args(["--probe-tokens", "100000", "--text", book])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..6000 {
        if !temporary.names().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let mut taken = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut taken).unwrap();
    assert_eq!((child.wait().unwrap().code(), taken.len()), (Some(143), 0));
    assert!(temporary.names().is_empty(), "{:?}", temporary.names());
    // With --dry-run there is no file, so that the table is the result.
    let seen = fed(&temporary, &[&words[..], &["--dry-run"]].concat(), b"");
    assert!(seen.status.success() && String::from_utf8_lossy(&seen.stdout).contains("would write"), "{}", said(&seen));
}

/// Recipes go from one command into the next.
#[test]
fn a_plan_goes_straight_into_a_conversion() {
    let dir = Dir::new();
    std::fs::write(dir.join("text.txt"), book(20_000..29_000)).unwrap();
    std::fs::write(dir.join("small.txt"), book(0..3000)).unwrap();
    let program = env!("CARGO_BIN_EXE_rwkv-forge");
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let calibrate = format!("--calibrate {} --calibration-windows 2", text(&dir.join("text.txt")));
    let small = dir.join("small.txt");
    let line = format!(
        "{program} -q plan {model} --vocab {words} --bpw 8 --probe-windows 1 {calibrate} --text {} -o - | \
         {program} convert {model} --vocab {words} --to gguf --recipe - {calibrate} -o {}",
        text(&small),
        text(&dir.join("planned.gguf"))
    );
    let seen =
        Command::new("bash").args(["-c", &format!("set -o pipefail; {line}")]).env("XDG_CACHE_HOME", dir.join("cache")).output().unwrap();
    assert!(seen.status.success() && dir.join("planned.gguf").exists(), "{}", said(&seen));
}

/// Every file beside the result is said, and listed for programs.
#[test]
fn what_was_written_is_said() {
    let dir = Dir::new();
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    std::fs::write(dir.join("small.txt"), book(0..3000)).unwrap();
    std::fs::write(dir.join("text.txt"), book(20_000..29_000)).unwrap();
    std::fs::write(dir.join("ids.json"), "[1, 2, 3]").unwrap();
    let small = dir.join("small.txt");
    let (calibration, ids) = (dir.join("text.txt"), dir.join("ids.json"));
    let eval = ["eval", model, "--vocab", words, "--text", text(&small), "--protocol", "llama", "--context", "64"];
    let levels = ["eval", model, "--vocab", words, "--text", text(&small), "--levels", "q8_0,q4_0", "--no-speed", "--no-cache"];
    let convert = ["convert", model, "--vocab", words, "--to", "gguf", "--calibrate", text(&calibration), "--calibration-windows", "2"];
    let bench = ["bench", model, "--tokens", "2", "--repeat", "1", "--loads", "1", "--read-mib", "1", "--prompt", "0"];
    for (command, outputs) in [
        (&eval[..], &[("--save-logits", "logits.bin"), ("--html", "a.html"), ("--markdown", "a.md"), ("--csv", "a.csv")][..]),
        (&levels[..], &[("--html", "a.html"), ("--markdown", "a.md"), ("--csv", "a.csv")]),
        (
            &convert[..],
            &[
                ("--output", "a.gguf"),
                ("--record", "a.json"),
                ("--vocab-json", "v.json"),
                ("--save-imatrix", "i.gguf"),
                ("--statistics", "s.safetensors"),
            ],
        ),
        (&bench[..], &[("--csv", "b.csv"), ("--markdown", "b.md"), ("--svg", "b.svg")]),
        (&["forms", model, "--vocab", words, "--quick", "--tokens", "8"][..], &[("--junit", "f.xml")]),
        (&["logits", model, "--tokens", text(&ids)][..], &[("--output", "l.npy"), ("--layers", "layers")]),
    ] {
        let out = Dir::new();
        let paths: Vec<(&str, String)> = outputs.iter().map(|(role, name)| (*role, text(&out.join(name)).to_owned())).collect();
        let mut all: Vec<&str> = command.to_vec();
        all.extend(paths.iter().flat_map(|(role, path)| [*role, path.as_str()]));
        // A directory of plots is an output that nobody named.
        let figures = text(&out.join("a-figures")).to_owned();
        let is_drawn = |listed: &[Value]| listed.iter().any(|one| one["path"] == figures.as_str());
        let document = json(&[&all[..], &["--force"]].concat(), 0);
        let listed = document["written"].as_array().unwrap();
        for (role, path) in &paths {
            assert!(listed.iter().any(|one| one["what"] == *role && one["path"] == path.as_str()), "{role} {path}: {listed:#?}");
            assert!(Path::new(path).exists(), "{path}");
        }
        assert_eq!(listed.len(), paths.len() + usize::from(is_drawn(listed)), "{listed:#?}");
        assert_eq!(out.join("a-figures").exists(), is_drawn(listed), "{listed:#?}");
        std::fs::remove_file(out.join("s.safetensors")).ok();
        let seen = run(&[&all[..], &["--force"]].concat());
        let printed = String::from_utf8_lossy(&seen.stdout).into_owned();
        for (role, path) in &paths {
            let line = printed.lines().find(|line| line.starts_with("wrote ") && line.contains(path.as_str()));
            assert!(line.is_some_and(|line| *role == "--output" || line.ends_with(&format!("({role})"))), "{role} {path}: {printed}");
        }
    }
}

#[test]
fn the_time_of_a_conversion_is_the_sum_of_its_parts() {
    let dir = Dir::new();
    std::fs::write(dir.join("text.txt"), book(20_000..29_000)).unwrap();
    let (calibration, output) = (dir.join("text.txt"), dir.join("a.gguf"));
    let args = ["convert", text(checkpoint("7")), "--vocab", text(vocab()), "--to", "gguf", "-o", text(&output), "--force"];
    let calibrate = ["--calibrate", text(&calibration), "--calibration-windows", "2"];
    let parts = |document: &Value| {
        let mut seconds = document["seconds"].as_object().unwrap().clone();
        let total = seconds.remove("total").unwrap().as_f64().unwrap();
        let sum: f64 = seconds.values().map(|value| value.as_f64().unwrap()).sum();
        assert!((total - sum).abs() < 1e-6 && seconds.values().all(|value| value.as_f64().unwrap() >= 0.0), "{seconds:?}");
        seconds.keys().cloned().collect::<Vec<_>>()
    };
    let began = std::time::Instant::now();
    let document = json(&[&args[..], &calibrate].concat(), 0);
    let wall = began.elapsed().as_secs_f64();
    assert!(document["seconds"]["total"].as_f64().unwrap() <= wall, "{}", document["seconds"]);
    assert_eq!(parts(&document), ["calibrating", "comparing", "finishing", "opening", "quantizing", "writing"]);
    let plain = json(&[&args[..], &["--type", "q8_0", "--no-verify"]].concat(), 0);
    assert_eq!(parts(&plain), ["finishing", "opening", "writing"]);
    let seen = run(&[&args[..], &calibrate].concat());
    let printed = String::from_utf8(seen.stdout).unwrap();
    let line = printed.lines().find(|line| line.starts_with("wrote ")).unwrap();
    let mut rest = line;
    for part in
        ["bits a parameter) in ", " s: opening ", ", calibrating ", ", quantizing ", ", writing ", " MB/s of source)", ", comparing "]
    {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part} in {line}")).1;
    }
}

/// `verify` and `eval` say of a file what `convert` has said of it.
#[test]
fn comparisons_have_the_verdict_of_convert() {
    let dir = Dir::new();
    let vocabulary = text(vocab());
    let said = |args: &[&str]| {
        let printed = String::from_utf8(run(args).stdout).unwrap();
        printed.lines().filter(|line| line.starts_with("loss")).map(str::to_owned).collect::<Vec<_>>()
    };
    let model = text(checkpoint("7"));
    let mut made = Vec::new();
    for (encoding, damage) in [("q8_0", "negligible"), ("q2_k", "visible")] {
        let output = dir.join(&format!("{encoding}.gguf"));
        json(&convert_args(checkpoint("7"), "gguf", encoding, &output), 0);
        let file = output.to_str().unwrap().to_owned();
        let line = ["verify", model, &file];
        let verdict = json(&line, 0)["verdict"].clone();
        assert_eq!((&verdict["damage"], &verdict["tokens"]), (&Value::from(damage), &Value::from(512)), "{verdict}");
        let lines = said(&line);
        assert!(lines.len() == 1 && lines[0].starts_with(&format!("loss: {damage}; mean KL ")), "{lines:?}");
        assert!(said(&[&line[..], &["--probe-tokens", "64"]].concat())[0].contains(" alone: --probe-tokens takes more"));
        made.push((file, damage));
    }
    assert_eq!(said(&["verify", model, model, "--vocab", vocabulary]), ["loss: none; all logits are bit-identical, on 512 tokens"]);
    // Of several models each has its own line.
    let files: Vec<&str> = made.iter().map(|(file, _)| file.as_str()).collect();
    let options = ["--vocab", vocabulary, "--bytes", "3000", "--no-cache"];
    let line = [&["eval", files[0], files[1], "--baseline", model][..], &options].concat();
    let document = json(&line, 0);
    for (found, (_, damage)) in document["models"].as_array().unwrap().iter().zip(&made) {
        assert_eq!((&found["verdict"]["damage"], &found["verdict"]["tokens"]), (&Value::from(*damage), &found["tokens"]));
    }
    let lines = said(&line);
    assert!(lines.len() == 2 && lines[1].starts_with("loss of q2_k.gguf: visible; mean KL "), "{lines:?}");
    assert!(said(&[&["eval", files[0], "--baseline", model][..], &options].concat())[0].starts_with("loss: negligible; mean KL "));
    // One model by itself has lost nothing that anybody knows of.
    let line = [&["eval", files[0]][..], &options].concat();
    assert_eq!((json(&line, 0)["models"][0]["verdict"].clone(), said(&line).len()), (Value::Null, 0));
    let levels = json(&[&["eval", model, "--levels", "q8_0,q2_k", "--no-speed"][..], &options].concat(), 0);
    assert_eq!(levels["models"][1]["verdict"]["damage"], "visible");
}

#[test]
fn the_verdict_says_how_much_was_lost_and_what_to_take_instead() {
    let dir = Dir::new();
    let convert = |container: &str, encoding: &str, more: &[&str]| {
        let mut args = convert_args(checkpoint("7"), container, encoding, &dir.join("out"));
        args.extend(more.iter().map(|word| (*word).to_owned()));
        args.push("--force".to_owned());
        let document = json(&args, 0);
        let seen = run(&args);
        let printed = String::from_utf8(seen.stdout).unwrap();
        let line = printed.lines().find(|line| line.starts_with("loss: ")).map(str::to_owned);
        (document["verdict"].clone(), line)
    };
    for (container, encoding, damage) in [
        ("gguf", "q8_0", "negligible"),
        ("gguf", "q4_k_m", "small"),
        ("gguf", "q2_k", "visible"),
        ("rwkv-cpp", "q8_0", "negligible"),
        ("prefab", "int8", "negligible"),
    ] {
        let (verdict, line) = convert(container, encoding, &[]);
        let line = line.unwrap();
        assert_eq!(verdict["damage"], damage, "{container} {encoding}: {verdict}");
        assert!(line.starts_with(&format!("loss: {damage}; mean KL ")) && line.contains("on 128 tokens alone"), "{line}");
        assert_eq!((&verdict["tokens"], &verdict["is_short"]), (&Value::from(128), &Value::from(true)));
        assert_eq!(verdict["instead"].as_array().unwrap().is_empty(), damage != "visible", "{verdict}");
    }
    // What is named instead works and loses less.
    let (verdict, line) = convert("gguf", "q2_k", &[]);
    assert_eq!(verdict["instead"], serde_json::json!(["4bit", "8bit"]));
    assert!(line.unwrap().ends_with("; take --type 4bit or --type 8bit, which lose less"));
    for better in verdict["instead"].as_array().unwrap() {
        let (found, _) = convert("gguf", better.as_str().unwrap(), &[]);
        assert!(found["mean_kl"].as_f64().unwrap() < verdict["mean_kl"].as_f64().unwrap() / 4.0, "{found}");
    }
    // On more tokens there is an interval, and nothing is said of too few.
    let long = text(fixture("text/public-domain-100k.txt"));
    let (verdict, line) = convert("gguf", "q8_0", &["--text", long, "--probe-tokens", "512"]);
    assert_eq!((&verdict["is_short"], &verdict["at_most"]), (&Value::from(false), &Value::from("negligible")), "{verdict}");
    assert!(!line.unwrap().contains("alone"));
    let (verdict, line) = convert("safetensors", "bf16", &[]);
    assert_eq!((&verdict["identical"], &verdict["damage"]), (&Value::from(true), &Value::from("negligible")));
    assert_eq!(line.unwrap(), "loss: none; all logits are bit-identical, on 128 tokens");
    // Without a comparison there is none.
    assert_eq!(convert("gguf", "q8_0", &["--no-verify"]), (Value::Null, None));
    // Rules are no type that could be exchanged for another.
    let (_, line) = convert("gguf", "q8_0", &["--set", "ffn.*weight=q2_k"]);
    assert!(line.unwrap().contains("give its tensors more bits (--set, a larger plan --size)"));
}

/// Of what asks nothing of anybody, notes are for those who want to know more, and for programs.
#[test]
fn notes_without_a_next_step_wait_for_verbose() {
    let dir = Dir::new();
    let mut args = convert_args(checkpoint("7"), "gguf", "6bit", &dir.join("out"));
    args.push("--force".to_owned());
    let plain = said(&run(&args));
    assert!(!plain.contains("lost digits") && !plain.contains("are not copied"), "{plain}");
    args.push("-v".to_owned());
    let verbose = said(&run(&args));
    assert!(verbose.contains("lost digits; nothing is to be done") && verbose.contains("are not copied"), "{verbose}");
    let notes = json(&args, 0)["notes"].to_string();
    assert!(notes.contains("lost digits; nothing is to be done") && notes.contains("are not copied"), "{notes}");
    // Who has allowed the loss hears of it.
    args.retain(|word| word != "-v");
    args.push("--allow-f16-loss".to_owned());
    let allowed = said(&run(&args));
    assert!(allowed.contains("note: too small for their 16-bit type: ") && !allowed.contains("nothing is to be done"), "{allowed}");
    assert_eq!(error_kind(&["inspect", "nothing.pth"], 4), "NotFound");
}

/// The directory of layers is made, as README writes the command.
#[test]
fn the_directory_of_layers_is_made() {
    let dir = Dir::new();
    std::fs::write(dir.join("ids.json"), "[1, 2, 3]").unwrap();
    let (ids, output, layers) = (dir.join("ids.json"), dir.join("l.npy"), dir.join("layers/of/it"));
    let args = ["logits", text(checkpoint("7")), "--tokens", text(&ids), "-o", text(&output), "--layers", text(&layers)];
    let seen = run(&args);
    assert!(seen.status.success() && layers.join("layer-000-output.npy").exists(), "{}", said(&seen));
    assert_eq!(error_kind(&args, 2), "OutputExists");
    std::fs::write(dir.join("file"), "").unwrap();
    let blocked = dir.join("file/layers");
    let args = ["logits", text(checkpoint("7")), "--tokens", text(&ids), "-o", text(&output), "--force", "--layers", text(&blocked)];
    assert!(said(&run(&args)).contains("file/layers"));
}
