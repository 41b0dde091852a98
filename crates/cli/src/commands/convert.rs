//! `convert`: one step from source to a verified file.

use std::path::{Path, PathBuf};

use rwkv_forge_choose::{Steps, Unit, products_for};
use rwkv_forge_convert::container::named_or_implied;
use rwkv_forge_convert::lora::Adapter;
use rwkv_forge_convert::preset::Preset;
use rwkv_forge_convert::recipe::{Recipe, Taken, Wanted, quantizer_by_name};
use rwkv_forge_convert::{
    BROKEN_KL, Blueprint, Calibration, ConvertError, ConvertOptions, FromImatrix, OpenModel, Preparation, Prepared, Record, Rendered,
    Rendering, Stage, VerifyOptions, Vocabulary, origin_of_importance, treatment,
};
use rwkv_forge_eval::Kernel;
use rwkv_forge_io::OutputFile;
use rwkv_forge_model::OutputLayout;
use rwkv_forge_report::sink;
use serde_json::{Value, json};

use super::calibration;
use super::models::{Models, open_with_own, place};
use super::verdict::Judged;
use super::{BYTES_AS_IDS, agreement_table, kernel, model_line, open_options, read_small, read_text, shown, thresholds, vocabulary, words};
use crate::args::{Convert, Global};
use crate::failure::Failure;
use crate::laps::Laps;
use crate::progress::Progress;
use crate::stdio::{Destination, is_dash};
use crate::terminal::{Terminal, table, thousands};

