//! Help that is read: short enough, in sections, with examples; pages of the manual.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Dir, error_kind, forge, json, run};

/// Every command, as it is typed.
const COMMANDS: [&str; 19] = [
    "",
    "inspect",
    "convert",
    "verify",
    "eval",
    "forms",
    "plan",
    "generate",
    "bench",
    "bench curve",
    "logits",
    "meta",
    "meta show",
    "meta set",
    "meta remove",
    "meta copy",
    "state",
    "completions",
    "man",
];

fn help(command: &str, flag: &str) -> String {
    let done = forge().env("COLUMNS", "100").args(command.split_whitespace()).arg(flag).output().unwrap();
    assert!(done.status.success());
    String::from_utf8(done.stdout).unwrap()
}

/// The headings of a help text, in order.
fn headings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).map(|line| line.trim_end_matches(':')).collect()
}

#[test]
fn short_help_fits_a_screen() {
    for command in COMMANDS {
        let text = help(command, "-h");
        let (lines, widest) = (text.lines().count(), text.lines().map(|line| line.chars().count()).max().unwrap());
        assert!(lines <= 50 && widest <= 100, "{command} -h has {lines} lines of {widest}:\n{text}");
    }
}

#[test]
fn options_are_in_sections_and_general_ones_come_last() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let text = help(command, flag);
            let mut found = headings(&text);
            found.retain(|heading| !["Arguments", "Commands", "Examples"].contains(heading));
            assert_eq!(found.last(), Some(&"General options"), "{command} {flag}: {found:?}");
            let known = ["Input", "Output", "Metadata", "Types", "Quality", "Performance", "General options"];
            let once: std::collections::BTreeSet<&&str> = found.iter().collect();
            assert!(once.len() == found.len() && found.iter().all(|heading| known.contains(heading)), "{command} {flag}: {found:?}");
        }
        // What the short help leaves out is in the long one.
        let (short, long) = (help(command, "-h"), help(command, "--help"));
        let options = |text: &str| -> Vec<String> {
            text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .filter(|word| word.starts_with("--"))
                .map(str::to_owned)
                .collect()
        };
        let all = options(&long);
        assert!(options(&short).iter().all(|option| all.contains(option)), "{command}");
    }
}

#[test]
fn every_command_shows_examples() {
    for command in COMMANDS.iter().filter(|command| !command.is_empty()) {
        for flag in ["-h", "--help"] {
            let text = help(command, flag);
            let lines = text.lines().filter(|line| line.starts_with("  rwkv-forge ") && line.contains("  # ")).count();
            assert!((2..=3).contains(&lines), "{command} {flag} has {lines} examples:\n{text}");
        }
    }
}

#[test]
fn every_page_that_the_manual_names_is_there() {
    let dir = Dir::new();
    let folder = dir.join("pages/man1");
    let folder_name = folder.to_str().unwrap();
    let written = json(&["man", "--output", folder_name], 0);
    let written: Vec<String> = written["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap().to_owned()).collect();
    assert_eq!(written.len(), COMMANDS.len());
    let (mut named, mut options) = (0, 0);
    for path in &written {
        let page = std::fs::read_to_string(path).unwrap();
        options += page.matches("\\-\\-").count();
        let plain = page.replace("\\-", "-").replace("\\fR", "").replace("\\fB", "").replace("\\fI", "");
        for name in plain
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '(' || c == ')'))
            .filter_map(|word| word.strip_suffix("(1)"))
        {
            assert!(folder.join(format!("{name}.1")).is_file(), "{path} names {name}(1)");
            named += 1;
        }
    }
    assert!(named >= COMMANDS.len() - 1 && options > 100, "{named} names, {options} options");
    // One page is what is printed; pages that exist are not replaced without a word.
    let convert = String::from_utf8(run(&["man", "convert"]).stdout).unwrap();
    assert_eq!(convert, std::fs::read_to_string(folder.join("rwkv-forge-convert.1")).unwrap());
    assert!(convert.contains("max\\-kl") && convert.contains("SH EXAMPLES"), "{convert}");
    assert!(String::from_utf8(run(&["man", "bench-curve"]).stdout).unwrap().contains("positions"));
    assert_eq!(error_kind(&["man", "--output", folder_name], 2), "OutputExists");
    json(&["man", "--output", folder_name, "--force"], 0);
    assert_eq!(error_kind(&["man", "convrt"], 2), "NoSuchPage");
}

/// An option that is nothing by itself says beside which one it stands.
#[test]
fn options_of_levels_say_so() {
    for flag in ["-h", "--help"] {
        let text = help("eval", flag).split_whitespace().collect::<Vec<_>>().join(" ");
        for option in ["--no-speed ", "--max-size <SIZE> ", "--to <CONTAINER> "] {
            let Some(at) = text.find(option) else { continue };
            let said: String = text[at..].chars().take(120).collect();
            assert!(said.contains("with --levels"), "{flag} {option}: {said}");
        }
    }
    assert!(help("eval", "--help").contains("--no-speed"));
    assert_eq!(error_kind(&["eval", "m.pth", "--no-speed"], 2), "Usage");
}

/// Help and versions are for people whatever is asked for: plain text, and no mistake.
#[test]
fn help_and_versions_stay_text_beside_json() {
    for args in
        [&["--json", "--help"][..], &["convert", "--json", "-h"], &["convert", "-h", "--json"], &["--json", "--version"], &["-V", "--json"]]
    {
        let done = run(args);
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!((done.status.code(), done.stderr.is_empty()), (Some(0), true), "{args:?}");
        assert!(text.contains("rwkv-forge") && serde_json::from_str::<serde_json::Value>(&text).is_err(), "{args:?}: {text}");
    }
    // Completions, pages and mistakes are documents.
    assert!(json(&["completions", "bash"], 0)["script"].is_string() || json(&["completions", "bash"], 0).is_object());
    assert!(json(&["man", "convert"], 0).is_object());
    assert_eq!(error_kind(&["convert", "--no-such-option"], 2), "Usage");
}
