//! `tokenizer.json` of Hugging Face, against merges done by hand, and what such files may not say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use proptest::prelude::*;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};

/// The alphabet of byte-level vocabularies, as its authors' function makes it.
fn alphabet() -> Vec<char> {
    let printable: Vec<u32> = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).collect();
    let mut next = 0x100;
    let mut of = |byte: u32| {
        if printable.contains(&byte) {
            return char::from_u32(byte).unwrap();
        }
        next += 1;
        char::from_u32(next - 1).unwrap()
    };
    (0..256).map(&mut of).collect()
}

/// Merges in their order, of texts.
const MERGES: [(&str, &str); 8] = [("t", "h"), ("th", "e"), (" ", "the"), ("a", "n"), (" ", "an"), (" an", "d"), ("c", "at"), ("a", "t")];

fn spelled(text: &str) -> String {
    let alphabet = alphabet();
    text.bytes().map(|byte| alphabet[usize::from(byte)]).collect()
}

/// A vocabulary as that of Pile models: bytes from 1 on, merges, and what was added: the end of text at 0 and runs of spaces.
fn file(change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut vocab = serde_json::Map::new();
    vocab.insert("<|endoftext|>".into(), 0.into());
    for (byte, char) in alphabet().into_iter().enumerate() {
        vocab.insert(char.to_string(), (byte + 1).into());
    }
    let mut id = 257;
    for (left, right) in MERGES {
        vocab.entry(spelled(&format!("{left}{right}"))).or_insert_with(|| {
            id += 1;
            (id - 1).into()
        });
    }
    let list: Vec<String> = MERGES.iter().map(|(left, right)| format!("{} {}", spelled(left), spelled(right))).collect();
    let added = |id: i32, content: &str, special: bool| json!({ "id": id, "content": content, "special": special, "single_word": false, "lstrip": false, "rstrip": false, "normalized": !special });
    let mut value = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<|endoftext|>", true), added(id, "   ", false), added(id + 1, "  ", false)],
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "post_processor": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "vocab": vocab, "merges": list,
        },
    });
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

fn pile() -> Tokenizer {
    Tokenizer::from_bytes("20B_tokenizer.json", &file(|_| ())).unwrap()
}

fn refused(change: impl Fn(&mut Value)) -> (&'static str, String) {
    let error = Tokenizer::from_bytes("tokenizer.json", &file(change)).unwrap_err();
    (error.kind(), error.to_string())
}

/// Merges by hand: of all pairs the one that was learned first, from the left, until there is none.
fn by_hand(word: &[u8], tokenizer: &Tokenizer) -> Vec<u32> {
    let mut parts: Vec<Vec<u8>> = word.iter().map(|byte| vec![*byte]).collect();
    loop {
        let rank = |pair: &[Vec<u8>]| MERGES.iter().position(|(left, right)| left.as_bytes() == pair[0] && right.as_bytes() == pair[1]);
        let best = parts.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min();
        let Some((_, at)) = best else { break };
        let right = parts.remove(at + 1);
        parts[at].extend(right);
    }
    parts.iter().map(|part| tokenizer.id_of(part).unwrap()).collect()
}

#[test]
fn words_are_merged_in_their_order() {
    let tokenizer = pile();
    assert!(!tokenizer.is_list() && tokenizer.notes().is_empty());
    assert_eq!((tokenizer.end_of_text(), tokenizer.token_bytes(0)), (Some(0), Some(&b""[..])));
    for word in ["the", " the", " and", "cat", " cat", "theand", "thethethe", " than", "é", "\u{10348}", "c", " "] {
        assert_eq!(tokenizer.encode(word.as_bytes()).unwrap(), by_hand(word.as_bytes(), &tokenizer), "{word:?}");
    }
    // Words are taken apart first, so that no merge goes from one to the next.
    assert_eq!(tokenizer.encode(b"the the").unwrap(), [tokenizer.id_of(b"the").unwrap(), tokenizer.id_of(b" the").unwrap()]);
    // What was added is found before that, the longest first.
    let (three, two) = (tokenizer.id_of(b"   ").unwrap(), tokenizer.id_of(b"  ").unwrap());
    assert_eq!(tokenizer.encode(b"a     ").unwrap(), [tokenizer.id_of(b"a").unwrap(), three, two]);
    assert_eq!(tokenizer.encode(b"<|endoftext|>").unwrap(), [0]);
    // An id is what the file says, wherever it is.
    let far = file(|value| {
        let added = value["added_tokens"].as_array_mut().unwrap();
        added.push(json!({ "id": 300, "content": "<far>", "special": false }));
    });
    assert_eq!(Tokenizer::from_bytes("far", &far).unwrap().encode(b"a<far>").unwrap(), [tokenizer.id_of(b"a").unwrap(), 300]);
    assert_eq!((tokenizer.len(), tokenizer.max_id()), (256 + 8 + 2, two.max(three)));
    assert_eq!(tokenizer.id_of(b"<|endoftext|>"), Some(0), "by its name, which configurations give");
}

