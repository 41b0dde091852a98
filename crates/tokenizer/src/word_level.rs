//! RWKV's list as a `tokenizer.json` that the package `tokenizers` loads as it is: one regular expression that always finds the longest token,
//! and the ids of what it finds. Start at [`to_tokenizer_json`].
//!
//! The expression is a trie over the bytes of all tokens, spelled in the alphabet of byte-level vocabularies: at each place the letters that go on
//! are tried before the token ends, so that it finds the longest token, and looks at no more than the letters of one token for that. What it finds
//! is a piece of its own, which the model (`WordLevel`) knows the id of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use crate::bpe::TokenKind;
use crate::error::TokenizerError;
use crate::json::{byte_level, letter, of_tokens, string};
use crate::marks::Mark;
use crate::vocabulary::{MAX_ID, MAX_TOKEN_BYTES, MAX_TOKENS, check_limit};
use crate::{Matching, Tokenizer};

/// What ports call the end of text, which has no text of its own.
pub const END_OF_TEXT_NAME: &str = "<|rwkv_tokenizer_end_of_text|>";
/// What stands for a text without a token: nothing does, so that such a text is an error. No token is spelled with a blank.
const NOTHING: &str = "<no token>";
/// Kind of the model in such a file.
pub(crate) const KIND: &str = "WordLevel";

/// The `tokenizer.json` of a vocabulary of which always the longest token is meant: the package `tokenizers`, and so `AutoTokenizer` of
/// Transformers, divides every text as [`Tokenizer::encode`] does, in a time that grows with the text alone. The end of text is the special token
/// [`END_OF_TEXT_NAME`], all other marks are added tokens. Reads again as the same vocabulary.
///
/// `None` for vocabularies of merges, and where such a file cannot tell two tokens apart: a mark that is called as another one, or as an ordinary
/// token is spelled.
///
/// ```
/// let json = rwkv_forge_tokenizer::to_tokenizer_json(&rwkv_forge_tokenizer::Tokenizer::raw_bytes()).expect("a list");
/// assert_eq!(rwkv_forge_tokenizer::Tokenizer::from_bytes("tokenizer.json", json.as_bytes())?.encode(b"a")?, [97]);
/// # Ok::<(), rwkv_forge_tokenizer::TokenizerError>(())
/// ```
#[must_use]
pub fn to_tokenizer_json(tokenizer: &Tokenizer) -> Option<String> {
    fits_tokenizer_json(tokenizer).then(|| written(tokenizer))
}

/// Whether [`to_tokenizer_json`] has an answer.
#[must_use]
pub fn fits_tokenizer_json(tokenizer: &Tokenizer) -> bool {
    let Matching::Longest(trie) = &tokenizer.matching else { return false };
    let is_spelled_so = |name: &str| {
        let bytes = byte_level(name).unwrap_or_default();
        trie.longest_match(&bytes).is_some_and(|(_, length)| length == bytes.len())
    };
    let mut names = BTreeSet::from([NOTHING]);
    named(tokenizer).all(|(_, name, _)| names.insert(name) && !is_spelled_so(name))
}

/// The text of a token that is called something in such a file: the end of text, or a mark.
#[must_use]
pub fn name_in_tokenizer_json(tokenizer: &Tokenizer, id: u32) -> Option<&str> {
    named(tokenizer).find(|(named, ..)| *named == id).map(|(_, name, _)| name)
}

/// Id, text and kind of the end of text and of all marks that texts are searched for.
fn named(tokenizer: &Tokenizer) -> impl Iterator<Item = (u32, &str, TokenKind)> {
    let end = tokenizer.end_of_text();
    let is_text = move |(id, mark): &(u32, &Mark)| Some(*id) != end && *id != 0 && mark.kind != TokenKind::Unused && !mark.text.is_empty();
    let marks = tokenizer.marks().filter(is_text).map(|(id, mark)| (id, mark.text.as_str(), mark.kind));
    end.map(|id| (id, END_OF_TEXT_NAME, TokenKind::Control)).into_iter().chain(marks)
}

/// The tokens one a line, in the order of their ids.
fn written(tokenizer: &Tokenizer) -> String {
    let mut out = String::from("{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null,\n\"added_tokens\": [");
    let mut separator = "\n";
    for (id, name, kind) in named(tokenizer) {
        // Writing to a string does not fail.
        let _ = write!(out, "{separator}{{\"id\": {id}, \"content\": ");
        string(&mut out, name);
        let special = kind == TokenKind::Control;
        let _ =
            write!(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": {special}}}");
        separator = ",\n";
    }
    let by_bytes = "\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, \"use_regex\": false";
    let _ = write!(
        out,
        "\n],\n\"normalizer\": null,\n\"pre_tokenizer\": {{\"type\": \"Sequence\", \"pretokenizers\": [\n{{{by_bytes}}},\n\
         {{\"type\": \"Split\", \"behavior\": \"Isolated\", \"invert\": false, \"pattern\": {{\"Regex\": "
    );
    string(&mut out, &pattern(tokenizer.vocabulary.tokens().map(|(_, bytes)| bytes)));
    let _ = write!(
        out,
        "}}}}\n]}},\n\"post_processor\": null,\n\"decoder\": {{{by_bytes}}},\n\"model\": {{\"type\": \"{KIND}\", \"vocab\": {{"
    );
    let spelled = tokenizer.vocabulary.tokens().filter(|(_, bytes)| !bytes.is_empty()).map(|(id, bytes)| (id, spelled(bytes)));
    let mut all: Vec<(u32, String)> = named(tokenizer).map(|(id, name, _)| (id, name.to_owned())).chain(spelled).collect();
    all.sort_unstable();
    separator = "\n";
    for (id, text) in all {
        out.push_str(separator);
        string(&mut out, &text);
        let _ = write!(out, ": {id}");
        separator = ",\n";
    }
    let _ = write!(out, "\n}}, \"unk_token\": \"{NOTHING}\"}}\n}}\n");
    out
}

