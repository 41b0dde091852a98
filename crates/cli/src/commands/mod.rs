//! One file a command, and what they share.

pub(crate) mod bench;
pub(crate) mod calibration;
pub(crate) mod convert;
pub(crate) mod curve;
pub(crate) mod eval;
pub(crate) mod forms;
pub(crate) mod generate;
pub(crate) mod help;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod meta;
mod models;
pub(crate) mod plan;
mod start;
pub(crate) mod state;
mod verdict;
pub(crate) mod verify;
mod words;

use std::path::Path;

use rwkv_forge_choose::Unit;
use rwkv_forge_convert::{OpenModel, OpenOptions, Vocabulary};
use rwkv_forge_eval::{Agreement, Difference, Kernel, LayerAgreement};
use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_report::sink;
use rwkv_forge_score::KlSummary;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::Tokenizer;

use crate::args::{Global, SourceArgs, Thresholds, VocabularyArg};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::stdio::{STDIN, is_dash, small_stdin};
use crate::terminal::{Terminal, table};

/// Texts, vocabularies, recipes and token lists are small; anything larger is a mistake.
const SMALL_FILE: u64 = 64 << 20;

/// How the user wants input files to be read.
pub(crate) fn open_options(global: &Global) -> OpenOptions {
    OpenOptions { backend: if global.mmap { Backend::Mmap } else { Backend::Pread }, ..OpenOptions::default() }
}

/// A file as tables call it.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Several files as tables call them: by their names, and where different files have the same one, with as many of their folders as tell
/// them apart.
pub(crate) fn names_apart(paths: &[&Path]) -> Vec<String> {
    let parts = |path: &Path| -> Vec<String> {
        let parts = path.components().filter(|part| !matches!(part, std::path::Component::CurDir));
        parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = paths.iter().map(|path| parts(path)).collect();
    let end = |parts: &[String], count: usize| parts[parts.len().saturating_sub(count)..].join("/");
    let name = |(own, path): (&Vec<String>, &&Path)| {
        let alike = |count: &usize| all.iter().any(|other| other != own && end(other, *count) == end(own, *count));
        match (1..=own.len()).find(|count| !alike(count)) {
            Some(1) => name_of(path),
            Some(count) => end(own, count),
            // The end of another one's path.
            None => path.to_string_lossy().into_owned(),
        }
    };
    all.iter().zip(paths).map(name).collect()
}

/// What `--kernel` names.
pub(crate) fn kernel(name: &str) -> Kernel {
    if name == Kernel::Engine.name() { Kernel::Engine } else { Kernel::Reference }
}

/// Reads a model's files, for the checksums that they carry.
pub(crate) fn check_integrity(model: &OpenModel, terminal: &Terminal) -> Result<(), Failure> {
    let (progress, bytes) = (Progress::new(terminal, "checking", Unit::Bytes), model.source_bytes()?);
    model.source().check_integrity(&|read| progress.add(read, bytes))?;
    Ok(())
}

/// What a comparison is at, in words.
pub(crate) fn stage(name: &str) -> &'static str {
    if name == "head" { "the head" } else { "the layers" }
}

/// A path inside of a sentence: on one line, whatever it holds.
pub(crate) fn shown(path: &Path) -> String {
    sink::word(&path.display().to_string()).into_owned()
}

/// Reads a file that is no model.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, Failure> {
    if is_dash(path) {
        return Ok(small_stdin(SMALL_FILE)?.to_vec());
    }
    let file = InputFile::open(path)?;
    let bytes = file.read_vec(0, file.len(), SMALL_FILE)?;
    match rwkv_forge_io::lfs_pointer(&bytes) {
        Some(what) => Err(Failure::refused("LfsPointer", format!("{}: this is {what}", path.display()))),
        None => Ok(bytes),
    }
}

/// As [`read_small`], for text.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_small(path)?)
        .map_err(|error| Failure::refused("NotUtf8", format!("{} is not UTF-8 text: {error}", called(path).display())))
}

/// What a text is called in messages and records: its path, or what `-` is.
pub(crate) fn called(path: &Path) -> &Path {
    if is_dash(path) { Path::new(STDIN) } else { path }
}

/// Refuses a model that makes no logits, for commands that do nothing without, before anything is read for them.
pub(crate) fn needs_head(model: &OpenModel) -> Result<(), Failure> {
    model.model.spec("head.weight")?;
    Ok(())
}

