//! What people type who come from other programs, and what it is called here. Start at [`answered`].

use std::ffi::OsString;
use std::path::Path;

use clap::Arg;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use rwkv_forge_convert::container::{CONTAINERS, by_name};
use rwkv_forge_convert::preset::type_names;

/// Options of other programs (llama.cpp's, Hugging Face's, rwkv.cpp's), and what to write instead.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &["--outfile", "--output-file", "--out", "--out-file", "--output-path", "--dst"],
        "the file to write is named with --output FILE (-o FILE)",
    ),
    (
        &["--outtype", "--quantize", "--quantization", "--quant", "--quant-type", "--ftype", "--dtype", "--precision", "-t", "--bits"],
        "the type is named with --type TYPE, for example --type q8_0",
    ),
    (&["--format", "--container", "--target", "--output-format"], "what to write is named with --to CONTAINER, for example --to gguf"),
    (&["--model", "-m", "--input", "-i", "--model-path", "--hf-path"], "the model is named without an option, after the command"),
    (&["--vocab-file", "--tokenizer", "--vocab-only"], "the vocabulary is named with --vocab FILE"),
    (&["--ctx-size", "-c", "--ctx"], "tokens of context are said with --context N, where a command has it"),
    (&["--n-predict", "--predict", "--max-tokens", "--n-tokens"], "the number of tokens is said with --tokens N (-n N)"),
    (&["--temp"], "it is called --temperature"),
    (&["--file", "--input-file", "--data", "--dataset"], "a text is named with --text FILE"),
    (
        &["--override-kv", "--metadata"],
        "other metadata are said with --meta KEY=VALUE in convert, and with `rwkv-forge meta set` of a GGUF that is there",
    ),
    (&["--split-max-size"], "parts are asked for with --split-size SIZE"),
    (&["--model-name"], "the name of the model is said with --name NAME"),
    (&["--tensor-type", "--output-tensor-type", "--token-embedding-type"], "the types of single tensors are said with --set REGEX=TYPE"),
    (&["--kl-divergence", "--kl-divergence-base"], "the divergence from another model is measured by eval MODEL --baseline MODEL"),
    (&["--nthreads", "--n-threads", "--num-threads"], "it is called --threads N"),
    (&["--overwrite", "--overwrite-output", "-y"], "an output that exists is replaced with --force"),
    (
        &["--seconds", "--duration", "--time", "--runs", "--reps", "--repetitions", "-r", "--n-gen", "--n-prompt"],
        "how long is measured is said with --repeat ROUNDS and --tokens N, in bench",
    ),
];

/// Commands of other programs, and ours.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["quantize", "llama-quantize", "quantise"], "convert SOURCE --to gguf --type q4_k_m"),
    (&["convert-hf-to-gguf", "convert_hf_to_gguf", "convert_hf_to_gguf.py", "export", "to-gguf"], "convert SOURCE --to gguf"),
    (&["perplexity", "llama-perplexity", "ppl", "evaluate", "benchmark-loss"], "eval MODEL --text FILE"),
    (&["info", "show", "dump", "gguf-dump", "list", "ls", "stat"], "inspect FILE"),
    (&["run", "chat", "complete", "cli", "llama-cli", "infer"], "generate MODEL --prompt TEXT"),
    (&["compare", "diff"], "verify REFERENCE CANDIDATE"),
    (&["metadata", "gguf-set-metadata", "gguf_set_metadata", "gguf-new-metadata", "gguf_new_metadata"], "meta set FILE KEY=VALUE -o FILE"),
    (&["imatrix", "llama-imatrix"], "convert SOURCE --to gguf --calibrate TEXT --save-imatrix FILE"),
    (&["merge", "merge-lora", "export-lora"], "convert SOURCE --lora DIR --to gguf"),
    (&["split", "gguf-split"], "convert SOURCE --to gguf --split-size 2G -o NAME.gguf"),
    (&["llama-bench", "speed"], "bench MODEL"),
    (&["version"], "--version"),
];

/// The parser's answer, with what was probably meant in the place of what it takes for near.
pub(crate) fn answered(mut answer: Error) -> Error {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word: OsString| word.to_string_lossy().into_owned()).collect();
    let tips = tips(&answer, &words);
    if tips.is_empty() {
        // `-- --seconds` would make a file of what was meant as an option.
        if answer.kind() == ErrorKind::UnknownArgument {
            answer.remove(ContextKind::Suggested);
        }
        return answer;
    }
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::Suggested] {
        answer.remove(kind);
    }
    // What another option's usage is says nothing about this one.
    answer.remove(ContextKind::Usage);
    let tips = tips.into_iter().map(StyledStr::from).collect();
    answer.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    answer
}

