//! Vocabularies whose texts are divided by merging pairs of bytes: `tokenizer.json` of Hugging Face's libraries, such as the one of Pile
//! models (`20B_tokenizer.json`). What such a file may say is checked before the package `tokenizers`, which divides texts, gets to see it.
//! Start at [`read`].

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::bpe::{QWEN2_SPLIT, TokenKind};
use crate::error::TokenizerError;
use crate::marks::{Mark, Marks};
use crate::vocabulary::{MAX_ID, MAX_TOKEN_BYTES, MAX_TOKENS, Vocabulary, check_limit};
use crate::{Matching, Tokenizer, hex, json, word_level};

/// Most merges that are read.
const MAX_MERGES: usize = 1 << 20;
/// Longest regular expression that a file may divide texts by.
const MAX_PATTERN_BYTES: usize = 4096;
/// Bytes of text that are divided at once, so that what is known of each token does not take many times the text.
const PIECE: usize = 1 << 20;
/// Longest text that is divided at once, where it cannot be taken to pieces.
const MAX_WHOLE: usize = 64 << 20;
/// Names of the end of text, the usual one first.
const ENDS: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];
/// Steps before the merges that are known to keep a text, but for its spelling of composed characters.
const NORMALIZERS: [&str; 4] = ["NFC", "NFD", "NFKC", "NFKD"];
/// Steps that take a text to pieces.
/// Most steps that divide a text; published ones have two or three.
const MAX_STEPS: usize = 16;
const PRE_TOKENIZERS: [&str; 3] = ["ByteLevel", "Split", "Digits"];

/// What divides texts.
pub(crate) struct Merges {
    inner: tokenizers::Tokenizer,
    /// Whether a text may be divided between two words without a change.
    divides: bool,
    /// Bytes that no token has; the package would leave them out.
    missing: Box<[bool; 256]>,
}

impl fmt::Debug for Merges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merges").field("divides", &self.divides).finish_non_exhaustive()
    }
}

impl Merges {
    /// Hands over the tokens of a text.
    pub(crate) fn encode_each(&self, name: &str, text: &[u8], mut each: impl FnMut(u32)) -> Result<(), TokenizerError> {
        let text = std::str::from_utf8(text)
            .map_err(|error| TokenizerError::TextNotUtf8 { name: name.to_owned(), offset: error.valid_up_to() })?;
        if let Some((offset, byte)) = text.bytes().enumerate().find(|(_, byte)| self.missing.get(usize::from(*byte)) == Some(&true)) {
            return Err(TokenizerError::UncoveredByte { name: name.to_owned(), byte, offset });
        }
        let mut rest = text;
        while !rest.is_empty() {
            let end = if self.divides { between_words(rest) } else { rest.len() };
            if end > MAX_WHOLE {
                check_limit(name, "the number of bytes of a text without a space between letters", end, MAX_WHOLE)?;
            }
            let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let found = self.inner.encode_fast(piece, false).map_err(|error| bad(name, format!("it cannot divide the text: {error}")))?;
            found.get_ids().iter().for_each(|id| each(*id));
            rest = after;
        }
        Ok(())
    }
}

/// Where the first piece of a text ends: before a space between two letters, which no token of a word goes beyond.
fn between_words(text: &str) -> usize {
    let is_between = |window: &[u8]| matches!(window, [before, b' ', after] if before.is_ascii_alphabetic() && after.is_ascii_alphabetic());
    let mut places = text.as_bytes().windows(3).enumerate().skip(PIECE);
    places.find(|(_, window)| is_between(window)).map_or(text.len(), |(at, _)| at.saturating_add(1))
}

fn bad(name: &str, problem: String) -> TokenizerError {
    TokenizerError::BadTokenizerJson { name: name.to_owned(), problem }
}

