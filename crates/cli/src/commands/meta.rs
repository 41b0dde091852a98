//! `meta`: the metadata of GGUF files, shown and changed.

use std::path::Path;

use regex::Regex;
use rwkv_forge_choose::Unit;
use rwkv_forge_convert::Value as Said;
use rwkv_forge_convert::metadata::{NewMetadata, open_gguf, rewrite};
use rwkv_forge_gguf::edit::{Change, Edit, Wish, is_fixed, is_free, no_such_key, type_of};
use rwkv_forge_gguf::{Array, GgufFile};
use rwkv_forge_report::sink;
use rwkv_forge_tensor::{BoxError, TensorSource};
use serde_json::{Value, json};

use super::{open_options, read_text, shown};
use crate::args::{Global, Meta, MetaCopy, MetaKind, MetaOutput, MetaRemove, MetaSet, MetaShow};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::stdio::{Destination, is_dash};
use crate::terminal::{Terminal, fitting, thousands};

/// Runs the command.
pub(crate) fn run(args: &Meta, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    match &args.kind {
        MetaKind::Show(args) => show(args, global, terminal),
        MetaKind::Set(args) => set(args, global, terminal),
        MetaKind::Remove(args) => remove(args, global, terminal),
        MetaKind::Copy(args) => copy(args, global, terminal),
    }
}

fn pattern(text: Option<&String>) -> Result<Option<Regex>, Failure> {
    let compile = |text: &String| Regex::new(text).map_err(|error| Failure::usage("BadPattern", format!("--match: {error}")));
    text.map(compile).transpose()
}

fn show(args: &MetaShow, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let matching = pattern(args.matching.as_ref())?;
    let (_, file) = open_gguf(&args.file, open_options(global))?;
    let is_shown = |key: &str| matching.as_ref().is_none_or(|pattern| pattern.is_match(key));
    let entries: Vec<_> = file.metadata().entries().iter().filter(|(key, _)| is_shown(key)).collect();
    let rows = entries.iter().map(|(key, value)| vec![key.clone(), type_of(value), value.shown().replace('\n', "\\n")]).collect();
    if entries.is_empty() {
        terminal.print(&format!("none of {} keys matches\n", file.metadata().entries().len()));
    } else {
        terminal.print(&fitting(&["key", "type", "value"], rows, &[], &[2, 0])?);
    }
    let metadata: Vec<Value> =
        entries.iter().map(|(key, value)| json!({ "key": key, "type": type_of(value), "value": document(value) })).collect();
    let path = args.file.display().to_string();
    terminal.print_json("meta show", &json!({ "file": path, "format": file.format(), "metadata": metadata }))?;
    Ok(0)
}

fn set(args: &MetaSet, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let mut wishes = args.values.iter().map(|text| wish(text)).collect::<Result<Vec<_>, Failure>>()?;
    wishes.extend(args.removed.iter().map(|key| Wish::Remove { key: key.clone() }));
    let edit = Edit { wishes, allow_structure: args.out.allow_structure, allow_record: false };
    write("meta set", &args.file, &edit, &args.out, global, terminal)
}

/// A key with its value, which may stand in a file.
fn wish(text: &str) -> Result<Wish, Failure> {
    let wish = Wish::parse(text).map_err(BoxError::from)?;
    Ok(match wish {
        Wish::Set { key, kind, text } => {
            let text = match text.strip_prefix('@') {
                None => text,
                Some(rest) if rest.starts_with('@') => rest.to_owned(),
                Some(path) => {
                    let text = read_text(Path::new(path))?;
                    // Editors begin files with a byte order mark, which is no part of a template.
                    match text.strip_prefix('\u{feff}').filter(|_| key.starts_with("tokenizer.chat_template")) {
                        Some(rest) => rest.to_owned(),
                        None => text,
                    }
                }
            };
            Wish::Set { key, kind, text }
        }
        other @ (Wish::Take { .. } | Wish::Remove { .. }) => other,
    })
}

fn remove(args: &MetaRemove, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let wishes = args.names.iter().map(|key| Wish::Remove { key: key.clone() }).collect();
    let edit = Edit { wishes, allow_structure: args.out.allow_structure, allow_record: args.allow_record };
    write("meta remove", &args.file, &edit, &args.out, global, terminal)
}

fn copy(args: &MetaCopy, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let matching = pattern(args.matching.as_ref())?;
    let (_, from) = open_gguf(&args.from, open_options(global))?;
    let (_, file) = open_gguf(&args.file, open_options(global))?;
    let mut wishes = args.wanted.iter().map(|key| taken(&from, key)).collect::<Result<Vec<_>, Failure>>()?;
    let mut left = Vec::new();
    for (key, value) in from.metadata().entries() {
        let is_meant = matching.as_ref().is_some_and(|pattern| pattern.is_match(key)) && !args.wanted.contains(key);
        let is_allowed = is_free(key, file.architecture()) || args.out.allow_structure && !is_fixed(key);
        match is_meant {
            true if is_allowed => wishes.push(Wish::Take { key: key.clone(), value: value.clone() }),
            true => left.push(sink::word(key).into_owned()),
            false => {}
        }
    }
    if !left.is_empty() {
        terminal.note(&format!("not copied, since they are of the other file's making or decide its model: {}", left.join(", ")));
    }
    if wishes.is_empty() {
        let message = format!("--match: no key of {} matches that may be copied; `rwkv-forge meta show` lists them", shown(&args.from));
        return Err(Failure::usage("NothingToCopy", message));
    }
    let edit = Edit { wishes, allow_structure: args.out.allow_structure, allow_record: false };
    write("meta copy", &args.file, &edit, &args.out, global, terminal)
}