/// Runs the command.
pub(crate) fn run(args: &Convert, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let mut laps = Laps::start();
    let container = named_or_implied(args.to.as_deref(), args.output.as_deref().filter(|output| !is_dash(output)))?;
    let recipe_text = args.recipe.as_ref().map(|path| Ok::<_, Failure>((path.display().to_string(), read_text(path)?))).transpose()?;
    let recipe_text = recipe_text.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
    // Before anything is opened, so that a wrong name fails at once.
    let wanted = Wanted::new(recipe_text, args.encoding.as_deref(), &args.sets, Some(container))?;
    let quantizer = args.quantizer.as_deref().map(quantizer_by_name).transpose()?;
    let vocabulary = vocabulary(&args.vocabulary)?;
    let model = open(args, global, terminal)?;
    let (mut recipe, taken) = wanted.recipe_for(&model.model, container)?;
    recipe.strict = args.strict;
    recipe.keep_factors = args.compat.is_some();
    recipe.keep_importance = args.compat.is_some();
    recipe.quantizer = quantizer.or(recipe.quantizer);
    let text = args.text.as_ref().map(|path| read_small(path)).transpose()?;
    let said = words::said(args)?.or(rwkv_forge_convert::named_after(&args.source));
    let treatment = treatment(model.merged(), args.imatrix.as_deref());
    let options = ConvertOptions {
        treatment: treatment.as_deref(),
        words: Some(&said),
        pad_vocabulary: args.pad_vocabulary,
        requantize: args.requantize,
        allow_f16_loss: args.allow_f16_loss,
        split_bytes: args.split_size,
        force: args.force,
        claims: Some(&global.claims),
        open: open_options(global),
        verify: (!args.no_verify).then(|| VerifyOptions {
            text: text.as_deref(),
            tokens: args.probe_tokens.get(),
            thresholds: thresholds(&args.thresholds, Some(BROKEN_KL)),
            kernel: kernel(&args.kernel),
        }),
        ..ConvertOptions::new(container, &recipe, &vocabulary)
    };
    for note in model.source().notes() {
        terminal.note(note);
    }
    if let Some(Taken { name, why }) = &taken {
        terminal.note(&format!("type {name}, since {why}; --type takes another"));
    }
    if kernel(&args.kernel) == Kernel::Engine {
        // Said before the work rather than after it.
        rwkv_forge_engine::check(model.description())?;
    }
    // So are all other refusals that need no text.
    rwkv_forge_convert::check(&model, &options)?;
    let (recipe, tokens) = calibrate(args, &model, &vocabulary, &recipe, terminal)?;
    let options = ConvertOptions { recipe: &recipe, ..options };
    if model.source().tensors().iter().any(|info| !info.encoding.is_dense()) {
        terminal.note(
            "the source is quantized: tensors whose type changes are decoded from it, so its own losses stay in them; a file made from the \
             checkpoint as it was released has none of them",
        );
    }
    let blueprint = rwkv_forge_choose::decide(&model, &options)?;
    if let Some(shortfall) = &blueprint.shortfall {
        terminal.note(&shortfall.to_string());
    }
    let lost = words::lost(&blueprint);
    if !lost.is_empty() {
        terminal.note(&format!("the container {} has no place for {}, which the file will not have", container.name(), lost.join(", ")));
    }
    if let Some(note) = words::for_reading(&blueprint).filter(|_| args.vocab_json.is_none()) {
        terminal.note(&note);
    }
    for note in blueprint.tokenizer().iter().flat_map(|tokenizer| tokenizer.notes()) {
        terminal.aside(note);
    }
    for note in words::notes(&blueprint, &args.source) {
        terminal.note(&note);
    }
    if let Some(left_out) = left_out(&model, &blueprint) {
        terminal.aside(&left_out);
    }
    for (tensor, bytes) in blueprint.oversized() {
        terminal.note(&format!("{tensor} has {} bytes, more than --split-size, and has a part of its own", thousands(bytes)));
    }
    if options.verify.is_some() && blueprint.tokenizer().is_none() {
        terminal.note(BYTES_AS_IDS);
    }
    let types = Some(recipe.preset.name).filter(|_| !recipe.preset.keeps);
    let beside = rwkv_forge_convert::output_beside(&args.source, types, container.extension());
    if args.output.as_deref().is_some_and(is_dash) {
        only_one_file(&model, &blueprint, &beside)?;
    }
    let destination = if args.dry_run {
        Destination::File(args.output.clone().unwrap_or(beside))
    } else {
        Destination::new(args.output.as_deref(), &beside)?
    };
    let output = destination.path();
    if let Some(note) = rwkv_forge_convert::container::called_otherwise(container, output) {
        terminal.note(&note);
    }
    let start = rwkv_forge_convert::start_beside(&model.model, container, output);
    if let Some(path) = &start {
        terminal.note(&format!(
            "the container {} has no place for the tuned initial state in the source: it goes into {}, which --state takes and `rwkv-forge \
             state` converts for runtimes",
            container.name(),
            shown(path)
        ));
    } else if model.model.has_start() {
        terminal.aside("the tuned initial state in the source (time_state) is kept among the weights");
    }
    if args.vocab_json.is_some() && blueprint.tokenizer().is_none() {
        return Err(rwkv_forge_convert::vocabulary_needed(&model, "--vocab-json").into());
    }
    if let Some(tokenizer) = blueprint.tokenizer().filter(|tokenizer| args.vocab_json.is_some() && !tokenizer.is_list()) {
        let vocabulary = tokenizer.name().to_owned();
        return Err(ConvertError::VocabularyIsNoList { what: "--vocab-json".to_owned(), vocabulary }.into());
    }
    if args.dry_run {
        let refused = rwkv_forge_convert::check_output(&model, &blueprint, output, &options).err().map(|error| error.to_string());
        return dry_run(&model, &blueprint, (output, start.as_deref(), refused), taken.as_ref(), terminal);
    }
    terminal.detail(&format!(
        "container {}, recipe {}, vocabulary {}, {} threads",
        container.name(),
        blueprint.recipe,
        blueprint.tokenizer().map_or("unknown", |tokenizer| tokenizer.name()),
        rayon::current_num_threads()
    ));
    // Before the work, so that a name that cannot be fails early.
    rwkv_forge_convert::check_output(&model, &blueprint, output, &options)?;
    let side_files = SideFiles::create(args, global)?;
    laps.end("opening");
    let known = known(args, &model, &recipe, tokens.as_deref(), global, terminal)?;
    if known.is_some() {
        laps.end("calibrating");
    }
    let prepared = prepare(&model, &blueprint, &recipe, known.as_deref(), output, terminal)?;
    if prepared.is_some() {
        laps.end("quantizing");
    }
    let importance = origin_of_importance(args.imatrix.as_deref(), args.calibration.calibrate.first().map(PathBuf::as_path));
    let preparation =
        prepared.as_ref().map(|made| Preparation { model: &made.model, tensors: &made.prepared, importance: importance.as_deref() });
    for warning in preparation.iter().flat_map(|preparation| preparation.tensors).filter_map(Prepared::note) {
        terminal.warn(&warning);
    }
    let options = ConvertOptions { prepared: preparation, ..options };
    let record = execute(&model, &blueprint, output, &options, terminal)?;
    let compared = record.agreement.iter().map(|_| ("comparing", record.verify_seconds));
    laps.end_of(&std::iter::once(("writing", record.write_seconds)).chain(compared).collect::<Vec<_>>(), "finishing");
    if args.output.as_deref().is_some_and(is_dash) {
        destination.deliver(terminal)?;
        laps.end("handing on");
    }
    let done = Done { record: &record, taken: taken.as_ref(), preset: &recipe.preset, destination: &destination, laps: &laps };
    report(args, &model, &blueprint, &done, side_files, terminal)?;
    Ok(0)
}

