//! `inspect`: everything about a file that can be said without computing with it.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use regex::Regex;
use rwkv_forge_choose::Unit;
use rwkv_forge_convert::OpenFile;
use rwkv_forge_convert::lint::{Lint, Severity};
use rwkv_forge_engine::{EngineOptions, Memory};
use rwkv_forge_model::{ModelDescription, TensorRole};
use rwkv_forge_report::sink;
use rwkv_forge_tensor::{TensorSource, format_shape};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::models::{Models, note_folder};
use super::{model_line, shown};
use crate::args::{Global, Inspect};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::{Terminal, fitting, folded, table, thousands};

/// Runs the command.
pub(crate) fn run(args: &Inspect, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    if args.globals {
        return globals(args, terminal);
    }
    // A wrong expression is said before a large file is read.
    let listed = Listed::new(args)?;
    let mut models = Models::unweighed(&args.key, global);
    let file = models.open_file(&args.file)?;
    models.finish()?;
    note_folder(&args.file, &file, terminal);
    let source = file.source();
    let described = file.describe();
    let hashes = if args.hashes { Some(Hashes::of(source, terminal)?) } else { None };
    let bytes = total_bytes(source)?;
    let lints = if args.lint { Some(rwkv_forge_convert::lint::lint(&file, described.as_ref().ok())?) } else { None };
    let memory = if args.memory { Some(memory(&file, global)?) } else { None };
    print_text(&listed, &file, &described, hashes.as_ref(), bytes, terminal)?;
    if let Some(memory) = &memory {
        print_memory(memory, terminal)?;
    }
    if let Some(lints) = &lints {
        print_lints(lints, terminal);
    }
    let found = Found { hashes: hashes.as_ref(), lints: lints.as_deref(), memory: memory.as_ref(), bytes, listed: &listed };
    print_json(&file, &described, &found, terminal)?;
    Ok(u8::from(lints.is_some_and(|lints| lints.iter().any(|lint| lint.severity == Severity::Error))))
}

fn print_lints(lints: &[Lint], terminal: &Terminal) {
    for lint in lints {
        terminal.print(&folded(&format!("{}[{}]: {}\n", lint.severity.name(), lint.id, sink::word(&lint.message))));
    }
    if lints.is_empty() {
        terminal.print("nothing found that is known to break a runtime\n");
    }
}

/// What the engine will need with the threads that the user wants.
fn memory(file: &OpenFile, global: &Global) -> Result<Memory, Failure> {
    let default = EngineOptions::default();
    let options = EngineOptions { threads: global.threads.unwrap_or(default.threads), ..default };
    Ok(rwkv_forge_engine::memory(&file.model()?, &options)?)
}

fn print_memory(memory: &Memory, terminal: &Terminal) -> Result<(), Failure> {
    let rows = [
        ("weights", memory.weights),
        ("state of a sequence", memory.state),
        ("buffers for one token at a time", memory.scratch),
        ("further buffers for prompts", memory.batch),
        ("read for each token", memory.read_per_token),
    ];
    let rows = rows.map(|(what, bytes)| vec![what.to_owned(), thousands(bytes)]).to_vec();
    terminal.print(&table(&["memory of the engine", "bytes"], rows, &[1])?);
    Ok(())
}

fn globals(args: &Inspect, terminal: &Terminal) -> Result<u8, Failure> {
    let names = rwkv_forge_checkpoint::globals(&args.file, &rwkv_forge_checkpoint::Limits::default())?;
    let rows = names.iter().map(|(module, name)| vec![module.clone(), name.clone()]).collect();
    terminal.print(&table(&["module", "name"], rows, &[])?);
    let list: Vec<String> = names.iter().map(|(module, name)| format!("{module}.{name}")).collect();
    terminal.print_json("inspect", &json!({ "file": args.file.display().to_string(), "globals": list }))?;
    Ok(0)
}

/// SHA-256 of everything.
struct Hashes {
    /// Of each file, by path.
    files: Vec<(String, String)>,
    /// Of each tensor's logical bytes (row-major, contiguous, little endian, as encoded), in the order of the tensors:
    /// equal for equal tensors in whatever container.
    tensors: Vec<String>,
}

