//! The command line of rwkv-forge: arguments, progress bars, tables and exit codes. The work is done in the libraries.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod inputs;
mod progress;
mod screen;
mod signals;
mod terminal;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};
use failure::Failure;
use terminal::Terminal;

fn main() -> std::process::ExitCode {
    let matches = Cli::command().try_get_matches().unwrap_or_else(|answer| {
        if let Some(text) = screen::harmless(&answer) {
            terminal::write_or_exit(&mut std::io::stderr(), &text);
            std::process::exit(answer.exit_code());
        }
        answer.exit()
    });
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    inputs::claim(&matches, &cli.global.claims);
    let terminal = Terminal::new(cli.global.json, cli.global.quiet, cli.global.verbose);
    let result = signals::install().and_then(|()| threads(&cli)).and_then(|()| run(&cli, &terminal));
    for path in cli.global.claims.files_read() {
        terminal.detail(&format!("read {}", path.display()));
    }
    match result {
        Ok(code) => std::process::ExitCode::from(code),
        Err(failure) => std::process::ExitCode::from(terminal.fail(&failure)),
    }
}

/// Sets the size of the pool that all parallel work runs in.
fn threads(cli: &Cli) -> Result<(), Failure> {
    if let Some(threads) = cli.global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .map_err(|error| Failure::usage("Threads", error.to_string()))?;
    }
    Ok(())
}

fn run(cli: &Cli, terminal: &Terminal) -> Result<u8, Failure> {
    match &cli.command {
        Command::Inspect(args) => commands::inspect::run(args, &cli.global, terminal),
        Command::Convert(args) => commands::convert::run(args, &cli.global, terminal),
        Command::Verify(args) => commands::verify::run(args, &cli.global, terminal),
        Command::Eval(args) => commands::eval::run(args, &cli.global, terminal),
        Command::Forms(args) => commands::forms::run(args, &cli.global, terminal),
        Command::Plan(args) => commands::plan::run(args, &cli.global, terminal),
        Command::Generate(args) => commands::generate::run(args, &cli.global, terminal),
        Command::Bench(args) => commands::bench::run(args, &cli.global, terminal),
        Command::Logits(args) => commands::logits::run(args, &cli.global, terminal),
        Command::State(args) => commands::state::run(args, &cli.global, terminal),
        Command::Completions(args) => commands::help::completions(args, terminal),
        Command::Man => commands::help::man(terminal),
    }
}
