//! `completions` and `man`: made from the same definitions as the command line itself.

use clap::Command;
use clap_mangen::roff::{Roff, roman};
use rwkv_forge_io::OutputFile;
use serde_json::{Value, json};

use super::shown;
use crate::args::{self, Completions, Global, Man};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// How the program is called.
const PROGRAM: &str = "rwkv-forge";

/// Prints a completion script.
pub(crate) fn completions(args: &Completions, terminal: &Terminal) -> Result<u8, Failure> {
    let script = crate::complete::script(args.shell)?;
    let shell = args.shell.to_string();
    finish("completions", &script, json!({ "shell": shell, "script": String::from_utf8_lossy(&script) }), terminal)
}

/// Prints a manual page in roff, or writes those of all commands.
pub(crate) fn man(args: &Man, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let pages = pages()?;
    let Some(folder) = &args.output else {
        let wanted = wanted(&args.page);
        let Some((_, page)) = pages.iter().find(|(name, _)| *name == wanted) else {
            let known = pages.iter().filter_map(|(name, _)| name.strip_prefix("rwkv-forge-")).collect::<Vec<_>>().join(", ");
            let message = format!("there is no page about '{}': there are {known}", args.page.join(" "));
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

/// The name of the page that is asked for: as `bench curve`, `bench-curve` or `rwkv-forge-bench-curve`.
fn wanted(words: &[String]) -> String {
    let asked = words.join("-").to_ascii_lowercase();
    match asked.strip_prefix(PROGRAM).map(|rest| rest.trim_start_matches('-')) {
        Some(rest) if !rest.is_empty() => format!("{PROGRAM}-{rest}"),
        None if !asked.is_empty() => format!("{PROGRAM}-{asked}"),
        _ => PROGRAM.to_owned(),
    }
}

/// The page of the program and those of all commands, with their names.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut program = args::for_pages().disable_help_subcommand(true);
    program.build();
    let (mut left, mut commands) = (vec![program], Vec::new());
    while let Some(command) = left.pop() {
        let inner: Vec<_> = command.get_subcommands().cloned().collect();
        left.extend(inner.into_iter().rev());
        commands.push(command);
    }
    let names: Vec<String> = commands.iter().map(name_of).collect();
    let pages = commands.into_iter().zip(&names).map(|(command, name)| Ok((name.clone(), page(command, name, &names)?)));
    pages.collect::<std::io::Result<Vec<_>>>().map_err(|error| Failure::bug("Man", error.to_string()))
}

fn name_of(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// One page. `names` are those of all.
fn page(command: Command, name: &str, names: &[String]) -> std::io::Result<Vec<u8>> {
    let mut rest = Roff::new();
    let examples = args::examples(command.get_name());
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        rest.control("nf", []);
        for (line, what) in examples {
            rest.text([roman(format!("{PROGRAM} {line}"))]);
            rest.text([roman(format!("    {what}"))]);
        }
        rest.control("fi", []);
    }
    if let Some(codes) = command.get_after_help().filter(|_| name == PROGRAM) {
        rest.control("SH", ["EXIT STATUS"]);
        rest.text([roman(codes.to_string())]);
    }
    rest.control("SH", ["SEE ALSO"]);
    let others = names.iter().filter(|other| *other != name).map(|other| format!("{other}(1)"));
    rest.text([roman(others.collect::<Vec<_>>().join(", "))]);

    let has_commands = command.has_subcommands();
    let source = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command).title(name.to_ascii_uppercase()).source(source);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    rest.to_writer(&mut page)?;
    Ok(page)
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