impl Hashes {
    /// Reads all files, checking every checksum of the format on the way, and then all tensors, looking at every value.
    fn of(source: &dyn TensorSource, terminal: &Terminal) -> Result<Self, Failure> {
        let progress = Progress::new(terminal, "reading", Unit::Bytes);
        let files = source.files();
        let mut total = total_bytes(source)?;
        for path in &files {
            total += rwkv_forge_io::InputFile::open(path)?.len();
        }
        let digests = source.check_integrity(&|bytes| progress.add(bytes, total))?;
        let tensors = (0..source.tensors().len())
            .into_par_iter()
            .map(|index| tensor_hash(source, index, &|bytes| progress.add(bytes, total)))
            .collect::<Vec<_>>();
        // Of several bad tensors the first is named, whichever thread was the fastest.
        let tensors = tensors.into_iter().collect::<Result<_, Failure>>()?;
        Ok(Self { files: files.iter().map(|path| path.display().to_string()).zip(digests).collect(), tensors })
    }
}

fn tensor_hash(source: &dyn TensorSource, index: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<String, Failure> {
    let info = &source.tensors()[index];
    let bytes = info.byte_len().map_err(|error| Failure::refused("BadShape", format!("{}: {error}", info.name)))?;
    let mut hasher = Sha256::new();
    let block = u64::from(info.encoding.block_bytes).max(1);
    let step = ((1 << 20) / block).max(1) * block;
    let mut buffer = vec![0; usize::try_from(bytes.min(step)).unwrap_or(1 << 20)];
    let mut start = 0;
    while start < bytes {
        let count = buffer.len().min(usize::try_from(bytes - start).unwrap_or(usize::MAX));
        source.read_at(index, start, &mut buffer[..count])?;
        hasher.update(&buffer[..count]);
        if rwkv_forge_quant::first_non_finite(info.encoding, &buffer[..count]).is_some()
            && let Some(found) = rwkv_forge_quant::non_finite(source, index, &|_| ())?
        {
            return Err(rwkv_forge_tensor::BoxError::from(found).into());
        }
        start += count as u64;
        progress(count as u64);
    }
    Ok(rwkv_forge_io::hex(&hasher.finalize()))
}

fn total_bytes(source: &dyn TensorSource) -> Result<u64, Failure> {
    let mut total = 0u64;
    for info in source.tensors() {
        let bytes = info.byte_len().map_err(|error| Failure::refused("BadShape", format!("{}: {error}", info.name)))?;
        total = total.saturating_add(bytes);
    }
    Ok(total)
}

/// Number of tensors and bytes of each stored type.
fn by_type(source: &dyn TensorSource) -> BTreeMap<&'static str, (u64, u64)> {
    let mut types = BTreeMap::new();
    for info in source.tensors() {
        let entry: &mut (u64, u64) = types.entry(info.encoding.name).or_default();
        entry.0 += 1;
        entry.1 = entry.1.saturating_add(info.byte_len().unwrap_or(0));
    }
    types
}

/// Which tensors are listed.
struct Listed<'a> {
    file: &'a std::path::Path,
    all: bool,
    matching: Option<Regex>,
    limit: usize,
}

impl<'a> Listed<'a> {
    fn new(args: &'a Inspect) -> Result<Self, Failure> {
        let compile = |text: &String| Regex::new(text).map_err(|error| Failure::usage("BadPattern", format!("--match: {error}")));
        let matching = args.matching.as_ref().map(compile).transpose()?;
        // Whoever says which ones wants a list.
        let all = args.tensors || matching.is_some() || args.limit.is_some();
        Ok(Self { file: &args.file, all, matching, limit: args.limit.unwrap_or(usize::MAX) })
    }

    fn has(&self, name: &str) -> bool {
        self.matching.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }

    /// The table of tensors, and how many more match.
    fn table(&self, source: &dyn TensorSource, roles: &HashMap<usize, TensorRole>) -> Result<String, Failure> {
        let matching = || source.tensors().iter().enumerate().filter(|(_, info)| self.has(&info.name));
        let rows = matching().take(self.limit).map(|(index, info)| {
            vec![
                info.name.clone(),
                format_shape(&info.shape),
                info.encoding.name.to_owned(),
                thousands(info.byte_len().unwrap_or(0)),
                roles.get(&index).map_or("-", |role| role.name()).to_owned(),
            ]
        });
        let (rows, count): (Vec<_>, usize) = (rows.collect(), matching().count());
        let rest = match count.saturating_sub(rows.len()) {
            0 if count == 0 => format!("none of {} tensors matches\n", source.tensors().len()),
            0 => String::new(),
            more => format!("and {} more\n", thousands(more as u64)),
        };
        Ok(format!("{}{rest}", fitting(&["tensor", "shape", "type", "bytes", "role"], rows, &[3], &[4, 0, 1])?))
    }
}