fn context(answer: &Error, kind: ContextKind) -> Option<String> {
    match answer.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

fn tips(answer: &Error, words: &[String]) -> Vec<String> {
    let command = words.iter().find(|word| !word.starts_with('-')).map_or("", String::as_str);
    match answer.kind() {
        ErrorKind::UnknownArgument => {
            let Some(unknown) = context(answer, ContextKind::InvalidArg) else { return Vec::new() };
            if words.iter().any(|word| ["-version", "-help"].contains(&word.as_str())) {
                return vec!["long options have two hyphens: --version, --help".to_owned()];
            }
            if !unknown.starts_with('-') {
                return positional(command, words, &unknown).into_iter().collect();
            }
            if let Some(tip) = hyphened(command, words, &unknown) {
                return vec![tip];
            }
            let name = unknown.split('=').next().unwrap_or(&unknown);
            // Of all that are wrong the user wants to know at once.
            let typed = words.iter().map(|word| word.split('=').next().unwrap_or(word)).filter(|word| word.starts_with('-'));
            let mut found: Vec<String> = Vec::new();
            let mut tell = |tip: Option<String>| found.extend(tip);
            tell(option(command, name));
            typed.filter(|word| word.starts_with("--") && *word != name).for_each(|word| tell(option(command, word)));
            found.dedup();
            found
        }
        ErrorKind::InvalidSubcommand => {
            let Some(unknown) = context(answer, ContextKind::InvalidSubcommand) else { return Vec::new() };
            subcommand(&unknown, words).into_iter().collect()
        }
        ErrorKind::MissingRequiredArgument => missing(command, words).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// What an option of another program is called here. One that the command has means what it says.
fn option(command: &str, name: &str) -> Option<String> {
    let program = crate::args::command();
    let known = program.find_subcommand(command).is_some_and(|known| known.get_arguments().any(|arg| is_called(arg, name)));
    let (_, tip) = OPTIONS.iter().find(|(names, _)| names.contains(&name)).filter(|_| !known)?;
    let is_convert = ["--type", "--to ", "--split", "--meta", "--set", "--name"].iter().any(|option| tip.contains(option));
    let tip = if is_convert && command != "convert" && command != "eval" { format!("{tip}, in convert") } else { (*tip).to_owned() };
    Some(format!("{name}: {tip}"))
}

/// Whether an option is written like this: `--type`, `-o`.
fn is_called(arg: &Arg, name: &str) -> bool {
    arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
        || arg.get_short().is_some_and(|short| name.strip_prefix('-') == Some(short.to_string().as_str()))
}

/// What was meant by a word that begins with a hyphen and is no option: a file, or the value of the option before it.
fn hyphened(command: &str, words: &[String], unknown: &str) -> Option<String> {
    // Of several letters the parser names the first.
    let word = words.iter().find(|word| word.starts_with(unknown) && !word.starts_with("--"))?;
    if Path::new(word).exists() {
        return Some(format!("a file whose name begins with a hyphen is given as ./{word}"));
    }
    let at = words.iter().position(|other| other == word)?;
    let option = words.get(at.checked_sub(1)?)?;
    let is_number = word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let program = crate::args::command();
    let takes = program.find_subcommand(command)?.get_arguments().any(|arg| is_called(arg, option) && arg.get_action().takes_values());
    (is_number && takes).then(|| format!("{option} takes no negative value: {word} is one"))
}

/// The words of a command line that are no options, if no option takes any of them.
fn plain(words: &[String]) -> Option<Vec<&str>> {
    words.iter().skip(1).map(|word| (!word.starts_with('-')).then_some(word.as_str())).collect()
}

/// What was meant by a second word: in other programs output, type and prompt are named by their place.
fn positional(command: &str, words: &[String], unknown: &str) -> Option<String> {
    if command == "generate" {
        return Some("the text to continue is given with --prompt TEXT".to_owned());
    }
    if command != "convert" {
        return None;
    }
    if let Some(line) = plain(words).and_then(|words| conversion(&words)) {
        return Some(format!("the output, its container and the type are named by options: rwkv-forge {line}"));
    }
    let is_type = type_names().iter().any(|name| name.eq_ignore_ascii_case(unknown));
    let way = match by_name(unknown) {
        _ if is_type => format!("--type {unknown}"),
        Ok(container) => format!("--to {}", container.name()),
        Err(_) => format!("--output {unknown}"),
    };
    Some(format!("the output, its container and the type are named by options: {way}"))
}

/// The command line that means SOURCE, OUTPUT and TYPE, as llama-quantize takes them.
fn conversion(words: &[&str]) -> Option<String> {
    let (source, rest) = words.split_first()?;
    let mut line = format!("convert {source}");
    let (mut has_output, mut has_container) = (false, false);
    for word in rest {
        let ends_like = |extension: &str| Path::new(word).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        if let Some(name) = type_names().into_iter().find(|name| name.eq_ignore_ascii_case(word)) {
            line.push_str(&format!(" --type {name}"));
        } else if let Ok(container) = by_name(word) {
            has_container = true;
            line.push_str(&format!(" --to {}", container.name()));
        } else if !has_output && CONTAINERS.iter().any(|container| ends_like(container.extension())) {
            has_output = true;
            line.push_str(&format!(" -o {word}"));
        } else {
            return None;
        }
    }
    if !has_output && !has_container {
        line.push_str(" --to gguf");
    }
    (!rest.is_empty()).then_some(line)
}

fn subcommand(unknown: &str, words: &[String]) -> Option<String> {
    let lower = unknown.to_ascii_lowercase();
    if Path::new(unknown).exists() {
        return Some(format!("a command comes first: rwkv-forge inspect {unknown}, or rwkv-forge convert {unknown} --to gguf"));
    }
    let (names, ours) = COMMANDS.iter().find(|(names, _)| names.contains(&lower.as_str()))?;
    if names.contains(&"quantize")
        && let Some(line) = plain(words).filter(|words| words.len() > 1).and_then(|words| conversion(&words))
    {
        return Some(format!("this is done by rwkv-forge {line}"));
    }
    Some(format!("this is done by rwkv-forge {ours}"))
}

/// What a command without its files is for.
fn missing(command: &str, words: &[String]) -> Option<String> {
    let given = plain(words).unwrap_or_default();
    match (command, given.as_slice()) {
        ("verify", [one]) => Some(format!(
            "two files are compared: rwkv-forge verify REFERENCE {one}; one alone is looked at by rwkv-forge inspect {one} --lint"
        )),
        ("convert", []) => Some("for example rwkv-forge convert model.pth --to gguf".to_owned()),
        _ => None,
    }
}
