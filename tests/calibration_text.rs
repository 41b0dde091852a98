//! The text that a model is calibrated on when nobody gives one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use rwkv_forge_convert::{CALIBRATION_WINDOW, CALIBRATION_WINDOWS, PROBE_TEXT};
use rwkv_forge_corpus::{Document, GRAM_WORDS, builtin, builtin_calibration, overlap};
use rwkv_forge_tokenizer::Tokenizer;

use crate::support::{Dir, checkpoint, json, vocab};

/// All that the program measures on by itself.
fn measured_on() -> Vec<Document> {
    let mut texts = builtin().documents;
    texts.push(Document { name: "probe".to_owned(), category: None, text: PROBE_TEXT.as_bytes().to_vec() });
    texts
}

fn shared(calibration: &[Document]) -> u64 {
    let evaluation = measured_on();
    overlap(&calibration.iter().collect::<Vec<_>>(), &evaluation.iter().collect::<Vec<_>>()).grams_shared
}

#[test]
fn it_fills_the_windows_and_shares_no_passage_with_what_is_measured_on() {
    let calibration = builtin_calibration().documents;
    let world = Tokenizer::world();
    let tokens: usize = calibration.iter().map(|document| world.encode(&document.text).unwrap().len()).sum();
    assert!(tokens >= CALIBRATION_WINDOWS * CALIBRATION_WINDOW, "{tokens} tokens of World");
    assert_eq!(shared(&calibration), 0);
    // A planted sentence is seen.
    let sentence: Vec<String> = PROBE_TEXT.split_whitespace().take(GRAM_WORDS).map(str::to_owned).collect();
    let planted = Document { name: "planted".to_owned(), category: None, text: sentence.join(" ").into_bytes() };
    assert!(shared(&[planted]) > 0);
}

/// Calibration reads from the front as much as it needs: all kinds are there, however many tokens a vocabulary makes of the text.
#[test]
fn every_part_comes_early_and_none_is_lost() {
    let documents = builtin_calibration().documents;
    let mut names: Vec<&str> = documents.iter().map(|document| document.name.as_str()).collect();
    let first: std::collections::BTreeSet<&str> = names.iter().take(21).copied().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(first.len(), names.len());
    let early: usize = documents.iter().take(names.len()).map(|document| document.text.len()).sum();
    assert!(early < CALIBRATION_WINDOWS * CALIBRATION_WINDOW, "with a token a byte all kinds are within the windows: {early}");
    let kinds: std::collections::BTreeSet<&str> = documents.iter().filter_map(|document| document.category.as_deref()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["code", "drama", "language", "reference", "speech"]);
    for name in names {
        let whole: Vec<u8> = documents.iter().filter(|document| document.name == name).flat_map(|document| document.text.clone()).collect();
        let file = crate::support::fixture(&format!("../crates/corpus/data/calibration/{name}.txt"));
        assert_eq!(whole, std::fs::read(file).unwrap(), "{name}");
    }
}

#[test]
fn convert_and_plan_need_no_text_of_ones_own() {
    let dir = Dir::new();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (model, words, out) = (text(checkpoint("7")), text(vocab()), text(&dir.join("out.gguf")));
    let (recipe, named) = (text(&dir.join("plan.toml")), text(&dir.join("named.gguf")));
    let plan = ["plan", &model, "--size", "700K", "--vocab", &words, "--probe-windows", "1", "--bytes", "2000", "-o", &recipe];
    json(&plan, 0);
    let said = std::fs::read_to_string(&recipe).unwrap();
    assert!(said.contains("--calibrate --calibration-windows 64"), "{said}");
    // The command in the recipe's head finds the same statistics.
    let convert = ["convert", &model, "--to", "gguf", "--vocab", &words, "--recipe", &recipe, "--no-verify", "-o"];
    json(&[&convert[..], &[&out, "--calibrate"]].concat(), 0);
    json(&[&convert[..], &[&named, "--calibrate", "built-in"]].concat(), 0);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&named).unwrap());
}