/// Reads a `tokenizer.json`: one whose texts are divided by merges, or one of RWKV's own lists in that form.
pub(crate) fn read(name: &str, file: &[u8], mut value: Value) -> Result<Tokenizer, TokenizerError> {
    let model = value.get("model").ok_or_else(|| bad(name, "it has no model".to_owned()))?;
    let usual = if model.get("merges").is_some() { "BPE" } else { "missing" };
    let kind = model.get("type").and_then(Value::as_str).unwrap_or(usual);
    let count = |key: &str| {
        model.get(key).map_or(0, |list| list.as_array().map_or_else(|| list.as_object().map_or(0, serde_json::Map::len), Vec::len))
    };
    check_limit(name, "the number of tokens", count("vocab"), MAX_TOKENS)?;
    check_limit(name, "the number of merges", count("merges"), MAX_MERGES)?;
    match kind {
        "BPE" => {}
        "RwkvTrie" => return list(name, file, model, value.get("added_tokens")),
        other => {
            if let Some(read) = (other == word_level::KIND).then(|| word_level::read(name, file, &value)).flatten() {
                return read;
            }
            let expected = "expected BPE on bytes, as Pile models have it, RwkvTrie, or WordLevel with an expression that finds the longest token, as \
                 directories for Hugging Face's libraries have it from here; give the vocabulary that the model was trained with";
            return Err(bad(name, format!("its model is {}, {expected}", rwkv_forge_tensor::shorten(other))));
        }
    }
    check_model(name, model)?;
    let divides = check_steps(name, &value)?;
    // What comes after the merges is about the ends of a text, its length and its way back: none of it divides a text.
    for part in ["post_processor", "decoder", "truncation", "padding"] {
        if let Some(place) = value.get_mut(part) {
            *place = Value::Null;
        }
    }
    number_added(name, &mut value)?;
    for token in value.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        // What older files do not say.
        let is_special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        for (key, usual) in [("special", false), ("single_word", false), ("lstrip", false), ("rstrip", false), ("normalized", !is_special)]
        {
            token.entry(key).or_insert(Value::Bool(usual));
        }
    }
    let bytes = serde_json::to_vec(&value).map_err(|error| bad(name, error.to_string()))?;
    drop(value);
    let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| bad(name, error.to_string()))?;
    let parts = tables(name, &inner)?;
    let added = inner.get_added_tokens_decoder();
    let spans_words = added.values().any(|token| token.lstrip || token.rstrip || between(&token.content));
    let matching = Matching::Merges(Merges { divides: divides && !spans_words, missing: missing(&parts.vocabulary), inner }.into());
    Ok(Tokenizer {
        name: name.to_owned(),
        sha256: hex(&Sha256::digest(file)),
        vocabulary: parts.vocabulary.into(),
        matching,
        marks: parts.marks.into(),
        end_of_text: parts.end_of_text,
        notes: Vec::new().into(),
    })
}

/// The package numbers tokens that were added as it finds them in the model, and goes on counting for others: so that they have the ids that the
/// file says, all of them go into the model. No merge leads to one.
fn number_added(name: &str, value: &mut Value) -> Result<(), TokenizerError> {
    let of = |token: &Value| Some((token.get("content")?.as_str()?.to_owned(), token.get("id")?.as_u64()?));
    let added: Vec<_> = value.get("added_tokens").and_then(Value::as_array).into_iter().flatten().map(of).collect();
    check_limit(name, "the number of added tokens", added.len(), MAX_TOKENS)?;
    let vocab = value.get_mut("model").and_then(|model| model.get_mut("vocab")).and_then(Value::as_object_mut);
    let vocab = vocab.ok_or_else(|| bad(name, "its vocab is no object of tokens and ids".to_owned()))?;
    for token in added {
        let (text, id) = token.ok_or_else(|| bad(name, "an entry of added_tokens has no id or no content".to_owned()))?;
        let known = vocab.entry(text.as_str()).or_insert_with(|| id.into());
        if known.as_u64() != Some(id) {
            return Err(bad(name, format!("the added token {:?} has the ids {id} and {known}", rwkv_forge_tensor::shorten(&text))));
        }
    }
    Ok(())
}

