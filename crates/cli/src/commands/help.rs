//! `completions` and `man`: made from the same definitions as the command line itself.

use clap_complete::Shell;
use rwkv_forge_io::OutputFile;
use serde_json::{Value, json};

use super::shown;
use crate::args::{Completions, Global, Man, command};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Prints a completion script.
pub(crate) fn completions(args: &Completions, terminal: &Terminal) -> Result<u8, Failure> {
    let script = script(args.shell);
    let shell = args.shell.to_string();
    finish("completions", &script, json!({ "shell": shell, "script": String::from_utf8_lossy(&script) }), terminal)
}

/// The script for a shell.
fn script(shell: Shell) -> Vec<u8> {
    let generate = |name: &str| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), name, &mut script);
        script
    };
    match shell {
        // The generator for bash writes a hyphen in the program's name in two ways, and its script then finds no command: so it is given a
        // name without one, and the lines that register the script get the real one.
        Shell::Bash => String::from_utf8_lossy(&generate("rwkv_forge")).replace(" rwkv_forge\n", " rwkv-forge\n").into_bytes(),
        Shell::Fish => [generate("rwkv-forge"), positionals_for_fish().into_bytes()].concat(),
        _ => generate("rwkv-forge"),
    }
}

/// What the generator for fish leaves out: the possible values of what is no option.
fn positionals_for_fish() -> String {
    let line = |name: &str, arg: &clap::Arg| {
        let values = arg.get_possible_values();
        let values: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        let condition = format!("__fish_rwkv_forge_using_subcommand {name}");
        (!values.is_empty()).then(|| format!("complete -c rwkv-forge -n \"{condition}\" -f -a \"{}\"\n", values.join(" ")))
    };
    let program = command();
    let of = |command: &clap::Command| command.get_positionals().filter_map(|arg| line(command.get_name(), arg)).collect::<String>();
    program.get_subcommands().map(of).collect()
}

/// Prints a manual page in roff, or writes those of all commands.
pub(crate) fn man(args: &Man, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let pages = pages()?;
    let Some(folder) = &args.output else {
        let wanted =
            args.command.as_deref().map_or_else(|| "rwkv-forge".to_owned(), |name| format!("rwkv-forge-{}", name.to_ascii_lowercase()));
        let Some((_, page)) = pages.iter().find(|(name, _)| *name == wanted) else {
            let known = pages.iter().filter_map(|(name, _)| name.strip_prefix("rwkv-forge-")).collect::<Vec<_>>().join(", ");
            let message = format!("there is no page about '{}': there are {known}", args.command.as_deref().unwrap_or_default());
            return Err(Failure::usage("NoSuchPage", message));
        };
        return finish("man", page, json!({ "name": wanted, "page": String::from_utf8_lossy(page) }), terminal);
    };
    std::fs::create_dir_all(folder).map_err(|error| Failure {
        kind: "Io".to_owned(),
        message: format!("{}: {error}", shown(folder)),
        code: crate::failure::exit_code(rwkv_forge_tensor::Class::Io),
    })?;
    let paths: Vec<_> = pages.iter().map(|(name, _)| folder.join(format!("{name}.1"))).collect();
    let files = paths.iter().map(|path| OutputFile::create(path, &global.output("--output", args.force))).collect::<Result<Vec<_>, _>>()?;
    for (file, (_, page)) in files.into_iter().zip(&pages) {
        file.write_all_at(0, page)?;
        file.commit()?;
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    terminal.wrote_result(folder);
    terminal.print(&format!("wrote {} pages into {}\n", pages.len(), shown(folder)));
    terminal.print_json("man", &json!({ "pages": names }))?;
    Ok(0)
}

/// The page of the program and those of all commands, with their names.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    let (mut left, mut pages) = (vec![program], Vec::new());
    while let Some(command) = left.pop() {
        let inner: Vec<_> = command.get_subcommands().cloned().collect();
        left.extend(inner.into_iter().rev());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(|error| Failure::bug("Man", error.to_string()))?;
        pages.push((name, page));
    }
    Ok(pages)
}

/// The text, or a document with it.
fn finish(command: &str, text: &[u8], document: Value, terminal: &Terminal) -> Result<u8, Failure> {
    if terminal.json() {
        terminal.print_json(command, &document)?;
    } else {
        terminal.print_bytes(text);
    }
    Ok(0)
}
