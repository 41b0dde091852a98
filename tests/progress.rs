//! What people see while they wait: a line now and then in a log, a bar on a terminal. When and what exactly is tested beside the code, with
//! times that are given.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Dir, checkpoint, fixture, forge, vocab};

/// What takes the place of 30 seconds: so little that there are lines however fast the machine is.
const INTERVAL: (&str, &str) = ("RWKV_FORGE_PROGRESS_SECONDS", "0.002");

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a command says on stderr with lines that often.
fn said(args: &[&str], environment: (&str, &str)) -> String {
    let done = forge().args(args).env(environment.0, environment.1).stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{args:?}: {said}");
    said
}

/// Lines of progress that begin with one of these works.
fn lines<'s>(said: &'s str, work: &str) -> Vec<&'s str> {
    said.lines().filter_map(|line| line.strip_prefix("progress: ")?.strip_prefix(work)?.strip_prefix(": ")).collect()
}

/// Levels on a few kilobytes: some seconds, and some hundred lines.
fn levels<'a>(passage: &'a str, cache: &'a str) -> Vec<&'a str> {
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    vec!["eval", model, "--levels", "q8_0,q4_0", "--no-speed", "--vocab", words, "--text", passage, "--cache", cache, "--bytes", "6000"]
}

#[test]
fn a_log_hears_how_far_a_run_is() {
    let dir = Dir::new();
    let (cache, passage) = (dir.join("cache"), fixture("text/public-domain-100k.txt"));
    let args = levels(text(passage), text(&cache));
    let said = said(&args, INTERVAL);
    let found = lines(&said, "evaluating");
    // Share, amounts, and which layer of which model; rate and time left come once there is a pace.
    let first = found.iter().find(|line| line.contains(" %, ")).unwrap_or_else(|| panic!("{said}"));
    assert!(
        first.starts_with("0 %, 0 of 17,649 tokens, ") && first.contains("left unknown") && first.ends_with("; the baseline: layer 1 of 3"),
        "{first}"
    );
    let of = |name: &str| found.iter().any(|line| line.contains(&format!("; {name}: ")));
    assert!(of("the baseline") && of("level 1 of 2, q8_0") && of("level 2 of 2, q4_0"), "{said}");
    for name in ["the baseline", "level 1 of 2, q8_0", "level 2 of 2, q4_0"] {
        let own = found.iter().filter(|line| line.contains(&format!("; {name}: ")));
        let shares: Vec<u64> = own.filter_map(|line| line.split_once(" %")?.0.parse().ok()).collect();
        assert!(shares.is_sorted(), "{name}: {shares:?}");
    }
    // Percent and time are those of the run: the first level that is finished tells how long the others take.
    let shares: Vec<u64> = found.iter().filter_map(|line| line.split_once(" %")?.0.parse().ok()).collect();
    assert!(shares.is_sorted() && shares.last() > Some(&60), "{shares:?}");
    let second: Vec<&&str> = found.iter().filter(|line| line.contains("; level 2 of 2, q4_0: ")).collect();
    assert!(second.iter().all(|line| line.contains(" left; ") && !line.contains("unknown")), "{second:?}");
}

#[test]
fn plans_say_what_they_are_at() {
    let dir = Dir::new();
    let (recipe, passage) = (dir.join("plan.toml"), fixture("text/public-domain-100k.txt"));
    let (model, words) = (text(checkpoint("7")), text(vocab()));
    let output = text(&recipe);
    let args = ["plan", model, "--vocab", words, "--to", "rwkv-cpp", "--bpw", "9", "--calibrate", text(passage), "--text", text(passage)];
    let more = ["--allow-leak", "--bytes", "4000", "--probe-windows", "1", "--calibration-windows", "8", "--output", output];
    let done = forge().args([&args[..], &more].concat()).env(INTERVAL.0, INTERVAL.1).env("XDG_CACHE_HOME", dir.path()).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    for (work, what) in [("calibrating", "; layer "), ("probing", "; blocks.")] {
        assert!(lines(&said, work).iter().any(|line| line.contains(what)), "{work}: {said}");
    }
    // Whatever says what is at hand says how many tensors there are, or that none is changed yet.
    let at_hand = lines(&said, "probing").into_iter().filter(|line| line.contains("; "));
    at_hand.for_each(|line| assert!(line.contains(" tensors, ") || line.ends_with("; the source as it is"), "{line}"));
}

#[test]
fn those_who_want_no_lines_get_none() {
    let dir = Dir::new();
    let (cache, passage) = (dir.join("cache"), fixture("text/public-domain-100k.txt"));
    let mut args = levels(text(passage), text(&cache));
    args.retain(|word| *word != "6000" && *word != "--bytes");
    args.extend(["--bytes", "2000"]);
    assert!(!said(&args, (INTERVAL.0, "0")).contains("progress: "));
    // No test takes as long as a line does when nobody says otherwise.
    let wrong = said(&args, (INTERVAL.0, "often"));
    assert!(wrong.starts_with("warning: RWKV_FORGE_PROGRESS_SECONDS=often is no number of seconds"), "{wrong}");
    args.push("--quiet");
    let (cache, quiet) = (dir.join("another"), args);
    let quiet: Vec<&str> = quiet.iter().map(|word| if word.ends_with("/cache") { text(&cache) } else { word }).collect();
    assert_eq!(said(&quiet, INTERVAL), "");
}

/// What a person sees of a run, keys and colours included.
fn on_a_terminal(args: &[&str], dir: &Dir) -> String {
    let quoted = |word: &&str| format!("'{word}'");
    let program = forge().get_program().to_str().unwrap().to_owned();
    let line = std::iter::once(program.as_str()).chain(args.iter().copied()).collect::<Vec<_>>();
    let line = line.iter().map(quoted).collect::<Vec<_>>().join(" ");
    let log = dir.join("typescript");
    let mut command = Command::new("script");
    command.args(["-qec", &line, text(&log)]).env(INTERVAL.0, INTERVAL.1).env("TERM", "xterm");
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(done.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
    String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned()
}

#[test]
#[ignore = "needs script, for a pseudo terminal"]
fn a_terminal_has_a_bar_that_leaves_nothing_behind() {
    let dir = Dir::new();
    let (cache, passage) = (dir.join("cache"), fixture("text/public-domain-100k.txt"));
    let seen = on_a_terminal(&levels(text(passage), text(&cache)), &dir);
    assert!(seen.contains("evaluating") && seen.contains(" tokens") && seen.contains('%') && seen.contains('\u{1b}'), "{seen}");
    assert!(!seen.contains("progress: "), "lines are for logs");
    // The table begins at the left of an empty line.
    let table = seen.rfind("(the source)").unwrap();
    let before = seen[..table].rfind('\n').unwrap();
    assert_eq!(&seen[before + 1..table], "| ", "{seen}");
    let quiet: Vec<&str> = levels(text(passage), text(&cache)).into_iter().chain(["--quiet"]).collect();
    assert!(!on_a_terminal(&quiet, &dir).contains("evaluating"));
}
