//! The command line of rwkv-forge: arguments, progress bars, tables and exit codes. The work is done in the libraries.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod complete;
mod elsewhere;
mod failure;
mod faults;
mod habits;
mod inputs;
mod laps;
mod progress;
mod screen;
mod signals;
mod stdio;
mod steps;
mod terminal;
mod threads;

use std::process::ExitCode;

use clap::FromArgMatches;

use args::{Cli, Command};
use failure::{Failure, exit_code};
use terminal::Terminal;

/// Where memory ends, the program ends in order.
#[global_allocator]
static MEMORY: rwkv_forge_io::Allocator = rwkv_forge_io::Allocator;

fn main() -> ExitCode {
    faults::watch();
    complete::answer();
    let parsed = args::command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (mut cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(answer) => return ExitCode::from(terminal::parsed(&habits::answered(answer))),
    };
    let mut streams = inputs::claim(&matches, &cli.global.claims);
    let terminal = Terminal::new(&cli.global, streams.delivers);
    let result = faults::caught(|| {
        signals::install()?;
        elsewhere::check(&matches)?;
        streams.check(matches.subcommand_name().unwrap_or_default(), &terminal)?;
        threads::limit(&mut cli.global, &terminal);
        start_threads(&cli)?;
        run(&cli, &terminal)
    });
    for path in rwkv_forge_io::removed_leftovers() {
        terminal.note(&format!("removed {}, which a run that was killed had left behind", path.display()));
    }
    for path in cli.global.claims.files_read() {
        terminal.detail(&format!("read {}", path.display()));
    }
    terminal.say_written();
    let code = result.unwrap_or_else(|failure| terminal.fail(&failure));
    ExitCode::from(terminal.verdict(code))
}

/// Starts the pool that all parallel work runs in. It would start by itself when it is first used, and panic where it cannot.
fn start_threads(cli: &Cli) -> Result<(), Failure> {
    let builder =
        cli.global.threads.map_or_else(rayon::ThreadPoolBuilder::new, |threads| rayon::ThreadPoolBuilder::new().num_threads(threads.get()));
    builder.build_global().map_err(|error| Failure {
        kind: "Threads".to_owned(),
        message: format!(
            "the threads to compute with cannot be started: {error}; take fewer with --threads, or raise the limit (ulimit -u, -v)"
        ),
        code: exit_code(rwkv_forge_tensor::Class::Io),
    })
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
        Command::Meta(args) => commands::meta::run(args, &cli.global, terminal),
        Command::State(args) => commands::state::run(args, &cli.global, terminal),
        Command::Completions(args) => commands::help::completions(args, terminal),
        Command::Man(args) => commands::help::man(args, &cli.global, terminal),
    }
}