#[test]
fn texts_come_back_and_are_normalized_as_the_file_says() {
    let tokenizer = pile();
    for text in ["the cat and the   end\n\n", "世界 é \u{1f600}\t\0", "a  b \r\n"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text.as_bytes()).unwrap()).unwrap(), text.as_bytes());
    }
    let composed = tokenizer.encode("e\u{301}".as_bytes()).unwrap();
    assert_eq!(tokenizer.decode(&composed).unwrap(), "é".as_bytes());
    let error = tokenizer.encode(b"ab\xff").unwrap_err();
    assert_eq!(error, TokenizerError::TextNotUtf8 { name: "20B_tokenizer.json".into(), offset: 2 });
    assert_eq!(error.kind(), "TextNotUtf8");
}

/// Long texts are taken to pieces, which changes nothing.
#[test]
fn pieces_of_a_long_text_give_the_tokens_of_the_whole() {
    let words = "the cat and  the 1 cat's\n\n end, than   the\tand ";
    let text = words.repeat(3 * (1 << 20) / words.len());
    let tokenizer = pile();
    // Without pieces: a token that was added with a space between letters forbids them.
    let whole = file(|value| {
        let added = value["added_tokens"].as_array_mut().unwrap();
        added.push(json!({ "id": 300, "content": "x y", "special": false, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true }));
    });
    let whole = Tokenizer::from_bytes("whole", &whole).unwrap();
    assert_eq!(tokenizer.encode(text.as_bytes()).unwrap(), whole.encode(text.as_bytes()).unwrap());
}

/// RWKV's own list, as the class of Transformers for it writes it.
#[test]
fn a_list_in_the_form_of_a_tokenizer_is_a_list() {
    let mut vocab = serde_json::Map::new();
    vocab.insert("<|endoftext|>".into(), 0.into());
    let world = Tokenizer::world();
    let alphabet = alphabet();
    for id in 1..=world.max_id() {
        let text: String = world.token_bytes(id).unwrap().iter().map(|byte| alphabet[usize::from(*byte)]).collect();
        vocab.insert(text, id.into());
    }
    let mut value = json!({ "version": "1.0", "model": { "type": "RwkvTrie", "vocab": vocab }, "added_tokens": [] });
    let read = |value: &Value| Tokenizer::from_bytes("tokenizer.json", &serde_json::to_vec(value).unwrap()).unwrap();
    let same = read(&value);
    assert!(same.is_list() && same.holds_world());
    assert_eq!((same.sha256(), same.end_of_text(), same.id_of(b"<|endoftext|>")), (world.sha256(), Some(0), Some(0)));
    value["added_tokens"] =
        json!([{ "id": 0, "content": "<|endoftext|>", "special": true }, { "id": 65530, "content": "<|im_start|>", "special": true }]);
    let more = read(&value);
    assert_ne!(more.sha256(), world.sha256());
    assert_eq!(more.encode(b"<|im_start|>").unwrap(), [65530]);
}

