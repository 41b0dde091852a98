//! `bench`: speed and memory of models in the engine, beside what the machine's memory would allow.

use std::path::PathBuf;

use rwkv_forge_bench::{Report, Settings, Subject};
use rwkv_forge_choose::Unit;
use rwkv_forge_convert::OpenModel;
use rwkv_forge_engine::{Arithmetic, EngineOptions, Isa};
use rwkv_forge_io::OutputFile;
use serde_json::{Value, json};

use super::models::Models;
use super::{curve, names_apart, needs_head};
use crate::args::{Bench, BenchKind, Global};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;
use crate::threads;

/// Runs the command.
pub(crate) fn run(args: &Bench, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    if let Some(BenchKind::Curve(args)) = &args.kind {
        return curve::run(args, global, terminal);
    }
    let ways = ways(args, global, terminal)?;
    let mut opening = Models::unweighed(&args.key, global);
    let models = args.models.iter().map(|path| opening.open(path, terminal)).collect::<Result<Vec<_>, Failure>>()?;
    opening.finish()?;
    models.iter().try_for_each(needs_head)?;
    // Begun before the work, so that a name that cannot be fails early.
    let output = |role: &str, path: &Option<PathBuf>| {
        path.as_ref().map(|path| OutputFile::create(path, &global.output(role, args.force))).transpose()
    };
    let [csv, markdown, svg] =
        [("--csv", &args.csv), ("--markdown", &args.markdown), ("--svg", &args.svg)].map(|(role, path)| output(role, path));
    let (csv, markdown, svg) = (csv?, markdown?, svg?);
    let subjects = subjects(args, &models, &ways)?;
    let progress = Progress::new(terminal, "measuring", Unit::Steps);
    let report = rwkv_forge_bench::run(&subjects, &settings(args), &|done, total, what| {
        progress.set(done as u64, total as u64);
        progress.at(what);
    })?;
    drop(progress);
    write(csv, || Ok(report.to_csv()?))?;
    write(markdown, || Ok(report.to_markdown(args.compare)?))?;
    write(svg, || Ok(report.to_svg()?))?;
    for (role, path) in [("--csv", &args.csv), ("--markdown", &args.markdown), ("--svg", &args.svg)] {
        path.iter().for_each(|path| terminal.wrote(role, path));
    }
    print(args, &report, terminal)?;
    Ok(0)
}

fn settings(args: &Bench) -> Settings {
    Settings {
        tokens: args.tokens.get(),
        repeat: args.repeat.get(),
        prompts: args.prompt.iter().copied().filter(|length| *length > 0).collect(),
        loads: args.loads.get(),
        position: args.position,
        buffer_bytes: args.read_mib.map(|mib| mib.get().saturating_mul(1 << 20)),
    }
}

/// All combinations of threads, instruction set and arithmetic.
fn ways(args: &Bench, global: &Global, terminal: &Terminal) -> Result<Vec<EngineOptions>, Failure> {
    let default = EngineOptions::default();
    let threads = match args.scaling.as_slice() {
        [] => vec![global.threads.unwrap_or(default.threads)],
        asked => threads::useful(asked, "--scaling", terminal),
    };
    let mut sets = Vec::new();
    for name in &args.isa {
        if name.eq_ignore_ascii_case("all") {
            sets.extend(Isa::all().into_iter().map(Some));
        } else {
            sets.push(Some(Isa::by_name(name)?));
        }
    }
    if sets.is_empty() {
        sets.push(None);
    }
    let mut ways = Vec::new();
    for threads in threads {
        for isa in &sets {
            for name in &args.form {
                let arithmetic = if name == "float" { Arithmetic::Float } else { Arithmetic::Int8 };
                ways.push(EngineOptions { threads, isa: *isa, arithmetic, ..default });
            }
        }
    }
    Ok(ways)
}

fn subjects(args: &Bench, models: &[OpenModel], ways: &[EngineOptions]) -> Result<Vec<Subject>, Failure> {
    let mut subjects = Vec::new();
    let names = names_apart(&args.models.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    for (name, model) in names.iter().zip(models) {
        let file_bytes = model.source_bytes()?;
        subjects.extend(ways.iter().map(|options| Subject {
            name: name.clone(),
            model: model.model.clone(),
            file_bytes,
            options: *options,
        }));
    }
    Ok(subjects)
}

fn write(file: Option<OutputFile>, text: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
    if let Some(file) = file {
        file.write_all_at(0, text()?.as_bytes())?;
        file.commit()?;
    }
    Ok(())
}

fn print(args: &Bench, report: &Report, terminal: &Terminal) -> Result<(), Failure> {
    for model in &report.models {
        for note in &model.notes {
            terminal.detail(&format!("{}: {note}", model.file));
        }
    }
    // What is said next is no row of the last table.
    terminal.print(&format!("{}\n", report.to_markdown(args.compare)?));
    let Value::Object(mut body) = serde_json::to_value(report).map_err(|error| Failure::bug("Json", error.to_string()))? else {
        return Err(Failure::bug("Json", "the report is no JSON object".to_owned()));
    };
    body.insert("settings".to_owned(), json!(settings(args)));
    terminal.print_json("bench", &body)
}
