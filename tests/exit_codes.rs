//! The exit code is what a script goes by, so nothing that happens to the output may change it: closed, full, or read by somebody
//! who leaves. And what ends the program from outside leaves nothing half written.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use crate::support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::{Dir, checkpoint, fixture, forge, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};

/// What becomes of the output, as bash writes it after the command.
const OUTPUTS: [(&str, bool); 8] = [
    (">&-", false),
    ("2>&-", false),
    (">&- 2>&-", false),
    (">/dev/full", true),
    ("2>/dev/full", false),
    (">/dev/full 2>&1", true),
    ("| head -n 1", false),
    ("2>&1 | head -c 1", false),
];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The words in quotes that no shell looks into.
fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ")
}

/// Runs a line of bash, in a cache of its own; the exit code is that of the first command of a pipe.
fn bash(dir: &Dir, line: &str) -> Output {
    let line = format!("{line}; exit ${{PIPESTATUS[0]}}");
    let mut command = Command::new("bash");
    command.env("XDG_CACHE_HOME", dir.join("cache")).env_remove("GITHUB_ACTIONS");
    command.args(["-c", &line]).output().unwrap()
}

/// A model that cannot be computed in f32.
fn overflowing(dir: &Dir) -> String {
    let mut tensors = random_model(Version::V7, &Sizes::TINY, 5).into_tensors();
    let huge = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.1.ffn.value.weight").unwrap();
    for value in huge.bytes.as_chunks_mut::<4>().0.iter_mut().take(48) {
        *value = 3e38f32.to_le_bytes();
    }
    let path = dir.join("huge.safetensors");
    std::fs::write(&path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    text(&path)
}

/// One command, the exit code that it has when all goes well with the output, and the file that it leaves.
struct Case {
    words: Vec<String>,
    code: i32,
    output: Option<&'static str>,
}

/// Every command, with each code that it can find.
fn cases(dir: &Dir) -> Vec<Case> {
    let (model, words, book) = (text(checkpoint("7")), text(vocab()), text(fixture("text/public-domain-100k.txt")));
    let small = dir.join("small.txt");
    std::fs::write(&small, &std::fs::read(&book).unwrap()[..3000]).unwrap();
    let small = text(&small);
    let calibration = dir.join("calibration.txt");
    std::fs::write(&calibration, &std::fs::read(&book).unwrap()[20_000..29_000]).unwrap();
    let calibration = text(&calibration);
    let other = text(&dir.join("q4_0.gguf"));
    assert!(forge().args(support::convert_args(checkpoint("7"), "gguf", "q4_0", Path::new(&other))).output().unwrap().status.success());
    let ids = dir.join("ids.json");
    std::fs::write(&ids, "[1, 2, 3]").unwrap();
    let state = text(fixture("states/tiny-state.pth"));
    let (damaged, huge) = (dir.join("damaged.pth"), overflowing(dir));
    std::fs::write(&damaged, &std::fs::read(&model).unwrap()[..5000]).unwrap();
    let (ids, damaged) = (text(&ids), text(&damaged));
    let out = |name: &'static str| text(&dir.join(name));
    let mut cases = Vec::new();
    let mut add = |code: i32, output: Option<&'static str>, words: &[&str]| {
        cases.push(Case { words: words.iter().map(|word| (*word).to_owned()).collect(), code, output });
    };
    let convert = ["convert", &model, "--vocab", &words, "--to", "gguf", "--type", "q8_0", "-f", "-o"];
    add(0, None, &["inspect", "-t", &model]);
    add(0, None, &["inspect", "--globals", &model]);
    add(3, None, &["inspect", &damaged]);
    add(0, Some("new.gguf"), &[&convert[..], &[&out("new.gguf")]].concat());
    add(1, None, &[&convert[..], &[&out("strict.gguf"), "--max-kl", "1e-9"]].concat());
    add(2, None, &[&convert[..], &[&model]].concat());
    add(0, None, &[&convert[..], &[&out("dry.gguf"), "--dry-run"]].concat());
    let verify = ["verify", &model, &other, "--vocab", &words];
    add(0, None, &verify);
    add(1, None, &[&verify[..], &["--max-kl", "1e-9"]].concat());
    let eval = ["eval", &other, "--baseline", &model, "--vocab", &words, "--text", &small, "-f", "--csv", &out("eval.csv")];
    add(0, Some("eval.csv"), &eval);
    add(1, Some("eval.csv"), &[&eval[..], &["--max-kl", "1e-9"]].concat());
    let levels = ["eval", &model, "--levels", "q8_0,q4_0", "--no-speed", "--vocab", &words, "--text", &small];
    add(1, None, &[&levels[..], &["--max-kl", "1e-9"]].concat());
    let forms = ["forms", "--quick", "--tokens", "8"];
    add(0, None, &[&forms[..], &["--github", &model]].concat());
    add(1, Some("forms.xml"), &[&forms[..], &[&huge, "-f", "--junit", &out("forms.xml")]].concat());
    let plan =
        ["plan", &model, "--probe-windows", "1", "--calibration-windows", "3", "--calibrate", &calibration, "--text", &small, "-f", "-o"];
    add(0, Some("plan.toml"), &[&plan[..], &[&out("plan.toml"), "--vocab", &words, "--bpw", "8"]].concat());
    add(2, None, &[&plan[..], &[&out("none.toml"), "--vocab", &words, "--size", "10"]].concat());
    add(0, None, &["generate", &model, "--vocab", &words, "-n", "20"]);
    add(2, None, &["generate", &model, "--vocab", &words, "--top-p", "7"]);
    let bench = ["bench", &model, "--tokens", "2", "--repeat", "1", "--loads", "1", "--read-mib", "1", "--prompt", "0", "-f", "--csv"];
    add(0, Some("bench.csv"), &[&bench[..], &[&out("bench.csv")]].concat());
    add(0, Some("curve.csv"), &["bench", "curve", &model, "--positions", "4", "-f", "-o", &out("curve")]);
    add(0, Some("logits.npy"), &["logits", &model, "--tokens", &ids, "-f", "-o", &out("logits.npy")]);
    add(0, Some("state.st"), &["state", &state, "--to", "web-rwkv", "-f", "-o", &out("state.st")]);
    add(0, None, &["completions", "bash"]);
    add(0, None, &["man"]);
    add(0, None, &["--help"]);
    add(0, None, &["--version"]);
    add(0, None, &["convert", "--help"]);
    add(2, None, &["convert"]);
    add(2, None, &["inspect", "--no-such-option"]);
    cases
}