/// Refuses stdout for what is more than one file.
fn only_one_file(model: &OpenModel, blueprint: &Blueprint, beside: &Path) -> Result<(), Failure> {
    let container = blueprint.container;
    let what = match &blueprint.layout {
        OutputLayout::Directory(_) => format!("{} is a directory of files", container.name()),
        OutputLayout::Parts(parts) => format!("--split-size makes {} files of it", parts.len()),
        OutputLayout::File(_) if rwkv_forge_convert::start_beside(&model.model, container, beside).is_some() => {
            format!("{} has no place for the tuned initial state in the source, which is a file beside it", container.name())
        }
        OutputLayout::File(_) => return Ok(()),
    };
    Err(Failure::usage("NoStdout", format!("--output -: {what}, and stdout takes one; give --output a name")))
}

/// What was made, and how.
struct Done<'a> {
    record: &'a Record,
    taken: Option<&'a Taken>,
    preset: &'a Preset,
    destination: &'a Destination,
    laps: &'a Laps,
}

fn open(args: &Convert, global: &Global, terminal: &Terminal) -> Result<OpenModel, Failure> {
    if let (None, Some(alpha)) = (&args.lora, args.lora_alpha) {
        return open_with_own(&args.source, &args.source_args, global, terminal, (alpha, args.requantize));
    }
    let mut models = Models::new(&args.source_args, global);
    let model = models.open(&args.source, terminal)?;
    let adapter = args.lora.as_ref().map(|path| models.open_by(|key| Adapter::open(&place(path, key)))).transpose()?;
    models.finish()?;
    Ok(match adapter {
        Some(adapter) => adapter.merge_into(model, args.lora_alpha, args.requantize)?,
        None => model,
    })
}

/// The recipe with the digest of the calibration text, and the text's tokens. A recipe that was made with statistics demands the same.
fn calibrate(
    args: &Convert,
    model: &OpenModel,
    vocabulary: &Vocabulary,
    recipe: &Recipe,
    terminal: &Terminal,
) -> Result<(Recipe, Option<Vec<u32>>), Failure> {
    let (mut tokens, mut record) = (None, None);
    if !args.calibration.calibrate.is_empty() {
        let _shown = Progress::new(terminal, "reading the text", Unit::Steps);
        let text = calibration::collections(&args.calibration.calibrate)?;
        let found = calibration::tokens(model, vocabulary, &text)?;
        record = Some(calibration::record(&args.calibration, model, &found)?);
        tokens = Some(found);
    }
    Ok((recipe.clone().with_calibration(record)?, tokens))
}

/// What there is to know of the inputs of weights.
fn known(
    args: &Convert,
    model: &OpenModel,
    recipe: &Recipe,
    tokens: Option<&[u32]>,
    global: &Global,
    terminal: &Terminal,
) -> Result<Option<Box<dyn Calibration>>, Failure> {
    if let Some(path) = &args.imatrix {
        return Ok(Some(Box::new(FromImatrix::read(path, model.description())?)));
    }
    let Some(tokens) = tokens else { return Ok(None) };
    let found = calibration::calibrated(&args.calibration, model, tokens, products_for(recipe), args.force, global, terminal)?;
    Ok(Some(Box::new(found)))
}

/// Quantizes before writing what the executor's own encoder does not.
fn prepare(
    model: &OpenModel,
    blueprint: &Blueprint,
    recipe: &Recipe,
    calibration: Option<&dyn Calibration>,
    output: &Path,
    terminal: &Terminal,
) -> Result<Option<Rendered>, Failure> {
    // Writing and comparing follow.
    let progress = Progress::step(terminal, "quantizing", Unit::Weights);
    let set = |done: u64, total: u64, tensor: &str| {
        progress.set(done, total);
        progress.at(tensor);
    };
    Ok(Rendering { model, blueprint, recipe, calibration, directory: None }.prepared_for(output, &set)?)
}

/// What is written beside the model: begun before the work, so that a name that cannot be fails early and never takes
/// the source's place.
struct SideFiles {
    record: Option<OutputFile>,
    vocabulary: Option<OutputFile>,
}

impl SideFiles {
    fn create(args: &Convert, global: &Global) -> Result<Self, Failure> {
        let create = |role: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| OutputFile::create(path, &global.output(role, args.force))).transpose()
        };
        Ok(Self { record: create("--record", &args.record)?, vocabulary: create("--vocab-json", &args.vocab_json)? })
    }
}