/// Whether a text has a space between two letters.
fn between(text: &str) -> bool {
    text.as_bytes().windows(3).any(|window| matches!(window, [a, b' ', b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic()))
}

/// What a model of merges may say.
fn check_model(name: &str, model: &Value) -> Result<(), TokenizerError> {
    let is_set = |key: &str| match model.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Bool(true) | Value::Array(_) | Value::Object(_)) => true,
    };
    match ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"].into_iter().find(|key| is_set(key)) {
        Some(key) => {
            Err(bad(name, format!("its model has {key}, which no vocabulary of an RWKV model has: only plain merges of bytes are read")))
        }
        None => Ok(()),
    }
}

/// Refuses steps that are not known, and says whether those that there are take a text to pieces between its words.
fn check_steps(name: &str, value: &Value) -> Result<bool, TokenizerError> {
    let known = |kind: &str, steps: &[&Value], known: &[&str]| {
        let of = |step: &Value| step.get("type").and_then(Value::as_str).unwrap_or("without a type").to_owned();
        match steps.iter().map(|step| of(step)).find(|step| !known.contains(&step.as_str())) {
            Some(step) => {
                let step = rwkv_forge_tensor::shorten(&step);
                Err(bad(name, format!("its {kind} is {step}, and only {} are known here", known.join(", "))))
            }
            None => Ok(()),
        }
    };
    known("normalizer", &leaves(value.get("normalizer"), "normalizers"), &NORMALIZERS)?;
    let steps = leaves(value.get("pre_tokenizer"), "pretokenizers");
    known("pre_tokenizer", &steps, &PRE_TOKENIZERS)?;
    let is = |step: &Value, kind: &str| step.get("type").and_then(Value::as_str) == Some(kind);
    let flag = |step: &Value, key: &str, usual| step.get(key).and_then(Value::as_bool).unwrap_or(usual);
    let pattern = |step: &Value| {
        let pattern = step.get("pattern")?;
        pattern.get("Regex").or_else(|| pattern.get("String"))?.as_str().map(str::to_owned)
    };
    for text in steps.iter().filter_map(|step| pattern(step)) {
        check_limit(name, "the length of a pattern of its pre_tokenizer", text.len(), MAX_PATTERN_BYTES)?;
    }
    if steps.iter().any(|step| step.get("behavior").and_then(Value::as_str) == Some("Removed")) {
        return Err(bad(
            name,
            "its pre_tokenizer removes what it finds (behavior Removed), so that parts of a text would be lost".to_owned(),
        ));
    }
    // Each makes two letters of every byte beyond ASCII, and those of the one before are.
    if steps.iter().filter(|step| is(step, "ByteLevel")).count() > 1 {
        return Err(bad(
            name,
            "its pre_tokenizer has the step ByteLevel more than once, which turns bytes that are turned already".to_owned(),
        ));
    }
    check_limit(name, "the number of steps of its pre_tokenizer", steps.len(), MAX_STEPS)?;
    if !steps.iter().any(|step| is(step, "ByteLevel")) {
        return Err(bad(name, "its pre_tokenizer has no step ByteLevel, so that its tokens are no bytes".to_owned()));
    }
    let by_words = |step: &&Value| {
        if is(step, "ByteLevel") { flag(step, "use_regex", true) } else { pattern(step).as_deref() == Some(QWEN2_SPLIT) }
    };
    let begins_with_space = |step: &&Value| is(step, "ByteLevel") && flag(step, "add_prefix_space", true);
    Ok(steps.iter().copied().any(|step| by_words(&step)) && !steps.iter().copied().any(|step| begins_with_space(&step)))
}

/// The steps of a description, which nests them in sequences. How deep JSON may nest is bounded by its reader.
fn leaves<'v>(value: Option<&'v Value>, inner: &str) -> Vec<&'v Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(step) if step.get("type").and_then(Value::as_str) == Some("Sequence") => {
            step.get(inner).and_then(Value::as_array).into_iter().flatten().flat_map(|step| leaves(Some(step), inner)).collect()
        }
        Some(step) => vec![step],
    }
}

struct Tables {
    vocabulary: Vocabulary,
    marks: Marks,
    end_of_text: Option<u32>,
}

