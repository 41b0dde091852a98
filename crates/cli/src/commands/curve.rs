//! `bench curve`: time and memory against position, for the recurrent form and for what it is compared with.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use rwkv_forge_bench::curve::{self, CurveOptions};
use rwkv_forge_choose::Unit;
use rwkv_forge_engine::EngineOptions;
use rwkv_forge_io::OutputFile;
use serde_json::{Value, json};

use super::models::Models;
use super::{check_integrity, model_line, needs_head, shown};
use crate::args::{Curve, Global};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// Forms that are measured.
const FORMS: u32 = 4;

/// Runs the command.
pub(crate) fn run(args: &Curve, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let mut models = Models::unweighed(&args.key, global);
    let model = models.open(&args.model, terminal)?;
    models.finish()?;
    needs_head(&model)?;
    let output = global.output("--output", args.force);
    let names = names(args);
    // Begun before the work, so that a name that cannot be fails early.
    let files = names.iter().map(|path| Ok(OutputFile::create(path, &output)?)).collect::<Result<Vec<_>, Failure>>()?;
    check_integrity(&model, terminal)?;

    let seconds = u32::try_from(args.seconds.get()).unwrap_or(u32::MAX);
    let options = CurveOptions { positions: args.positions.get(), limit: Duration::from_secs(seconds.into()) / FORMS };
    let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
    let engine = EngineOptions { threads, ..EngineOptions::default() };
    let progress = Progress::new(terminal, "measuring", Unit::Steps);
    let measured = curve::run(&model.model, &engine, &options, &mut |done, total| {
        progress.set(done as u64, total as u64);
    })?;
    drop(progress);

    let texts = [curve::time_plot(&measured).to_svg()?, curve::memory_plot(&measured).to_svg()?, curve::points(&measured).to_csv()?];
    for (file, text) in files.into_iter().zip(texts) {
        file.write_all_at(0, text.as_bytes())?;
        file.commit()?;
    }
    for series in &measured.series {
        terminal.detail(&format!("{}: {}", series.form, series.method));
        if series.cut_short {
            let last = series.points.last().map_or(0, |point| point.position);
            terminal.note(&format!("{}: ends at position {last}, since the next one would take too long (--seconds)", series.form));
        }
    }
    let threads = measured.threads;
    terminal.print(&format!(
        "{}\n{threads} threads for every form; medians at powers of two, sums over straight lines between them\n{}\n{}\n{}",
        model_line(model.description()),
        measured.quietness(),
        curve::costs(&measured).to_markdown()?,
        curve::laws(&measured).to_markdown()?,
    ));
    if !names.is_empty() {
        let written: Vec<String> = names.iter().map(|path| shown(path)).collect();
        names.iter().for_each(|path| terminal.wrote_result(path));
        terminal.print(&format!("\nwrote {}\n", written.join(", ")));
    }
    print_json(args, &measured, terminal)?;
    Ok(0)
}

/// The time plot, the memory plot, the measurements: where they go, if anywhere.
fn names(args: &Curve) -> Vec<PathBuf> {
    let named = |stem: &PathBuf| {
        ["-time.svg", "-memory.svg", ".csv"].map(|end| {
            let mut name = stem.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        })
    };
    args.output.iter().flat_map(named).collect()
}

fn print_json(args: &Curve, measured: &curve::Curve, terminal: &Terminal) -> Result<(), Failure> {
    let Value::Object(mut body) = serde_json::to_value(measured).map_err(|error| Failure::bug("Json", error.to_string()))? else {
        return Err(Failure::bug("Json", "the measurements are no JSON object".to_owned()));
    };
    let laws = measured.series.iter().map(|series| {
        json!({
            "form": series.form,
            "seconds_per_token": series.seconds_law(),
            "cumulative_seconds": series.cumulative_law(),
            "bytes": series.bytes_law(),
        })
    });
    body.insert("laws".to_owned(), laws.collect());
    body.insert("file".to_owned(), json!(args.model.display().to_string()));
    body.insert("files".to_owned(), json!(names(args).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()));
    terminal.print_json("bench curve", &body)
}