/// A word as it is typed into a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c)) && !word.is_empty();
    if is_plain { word.to_owned() } else { format!("'{}'", sink::word(&word.replace('\'', "'\\''"))) }
}

/// A path as it is typed into a shell.
pub(crate) fn shell_path(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

/// The options of a command about its model that the next command needs as well, each after a blank. `named` is how a path is typed.
pub(crate) fn options_again(source: &SourceArgs, vocabulary: &VocabularyArg, named: impl Fn(&Path) -> String) -> String {
    let keys = source.key.keys.iter().map(|key| format!(" --key {}", shell_word(key)));
    let vocabulary = vocabulary.vocab.iter().map(|path| format!(" --vocab {}", named(path)));
    let holes = source.allow_zero_tensors.then(|| " --allow-zero-tensors".to_owned());
    keys.chain(vocabulary).chain(holes).collect()
}

const WORLD: &str = "world";
/// The vocabularies that have names instead of files.
pub(crate) const VOCABULARIES: [&str; 2] = [WORLD, "bytes"];

/// Which of them a value of `--vocab` is: in letters of either case, where no file is called so.
pub(crate) fn vocabulary_name(value: &Path) -> Option<&'static str> {
    let typed = value.to_str()?;
    let known = VOCABULARIES.into_iter().find(|known| known.eq_ignore_ascii_case(typed))?;
    (known == typed || !value.exists()).then_some(known)
}

/// The vocabulary that `--vocab` names.
pub(crate) fn vocabulary(arg: &VocabularyArg) -> Result<Vocabulary, Failure> {
    let Some(path) = &arg.vocab else { return Ok(Vocabulary::Auto) };
    match vocabulary_name(path) {
        Some(WORLD) => Ok(Vocabulary::World),
        Some(_) => Ok(Vocabulary::Bytes),
        None => {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            Ok(Vocabulary::File(name, read_small(path)?))
        }
    }
}

/// The tokenizer with which a text is read for a model of `rows` rows. `what` needs it. A vocabulary that is too small for the model is
/// no error where no file will carry it, but worth a note.
pub(crate) fn tokenizer(model: &OpenModel, choice: &Vocabulary, what: &str, terminal: &Terminal) -> Result<Tokenizer, BoxError> {
    let tokenizer = rwkv_forge_convert::vocabulary_for(model, choice, what)?;
    for note in tokenizer.notes() {
        terminal.aside(note);
    }
    if let Some(shortfall) = rwkv_forge_convert::shortfall(&tokenizer, model.description().hyperparameters.vocabulary) {
        terminal.note(&shortfall.to_string());
    }
    Ok(tokenizer)
}

/// The tokenizer for a command that can do with the built-in text's bytes as token ids: `None` when nobody knows the vocabulary. A text
/// of the user's is not to be taken for numbers.
pub(crate) fn tokenizer_or_bytes(
    model: &OpenModel,
    choice: &Vocabulary,
    has_text: bool,
    terminal: &Terminal,
) -> Result<Option<Tokenizer>, BoxError> {
    if !has_text && rwkv_forge_convert::vocabulary_of(model, choice)?.is_none() {
        terminal.note(BYTES_AS_IDS);
        return Ok(None);
    }
    tokenizer(model, choice, "reading the text", terminal).map(Some)
}

/// What is said when there is no vocabulary to read a text with: nobody knows it, or it is Qwen's.
pub(crate) const BYTES_AS_IDS: &str =
    "the text's bytes serve as token ids, since there is no vocabulary to read it with: whether the model predicts text is not checked";

/// Thresholds as the comparison wants them.
pub(crate) fn thresholds(args: &Thresholds, default_max_kl: Option<f64>) -> rwkv_forge_eval::Thresholds {
    rwkv_forge_eval::Thresholds {
        max_kl: args.max_kl.or(default_max_kl),
        min_top1: args.min_top1,
        max_abs: args.max_abs,
        max_perplexity_ratio: args.max_ppl_ratio,
        ..rwkv_forge_eval::Thresholds::default()
    }
}

/// One line about a model.
pub(crate) fn model_line(description: &ModelDescription) -> String {
    let h = &description.hyperparameters;
    let heads = if h.heads > 0 { format!(", {} heads of {}", h.heads, h.head_size) } else { String::new() };
    format!(
        "{}: {} layers, {} channels{heads}, ffn {}, vocabulary {}{}, {} parameters",
        description.version,
        h.layers,
        h.channels,
        h.ffn,
        h.vocabulary,
        if description.has_head() { "" } else { ", no head" },
        crate::terminal::thousands(description.parameters())
    )
}

