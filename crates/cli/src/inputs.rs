//! Every file that the user names, known before anything is done, so that no output takes its place.

use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use rwkv_forge_convert::ChatFormat;
use rwkv_forge_io::Claims;

use crate::stdio::{Streams, is_dash};

/// Arguments that name what is written. Every other path is something that is read.
const OUTPUTS: [&str; 13] = [
    "cache",
    "csv",
    "html",
    "junit",
    "layers",
    "markdown",
    "output",
    "record",
    "save_imatrix",
    "save_logits",
    "statistics",
    "svg",
    "vocab_json",
];

/// Options that name a model or an adapter, as places of the command line do.
const MODELS: [&str; 3] = ["baseline", "lora", "model"];

/// Claims all paths of the command line that are read, and from now on all files that are opened. What is no file but a stream is returned.
pub(crate) fn claim(matches: &ArgMatches, claims: &Claims) -> Streams {
    let (mut command, mut matches) = (crate::args::command(), matches);
    let mut streams = Streams::default();
    while let Some((name, inner)) = matches.subcommand() {
        let Some(found) = command.find_subcommand(name).cloned() else { break };
        (command, matches) = (found, inner);
        for arg in paths(&command) {
            let id = arg.get_id().as_str();
            let is_written = OUTPUTS.contains(&id);
            for path in matches.get_raw(id).into_iter().flatten().map(Path::new) {
                match (is_dash(path), is_written) {
                    (true, true) => streams.write(name, id, &role(arg)),
                    (true, false) => streams.read(id, &role(arg), claims),
                    (false, _) => {}
                }
                if is_dash(path) || is_written {
                    continue;
                }
                // Two vocabularies and some conversation formats have names instead of files.
                let is_name = match id {
                    "vocab" => crate::commands::vocabulary_name(path).is_some(),
                    "chat" => path.to_str().and_then(ChatFormat::by_name).is_some(),
                    _ => false,
                };
                if !is_name {
                    claims.input(&role(arg), path);
                }
            }
        }
        if matches.try_get_one("dry_run").is_ok_and(|asked| asked == Some(&true)) {
            streams.only_planned();
        }
    }
    claims.watch_all_reads();
    streams
}

/// The paths of the command line that are read, each with whether it names a model or an adapter.
pub(crate) fn read(matches: &ArgMatches) -> Vec<(PathBuf, bool)> {
    let (mut command, mut matches, mut found) = (crate::args::command(), matches, Vec::new());
    while let Some((name, inner)) = matches.subcommand() {
        let Some(next) = command.find_subcommand(name).cloned() else { break };
        (command, matches) = (next, inner);
        for arg in paths(&command).filter(|arg| !OUTPUTS.contains(&arg.get_id().as_str())) {
            let is_model = arg.is_positional() || MODELS.contains(&arg.get_id().as_str());
            found.extend(matches.get_raw(arg.get_id().as_str()).into_iter().flatten().map(|path| (PathBuf::from(path), is_model)));
        }
    }
    found
}

/// The arguments of a command that are paths.
fn paths(command: &Command) -> impl Iterator<Item = &Arg> {
    let path = ValueParser::path_buf().type_id();
    command.get_arguments().filter(move |arg| arg.get_value_parser().type_id() == path)
}

/// As the user writes it: `--text`, or `SOURCE`.
fn role(arg: &Arg) -> String {
    let name = || arg.get_value_names().and_then(|names| names.first()).map_or_else(|| arg.get_id().to_string(), ToString::to_string);
    arg.get_long().map_or_else(name, |long| format!("--{long}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_every_command_is_read_or_written() {
        let (mut commands, mut written, mut read) = (vec![crate::args::command()], Vec::new(), Vec::new());
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            for arg in paths(&command) {
                let list = if OUTPUTS.contains(&arg.get_id().as_str()) { &mut written } else { &mut read };
                list.push(arg.get_id().to_string());
            }
        }
        for list in [&mut written, &mut read] {
            list.sort();
            list.dedup();
        }
        assert_eq!(written, OUTPUTS, "an output that no command has");
        // A new argument is read unless it is listed above: add it here once it is clear that it is.
        let known = [
            "baseline",
            "calibrate",
            "calibration",
            "candidate",
            "chat",
            "file",
            "from",
            "imatrix",
            "lora",
            "model",
            "models",
            "pairs",
            "paths",
            "recipe",
            "reference",
            "source",
            "state",
            "text",
            "texts",
            "tokens",
            "vocab",
        ];
        assert_eq!(read, known);
    }
}