fn execute(
    model: &OpenModel,
    blueprint: &Blueprint,
    output: &Path,
    options: &ConvertOptions<'_>,
    terminal: &Terminal,
) -> Result<Record, Failure> {
    let begin = if options.verify.is_some() { Progress::step } else { Progress::new };
    let shown = begin(terminal, "converting", Unit::Bytes);
    let progress = |stage: Stage, amount: u64, total: u64| match stage {
        Stage::Checking => {}
        Stage::Writing => shown.add(amount, total),
        Stage::Verifying => {
            shown.turn("comparing", Unit::Steps);
            // The last of them.
            Steps::whole(&shown);
            shown.set(amount, total);
        }
    };
    Ok(rwkv_forge_convert::convert(model, blueprint, output, options, &progress)?)
}

/// The blueprint's tensors as JSON and as table rows; one line a stored tensor.
fn tensor_rows(blueprint: &Blueprint) -> (Vec<Value>, Vec<Vec<String>>) {
    blueprint
        .layout
        .files()
        .flat_map(|(_, layout)| &layout.tensors)
        .map(|tensor| {
            let shape = rwkv_forge_tensor::format_shape(&tensor.shape);
            (
                json!({
                    "name": tensor.name, "shape": tensor.shape, "type": tensor.encoding.name,
                    "bytes": tensor.bytes, "offset": tensor.offset, "reason": tensor.reason,
                }),
                vec![tensor.name.clone(), shape, tensor.encoding.name.to_owned(), thousands(tensor.bytes), tensor.reason.clone()],
            )
        })
        .unzip()
}

/// What is said of tensors that no model of the source's kind uses.
fn left_out(model: &OpenModel, blueprint: &Blueprint) -> Option<String> {
    let tensors = model.source().tensors();
    let names: Vec<&str> = model.description().unused.iter().filter_map(|index| Some(tensors.get(*index)?.name.as_str())).collect();
    let what = if blueprint.container.has_stand_ins() {
        "are not copied: no model of its kind uses them, and the file has stand-ins for them, since its runtimes ask for tensors of these names"
    } else {
        "are left out: the source has them, and no model of its kind uses them"
    };
    (!names.is_empty()).then(|| format!("{} {what}", names.join(", ")))
}

/// The files that make up the output, for people.
fn all_shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| if is_dash(path) { "stdout".to_owned() } else { shown(path) }).collect::<Vec<_>>().join(", ")
}

