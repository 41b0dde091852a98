//! How help is arranged: a section for every option, what `-h` leaves to `--help`, and examples. Start at [`arranged`].

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

/// The section of options that every command has, which comes last.
pub(super) const GENERAL: &str = "General options";

/// Sections in the order in which help shows them, each with the options that are in it.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "Input",
        &[
            "keys",
            "vocab",
            "pad_vocabulary",
            "lora",
            "lora_alpha",
            "allow_zero_tensors",
            "requantize",
            "baseline",
            "paths",
            "text",
            "texts",
            "pairs",
            "protocol",
            "context",
            "bytes",
            "calibration",
            "allow_leak",
            "state",
            "tokens",
            "prompt",
            "model",
            "from",
            "model_version",
            "layers",
            "heads",
            "wanted",
            "lengths",
            "chunk",
        ],
    ),
    (
        "Output",
        &[
            "to",
            "output",
            "force",
            "dry_run",
            "split_size",
            "record",
            "vocab_json",
            "save_logits",
            "html",
            "markdown",
            "csv",
            "svg",
            "junit",
            "github",
            "compare",
            "tensors",
            "hashes",
            "lint",
            "memory",
            "globals",
            "matching",
            "removed",
            "allow_structure",
            "allow_record",
            "limit",
        ],
    ),
    ("Metadata", &["name", "chat", "license", "author", "meta"]),
    (
        "Types",
        &[
            "encoding",
            "levels",
            "sets",
            "recipe",
            "quantizer",
            "calibrate",
            "imatrix",
            "compat",
            "strict",
            "allow_f16_loss",
            "calibration_windows",
            "statistics",
            "calibration_memory",
            "save_imatrix",
            "size",
            "bpw",
            "max_size",
        ],
    ),
    (
        "Quality",
        &[
            "max_kl",
            "min_top1",
            "max_ppl_ratio",
            "max_abs",
            "no_verify",
            "probe_tokens",
            "against_parallel",
            "candidate_eps",
            "eps",
            "tier",
            "quick",
            "seed",
            "temperature",
            "top_p",
            "logits_precision",
            "activations",
            "probe_windows",
        ],
    ),
    (
        "Performance",
        &[
            "kernel",
            "max_memory",
            "budget",
            "cache",
            "no_cache",
            "no_speed",
            "repeat",
            "position",
            "positions",
            "loads",
            "scaling",
            "isa",
            "form",
            "read_mib",
            "seconds",
        ],
    ),
    (GENERAL, &["json", "quiet", "verbose", "threads", "mmap", "help", "version"]),
];

/// Options that mean something else in one command.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("logits", "layers", "Output"),
    ("generate", "tokens", "Quality"),
    ("eval", "max_size", "Quality"),
    ("bench", "prompt", "Performance"),
    ("bench", "tokens", "Performance"),
];

/// What `-h` leaves to `--help`, for all commands that have it.
const RARE: &[&str] = &[
    "allow_zero_tensors",
    "keys",
    "pad_vocabulary",
    "calibration_windows",
    "statistics",
    "calibration_memory",
    "save_imatrix",
    "compat",
    "strict",
    "allow_f16_loss",
    "max_abs",
    "max_ppl_ratio",
    "probe_tokens",
    "license",
    "author",
    "meta",
    "name",
    "lora_alpha",
    "split_size",
    "vocab_json",
    "imatrix",
    "mmap",
    "threads",
    "version",
    "verbose",
    "allow_leak",
    "logits_precision",
    "activations",
    "max_memory",
    "no_cache",
    "cache",
    "candidate_eps",
    "eps",
    "isa",
    "form",
    "read_mib",
    "loads",
    "probe_windows",
    "github",
    "kernel",
    "save_logits",
    "pairs",
    "context",
];

/// Possible values of an option beyond this number stand under `--help` alone.
const FEW: usize = 6;

