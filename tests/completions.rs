//! Completions as shells give them: bash, zsh and fish are asked for the candidates of a line that is being typed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rwkv_forge_convert::container::CONTAINERS;

use crate::support::{Dir, fixture, run};

/// A shell, how its script is called in a folder, and what runs the program that asks it.
struct Shell {
    name: &'static str,
    script: &'static str,
    runs: &'static [&'static str],
}

const SHELLS: [Shell; 3] = [
    Shell { name: "bash", script: "rwkv-forge.bash", runs: &["bash", "--norc"] },
    Shell { name: "zsh", script: "_rwkv-forge", runs: &["zsh", "-f"] },
    Shell { name: "fish", script: "rwkv-forge.fish", runs: &["fish", "--no-config"] },
];

impl Shell {
    /// Writes the script into a folder, changed by `change`.
    fn install(&self, dir: &Dir, change: impl Fn(String) -> String) {
        let script = String::from_utf8(run(&["completions", self.name]).stdout).unwrap();
        std::fs::write(dir.join(self.script), change(script)).unwrap();
    }

    /// What the shell offers at the end of this line.
    fn candidates(&self, dir: &Dir, line: &str) -> BTreeSet<String> {
        let ask = fixture("../tests/shells").join(format!("capture.{}", self.name));
        let mut command = Command::new(self.runs[0]);
        command.args(&self.runs[1..]).arg(&ask).arg(dir.path()).arg(line).current_dir(dir.path());
        let path = format!("{}:{}", folder_of(env!("CARGO_BIN_EXE_rwkv-forge")), std::env::var("PATH").unwrap());
        let done = command.env("HOME", dir.path()).env("PATH", path).output().unwrap();
        assert!(done.status.success(), "{}: {line}: {}", self.name, String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(|one| one.trim_end().to_owned()).filter(|one| !one.is_empty()).collect()
    }
}

fn folder_of(file: &str) -> &str {
    Path::new(file).parent().unwrap().to_str().unwrap()
}

/// Lines, what must be offered at the end of each, and what must not.
fn lines() -> Vec<(&'static str, Vec<&'static str>, &'static [&'static str])> {
    vec![
        ("rwkv-forge ", vec!["inspect", "convert", "verify", "eval", "plan", "generate", "bench", "state", "man"], &["--to"]),
        ("rwkv-forge ev", vec!["eval"], &["convert"]),
        ("rwkv-forge convert --to ", CONTAINERS.iter().map(|container| container.name()).collect(), &["convert", "--type"]),
        ("rwkv-forge convert --to gg", vec!["gguf"], &["pth"]),
        ("rwkv-forge convert --type 4", vec!["4bit"], &["q8_0", "8bit"]),
        ("rwkv-forge convert --rec", vec!["--recipe", "--record"], &["--quantizer", "--protocol"]),
        ("rwkv-forge convert model.pth --quantizer ", vec!["ggml", "search", "gptq"], &["gguf"]),
        ("rwkv-forge --json convert --quant", vec!["--quantizer"], &["--recipe"]),
        ("rwkv-forge convert --recipe mine", vec!["mine.toml"], &["--recipe"]),
        ("rwkv-forge eval --pro", vec!["--protocol"], &["--recipe"]),
        ("rwkv-forge eval --protocol ", vec!["stream", "llama"], &["gguf"]),
        ("rwkv-forge bench c", vec!["curve"], &["convert"]),
        ("rwkv-forge bench curve --pos", vec!["--positions"], &["--protocol"]),
        ("rwkv-forge state --to llama", vec!["llama-session", "llama-seq"], &["pth"]),
        ("rwkv-forge state --to Web", vec!["web-rwkv"], &["pth"]),
        ("rwkv-forge completions ", vec!["bash", "zsh", "fish"], &["gguf"]),
        // A word that was not begun gets files and commands, and no options.
        ("rwkv-forge inspect ", vec!["mine.toml"], &["--json", "-"]),
        ("rwkv-forge verify mine.toml ", vec!["mine.toml"], &["--json"]),
        ("rwkv-forge bench ", vec!["curve", "mine.toml"], &["--json"]),
        ("rwkv-forge bench curve ", vec!["mine.toml"], &["curve", "--json"]),
        ("rwkv-forge convert mine.toml ", vec!["--to", "--type"], &["gguf"]),
        ("rwkv-forge help conv", vec!["convert"], &["inspect"]),
        ("rwkv-forge man conv", vec!["convert"], &["inspect"]),
        // Other names and letters of the other case are the same.
        ("rwkv-forge convert --type Q4", vec!["q4_0", "q4_k_m"], &["8bit"]),
        ("rwkv-forge convert --to GG", vec!["gguf"], &["pth"]),
        ("rwkv-forge convert --to ll", vec!["llama.cpp"], &["pth"]),
        ("rwkv-forge eval --levels 4", vec!["4bit"], &["8bit"]),
        ("rwkv-forge convert --chat assi", vec!["assistant"], &["tools"]),
        ("rwkv-forge eval --vocab wo", vec!["world"], &["bytes"]),
    ]
}

#[test]
#[ignore = "needs bash, zsh, fish"]
fn shells_offer_what_fits_the_line() {
    let dir = Dir::new();
    std::fs::write(dir.join("mine.toml"), "").unwrap();
    let mut wrong = Vec::new();
    for shell in &SHELLS {
        shell.install(&dir, |script| script);
        for (line, wanted, unwanted) in lines() {
            let found = shell.candidates(&dir, line);
            let fits = wanted.iter().all(|one| found.contains(*one)) && unwanted.iter().all(|one| !found.contains(*one));
            // zsh itself takes only what begins as the word does, unless its user sets a matcher.
            let is_filtered = shell.name == "zsh" && line.rsplit(' ').next().is_some_and(|word| word.contains(|c: char| c.is_uppercase()));
            if !fits && !is_filtered {
                wrong.push(format!("{}: `{line}` gives {found:?}", shell.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the program answers where a script of bash asks: the same lines, where there are no shells.
#[test]
fn the_program_offers_what_fits_the_line() {
    let dir = Dir::new();
    std::fs::write(dir.join("mine.toml"), "").unwrap();
    for (line, wanted, unwanted) in lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv-forge"));
        command.arg("--").args(&words).current_dir(dir.path());
        command.env("RWKV_FORGE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string()).env("_CLAP_IFS", "\n");
        let found = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let found: BTreeSet<&str> = found.lines().map(str::trim_end).collect();
        assert!(wanted.iter().all(|one| found.contains(one)), "{line}: {found:?}");
        assert!(!unwanted.iter().any(|one| found.contains(one)), "{line}: {found:?}");
    }
}

/// The planted fault: the script asks for another shell's answer than it reads.
#[test]
#[ignore = "needs bash, zsh, fish"]
fn a_script_that_asks_for_nothing_is_found() {
    let dir = Dir::new();
    let bash = &SHELLS[0];
    bash.install(&dir, |script| script.replace("RWKV_FORGE_COMPLETE=", "RWKV_FORGE_OTHER="));
    assert!(!bash.candidates(&dir, "rwkv-forge convert --to ").contains("gguf"));
}