#[test]
fn what_cannot_be_used_is_called_by_its_name() {
    let kind = |change: &dyn Fn(&mut Value)| refused(change);
    for (part, change) in [
        (
            "its model is Unigram",
            Box::new(|value: &mut Value| value["model"] = json!({ "type": "Unigram", "vocab": [["a", 0.5]] })) as Box<dyn Fn(&mut Value)>,
        ),
        ("its model is WordPiece", Box::new(|value: &mut Value| value["model"]["type"] = json!("WordPiece"))),
        ("dropout", Box::new(|value: &mut Value| value["model"]["dropout"] = json!(0.1))),
        ("end_of_word_suffix", Box::new(|value: &mut Value| value["model"]["end_of_word_suffix"] = json!("</w>"))),
        ("byte_fallback", Box::new(|value: &mut Value| value["model"]["byte_fallback"] = json!(true))),
        (
            "normalizer is Precompiled",
            Box::new(|value: &mut Value| value["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "AA==" })),
        ),
        (
            "normalizer is Lowercase",
            Box::new(|value: &mut Value| value["normalizer"] = json!({ "type": "Sequence", "normalizers": [{ "type": "Lowercase" }] })),
        ),
        ("pre_tokenizer is Metaspace", Box::new(|value: &mut Value| value["pre_tokenizer"] = json!({ "type": "Metaspace" }))),
        ("no step ByteLevel", Box::new(|value: &mut Value| value["pre_tokenizer"] = Value::Null)),
        (
            "parts of a text would be lost",
            Box::new(|value: &mut Value| {
                let split = json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "Removed", "invert": false });
                value["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [split, { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true }] });
            }),
        ),
        (
            "more than once",
            Box::new(|value: &mut Value| {
                let step = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
                value["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [step, step] });
            }),
        ),
        ("spelled in bytes", Box::new(|value: &mut Value| value["model"]["vocab"]["世"] = json!(290))),
        ("has the ids 7 and 0", Box::new(|value: &mut Value| value["added_tokens"][0]["id"] = json!(7))),
        ("another token's", Box::new(|value: &mut Value| value["model"]["vocab"]["ab"] = json!(5))),
        ("", Box::new(|value: &mut Value| value["model"]["merges"] = json!(["q"]))),
        ("", Box::new(|value: &mut Value| value["model"]["merges"] = json!(["unheard of"]))),
        ("neither a tokenizer.json", Box::new(|value: &mut Value| *value = json!({ "1": "a", "x": "b" }))),
        ("neither a text nor", Box::new(|value: &mut Value| *value = json!({ "1": "a", "2": 3 }))),
        ("neither a text nor", Box::new(|value: &mut Value| *value = json!({ "1": [97, 256] }))),
        ("no object of tokens", Box::new(|value: &mut Value| value["model"] = json!({ "type": "RwkvTrie", "vocab": [] }))),
    ] {
        let (found, message) = kind(&*change);
        assert!(found == "BadTokenizerJson" && message.contains(part), "{part}: {found} {message}");
    }
    assert_eq!(kind(&|value| *value = json!({})).0, "EmptyVocabulary");
    assert_eq!(kind(&|value| *value = json!({ "1": "a", "2": "a" })).0, "DuplicateToken");
    // A pattern that would take gigabytes.
    let (_, message) = refused(|value| {
        value["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "((a{1000}){1000}){1000}" }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true } ] })
    });
    assert!(message.starts_with("tokenizer.json: "), "{message}");
}

#[test]
fn sizes_are_bounded_before_anything_is_read() {
    let kind = |file: &[u8]| Tokenizer::from_bytes("v", file).map_or_else(|error| error.kind(), |_| "accepted");
    assert_eq!(kind(format!("{{{}", " ".repeat(32 << 20)).as_bytes()), "TooLarge");
    assert_eq!(kind(format!("{{\"a\":[{}0]}}", "0,".repeat(4 << 20)).as_bytes()), "TooLarge");
    assert_eq!(kind("{\"a\":".repeat(100_000).as_bytes()), "BadTokenizerJson");
    let long = "x".repeat(1025);
    assert_eq!(kind(format!("{{\"1\":\"{long}\"}}").as_bytes()), "TooLarge");
}

/// A vocabulary without a byte would leave it out of the text.
#[test]
fn a_byte_without_a_token_is_an_error_of_the_text() {
    let file = file(|value| drop(value["model"]["vocab"].as_object_mut().unwrap().remove("Z")));
    let tokenizer = Tokenizer::from_bytes("small", &file).unwrap();
    assert_eq!(tokenizer.encode(b"aZ").unwrap_err(), TokenizerError::UncoveredByte { name: "small".into(), byte: b'Z', offset: 1 });
}

#[test]
fn cut_and_changed_files_never_panic() {
    let whole = file(|_| ());
    for end in (0..whole.len()).step_by(7) {
        assert!(Tokenizer::from_bytes("v", &whole[..end]).is_err(), "cut at {end}");
        let mut changed = whole.clone();
        changed[end] ^= 0x20;
        if let Ok(tokenizer) = Tokenizer::from_bytes("v", &changed) {
            drop(tokenizer.encode(b"the cat and the end"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_comes_back(text in "[ -~\n世é]{0,60}") {
        let tokenizer = pile();
        let ids = tokenizer.encode(text.as_bytes()).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_bytes());
    }
}