/// Two or three examples a command: lines that work as they stand, and what each does. Lines that would be wrapped are no examples.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "inspect",
        &[("inspect model.pth", "version, sizes, types"), ("inspect model-q4_k_m.gguf --lint", "what runtimes would stumble over")],
    ),
    (
        "convert",
        &[
            ("convert model.pth --to gguf", "for llama.cpp, in 4 bits"),
            ("convert model.pth -o model.bin --type q5_1", "for rwkv.cpp"),
            ("convert model.pth --to gguf --type 5bit --dry-run", "what it would be"),
        ],
    ),
    (
        "verify",
        &[
            ("verify model.pth model-q8_0.gguf", "how far they agree"),
            ("verify model.pth model-q8_0.gguf --max-kl 0.01", "exit code 1 if that is exceeded"),
        ],
    ),
    (
        "eval",
        &[
            ("eval model-q4_k_m.gguf --baseline model.pth", "what quantization costs"),
            ("eval model.pth --levels 4bit,8bit --html levels.html", "types side by side"),
        ],
    ),
    (
        "forms",
        &[
            ("forms model.pth --quick", "both forms of a model agree"),
            ("forms model.pth --quick --junit forms.xml", "one test for each sequence"),
        ],
    ),
    (
        "plan",
        &[
            ("plan model.pth --size 990M --calibrate text/ -o plan.toml", "a recipe for that size"),
            ("plan model.pth --bpw 8 --calibrate text/ --dry-run", "what it would choose from"),
        ],
    ),
    (
        "generate",
        &[
            ("generate model.pth --prompt \"Once upon a time\" -n 20", "see that it speaks"),
            ("generate model-q4_k_m.gguf -n 20 --temperature 1 --seed 7", "sampled"),
        ],
    ),
    (
        "bench",
        &[
            ("bench model.pth model-q4_k_m.gguf --tokens 8", "one against the other"),
            ("bench curve model.pth --positions 16", "cost against position"),
        ],
    ),
    (
        "curve",
        &[
            ("bench curve model.pth --positions 16", "in both forms"),
            ("bench curve model.pth --positions 16 --output cost", "plots and measurements too"),
        ],
    ),
    (
        "logits",
        &[
            ("logits model.pth --tokens tokens.json -o logits.npy", "as a NumPy file"),
            ("logits model-q8_0.gguf --text calib.txt --context 8 -o short.npy", "of a text"),
        ],
    ),
    (
        "meta",
        &[
            ("meta show model-q4_k_m.gguf", "all keys with their types"),
            ("meta set model-q4_k_m.gguf general.name=Goose -o goose.gguf", "the same model under another name"),
            ("meta remove model-q4_k_m.gguf tokenizer.chat_template -o base.gguf", "without a template"),
        ],
    ),
    (
        "show",
        &[
            ("meta show model-q4_k_m.gguf", "all keys with their types"),
            ("meta show model-q4_k_m.gguf --match chat", "the keys about conversations"),
        ],
    ),
    (
        "set",
        &[
            ("meta set model-q4_k_m.gguf tokenizer.chat_template:chat=tools -o tools.gguf", "another template"),
            ("meta set model-q4_k_m.gguf general.tags:string[]=rwkv,chat -o tagged.gguf", "a list"),
        ],
    ),
    (
        "remove",
        &[
            ("meta remove model-q4_k_m.gguf tokenizer.chat_template -o base.gguf", "without a template"),
            ("meta remove model-q4_k_m.gguf rwkv_forge.recipe --allow-record -o a.gguf", "without its recipe"),
        ],
    ),
    (
        "copy",
        &[
            ("meta copy model-q8_0.gguf model-q4_k_m.gguf --match chat -o new.gguf", "its template"),
            ("meta copy model-q8_0.gguf model-q4_k_m.gguf --key general.name -o a.gguf", "its name"),
        ],
    ),
    (
        "state",
        &[
            ("state state.pth --to web-rwkv", "a tuned start for another runtime"),
            ("state state.pth --to pth --type bf16 -o half.pth", "in another type"),
        ],
    ),
    (
        "completions",
        &[
            ("completions bash", "for ~/.local/share/bash-completion/completions/rwkv-forge"),
            ("completions fish", "for ~/.config/fish/completions/rwkv-forge.fish"),
        ],
    ),
    ("man", &[("man convert", "one page"), ("man --output man1", "all pages into a directory")]),
];

/// Where help is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// On a screen: rare options and long lists of values stand under `--help` alone, examples below.
    Screen,
    /// On a page of the manual, which has all options, and a section for examples.
    Page,
}

/// Lines that show what a command does, each with what comes of it.
pub(crate) fn examples(command: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(known, _)| *known == command).map_or(&[], |(_, lines)| lines)
}

