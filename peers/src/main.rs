//! Checks of rwkv-forge against other people's runtimes. One subcommand a runtime; `llama` compares with llama.cpp.
//!
//! Start at [`llama`]; what is measured and which bounds hold is in `agreement`.

mod agreement;
mod llama;
mod npy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: rwkv-forge-peers llama [--markdown FILE] [--json FILE]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything was within its bounds.
fn run() -> Result<bool, String> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("llama") {
        return Err(USAGE.to_owned());
    }
    let (mut markdown, mut json) = (None, None);
    while let Some(option) = arguments.next() {
        let file = arguments.next().map(PathBuf::from);
        match (option.as_str(), file) {
            ("--markdown", Some(file)) => markdown = Some(file),
            ("--json", Some(file)) => json = Some(file),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let report = llama::run()?;
    let table = report.markdown();
    print!("{table}");
    if let Some(path) = markdown {
        write(&path, &table)?;
    }
    if let Some(path) = json {
        write(&path, &report.json())?;
    }
    Ok(report.passed())
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