/// The tokens as the package numbers them, their bytes, and those that were added to them.
fn tables(name: &str, inner: &tokenizers::Tokenizer) -> Result<Tables, TokenizerError> {
    let added = inner.get_added_tokens_decoder();
    let end_of_text = ENDS.iter().find_map(|text| Some(*added.iter().find(|(_, token)| token.special && token.content == *text)?.0));
    let mut tokens: Vec<(u32, String)> = inner.get_vocab(true).into_iter().map(|(text, id)| (id, text)).collect();
    tokens.sort_unstable();
    check_limit(name, "the number of tokens", tokens.len(), MAX_TOKENS)?;
    let (mut vocabulary, mut marks) = (Vocabulary::default(), BTreeMap::new());
    let mut previous = None;
    for (id, text) in tokens {
        if previous == Some(id) || id > MAX_ID {
            return Err(bad(
                name,
                format!("token {:?} has id {id}, which is another token's or beyond {MAX_ID}", rwkv_forge_tensor::shorten(&text)),
            ));
        }
        previous = Some(id);
        match added.get(&id) {
            Some(token) => {
                check_limit(name, &format!("the number of bytes of token {id}"), text.len(), MAX_TOKEN_BYTES)?;
                let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
                marks.insert(id, Mark { text, kind });
            }
            None => {
                let bytes = json::byte_level(&text);
                let bytes = bytes
                    .ok_or_else(|| bad(name, format!("token {id} is not spelled in bytes: {:?}", rwkv_forge_tensor::shorten(&text))))?;
                check_limit(name, &format!("the number of bytes of token {id}"), bytes.len(), MAX_TOKEN_BYTES)?;
                vocabulary.push(id, &bytes);
            }
        }
    }
    if vocabulary.len() == 0 {
        return Err(TokenizerError::Empty { name: name.to_owned() });
    }
    Ok(Tables { vocabulary, marks: Marks::new(name, marks)?, end_of_text })
}

/// The bytes that no token is, of those that occur in UTF-8.
fn missing(vocabulary: &Vocabulary) -> Box<[bool; 256]> {
    let mut missing = Box::new([true; 256]);
    for (_, bytes) in vocabulary.tokens() {
        if let [byte] = bytes
            && let Some(place) = missing.get_mut(usize::from(*byte))
        {
            *place = false;
        }
    }
    missing
}

/// RWKV's own list, as the libraries with a class for it have it: tokens spelled in the alphabet of bytes.
fn list(name: &str, file: &[u8], model: &Value, added: Option<&Value>) -> Result<Tokenizer, TokenizerError> {
    let entries =
        model.get("vocab").and_then(Value::as_object).ok_or_else(|| bad(name, "its vocab is no object of tokens and ids".to_owned()))?;
    let (mut tokens, mut marks) = (Vec::with_capacity(entries.len()), BTreeMap::new());
    for (text, id) in entries {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID);
        let id = id.ok_or_else(|| bad(name, format!("token {:?} has no id from 0 to {MAX_ID}", rwkv_forge_tensor::shorten(text))))?;
        // The end of text, which no text leads to.
        if id == 0 && ENDS.contains(&text.as_str()) {
            marks.insert(id, Mark { text: text.clone(), kind: TokenKind::Control });
            continue;
        }
        let bytes = json::byte_level(text).filter(|bytes| !bytes.is_empty());
        tokens.push((
            id,
            bytes.ok_or_else(|| bad(name, format!("token {id} is not spelled in bytes: {:?}", rwkv_forge_tensor::shorten(text))))?,
        ));
    }
    for token in added.and_then(Value::as_array).into_iter().flatten() {
        let id = token.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID);
        let (Some(id), Some(text)) = (id, token.get("content").and_then(Value::as_str)) else {
            return Err(bad(name, "an entry of added_tokens has no id or no content".to_owned()));
        };
        check_limit(name, &format!("the number of bytes of token {id}"), text.len(), MAX_TOKEN_BYTES)?;
        let is_special = token.get("special").and_then(Value::as_bool) == Some(true);
        let kind = if is_special { TokenKind::Control } else { TokenKind::UserDefined };
        marks.insert(id, Mark { text: text.to_owned(), kind });
    }
    check_limit(name, "the number of added tokens", marks.len(), MAX_TOKENS)?;
    json::of_tokens(name, file, tokens)?.with_marks(marks)
}
