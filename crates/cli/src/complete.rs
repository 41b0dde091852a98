//! What a shell offers while a line is being typed. The scripts that `completions` prints ask the program itself, with the line in its
//! arguments. Start at [`answer`].

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StyledStr};
use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use rwkv_forge_choose::ALL_TYPES;
use rwkv_forge_convert::CHAT_FORMATS;
use rwkv_forge_convert::preset::type_names;

use crate::failure::Failure;

/// The variable of the environment by which a script asks: its value is the shell.
const ASKED: &str = "RWKV_FORGE_COMPLETE";
/// How the program is called by those who type.
const PROGRAM: &str = "rwkv-forge";

/// Answers a script that asks, and ends the program; does nothing where none does.
pub(crate) fn answer() {
    CompleteEnv::with_factory(offered).var(ASKED).bin(PROGRAM).completer(PROGRAM).complete();
}

/// The script for a shell.
pub(crate) fn script(shell: Shell) -> Result<Vec<u8>, Failure> {
    let shells = Shells::builtins();
    let known = shells.completer(&shell.to_string()).ok_or_else(|| Failure::bug("Shell", format!("{shell} has no script")))?;
    let mut script = Vec::new();
    let written = known.write_registration(ASKED, PROGRAM, PROGRAM, PROGRAM, &mut script);
    written.map_err(|error| Failure::bug("Script", error.to_string()))?;
    Ok(if shell == Shell::Zsh { loaded_by_name(&script) } else { script })
}

/// zsh takes a file of its folder of functions for the body of a function of the file's name, and runs it at the first Tab: the script must
/// then answer, not only say who will.
fn loaded_by_name(script: &[u8]) -> Vec<u8> {
    let script = String::from_utf8_lossy(script);
    let (function, said) = ("_clap_dynamic_completer_rwkv_forge", script.trim_end());
    let registers = format!("compdef {function} {PROGRAM}");
    let body = said.strip_suffix(&registers).unwrap_or(said);
    format!("{body}if [[ $funcstack[1] == _{PROGRAM} ]]; then\n    {function} \"$@\"\nelse\n    {registers}\nfi\n").into_bytes()
}

/// The command line with what may stand where.
fn offered() -> Command {
    with_candidates(crate::args::command())
}

fn with_candidates(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| {
        // What is hidden is offered where there is nothing else, so that a word that was not begun gets files and commands, not sixty options.
        let arg = if arg.is_positional() { arg } else { arg.hide(true) };
        match of_argument(&arg) {
            Some(words) => arg.add(ArgValueCompleter::new(words)),
            None => arg,
        }
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_candidates))
}

/// A word that may be given, what else it answers to, and what it is.
struct Word {
    name: String,
    also: Vec<String>,
    help: Option<StyledStr>,
}

impl Word {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), also: Vec::new(), help: None }
    }

    fn of(value: &PossibleValue) -> Self {
        let also = value.get_name_and_aliases().skip(1).map(ToOwned::to_owned).collect();
        Self { also, help: value.get_help().cloned(), ..Self::new(value.get_name()) }
    }
}

/// The words of an argument, offered for letters of either case, and whether it takes files as well.
struct Words {
    words: Vec<Word>,
    with_files: bool,
}

impl ValueCompleter for Words {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let typed = current.to_string_lossy().to_lowercase();
        let begins = |name: &str| name.to_lowercase().starts_with(&typed);
        let offered = self.words.iter().filter(|word| begins(&word.name));
        let mut candidates: Vec<_> = offered.map(|word| CompletionCandidate::new(&word.name).help(word.help.clone())).collect();
        if candidates.is_empty() {
            // By another name: `llam` is llama.cpp, which is another name of gguf.
            let also = self.words.iter().flat_map(|word| &word.also).filter(|name| begins(name));
            candidates.extend(also.map(CompletionCandidate::new));
        }
        if self.with_files {
            candidates.extend(PathCompleter::any().complete(current));
        }
        candidates
    }
}

/// The words for an argument that has some.
fn of_argument(arg: &Arg) -> Option<Words> {
    let plain = |names: &[&str]| names.iter().copied().map(Word::new).collect();
    let (words, with_files): (Vec<Word>, bool) = match arg.get_id().as_str() {
        "levels" => (plain(&[vec![ALL_TYPES], type_names()].concat()), false),
        "chat" => (CHAT_FORMATS.iter().map(|format| Word { help: Some(format.about.into()), ..Word::new(format.name) }).collect(), true),
        "vocab" => (plain(&crate::commands::VOCABULARIES), true),
        "page" => (crate::args::command().get_subcommands().map(|inner| Word::new(inner.get_name())).collect(), false),
        _ => (arg.get_possible_values().iter().map(Word::of).collect(), false),
    };
    (!words.is_empty()).then_some(Words { words, with_files })
}
