//! What people type at first, and what comes: every answer names the next step, and that step works.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, checkpoint, convert_args, forge, json, vocab};

/// A mistake.
struct Mistake {
    /// What is typed after the program's name.
    typed: &'static str,
    /// Exit code of the answer.
    code: i32,
    /// Words of the answer that lead on.
    says: &'static [&'static str],
    /// What is typed then.
    then: &'static str,
}

const fn of(typed: &'static str, code: i32, says: &'static [&'static str], then: &'static str) -> Mistake {
    Mistake { typed, code, says, then }
}

/// Names of files are those of [`scene`]. `$V` is the vocabulary of the tiny model, which World's models need not be given.
const MISTAKES: &[Mistake] = &[
    // Nothing says what is to be made.
    of("convert model.pth $V", 2, &["--to", "gguf (or llama.cpp"], "convert model.pth --to gguf $V -o a1.gguf"),
    of("convert", 2, &["rwkv-forge convert model.pth --to gguf"], "convert model.pth --to gguf $V -o a2.gguf"),
    of("convert model.pth -o model.ggml $V", 2, &["model.ggml", "whose name ends like theirs"], "convert model.pth -o a3.gguf $V"),
    // Names of programs and types, nearly right.
    of("convert model.pth --to lamacpp $V", 2, &["did you mean llama.cpp?"], "convert model.pth --to llama.cpp $V -o a4.gguf"),
    of(
        "convert model.pth --to prefab --type Q4_K_M $V",
        2,
        &["of 4 bits it has", "nf4"],
        "convert model.pth --to prefab --type nf4 $V -o a5.prefab",
    ),
    of(
        "convert model.pth --to prefab --type q4_k_m $V",
        2,
        &["container prefab cannot hold type q4_k_m", "it carries f16, int8, nf4", "of 4 bits it has 4bit"],
        "convert model.pth --to prefab --type 4bit $V -o e4.prefab",
    ),
    of("convert model.pth --to gguf -t q4km $V", 2, &["--type TYPE"], "convert model.pth --to gguf --type q4_k_m $V -o a6.gguf"),
    of(
        "convert model.pth --to gguf --type q4km $V",
        2,
        &["did you mean q4_k_m?"],
        "convert model.pth --to gguf --type q4_k_m $V -o a7.gguf",
    ),
    of(
        "convert model.pth --to ollama --type int4 $V",
        2,
        &["of 4 bits gguf has 4bit"],
        "convert model.pth --to ollama --type 4bit $V -o a8.gguf",
    ),
    // Habits of other programs.
    of(
        "convert model.pth --outfile b.gguf --outtype q8_0",
        2,
        &["--outfile: the file to write is named with --output", "--outtype: the type is named with --type"],
        "convert model.pth --output b1.gguf --type q8_0 $V",
    ),
    of("convert model.pth --outtype=f16", 2, &["--type TYPE"], "convert model.pth --type f16 --to gguf $V -o b2.gguf"),
    of(
        "convert model.pth b3.gguf Q4_K_M",
        2,
        &["rwkv-forge convert model.pth -o b3.gguf --type q4_k_m"],
        "convert model.pth -o b3.gguf --type q4_k_m $V",
    ),
    of(
        "quantize model.pth b4.gguf q4_k_m",
        2,
        &["rwkv-forge convert model.pth -o b4.gguf --type q4_k_m"],
        "convert model.pth -o b4.gguf --type q4_k_m $V",
    ),
    of("llama-perplexity -m model.gguf -f text.txt", 2, &["eval MODEL --text FILE"], "eval model.gguf --text text.txt"),
    of("generate -m model.gguf -p hi", 2, &["without an option"], "generate model.gguf -p hi -n 2"),
    of("generate model.gguf hi", 2, &["--prompt TEXT"], "generate model.gguf --prompt hi -n 2"),
    of("info model.gguf", 2, &["rwkv-forge inspect FILE"], "inspect model.gguf"),
    of("model.pth", 2, &["rwkv-forge inspect model.pth"], "inspect model.pth"),
    // Files that are not what was meant.
    of("inspect modle.pth", 4, &["did you mean model.pth?"], "inspect model.pth"),
    of("inspect two", 3, &["a.pth or b.gguf"], "inspect two/b.gguf"),
    of("convert model.pth -o there.gguf $V", 2, &["--force"], "convert model.pth -o there.gguf --force $V"),
    of(
        "convert model.pth --to gguf --vocab wrong.json",
        3,
        &["wrong.json", "the vocabulary that the model was trained with"],
        "convert model.pth --to gguf $V -o c1.gguf",
    ),
    of("eval model.pth", 2, &["--vocab FILE"], "eval model.pth $V --bytes 400"),
    of("eval model.gguf --text txet.txt", 4, &["did you mean text.txt?"], "eval model.gguf --text text.txt"),
    of("verify model.gguf", 2, &["rwkv-forge verify REFERENCE model.gguf", "inspect model.gguf --lint"], "verify model.pth model.gguf"),
    // What lies elsewhere. Downloading is not tried; what is there by then is.
    of(
        "inspect fla-hub/rwkv7-0.1B-g1",
        2,
        &["hf download fla-hub/rwkv7-0.1B-g1 --local-dir rwkv7-0.1B-g1", "rwkv-forge inspect rwkv7-0.1B-g1"],
        "inspect model.pth",
    ),
    of(
        "convert https://huggingface.co/org/name/resolve/main/model.pth --to gguf $V",
        2,
        &["hf download org/name model.pth --local-dir name", "rwkv-forge convert name/model.pth --to gguf --vocab vocab.txt"],
        "convert model.pth --to gguf $V -o e1.gguf",
    ),
    // A container in the place of an option, a name of another program's option, a number below what there can be.
    of("convert model.pth gguf", 2, &["rwkv-forge convert model.pth --to gguf"], "convert model.pth --to gguf $V -o e2.gguf"),
    of(
        "convert model.pth Q8_0 rwkv.cpp",
        2,
        &["convert model.pth --type q8_0 --to rwkv-cpp"],
        "convert model.pth --type q8_0 --to rwkv-cpp -o e3.bin",
    ),
    of(
        "bench model.gguf --seconds 1",
        2,
        &["--repeat ROUNDS", "--tokens N"],
        "bench model.gguf --repeat 1 --tokens 1 --prompt 0 --loads 1 --read-mib 1",
    ),
    of(
        "verify model.pth model.gguf --max-kl -1",
        2,
        &["-1", "--max-kl", "expected a number of 0 or more"],
        "verify model.pth model.gguf --max-kl 1",
    ),
    of("generate model.gguf -n -5", 2, &["expected a whole number from 0 to"], "generate model.gguf -n 5"),
    of("generate model.gguf --seed -5", 2, &["expected a whole number from 0 to"], "generate model.gguf --seed 5 -n 1"),
    of(
        "forms model.pth --lengths -1,2",
        2,
        &["--lengths takes no negative value: -1,2 is one"],
        "forms model.pth --lengths 1,2 --quick $V",
    ),
    of("inspect -model.pth", 2, &["./-model.pth"], "inspect ./-model.pth"),
    // Typing.
    of("inspec model.pth", 2, &["'inspect'"], "inspect model.pth"),
    of("verify model.pth model.gguf --min-top1 95", 2, &["0.95"], "verify model.pth model.gguf --min-top1 0.5"),
    of("-version", 2, &["--version"], "--version"),
    of("version", 2, &["--version"], "-V"),
    of("help me", 2, &["--help"], "--help me"),
    of(
        "meta set model.gguf general.version 3 -o d.gguf",
        2,
        &["general.version", "KEY=VALUE"],
        "meta set model.gguf general.version=3 -o d.gguf",
    ),
];

fn scene() -> Dir {
    let dir = Dir::new();
    let copy = |from: &Path, name: &str| std::fs::copy(from, dir.join(name)).map(drop).unwrap();
    copy(checkpoint("7"), "model.pth");
    copy(checkpoint("7"), "-model.pth");
    copy(vocab(), "vocab.txt");
    let gguf = dir.join("model.gguf");
    json(&[convert_args(checkpoint("7"), "gguf", "q8_0", &gguf), vec!["--no-verify".to_owned()]].concat(), 0);
    copy(&gguf, "there.gguf");
    std::fs::create_dir(dir.join("two")).unwrap();
    copy(checkpoint("7"), "two/a.pth");
    copy(&gguf, "two/b.gguf");
    std::fs::write(dir.join("text.txt"), "Of all existing things some are in our power, and others are not in our power. ".repeat(8))
        .unwrap();
    std::fs::write(dir.join("wrong.json"), r#"{"architectures": ["RwkvForCausalLM"]}"#).unwrap();
    dir
}

/// Exit code and all that is said.
fn answer(dir: &Dir, line: &str) -> (Option<i32>, String) {
    let line = line.replace("$V", "--vocab vocab.txt");
    let done = forge().current_dir(dir.path()).env("XDG_CACHE_HOME", dir.path()).args(line.split_whitespace()).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_answer_names_the_next_step_and_that_step_works() {
    assert!(MISTAKES.len() >= 20, "{} mistakes", MISTAKES.len());
    let dir = scene();
    let mut wrong = Vec::new();
    for Mistake { typed, code, says, then } in MISTAKES {
        let before = dir.names();
        let (found, said) = answer(&dir, typed);
        // Lines are wrapped where the terminal ends.
        let plain = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let lacks: Vec<&&str> = says.iter().filter(|words| !plain.contains(**words)).collect();
        if found != Some(*code) || !lacks.is_empty() || dir.names() != before {
            wrong.push(format!("{typed}\nexit code {found:?}, expected {code}; lacks {lacks:?}\n{said}"));
        }
        let (found, said) = answer(&dir, then);
        if found != Some(0) {
            wrong.push(format!("{typed}\nthen {then}\nexit code {found:?}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
}

/// No tip of the parser's that makes a file of an option.
#[test]
fn no_tip_makes_a_file_of_an_option() {
    let dir = scene();
    for line in ["bench model.gguf --nonsense", "verify model.pth model.gguf --max-kl -1", "inspect model.pth --foo", "eval model.gguf -9"]
    {
        let (code, said) = answer(&dir, line);
        assert_eq!(code, Some(2), "{said}");
        assert!(!said.contains("'-- -"), "{line}: {said}");
    }
}

/// The document of a wrong command line has the same words.
#[test]
fn documents_say_it_too() {
    let dir = scene();
    for line in ["--json convert model.pth --outtype q8_0", "convert model.pth --outtype q8_0 --json"] {
        let done = forge().current_dir(dir.path()).args(line.split_whitespace()).output().unwrap();
        let document: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert!(document["error"]["message"].as_str().unwrap().contains("--type TYPE"), "{document}");
    }
    // Before the command or after it, options of every command mean the same.
    for line in ["--json inspect model.gguf", "inspect --json model.gguf", "inspect model.gguf --json"] {
        let done = forge().current_dir(dir.path()).args(line.split_whitespace()).output().unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()["command"], "inspect");
    }
}