fn taken(from: &GgufFile, key: &str) -> Result<Wish, Failure> {
    let value = from.metadata().get(key).ok_or_else(|| BoxError::from(no_such_key(from, key)))?;
    Ok(Wish::Take { key: key.to_owned(), value: value.clone() })
}

fn write(command: &str, source: &Path, edit: &Edit, out: &MetaOutput, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let output = destination(source, out, global)?;
    let progress = Progress::new(terminal, "rewriting", Unit::Bytes);
    let options = global.output("--output", out.force);
    let written = rewrite(source, edit, output.path(), &options, open_options(global), &|bytes, total| progress.add(bytes, total))?;
    drop(progress);
    output.deliver(terminal)?;
    let NewMetadata { outputs, bytes, changes, tensors, tensors_sha256, is_model, notes } = written;
    for note in &notes {
        terminal.note(note);
    }
    let cell = |value: &Option<Said>| value.as_ref().map_or_else(|| "-".to_owned(), |value| value.shown().replace('\n', "\\n"));
    let kind = |change: &Change| change.after.as_ref().or(change.before.as_ref()).map(type_of).unwrap_or_default();
    if !changes.is_empty() {
        let rows = changes.iter().map(|change| vec![change.key.clone(), kind(change), cell(&change.before), cell(&change.after)]).collect();
        terminal.print(&fitting(&["key", "type", "was", "is"], rows, &[], &[3, 2, 0])?);
    }
    let outputs = if is_dash(&out.output) { vec![output.named().to_path_buf()] } else { outputs };
    outputs.iter().for_each(|path| terminal.wrote_result(path));
    let names: Vec<String> = outputs.iter().map(|path| path.display().to_string()).collect();
    let read = if is_model { ", read again as the same model" } else { "" };
    terminal.print(&format!(
        "wrote {} ({} bytes{read}); {} tensors as they were: {tensors_sha256}\n",
        if is_dash(&out.output) { output.shown() } else { names.iter().map(|name| sink::word(name)).collect::<Vec<_>>().join(", ") },
        thousands(bytes),
        thousands(tensors as u64)
    ));
    let changes: Vec<Value> = changes.iter().map(change_document).collect();
    terminal.print_json(
        command,
        &json!({
            "source": source.display().to_string(),
            "outputs": names,
            "bytes": bytes,
            "changes": changes,
            "tensors": tensors,
            "tensors_sha256": tensors_sha256,
            "is_model": is_model,
            "notes": notes,
        }),
    )?;
    Ok(0)
}

/// Where the new file goes; stdout takes one.
fn destination(source: &Path, out: &MetaOutput, global: &Global) -> Result<Destination, Failure> {
    if is_dash(&out.output) {
        let (_, file) = open_gguf(source, open_options(global))?;
        let parts = file.files().len();
        if parts > 1 {
            let message = format!("--output -: {} has {parts} parts, and stdout takes one file; give a name for them", shown(source));
            return Err(Failure::usage("NoStdout", message));
        }
    }
    Destination::new(Some(&out.output), Path::new("model.gguf"))
}

fn change_document(change: &Change) -> Value {
    let one = |value: &Option<Said>| value.as_ref().map(|value| json!({ "type": type_of(value), "value": document(value) }));
    json!({ "key": change.key, "before": one(&change.before), "after": one(&change.after) })
}

/// A value whole; a number that JSON has not is its text.
fn document(value: &Said) -> Value {
    match value {
        Said::U8(value) => json!(value),
        Said::I8(value) => json!(value),
        Said::U16(value) => json!(value),
        Said::I16(value) => json!(value),
        Said::U32(value) => json!(value),
        Said::I32(value) => json!(value),
        Said::F32(value) if value.is_finite() => json!(value),
        Said::F64(value) if value.is_finite() => json!(value),
        Said::F32(value) => json!(value.to_string()),
        Said::F64(value) => json!(value.to_string()),
        Said::Bool(value) => json!(value),
        Said::String(value) => json!(value),
        Said::Array(value) => list(value),
        Said::U64(value) => json!(value),
        Said::I64(value) => json!(value),
    }
}

fn list(array: &Array) -> Value {
    match array {
        Array::U8(values) => json!(values),
        Array::I8(values) => json!(values),
        Array::U16(values) => json!(values),
        Array::I16(values) => json!(values),
        Array::U32(values) => json!(values),
        Array::I32(values) => json!(values),
        Array::F32(values) => values.iter().map(|value| document(&Said::F32(*value))).collect(),
        Array::Bool(values) => json!(values),
        Array::String(values) => json!(values),
        Array::Array(values) => values.iter().map(list).collect(),
        Array::U64(values) => json!(values),
        Array::I64(values) => json!(values),
        Array::F64(values) => values.iter().map(|value| document(&Said::F64(*value))).collect(),
    }
}
