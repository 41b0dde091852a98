//! `completions` and `man`: made from the same definitions as the command line itself.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::{Value, json};

use crate::args::{Cli, Completions};
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
        clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
        script
    };
    match shell {
        // The generator for bash writes a hyphen in the program's name in two ways, and its script then finds no command: so it is given a
        // name without one, and the lines that register the script get the real one.
        Shell::Bash => {
            let script = String::from_utf8_lossy(&generate("rwkv_forge")).replace(" rwkv_forge\n", " rwkv-forge\n");
            script.into_bytes()
        }
        _ => generate("rwkv-forge"),
    }
}

/// Prints the manual page in roff: the program, then each command.
pub(crate) fn man(terminal: &Terminal) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure { kind: "Man".to_owned(), message: error.to_string(), code: 5 };
    let mut page = Vec::new();
    let mut program = Cli::command();
    program.build();
    clap_mangen::Man::new(program.clone()).render(&mut page).map_err(failed)?;
    for command in program.get_subcommands() {
        let man = clap_mangen::Man::new(command.clone());
        man.render_synopsis_section(&mut page).map_err(failed)?;
        man.render_description_section(&mut page).map_err(failed)?;
        man.render_options_section(&mut page).map_err(failed)?;
    }
    finish("man", &page, json!({ "page": String::from_utf8_lossy(&page) }), terminal)
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
