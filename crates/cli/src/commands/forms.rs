//! `forms`: the recurrent form of a model against its parallel form.

use rwkv_forge_choose::Unit;
use rwkv_forge_convert::{OpenModel, PROBE_TEXT, probe_tokens};
use rwkv_forge_forms::{FormsOptions, FormsReport, Tier};
use rwkv_forge_io::OutputFile;
use rwkv_forge_parallel::ParallelOptions;
use serde_json::{Value, json};

use super::models::open_model;
use super::{check_integrity, model_line, needs_head, read_small, tokenizer_or_bytes, vocabulary};
use crate::args::{self, Global};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::{Terminal, thousands};

/// Runs the command.
pub(crate) fn run(args: &args::Forms, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let model = open_model(&args.model, &args.source_args, global, terminal)?;
    needs_head(&model)?;
    // Begun before the work, so that a name that cannot be fails early.
    let output = global.output("--junit", args.force);
    let junit = args.junit.as_ref().map(|path| OutputFile::create(path, &output)).transpose()?;
    let mut options = options(args);
    let tokens = tokens(args, &model, &mut options, terminal)?;
    check_integrity(&model, terminal)?;
    let layers = model.description().hyperparameters.layers;
    let progress = Progress::new(terminal, "comparing", Unit::Steps);
    let report = rwkv_forge_forms::compare(&model.model, &model.model, &tokens, &options, &mut |step| {
        progress.set(step.done as u64, step.total as u64);
        progress.at(&match step.layer {
            Some(layer) => format!("from state {}, layer {} of {layers}", step.start, layer + 1),
            None => format!("from state {}, the head", step.start),
        });
    })?;
    drop(progress);
    if let Some(file) = junit {
        file.write_all_at(0, report.junit().to_xml()?.as_bytes())?;
        file.commit()?;
        args.junit.iter().for_each(|path| terminal.wrote("--junit", path));
    }
    print(args, &model, &report, terminal)?;
    Ok(u8::from(!report.agrees()))
}

fn options(args: &args::Forms) -> FormsOptions {
    let mut out = if args.quick { FormsOptions::quick() } else { FormsOptions::default() };
    let numbers = |values: &[std::num::NonZeroUsize]| values.iter().map(|value| value.get()).collect::<Vec<_>>();
    if !args.lengths.is_empty() {
        out.lengths = numbers(&args.lengths);
    }
    if !args.chunk.is_empty() {
        out.chunks = numbers(&args.chunk);
    }
    out.tiers = match args.tier.as_str() {
        "f32" => vec![Tier::F32],
        "f64" => vec![Tier::F64],
        _ => vec![Tier::F64, Tier::F32],
    };
    out.seed = args.seed;
    out.parallel = ParallelOptions::default().with_group_norm_eps(args.eps);
    out
}

/// The token ids to feed, as many as the longest sequence has. Lengths that there are too few tokens for are cut.
fn tokens(args: &args::Forms, model: &OpenModel, options: &mut FormsOptions, terminal: &Terminal) -> Result<Vec<u32>, Failure> {
    let text = args.text.as_ref().map(|path| read_small(path)).transpose()?;
    let rows = model.description().hyperparameters.vocabulary;
    // Any numbers exercise both forms.
    let tokenizer = tokenizer_or_bytes(model, &vocabulary(&args.vocabulary)?, text.is_some(), terminal)?;
    let longest = options.lengths.iter().copied().max().unwrap_or(1);
    let limit = args.tokens.map_or(longest, std::num::NonZeroUsize::get);
    let tokens = probe_tokens(text.as_deref().unwrap_or(PROBE_TEXT.as_bytes()), tokenizer.as_ref(), rows, limit)?;
    if tokens.len() < limit {
        terminal.note(&format!("the text has {} tokens: longer sequences are cut; --text with a longer one gives more", tokens.len()));
    }
    let cut = args.tokens.is_some() || tokens.len() < longest;
    if cut {
        options.lengths.retain(|length| *length < tokens.len());
        options.lengths.push(tokens.len());
    }
    Ok(tokens)
}

fn print(args: &args::Forms, model: &OpenModel, report: &FormsReport, terminal: &Terminal) -> Result<(), Failure> {
    let list = |values: Vec<String>| values.join(", ");
    terminal.print(&format!(
        "{}\nsequences of {} tokens, chunks of {}, start states {}; each form feeds its own stream from layer to layer\n\n{}\n",
        model_line(model.description()),
        list(report.lengths.iter().map(ToString::to_string).collect()),
        list(report.chunks.iter().map(ToString::to_string).collect()),
        list(report.starts.iter().map(ToString::to_string).collect()),
        report.to_markdown()?,
    ));
    if terminal.verbose() {
        terminal.print(&format!("{}\n", report.table_by_layer().to_markdown()?));
    }
    for finding in &report.first_beyond {
        terminal.print(&format!("not met: {} form in {}: {}\n", finding.row.case.form, finding.row.case.tier, finding.message));
    }
    let comparisons = thousands(report.comparisons as u64);
    terminal.print(&if report.agrees() {
        format!("the forms agree: {comparisons} comparisons are within their bounds\n")
    } else {
        format!("the forms differ: {} of {comparisons} comparisons are beyond their bounds\n", thousands(report.beyond as u64))
    });
    if args.github || std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
        annotate(args, report, terminal);
    }
    let Value::Object(mut body) = serde_json::to_value(report).map_err(|error| Failure::bug("Json", error.to_string()))? else {
        return Err(Failure::bug("Json", "the report is no JSON object".to_owned()));
    };
    body.insert("model".to_owned(), json!(args.model.display().to_string()));
    body.insert("agrees".to_owned(), json!(report.agrees()));
    terminal.print_json("forms", &body)
}

/// Workflow commands are read from both streams.
fn annotate(args: &args::Forms, report: &FormsReport, terminal: &Terminal) {
    let lines: String = report.annotations(&args.model.display().to_string()).iter().map(|line| format!("{line}\n")).collect();
    terminal.print_beside(&lines);
}