fn spelled(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| letter(*byte)).collect()
}

/// The expression that finds the longest of these tokens.
fn pattern<'t>(tokens: impl Iterator<Item = &'t [u8]>) -> String {
    let mut tokens: Vec<&[u8]> = tokens.filter(|token| !token.is_empty()).collect();
    tokens.sort_unstable();
    let mut out = String::new();
    branch(&tokens, 0, &mut out);
    out
}

/// What follows `depth` bytes that all of these have in common, the first of which may end there. No token is longer than [`MAX_TOKEN_BYTES`], which
/// is how deep this goes.
fn branch(tokens: &[&[u8]], depth: usize, out: &mut String) {
    let (ends, rest) = match tokens.split_first() {
        Some((first, rest)) if first.len() == depth => (true, rest),
        Some(_) | None => (false, tokens),
    };
    if rest.is_empty() {
        return;
    }
    let byte = |token: &[u8]| token.get(depth).copied();
    let is_last = |group: &&[&[u8]]| matches!(group, [token] if token.len() == depth.saturating_add(1));
    let groups = || rest.chunk_by(|one, other| byte(one) == byte(other));
    let first_byte = |group: &[&[u8]]| group.first().and_then(|token| byte(token));
    let last: Vec<char> = groups().filter(is_last).filter_map(first_byte).map(letter).collect();
    let longer = groups().filter(|group| !is_last(group));
    let alternatives = longer.clone().count().saturating_add(usize::from(!last.is_empty()));
    let is_group = alternatives > 1 || ends && last.is_empty();
    out.push_str(if is_group { "(?:" } else { "" });
    let mut separator = "";
    for group in longer {
        out.push_str(separator);
        separator = "|";
        out.extend(first_byte(group).map(letter).into_iter().flat_map(|letter| escaped(letter, r"\.+*?()|[]{}^$")));
        branch(group, depth.saturating_add(1), out);
    }
    out.push_str(if last.is_empty() { "" } else { separator });
    match last.as_slice() {
        [] => {}
        [letter] => out.extend(escaped(*letter, r"\.+*?()|[]{}^$")),
        letters => {
            out.push('[');
            out.extend(letters.iter().flat_map(|letter| escaped(*letter, r"\[]^-")));
            out.push(']');
        }
    }
    out.push_str(if is_group { ")" } else { "" });
    out.push_str(if ends { "?" } else { "" });
}

/// A letter, after a backslash where it is one of those with a meaning.
fn escaped(letter: char, meaning: &str) -> impl Iterator<Item = char> + use<> {
    meaning.contains(letter).then_some('\\').into_iter().chain([letter])
}

/// A file as [`to_tokenizer_json`] writes it, and as the libraries save it again. `None` where it is none: another expression finds other tokens.
pub(crate) fn read(name: &str, file: &[u8], value: &Value) -> Option<Result<Tokenizer, TokenizerError>> {
    let entries = value.get("model")?.get("vocab")?.as_object()?;
    let mut names = BTreeMap::new();
    for token in value.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let id = token.get("id")?.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID)?;
        let is_plain = ["single_word", "lstrip", "rstrip", "normalized"].iter().all(|key| token.get(key) == Some(&Value::Bool(false)));
        let kind = if token.get("special")?.as_bool()? { TokenKind::Control } else { TokenKind::UserDefined };
        let mark = Mark { text: token.get("content")?.as_str()?.to_owned(), kind };
        if !is_plain || entries.get(&mark.text).and_then(Value::as_u64) != Some(u64::from(id)) {
            return None;
        }
        names.insert(mark.text.clone(), (id, mark));
    }
    let mut tokens = Vec::with_capacity(entries.len());
    for (text, id) in entries.iter().filter(|(text, _)| !names.contains_key(*text)) {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID)?;
        tokens.push((id, byte_level(text).filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_TOKEN_BYTES)?));
    }
    let is_null = |key: &str| value.get(key).is_none_or(Value::is_null);
    if !is_null("normalizer") || !is_null("post_processor") || !has_steps(value, &tokens) {
        return None;
    }
    // The end of text, which no text leads to.
    names.retain(|name, (id, mark)| name != END_OF_TEXT_NAME || *id != 0 || mark.kind != TokenKind::Control);
    let limit = check_limit(name, "the number of tokens", tokens.len(), MAX_TOKENS);
    let marks = names.into_values().collect();
    Some(limit.and_then(|()| of_tokens(name, file, tokens)?.with_marks(marks)))
}

/// Whether texts are divided by the longest of these tokens.
fn has_steps(value: &Value, tokens: &[(u32, Vec<u8>)]) -> bool {
    let Some(Value::Array(steps)) = value.get("pre_tokenizer").and_then(|steps| steps.get("pretokenizers")) else { return false };
    let [bytes, split] = steps.as_slice() else { return false };
    let is = |step: &Value, key: &str, text: &str| step.get(key).and_then(Value::as_str) == Some(text);
    let is_unset = |step: &Value, key: &str| step.get(key) == Some(&Value::Bool(false));
    let found = split.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
    is(bytes, "type", "ByteLevel")
        && ["add_prefix_space", "use_regex"].iter().all(|key| is_unset(bytes, key))
        && is(split, "type", "Split")
        && is(split, "behavior", "Isolated")
        && is_unset(split, "invert")
        && found == Some(pattern(tokens.iter().map(|(_, bytes)| bytes.as_slice())).as_str())
}