#[test]
fn whatever_becomes_of_the_output_the_verdict_stands() {
    let dir = Dir::new();
    for case in cases(&dir) {
        let plain = format!("{} {}", env!("CARGO_BIN_EXE_rwkv-forge"), quoted(&case.words));
        for (json, outputs) in [("", &OUTPUTS[..]), (" --json", &OUTPUTS[3..4])] {
            for (redirection, loses) in outputs {
                let output = case.output.map(|name| dir.join(name));
                output.iter().for_each(|path| drop(std::fs::remove_file(path)));
                let line = format!("{plain}{json} {redirection}");
                let seen = bash(&dir, &line);
                let errors = String::from_utf8_lossy(&seen.stderr).into_owned();
                // Mistakes on the command line are no results: nothing of them goes to stdout, unless a document is wanted.
                let expected = if case.code == 0 && *loses { 4 } else { case.code };
                assert_eq!(seen.status.code(), Some(expected), "{line}: {errors}{}", String::from_utf8_lossy(&seen.stdout));
                if expected == 4 && *redirection == ">/dev/full" {
                    assert!(errors.contains("error[ResultsLost]: stdout: "), "{line}: {errors}");
                }
                assert!(output.is_none_or(|path| path.exists()), "{line}: the file is not there");
            }
        }
    }
}

#[test]
fn a_text_that_nobody_reads_any_more_ends() {
    let dir = Dir::new();
    // Without an end this would take hours.
    let words = ["generate", &text(checkpoint("7")), "--vocab", &text(vocab()), "-n", "1000000000"].map(str::to_owned);
    let seen = bash(&dir, &format!("{} {} | head -c 200", env!("CARGO_BIN_EXE_rwkv-forge"), quoted(&words)));
    assert_eq!((seen.status.code(), seen.stdout.len()), (Some(0), 200));
    assert!(seen.stderr.is_empty(), "{}", String::from_utf8_lossy(&seen.stderr));
}

/// A conversion whose comparison takes long enough to be interrupted.
fn long(output: &Path) -> Vec<String> {
    let mut words = support::convert_args(checkpoint("7"), "gguf", "q8_0", output);
    words.extend(["--probe-tokens", "100000", "--text", &text(fixture("text/public-domain-100k.txt"))].map(str::to_owned));
    words
}

/// Waits until the temporary is there.
fn begun(dir: &Dir) {
    for _ in 0..6000 {
        if !dir.names().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing is being written");
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args(["-s", signal, &process.to_string()]).status().unwrap().success());
}

#[test]
fn every_signal_that_ends_the_program_removes_the_temporary() {
    for (signal, code) in [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143), ("USR1", 138), ("XCPU", 152)] {
        let dir = Dir::new();
        let mut child = forge().args(long(&dir.join("out.gguf"))).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        begun(&dir);
        kill(signal, child.id());
        assert_eq!(child.wait().unwrap().code(), Some(code), "SIG{signal}");
        assert_eq!(dir.names(), Vec::<String>::new(), "SIG{signal}");
    }
}

