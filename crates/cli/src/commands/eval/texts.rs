//! From files to a plan: texts or pairs, their tokens, and whether calibration has seen them.

use std::collections::BTreeSet;
use std::ops::Range;

use forge_corpus::{Collection, Limits, Overlap, ReadOptions};
use forge_eval::TokenWriter;
use forge_score::{Document, Pair, Plan, Protocol};
use forge_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::read_small;
use crate::args::EvalTexts;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// What is scored, tokenized and planned.
pub(crate) struct Texts {
    /// Where it came from.
    pub sources: Vec<Source>,
    /// All of it.
    pub plan: Plan,
    /// The same in parts that are measured one after the other; their scores in order are those of `plan`.
    pub parts: Vec<Plan>,
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
    /// Reads, tokenizes and plans. Tokens that would take more than a quarter of `max_memory` bytes are in a temporary file; the text itself
    /// is in memory until it is tokenized.
    pub(crate) fn read(args: &EvalTexts, tokenizer: &Tokenizer, max_memory: u64, terminal: &Terminal) -> Result<Self, Failure> {
        if let Some(path) = &args.pairs {
            return Self::pairs(args, path, tokenizer, terminal);
        }
        let protocol = Protocol::by_name(&args.protocol, args.context.map(std::num::NonZeroUsize::get))?;
        let mut collections = collections(args, terminal)?;
        let leak = leak(args, &collections, terminal)?;
        if matches!(protocol, Protocol::Llama { .. }) {
            // The tool drops one newline at the end of the file.
            let texts = collections.iter_mut().flat_map(|collection| &mut collection.documents).map(|document| &mut document.text);
            texts.filter(|text| text.last() == Some(&b'\n')).for_each(|text| text.truncate(text.len() - 1));
        }
        let by_set = matches!(protocol, Protocol::Uncheatable | Protocol::Uncheatable2024);
        let many_sets = collections.len() > 1 && collections.iter().any(|collection| collection.documents.len() > 1);
        let repeated = repeated_names(&collections);
        let (mut sources, mut sets) = (Vec::new(), Vec::new());
        let mut writer = TokenWriter::new(max_memory / 4, None);
        for collection in collections {
            let own = if by_set || many_sets { collection.name.as_str() } else { "" };
            let mut documents: Vec<Tokenized> =
                collection.documents.iter().map(|document| Tokenized::new(document, &collection, own, by_set, &repeated)).collect();
            let mut source = Source {
                name: collection.name.clone(),
                path: collection.path.display().to_string(),
                sha256: collection.digest(),
                bytes: collection.bytes(),
                documents: documents.len(),
                tokens: writer.len(),
            };
            tokenize(collection.documents, tokenizer, &mut documents, &mut writer)?;
            source.tokens = writer.len() - source.tokens;
            sources.push(source);
            sets.push(documents);
        }
        let tokens = writer.finish()?;
        let place = |range: &Range<u64>| tokens.slice(index(range.start)..index(range.end));
        let document = |Tokenized { name, category, bytes, range }: Tokenized| Document { name, category, bytes, tokens: place(&range) };
        let sets: Vec<Vec<Document>> = sets.into_iter().map(|set| set.into_iter().map(document).collect()).collect();
        let bytes = |id: u32| tokenizer.token_bytes(id).map(<[u8]>::len);
        let plan = protocol.plan(&sets.concat(), &bytes)?;
        let parts = if by_set {
            // A data set without a scored token has no part.
            let filled = sets.iter().filter(|set| set.iter().any(|document| document.tokens.len() > 1));
            filled.map(|set| protocol.plan(set, &bytes)).collect::<Result<_, _>>()?
        } else {
            vec![plan.clone()]
        };
        Ok(Self { sources, plan, parts, leak })
    }

    fn pairs(args: &EvalTexts, path: &std::path::Path, tokenizer: &Tokenizer, terminal: &Terminal) -> Result<Self, Failure> {
        let pairs = forge_corpus::read_pairs(path, &Limits::default())?;
        let texts = pairs.iter().map(|pair| forge_corpus::Document {
            name: pair.id.clone(),
            category: None,
            text: format!("{}{}", pair.context, pair.continuation).into_bytes(),
        });
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let collection = Collection { name: name.clone(), path: path.to_path_buf(), documents: texts.collect(), notes: Vec::new() };
        let leak = leak(args, std::slice::from_ref(&collection), terminal)?;
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
        let plan = Protocol::pairs(&tokenized, &|id| tokenizer.token_bytes(id).map(<[u8]>::len))?;
        let source = Source {
            name,
            path: path.display().to_string(),
            sha256: forge_io::sha256_hex(&read_small(path)?),
            bytes: tokenized.iter().map(|pair| pair.bytes).sum(),
            documents: pairs.len(),
            tokens: tokenized.iter().map(|pair| pair.continuation.len() as u64).sum(),
        };
        Ok(Self { sources: vec![source], parts: vec![plan.clone()], plan, leak })
    }
}