/// The same for programs.
fn outputs(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

/// The files of the output, by the names that the user knows.
fn paths_of(blueprint: &Blueprint, destination: &Destination) -> Vec<PathBuf> {
    match destination {
        Destination::File(output) => blueprint.paths(output),
        Destination::Stdout(_) => vec![destination.named().to_path_buf()],
    }
}

fn dry_run(
    model: &OpenModel,
    blueprint: &Blueprint,
    (output, start, refused): (&Path, Option<&Path>, Option<String>),
    taken: Option<&Taken>,
    terminal: &Terminal,
) -> Result<u8, Failure> {
    let (tensors, rows) = tensor_rows(blueprint);
    let (words, said) = words::rows(blueprint);
    terminal.print(&format!("{}\n\n", model_line(model.description())));
    terminal.print(&table(&["tensor", "shape", "type", "bytes", "why"], rows, &[3])?);
    terminal.print(&table(&["word", "value", "from", "in the file"], said, &[])?);
    terminal.print(&format!(
        "would write {} ({} bytes, {} tensors)\n",
        all_shown(&blueprint.paths(output)),
        thousands(blueprint.layout.total_bytes()),
        blueprint.layout.files().map(|(_, layout)| layout.tensors.len()).sum::<usize>()
    ));
    if let Some(refused) = &refused {
        terminal.note(&format!("the run itself would be refused: {refused}"));
    }
    terminal.print_json(
        "convert",
        &json!({
            "dry_run": true,
            "refused": refused,
            "output": output.display().to_string(),
            "outputs": outputs(&blueprint.paths(output)),
            "start_state": start.map(|path| path.display().to_string()),
            "container": blueprint.container.name(),
            "recipe": blueprint.recipe,
            "type_taken": taken_json(taken),
            "total_bytes": blueprint.layout.total_bytes(),
            "words": words,
            "tensors": tensors,
        }),
    )?;
    Ok(0)
}

/// The type that nobody asked for, and why it was taken.
fn taken_json(taken: Option<&Taken>) -> Value {
    taken.map_or(Value::Null, |taken| json!({ "name": taken.name, "why": taken.why }))
}

fn report(
    args: &Convert,
    model: &OpenModel,
    blueprint: &Blueprint,
    done: &Done<'_>,
    side_files: SideFiles,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let Done { record, taken, preset, destination, laps } = *done;
    let speed = record.source_bytes as f64 / 1e6 / record.write_seconds.max(1e-9);
    let bits = record.output_bytes as f64 * 8.0 / model.description().parameters().max(1) as f64;
    terminal.print(&format!("{}\n", model_line(model.description())));
    if let Some(agreement) = &record.agreement {
        terminal.print(&format!("\n{}", agreement_table(agreement)?));
    }
    if let Some(warning) = record.prediction.and_then(|prediction| prediction.warning("the source")) {
        terminal.warn(&warning);
    }
    let mixed = args.recipe.is_some() || !args.sets.is_empty();
    let judged = Judged::of(record, blueprint, preset, mixed);
    if let Some(judged) = &judged {
        terminal.print(&judged.line());
    }
    let too_small = [
        (record.flushed_values, "values became zero"),
        (record.subnormal_values, "values lost digits"),
        (record.flushed_blocks, "blocks have a scale or minimum of zero"),
    ];
    let too_small = too_small.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", thousands(*count)));
    let too_small: Vec<String> = too_small.collect();
    if !too_small.is_empty() {
        let lost = format!("too small for their 16-bit type: {}", too_small.join(", "));
        // Where it matters, the file is refused or blocks are named below; unless the user takes it as it is.
        if args.allow_f16_loss {
            terminal.note(&format!("{lost}; -v says of which tensors"));
        } else {
            terminal.aside(&format!("{lost}; nothing is to be done: they are far below the others of their tensors"));
        }
    }
    if let Some(first) = record.zeroed.first() {
        let others = record.zeroed.len() - 1;
        let others = if others == 0 { String::new() } else { format!(", and of {others} more tensors") };
        let all = record.zeroed.iter().map(|tensor| tensor.blocks).sum::<u64>();
        let (count, of, name) = (thousands(record.zeroed_blocks), thousands(all), &first.tensor);
        terminal.warn(&format!("{count} of {of} blocks of {name}{others} became zero although their weights are not"));
    }
    for loss in &record.f16_losses {
        let (tensor, flushed, subnormal, of) = (&loss.tensor, loss.flushed, loss.subnormal, loss.non_zero);
        terminal.detail(&format!("f16: {tensor}: of {of} values {flushed} became zero, {subnormal} lost digits"));
    }
    let paths = paths_of(blueprint, destination);
    terminal.print(&format!(
        "wrote {} ({} bytes, {bits:.2} bits a parameter) in {}{}\n",
        all_shown(&paths),
        thousands(record.output_bytes),
        laps.text("writing", &format!(" ({speed:.0} MB/s of source)")),
        if record.agreement.is_some() { "" } else { "; not compared with its source" }
    ));
    paths.iter().for_each(|path| terminal.wrote_result(path));
    if let Some((name, _)) = &record.start_state {
        terminal.wrote("the initial state", &destination.path().with_file_name(name));
    }
    let (tensors, _) = tensor_rows(blueprint);
    let document = json!({
        "source": args.source.display().to_string(),
        "output": destination.named().display().to_string(),
        "outputs": outputs(&paths),
        "container": blueprint.container.name(),
        "recipe": blueprint.recipe,
        "type_taken": taken_json(taken),
        "verdict": judged.as_ref().map(Judged::to_json),
        "seconds": laps.to_json(),
        "model": { "version": model.description().version, "hyperparameters": model.description().hyperparameters },
        "record": record,
        "peak_memory_bytes": rwkv_forge_io::peak_memory_bytes(),
        "words": words::rows(blueprint).0,
        "tensors": tensors,
    });
    if let Some(file) = side_files.record {
        finish("--record", file, &sink::json(&format!("{document:#}\n")), terminal)?;
    }
    if let (Some(file), Some(tokenizer)) = (side_files.vocabulary, blueprint.tokenizer()) {
        finish("--vocab-json", file, &rwkv_forge_tokenizer::to_json(tokenizer), terminal)?;
    }
    terminal.print_json("convert", &document)
}

fn finish(what: &str, file: OutputFile, text: &str, terminal: &Terminal) -> Result<(), Failure> {
    let path = file.path().to_path_buf();
    file.write_all_at(0, text.as_bytes())?;
    file.commit()?;
    terminal.wrote(what, &path);
    Ok(())
}
