//! Leaks that were planted must be found, and unrelated texts must pass.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use crate::common;

use rwkv_forge_corpus::{Document, GRAM_WORDS, ReadOptions, builtin, overlap, read};

fn document(name: &str, text: impl Into<Vec<u8>>) -> Document {
    Document { name: name.to_owned(), category: None, text: text.into() }
}

/// Different words: `prefix0 prefix1 ...`.
fn words(prefix: &str, count: usize) -> String {
    (0..count).map(|index| format!("{prefix}{index} ")).collect()
}

#[test]
fn counts_are_exact() {
    let seen = document("seen", format!("{} {}", words("a", 40), words("b", 40)));
    let text = document("text", format!("{} {} {}", words("x", 50), words("a", 20), words("y", 30)));
    let found = overlap(&[&seen], &[&text]);
    let grams = 50 + 20 + 30 - GRAM_WORDS + 1;
    assert_eq!(found.grams_evaluation, grams as u64);
    assert_eq!(found.grams_shared, (20 - GRAM_WORDS + 1) as u64);
    let document = &found.documents[0];
    assert_eq!((document.longest, document.passages.len()), (20, 1));
    assert_eq!(document.passages[0].words, 20);
    assert_eq!(document.passages[0].offset, words("x", 50).len() + 1);
    assert!(document.passages[0].excerpt.starts_with("a0 a1 a2"));
    assert!((document.share - 5.0 / grams as f64).abs() < 1e-15);
}

#[test]
fn fifteen_words_are_no_gram_and_sixteen_are_one() {
    let seen = document("seen", words("a", 100));
    for (count, shared) in [(GRAM_WORDS - 1, 0), (GRAM_WORDS, 1)] {
        let text = document("text", format!("{} {} {}", words("x", 5), words("a", count), words("y", 5)));
        assert_eq!(overlap(&[&seen], &[&text]).grams_shared, shared);
    }
    let short = document("short", words("a", GRAM_WORDS - 1));
    let found = overlap(&[&seen], &[&short]);
    assert_eq!((found.grams_evaluation, found.share, found.leaks()), (0, 0.0, false));
}

#[test]
fn layout_and_case_do_not_hide_a_leak_and_order_matters() {
    let text = "The quick brown fox, jumps over the lazy dog; and then it sleeps until the next morning comes.";
    let seen = document("seen", text);
    let shouted = document("shouted", text.to_uppercase().replace(' ', "\n   "));
    let found = overlap(&[&seen], &[&shouted]);
    assert_eq!(found.grams_shared, found.grams_evaluation);
    let reversed: Vec<&str> = text.split(' ').rev().collect();
    assert_eq!(overlap(&[&seen], &[&document("reversed", reversed.join(" "))]).grams_shared, 0);
}

#[test]
fn characters_of_scripts_without_spaces_are_words() {
    let seen = document("seen", "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往");
    let text = document("text", "甲乙天地玄黃宇宙洪荒日月盈昃辰宿列張寒丙");
    assert_eq!(overlap(&[&seen], &[&text]).grams_shared, 2);
}

#[test]
fn lines_drawn_with_characters_are_no_leak() {
    let rules = ["=====", "-----", "#####", "*****"].map(|rule| rule.repeat(40)).join("\n");
    let seen = document("seen", format!("{} {rules} {}", words("a", 100), words("b", 100)));
    let text = document("text", format!("{} {rules} {}", words("x", 100), words("y", 100)));
    assert_eq!(overlap(&[&seen], &[&text]).grams_shared, 0);
}

#[test]
fn bytes_that_are_no_text_do_not_stop_it() {
    let bytes: Vec<u8> = (0u16..512).map(|value| value.to_le_bytes()[0] | 0x80).collect();
    let found = overlap(&[&document("seen", bytes.clone())], &[&document("text", bytes)]);
    assert_eq!(found.grams_shared, found.grams_evaluation);
    assert!(found.grams_evaluation > 100);
}

#[test]
fn a_planted_page_leaks_and_a_planted_sentence_does_not() {
    let built_in = builtin();
    let (novel, scripture) = (&built_in.documents[0], &built_in.documents[3]);
    assert!(!overlap(&[novel], &[scripture]).leaks());
    // A page of 1500 bytes, in the middle of other text.
    let mut leaked = scripture.text.clone();
    leaked.splice(5000..5000, novel.text[3000..4500].iter().copied());
    let found = overlap(&[novel], &[&document("leaked", leaked)]);
    assert!(found.leaks(), "{found:?}");
    assert!(found.documents[0].longest > 150);
    // A sentence of a hundred bytes.
    let mut quoting = scripture.text.clone();
    quoting.splice(5000..5000, novel.text[3000..3100].iter().copied());
    let found = overlap(&[novel], &[&document("quoting", quoting)]);
    assert!(found.grams_shared > 0 && !found.leaks(), "{found:?}");
}

#[test]
#[ignore = "needs the data beside the repository"]
fn texts_of_the_shared_data_do_not_leak() {
    let folder = common::shared("data/text");
    let load = |name: &str| read(&folder.join(name), &ReadOptions::default()).unwrap().remove(0).documents.remove(0);
    let (calibration, code, prose) = (load("calib.txt"), load("eval-code.txt"), load("eval-prose.txt"));
    let reference = load("eval-refdocs.txt");
    let found = overlap(&[&calibration], &[&code, &prose, &reference]);
    assert!(found.grams_evaluation > 100_000);
    assert!(found.share < 1e-4 && !found.leaks(), "{found:?}");
    // 4 KB of the calibration text planted into each.
    for clean in [&code, &prose, &reference] {
        let mut text = clean.text.clone();
        text.splice(1000..1000, calibration.text[50_000..54_000].iter().copied());
        assert!(overlap(&[&calibration], &[&document("planted", text)]).leaks(), "{}", clean.name);
    }
}