fn print_text(
    listed: &Listed<'_>,
    file: &OpenFile,
    described: &Result<ModelDescription, rwkv_forge_tensor::BoxError>,
    hashes: Option<&Hashes>,
    bytes: u64,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let source = file.source();
    let part = source.part().map_or_else(String::new, |(number, count)| format!(" part {number} of {count},"));
    let head = format!(
        "{}: {},{part} {} tensors, {} bytes of data",
        shown(listed.file),
        source.format(),
        source.tensors().len(),
        thousands(bytes)
    );
    let mut text = format!("{}\n", folded(&head));
    match described {
        Ok(model) => {
            let start = if model.start.is_empty() { "" } else { "\nstarts from a tuned state in the file (time_state of every layer)" };
            text.push_str(&format!("{}{start}\n", folded(&model_line(model))));
        }
        Err(error) => text.push_str(&format!("no model that this version knows: {}\n", sink::message(&error.to_string()))),
    }
    for (name, (count, bytes)) in by_type(source) {
        text.push_str(&format!("  {name}: {count} tensors, {} bytes\n", thousands(bytes)));
    }
    let metadata = source.metadata();
    if !metadata.is_empty() {
        let rows = metadata.into_iter().map(|(key, value)| vec![key, value.replace('\n', "\\n")]).collect();
        text.push_str(&format!("\n{}", fitting(&["metadata", "value"], rows, &[], &[1, 0])?));
    }
    if listed.all {
        let mut roles: HashMap<usize, TensorRole> = HashMap::new();
        for spec in described.as_ref().map(|model| model.tensors.as_slice()).unwrap_or_default() {
            roles.entry(spec.source_index).or_insert(spec.role);
        }
        text.push_str(&format!("\n{}", listed.table(source, &roles)?));
    }
    for (path, digest) in hashes.map(|hashes| hashes.files.as_slice()).unwrap_or_default() {
        text.push_str(&format!("sha256 {digest}  {}\n", sink::word(path)));
    }
    for note in source.notes() {
        text.push_str(&format!("note: {}\n", sink::word(note)));
    }
    terminal.print(&folded(&text));
    Ok(())
}

/// What was asked for.
struct Found<'a> {
    hashes: Option<&'a Hashes>,
    lints: Option<&'a [Lint]>,
    memory: Option<&'a Memory>,
    bytes: u64,
    listed: &'a Listed<'a>,
}

fn print_json(
    file: &OpenFile,
    described: &Result<ModelDescription, rwkv_forge_tensor::BoxError>,
    found: &Found<'_>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let Found { hashes, lints, memory, bytes, listed } = *found;
    let source = file.source();
    let tensors: Vec<_> = source
        .tensors()
        .iter()
        .enumerate()
        .filter(|(_, info)| listed.has(&info.name))
        .take(listed.limit)
        .map(|(index, info)| {
            json!({
                "name": info.name, "shape": info.shape, "type": info.encoding.name, "bytes": info.byte_len().unwrap_or(0),
                "sha256": hashes.and_then(|hashes| hashes.tensors.get(index)),
            })
        })
        .collect();
    let types: BTreeMap<_, _> =
        by_type(source).into_iter().map(|(name, (count, bytes))| (name, json!({ "tensors": count, "bytes": bytes }))).collect();
    let model = described.as_ref().ok().map(|model| {
        json!({
            "version": model.version,
            "hyperparameters": model.hyperparameters,
            "parameters": model.parameters(),
            "tensors": model.tensors.iter().map(|spec| json!({
                "name": spec.name, "shape": spec.shape, "role": spec.role, "layer": spec.layer,
                "source_name": source.tensors().get(spec.source_index).map(|info| &info.name),
            })).collect::<Vec<_>>(),
            "start_state": !model.start.is_empty(),
            "unused": model.unused.iter().filter_map(|index| source.tensors().get(*index)).map(|info| &info.name).collect::<Vec<_>>(),
        })
    });
    terminal.print_json(
        "inspect",
        &json!({
            "file": source.path().display().to_string(),
            "format": source.format(),
            "part": source.part().map(|(number, count)| json!({ "number": number, "count": count })),
            "files": source.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
            "data_bytes": bytes,
            "types": types,
            "model": model,
            "model_error": described.as_ref().err().map(|error| json!({ "kind": error.kind(), "message": error.to_string() })),
            "metadata": source.metadata().into_iter().collect::<BTreeMap<_, _>>(),
            "tensors": tensors,
            "tensors_in_file": source.tensors().len(),
            "sha256": hashes.map(|hashes| hashes.files.iter().cloned().collect::<BTreeMap<_, _>>()),
            "notes": source.notes(),
            "lints": lints,
            "engine_memory": memory,
        }),
    )
}
