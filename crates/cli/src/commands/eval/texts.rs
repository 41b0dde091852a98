//! From files to a schedule: texts or pairs, their tokens, and whether calibration has seen them.

use std::collections::BTreeSet;
use std::ops::Range;

use rayon::prelude::*;
use rwkv_forge_choose::Unit;
use rwkv_forge_corpus::{Collection, CollectionDigest, Limits, OnDocument, Overlap, ReadOptions};
use rwkv_forge_eval::TokenWriter;
use rwkv_forge_score::{Document, Pair, Protocol, Schedule, Tokens};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::calibration::collections;
use super::super::{called, read_small};
use crate::args::EvalTexts;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::stdio::{STDIN, is_dash, small_stdin, stdin};
use crate::terminal::Terminal;

/// What is scored, tokenized and scheduled.
pub(crate) struct Texts {
    /// Where it came from.
    pub sources: Vec<Source>,
    /// All of it.
    pub schedule: Schedule,
    /// The same in parts that are measured one after the other; their scores in order are those of `schedule`.
    pub parts: Vec<Schedule>,
    /// What it repeats of the calibration text, if there is one.
    pub leak: Option<Leak>,
}

/// One file or data set.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Source {
    /// Name of the data set.
    pub name: String,
    /// Where it lies.
    pub path: String,
    /// Digest over names, categories and texts.
    pub sha256: String,
    /// Bytes of text.
    pub bytes: u64,
    /// Texts.
    pub documents: usize,
    /// Tokens of all texts.
    pub tokens: u64,
}

/// What the evaluation text repeats of the calibration text.
pub(crate) struct Leak {
    overlap: Overlap,
}

impl Texts {
    /// Reads, tokenizes and schedules by a protocol, which pairs have of their own. Of the texts, some megabytes or one text are in memory at a time, or all of them where they are
    /// compared with a calibration text; tokens that would take more than a quarter of `max_memory` bytes are in a temporary file.
    pub(crate) fn read(
        args: &EvalTexts,
        protocol: Protocol,
        tokenizer: &Tokenizer,
        max_memory: u64,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        if let Some(path) = &args.pairs {
            return Self::pairs(args, path, tokenizer, terminal);
        }
        let _shown = Progress::new(terminal, "reading the text", Unit::Steps);
        let by_set = matches!(protocol, Protocol::Uncheatable | Protocol::Uncheatable2024);
        let mut reading = Reading {
            tokenizer,
            writer: TokenWriter::new(max_memory / 4, None),
            // The tool drops one newline at the end of the file.
            drop_newline: matches!(protocol, Protocol::Llama { .. }),
            keep_texts: !args.calibration.is_empty(),
            texts: Vec::new(),
            waiting: Vec::new(),
            bytes: 0,
            sets: Vec::new(),
            digests: Vec::new(),
        };
        let collections = reading.all(args, terminal)?;
        let leak = leak(args, &reading.texts, terminal)?;
        let Reading { writer, sets, digests, .. } = reading;
        let tokens = writer.finish()?;
        let (sources, sets) = documents(&collections, sets, digests, &tokens, by_set);
        let bytes = |id: u32| tokenizer.token_bytes(id).map(<[u8]>::len);
        let schedule = protocol.schedule(&sets.concat(), &bytes)?;
        let parts = if by_set {
            // A data set without a scored token has no part.
            let filled = sets.iter().filter(|set| set.iter().any(|document| document.tokens.len() > 1));
            filled.map(|set| protocol.schedule(set, &bytes)).collect::<Result<_, _>>()?
        } else {
            vec![schedule.clone()]
        };
        Ok(Self { sources, schedule, parts, leak })
    }

    fn pairs(args: &EvalTexts, path: &std::path::Path, tokenizer: &Tokenizer, terminal: &Terminal) -> Result<Self, Failure> {
        let limits = Limits::default();
        let pairs = if is_dash(path) {
            rwkv_forge_corpus::pairs_of(small_stdin(limits.file_bytes)?, STDIN, &limits)?
        } else {
            rwkv_forge_corpus::read_pairs(path, &limits)?
        };
        let texts = pairs.iter().map(|pair| rwkv_forge_corpus::Document {
            name: pair.id.clone(),
            category: None,
            text: format!("{}{}", pair.context, pair.continuation).into_bytes(),
        });
        let bytes = read_small(path)?;
        let path = called(path);
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let collection = Collection { name: name.clone(), path: path.to_path_buf(), documents: texts.collect(), notes: Vec::new() };
        let leak = leak(args, &collection.documents, terminal)?;
        let tokenized = pairs.par_iter().map(|pair| {
            Ok(Pair {
                name: pair.id.clone(),
                category: String::new(),
                context: tokenizer.encode(pair.context.as_bytes())?,
                continuation: tokenizer.encode(pair.continuation.as_bytes())?,
                bytes: pair.continuation.len() as u64,
            })
        });
        let tokenized = tokenized.collect::<Result<Vec<_>, Failure>>()?;
        let sha256 = rwkv_forge_io::sha256_hex(&bytes);
        let schedule = Protocol::pairs(&tokenized, &|id| tokenizer.token_bytes(id).map(<[u8]>::len))?;
        let source = Source {
            name,
            path: path.display().to_string(),
            sha256,
            bytes: tokenized.iter().map(|pair| pair.bytes).sum(),
            documents: pairs.len(),
            tokens: tokenized.iter().map(|pair| pair.continuation.len() as u64).sum(),
        };
        Ok(Self { sources: vec![source], parts: vec![schedule.clone()], schedule, leak })
    }
}

