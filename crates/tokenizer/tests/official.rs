//! Equality with the official tokenizer on the texts of `fixtures/tokenizer`, and laws that hold for every vocabulary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rwkv_forge_tokenizer::{Tokenizer, WORLD_SHA256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn read(path: &str) -> Vec<u8> {
    let path = fixtures().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn ids_of(file: &[u8]) -> Vec<u32> {
    file.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).collect()
}

fn vocab_320() -> Tokenizer {
    Tokenizer::from_bytes("vocab-320.txt", &read("checkpoints/vocab-320.txt")).unwrap()
}

#[test]
fn world_is_the_published_file() {
    let world = Tokenizer::world();
    assert_eq!(world.sha256(), WORLD_SHA256);
    assert_eq!((world.len(), world.max_id(), world.end_of_text()), (65_529, 65_529, Some(0)));
    assert_eq!(world.token_bytes(0), Some(b"".as_slice()));
    assert_eq!(world.token_bytes(1), Some(b"\0".as_slice()));
    assert_eq!(world.token_bytes(256), Some(b"\xff".as_slice()));
    assert_eq!(world.token_bytes(261), Some(b"\n\n".as_slice()));
    assert_eq!(world.token_bytes(65_529), Some([b' '; 128].as_slice()));
    assert_eq!(world.token_bytes(65_530), None);
}

#[test]
fn ids_equal_the_official_ones() {
    let mut texts = 0;
    for entry in std::fs::read_dir(fixtures().join("tokenizer")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let text = std::fs::read(&path).unwrap();
        let official = ids_of(&std::fs::read(path.with_extension("ids")).unwrap());
        assert!(Tokenizer::world().encode(&text).unwrap() == official, "{}", path.display());
        assert!(Tokenizer::world().decode(&official).unwrap() == text, "{}", path.display());
        texts += 1;
    }
    assert_eq!(texts, 8, "texts in fixtures/tokenizer");
}

#[test]
fn every_pair_of_bytes_as_the_official_tokenizer() {
    let official = ids_of(&read("tokenizer/pairs.ids"));
    assert_eq!(official.len(), 65_536);
    for (pair, id) in (0..=u16::MAX).zip(official) {
        let ids = Tokenizer::world().encode(&pair.to_be_bytes()).unwrap();
        match id {
            0 => assert_eq!(ids.len(), 2, "{pair:04x}"),
            id => assert_eq!(ids, [id], "{pair:04x}"),
        }
    }
}

#[test]
fn oracle_tokens_are_the_beginning_of_the_text() {
    let npy = read("oracles/tokens-320.npy");
    let data = npy.len() - 4096 * 2;
    let oracle = ids_of(&npy[data..]);
    let text = read("text/public-domain-100k.txt");
    let ids = vocab_320().encode(&text).unwrap();
    assert_eq!(ids[..4096], oracle);
    assert_eq!(vocab_320().decode(&ids).unwrap(), text);
}

/// The longest match of a token's own bytes is that token, whatever the vocabulary.
#[test]
fn every_token_encodes_to_itself() {
    for tokenizer in [Tokenizer::world(), vocab_320(), Tokenizer::raw_bytes()] {
        let mut tokens = 0;
        for id in 0..=tokenizer.max_id() {
            let Some(bytes) = tokenizer.token_bytes(id).filter(|bytes| !bytes.is_empty()) else { continue };
            assert_eq!(tokenizer.encode(bytes).unwrap(), [id]);
            tokens += 1;
        }
        assert_eq!(tokens, tokenizer.len());
    }
}

/// The algorithm at its plainest: at every position try all lengths, longest first.
fn naive(tokenizer: &Tokenizer, text: &[u8]) -> Vec<u32> {
    let table: std::collections::HashMap<&[u8], u32> =
        (0..=tokenizer.max_id()).filter_map(|id| tokenizer.token_bytes(id).map(|bytes| (bytes, id))).collect();
    let mut ids = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let length = (1..=text.len() - at).rev().find(|length| table.contains_key(&text[at..at + length])).unwrap();
        ids.push(table[&text[at..at + length]]);
        at += length;
    }
    ids
}

proptest! {
    #[test]
    fn decode_inverts_encode(text in prop::collection::vec(any::<u8>(), 0..300)) {
        for tokenizer in [Tokenizer::world(), vocab_320(), Tokenizer::raw_bytes()] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.clone(), "{}", tokenizer.name());
        }
    }

    #[test]
    fn small_vocabularies_match_the_naive_search(
        tokens in prop::collection::btree_set(prop::collection::vec(0u8..3, 1..6), 0..20),
        text in prop::collection::vec(0u8..3, 0..60),
    ) {
        let mut all: std::collections::BTreeSet<Vec<u8>> = (0..3).map(|byte| vec![byte]).collect();
        all.extend(tokens);
        let mut file = String::new();
        for (index, token) in all.iter().enumerate() {
            let literal: String = token.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            // Gaps in the ids, so that the index of a token is not its id.
            file.push_str(&format!("{} b'{literal}' {}\n", index * 3 + 1, token.len()));
        }
        let tokenizer = Tokenizer::from_bytes("small", file.as_bytes()).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(&ids, &naive(&tokenizer, &text));
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}