/// The texts that are asked for.
fn collections(args: &EvalTexts, terminal: &Terminal) -> Result<Vec<Collection>, Failure> {
    let options = ReadOptions { bytes_per_file: args.bytes.map(std::num::NonZeroU64::get), ..ReadOptions::default() };
    let mut out = Vec::new();
    for path in &args.paths {
        out.extend(forge_corpus::read(path, &options)?);
    }
    if args.paths.is_empty() {
        out.push(cut(forge_corpus::builtin(), options.bytes_per_file));
    }
    for note in out.iter().flat_map(|collection| &collection.notes) {
        terminal.note(note);
    }
    Ok(out)
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
fn repeated_names(collections: &[Collection]) -> BTreeSet<String> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for document in collections.iter().flat_map(|collection| &collection.documents) {
        if !seen.insert(&document.name) {
            repeated.insert(document.name.clone());
        }
    }
    repeated
}

/// What is kept of a text: its name and category, its length in bytes, and where its tokens are.
struct Tokenized {
    name: String,
    category: String,
    bytes: u64,
    range: Range<u64>,
}

impl Tokenized {
    /// Before it is tokenized. `own` is the category of texts that have none; with `by_set`, of all.
    fn new(document: &forge_corpus::Document, collection: &Collection, own: &str, by_set: bool, repeated: &BTreeSet<String>) -> Self {
        let name = if repeated.contains(&document.name) {
            format!("{}: {}", collection.path.display(), document.name)
        } else {
            document.name.clone()
        };
        let category = document.category.as_deref().filter(|_| !by_set).unwrap_or(own).to_owned();
        Self { name, category, bytes: document.text.len() as u64, range: 0..0 }
    }
}

/// Bytes of text that are tokenized at a time, in parallel where they are several texts; and tokens of a longer text.
const AT_ONCE: usize = 4 << 20;
const TOKENS_AT_ONCE: usize = 1 << 16;

/// Tokenizes texts in order; each is dropped once it is done.
fn tokenize(
    texts: Vec<forge_corpus::Document>,
    tokenizer: &Tokenizer,
    tokenized: &mut [Tokenized],
    writer: &mut TokenWriter,
) -> Result<(), Failure> {
    let mut places = tokenized.iter_mut();
    let mut done = |range: Range<u64>| {
        if let Some(place) = places.next() {
            place.range = range;
        }
    };
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    let mut texts = texts.into_iter().peekable();
    while let Some(text) = texts.next() {
        if waiting.is_empty() && text.text.len() > AT_ONCE {
            let start = writer.len();
            one_text(&text.text, tokenizer, writer)?;
            done(start..writer.len());
            continue;
        }
        bytes += text.text.len();
        waiting.push(text);
        if texts.peek().is_some_and(|next| bytes + next.text.len() <= AT_ONCE) {
            continue;
        }
        let found: Vec<Result<Vec<u32>, Failure>> = waiting.par_iter().map(|text| Ok(tokenizer.encode(&text.text)?)).collect();
        for tokens in found {
            let start = writer.len();
            writer.push(&tokens?)?;
            done(start..writer.len());
        }
        waiting.clear();
        bytes = 0;
    }
    Ok(())
}

/// Tokenizes a long text, whose tokens together may take far more than the text.
fn one_text(text: &[u8], tokenizer: &Tokenizer, writer: &mut TokenWriter) -> Result<(), Failure> {
    let mut waiting = Vec::with_capacity(TOKENS_AT_ONCE);
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

fn index(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

fn documents(collections: &[Collection]) -> Vec<&forge_corpus::Document> {
    collections.iter().flat_map(|collection| &collection.documents).collect()
}

/// Looks for the calibration text in the evaluation text; a leak is refused unless it is allowed.
fn leak(args: &EvalTexts, evaluation: &[Collection], terminal: &Terminal) -> Result<Option<Leak>, Failure> {
    if args.calibration.is_empty() {
        return Ok(None);
    }
    let mut calibration = Vec::new();
    for path in &args.calibration {
        calibration.extend(forge_corpus::read(path, &ReadOptions::default())?);
    }
    let overlap = forge_corpus::overlap(&documents(&calibration), &documents(evaluation));
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
        let words = forge_corpus::GRAM_WORDS;
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
            "gram_words": forge_corpus::GRAM_WORDS,
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