/// Texts on their way from files to tokens: some at a time are in memory.
struct Reading<'t> {
    tokenizer: &'t Tokenizer,
    writer: TokenWriter,
    drop_newline: bool,
    /// Whether texts are kept for a comparison with the calibration's.
    keep_texts: bool,
    texts: Vec<rwkv_forge_corpus::Document>,
    /// Texts that are not tokenized yet, the last ones of all sets, and their bytes.
    waiting: Vec<Vec<u8>>,
    bytes: usize,
    /// By collection.
    sets: Vec<Vec<Tokenized>>,
    digests: Vec<Option<CollectionDigest>>,
}

/// What is kept of a text: its name and category, its length in bytes, and where its tokens are.
struct Tokenized {
    name: String,
    category: Option<String>,
    bytes: u64,
    range: Range<u64>,
}

/// Bytes of text that are tokenized together; a longer text is by itself.
const AT_ONCE: usize = 4 << 20;
/// Tokens of a long text that are handed on together.
const TOKENS_AT_ONCE: usize = 1 << 16;

impl Reading<'_> {
    /// Reads and tokenizes all that is asked for.
    fn all(&mut self, args: &EvalTexts, terminal: &Terminal) -> Result<Vec<Collection>, Failure> {
        let options = ReadOptions { bytes_per_file: args.bytes.map(std::num::NonZeroU64::get), ..ReadOptions::default() };
        let mut out = Vec::new();
        for path in &args.paths {
            let before = out.len();
            let receive: OnDocument<'_> = &mut |number, name, text| self.take(before + number, name, text);
            out.extend(if is_dash(path) {
                let wanted = options.bytes_per_file.unwrap_or(options.limits.file_bytes);
                rwkv_forge_corpus::read_stream(&mut stdin(wanted.saturating_add(1))?, STDIN, &options, receive)?
            } else {
                rwkv_forge_corpus::read_each(path, &options, receive)?
            });
        }
        if args.paths.is_empty() {
            let mut collection = cut(rwkv_forge_corpus::builtin(), options.bytes_per_file);
            let texts = std::mem::take(&mut collection.documents);
            texts.into_iter().try_for_each(|text| self.take(0, &collection.name, text))?;
            out.push(collection);
        }
        self.flush()?;
        // Those without any text too.
        self.sets.resize_with(out.len(), Vec::new);
        self.digests.resize_with(out.len(), || None);
        for note in out.iter().flat_map(|collection| &collection.notes) {
            terminal.note(note);
        }
        Ok(out)
    }

    /// Takes the next text, which belongs to collection number `number`.
    fn take(&mut self, number: usize, name: &str, mut document: rwkv_forge_corpus::Document) -> Result<(), BoxError> {
        if self.keep_texts {
            self.texts.push(document.clone());
        }
        if self.drop_newline && document.text.last() == Some(&b'\n') {
            document.text.pop();
        }
        if self.sets.len() <= number {
            self.sets.resize_with(number + 1, Vec::new);
            self.digests.resize_with(number + 1, || None);
        }
        self.digests[number].get_or_insert_with(|| CollectionDigest::new(name)).add(&document);
        let text = document.text;
        if self.bytes + text.len() > AT_ONCE {
            self.flush()?;
        }
        self.sets[number].push(Tokenized { name: document.name, category: document.category, bytes: text.len() as u64, range: 0..0 });
        self.bytes += text.len();
        self.waiting.push(text);
        Ok(())
    }

    /// Tokenizes what waits.
    fn flush(&mut self) -> Result<(), BoxError> {
        let mut ranges = Vec::new();
        let start = self.writer.len();
        if let [long] = self.waiting.as_slice() {
            one_text(long, self.tokenizer, &mut self.writer)?;
            ranges.push(start..self.writer.len());
        } else {
            let found: Vec<_> = self.waiting.par_iter().map(|text| self.tokenizer.encode(text)).collect();
            for tokens in found {
                let start = self.writer.len();
                self.writer.push(&tokens?)?;
                ranges.push(start..self.writer.len());
            }
        }
        let last = self.sets.iter_mut().flatten().rev();
        last.zip(ranges.into_iter().rev()).for_each(|(text, range)| text.range = range);
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Tokenizes a text whose tokens together may take far more than the text.
fn one_text(text: &[u8], tokenizer: &Tokenizer, writer: &mut TokenWriter) -> Result<(), BoxError> {
    let mut waiting = Vec::with_capacity(text.len().min(TOKENS_AT_ONCE));
    let mut failed = None;
    tokenizer.encode_each(text, |id| {
        waiting.push(id);
        if waiting.len() == TOKENS_AT_ONCE {
            failed = failed.take().or(writer.push(&waiting).err());
            waiting.clear();
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(writer.push(&waiting)?),
    }
}

/// Where the texts came from, and their tokens; with `by_set` their category is their data set.
fn documents(
    collections: &[Collection],
    sets: Vec<Vec<Tokenized>>,
    digests: Vec<Option<CollectionDigest>>,
    tokens: &Tokens,
    by_set: bool,
) -> (Vec<Source>, Vec<Vec<Document>>) {
    let many_sets = collections.len() > 1 && sets.iter().any(|set| set.len() > 1);
    let repeated = repeated_names(&sets);
    let index = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
    let (mut sources, mut out) = (Vec::new(), Vec::new());
    for ((collection, set), digest) in collections.iter().zip(sets).zip(digests) {
        let own = if by_set || many_sets { collection.name.as_str() } else { "" };
        let one = |Tokenized { name, category, bytes, range }: Tokenized| {
            let name = if repeated.contains(&name) { format!("{}: {name}", collection.path.display()) } else { name };
            let category = category.filter(|_| !by_set).unwrap_or_else(|| own.to_owned());
            Document { name, category, bytes, tokens: tokens.slice(index(range.start)..index(range.end)) }
        };
        let set: Vec<Document> = set.into_iter().map(one).collect();
        sources.push(Source {
            name: collection.name.clone(),
            path: collection.path.display().to_string(),
            sha256: digest.unwrap_or_else(|| CollectionDigest::new(&collection.name)).finish(),
            bytes: set.iter().map(|document| document.bytes).sum(),
            documents: set.len(),
            tokens: set.iter().map(|document| document.tokens.len() as u64).sum(),
        });
        out.push(set);
    }
    (sources, out)
}

/// The first bytes of a collection. The built-in text is ASCII, so that any byte is a boundary.
fn cut(mut collection: Collection, bytes: Option<u64>) -> Collection {
    let mut left = bytes.unwrap_or(u64::MAX);
    for document in &mut collection.documents {
        document.text.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left = left.saturating_sub(document.text.len() as u64);
    }
    collection.documents.retain(|document| !document.text.is_empty());
    collection
}

/// Names that several collections have for a text.
fn repeated_names(sets: &[Vec<Tokenized>]) -> BTreeSet<String> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for text in sets.iter().flatten() {
        if !seen.insert(&text.name) {
            repeated.insert(text.name.clone());
        }
    }
    repeated
}

/// Looks for the calibration text in the evaluation text; a leak is refused unless it is allowed.
fn leak(args: &EvalTexts, evaluation: &[rwkv_forge_corpus::Document], terminal: &Terminal) -> Result<Option<Leak>, Failure> {
    if args.calibration.is_empty() {
        return Ok(None);
    }
    let calibration = collections(&args.calibration)?;
    let overlap = {
        let calibration: Vec<_> = calibration.iter().flat_map(|collection| &collection.documents).collect();
        rwkv_forge_corpus::overlap(&calibration, &evaluation.iter().collect::<Vec<_>>())
    };
    let leak = Leak { overlap };
    if leak.overlap.leaks() {
        if !args.allow_leak {
            let advice = "figures from it would be too good; take other text, or --allow-leak for figures that nobody sees";
            return Err(Failure::refused("CalibrationLeak", format!("{}; {advice}", leak.sentence())));
        }
        terminal.note(&format!("{}; figures from it are too good to be published", leak.sentence()));
    }
    Ok(Some(leak))
}

impl Leak {
    /// What is shared, in one sentence without its stop.
    pub(crate) fn sentence(&self) -> String {
        let Overlap { grams_evaluation, grams_shared, share, documents } = &self.overlap;
        let percent = share * 100.0;
        let words = rwkv_forge_corpus::GRAM_WORDS;
        let mut text = format!(
            "the text repeats {grams_shared} of its {grams_evaluation} runs of {words} words ({percent:.3} %) from the calibration text"
        );
        let worst = documents.iter().max_by_key(|document| document.longest).filter(|document| document.longest > 0);
        if let Some(worst) = worst {
            text.push_str(&format!(", at most {} words in a row in {}", worst.longest, worst.name));
            if let Some(passage) = worst.passages.first() {
                text.push_str(&format!(" (\"{}\")", passage.excerpt));
            }
        }
        text
    }

    pub(crate) fn to_json(&self) -> Value {
        let leaking = self.overlap.documents.iter().filter(|document| document.shared > 0);
        json!({
            "gram_words": rwkv_forge_corpus::GRAM_WORDS,
            "grams": self.overlap.grams_evaluation,
            "shared": self.overlap.grams_shared,
            "share": self.overlap.share,
            "leaks": self.overlap.leaks(),
            "documents": leaking.map(|document| json!({
                "name": document.name, "grams": document.grams, "shared": document.shared, "share": document.share,
                "longest_words": document.longest,
                "passages": document.passages.iter().map(|passage| json!({
                    "offset": passage.offset, "words": passage.words, "excerpt": passage.excerpt,
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}
