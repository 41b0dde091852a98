//! RWKV's lists as `tokenizer.json`: what is written, that it is read again, and that the package of Hugging Face's divides texts by it as we do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{END_OF_TEXT_NAME, Mark, Tokenizer, fits_tokenizer_json, name_in_tokenizer_json, to_tokenizer_json};
use serde_json::Value;

/// A list of these tokens, from id 1 on.
fn list(tokens: &[&[u8]]) -> Tokenizer {
    let line = |(id, token): (usize, &&[u8])| {
        let hex: String = token.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("{} b'{hex}' {}\n", id + 1, token.len())
    };
    Tokenizer::from_bytes("list", tokens.iter().enumerate().map(line).collect::<String>().as_bytes()).unwrap()
}

/// The vocabulary of the fixtures: all bytes and 63 longer tokens.
fn tiny() -> Tokenizer {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/vocab-320.txt");
    Tokenizer::from_bytes("vocab-320", &std::fs::read(path).unwrap()).unwrap()
}

fn marked(tokenizer: &Tokenizer, marks: &[(u32, &str, TokenKind)]) -> Tokenizer {
    let mark = |(id, text, kind): &(u32, &str, TokenKind)| (*id, Mark { text: (*text).to_owned(), kind: *kind });
    tokenizer.with_marks(marks.iter().map(mark).collect::<BTreeMap<_, _>>()).unwrap()
}

fn pattern(tokenizer: &Tokenizer) -> String {
    let json: Value = serde_json::from_str(&to_tokenizer_json(tokenizer).unwrap()).unwrap();
    json["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"].as_str().unwrap().to_owned()
}

fn read(json: &str) -> Result<Tokenizer, rwkv_forge_tokenizer::TokenizerError> {
    Tokenizer::from_bytes("tokenizer.json", json.as_bytes())
}

/// The package, and what it makes of a text.
fn package(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(to_tokenizer_json(tokenizer).unwrap()).unwrap()
}

