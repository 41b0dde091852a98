//! Checks of rwkv-forge against other people's runtimes, one subcommand a runtime. `llama`, `candle`, `web-rwkv` and `python`
//! compare logits; `presets` compares quantized files with those of llama.cpp's own quantizer.
//!
//! Start at the module of a subcommand; which differences are admitted is there or in `agreement`.

mod agreement;
mod candle;
mod llama;
mod npy;
mod plant;
mod presets;
mod python;
mod synthetic;
mod table;
mod tools;
mod web_rwkv;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str =
    "usage: rwkv-forge-peers llama|presets|candle|web-rwkv|python [--markdown FILE] [--json FILE] [--model FILE [--vocab FILE]]";

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
    let command = arguments.next().ok_or(USAGE)?;
    let (mut markdown, mut json, mut model, mut vocabulary) = (None, None, None, None);
    while let Some(option) = arguments.next() {
        let file = arguments.next().map(PathBuf::from);
        match (option.as_str(), file) {
            ("--markdown", Some(file)) => markdown = Some(file),
            ("--json", Some(file)) => json = Some(file),
            ("--model", Some(file)) if command == "presets" => model = Some(file),
            ("--vocab", Some(file)) if command == "presets" => vocabulary = Some(file),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (table, document, passed) = match command.as_str() {
        "llama" => {
            let report = llama::run()?;
            (report.markdown(), report.json(), report.passed())
        }
        "presets" => {
            let report = presets::run(model.as_deref(), vocabulary.as_deref())?;
            (report.markdown(), report.json(), report.passed())
        }
        "candle" => tables(candle::run()?),
        "web-rwkv" => tables(web_rwkv::run()?),
        "python" => tables(python::run()?),
        _ => return Err(USAGE.to_owned()),
    };
    print!("{table}");
    if let Some(path) = markdown {
        write(&path, &table)?;
    }
    if let Some(path) = json {
        write(&path, &document)?;
    }
    Ok(passed)
}

fn tables(report: table::Report) -> (String, String, bool) {
    (report.markdown(), report.json(), report.passed())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