/// The comparison as a table for people.
pub(crate) fn agreement_table(agreement: &Agreement) -> Result<String, Failure> {
    let a = agreement;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    if a.of_residual_stream {
        return residual_table(a);
    }
    let mut rows = vec![
        row("positions compared", a.positions.to_string()),
        row("logits bit-identical", if a.identical { "yes" } else { "no" }.to_owned()),
        row("largest difference", format!("{} (position {}, token {})", number(a.max_abs.value), a.max_abs.position, a.max_abs.token)),
        row("rms(difference) / rms(reference)", number(a.rms_ratio)),
        row("same top-1 token", format!("{:.2} % ({} of {})", a.top1.fraction * 100.0, a.top1.agree, a.top1.count)),
        row("KL divergence, mean", format!("{} nats", number(a.kl.mean))),
        row("KL divergence, 95 % interval", interval(&a.kl)),
        row("KL divergence, median / 99 % / max", format!("{} / {} / {}", number(a.kl.median), number(a.kl.p99), number(a.kl.max))),
    ];
    if let Some(p) = &a.perplexity {
        rows.push(row("perplexity on this text", format!("{:.4} -> {:.4} (ratio {:.5})", p.reference, p.candidate, p.ratio)));
    }
    if let Some(position) = a.first_divergence {
        rows.push(row("first differing top-1", format!("position {position}")));
    }
    rows.extend(worst_layer(a, "output", |layer| layer.residual.as_ref()));
    rows.extend(worst_layer(a, "state", |layer| layer.state.as_ref()));
    table(&["agreement with the source", ""], rows, &[])
}

/// The comparison of models without a head.
fn residual_table(a: &Agreement) -> Result<String, Failure> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let place = format!("(position {}, channel {})", a.max_abs.position, a.max_abs.token);
    let mut rows = vec![
        row("compared, since there is no head", "the residual stream after the last norm".to_owned()),
        row("positions compared", a.positions.to_string()),
        row("residual stream bit-identical", if a.identical { "yes" } else { "no" }.to_owned()),
        row("largest difference", format!("{} {place}", number(a.max_abs.value))),
        row("rms(difference) / rms(reference)", number(a.rms_ratio)),
        row("KL divergence of its softmax, mean", format!("{} nats", number(a.kl.mean))),
    ];
    rows.extend(worst_layer(a, "output", |layer| layer.residual.as_ref()));
    rows.extend(worst_layer(a, "state", |layer| layer.state.as_ref()));
    table(&["agreement with the source", ""], rows, &[])
}

/// Both ends of an interval, or why there is none.
fn interval(kl: &KlSummary) -> String {
    match (kl.interval, kl.no_interval) {
        (Some([low, high]), _) => format!("{} to {}", number(low), number(high)),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "none".to_owned(),
    }
}

/// The layer that differs most in one respect, as a row.
fn worst_layer(agreement: &Agreement, what: &str, of: impl Fn(&LayerAgreement) -> Option<&Difference>) -> Option<Vec<String>> {
    let differences = agreement.layers.iter().filter_map(|layer| Some((layer.layer, of(layer)?)));
    let (layer, worst) = differences.max_by(|x, y| x.1.rms_ratio.total_cmp(&y.1.rms_ratio))?;
    Some(vec![format!("worst layer, rms ratio of its {what}"), format!("{} (layer {layer})", number(worst.rms_ratio))])
}

/// A measured number: four significant digits.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if (1e-3..1e4).contains(&value.abs()) {
        let decimals = [1000.0, 100.0, 10.0, 1.0, 0.1, 0.01].iter().take_while(|limit| value.abs() < **limit).count();
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        let of = |paths: &[&str]| names_apart(&paths.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(of(&["x/a.gguf", "y/b.gguf"]), ["a.gguf", "b.gguf"]);
        assert_eq!(of(&["a.gguf", "odd/same/a.gguf", "b.gguf"]), ["a.gguf", "same/a.gguf", "b.gguf"]);
        assert_eq!(of(&["/m/x/1/a.gguf", "/m/y/1/a.gguf"]), ["x/1/a.gguf", "y/1/a.gguf"]);
        // The same file twice is the same.
        assert_eq!(of(&["./a.gguf", "a.gguf"]), ["a.gguf", "a.gguf"]);
    }
}