fn theirs(package: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    package.encode(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn the_expression_is_a_trie_that_prefers_the_longest() {
    for (tokens, expected) in [
        (&[&b"a"[..]][..], "a"),
        (&[b"a", b"b", b"-", b"]"], "[\\-\\]ab]"),
        (&[b"a", b"abc", b"abd", b" "], "(?:a(?:b[cd])?|Ġ)"),
        (&[b"a", b"ab"], "ab?"),
        (&[b".", b".\n", b".x", b".xy", b"\xff"], "(?:\\.(?:xy?|Ċ)?|ÿ)"),
    ] {
        assert_eq!(pattern(&list(tokens)), expected);
    }
}

#[test]
fn every_vocabulary_comes_back() {
    let added = marked(&Tokenizer::world(), &[(65_531, "<|im_end|>", TokenKind::Control), (65_533, "<a b>", TokenKind::UserDefined)]);
    for tokenizer in [Tokenizer::world(), Tokenizer::raw_bytes(), tiny(), added] {
        let back = read(&to_tokenizer_json(&tokenizer).unwrap()).unwrap();
        assert_eq!((back.max_id(), back.end_of_text()), (tokenizer.max_id(), tokenizer.end_of_text()));
        let is_same = |id| back.token_bytes(id) == tokenizer.token_bytes(id) && back.mark(id) == tokenizer.mark(id);
        assert!((0..=tokenizer.max_id()).all(is_same), "{}", tokenizer.name());
    }
    // As the libraries save it again: other spaces, another order.
    let value: Value = serde_json::from_str(&to_tokenizer_json(&Tokenizer::world()).unwrap()).unwrap();
    assert!(read(&value.to_string()).unwrap().holds_world());
}

#[test]
fn names_that_are_taken_do_not_fit() {
    let with = |text: &str| marked(&Tokenizer::world(), &[(65_531, text, TokenKind::Control)]);
    // "Ġ" is how the blank is spelled; the token of World that is this letter is spelled otherwise.
    for (text, fits) in [("<|im_end|>", true), (END_OF_TEXT_NAME, false), ("Ġ", false), ("<no token>", false), (" ", true)] {
        assert_eq!(to_tokenizer_json(&with(text)).is_some(), fits, "{text}");
        assert_eq!(fits_tokenizer_json(&with(text)), fits);
    }
    let twice = marked(&Tokenizer::world(), &[(65_531, "<x>", TokenKind::Control), (65_532, "<x>", TokenKind::UserDefined)]);
    assert!(!fits_tokenizer_json(&twice));
    let names = |id| name_in_tokenizer_json(&with("x y"), id).map(str::to_owned);
    assert_eq!([65_531, 0, 261, 65_530].map(names), [Some("x y".to_owned()), Some(END_OF_TEXT_NAME.to_owned()), None, None]);
}

#[test]
fn another_expression_is_another_vocabulary() {
    let json = to_tokenizer_json(&tiny()).unwrap();
    assert!(read(&json).is_ok());
    for (from, to) in [
        ("Isolated", "Removed"),
        ("\"invert\": false", "\"invert\": true"),
        ("\"Regex\": \"(?:", "\"Regex\": \"(?:\\\\w+|"),
        ("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}"),
        ("\"normalized\": false", "\"normalized\": true"),
        ("\"add_prefix_space\": false", "\"add_prefix_space\": true"),
        ("\"id\": 0", "\"id\": 7"),
    ] {
        assert!(json.contains(from), "{from}");
        let error = read(&json.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains("its model is WordLevel") && error.contains("finds the longest token"), "{error}");
    }
}

#[test]
fn a_text_without_a_token_is_an_error_there_too() {
    let letters = list(&[b"a", b"ab"]);
    let package = package(&letters);
    assert_eq!(theirs(&package, "abaab"), letters.encode(b"abaab").unwrap());
    assert!(letters.encode(b"abc").is_err() && package.encode("abc", false).is_err());
}

proptest! {
    #[test]
    fn the_package_divides_texts_as_we_do(text in "([a-z \\n.]{0,40}|\\PC{0,20}|<x>|<xy>){0,8}") {
        let tokenizer = marked(&tiny(), &[(330, "<x>", TokenKind::Control), (331, "<xy>", TokenKind::UserDefined)]);
        prop_assert_eq!(theirs(&package(&tokenizer), &text), tokenizer.encode(text.as_bytes()).unwrap());
    }

    #[test]
    fn and_by_any_list(tokens in proptest::collection::btree_set("[abc]{1,6}", 1..40), text in "[abc]{0,60}") {
        let all: std::collections::BTreeSet<String> = tokens.into_iter().chain(["a", "b", "c"].map(str::to_owned)).collect();
        let tokenizer = list(&all.iter().map(String::as_bytes).collect::<Vec<_>>());
        prop_assert_eq!(theirs(&package(&tokenizer), &text), tokenizer.encode(text.as_bytes()).unwrap());
    }
}

/// A part of World: the package as it is built here (`fancy-regex`) refuses expressions as deeply nested as that of all of it, which those that
/// Python has (`onig`) take: peers/python/tokenizer.py.
#[test]
fn a_part_of_world_is_divided_so_too() {
    let world = Tokenizer::world();
    let tokens: Vec<&[u8]> = (1..=3000).filter_map(|id| world.token_bytes(id)).filter(|token| token.len() <= 8).collect();
    let tokenizer = list(&tokens);
    let package = package(&tokenizer);
    let text = "Hello\n\n世界, 🦆 é e\u{301}  don't\r\n\u{10ffff}".repeat(40);
    assert_eq!(theirs(&package, &text), tokenizer.encode(text.as_bytes()).unwrap());
    assert_eq!(package.decode(&theirs(&package, &text), false).unwrap(), text);
    // One word of any length takes no more than its letters do.
    let letter = |at: u32| char::from(b'a' + u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap() % 26);
    let long: String = (0..200_000).map(letter).collect();
    assert_eq!(theirs(&package, &long), tokenizer.encode(long.as_bytes()).unwrap());
}