/// A terminal that closes sends HUP and its supervisor TERM: the second one must not overtake what the first one has begun.
#[test]
fn signals_in_quick_succession_remove_the_temporary_too() {
    for signals in [["TERM", "HUP"], ["USR1", "TERM"], ["HUP", "HUP"], ["INT", "QUIT"]] {
        let dir = Dir::new();
        let mut child = forge().args(long(&dir.join("out.gguf"))).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        begun(&dir);
        let line = signals.map(|signal| format!("kill -{signal} {}", child.id())).join(" && ");
        // The second may find nobody any more.
        let _sent = Command::new("bash").args(["-c", &line]).stderr(Stdio::null()).status().unwrap();
        assert!(child.wait().unwrap().code().is_some_and(|code| code > 128), "{signals:?}");
        assert_eq!(dir.names(), Vec::<String>::new(), "{signals:?}");
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let line = format!("trap '' HUP; exec {} {}", env!("CARGO_BIN_EXE_rwkv-forge"), quoted(&long(&output)));
    let mut child = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    begun(&dir);
    kill("HUP", child.id());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(child.try_wait().unwrap(), None, "it goes on");
    kill("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn a_file_that_may_not_grow_is_an_error_with_a_message() {
    let dir = Dir::new();
    let words = support::convert_args(checkpoint("7"), "gguf", "q8_0", &dir.join("out.gguf"));
    // In blocks of 512 or 1024 bytes: less than the file, more than its header.
    let seen = bash(&dir, &format!("ulimit -f 100; {} {}", env!("CARGO_BIN_EXE_rwkv-forge"), quoted(&words)));
    assert_eq!(seen.status.code(), Some(4));
    let errors = String::from_utf8_lossy(&seen.stderr);
    assert!(errors.contains("error[NoSpace]") && errors.contains("the largest file size"), "{errors}");
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn what_a_killed_run_leaves_is_removed_and_said() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let mut child = forge().args(long(&output)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    begun(&dir);
    child.kill().unwrap();
    child.wait().unwrap();
    let left = dir.names();
    assert!(left.len() == 1 && left[0].ends_with(".tmp"), "{left:?}");
    let seen = support::run(&support::convert_args(checkpoint("7"), "gguf", "q8_0", &output));
    let errors = String::from_utf8_lossy(&seen.stderr);
    assert!(seen.status.success() && errors.contains(&left[0]) && errors.contains("killed"), "{errors}");
    assert_eq!(dir.names(), ["out.gguf"]);
}

#[test]
fn the_end_of_memory_is_an_orderly_end() {
    let dir = Dir::new();
    let (program, model) = (env!("CARGO_BIN_EXE_rwkv-forge"), text(checkpoint("7")));
    // Ids of a thousand million tokens take 4 GB, for which there is no room in 1 GB of addresses.
    let words = ["bench", &model, "--prompt", "1000000000", "--loads", "1", "--read-mib", "1", "--csv", &text(&dir.join("out.csv"))];
    let seen = bash(&dir, &format!("ulimit -v 1000000; {program} {}", quoted(&words.map(str::to_owned))));
    let errors = String::from_utf8_lossy(&seen.stderr);
    assert_eq!(seen.status.code(), Some(4), "{errors}");
    assert!(errors.lines().count() == 1 && errors.contains("OutOfMemory"), "{errors}");
    assert_eq!(dir.names(), Vec::<String>::new());
    // With hardly any room at all, threads and tables cannot be had either: at whatever point that is, it is said.
    let words = quoted(&support::convert_args(checkpoint("7"), "gguf", "q8_0", &dir.join("out.gguf")));
    let mut codes = Vec::new();
    for kilobytes in (40_000..200_000).step_by(20_000) {
        let seen = bash(&dir, &format!("ulimit -v {kilobytes}; {program} -q {words} -f"));
        let errors = String::from_utf8_lossy(&seen.stderr);
        let code = seen.status.code();
        assert!(code == Some(0) || code == Some(4) && errors.starts_with("error["), "{kilobytes} kB: {code:?} {errors}");
        let expected: &[&str] = if dir.join("out.gguf").exists() { &["out.gguf"] } else { &[] };
        assert_eq!(dir.names(), expected, "{kilobytes} kB");
        codes.push(code);
    }
    assert!(codes.contains(&Some(0)), "{codes:?}");
}

#[test]
fn numbers_beyond_all_bounds_are_wrong_usage() {
    let model = text(checkpoint("7"));
    // With NaN as a limit nothing would ever be beyond it.
    for option in ["--max-kl", "--max-abs", "--max-ppl-ratio", "--min-top1", "--candidate-eps"] {
        for number in ["nan", "inf", "1e999", "-1"] {
            let seen = support::run(&["verify", &model, &model, &format!("{option}={number}")]);
            assert_eq!(seen.status.code(), Some(2), "{option} {number}: {}", String::from_utf8_lossy(&seen.stderr));
        }
    }
    let huge = ["18446744073709551615", "9223372036854775808", "99999999999999999999", "1000000000000000000"];
    for (command, options) in [
        ("bench", &["--tokens", "--prompt", "--loads", "--repeat", "--position", "--read-mib", "--scaling", "--threads"][..]),
        ("forms", &["--tokens", "--lengths", "--chunk"][..]),
        ("generate", &["--tokens"][..]),
        ("eval", &["--context"][..]),
    ] {
        for option in options {
            for number in huge {
                let seen = support::run(&[command, &model, option, number]);
                let errors = String::from_utf8_lossy(&seen.stderr);
                assert_eq!(seen.status.code(), Some(2), "{command} {option} {number}: {errors}");
                assert!(errors.contains("expected a whole number from"), "{command} {option} {number}: {errors}");
            }
        }
    }
}
