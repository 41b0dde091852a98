//! Checks of rwkv-forge against other people's runtimes, one subcommand a runtime. `chat` renders chat templates; `states` starts llama.cpp from tuned states; `metadata`
//! compares keys; `llama`, `candle`, `web-rwkv` and `python` compare logits; `rwkvq` compares values of rwkv-quant's files; `presets` compares quantized files with those
//! of llama.cpp's own quantizer, `split` models in parts with those of its gguf-split;
//! `perplexity` compares `eval` with llama-perplexity; `speed` measures.
//!
//! Start at the module of a subcommand; which differences are admitted is there or in `agreement`.

mod agreement;
mod candle;
mod chat;
mod llama;
mod metadata;
mod npy;
mod perplexity;
mod plant;
mod presets;
mod python;
mod rwkvq;
mod speed;
mod split;
mod states;
mod synthetic;
mod table;
mod tools;
mod web_rwkv;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: rwkv-forge-peers llama|chat|states|metadata|split|presets|perplexity|candle|web-rwkv|python|rwkvq [--markdown FILE] [--json FILE]
       presets: [--model FILE [--vocab FILE]]
       speed:   --model FILE [--vocab FILE] ... [--threads N,...] [--rounds N] [--types TYPE,...] [--peers llama,package,rwkv-cpp]
       perplexity: [--model FILE [--vocab FILE]] [--text FILE] [--bytes N] [--types TYPE,...] [--threads N] [--rounds N]";

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
    let mut speed = speed::Request::default();
    let mut perplexity = perplexity::Request::default();
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        if command == "speed" && request(&mut speed, &option, &value)? {
            continue;
        }
        if command == "perplexity" && perplexity_request(&mut perplexity, &option, &value)? {
            continue;
        }
        match (option.as_str(), Some(PathBuf::from(value))) {
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
        "perplexity" => {
            let report = perplexity::run(&perplexity)?;
            (report.markdown(), report.json(), report.passed())
        }
        "speed" => {
            let report = speed::run(&speed)?;
            (report.markdown(), report.json(), true)
        }
        "chat" => tables(chat::run()?),
        "metadata" => tables(metadata::run()?),
        "split" => tables(split::run()?),
        "states" => tables(states::run()?),
        "candle" => tables(candle::run()?),
        "web-rwkv" => tables(web_rwkv::run()?),
        "python" => tables(python::run()?),
        "rwkvq" => tables(rwkvq::run()?),
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

/// Takes an option of `speed`; false if it is none.
fn request(request: &mut speed::Request, option: &str, value: &str) -> Result<bool, String> {
    let number = |text: &str| above_zero(option, text);
    let names = || value.split(',').map(str::to_owned).collect();
    match option {
        "--model" => request.models.push((PathBuf::from(value), None)),
        "--vocab" => request.models.last_mut().ok_or("--vocab belongs to the --model before it")?.1 = Some(PathBuf::from(value)),
        "--threads" => request.threads = value.split(',').map(number).collect::<Result<_, _>>()?,
        "--rounds" => request.rounds = number(value)?,
        "--types" => request.types = names(),
        "--peers" => request.peers = names(),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Takes an option of `perplexity`; false if it is none.
fn perplexity_request(request: &mut perplexity::Request, option: &str, value: &str) -> Result<bool, String> {
    match option {
        "--model" => request.model = Some((PathBuf::from(value), None)),
        "--vocab" => request.model.as_mut().ok_or("--vocab belongs to the --model before it")?.1 = Some(PathBuf::from(value)),
        "--text" => request.text = Some(PathBuf::from(value)),
        "--bytes" => request.bytes = Some(above_zero(option, value)?),
        "--types" => request.types = value.split(',').map(str::to_owned).collect(),
        "--threads" => request.threads = Some(above_zero(option, value)?),
        "--rounds" => request.rounds = above_zero(option, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn above_zero(option: &str, text: &str) -> Result<usize, String> {
    text.parse::<usize>().ok().filter(|number| *number > 0).ok_or_else(|| format!("{option} {text}: no number above 0"))
}

fn tables(report: table::Report) -> (String, String, bool) {
    (report.markdown(), report.json(), report.passed())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