/// The command line with its help in sections and examples, for the whole program.
pub(super) fn arranged(program: Command, medium: Medium) -> Command {
    // In the place of the parser's own, which stand in no section.
    let flag = |name: &'static str, short: char, action: ArgAction| Arg::new(name).long(name).short(short).global(true).action(action);
    let program = program
        .arg(flag("help", 'h', ArgAction::Help).help("Print help; --help says more than -h"))
        .arg(flag("version", 'V', ArgAction::Version).help("Print version"))
        .mut_args(|arg| sorted("", arg, medium));
    let names: Vec<String> = program.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(program, |program, name| program.mut_subcommand(name, |command| of_command(command, medium)))
}

fn of_command(command: Command, medium: Medium) -> Command {
    let name = command.get_name().to_owned();
    let mut command = command.mut_args(|arg| sorted(&name, arg, medium));
    let lines = examples(&name);
    if !lines.is_empty() && medium == Medium::Screen {
        let widest = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
        let lines: Vec<String> = lines.iter().map(|(line, what)| format!("  rwkv-forge {line:widest$}  # {what}")).collect();
        command = command.after_help(format!("Examples:\n{}", lines.join("\n")));
    }
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |command| of_command(command, medium)))
}

/// An option in its section, at its place in it.
fn sorted(command: &str, arg: Arg, medium: Medium) -> Arg {
    if arg.is_positional() {
        return arg;
    }
    let id = arg.get_id().to_string();
    let moved = ELSEWHERE.iter().find(|(of, known, _)| *of == command && *known == id).map(|(_, _, section)| *section);
    let section = moved.or_else(|| SECTIONS.iter().find(|(_, ids)| ids.contains(&id.as_str())).map(|(section, _)| *section));
    let arg = match section {
        Some(section) => arg.help_heading(section).display_order(order(section, &id)),
        None => arg,
    };
    // So that a number below what an option takes is answered by the option, which says what it takes.
    let arg = if takes_numbers(&arg) { arg.allow_negative_numbers(true) } else { arg };
    match medium {
        Medium::Screen => values(arg.hide_short_help(RARE.contains(&id.as_str()))),
        Medium::Page => arg,
    }
}

/// Whether an option takes a value that is no text and no path.
fn takes_numbers(arg: &Arg) -> bool {
    let texts = [ValueParser::path_buf().type_id(), ValueParser::string().type_id()];
    arg.get_action().takes_values() && !texts.contains(&arg.get_value_parser().type_id())
}

/// Sections follow each other, and in each the options as the table has them.
fn order(section: &str, id: &str) -> usize {
    let at = SECTIONS.iter().position(|(known, _)| *known == section).unwrap_or(SECTIONS.len());
    let within = SECTIONS.get(at).and_then(|(_, ids)| ids.iter().position(|known| *known == id));
    at * 100 + within.unwrap_or(99)
}

/// Many possible values are listed by `--help` alone, each with what it is.
fn values(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    let shown: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    if shown.len() <= FEW || !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        return arg;
    }
    let list = if shown.iter().any(|value| value.get_help().is_some()) {
        let line = |value: &&clap::builder::PossibleValue| match value.get_help() {
            Some(help) => format!("- {}: {help}", value.get_name()),
            None => format!("- {}", value.get_name()),
        };
        format!("Possible values:\n{}", shown.iter().map(line).collect::<Vec<_>>().join("\n"))
    } else {
        format!("Possible values: {}", shown.iter().map(|value| value.get_name()).collect::<Vec<_>>().join(", "))
    };
    let help = arg.get_long_help().or_else(|| arg.get_help()).map_or_else(String::new, |help| format!("{help}\n\n"));
    arg.hide_possible_values(true).long_help(format!("{help}{list}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(mut visit: impl FnMut(&Command)) {
        let mut commands = vec![crate::args::command()];
        while let Some(command) = commands.pop() {
            visit(&command);
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn every_option_has_a_section_and_every_entry_an_option() {
        let mut seen = Vec::new();
        each(|command| {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let id = arg.get_id().to_string();
                assert!(arg.get_help_heading().is_some(), "{} --{id} is in no section", command.get_name());
                seen.push(id);
            }
        });
        let listed = SECTIONS.iter().flat_map(|(_, ids)| *ids).chain(RARE).chain(ELSEWHERE.iter().map(|(_, id, _)| id));
        for id in listed {
            assert!(seen.iter().any(|known| known == id), "no command has --{id}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        each(|command| {
            let is_inner = command.get_name() == "rwkv-forge";
            assert!(is_inner || command.get_after_help().is_some(), "{} has no example", command.get_name());
        });
    }
}
